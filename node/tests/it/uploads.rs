//! Pushing and reading blobs.

use reqwest::Method;
use serde_json::json;

use super::node::{Node, OCI_MANIFEST, digest_of, error, header, image, noise};

#[tokio::test]
async fn a_session_goes_on_after_the_server_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(&dir.path().join("data"), &[]);
    let blob = noise(1, 3 << 20);
    let location = node.open_upload("a/b").await;
    let first = node
        .request(Method::PATCH, &location)
        .header("content-range", format!("0-{}", (1 << 20) - 1))
        .body(blob[..1 << 20].to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!((first.status().as_u16(), header(&first, "range")), (202, "0-1048575".to_owned()));

    node.kill_and_restart();

    let status = node.get(&location).await;
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-1048575".to_owned()));
    // Whoever goes on from the wrong place is told the right one.
    let wrong = node
        .request(Method::PATCH, &location)
        .header("content-range", "0-9")
        .body("0123456789")
        .send()
        .await
        .unwrap();
    assert_eq!((wrong.status().as_u16(), header(&wrong, "range")), (416, "0-1048575".to_owned()));
    let rest = format!("{}-{}", 1 << 20, blob.len() - 1);
    let digest = digest_of(&blob);
    let done = node
        .request(Method::PUT, &format!("{location}?digest={digest}"))
        .header("content-range", rest)
        .body(blob[1 << 20..].to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(done.status(), 201);
    assert_eq!(header(&done, "docker-content-digest"), digest);
    let got = node.get(&header(&done, "location")).await.bytes().await.unwrap();
    assert_eq!(got, blob);
    // The session is over.
    assert_eq!(node.get(&location).await.status(), 404);
}

#[tokio::test]
async fn a_blob_is_read_in_whole_in_part_and_not_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    for len in [1usize, 1000, 70_000, 300_000, 5 << 20] {
        let blob = noise(len as u64, len);
        let digest = node.push_blob("r", &blob).await;
        let path = format!("/v2/r/blobs/{digest}");
        let head = node.head(&path).await;
        assert_eq!(head.status(), 200);
        assert_eq!(header(&head, "content-length"), len.to_string());
        assert_eq!(header(&head, "etag"), format!("\"{digest}\""));
        assert_eq!(node.get(&path).await.bytes().await.unwrap(), blob);

        let middle = (len / 3, len / 2);
        let range = format!("bytes={}-{}", middle.0, middle.1);
        let part = node.request(Method::GET, &path).header("range", &range).send().await.unwrap();
        assert_eq!(part.status(), 206);
        assert_eq!(
            header(&part, "content-range"),
            format!("bytes {}-{}/{len}", middle.0, middle.1)
        );
        assert_eq!(part.bytes().await.unwrap(), blob[middle.0..=middle.1]);

        let known = node
            .request(Method::GET, &path)
            .header("if-none-match", format!("\"x\", \"{digest}\""))
            .send()
            .await
            .unwrap();
        assert_eq!(known.status(), 304);
        // A range of another version than the client has is no use to it: it gets everything.
        let other = node
            .request(Method::GET, &path)
            .header("range", "bytes=0-0")
            .header("if-range", "\"sha256:other\"")
            .send()
            .await
            .unwrap();
        assert_eq!((other.status().as_u16(), other.bytes().await.unwrap().len()), (200, len));
        let several =
            node.request(Method::GET, &path).header("range", "bytes=0-0,2-2").send().await.unwrap();
        assert_eq!(header(&several, "content-range"), format!("bytes */{len}"));
        assert_eq!(error(several).await.0, 416);
    }
}

#[tokio::test]
async fn knowing_a_digest_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let secret = noise(7, 4096);
    let digest = node.push_blob("private", &secret).await;
    node.push_blob("public", b"something else").await;
    let absent = digest_of(b"never pushed");
    for (method, range) in [(Method::HEAD, false), (Method::GET, false), (Method::GET, true)] {
        let ask = async |digest: &str| {
            let path = format!("/v2/public/blobs/{digest}");
            let mut request = node.request(method.clone(), &path);
            if range {
                request = request.header("range", "bytes=0-0");
            }
            let response = request.send().await.unwrap();
            let status = response.status();
            let body = response.text().await.unwrap();
            // The request id differs, and the digest is the asker's own.
            let body = body.replace(digest, "D");
            (status, body.split("request_id").next().unwrap().to_owned())
        };
        assert_eq!(ask(&digest).await, ask(&absent).await);
        assert_eq!(ask(&digest).await.0, 404);
    }
    // A manifest cannot reach it either.
    let config = node.push_blob("public", b"{}").await;
    let manifest = image(&config, 2, &[(&digest, secret.len())], &json!({}));
    let refused = node.put_manifest("public", "v1", OCI_MANIFEST, manifest).await;
    let (status, code, detail) = error(refused).await;
    assert_eq!((status, code.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(detail["blobs"], json!([digest]));
    // And a session belongs to its repository.
    let location = node.open_upload("private").await;
    let foreign = location.replace("/private/", "/public/");
    assert_eq!(node.get(&foreign).await.status(), 404);
    assert_eq!(node.delete(&foreign).await, 404);
    assert_eq!(node.get(&location).await.status(), 204);
    assert_eq!(node.delete(&location).await, 204);
    assert_eq!(node.get(&location).await.status(), 404);
}

#[tokio::test]
async fn a_mount_needs_no_bytes_and_a_deleted_blob_is_gone_from_one_repository_only() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let blob = noise(9, 10_000);
    let digest = node.push_blob("from", &blob).await;
    let mount = |from: &str| format!("/v2/to/blobs/uploads/?mount={digest}&from={from}");
    let refused = node.request(Method::POST, &mount("nowhere")).send().await.unwrap();
    assert_eq!(refused.status(), 202, "a client that cannot mount uploads");
    let mounted = node.request(Method::POST, &mount("from")).send().await.unwrap();
    assert_eq!(mounted.status(), 201);
    assert_eq!(node.get(&header(&mounted, "location")).await.bytes().await.unwrap(), blob);

    assert_eq!(node.delete(&format!("/v2/from/blobs/{digest}")).await, 202);
    assert_eq!(node.head(&format!("/v2/from/blobs/{digest}")).await.status(), 404);
    assert_eq!(node.get(&format!("/v2/to/blobs/{digest}")).await.bytes().await.unwrap(), blob);
    assert_eq!(node.delete(&format!("/v2/from/blobs/{digest}")).await, 404);
}

#[tokio::test]
async fn bad_pushes_are_told_apart_and_store_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("nora.toml");
    std::fs::write(&config, "[limits]\nupload_bytes_max = \"1MiB\"\nupload_sessions_max = 4\n")
        .unwrap();
    let node = Node::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    let post = async |query: &str, body: Vec<u8>| {
        let path = format!("/v2/r/blobs/uploads/{query}");
        node.request(Method::POST, &path).body(body).send().await.unwrap()
    };
    let digest = digest_of(b"right");
    let wrong = error(post(&format!("?digest={digest}"), b"wrong".to_vec()).await).await;
    assert_eq!((wrong.0, wrong.1.as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(wrong.2["computed"], digest_of(b"wrong"));
    assert_eq!(node.head(&format!("/v2/r/blobs/{digest}")).await.status(), 404);

    let malformed = error(post("?digest=sha256:xyz", Vec::new()).await).await;
    assert_eq!((malformed.0, malformed.1.as_str()), (400, "DIGEST_INVALID"));
    let algorithm = error(post("?digest-algorithm=md5", Vec::new()).await).await;
    assert_eq!((algorithm.0, algorithm.1.as_str()), (400, "DIGEST_INVALID"));

    let large = noise(3, (1 << 20) + 1);
    let query = format!("?digest={}", digest_of(&large));
    let too_large = error(post(&query, large).await).await;
    assert_eq!((too_large.0, too_large.1.as_str()), (413, "SIZE_INVALID"));

    let open = node.open_upload("r").await;
    node.open_upload("r").await;
    let path = "/v2/r/blobs/uploads/";
    let third = node.request(Method::POST, path).send().await.unwrap();
    assert!(!header(&third, "retry-after").is_empty());
    let third = error(third).await;
    assert_eq!((third.0, third.1.as_str()), (429, "TOOMANYREQUESTS"));
    // The other places are for other callers, until there are none.
    let by_another = async |caller| {
        let address = std::net::IpAddr::from([127, 0, 0, caller]);
        let client = reqwest::Client::builder().local_address(address).no_proxy().build().unwrap();
        client
            .post(format!("http://{}{path}", node.address()))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!([by_another(2).await, by_another(3).await, by_another(4).await], [202, 202, 429]);
    assert_eq!(node.delete(&open).await, 204, "a cancelled session frees its place");
    assert_eq!(by_another(4).await, 202);

    let unfinished = node.request(Method::PUT, &open).send().await.unwrap();
    assert_eq!(error(unfinished).await.1, "DIGEST_INVALID");
}

#[tokio::test]
async fn sha512_names_bytes_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let blob = noise(5, 200_000);
    let value = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &blob);
    let hex: String = value.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = format!("sha512:{hex}");
    // Announced or not, in one request or several.
    for query in ["", "?digest-algorithm=sha512"] {
        let repository = format!("r{}", query.len());
        let path = format!("/v2/{repository}/blobs/uploads/{query}");
        let opened = node.request(Method::POST, &path).send().await.unwrap();
        let location = header(&opened, "location");
        let (first, rest) = blob.split_at(100_000);
        node.request(Method::PATCH, &location).body(first.to_vec()).send().await.unwrap();
        let done = node
            .request(Method::PUT, &format!("{location}?digest={digest}"))
            .body(rest.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(done.status(), 201);
        let got = node.get(&format!("/v2/{repository}/blobs/{digest}")).await;
        assert_eq!(header(&got, "docker-content-digest"), digest);
        assert_eq!(got.bytes().await.unwrap(), blob);
    }
}
