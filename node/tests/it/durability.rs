//! What was acknowledged is there after SIGKILL, whole; what was not left nothing behind.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::node::{Node, OCI_MANIFEST, digest_of, image, noise};

/// An acknowledged image: tag, manifest, layer.
type Pushed = (String, Vec<u8>, Vec<u8>);

/// Pushes small images, one after the other, until the node is gone; notes what was acknowledged.
async fn push_until_gone(
    url: String,
    client: reqwest::Client,
    worker: u64,
    round: u64,
    done: Arc<Mutex<Vec<Pushed>>>,
) {
    for i in 0.. {
        let layer = noise(worker << 40 | round << 20 | i, 20_000);
        let tag = format!("w{worker}-r{round}-{i}");
        let mut pushed = Vec::new();
        for bytes in [b"{}".to_vec(), layer.clone()] {
            let digest = digest_of(&bytes);
            let path = format!("{url}/v2/app/blobs/uploads/?digest={digest}");
            match client.post(path).body(bytes).send().await {
                Ok(response) if response.status() == 201 => pushed.push(digest),
                _ => return,
            }
        }
        let manifest = image(&pushed[0], 2, &[(&pushed[1], layer.len())], &json!({}));
        let put = client
            .put(format!("{url}/v2/app/manifests/{tag}"))
            .header("content-type", OCI_MANIFEST)
            .body(manifest.clone())
            .send()
            .await;
        match put {
            Ok(response) if response.status() == 201 => {
                done.lock().unwrap().push((tag, manifest, layer));
            }
            _ => return,
        }
    }
}

/// The file that holds a blob's bytes.
fn blob_file(data: &Path, digest: &str) -> std::path::PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    let shard = data.join("blobs/sha256").join(&hex[..2]);
    let mut files = std::fs::read_dir(shard).unwrap().flatten().map(|entry| entry.path());
    let is_blob = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(hex) && !name.ends_with(".chunks")
    };
    files.find(is_blob).unwrap()
}

fn blob_files(dir: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            count += blob_files(&path);
        } else if path.extension().is_none_or(|extension| extension != "chunks") {
            count += 1;
        }
    }
    count
}

/// Kills the node, lets `nora check` look at what it left, and starts it again.
fn check_data(node: &mut Node, data: &Path) {
    node.kill();
    let checked = nora_check(data);
    assert!(checked.status.success(), "{checked:?}");
    node.kill_and_restart();
}

fn nora_check(data: &Path) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_nora"))
        .args(["check", "--data-dir"])
        .arg(data)
        .current_dir(data.parent().unwrap())
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_pushes_survive_being_killed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut node = Node::start(&data, &[]);
    let done = Arc::new(Mutex::new(Vec::new()));
    for round in 0..4 {
        let before = done.lock().unwrap().len();
        let workers: Vec<_> = (0..6)
            .map(|worker| {
                let (url, client) = (node.url.clone(), node.client.clone());
                tokio::spawn(push_until_gone(url, client, worker, round, done.clone()))
            })
            .collect();
        // Killed in the middle of things: after so many pushes, whenever that is.
        while done.lock().unwrap().len() < before + 30 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        node.kill_and_restart();
        for worker in workers {
            worker.await.unwrap();
        }
        check_data(&mut node, &data);
        let acknowledged = done.lock().unwrap().clone();
        for (tag, manifest, layer) in &acknowledged {
            let got = node.get(&format!("/v2/app/manifests/{tag}")).await;
            assert_eq!(got.status(), 200, "{tag} was acknowledged");
            assert_eq!(got.bytes().await.unwrap(), *manifest);
            let got = node.get(&format!("/v2/app/blobs/{}", digest_of(layer))).await;
            assert_eq!(got.bytes().await.unwrap(), *layer);
        }
    }
    // Copies that the log never took are swept by a start. Blobs whose manifest was not acknowledged may be live.
    let acknowledged = done.lock().unwrap().len();
    let metrics = node.get("/metrics").await.text().await.unwrap();
    let links = metrics.lines().any(|line| line.starts_with("nora_usage_bytes "));
    assert!(links, "{metrics}");
    let most = acknowledged + 1 + 4 * 6 * 2;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while blob_files(&data.join("blobs")) > most {
        assert!(tokio::time::Instant::now() < deadline, "orphans are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_blob_truncated_from_outside_breaks_its_transfer_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Node::start(&data, &[]);
    let blob = noise(1, 64 << 20);
    let digest = node.push_blob("r", &blob).await;
    let mut response = node.get(&format!("/v2/r/blobs/{digest}")).await;
    let first = response.chunk().await.unwrap().unwrap();
    assert!(!first.is_empty());
    let file = blob_file(&data, &digest);
    std::fs::File::options().write(true).open(file).unwrap().set_len(1 << 20).unwrap();
    let broken = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "the client must not take the short blob for a whole one");
    // The node lives, tells the truth about the damaged blob, and serves others.
    let again = node.get(&format!("/v2/r/blobs/{digest}")).await;
    assert_eq!(again.status(), 500, "a damaged blob is no absent one");
    let other = node.push_blob("r", b"still here").await;
    assert_eq!(node.get(&format!("/v2/r/blobs/{other}")).await.text().await.unwrap(), "still here");
}

#[tokio::test]
async fn a_check_names_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert!(!nora_check(&data).status.success(), "there is nothing to check");
    let mut node = Node::start(&data, &[]);
    node.push_image("r", "v1", &noise(1, 5000)).await;
    node.push_image("r", "v2", &noise(2, 5000)).await;
    let running = nora_check(&data);
    assert!(String::from_utf8_lossy(&running.stderr).contains("another nora uses the data folder"));
    node.kill();
    let lost = digest_of(&noise(2, 5000));
    std::fs::remove_file(blob_file(&data, &lost)).unwrap();
    let checked = nora_check(&data);
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&lost), "{said}");
    assert!(String::from_utf8_lossy(&checked.stderr).contains("3 blobs checked, 1 findings"));
}

#[tokio::test]
async fn a_second_node_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let _node = Node::start(&data, &[]);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_nora"))
        .args(["serve", "--listen", "127.0.0.1:0", "--cluster-listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another nora uses the data folder"), "{said}");
}

/// Everything below `path`, itself included, that others than its owner may use.
fn open_to_others(path: &Path) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let mut open = Vec::new();
    if metadata.permissions().mode() & 0o077 != 0 {
        open.push(path.to_owned());
    }
    if metadata.is_dir() {
        let inside = std::fs::read_dir(path).unwrap();
        inside.for_each(|entry| open.extend(open_to_others(&entry.unwrap().path())));
    }
    open
}

#[tokio::test]
async fn other_users_read_nothing_of_a_data_folder() {
    use std::os::unix::fs::PermissionsExt;
    let work = tempfile::TempDir::new().unwrap();
    let data = work.path().join("data");
    let mut node = Node::start(&data, &[]);
    node.push_image("app", "v1", b"private").await;
    assert_eq!(open_to_others(&data), Vec::<std::path::PathBuf>::new());

    // As versions before left it; what is not NORA's in it stays as it is.
    node.kill();
    let theirs = data.join("notes");
    std::fs::write(&theirs, b"the operator's").unwrap();
    for path in [&data, &data.join("metadata"), &theirs] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    node.kill_and_restart();
    assert_eq!(node.get("/v2/app/manifests/v1").await.status(), 200);
    assert_eq!(open_to_others(&data), [theirs]);
}
