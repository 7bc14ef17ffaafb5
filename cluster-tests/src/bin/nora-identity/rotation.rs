//! The cluster's authority and its secrets are replaced under load: no request fails, and what a stolen disk holds opens
//! nothing afterwards.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nora_client::admin::{AdminClient, AdminConfig, AuditEntry, AuditFilter};
use nora_cluster_tests::content::sha256;
use reqwest::Method;
use reqwest::header::LOCATION;
use serde_json::json;

use crate::stage::{
    ALICE, Login, NODES, Stage, Step, Trouble, closing, ensure, path_of, random, send,
};

/// When to stop waiting for the end of the rotation.
const PATIENCE: Duration = Duration::from_secs(120);
/// Clients that push and pull all the time.
const CLIENTS: usize = 4;
/// Images pushed before the rotation begins, and again after it is over.
const IMAGES: usize = 40;
const BLOB_BYTES: usize = 200_000;
const REPOSITORY: &str = "free/rotated";

fn data_dir(stage: &Stage, node: usize) -> PathBuf {
    stage.work().join(format!("node{}/data", node + 1))
}

/// The administrator's client of a data folder, as of now, for one node.
fn admin(stage: &Stage, dir: &Path, node: usize) -> Step<AdminClient> {
    let addresses = vec![stage.cluster().node(node).peer.to_string()];
    Ok(AdminClient::new(&AdminConfig { addresses, ..AdminConfig::of_data_dir(dir) })?)
}

fn password(dir: &Path) -> Step<Login> {
    let text = std::fs::read_to_string(dir.join("admin-password"))?;
    Ok(Login::Basic("admin".into(), text.trim().to_owned()))
}

/// What a thief takes from a node's disk.
fn steal(from: &Path, to: &Path) -> Step<()> {
    std::fs::create_dir_all(to.join("identity"))?;
    for name in ["identity/ca.crt", "identity/node.pem", "identity/admin.crt", "identity/admin.key"]
    {
        std::fs::copy(from.join(name), to.join(name))?;
    }
    std::fs::copy(from.join("admin-password"), to.join("admin-password"))?;
    Ok(())
}

/// Pushes an image whose upload begins on one node and ends on another, and pulls it from a third.
async fn push_and_pull(stage: &Stage, login: &Login, number: usize) -> Step<()> {
    let node = |step: usize| (number + step) % NODES;
    let blob = random(BLOB_BYTES)?;
    let opened = stage.open_upload(node(0), login, REPOSITORY).await?.must_be(202, "an upload")?;
    let place = opened.header(LOCATION.as_str()).map(path_of).unwrap_or_default();
    let path = closing(&place, &sha256(&blob));
    let put = stage.request(node(1), Method::PUT, &path, login).body(blob.clone());
    send(put).await?.must_be(201, "a blob")?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": nora_cluster_tests::content::MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(&blob),
            "size": blob.len(),
        },
        "layers": [],
    });
    let manifest = manifest.to_string();
    let path = format!("/v2/{REPOSITORY}/manifests/t{number}");
    let pushed = stage.push_manifest(node(2), login, &path, manifest.as_bytes()).await?;
    pushed.must_be(201, "a manifest")?;
    let pulled = stage.get(node(0), &path, login).await?.must_be(200, "a pull")?;
    ensure(pulled.body == manifest.as_bytes(), || "another manifest came back".into())?;
    let path = format!("/v2/{REPOSITORY}/blobs/{}", sha256(&blob));
    let pulled = stage.get(node(1), &path, login).await?.must_be(200, "a blob's pull")?;
    ensure(pulled.body == blob, || "other bytes came back".into())
}

/// The load, until it is told to stop. The first failure ends it.
async fn load(stage: &Stage, login: &Login, pushed: &AtomicUsize, stop: &AtomicBool) -> Step<()> {
    let clients = (0..CLIENTS).map(|client| async move {
        let mut number = client;
        while !stop.load(Ordering::Relaxed) {
            let done = push_and_pull(stage, login, number).await;
            done.map_err(|trouble| Trouble(format!("image {number}: {}", trouble.0)))?;
            pushed.fetch_add(1, Ordering::Relaxed);
            number += CLIENTS;
        }
        Ok(())
    });
    join_all(clients).await.into_iter().collect()
}

/// Until so many images more have been pushed; an error if the load has ended.
async fn await_images(pushed: &AtomicUsize, more: usize) -> Step<()> {
    let (wanted, end) = (pushed.load(Ordering::Relaxed) + more, Instant::now() + PATIENCE);
    while pushed.load(Ordering::Relaxed) < wanted {
        ensure(Instant::now() < end, || "pushes do not get on".into())?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Begins the rotation and waits until each node says that it is over.
async fn rotate(stage: &Stage) -> Step<Duration> {
    let dir = data_dir(stage, 0);
    admin(stage, &dir, 1)?.rotate_authority().await?;
    let (began, end) = (Instant::now(), Instant::now() + PATIENCE);
    for node in 0..NODES {
        loop {
            let asked = async { Ok::<_, Trouble>(admin(stage, &dir, node)?.status().await?) };
            match asked.await {
                Ok(status) if status.rotation.is_none() => break,
                last => ensure(Instant::now() < end, || format!("not over: {last:?}"))?,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(began.elapsed())
}

/// What was good before opens nothing on any node.
async fn opens_nothing(
    stage: &Stage,
    stolen: &Path,
    (session, refresh): (&Login, &str),
    old_password: &Login,
) -> Step<()> {
    for node in 0..NODES {
        let asked = admin(stage, stolen, node)?.status().await;
        ensure(asked.is_err(), || format!("the stolen certificate opens node {}", node + 1))?;
        // With the authority of now, which is no secret, the thief gets through to the node, and is nobody.
        std::fs::copy(
            data_dir(stage, node).join("identity/ca.crt"),
            stolen.join("identity/ca.crt"),
        )?;
        let asked = admin(stage, stolen, node)?.status().await;
        ensure(asked.is_err(), || format!("the old certificate opens node {}", node + 1))?;
        stage.get(node, "/v2/", old_password).await?.must_be(401, "the old password")?;
        stage.get(node, "/v2/", session).await?.must_be(401, "an old session")?;
        let form = format!("grant_type=refresh_token&service=nora&refresh_token={refresh}");
        let refreshed = stage.post_form(node, "/v2/token", form).await?;
        refreshed.must_be(401, "an old refresh token")?;
        let now = password(&data_dir(stage, node))?;
        stage.get(node, "/v2/", &now).await?.must_be(200, "the new password")?;
    }
    Ok(())
}

async fn is_in_the_audit_log(admin: &AdminClient) -> Step<()> {
    let mut after = 0;
    loop {
        let page = admin.audit_page(&AuditFilter::default(), after, 0).await?;
        let is_it = |entry: &AuditEntry| entry.action == "cluster.rotate-authority";
        if page.entries.iter().any(is_it) {
            return Ok(());
        }
        ensure(page.more, || "the audit log says nothing of the rotation".into())?;
        after = page.last;
    }
}

/// Under load, with what a thief would have taken before.
pub async fn under_load(stage: &Stage, login: &Login) -> Step<String> {
    // Nodes that were open when they started write the password down at their next start.
    for node in 0..NODES {
        let mut cluster = stage.cluster();
        cluster.stop(node)?;
        cluster.restart(node)?;
        cluster.wait_ready(node)?;
    }
    let stolen = stage.work().join("stolen");
    steal(&data_dir(stage, 2), &stolen)?;
    let old_password = password(&stolen)?;
    stage.get(0, "/v2/", &old_password).await?.must_be(200, "the password of before")?;
    admin(stage, &stolen, 0)?.status().await?;
    let alice = Login::Basic(ALICE.0.into(), ALICE.1.into());
    let (session, refresh) = stage.kept_session(1, &alice).await?;

    let (pushed, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = async {
        let worked = async {
            await_images(&pushed, IMAGES).await?;
            let took = rotate(stage).await?;
            opens_nothing(stage, &stolen, (&session, &refresh), &old_password).await?;
            await_images(&pushed, IMAGES).await?;
            Ok::<_, Trouble>(took)
        };
        let worked = worked.await;
        stop.store(true, Ordering::Relaxed);
        worked
    };
    let (loaded, worked) =
        futures_util::future::join(load(stage, login, &pushed, &stop), work).await;
    loaded?;
    let took = worked?;
    is_in_the_audit_log(&admin(stage, &data_dir(stage, 0), 0)?).await?;
    let images = pushed.load(Ordering::Relaxed);
    Ok(format!(
        "over after {:.1} s, {images} images pushed and pulled meanwhile",
        took.as_secs_f64()
    ))
}
