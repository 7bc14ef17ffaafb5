//! The node's part in the cluster: what the rest of the program holds.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use futures_util::future::join_all;
use nora_app::ports::BoxFuture;
use nora_app::ports::metadata::{Metadata, MetadataError, ask};
use nora_domain::{
    Ask, AuthorityKeys, ClusterId, Command, Epoch, FoundCluster, Head, Key, NodeId, NodeProfile,
    Outcome, Record, Refusal, Rows, SharedSecret, StartNode, Terms, Timestamp,
};
use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::members_client::MembersClient;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::{ClockLimits, ClusterClock, keep_comparing};
use crate::codec;
use crate::config::ClusterConfig;
use crate::consensus::{Consensus, Membership, begin, elect_if_alone, raft_config};
use crate::error::{StartError, StopReason, consensus, read_error, stop_reason, store_error};
use crate::leader::{Desk, Leader};
use crate::linearize::{ProbeError, ProbeResult, SharedProbe};
use crate::members::Differences;
use crate::proposals::{Answer, Proposals};
use crate::raft::chain::Mark;
use crate::raft::covered::Covered;
use crate::raft::log_store::{LogStore, blocking};
use crate::raft::recovery;
use crate::raft::state_machine::{PositionedEvent, Shared, StateMachine};
use crate::rocks::Memory;
use crate::rocks::state::{ReadError, StateDb, Tier};
use crate::status::{ClusterStatus, StoreUsage};
use crate::transport::network::Network;
use crate::transport::service::Services;
use crate::transport::{Alone, Incoming, Lane, Peers, Transport};

/// How long open proposals may take to be answered when the node shuts down.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before asking the leader again how far it has committed.
const PROBE_PAUSE: Duration = Duration::from_millis(30);

/// A running node: the replicated state, and the way to change it.
pub struct Cluster {
    raft: Consensus,
    log: LogStore,
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    services: Services,
    proposals: Proposals,
    probe: SharedProbe,
    clock: Arc<ClusterClock>,
    /// Ends with the node's part in the cluster.
    _comparing: JoinSet<()>,
    disk_reads: Arc<Semaphore>,
    /// What the founder has to tell once it leads.
    founding: Mutex<Option<(ClusterId, AuthorityKeys)>>,
    /// What comparisons of the members' states found.
    differences: Mutex<Differences>,
    closed: AtomicBool,
    /// Names this start in every attempt to enter. A late copy of an earlier attempt then changes nothing.
    start: u128,
    config: ClusterConfig,
}

impl Cluster {
    /// Opens a cluster of one that nobody joins: begins it if there is none, recovers, and makes this start known.
    pub async fn start(config: ClusterConfig) -> Result<Self, StartError> {
        let cluster = Self::open(config, Arc::new(Alone)).await?;
        begin(&cluster.raft, cluster.config.node, &cluster.config.address).await?;
        cluster.enter().await?;
        Ok(cluster)
    }

    /// Opens the stores and takes part in consensus, without waiting for anybody: [`Self::services`] can be served, and
    /// must be for others to reach this node. Then call [`Self::found`] on the founder, and [`Self::enter`].
    pub async fn open(
        config: ClusterConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        let start = random().map_err(|error| consensus("name this start")(error.to_string()))?;
        let opened = open_stores(config.clone())
            .await
            .map_err(|source| StartError::Open { data_dir: config.data_dir.clone(), source })?;
        let Stores { memory, log, state_machine } = opened;
        let shared = state_machine.shared();
        let peers = Arc::new(Peers::new(transport, shared.addresses.clone()));
        let raft = Raft::new(
            config.node.0,
            Arc::new(raft_config(&config).map_err(consensus("configure consensus"))?),
            Network::new(config.node, peers.clone(), shared.catch_up.clone()),
            log.clone(),
            state_machine,
        )
        .await
        .map_err(consensus("recover the log and the state"))?;
        shared.catch_up.watch(raft.metrics(), log.clone(), config.log_bytes_max);
        let clock = Arc::new(ClusterClock::new(
            config.node,
            config.wall.clone(),
            ClockLimits { skew_max: config.clock_skew_max, step_max: config.clock_step_max },
            shared.clock.clone(),
        ));
        let mut comparing = JoinSet::new();
        comparing.spawn(keep_comparing(clock.clone(), raft.clone(), peers.clone()));
        let desk = Desk::new(raft.clone(), clock.clone(), config.proposals_bytes_max);
        let desk = Arc::new(desk);
        let leader = Arc::new(Leader::new(raft.clone(), config.node, peers.clone(), desk.clone()));
        let probe = SharedProbe::new(Box::new({
            let (raft, leader, timeout) = (raft.clone(), leader.clone(), config.answer_timeout);
            move || Box::pin(read_index(raft.clone(), leader.clone(), timeout))
        }));
        let waiting = shared.waiting.clone();
        let proposals = Proposals::start(waiting.clone(), leader, config.proposals_bytes_max);
        let stopped = stopped(raft.clone());
        tokio::spawn(async move {
            stopped.await;
            waiting.end();
        });
        let incoming = Arc::new(Incoming::new(config.data_dir.join("incoming")));
        Ok(Self {
            services: Services { raft: raft.clone(), peers, desk, incoming, clock: clock.clone() },
            raft,
            log,
            shared,
            memory,
            proposals,
            probe,
            clock,
            _comparing: comparing,
            disk_reads: Arc::new(Semaphore::new(config.disk_reads_max)),
            founding: Mutex::default(),
            differences: Mutex::default(),
            closed: AtomicBool::new(false),
            start,
            config,
        })
    }

    /// What this node serves to other members: gRPC routes. Each request must carry what the transport tells its caller
    /// by.
    pub fn services(&self) -> axum::Router {
        self.services.clone().router()
    }

    /// Begins a cluster with this node as its only voter, unless this node is in one already; [`Self::enter`] then makes
    /// the cluster's name and authority known. To be called at every start of a node that has not seen that done.
    pub async fn found(
        &self,
        cluster: ClusterId,
        authority: AuthorityKeys,
    ) -> Result<(), StartError> {
        begin(&self.raft, self.config.node, &self.config.address).await?;
        *crate::rocks::locked(&self.founding) = Some((cluster, authority));
        Ok(())
    }

    /// Makes this node's start known and takes the epoch that the cluster gives it, within `start_timeout`. When it
    /// returns, this node's state shows all that was acknowledged before the call.
    pub async fn enter(&self) -> Result<Epoch, StartError> {
        elect_if_alone(&self.raft, self.config.node).await?;
        let start = self.start;
        let deadline = Instant::now() + self.config.start_timeout;
        let epoch = loop {
            let command = codec::command::encode(&Command {
                at: Timestamp(0),
                origin: None,
                terms: Terms::NONE,
                action: StartNode {
                    node: self.config.node,
                    start,
                    replaces: self.last_start().await?,
                    profile: self.profile(),
                }
                .into(),
            });
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = match self.proposals.propose_start(start, command, left).await {
                Ok(answer) => answer,
                Err(source) => return Err(self.not_entered(source)),
            };
            match answer.map(StartNode::done) {
                Ok(Ok(epoch)) => break epoch,
                // The state that answered is this node's own: it shows the start that came in between.
                Err(Refusal::StartReplaced) if Instant::now() < deadline => {}
                Err(Refusal::NodeRemoved(node)) => return Err(StartError::Removed { node }),
                answer => return Err(StartError::Answer { answer: format!("{answer:?}") }),
            }
        };
        self.shared.waiting.enter(epoch);
        self.make_founding_known().await?;
        Ok(epoch)
    }

    /// The last start of this node that its state shows; 0 if it shows none.
    async fn last_start(&self) -> Result<u128, StartError> {
        let node = self.config.node;
        let record = self.read(move |state, tier| state.get(&Key::Node(node), tier)).await;
        Ok(match record.map_err(consensus("read this node's row"))? {
            Some(Record::Node(record)) => record.start,
            _ => 0,
        })
    }

    fn not_entered(&self, source: MetadataError) -> StartError {
        match &self.raft.metrics().borrow_watched().running_state {
            Err(fatal) => StartError::Consensus {
                step: "make this node's start known",
                source: stop_reason(fatal).into(),
            },
            Ok(()) => StartError::NoLeader { within: self.config.start_timeout, source },
        }
    }

    fn profile(&self) -> NodeProfile {
        let mut profile = self.config.profile.clone();
        if profile.cluster_address.is_empty() {
            profile.cluster_address.clone_from(&self.config.address);
        }
        profile
    }

    async fn make_founding_known(&self) -> Result<(), StartError> {
        let Some((expected, authority)) = crate::rocks::locked(&self.founding).take() else {
            return Ok(());
        };
        let secret = nora_trust::new_secret()
            .map_err(|error| consensus("make the cluster's secret")(error.to_string()))?;
        let secret = SharedSecret(secret);
        let storage = self.config.storage;
        let command = FoundCluster { cluster: expected, authority, secret, storage };
        let answer = ask(self, command).await.map_err(consensus("found the cluster"))?;
        if !matches!(answer, Ok(()) | Err(Refusal::ClusterFounded)) {
            return Err(StartError::Answer { answer: format!("{answer:?}") });
        }
        let found = match self.get(Key::Cluster).await.map_err(consensus("read the cluster"))? {
            Some(Record::Cluster(record)) => record.cluster,
            _ => None,
        };
        if found != Some(expected) {
            return Err(StartError::ForeignCluster { expected, found });
        }
        Ok(())
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.config.node
    }

    /// This start of this node; 0 before it has entered.
    pub fn epoch(&self) -> Epoch {
        self.shared.waiting.epoch()
    }

    /// How this node stands.
    pub fn status(&self) -> ClusterStatus {
        let metrics = self.raft.metrics();
        let closed = self.closed.load(Ordering::Acquire);
        let differences = crate::rocks::locked(&self.differences).clone();
        let clock = self.clock.status();
        ClusterStatus::of(self.config.node, &metrics.borrow_watched(), differences, closed, clock)
    }

    /// The cluster's clock, as far as this node knows. What several nodes compare must be of this clock, and never of a
    /// node's wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Who sent a request, if it was a member: one that was removed is none, whatever its certificate says.
    pub fn caller(&self, extensions: &http::Extensions) -> Option<NodeId> {
        self.services.peers.caller(extensions)
    }

    /// Whether a node was removed for good, as far as this node has applied.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.services.peers.is_removed(node)
    }

    /// Changes each time that open connections have to be looked at: a node was removed, or the authorities that this node
    /// trusts have changed.
    pub fn changes_of_trust(&self) -> watch::Receiver<u64> {
        self.services.peers.changes()
    }

    /// Lets members' requests through to these routes. Others are refused before anything of their messages is read, which
    /// may be as long as members' messages are.
    pub fn members_only(&self, routes: axum::Router) -> axum::Router {
        let peers = self.services.peers.clone();
        routes.layer(from_fn(move |request: Request, next: Next| {
            let refusal = peers.refusal(request.extensions());
            async move {
                match refusal {
                    None => next.run(request).await,
                    Some(refusal) => refusal.into_http::<axum::body::Body>().into_response(),
                }
            }
        }))
    }

    /// A connection to another member, for other services than this crate's; none if nothing is known of it.
    pub fn channel(&self, node: NodeId) -> Option<tonic::transport::Channel> {
        let known = || crate::consensus::address(&self.raft, node);
        self.services.peers.channel(node, Lane::Bulk, known)
    }

    /// Waits until this node's part in the cluster ends. A store that fails ends it: going on could acknowledge what
    /// is not on disk, so the process should stop too.
    pub async fn stopped(&self) -> StopReason {
        stopped(self.raft.clone()).await
    }

    /// Makes a snapshot of the state as it is now, or later, and waits for it.
    pub async fn snapshot_now(&self) -> Result<(), MetadataError> {
        let applied = self.status().applied_index;
        let deadline = Instant::now() + self.config.start_timeout;
        loop {
            self.shared.catch_up.want_snapshot();
            // Asked for while another one is being made, it is not made: so it is asked for again.
            self.raft.trigger().snapshot().await.map_err(store_error)?;
            let made = self
                .raft
                .wait(Some(SNAPSHOT_ASK_AGAIN))
                .metrics(
                    |metrics| metrics.snapshot.as_ref().map(|log_id| log_id.index) >= applied,
                    "the snapshot that was asked for",
                )
                .await;
            match made {
                Ok(_) => {
                    self.shared.catch_up.has_snapshot();
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => return Err(store_error(error)),
                Err(_) => {}
            }
        }
    }

    /// What happens from now on. A listener that falls more than `events_max` behind is told how many it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<PositionedEvent> {
        self.shared.events.subscribe()
    }

    /// How many snapshots took the place of this node's state since its start. No event tells of what they changed.
    pub fn snapshots_installed(&self) -> watch::Receiver<u64> {
        self.shared.installed.subscribe()
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

    /// Gives the head and every row, in key order, to `visit`, off the async threads. Of a node that applies nothing
    /// meanwhile, both are of one moment.
    pub async fn inspect<T: Send + 'static>(
        &self,
        visit: impl FnOnce(&Head, &mut dyn Iterator<Item = Result<(Key, Record), MetadataError>>) -> T
        + Send
        + 'static,
    ) -> Result<T, MetadataError> {
        let state = self.shared.state.load_full();
        blocking(move || {
            let head = state.head().map_err(io::Error::other)?;
            Ok(visit(&head, &mut state.all().map(|row| row.map_err(read_error))))
        })
        .await
        .map_err(store_error)
    }

    /// Ends this node's part in the cluster: takes no more proposals, lets another voter lead, waits for what is open, and
    /// makes all that was applied durable. The services must be served until it returns.
    pub async fn shutdown(&self) -> Result<(), MetadataError> {
        self.closed.store(true, Ordering::Release);
        let status = self.status();
        if status.leader == Some(self.config.node) && status.voters.len() > 1 {
            match self.membership().transfer_leader(None).await {
                Ok(to) => tracing::info!(to = to.0, "another node leads"),
                Err(error) => tracing::warn!(%error, "no other node took the lead in time"),
            }
        }
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, self.shared.waiting.drained());
        if self.raft.metrics().borrow_watched().running_state.is_ok() && drained.await.is_err() {
            tracing::warn!("some proposals were not answered before the shutdown");
        }
        self.raft.shutdown().await.map_err(store_error)?;
        let (state, log) = (self.shared.state.load_full(), self.log.clone());
        blocking(move || {
            state.flush().map_err(crate::rocks::io_error)?;
            log.flush()
        })
        .await
        .map_err(store_error)
    }

    /// Hashes of this node's state after some of the entries that led to it.
    pub(crate) async fn marks(&self) -> Result<Vec<Mark>, MetadataError> {
        let state = self.shared.state.load_full();
        let chain = blocking(move || Ok(state.chain())).await.map_err(store_error)?;
        Ok(chain.map_err(read_error)?.marks().to_vec())
    }

    /// Members whose state differs from this node's, as a comparison found them.
    pub(crate) fn note_differences(&self, members: BTreeMap<NodeId, u64>) {
        let mut differences = crate::rocks::locked(&self.differences);
        differences.found += members.len() as u64;
        differences.members = members;
    }

    /// Other members, and who calls.
    pub(crate) fn peers(&self) -> &Peers {
        &self.services.peers
    }

    /// Changes of who takes part.
    pub(crate) fn membership(&self) -> Membership {
        Membership::new(self.raft.clone())
    }

    async fn propose_command(&self, command: Command) -> Result<Answer, MetadataError> {
        // Which proposal it is, this node alone says.
        let bytes = codec::command::encode(&Command { origin: None, ..command });
        self.propose_bytes(bytes).await
    }

    async fn propose_bytes(&self, bytes: Vec<u8>) -> Result<Answer, MetadataError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(MetadataError::NoLeader);
        }
        let (size, bytes_max) = (bytes.len(), self.config.command_bytes_max);
        if size > bytes_max {
            return Err(MetadataError::CommandTooLarge { bytes: size, bytes_max });
        }
        self.proposals.propose(bytes, self.config.answer_timeout).await
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
            .map_err(store_error)?
            .map_err(read_error)
        })
    }

    /// Proposes bytes as they are, as a node of another version might.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub async fn propose_raw(&self, bytes: Vec<u8>) -> Result<(), MetadataError> {
        self.propose_bytes(bytes).await.map(drop)
    }

    /// Changes of who takes part.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn members(&self) -> Membership {
        self.membership()
    }
}

/// How soon a snapshot that is not there yet is asked for again.
const SNAPSHOT_ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long a deletion waits for other members to show it.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a member that is behind is asked.
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

impl Cluster {
    /// Waits until `node` has applied what stands up to `index`, or does not answer.
    async fn follow(&self, node: NodeId, index: u64) {
        let Some(channel) = self.channel(node) else { return };
        let mut client = MembersClient::new(channel);
        while let Ok(report) = client.report(proto::ReportRequest {}).await {
            if report.into_inner().applied_index >= index {
                return;
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }
}

impl Metadata for Cluster {
    fn settle(&self) -> BoxFuture<'_, ()> {
        let status = self.status();
        // Consensus tells a little later how far the state is than the state shows it.
        let shown = self.shared.state.load().applied().ok().flatten();
        let (me, index) = (self.config.node, shown.map_or(0, |applied| applied.index));
        // A member that fell silent must not hold up every deletion.
        let reachable = self.clock.reachable();
        let others: Vec<_> = status
            .voters
            .into_iter()
            .chain(status.learners)
            .filter(|node| *node != me && reachable.contains(node))
            .map(|node| self.follow(node, index))
            .collect();
        Box::pin(async move {
            // One that takes too long is left behind; it answers stale for as long as it is.
            let _ = tokio::time::timeout(SETTLE_TIMEOUT, join_all(others)).await;
        })
    }

    fn propose(
        &self,
        command: Command,
    ) -> BoxFuture<'_, Result<Result<Outcome, Refusal>, MetadataError>> {
        Box::pin(self.propose_command(command))
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), MetadataError>> {
        Box::pin(async move { self.probe.wait().await.map_err(probe_error) })
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, MetadataError>> {
        // The row is written with every batch, so it is in the write buffer.
        let head = self.shared.state.load().head().map_err(read_error);
        Box::pin(std::future::ready(head))
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

pub(crate) struct Stores {
    memory: Arc<Memory>,
    pub(crate) log: LogStore,
    pub(crate) state_machine: StateMachine,
}

/// Opens both stores at once: most of an open is waiting for the disk.
pub(crate) async fn open_stores(config: ClusterConfig) -> io::Result<Stores> {
    blocking(move || {
        crate::rocks::format::claim(&config.data_dir)?;
        let memory = Arc::new(Memory::new(config.cache_bytes, config.write_buffer_bytes));
        let events = broadcast::Sender::new(config.events_max);
        let covered = Covered::nothing();
        let (log, state_machine) = std::thread::scope(|scope| {
            let log = scope.spawn(|| {
                let directory = config.data_dir.join("raft-log");
                LogStore::open(&directory, &memory, covered.clone())
            });
            let state_machine = StateMachine::open(
                config.data_dir.clone(),
                memory.clone(),
                config.node,
                events,
                covered.clone(),
            );
            let log =
                log.join().unwrap_or_else(|_| Err(io::Error::other("opening the log panicked")));
            (log, state_machine)
        });
        let (log, state_machine) = (log?, state_machine?);
        recovery::agree(&log, &state_machine)?;
        Ok(Stores { log, state_machine, memory })
    })
    .await
}

async fn stopped(raft: Consensus) -> StopReason {
    // All metrics change with every entry, and each change would wake this task. Those of the server change seldom, and
    // end with consensus, which has said why by then.
    let (metrics, mut server) = (raft.metrics(), raft.server_metrics());
    drop(raft);
    loop {
        let ended = server.changed().await.is_err();
        match &metrics.borrow_watched().running_state {
            Err(fatal) => return stop_reason(fatal),
            Ok(()) if ended => return StopReason::Shutdown,
            Ok(()) => {}
        }
    }
}

/// Asks whoever leads, anew until somebody can tell, and waits until this node has come as far.
async fn read_index(raft: Consensus, leader: Arc<Leader>, timeout: Duration) -> ProbeResult {
    let deadline = Instant::now() + timeout;
    let index = loop {
        let begun = Instant::now();
        if let Some(index) = leader.read_index().await {
            break index;
        }
        let ended = raft.metrics().borrow_watched().running_state.is_err();
        if ended || Instant::now() >= deadline {
            return Err(ProbeError::NoLeader);
        }
        leader.pause(begun, PROBE_PAUSE).await;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    raft.wait(Some(left))
        .applied_index_at_least(Some(index), "the leader's read index")
        .await
        .map(drop)
        .map_err(|_| ProbeError::Behind)
}

/// Never 0, which stands for no name.
fn random() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes).max(1))
}

fn probe_error(_: ProbeError) -> MetadataError {
    MetadataError::NoLeader
}
