//! Connections: accept, decrypt, serve, and finish what runs when the node stops.
//!
//! Guarantees: a handshake, a request's head, an answer's next bytes and a stop each have a deadline; the number of connections
//! is bounded, in all and of each address; a certificate that is replaced on disk is used for new connections without a restart, and a broken one is not.

mod places;
mod progress;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use axum::Router;
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use http::header::{CONNECTION, HOST};
use http::uri::Authority;
use http::{Extensions, StatusCode, Version};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use places::{Place, Places};
use progress::Open;

use nora_config::Network;
use nora_http::metrics::Metrics;
use nora_http::{ConnectionInfo, make_inert};

/// What an HTTP/2 client sends first; no HTTP/1 request begins so.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest pause between two looks at a connection that has sent a part of the preface.
const PREFACE_PAUSE_MAX: Duration = Duration::from_secs(4);
/// Streams of a connection whose other end showed no certificate, on a port that asks for one.
const STRANGERS_STREAMS_MAX: u32 = 16;
/// An HTTP/2 connection with nothing open for so long is told to end: its client makes another when it needs one.
const HTTP2_IDLE_MAX: Duration = Duration::from_secs(300);
/// How long a stop waits for the client of an HTTP/2 connection with nothing open to say goodbye: one whose machine vanished
/// never does. What is left of an answer in this process gets as long to reach the kernel.
const GOODBYE_MAX: Duration = Duration::from_secs(5);
/// Larger frames than HTTP/2's least cost less for each byte of a blob.
const HTTP2_FRAME_BYTES_MAX: u32 = 256 << 10;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// What the server keeps to.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Connections at once; further ones wait to be accepted.
    pub connections_max: usize,
    /// Connections at once from one address; further ones are closed.
    pub connections_per_address_max: usize,
    /// Proxies, which have as many as they like.
    pub trusted_proxies: Vec<Network>,
    /// Connections at once whose other end is a stranger, where that matters; further ones are closed.
    pub strangers_max: usize,
    /// For a TLS handshake, and for each request's head.
    pub head_timeout: Duration,
    /// For a client that does not take what it is sent.
    pub write_timeout: Duration,
    /// For running transfers after a stop was asked for.
    pub drain_timeout: Duration,
    /// Requests that one HTTP/2 connection may have open at once.
    pub http2_streams_max: u32,
    /// Bytes buffered for a connection's incoming data.
    pub read_buffer_bytes_max: usize,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {what} from {}", .path.display())]
    Read {
        /// "the certificate" or "the private key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key do not work together, or the key is of no known kind.
    #[error("the certificate in {} and its key cannot be used together", .path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate that is read again when its files change.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    current: ArcSwap<CertifiedKey>,
    /// When the files in use were written, as far as that is known.
    seen: Mutex<Option<Written>>,
}

/// When a certificate and its key were written.
type Written = (SystemTime, SystemTime);

fn load(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let unreadable = |what, path: &PathBuf| {
        let path = path.clone();
        move |source| TlsError::Read { what, path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(unreadable("the certificate", &files.cert))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(unreadable("the private key", &files.key))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map_err(|source| TlsError::Pair { path: files.cert.clone(), source })
}

impl Certificate {
    /// Reads the certificate; a node does not start with one that cannot be used.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let seen = Mutex::new(written(&files));
        let current = ArcSwap::from_pointee(load(&files)?);
        Ok(Arc::new(Self { files, current, seen }))
    }

    /// Reads the files again; keeps what is in use if they cannot be.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(load(&self.files)?));
        Ok(())
    }

    /// Reads the files again if they changed, or in any case if `asked`; true if they were read. Without a change only
    /// the files' times are looked at. Files that cannot be used are read again at each look.
    pub fn look(&self, asked: bool) -> Result<bool, TlsError> {
        let now = written(&self.files);
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !asked && (now == seen || now.is_none()) {
            return Ok(false);
        }
        self.reload()?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
        info!(cert = %self.files.cert.display(), "certificate reloaded");
        Ok(true)
    }
}

fn written(files: &TlsFiles) -> Option<Written> {
    let time = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    Some((time(&files.cert)?, time(&files.key)?))
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// How connections are encrypted with a certificate that may be replaced while they are served.
pub fn tls_config(certificate: Arc<Certificate>) -> Result<rustls::ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What answers requests; it may be replaced while connections are open.
pub type Surface = Arc<ArcSwap<Router>>;

/// Tells who is at the other end, from the certificates that the TLS handshake has verified: what is put into the
/// extensions goes with every request of the connection. An error ends the connection.
pub type Introduce =
    Arc<dyn Fn(&[CertificateDer<'static>], &mut Extensions) -> io::Result<OtherEnd> + Send + Sync>;

/// Who is at the other end of a connection, as far as it is served differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherEnd {
    /// It has shown a certificate.
    Known,
    /// It has shown no certificate: it gets few streams, and there are few such connections.
    Stranger,
}

/// Whether the other end, which showed these certificates, is still one to talk to.
pub type Accepts = Arc<dyn Fn(&[CertificateDer<'static>]) -> bool + Send + Sync>;

/// Whether connections that are open may stay so.
#[derive(Clone)]
pub struct Review {
    /// Each change is a reason to look at every connection again.
    pub changes: watch::Receiver<u64>,
    /// Judges the other end.
    pub accepts: Accepts,
}

impl Review {
    /// From now on: what was before is for the handshake to judge. A node that was removed may connect to be told so.
    fn begun_now(mut self) -> Self {
        self.changes.mark_unchanged();
        self
    }

    /// Completes once something has changed, and the other end is none to talk to any more.
    async fn until_over(self, certificates: Vec<CertificateDer<'static>>) {
        let Self { mut changes, accepts } = self;
        loop {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            if !accepts(&certificates) {
                return;
            }
        }
    }
}

/// A place where connections come in.
pub struct Door {
    /// Where.
    pub listener: TcpListener,
    /// What answers.
    pub surface: Surface,
    /// How connections are encrypted, if they are.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Who is at the other end, if it matters.
    pub introduce: Option<Introduce>,
    /// Which connections are closed before their end, if any are.
    pub review: Option<Review>,
}

/// Serves until `stop` turns true, then lets what runs finish within the drain timeout. Returns how many connections
/// were cut off.
pub async fn serve(
    door: Door,
    settings: ServerSettings,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) -> usize {
    let Door { listener, surface, tls, introduce, review } = door;
    let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(settings.connections_max));
    let of_addresses = Places::new(settings.connections_per_address_max, &settings.trusted_proxies);
    let strangers = Arc::new(Semaphore::new(settings.strangers_max));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = asked(&mut stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = asked(&mut stop) => break,
        };
        // Ended tasks are collected as new ones come, so the set never holds more than the open connections.
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: give running requests time to end instead of spinning.
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let of_address = match of_addresses.take(peer.ip()) {
            Ok(of_address) => of_address,
            Err(why) => {
                metrics.connection_refused(why.name());
                debug!(%peer, ?why, "a connection was closed: its address has too many");
                continue;
            }
        };
        let connection = Connection {
            peer,
            of_address,
            strangers: strangers.clone(),
            metrics: metrics.clone(),
            surface: surface.clone(),
            introduce: introduce.clone(),
            review: review.clone().map(Review::begun_now),
            settings: settings.clone(),
            stop: stop.clone(),
        };
        let (acceptor, metrics) = (acceptor.clone(), metrics.clone());
        connections.spawn(async move {
            let _place = place;
            metrics.connections().inc();
            connection.run(stream, acceptor).await;
            metrics.connections().dec();
        });
    }
    drop(listener);
    drain(connections, settings.drain_timeout).await
}

/// Completes once a stop was asked for, or nobody is left who could ask.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn drain(mut connections: JoinSet<()>, timeout: Duration) -> usize {
    let ended =
        tokio::time::timeout(timeout, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_ok() {
        return 0;
    }
    let left = connections.len();
    warn!(connections = left, "cut off: the drain timeout is over");
    connections.shutdown().await;
    left
}

struct Connection {
    peer: SocketAddr,
    of_address: Place,
    strangers: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    surface: Surface,
    introduce: Option<Introduce>,
    review: Option<Review>,
    settings: ServerSettings,
    stop: watch::Receiver<bool>,
}

impl Connection {
    async fn run(mut self, stream: TcpStream, acceptor: Option<tokio_rustls::TlsAcceptor>) {
        // Answers are written whole; waiting to merge them only delays the last piece.
        let _ = stream.set_nodelay(true);
        let timeout = self.settings.head_timeout;
        let Some(acceptor) = acceptor else {
            let http2 = tokio::select! {
                http2 = tokio::time::timeout(timeout, speaks_http2(&stream)) => http2,
                // A client that has asked for nothing yet is not waited for.
                () = asked(&mut self.stop) => return,
            };
            let stream = self.limited(stream);
            let info = ConnectionInfo { peer: self.peer, tls: false };
            self.of_address.prove();
            return match http2 {
                Ok(Ok(true)) => self.serve_watched_http2(stream, (info, Extensions::new())).await,
                Ok(Ok(false)) => {
                    let service = self.service((info, Extensions::new()));
                    self.serve_http1(stream, service).await;
                }
                Ok(Err(error)) => debug!(peer = %self.peer, %error, "connection failed"),
                Err(_) => debug!(peer = %self.peer, "connection said nothing"),
            };
        };
        let stream = self.limited(stream);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(timeout, acceptor.accept(stream)) => accepted,
            () = asked(&mut self.stop) => return,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(peer = %self.peer, %error, "TLS handshake failed"),
            Err(_) => return debug!(peer = %self.peer, "TLS handshake took too long"),
        };
        let session = stream.get_ref().1;
        let http2 = session.alpn_protocol() == Some(b"h2");
        self.of_address.prove();
        let mut extensions = Extensions::new();
        let mut _strangers_place = None;
        let mut is_known = false;
        let mut shown = Vec::new();
        if let Some(introduce) = &self.introduce {
            let certificates = session.peer_certificates().unwrap_or_default();
            match introduce(certificates, &mut extensions) {
                Ok(OtherEnd::Known) => {
                    is_known = true;
                    shown = certificates.to_vec();
                }
                Ok(OtherEnd::Stranger) => {
                    let Ok(place) = self.strangers.clone().try_acquire_owned() else {
                        self.metrics.connection_refused("stranger");
                        return debug!(peer = %self.peer, "closed: too many strangers");
                    };
                    _strangers_place = Some(place);
                    let streams_max = self.settings.http2_streams_max.min(STRANGERS_STREAMS_MAX);
                    self.settings.http2_streams_max = streams_max;
                }
                Err(error) => return debug!(peer = %self.peer, %error, "connection refused"),
            }
        }
        let about = (ConnectionInfo { peer: self.peer, tls: true }, extensions);
        if http2 && is_known {
            // Members keep their connections, and wait for each other's answers for as long as those take.
            let (service, peer, review) = (self.service(about), self.peer, self.review.clone());
            let open = Open::default();
            let counted = open.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let (begun, answer) = (counted.begin(), service.call(request));
                async move { answer.await.map(|answer| progress::counted(answer, begun)) }
            });
            let is_over = async {
                match review {
                    Some(review) => review.until_over(shown).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.serve_http2(stream, service, &open, std::future::pending()) => {}
                () = is_over => debug!(%peer, "closed: its certificate is not accepted any more"),
            }
        } else if http2 {
            self.serve_watched_http2(stream, about).await;
        } else {
            let service = self.service(about);
            self.serve_http1(stream, service).await;
        }
    }

    /// The stream, with an end to waiting for a client that takes nothing.
    fn limited(&self, stream: TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>> {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.settings.write_timeout));
        Box::pin(stream)
    }

    fn service(
        &self,
        (info, extensions): (ConnectionInfo, Extensions),
    ) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + use<>
    {
        let surface = self.surface.clone();
        service_fn(move |mut request: Request<Incoming>| {
            if !names_one_host(&request) {
                return Either::Left(std::future::ready(Ok(host_refused())));
            }
            request.extensions_mut().extend(extensions.clone());
            request.extensions_mut().insert(info);
            Either::Right(surface.load().as_ref().clone().oneshot(request))
        })
    }

    async fn serve_http1(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        service: impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>,
    ) {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.head_timeout)
            .max_buf_size(self.settings.read_buffer_bytes_max)
            // A body's slices go to the kernel as they are. Merged into one buffer (which `pipeline_flush` would do as
            // well) they would cost twice the memory and more, and a mapped page touched by this process after its file
            // was cut short would end it.
            .writev(true)
            .serve_connection(TokioIo::new(stream), service);
        // Waiting for the next request's head ends by its own deadline.
        self.until_stopped(connection, std::future::pending(), std::future::pending()).await;
    }

    /// HTTP/2 with a client: an answer that it does not take is broken off, and a connection that it does not use ends.
    async fn serve_watched_http2(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        about: (ConnectionInfo, Extensions),
    ) {
        let (open, patience) = (Open::default(), self.settings.write_timeout);
        let service = self.service(about);
        let watched = open.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (begun, answer) = (watched.begin(), service.call(request));
            async move { answer.await.map(|answer| progress::watched(answer, begun, patience)) }
        });
        self.serve_http2(stream, service, &open, open.is_idle_for(HTTP2_IDLE_MAX)).await;
    }

    async fn serve_http2(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        service: impl Service<
            Request<Incoming>,
            Response = Response,
            Error = Infallible,
            Future: Send + 'static,
        >,
        open: &Open,
        is_idle: impl Future<Output = ()>,
    ) {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .max_concurrent_streams(self.settings.http2_streams_max)
            .max_frame_size(HTTP2_FRAME_BYTES_MAX)
            .adaptive_window(true)
            .serve_connection(TokioIo::new(stream), service);
        self.until_stopped(connection, is_idle, open.is_idle_for(GOODBYE_MAX)).await;
    }

    /// Serves a connection; once a stop is asked for, or the connection was idle for too long, only what runs on it, until
    /// `is_over`.
    async fn until_stopped(
        mut self,
        connection: impl GracefulConnection<Error = hyper::Error>,
        is_idle: impl Future<Output = ()>,
        is_over: impl Future<Output = ()>,
    ) {
        let mut connection = pin!(connection);
        let ends = async {
            tokio::select! {
                () = is_idle => {}
                () = asked(&mut self.stop) => {}
            }
        };
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = ends => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    served = connection => served,
                    () = is_over => {
                        return debug!(peer = %self.peer, "closed: its client said no goodbye");
                    }
                }
            }
        };
        if let Err(error) = served {
            debug!(peer = %self.peer, %error, "connection ended early");
        }
    }
}

/// Whether a request says which host it asks, as HTTP/1.1 demands (RFC 9112, 3.2): a proxy before this node and the node
/// itself must not read two different ones.
fn names_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        // A target without a host has an empty one.
        (Some(host), None) => host.is_empty() || Authority::try_from(host.as_bytes()).is_ok(),
        (None, None) => request.version() != Version::HTTP_11,
        _ => false,
    }
}

fn host_refused() -> Response {
    let text = "a request has one Host header, with a host name or an address\n";
    let mut refused = (StatusCode::BAD_REQUEST, [(CONNECTION, "close")], text).into_response();
    make_inert(refused.headers_mut());
    refused
}

/// Whether a plain connection begins with HTTP/2's preface. The bytes stay in the socket, so that it is served as it is,
/// without a layer that would split each answer into several writes. The caller limits the time: whoever sends a part of
/// the preface and no more would otherwise be waited for without end.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; HTTP2_PREFACE.len()];
    let mut pauses = pauses();
    loop {
        let count = stream.peek(&mut first).await?;
        let whole = count == HTTP2_PREFACE.len();
        if count == 0 || first[..count] != HTTP2_PREFACE[..count] {
            return Ok(false);
        }
        if whole {
            return Ok(true);
        }
        // A socket with some bytes counts as readable, so waiting for more of them is done by the clock.
        tokio::time::sleep(pauses.next().unwrap_or(PREFACE_PAUSE_MAX)).await;
    }
}

/// How long to wait between two looks at a connection that has sent a part of the preface. Real clients send it whole, so
/// these connections are looked at ever more rarely: thousands of them shall cost nothing.
fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(Duration::from_millis(2)), |pause| {
        Some((*pause * 2).min(PREFACE_PAUSE_MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_preface_is_looked_at_a_few_times_in_half_a_minute() {
        let looks = pauses().scan(Duration::ZERO, |waited, pause| {
            *waited += pause;
            (*waited < Duration::from_secs(30)).then_some(pause)
        });
        let looks: Vec<_> = looks.collect();
        assert!(looks.len() < 20, "{looks:?}");
        assert!(looks[0] <= Duration::from_millis(2), "a client whose preface comes in two parts");
    }
}
