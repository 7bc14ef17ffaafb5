//! Handshakes over real TLS, in memory: who gets through, and as whom.

// Clippy knows test functions, not the functions that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::sync::Arc;

use nora_domain::record::{ClusterId, NodeId};
use nora_trust::{
    Authority, Identity, JoinToken, Joining, Peer, SigningRequest, any_member_config, member_name,
    pinned_config,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConnection};
use tempfile::TempDir;

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
    let record = by.identity.founding_authority().unwrap().unwrap();
    let authority = Authority::from_record(&record).unwrap();
    let leaf = authority.issue_requested(cluster, NodeId(number), &request).unwrap();
    let ca = authority.certificate().clone();
    let identity = joining.accept(cluster, NodeId(number), leaf, ca).unwrap();
    Node { dir, identity }
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
    let config = any_member_config(ca, Some(admin(&foreign))).unwrap();
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
    let config = any_member_config(one.identity.authority(), Some(admin(&one))).unwrap();
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
    let config = any_member_config(one.identity.authority(), None).unwrap();
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
    let config = any_member_config(one.identity.authority(), None).unwrap();
    let link = dial(&one, Arc::new(config), "127.0.0.1").unwrap();
    assert_eq!(link.peer(&one).unwrap(), Peer::Anonymous);
}

#[test]
fn a_token_pins_the_cluster() {
    let (one, other) = (founder(CLUSTER), founder(CLUSTER));
    let token = JoinToken::new(one.identity.authority()).unwrap();
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
    let shown = vec![chain[0].clone(), one.identity.authority().clone()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(shown, key)
        .unwrap();
    let token = JoinToken::new(one.identity.authority()).unwrap();
    let config = Arc::new(pinned_config(token.authority_hash()).unwrap());
    let mut link = Link {
        client: ClientConnection::new(config, ServerName::try_from("a.b").unwrap()).unwrap(),
        server: ServerConnection::new(Arc::new(server)).unwrap(),
    };
    assert!((0..4).any(|_| link.pass().is_err()));
}

#[test]
fn a_connection_goes_on_while_the_certificate_is_replaced() {
    let one = founder(CLUSTER);
    let two = joined(&one, CLUSTER, 2);
    let mut link = dial(&one, two.identity.client_config(), &name(1)).unwrap();
    let record = one.identity.founding_authority().unwrap().unwrap();
    let before = link.client.peer_certificates().unwrap()[0].clone().into_owned();
    // A certificate that is gone from the disk is replaced as one that is too old is; here it is told by its age being
    // unreadable.
    std::fs::remove_file(one.dir.path().join("identity/admin.crt")).unwrap();
    assert!(one.identity.renew(&record).unwrap().admin);
    link.client.writer().write_all(b"still here").unwrap();
    link.pass().unwrap();
    let mut heard = [0; 10];
    link.server.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
    let again = dial(&one, two.identity.client_config(), &name(1)).unwrap();
    assert_eq!(again.client.peer_certificates().unwrap()[0], before);
}
