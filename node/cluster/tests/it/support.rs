//! What several tests need.

use std::path::Path;
use std::sync::Arc;

use nora_cluster::codec;
use nora_cluster::raft::covered::Covered;
use nora_cluster::raft::log_store::LogStore;
use nora_cluster::raft::state_machine::{Shared, StateMachine};
use nora_cluster::raft::{Entry, LeaderId, LogId, Proposal};
use nora_cluster::rocks::Memory;
use nora_cluster::{Cluster, ClusterConfig};
use nora_domain::{
    Action, Body, CloseUpload, Command, CommitBlob, DeleteArtifact, DeleteTag, Digest, Epoch,
    FeatureLevel, Format, Generation, Head, Key, MediaType, MountBlob, NodeId, NodeProfile,
    OpenUpload, Placement, PutArtifact, Record, RepositoryKey, RepositoryPath, StartNode, TagName,
    TenantName, Terms, Timestamp, UnlinkBlob, UploadId, recount::Recount,
};
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;
use tokio::sync::broadcast;

pub fn repository(number: u64) -> RepositoryKey {
    RepositoryKey {
        tenant: TenantName::parse(if number.is_multiple_of(2) { "default" } else { "frontend" })
            .unwrap(),
        format: Format::Oci,
        path: RepositoryPath::parse(&format!("library/image-{number}")).unwrap(),
    }
}

pub fn digest(number: u64) -> Digest {
    let mut value = [7; 32];
    value[..8].copy_from_slice(&number.to_be_bytes());
    Digest::sha256(value)
}

pub fn open_upload(number: u64) -> Command {
    let action = Action::OpenUpload(OpenUpload {
        upload: UploadId(u128::from(number)),
        repository: repository(0),
        node: NodeId(1),
        lives_millis: 1 << 50,
        reserve: 0,
    });
    Command { at: Timestamp(1), origin: None, terms: Terms::NONE, action }
}

pub fn start_node(node: u64) -> Action {
    let profile = NodeProfile { feature_max: FeatureLevel::NEWEST, ..NodeProfile::default() };
    Action::StartNode(StartNode { node: NodeId(node), start: 0, replaces: 0, profile })
}

/// Commands that build up and tear down a little of everything; the same for the same length.
pub fn workload(length: u64) -> Vec<Command> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut commands = vec![start_node(1)];
    while (commands.len() as u64) < length {
        let (to, blob, pin) = (repository(next(3)), digest(next(8)), UploadId(next(40).into()));
        let artifact = digest(100 + next(12));
        let tag = TagName::parse(&format!("v{}", next(6))).unwrap();
        let millis = next(2000);
        commands.push(match next(12) {
            0 => Action::OpenUpload(OpenUpload {
                upload: pin,
                repository: to,
                node: NodeId(1),
                lives_millis: millis,
                reserve: 0,
            }),
            1 => Action::CloseUpload(CloseUpload { tenant: to.tenant, upload: pin }),
            2..=4 => Action::CommitBlob(CommitBlob {
                repository: to,
                digest: blob,
                size: 10,
                generation: Generation { epoch: Epoch(1), sequence: commands.len() as u64 },
                node: NodeId(1),
                chunk_root: [3; 32],
                upload: pin,
                pin_millis: millis,
                placement: Placement::Nodes(vec![NodeId(1)]),
            }),
            5 => Action::MountBlob(MountBlob {
                from: to,
                to: repository(2),
                digest: blob,
                pin_millis: millis,
            }),
            6 => Action::UnlinkBlob(UnlinkBlob { repository: to, digest: blob }),
            7..=9 => Action::PutArtifact(PutArtifact {
                repository: to,
                digest: artifact,
                media_type: MediaType::parse("application/vnd.oci.image.manifest.v1+json").unwrap(),
                size: 4,
                body: Body::Inline(b"{ }\n".as_slice().into()),
                subject: (next(3) == 0).then(|| digest(200)),
                artifact_type: None,
                annotations: Default::default(),
                blobs: vec![blob],
                children: vec![],
                tags: vec![tag],
            }),
            10 => Action::DeleteArtifact(DeleteArtifact { repository: to, digest: artifact }),
            _ => Action::DeleteTag(DeleteTag { repository: to, tag }),
        });
    }
    (1..)
        .zip(commands)
        .map(|(at, action)| Command { at: Timestamp(at), origin: None, terms: Terms::NONE, action })
        .collect()
}

pub fn log_id(index: u64) -> LogId {
    LogId { leader_id: LeaderId::new(1, 1), index }
}

pub fn entry(index: u64, command: &Command) -> Entry {
    let proposal = Proposal { at: command.at, command: codec::command::encode(command).into() };
    Entry { log_id: log_id(index), payload: EntryPayload::Normal(proposal) }
}

pub fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(8 << 20, 2 << 20))
}

pub fn open_log(directory: &Path) -> LogStore {
    let covered = Covered::nothing();
    covered.reach(u64::MAX);
    open_log_covered(directory, covered)
}

/// A log that drops only what is covered.
pub fn open_log_covered(directory: &Path, covered: Covered) -> LogStore {
    LogStore::open(&directory.join("raft-log"), &memory(), covered).unwrap()
}

pub fn open_state(directory: &Path) -> (StateMachine, Arc<Shared>) {
    let events = broadcast::Sender::new(16);
    let node = NodeId(1);
    let machine =
        StateMachine::open(directory.to_owned(), memory(), node, events, Covered::nothing());
    let machine = machine.unwrap();
    let shared = machine.shared();
    (machine, shared)
}

/// Every row of a state.
pub fn rows(shared: &Shared) -> Vec<(Key, Record)> {
    shared.state.load().all().map(Result::unwrap).collect()
}

/// Every row of a node's state.
pub async fn cluster_rows(cluster: &Cluster) -> Vec<(Key, Record)> {
    cluster.inspect(|_, rows| rows.map(Result::unwrap).collect()).await.unwrap()
}

/// Asserts that nothing contradicts itself in a state.
pub fn assert_sound(head: &Head, rows: &[(Key, Record)]) {
    let mut recount = Recount::default();
    rows.iter().for_each(|(key, record)| recount.add(key, record));
    let findings = recount.finish(head);
    assert!(findings.is_empty(), "{findings:?}");
}

/// The head and every row of a node's state.
pub async fn cluster_state(cluster: &Cluster) -> (Head, Vec<(Key, Record)>) {
    let state = cluster.inspect(|head, rows| (head.clone(), rows.map(Result::unwrap).collect()));
    state.await.unwrap()
}

pub fn config(directory: &Path) -> ClusterConfig {
    ClusterConfig::new(directory.to_owned())
}

/// Runs a node in a runtime of its own, which ends as a crash does: nothing is shut down in order.
pub fn life<T>(config: ClusterConfig, work: impl AsyncFnOnce(Arc<Cluster>) -> T) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Arc::new(Cluster::start(config).await.unwrap());
        work(cluster).await
    })
}
