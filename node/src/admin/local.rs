//! What concerns the node that is asked alone: `nora.v1.Blobs`, `nora.v1.Config`, and gRPC's health service.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use nora_proto::v1 as proto;
use nora_proto::v1::blobs_server::Blobs;
use nora_proto::v1::config_server::Config;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Admin;
use super::cluster::report_to_proto;

#[tonic::async_trait]
impl Blobs for Admin {
    async fn stat(
        &self,
        _request: Request<proto::StatRequest>,
    ) -> Result<Response<proto::StatResponse>, Status> {
        let report = self.reporter.report().await;
        Ok(Response::new(proto::StatResponse { report: Some(report_to_proto(&report)) }))
    }

    async fn scrub(
        &self,
        _request: Request<proto::ScrubRequest>,
    ) -> Result<Response<proto::ScrubResponse>, Status> {
        if self.upkeep.scrub_now() {
            return Ok(Response::new(proto::ScrubResponse {}));
        }
        Err(Status::failed_precondition(
            "this node holds no copies of its own: its blobs are in a bucket, whose service looks after them",
        ))
    }
}

#[tonic::async_trait]
impl Config for Admin {
    async fn show(
        &self,
        _request: Request<proto::ShowRequest>,
    ) -> Result<Response<proto::ShowResponse>, Status> {
        Ok(Response::new(proto::ShowResponse { toml: self.config.clone() }))
    }
}

/// gRPC's health service: what `/ready` says.
pub(super) fn health(admin: Arc<Admin>) -> HealthServer<Readiness> {
    HealthServer::new(Readiness(admin))
}

pub(super) struct Readiness(Arc<Admin>);

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !service.is_empty() && !service.starts_with("nora.v1.") {
            return Err(Status::not_found("no such service is known here"));
        }
        let ready = self.0.api.probe.health().await.is_ready();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // The state now; a watcher that wants to know later asks again, as the protocol lets it.
        let now = self.check(request).await?.into_inner();
        let watched: Self::WatchStream = Box::pin(stream::iter([Ok(now)]));
        Ok(Response::new(watched))
    }
}
