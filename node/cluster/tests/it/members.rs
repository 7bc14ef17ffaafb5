//! Joining, voting, draining, leaving; and who is refused what.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use nora_app::ports::members::{Members, MembersError, Role};
use nora_app::ports::metadata::{Metadata, ask};
use nora_cluster::raft::chain::MARK_ENTRIES;
use nora_cluster::{JoinError, MembersConfig, StartError};
use nora_domain::{
    Action, Actor, Command, CommitBlob, DropHolder, FeatureLevel, Generation, NodeId, NodeProfile,
    Placement, Standing, Terms, Timestamp, UploadId,
};
use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::clocks_client::ClocksClient;
use nora_proto::peer::v1::leader_client::LeaderClient;
use nora_proto::peer::v1::members_client::MembersClient;
use nora_proto::peer::v1::raft_client::RaftClient;
use nora_trust::{Authority, Identity, JoinToken, any_member_config, member_name};
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rocksdb::{DB, Options};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;

use crate::mtls::{CLUSTER, Node, profile, quick, until};
use crate::support::{digest, open_upload, repository};

async fn voters(node: &Node, expected: &[u64]) {
    let expected: Vec<_> = expected.iter().copied().map(NodeId).collect();
    until("these voters", async || node.cluster.status().voters == expected).await;
}

async fn three() -> [Node; 3] {
    let one = Node::found(quick()).await;
    let two = one.admit(quick()).await;
    let three = two.admit(quick()).await;
    voters(&one, &[1, 2, 3]).await;
    [one, two, three]
}

fn impossible<T: std::fmt::Debug>(result: Result<T, MembersError>) -> String {
    match result {
        Err(MembersError::Impossible(why)) => why,
        other => panic!("{other:?}"),
    }
}

async fn commit_blob(node: &Node, number: u64, holders: &[u64]) -> Generation {
    let generation = Generation { epoch: node.cluster.epoch(), sequence: number };
    let action = Action::CommitBlob(CommitBlob {
        repository: repository(0),
        digest: digest(number),
        size: 10,
        generation,
        node: node.cluster.node_id(),
        chunk_root: [3; 32],
        upload: UploadId(number.into()),
        pin_millis: 1 << 50,
        placement: Placement::Nodes(holders.iter().copied().map(NodeId).collect()),
    });
    let command = Command { at: Timestamp(0), origin: None, terms: Terms::NONE, action };
    node.cluster.propose(command).await.unwrap().unwrap();
    generation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_vote_are_seen_lead_drain_and_leave() {
    let [one, two, mut three] = three().await;
    // The first node knows that all vote; the second is told a moment later.
    voters(&two, &[1, 2, 3]).await;
    let view = two.roster.view().await.unwrap();
    assert_eq!((view.cluster, view.node, view.leader), (Some(CLUSTER), NodeId(2), Some(NodeId(1))));
    let roles: Vec<_> = view.members.iter().map(|member| member.role).collect();
    assert_eq!(roles, [Role::Leader, Role::Voter, Role::Voter]);
    for member in &view.members {
        let report = member.report.as_ref().unwrap();
        assert_eq!(report.blobs_held, member.node.0 * 100);
        assert!(report.applied_index > 0);
        assert_eq!(member.standing, Standing::Active);
    }
    // Every node has a certificate for its administrator before long.
    until("an administrator's certificate", async || {
        three.dir.path().join("identity/admin.crt").exists()
    })
    .await;

    // Asked on a follower: the leader does it.
    assert_eq!(three.roster.transfer_leader(Some(NodeId(2))).await.unwrap(), NodeId(2));
    until("node 2 leads", async || one.cluster.status().leader == Some(NodeId(2))).await;
    two.roster.promote(NodeId(3)).await.unwrap();
    assert!(matches!(one.roster.promote(NodeId(9)).await, Err(MembersError::Unknown(NodeId(9)))));

    let why = impossible(one.roster.remove(NodeId(3), false).await);
    assert!(why.contains("drain it first"), "{why}");
    one.roster.drain(NodeId(3)).await.unwrap();
    assert_eq!(one.member(3).await.unwrap().standing, Standing::Draining);
    one.roster.remove(NodeId(3), false).await.unwrap();
    voters(&one, &[1, 2]).await;
    assert!(one.member(3).await.is_none());
    assert!(matches!(one.roster.remove(NodeId(3), false).await, Err(MembersError::Removed(_))));
    tokio::time::timeout(Duration::from_secs(20), three.roster.removed()).await.unwrap();
    until("the removed node is sent nothing", async || {
        !two.cluster.status().learners.contains(&NodeId(3))
    })
    .await;

    // The one that is there and the one that comes back are refused; the number is not given again.
    three.switch_off().await;
    let four = one.admit(quick()).await;
    assert_eq!(four.cluster.node_id(), NodeId(4));
    voters(&one, &[1, 2, 4]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_can_be_removed_and_the_rest_goes_on() {
    let [one, two, three] = three().await;
    one.roster.drain(NodeId(1)).await.unwrap();
    two.roster.remove(NodeId(1), false).await.unwrap();
    voters(&two, &[2, 3]).await;
    assert!(two.member(1).await.is_none());
    tokio::time::timeout(Duration::from_secs(20), one.roster.removed()).await.unwrap();
    commit_blob(&three, 1, &[2, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_joins_without_a_right_and_current_token() {
    let one = Node::found(quick()).await;
    let other = Node::found(quick()).await;
    let dir = TempDir::new().unwrap();
    let about = profile(other.address);
    let refused =
        async |token: &str, about: NodeProfile| match one.join(token, about, dir.path()).await {
            Err(JoinError::Refused { why, .. }) => why,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("let in"),
        };
    let garbled = one.join("nora1.abc", about.clone(), dir.path()).await;
    assert!(matches!(garbled, Err(JoinError::Token(_))));

    // Made up, but for the right cluster.
    let made_up = JoinToken::new(&one.identity.authority()).unwrap().text();
    let index = one.cluster.status().log_index;
    let why = refused(&made_up, about.clone()).await;
    assert!(why.contains("does not know this join token"), "{why}");
    assert_eq!(one.cluster.status().log_index, index, "a stranger wrote into the log");

    let expired = one.roster.create_join_token(Actor::default(), 0, 1).await.unwrap();
    let why = refused(&expired, about.clone()).await;
    assert!(why.contains("has expired"), "{why}");

    let token = one.roster.create_join_token(Actor::default(), 60_000, 2).await.unwrap();
    let old = NodeProfile { feature_max: FeatureLevel(0), ..about.clone() };
    let why = refused(&token, old).await;
    assert!(why.contains("newer version"), "{why}");
    let nowhere = NodeProfile { cluster_address: String::new(), ..about.clone() };
    assert!(refused(&token, nowhere).await.contains("where it listens"));

    let foreign = other.roster.create_join_token(Actor::default(), 60_000, 1).await.unwrap();
    let error = one.join(&foreign, about.clone(), dir.path()).await.err().unwrap();
    assert!(matches!(error, JoinError::OtherCluster { .. }), "{error}");
    // Whoever does not look at the certificate is told all the same.
    let config = any_member_config(&[one.identity.authority()], None).unwrap();
    let channel = one.dial(config, "a.example").await.unwrap();
    let request = join_request(foreign, dir.path());
    let status = MembersClient::new(channel).join(request.clone()).await.unwrap_err();
    assert!(status.message().contains("another cluster"), "{status}");

    // A join whose answer is lost goes on with the same key, and all the refused ones spent no number.
    let mut request = request;
    request.token.clone_from(&token);
    let config = any_member_config(&[one.identity.authority()], None).unwrap();
    let channel = one.dial(config, "a.example").await.unwrap();
    let lost = MembersClient::new(channel).join(request).await.unwrap().into_inner();
    assert_eq!(lost.node, 2);
    let identity = one.join(&token, about, dir.path()).await.unwrap();
    assert_eq!(identity.node(), NodeId(2));
    // With another key it is another node.
    let elsewhere = TempDir::new().unwrap();
    let next = one.join(&token, profile(one.address), elsewhere.path()).await.unwrap();
    assert_eq!(next.node(), NodeId(3));
    // Both of its uses are gone.
    let third = TempDir::new().unwrap();
    let spent = one.join(&token, profile(one.address), third.path()).await.err().unwrap();
    assert!(spent.to_string().contains("has admitted as many nodes"), "{spent}");
}

fn signing_request(dir: &Path) -> Vec<u8> {
    nora_trust::Joining::begin(dir).unwrap().signing_request().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_whose_loss_would_hurt_are_not_removed() {
    let [one, two, mut three] = three().await;
    commit_blob(&one, 1, &[1, 2]).await;
    // Node 2 has lost its copy of this one.
    let generation = commit_blob(&three, 2, &[2, 3]).await;
    let lost = DropHolder { digest: digest(2), generation, node: NodeId(2), keep: 0 };
    ask(three.cluster.as_ref(), lost).await.unwrap().unwrap();
    one.roster.drain(NodeId(3)).await.unwrap();
    let why = impossible(two.roster.remove(NodeId(3), false).await);
    assert!(why.starts_with("1 blobs have their last copy on node 3"), "{why}");
    assert_eq!(one.member(3).await.unwrap().standing, Standing::Draining);

    three.switch_off().await;
    three.cluster.shutdown().await.unwrap();
    until("the silence is noticed", async || {
        let heard = one.cluster.status().replication[&NodeId(3)].heard;
        heard.is_none_or(|heard| heard > Duration::from_secs(3))
    })
    .await;
    // Two of three answer: without one of them there is no majority, by force neither.
    let why = impossible(one.roster.remove(NodeId(2), true).await);
    assert!(why.contains("no majority"), "{why}");
    let error = two.roster.transfer_leader(Some(NodeId(3))).await;
    assert!(impossible(error).contains("no other voter answers"));
    one.roster.remove(NodeId(3), true).await.unwrap();
    voters(&two, &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_noticed_and_whoever_comes_back_is_active_again() {
    let config = || MembersConfig { away_after: Duration::from_millis(1500), ..quick() };
    let one = Node::found(config()).await;
    let two = one.admit(config()).await;
    let mut three = one.admit(config()).await;
    voters(&one, &[1, 2, 3]).await;
    three.cut().await;
    until("node 3 is away", async || two.member(3).await.unwrap().standing == Standing::Away).await;
    three.mend().await;
    until("node 3 is back", async || two.member(3).await.unwrap().standing == Standing::Active)
        .await;
    assert_eq!(two.member(3).await.unwrap().epoch, three.cluster.epoch());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_long_gone_is_replaced_by_one_that_joined() {
    let config = || MembersConfig {
        away_after: Duration::from_millis(1500),
        remove_after: Some(Duration::from_secs(3)),
        ..quick()
    };
    let one = Node::found(config()).await;
    let two = one.admit(config()).await;
    let mut three = one.admit(config()).await;
    voters(&one, &[1, 2, 3]).await;
    three.switch_off().await;
    three.cluster.shutdown().await.unwrap();
    until("node 3 is away", async || two.member(3).await.unwrap().standing == Standing::Away).await;
    let four = one.admit(config()).await;
    voters(&one, &[1, 2, 4]).await;
    assert!(four.member(3).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feature_level_rises_to_what_all_understand() {
    let one = Node::found(quick()).await;
    assert_eq!(one.roster.finalize_upgrade().await.unwrap(), FeatureLevel::NEWEST);
    assert!(one.roster.snapshot().await.unwrap() > 0);
    let why = impossible(one.roster.drain(NodeId(1)).await);
    assert!(why.contains("no other node is active"), "{why}");
    let why = impossible(one.roster.remove(NodeId(1), true).await);
    assert!(why.contains("no majority"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_that_starts_again_is_told() {
    let [one, two, mut three] = three().await;
    three.switch_off().await;
    three.cluster.shutdown().await.unwrap();
    one.roster.remove(NodeId(3), true).await.unwrap();
    voters(&two, &[1, 2]).await;
    let three = three.reopen(quick()).await;
    let entered = tokio::select! {
        entered = three.cluster.enter() => entered.map(drop),
        () = three.roster.removed() => Err(StartError::Removed { node: NodeId(3) }),
    };
    assert!(matches!(entered, Err(StartError::Removed { .. })), "{entered:?}");
}

/// Every call that only members may make, and what each of them is answered.
async fn call_all(channel: Channel) -> Vec<(&'static str, Code)> {
    fn code<T>(answer: Result<T, tonic::Status>) -> Code {
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    }
    let mut raft = RaftClient::new(channel.clone());
    let mut leader = LeaderClient::new(channel.clone());
    let mut members = MembersClient::new(channel.clone());
    let mut clocks = ClocksClient::new(channel);
    let nothing = || stream::iter(Vec::<proto::AppendRequest>::new());
    let change = proto::change_request::Change::Promote(1);
    let chunks = stream::iter(Vec::<proto::SnapshotChunk>::new());
    vec![
        ("Append", code(raft.append(nothing()).await)),
        ("Vote", code(raft.vote(proto::VoteRequest::default()).await)),
        ("InstallSnapshot", code(raft.install_snapshot(chunks).await)),
        (
            "SnapshotProgress",
            code(raft.snapshot_progress(proto::SnapshotProgressRequest::default()).await),
        ),
        (
            "TransferLeader",
            code(raft.transfer_leader(proto::TransferLeaderRequest::default()).await),
        ),
        ("Propose", code(leader.propose(proto::ProposeRequest::default()).await)),
        ("ReadIndex", code(leader.read_index(proto::ReadIndexRequest::default()).await)),
        ("Report", code(members.report(proto::ReportRequest {}).await)),
        ("Marks", code(members.marks(proto::MarksRequest::default()).await)),
        ("Compare", code(clocks.compare(proto::CompareRequest::default()).await)),
        ("Change", code(members.change(proto::ChangeRequest { change: Some(change) }).await)),
    ]
}

async fn refuses_all(node: &Node, config: ClientConfig) {
    let channel = node.dial(config, &member_name(CLUSTER, NodeId(1))).await.unwrap();
    let answers = call_all(channel).await;
    assert_eq!(answers.len(), 11);
    for (call, code) in answers {
        assert_eq!(code, Code::PermissionDenied, "{call}");
    }
}

/// A certificate of the cluster's own authority for node 2, good from and to so many days from now.
fn dated(authority: &nora_domain::AuthorityKeys, days: [i64; 2]) -> ClientConfig {
    let now = std::time::SystemTime::now();
    let at = |days: i64| {
        let span = Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - span } else { now + span }
    };
    let key = KeyPair::generate().unwrap();
    let ca_key = KeyPair::try_from(authority.key.as_slice()).unwrap();
    let ca = CertificateDer::from(authority.certificate.clone());
    let issuer = Issuer::from_ca_cert_der(&ca, ca_key).unwrap();
    let mut params = CertificateParams::default();
    let name = member_name(CLUSTER, NodeId(2)).try_into().unwrap();
    params.subject_alt_names = vec![SanType::DnsName(name)];
    params.not_before = at(days[0]).into();
    params.not_after = at(days[1]).into();
    let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    any_member_config(&[ca], Some((vec![leaf], key))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_no_member_is_refused_every_call() {
    let [one, two, _three] = three().await;
    let ca = &one.identity.authority();
    refuses_all(&one, any_member_config(std::slice::from_ref(ca), None).unwrap()).await;

    let admin = one.dir.path().join("identity");
    let chain = vec![CertificateDer::from_pem_file(admin.join("admin.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(admin.join("admin.key")).unwrap();
    refuses_all(&one, any_member_config(std::slice::from_ref(ca), Some((chain, key))).unwrap())
        .await;

    // These do not get past the handshake: of another authority of the same name, too old, and too new.
    let foreign_dir = TempDir::new().unwrap();
    let foreign = Identity::found(foreign_dir.path(), CLUSTER).unwrap().founding_authority();
    let foreign = foreign.unwrap().unwrap();
    let record = match one.cluster.get(nora_domain::Key::Authority).await.unwrap() {
        Some(nora_domain::Record::Authority(record)) => record.keys,
        other => panic!("{other:?}"),
    };
    assert!(Authority::from_keys(&record).is_ok());
    for (what, config, passes) in [
        ("a good one", dated(&record, [-1, 1]), true),
        ("an expired one", dated(&record, [-2, -1]), false),
        ("one not good yet", dated(&record, [1, 2]), false),
        ("another authority's", with_roots(&foreign, ca), false),
    ] {
        let answers = match one.dial(config, &member_name(CLUSTER, NodeId(1))).await {
            Some(channel) => call_all(channel).await,
            None => Vec::new(),
        };
        let through = answers.iter().any(|(_, code)| *code == Code::Ok);
        assert_eq!(through, passes, "{what}: {answers:?}");
    }

    // A member is listened to until it is removed.
    let name = member_name(CLUSTER, NodeId(1));
    let config = || (*two.identity.client_config()).clone();
    let channel = one.dial(config(), &name).await.unwrap();
    let mut members = MembersClient::new(channel);
    members.report(proto::ReportRequest {}).await.unwrap();
    one.roster.remove(NodeId(2), true).await.unwrap();
    let status = members.report(proto::ReportRequest {}).await.unwrap_err();
    assert!(status.message().contains("node 2 was removed"), "{status}");
    refuses_all(&one, config()).await;
}

fn join_request(token: String, dir: &Path) -> proto::JoinRequest {
    proto::JoinRequest {
        token,
        signing_request: signing_request(dir).into(),
        profile: Some(nora_proto::record::v1::NodeProfile {
            cluster_address: "127.0.0.1:1".to_owned(),
            feature_max: FeatureLevel::NEWEST.0,
            ..Default::default()
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_with_made_up_tokens_keep_no_node_out() {
    let one = Node::found(quick()).await;
    let stranger = async || {
        let config = any_member_config(&[one.identity.authority()], None).unwrap();
        MembersClient::new(one.dial(config, "a.example").await.unwrap())
    };
    let made_up = JoinToken::new(&one.identity.authority()).unwrap().text();
    let dir = TempDir::new().unwrap();
    let request = join_request(made_up, dir.path());
    let mut flood = tokio::task::JoinSet::new();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for _ in 0..32 {
        let (mut members, request, asked) = (stranger().await, request.clone(), asked.clone());
        flood.spawn(async move {
            loop {
                members.join(request.clone()).await.unwrap_err();
                asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    until("they ask", async || asked.load(std::sync::atomic::Ordering::Relaxed) > 100).await;
    // Each node asks once, and no more.
    for node in 2..10 {
        let token = one.roster.create_join_token(Actor::default(), 60_000, 1).await.unwrap();
        let dir = TempDir::new().unwrap();
        let joined = stranger().await.join(join_request(token, dir.path())).await.unwrap();
        assert_eq!(joined.into_inner().node, node);
    }
}

async fn authority_row(node: &Node) -> nora_domain::AuthorityRecord {
    match node.cluster.get(nora_domain::Key::Authority).await.unwrap() {
        Some(nora_domain::Record::Authority(record)) => record,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_replaced_and_a_stolen_disk_opens_nothing() {
    let [one, two, mut three] = three().await;
    let old = authority_row(&one).await;
    let by_name = member_name(CLUSTER, NodeId(1));
    // Node 3 is stolen: its disk has its own certificate, the administrator's, and the authority's key in the metadata.
    let stolen_admin = three.dir.path().join("identity/admin.crt");
    until("node 3 has it", async || stolen_admin.exists()).await;
    three.switch_off().await;
    one.roster.remove(NodeId(3), true).await.unwrap();
    let stolen = Identity::load(three.dir.path()).unwrap().unwrap();
    let thief = || (*stolen.client_config()).clone();
    assert!(one.dial(thief(), &by_name).await.is_some(), "the authority is still the old one");
    let token = one.roster.create_join_token(Actor::default(), 60_000, 1).await.unwrap();

    two.roster.rotate_authority(Actor::default()).await.unwrap();
    until("the rotation is over on both", async || {
        let rows = [authority_row(&one).await, authority_row(&two).await];
        rows.iter().all(|row| row.rotation.is_none() && row.keys != old.keys)
    })
    .await;
    until("both trust the new authority alone", async || {
        let stolen = [CertificateDer::from_pem_file(&stolen_admin).unwrap()];
        [&one, &two].iter().all(|node| !node.identity.accepts(&stolen))
    })
    .await;
    assert_ne!(authority_row(&one).await.secret, old.secret);

    // The thief's own certificate, one that it makes itself, and the administrator's: none is taken.
    let admin = three.dir.path().join("identity");
    let chain = vec![CertificateDer::from_pem_file(admin.join("admin.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(admin.join("admin.key")).unwrap();
    let trusted = [one.identity.authority()];
    let admin = any_member_config(&trusted, Some((chain, key))).unwrap();
    for (what, config) in [
        ("a member's", thief()),
        ("a made one", with_roots(&old.keys, &trusted[0])),
        ("the administrator's", admin),
    ] {
        let answers = match one.dial(config, &by_name).await {
            Some(channel) => call_all(channel).await,
            None => Vec::new(),
        };
        assert!(!answers.iter().any(|(_, code)| *code == Code::Ok), "{what}: {answers:?}");
    }
    // So is a join token of before. One of now lets a node in.
    let dir = TempDir::new().unwrap();
    let refused = one.join(&token, profile(one.address), dir.path()).await;
    assert!(matches!(refused, Err(JoinError::OtherCluster { .. })), "{:?}", refused.err());
    let four = one.admit(quick()).await;
    until("the cluster works", async || four.member(4).await.is_some()).await;
    propose(&two, 0..10).await;

    // What is on the disks starts again.
    let mut two = two;
    two.switch_off().await;
    two.cluster.shutdown().await.unwrap();
    let two = two.reopen(quick()).await;
    two.cluster.enter().await.unwrap();
    propose(&two, 10..20).await;
}

/// Trusts the cluster, and shows a certificate of a foreign authority.
fn with_roots(
    foreign: &nora_domain::AuthorityKeys,
    trusted: &CertificateDer<'static>,
) -> ClientConfig {
    let key = KeyPair::generate().unwrap();
    let ca_key = KeyPair::try_from(foreign.key.as_slice()).unwrap();
    let ca = CertificateDer::from(foreign.certificate.clone());
    let issuer = Issuer::from_ca_cert_der(&ca, ca_key).unwrap();
    let params = CertificateParams::new([member_name(CLUSTER, NodeId(2))]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    any_member_config(std::slice::from_ref(trusted), Some((vec![leaf], key))).unwrap()
}

/// Changes a node's state behind its back: the hash of it, as a change of any row would.
fn spoil(dir: &Path) {
    let root = dir.join("metadata/state");
    let active = fs::read_to_string(root.join("ACTIVE")).unwrap();
    let db = DB::open(&Options::default(), root.join(active.trim())).unwrap();
    db.put(b"\x00hash", [7; 32]).unwrap();
}

async fn propose(node: &Node, numbers: std::ops::Range<u64>) {
    let proposals = numbers.map(|number| node.cluster.propose(open_upload(number)));
    let answers: Vec<_> = stream::iter(proposals).buffer_unordered(64).collect().await;
    answers.into_iter().for_each(|answer| drop(answer.unwrap().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_whose_state_is_another_is_shown_by_the_leader() {
    let compare = MembersConfig { compare_interval: Duration::from_millis(50), ..quick() };
    let one = Node::found(compare.clone()).await;
    let mut two = one.admit(compare.clone()).await;
    voters(&one, &[1, 2]).await;
    propose(&one, 0..1100).await;
    let marks = MARK_ENTRIES;
    until("a mark on both", async || two.cluster.status().applied_index > Some(marks)).await;
    let marks_of = async |asks: &Node, node| {
        let channel = asks.cluster.channel(NodeId(node)).unwrap();
        let answer = MembersClient::new(channel).marks(proto::MarksRequest {}).await.unwrap();
        answer.into_inner().marks
    };
    let (first, second) = (marks_of(&two, 1).await, marks_of(&one, 2).await);
    assert_eq!(first, second);
    assert_eq!(first.last().map(|mark| mark.index), Some(marks));
    let status = one.cluster.status();
    assert!(status.diverged.is_empty() && status.differences == 0, "{status:?}");

    two.switch_off().await;
    two.cluster.shutdown().await.unwrap();
    let two = two.reopen_after(compare, spoil).await;
    two.cluster.enter().await.unwrap();
    propose(&one, 2000..3100).await;
    until("the leader sees it", async || {
        let leader = if two.cluster.status().leader == Some(NodeId(2)) { &two } else { &one };
        let status = leader.cluster.status();
        status.differences > 0 && status.diverged.values().all(|entry| *entry == 2 * marks)
    })
    .await;
}
