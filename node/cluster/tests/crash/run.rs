//! The run that is recorded: one node's log and state, driven as openraft drives them.
//!
//! Appends that are waited for and such that are not, votes, memberships, ends of the log that another leader cuts,
//! entries applied before they are synced, snapshots made and received, purges, restarts. Each change of the log is a
//! version; a log that is opened after a power cut must be one of those between the last that was acknowledged and the
//! last that was begun.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use futures_util::stream;
use nora_cluster::codec;
use nora_cluster::raft::covered::Covered;
use nora_cluster::raft::log_store::LogStore;
use nora_cluster::raft::recovery::agree;
use nora_cluster::raft::snapshot::{SnapshotHandle, write_manifest};
use nora_cluster::raft::state_machine::StateMachine;
use nora_cluster::raft::{Entry, LeaderId, LogId, Membership, TypeConfig, Vote};
use nora_cluster::rocks::Memory;
use nora_domain::{Command, Key, MemoryStore, NodeId, Record};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload};
use tempfile::TempDir;
use tokio::sync::broadcast;

use crate::intercept::{self, Note};
use crate::support::{entry, open_upload, workload};

/// Steps of a run.
const STEPS: u64 = 420;

pub type Hash = [u8; 32];

/// What a run did, as the check needs to know it.
#[derive(Default)]
pub struct Run {
    /// The log's versions: vote, beginning and entries, hashed.
    pub versions: Vec<Hash>,
    /// The entries that were committed, by index.
    pub history: Vec<Entry>,
    /// The state after each of them: its rows, hashed, and the hash that it carries.
    pub states: Vec<(Hash, Hash)>,
}

/// Hashes the parts of a log that are acknowledged.
pub fn log_hash(vote: Option<&Vote>, purged: Option<&LogId>, entries: &[Entry]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    part(&vote.map(codec::raft::encode_vote).unwrap_or_default());
    part(&purged.map(codec::raft::encode_log_id).unwrap_or_default());
    entries.iter().for_each(|entry| part(&codec::raft::encode_entry(entry)));
    *hasher.finalize().as_bytes()
}

/// Hashes a state.
pub fn state_hash(rows: impl Iterator<Item = (Key, Record)>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for (key, record) in rows {
        for bytes in [codec::key::encode(&key), codec::record::encode(&record)] {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(&bytes);
        }
    }
    *hasher.finalize().as_bytes()
}

/// Small write buffers, so that a short run flushes and merges tables.
pub fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(1 << 20, 256 << 10))
}

/// Opens both stores.
pub fn open(directory: &Path) -> std::io::Result<(LogStore, StateMachine)> {
    let (covered, memory) = (Covered::nothing(), memory());
    let log = LogStore::open(&directory.join("raft-log"), &memory, covered.clone())?;
    let events = broadcast::Sender::new(16);
    let state = StateMachine::open(directory.to_owned(), memory, NodeId(1), events, covered)?;
    Ok((log, state))
}

/// Applies entries.
pub async fn apply(state: &mut StateMachine, entries: Vec<Entry>) -> std::io::Result<()> {
    state.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await
}

/// Bytes of a file to flip a bit of: all of a small file, some of a large one.
pub fn places(length: usize) -> Vec<(usize, u8)> {
    let mut random = Random(length as u64 + 1);
    let bit = |random: &mut Random| random.below(8) as u8;
    if length <= 48 {
        return (0..length).map(|place| (place, bit(&mut random))).collect();
    }
    // The ends hold what the rest is found by.
    let mut places: BTreeSet<usize> =
        [0, 1, 4, 5, 6, 7, length - 1, length - 9, length - 48].into();
    places.extend((0..60).map(|_| random.below(length as u64) as usize));
    places.into_iter().map(|place| (place, bit(&mut random))).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// An append that nobody waits for yet.
type Pending = std::pin::Pin<Box<dyn Future<Output = ()>>>;

struct Node<'a> {
    directory: &'a Path,
    random: Random,
    commands: Vec<Command>,
    log: LogStore,
    state: StateMachine,
    term: u64,
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
    applied: u64,
    pending: Vec<Pending>,
    run: Run,
    store: MemoryStore,
    /// The leader's state, of which snapshots come: it applies one entry after another and never crashes.
    leader: StateMachine,
    _leader_directory: TempDir,
}

/// Makes a run in `directory`.
pub async fn run(seed: u64, directory: &Path) -> Run {
    let leader_directory = TempDir::new().unwrap();
    let (_, leader) = open(leader_directory.path()).unwrap();
    let (log, state) = open(directory).unwrap();
    let mut node = Node {
        directory,
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        commands: workload(4000),
        log,
        state,
        term: 0,
        vote: None,
        purged: None,
        entries: BTreeMap::new(),
        applied: 0,
        pending: Vec::new(),
        run: Run::default(),
        store: MemoryStore::default(),
        leader,
        _leader_directory: leader_directory,
    };
    node.run.versions.push(log_hash(None, None, &[]));
    node.elect().await;
    for _ in 0..STEPS {
        node.step().await;
    }
    node.append(1).await;
    node.settle().await;
    node.run
}

impl Node<'_> {
    async fn step(&mut self) {
        match self.random.below(100) {
            0..=44 => {
                let count = 1 + self.random.below(5);
                self.append(count).await;
                if self.random.below(4) > 0 {
                    self.settle().await;
                }
            }
            45..=49 => self.elect().await,
            50..=56 => self.lose_the_end().await,
            57..=84 => self.apply().await,
            85..=91 => self.snapshot().await,
            92..=94 => {
                self.settle().await;
                self.log.flush().unwrap();
                self.state.shared().state.load().flush().unwrap();
            }
            95..=96 => self.restart().await,
            _ => self.receive().await,
        }
    }

    /// The index after the last committed entry.
    fn next(&self) -> u64 {
        self.run.history.len() as u64
    }

    /// The next entry that will be committed; the model's state follows it.
    async fn commit_one(&mut self) -> Entry {
        let index = self.next();
        let log_id = LogId { leader_id: LeaderId::new(self.term, 1), index };
        let payload = match self.random.below(20) {
            0 => EntryPayload::Blank,
            1 => {
                let voters: BTreeSet<u64> = (1..=1 + self.random.below(3)).collect();
                let nodes: BTreeMap<_, _> =
                    voters.iter().map(|node| (*node, BasicNode::new(format!("n{node}")))).collect();
                EntryPayload::Membership(Membership::new(vec![voters], nodes).unwrap())
            }
            _ => {
                let command = &self.commands[index as usize];
                let _ = nora_domain::apply(&mut self.store, index, command).unwrap();
                entry(index, command).payload
            }
        };
        let entry = Entry { log_id, payload };
        let rows = self.store.rows().map(|(key, record)| (key.clone(), record.clone()));
        apply(&mut self.leader, vec![entry.clone()]).await.unwrap();
        let chain = self.leader.shared().state.load().chain().unwrap();
        self.run.states.push((state_hash(rows), *chain.hash()));
        self.run.history.push(entry.clone());
        entry
    }

    /// A version of the log is on its way.
    fn begun(&mut self) -> usize {
        let entries: Vec<_> = self.entries.values().cloned().collect();
        self.run.versions.push(log_hash(self.vote.as_ref(), self.purged.as_ref(), &entries));
        let version = self.run.versions.len() - 1;
        intercept::note(Note::Begun(version));
        version
    }

    async fn write(&mut self, entries: Vec<Entry>) {
        self.entries.extend(entries.iter().map(|entry| (entry.index(), entry.clone())));
        let version = self.begun();
        let (done, acknowledged) = TypeConfig::oneshot();
        self.log.append(entries, IOFlushed::signal(done)).await.unwrap();
        self.pending.push(Box::pin(async move {
            acknowledged.await.unwrap().unwrap();
            intercept::note(Note::Done(version));
        }));
    }

    async fn append(&mut self, count: u64) {
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(self.commit_one().await);
        }
        self.write(entries).await;
    }

    async fn settle(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            pending.await;
        }
    }

    async fn elect(&mut self) {
        self.term += 1;
        let vote = Vote { leader_id: LeaderId::new(self.term, 1), committed: true };
        self.vote = Some(vote);
        let version = self.begun();
        self.log.save_vote(&vote).await.unwrap();
        intercept::note(Note::Done(version));
    }

    /// Entries of a leader that loses them; the next one cuts them off and goes on.
    async fn lose_the_end(&mut self) {
        let from = self.next();
        let count = 1 + self.random.below(6);
        let lost = (from..from + count).map(|index| Entry {
            log_id: LogId { leader_id: LeaderId::new(self.term, 1), index },
            ..entry(index, &open_upload(1_000_000 + index))
        });
        self.write(lost.collect()).await;
        if self.random.below(2) == 0 {
            self.settle().await;
        }
        self.elect().await;
        let last = self.entries.range(..from).next_back().map(|(_, entry)| entry.log_id);
        self.entries.split_off(&from);
        self.begun();
        self.log.truncate_after(last.or(self.purged)).await.unwrap();
        self.append(1).await;
        if self.random.below(2) == 0 {
            // A follower applies what a quorum has, whether or not it has synced that itself.
            self.apply().await;
        }
    }

    async fn apply(&mut self) {
        let from = self.applied as usize;
        let left = (self.run.history.len() - from) as u64;
        if left == 0 {
            return;
        }
        let upto = from + 1 + self.random.below(left) as usize;
        let entries = self.run.history[from..upto].to_vec();
        let last = entries.last().map(|entry| entry.log_id);
        if self.random.below(2) == 0 {
            self.log.save_committed(last).await.unwrap();
        }
        apply(&mut self.state, entries).await.unwrap();
        self.applied = upto as u64;
    }

    async fn snapshot(&mut self) {
        let mut builder = self.state.try_create_snapshot_builder(true).await.unwrap();
        let made = builder.build_snapshot().await.unwrap();
        intercept::note(Note::Snapshot(made.meta.last_log_id));
        drop(made);
        let keep = self.random.below(30);
        let end = self.applied.saturating_sub(keep);
        if end == 0 || self.purged.is_some_and(|purged| purged.index + 1 >= end) {
            return;
        }
        let last = self.run.history[end as usize - 1].log_id;
        self.purge(last).await;
    }

    fn purge_model(&mut self, last: LogId) -> usize {
        self.purged = Some(last);
        self.entries = self.entries.split_off(&(last.index + 1));
        self.begun()
    }

    async fn purge(&mut self, last: LogId) {
        let version = self.purge_model(last);
        self.log.purge(last).await.unwrap();
        intercept::note(Note::Done(version));
    }

    /// A snapshot comes from the leader, and the log begins behind it.
    async fn receive(&mut self) {
        self.settle().await;
        for _ in 0..1 + self.random.below(20) {
            self.commit_one().await;
        }
        let mut builder = self.leader.try_create_snapshot_builder(true).await.unwrap();
        let snapshot = builder.build_snapshot().await.unwrap().snapshot;
        let to = self.directory.join("incoming").join("received");
        fs::create_dir_all(to.join("files")).unwrap();
        write_manifest(&to, snapshot.manifest()).unwrap();
        for file in fs::read_dir(snapshot.files()).unwrap().map(|file| file.unwrap().path()) {
            let copy = to.join("files").join(file.file_name().unwrap());
            fs::write(&copy, fs::read(&file).unwrap()).unwrap();
            File::open(copy).unwrap().sync_all().unwrap();
        }
        File::open(to.join("files")).unwrap().sync_all().unwrap();
        let received = SnapshotHandle::open(to).unwrap();
        let meta = received.meta();
        let last = meta.last_log_id.unwrap();
        let version = self.purge_model(last);
        let mut log = self.log.clone();
        let (installed, purged) =
            tokio::join!(self.state.install_snapshot(&meta, received), log.purge(last));
        installed.unwrap();
        purged.unwrap();
        intercept::note(Note::Done(version));
        intercept::note(Note::Snapshot(Some(last)));
        self.applied = last.index + 1;
    }

    /// The process ends in order and another begins.
    async fn restart(&mut self) {
        self.settle().await;
        let elsewhere = TempDir::new().unwrap();
        let (log, state) = open(elsewhere.path()).unwrap();
        drop(std::mem::replace(&mut self.log, log));
        drop(std::mem::replace(&mut self.state, state));
        let (log, state) = open(self.directory).unwrap();
        agree(&log, &state).unwrap();
        assert_eq!(state.applied().map_or(0, |applied| applied.index + 1), self.applied);
        (self.log, self.state) = (log, state);
        assert_eq!(
            crate::check::found(&mut self.log).await.unwrap(),
            *self.run.versions.last().unwrap()
        );
    }
}
