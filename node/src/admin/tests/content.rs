//! Content over the admin API: what a policy keeps, and what it hides, stays so by this way too.

use nora_auth::document::Immutable;

use super::*;

const ALICE: &str = "her own password";

/// The administrator, and alice, who may use `a/` alone; `a/app` and `b/app` have the tag `v1`, which never moves.
async fn world_with_images() -> (World, String) {
    let world = closed();
    let registry = &world.admin.api.registry;
    let name = nora_domain::AccountName::parse("alice").unwrap();
    let hash = nora_auth::password::hash(ALICE).unwrap();
    registry.accounts().create(name, false, hash, Vec::new()).await.unwrap();
    let auth = serde_json::json!({"auth": {"rules": [
        {"subject": "alice", "permissions": ["pull,push,overwrite,delete:a/*"]},
    ]}});
    let mut document: PolicyDocument = serde_json::from_value(auth).unwrap();
    document.immutable = vec![Immutable { repositories: "*".into(), tags: vec!["v*".into()] }];
    let (bytes, sum) = nora_identity::canonical(&document).unwrap();
    registry.access().set_policy(None, bytes, sum, Vec::new()).await.unwrap();
    world.admin.api.guard.reload().await.unwrap();
    let mut digests = Vec::new();
    for path in ["a/app", "b/app"] {
        for (tag, bytes) in [("v1", b"{}".as_slice()), ("other", b"{ }")] {
            digests.push(world.put_manifest(path, tag, bytes).await);
        }
    }
    (world, digests.swap_remove(0))
}

/// A request of alice's.
fn hers<T>(message: T) -> Call<T> {
    let mut call = Call::new(message);
    let authorization = basic("alice", ALICE).parse().unwrap();
    call.metadata_mut().insert("authorization", authorization);
    call
}

#[tokio::test]
async fn no_admin_call_moves_or_deletes_an_immutable_tag() {
    let (world, digest) = world_with_images().await;
    let repository = || "a/app".to_owned();
    for services in [world.to(Peer::Admin), world.to(Peer::Anonymous)] {
        let mut client = ContentClient::new(services);
        let (tag, reference) = ("v1".to_owned(), "other".to_owned());
        let moved = proto::SetTagRequest { repository: repository(), tag, reference };
        let moved = client.set_tag(hers(moved)).await.unwrap_err();
        assert!(moved.message().contains("v1"), "{moved:?}");
        let untagged = proto::DeleteTagRequest { repository: repository(), tag: "v1".into() };
        client.delete_tag(hers(untagged)).await.unwrap_err();
        let deleted =
            proto::DeleteArtifactRequest { repository: repository(), digest: digest.clone() };
        client.delete_artifact(hers(deleted)).await.unwrap_err();
        let found = proto::GetArtifactRequest { repository: repository(), reference: "v1".into() };
        assert_eq!(client.get_artifact(hers(found)).await.unwrap().into_inner().digest, digest);
        // What no rule keeps still moves.
        let (tag, reference) = ("latest".to_owned(), "v1".to_owned());
        let made = proto::SetTagRequest { repository: repository(), tag, reference };
        client.set_tag(hers(made)).await.unwrap();
    }
}

#[tokio::test]
async fn what_may_not_be_pulled_is_as_good_as_absent() {
    let (world, digest) = world_with_images().await;
    let mut client = ContentClient::new(world.to(Peer::Anonymous));
    let listed = client.list_repositories(hers(proto::ListRepositoriesRequest::default())).await;
    assert_eq!(listed.unwrap().into_inner().paths, ["a/app"]);
    let mut told = Vec::new();
    // The first is there and hers to see no part of; the second is nowhere.
    for name in ["b/app", "c/app"] {
        let repository = || name.to_owned();
        let tag = || "v1".to_owned();
        let listed = proto::ListTagsRequest { repository: repository(), ..Default::default() };
        let listed = client.list_tags(hers(listed)).await.unwrap_err();
        let found = proto::GetArtifactRequest { repository: repository(), reference: tag() };
        let found = client.get_artifact(hers(found)).await.unwrap_err();
        let set = proto::SetTagRequest { repository: repository(), tag: tag(), reference: tag() };
        let set = client.set_tag(hers(set)).await.unwrap_err();
        let untagged = proto::DeleteTagRequest { repository: repository(), tag: tag() };
        let untagged = client.delete_tag(hers(untagged)).await.unwrap_err();
        let deleted =
            proto::DeleteArtifactRequest { repository: repository(), digest: digest.clone() };
        let deleted = client.delete_artifact(hers(deleted)).await.unwrap_err();
        let refusals = [listed, found, set, untagged, deleted];
        told.push(
            refusals
                .map(|status| (status.code(), status.message().replace(name, "the repository"))),
        );
    }
    assert_eq!(told[0], told[1]);
}
