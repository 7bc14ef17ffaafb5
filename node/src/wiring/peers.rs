//! This node's doors for other members: what they may ask, and how requests go to them.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, map_request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use nora_app::ports::members::{NodeReport, Reporter};
use nora_app::ports::metadata::{Metadata, MetadataError};
use nora_app::ports::{BoxError, BoxFuture};
use nora_cluster::Cluster;
use nora_domain::{Key, NodeId, Record, Standing};
use nora_trust::{Identity, Peer, PeerAddress};
use rustls::pki_types::CertificateDer;
use tower::{Service, ServiceExt};

use super::storage::Storage;
use crate::server::{Introduce, OtherEnd, Review};
use nora_http::{ConnectionInfo, Forward, ForwardError};

/// Passes requests on over the connections between members.
pub(super) struct OverChannels(pub(super) Arc<Cluster>);

impl Forward for OverChannels {
    fn forward(
        &self,
        node: NodeId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, ForwardError>> {
        Box::pin(async move {
            let unreachable =
                |error: tonic::transport::Error| ForwardError::Unreachable(BoxError::from(error));
            let Some(mut channel) = self.0.channel(node) else {
                return Err(self.without_address(node).await);
            };
            let answer = match channel.ready().await {
                Ok(channel) => channel.call(request.map(tonic::body::Body::new)).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => Ok(response.map(Body::new)),
                Err(error) if self.is_member(node).await.unwrap_or(true) => Err(unreachable(error)),
                Err(_) => Err(ForwardError::NoMember),
            }
        })
    }
}

impl OverChannels {
    async fn without_address(&self, node: NodeId) -> ForwardError {
        match self.is_member(node).await {
            Ok(false) => ForwardError::NoMember,
            Ok(true) => ForwardError::Unreachable("its address is not known here".into()),
            Err(error) => ForwardError::Unreachable(error.into()),
        }
    }

    /// Whether a node is a member, as of now: this node may be behind.
    async fn is_member(&self, node: NodeId) -> Result<bool, MetadataError> {
        self.0.linearize().await?;
        let record = self.0.get(Key::Node(node)).await?;
        Ok(matches!(record, Some(Record::Node(node)) if node.standing != Standing::Removed))
    }
}

/// Puts who is at the other end into each request of a connection.
pub(super) fn introduce(identity: Arc<Identity>) -> Introduce {
    Arc::new(move |certificates, extensions| {
        let peer = identity.peer_of(certificates).map_err(io::Error::other)?;
        extensions.insert(peer);
        Ok(match peer {
            Peer::Anonymous => OtherEnd::Stranger,
            Peer::Member { .. } | Peer::Admin => OtherEnd::Known,
        })
    })
}

/// Closes connections of nodes that were removed, and those whose certificates this node would not accept any more.
pub(super) fn review(identity: Arc<Identity>, cluster: &Arc<Cluster>) -> Review {
    let members = cluster.clone();
    let accepts = move |certificates: &[CertificateDer<'static>]| {
        let is_removed = match identity.peer_of(certificates) {
            Ok(Peer::Member { node }) => members.is_removed(node),
            Ok(Peer::Admin | Peer::Anonymous) | Err(_) => false,
        };
        !is_removed && identity.accepts(certificates)
    };
    Review { changes: cluster.changes_of_trust(), accepts: Arc::new(accepts) }
}

/// Tells each request from which address it comes, in the words of `nora-trust`.
pub(super) fn with_address(routes: Router) -> Router {
    routes.layer(map_request(async |mut request: Request| {
        let info = request.extensions().get::<ConnectionInfo>().copied();
        if let Some(info) = info {
            request.extensions_mut().insert(PeerAddress(info.peer.ip()));
        }
        request
    }))
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
