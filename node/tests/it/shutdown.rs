//! How transfers end: whole at a stop of the node, cut off where the client takes nothing.

use std::time::Duration;

use super::node::{Node, digest_of, noise};

const SIGTERM: i32 = 15;

#[tokio::test]
async fn running_transfers_finish_before_the_node_ends() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut node = Node::start(&data, &[]);
    let blob = noise(4, 32 << 20);
    let digest = node.push_blob("r", &blob).await;
    let mut download = node.get(&format!("/v2/r/blobs/{digest}")).await;
    let mut got = download.chunk().await.unwrap().unwrap().to_vec();

    // An upload that is half way when the stop comes.
    let (sender, body) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let stream =
        futures_util::stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
    let upload = noise(5, 4 << 20);
    let upload_digest = digest_of(&upload);
    let path = format!("/v2/r/blobs/uploads/?digest={upload_digest}");
    let request =
        node.request(reqwest::Method::POST, &path).body(reqwest::Body::wrap_stream(stream)).send();
    let request = tokio::spawn(request);
    sender.send(Ok(upload[..1 << 20].to_vec())).await.unwrap();
    // The second part is only taken once the first is on its way to the node.
    sender.send(Ok(upload[1 << 20..2 << 20].to_vec())).await.unwrap();

    let address = node.address();
    node.signal(SIGTERM);
    // New connections end as soon as the node has heard the signal.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while tokio::net::TcpStream::connect(&address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the node still accepts connections");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while let Some(chunk) = download.chunk().await.unwrap() {
        got.extend_from_slice(&chunk);
    }
    assert!(got == blob, "the download came whole");
    sender.send(Ok(upload[2 << 20..].to_vec())).await.unwrap();
    drop(sender);
    assert_eq!(request.await.unwrap().unwrap().status(), 201);
    assert_eq!(node.wait(), Some(0));

    let node = Node::start(&data, &[]);
    let kept = node.get(&format!("/v2/r/blobs/{upload_digest}")).await.bytes().await.unwrap();
    assert!(kept == upload);
}

#[tokio::test]
async fn a_client_that_has_asked_nothing_is_not_waited_for() {
    use tokio::io::AsyncWriteExt;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("nora.toml");
    let limits = "[limits]\nrequest_header_timeout = \"1h\"\ndrain_timeout = \"1h\"\n";
    std::fs::write(&config, limits).unwrap();
    let mut node = Node::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    let mut silent = Vec::new();
    // Nothing, and half of HTTP/2's preface.
    for sent in ["", "PRI * HT"] {
        let mut stream = tokio::net::TcpStream::connect(node.address()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !node.get("/metrics").await.text().await.unwrap().contains("nora_http_connections 3\n") {
        assert!(tokio::time::Instant::now() < deadline, "the connections are not counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.signal(SIGTERM);
    let ended = tokio::task::spawn_blocking(move || node.wait());
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    assert_eq!(ended.expect("the node waits for who has asked nothing").unwrap(), Some(0));
    drop(silent);
}

#[tokio::test]
async fn a_client_that_vanished_is_not_waited_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // A frame of settings with nothing in it; the node acknowledges it once the connection stands.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let dir = tempfile::tempdir().unwrap();
    let mut node =
        Node::start_configured(&dir.path().join("data"), "[limits]\ndrain_timeout = \"1h\"\n");
    let mut vanished = tokio::net::TcpStream::connect(node.address()).await.unwrap();
    vanished.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    let mut heard = [0; 64];
    assert!(vanished.read(&mut heard).await.unwrap() > 0);
    node.signal(SIGTERM);
    // From here on it reads nothing, and answers nothing.
    let ended = tokio::task::spawn_blocking(move || node.wait());
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    assert_eq!(ended.expect("the node waits for who has vanished").unwrap(), Some(0));
    drop(vanished);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    use tokio::io::AsyncWriteExt;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("nora.toml");
    std::fs::write(&config, "[limits]\nbody_idle_timeout = \"1s\"\n").unwrap();
    let node = Node::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    let digest = node.push_blob("r", &noise(6, 48 << 20)).await;
    let mut stuck = tokio::net::TcpStream::connect(node.address()).await.unwrap();
    let request = format!("GET /v2/r/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n");
    stuck.write_all(request.as_bytes()).await.unwrap();
    let open = async || {
        let text = node.get("/metrics").await.text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with("nora_http_connections ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    // The answer's head: the node is at it, and the connection is counted.
    stuck.readable().await.unwrap();
    let mut seen = open().await;
    assert!(seen >= 2, "the stuck connection is open");
    // What is left in the end is the connection that asks.
    while seen > 1 {
        assert!(tokio::time::Instant::now() < deadline, "{seen} connections are open");
        tokio::time::sleep(Duration::from_millis(50)).await;
        seen = open().await;
    }
    drop(stuck);
}
