//! The node's part in the cluster: what the rest of the program holds.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nora_app::ports::metadata::{Metadata, MetadataError};
use nora_app::ports::{BoxError, BoxFuture};
use nora_domain::command::{Action, Command, Outcome, Refusal};
use nora_domain::record::{Epoch, Key, NodeId, Record, Timestamp};
use nora_domain::store::Rows;
use openraft::async_runtime::WatchReceiver;
use openraft::error::{ClientWriteError, Fatal, LinearizableReadError, RaftError};
use openraft::{BasicNode, Raft, ReadPolicy, SnapshotPolicy};
use tokio::sync::{Semaphore, broadcast};

use crate::codec;
use crate::config::ClusterConfig;
use crate::linearize::{ProbeError, ProbeResult, SharedProbe};
use crate::raft::log_store::{LogStore, blocking};
use crate::raft::network::NoPeers;
use crate::raft::state_machine::{PositionedEvent, Shared, StateMachine};
use crate::raft::voters::SoleVoter;
use crate::raft::{Proposal, TypeConfig};
use crate::rocks::Memory;
use crate::rocks::state::{ReadError, StateDb, Tier};

/// The only node of a cluster of one.
const FIRST_NODE: u64 = 1;

/// Range tombstones slow reads down; one for so many entries does not.
const PURGE_ENTRIES_MIN: u64 = 1024;

type Consensus = Raft<TypeConfig, StateMachine>;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The stores could not be opened: another process has them, or they are damaged.
    #[error("cannot open the metadata in {}", data_dir.display())]
    Open {
        /// Where they are.
        data_dir: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Consensus did not come up.
    #[error("cannot {step}")]
    Consensus {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: BoxError,
    },
    /// The log says otherwise than it can: the state is damaged.
    #[error("the start of this node was answered with {answer}")]
    Answer {
        /// What the state machine answered.
        answer: String,
    },
}

/// Why a node's part in the cluster ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// It was shut down.
    #[error("the node was shut down")]
    Shutdown,
    /// A store failed; what is on disk is left as it is, and a restart recovers from it.
    #[error("the metadata store failed: {0}")]
    Failed(String),
}

/// How a node stands in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// This node.
    pub node: NodeId,
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// Voters, in order.
    pub voters: Vec<NodeId>,
    /// Position of the last entry in the log.
    pub log_index: Option<u64>,
    /// Position of the last entry applied.
    pub applied_index: Option<u64>,
    /// Position up to which the current snapshot goes.
    pub snapshot_index: Option<u64>,
    /// Position up to which the log was cut.
    pub purged_index: Option<u64>,
    /// Whether proposals and linearizable reads can be answered.
    pub ready: bool,
}

/// What the stores use, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreUsage {
    /// Block cache, with what write buffers are charged for.
    pub cache_bytes: u64,
    /// Write buffers.
    pub write_buffer_bytes: u64,
    /// Open tables, outside the cache.
    pub table_reader_bytes: u64,
    /// The log's tables on disk.
    pub log_disk_bytes: u64,
    /// The state's tables on disk.
    pub state_disk_bytes: u64,
}

/// A running node: the replicated state, and the way to change it.
pub struct Cluster {
    raft: Consensus,
    log: LogStore,
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    voters: Arc<SoleVoter>,
    probe: SharedProbe,
    proposals: Semaphore,
    disk_reads: Arc<Semaphore>,
    closed: AtomicBool,
    config: ClusterConfig,
    epoch: Epoch,
}

impl Cluster {
    /// Opens the stores, recovers, and makes this node's start known. On an empty data directory it begins a cluster
    /// of one.
    pub async fn start(config: ClusterConfig) -> Result<Self, StartError> {
        let opened = open_stores(config.clone())
            .await
            .map_err(|source| StartError::Open { data_dir: config.data_dir.clone(), source })?;
        let Stores { memory, voters, log, state_machine } = opened;
        let shared = state_machine.shared();
        let raft = Raft::new(
            FIRST_NODE,
            Arc::new(raft_config(&config).map_err(consensus("configure consensus"))?),
            NoPeers,
            log.clone(),
            state_machine,
        )
        .await
        .map_err(consensus("recover the log and the state"))?;
        take_lead(&raft, &config).await?;
        let effective = raft
            .with_raft_state(|state| state.membership_state.effective().as_ref().clone())
            .await
            .map_err(consensus("read the membership"))?;
        if let Some(at) = effective.log_id() {
            voters.applied(at.index, effective.membership());
        }
        let probe = SharedProbe::new(Box::new({
            let (raft, timeout) = (raft.clone(), config.answer_timeout);
            move || Box::pin(read_index(raft.clone(), timeout))
        }));
        let mut cluster = Self {
            raft,
            log,
            shared,
            memory,
            voters,
            probe,
            proposals: Semaphore::new(config.proposals_bytes_max),
            disk_reads: Arc::new(Semaphore::new(config.disk_reads_max)),
            closed: AtomicBool::new(false),
            config,
            epoch: Epoch(0),
        };
        cluster.epoch = cluster.announce().await?;
        Ok(cluster)
    }

    /// Proposes this node's start and takes the epoch that the state machine gives it.
    async fn announce(&self) -> Result<Epoch, StartError> {
        let action = Action::StartNode { node: self.node_id() };
        let answer = self
            .propose_command(Command { at: now(), action })
            .await
            .map_err(consensus("make this node's start known"))?;
        match answer {
            Ok(Outcome::NodeStarted(epoch)) => Ok(epoch),
            answer => Err(StartError::Answer { answer: format!("{answer:?}") }),
        }
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        NodeId(FIRST_NODE)
    }

    /// This start of this node.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How this node stands.
    pub fn status(&self) -> ClusterStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let running = metrics.running_state.is_ok() && !self.closed.load(Ordering::Acquire);
        ClusterStatus {
            node: self.node_id(),
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            voters: metrics.membership_config.voter_ids().map(NodeId).collect(),
            log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.as_ref().map(|log_id| log_id.index),
            snapshot_index: metrics.snapshot.as_ref().map(|log_id| log_id.index),
            purged_index: metrics.purged.as_ref().map(|log_id| log_id.index),
            ready: running && metrics.current_leader.is_some(),
        }
    }

    /// Waits until this node's part in the cluster ends. A store that fails ends it: going on could acknowledge what
    /// is not on disk, so the process should stop too.
    pub async fn stopped(&self) -> StopReason {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return stop_reason(fatal);
            }
            if metrics.changed().await.is_err() {
                let state = metrics.borrow_watched().running_state.clone();
                return state.err().as_ref().map_or(StopReason::Shutdown, stop_reason);
            }
        }
    }

    /// Makes a snapshot of the state as it is now, or later, and waits for it.
    pub async fn snapshot_now(&self) -> Result<(), MetadataError> {
        let applied = self.status().applied_index;
        self.raft.trigger().snapshot().await.map_err(|error| store_error(Box::new(error)))?;
        self.raft
            .wait(Some(self.config.start_timeout))
            .metrics(
                |metrics| metrics.snapshot.as_ref().map(|log_id| log_id.index) >= applied,
                "the snapshot that was asked for",
            )
            .await
            .map_err(|error| store_error(Box::new(error)))?;
        Ok(())
    }

    /// What happens from now on. A listener that falls more than `events_max` behind is told how many it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<PositionedEvent> {
        self.shared.events.subscribe()
    }

    /// What the stores use.
    pub fn usage(&self) -> StoreUsage {
        let state = self.shared.state.load();
        StoreUsage {
            cache_bytes: self.memory.cache_usage() as u64,
            write_buffer_bytes: self.memory.write_buffer_usage() as u64,
            table_reader_bytes: state.table_reader_bytes(),
            log_disk_bytes: self.log.disk_bytes(),
            state_disk_bytes: state.disk_bytes(),
        }
    }

    /// Gives every row of one moment, in key order, to `visit`, off the async threads.
    pub async fn inspect<T: Send + 'static>(
        &self,
        visit: impl FnOnce(&mut dyn Iterator<Item = Result<(Key, Record), MetadataError>>) -> T
        + Send
        + 'static,
    ) -> Result<T, MetadataError> {
        let state = self.shared.state.load_full();
        blocking(move || Ok(visit(&mut state.all().map(|row| row.map_err(read_error)))))
            .await
            .map_err(|error| store_error(Box::new(error)))
    }

    /// Ends this node's part in the cluster: takes no more proposals, and makes all that was applied durable.
    pub async fn shutdown(&self) -> Result<(), MetadataError> {
        self.closed.store(true, Ordering::Release);
        self.raft.shutdown().await.map_err(|error| store_error(Box::new(error)))?;
        let (state, log) = (self.shared.state.load_full(), self.log.clone());
        blocking(move || {
            state.flush().map_err(crate::rocks::io_error)?;
            log.flush()
        })
        .await
        .map_err(|error| store_error(Box::new(error)))
    }

    async fn propose_command(
        &self,
        command: Command,
    ) -> Result<Result<Outcome, Refusal>, MetadataError> {
        let bytes = codec::command::encode(&command);
        drop(command);
        self.propose_bytes(bytes).await
    }

    async fn propose_bytes(
        &self,
        bytes: Vec<u8>,
    ) -> Result<Result<Outcome, Refusal>, MetadataError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(MetadataError::NoLeader);
        }
        let (size, bytes_max) = (bytes.len(), self.config.command_bytes_max);
        if size > bytes_max {
            return Err(MetadataError::CommandTooLarge { bytes: size, bytes_max });
        }
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let _permit = self.proposals.try_acquire_many(permits).map_err(|_| MetadataError::Busy)?;
        let write = self.raft.client_write(Proposal(Bytes::from(bytes)));
        let written = tokio::time::timeout(self.config.answer_timeout, write)
            .await
            .map_err(|_| MetadataError::OutcomeUnknown)?
            .map_err(write_error)?;
        written.data.0.ok_or_else(|| store_error("a command was applied without an answer".into()))
    }

    /// Reads in memory at once; waits for the disk elsewhere.
    fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&StateDb, Tier) -> Result<T, ReadError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, MetadataError>> {
        match read(&self.shared.state.load(), Tier::Memory) {
            Err(ReadError::NotInMemory) => {}
            done => return Box::pin(std::future::ready(done.map_err(read_error))),
        }
        let (shared, disk_reads) = (self.shared.clone(), self.disk_reads.clone());
        Box::pin(async move {
            let permit = disk_reads.acquire_owned().await;
            blocking(move || {
                let _permit = permit;
                Ok(read(&shared.state.load(), Tier::Disk))
            })
            .await
            .map_err(|error| store_error(Box::new(error)))?
            .map_err(read_error)
        })
    }

    /// Proposes bytes as they are, as a node of another version might.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub async fn propose_raw(&self, bytes: Vec<u8>) -> Result<(), MetadataError> {
        self.propose_bytes(bytes).await.map(drop)
    }

    /// Asks the leader, whether or not this node is the only voter.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub async fn linearize_by_probe(&self) -> Result<(), MetadataError> {
        self.probe.wait().await.map_err(probe_error)
    }
}

impl Metadata for Cluster {
    fn propose(
        &self,
        command: Command,
    ) -> BoxFuture<'_, Result<Result<Outcome, Refusal>, MetadataError>> {
        Box::pin(self.propose_command(command))
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), MetadataError>> {
        // The proof that the only voter need not ask is in `raft::voters`. That this node has applied what was
        // acknowledged before its start is what `start` waits for.
        if self.voters.holds() {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(async move { self.probe.wait().await.map_err(probe_error) })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Record>, MetadataError>> {
        self.read(move |state, tier| state.get(&key, tier))
    }

    fn scan(
        &self,
        rows: Rows,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Key, Record)>, MetadataError>> {
        self.read(move |state, tier| state.scan(&rows, limit, tier))
    }
}

struct Stores {
    memory: Arc<Memory>,
    voters: Arc<SoleVoter>,
    log: LogStore,
    state_machine: StateMachine,
}

/// Opens both stores at once: most of an open is waiting for the disk.
async fn open_stores(config: ClusterConfig) -> io::Result<Stores> {
    blocking(move || {
        std::fs::create_dir_all(&config.data_dir)?;
        let memory = Arc::new(Memory::new(config.cache_bytes, config.write_buffer_bytes));
        let voters = Arc::new(SoleVoter::new(FIRST_NODE));
        let events = broadcast::Sender::new(config.events_max);
        let (log, state_machine) = std::thread::scope(|scope| {
            let log = scope.spawn(|| {
                LogStore::open(&config.data_dir.join("raft-log"), &memory, voters.clone())
            });
            let state_machine =
                StateMachine::open(config.data_dir.clone(), memory.clone(), voters.clone(), events);
            let log =
                log.join().unwrap_or_else(|_| Err(io::Error::other("opening the log panicked")));
            (log, state_machine)
        });
        Ok(Stores { log: log?, state_machine: state_machine?, memory, voters })
    })
    .await
}

fn raft_config(config: &ClusterConfig) -> Result<openraft::Config, openraft::ConfigError> {
    openraft::Config {
        cluster_name: "nora".to_owned(),
        heartbeat_interval: 250,
        election_timeout_min: 1000,
        election_timeout_max: 2000,
        enable_pre_vote: Some(true),
        install_snapshot_timeout: 600_000,
        max_payload_entries: 300,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        max_in_snapshot_log_to_keep: config.keep_entries,
        purge_batch_size: PURGE_ENTRIES_MIN,
        api_channel_size: Some(1024),
        ..openraft::Config::default()
    }
    .validate()
}

/// Begins the cluster if there is none, makes the only voter lead at once, and waits until all that was acknowledged
/// before is applied.
async fn take_lead(raft: &Consensus, config: &ClusterConfig) -> Result<(), StartError> {
    let initialized =
        raft.is_initialized().await.map_err(consensus("see whether there is a cluster"))?;
    if !initialized {
        let members = BTreeMap::from([(FIRST_NODE, BasicNode::new(&config.address))]);
        raft.initialize(members).await.map_err(consensus("begin a cluster"))?;
    }
    let (alone, leads) = raft
        .with_raft_state(|state| {
            let voters = state.membership_state.effective().voter_ids();
            (voters.eq([FIRST_NODE]), state.server_state.is_leader())
        })
        .await
        .map_err(consensus("read the membership"))?;
    if initialized && alone && !leads {
        // Nobody else could lead, so there is nobody to wait for.
        raft.trigger().elect(false).await.map_err(consensus("elect the only voter"))?;
    }
    raft.wait_for_recovery(Some(config.start_timeout))
        .await
        .map_err(consensus("apply what was acknowledged before"))?;
    Ok(())
}

async fn read_index(raft: Consensus, timeout: Duration) -> ProbeResult {
    let linearizer = raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(|error| {
        if let RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) = &error {
            tracing::warn!(%error, "the leader cannot reach a quorum");
        }
        ProbeError::NoLeader
    })?;
    match linearizer.try_await_ready(&raft, Some(timeout)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(ProbeError::Behind),
        Err(_) => Err(ProbeError::NoLeader),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn consensus<E: Into<BoxError>>(step: &'static str) -> impl FnOnce(E) -> StartError {
    move |error| StartError::Consensus { step, source: error.into() }
}

fn stop_reason(fatal: &Fatal<TypeConfig>) -> StopReason {
    match fatal {
        Fatal::Stopped => StopReason::Shutdown,
        Fatal::StorageError(error) => StopReason::Failed(error.to_string()),
        Fatal::Panicked => StopReason::Failed("consensus panicked".to_owned()),
    }
}

fn store_error(source: BoxError) -> MetadataError {
    MetadataError::Store(source)
}

fn read_error(error: ReadError) -> MetadataError {
    MetadataError::Store(Box::new(error))
}

fn probe_error(_: ProbeError) -> MetadataError {
    MetadataError::NoLeader
}

fn write_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MetadataError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => MetadataError::NoLeader,
        RaftError::APIError(error) => store_error(Box::new(error)),
        RaftError::Fatal(Fatal::StorageError(error)) => store_error(Box::new(error)),
        // Consensus ended with the proposal in its queue: nobody can tell how far it came.
        RaftError::Fatal(_) => MetadataError::OutcomeUnknown,
    }
}
