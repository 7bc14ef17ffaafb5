//! The gRPC admin API: `nora.v1`, with health and reflection.
//!
//! Guarantees: no method but the health service's is answered without an administrator (a certificate of the cluster's, or
//! the password; on an open node, whoever connects from this machine); every refusal says what to do next.
//!
//! Must not know: which adapters stand behind the ports, nor how connections are encrypted. Whoever serves it puts a
//! [`Peer`] into the extensions of each request.

mod cluster;
mod content;
mod local;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use nora_app::Error;
use nora_app::ports::members::{Members, Reporter};
use nora_app::ports::metadata::MetadataError;
use nora_app::ports::upkeep::Upkeep;
use nora_proto::v1::blobs_server::BlobsServer;
use nora_proto::v1::cluster_server::ClusterServer;
use nora_proto::v1::config_server::ConfigServer;
use nora_proto::v1::content_server::ContentServer;
use nora_trust::Peer;
use tonic::Status;

use crate::api::{Api, ConnectionInfo};
use crate::identity::{Decision, Gate};
use crate::metrics::Route;

/// Requests are small: names and numbers.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// What the services work on.
pub struct Admin {
    /// Use cases, and who may ask.
    pub api: Arc<Api>,
    /// Who takes part.
    pub members: Arc<dyn Members>,
    /// What this node tells of itself.
    pub reporter: Arc<dyn Reporter>,
    /// What it does for its blobs.
    pub upkeep: Arc<dyn Upkeep>,
    /// The configuration in effect as TOML, without secrets.
    pub config: String,
}

/// The services' routes, for the cluster port.
pub fn router(admin: Arc<Admin>) -> Router {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(nora_proto::DESCRIPTORS)
        .with_service_name("nora.v1.Cluster")
        .with_service_name("nora.v1.Content")
        .with_service_name("nora.v1.Blobs")
        .with_service_name("nora.v1.Config")
        .build_v1();
    let cluster =
        ClusterServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let content =
        ContentServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let mut guarded = Router::new()
        .route_service("/nora.v1.Cluster/{*method}", cluster)
        .route_service("/nora.v1.Content/{*method}", content)
        .route_service("/nora.v1.Blobs/{*method}", BlobsServer::from_arc(admin.clone()))
        .route_service("/nora.v1.Config/{*method}", ConfigServer::from_arc(admin.clone()));
    match reflection {
        Ok(reflection) => {
            let path = "/grpc.reflection.v1.ServerReflection/{*method}";
            guarded = guarded.route_service(path, reflection);
        }
        Err(error) => tracing::error!(%error, "the admin API cannot describe itself"),
    }
    guarded
        .layer(from_fn_with_state(admin.clone(), authenticate))
        .route_service("/grpc.health.v1.Health/{*method}", local::health(admin))
}

/// Lets administrators through.
async fn authenticate(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    if may_administer(&admin.api.gate, &request) {
        return next.run(request).await;
    }
    let message = "log in as the administrator: show its certificate (identity/admin.crt in a member's data folder) or its \
                   password";
    Status::unauthenticated(message).into_http::<axum::body::Body>().into_response()
}

fn may_administer(gate: &Gate, request: &Request) -> bool {
    match request.extensions().get::<Peer>() {
        // A member's owner administers the cluster from its machine; its own certificate is as good as the other.
        Some(Peer::Admin | Peer::Member { .. }) => true,
        Some(Peer::Anonymous) | None => match gate {
            Gate::Open => request
                .extensions()
                .get::<ConnectionInfo>()
                .is_some_and(|connection| connection.peer.ip().to_canonical().is_loopback()),
            Gate::Admin(_) => gate.decide(Route::Other, request.headers()) == Decision::Allow,
        },
    }
}

/// A use case's refusal in gRPC's words.
fn refused(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::RepositoryUnknown
        | Error::BlobUnknown(_)
        | Error::ArtifactUnknown(_)
        | Error::TagUnknown(_)
        | Error::UploadUnknown(_) => Status::not_found(message),
        Error::BlobReferenced { .. } | Error::ReferencesMissing { .. } => {
            Status::failed_precondition(message)
        }
        Error::Unavailable { .. } | Error::UploadBusy | Error::TooManyUploads { .. } => {
            Status::unavailable(message)
        }
        Error::OutcomeUnknown => Status::unknown(
            "no answer in time: the change may or may not have been made; looking, or trying again, is safe",
        ),
        Error::DigestMismatch { .. }
        | Error::UploadOffset { .. }
        | Error::TooLarge { .. }
        | Error::TooManyReferences { .. }
        | Error::BodyBroken(_) => Status::invalid_argument(message),
        Error::DiskFull => Status::resource_exhausted(message),
        Error::Internal { source, .. } => {
            let cause = source.as_ref().map(tracing::field::display);
            tracing::error!(error = message, cause, "an admin request failed");
            Status::internal("the registry failed; its log has the cause")
        }
    }
}

/// The metadata's in gRPC's words.
fn metadata_failed(error: MetadataError) -> Status {
    refused(Error::from(error))
}
