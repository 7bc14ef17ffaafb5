//! Blobs that are stored already: confirming, mounting, finding and unlinking them.

use nora_app::Error;
use nora_app::testkit::repository;
use nora_domain::command::Action;
use nora_domain::record::{Key, Record, UploadId};

use crate::support::{NOW, World, artifact, settings, sha256, world};

fn pins(world: &World, bytes: &[u8]) -> usize {
    let is_there = |id| world.metadata.row(&Key::Pin(sha256(bytes), UploadId(id))).is_some();
    (0..100).filter(|id| is_there(*id)).count()
}

#[tokio::test]
async fn confirming_writes_only_when_half_of_the_pins_time_is_over() {
    let world = world();
    let here = repository("here");
    let digest = world.push(&here, b"bytes").await.unwrap().digest;
    let pushed = world.counts().proposals;
    let half = settings().pin_millis / 2;
    world.clock.advance(half - 1);
    world.registry.confirm_blob(&here, digest).await.unwrap();
    assert_eq!((world.counts().proposals, pins(&world, b"bytes")), (pushed, 1));
    world.clock.advance(1);
    world.registry.confirm_blob(&here, digest).await.unwrap();
    assert_eq!((world.counts().proposals, pins(&world, b"bytes")), (pushed + 1, 2));
    // The pin counts as relying on it: the next half of its time is free again.
    world.clock.advance(half - 1);
    world.registry.confirm_blob(&here, digest).await.unwrap();
    assert_eq!(world.counts().proposals, pushed + 1);
    let Some(Record::Blob(blob)) = world.metadata.row(&Key::Blob(digest)) else { panic!("gone") };
    assert_eq!(blob.touched_at, NOW.plus_millis(half));
}

#[tokio::test]
async fn confirming_a_referenced_blob_never_writes() {
    let world = world();
    let here = repository("here");
    let digest = world.push(&here, b"bytes").await.unwrap().digest;
    let mut put = artifact(&here, "{}");
    put.blobs = vec![digest];
    world.registry.put_artifact(put).await.unwrap();
    let before = world.counts().proposals;
    world.clock.advance(100 * settings().pin_millis);
    world.registry.confirm_blob(&here, digest).await.unwrap();
    assert_eq!(world.counts().proposals, before);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_confirmed() {
    let world = world();
    let here = repository("here");
    let digest = world.push(&here, b"bytes").await.unwrap().digest;
    let unknown = world.registry.confirm_blob(&here, sha256(b"none")).await;
    assert!(matches!(unknown, Err(Error::BlobUnknown(_))), "{unknown:?}");
    world.clock.advance(settings().pin_millis);
    let elsewhere = world.registry.confirm_blob(&repository("there"), digest).await;
    assert!(matches!(elsewhere, Err(Error::BlobUnknown(d)) if d == digest), "{elsewhere:?}");
}

#[tokio::test]
async fn a_mount_shows_a_blob_or_says_that_it_must_be_pushed() {
    let world = world();
    let (from, to, other) = (repository("from"), repository("to"), repository("other"));
    let digest = world.push(&from, b"bytes").await.unwrap().digest;
    assert!(!world.registry.mount_blob(other.clone(), to.clone(), digest).await.unwrap());
    assert!(world.registry.stat_blob(&to, digest).await.is_err());
    assert!(world.registry.mount_blob(from.clone(), to.clone(), digest).await.unwrap());
    assert_eq!(world.pull(&to, digest).await, b"bytes");
    // The source may go; the bytes are shared and stay.
    world.registry.unlink_blob(from.clone(), digest).await.unwrap();
    assert_eq!(world.pull(&to, digest).await, b"bytes");
    assert!(!world.registry.mount_blob(from, other, digest).await.unwrap());
    world.assert_sound();
}

#[tokio::test]
async fn a_source_is_found_among_what_the_caller_may_read() {
    let world = world();
    let (a, b, to) = (repository("a"), repository("b"), repository("to"));
    let digest = world.push(&a, b"bytes").await.unwrap().digest;
    let pin = UploadId(1 << 90);
    let mount =
        Action::MountBlob { from: a.clone(), to: b.clone(), digest, pin, pinned_until: NOW };
    world.elsewhere(mount);
    let find = async |except, secret: &_| {
        world.registry.find_blob(digest, except, |repository| repository != secret).await.unwrap()
    };
    assert_eq!(find(&to, &to).await, Some(a.clone()));
    assert_eq!(find(&to, &a).await, Some(b.clone()), "what another node mounted is seen");
    assert_eq!(find(&a, &b).await, None);
    let none = world.registry.find_blob(sha256(b"none"), &to, |_| true).await.unwrap();
    assert_eq!(none, None);
}

#[tokio::test]
async fn a_blob_that_an_artifact_needs_stays() {
    let world = world();
    let here = repository("here");
    let digest = world.push(&here, b"bytes").await.unwrap().digest;
    let mut put = artifact(&here, "{}");
    put.blobs = vec![digest];
    let by = put.digest;
    world.registry.put_artifact(put).await.unwrap();
    let refused = world.registry.unlink_blob(here.clone(), digest).await;
    assert!(
        matches!(refused, Err(Error::BlobReferenced { digest: d, by: b }) if d == digest && b == by),
        "{refused:?}"
    );
    world.registry.delete_artifact(here.clone(), by).await.unwrap();
    world.registry.unlink_blob(here.clone(), digest).await.unwrap();
    let gone = world.registry.unlink_blob(here.clone(), digest).await;
    assert!(matches!(gone, Err(Error::BlobUnknown(d)) if d == digest), "{gone:?}");
    let gone = world.registry.stat_blob(&here, digest).await;
    assert!(matches!(gone, Err(Error::RepositoryUnknown)), "nothing is left in it: {gone:?}");
    world.assert_sound();
}

#[tokio::test]
async fn a_blob_pushed_elsewhere_is_found_after_catching_up() {
    let world = world();
    let (from, here) = (repository("from"), repository("here"));
    let digest = world.push(&from, b"bytes").await.unwrap().digest;
    world.registry.stat_blob(&from, digest).await.unwrap();
    assert_eq!(world.counts().linearizations, 0, "a hit is served as it is");
    let pin = UploadId(1 << 90);
    world.elsewhere(Action::MountBlob { from, to: here.clone(), digest, pin, pinned_until: NOW });
    world.registry.stat_blob(&here, digest).await.unwrap();
    assert_eq!(world.counts().linearizations, 1);
}
