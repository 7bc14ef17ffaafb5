//! How members talk to each other: gRPC over connections that somebody else makes and vouches for.
//!
//! Guarantees: only members are listened to; every call has a deadline; a node that does not answer is noticed within
//! about three seconds and never holds up what concerns others; no message is larger than [`MESSAGE_BYTES_MAX`].
//! Must not know: certificates (the [`Transport`] does), or what entries and snapshots mean.

pub mod network;
pub mod service;
mod snapshots;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nora_app::ports::BoxError;
use nora_domain::{NodeId, NodeRecord, Standing};
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

pub use self::snapshots::Incoming;
pub use self::tls::MutualTls;
use crate::rocks::locked;

/// The largest message: a batch of entries takes a mebibyte, a single entry or chunk no more than that either.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Tells a node that was removed so, beside the sentence for people.
pub(crate) const REMOVED_KEY: &str = "nora-removed";

/// How a node reaches others, and how it knows who calls.
pub trait Transport: Send + Sync {
    /// A way to `node`, which listens at `address`. It is used at once but connects when it is needed, and again
    /// whenever the connection was lost. An address that cannot be understood is an error.
    fn channel(&self, node: NodeId, address: &str) -> Result<Channel, BoxError>;

    /// The member that sent a request with these extensions; none if it was anybody else.
    fn caller(&self, extensions: &http::Extensions) -> Option<NodeId>;

    /// Connections that exist now are old from now on: certificates have changed.
    fn renew(&self);

    /// Whether a connection that was made before the last [`Self::renew`] is open still.
    fn has_older(&self) -> bool;
}

/// What both ends of every connection between members keep to. `address` is `host:port`.
pub fn endpoint(address: &str) -> Result<Endpoint, BoxError> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(4 << 20))
}

/// No other node: a cluster of one.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Transport for Alone {
    fn channel(&self, node: NodeId, _address: &str) -> Result<Channel, BoxError> {
        Err(format!("node {} cannot be reached: this node has no cluster network", node.0).into())
    }

    fn caller(&self, _extensions: &http::Extensions) -> Option<NodeId> {
        None
    }

    fn renew(&self) {}

    fn has_older(&self) -> bool {
        false
    }
}

/// What a connection is for. A long transfer must not stand before a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Consensus and proposals.
    Control,
    /// Snapshots and blobs.
    Bulk,
}

/// Connections to other members, and where they listen.
pub struct Peers {
    transport: Arc<dyn Transport>,
    addresses: Arc<Addresses>,
    channels: Mutex<HashMap<(NodeId, Lane), (String, Channel)>>,
    /// Counts changes of what this node trusts or shows.
    renewals: watch::Sender<u64>,
}

/// What the applied state says of nodes.
#[derive(Debug, Default)]
pub struct Addresses {
    nodes: Mutex<HashMap<NodeId, Known>>,
    /// Counts the changes after which open connections have to be looked at: removals of nodes, and renewals.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Known {
    address: String,
    removed: bool,
}

impl Addresses {
    /// A node's record has this content now.
    pub fn note(&self, node: NodeId, record: &NodeRecord) {
        let address = record.profile.cluster_address.clone();
        let removed = record.standing == Standing::Removed;
        let before = locked(&self.nodes).insert(node, Known { address, removed });
        if removed && before.is_some_and(|before| !before.removed) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Where a node says that it listens; none if it does not say.
    fn get(&self, node: NodeId) -> Option<String> {
        let nodes = locked(&self.nodes);
        nodes.get(&node).map(|known| known.address.clone()).filter(|address| !address.is_empty())
    }

    /// Whether a node was taken out for good.
    fn removed(&self, node: NodeId) -> bool {
        locked(&self.nodes).get(&node).is_some_and(|known| known.removed)
    }
}

impl Peers {
    /// Connections made by `transport`, to where `addresses` says.
    pub fn new(transport: Arc<dyn Transport>, addresses: Arc<Addresses>) -> Self {
        Self { transport, addresses, channels: Mutex::default(), renewals: watch::Sender::new(0) }
    }

    /// A connection to a node, shared with everybody who uses that lane. The state says where the node listens, or else
    /// `known`. None if nothing is known of it, or if what is known is no address.
    pub fn channel(
        &self,
        node: NodeId,
        lane: Lane,
        known: impl FnOnce() -> Option<String>,
    ) -> Option<Channel> {
        let address = self.addresses.get(node).or_else(known)?;
        let mut channels = locked(&self.channels);
        if let Some((of, channel)) = channels.get(&(node, lane))
            && *of == address
        {
            return Some(channel.clone());
        }
        match self.transport.channel(node, &address) {
            Ok(channel) => {
                channels.insert((node, lane), (address, channel.clone()));
                Some(channel)
            }
            Err(error) => {
                tracing::warn!(node = node.0, %address, %error, "cannot reach a node");
                None
            }
        }
    }

    /// What this node trusts or shows has changed: calls from now on go over new connections.
    pub fn renew(&self) {
        self.transport.renew();
        locked(&self.channels).clear();
        self.renewals.send_modify(|count| *count += 1);
        self.addresses.changes.send_modify(|count| *count += 1);
    }

    /// Whether a connection of before the last [`Self::renew`] is open still.
    pub fn has_older(&self) -> bool {
        self.transport.has_older()
    }

    /// Changes each time that what this node trusts or shows has changed.
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    /// Changes each time that open connections have to be looked at: a node was removed, or authorities have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.addresses.changes.subscribe()
    }

    /// Whether a node was removed for good.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.addresses.removed(node)
    }

    /// Who sent a request, if it was a member. A certificate outlives the membership of a node that was removed.
    pub fn caller(&self, extensions: &http::Extensions) -> Option<NodeId> {
        self.transport.caller(extensions).filter(|caller| !self.addresses.removed(*caller))
    }

    /// Why a request is refused that only members may make; `None` if a member sent it.
    pub fn refusal(&self, extensions: &http::Extensions) -> Option<Status> {
        if let Some(node) = self.removed_caller(extensions) {
            let mut status = Status::permission_denied(format!(
                "node {} was removed from the cluster: let it join anew, with an empty data folder",
                node.0
            ));
            status.metadata_mut().insert(REMOVED_KEY, MetadataValue::from(node.0));
            return Some(status);
        }
        match self.caller(extensions) {
            Some(_) => None,
            None => Some(Status::permission_denied(
                "only members of the cluster may call this: show a node's certificate",
            )),
        }
    }

    /// Who sent a request, if it was a node that was removed.
    pub fn removed_caller(&self, extensions: &http::Extensions) -> Option<NodeId> {
        self.transport.caller(extensions).filter(|caller| self.addresses.removed(*caller))
    }
}
