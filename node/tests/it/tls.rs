//! TLS by rustls, with certificates that are replaced while the node runs.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;

use super::node::{Node, noise};

const SIGHUP: i32 = 1;

/// Writes a new self-signed certificate and returns it as PEM.
fn write_certificate(dir: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.join("tls.crt"), made.cert.pem()).unwrap();
    made.cert.pem()
}

/// A client that trusts this certificate alone.
fn trusting(pem: &str) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()])
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

async fn answers(client: &reqwest::Client, url: &str) -> bool {
    client.get(format!("{url}/v2/")).send().await.is_ok_and(|response| response.status() == 200)
}

#[tokio::test]
async fn a_replaced_certificate_is_used_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = write_certificate(dir.path());
    let config = dir.path().join("nora.toml");
    std::fs::write(&config, "[server]\ntls = { cert = \"tls.crt\", key = \"tls.key\" }\n").unwrap();
    let node = Node::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    assert!(node.url.starts_with("https://"));
    assert!(answers(&trusting(&first), &node.url).await);
    // Bytes come through encryption whole, over HTTP/2 and HTTP/1.1.
    let blob = noise(8, 3 << 20);
    let digest = node.push_blob("r", &blob).await;
    let path = format!("{}/v2/r/blobs/{digest}", node.url);
    let over = async |client: reqwest::ClientBuilder| {
        let client = client.danger_accept_invalid_certs(true).build().unwrap();
        client.get(&path).send().await.unwrap().bytes().await.unwrap()
    };
    assert!(over(reqwest::Client::builder().http1_only()).await == blob);
    assert!(over(reqwest::Client::builder().http2_prior_knowledge()).await == blob);

    let second = write_certificate(dir.path());
    node.signal(SIGHUP);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !answers(&trusting(&second), &node.url).await {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!answers(&trusting(&first), &node.url).await);

    std::fs::write(dir.path().join("tls.crt"), "no certificate").unwrap();
    node.signal(SIGHUP);
    for _ in 0..5 {
        assert!(answers(&trusting(&second), &node.url).await, "the old one stays in use");
    }
}

#[test]
fn a_node_does_not_start_with_a_broken_certificate() {
    let dir = tempfile::tempdir().unwrap();
    write_certificate(dir.path());
    std::fs::write(dir.path().join("tls.key"), "no key").unwrap();
    let config = dir.path().join("nora.toml");
    std::fs::write(&config, "[server]\ntls = { cert = \"tls.crt\", key = \"tls.key\" }\n").unwrap();
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_nora"))
        .args(["serve", "--listen", "127.0.0.1:0", "--cluster-listen", "127.0.0.1:0", "--config"])
        .arg(&config)
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(!started.status.success());
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(said.contains("cannot read the private key") && said.contains("tls.key"), "{said}");
}

#[tokio::test]
async fn nobody_but_members_passes_requests_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Node::start(&data, &[]);
    let blob = node.push_blob("r", b"private").await;
    node.push_image("r", "v1", b"layer").await;
    let address = std::fs::read_to_string(data.join("cluster-address")).unwrap();
    let own = |name: &str| std::fs::read(data.join("identity").join(name)).unwrap();
    // The administrator's certificate is of the cluster's authority, and is no member's.
    let admin = [own("admin.crt"), own("admin.key")].concat();
    let admin = reqwest::Identity::from_pem(&admin).unwrap();
    let client = || reqwest::Client::builder().danger_accept_invalid_certs(true);
    for (who, client) in [("a stranger", client()), ("an administrator", client().identity(admin))]
    {
        let client = client.build().unwrap();
        for (method, path) in [
            (Method::GET, format!("/v2/r/blobs/{blob}")),
            (Method::GET, "/v2/r/manifests/v1".to_owned()),
            (Method::POST, "/v2/r/blobs/uploads/".to_owned()),
            (Method::DELETE, "/v2/r/manifests/v1".to_owned()),
        ] {
            let url = format!("https://{}{path}", address.trim());
            // On behalf of somebody whom another member has let through, it says.
            let asked =
                client.request(method.clone(), url).header("x-nora-caller", "admin   judged");
            let status = asked.send().await.unwrap().status();
            assert_eq!(status, 403, "{who}: {method} {path}");
        }
    }
    assert_eq!(node.get("/v2/r/manifests/v1").await.status(), 200, "it was not deleted");
}

#[tokio::test]
async fn a_strangers_message_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let _node = Node::start(&data, &[]);
    let address = std::fs::read_to_string(data.join("cluster-address")).unwrap();
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
    for method in ["Raft/Vote", "Leader/Propose"] {
        // The head of a message of 16 MiB, of which the rest never comes.
        let head = [&[0][..], &(16_u32 << 20).to_be_bytes()].concat();
        let never = futures_util::stream::once(async { Ok::<_, std::io::Error>(head) })
            .chain(futures_util::stream::pending());
        let asked = client
            .post(format!("https://{}/nora.peer.v1.{method}", address.trim()))
            .header("content-type", "application/grpc")
            .body(reqwest::Body::wrap_stream(never))
            .send();
        let answer = tokio::time::timeout(Duration::from_secs(30), asked).await;
        let answer = answer.unwrap_or_else(|_| panic!("{method}: it waits for the message"));
        assert_eq!(answer.unwrap().headers()["grpc-status"], "7", "{method}");
    }
}

/// A client's hello, of which the last byte never comes.
fn half_a_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "a.example".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello.truncate(hello.len() - 1);
    hello
}

#[tokio::test]
async fn half_open_handshakes_keep_nobody_out() {
    use tokio::io::AsyncWriteExt;
    let dir = tempfile::tempdir().unwrap();
    let certificate = write_certificate(dir.path());
    let data = dir.path().join("data");
    let text = "[server]\ntls = { cert = \"tls.crt\", key = \"tls.key\" }\n\
                [limits]\nconnections_per_address_max = 400\n";
    let node = Node::start_configured(&data, text);
    let cluster_port = std::fs::read_to_string(data.join("cluster-address")).unwrap();
    let hello = half_a_hello();
    // More than one address may hold: 50 on each port are let in, and the others are closed.
    let mut held = Vec::new();
    for port in [node.address(), cluster_port.trim().to_owned()] {
        for _ in 0..400 {
            let mut connection = tokio::net::TcpStream::connect(&port).await.unwrap();
            // One that was closed cannot be written to.
            let _ = connection.write_all(&hello).await;
            held.push(connection);
        }
    }
    // The attacker's address has used up its share. Others come in on both ports.
    let other = std::net::IpAddr::from([127, 0, 0, 9]);
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap()])
        .local_address(other)
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    assert!(answers(&client, &node.url).await);
    let admin = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .local_address(other)
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let asked = admin
        .post(format!("https://{}/nora.peer.v1.Raft/Vote", cluster_port.trim()))
        .header("content-type", "application/grpc")
        .send();
    assert_eq!(asked.await.unwrap().headers()["grpc-status"], "7");
    drop(held);
}
