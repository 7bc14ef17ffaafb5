//! The command line as scripts and people use it: real processes against a real node.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::node::{Node, OCI_INDEX, OCI_MANIFEST, digest_of, header, image, noise};
use super::shell::{Shell, on_terminal, said};

/// Pushes an image with that config; returns its digest.
async fn push_image(node: &Node, repository: &str, tag: &str, config: &Value) -> String {
    let config = serde_json::to_vec(config).unwrap();
    let config_digest = node.push_blob(repository, &config).await;
    let layer = noise(config.len() as u64, 2048);
    let layer_digest = node.push_blob(repository, &layer).await;
    let layers = [(layer_digest.as_str(), layer.len())];
    let manifest = image(&config_digest, config.len(), &layers, &json!({}));
    let response = node.put_manifest(repository, tag, OCI_MANIFEST, manifest.clone()).await;
    assert_eq!(response.status(), 201);
    digest_of(&manifest)
}

fn config(architecture: &str) -> Value {
    json!({
        "os": "linux",
        "architecture": architecture,
        "created": "2024-05-06T07:08:09Z",
        "author": "somebody",
        "config": {
            "Entrypoint": ["/bin/app"],
            "Env": ["A=b"],
            "ExposedPorts": {"80/tcp": {}},
            "Labels": {"version": "1"},
        },
        "history": [
            {"created": "2024-05-06T07:08:09Z", "created_by": "ADD layer", "comment": "first"},
            {"created": "0001-01-01T00:00:00Z", "created_by": "ENV A=b", "empty_layer": true},
        ],
    })
}

/// Pushes an index of two images; returns the digests of the index and of its images.
async fn push_index(node: &Node, repository: &str, tag: &str) -> (String, [String; 2]) {
    let amd64 = push_image(node, repository, "amd64", &config("amd64")).await;
    let arm64 = push_image(node, repository, "arm64", &config("arm64")).await;
    let mut manifests = Vec::new();
    for (digest, architecture) in [(&amd64, "amd64"), (&arm64, "arm64")] {
        let head = node.head(&format!("/v2/{repository}/manifests/{digest}")).await;
        let size: u64 = header(&head, "content-length").parse().unwrap();
        manifests.push(json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    let index = serde_json::to_vec(&index).unwrap();
    let response = node.put_manifest(repository, tag, OCI_INDEX, index.clone()).await;
    assert_eq!(response.status(), 201);
    (digest_of(&index), [amd64, arm64])
}

#[tokio::test]
async fn images_are_listed_over_all_pages_in_every_format() {
    let (shell, node) = Shell::with_node("[limits]\npage_size_max = 2\n");
    let digest = push_image(&node, "a", "v0", &config("amd64")).await;
    let mut expected = vec![("a".to_owned(), "v0".to_owned())];
    for tag in ["v1", "v2", "v3", "v4"] {
        assert_eq!(shell.run(&["tag", "a:v0", &format!("a:{tag}")]).code, 0);
        expected.push(("a".into(), tag.into()));
    }
    for repository in ["b/c", "d", "e", "f"] {
        assert_eq!(shell.run(&["tag", "a:v0", &format!("{repository}:only")]).code, 0);
        expected.push((repository.into(), "only".into()));
    }

    let table = shell.run(&["images", "ls"]);
    assert_eq!((table.code, table.err.as_str()), (0, ""));
    assert!(table.out.starts_with("REPOSITORY  TAG   TYPE   DIGEST"), "{}", table.out);
    let listed: Vec<(String, String)> =
        table.rows().iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    assert_eq!(listed, expected);
    assert!(table.rows().iter().all(|row| row[2..4] == ["image", &digest]), "{}", table.out);

    let rows = shell.run(&["images", "ls", "-o", "json"]).json();
    let yaml: Value =
        serde_yaml_ng::from_str(&shell.run(&["-o", "yaml", "images", "ls"]).out).unwrap();
    assert_eq!(rows, yaml);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), expected.len());
    assert_eq!(rows[8]["repository"], "f");
    assert_eq!((&rows[0]["kind"], &rows[0]["media_type"]), (&json!("image"), &json!(OCI_MANIFEST)));
    assert!(rows[0]["size"].as_u64().unwrap() > 2048);

    assert_eq!(shell.run(&["images", "ls", "a"]).rows().len(), 5);
    // Name and server may be written as other tools have them.
    assert_eq!(shell.run(&["images", "ls", &format!("{}/b/c", node.address())]).rows().len(), 1);
    let missing = shell.run(&["images", "ls", "none"]);
    assert_eq!((missing.code, missing.out.as_str()), (1, ""));
    assert!(missing.err.starts_with("error: none is not there\n"), "{}", missing.err);
    let image = shell.run(&["images", "ls", "a:v1"]);
    assert_eq!((image.code, image.out.as_str()), (2, ""));
    let toml = shell.run(&["images", "ls", "-o", "toml"]);
    assert_eq!((toml.code, toml.out.as_str()), (2, ""));
}

#[tokio::test]
async fn images_are_inspected_and_tell_their_history() {
    let (shell, node) = Shell::with_node("");
    let (index, [amd64, arm64]) = push_index(&node, "app", "latest").await;

    let shown = shell.run(&["images", "inspect", "app:amd64"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    let lines: Vec<String> = shown
        .out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "Name: app:amd64",
        &format!("Digest: {amd64}"),
        "Type: image",
        "Platform: linux/amd64",
        "Created: 2024-05-06T07:08:09Z",
        "Author: somebody",
        "Entrypoint: [\"/bin/app\"]",
        "Port: 80/tcp",
        "Env: A=b",
        "Label: version=1",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line} is not in\n{}", shown.out);
    }
    // An index, its image for a platform, and the default tag.
    let whole = shell.run(&["images", "inspect", "app", "-o", "json"]).json();
    assert_eq!((&whole["digest"], &whole["kind"]), (&json!(index), &json!("index")));
    assert_eq!(whole["manifests"][1]["digest"], json!(arm64));
    let args = ["images", "inspect", "app", "--platform", "linux/arm64", "-o", "json"];
    let part = shell.run(&args).json();
    assert_eq!(
        (&part["digest"], &part["config"]["architecture"]),
        (&json!(arm64), &json!("arm64"))
    );
    let by_digest = shell.run(&["images", "inspect", &format!("app@{arm64}"), "-o", "json"]).json();
    assert_eq!(by_digest["config"], part["config"]);

    let history = shell.run(&["images", "history", "app:amd64"]);
    assert_eq!(
        history.rows(),
        [
            vec!["2024-05-06T07:08:09Z", "2.0", "KiB", "ADD", "layer", "first"],
            vec!["-", "ENV", "A=b"],
        ]
    );
    let steps =
        shell.run(&["images", "history", "app", "--platform", "linux/amd64", "-o", "json"]).json();
    assert_eq!((&steps[0]["size"], &steps[1]["layer"]), (&json!(2048), &Value::Null));
    let unclear = shell.run(&["images", "history", "app"]);
    assert_eq!((unclear.code, unclear.out.as_str()), (1, ""));
    assert!(unclear.err.contains("linux/amd64, linux/arm64") && unclear.err.contains("--platform"));
    let missing = shell.run(&["images", "inspect", "app:none"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("error: app:none is not there\nhelp: "), "{}", missing.err);
}

#[tokio::test]
async fn what_an_image_does_not_say_has_no_line() {
    let (shell, node) = Shell::with_node("");
    push_image(&node, "bare", "v1", &json!({})).await;
    push_image(&node, "bare", "v2", &json!({"created": "0001-01-01T00:00:00Z", "os": ""})).await;
    for tag in ["bare:v1", "bare:v2"] {
        let shown = shell.run(&["images", "inspect", tag]);
        assert_eq!((shown.code, shown.err.as_str()), (0, ""));
        for word in ["Platform", "Created", "0001", "Author", "Env"] {
            assert!(!shown.out.contains(word), "{word} is in\n{}", shown.out);
        }
    }
}

#[tokio::test]
async fn tags_are_given_within_and_across_repositories_with_all_that_is_needed() {
    let (shell, node) = Shell::with_node("");
    let (index, [amd64, arm64]) = push_index(&node, "from/app", "v1").await;

    let within = shell.run(&["tag", "from/app:v1", "from/app:v2"]);
    assert_eq!((within.code, within.out), (0, format!("{index}\n")));
    assert_eq!(within.err, format!("note: from/app:v2 names {index}\n"));
    let across = shell.run(&["tag", "from/app:v1", "to:v1", "-o", "json"]);
    let across: Value = serde_json::from_str(&across.out).unwrap();
    // Two configs and a layer that both images have; the images and their index.
    assert_eq!(
        across,
        json!({"reference": "to:v1", "digest": index, "blobs_mounted": 3, "manifests_stored": 3})
    );
    // The copy is whole without what it was made of.
    for digest in [&index, &amd64, &arm64] {
        assert_eq!(node.delete(&format!("/v2/from/app/manifests/{digest}")).await, 202);
    }
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        let args = ["images", "inspect", "to:v1", "--platform", &platform, "-o", "json"];
        let shown = shell.run(&args).json();
        let layer = shown["layers"][0]["digest"].as_str().unwrap();
        assert_eq!(
            node.get(&format!("/v2/to/blobs/{layer}")).await.bytes().await.unwrap().len(),
            2048
        );
    }
    // By digest to the default tag; and names that cannot be given.
    let latest = shell.run(&["tag", &format!("to@{amd64}"), "to"]);
    assert_eq!((latest.code, latest.out), (0, format!("{amd64}\n")));
    assert_eq!(
        shell.run(&["images", "inspect", "to:latest", "-o", "json"]).json()["digest"],
        json!(amd64)
    );
    for (source, destination, code, told) in [
        ("to:none", "to:v9", 1, "to:none is not there"),
        ("to:v1", &*format!("to@{index}"), 1, "must be a tag"),
        ("to:v1", "To:v1", 2, "is not a repository name"),
        ("to:v1", "to:v 1", 2, "is not a tag"),
        ("to:v1", "registry.example.com:5000/to:v1", 2, "see --addr"),
        (&index, "to:v9", 2, "write repository@sha256:"),
    ] {
        let said = shell.run(&["tag", source, destination]);
        assert_eq!(
            (said.code, said.out.as_str()),
            (code, ""),
            "{source} {destination}: {}",
            said.err
        );
        assert!(said.err.starts_with("error: ") && said.err.contains(told), "{}", said.err);
    }
}

#[tokio::test]
async fn deleting_is_asked_about_first_and_goes_on_after_a_failure() {
    let (shell, node) = Shell::with_node("");
    let digest = push_image(&node, "r", "v1", &config("amd64")).await;
    for tag in ["r:v2", "r:v3", "other:v1"] {
        assert_eq!(shell.run(&["tag", "r:v1", tag]).out, format!("{digest}\n"));
    }
    let tags = || {
        let rows = shell.run(&["images", "ls", "r", "-o", "json"]).json();
        let rows = rows.as_array().unwrap().clone();
        rows.iter().filter_map(|row| row["tag"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };

    let dry = shell.run(&["delete", "--dry-run", "r:v1"]);
    assert_eq!((dry.code, dry.out), (0, format!("{digest}\n")));
    assert!(dry.err.starts_with("note: would delete the tag r:v1"), "{}", dry.err);
    let nobody = shell.run(&["delete", "r:v1"]);
    assert_eq!((nobody.code, nobody.out.as_str()), (2, ""));
    assert!(nobody.err.contains("nobody is there to confirm") && nobody.err.contains("--yes"));
    let nothing = shell.run(&["delete", "--yes", "r"]);
    assert_eq!((nothing.code, nothing.out.as_str()), (1, ""), "latest is never taken for granted");
    assert_eq!(tags(), ["v1", "v2", "v3"]);

    // A tag alone; what cannot be deleted is told, and the rest is done.
    let partly = shell.run(&["delete", "--yes", "r:none", "r:v1", "none:v1", "r:v2"]);
    assert_eq!((partly.code, partly.out), (1, format!("{digest}\n{digest}\n")));
    assert!(partly.err.contains("error: r:none is not there"), "{}", partly.err);
    assert!(partly.err.contains("error: none:v1 is not there"), "{}", partly.err);
    assert!(partly.err.contains("note: deleted the tag r:v2"), "{}", partly.err);
    assert_eq!(tags(), ["v3"]);
    let partly = shell.run(&["delete", "--dry-run", "r:v3", "r:none", "-o", "json"]);
    let plans: Value = serde_json::from_str(&partly.out).unwrap();
    assert_eq!(
        (partly.code, plans),
        (1, json!([{"repository": "r", "tag": "v3", "digest": digest}]))
    );

    // What one command prints names what another acts on; the digest takes its tags with it.
    let line = "\"$NORA\" delete --yes \"r@$(\"$NORA\" tag r:v3 r:v4)\"";
    let mut chain = Command::new("sh");
    chain.args(["-c", line]).env("NORA", env!("CARGO_BIN_EXE_nora"));
    chain.env("NORA_ADDR", &shell.address).env("HOME", shell.folder.path());
    let chained = said(&mut chain);
    assert_eq!((chained.code, chained.out), (0, format!("{digest}\n")), "{}", chained.err);
    assert_eq!(node.head(&format!("/v2/r/manifests/{digest}")).await.status(), 404);
    assert_eq!(node.head("/v2/r/manifests/v3").await.status(), 404);
    assert_eq!(node.head("/v2/other/manifests/v1").await.status(), 200);
    // Asked twice for the same, it does it once and says so.
    let twice = format!("other@{digest}");
    let twice = shell.run(&["delete", "--yes", &twice, &twice]);
    assert_eq!((twice.code, twice.out), (1, format!("{digest}\n")));
}

#[tokio::test]
async fn a_person_at_a_terminal_is_asked_and_sees_colours_unless_unwanted() {
    let (shell, node) = Shell::with_node("");
    let digest = push_image(&node, "r", "v1", &config("amd64")).await;
    let no = on_terminal(shell.command(&["delete", "r:v1"]), "n\n");
    assert_eq!((no.code, no.out.as_str()), (1, ""), "{}", no.err);
    assert!(
        no.err.contains("About to delete the tag r:v1") && no.err.contains("[y/N]"),
        "{}",
        no.err
    );
    assert!(no.err.contains("\x1b[1;36mnote:\x1b[0m nothing was deleted"), "{}", no.err);
    assert_eq!(node.head("/v2/r/manifests/v1").await.status(), 200);

    let mut plain = shell.command(&["delete", "r:v1"]);
    plain.env("NO_COLOR", "1");
    let yes = on_terminal(plain, "y\n");
    assert_eq!((yes.code, yes.out), (0, format!("{digest}\n")), "{}", yes.err);
    assert!(yes.err.contains("note: deleted") && !yes.err.contains('\x1b'), "{}", yes.err);
    assert_eq!(node.head("/v2/r/manifests/v1").await.status(), 404);

    // The same for what the parser of arguments says.
    let mut plain = shell.command(&["imags"]);
    plain.env("NO_COLOR", "1");
    let unknown = on_terminal(plain, "");
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("images") && !unknown.err.contains('\x1b'), "{}", unknown.err);
}

#[tokio::test]
async fn health_tells_by_its_exit_code() {
    let (shell, mut node) = Shell::with_node("");
    let up = shell.run(&["health"]);
    assert_eq!((up.code, up.err.as_str()), (0, ""));
    assert!(up.out.starts_with("alive: yes\nready: yes"), "{}", up.out);
    let up = shell.run(&["health", "-o", "json"]).json();
    assert_eq!((&up["alive"], &up["ready"]), (&json!(true), &json!(true)));
    node.kill();
    let down = shell.run(&["health"]);
    assert_eq!((down.code, down.out.as_str()), (1, ""));
    assert!(down.err.starts_with("error: cannot reach http://127.0.0.1:"), "{}", down.err);
    assert!(down.err.contains("\nhelp: is the server running"), "{}", down.err);
}

#[tokio::test]
async fn a_login_is_taken_from_files_stdin_or_the_environment() {
    let mut shell = Shell::new();
    std::fs::create_dir(shell.path("node")).unwrap();
    let data = shell.path("node/data");
    let node = Node::start_closed(&data, &[]);
    shell.address = node.url.clone();
    let password = std::fs::read_to_string(data.join("admin-password")).unwrap();
    let refused = shell.run(&["images", "ls"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(
        refused.err.contains("401") && refused.err.contains("--password-file"),
        "{}",
        refused.err
    );
    let file = data.join("admin-password");
    let file = ["images", "ls", "--username", "admin", "--password-file", file.to_str().unwrap()];
    assert_eq!(shell.run(&file).code, 0);
    let mut given = shell.command(&["images", "ls", "--username", "admin"]);
    given.env("NORA_PASSWORD", password.trim());
    assert_eq!(said(&mut given).code, 0);
    let mut piped = shell.command(&["images", "ls", "--username", "admin", "--password-stdin"]);
    piped.stdin(File::open(data.join("admin-password")).unwrap());
    assert_eq!(said(&mut piped).code, 0);
    // Written once, for this address.
    std::fs::create_dir_all(shell.path(".config/nora")).unwrap();
    let text = format!(
        "addr = {:?}\nusername = \"admin\"\npassword = {{ file = {:?} }}\n",
        node.url,
        data.join("admin-password")
    );
    std::fs::write(shell.path(".config/nora/client.toml"), text).unwrap();
    assert_eq!(said(shell.command(&["images", "ls"]).env_remove("NORA_ADDR")).code, 0);
    let wrong = said(shell.command(&["images", "ls"]).env("NORA_PASSWORD", "not-this-one"));
    assert_eq!(wrong.code, 1);
    assert!(!wrong.err.contains("not-this-one"), "{}", wrong.err);
    assert!(!wrong.err.contains(password.trim()), "{}", wrong.err);
    // Health needs none.
    assert_eq!(shell.run(&["health"]).code, 0);
}

#[test]
fn the_binary_describes_itself() {
    let shell = Shell::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(shell.run(&["version"]).out, format!("nora {version}\n"));
    assert_eq!(shell.run(&["--version"]).out, format!("nora {version}\n"));
    assert_eq!(shell.run(&["version", "-o", "json"]).json()["version"], version);
    let script = shell.run(&["completion", "bash"]);
    assert_eq!((script.code, script.err.as_str()), (0, ""));
    std::fs::write(shell.path("completion"), &script.out).unwrap();
    // The shell itself offers what the script says.
    let line = "source completion; COMP_WORDS=(nora im); COMP_CWORD=1; _nora nora im nora; \
                echo \"${COMPREPLY[@]}\"";
    let offered = said(Command::new("bash").args(["-c", line]).current_dir(shell.folder.path()));
    assert_eq!(offered.out, "images\n", "{}", offered.err);

    assert_eq!(shell.run(&["man", "pages"]).code, 0);
    let mut pages: Vec<String> = std::fs::read_dir(shell.path("pages"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    for verb in [
        "",
        "-cluster",
        "-cluster-drain",
        "-cluster-status",
        "-completion",
        "-config",
        "-config-check",
        "-config-schema",
        "-config-show",
        "-delete",
        "-health",
        "-images",
        "-images-history",
        "-images-inspect",
        "-images-ls",
        "-scrub",
        "-serve",
        "-tag",
        "-version",
    ] {
        let page = format!("nora{verb}.1");
        assert!(pages.contains(&page), "{page} is not in {pages:?}");
        let text = std::fs::read_to_string(shell.path("pages").join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{verb}");
    }
    let unknown = shell.run(&["imags", "ls"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (2, ""));
    assert!(unknown.err.contains("'images'"), "{}", unknown.err);
}

#[test]
fn configurations_are_checked_shown_and_described() {
    let shell = Shell::new();
    std::fs::write(shell.path("good.toml"), "[log]\nlevel = \"warn\"\n").unwrap();
    std::fs::write(
        shell.path("bad.toml"),
        "[log]\nlevle = \"warn\"\n[limit]\nx = 1\n[server]\npublic_url = 4\n",
    )
    .unwrap();
    let none = shell.run(&["config", "check"]);
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    let good = shell.run(&["config", "check", "good.toml"]);
    assert_eq!(
        (good.code, good.out.as_str(), good.err.as_str()),
        (0, "", "note: good.toml has no errors\n")
    );
    let shown = shell.run(&["config", "show", "good.toml", "--listen", "127.0.0.1:9"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    let rows = shown.rows();
    let row = |key: &str| rows.iter().find(|row| row[0] == key).unwrap()[1..].join(" ");
    assert_eq!(row("log.level"), "\"warn\" good.toml:2");
    assert_eq!(row("server.listen"), "\"127.0.0.1:9\" --listen");
    assert_eq!(row("log.format"), "\"auto\" default");
    // What is shown as TOML is a configuration again.
    std::fs::write(
        shell.path("again.toml"),
        shell.run(&["config", "show", "good.toml", "-o", "toml"]).out,
    )
    .unwrap();
    assert_eq!(shell.run(&["config", "check", "again.toml"]).code, 0);
    let schema = shell.run(&["config", "schema"]).json();
    assert!(schema["properties"]["server"]["properties"]["listen"].is_object(), "{schema}");

    for args in [
        &["config", "check", "bad.toml"][..],
        &["config", "show", "bad.toml"],
        // A node does not start with it, and tells as much.
        &["serve", "--config", "bad.toml", "--listen", "127.0.0.1:0"],
    ] {
        let bad = shell.run(args);
        assert_eq!((bad.code, bad.out.as_str()), (1, ""), "{args:?}");
        for told in
            ["levle", "did you mean `level`?", "[limit]", "public_url", "bad.toml:2", "bad.toml:6"]
        {
            assert!(bad.err.contains(told), "{args:?}: {told} is not in\n{}", bad.err);
        }
        assert_eq!(bad.err.matches("error: ").count(), 3, "{}", bad.err);
    }
    let missing = shell.run(&["config", "check", "none.toml"]);
    assert_eq!((missing.code, missing.out.as_str()), (1, ""));
    assert!(!shell.path("nora-data").exists(), "nothing was begun");
}

/// The values of a configuration by key, with those that are not set left out.
fn values(shown: &Value, path: &str, into: &mut Vec<(String, Value, String)>) {
    for (key, inner) in shown.as_object().unwrap() {
        let key = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (inner.get("value"), inner.get("source").and_then(Value::as_str)) {
            (Some(Value::Null), _) => {}
            (Some(value), Some(source)) => into.push((key, value.clone(), source.to_owned())),
            _ => values(inner, &key, into),
        }
    }
}

#[test]
fn the_configurations_that_come_with_nora_are_good() {
    let shell = Shell::new();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let show = |args: &[&str]| {
        let mut list = Vec::new();
        let args = [&["config", "show", "-o", "json"], args].concat();
        values(&shell.run(&args).json(), "", &mut list);
        list
    };
    let defaults = show(&[]);
    assert!(defaults.len() > 20 && defaults.iter().all(|(_, _, source)| source == "default"));

    // The example names every key there is, each at its default.
    std::fs::copy(deploy.join("nora.toml"), shell.path("nora.toml")).unwrap();
    let example = show(&[]);
    let strip = |list: &[(String, Value, String)]| -> Vec<(String, Value)> {
        list.iter().map(|(key, value, _)| (key.clone(), value.clone())).collect()
    };
    assert_eq!(strip(&example), strip(&defaults));
    for (key, _, source) in &example {
        assert!(source.starts_with("nora.toml:"), "the example leaves out {key}");
    }

    let image = show(&[deploy.join("image/nora.toml").to_str().unwrap()]);
    let value = |key: &str| image.iter().find(|(name, _, _)| name == key).unwrap().1.clone();
    assert_eq!(value("server.listen"), "0.0.0.0:4000");
    assert_eq!(value("storage.data_dir"), "/data");
    assert_eq!(value("log.format"), "json");
}

#[test]
fn a_node_whose_log_cannot_be_written_goes_on() {
    let shell = Shell::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut node = shell
        .command(&["serve", "--data-dir", "data", "--cluster-listen", "127.0.0.1:0"])
        .args(["--listen", &free.to_string()])
        .stderr(full)
        .spawn()
        .unwrap();
    let ready = || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(free).ok()?;
        stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.0 200").then_some(())
    };
    let begun = std::time::Instant::now();
    while ready().is_none() {
        assert_eq!(node.try_wait().unwrap(), None, "it ended");
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "it is not ready");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    node.kill().unwrap();
    node.wait().unwrap();
}
