//! The admin API over the ports in memory: who gets in, what refusals say, and where calls end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Extension;
use axum::body::Body;
use base64::Engine;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use nora_app::artifacts::PutArtifact;
use nora_app::jobs::{Moment, Progress, Schedule, Turn};
use nora_app::ports::BoxFuture;
use nora_app::ports::members::{
    ClusterView, JoinTokenView, Member, MembersError, NodeReport, Role,
};
use nora_domain::{
    Actor, Algorithm, ClusterId, Epoch, FeatureLevel, Format, MediaType, NodeId, NodeProfile,
    RepositoryPath, Standing, TagName, Timestamp, TokenId,
};
use nora_proto::v1 as proto;
use nora_proto::v1::blobs_client::BlobsClient;
use nora_proto::v1::cluster_client::ClusterClient;
use nora_proto::v1::config_client::ConfigClient;
use nora_proto::v1::content_client::ContentClient;
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::sync::Notify;
use tonic::{Code, Request as Call};
use tower::ServiceExt;

use super::*;
use nora_egress::Egress;
use nora_http::testkit::surface;
use nora_identity::testkit::MemoryNode;
use nora_identity::{AdminPasswords, GuardSettings};

const NODE: NodeId = NodeId(1);
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const PASSWORD: &str = "correct-horse";

mod content;
mod logins;

/// A membership whose changes are written down.
#[derive(Default)]
struct Book {
    done: Mutex<Vec<String>>,
    /// Lets a transfer of the leadership end.
    transfer: Notify,
    /// One has ended.
    transferred: Notify,
}

impl Book {
    fn note(&self, what: String) -> BoxFuture<'_, Result<(), MembersError>> {
        self.done.lock().unwrap().push(what);
        Box::pin(async { Ok(()) })
    }
}

impl Members for Book {
    fn view(&self) -> BoxFuture<'_, Result<ClusterView, MembersError>> {
        let member = |node, standing, report| Member {
            node: NodeId(node),
            role: Role::Voter,
            standing,
            epoch: Epoch(node),
            profile: NodeProfile {
                cluster_address: format!("10.0.0.{node}:4001"),
                zone: "a".into(),
                weight: 100,
                feature_max: FeatureLevel(2),
                ..NodeProfile::default()
            },
            report,
        };
        let report = NodeReport { applied_index: 7, ..NodeReport::default() };
        let view = ClusterView {
            cluster: Some(ClusterId(0xc1)),
            node: NODE,
            leader: None,
            term: 3,
            log_index: 9,
            applied_index: 8,
            snapshot_index: Some(5),
            feature_level: FeatureLevel(1),
            clock: Timestamp(1_000),
            is_joint: false,
            rotation: None,
            members: vec![
                member(1, Standing::Active, Some(report)),
                member(2, Standing::Away, None),
            ],
        };
        Box::pin(async { Ok(view) })
    }

    fn join_tokens(&self) -> BoxFuture<'_, Result<Vec<JoinTokenView>, MembersError>> {
        let token = JoinTokenView {
            id: TokenId(0xab),
            created_at: NOW,
            expires_at: NOW.plus_millis(1_000),
            uses_left: 2,
        };
        Box::pin(async move { Ok(vec![token]) })
    }

    fn revoke_join_token(&self, by: Actor, id: TokenId) -> BoxFuture<'_, Result<(), MembersError>> {
        self.note(format!("revoke {:x} by {}", id.0, by.subject))
    }

    fn create_join_token(
        &self,
        _by: Actor,
        valid_millis: u64,
        uses: u32,
    ) -> BoxFuture<'_, Result<String, MembersError>> {
        Box::pin(async move { Ok(format!("token of {valid_millis} for {uses}")) })
    }

    fn rotate_authority(&self, by: Actor) -> BoxFuture<'_, Result<(), MembersError>> {
        self.note(format!("rotate the authority by {}", by.subject))
    }

    fn promote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        match node.0 {
            1 => self.note("promote 1".into()),
            2 => Box::pin(async { Err(MetadataError::NoLeader.into()) }),
            3 => Box::pin(async { Err(MetadataError::OutcomeUnknown.into()) }),
            4 => Box::pin(async { Err(MembersError::Removed(NodeId(4))) }),
            5 => Box::pin(async { Err(MembersError::Impossible("it lags too far".into())) }),
            6 => Box::pin(async { Err(MetadataError::Store("a secret path".into()).into()) }),
            _ => Box::pin(async move { Err(MembersError::Unknown(node)) }),
        }
    }

    fn drain(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>> {
        self.note(format!("drain {}", node.0))
    }

    fn remove(&self, node: NodeId, force: bool) -> BoxFuture<'_, Result<(), MembersError>> {
        self.note(format!("remove {} {force}", node.0))
    }

    fn transfer_leader(&self, to: Option<NodeId>) -> BoxFuture<'_, Result<NodeId, MembersError>> {
        Box::pin(async move {
            self.transfer.notified().await;
            self.done.lock().unwrap().push("transfer".into());
            self.transferred.notify_one();
            Ok(to.unwrap_or(NODE))
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<u64, MembersError>> {
        Box::pin(async { Ok(17) })
    }

    fn set_replicas(&self, replicas: u32) -> BoxFuture<'_, Result<(), MembersError>> {
        assert_eq!(replicas, 5);
        Box::pin(async { Ok(()) })
    }

    fn finalize_upgrade(&self) -> BoxFuture<'_, Result<FeatureLevel, MembersError>> {
        Box::pin(async { Ok(FeatureLevel(2)) })
    }
}

struct Still;

impl Reporter for Still {
    fn report(&self) -> BoxFuture<'_, NodeReport> {
        Box::pin(async { NodeReport { blobs_held: 4, ..NodeReport::default() } })
    }
}

impl Upkeep for Still {
    fn scrub_now(&self) -> bool {
        false
    }
}

impl Jobs for Still {
    fn list(&self) -> Vec<nora_app::jobs::Status> {
        let schedule = Schedule::every("scrub", Duration::from_secs(60)).on_leader();
        let now = Moment { elapsed: Duration::ZERO, at: NOW };
        let mut progress = Progress::new(schedule, now);
        progress.is_here(true);
        progress.begin(now);
        progress.end(now, Ok(Turn::done().count("read", 3)), 0);
        progress.begin(now);
        progress.end(now, Err("no disk".into()), 0);
        vec![progress.status()]
    }
}

struct World {
    admin: Arc<Admin>,
    book: Arc<Book>,
}

fn world(password: Option<&str>) -> World {
    let book = Arc::new(Book::default());
    let settings = GuardSettings {
        is_loopback: password.is_none(),
        admin: password.map(|password| AdminPasswords::new([password])),
        login_failures_max: 1_000,
        login_window: Duration::from_secs(300),
        admin_file: None,
        egress: Egress::new(|_| false, Duration::from_secs(5)).unwrap(),
    };
    let MemoryNode { guard, registry, .. } = MemoryNode::new(settings);
    let api = surface(registry, guard, Vec::new());
    let admin = Admin {
        api,
        members: book.clone(),
        reporter: Arc::new(Still),
        upkeep: Arc::new(Still),
        jobs: Arc::new(Still),
        config: "[server]\n".into(),
        policy: PolicyDocument::default(),
    };
    World { admin: Arc::new(admin), book }
}

fn closed() -> World {
    world(Some(PASSWORD))
}

impl World {
    /// The services, to somebody whose certificate says so.
    fn to(&self, peer: Peer) -> Router {
        router(self.admin.clone()).layer(Extension(peer))
    }

    /// Puts a manifest that names nothing, under a tag. Returns its digest.
    async fn put_manifest(&self, path: &str, tag: &str, bytes: &[u8]) -> String {
        let registry = &self.admin.api.registry;
        let digest = nora_digest::digest(Algorithm::Sha256, bytes);
        let put = PutArtifact {
            repository: registry.repository(Format::Oci, RepositoryPath::parse(path).unwrap()),
            digest,
            media_type: MediaType::parse("application/vnd.oci.image.manifest.v1+json").unwrap(),
            bytes: bytes.to_vec().into(),
            subject: None,
            artifact_type: None,
            annotations: Default::default(),
            blobs: Vec::new(),
            children: Vec::new(),
            optional_blobs: Vec::new(),
            either: Vec::new(),
            tags: vec![TagName::parse(tag).unwrap()],
        };
        registry.artifacts().put(put).await.unwrap();
        digest.to_string()
    }
}

/// Every method that the descriptors know of, as a path; those of health and reflection too.
fn methods() -> Vec<String> {
    let sets = [
        nora_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ];
    let mut paths = Vec::new();
    for file in sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap().file) {
        for service in &file.service {
            let package = file.package();
            for method in &service.method {
                paths.push(format!("/{package}.{}/{}", service.name(), method.name()));
            }
        }
    }
    // Members serve the others themselves, to members.
    paths.retain(|path| path.starts_with("/nora.v1.") || path.starts_with("/grpc."));
    assert!(paths.len() > 15, "{paths:?}");
    paths
}

/// Calls a method with an empty message and gives the status.
async fn status(services: &Router, path: &str, authorization: Option<&str>) -> Code {
    let request = http::Request::post(path).header("content-type", "application/grpc");
    let mut request = request.body(Body::from(vec![0; 5])).unwrap();
    if let Some(value) = authorization {
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    let response: Result<Response, Infallible> = services.clone().oneshot(request).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    // Without it in the head, the call was let through to a method that answers with messages.
    let code = response.headers().get("grpc-status").map(|code| code.to_str().unwrap());
    Code::from_i32(code.map_or(0, |code| code.parse().unwrap()))
}

fn basic(user: &str, password: &str) -> String {
    let text = format!("{user}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

#[tokio::test]
async fn no_method_answers_without_the_administrator() {
    let world = closed();
    world.book.transfer.notify_one();
    let local: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let info = ConnectionInfo { peer: local, tls: true };
    let anonymous = world.to(Peer::Anonymous).layer(Extension(info));
    let unknown = router(world.admin.clone());
    let wrong = [
        None,
        Some(basic("admin", "wrong")),
        Some(basic("root", PASSWORD)),
        Some("Bearer wrong".into()),
        Some(format!("Digest {PASSWORD}")),
    ];
    for path in methods() {
        let open = path.starts_with("/grpc.health.");
        for (services, authorization) in
            wrong.iter().map(|value| (&anonymous, value)).chain([(&unknown, &None)])
        {
            let code = status(services, &path, authorization.as_deref()).await;
            assert_eq!(code != Code::Unauthenticated, open, "{path} {authorization:?}: {code:?}");
        }
    }
    assert_eq!(*world.book.done.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn every_method_answers_the_administrator() {
    let world = closed();
    let member = Peer::Member { node: NodeId(2) };
    let right = [
        (world.to(Peer::Admin), None),
        (world.to(member), None),
        (world.to(Peer::Anonymous), Some(basic("admin", PASSWORD))),
        (world.to(Peer::Anonymous), Some(format!("Bearer {PASSWORD}"))),
    ];
    for path in methods() {
        for (services, authorization) in &right {
            // Each gets one transfer.
            world.book.transfer.notify_one();
            let code = status(services, &path, authorization.as_deref()).await;
            let missing = [Code::Unauthenticated, Code::Unimplemented, Code::PermissionDenied];
            assert!(!missing.contains(&code), "{path}: {code:?}");
        }
    }
}

#[tokio::test]
async fn every_method_asks_for_its_permission() {
    let world = closed();
    let name = nora_domain::AccountName::parse("alice").unwrap();
    let hash = nora_auth::password::hash("her own password").unwrap();
    let registry = &world.admin.api.registry;
    registry.accounts().create(name, false, hash, Vec::new()).await.unwrap();
    let document = serde_json::json!({"auth": {"rules": [
        {"subject": "alice", "permissions": ["pull:a/*"]},
    ]}});
    let document: PolicyDocument = serde_json::from_value(document).unwrap();
    let (bytes, sum) = nora_identity::canonical(&document).unwrap();
    registry.access().set_policy(None, bytes, sum, Vec::new()).await.unwrap();
    world.admin.api.guard.reload().await.unwrap();
    let services = world.to(Peer::Anonymous);
    let alice = basic("alice", "her own password");
    let mut asked = 0;
    for path in methods().into_iter().filter(|path| !path.starts_with("/grpc.health.")) {
        let code = status(&services, &path, Some(&alice)).await;
        match needed(&path) {
            Needed::Administrator => assert_eq!(code, Code::PermissionDenied, "{path}"),
            Needed::Recognised => {
                asked += 1;
                assert_ne!(code, Code::Unauthenticated, "{path}");
                // Empty requests are about nothing that she may do; what is hidden is absent.
                let own = path.ends_with("WhoAmI")
                    || path.ends_with("ListTokens")
                    || path.ends_with("ListSessions")
                    || path.ends_with("ListRepositories");
                assert_eq!(code == Code::Ok, own, "{path}: {code:?}");
            }
        }
    }
    assert_eq!(asked, 14, "a method was given to everybody: say here what it takes");
    assert_eq!(*world.book.done.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_open_node_lets_this_machine_administer_and_nobody_else() {
    let world = world(None);
    let path = "/nora.v1.Cluster/Status";
    for (peer, code) in [
        ("127.0.0.1:9", Code::Ok),
        ("[::1]:9", Code::Ok),
        ("[::ffff:127.0.0.1]:9", Code::Ok),
        ("192.0.2.1:9", Code::Unauthenticated),
        ("[::ffff:192.0.2.1]:9", Code::Unauthenticated),
    ] {
        let info = ConnectionInfo { peer: peer.parse().unwrap(), tls: true };
        let services = world.to(Peer::Anonymous).layer(Extension(info));
        assert_eq!(status(&services, path, None).await, code, "{peer}");
    }
    // Whoever forgets to tell who is there lets nobody in.
    assert_eq!(status(&router(world.admin.clone()), path, None).await, Code::Unauthenticated);
}

#[tokio::test]
async fn the_cluster_is_told_as_it_is() {
    let world = closed();
    let mut client = ClusterClient::new(world.to(Peer::Admin));
    let status = client.status(proto::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.cluster, "000000000000000000000000000000c1");
    assert_eq!((status.node, status.leader, status.term), (1, 0, 3));
    assert_eq!((status.log_index, status.applied_index, status.snapshot_index), (9, 8, 5));
    assert_eq!(status.members[0].report.as_ref().unwrap().applied_index, 7);
    let away = &status.members[1];
    assert_eq!((away.standing(), &away.report), (proto::Standing::Away, &None));
    assert_eq!((away.cluster_address.as_str(), away.weight), ("10.0.0.2:4001", 100));

    for (valid_millis, uses, good) in [
        (0, 1, false),
        (1_000, 0, true),
        (1_000, 1, true),
        (1_000, 1_001, false),
        (u64::MAX, 1, false),
    ] {
        let request = proto::CreateJoinTokenRequest { valid_millis, uses };
        let made = client.create_join_token(request).await;
        match made {
            Ok(made) => assert!(good && made.into_inner().token == "token of 1000 for 1"),
            Err(error) => assert!(!good && error.code() == Code::InvalidArgument, "{error:?}"),
        }
    }
    let tokens = client.list_join_tokens(proto::ListJoinTokensRequest {}).await.unwrap();
    let token = tokens.into_inner().tokens.remove(0);
    assert_eq!((token.id.as_str(), token.uses_left), ("000000000000000000000000000000ab", 2));
    for (id, good) in [("ab", false), ("", false), (token.id.as_str(), true)] {
        let request = proto::RevokeJoinTokenRequest { id: id.to_owned() };
        let revoked = client.revoke_join_token(request).await;
        assert_eq!(revoked.is_ok(), good, "{id}: {revoked:?}");
    }
    client.rotate_authority(proto::RotateAuthorityRequest {}).await.unwrap();
    client.drain(proto::DrainRequest { node: 2 }).await.unwrap();
    client.remove(proto::RemoveRequest { node: 2, force: true }).await.unwrap();
    let nobody = client.remove(proto::RemoveRequest { node: 0, force: true }).await.unwrap_err();
    assert_eq!(nobody.code(), Code::InvalidArgument);
    assert_eq!(
        *world.book.done.lock().unwrap(),
        ["revoke ab by admin", "rotate the authority by admin", "drain 2", "remove 2 true"]
    );
    let snapshot = client.snapshot(proto::SnapshotRequest {}).await.unwrap();
    assert_eq!(snapshot.into_inner().index, 17);
    let level = client.finalize_upgrade(proto::FinalizeUpgradeRequest {}).await.unwrap();
    assert_eq!(level.into_inner().feature_level, 2);
    client.set_replicas(proto::SetReplicasRequest { replicas: 5 }).await.unwrap();
    let none = client.set_replicas(proto::SetReplicasRequest { replicas: 0 }).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
    let jobs = client.list_jobs(proto::ListJobsRequest {}).await.unwrap().into_inner().jobs;
    assert_eq!((jobs.len(), jobs[0].name.as_str(), jobs[0].leader_only), (1, "scrub", true));
    assert_eq!((jobs[0].state(), jobs[0].every_millis), (proto::JobState::Failing, 60_000));
    assert_eq!((jobs[0].runs, jobs[0].failures), (2, 1));
    assert_eq!((jobs[0].result.as_str(), jobs[0].error.as_str()), ("3 read", "no disk"));
    assert_eq!((jobs[0].started_at, jobs[0].succeeded_at), (Some(NOW.0), Some(NOW.0)));

    let mut blobs = BlobsClient::new(world.to(Peer::Admin));
    let stat = blobs.stat(proto::StatRequest {}).await.unwrap().into_inner();
    assert_eq!(stat.report.unwrap().blobs_held, 4);
    let none = blobs.scrub(proto::ScrubRequest {}).await.unwrap_err();
    assert_eq!(none.code(), Code::FailedPrecondition);
    let mut config = ConfigClient::new(world.to(Peer::Admin));
    let shown = config.show(proto::ShowRequest {}).await.unwrap().into_inner();
    assert_eq!(shown.toml, "[server]\n");
}

#[tokio::test]
async fn refusals_are_statuses_with_sentences_and_without_causes() {
    let mut client = ClusterClient::new(closed().to(Peer::Admin));
    for (node, code, sentence) in [
        (2, Code::Unavailable, "no leader can be reached"),
        (3, Code::Unknown, "may or may not"),
        (4, Code::FailedPrecondition, "node 4 was removed"),
        (5, Code::FailedPrecondition, "it lags too far"),
        (6, Code::Internal, "its log has the cause"),
        (9, Code::NotFound, "there is no node 9"),
    ] {
        let refused = client.promote(proto::PromoteRequest { node }).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.message().contains(sentence), "{refused:?}");
        assert!(!refused.message().contains("secret"), "{refused:?}");
    }
    client.promote(proto::PromoteRequest { node: 1 }).await.unwrap();
}

#[tokio::test]
async fn a_change_goes_on_after_its_client_stopped_waiting() {
    let world = closed();
    let mut client = ClusterClient::new(world.to(Peer::Admin));
    let mut call = Call::new(proto::TransferLeaderRequest { to: 2 });
    call.set_timeout(Duration::from_millis(50));
    let given_up = client.transfer_leader(call).await.unwrap_err();
    assert_eq!(given_up.code(), Code::DeadlineExceeded);
    assert_eq!(*world.book.done.lock().unwrap(), Vec::<String>::new());
    world.book.transfer.notify_one();
    world.book.transferred.notified().await;
    assert_eq!(*world.book.done.lock().unwrap(), ["transfer"]);
}

#[tokio::test]
async fn requests_are_bounded() {
    let services = closed().to(Peer::Admin);
    let repository = "a".repeat(REQUEST_BYTES_MAX);
    let request = proto::ListTagsRequest { repository, ..proto::ListTagsRequest::default() };
    let refused = ContentClient::new(services).list_tags(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
}

#[test]
fn deadlines_are_read_as_grpc_writes_them() {
    for (text, millis) in [("1H", 3_600_000), ("2M", 120_000), ("3S", 3_000), ("4m", 4)] {
        assert_eq!(timeout_of(text), Some(Duration::from_millis(millis)));
    }
    assert_eq!(timeout_of("5u"), Some(Duration::from_micros(5)));
    assert_eq!(timeout_of("6n"), Some(Duration::from_nanos(6)));
    for wrong in ["", "S", "1", "1x", "+1S", "-1S", "123456789S", "1 S", "1\u{e9}"] {
        assert_eq!(timeout_of(wrong), None, "{wrong:?}");
    }
}

#[tokio::test]
async fn content_is_listed_tagged_and_deleted() {
    let world = closed();
    let digest = world.put_manifest("team/app", "v1", b"{}").await;
    let mut client = ContentClient::new(world.to(Peer::Admin));
    let repository = || "team/app".to_owned();
    let listed = client.list_repositories(proto::ListRepositoriesRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().paths, ["team/app"]);
    for (reference, tag) in [("v1", "v2"), (&digest, "v3")] {
        let tag = tag.to_owned();
        let request =
            proto::SetTagRequest { repository: repository(), tag, reference: reference.into() };
        assert_eq!(client.set_tag(request).await.unwrap().into_inner().digest, digest);
    }
    let page =
        proto::ListTagsRequest { repository: repository(), after: "v1".into(), page_size: 1 };
    let page = client.list_tags(page).await.unwrap().into_inner();
    assert_eq!((page.tags, page.more), (vec!["v2".to_owned()], true));
    let found = proto::GetArtifactRequest { repository: repository(), reference: "v3".into() };
    let found = client.get_artifact(found).await.unwrap().into_inner();
    assert_eq!((&found.digest, found.size, found.children), (&digest, 2, vec![]));
    for (reference, code) in
        [("v9", Code::NotFound), ("sha256:abc", Code::InvalidArgument), ("", Code::InvalidArgument)]
    {
        let asked =
            proto::GetArtifactRequest { repository: repository(), reference: reference.to_owned() };
        assert_eq!(client.get_artifact(asked).await.unwrap_err().code(), code, "{reference}");
    }
    let request = proto::DeleteTagRequest { repository: repository(), tag: "v1".into() };
    assert_eq!(client.delete_tag(request).await.unwrap().into_inner().digest, digest);
    let request = proto::DeleteArtifactRequest { repository: repository(), digest: digest.clone() };
    assert_eq!(client.delete_artifact(request).await.unwrap().into_inner().tags, ["v2", "v3"]);
    let request = proto::DeleteArtifactRequest { repository: repository(), digest };
    assert_eq!(client.delete_artifact(request).await.unwrap_err().code(), Code::NotFound);
}
