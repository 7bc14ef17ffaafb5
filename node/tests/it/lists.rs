//! Tags, catalog and referrers, page by page.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::node::{Node, OCI_INDEX, OCI_MANIFEST, digest_of, error, header, image};

/// Follows `Link` headers to the end and returns what each page held.
async fn pages(node: &Node, first: &str, field: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        let response = node.get(&path).await;
        assert_eq!(response.status(), 200, "{path}");
        let link = header(&response, "link");
        next = link.strip_prefix('<').map(|rest| {
            let (url, relation) = rest.split_once('>').unwrap();
            assert_eq!(relation, "; rel=\"next\"");
            url.to_owned()
        });
        let document: Value = response.json().await.unwrap();
        pages.push(document[field].as_array().unwrap().clone());
        assert!(pages.len() < 50, "the list does not end");
    }
    pages
}

#[tokio::test]
async fn tags_and_repositories_come_in_order_and_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    for tag in ["b", "a", "C", "a.1", "_x"] {
        node.push_image("r", tag, tag.as_bytes()).await;
    }
    for repository in ["a/b", "a", "a-b", "z"] {
        node.push_image(repository, "v", b"x").await;
    }
    // A repository that holds only a blob is no repository to pull from.
    node.push_blob("blobs-only", b"x").await;

    assert_eq!(pages(&node, "/v2/r/tags/list", "tags").await, [["C", "_x", "a", "a.1", "b"]]);
    assert_eq!(
        pages(&node, "/v2/r/tags/list?n=2", "tags").await,
        [vec!["C", "_x"], vec!["a", "a.1"], vec!["b"]]
    );
    assert_eq!(pages(&node, "/v2/r/tags/list?last=a", "tags").await, [["a.1", "b"]]);
    assert_eq!(pages(&node, "/v2/r/tags/list?last=aa&n=9", "tags").await, [["b"]]);
    let none: Vec<Value> = Vec::new();
    assert_eq!(pages(&node, "/v2/r/tags/list?n=0", "tags").await, [none]);
    assert_eq!(pages(&node, "/v2/_catalog", "repositories").await, [["a", "a-b", "a/b", "r", "z"]]);
    assert_eq!(
        pages(&node, "/v2/_catalog?n=3", "repositories").await,
        [vec!["a", "a-b", "a/b"], vec!["r", "z"]]
    );
    let bad = error(node.get("/v2/r/tags/list?n=x").await).await;
    assert_eq!((bad.0, bad.1.as_str()), (400, "PAGINATION_NUMBER_INVALID"));
    assert_eq!(error(node.get("/v2/nothing/tags/list").await).await.1, "NAME_UNKNOWN");
}

#[tokio::test]
async fn referrers_are_filtered_paged_and_joined_with_the_fallback_tag() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let subject = digest_of(&node.push_image("r", "v1", b"app").await);
    let path = format!("/v2/r/referrers/{subject}");
    assert_eq!(pages(&node, &path, "manifests").await, [Vec::<Value>::new()]);

    let config = node.push_blob("r", b"{}").await;
    let descriptor = json!({"mediaType": OCI_MANIFEST, "digest": subject, "size": 1});
    let mut signatures = Vec::new();
    for i in 0..3 {
        let more = json!({"artifactType": "sig/x", "subject": descriptor, "annotations": {"i": i.to_string()}});
        let body = image(&config, 2, &[], &more);
        let digest = digest_of(&body);
        let put = node.put_manifest("r", &digest, OCI_MANIFEST, body).await;
        assert_eq!(header(&put, "oci-subject"), subject);
        signatures.push(digest);
    }
    signatures.sort();
    let sbom = image(&config, 2, &[], &json!({"artifactType": "sbom/x", "subject": descriptor}));
    let sbom_digest = digest_of(&sbom);
    node.put_manifest("r", &sbom_digest, OCI_MANIFEST, sbom).await;
    // One that knows nothing of subjects, listed by an old client.
    let old = image(&config, 2, &[], &json!({"annotations": {"old": "yes"}}));
    let old_digest = digest_of(&old);
    node.put_manifest("r", &old_digest, OCI_MANIFEST, old).await;
    let fallback = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": OCI_MANIFEST, "digest": old_digest, "size": 1, "artifactType": "old/x"},
        {"mediaType": OCI_MANIFEST, "digest": signatures[0], "size": 1, "artifactType": "sig/x"},
    ]});
    let tag = subject.replace(':', "-");
    let put = node.put_manifest("r", &tag, OCI_INDEX, fallback.to_string().into_bytes()).await;
    assert_eq!(put.status(), 201);

    let digests = |pages: Vec<Vec<Value>>| -> Vec<Vec<String>> {
        let page = |page: &Vec<Value>| {
            let mut page: Vec<_> =
                page.iter().map(|row| row["digest"].as_str().unwrap().to_owned()).collect();
            page.sort();
            page
        };
        pages.iter().map(page).collect()
    };
    let mut all = [signatures.clone(), vec![sbom_digest.clone(), old_digest.clone()]].concat();
    all.sort();
    assert_eq!(digests(pages(&node, &path, "manifests").await), [all.clone()]);
    let mut paged = digests(pages(&node, &format!("{path}?n=2"), "manifests").await).concat();
    paged.sort();
    assert_eq!(paged, all);
    let filtered = node.get(&format!("{path}?artifactType=sig%2Fx")).await;
    assert_eq!(header(&filtered, "oci-filters-applied"), "artifactType");
    assert_eq!(header(&filtered, "content-type"), OCI_INDEX);
    let filtered: Value = filtered.json().await.unwrap();
    let rows = filtered["manifests"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["annotations"]["i"].is_string()));
    let old_only = pages(&node, &format!("{path}?artifactType=old/x"), "manifests").await;
    assert_eq!(digests(old_only), [[old_digest]]);
    let two_at_a_time = pages(&node, &format!("{path}?artifactType=sig/x&n=2"), "manifests").await;
    assert_eq!(digests(two_at_a_time).concat().len(), 3);
}

#[tokio::test]
async fn a_page_of_referrers_ends_by_bytes_and_leaves_huge_annotations_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let config = node.push_blob("r", b"{}").await;
    let subject = digest_of(b"whatever it is");
    let mut pushed = BTreeMap::new();
    for number in 0..82 {
        // The first has too many annotations, and the last few in a manifest that is large otherwise.
        let (annotation, other) = match number {
            0 => (200_000, 0),
            81 => (10, 200_000),
            _ => (60_000, 0),
        };
        let extra = json!({
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 14},
            "annotations": {"number": number.to_string(), "padding": "x".repeat(annotation)},
            "other": "x".repeat(other),
        });
        let manifest = image(&config, 2, &[], &extra);
        let digest = digest_of(&manifest);
        assert_eq!(node.put_manifest("r", &digest, OCI_MANIFEST, manifest).await.status(), 201);
        pushed.insert(digest, number);
    }
    let pages = pages(&node, &format!("/v2/r/referrers/{subject}"), "manifests").await;
    assert!(pages.len() >= 2, "one page of {} rows", pages[0].len());
    for page in &pages {
        let bytes = serde_json::to_vec(page).unwrap().len();
        assert!(bytes < (4 << 20) + 100_000, "{bytes} bytes in {} rows", page.len());
    }
    let rows: Vec<&Value> = pages.iter().flatten().collect();
    assert_eq!(rows.len(), pushed.len(), "each once");
    for row in rows {
        match pushed[row["digest"].as_str().unwrap()] {
            0 => assert_eq!(row.get("annotations"), None, "it has them itself"),
            number => assert_eq!(row["annotations"]["number"], number.to_string()),
        }
    }
}
