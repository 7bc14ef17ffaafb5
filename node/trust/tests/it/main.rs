//! Handshakes over real TLS, in memory: who gets through, and as whom.

// Clippy knows test functions, not the functions that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::sync::Arc;

use nora_domain::{
    AuthorityKeys, AuthorityRecord, ClusterId, NodeId, Rotation, RotationStage, SharedSecret,
    Timestamp,
};
use nora_trust::{
    Authority, Identity, JoinToken, Joining, Peer, SigningRequest, any_member_config, member_name,
    pinned_config,
};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConnection};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

const CLUSTER: ClusterId = ClusterId(0xc1);

struct Node {
    dir: TempDir,
    identity: Identity,
}

fn founder(cluster: ClusterId) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::found(dir.path(), cluster).unwrap();
    Node { dir, identity }
}

/// A node that `by` lets in, under a number and a cluster of the test's choice.
fn joined(by: &Node, cluster: ClusterId, number: u64) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let joining = Joining::begin(dir.path()).unwrap();
    let request = SigningRequest::parse(&joining.signing_request().unwrap()).unwrap();
    let keys = by.identity.founding_authority().unwrap().unwrap();
    let authority = Authority::from_keys(&keys).unwrap();
    let leaf = authority.issue_requested(cluster, NodeId(number), &request).unwrap();
    let ca = authority.certificate().clone();
    let identity = joining.accept(cluster, NodeId(number), leaf, ca).unwrap();
    Node { dir, identity }
}

/// The authority's row, as the metadata of that founder's cluster would have it.
fn settled(founder: &Node) -> AuthorityRecord {
    let keys = founder.identity.founding_authority().unwrap().unwrap();
    AuthorityRecord { keys, secret: SharedSecret([0; 32]), rotation: None }
}

fn admin(node: &Node) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let dir = node.dir.path().join("identity");
    let chain = vec![CertificateDer::from_pem_file(dir.join("admin.crt")).unwrap()];
    (chain, PrivateKeyDer::from_pem_file(dir.join("admin.key")).unwrap())
}

/// A connection between two ends in this process.
struct Link {
    client: ClientConnection,
    server: ServerConnection,
}

fn dial(server: &Node, client: Arc<ClientConfig>, name: &str) -> Result<Link, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut link = Link {
        client: ClientConnection::new(client, name).unwrap(),
        server: ServerConnection::new(server.identity.server_config()).unwrap(),
    };
    // The last flight of the client is judged by the server only after the client is done.
    for _ in 0..8 {
        link.pass()?;
    }
    assert!(!link.client.is_handshaking() && !link.server.is_handshaking());
    Ok(link)
}

impl Link {
    fn pass(&mut self) -> Result<(), rustls::Error> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            self.server.read_tls(&mut rest).unwrap();
            self.server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// As whom the server takes the client.
    fn peer(&self, server: &Node) -> Result<Peer, nora_trust::TrustError> {
        server.identity.peer_of(self.server.peer_certificates().unwrap_or_default())
    }
}

fn name(node: u64) -> String {
    member_name(CLUSTER, NodeId(node))
}

#[test]
fn members_know_each_other() {
    let one = founder(CLUSTER);
    let two = joined(&one, CLUSTER, 2);
    let link = dial(&one, two.identity.client_config(), &name(1)).unwrap();
    assert_eq!(link.peer(&one).unwrap(), Peer::Member { node: NodeId(2) });
    let link = dial(&two, one.identity.client_config(), &name(2)).unwrap();
    assert_eq!(link.peer(&two).unwrap(), Peer::Member { node: NodeId(1) });
}

#[test]
fn another_node_at_the_address_is_noticed() {
    let one = founder(CLUSTER);
    let two = joined(&one, CLUSTER, 2);
    assert!(dial(&two, one.identity.client_config(), &name(3)).is_err());
    assert!(
        dial(&two, one.identity.client_config(), &member_name(ClusterId(9), NodeId(2))).is_err()
    );
}

#[test]
fn a_foreign_authority_is_refused_on_both_sides() {
    let (one, foreign) = (founder(CLUSTER), founder(CLUSTER));
    // The client does not take the server, nor would the server take the client.
    assert!(dial(&one, foreign.identity.client_config(), &name(1)).is_err());
    let ca = one.identity.authority();
    let config = any_member_config(&[ca], Some(admin(&foreign))).unwrap();
    assert!(dial(&one, Arc::new(config), "somewhere.example").is_err());
}

#[test]
fn a_certificate_of_the_authority_for_another_cluster_is_nobody() {
    let one = founder(CLUSTER);
    let stray = joined(&one, ClusterId(9), 2);
    let link = dial(&one, stray.identity.client_config(), &name(1)).unwrap();
    assert!(link.peer(&one).is_err());
}

#[test]
fn the_administrator_is_no_member_and_no_server() {
    let one = founder(CLUSTER);
    let config = any_member_config(&[one.identity.authority()], Some(admin(&one))).unwrap();
    let link = dial(&one, Arc::new(config), "127.0.0.1").unwrap();
    assert_eq!(link.peer(&one).unwrap(), Peer::Admin);
    // A server that shows the administrator's certificate is not a member.
    let (chain, key) = admin(&one);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = any_member_config(&[one.identity.authority()], None).unwrap();
    let mut link = Link {
        client: ClientConnection::new(Arc::new(config), ServerName::try_from("a.b").unwrap())
            .unwrap(),
        server: ServerConnection::new(Arc::new(server)).unwrap(),
    };
    assert!((0..4).any(|_| link.pass().is_err()));
}

#[test]
fn who_shows_nothing_is_nobody() {
    let one = founder(CLUSTER);
    let config = any_member_config(&[one.identity.authority()], None).unwrap();
    let link = dial(&one, Arc::new(config), "127.0.0.1").unwrap();
    assert_eq!(link.peer(&one).unwrap(), Peer::Anonymous);
}

#[test]
fn a_token_pins_the_cluster() {
    let (one, other) = (founder(CLUSTER), founder(CLUSTER));
    let token = JoinToken::new(&one.identity.authority()).unwrap();
    let pinned = Arc::new(pinned_config(token.authority_hash()).unwrap());
    let link = dial(&one, pinned.clone(), "10.1.2.3").unwrap();
    assert_eq!(link.peer(&one).unwrap(), Peer::Anonymous);
    assert!(dial(&other, pinned, "10.1.2.3").is_err());
}

#[test]
fn a_pinned_authority_must_have_signed_what_is_shown() {
    // Somebody who has seen the real authority's certificate shows it behind a certificate of his own.
    let (one, thief) = (founder(CLUSTER), founder(CLUSTER));
    let (chain, key) = admin(&thief);
    let shown = vec![chain[0].clone(), one.identity.authority()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(shown, key)
        .unwrap();
    let token = JoinToken::new(&one.identity.authority()).unwrap();
    let config = Arc::new(pinned_config(token.authority_hash()).unwrap());
    let mut link = Link {
        client: ClientConnection::new(config, ServerName::try_from("a.b").unwrap()).unwrap(),
        server: ServerConnection::new(Arc::new(server)).unwrap(),
    };
    assert!((0..4).any(|_| link.pass().is_err()));
}

/// Gives a node a certificate with these names, good from and to so many days from now, and starts it anew.
fn with_certificate(node: Node, names: &[&str], days: [i64; 2]) -> Node {
    let record = node.identity.founding_authority().unwrap().unwrap();
    let ca_key = KeyPair::try_from(record.key.as_slice()).unwrap();
    let ca = CertificateDer::from(record.certificate);
    let issuer = Issuer::from_ca_cert_der(&ca, ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name(1));
    let alternative = |name: &&str| SanType::DnsName((*name).try_into().unwrap());
    params.subject_alt_names = names.iter().map(alternative).collect();
    let now = OffsetDateTime::now_utc();
    [params.not_before, params.not_after] = days.map(|days| now + Duration::days(days));
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let file = node.dir.path().join("identity/node.pem");
    std::fs::write(file, format!("{}{}", leaf.pem(), key.serialize_pem())).unwrap();
    let identity = Identity::load(node.dir.path()).unwrap().unwrap();
    Node { dir: node.dir, identity }
}

#[test]
fn dates_count_on_both_sides_until_the_certificate_is_renewed() {
    for (days, passes) in [([-2, -1], false), ([1, 2], false), ([399, 490], false), ([-1, 1], true)]
    {
        let one = with_certificate(founder(CLUSTER), &[&name(1)], days);
        let record = settled(&one);
        let two = joined(&one, CLUSTER, 2);
        let dials = || {
            let there = dial(&one, two.identity.client_config(), &name(1)).is_ok();
            (there, dial(&two, one.identity.client_config(), &name(2)).is_ok())
        };
        assert_eq!(dials(), (passes, passes), "{days:?}");
        assert!(one.identity.renew(&record).unwrap().node, "{days:?}");
        assert_eq!(dials(), (true, true), "{days:?}");
    }
}

#[test]
fn a_common_name_is_no_identity() {
    let one = founder(CLUSTER);
    let record = one.identity.founding_authority().unwrap().unwrap();
    let key = KeyPair::generate().unwrap();
    let ca_key = KeyPair::try_from(record.key.as_slice()).unwrap();
    let ca = CertificateDer::from(record.certificate);
    let issuer = Issuer::from_ca_cert_der(&ca, ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name(2));
    let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = any_member_config(&[ca], Some((vec![leaf], der))).unwrap();
    let link = dial(&one, Arc::new(config), "a.example").unwrap();
    let stranger = link.peer(&one).unwrap_err();
    assert!(stranger.to_string().contains("nobody of this cluster"), "{stranger}");
    // Nor do two names make one.
    let two_names = [name(1), name(2)];
    let names: Vec<&str> = two_names.iter().map(String::as_str).collect();
    let both = with_certificate(one, &names, [-1, 1]);
    let link = dial(&both, both.identity.client_config(), &name(1)).unwrap();
    assert!(link.peer(&both).is_err());
}

#[test]
fn what_a_crash_left_half_written_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("identity.part")).unwrap();
    std::fs::write(dir.path().join("identity.part/ca.crt"), "-----BEGIN CERT").unwrap();
    assert!(Identity::load(dir.path()).unwrap().is_none());
    let identity = Identity::found(dir.path(), CLUSTER).unwrap();
    assert!(!dir.path().join("identity.part").exists());
    let part = dir.path().join("identity/node.pem.part");
    std::fs::write(&part, "-----BEGIN CERT").unwrap();
    assert_eq!(Identity::load(dir.path()).unwrap().unwrap().node(), identity.node());
    // One that is damaged all the same is told, with its path.
    std::fs::write(dir.path().join("identity/node.pem"), "-----BEGIN CERT").unwrap();
    let error = Identity::load(dir.path()).err().unwrap();
    assert!(error.to_string().contains("node.pem"), "{error}");
}

#[test]
fn a_connection_goes_on_while_the_certificate_is_replaced() {
    // It is good for ten days yet, which is less than a third of a certificate's life.
    let one = with_certificate(founder(CLUSTER), &[&name(1)], [-80, 10]);
    let two = joined(&one, CLUSTER, 2);
    let mut link = dial(&one, two.identity.client_config(), &name(1)).unwrap();
    let record = settled(&one);
    let before = link.client.peer_certificates().unwrap()[0].clone().into_owned();
    assert!(one.identity.renew(&record).unwrap().node);
    link.client.writer().write_all(b"still here").unwrap();
    link.pass().unwrap();
    let mut heard = [0; 10];
    link.server.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
    let again = dial(&one, two.identity.client_config(), &name(1)).unwrap();
    assert_ne!(again.client.peer_certificates().unwrap()[0], before);
}

/// The row while `keys` come to be the authority.
fn rotating(from: &AuthorityRecord, keys: &AuthorityKeys, stage: RotationStage) -> AuthorityRecord {
    let rotation = Rotation {
        stage,
        keys: keys.clone(),
        secret: SharedSecret([1; 32]),
        session_key: SharedSecret([2; 32]),
        begun_at: Timestamp(0),
        confirmed: Vec::new(),
    };
    AuthorityRecord { rotation: Some(rotation), ..from.clone() }
}

fn understand_each_other(one: &Node, two: &Node) {
    for (client, server, number) in [(one, two, 2), (two, one, 1)] {
        let link = dial(server, client.identity.client_config(), &name(number)).unwrap();
        let client = Peer::Member { node: client.identity.node() };
        assert_eq!(link.peer(server).unwrap(), client);
    }
}

#[test]
fn members_understand_each_other_at_every_step_of_a_rotation() {
    let one = founder(CLUSTER);
    let two = joined(&one, CLUSTER, 2);
    let settled = settled(&one);
    let old_admin = admin(&one);
    let old = dial(&one, two.identity.client_config(), &name(1)).unwrap();
    let old_chain = old.server.peer_certificates().unwrap().to_vec();
    let next = Authority::new(CLUSTER).unwrap().to_keys();
    let trust = rotating(&settled, &next, RotationStage::Trust);
    let show = rotating(&settled, &next, RotationStage::Show);
    let over = AuthorityRecord { keys: next, ..settled.clone() };
    // At any moment, the two may be one step apart.
    let mut shown = Vec::new();
    for row in [&trust, &show, &over] {
        for node in [&one, &two] {
            let followed = node.identity.follow(row).unwrap();
            assert!(followed.has_changed);
            understand_each_other(&one, &two);
            // Followed again, after a crash or not, it asks for nothing new.
            let again = Identity::load(node.dir.path()).unwrap().unwrap().follow(row).unwrap();
            assert_eq!((again.has_changed, again.confirms), (false, followed.confirms));
            shown.extend(followed.confirms);
        }
    }
    let [trust, show] = [RotationStage::Trust, RotationStage::Show];
    assert_eq!(shown, [trust, trust, show, show]);

    // What the old authority issued is good for nothing, on new connections and on those that are open.
    assert!(!one.identity.accepts(&old_chain));
    assert!(
        one.identity.accepts(
            dial(&one, two.identity.client_config(), &name(1))
                .unwrap()
                .server
                .peer_certificates()
                .unwrap()
        )
    );
    let ca = one.identity.authority();
    let config = any_member_config(std::slice::from_ref(&ca), Some(old_admin)).unwrap();
    assert!(dial(&one, Arc::new(config), "a.example").is_err());
    let config = any_member_config(&[ca], Some(admin(&one))).unwrap();
    let link = dial(&one, Arc::new(config), "a.example").unwrap();
    assert_eq!(link.peer(&one).unwrap(), Peer::Admin);
}

#[test]
fn a_node_follows_no_row_that_would_cut_it_off() {
    let one = founder(CLUSTER);
    let two = joined(&one, CLUSTER, 2);
    let foreign = Authority::new(CLUSTER).unwrap().to_keys();
    let settled = settled(&one);
    let row = AuthorityRecord { keys: foreign, ..settled };
    assert!(one.identity.follow(&row).is_err());
    understand_each_other(&one, &two);
}
