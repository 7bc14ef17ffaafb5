//! A node of its own for each test, and the requests that tests make.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest as hash};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The digest of these bytes, as clients write it.
pub fn digest_of(bytes: &[u8]) -> String {
    let value = hash(&SHA256, bytes);
    let hex: String = value.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Bytes that differ from one seed to the next and do not repeat inside.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// A running node, ended with the value.
pub struct Node {
    child: Child,
    data_dir: PathBuf,
    args: Vec<String>,
    log: Log,
    /// Held, it keeps the test from reading what the node logs.
    pub reading: Reading,
    pub url: String,
    pub client: Client,
}

/// The lines that a node has logged so far, over all its starts.
type Log = Arc<Mutex<Vec<String>>>;

type Reading = Arc<tokio::sync::Mutex<()>>;

impl Node {
    /// Starts a node on a free port of the loopback address, over `data_dir`.
    pub fn start(data_dir: &Path, args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", data_dir, args)
    }

    /// Starts a node that asks for a login, on a free port that still only this machine reaches: the loopback address
    /// written as IPv6 maps it is none of those that a node takes for loopback.
    pub fn start_closed(data_dir: &Path, args: &[&str]) -> Self {
        Self::start_at("[::ffff:127.0.0.1]:0", data_dir, args)
    }

    /// Starts a node over `data_dir` with a `nora.toml` of this text beside it.
    pub fn start_configured(data_dir: &Path, text: &str) -> Self {
        let config = data_dir.parent().unwrap().join("nora.toml");
        std::fs::write(&config, text).unwrap();
        Self::start(data_dir, &["--config", config.to_str().unwrap()])
    }

    fn start_at(listen: &str, data_dir: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(ToString::to_string);
        let args: Vec<String> = ["--cluster-listen", "127.0.0.1:0", "--listen", listen]
            .map(str::to_owned)
            .into_iter()
            .chain(args)
            .collect();
        let log = Log::default();
        let reading = Reading::default();
        let (child, url) = spawn(data_dir, &args, &log, &reading);
        let client = Client::builder()
            .danger_accept_invalid_certs(true)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        Self { child, data_dir: data_dir.to_owned(), args, log, reading, url, client }
    }

    /// Everything logged so far.
    pub fn logged(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub fn address(&self) -> String {
        self.url.rsplit('/').next().unwrap().to_owned()
    }

    /// SIGKILL, as a power cut would end it but for the page cache.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL and a new start over the same data.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        (self.child, self.url) = spawn(&self.data_dir, &self.args, &self.log, &self.reading);
    }

    pub fn signal(&self, signal: i32) {
        let done = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Waits for the process to end by itself and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url =
            if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        self.client.request(method, url)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn head(&self, path: &str) -> Response {
        self.request(Method::HEAD, path).send().await.unwrap()
    }

    pub async fn delete(&self, path: &str) -> StatusCode {
        self.request(Method::DELETE, path).send().await.unwrap().status()
    }

    /// Opens an upload session and returns where it is.
    pub async fn open_upload(&self, repository: &str) -> String {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let response = self.request(Method::POST, &path).send().await.unwrap();
        assert_eq!(response.status(), 202);
        header(&response, "location")
    }

    /// Pushes a blob in one request and returns its digest.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let response = self.request(Method::POST, &path).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(response.status(), 201);
        digest
    }

    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        body: Vec<u8>,
    ) -> Response {
        self.request(Method::PUT, &format!("/v2/{repository}/manifests/{reference}"))
            .header("content-type", media_type)
            .body(body)
            .send()
            .await
            .unwrap()
    }

    /// Pushes an image of one small layer under a tag; returns the manifest's bytes.
    pub async fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> Vec<u8> {
        let config = self.push_blob(repository, b"{}").await;
        let digest = self.push_blob(repository, layer).await;
        let manifest = image(&config, 2, &[(&digest, layer.len())], &json!({}));
        let response = self.put_manifest(repository, tag, OCI_MANIFEST, manifest.clone()).await;
        assert_eq!(response.status(), 201);
        manifest
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(data_dir: &Path, args: &[String], log: &Log, reading: &Reading) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nora"))
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .args(args)
        .current_dir(data_dir.parent().unwrap())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = loop {
        let Some(Ok(line)) = lines.next() else {
            panic!("the node did not start:\n{}", log.lock().unwrap().join("\n"));
        };
        let url = line.split_once("listening on ").map(|(_, rest)| rest.to_owned());
        log.lock().unwrap().push(line);
        if let Some(rest) = url {
            break rest.split('"').next().unwrap().to_owned();
        }
    };
    // The rest of the log is read as it comes.
    let (log, reading) = (log.clone(), reading.clone());
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _turn = reading.blocking_lock();
            log.lock().unwrap().push(line);
        }
    });
    (child, url)
}

/// A header's text; empty if there is none.
pub fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
}

/// An image manifest.
pub fn image(config: &str, config_size: usize, layers: &[(&str, usize)], more: &Value) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(digest, size)| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})
        })
        .collect();
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config,
            "size": config_size,
        },
        "layers": layers,
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    serde_json::to_vec(&document).unwrap()
}

/// The one error of an error document: its code, message and detail.
pub async fn error(response: Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    assert!(!header(&response, "x-request-id").is_empty());
    let document: Value = response.json().await.unwrap();
    let error = &document["errors"][0];
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert!(error["detail"]["request_id"].is_string(), "{document}");
    (status, error["code"].as_str().unwrap().to_owned(), error["detail"].clone())
}
