//! What a node tells about itself: probes, request ids, metrics, and what it keeps to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine;
use reqwest::Method;

use super::node::{Node, error, header, noise};

#[tokio::test]
async fn probes_that_come_together_all_find_the_node_ready() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    for _ in 0..5 {
        let probes = (0..64).map(|_| async {
            let response = node.get("/ready").await;
            (response.status().as_u16(), response.text().await.unwrap())
        });
        for (status, text) in futures_util::future::join_all(probes).await {
            assert_eq!(status, 200, "{text}");
        }
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_request_and_is_complete_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    // Longer lines than a pipe holds, together.
    let path = |number: u32| format!("/v2/{}/manifests/v{number}", "long/".repeat(40) + "name");
    let unread = node.reading.lock().await;
    for number in 0..400 {
        let answer =
            tokio::time::timeout(Duration::from_secs(20), node.delete(&path(number))).await;
        assert_eq!(answer.expect("the node waits for whoever reads its log"), 404);
    }
    drop(unread);
    let complete = async {
        while !(0..400).all(|number| node.logged().contains(&format!("{}\"", path(number)))) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), complete).await.expect("lines are missing");
    let metrics = node.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("\nnora_log_lines_lost 0\n"), "{metrics}");
}

#[tokio::test]
async fn a_request_keeps_its_id_if_that_is_sane() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let longest = "x".repeat(64);
    for path in ["/v2/", "/v2/none/tags/list", "/health", "/nothing"] {
        let ask = async |id: &str| {
            let request = node.request(Method::GET, path).header("x-request-id", id);
            header(&request.send().await.unwrap(), "x-request-id")
        };
        for sane in ["a", "trace-1.b_C", &longest] {
            assert_eq!(ask(sane).await, sane);
        }
        let mut made = BTreeSet::new();
        for strange in ["", "two words", "a\"b", "{}", &format!("{longest}x")] {
            let id = ask(strange).await;
            assert!(id != strange && (1..=64).contains(&id.len()), "{strange:?} became {id:?}");
            made.insert(id);
        }
        assert_eq!(made.len(), 5, "ids differ: {made:?}");
    }
    // Errors name the same id as the header does.
    let refused = node
        .request(Method::GET, "/v2/none/tags/list")
        .header("x-request-id", "find-me")
        .send()
        .await
        .unwrap();
    assert_eq!(error(refused).await.2["request_id"], "find-me");
}

/// A family of metrics, as the text announces it.
#[derive(Debug, Default)]
struct Announced {
    kind: String,
    help: bool,
    unit: String,
}

/// The suffixes that samples of a kind may have after their family's name.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total", "_created"],
        "histogram" => &["_bucket", "_count", "_sum", "_created"],
        "info" => &["_info"],
        "gauge" => &[""],
        _ => &[],
    }
}

/// Reads OpenMetrics text strictly: every sample belongs to the family announced last, families come once, numbers are
/// numbers, and the text ends as it must. Returns every sample's value by its name and labels.
fn read_metrics(text: &str) -> BTreeMap<String, f64> {
    let mut families: BTreeMap<String, Announced> = BTreeMap::new();
    let mut current = String::new();
    let mut samples = BTreeMap::new();
    let body =
        text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no # EOF at the end:\n{text}"));
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_else(|| panic!("a short line: {line}"));
            let (what, name, rest) = (word(), word(), word());
            if current != name {
                assert!(!families.contains_key(name), "{name} comes twice");
                current = name.to_owned();
            }
            let family = families.entry(name.to_owned()).or_default();
            match what {
                "HELP" => family.help = !rest.is_empty(),
                "TYPE" => family.kind = rest.to_owned(),
                "UNIT" => family.unit = rest.to_owned(),
                _ => panic!("not in OpenMetrics: {line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let name = series.split('{').next().unwrap();
        let suffix = name.strip_prefix(current.as_str());
        let suffix = suffix.unwrap_or_else(|| panic!("{line} is not of the family {current}"));
        let kind = &families[&current].kind;
        assert!(suffixes(kind).contains(&suffix), "{line} is no sample of a {kind}");
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
    }
    assert!(!families.is_empty());
    for (name, family) in &families {
        assert!(family.help && !suffixes(&family.kind).is_empty(), "{name}: {family:?}");
        assert!(family.unit.is_empty() || name.ends_with(&family.unit), "{name}: {family:?}");
    }
    samples
}

#[tokio::test]
async fn metrics_are_openmetrics_and_count_what_was_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let read = async || {
        let response = node.get("/metrics").await;
        assert!(header(&response, "content-type").starts_with("application/openmetrics-text"));
        read_metrics(&response.text().await.unwrap())
    };
    let before = read().await;
    assert_eq!((before["nora_usage_artifacts"], before["nora_usage_tags"]), (0.0, 0.0));

    let layer = noise(1, 50_000);
    for (repository, tag) in [("a", "v1"), ("a", "v2"), ("b/c", "v1")] {
        node.push_image(repository, tag, &layer).await;
    }
    node.push_image("a", "other", b"other").await;
    assert_eq!(node.delete("/v2/b/c/manifests/v1").await, 202);
    let got = node.get("/v2/a/manifests/v1").await;
    let digest = header(&got, "docker-content-digest");

    let after = read().await;
    // Two tags name one artifact, and the artifact of a deleted tag stays.
    assert_eq!((after["nora_usage_artifacts"], after["nora_usage_tags"]), (3.0, 3.0));
    assert!(after["nora_usage_bytes"] >= 2.0 * layer.len() as f64);
    let manifests = |status: u16| {
        let series = format!(
            "nora_http_requests_total{{format=\"oci\",route=\"Manifest\",status=\"{status}\"}}"
        );
        after.get(&series).copied()
    };
    assert_eq!((manifests(201), manifests(202), manifests(200)), (Some(4.0), Some(1.0), Some(1.0)));
    assert!(after["nora_body_received_bytes_total"] >= 3.0 * layer.len() as f64);

    assert_eq!(node.delete(&format!("/v2/a/manifests/{digest}")).await, 202);
    let last = read().await;
    assert!(last["nora_job_runs_total{job=\"identity-reload\"}"] >= 1.0);
    assert_eq!(last["nora_job_failures_total{job=\"identity-reload\"}"], 0.0);
    assert!(last["nora_job_last_success_timestamp_seconds{job=\"identity-reload\"}"] > 1.6e9);
    assert!(last["nora_job_last_duration_seconds{job=\"identity-reload\"}"] < 60.0);
    assert_eq!((last["nora_usage_artifacts"], last["nora_usage_tags"]), (2.0, 1.0));
}

#[tokio::test]
async fn a_node_that_asks_for_a_login_never_logs_its_password() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let config = dir.path().join("nora.toml");
    std::fs::write(&config, "[log]\nlevel = \"trace\"\n").unwrap();
    let mut node = Node::start_closed(&data, &["--config", config.to_str().unwrap()]);
    let password = std::fs::read_to_string(data.join("admin-password")).unwrap();
    let password = password.trim();

    assert_eq!(node.get("/ready").await.status(), 200, "probes have no credentials");
    let refused = node.get("/v2/").await;
    assert!(header(&refused, "www-authenticate").starts_with("Bearer realm="));
    assert_eq!(error(refused).await.0, 401);
    let ask = async |node: &Node, path: &str, user: &str, password: &str| {
        let request = node.request(Method::POST, path).basic_auth(user, Some(password));
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, format!("{:?}{}", response.headers().clone(), response.text().await.unwrap()))
    };
    let mut said = String::new();
    for (path, user, given, status) in [
        ("/v2/r/blobs/uploads/", "admin", password, 202),
        ("/v2/r/blobs/uploads/", "admin", "wrong", 401),
        ("/v2/r/blobs/uploads/", "root", password, 401),
        ("/v2/r/tags/list", "admin", password, 405),
        ("/metrics", "nobody", password, 401),
    ] {
        let answer = ask(&node, path, user, given).await;
        assert_eq!(answer.0, status, "{path}");
        said += &answer.1;
    }
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let request = http2.get(format!("{}/v2/", node.url)).basic_auth("admin", Some(password));
    assert_eq!(request.send().await.unwrap().status(), 200);
    node.kill_and_restart();
    assert_eq!(ask(&node, "/v2/r/blobs/uploads/", "admin", password).await.0, 202);
    node.kill();

    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("admin:{password}"));
    said += &node.logged();
    assert!(said.contains("admin-password"), "the log says where the password is");
    assert!(!said.contains(password) && !said.contains(&encoded));
}

#[tokio::test]
async fn no_answer_runs_in_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let page = b"<script>alert(1)</script>";
    let blob = format!("/v2/app/blobs/{}", node.push_blob("app", page).await);
    node.push_image("app", "v1", page).await;
    let paths = ["/v2/", "/v2/app/manifests/v1", "/v2/app/manifests/none", "/nothing", "/health"];
    for path in paths.into_iter().chain([blob.as_str()]) {
        let answer = node.get(path).await;
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff", "{path}");
        let policy = header(&answer, "content-security-policy");
        assert!(policy.contains("sandbox") && policy.contains("default-src 'none'"), "{path}");
    }
    let refused = node.put_manifest("app", "page", "text/html", b"{}".to_vec()).await;
    assert_eq!(error(refused).await.0, 400);
}
