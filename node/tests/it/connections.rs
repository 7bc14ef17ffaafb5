//! What may come over a connection beside well-formed requests, byte by byte: nothing of it holds a place for long,
//! takes memory, or is answered with silence.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::{Method, Version};

use super::node::{Node, digest_of, header, noise};

/// Long beside what a node needs to answer, short beside the timeouts it has by default.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// A connection that is written and read by hand.
struct Raw {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Raw {
    fn connect(node: &Node) -> Self {
        let stream = TcpStream::connect(node.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads one answer; its body is as long as it announces.
    fn answer(&mut self) -> Answer {
        let first = self.line();
        let status = first.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {first:?}"));
        let status = status.parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if status >= 200 {
            answer.body = vec![0; answer.header("content-length").parse().unwrap_or(0)];
            self.reader.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    /// Reads until the node closes the connection; it fails if that takes longer than [`PATIENCE`].
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => {}
            // What the node did not read is thrown away with the connection.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection stays open: {error}"),
        }
        rest
    }
}

fn start(dir: &Path, config: &str) -> Node {
    Node::start_configured(&dir.join("data"), config)
}

#[test]
fn what_is_no_http_is_turned_away_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    let mut hello = b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03".to_vec();
    hello.extend_from_slice(&noise(1, 250));
    let mut garbage = vec![0xff, 0x00];
    garbage.extend_from_slice(&noise(2, 4096));
    for bytes in [
        hello,
        garbage,
        b"\r\nGE\0T / HTTP/1.1\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /v2/ HTTP/1.1\r\nno colon\r\n\r\n".to_vec(),
        // Where one body ends must not depend on who reads it.
        b"POST /v2/r/blobs/uploads/ HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
        b"PR nothing that HTTP/2 begins with\r\n\r\n".to_vec(),
    ] {
        let begun = Instant::now();
        let answer = Raw::connect(&node).send(&bytes).rest();
        assert!(begun.elapsed() < PATIENCE / 2, "{:?} was kept waiting", bytes.escape_ascii());
        let text = String::from_utf8_lossy(&answer);
        // An HTTP/2 connection ends with frames, all others with a status line or nothing.
        let clean = answer.is_empty() || text.starts_with("HTTP/1.1 400") || bytes.starts_with(b"PR");
        assert!(clean, "{} was answered with {text:?}", bytes.escape_ascii());
    }
    assert_eq!(
        Raw::connect(&node).send("GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\n").answer().status,
        200
    );
}

#[test]
fn a_head_that_never_ends_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "[limits]\nrequest_header_timeout = \"1s\"\n");
    let begun = Instant::now();
    let heads = [
        "",
        "P",
        "PR",
        "PRI * HTTP/2.0\r\n",
        "GET /v2/ HT",
        "GET /v2/ HTTP/1.1\r\nhost: a\r\nx-slow: ",
    ];
    let mut slow: Vec<Raw> = heads
        .map(|head| {
            let mut raw = Raw::connect(&node);
            raw.send(head);
            raw
        })
        .into();
    // The time is for each head, also for one after others on the same connection.
    let mut second = Raw::connect(&node);
    second.send("GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(second.answer().status, 200);
    second.send("GET /v2/ HTTP/1.1\r\nho");
    slow.push(second);
    for raw in &mut slow {
        let rest = raw.rest();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", rest.escape_ascii());
    }
    let elapsed = begun.elapsed();
    assert!(elapsed > Duration::from_millis(900), "cut after {elapsed:?}");
}

#[tokio::test]
async fn a_body_that_falls_silent_is_cut_and_what_came_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "[limits]\nbody_idle_timeout = \"1s\"\n");
    let blob = noise(3, 300_000);
    let location = node.open_upload("r").await;
    let mut raw = Raw::connect(&node);
    let begun = Instant::now();
    raw.send(format!(
        "PATCH {location} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        blob.len()
    ));
    raw.send(&blob[..200_000]);
    raw.rest();
    assert!(begun.elapsed() > Duration::from_millis(900), "cut after {:?}", begun.elapsed());

    let status = node.get(&location).await;
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-199999".to_owned()));
    let digest = digest_of(&blob);
    let done = node
        .request(Method::PUT, &format!("{location}?digest={digest}"))
        .header("content-range", "200000-299999")
        .body(blob[200_000..].to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(done.status(), 201);
    assert_eq!(node.get(&format!("/v2/r/blobs/{digest}")).await.bytes().await.unwrap(), blob);
}

#[tokio::test]
async fn http_1_0_and_http_2_are_spoken_on_the_plain_port() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    let blob = noise(4, 3 << 20);
    let digest = node.push_blob("r", &blob).await;
    let path = format!("/v2/r/blobs/{digest}");

    let mut raw = Raw::connect(&node);
    let answer = raw.send(format!("GET {path} HTTP/1.0\r\n\r\n")).answer();
    assert_eq!(answer.status, 200);
    assert!(answer.body == blob);
    assert!(raw.rest().is_empty(), "HTTP/1.0 closes after each answer");

    let http2 =
        reqwest::Client::builder().http2_prior_knowledge().timeout(PATIENCE).build().unwrap();
    let url = format!("{}{path}", node.url);
    let gets = (0..8).map(|_| async {
        let response = http2.get(&url).send().await.unwrap();
        assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
        assert!(response.bytes().await.unwrap() == blob);
    });
    futures_util::future::join_all(gets).await;
    let pushed = digest_of(b"over HTTP/2");
    let push = format!("{}/v2/r/blobs/uploads/?digest={pushed}", node.url);
    let response = http2.post(push).body("over HTTP/2").send().await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 201));
}

#[tokio::test]
async fn pipelined_requests_are_all_answered_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    let small = noise(5, 1000);
    let large = noise(6, 2 << 20);
    let blobs =
        [(node.push_blob("r", &small).await, small), (node.push_blob("r", &large).await, large)];
    let mut requests = String::new();
    for index in 0..20 {
        let (digest, _) = &blobs[index % 2];
        requests += &format!(
            "GET /v2/r/blobs/{digest} HTTP/1.1\r\nhost: a\r\nx-request-id: n{index}\r\n\r\n"
        );
    }
    requests += "POST /v2/r/blobs/uploads/ HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    requests += "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut raw = Raw::connect(&node);
    raw.send(requests);
    for index in 0..20 {
        let answer = raw.answer();
        assert_eq!((answer.status, answer.header("x-request-id")), (200, &*format!("n{index}")));
        assert!(answer.body == blobs[index % 2].1);
    }
    assert_eq!(raw.answer().status, 202);
    assert_eq!(raw.answer().status, 200);
    assert!(raw.rest().is_empty());
}

#[test]
fn a_client_that_expects_100_continue_is_told_to_go_on_or_is_refused_first() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    let head = |digest: &str| {
        format!(
            "POST /v2/r/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\
             expect: 100-continue\r\n\r\n"
        )
    };
    let mut raw = Raw::connect(&node);
    assert_eq!(raw.send(head(&digest_of(b"bytes"))).answer().status, 100);
    let answer = raw.send("bytes").answer();
    assert_eq!(
        (answer.status, answer.header("docker-content-digest")),
        (201, &*digest_of(b"bytes"))
    );
    assert_eq!(Raw::connect(&node).send(head("sha256:none")).answer().status, 400);
}

#[test]
fn a_head_larger_than_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "[limits]\nrequest_header_bytes_max = \"16KiB\"\n");
    let ask = |bytes: usize| {
        let mut raw = Raw::connect(&node);
        let head =
            format!("GET /v2/ HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "x".repeat(bytes));
        // The node may have answered and closed before all of it is sent.
        let _ = raw.stream.write_all(head.as_bytes());
        raw.answer().status
    };
    assert_eq!(ask(8 << 10), 200);
    assert_eq!(ask(17 << 10), 431);
    let many: String = (0..500).map(|index| format!("x-{index}: 1\r\n")).collect();
    let many = Raw::connect(&node).send(format!("GET /v2/ HTTP/1.1\r\n{many}\r\n")).answer();
    assert_eq!(many.status, 431);
}

/// Memory of the node's process, as it counts it itself.
fn resident_bytes(node: &Node) -> u64 {
    let metrics = Raw::connect(node).send("GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").answer();
    let text = String::from_utf8(metrics.body).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix("nora_process_resident_memory_bytes "));
    line.unwrap().parse().unwrap()
}

/// Bytes that a folder takes on disk.
fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).unwrap().map_while(Result::ok);
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

#[test]
fn what_a_client_claims_to_send_costs_nothing_before_it_comes() {
    // Within the limit of a blob, which is therefore asked for; over that of a manifest.
    const CLAIM: u64 = 32 << 30;
    const OVER: u64 = 1 << 50;
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    let memory = resident_bytes(&node);
    let disk = disk_bytes(dir.path());
    let digest = digest_of(b"never sent");
    let mut claims = Vec::new();
    for _ in 0..32 {
        let push = format!("POST /v2/r/blobs/uploads/?digest={digest}");
        for (head, claim, expected) in [
            (push.clone(), CLAIM, 100),
            (push, OVER, 413),
            ("PUT /v2/r/manifests/v1".to_owned(), CLAIM, 413),
        ] {
            let mut raw = Raw::connect(&node);
            let head = format!(
                "{head} HTTP/1.1\r\nhost: a\r\ncontent-type: {}\r\ncontent-length: {claim}\r\n\
                 expect: 100-continue\r\n\r\n",
                super::node::OCI_MANIFEST
            );
            let status = raw.send(head).answer().status;
            assert_eq!(status, expected, "what is too large is refused before it is sent");
            if status == 100 {
                raw.send([7; 100]);
            }
            claims.push(raw);
        }
    }
    let (memory_now, disk_now) = (resident_bytes(&node), disk_bytes(dir.path()));
    assert!(memory_now < memory + (64 << 20), "{memory} bytes before, {memory_now} after");
    assert!(disk_now < disk + (64 << 20), "{disk} bytes before, {disk_now} after");

    // A length that is none is refused.
    let refused = |length: &str| {
        let head = format!(
            "POST /v2/r/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
        );
        Raw::connect(&node).send(head).answer().status
    };
    assert_eq!(refused("99999999999999999999999"), 400);
    assert_eq!(refused("-1"), 400);
}

#[tokio::test]
async fn a_method_that_an_address_does_not_take_is_answered_with_those_that_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    let digest = node.push_blob("r", b"blob").await;
    let upload = node.open_upload("r").await;
    for (method, path, allowed) in [
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", "/v2/_catalog", "GET, HEAD"),
        ("POST", "/v2/r/tags/list", "GET, HEAD"),
        ("POST", "/v2/r/manifests/v1", "GET, HEAD, PUT, DELETE"),
        ("PATCH", &format!("/v2/r/manifests/{digest}"), "GET, HEAD, PUT, DELETE"),
        ("PUT", &format!("/v2/r/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("POST", &format!("/v2/r/referrers/{digest}"), "GET, HEAD"),
        ("PUT", "/v2/r/blobs/uploads/", "POST"),
        ("POST", &upload, "GET, HEAD, PATCH, PUT, DELETE"),
        ("POST", "/health", "GET, HEAD"),
        ("PUT", "/ready", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let response = node.request(method.clone(), path).body("body").send().await.unwrap();
        let mut said: Vec<String> =
            header(&response, "allow").split(',').map(|word| word.trim().to_owned()).collect();
        let mut allowed: Vec<&str> = allowed.split(", ").collect();
        said.sort();
        allowed.sort_unstable();
        assert_eq!(
            (response.status().as_u16(), said.join(" ")),
            (405, allowed.join(" ")),
            "{method} {path}"
        );
    }
}

#[test]
fn a_request_names_one_host() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    let status = |head: &str| Raw::connect(&node).send(format!("{head}\r\n")).answer().status;
    for served in [
        "GET /v2/ HTTP/1.1\r\nhost: a\r\n",
        "GET /v2/ HTTP/1.1\r\nhost: [::1]:5000\r\n",
        "GET /v2/ HTTP/1.1\r\nhost:\r\n",
        "GET /v2/ HTTP/1.0\r\n",
    ] {
        assert_eq!(status(served), 200, "{served}");
    }
    for refused in [
        "GET /v2/ HTTP/1.1\r\n",
        "GET /v2/ HTTP/1.1\r\nhost: a\r\nhost: b\r\n",
        "GET /v2/ HTTP/1.1\r\nhost: a\r\nhost: a\r\n",
        "GET /v2/ HTTP/1.1\r\nhost: a/b\r\n",
        "GET /v2/ HTTP/1.1\r\nhost: a b\r\n",
        "GET /v2/ HTTP/1.0\r\nhost: a\r\nhost: b\r\n",
    ] {
        assert_eq!(status(refused), 400, "{refused}");
    }
}

#[test]
fn a_web_page_cannot_use_a_node_that_asks_for_no_login() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    let status = |head: &str| Raw::connect(&node).send(format!("{head}\r\n")).answer().status;
    let upload = "POST /v2/r/blobs/uploads/ HTTP/1.1\r\ncontent-length: 0\r\nhost: localhost\r\n";
    assert_eq!(status(upload), 202);
    assert_eq!(status(&format!("{upload}origin: http://evil.example\r\n")), 403);
    assert_eq!(status("GET /v2/_catalog HTTP/1.1\r\nhost: evil.example\r\n"), 421);
    assert_eq!(status("GET /health HTTP/1.1\r\nhost: evil.example\r\n"), 200);

    // With logins, a page that has none gets no further.
    let dir = tempfile::tempdir().unwrap();
    let closed = start(dir.path(), "[auth]\n");
    let answer = |head: &str| Raw::connect(&closed).send(format!("{head}\r\n")).answer().status;
    assert_eq!(answer("GET /v2/_catalog HTTP/1.1\r\nhost: registry.example\r\n"), 401);
}

/// Everything below a folder, as paths from it.
fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(folder).unwrap().display().to_string());
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn no_path_leaves_the_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    std::fs::write(dir.path().join("secret"), "a secret beside the data folder").unwrap();
    let outside = |dir: &Path| {
        let all = tree(dir).into_iter().filter(|path| !path.starts_with("data/"));
        all.collect::<Vec<_>>()
    };
    let before = outside(dir.path());
    let parts = [
        "..",
        ".",
        "%2e%2e",
        "%2E.",
        "..%2f",
        "%2f",
        "%5c",
        "..\\",
        "%00",
        "",
        "secret",
        "v2",
        "r",
        "blobs",
        "uploads",
        "manifests",
        "sha256:..",
        "sha256:%2e%2e%2fsecret",
        "_catalog",
        "%25",
        "%c0%ae%c0%ae",
        "etc",
        "passwd",
        "data",
        "blobs%2f..",
        "~",
        "a\u{301}",
    ];
    let mut picks = noise(17, 4096).into_iter().map(usize::from);
    let mut pick = |below: usize| picks.next().unwrap_or(0) % below;
    for _ in 0..400 {
        let method = ["GET", "PUT", "POST", "PATCH", "DELETE"][pick(5)];
        let start =
            ["/v2/", "/v2/r/blobs/uploads/", "/v2/r/blobs/", "/", "/v2/r/manifests/"][pick(5)];
        let path: Vec<_> = (0..=pick(5)).map(|_| parts[pick(parts.len())]).collect();
        let request = format!(
            "{method} {start}{} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nevil",
            path.join("/")
        );
        let answer = Raw::connect(&node).send(&request).rest();
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("a secret beside"), "{request:?} was answered with {text:?}");
        assert!(!text.starts_with("HTTP/1.1 5"), "{request:?} was answered with {text:?}");
    }
    assert_eq!(outside(dir.path()), before);
}
