//! Storing, reading and deleting manifests.

use reqwest::Method;
use serde_json::{Value, json};

use super::node::{Node, OCI_INDEX, OCI_MANIFEST, digest_of, error, header, image, noise};

#[tokio::test]
async fn bytes_and_media_types_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let config = node.push_blob("r", b"{}").await;
    let layer = node.push_blob("r", b"layer").await;
    let docker = format!(
        "{{ \"schemaVersion\":2,\n\t\"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n\
         \"config\":{{\"mediaType\":\"application/vnd.docker.container.image.v1+json\",\"size\":2,\"digest\":\"{config}\"}},\n\
         \"layers\":[{{\"mediaType\":\"application/vnd.docker.image.rootfs.diff.tar.gzip\",\"size\":5,\"digest\":\"{layer}\"}}] }}\n\n"
    );
    let oci =
        String::from_utf8(image(&config, 2, &[(&layer, 5)], &json!({"unknown": [1, {}]}))).unwrap();
    let artifact = format!(
        "{{\"mediaType\":\"application/vnd.oci.artifact.manifest.v1+json\",\"artifactType\":\"a/b\",\
         \"blobs\":[{{\"mediaType\":\"x/y\",\"size\":5,\"digest\":\"{layer}\"}}]}}"
    );
    let other = "{\"anything\": [\"goes\"]}".to_owned();
    for (tag, media_type, text) in [
        ("docker", "application/vnd.docker.distribution.manifest.v2+json", docker),
        ("oci", OCI_MANIFEST, oci),
        ("artifact", "application/vnd.oci.artifact.manifest.v1+json", artifact),
        ("other", "application/vnd.example.thing+json", other),
    ] {
        let digest = digest_of(text.as_bytes());
        let put = node.put_manifest("r", tag, media_type, text.clone().into_bytes()).await;
        assert_eq!(put.status(), 201, "{tag}");
        assert_eq!(header(&put, "docker-content-digest"), digest);
        for reference in [tag, digest.as_str()] {
            let path = format!("/v2/r/manifests/{reference}");
            let head = node.head(&path).await;
            assert_eq!(header(&head, "content-length"), text.len().to_string());
            let got = node.get(&path).await;
            assert_eq!(header(&got, "content-type"), media_type);
            assert_eq!(header(&got, "docker-content-digest"), digest);
            assert_eq!(got.text().await.unwrap(), text);
        }
        let known = node
            .request(Method::GET, &format!("/v2/r/manifests/{tag}"))
            .header("if-none-match", format!("\"{digest}\""))
            .send()
            .await
            .unwrap();
        assert_eq!(known.status(), 304);
    }
}

#[tokio::test]
async fn a_large_manifest_is_stored_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let config = node.push_blob("r", b"{}").await;
    let annotations: Value = (0..390)
        .map(|i| (format!("key{i}"), json!("x".repeat(10_000))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let body = image(&config, 2, &[], &json!({"annotations": annotations}));
    assert!(body.len() > 3_900_000);
    let digest = digest_of(&body);
    let put = node.put_manifest("r", "large", OCI_MANIFEST, body.clone()).await;
    assert_eq!(put.status(), 201);
    for reference in ["large", digest.as_str()] {
        let got = node.get(&format!("/v2/r/manifests/{reference}")).await;
        assert_eq!(header(&got, "content-type"), OCI_MANIFEST);
        assert_eq!(got.bytes().await.unwrap(), body);
    }
    assert_eq!(node.delete(&format!("/v2/r/manifests/{digest}")).await, 202);
    assert_eq!(node.head(&format!("/v2/r/blobs/{digest}")).await.status(), 404);

    let too_large = vec![b' '; (4 << 20) + 1];
    let refused = error(node.put_manifest("r", "x", OCI_MANIFEST, too_large).await).await;
    assert_eq!((refused.0, refused.1.as_str()), (413, "SIZE_INVALID"));
}

#[tokio::test]
async fn tags_move_and_deletes_take_them_along() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let first = node.push_image("r", "latest", b"one").await;
    let digest = digest_of(&first);
    let put = node
        .request(Method::PUT, &format!("/v2/r/manifests/{digest}?tag=a&tag=b"))
        .header("content-type", OCI_MANIFEST)
        .body(first.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), 201);
    assert_eq!(put.headers().get_all("oci-tag").iter().count(), 2);
    let second = node.push_image("r", "latest", b"two").await;
    let latest = node.get("/v2/r/manifests/latest").await;
    assert_eq!(header(&latest, "docker-content-digest"), digest_of(&second));

    assert_eq!(node.delete("/v2/r/manifests/a").await, 202);
    assert_eq!(node.head("/v2/r/manifests/a").await.status(), 404);
    assert_eq!(node.head(&format!("/v2/r/manifests/{digest}")).await.status(), 200);
    assert_eq!(node.delete(&format!("/v2/r/manifests/{digest}")).await, 202);
    let gone = error(node.get("/v2/r/manifests/b").await).await;
    assert_eq!((gone.0, gone.1.as_str()), (404, "MANIFEST_UNKNOWN"));
    let tags: Value = node.get("/v2/r/tags/list").await.json().await.unwrap();
    assert_eq!(tags, json!({"name": "r", "tags": ["latest"]}));

    // A blob that a manifest needs stays; once the manifest is gone, it may go.
    let layer = digest_of(b"two");
    let needed =
        node.request(Method::DELETE, &format!("/v2/r/blobs/{layer}")).send().await.unwrap();
    let (status, code, detail) = error(needed).await;
    assert_eq!((status, code.as_str()), (409, "DENIED"));
    assert_eq!(detail["referenced_by"], digest_of(&second));
    assert_eq!(node.delete(&format!("/v2/r/manifests/{}", digest_of(&second))).await, 202);
    assert_eq!(node.delete(&format!("/v2/r/blobs/{layer}")).await, 202);
    let unknown = error(node.get("/v2/never/manifests/x").await).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (404, "NAME_UNKNOWN"));
}

#[tokio::test]
async fn what_is_no_manifest_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let check = async |media_type: &str, body: &str, status: u16, code: &str| {
        let response = node.put_manifest("r", "x", media_type, body.as_bytes().to_vec()).await;
        let told = error(response).await;
        assert_eq!((told.0, told.1.as_str()), (status, code), "{body}");
    };
    let missing = digest_of(b"missing");
    check(OCI_MANIFEST, "{", 400, "MANIFEST_INVALID").await;
    check(OCI_MANIFEST, "{\"schemaVersion\":2}", 400, "MANIFEST_INVALID").await;
    check("", "{\"schemaVersion\":2}", 400, "MANIFEST_INVALID").await;
    check(
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "{\"schemaVersion\":1,\"fsLayers\":[]}",
        400,
        "MANIFEST_INVALID",
    )
    .await;
    check(
        OCI_MANIFEST,
        &format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[]}}"),
        400,
        "MANIFEST_INVALID",
    )
    .await;
    check(
        OCI_INDEX,
        &format!(
            "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"{OCI_MANIFEST}\",\"digest\":\"{missing}\",\"size\":1}}]}}"
        ),
        400,
        "MANIFEST_BLOB_UNKNOWN",
    )
    .await;
    let other = digest_of(b"other bytes");
    let wrong = node.put_manifest(
        "r",
        &other,
        OCI_INDEX,
        b"{\"schemaVersion\":2,\"manifests\":[]}".to_vec(),
    );
    assert_eq!(error(wrong.await).await.1, "DIGEST_INVALID");
}

#[tokio::test]
async fn a_build_cache_index_of_layers_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let layer = node.push_blob("cache", &noise(1, 100)).await;
    let config = node.push_blob("cache", b"{\"layers\":[]}").await;
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": 100},
        {"mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": config, "size": 13},
    ]});
    let put = node.put_manifest("cache", "c", OCI_INDEX, index.to_string().into_bytes()).await;
    assert_eq!(put.status(), 201);
    // Its layers are kept like any image's.
    assert_eq!(node.delete(&format!("/v2/cache/blobs/{layer}")).await, 409);
}
