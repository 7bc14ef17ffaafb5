//! The way back from a lost majority, as an operator goes it.

use std::time::{Duration, Instant};

use super::admin::{DATA, cluster, joining, wait};
use super::node::{Node, noise};
use super::shell::Shell;

const SURVIVOR: &str = "second/data";

/// Three nodes that vote, the second of which will survive.
async fn three(shell: &Shell, first: &Node) -> [Node; 2] {
    first.push_image("app", "v1", b"layer").await;
    assert_eq!(cluster(shell, DATA, &["join-token", "--uses", "2", "--to", "token"]).code, 0);
    let others = [SURVIVOR, "third/data"].map(|data| joining(shell, data, &shell.path("token")));
    wait(shell, "three voters with every blob", |status| {
        let members = status["members"].as_array().unwrap();
        members.len() == 3
            && members
                .iter()
                .all(|member| member["role"] != "learner" && member["report"]["blobs_held"] == 2)
    });
    others
}

#[tokio::test]
async fn a_survivor_of_a_lost_majority_goes_on_alone() {
    let (shell, mut first) = Shell::with_node("");
    let [mut survivor, mut third] = three(&shell, &first).await;
    let recover = |args: &[&str]| shell.run(&[&["recover", "--data-dir", SURVIVOR], args].concat());
    // From now on one node alone has each blob: the survivor will not have all of them.
    assert_eq!(cluster(&shell, DATA, &["replicas", "1", "--yes"]).code, 0);
    let mut blobs = Vec::new();
    for seed in 0..12 {
        blobs.push(survivor.push_blob("app", &noise(seed, 2_000)).await);
    }
    let running = recover(&["--yes"]);
    assert_eq!(running.code, 1, "{}", running.err);
    assert!(running.err.contains("another nora uses the data folder"), "{}", running.err);

    survivor.kill();
    first.push_image("app", "v2", b"acknowledged, and the survivor never heard of it").await;
    first.kill();
    third.kill();

    let unasked = recover(&[]);
    assert_eq!(unasked.code, 2, "{}", unasked.err);
    let dry = recover(&["--dry-run"]);
    assert_eq!(dry.code, 0, "{}", dry.err);
    assert!(dry.out.contains("node        2\n") && dry.out.contains("voters      1, 2, 3\n"));
    assert!(dry.err.starts_with("note: would let node 2 go on alone"), "{}", dry.err);
    let done = recover(&["--yes"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.starts_with(&dry.out), "the dry run changed it: {}, {}", dry.out, done.out);
    let told = "node 2 is the only member now; removed for good: 1, 3\n";
    assert!(done.err.starts_with(told), "{}", done.err);
    assert!(done.err.contains(" of 14 blobs are lost"), "{}", done.err);
    let again = recover(&["--yes"]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.err.contains("there was nobody to remove"), "{}", again.err);

    let survivor = Node::start(&shell.path(SURVIVOR), &[]);
    assert_eq!(survivor.get("/v2/app/manifests/v1").await.status(), 200);
    assert_eq!(survivor.get("/v2/app/manifests/v2").await.status(), 404);
    survivor.push_image("app", "v3", b"later").await;
    // It had only just joined: a job makes the administrator's certificate a moment after the start.
    let certificate = shell.path(SURVIVOR).join("identity/admin.crt");
    let end = Instant::now() + Duration::from_secs(30);
    while !certificate.exists() {
        assert!(Instant::now() < end, "the administrator got no certificate");
        std::thread::sleep(Duration::from_millis(10));
    }
    let audit = shell.run(&["audit", "--data-dir", SURVIVOR]);
    assert!(audit.out.contains("cluster.recover"), "{}{}", audit.out, audit.err);
    let whole = shell.run(&["audit", "--data-dir", SURVIVOR, "verify"]);
    assert_eq!(whole.code, 0, "{}", whole.err);

    // What is lost can be pushed again.
    for (seed, digest) in (0..).zip(&blobs) {
        assert_eq!(&survivor.push_blob("app", &noise(seed, 2_000)).await, digest);
        let read = survivor.get(&format!("/v2/app/blobs/{digest}")).await;
        assert_eq!(read.status(), 200);
        assert_eq!(read.bytes().await.unwrap(), noise(seed, 2_000));
    }

    let token = cluster(&shell, SURVIVOR, &["join-token", "--to", "another"]);
    assert_eq!(token.code, 0, "{}", token.err);
    let address = std::fs::read_to_string(shell.path(SURVIVOR).join("cluster-address")).unwrap();
    let token = shell.path("another");
    std::fs::create_dir(shell.path("fourth")).unwrap();
    let join = ["--join", address.trim(), "--join-token-file", token.to_str().unwrap()];
    let fourth = Node::start(&shell.path("fourth/data"), &join);
    assert_eq!(fourth.get("/v2/app/manifests/v3").await.status(), 200);
    let members = cluster(&shell, SURVIVOR, &["members", "-o", "json"]).json();
    let members = members.as_array().unwrap();
    let numbers: Vec<_> = members.iter().map(|member| member["node"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 4]);
}

#[test]
fn what_is_no_survivor_is_refused() {
    let shell = Shell::new();
    let recover = |folder: &str| shell.run(&["recover", "--data-dir", folder, "--yes"]);
    let missing = recover("missing");
    assert_eq!(missing.code, 1, "{}", missing.err);
    assert!(!shell.path("missing").exists(), "looking made a folder");
    std::fs::create_dir(shell.path("empty")).unwrap();
    let empty = recover("empty");
    assert_eq!(empty.code, 1, "{}", empty.err);
    assert!(empty.err.contains("no node ever ran there"), "{}", empty.err);
}
