//! `nora.v1.Cluster`.

use std::time::Duration;

use nora_app::jobs;
use nora_app::ports::BoxFuture;
use nora_app::ports::members::{
    ClusterView, JoinTokenView, Member, Members, MembersError, NodeReport, Role, RotationView,
};
use nora_domain::{
    About, Deed, NodeId, Reason, RefusalNote, RotationStage, Standing, TokenId, Verb, Verdict,
};
use nora_proto::v1 as proto;
use nora_proto::v1::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::{Admin, caller_of, may_make_logins, metadata_failed, refused, to_the_end};
use nora_identity::Caller;

/// How many nodes one join token may admit.
const JOIN_TOKEN_USES: std::ops::RangeInclusive<u32> = 1..=1_000;
/// How many copies a cluster may keep.
const REPLICAS: std::ops::RangeInclusive<u32> = 1..=15;
const SECOND_MILLIS: u64 = 1_000;
const YEAR_MILLIS: u64 = 366 * 24 * 3_600 * SECOND_MILLIS;

fn failed(error: MembersError) -> Status {
    match error {
        MembersError::Metadata(error) => metadata_failed(error),
        MembersError::Unknown(_) => Status::not_found(error.to_string()),
        MembersError::Removed(_) | MembersError::Impossible(_) => {
            Status::failed_precondition(error.to_string())
        }
    }
}

fn node(number: u64) -> Result<NodeId, Status> {
    if number == 0 {
        return Err(Status::invalid_argument("say which node: numbers begin with 1"));
    }
    Ok(NodeId(number))
}

impl Admin {
    /// Carries a change to its end, whether or not its client waits for it. That it was asked for is in the journal before
    /// it begins, and what came of it afterwards: several nodes and entries of the log make such a change, not one.
    async fn change<T: Send + 'static>(
        &self,
        caller: Caller,
        deed: Deed,
        change: impl for<'a> FnOnce(&'a dyn Members) -> BoxFuture<'a, Result<T, MembersError>>
        + Send
        + 'static,
    ) -> Result<T, Status> {
        let (members, registry) = (self.members.clone(), self.api.registry.clone());
        let changing = async move {
            let asked = RefusalNote {
                actor: caller.actor(),
                deed: deed.clone(),
                verdict: Verdict::Asked,
                count: 1,
            };
            registry.journal().note_refusals(vec![asked]).await.map_err(refused)?;
            carried_out(caller, deed, change(members.as_ref())).await
        };
        to_the_end(changing).await?
    }
}

/// Does it, and notes what came of it.
async fn carried_out<T>(
    caller: Caller,
    deed: Deed,
    change: impl Future<Output = Result<T, MembersError>>,
) -> Result<T, Status> {
    let changed = change.await;
    let verdict = match &changed {
        Ok(_) => Verdict::Done,
        Err(error) => Verdict::Failed(Reason::Words(error.to_string().into())),
    };
    caller.note(deed, verdict);
    changed.map_err(failed)
}

/// Something asked for about a node.
fn about(verb: Verb, node: NodeId) -> Deed {
    Deed::new(verb, About::Node(node))
}

pub(super) fn report_to_proto(report: &NodeReport) -> proto::Report {
    proto::Report {
        applied_index: report.applied_index,
        version: report.version.clone(),
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

fn member_to_proto(member: &Member) -> proto::Member {
    let role = match member.role {
        Role::Leader => proto::Role::Leader,
        Role::Voter => proto::Role::Voter,
        Role::Learner => proto::Role::Learner,
        Role::Outside => proto::Role::Outside,
    };
    let standing = match member.standing {
        Standing::Joining => proto::Standing::Joining,
        Standing::Active => proto::Standing::Active,
        Standing::Away => proto::Standing::Away,
        Standing::Draining => proto::Standing::Draining,
        Standing::Removed => proto::Standing::Unspecified,
    };
    proto::Member {
        node: member.node.0,
        role: role.into(),
        standing: standing.into(),
        cluster_address: member.profile.cluster_address.clone(),
        http_address: member.profile.http_address.clone(),
        zone: member.profile.zone.clone(),
        weight: member.profile.weight,
        feature_max: member.profile.feature_max.0,
        report: member.report.as_ref().map(report_to_proto),
    }
}

fn view_to_proto(view: &ClusterView) -> proto::StatusResponse {
    proto::StatusResponse {
        cluster: view.cluster.map(|id| format!("{:032x}", id.0)).unwrap_or_default(),
        node: view.node.0,
        leader: view.leader.map_or(0, |leader| leader.0),
        term: view.term,
        log_index: view.log_index,
        applied_index: view.applied_index,
        snapshot_index: view.snapshot_index.unwrap_or(0),
        feature_level: view.feature_level.0,
        members: view.members.iter().map(member_to_proto).collect(),
        clock_millis: view.clock.0,
        is_joint: view.is_joint,
        rotation: view.rotation.as_ref().map(rotation_to_proto),
    }
}

fn rotation_to_proto(rotation: &RotationView) -> proto::Rotation {
    let stage = match rotation.stage {
        RotationStage::Trust => proto::RotationStage::Trust,
        RotationStage::Show => proto::RotationStage::Show,
    };
    proto::Rotation {
        stage: stage.into(),
        begun_at: rotation.begun_at.0,
        waits_for: rotation.waits_for.iter().map(|node| node.0).collect(),
    }
}

fn join_token_to_proto(token: JoinTokenView) -> proto::JoinToken {
    let JoinTokenView { id, created_at, expires_at, uses_left } = token;
    proto::JoinToken {
        id: format!("{:032x}", id.0),
        created_at: created_at.0,
        expires_at: expires_at.0,
        uses_left,
    }
}

fn job_to_proto(job: &jobs::Status) -> proto::Job {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let state = match job.state {
        jobs::State::Running => proto::JobState::Running,
        jobs::State::Waiting => proto::JobState::Waiting,
        jobs::State::Failing => proto::JobState::Failing,
        jobs::State::Standby => proto::JobState::Standby,
    };
    proto::Job {
        name: job.schedule.name.to_owned(),
        every_millis: millis(job.schedule.every),
        leader_only: job.schedule.place == jobs::Place::Leader,
        state: state.into(),
        runs: job.runs,
        failures: job.failures,
        started_at: job.started_at.map(|at| at.0),
        duration_micros: job
            .duration
            .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        succeeded_at: job.succeeded_at.map(|at| at.0),
        result: job.result.clone(),
        error: job.error.clone(),
        due_at: job.due_at.map(|at| at.0),
    }
}

#[tonic::async_trait]
impl Cluster for Admin {
    async fn status(
        &self,
        _request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let view = self.members.view().await.map_err(failed)?;
        Ok(Response::new(view_to_proto(&view)))
    }

    async fn create_join_token(
        &self,
        request: Request<proto::CreateJoinTokenRequest>,
    ) -> Result<Response<proto::CreateJoinTokenResponse>, Status> {
        let caller = caller_of(&request)?;
        may_make_logins(&caller, Deed::new(Verb::NodeToken, About::JoinToken))?;
        let proto::CreateJoinTokenRequest { valid_millis, uses } = request.into_inner();
        // Programs of earlier versions do not say how many.
        let uses = uses.max(1);
        if !(SECOND_MILLIS..=YEAR_MILLIS).contains(&valid_millis) {
            return Err(Status::invalid_argument(
                "a join token may be good for one second up to a year",
            ));
        }
        if !JOIN_TOKEN_USES.contains(&uses) {
            return Err(Status::invalid_argument(format!(
                "a join token admits from {} to {} nodes, and not {uses}",
                JOIN_TOKEN_USES.start(),
                JOIN_TOKEN_USES.end()
            )));
        }
        let members = self.members.clone();
        let by = caller.actor();
        let made = async move { members.create_join_token(by, valid_millis, uses).await };
        let token = to_the_end(made).await?.map_err(failed)?;
        tracing::info!(valid_millis, uses, "a join token was made");
        Ok(Response::new(proto::CreateJoinTokenResponse { token }))
    }

    async fn list_join_tokens(
        &self,
        _request: Request<proto::ListJoinTokensRequest>,
    ) -> Result<Response<proto::ListJoinTokensResponse>, Status> {
        let tokens = self.members.join_tokens().await.map_err(failed)?;
        let tokens = tokens.into_iter().map(join_token_to_proto).collect();
        Ok(Response::new(proto::ListJoinTokensResponse { tokens }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<proto::RevokeJoinTokenRequest>,
    ) -> Result<Response<proto::RevokeJoinTokenResponse>, Status> {
        let caller = caller_of(&request)?;
        let id = request.into_inner().id;
        let token = u128::from_str_radix(&id, 16).ok().filter(|_| id.len() == 32).map(TokenId);
        let token = token.ok_or_else(|| {
            Status::invalid_argument("say which join token: an id has 32 hexadecimal digits")
        })?;
        let (members, by) = (self.members.clone(), caller.actor());
        let revoked = async move { members.revoke_join_token(by, token).await };
        to_the_end(revoked).await?.map_err(failed)?;
        tracing::info!(token = id, "a join token was revoked");
        Ok(Response::new(proto::RevokeJoinTokenResponse {}))
    }

    async fn rotate_authority(
        &self,
        request: Request<proto::RotateAuthorityRequest>,
    ) -> Result<Response<proto::RotateAuthorityResponse>, Status> {
        let (members, by) = (self.members.clone(), caller_of(&request)?.actor());
        let begun = async move { members.rotate_authority(by).await };
        to_the_end(begun).await?.map_err(failed)?;
        Ok(Response::new(proto::RotateAuthorityResponse {}))
    }

    async fn promote(
        &self,
        request: Request<proto::PromoteRequest>,
    ) -> Result<Response<proto::PromoteResponse>, Status> {
        let caller = caller_of(&request)?;
        let node = node(request.into_inner().node)?;
        self.change(caller, about(Verb::NodePromote, node), move |members| members.promote(node))
            .await?;
        tracing::info!(node = node.0, "promoted by the administrator");
        Ok(Response::new(proto::PromoteResponse {}))
    }

    async fn drain(
        &self,
        request: Request<proto::DrainRequest>,
    ) -> Result<Response<proto::DrainResponse>, Status> {
        let caller = caller_of(&request)?;
        let node = node(request.into_inner().node)?;
        self.change(caller, about(Verb::NodeDrain, node), move |members| members.drain(node))
            .await?;
        tracing::info!(node = node.0, "drained by the administrator");
        Ok(Response::new(proto::DrainResponse {}))
    }

    async fn remove(
        &self,
        request: Request<proto::RemoveRequest>,
    ) -> Result<Response<proto::RemoveResponse>, Status> {
        let caller = caller_of(&request)?;
        let proto::RemoveRequest { node: number, force } = request.into_inner();
        let node = node(number)?;
        let deed = about(Verb::NodeRemove, node);
        self.change(caller, deed, move |members| members.remove(node, force)).await?;
        tracing::warn!(node = node.0, force, "removed by the administrator");
        Ok(Response::new(proto::RemoveResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let caller = caller_of(&request)?;
        let to = Some(request.into_inner().to).filter(|to| *to != 0).map(NodeId);
        let about = to.map_or(About::Cluster, About::Node);
        let leader = self
            .change(caller, Deed::new(Verb::ClusterTransferLeader, about), move |members| {
                members.transfer_leader(to)
            })
            .await?;
        Ok(Response::new(proto::TransferLeaderResponse { leader: leader.0 }))
    }

    async fn snapshot(
        &self,
        request: Request<proto::SnapshotRequest>,
    ) -> Result<Response<proto::SnapshotResponse>, Status> {
        let caller = caller_of(&request)?;
        // This node's own affair, which takes no majority: the entries come when there is one.
        let members = self.members.clone();
        let deed = Deed::new(Verb::ClusterSnapshot, About::Cluster);
        caller.note(deed.clone(), Verdict::Asked);
        let index = to_the_end(carried_out(caller, deed, async move { members.snapshot().await }))
            .await??;
        Ok(Response::new(proto::SnapshotResponse { index }))
    }

    async fn finalize_upgrade(
        &self,
        request: Request<proto::FinalizeUpgradeRequest>,
    ) -> Result<Response<proto::FinalizeUpgradeResponse>, Status> {
        let caller = caller_of(&request)?;
        let level = self
            .change(caller, Deed::new(Verb::ClusterUpgrade, About::Cluster), |members| {
                members.finalize_upgrade()
            })
            .await?;
        tracing::info!(level = level.0, "feature level raised by the administrator");
        Ok(Response::new(proto::FinalizeUpgradeResponse { feature_level: level.0 }))
    }

    async fn set_replicas(
        &self,
        request: Request<proto::SetReplicasRequest>,
    ) -> Result<Response<proto::SetReplicasResponse>, Status> {
        let caller = caller_of(&request)?;
        let replicas = request.into_inner().replicas;
        if !REPLICAS.contains(&replicas) {
            return Err(Status::invalid_argument(format!(
                "a cluster keeps from {} to {} copies of each blob, and not {replicas}",
                REPLICAS.start(),
                REPLICAS.end()
            )));
        }
        let deed = Deed::new(Verb::ClusterReplicas, About::Cluster);
        self.change(caller, deed, move |members| members.set_replicas(replicas)).await?;
        tracing::info!(replicas, "number of copies changed by the administrator");
        Ok(Response::new(proto::SetReplicasResponse {}))
    }

    async fn list_jobs(
        &self,
        _request: Request<proto::ListJobsRequest>,
    ) -> Result<Response<proto::ListJobsResponse>, Status> {
        let jobs = self.jobs.list().iter().map(job_to_proto).collect();
        Ok(Response::new(proto::ListJobsResponse { jobs }))
    }
}
