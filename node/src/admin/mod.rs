//! The gRPC admin API: `nora.v1`, with health and reflection.
//!
//! Guarantees: no method but the health service's is answered for anybody who was not recognised (by a certificate of the
//! cluster's, a login or a token; on an open node, whoever connects from this machine); what a method takes stands in
//! [`needed`], and one that does not stand there is for administrators; every refusal says what to do next; every call
//! has an end, and a change that was begun is carried out whether or not its client waits for it; a token makes no tokens,
//! passwords and join tokens.
//!
//! Must not know: which adapters stand behind the ports, nor how connections are encrypted. Whoever serves it puts a
//! [`Peer`] into the extensions of each request.

mod cluster;
mod content;
mod identity;
mod local;
mod policy;
mod sessions;
#[cfg(test)]
mod tests;

use nora_domain::{About, Deed, Reason, Verb};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use nora_app::Error;
use nora_app::jobs::Jobs;
use nora_app::ports::members::{Members, Reporter};
use nora_app::ports::metadata::MetadataError;
use nora_app::ports::upkeep::Upkeep;
use nora_auth::credential::{Scheme, read_all};
use nora_auth::document::PolicyDocument;
use nora_proto::v1::audit_server::AuditServer;
use nora_proto::v1::blobs_server::BlobsServer;
use nora_proto::v1::cluster_server::ClusterServer;
use nora_proto::v1::config_server::ConfigServer;
use nora_proto::v1::content_server::ContentServer;
use nora_proto::v1::identity_server::IdentityServer;
use nora_proto::v1::policy_server::PolicyServer;
use nora_proto::v1::tenants_server::TenantsServer;
use nora_trust::Peer;
use tonic::Status;

use nora_http::{Api, ConnectionInfo};
use nora_identity::{Caller, Rejected};

/// Requests are small: names and numbers.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// A policy holds the htpasswd file's users as well; a log entry bounds it.
const POLICY_BYTES_MAX: usize = 2 << 20;

/// Rows of a page, which is also what 0 asks for.
const PAGE_ROWS_MAX: usize = 1_000;

/// When an answer is given up, whatever the client's own deadline.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Services that reflection tells of.
const SERVICES: [&str; 9] = [
    "nora.v1.Identity",
    "nora.v1.Policy",
    "nora.v1.Tenants",
    "nora.v1.Audit",
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
    /// What goes on beside the requests.
    pub jobs: Arc<dyn Jobs>,
    /// The configuration in effect as TOML, without secrets.
    pub config: String,
    /// The policy in this node's own file.
    pub policy: PolicyDocument,
}

/// The services' routes, for the cluster port.
pub fn router(admin: Arc<Admin>) -> Router {
    let cluster =
        ClusterServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let content =
        ContentServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let blobs = BlobsServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let config = ConfigServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let identity =
        IdentityServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let policy = PolicyServer::from_arc(admin.clone()).max_decoding_message_size(POLICY_BYTES_MAX);
    let tenants =
        TenantsServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let audit = AuditServer::from_arc(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let health = local::health(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let mut guarded = Router::new()
        .route_service("/nora.v1.Cluster/{*method}", cluster)
        .route_service("/nora.v1.Content/{*method}", content)
        .route_service("/nora.v1.Blobs/{*method}", blobs)
        .route_service("/nora.v1.Config/{*method}", config)
        .route_service("/nora.v1.Identity/{*method}", identity)
        .route_service("/nora.v1.Policy/{*method}", policy)
        .route_service("/nora.v1.Tenants/{*method}", tenants)
        .route_service("/nora.v1.Audit/{*method}", audit);
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

/// What a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// The administration of the registry.
    Administrator,
    /// Being recognised; the method itself asks for what it takes of a repository, an account or a token.
    Recognised,
}

/// What each method takes. Whatever is not named here is for administrators.
pub fn needed(path: &str) -> Needed {
    match path {
        "/nora.v1.Identity/WhoAmI"
        | "/nora.v1.Identity/SetPassword"
        | "/nora.v1.Identity/CreateToken"
        | "/nora.v1.Identity/ListTokens"
        | "/nora.v1.Identity/RevokeToken"
        | "/nora.v1.Identity/ListSessions"
        | "/nora.v1.Identity/RevokeSessions"
        | "/nora.v1.Identity/Explain"
        | "/nora.v1.Content/ListRepositories"
        | "/nora.v1.Content/ListTags"
        | "/nora.v1.Content/GetArtifact"
        | "/nora.v1.Content/SetTag"
        | "/nora.v1.Content/DeleteTag"
        | "/nora.v1.Content/DeleteArtifact" => Needed::Recognised,
        _ => Needed::Administrator,
    }
}

/// Lets through who is recognised and has what the method takes.
async fn authenticate(
    State(admin): State<Arc<Admin>>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match recognised(&admin, &request).await {
        Ok(caller) => caller,
        Err(status) => return status.into_http::<axum::body::Body>().into_response(),
    };
    let allowed = match needed(request.uri().path()) {
        Needed::Recognised => caller.is_exempt() || caller.identity().is_authenticated(),
        Needed::Administrator => caller.administers(),
    };
    if !allowed {
        let refusal = match caller.is_anonymous() {
            true => Status::unauthenticated(LOG_IN),
            false => {
                if let Some(verb) = audited(request.uri().path()) {
                    caller.note_refusal(Deed::new(verb, About::Registry), Reason::NotPermitted);
                }
                not_permitted(&caller, "admin:*")
            }
        };
        return refusal.into_http::<axum::body::Body>().into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// What the audit log calls a method that changes something; `None` for one that only tells.
fn audited(path: &str) -> Option<Verb> {
    Some(match path {
        "/nora.v1.Identity/AddUser" => Verb::AccountCreate,
        "/nora.v1.Identity/SetPassword" => Verb::AccountPassword,
        "/nora.v1.Identity/RemoveUser" => Verb::AccountRemove,
        "/nora.v1.Identity/CreateToken" => Verb::TokenCreate,
        "/nora.v1.Identity/RevokeToken" => Verb::TokenRevoke,
        "/nora.v1.Identity/RevokeSessions" => Verb::SessionRevoke,
        "/nora.v1.Policy/ApplyPolicy" => Verb::PolicySet,
        "/nora.v1.Cluster/CreateJoinToken" => Verb::NodeToken,
        "/nora.v1.Cluster/RevokeJoinToken" => Verb::NodeTokenRevoke,
        "/nora.v1.Cluster/RotateAuthority" => Verb::ClusterRotate,
        "/nora.v1.Cluster/Promote" => Verb::NodePromote,
        "/nora.v1.Cluster/Drain" => Verb::NodeDrain,
        "/nora.v1.Cluster/Remove" => Verb::NodeRemove,
        "/nora.v1.Cluster/TransferLeader" => Verb::ClusterTransferLeader,
        "/nora.v1.Cluster/Snapshot" => Verb::ClusterSnapshot,
        "/nora.v1.Cluster/SetReplicas" => Verb::ClusterReplicas,
        "/nora.v1.Cluster/FinalizeUpgrade" => Verb::ClusterUpgrade,
        "/nora.v1.Blobs/Scrub" => Verb::BlobsScrub,
        _ => return None,
    })
}

/// Rows of a page, as many as are asked for at most.
fn page_rows(asked: u32) -> usize {
    match usize::try_from(asked).unwrap_or(PAGE_ROWS_MAX) {
        0 => PAGE_ROWS_MAX,
        rows => rows.min(PAGE_ROWS_MAX),
    }
}

const LOG_IN: &str = "log in: show the administrator's certificate (identity/admin.crt in a member's data folder), a token \
                      (NORA_TOKEN), or a user name and password";

/// Who makes a request. What is read of it is read before anything is waited for: a body cannot be shared.
fn recognised(
    admin: &Arc<Admin>,
    request: &Request,
) -> impl Future<Output = Result<Caller, Status>> + Send + use<> {
    let guard = admin.api.guard.clone();
    let connection = request.extensions().get::<ConnectionInfo>();
    let address = connection.map(|connection| connection.peer.ip().to_canonical());
    let id: Arc<str> = nora_http::new_request_id().into();
    // A member's owner administers the cluster from its machine; its own certificate is as good as the other.
    let is_certified =
        matches!(request.extensions().get::<Peer>(), Some(Peer::Admin | Peer::Member { .. }));
    let shown: Vec<_> =
        request.headers().get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
    let credential = read_all(shown, Scheme::Docker);
    async move {
        if is_certified {
            return Ok(guard.administrator(address, id));
        }
        let caller = guard.recognise(credential, address, id).await.map_err(unrecognised)?;
        // A node that asks nobody for anything means this machine alone, and others may reach the cluster's port.
        let is_here = address.is_some_and(|address| address.is_loopback());
        if caller.is_exempt() && !is_here {
            return Err(Status::unauthenticated(LOG_IN));
        }
        Ok(caller)
    }
}

fn unrecognised(why: Rejected) -> Status {
    match why {
        Rejected::Wrong(why) => Status::unauthenticated(format!("{why}. To {LOG_IN}")),
        Rejected::TooMany(wait) => Status::resource_exhausted(format!(
            "too many logins failed; wait {} seconds, then try again",
            wait.as_secs().max(1)
        )),
        Rejected::Failed(error) => refused(error),
    }
}

/// Who makes a request that was let through.
fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::unauthenticated(LOG_IN))
}

fn not_permitted(caller: &Caller, permission: &str) -> Status {
    Status::permission_denied(format!(
        "{} may not do this: it takes the permission `{permission}`; ask an administrator",
        caller.identity().subject
    ))
}

/// Lets somebody make a login who shows a password or a certificate, and nobody who shows a token: what a token that leaked
/// has made would outlive the token, or lock its owner out.
fn may_make_logins(caller: &Caller, deed: Deed) -> Result<(), Status> {
    if caller.is_in_person() {
        return Ok(());
    }
    caller.note_refusal(deed, Reason::NotWithToken);
    Err(Status::permission_denied(
        "a token makes no logins, whoever owns it: show a password, or the administrator's certificate",
    ))
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
        Error::Unavailable { .. }
        | Error::UploadBusy
        | Error::TooManyUploads { .. }
        | Error::TooManyUploadsOfCaller { .. } => Status::unavailable(message),
        Error::OutcomeUnknown => Status::unknown(
            "no answer in time: the change may or may not have been made; looking, or trying again, is safe",
        ),
        Error::DigestMismatch { .. }
        | Error::UploadOffset { .. }
        | Error::TooLarge { .. }
        | Error::TooManyReferences { .. }
        | Error::BodyBroken(_) => Status::invalid_argument(message),
        Error::DiskFull | Error::QuotaExceeded { .. } => Status::resource_exhausted(message),
        Error::NotPermitted
        | Error::TagExists(_)
        | Error::TagImmutable(_)
        | Error::AssertionUsed
        | Error::AssertionOver => Status::permission_denied(message),
        Error::PolicyChanged => Status::unavailable(message),
        Error::Conflict { .. } => Status::failed_precondition(message),
        Error::NotFound { .. } => Status::not_found(message),
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
