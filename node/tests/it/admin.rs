//! Administration as people and scripts do it: the command line against the cluster port of real nodes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::node::Node;
use super::shell::{Said, Shell, on_terminal, said};

pub const DATA: &str = "node/data";

/// Runs `nora cluster …` with what the owner of that data folder has.
pub fn cluster(shell: &Shell, data_dir: &str, args: &[&str]) -> Said {
    shell.run(&[&["cluster", "--data-dir", data_dir], args].concat())
}

fn cluster_address(shell: &Shell, data_dir: &str) -> String {
    let file = shell.path(data_dir).join("cluster-address");
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

/// The cluster as the first node tells it, once it is as the condition wants it.
pub fn wait(shell: &Shell, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let status = cluster(shell, DATA, &["status", "-o", "json"]).json();
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < end, "never {what}: {status:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_data_folder_is_all_that_its_owner_needs() {
    let (shell, node) = Shell::with_node("[cluster]\nzone = \"eu-1a\"\n");
    node.push_image("app", "v1", b"layer").await;
    let status = cluster(&shell, DATA, &["status", "-o", "json"]).json();
    assert_eq!((&status["node"], &status["leader"]), (&1.into(), &1.into()));
    assert_eq!(status["cluster"].as_str().unwrap().len(), 32);
    let member = &status["members"][0];
    assert_eq!((&member["role"], &member["standing"]), (&"leader".into(), &"active".into()));
    assert_eq!(member["zone"], "eu-1a");
    assert_eq!(member["http_address"], node.url.as_str());
    let report = &member["report"];
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert!(report["disk_free"].as_u64().unwrap() > 0);
    assert!(report["applied_index"].as_u64().unwrap() > 0);
    let table = cluster(&shell, DATA, &["status"]);
    assert!(table.out.contains("leader          node 1\n"), "{}", table.out);
    let members = cluster(&shell, DATA, &["members"]);
    assert_eq!(members.rows()[0][..4], ["1", "leader", "active", "eu-1a"]);

    let snapshot = cluster(&shell, DATA, &["snapshot", "-o", "json"]);
    assert_eq!(snapshot.code, 0, "{}", snapshot.err);
    let made: Value = serde_json::from_str(&snapshot.out).unwrap();
    let status = cluster(&shell, DATA, &["status", "-o", "json"]).json();
    assert_eq!(made["snapshot_index"], status["snapshot_index"]);
    assert_ne!(status["snapshot_index"], 0);

    let config = cluster(&shell, DATA, &["config"]);
    assert_eq!((config.code, config.err.as_str()), (0, ""));
    let config: toml::Value = toml::from_str(&config.out).unwrap();
    assert_eq!(config["cluster"]["zone"].as_str(), Some("eu-1a"));
    let scrub = shell.run(&["scrub", "--data-dir", DATA]);
    assert_eq!((scrub.code, scrub.out.as_str()), (0, ""), "{}", scrub.err);
    wait(&shell, "read again", |status| {
        status["members"][0]["report"]["scrubbed_bytes"].as_u64().unwrap() > 0
    });

    let token = cluster(&shell, DATA, &["join-token", "--valid", "5m"]);
    assert!(token.out.starts_with("nora1."), "{}", token.err);
    assert_eq!(cluster(&shell, DATA, &["join-token", "--to", "token"]).code, 0);
    let file = shell.path("token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(file).unwrap().starts_with("nora1."));
}

#[test]
fn what_cannot_be_is_refused_and_what_destroys_is_asked_for() {
    let (shell, _node) = Shell::with_node("");
    for (args, code, message) in [
        (&["promote", "9"][..], 1, "error: there is no node 9\n"),
        (&["promote", "0"], 1, "error: say which node: numbers begin with 1\n"),
        (&["drain", "9", "--yes"], 2, "error: node 9 is no member\n"),
        (&["remove", "1"], 2, "error: nobody is there to confirm: about to take node 1 (leader,"),
        (&["remove", "1", "--dry-run"], 0, "note: would take node 1 (leader, active,"),
        (&["remove", "1", "--yes", "--force"], 1, "error: "),
        (&["finalize-upgrade"], 2, "error: nobody is there to confirm"),
        (&["join-token", "--valid", "2y"], 2, "error: "),
        (&["join-token", "--valid", "500d"], 1, "error: a join token may be good for one second"),
    ] {
        let said = cluster(&shell, DATA, args);
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{args:?}: {}", said.err);
        assert!(said.err.starts_with(message), "{args:?}: {}", said.err);
    }
    let no = on_terminal(shell.command(&["cluster", "--data-dir", DATA, "remove", "1"]), "n\n");
    assert_eq!(no.code, 1, "{}", no.err);
    assert!(no.err.contains("Go on? [y/N]") && no.err.contains("nothing was changed"));
    let status = cluster(&shell, DATA, &["status", "-o", "json"]).json();
    assert_eq!(status["members"][0]["standing"], "active");
    let level = cluster(&shell, DATA, &["finalize-upgrade", "--yes", "-o", "json"]);
    assert_eq!(level.code, 0, "{}", level.err);
    let level: Value = serde_json::from_str(&level.out).unwrap();
    assert_eq!(level["feature_level"], status["members"][0]["feature_max"]);
}

#[test]
fn who_administers_shows_a_certificate_or_knows_the_password() {
    let shell = Shell::new();
    std::fs::create_dir(shell.path("node")).unwrap();
    let _node = Node::start_closed(&shell.path(DATA), &[]);
    let address = cluster_address(&shell, DATA);
    let ca = format!("{DATA}/identity/ca.crt");
    let password = format!("{DATA}/admin-password");
    std::fs::write(shell.path("wrong"), "wrong\n").unwrap();
    let ask = |more: &[&str]| {
        let args = ["cluster", "status", "--data-dir", "none", "--ca", &ca];
        shell.run(&[&args, &["--cluster-addr", &address][..], more].concat())
    };
    for more in [
        &[][..],
        &["--password-file", "wrong"],
        &["--token-file", "wrong"],
        &["--username", "root", "--password-file", &password],
    ] {
        let refused = ask(more);
        assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{more:?}");
        let said = "log in: show the administrator's certificate";
        assert!(refused.err.contains(said), "{more:?}: {}", refused.err);
        assert!(refused.err.contains("help: "), "{}", refused.err);
    }
    let (cert, key) = (format!("{DATA}/identity/admin.crt"), format!("{DATA}/identity/admin.key"));
    for more in [
        &["--cert", &cert, "--key", &key][..],
        &["--password-file", &password],
        &["--token-file", &password],
    ] {
        let status = ask(more);
        assert_eq!(status.code, 0, "{more:?}: {}", status.err);
    }

    // Another cluster's administrator is nobody here, and its client does not even speak.
    let (other, _node) = Shell::with_node("");
    let said = cluster(&other, DATA, &["status", "--cluster-addr", &address]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.starts_with(&format!("error: cannot reach {address}")), "{}", said.err);
    assert!(said.err.contains("another cluster"), "{}", said.err);

    // An open node trusts this machine, as it does on its other port.
    let address = cluster_address(&other, DATA);
    let ca = other.path(DATA).join("identity/ca.crt");
    let args = ["--ca", ca.to_str().unwrap(), "--cluster-addr", &address];
    let open = cluster(&other, "none", &[&["status"][..], &args].concat());
    assert_eq!(open.code, 0, "{}", open.err);
    let nothing = other.run(&["cluster", "status"]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("cannot read nora-data/identity/ca.crt"), "{}", nothing.err);
}

/// Starts a node that joins the first one.
pub fn joining(shell: &Shell, data_dir: &str, token_file: &Path) -> Node {
    let address = cluster_address(shell, DATA);
    let path = shell.path(data_dir);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let token_file = token_file.to_str().unwrap();
    Node::start(&path, &["--join", &address, "--join-token-file", token_file])
}

/// Copies a node's certificate to where the command line looks for an administrator's.
fn show_as_administrators(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(from.join("ca.crt"), to.join("ca.crt")).unwrap();
    let both = std::fs::read_to_string(from.join("node.pem")).unwrap();
    let key_at = both.find("-----BEGIN PRIVATE KEY").unwrap();
    let (first, second) = both.split_at(key_at);
    let (certificate, key) = match first.contains("CERTIFICATE") {
        true => (first, second),
        false => both.split_at(both.find("-----BEGIN CERTIFICATE").unwrap()),
    };
    std::fs::write(to.join("admin.crt"), certificate).unwrap();
    std::fs::write(to.join("admin.key"), key).unwrap();
}

#[tokio::test]
async fn jobs_are_listed_with_what_they_did() {
    let (shell, _node) = Shell::with_node("");
    let end = Instant::now() + Duration::from_secs(60);
    let jobs = loop {
        let jobs = cluster(&shell, DATA, &["jobs", "-o", "json"]).json();
        let all = jobs.as_array().unwrap();
        // The node leads, so every job has a first turn.
        if all.len() > 8 && all.iter().all(|job| job["runs"].as_u64().unwrap() > 0) {
            break jobs;
        }
        assert!(Instant::now() < end, "a job never ran: {jobs:#}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let names: Vec<_> = jobs.as_array().unwrap().iter().map(|job| &job["name"]).collect();
    assert!(names.is_sorted_by_key(|name| name.as_str()), "{names:?}");
    let journal = jobs.as_array().unwrap().iter().find(|job| job["name"] == "journal").unwrap();
    assert_eq!((&journal["leader_only"], &journal["state"]), (&true.into(), &"waiting".into()));
    assert_eq!((&journal["result"], &journal["failures"]), (&"0 sealed".into(), &0.into()));
    assert!(journal["succeeded_at"].as_u64().unwrap() < journal["due_at"].as_u64().unwrap());
    let table = cluster(&shell, DATA, &["jobs"]);
    assert!(table.out.starts_with("JOB "), "{}", table.out);
    assert!(table.rows().iter().any(|row| row[0] == "journal"), "{}", table.out);
    assert!(cluster(&shell, DATA, &["jobs", "-o", "yaml"]).out.contains("- name: journal\n"));
}

/// The token in the file `token` has admitted the node that it was made for.
fn a_spent_token_admits_no_other_node(shell: &Shell) {
    let tokens = cluster(shell, DATA, &["join-token", "ls", "-o", "json"]).json();
    let token = &tokens.as_array().unwrap()[0];
    assert_eq!((tokens.as_array().unwrap().len(), &token["uses_left"]), (1, &0.into()), "{tokens}");
    let id = token["id"].as_str().unwrap();
    let address = cluster_address(shell, DATA);
    let (file, folder) = (shell.path("token"), shell.path("third"));
    let join = ["serve", "--join", &address, "--join-token-file", file.to_str().unwrap()];
    let here = ["--listen", "127.0.0.1:0", "--cluster-listen", "127.0.0.1:0", "--data-dir"];
    let refused = shell.run(&[&join[..], &here[..], &[folder.to_str().unwrap()]].concat());
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("has admitted as many nodes as it was made for"),
        "{}",
        refused.err
    );
    let audit = shell.run(&["audit", "--data-dir", DATA, "-o", "json"]).out;
    let entries = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let joins: Vec<_> = entries.filter(|entry| entry["action"] == "node.join").collect();
    for entry in &joins {
        assert_eq!((&entry["resource"], &entry["address"]), (&id.into(), &"127.0.0.1".into()));
    }
    let came_of =
        |text: &str| joins.iter().any(|join| join["result"].as_str().unwrap().starts_with(text));
    assert!(came_of("done") && came_of("refused: "), "{audit}");

    let revoked = cluster(shell, DATA, &["join-token", "revoke", id]);
    assert_eq!((revoked.code, revoked.out.as_str()), (0, ""), "{}", revoked.err);
    let again = cluster(shell, DATA, &["join-token", "revoke", id]);
    assert!(again.code == 1 && again.err.contains("there is no such join token"), "{}", again.err);
    assert_eq!(cluster(shell, DATA, &["join-token", "ls", "-o", "json"]).json(), json!([]));
}

#[test]
fn a_join_token_among_the_arguments_is_warned_of() {
    let shell = Shell::new();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--cluster-listen", "127.0.0.1:0"];
    let join = [&serve[..], &["--join", "127.0.0.1:1"]].concat();
    let argument = shell.run(&[&join[..], &["--join-token", "t"]].concat());
    let hidden = said(shell.command(&join).env("NORA_JOIN_TOKEN", "t"));
    let warning = "other users of this machine can read it";
    for (said, is_warned) in [(argument, true), (hidden, false)] {
        assert!(said.code == 1 && said.err.contains("this is no join token"), "{}", said.err);
        assert_eq!(said.err.contains(warning), is_warned, "{}", said.err);
    }
}

#[tokio::test]
async fn a_node_joins_is_drained_and_removed() {
    let (shell, first) = Shell::with_node("");
    first.push_image("app", "v1", b"layer").await;
    assert_eq!(cluster(&shell, DATA, &["join-token", "--to", "token"]).code, 0);
    let mut second = joining(&shell, "second/data", &shell.path("token"));
    let status = wait(&shell, "two voters with every blob", |status| {
        let members = status["members"].as_array().unwrap();
        members.len() == 2
            && members[1]["role"] == "voter"
            && members.iter().all(|member| member["report"]["blobs_held"] == 2)
    });
    assert_eq!(status["members"][1]["node"], 2);
    a_spent_token_admits_no_other_node(&shell);
    // What the second node may ask by its own certificate, it may ask until it is removed.
    show_as_administrators(&shell.path("second/data/identity"), &shell.path("stolen/identity"));
    let by_member = || {
        let address = cluster_address(&shell, DATA);
        cluster(&shell, "stolen", &["members", "--cluster-addr", &address])
    };
    assert_eq!(by_member().code, 0, "{}", by_member().err);

    // Any member answers, and any takes the lead.
    let led = cluster(&shell, "second/data", &["transfer-leader", "2", "-o", "json"]);
    assert_eq!(led.code, 0, "{}", led.err);
    wait(&shell, "led by node 2", |status| status["leader"] == 2);
    let early = cluster(&shell, DATA, &["remove", "2", "--yes"]);
    assert_eq!(early.code, 1, "an active node is drained first: {}", early.err);

    let drained = cluster(&shell, DATA, &["drain", "2", "--wait", "--yes"]);
    assert_eq!(drained.code, 0, "{}", drained.err);
    assert!(drained.err.ends_with("note: node 2 holds nothing any more\n"), "{}", drained.err);
    let removed = cluster(&shell, DATA, &["remove", "2", "--yes"]);
    assert_eq!(removed.code, 0, "{}", removed.err);
    let status = wait(&shell, "led by node 1 alone", |status| {
        status["leader"] == 1 && status["members"].as_array().unwrap().len() == 1
    });
    assert_eq!(status["members"][0]["report"]["blobs_missing"], 0);
    assert_ne!(second.wait(), Some(0));
    let late = by_member();
    assert!(late.code != 0 && late.err.contains("was removed"), "{}", late.err);
    assert_eq!(first.get("/v2/app/manifests/v1").await.status(), 200);
}
