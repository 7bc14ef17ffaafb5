//! What it costs to apply commands: the state machine over RocksDB, without consensus, network or sync.
//!
//! `cargo bench -p nora-cluster --bench apply`. It prints the processor time of one command, which other work on the
//! machine disturbs less than a rate. It is for comparing two builds, and no test.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program for developers, which prints what it measured"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use nora_cluster::codec;
use nora_cluster::raft::covered::Covered;
use nora_cluster::raft::state_machine::StateMachine;
use nora_cluster::raft::{Entry, LeaderId, LogId, Proposal};
use nora_cluster::rocks::Memory;
use nora_domain::{
    Action, Actor, Body, Command, CommitBlob, Digest, Epoch, FeatureLevel, Format, Generation,
    MediaType, NodeId, NodeProfile, Origin, Placement, PutArtifact, RepositoryKey, RepositoryPath,
    StartNode, Subject, TagName, TenantName, Terms, Timestamp, UploadId,
};
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;
use openraft::vote::RaftLeaderId;
use tokio::sync::broadcast;

/// Commands of a kind, and how many are applied at once, about what 256 clients of a cluster make of it.
const COMMANDS: u64 = 50_000;
const BATCH: u64 = 50;

/// A manifest's size.
const BODY_BYTES: usize = 500;

struct Bench {
    state: StateMachine,
    index: u64,
    serial: u64,
}

impl Bench {
    async fn apply(&mut self, actions: Vec<Action>) {
        let entries: Vec<_> = actions.into_iter().map(|action| self.entry(action)).collect();
        let applied = self.state.apply(stream::iter(entries.into_iter().map(|e| Ok((e, None)))));
        applied.await.expect("the state machine applies what it is given");
    }

    fn entry(&mut self, action: Action) -> Entry {
        self.index += 1;
        let is_start = matches!(action, Action::StartNode(_));
        if !is_start {
            self.serial += 1;
        }
        let origin = (!is_start).then_some(Origin {
            epoch: Epoch(1),
            serial: self.serial,
            settled_below: self.serial,
        });
        let by = Actor {
            subject: Subject::Anonymous,
            token: None,
            address: "127.0.0.1".into(),
            request: "0123456789abcdef".into(),
        };
        let terms = Terms { by: Some(by), policy: Some(0), ..Terms::NONE };
        let command = Command { at: Timestamp(self.index), origin, terms, action };
        let command = codec::command::encode(&command).into();
        let log_id = LogId { leader_id: LeaderId::new(1, 1), index: self.index };
        let at = Timestamp(1_700_000_000_000 + self.index);
        Entry { log_id, payload: EntryPayload::Normal(Proposal { at, command }) }
    }

    /// Processor time of one command, all threads of this process together.
    async fn measure(&mut self, name: &str, make: impl Fn(u64) -> Action) {
        let before = processor_time();
        for first in (0..COMMANDS).step_by(BATCH as usize) {
            self.apply((first..first + BATCH).map(&make).collect()).await;
        }
        let each = (processor_time() - before) / COMMANDS as u32;
        println!("{name}: {:.2} µs of processor time a command", each.as_nanos() as f64 / 1000.0);
    }
}

/// Of all threads, those that ended included.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux says what a process used");
    // After the program's name, which may hold spaces: user and system time are fields 14 and 15, in hundredths.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

fn repository() -> RepositoryKey {
    RepositoryKey {
        tenant: TenantName::default_tenant(),
        format: Format::Oci,
        path: RepositoryPath::parse("bench/writes").expect("a valid path"),
    }
}

fn digest(kind: u8, number: u64) -> Digest {
    let mut value = *blake3::hash(&number.to_be_bytes()).as_bytes();
    value[0] = kind;
    Digest::sha256(value)
}

fn put(artifact: u64, tag: u64) -> Action {
    Action::PutArtifact(PutArtifact {
        repository: repository(),
        digest: digest(2, artifact),
        media_type: MediaType::parse("application/vnd.oci.image.manifest.v1+json")
            .expect("a valid media type"),
        size: BODY_BYTES as u64,
        body: Body::Inline(vec![b' '; BODY_BYTES].into()),
        subject: None,
        artifact_type: None,
        annotations: Default::default(),
        blobs: vec![digest(1, 0), digest(1, 1)],
        children: vec![],
        tags: vec![TagName::parse(&format!("t{tag}")).expect("a valid tag")],
    })
}

fn commit(number: u64) -> Action {
    Action::CommitBlob(CommitBlob {
        repository: repository(),
        digest: digest(1, number),
        size: 10,
        generation: Generation { epoch: Epoch(1), sequence: number + 1 },
        node: NodeId(1),
        chunk_root: [3; 32],
        upload: UploadId(number.into()),
        pin_millis: 3_600_000,
        placement: Placement::Nodes(vec![NodeId(1)]),
    })
}

#[tokio::main]
async fn main() {
    let directory = tempfile::TempDir::new().expect("a folder for the state");
    let memory = Arc::new(Memory::new(32 << 20, 16 << 20));
    let state = StateMachine::open(
        directory.path().to_owned(),
        memory,
        NodeId(1),
        broadcast::Sender::new(16),
        Covered::nothing(),
    );
    let mut bench = Bench { state: state.expect("an empty state opens"), index: 0, serial: 0 };
    let profile = NodeProfile { feature_max: FeatureLevel::NEWEST, ..NodeProfile::default() };
    bench
        .apply(vec![Action::StartNode(StartNode {
            node: NodeId(1),
            start: 0,
            replaces: 0,
            profile,
        })])
        .await;
    bench.apply(vec![commit(0), commit(1)]).await;
    bench.measure("a known manifest under a new tag", |number| put(0, number)).await;
    bench.measure("a new manifest under a tag that moves", |number| put(1 + number, 0)).await;
    bench.measure("a blob", |number| commit(2 + number)).await;
}
