//! The admin client, against members that answer as they are told, with real certificates over real TLS.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};
use nora_client::admin::{AdminClient, AdminConfig, AdminError};
use nora_client::{Credentials, Secret};
use nora_domain::record::ClusterId;
use nora_proto::v1 as proto;
use nora_trust::{Identity, Peer};
use prost::Message;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::{Code, Status};

/// What a member was asked: the path, the header `authorization`, and who the certificate says it was.
type Asked = (String, Option<String>, Peer);

/// A member of a cluster of its own. Answers what is planned, in order, and then that it leads.
struct Member {
    dir: TempDir,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    refusals: Arc<Mutex<VecDeque<Status>>>,
}

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

fn message(message: &impl Message) -> Response {
    let bytes = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    framed.extend(bytes);
    let head = [("content-type", "application/grpc"), ("grpc-status", "0")];
    (head, Body::from(framed)).into_response()
}

impl Member {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::found(dir.path(), CLUSTER).unwrap();
        Self::serve(dir, &identity).await
    }

    /// Another door of the same node.
    async fn beside(&self) -> Self {
        let identity = Identity::load(self.dir.path()).unwrap().unwrap();
        Self::serve(tempfile::tempdir().unwrap(), &identity).await
    }

    async fn serve(dir: TempDir, identity: &Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(identity.server_config());
        let member = Self { dir, address, asked: Arc::default(), refusals: Arc::default() };
        let (asked, refusals) = (member.asked.clone(), member.refusals.clone());
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

    fn refuse(&self, times: usize, code: Code) {
        let status = Status::new(code, "not now");
        self.refusals.lock().unwrap().extend(std::iter::repeat_n(status, times));
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn config(&self) -> AdminConfig {
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

#[tokio::test]
async fn the_data_folder_is_enough_to_be_the_administrator() {
    let member = Member::start().await;
    let client = AdminClient::new(&member.config()).unwrap();
    let status = client.status().await.unwrap();
    assert_eq!((status.node, status.leader), (1, Some(1)));
    let [first, second] = &status.members[..] else { panic!("{status:?}") };
    assert_eq!((first.role, first.standing), ("leader", "draining"));
    assert_eq!(first.report.as_ref().unwrap().version, "1.0");
    assert_eq!((second.role, second.standing, &second.report), ("outside", "unknown", &None));
    assert_eq!(client.transfer_leader(None).await.unwrap(), 2);
    client.remove(2, false).await.unwrap();
    let asked = member.asked();
    let paths: Vec<&str> = asked.iter().map(|(path, ..)| path.as_str()).collect();
    let expected = ["Status", "TransferLeader", "Remove"].map(|m| format!("/nora.v1.Cluster/{m}"));
    assert_eq!(paths, expected);
    assert!(asked.iter().all(|(_, header, peer)| header.is_none() && *peer == Peer::Admin));
}

#[tokio::test]
async fn a_password_or_a_token_goes_to_members_alone() {
    let member = Member::start().await;
    let stranger = Member::start().await;
    let password = Credentials::Password { username: "admin".into(), password: Secret::new("pw") };
    for (credentials, header) in
        [(password, "Basic YWRtaW46cHc="), (Credentials::Token(Secret::new("tk")), "Bearer tk")]
    {
        let config = AdminConfig { certificate: None, credentials, ..member.config() };
        AdminClient::new(&config).unwrap().status().await.unwrap();
        let (_, sent, peer) = member.asked().pop().unwrap();
        assert_eq!((sent.as_deref(), peer), (Some(header), Peer::Anonymous));

        let elsewhere = AdminConfig { addresses: vec![stranger.address.to_string()], ..config };
        let refused = AdminClient::new(&elsewhere).unwrap().status().await.unwrap_err();
        assert!(matches!(refused, AdminError::Unreachable { .. }), "{refused:?}");
        assert!(refused.hint().unwrap().contains("another cluster"));
    }
    assert_eq!(stranger.asked(), []);
}

#[tokio::test]
async fn another_member_answers_for_one_that_cannot() {
    let first = Member::start().await;
    let second = first.beside().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let addresses = [nobody, first.address, second.address].map(|a| a.to_string()).to_vec();
    let client = AdminClient::new(&AdminConfig { addresses, ..first.config() }).unwrap();
    first.refuse(1, Code::Unavailable);
    client.status().await.unwrap();
    client.status().await.unwrap();
    // The one that answered is asked again.
    assert_eq!((first.asked().len(), second.asked().len()), (1, 2));
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_waited_for() {
    let member = Member::start().await;
    let client = AdminClient::new(&member.config()).unwrap();
    member.refuse(1, Code::Unavailable);
    client.drain(2).await.unwrap();
    assert_eq!(member.asked().len(), 2);

    member.refuse(100, Code::Unavailable);
    let refused = client.drain(2).await.unwrap_err();
    assert!(matches!(&refused, AdminError::Refused(s) if s.code() == Code::Unavailable));
    assert!(member.asked().len() < 10);
}

#[tokio::test]
async fn what_cannot_be_is_told_at_once() {
    let member = Member::start().await;
    let client = AdminClient::new(&member.config()).unwrap();
    member.refuse(1, Code::FailedPrecondition);
    let refused = client.promote(2).await.unwrap_err();
    assert_eq!(refused.to_string(), "not now");
    // What was not said to be harmless is not repeated.
    member.refuse(1, Code::Unknown);
    client.promote(2).await.unwrap_err();
    assert_eq!(member.asked().len(), 2);

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = AdminConfig { addresses: vec![nobody.to_string()], ..member.config() };
    let began = Instant::now();
    let refused = AdminClient::new(&config).unwrap().status().await.unwrap_err();
    assert!(matches!(refused, AdminError::Unreachable { .. }), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "nobody was there to wait for");

    let config = AdminConfig::of_data_dir(Path::new("/nowhere"));
    let Err(unreadable) = AdminClient::new(&config) else { panic!("there is nothing") };
    assert_eq!(unreadable.to_string(), "cannot read /nowhere/identity/ca.crt");
    assert!(unreadable.hint().unwrap().contains("--data-dir"));
    let config = AdminConfig { addresses: Vec::new(), ..member.config() };
    assert!(matches!(AdminClient::new(&config), Err(AdminError::NoAddress)));
    let credentials = Credentials::Token(Secret::new("two\nlines"));
    let config = AdminConfig { credentials, ..member.config() };
    assert!(matches!(AdminClient::new(&config), Err(AdminError::Credentials)));
}
