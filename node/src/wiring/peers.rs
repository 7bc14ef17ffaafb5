//! This node's doors for other members: what they may ask, and how requests go to them.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use nora_app::ports::members::{NodeReport, Reporter};
use nora_app::ports::{BoxError, BoxFuture};
use nora_cluster::Cluster;
use nora_domain::NodeId;
use nora_trust::{Identity, Peer};
use tower::{Service, ServiceExt};

use super::storage::Storage;
use crate::api::forward::Forward;
use crate::server::Introduce;

/// Passes requests on over the connections between members.
pub(super) struct OverChannels(pub(super) Arc<Cluster>);

impl Forward for OverChannels {
    fn forward(&self, node: NodeId, request: Request) -> BoxFuture<'_, Result<Response, BoxError>> {
        Box::pin(async move {
            let channel =
                self.0.channel(node).ok_or_else(|| format!("node {} is not known", node.0))?;
            let mut channel = channel;
            let channel = channel.ready().await?;
            let response = channel.call(request.map(tonic::body::Body::new)).await?;
            Ok(response.map(Body::new))
        })
    }
}

/// Puts who is at the other end into each request of a connection.
pub(super) fn introduce(identity: Arc<Identity>) -> Introduce {
    Arc::new(move |certificates, extensions| {
        let peer = identity.peer_of(certificates).map_err(io::Error::other)?;
        extensions.insert(peer);
        Ok(())
    })
}

/// Lets members through and nobody else.
pub(super) fn for_members(cluster: Arc<Cluster>, routes: Router) -> Router {
    routes.layer(from_fn(move |request: Request, next: Next| {
        let known = cluster.caller(request.extensions()).is_some();
        async move {
            match known {
                true => next.run(request).await,
                false => (StatusCode::FORBIDDEN, "only members of the cluster may ask here\n")
                    .into_response(),
            }
        }
    }))
}

/// Lets everybody through but nodes that were removed: their certificates are good until they expire.
pub(super) fn not_for_removed(cluster: Arc<Cluster>, routes: Router) -> Router {
    routes.layer(from_fn(move |request: Request, next: Next| {
        let is_member = matches!(request.extensions().get::<Peer>(), Some(Peer::Member { .. }));
        let removed = is_member && cluster.caller(request.extensions()).is_none();
        async move {
            match removed {
                false => next.run(request).await,
                true => tonic::Status::permission_denied("this node was removed from the cluster")
                    .into_http::<Body>()
                    .into_response(),
            }
        }
    }))
}

/// One router of several; each may have brought a fallback of its own.
pub(super) fn merged(routers: impl IntoIterator<Item = Router>) -> Router {
    routers.into_iter().fold(Router::new(), |all, one| all.merge(one.reset_fallback()))
}

/// What this node tells of itself.
pub(super) struct OwnReport {
    data_dir: PathBuf,
    storage: OnceLock<Storage>,
}

impl OwnReport {
    pub(super) fn new(data_dir: PathBuf) -> Arc<Self> {
        Arc::new(Self { data_dir, storage: OnceLock::new() })
    }

    /// The blobs are open.
    pub(super) fn tell_storage(&self, storage: Storage) {
        // Told once, at the start.
        let _ = self.storage.set(storage);
    }
}

impl Reporter for OwnReport {
    fn report(&self) -> BoxFuture<'_, NodeReport> {
        Box::pin(async {
            let mut report = NodeReport {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..NodeReport::default()
            };
            if let Ok(disk) = rustix::fs::statvfs(&self.data_dir) {
                report.disk_total = disk.f_blocks.saturating_mul(disk.f_frsize);
                report.disk_free = disk.f_bavail.saturating_mul(disk.f_frsize);
            }
            if let Some(storage) = self.storage.get() {
                storage.report(&mut report);
            }
            report
        })
    }
}
