//! Artifacts: what they need, where their bytes go, and how fresh a read is.

use nora_app::Error;
use nora_app::queries::ArtifactBody;
use nora_app::testkit::{Failure, bytes, repository};
use nora_domain::command::{Action, Outcome};
use nora_domain::record::{ArtifactRecord, Body, Key, Record, UploadId};
use nora_domain::{Digest, Reference, RepositoryKey, TenantName};

use crate::support::{NOW, World, artifact, media_type, settings, sha256, tag, world};

fn record(world: &World, repository: &RepositoryKey, digest: Digest) -> ArtifactRecord {
    match world.metadata.row(&Key::Artifact(repository.clone(), digest)) {
        Some(Record::Artifact(record)) => record,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_artifact_is_read_back_by_digest_and_by_tag() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "{\"exact\":  true}");
    put.tags = vec![tag("b"), tag("a"), tag("b")];
    assert!(world.registry.put_artifact(put.clone()).await.unwrap());
    assert!(!world.registry.put_artifact(put.clone()).await.unwrap(), "it was there before");
    for reference in [Reference::Digest(put.digest), Reference::Tag(tag("a"))] {
        let found = world.registry.artifact(&here, &reference).await.unwrap();
        assert_eq!((found.digest, &found.media_type), (put.digest, &put.media_type));
        assert_eq!(found.bytes().await.unwrap(), put.bytes);
    }
    let tags = world.registry.delete_artifact(here.clone(), put.digest).await.unwrap();
    assert_eq!(tags, [tag("a"), tag("b")]);
    let gone = world.registry.artifact(&here, &Reference::Tag(tag("a"))).await.err();
    assert!(matches!(gone, Some(Error::RepositoryUnknown)), "{gone:?}");
    let gone = world.registry.delete_artifact(here, put.digest).await;
    assert!(matches!(gone, Err(Error::ArtifactUnknown(d)) if d == put.digest), "{gone:?}");
    world.assert_sound();
}

#[tokio::test]
async fn a_tag_goes_alone() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "{}");
    put.tags = vec![tag("v1")];
    world.registry.put_artifact(put.clone()).await.unwrap();
    assert_eq!(world.registry.delete_tag(here.clone(), tag("v1")).await.unwrap(), put.digest);
    let gone = world.registry.delete_tag(here.clone(), tag("v1")).await;
    assert!(matches!(gone, Err(Error::TagUnknown(ref t)) if *t == tag("v1")), "{gone:?}");
    let gone = world.registry.resolve(&here, &tag("v1")).await;
    assert!(matches!(gone, Err(Error::TagUnknown(_))), "{gone:?}");
    world.registry.artifact(&here, &Reference::Digest(put.digest)).await.unwrap();
}

#[tokio::test]
async fn a_tag_is_set_to_what_is_there() {
    let world = world();
    let here = repository("here");
    // Both ways that bytes are kept.
    for len in [10, Body::INLINE_BYTES_MAX + 1] {
        let mut put = artifact(&here, bytes(len, 3));
        put.tags = vec![tag("v1")];
        world.registry.put_artifact(put.clone()).await.unwrap();
        for (new, to) in [("v2", Reference::Tag(tag("v1"))), ("v3", Reference::Digest(put.digest))]
        {
            let set = world.registry.set_tag(here.clone(), tag(new), to).await.unwrap();
            assert_eq!(set, put.digest);
            assert_eq!(world.registry.resolve(&here, &tag(new)).await.unwrap(), put.digest);
        }
        let found = world.registry.artifact(&here, &Reference::Tag(tag("v3"))).await.unwrap();
        assert_eq!(found.bytes().await.unwrap(), put.bytes);
        world.assert_sound();
    }
    let absent = sha256(b"absent");
    let refused = world.registry.set_tag(here.clone(), tag("v4"), Reference::Digest(absent)).await;
    assert!(matches!(refused, Err(Error::ArtifactUnknown(d)) if d == absent), "{refused:?}");
    let refused = world.registry.set_tag(here.clone(), tag("v4"), Reference::Tag(tag("v5"))).await;
    assert!(matches!(refused, Err(Error::TagUnknown(ref t)) if *t == tag("v5")), "{refused:?}");
    let unset = world.registry.resolve(&here, &tag("v4")).await;
    assert!(matches!(unset, Err(Error::TagUnknown(_))), "{unset:?}");
}

#[tokio::test]
async fn a_large_artifact_goes_as_a_blob_and_leaves_no_link() {
    let world = world();
    let here = repository("here");
    for (len, is_blob) in [(Body::INLINE_BYTES_MAX, false), (Body::INLINE_BYTES_MAX + 1, true)] {
        let put = artifact(&here, bytes(len, 3));
        world.registry.put_artifact(put.clone()).await.unwrap();
        let record = record(&world, &here, put.digest);
        assert_eq!((record.body == Body::Blob, record.size), (is_blob, len as u64));
        assert_eq!(record.blobs, if is_blob { vec![put.digest] } else { vec![] });
        let link = || world.metadata.row(&Key::Link(put.digest, here.clone()));
        assert_eq!(link().is_some(), is_blob);
        let found = world.registry.artifact(&here, &Reference::Digest(put.digest)).await.unwrap();
        assert_eq!(matches!(found.body, ArtifactBody::Blob(_)), is_blob);
        assert_eq!(found.bytes().await.unwrap(), put.bytes);
        let usage = world.registry.usage(&TenantName::default_tenant()).await.unwrap();
        assert_eq!((usage.bytes, usage.artifacts), (len as u64, 1));
        world.assert_sound();

        world.registry.delete_artifact(here.clone(), put.digest).await.unwrap();
        assert_eq!(link(), None);
        let usage = world.registry.usage(&TenantName::default_tenant()).await.unwrap();
        assert_eq!((usage.bytes, usage.artifacts, usage.links), (0, 0, 0));
    }
    assert_eq!(world.blobs.sessions(), vec![]);
}

#[tokio::test]
async fn a_large_artifact_that_is_refused_leaves_no_link() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, bytes(Body::INLINE_BYTES_MAX + 1, 3));
    put.blobs = vec![sha256(b"missing")];
    let refused = world.registry.put_artifact(put.clone()).await;
    assert!(matches!(refused, Err(Error::ReferencesMissing { .. })), "{refused:?}");
    assert_eq!(world.metadata.row(&Key::Link(put.digest, here.clone())), None);
    let usage = world.registry.usage(&TenantName::default_tenant()).await.unwrap();
    assert_eq!((usage.bytes, usage.links), (0, 0));
    world.assert_sound();
}

#[tokio::test]
async fn what_is_missing_is_told_and_nothing_is_stored() {
    let world = world();
    let here = repository("here");
    let there = world.push(&here, b"layer").await.unwrap().digest;
    let mut put = artifact(&here, "{}");
    put.blobs = vec![sha256(b"x"), there, sha256(b"y"), sha256(b"x")];
    put.children = vec![sha256(b"child")];
    let refused = world.registry.put_artifact(put).await;
    let Err(Error::ReferencesMissing { blobs, children }) = refused else { panic!("{refused:?}") };
    let mut expected = vec![sha256(b"x"), sha256(b"y")];
    expected.sort();
    assert_eq!((blobs, children), (expected, vec![sha256(b"child")]));
    let stored = world.registry.artifact(&here, &Reference::Digest(sha256(b"{}"))).await.err();
    assert!(matches!(stored, Some(Error::ArtifactUnknown(_))), "{stored:?}");
}

#[tokio::test]
async fn references_of_either_kind_are_sorted_by_what_is_there() {
    let world = world();
    let here = repository("here");
    let layer = world.push(&here, b"layer").await.unwrap().digest;
    let child = artifact(&here, "child");
    world.registry.put_artifact(child.clone()).await.unwrap();
    let mut put = artifact(&here, "index");
    put.either = vec![child.digest, layer];
    world.registry.put_artifact(put.clone()).await.unwrap();
    let stored = record(&world, &here, put.digest);
    assert_eq!((stored.blobs, stored.children), (vec![layer], vec![child.digest]));

    let mut put = artifact(&here, "index 2");
    put.either = vec![sha256(b"neither")];
    let refused = world.registry.put_artifact(put).await;
    assert!(
        matches!(&refused, Err(Error::ReferencesMissing { blobs, children })
            if *blobs == [sha256(b"neither")] && children.is_empty()),
        "{refused:?}"
    );
    world.assert_sound();
}

#[tokio::test]
async fn optional_blobs_are_kept_if_they_are_there() {
    let world = world();
    let here = repository("here");
    let layer = world.push(&here, b"layer").await.unwrap().digest;
    let elsewhere = world.push(&repository("there"), b"elsewhere").await.unwrap().digest;
    let mut put = artifact(&here, "image");
    put.optional_blobs = vec![sha256(b"absent"), elsewhere, layer];
    world.registry.put_artifact(put.clone()).await.unwrap();
    assert_eq!(record(&world, &here, put.digest).blobs, [layer]);
}

#[tokio::test]
async fn references_are_sorted_by_what_other_nodes_stored_too() {
    let world = world();
    let here = repository("here");
    let layer = world.push(&repository("there"), b"layer").await.unwrap().digest;
    let child = put_elsewhere(&world, &here, "child", "child");
    world.elsewhere(Action::MountBlob {
        from: repository("there"),
        to: here.clone(),
        digest: layer,
        pin: UploadId(1 << 90),
        pinned_until: NOW,
    });
    let mut put = artifact(&here, "index");
    (put.either, put.optional_blobs) = (vec![child], vec![layer]);
    world.registry.put_artifact(put.clone()).await.unwrap();
    let stored = record(&world, &here, put.digest);
    assert_eq!((stored.blobs, stored.children), (vec![layer], vec![child]));
}

#[tokio::test]
async fn what_was_a_blob_before_stays_one_after_a_refused_artifact() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, bytes(Body::INLINE_BYTES_MAX + 1, 3));
    world.push(&here, &put.bytes).await.unwrap();
    put.blobs = vec![sha256(b"missing")];
    let refused = world.registry.put_artifact(put.clone()).await;
    assert!(matches!(refused, Err(Error::ReferencesMissing { .. })), "{refused:?}");
    assert_eq!(world.pull(&here, put.digest).await, put.bytes);
}

#[tokio::test]
async fn an_artifact_may_name_and_hold_only_so_much() {
    let world = world();
    let here = repository("here");
    let references_max = settings().references_max;
    let mut put = artifact(&here, "image");
    put.blobs = (0..references_max).map(|n| sha256(&n.to_be_bytes())).collect();
    let refused = world.registry.put_artifact(put.clone()).await;
    assert!(matches!(refused, Err(Error::ReferencesMissing { .. })), "the most: {refused:?}");
    put.children = vec![sha256(b"one more")];
    let refused = world.registry.put_artifact(put).await;
    assert!(
        matches!(refused, Err(Error::TooManyReferences { references_max: max })
            if max == references_max),
        "{refused:?}"
    );

    let bytes_max = settings().artifact_bytes_max;
    world.registry.put_artifact(artifact(&here, bytes(bytes_max, 1))).await.unwrap();
    let before = world.counts().proposals;
    let refused = world.registry.put_artifact(artifact(&here, bytes(bytes_max + 1, 1))).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { bytes_max: max }) if max == bytes_max as u64),
        "{refused:?}"
    );
    assert_eq!(world.counts().proposals, before);
}

#[tokio::test]
async fn a_reference_that_is_named_again_counts_once() {
    let world = world();
    let here = repository("here");
    let layer = world.push(&here, b"empty layer").await.unwrap().digest;
    let mut put = artifact(&here, "image");
    put.blobs = vec![layer; settings().references_max + 1];
    world.registry.put_artifact(put.clone()).await.unwrap();
    assert_eq!(record(&world, &here, put.digest).blobs, [layer]);
}

#[tokio::test]
async fn an_artifact_whose_answer_was_lost_may_be_pushed_again() {
    let world = world();
    let here = repository("here");
    let put = artifact(&here, "{}");
    world.metadata.fail_next(Failure::AnswerLost);
    let answer = world.registry.put_artifact(put.clone()).await;
    assert!(matches!(answer, Err(Error::OutcomeUnknown)), "{answer:?}");
    assert!(!world.registry.put_artifact(put).await.unwrap());
}

/// Another node stores an artifact and moves a tag to it.
fn put_elsewhere(world: &World, repository: &RepositoryKey, content: &str, name: &str) -> Digest {
    let digest = sha256(content.as_bytes());
    let stored = world.elsewhere(Action::PutArtifact {
        repository: repository.clone(),
        digest,
        media_type: media_type("application/test"),
        size: content.len() as u64,
        body: Body::Inline(content.as_bytes().to_vec()),
        subject: None,
        artifact_type: None,
        blobs: vec![],
        children: vec![],
        tags: vec![tag(name)],
    });
    assert_eq!(stored, Outcome::ArtifactStored { created: true });
    digest
}

#[tokio::test]
async fn a_tag_is_read_after_catching_up_and_a_digest_only_if_it_is_missed() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "old");
    put.tags = vec![tag("latest")];
    world.registry.put_artifact(put.clone()).await.unwrap();

    let new = put_elsewhere(&world, &here, "new", "latest");
    let latest = Reference::Tag(tag("latest"));
    assert_eq!(world.registry.artifact(&here, &latest).await.unwrap().digest, new);
    assert_eq!(world.counts().linearizations, 1);

    world.registry.artifact(&here, &Reference::Digest(put.digest)).await.unwrap();
    world.registry.artifact(&here, &Reference::Digest(new)).await.unwrap();
    assert_eq!(world.counts().linearizations, 1, "what a digest names cannot change");

    let newer = put_elsewhere(&world, &here, "newer", "latest");
    let found = world.registry.artifact(&here, &Reference::Digest(newer)).await.unwrap();
    assert_eq!(
        (found.bytes().await.unwrap().as_ref(), world.counts().linearizations),
        (&b"newer"[..], 2)
    );

    let none = world.registry.artifact(&here, &Reference::Digest(sha256(b"none"))).await.err();
    assert!(matches!(none, Some(Error::ArtifactUnknown(_))), "{none:?}");
    assert_eq!(world.counts().linearizations, 3);
}
