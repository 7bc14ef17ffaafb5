//! Nodes, their consensus, their blobs and their configuration.

use std::time::Duration;

use nora_proto::v1 as proto;
use nora_proto::v1::blobs_client::BlobsClient;
use nora_proto::v1::cluster_client::ClusterClient;
use nora_proto::v1::config_client::ConfigClient;
use serde::Serialize;

use super::{AdminClient, AdminError, unless_zero};
use crate::config::Secret;

/// The cluster, as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answered.
    pub node: u64,
    /// Who leads, if that is known.
    pub leader: Option<u64>,
    /// The Raft term.
    pub term: u64,
    /// The last entry in its log.
    pub log_index: u64,
    /// The last entry that it applied.
    pub applied_index: u64,
    /// Where its snapshot ends; 0 if it has none.
    pub snapshot_index: u64,
    /// What commands may be used.
    pub feature_level: u32,
    /// The cluster's clock, in milliseconds since the Unix epoch.
    pub clock_millis: u64,
    /// Whether a change of the voters has begun and is not finished.
    pub is_joint: bool,
    /// The rotation of the authority that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// Every member.
    pub members: Vec<MemberStatus>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// Its number.
    pub node: u64,
    /// `leader`, `voter`, `learner` or `outside`.
    pub role: &'static str,
    /// `joining`, `active`, `away` or `draining`.
    pub standing: &'static str,
    /// Where other nodes reach it.
    pub cluster_address: String,
    /// Where clients reach it.
    pub http_address: String,
    /// Its failure zone.
    pub zone: String,
    /// Its share of the blobs.
    pub weight: u32,
    /// The highest feature level that it understands.
    pub feature_max: u32,
    /// What it tells; none if it does not answer.
    pub report: Option<NodeReport>,
}

/// What a node tells of itself. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// The last entry that it applied.
    pub applied_index: u64,
    /// Its program's version.
    pub version: String,
    /// Size of its file system.
    pub disk_total: u64,
    /// Of that, free.
    pub disk_free: u64,
    /// Blobs that it holds.
    pub blobs_held: u64,
    /// Blobs that it should hold and does not.
    pub blobs_missing: u64,
    /// Blobs that it should give up.
    pub blobs_excess: u64,
    /// Damaged copies set aside.
    pub blobs_quarantined: u64,
    /// Bytes that scrubbing has read again.
    pub scrubbed_bytes: u64,
    /// By how many milliseconds its wall clock is ahead of most voters' clocks; none if that is unknown.
    pub clock_offset_millis: Option<i64>,
}

/// A join token, without its secret. Times are in milliseconds since the Unix epoch, by the cluster's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JoinTokenInfo {
    /// Its public part: the audit log names it.
    pub id: String,
    /// When it was made.
    pub created_at: u64,
    /// From then on it admits no node.
    pub expires_at: u64,
    /// How many more nodes it admits.
    pub uses_left: u32,
}

impl From<proto::JoinToken> for JoinTokenInfo {
    fn from(token: proto::JoinToken) -> Self {
        let proto::JoinToken { id, created_at, expires_at, uses_left } = token;
        Self { id, created_at, expires_at, uses_left }
    }
}

/// A rotation of the cluster's authority that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RotationStatus {
    /// `trust` while members come to trust the new authority, `show` while they come to show its certificates.
    pub stage: &'static str,
    /// When it began, in milliseconds since the Unix epoch.
    pub begun_at: u64,
    /// The members that it waits for.
    pub waits_for: Vec<u64>,
}

impl From<proto::Rotation> for RotationStatus {
    fn from(rotation: proto::Rotation) -> Self {
        let stage = match rotation.stage() {
            proto::RotationStage::Trust => "trust",
            proto::RotationStage::Show => "show",
            proto::RotationStage::Unspecified => "unknown",
        };
        Self { stage, begun_at: rotation.begun_at, waits_for: rotation.waits_for }
    }
}

/// A background job of a node, since the node's start. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// Its name.
    pub name: String,
    /// `running`, `waiting`, `failing` or `standby`.
    pub state: &'static str,
    /// Whether the leader alone runs it.
    pub leader_only: bool,
    /// From the end of one turn to the begin of the next, in milliseconds, give or take a tenth.
    pub every_millis: u64,
    /// Turns that ended.
    pub runs: u64,
    /// Turns that failed.
    pub failures: u64,
    /// When the last turn began.
    pub started_at: Option<u64>,
    /// How long the last turn that ended took, in microseconds.
    pub duration_micros: Option<u64>,
    /// When a turn last ended without an error.
    pub succeeded_at: Option<u64>,
    /// When the next turn is due; none while one runs, and on a node that stands by.
    pub due_at: Option<u64>,
    /// What the last turn without an error counted.
    pub result: String,
    /// Why the last turn failed; empty if it did not.
    pub error: String,
}

impl From<proto::Job> for JobStatus {
    fn from(job: proto::Job) -> Self {
        let state = match job.state() {
            proto::JobState::Running => "running",
            proto::JobState::Waiting | proto::JobState::Unspecified => "waiting",
            proto::JobState::Failing => "failing",
            proto::JobState::Standby => "standby",
        };
        Self {
            state,
            name: job.name,
            leader_only: job.leader_only,
            every_millis: job.every_millis,
            runs: job.runs,
            failures: job.failures,
            started_at: job.started_at,
            duration_micros: job.duration_micros,
            succeeded_at: job.succeeded_at,
            due_at: job.due_at,
            result: job.result,
            error: job.error,
        }
    }
}

impl From<proto::Report> for NodeReport {
    fn from(report: proto::Report) -> Self {
        Self {
            applied_index: report.applied_index,
            version: report.version,
            disk_total: report.disk_total,
            disk_free: report.disk_free,
            blobs_held: report.blobs_held,
            blobs_missing: report.blobs_missing,
            blobs_excess: report.blobs_excess,
            blobs_quarantined: report.blobs_quarantined,
            scrubbed_bytes: report.scrubbed_bytes,
            clock_offset_millis: report.clock_offset_millis,
        }
    }
}

impl From<proto::Member> for MemberStatus {
    fn from(member: proto::Member) -> Self {
        let role = match member.role() {
            proto::Role::Leader => "leader",
            proto::Role::Voter => "voter",
            proto::Role::Learner => "learner",
            proto::Role::Outside | proto::Role::Unspecified => "outside",
        };
        let standing = match member.standing() {
            proto::Standing::Joining => "joining",
            proto::Standing::Active => "active",
            proto::Standing::Away => "away",
            proto::Standing::Draining => "draining",
            proto::Standing::Unspecified => "unknown",
        };
        Self {
            node: member.node,
            role,
            standing,
            cluster_address: member.cluster_address,
            http_address: member.http_address,
            zone: member.zone,
            weight: member.weight,
            feature_max: member.feature_max,
            report: member.report.map(NodeReport::from),
        }
    }
}

impl AdminClient {
    /// The cluster as that member sees it.
    pub async fn status(&self) -> Result<ClusterStatus, AdminError> {
        let asked = self.call(proto::StatusRequest {}, async |channel, request| {
            ClusterClient::new(channel).status(request).await
        });
        let status = asked.await?;
        Ok(ClusterStatus {
            cluster: status.cluster,
            node: status.node,
            leader: unless_zero(status.leader),
            term: status.term,
            log_index: status.log_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            feature_level: status.feature_level,
            clock_millis: status.clock_millis,
            is_joint: status.is_joint,
            rotation: status.rotation.map(RotationStatus::from),
            members: status.members.into_iter().map(MemberStatus::from).collect(),
        })
    }

    /// A token that lets `uses` nodes join for so long.
    pub async fn create_join_token(
        &self,
        valid: Duration,
        uses: u32,
    ) -> Result<Secret, AdminError> {
        let valid_millis = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
        let request = proto::CreateJoinTokenRequest { valid_millis, uses };
        let made = self.call(request, async |channel, request| {
            ClusterClient::new(channel).create_join_token(request).await
        });
        Ok(Secret::new(made.await?.token))
    }

    /// Every join token that has not expired.
    pub async fn join_tokens(&self) -> Result<Vec<JoinTokenInfo>, AdminError> {
        let listed = self.call(proto::ListJoinTokensRequest {}, async |channel, request| {
            ClusterClient::new(channel).list_join_tokens(request).await
        });
        Ok(listed.await?.tokens.into_iter().map(JoinTokenInfo::from).collect())
    }

    /// Lets a join token admit no more nodes.
    pub async fn revoke_join_token(&self, id: &str) -> Result<(), AdminError> {
        let request = proto::RevokeJoinTokenRequest { id: id.to_owned() };
        let revoked = self.call(request, async |channel, request| {
            ClusterClient::new(channel).revoke_join_token(request).await
        });
        revoked.await.map(drop)
    }

    /// Begins to replace the cluster's authority and the secrets that go with it.
    pub async fn rotate_authority(&self) -> Result<(), AdminError> {
        let begun = self.call(proto::RotateAuthorityRequest {}, async |channel, request| {
            ClusterClient::new(channel).rotate_authority(request).await
        });
        begun.await.map(drop)
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, node: u64) -> Result<(), AdminError> {
        let done = self.call(proto::PromoteRequest { node }, async |channel, request| {
            ClusterClient::new(channel).promote(request).await
        });
        done.await.map(drop)
    }

    /// Lets others take over what a node holds.
    pub async fn drain(&self, node: u64) -> Result<(), AdminError> {
        let done = self.call(proto::DrainRequest { node }, async |channel, request| {
            ClusterClient::new(channel).drain(request).await
        });
        done.await.map(drop)
    }

    /// Takes a node out for good.
    pub async fn remove(&self, node: u64, force: bool) -> Result<(), AdminError> {
        let done = self.call(proto::RemoveRequest { node, force }, async |channel, request| {
            ClusterClient::new(channel).remove(request).await
        });
        done.await.map(drop)
    }

    /// Lets another voter lead, and tells which does.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, AdminError> {
        let request = proto::TransferLeaderRequest { to: to.unwrap_or(0) };
        let moved = self.call(request, async |channel, request| {
            ClusterClient::new(channel).transfer_leader(request).await
        });
        Ok(moved.await?.leader)
    }

    /// Makes a snapshot on that member, and tells its position.
    pub async fn snapshot(&self) -> Result<u64, AdminError> {
        let made = self.call(proto::SnapshotRequest {}, async |channel, request| {
            ClusterClient::new(channel).snapshot(request).await
        });
        Ok(made.await?.index)
    }

    /// The background jobs of that member.
    pub async fn jobs(&self) -> Result<Vec<JobStatus>, AdminError> {
        let listed = self.call(proto::ListJobsRequest {}, async |channel, request| {
            ClusterClient::new(channel).list_jobs(request).await
        });
        Ok(listed.await?.jobs.into_iter().map(JobStatus::from).collect())
    }

    /// Changes how many copies the cluster keeps of each blob, from 1 to 15.
    pub async fn set_replicas(&self, replicas: u32) -> Result<(), AdminError> {
        let set = self.call(proto::SetReplicasRequest { replicas }, async |channel, request| {
            ClusterClient::new(channel).set_replicas(request).await
        });
        set.await.map(drop)
    }

    /// Raises the feature level as far as every member understands, and tells it.
    pub async fn finalize_upgrade(&self) -> Result<u32, AdminError> {
        let raised = self.call(proto::FinalizeUpgradeRequest {}, async |channel, request| {
            ClusterClient::new(channel).finalize_upgrade(request).await
        });
        Ok(raised.await?.feature_level)
    }

    /// Begins a scrub on that member.
    pub async fn scrub(&self) -> Result<(), AdminError> {
        let begun = self.call(proto::ScrubRequest {}, async |channel, request| {
            BlobsClient::new(channel).scrub(request).await
        });
        begun.await.map(drop)
    }

    /// That member's configuration as TOML, without secrets.
    pub async fn configuration(&self) -> Result<String, AdminError> {
        let shown = self.call(proto::ShowRequest {}, async |channel, request| {
            ConfigClient::new(channel).show(request).await
        });
        Ok(shown.await?.toml)
    }
}
