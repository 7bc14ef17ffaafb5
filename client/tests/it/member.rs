//! Members of a cluster that answer as they are told, with real certificates over real TLS, for tests of the admin client.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};
use nora_client::admin::AdminConfig;
use nora_domain::ClusterId;
use nora_proto::v1 as proto;
use nora_trust::{Identity, Peer};
use prost::Message;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::{Code, Status};

/// What a member was asked: the path, the header `authorization`, and who the certificate says it was.
pub type Asked = (String, Option<String>, Peer);

/// A member of a cluster of its own. Answers what is planned, in order, and then that it leads.
pub struct Member {
    dir: TempDir,
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    refusals: Arc<Mutex<VecDeque<Status>>>,
    planned: Arc<Mutex<Option<Planned>>>,
}

/// Answers that stand before the member's own, by path and message.
type Planned = Box<dyn FnMut(&str, &[u8]) -> Option<Response> + Send>;

/// TLS for `axum::serve`. Whoever fails to shake hands is no connection.
struct Encrypted {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        loop {
            let (stream, _) = self.listener.accept().await.unwrap();
            let Ok(stream) = self.acceptor.accept(stream).await else { continue };
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let peer = nora_trust::peer_of(CLUSTER, chain).unwrap();
            return (stream, peer);
        }
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        Ok(Peer::Anonymous)
    }
}

#[derive(Clone, Copy)]
struct Caller(Peer);

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Encrypted>> for Caller {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Encrypted>) -> Self {
        Self(*stream.remote_addr())
    }
}

const CLUSTER: ClusterId = ClusterId(0xc1);

/// An answer that holds a message.
pub fn message(message: &impl Message) -> Response {
    let bytes = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    framed.extend(bytes);
    let head = [("content-type", "application/grpc"), ("grpc-status", "0")];
    (head, Body::from(framed)).into_response()
}

impl Member {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::found(dir.path(), CLUSTER).unwrap();
        Self::serve(dir, &identity).await
    }

    /// Another door of the same node.
    pub async fn beside(&self) -> Self {
        let identity = Identity::load(self.dir.path()).unwrap().unwrap();
        Self::serve(tempfile::tempdir().unwrap(), &identity).await
    }

    async fn serve(dir: TempDir, identity: &Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(identity.server_config());
        let (asked, refusals, planned) = Default::default();
        let member = Self { dir, address, asked, refusals, planned };
        let (asked, refusals) = (member.asked.clone(), member.refusals.clone());
        let planned = member.planned.clone();
        let router = Router::new().fallback(async move |request: Request| {
            let info = request.extensions().get::<axum::extract::ConnectInfo<Caller>>();
            let peer = info.unwrap().0.0;
            let path = request.uri().path().to_owned();
            let authorization = request.headers().get(AUTHORIZATION);
            let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
            asked.lock().unwrap().push((path.clone(), authorization, peer));
            if let Some(status) = refusals.lock().unwrap().pop_front() {
                return status.into_http::<Body>().into_response();
            }
            let body = to_bytes(request.into_body(), 16 << 20).await.unwrap();
            // Before the message stand a byte and its length.
            let said = body.get(5..).unwrap_or_default();
            if let Some(planned) = planned.lock().unwrap().as_mut()
                && let Some(response) = planned(&path, said)
            {
                return response;
            }
            match path.as_str() {
                "/nora.v1.Cluster/Status" => message(&status()),
                "/nora.v1.Cluster/TransferLeader" => {
                    message(&proto::TransferLeaderResponse { leader: 2 })
                }
                _ => message(&()),
            }
        });
        let service = router.into_make_service_with_connect_info::<Caller>();
        tokio::spawn(async move {
            axum::serve(Encrypted { listener, acceptor }, service).await.unwrap();
        });
        member
    }

    /// Lets a function answer before the member does.
    pub fn plan(&self, answer: impl FnMut(&str, &[u8]) -> Option<Response> + Send + 'static) {
        *self.planned.lock().unwrap() = Some(Box::new(answer));
    }

    pub fn refuse(&self, times: usize, code: Code) {
        let status = Status::new(code, "not now");
        self.refusals.lock().unwrap().extend(std::iter::repeat_n(status, times));
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn config(&self) -> AdminConfig {
        AdminConfig {
            addresses: vec![self.address.to_string()],
            ..AdminConfig::of_data_dir(self.dir.path())
        }
    }
}

fn status() -> proto::StatusResponse {
    let report = proto::Report { applied_index: 8, version: "1.0".into(), ..Default::default() };
    let member = proto::Member {
        node: 1,
        role: proto::Role::Leader.into(),
        standing: proto::Standing::Draining.into(),
        report: Some(report),
        ..Default::default()
    };
    // A role of a later version.
    let other = proto::Member { node: 2, role: 99, ..Default::default() };
    proto::StatusResponse {
        cluster: "c1".into(),
        node: 1,
        leader: 1,
        members: vec![member, other],
        ..Default::default()
    }
}
