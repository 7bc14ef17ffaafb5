//! Artifacts: what they need, where their bytes go, and how fresh a read is.

use std::sync::Arc;

use nora_app::Error;
use nora_app::artifacts::ArtifactBody;
use nora_app::ports::BoxFuture;
use nora_app::ports::metadata::ask;
use nora_app::testkit::{Failure, MemoryMetadata, bytes, repository};
use nora_domain::{
    Action, ArtifactRecord, ArtifactStored, Body, DeleteArtifact, DeleteTag, Digest, Key,
    MountBlob, Outcome, PutArtifact, Record, Reference, RepositoryKey, SetTag, Target, TenantName,
};

use crate::support::{Call, Somebody, World, artifact, media_type, settings, sha256, tag, world};

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
    assert!(world.registry.artifacts().put(put.clone()).await.unwrap());
    assert!(!world.registry.artifacts().put(put.clone()).await.unwrap(), "it was there before");
    for reference in [Reference::Digest(put.digest), Reference::Tag(tag("a"))] {
        let found = world.registry.artifacts().get(&here, &reference).await.unwrap();
        assert_eq!((found.digest, &found.media_type), (put.digest, &put.media_type));
        assert_eq!(found.bytes().await.unwrap(), put.bytes);
    }
    let tags = world.registry.artifacts().delete(here.clone(), put.digest).await.unwrap();
    assert_eq!(tags, [tag("a"), tag("b")]);
    let gone = world.registry.artifacts().get(&here, &Reference::Tag(tag("a"))).await.err();
    assert!(matches!(gone, Some(Error::RepositoryUnknown)), "{gone:?}");
    let gone = world.registry.artifacts().delete(here, put.digest).await;
    assert!(matches!(gone, Err(Error::ArtifactUnknown(d)) if d == put.digest), "{gone:?}");
    world.assert_sound();
}

#[tokio::test]
async fn a_tag_goes_alone() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "{}");
    put.tags = vec![tag("v1")];
    world.registry.artifacts().put(put.clone()).await.unwrap();
    assert_eq!(
        world.registry.tags().delete(here.clone(), tag("v1")).await.unwrap(),
        Target::Artifact(put.digest)
    );
    let gone = world.registry.tags().delete(here.clone(), tag("v1")).await;
    assert!(matches!(gone, Err(Error::TagUnknown(ref t)) if *t == tag("v1")), "{gone:?}");
    let gone = world.registry.tags().resolve(&here, &tag("v1")).await;
    assert!(matches!(gone, Err(Error::TagUnknown(_))), "{gone:?}");
    world.registry.artifacts().get(&here, &Reference::Digest(put.digest)).await.unwrap();
}

#[tokio::test]
async fn a_tag_is_set_to_what_is_there() {
    let world = world();
    let here = repository("here");
    // Both ways that bytes are kept.
    for len in [10, Body::INLINE_BYTES_MAX + 1] {
        let mut put = artifact(&here, bytes(len, 3));
        put.tags = vec![tag("v1")];
        world.registry.artifacts().put(put.clone()).await.unwrap();
        for (new, to) in [("v2", Reference::Tag(tag("v1"))), ("v3", Reference::Digest(put.digest))]
        {
            let set = world.registry.tags().set(here.clone(), tag(new), to).await.unwrap();
            assert_eq!(set, put.digest);
            assert_eq!(world.registry.tags().resolve(&here, &tag(new)).await.unwrap(), put.digest);
        }
        let found =
            world.registry.artifacts().get(&here, &Reference::Tag(tag("v3"))).await.unwrap();
        assert_eq!(found.bytes().await.unwrap(), put.bytes);
        world.assert_sound();
    }
    let absent = sha256(b"absent");
    let refused =
        world.registry.tags().set(here.clone(), tag("v4"), Reference::Digest(absent)).await;
    assert!(matches!(refused, Err(Error::ArtifactUnknown(d)) if d == absent), "{refused:?}");
    let refused =
        world.registry.tags().set(here.clone(), tag("v4"), Reference::Tag(tag("v5"))).await;
    assert!(matches!(refused, Err(Error::TagUnknown(ref t)) if *t == tag("v5")), "{refused:?}");
    let unset = world.registry.tags().resolve(&here, &tag("v4")).await;
    assert!(matches!(unset, Err(Error::TagUnknown(_))), "{unset:?}");
}

#[tokio::test]
async fn a_large_artifact_goes_as_a_blob_and_leaves_no_link() {
    let world = world();
    let here = repository("here");
    for (len, is_blob) in [(Body::INLINE_BYTES_MAX, false), (Body::INLINE_BYTES_MAX + 1, true)] {
        let put = artifact(&here, bytes(len, 3));
        world.registry.artifacts().put(put.clone()).await.unwrap();
        let record = record(&world, &here, put.digest);
        assert_eq!((record.body == Body::Blob, record.size), (is_blob, len as u64));
        assert_eq!(record.blobs, if is_blob { vec![put.digest] } else { vec![] });
        let link = || world.metadata.row(&Key::Link(here.clone(), put.digest));
        assert_eq!(link().is_some(), is_blob);
        let found =
            world.registry.artifacts().get(&here, &Reference::Digest(put.digest)).await.unwrap();
        assert_eq!(matches!(found.body, ArtifactBody::Blob(_)), is_blob);
        assert_eq!(found.bytes().await.unwrap(), put.bytes);
        let usage = world.registry.tenants().usage(&TenantName::default_tenant()).await.unwrap();
        assert_eq!((usage.bytes, usage.artifacts), (len as u64, 1));
        world.assert_sound();

        world.registry.artifacts().delete(here.clone(), put.digest).await.unwrap();
        assert_eq!(link(), None);
        let usage = world.registry.tenants().usage(&TenantName::default_tenant()).await.unwrap();
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
    let refused = world.registry.artifacts().put(put.clone()).await;
    assert!(matches!(refused, Err(Error::ReferencesMissing { .. })), "{refused:?}");
    assert_eq!(world.metadata.row(&Key::Link(here.clone(), put.digest)), None);
    let usage = world.registry.tenants().usage(&TenantName::default_tenant()).await.unwrap();
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
    let refused = world.registry.artifacts().put(put).await;
    let Err(Error::ReferencesMissing { blobs, children }) = refused else { panic!("{refused:?}") };
    let mut expected = vec![sha256(b"x"), sha256(b"y")];
    expected.sort();
    assert_eq!((blobs, children), (expected, vec![sha256(b"child")]));
    let stored =
        world.registry.artifacts().get(&here, &Reference::Digest(sha256(b"{}"))).await.err();
    assert!(matches!(stored, Some(Error::ArtifactUnknown(_))), "{stored:?}");
}

#[tokio::test]
async fn references_of_either_kind_are_sorted_by_what_is_there() {
    let world = world();
    let here = repository("here");
    let layer = world.push(&here, b"layer").await.unwrap().digest;
    let child = artifact(&here, "child");
    world.registry.artifacts().put(child.clone()).await.unwrap();
    let mut put = artifact(&here, "index");
    put.either = vec![child.digest, layer];
    world.registry.artifacts().put(put.clone()).await.unwrap();
    let stored = record(&world, &here, put.digest);
    assert_eq!((stored.blobs, stored.children), (vec![layer], vec![child.digest]));

    let mut put = artifact(&here, "index 2");
    put.either = vec![sha256(b"neither")];
    let refused = world.registry.artifacts().put(put).await;
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
    world.registry.artifacts().put(put.clone()).await.unwrap();
    assert_eq!(record(&world, &here, put.digest).blobs, [layer]);
}

#[tokio::test]
async fn references_are_sorted_by_what_other_nodes_stored_too() {
    let world = world();
    let here = repository("here");
    let layer = world.push(&repository("there"), b"layer").await.unwrap().digest;
    let child = put_elsewhere(&world, &here, "child", "child");
    world.elsewhere(Action::MountBlob(MountBlob {
        from: repository("there"),
        to: here.clone(),
        digest: layer,
        pin_millis: 0,
    }));
    let mut put = artifact(&here, "index");
    (put.either, put.optional_blobs) = (vec![child], vec![layer]);
    world.registry.artifacts().put(put.clone()).await.unwrap();
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
    let refused = world.registry.artifacts().put(put.clone()).await;
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
    let refused = world.registry.artifacts().put(put.clone()).await;
    assert!(matches!(refused, Err(Error::ReferencesMissing { .. })), "the most: {refused:?}");
    put.children = vec![sha256(b"one more")];
    let refused = world.registry.artifacts().put(put).await;
    assert!(
        matches!(refused, Err(Error::TooManyReferences { references_max: max })
            if max == references_max),
        "{refused:?}"
    );

    let bytes_max = settings().artifact_bytes_max;
    world.registry.artifacts().put(artifact(&here, bytes(bytes_max, 1))).await.unwrap();
    let before = world.counts().proposals;
    let refused = world.registry.artifacts().put(artifact(&here, bytes(bytes_max + 1, 1))).await;
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
    world.registry.artifacts().put(put.clone()).await.unwrap();
    assert_eq!(record(&world, &here, put.digest).blobs, [layer]);
}

#[tokio::test]
async fn an_artifact_whose_answer_was_lost_may_be_pushed_again() {
    let world = world();
    let here = repository("here");
    let put = artifact(&here, "{}");
    world.metadata.fail_next(Failure::AnswerLost);
    let answer = world.registry.artifacts().put(put.clone()).await;
    assert!(matches!(answer, Err(Error::OutcomeUnknown)), "{answer:?}");
    assert!(!world.registry.artifacts().put(put).await.unwrap());
}

/// The command that stores an artifact that needs nothing.
fn inline(repository: &RepositoryKey, content: &str) -> PutArtifact {
    PutArtifact {
        repository: repository.clone(),
        digest: sha256(content.as_bytes()),
        media_type: media_type("application/test"),
        size: content.len() as u64,
        body: Body::Inline(content.to_owned().into()),
        subject: None,
        artifact_type: None,
        annotations: Default::default(),
        blobs: vec![],
        children: vec![],
        tags: vec![],
    }
}

/// Another node stores an artifact and moves a tag to it.
fn put_elsewhere(world: &World, repository: &RepositoryKey, content: &str, name: &str) -> Digest {
    let digest = sha256(content.as_bytes());
    let put = PutArtifact { tags: vec![tag(name)], ..inline(repository, content) };
    let stored = world.elsewhere(Action::PutArtifact(put));
    assert_eq!(stored, Outcome::PutArtifact(ArtifactStored { created: true }));
    digest
}

#[tokio::test]
async fn a_tag_is_read_after_catching_up_and_a_digest_only_if_it_is_missed() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "old");
    put.tags = vec![tag("latest")];
    world.registry.artifacts().put(put.clone()).await.unwrap();

    let new = put_elsewhere(&world, &here, "new", "latest");
    let latest = Reference::Tag(tag("latest"));
    assert_eq!(world.registry.artifacts().get(&here, &latest).await.unwrap().digest, new);
    assert_eq!(world.counts().linearizations, 1);

    world.registry.artifacts().get(&here, &Reference::Digest(put.digest)).await.unwrap();
    world.registry.artifacts().get(&here, &Reference::Digest(new)).await.unwrap();
    assert_eq!(world.counts().linearizations, 1, "what a digest names cannot change");

    let newer = put_elsewhere(&world, &here, "newer", "latest");
    let found = world.registry.artifacts().get(&here, &Reference::Digest(newer)).await.unwrap();
    assert_eq!(
        (found.bytes().await.unwrap().as_ref(), world.counts().linearizations),
        (&b"newer"[..], 2)
    );

    let none =
        world.registry.artifacts().get(&here, &Reference::Digest(sha256(b"none"))).await.err();
    assert!(matches!(none, Some(Error::ArtifactUnknown(_))), "{none:?}");
    assert_eq!(world.counts().linearizations, 3);
}

/// A tag moves to another artifact, and the one that it named is deleted.
async fn replace(metadata: Arc<MemoryMetadata>, name: &'static str, old: Digest, new: Digest) {
    let (repository, target) = (repository("here"), Target::Artifact(new));
    let set = SetTag { repository: repository.clone(), tag: tag(name), target };
    ask(&*metadata, set).await.unwrap().unwrap();
    ask(&*metadata, DeleteArtifact { repository, digest: old }).await.unwrap().unwrap();
}

/// Calls of a read to the metadata, and a few more.
const CALLS: usize = 12;

#[tokio::test]
async fn a_tag_that_moves_while_it_is_read_is_never_unknown() {
    let mut moved = 0;
    // Both ways that bytes are kept.
    for len in [10, Body::INLINE_BYTES_MAX + 1] {
        for number in 0..CALLS {
            let world = world();
            let here = repository("here");
            let (mut old, new) = (artifact(&here, bytes(len, 1)), artifact(&here, bytes(len, 2)));
            old.tags = vec![tag("latest")];
            world.registry.artifacts().put(old.clone()).await.unwrap();
            world.registry.artifacts().put(new.clone()).await.unwrap();
            let replaced = replace(world.metadata.clone(), "latest", old.digest, new.digest);
            let registry = world.meddled_at(number, replaced);
            let found = registry.artifacts().get(&here, &Reference::Tag(tag("latest"))).await;
            let found = match found {
                Ok(found) => found,
                Err(error) => panic!("moved before call {number}: {error:?}"),
            };
            moved += usize::from(found.digest == new.digest);
            let expected = if found.digest == new.digest { new.bytes } else { old.bytes };
            assert_eq!(found.bytes().await.unwrap(), expected);
        }
    }
    assert!(moved >= 3, "{moved}");
}

#[tokio::test]
async fn a_tag_that_never_stands_still_is_not_waited_for_for_ever() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "first");
    put.tags = vec![tag("latest")];
    world.registry.artifacts().put(put).await.unwrap();
    let metadata = world.metadata.clone();
    let registry = world.meddled(move |call| {
        let Call::Get(Key::Artifact(_, digest)) = call else { return None };
        let (metadata, old) = (metadata.clone(), *digest);
        Some(Box::pin(async move {
            let content = format!("after {old}");
            let mut put = inline(&repository("here"), &content);
            put.tags = vec![tag("latest")];
            ask(&*metadata, put).await.unwrap().unwrap();
            let delete = DeleteArtifact { repository: repository("here"), digest: old };
            ask(&*metadata, delete).await.unwrap().unwrap();
        }) as BoxFuture<'static, ()>)
    });
    let found = registry.artifacts().get(&here, &Reference::Tag(tag("latest"))).await.err();
    assert!(matches!(found, Some(Error::Unavailable { .. })), "{found:?}");
    // A tag that goes is unknown, and so is an artifact that goes.
    let latest = world.registry.tags().resolve(&here, &tag("latest")).await.unwrap();
    world.registry.artifacts().put(artifact(&here, "other")).await.unwrap();
    let metadata = world.metadata.clone();
    let registry = world.meddled_at(1, async move {
        let delete = DeleteArtifact { repository: repository("here"), digest: latest };
        ask(&*metadata, delete).await.unwrap().unwrap();
    });
    let found = registry.artifacts().get(&here, &Reference::Tag(tag("latest"))).await.err();
    assert!(matches!(found, Some(Error::TagUnknown(_))), "{found:?}");
}

#[tokio::test]
async fn an_artifact_that_goes_while_it_is_read_is_unknown_as_an_artifact() {
    for number in 0..CALLS {
        let world = world();
        let here = repository("here");
        let put = artifact(&here, bytes(Body::INLINE_BYTES_MAX + 1, 1));
        world.registry.artifacts().put(put.clone()).await.unwrap();
        world.registry.artifacts().put(artifact(&here, "other")).await.unwrap();
        let (metadata, digest) = (world.metadata.clone(), put.digest);
        let registry = world.meddled_at(number, async move {
            let delete = DeleteArtifact { repository: repository("here"), digest };
            ask(&*metadata, delete).await.unwrap().unwrap();
        });
        match registry.artifacts().get(&here, &Reference::Digest(digest)).await {
            Ok(found) => assert_eq!(found.bytes().await.unwrap(), put.bytes),
            Err(Error::ArtifactUnknown(unknown)) => assert_eq!(unknown, digest),
            Err(error) => panic!("gone before call {number}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_referrer_that_goes_while_the_list_is_read_is_left_out() {
    for number in 0..CALLS {
        let world = world();
        let here = repository("here");
        let mut put = artifact(&here, bytes(Body::INLINE_BYTES_MAX + 1, 1));
        put.subject = Some(sha256(b"subject"));
        world.registry.artifacts().put(put.clone()).await.unwrap();
        world.registry.artifacts().put(artifact(&here, "other")).await.unwrap();
        let (metadata, digest) = (world.metadata.clone(), put.digest);
        let registry = world.meddled_at(number, async move {
            let delete = DeleteArtifact { repository: repository("here"), digest };
            ask(&*metadata, delete).await.unwrap().unwrap();
        });
        let page = registry.artifacts().referrers(&here, sha256(b"subject"), None, None, 9).await;
        let page = match page {
            Ok(page) => page,
            Err(error) => panic!("gone before call {number}: {error:?}"),
        };
        assert!(page.items.len() <= 1 && !page.more);
        for referrer in page.items {
            registry.artifacts().listed(&here, referrer.digest).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_tag_is_set_to_what_another_names_even_if_that_moves() {
    for number in 0..4 {
        let world = world();
        let here = repository("here");
        let (mut old, new) = (artifact(&here, "old"), artifact(&here, "new"));
        old.tags = vec![tag("latest")];
        world.registry.artifacts().put(old.clone()).await.unwrap();
        world.registry.artifacts().put(new.clone()).await.unwrap();
        let replaced = replace(world.metadata.clone(), "latest", old.digest, new.digest);
        let registry = world.meddled_at(number, replaced);
        let named = Reference::Tag(tag("latest"));
        let set = registry.tags().set(here.clone(), tag("stable"), named).await.unwrap();
        assert!(set == new.digest || set == old.digest && number >= 2, "{number}");
    }
}

#[tokio::test]
async fn an_artifact_with_very_many_tags_goes_with_all_of_them() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "{}");
    put.tags = (0..2 * DeleteArtifact::TAGS_MAX + 1).map(|n| tag(&format!("t{n:04}"))).collect();
    world.registry.artifacts().put(put.clone()).await.unwrap();
    let mut kept = artifact(&here, "other");
    kept.tags = vec![tag("kept")];
    world.registry.artifacts().put(kept).await.unwrap();
    let before = world.counts().proposals;
    let removed = world.registry.artifacts().delete(here.clone(), put.digest).await.unwrap();
    assert_eq!(world.counts().proposals, before + 3, "a step removes so many at most");
    assert_eq!(removed, put.tags);
    assert_eq!(world.registry.tags().list(&here, None, 10_000).await.unwrap().items, [tag("kept")]);
    let gone = world.registry.artifacts().get(&here, &Reference::Digest(put.digest)).await.err();
    assert!(matches!(gone, Some(Error::ArtifactUnknown(_))), "{gone:?}");
    world.assert_sound();
}

/// An index of `children`, under a tag if it has one.
async fn index(world: &World, content: &str, children: &[Digest], name: Option<&str>) -> Digest {
    let mut put = artifact(&repository("here"), content.to_owned());
    put.children = children.to_vec();
    put.tags = name.map(tag).into_iter().collect();
    let digest = put.digest;
    world.registry.artifacts().put(put).await.unwrap();
    digest
}

#[tokio::test]
async fn an_immutable_tag_keeps_what_its_index_lists_at_any_depth() {
    let world = world();
    let here = repository("here");
    let child = index(&world, "child", &[], Some("mutable")).await;
    let middle = index(&world, "middle", &[child], None).await;
    index(&world, "top", &[middle], Some("v1")).await;
    let unrelated = index(&world, "unrelated", &[], Some("tag")).await;
    let alice = world.registry.by(Arc::new(Somebody { name: "alice", stands: true }));
    for digest in [child, middle] {
        let refused = alice.artifacts().delete(here.clone(), digest).await;
        assert!(
            matches!(&refused, Err(Error::TagImmutable(kept)) if *kept == tag("v1")),
            "{refused:?}"
        );
    }
    let refused = alice.tags().delete(here.clone(), tag("v1")).await;
    assert!(matches!(refused, Err(Error::TagImmutable(_))), "{refused:?}");
    assert_eq!(alice.artifacts().delete(here.clone(), unrelated).await.unwrap(), [tag("tag")]);
    // The policy has no say in what the cluster itself does.
    world.registry.tags().delete(here.clone(), tag("v1")).await.unwrap();
    assert_eq!(alice.artifacts().delete(here.clone(), child).await.unwrap(), [tag("mutable")]);
    world.assert_sound();
}

#[tokio::test]
async fn a_deletion_reads_only_what_may_keep_the_artifact() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "unrelated");
    put.tags = (0..1_000).map(|n| tag(&format!("v{n}"))).collect();
    world.registry.artifacts().put(put).await.unwrap();
    let child = index(&world, "child", &[], None).await;
    let listed = index(&world, "index", &[child], None).await;
    let alice = world.registry.by(Arc::new(Somebody { name: "alice", stands: true }));
    for (digest, reads_max) in [(child, 5), (listed, 3)] {
        let before = world.counts().reads;
        alice.artifacts().delete(here.clone(), digest).await.unwrap();
        let reads = world.counts().reads - before;
        assert!(reads <= reads_max, "{reads} reads");
    }
}

#[tokio::test]
async fn an_immutable_tag_that_comes_while_a_deletion_is_judged_keeps_the_artifact() {
    let world = world();
    let here = repository("here");
    let child = index(&world, "child", &[], None).await;
    let metadata = world.metadata.clone();
    let mut comes = true;
    let registry = world.meddled(move |call| {
        if !matches!(call, Call::Propose(Action::DeleteArtifact(_))) || !std::mem::take(&mut comes)
        {
            return None;
        }
        let metadata = metadata.clone();
        Some(Box::pin(async move {
            let mut put = inline(&repository("here"), "index");
            (put.children, put.tags) = (vec![child], vec![tag("v1")]);
            ask(&*metadata, put).await.unwrap().unwrap();
        }) as BoxFuture<'static, ()>)
    });
    let refused = registry
        .by(Arc::new(Somebody { name: "alice", stands: true }))
        .artifacts()
        .delete(here.clone(), child)
        .await;
    assert!(matches!(refused, Err(Error::TagImmutable(_))), "{refused:?}");
    let delete = DeleteTag { repository: here.clone(), tag: tag("v1") };
    ask(&*world.metadata, delete).await.unwrap().unwrap();
    world.registry.artifacts().get(&here, &Reference::Digest(child)).await.unwrap();
    world.assert_sound();
}
