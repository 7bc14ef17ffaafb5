//! The verbs, each against a registry that can be looked into afterwards.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use nora_client::verbs::{VerbError, delete, images, tag};
use nora_client::{Client, Credentials, Reference};

use crate::server::{Server, sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn descriptor(media_type: &str, digest: &str, size: usize) -> serde_json::Value {
    serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size })
}

/// An image whose config says more than nothing; gives its manifest's digest.
fn image(server: &Server, repository: &str, tag: &str, architecture: &str) -> String {
    let config = serde_json::json!({
        "created": "2026-01-02T03:04:05Z", "os": "linux", "architecture": architecture,
        "config": { "Entrypoint": ["/app"], "Cmd": null, "Env": ["A=b"], "ExposedPorts": { "80/tcp": {} } },
        "history": [
            { "created_by": "ADD rootfs" },
            { "created_by": "ENV A=b", "empty_layer": true },
            { "created_by": "COPY app" },
        ],
    })
    .to_string();
    let config_digest = server.blob(repository, config.as_bytes());
    let layers: Vec<serde_json::Value> = ["rootfs", "app"]
        .iter()
        .map(|text| format!("{text} for {architecture}"))
        .map(|bytes| descriptor(LAYER, &server.blob(repository, bytes.as_bytes()), bytes.len()))
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config_digest, config.len()),
        "layers": layers, "annotations": null,
    });
    server.manifest(repository, tag, MANIFEST, &manifest.to_string())
}

fn index(server: &Server, repository: &str, tag: &str) -> String {
    let children: Vec<serde_json::Value> = ["amd64", "arm64"]
        .iter()
        .map(|architecture| {
            let digest = image(server, repository, "", architecture);
            let mut child = descriptor(MANIFEST, &digest, 1);
            child["platform"] = serde_json::json!({ "os": "linux", "architecture": architecture });
            child
        })
        .collect();
    let body = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    server.manifest(repository, tag, INDEX, &body.to_string())
}

async fn start() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client(Credentials::Anonymous);
    (server, client)
}

fn reference(client: &Client, text: &str) -> Reference {
    Reference::parse(text, &client.address().authority()).unwrap()
}

#[tokio::test]
async fn ls_walks_every_page_and_reports_what_fails() {
    let (server, client) = start().await;
    for tag in ["v1", "v2", "v3", "v4", "v5"] {
        image(&server, "a/app", tag, "amd64");
    }
    index(&server, "b", "latest");
    image(&server, "c", "", "amd64");
    image(&server, "d", "broken", "amd64");
    server.plan(|line, _| {
        let broken = line.contains("/manifests/broken");
        broken.then(|| StatusCode::FORBIDDEN.into_response())
    });
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    images::list(&client, None, |row| match row {
        Ok(row) => rows.push(row),
        Err(failure) => failures.push(failure.what),
    })
    .await
    .unwrap();
    let names: Vec<String> = rows
        .iter()
        .map(|row| format!("{}:{}", row.repository, row.tag.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(
        names,
        ["a/app:v1", "a/app:v2", "a/app:v3", "a/app:v4", "a/app:v5", "b:latest", "c:-"]
    );
    assert_eq!(failures, ["d:broken"]);
    assert_eq!(rows[0].kind.as_deref(), Some("image"));
    assert!(rows[0].size.unwrap() > 100);
    assert_eq!(rows[5].kind.as_deref(), Some("index"));
    assert_eq!(rows[5].platforms, ["linux/amd64", "linux/arm64"]);

    let none = images::list(&client, Some("none"), |_| ()).await;
    // This registry answers an unknown repository with an empty list, which is one row without a tag.
    none.unwrap();
}

#[tokio::test]
async fn inspect_and_history_read_the_config() {
    let (server, client) = start().await;
    let digest = image(&server, "app", "v1", "amd64");
    let inspection = images::inspect(&client, &reference(&client, "app:v1"), None).await.unwrap();
    assert_eq!(inspection.digest, digest);
    assert_eq!(inspection.layers.len(), 2);
    let config = inspection.config.unwrap();
    assert_eq!(config.platform.to_string(), "linux/amd64");
    assert_eq!(config.config.entrypoint.unwrap(), ["/app"]);
    assert_eq!(config.config.exposed_ports.unwrap().into_keys().collect::<Vec<_>>(), ["80/tcp"]);

    let rows = images::history(&client, &reference(&client, "app:v1"), None).await.unwrap();
    let sizes: Vec<Option<u64>> = rows.iter().map(|row| row.size).collect();
    assert_eq!(sizes, [Some(16), None, Some(13)]);

    let missing = images::inspect(&client, &reference(&client, "app:v2"), None).await;
    assert!(matches!(missing, Err(VerbError::NotFound { .. })));
}

#[tokio::test]
async fn an_index_wants_a_platform_where_one_image_is_meant() {
    let (server, client) = start().await;
    index(&server, "app", "v1");
    let app = reference(&client, "app:v1");
    let error = images::history(&client, &app, None).await.unwrap_err();
    assert_eq!(error.to_string(), "app:v1 is for several platforms: linux/amd64, linux/arm64");
    assert_eq!(images::history(&client, &app, Some("linux/arm64")).await.unwrap().len(), 3);
    let inspection = images::inspect(&client, &app, Some("linux/arm64")).await.unwrap();
    assert_eq!(inspection.config.unwrap().platform.architecture, "arm64");
    assert_eq!(images::inspect(&client, &app, None).await.unwrap().manifests.len(), 2);
}

#[tokio::test]
async fn tag_within_a_repository_stores_the_same_bytes() {
    let (server, client) = start().await;
    let digest = image(&server, "app", "v1", "amd64");
    let (source, destination) = (reference(&client, "app:v1"), reference(&client, "app:stable"));
    let tagged = tag::run(&client, &source, &destination).await.unwrap();
    assert_eq!((tagged.digest, tagged.blobs_mounted), (digest.clone(), 0));
    let content = server.content.lock().unwrap();
    assert_eq!(content.tags[&("app".to_owned(), "stable".to_owned())], digest);
    assert_eq!(content.manifests.len(), 1);
}

#[tokio::test]
async fn tag_into_another_repository_brings_everything_first() {
    let (server, client) = start().await;
    let digest = index(&server, "app", "v1");
    let (source, destination) = (reference(&client, "app:v1"), reference(&client, "team/app:v1"));
    let tagged = tag::run(&client, &source, &destination).await.unwrap();
    assert_eq!(tagged.digest, digest);
    assert_eq!((tagged.blobs_mounted, tagged.manifests_stored), (6, 3));
    // The index comes last, each image after its blobs; nothing but manifests is fetched.
    let log = server.log();
    let last = log.last().unwrap();
    assert_eq!(last, "PUT /v2/team/app/manifests/v1");
    assert!(log.iter().all(|line| !line.starts_with("GET") || line.contains("/manifests/")));
    let first_put = log.iter().position(|line| line.starts_with("PUT")).unwrap();
    let mounts = log[..first_put].iter().filter(|line| line.contains("mount=")).count();
    assert_eq!(mounts, 3);
    let content = server.content.lock().unwrap();
    let copied = content.blobs.keys().filter(|(repository, _)| repository == "team/app").count();
    assert_eq!(copied, 6);
}

#[tokio::test]
async fn a_blob_that_is_not_mounted_stops_the_tag_and_leaves_no_session() {
    let (server, client) = start().await;
    image(&server, "app", "v1", "amd64");
    server.content.lock().unwrap().closed.insert("app".into());
    let (source, destination) = (reference(&client, "app:v1"), reference(&client, "other:v1"));
    let error = tag::run(&client, &source, &destination).await.unwrap_err();
    assert!(matches!(error, VerbError::NotMounted { .. }), "{error}");
    let log = server.log();
    assert!(log.iter().any(|line| line == "DELETE /v2/other/blobs/uploads/session-1"));
    assert!(log.iter().all(|line| !line.starts_with("PUT")));
}

#[tokio::test]
async fn delete_tells_a_tag_from_a_manifest_and_guesses_nothing() {
    let (server, client) = start().await;
    let digest = image(&server, "app", "v1", "amd64");
    image(&server, "app", "v2", "amd64");
    let plan = |text: String| {
        let client = client.clone();
        async move { delete::plan(&client, &reference(&client, &text)).await }
    };
    for text in ["app".to_owned(), format!("app:v1@{digest}")] {
        assert!(matches!(plan(text).await, Err(VerbError::BadTarget { .. })));
    }
    assert!(matches!(plan("app:v9".into()).await, Err(VerbError::NotFound { .. })));
    assert!(matches!(
        plan(format!("app@{}", sha256(b"none"))).await,
        Err(VerbError::NotFound { .. })
    ));

    let tag = plan("app:v1".into()).await.unwrap();
    assert_eq!((tag.tag.as_deref(), tag.digest.as_str()), (Some("v1"), digest.as_str()));
    delete::run(&client, &tag).await.unwrap();
    assert_eq!(server.content.lock().unwrap().manifests.len(), 1);
    assert_eq!(server.content.lock().unwrap().tags.len(), 1);

    let manifest = plan(format!("app@{digest}")).await.unwrap();
    delete::run(&client, &manifest).await.unwrap();
    assert!(server.content.lock().unwrap().manifests.is_empty());
    assert!(server.content.lock().unwrap().tags.is_empty());
}
