//! Who takes part in the cluster: joining, standing, voting, leaving; and certificates that are replaced in time.
//!
//! Guarantees: a number is given once and a removed node is refused from then on; the voters that are left after any
//! change can decide; a leader that dies in the middle of a change leaves something that the next one finishes. What is
//! final is written into the state first: a node is removed there, and leaves consensus afterwards.
//!
//! Must not know: how members are reached, or what consensus does with a membership.

mod changes;
mod compare;
mod join;
mod plan;
mod rotation;
mod service;
mod upkeep;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use nora_app::jobs::Job;
use nora_app::ports::BoxFuture;
use nora_app::ports::members::{
    ClusterView, JoinTokenView, Member, Members, MembersError, NodeReport, Reporter, Role,
};
use nora_app::ports::metadata::{Metadata, MetadataError, answer_to, ask};
use nora_domain::{
    Actor, Ask, AuthorityRecord, ClusterRecord, Command, CreateJoinToken, FeatureLevel,
    JoinTokenRecord, Key, NodeId, NodeRecord, RaiseFeatureLevel, Record, Refusal, RevokeJoinToken,
    Rows, SetReplicas, SetStanding, Standing, StorageMode, Terms, Timestamp, TokenId,
};
use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::members_client::MembersClient;
use nora_trust::{Identity, JoinToken};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(crate) use self::compare::Differences;
pub use self::join::{JoinError, join};
use self::wire::{Change, report_from_proto};
use crate::error::store_error;
use crate::node::Cluster;
use crate::status::ClusterStatus;

/// How long a node may take to tell of itself.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// More nodes than a cluster ever had.
const NODES_MAX: usize = 100_000;
/// Join tokens that are listed at most.
const JOIN_TOKENS_MAX: usize = 1_000;
/// Joins with a known token that are worked on at once, each of which costs a signature and a proposal; and tokens that
/// are looked up at once, which anybody may ask for.
const JOINS_MAX: usize = 4;

/// When silence has consequences, and how often is looked.
#[derive(Clone, Debug)]
pub struct MembersConfig {
    /// A member that was silent for so long is away.
    pub away_after: Duration,
    /// One that was silent for so long is removed, if the others are enough without it; never if there is none.
    pub remove_after: Option<Duration>,
    /// How often the leader looks whether something is to be changed.
    pub look_interval: Duration,
    /// How often the leader compares the members' states.
    pub compare_interval: Duration,
    /// How often certificates are looked at.
    pub renew_interval: Duration,
    /// While the authority is replaced: how long what runs over this node's connections may take to end by itself.
    pub rotation_patience: Duration,
}

impl Default for MembersConfig {
    fn default() -> Self {
        Self {
            away_after: Duration::from_secs(600),
            remove_after: None,
            look_interval: Duration::from_millis(500),
            compare_interval: Duration::from_secs(60),
            // A clock that was set right may leave a certificate that is not valid; nobody reaches the node until then.
            renew_interval: Duration::from_secs(300),
            rotation_patience: Duration::from_secs(60),
        }
    }
}

/// The members of the cluster, as seen and changed from this node.
#[derive(Clone)]
pub struct Roster(Arc<Inner>);

struct Inner {
    cluster: Arc<Cluster>,
    identity: Arc<Identity>,
    reporter: Arc<dyn Reporter>,
    config: MembersConfig,
    /// Changes are made one after another.
    changing: tokio::sync::Mutex<()>,
    joins: Semaphore,
    unknown_joins: Semaphore,
    /// Since when this node, as the leader, waits to hear of others.
    waiting_since: Mutex<HashMap<NodeId, Instant>>,
    /// When what this node trusts or shows last changed.
    renewed_at: Mutex<Option<Instant>>,
}

impl Roster {
    /// The members of `cluster`, which this node takes part in under `identity`.
    pub fn new(
        cluster: Arc<Cluster>,
        identity: Arc<Identity>,
        reporter: Arc<dyn Reporter>,
        config: MembersConfig,
    ) -> Self {
        Self(Arc::new(Inner {
            cluster,
            identity,
            reporter,
            config,
            changing: tokio::sync::Mutex::default(),
            joins: Semaphore::new(JOINS_MAX),
            unknown_joins: Semaphore::new(JOINS_MAX),
            waiting_since: Mutex::default(),
            renewed_at: Mutex::default(),
        }))
    }

    /// What this node serves: joining to anybody, the rest to members. Each request must carry the [`nora_trust::Peer`]
    /// that sent it.
    pub fn services(&self) -> axum::Router {
        service::router(self.clone())
    }

    /// The jobs of a member: every node renews its certificates, and the leader looks after the membership. Run them
    /// before the node enters the cluster: a node that was down for long may need a certificate before another member
    /// listens to it.
    pub fn jobs(&self) -> Vec<Arc<dyn Job>> {
        self.upkeep()
    }

    /// Waits until this node learns that it was removed for good: from its own state, or from a member that refuses it.
    pub async fn removed(&self) {
        self.wait_removed().await;
    }

    fn node(&self) -> NodeId {
        self.0.cluster.node_id()
    }

    fn status(&self) -> ClusterStatus {
        self.0.cluster.status()
    }

    fn leads(&self) -> bool {
        self.status().leader == Some(self.node())
    }

    async fn cluster_record(&self) -> Result<ClusterRecord, MetadataError> {
        match self.0.cluster.get(Key::Cluster).await? {
            Some(Record::Cluster(record)) => Ok(record),
            _ => Ok(ClusterRecord::default()),
        }
    }

    async fn authority(&self) -> Result<Option<AuthorityRecord>, MetadataError> {
        match self.0.cluster.get(Key::Authority).await? {
            Some(Record::Authority(record)) => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    async fn record(&self, node: NodeId) -> Result<Option<NodeRecord>, MetadataError> {
        match self.0.cluster.get(Key::Node(node)).await? {
            Some(Record::Node(record)) => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    /// Every node there ever was, as of this node's state.
    async fn records(&self) -> Result<Vec<(NodeId, NodeRecord)>, MetadataError> {
        let rows = self.0.cluster.scan(Rows::Nodes, NODES_MAX).await?;
        let nodes = rows.into_iter().filter_map(|row| match row {
            (Key::Node(node), Record::Node(record)) => Some((node, record)),
            _ => None,
        });
        Ok(nodes.collect())
    }

    async fn propose<A: Ask>(&self, command: A) -> Result<Result<A::Done, Refusal>, MetadataError> {
        ask(self.0.cluster.as_ref(), command).await
    }

    async fn set_standing(&self, node: NodeId, standing: Standing) -> Result<(), MembersError> {
        match self.propose(SetStanding { node, standing }).await? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refused(node, &refusal)),
        }
    }

    fn client(&self, node: NodeId) -> Option<MembersClient<tonic::transport::Channel>> {
        self.0.cluster.channel(node).map(MembersClient::new)
    }

    async fn own_report(&self) -> NodeReport {
        let status = self.status();
        NodeReport {
            applied_index: status.applied_index.unwrap_or(0),
            clock_offset_millis: status.clock.offset_millis,
            ..self.0.reporter.report().await
        }
    }

    async fn report_of(&self, node: NodeId) -> Option<NodeReport> {
        if node == self.node() {
            return Some(self.own_report().await);
        }
        let mut client = self.client(node)?;
        let asked = client.report(proto::ReportRequest {});
        let answer = tokio::time::timeout(REPORT_TIMEOUT, asked).await.ok()?;
        answer.ok().map(|answer| report_from_proto(answer.into_inner()))
    }

    async fn see(&self) -> Result<ClusterView, MembersError> {
        let (cluster, records) = (self.cluster_record().await?, self.records().await?);
        let rotation = self.rotation_view(self.authority().await?, &records);
        let status = self.status();
        let present =
            records.into_iter().filter(|(_, record)| record.standing != Standing::Removed);
        let members = join_all(present.map(|(node, record)| {
            let role = role_of(node, &status);
            async move {
                let report = self.report_of(node).await;
                let NodeRecord { standing, epoch, profile, .. } = record;
                Member { node, role, standing, epoch, profile, report }
            }
        }))
        .await;
        Ok(ClusterView {
            cluster: cluster.cluster,
            node: self.node(),
            leader: status.leader,
            term: status.term,
            log_index: status.log_index.unwrap_or(0),
            applied_index: status.applied_index.unwrap_or(0),
            snapshot_index: status.snapshot_index,
            feature_level: cluster.feature_level,
            clock: status.clock.now,
            is_joint: status.is_joint,
            rotation,
            members,
        })
    }

    /// Proposes on behalf of somebody, whom the journal names.
    async fn propose_by<A: Ask>(
        &self,
        by: Actor,
        command: A,
    ) -> Result<Result<A::Done, Refusal>, MetadataError> {
        let terms = Terms { by: Some(by), ..Terms::NONE };
        let action = command.into();
        let command = Command { at: Timestamp(0), origin: None, terms, action };
        answer_to::<A>(self.0.cluster.as_ref(), command).await
    }

    async fn make_token(
        &self,
        by: Actor,
        lives_millis: u64,
        uses: u32,
    ) -> Result<String, MembersError> {
        let authority = self.authority().await?.ok_or_else(|| {
            MembersError::Impossible(
                "the cluster has no certificate authority yet: wait until it has a leader".into(),
            )
        })?;
        let token = JoinToken::new(&authority.keys.certificate.into())
            .map_err(|error| store_error(error.to_string()))?;
        let command = CreateJoinToken {
            token: token.id,
            secret_hash: token.secret_hash(),
            lives_millis,
            uses,
        };
        match self.propose_by(by, command).await? {
            Ok(_) => Ok(token.text()),
            Err(Refusal::RotationUnderWay) => Err(MembersError::Impossible(
                "the cluster's authority is being replaced: ask for a join token once 'nora cluster status' shows that this is \
                 over"
                    .into(),
            )),
            Err(refusal) => Err(MembersError::Impossible(format!(
                "the cluster takes no join token: {refusal:?}"
            ))),
        }
    }

    async fn list_tokens(&self) -> Result<Vec<JoinTokenView>, MembersError> {
        self.0.cluster.linearize().await?;
        let now = self.status().clock.now;
        let rows = self.0.cluster.scan(Rows::JoinTokens, JOIN_TOKENS_MAX).await?;
        let tokens = rows.into_iter().filter_map(|(key, record)| match (key, record) {
            (Key::JoinToken(id), Record::JoinToken(token)) if token.expires_at > now => {
                let JoinTokenRecord { created_at, expires_at, uses_left, .. } = token;
                Some(JoinTokenView { id, created_at, expires_at, uses_left })
            }
            _ => None,
        });
        Ok(tokens.collect())
    }

    async fn end_token(&self, by: Actor, token: TokenId) -> Result<(), MembersError> {
        match self.propose_by(by, RevokeJoinToken { token }).await? {
            Ok(()) => Ok(()),
            Err(Refusal::TokenUnknown) => Err(MembersError::Impossible(
                "there is no such join token: 'nora cluster join-token ls' shows those there are"
                    .into(),
            )),
            Err(refusal) => Err(MembersError::Impossible(format!(
                "the join token was not revoked: {refusal:?}"
            ))),
        }
    }

    async fn begin_drain(&self, node: NodeId) -> Result<(), MembersError> {
        self.0.cluster.linearize().await?;
        let records = self.records().await?;
        let takes_over = |(other, record): &(NodeId, NodeRecord)| {
            *other != node && record.standing == Standing::Active
        };
        if self.record(node).await?.is_some() && !records.iter().any(takes_over) {
            return Err(MembersError::Impossible(format!(
                "no other node is active that could take over what node {} holds",
                node.0
            )));
        }
        self.set_standing(node, Standing::Draining).await
    }

    async fn raise_level(&self) -> Result<FeatureLevel, MembersError> {
        self.0.cluster.linearize().await?;
        let understood = |(_, record): (NodeId, NodeRecord)| {
            (record.standing != Standing::Removed).then_some(record.profile.feature_max)
        };
        let records = self.records().await?;
        let level = records.into_iter().filter_map(understood).min().unwrap_or(FeatureLevel::FIRST);
        match self.propose(RaiseFeatureLevel { level }).await? {
            Ok(_) => Ok(self.cluster_record().await?.feature_level.max(level)),
            Err(Refusal::MemberTooOld { node, understood }) => {
                Err(MembersError::Impossible(format!(
                    "node {} understands no more than feature level {}: upgrade it first",
                    node.0, understood.0
                )))
            }
            Err(refusal) => Err(MembersError::Impossible(format!(
                "the feature level was not raised: {refusal:?}"
            ))),
        }
    }

    async fn change_replicas(&self, replicas: u32) -> Result<(), MembersError> {
        if self.cluster_record().await?.storage.is_some_and(|is| is.mode == StorageMode::Object) {
            return Err(MembersError::Impossible(
                "the cluster keeps its blobs in a bucket, which takes care of copies itself".into(),
            ));
        }
        match self.propose(SetReplicas { replicas }).await? {
            Ok(()) => Ok(()),
            Err(refusal) => Err(MembersError::Impossible(format!(
                "the number of copies was not changed: {refusal:?}"
            ))),
        }
    }

    async fn make_snapshot(&self) -> Result<u64, MembersError> {
        self.0.cluster.snapshot_now().await?;
        Ok(self.status().snapshot_index.unwrap_or(0))
    }
}

fn role_of(node: NodeId, status: &ClusterStatus) -> Role {
    if status.leader == Some(node) {
        Role::Leader
    } else if status.voters.contains(&node) {
        Role::Voter
    } else if status.learners.contains(&node) {
        Role::Learner
    } else {
        Role::Outside
    }
}

/// What a refusal to change a node's standing means.
fn refused(node: NodeId, refusal: &Refusal) -> MembersError {
    match refusal {
        Refusal::NodeUnknown(node) => MembersError::Unknown(*node),
        Refusal::NodeRemoved(node) => MembersError::Removed(*node),
        Refusal::StandingImpossible { from: Standing::Joining, .. } => MembersError::Impossible(
            format!("node {} has joined but never started: start it, or remove it", node.0),
        ),
        refusal => MembersError::Impossible(format!(
            "the standing of node {} was not changed: {refusal:?}",
            node.0
        )),
    }
}

impl Members for Roster {
    fn view(&self) -> BoxFuture<'_, Result<ClusterView, MembersError>> {
        Box::pin(self.see())
    }

    fn create_join_token(
        &self,
        by: Actor,
        valid_millis: u64,
        uses: u32,
    ) -> BoxFuture<'_, Result<String, MembersError>> {
        Box::pin(self.make_token(by, valid_millis, uses))
    }

    fn join_tokens(&self) -> BoxFuture<'_, Result<Vec<JoinTokenView>, MembersError>> {
        Box::pin(self.list_tokens())
    }

    fn revoke_join_token(&self, by: Actor, id: TokenId) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(self.end_token(by, id))
    }

    fn rotate_authority(&self, by: Actor) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(self.begin_rotation(by))
    }

    fn promote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(async move { self.change(Change::Promote(node)).await.map(drop) })
    }

    fn drain(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(self.begin_drain(node))
    }

    fn remove(&self, node: NodeId, force: bool) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(async move { self.change(Change::Remove { node, force }).await.map(drop) })
    }

    fn transfer_leader(&self, to: Option<NodeId>) -> BoxFuture<'_, Result<NodeId, MembersError>> {
        Box::pin(self.change(Change::Transfer(to)))
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<u64, MembersError>> {
        Box::pin(self.make_snapshot())
    }

    fn set_replicas(&self, replicas: u32) -> BoxFuture<'_, Result<(), MembersError>> {
        Box::pin(self.change_replicas(replicas))
    }

    fn finalize_upgrade(&self) -> BoxFuture<'_, Result<FeatureLevel, MembersError>> {
        Box::pin(self.raise_level())
    }
}
