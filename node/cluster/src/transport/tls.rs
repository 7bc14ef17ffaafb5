//! Connections between members over mutual TLS.
//!
//! Guarantee: a connection reaches the very node that was meant, or none, for each node's certificate carries its
//! number. The identity's newest certificate is shown whenever a connection is made, and a connection of before a renewal
//! is known by its age.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use nora_app::ports::BoxError;
use nora_domain::NodeId;
use nora_trust::{Identity, Peer, member_name};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Uri};

use super::{Transport, endpoint};
use crate::rocks::locked;

/// Members that know each other by their certificates.
#[derive(Clone)]
pub struct MutualTls {
    identity: Arc<Identity>,
    /// Each connection holds the one that was in use when it was made.
    ages: Arc<Mutex<Ages>>,
}

/// By what a connection's age is known: whatever holds [`Self::current`] was made since the last renewal.
#[derive(Debug, Default)]
struct Ages {
    current: Arc<()>,
    older: Vec<Weak<()>>,
}

impl Ages {
    fn renew(&mut self) {
        let before = std::mem::take(&mut self.current);
        self.older.push(Arc::downgrade(&before));
    }

    fn has_older(&mut self) -> bool {
        self.older.retain(|age| age.strong_count() > 0);
        !self.older.is_empty()
    }
}

impl MutualTls {
    /// Connections that show the certificate of `identity`. Whoever serves must put the [`Peer`] that a connection's
    /// certificate names into the extensions of its requests.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity, ages: Arc::default() }
    }
}

impl Transport for MutualTls {
    fn channel(&self, node: NodeId, address: &str) -> Result<Channel, BoxError> {
        let name = ServerName::try_from(member_name(self.identity.cluster(), node))?;
        let (identity, address) = (self.identity.clone(), Arc::<str>::from(address));
        let ages = self.ages.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let age = locked(&ages).current.clone();
            let connecting = connect(identity.clone(), address.clone(), name.clone());
            async move { connecting.await.map(|stream| TokioIo::new(Aged { stream, _age: age })) }
        });
        Ok(endpoint(&address_of(node))?.connect_with_connector_lazy(connector))
    }

    fn caller(&self, extensions: &http::Extensions) -> Option<NodeId> {
        match extensions.get::<Peer>() {
            Some(Peer::Member { node }) => Some(*node),
            Some(Peer::Admin | Peer::Anonymous) | None => None,
        }
    }

    fn renew(&self) {
        locked(&self.ages).renew();
    }

    fn has_older(&self) -> bool {
        locked(&self.ages).has_older()
    }
}

/// A connection that holds its age: as long as it is open, the age is in use.
struct Aged {
    stream: TlsStream<TcpStream>,
    _age: Arc<()>,
}

impl AsyncRead for Aged {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Aged {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
) -> io::Result<TlsStream<TcpStream>> {
    let connection = TcpStream::connect(&*address).await?;
    connection.set_nodelay(true)?;
    let connector = TlsConnector::from(identity.client_config());
    connector.connect(name, connection).await
}
