//! Connections between members over mutual TLS.
//!
//! Guarantee: a connection reaches the very node that was meant, or none, for each node's certificate carries its
//! number. The identity's newest certificate is shown whenever a connection is made.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use nora_app::ports::BoxError;
use nora_domain::NodeId;
use nora_trust::{Identity, Peer, member_name};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Uri};

use super::{Transport, endpoint};

/// Members that know each other by their certificates.
#[derive(Clone)]
pub struct MutualTls {
    identity: Arc<Identity>,
}

impl MutualTls {
    /// Connections that show the certificate of `identity`. Whoever serves must put the [`Peer`] that a connection's
    /// certificate names into the extensions of its requests.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity }
    }
}

impl Transport for MutualTls {
    fn channel(&self, node: NodeId, address: &str) -> Result<Channel, BoxError> {
        let name = ServerName::try_from(member_name(self.identity.cluster(), node))?;
        let (identity, address) = (self.identity.clone(), Arc::<str>::from(address));
        let connector = tower::service_fn(move |_: Uri| {
            connect(identity.clone(), address.clone(), name.clone())
        });
        Ok(endpoint(&address_of(node))?.connect_with_connector_lazy(connector))
    }

    fn caller(&self, extensions: &http::Extensions) -> Option<NodeId> {
        match extensions.get::<Peer>() {
            Some(Peer::Member { node }) => Some(*node),
            Some(Peer::Admin | Peer::Anonymous) | None => None,
        }
    }
}

/// What requests name as the server; the connector alone knows the way there.
fn address_of(node: NodeId) -> String {
    format!("n{}.nora.internal", node.0)
}

async fn connect(
    identity: Arc<Identity>,
    address: Arc<str>,
    name: ServerName<'static>,
) -> Result<TokioIo<TlsStream<TcpStream>>, std::io::Error> {
    let connection = TcpStream::connect(&*address).await?;
    connection.set_nodelay(true)?;
    let connector = TlsConnector::from(identity.client_config());
    Ok(TokioIo::new(connector.connect(name, connection).await?))
}
