//! Snapshots and installs that a crash cut short at any step.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::stream;
use nora_cluster::raft::snapshot::SnapshotHandle;
use nora_cluster::raft::state_machine::StateMachine;
use nora_domain::{Key, Record};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use tempfile::TempDir;

use crate::support::{entry, log_id, open_state, rows, workload};

async fn apply(machine: &mut StateMachine, from: usize, to: usize) {
    let commands = workload(to as u64);
    let entries = (1..).zip(&commands).skip(from).map(|(index, command)| entry(index, command));
    let entries: Vec<_> = entries.map(|entry| Ok((entry, None))).collect();
    machine.apply(stream::iter(entries)).await.unwrap();
}

async fn build(machine: &mut StateMachine) -> SnapshotHandle {
    let mut builder = machine.try_create_snapshot_builder(true).await.unwrap();
    builder.build_snapshot().await.unwrap().snapshot
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn names(directory: PathBuf) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A finished snapshot at 100, and the rows it holds.
async fn finished(directory: &Path) -> (SnapshotHandle, Vec<(Key, Record)>) {
    let (mut machine, shared) = open_state(directory);
    apply(&mut machine, 0, 100).await;
    let snapshot = build(&mut machine).await;
    let rows = rows(&shared);
    (snapshot, rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_snapshot_is_kept_and_readers_of_an_older_one_keep_it() {
    let directory = TempDir::new().unwrap();
    let (mut machine, shared) = open_state(directory.path());
    apply(&mut machine, 0, 50).await;
    let first = build(&mut machine).await;
    apply(&mut machine, 50, 60).await;
    let second = build(&mut machine).await;
    first.verify().unwrap();
    second.verify().unwrap();
    assert_eq!(names(directory.path().join("snapshots")).len(), 2, "the first is being read");
    drop(first);
    assert_eq!(names(directory.path().join("snapshots")).len(), 1);
    let current = shared.snapshots.current().unwrap();
    assert_eq!(current.meta().last_log_id, Some(log_id(60)));

    // Nothing was applied since, so the same snapshot serves.
    let again = build(&mut machine).await;
    assert_eq!(again.directory(), second.directory());
    assert_eq!(names(directory.path().join("snapshots")).len(), 1);
    again.verify().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leftovers_of_a_crash_are_removed_and_the_rest_stands() {
    let directory = TempDir::new().unwrap();
    let (snapshot, expected) = finished(directory.path()).await;
    let snapshots = directory.path().join("snapshots");
    let name = snapshot.directory().file_name().unwrap().to_str().unwrap().to_owned();
    drop(snapshot);

    // A snapshot killed while it was built; one whose rename came without its manifest; one that lost a file; an older
    // one that was not removed yet.
    copy(&snapshots.join(&name), &snapshots.join("new.building"));
    copy(&snapshots.join(&name), &snapshots.join("00000000000000000200-1-1"));
    fs::remove_file(snapshots.join("00000000000000000200-1-1/manifest")).unwrap();
    copy(&snapshots.join(&name), &snapshots.join("00000000000000000300-1-1"));
    fs::remove_file(snapshots.join("00000000000000000300-1-1/files/CURRENT")).unwrap();
    // An install killed while it copied, one killed before it was made the live state, and one while it was.
    let state = directory.path().join("state");
    copy(&snapshots.join(&name).join("files"), &state.join("2.building"));
    copy(&snapshots.join(&name).join("files"), &state.join("3"));
    fs::write(state.join("ACTIVE.tmp"), "3").unwrap();

    let (mut machine, shared) = open_state(directory.path());
    assert_eq!(rows(&shared), expected);
    assert_eq!(names(snapshots), [name]);
    assert_eq!(names(state), ["1", "ACTIVE"]);
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(100)));
    current.snapshot.verify().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_install_becomes_the_state_and_survives_a_restart() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (snapshot, expected) = finished(here.path()).await;
    let received = there.path().join("snapshots/received.building");

    let (mut machine, shared) = open_state(there.path());
    apply(&mut machine, 0, 20).await;
    let own = build(&mut machine).await;
    copy(&snapshot.directory(), &received);
    let handle = SnapshotHandle::open(received.clone()).unwrap();
    let before = shared.state.load_full();
    machine.install_snapshot(&handle.meta(), handle).await.unwrap();
    assert_eq!(rows(&shared), expected);
    assert!(!received.exists(), "the received files became the snapshot");
    assert!(before.all().count() > 0, "a read that was under way goes on with the old state");
    assert_eq!(names(there.path().join("state")), ["1", "2", "ACTIVE"]);
    drop((before, own));
    assert_eq!(names(there.path().join("state")), ["2", "ACTIVE"]);
    assert_eq!(names(there.path().join("snapshots")).len(), 1);
    drop((machine, shared));

    let (mut machine, shared) = open_state(there.path());
    assert_eq!(rows(&shared), expected);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(100)));
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(100)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_arrived_damaged_is_refused_and_the_state_stays() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (snapshot, _) = finished(here.path()).await;
    let (mut machine, shared) = open_state(there.path());
    apply(&mut machine, 0, 20).await;
    let before = rows(&shared);
    let received = there.path().join("received");
    copy(&snapshot.directory(), &received);
    let table = names(received.join("files")).into_iter().find(|name| name.ends_with(".sst"));
    let table = received.join("files").join(table.unwrap());
    let mut bytes = fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&table, bytes).unwrap();

    let handle = SnapshotHandle::open(received).unwrap();
    let error = machine.install_snapshot(&handle.meta(), handle).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert_eq!(rows(&shared), before);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(20)));
}

#[test]
fn a_state_directory_without_its_pointer_is_not_begun_anew() {
    let directory = TempDir::new().unwrap();
    drop(open_state(directory.path()));
    fs::remove_file(directory.path().join("state/ACTIVE")).unwrap();
    let opened = std::panic::catch_unwind(|| open_state(directory.path()));
    assert!(opened.is_err(), "an empty state in place of the lost one would be served as truth");
    assert!(directory.path().join("state/1").exists());
}
