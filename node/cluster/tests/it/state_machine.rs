//! The state that entries lead to is the same however the log is cut, and is what the domain computes in memory.

use std::io;
use std::sync::Arc;

use futures_util::stream;
use nora_cluster::codec;
use nora_cluster::raft::chain::{Chain, EncodedRows};
use nora_cluster::raft::state_machine::{Shared, StateMachine};
use nora_cluster::raft::{Entry, Proposal, Snapshot};
use nora_cluster::rocks::state::Tier;
use nora_domain::{Command, Key, MemoryStore, Record, Rows, Store, Timestamp};
use openraft::EntryPayload;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use tempfile::TempDir;

use crate::support::{assert_sound, entry, log_id, open_state, repository, rows, workload};

async fn apply(machine: &mut StateMachine, entries: Vec<Entry>) -> io::Result<()> {
    machine.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await
}

fn entries(commands: &[Command]) -> Vec<Entry> {
    (1..).zip(commands).map(|(index, command)| entry(index, command)).collect()
}

fn expected_store(commands: &[Command]) -> MemoryStore {
    let mut store = MemoryStore::default();
    for (position, command) in (1..).zip(commands) {
        let _ = nora_domain::apply(&mut store, position, command).unwrap();
    }
    store
}

fn expected(commands: &[Command]) -> Vec<(Key, Record)> {
    let store = expected_store(commands);
    store.rows().map(|(key, record)| (key.clone(), record.clone())).collect()
}

async fn snapshot(machine: &mut StateMachine) -> Snapshot {
    let mut builder = machine.try_create_snapshot_builder(true).await.unwrap();
    builder.build_snapshot().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_equal_however_the_log_is_cut() {
    let commands = workload(600);
    let expected = expected(&commands);
    assert!(expected.len() > 20, "the workload leaves something: {} rows", expected.len());
    assert_sound(expected_store(&commands).head(), &expected);
    let mut chains = None;
    for cut in [1, 7, 64, 600] {
        let directory = TempDir::new().unwrap();
        let (mut machine, mut shared) = open_state(directory.path());
        for (number, chunk) in entries(&commands).chunks(cut).enumerate() {
            apply(&mut machine, chunk.to_vec()).await.unwrap();
            if number % 5 == 4 && cut >= 7 {
                drop((machine, shared));
                (machine, shared) = open_state(directory.path());
            }
        }
        assert_eq!(rows(&shared), expected, "cut into {cut}");
        let head = shared.state.load().head().unwrap();
        assert_eq!(&head, expected_store(&commands).head(), "cut into {cut}");
        let chain = shared.state.load().chain().unwrap();
        assert_eq!(*chains.get_or_insert(chain.clone()), chain, "cut into {cut}");
        assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(600)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_the_tail_give_the_same_state() {
    let commands = workload(600);
    let entries = entries(&commands);
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut machine, shared) = open_state(here.path());
    apply(&mut machine, entries[..300].to_vec()).await.unwrap();
    let first = snapshot(&mut machine).await;
    assert_eq!(first.meta.last_log_id, Some(log_id(300)));

    // What is applied after the snapshot began is not in it.
    let mut builder = machine.try_create_snapshot_builder(false).await.unwrap();
    apply(&mut machine, entries[300..].to_vec()).await.unwrap();
    let second = builder.build_snapshot().await.unwrap();
    assert_eq!(second.meta.last_log_id, Some(log_id(300)));

    let (mut other, other_shared) = open_state(there.path());
    apply(&mut other, entries[..10].to_vec()).await.unwrap();
    let installed = other_shared.installed.subscribe();
    other.install_snapshot(&second.meta, second.snapshot).await.unwrap();
    assert!(installed.has_changed().unwrap(), "who follows events has to compare");
    assert_eq!(rows(&other_shared), expected(&commands[..300]));
    apply(&mut other, entries[300..].to_vec()).await.unwrap();
    assert_eq!(rows(&other_shared), rows(&shared));
    let chain = |shared: &Shared| shared.state.load().chain().unwrap();
    assert_eq!(chain(&other_shared), chain(&shared));
    assert_eq!(rows(&other_shared), expected(&commands));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_a_later_version_stops_the_node_and_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let (mut machine, shared) = open_state(directory.path());
    let commands = workload(50);
    apply(&mut machine, entries(&commands)).await.unwrap();
    let before = rows(&shared);
    let future = Proposal { at: Timestamp(1), command: vec![0xc2, 0x0c, 0x00].into() };
    let entry = Entry { log_id: log_id(51), payload: EntryPayload::Normal(future) };
    let error = apply(&mut machine, vec![entry]).await.unwrap_err();
    assert!(error.to_string().contains("cannot understand the command at 51"), "{error}");
    assert_eq!(rows(&shared), before);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(50)));
}

/// Whether a row can be read without the disk, and whether it is there.
fn cold(shared: &Shared, key: &Key) -> (bool, bool) {
    let state = shared.state.load();
    (state.get(key, Tier::Memory).is_ok(), state.get(key, Tier::Disk).unwrap().is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_not_in_memory_are_read_from_the_disk() {
    let directory = TempDir::new().unwrap();
    let commands = workload(400);
    let (mut machine, shared) = open_state(directory.path());
    apply(&mut machine, entries(&commands[..300])).await.unwrap();
    shared.state.load().flush().unwrap();
    drop((machine, shared));

    // Opened anew, the rows are in a table of which only the first block was read, for the position.
    let (mut machine, shared) = open_state(directory.path());
    let (last, _) = expected(&commands[..300]).pop().unwrap();
    let (in_memory, on_disk) = cold(&shared, &last);
    assert!(!in_memory && on_disk);
    let tail = (301..).zip(&commands[300..]).map(|(index, command)| entry(index, command));
    apply(&mut machine, tail.collect()).await.unwrap();
    assert_eq!(rows(&shared), expected(&commands));
}

#[test]
fn a_scan_sees_what_earlier_commands_of_the_same_write_changed() {
    use nora_cluster::raft::overlay::{Overlay, Recent, Transaction};
    use nora_domain::TagName;
    use nora_domain::{Head, TagRecord, Target};

    let directory = TempDir::new().unwrap();
    let (_machine, shared) = open_state(directory.path());
    let key = |name: &str| Key::Tag(repository(0), TagName::parse(name).unwrap());
    let record = |at| {
        let target = Target::Artifact(crate::support::digest(1));
        Record::Tag(TagRecord { target, moved_at: Timestamp(at) })
    };
    let state = shared.state.load();
    let stored = ["b", "d", "f"].map(|name| (key(name), Some(Arc::new(record(0)))));
    let mut head = Head::default();
    let (mut chain, mut written) = (Chain::default(), EncodedRows::new());
    chain.extend(&log_id(1), &stored.into(), &head, &mut written);
    state.write(&written, &head, &log_id(1), &chain, None).unwrap();

    let (mut overlay, recent) = (Overlay::default(), Recent::default());
    let mut earlier = Transaction::new(&state, &recent, &overlay, &mut head, Tier::Memory);
    earlier.put(key("a"), record(1)).unwrap();
    earlier.put(key("c"), record(1)).unwrap();
    earlier.delete(&key("d")).unwrap();
    let changes = earlier.into_changes();
    overlay.merge(changes);
    let mut transaction = Transaction::new(&state, &recent, &overlay, &mut head, Tier::Memory);
    transaction.put(key("b"), record(2)).unwrap();
    transaction.delete(&key("a")).unwrap();
    transaction.put(key("g"), record(2)).unwrap();
    // Neighbouring tables do not belong to the run.
    transaction.put(Key::Tag(repository(1), TagName::parse("a").unwrap()), record(2)).unwrap();

    let found = |after: Option<&str>, limit| {
        let after = after.map(|name| TagName::parse(name).unwrap());
        let rows = Rows::Tags { repository: repository(0), after };
        transaction.scan(&rows, limit).unwrap()
    };
    let all = vec![
        (key("b"), record(2)),
        (key("c"), record(1)),
        (key("f"), record(0)),
        (key("g"), record(2)),
    ];
    assert_eq!(found(None, 10), all);
    assert_eq!(found(None, 2), all[..2]);
    assert_eq!(found(Some("b"), 2), all[1..3]);
    assert_eq!(found(Some("bb"), 9), all[1..]);
    assert_eq!(found(Some("g"), 9), []);
    assert_eq!(transaction.get(&key("d")).unwrap(), None);
    assert_eq!(codec::key::decode(&codec::key::encode(&key("d"))).unwrap(), key("d"));
}
