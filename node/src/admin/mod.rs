//! The gRPC admin API: `nora.v1`, with health and reflection.
//!
//! Guarantees: no method but the health service's is answered without an administrator (a certificate of the cluster's, or
//! the password; on an open node, whoever connects from this machine); every refusal says what to do next; every call has
//! an end, and a change that was begun is carried out whether or not its client waits for it.
//!
//! Must not know: which adapters stand behind the ports, nor how connections are encrypted. Whoever serves it puts a
//! [`Peer`] into the extensions of each request.

mod cluster;
mod content;
mod local;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
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

/// When an answer is given up, whatever the client's own deadline.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Services that reflection tells of.
const SERVICES: [&str; 5] = [
    "nora.v1.Cluster",
    "nora.v1.Content",
    "nora.v1.Blobs",
    "nora.v1.Config",
    "grpc.health.v1.Health",
];

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
    let cluster =
        ClusterServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let content =
        ContentServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let blobs = BlobsServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let config = ConfigServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let health = local::health(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let mut guarded = Router::new()
        .route_service("/nora.v1.Cluster/{*method}", cluster)
        .route_service("/nora.v1.Content/{*method}", content)
        .route_service("/nora.v1.Blobs/{*method}", blobs)
        .route_service("/nora.v1.Config/{*method}", config);
    let described = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(nora_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let described = SERVICES.into_iter().fold(described, |all, name| all.with_service_name(name));
    match described.build_v1() {
        Ok(reflection) => {
            let path = "/grpc.reflection.v1.ServerReflection/{*method}";
            let reflection = reflection.max_decoding_message_size(REQUEST_BYTES_MAX);
            guarded = guarded.route_service(path, reflection);
        }
        Err(error) => tracing::error!(%error, "the admin API cannot describe itself"),
    }
    guarded
        .layer(from_fn_with_state(admin, authenticate))
        .route_service("/grpc.health.v1.Health/{*method}", health)
        .layer(from_fn(in_time))
}

/// Answers within the client's deadline or the server's own, whichever comes first.
async fn in_time(request: Request, next: Next) -> Response {
    let asked = request.headers().get("grpc-timeout").and_then(|value| value.to_str().ok());
    let timeout = asked.and_then(timeout_of).map_or(ANSWER_TIMEOUT, |t| t.min(ANSWER_TIMEOUT));
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = "no answer in time: a change that was asked for may still be made; looking, or trying again, \
                           is safe";
            Status::deadline_exceeded(message).into_http::<axum::body::Body>().into_response()
        }
    }
}

/// What the header `grpc-timeout` says: up to eight digits and a unit.
fn timeout_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Runs a change to its end even if its client hangs up or its time is over.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = T> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(change).await.map_err(|error| {
        tracing::error!(%error, "an admin request's task failed");
        Status::internal("the registry failed; its log has the cause")
    })
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
