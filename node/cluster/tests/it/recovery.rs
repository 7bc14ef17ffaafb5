//! Starts after a crash or a loss: what is mended, and what is refused with its files left alone.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use futures_util::stream;
use nora_cluster::Cluster;
use nora_cluster::codec;
use nora_cluster::raft::covered::Covered;
use nora_cluster::raft::log_store::LogStore;
use nora_cluster::raft::recovery::agree;
use nora_cluster::raft::state_machine::StateMachine;
use nora_cluster::raft::{Entry, LeaderId, LogId, TypeConfig, Vote};
use nora_domain::NodeId;
use openraft::RaftLogReader;
use openraft::StorageHelper;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderId;
use rocksdb::{DB, Options};
use tempfile::TempDir;
use tokio::sync::broadcast;

use crate::support::{config, entry, life, memory, open_upload};

fn at(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId::new(term, 1), index }
}

fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    let of = |index| Entry { log_id: at(term, index), ..entry(index, &open_upload(index)) };
    indexes.map(of).collect()
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    let (done, acknowledged) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(done)).await.unwrap();
    acknowledged.await.unwrap().unwrap();
}

async fn vote(log: &mut LogStore, term: u64) {
    log.save_vote(&Vote { leader_id: LeaderId::new(term, 1), committed: true }).await.unwrap();
}

async fn apply(state: &mut StateMachine, entries: Vec<Entry>) {
    state.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await.unwrap();
}

fn try_open(directory: &Path) -> std::io::Result<(LogStore, StateMachine)> {
    let covered = Covered::nothing();
    let log = LogStore::open(&directory.join("raft-log"), &memory(), covered.clone())?;
    let events = broadcast::Sender::new(16);
    let state = StateMachine::open(directory.to_owned(), memory(), NodeId(1), events, covered)?;
    Ok((log, state))
}

fn open(directory: &Path) -> (LogStore, StateMachine) {
    try_open(directory).unwrap()
}

/// What openraft makes of both at a start: the last entry of the log.
async fn start(log: &mut LogStore, state: &mut StateMachine) -> Option<LogId> {
    agree(log, state).unwrap();
    StorageHelper::new(log, state)
        .with_id(1)
        .get_initial_state()
        .await
        .unwrap()
        .log_ids
        .last()
        .cloned()
}

/// Every file of the log and the number beside it, by name.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let log = fs::read_dir(directory.join("raft-log")).into_iter().flatten();
    let paths = log.map(|entry| entry.unwrap().path()).chain([directory.join("raft-log.synced")]);
    paths
        // RocksDB's own journal; each open begins another.
        .filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with("LOG"))
        .filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes)))
        .collect()
}

fn wal(directory: &Path) -> PathBuf {
    let of_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let paths =
        fs::read_dir(directory.join("raft-log")).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(of_log).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

async fn acknowledged(directory: &Path) {
    let (mut log, _state) = open(directory);
    vote(&mut log, 1).await;
    append(&mut log, entries(1, 0..20)).await;
    vote(&mut log, 2).await;
}

fn refused(directory: &Path, why: &str) {
    let before = files(directory);
    for _ in 0..2 {
        let error = try_open(directory).err().unwrap().to_string();
        assert!(error.contains(why) && error.contains("join anew"), "{error}");
        assert_eq!(files(directory), before, "a log that is refused is not changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_leftovers_below_its_beginning_starts() {
    let directory = TempDir::new().unwrap();
    {
        let (mut log, mut state) = open(directory.path());
        vote(&mut log, 1).await;
        append(&mut log, entries(1, 0..20)).await;
        apply(&mut state, entries(1, 0..20)).await;
        state.cover().unwrap();
    }
    {
        let mut options = Options::default();
        options.create_if_missing(false);
        let families = ["default", "entries"];
        let db = DB::open_cf(&options, directory.path().join("raft-log"), families).unwrap();
        db.put(b"purged", codec::raft::encode_log_id(&at(1, 25))).unwrap();
    }
    let (mut log, _state) = open(directory.path());
    assert_eq!(log.last().unwrap(), Some(at(1, 25)));
    let found = log.get_log_state().await.unwrap();
    assert_eq!((found.last_purged_log_id, found.last_log_id), (Some(at(1, 25)), Some(at(1, 25))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_leaves_nothing_and_is_whole_after_a_restart() {
    let directory = TempDir::new().unwrap();
    {
        let (mut log, mut state) = open(directory.path());
        vote(&mut log, 1).await;
        append(&mut log, entries(1, 0..20)).await;
        apply(&mut state, entries(1, 0..20)).await;
        state.cover().unwrap();
        log.purge(at(1, 19)).await.unwrap();
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(at(1, 19)));
    }
    let (mut log, mut state) = open(directory.path());
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), []);
    assert_eq!(start(&mut log, &mut state).await, Some(at(1, 19)));
    append(&mut log, entries(1, 20..30)).await;
    assert_eq!(log.last().unwrap(), Some(at(1, 29)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_rotted_is_refused_and_not_changed() {
    let directory = TempDir::new().unwrap();
    acknowledged(directory.path()).await;
    let wal = wal(directory.path());
    let whole = fs::read(&wal).unwrap();
    // At the beginning, in the middle, and in the last record, which holds the vote alone.
    for place in [8, whole.len() / 2, whole.len() - 3] {
        let mut rotten = whole.clone();
        rotten[place] ^= 0x40;
        fs::write(&wal, rotten).unwrap();
        refused(directory.path(), "is damaged");
    }
    fs::write(&wal, &whole[..whole.len() - 1]).unwrap();
    refused(directory.path(), "is damaged");
    fs::remove_file(&wal).unwrap();
    refused(directory.path(), "is damaged");
    fs::write(&wal, &whole).unwrap();
    let (mut log, _state) = open(directory.path());
    assert_eq!(log.last().unwrap(), Some(at(1, 19)));
    assert_eq!(log.read_vote().await.unwrap().unwrap().leader_id.term, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_was_never_synced_is_cut_off() {
    let directory = TempDir::new().unwrap();
    acknowledged(directory.path()).await;
    let wal = wal(directory.path());
    let whole = fs::read(&wal).unwrap();
    for tail in [vec![0; 5000], vec![0xa5; 40], vec![0x5a; 40_000]] {
        fs::write(&wal, [whole.clone(), tail].concat()).unwrap();
        let before = files(directory.path());
        let (mut log, _state) = open(directory.path());
        assert_eq!(log.last().unwrap(), Some(at(1, 19)));
        assert_eq!(log.read_vote().await.unwrap().unwrap().leader_id.term, 2);
        drop(log);
        fs::remove_dir_all(directory.path().join("raft-log")).unwrap();
        fs::create_dir(directory.path().join("raft-log")).unwrap();
        before.into_iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_went_missing_is_not_begun_anew() {
    let directory = TempDir::new().unwrap();
    acknowledged(directory.path()).await;
    let (log, beside) =
        (directory.path().join("raft-log"), directory.path().join("raft-log.synced"));
    let current = fs::read(log.join("CURRENT")).unwrap();
    fs::remove_file(log.join("CURRENT")).unwrap();
    refused(directory.path(), "is missing");
    fs::write(log.join("CURRENT"), current).unwrap();
    let number = fs::read(&beside).unwrap();
    fs::remove_file(&beside).unwrap();
    refused(directory.path(), "raft-log.synced is missing");
    fs::write(&beside, number).unwrap();
    fs::remove_dir_all(&log).unwrap();
    refused(directory.path(), "is missing");
    assert!(!log.exists());
}

#[test]
fn a_state_without_its_log_is_refused_at_every_start() {
    let directory = TempDir::new().unwrap();
    life(config(directory.path()), async |cluster| assert!(cluster.status().ready));
    fs::remove_dir_all(directory.path().join("raft-log")).unwrap();
    fs::remove_file(directory.path().join("raft-log.synced")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for _ in 0..2 {
        let error = runtime.block_on(Cluster::start(config(directory.path()))).err().unwrap();
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains("the log beside it is empty"), "{error}: {cause}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_ahead_by_term_takes_the_place_of_the_logs_end() {
    let directory = TempDir::new().unwrap();
    {
        // The log's end was cut and written again by the leader of term 2, and the power went before either was synced.
        let (mut log, mut state) = open(directory.path());
        vote(&mut log, 2).await;
        append(&mut log, entries(1, 0..16)).await;
        apply(&mut state, entries(1, 0..10)).await;
        apply(&mut state, entries(2, 10..12)).await;
    }
    for _ in 0..2 {
        let (mut log, mut state) = open(directory.path());
        assert_eq!(start(&mut log, &mut state).await, Some(at(2, 11)));
        assert_eq!(state.covered(), Some(at(2, 11)));
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), []);
    }
    let (mut log, mut state) = open(directory.path());
    append(&mut log, entries(2, 12..14)).await;
    assert_eq!(start(&mut log, &mut state).await, Some(at(2, 13)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_ahead_of_the_log_by_term_is_installed_at_the_start() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    {
        let (_log, mut other) = open(elsewhere.path());
        apply(&mut other, entries(1, 0..10)).await;
        apply(&mut other, entries(2, 10..12)).await;
        other.cover().unwrap();
        let (mut log, mut state) = open(directory.path());
        vote(&mut log, 2).await;
        append(&mut log, entries(1, 0..16)).await;
        apply(&mut state, entries(1, 0..5)).await;
    }
    // A crash came after the snapshot had its place and before the state of it had.
    let snapshots = fs::read_dir(elsewhere.path().join("snapshots")).unwrap();
    for snapshot in snapshots.map(|entry| entry.unwrap().path()) {
        let to = directory.path().join("snapshots").join(snapshot.file_name().unwrap());
        fs::rename(snapshot, to).unwrap();
    }
    let (mut log, mut state) = open(directory.path());
    assert_eq!(start(&mut log, &mut state).await, Some(at(2, 11)));
    assert_eq!(state.applied(), Some(at(2, 11)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_that_do_not_belong_together_are_refused() {
    let directory = TempDir::new().unwrap();
    let (mut log, mut state) = open(directory.path());
    vote(&mut log, 3).await;
    append(&mut log, entries(3, 0..16)).await;
    apply(&mut state, entries(1, 0..10)).await;
    let error = agree(&log, &state).unwrap_err().to_string();
    assert!(error.contains("ends at entry 9 of term 1, where the log has 9 of term 3"), "{error}");

    // A log that begins behind the end of the state: the state that it led to is gone.
    let directory = TempDir::new().unwrap();
    let (mut log, mut state) = open(directory.path());
    vote(&mut log, 1).await;
    append(&mut log, entries(1, 0..16)).await;
    apply(&mut state, entries(1, 0..5)).await;
    log.restart_after(&at(1, 15)).unwrap();
    let error = agree(&log, &state).unwrap_err().to_string();
    assert!(error.contains("begins after entry 15 of term 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_rotted_is_made_anew_of_the_state() {
    let directory = TempDir::new().unwrap();
    {
        let (mut log, mut state) = open(directory.path());
        vote(&mut log, 1).await;
        append(&mut log, entries(1, 0..16)).await;
        apply(&mut state, entries(1, 0..16)).await;
        state.cover().unwrap();
        log.purge(at(1, 10)).await.unwrap();
    }
    let snapshot = fs::read_dir(directory.path().join("snapshots")).unwrap().next().unwrap();
    let manifest = snapshot.unwrap().path().join("manifest");
    let whole = fs::read(&manifest).unwrap();
    for place in 0..whole.len() {
        let mut rotten = whole.clone();
        rotten[place] ^= 0x01;
        fs::write(&manifest, rotten).unwrap();
        let handle = nora_cluster::raft::snapshot::SnapshotHandle::open(
            manifest.parent().unwrap().to_owned(),
        );
        assert!(handle.is_err(), "byte {place}");
    }
    let (mut log, mut state) = open(directory.path());
    assert_eq!(state.covered(), None);
    assert_eq!(start(&mut log, &mut state).await, Some(at(1, 15)));
    assert_eq!(state.covered(), Some(at(1, 15)));
}
