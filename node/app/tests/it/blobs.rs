//! Blobs that are stored already: confirming, mounting, finding and unlinking them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use nora_app::ports::BoxFuture;
use nora_app::ports::blobs::{BlobCopy, BlobError, Blobs, OpenBlob};
use nora_app::ports::metadata::ask;
use nora_app::ports::uploads::{Finish, Sessions};
use nora_app::testkit::{MemoryBlobs, Uploads, body, open_session, repository};
use nora_app::{Dependencies, Error, Registry};
use nora_domain::{
    Action, CommitBlob, Digest, DropHolder, Epoch, Generation, Holder, Key, MountBlob, NodeId,
    Placement, Record, RepositoryKey, SetStanding, Standing, Timestamp, UploadId,
};

use crate::support::{Call, NODE, NOW, Somebody, World, artifact, settings, sha256, world};

fn pinned_until(world: &World, repository: &RepositoryKey, digest: Digest) -> Timestamp {
    match world.metadata.row(&Key::Link(repository.clone(), digest)) {
        Some(Record::Link(link)) => link.pinned_until,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn confirming_writes_only_when_half_of_the_pins_time_is_over() {
    let world = world();
    let here = repository("here");
    let digest = world.push(&here, b"bytes").await.unwrap().digest;
    let pushed = world.counts().proposals;
    let pin_millis = settings().pin_millis;
    let half = pin_millis / 2;
    world.clock.advance(half);
    world.registry.blobs().confirm(&here, digest).await.unwrap();
    let pinned = NOW.plus_millis(pin_millis);
    assert_eq!(
        (world.counts().proposals, pinned_until(&world, &here, digest)),
        (pushed, pinned),
        "it is pinned for half of the time still"
    );
    world.clock.advance(1);
    world.registry.blobs().confirm(&here, digest).await.unwrap();
    let pinned = NOW.plus_millis(half + 1 + pin_millis);
    assert_eq!(
        (world.counts().proposals, pinned_until(&world, &here, digest)),
        (pushed + 1, pinned)
    );
    // The next half of the pin's time is free again.
    world.clock.advance(half);
    world.registry.blobs().confirm(&here, digest).await.unwrap();
    assert_eq!(world.counts().proposals, pushed + 1);
    let held = world.metadata.row(&Key::TenantBlob(here.tenant.clone(), digest));
    let Some(Record::TenantBlob(held)) = held else { panic!("{held:?}") };
    assert_eq!(held.relied_on_at, NOW.plus_millis(half + 1), "the pin counts as relying on it");
}

#[tokio::test]
async fn what_another_repository_needs_is_pinned_for_this_one() {
    let world = world();
    let (here, there) = (repository("here"), repository("there"));
    let digest = world.push(&there, b"bytes").await.unwrap().digest;
    let mut put = artifact(&there, "{}");
    put.blobs = vec![digest];
    let by = put.digest;
    world.registry.artifacts().put(put).await.unwrap();
    assert!(world.registry.blobs().mount(there.clone(), here.clone(), digest).await.unwrap());
    world.clock.advance(settings().pin_millis);
    let before = world.counts().proposals;
    world.registry.blobs().confirm(&here, digest).await.unwrap();
    let until = NOW.plus_millis(2 * settings().pin_millis);
    assert_eq!(
        (world.counts().proposals, pinned_until(&world, &here, digest)),
        (before + 1, until)
    );
    assert_eq!(pinned_until(&world, &there, digest), NOW.plus_millis(settings().pin_millis));
    // The other repository's need goes; this one's blob stays.
    world.registry.artifacts().delete(there.clone(), by).await.unwrap();
    world.registry.blobs().unlink(there, digest).await.unwrap();
    let mut put = artifact(&here, "{}");
    put.blobs = vec![digest];
    world.registry.artifacts().put(put).await.unwrap();
    world.assert_sound();
}

#[tokio::test]
async fn confirming_a_referenced_blob_never_writes() {
    let world = world();
    let here = repository("here");
    let digest = world.push(&here, b"bytes").await.unwrap().digest;
    let mut put = artifact(&here, "{}");
    put.blobs = vec![digest];
    world.registry.artifacts().put(put).await.unwrap();
    let before = world.counts().proposals;
    world.clock.advance(100 * settings().pin_millis);
    world.registry.blobs().confirm(&here, digest).await.unwrap();
    assert_eq!(world.counts().proposals, before);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_confirmed() {
    let world = world();
    let here = repository("here");
    let digest = world.push(&here, b"bytes").await.unwrap().digest;
    let unknown = world.registry.blobs().confirm(&here, sha256(b"none")).await;
    assert!(matches!(unknown, Err(Error::BlobUnknown(_))), "{unknown:?}");
    world.clock.advance(settings().pin_millis);
    let elsewhere = world.registry.blobs().confirm(&repository("there"), digest).await;
    assert!(matches!(elsewhere, Err(Error::BlobUnknown(d)) if d == digest), "{elsewhere:?}");
}

#[tokio::test]
async fn a_mount_shows_a_blob_or_says_that_it_must_be_pushed() {
    let world = world();
    let (from, to, other) = (repository("from"), repository("to"), repository("other"));
    let digest = world.push(&from, b"bytes").await.unwrap().digest;
    assert!(!world.registry.blobs().mount(other.clone(), to.clone(), digest).await.unwrap());
    assert!(world.registry.blobs().stat(&to, digest).await.is_err());
    assert!(world.registry.blobs().mount(from.clone(), to.clone(), digest).await.unwrap());
    assert_eq!(world.pull(&to, digest).await, b"bytes");
    // The source may go; the bytes are shared and stay.
    world.registry.blobs().unlink(from.clone(), digest).await.unwrap();
    assert_eq!(world.pull(&to, digest).await, b"bytes");
    assert!(!world.registry.blobs().mount(from, other, digest).await.unwrap());
    world.assert_sound();
}

#[tokio::test]
async fn a_source_is_found_among_what_the_caller_may_read() {
    let world = world();
    let (a, b, to) = (repository("a"), repository("b"), repository("to"));
    let digest = world.push(&a, b"bytes").await.unwrap().digest;
    let mount =
        Action::MountBlob(MountBlob { from: a.clone(), to: b.clone(), digest, pin_millis: 0 });
    world.elsewhere(mount);
    let find = async |except, secret: &_| {
        world
            .registry
            .blobs()
            .find_source(digest, except, |repository| repository != secret)
            .await
            .unwrap()
    };
    assert_eq!(find(&to, &to).await, Some(a.clone()));
    assert_eq!(find(&to, &a).await, Some(b.clone()), "what another node mounted is seen");
    assert_eq!(find(&a, &b).await, None);
    let none = world.registry.blobs().find_source(sha256(b"none"), &to, |_| true).await.unwrap();
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
    world.registry.artifacts().put(put).await.unwrap();
    let refused = world.registry.blobs().unlink(here.clone(), digest).await;
    assert!(
        matches!(refused, Err(Error::BlobReferenced { digest: d, by: ref b }) if d == digest && *b == Holder::Artifact(by)),
        "{refused:?}"
    );
    world.registry.artifacts().delete(here.clone(), by).await.unwrap();
    world.registry.blobs().unlink(here.clone(), digest).await.unwrap();
    let gone = world.registry.blobs().unlink(here.clone(), digest).await;
    assert!(matches!(gone, Err(Error::BlobUnknown(d)) if d == digest), "{gone:?}");
    let gone = world.registry.blobs().stat(&here, digest).await;
    assert!(matches!(gone, Err(Error::RepositoryUnknown)), "nothing is left in it: {gone:?}");
    world.assert_sound();
}

#[tokio::test]
async fn a_blob_pushed_elsewhere_is_found_after_catching_up() {
    let world = world();
    let (from, here) = (repository("from"), repository("here"));
    let digest = world.push(&from, b"bytes").await.unwrap().digest;
    world.registry.blobs().stat(&from, digest).await.unwrap();
    assert_eq!(world.counts().linearizations, 0, "a hit is served as it is");
    world.elsewhere(Action::MountBlob(MountBlob { from, to: here.clone(), digest, pin_millis: 0 }));
    world.registry.blobs().stat(&here, digest).await.unwrap();
    assert_eq!(world.counts().linearizations, 1);
}

/// Node 2 has taken the bytes and commits them to `here`: a copy on its disk alone.
async fn pushed_by_another(world: &World, here: &RepositoryKey, bytes: &[u8]) -> Generation {
    let node = world.second_node();
    let generation = Generation { epoch: Epoch(2), sequence: 0 };
    let id = open_session(Uploads::of(&*world.blobs), 0xb10b).await;
    world.blobs.append(id, None, body(bytes, 100)).await.unwrap();
    let stored = world.blobs.finish(id, sha256(bytes), generation).await.unwrap();
    world.elsewhere(commit(here, &stored, node, Placement::Nodes(vec![node])));
    generation
}

fn commit(here: &RepositoryKey, copy: &BlobCopy, node: NodeId, placement: Placement) -> Action {
    Action::CommitBlob(CommitBlob {
        repository: here.clone(),
        digest: copy.digest,
        size: copy.size,
        generation: copy.generation,
        node,
        chunk_root: copy.chunk_root,
        upload: UploadId(1 << 100),
        pin_millis: settings().pin_millis,
        placement,
    })
}

#[tokio::test]
async fn a_blob_that_no_node_serves_is_unknown_until_it_is_pushed_again() {
    for standing in [Standing::Away, Standing::Removed] {
        let world = world();
        let here = repository("here");
        let digest = sha256(b"bytes");
        let old = pushed_by_another(&world, &here, b"bytes").await;
        let node = NodeId(2);
        assert_eq!(world.registry.blobs().stat(&here, digest).await.unwrap().generation, old);

        // This node does not know yet that the other one is gone, and asks before it says so.
        world.elsewhere(Action::SetStanding(SetStanding { node, standing }));
        world.registry.catch_up().await.unwrap();
        let asked = world.registry.blobs().stat(&here, digest).await;
        assert!(matches!(asked, Err(Error::BlobUnknown(d)) if d == digest), "{asked:?}");
        let to = repository("to");
        assert!(!world.registry.blobs().mount(here.clone(), to.clone(), digest).await.unwrap());
        let shown = world.registry.blobs().stat(&to, digest).await;
        assert!(matches!(shown, Err(Error::RepositoryUnknown)), "{shown:?}");

        let again = world.push(&here, b"bytes").await.unwrap();
        assert_eq!(again.generation, Generation { epoch: Epoch(1), sequence: 0 });
        assert_eq!(world.registry.blobs().stat(&here, digest).await.unwrap(), again);
        assert_eq!(world.pull(&here, digest).await, b"bytes");
        assert!(world.registry.blobs().mount(here.clone(), to, digest).await.unwrap());
        // Neither copy is this push's to delete: the old one goes once its node finds that it is not the live one.
        assert_eq!(world.blobs.deletes(), vec![]);
        assert_eq!(world.blobs.copies().len(), 2);
        let may_stay = world.registry.blobs().is_live_copy(digest, old).await.unwrap();
        assert_eq!(may_stay, standing == Standing::Away, "its start may still commit it");
        world.assert_sound();
    }
}

#[tokio::test]
async fn a_blob_that_one_node_serves_is_known() {
    let world = world();
    let here = repository("here");
    let digest = sha256(b"bytes");
    pushed_by_another(&world, &here, b"bytes").await;
    let node = NodeId(2);
    let stands = |standing| Action::SetStanding(SetStanding { node, standing });
    world.elsewhere(stands(Standing::Draining));
    world.registry.catch_up().await.unwrap();
    world.registry.blobs().stat(&here, digest).await.unwrap();
    world.elsewhere(stands(Standing::Removed));
    let generation = Generation { epoch: Epoch(2), sequence: 0 };
    world.elsewhere(Action::AddHolder(nora_domain::AddHolder { digest, generation, node: NODE }));
    world.registry.catch_up().await.unwrap();
    world.registry.blobs().stat(&here, digest).await.unwrap();
    world.elsewhere(Action::DropHolder(DropHolder { digest, generation, node: NODE, keep: 0 }));
    world.registry.catch_up().await.unwrap();
    let asked = world.registry.blobs().stat(&here, digest).await;
    assert!(matches!(asked, Err(Error::BlobUnknown(_))), "{asked:?}");
}

/// How the object store answers.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Absent,
    Unreachable,
    Broken,
}

/// An object store that answers as it is said to, and then as the memory does.
struct Objects {
    answers: Mutex<VecDeque<Answer>>,
    memory: Arc<MemoryBlobs>,
}

impl Blobs for Objects {
    fn open(&self, copy: BlobCopy) -> BoxFuture<'_, Result<Arc<dyn OpenBlob>, BlobError>> {
        Box::pin(async move {
            let digest = copy.digest;
            let answer = self.answers.lock().unwrap().pop_front();
            Err(match answer {
                None => return Blobs::open(&*self.memory, copy).await,
                Some(Answer::Absent) => BlobError::Absent { digest },
                Some(Answer::Unreachable) => BlobError::Unreachable { digest, holders: vec![] },
                Some(Answer::Broken) => {
                    BlobError::Io { step: "open", digest, source: "denied".into() }
                }
            })
        })
    }

    fn redirect(&self, copy: &BlobCopy) -> BoxFuture<'_, Result<Option<String>, BlobError>> {
        self.memory.redirect(copy)
    }

    fn delete(&self, copy: BlobCopy) -> BoxFuture<'_, Result<(), BlobError>> {
        self.memory.delete(copy)
    }
}

/// A blob in the object store, which answers so; and what the registry stands on then.
async fn object(world: &World, answers: &[Answer]) -> (BlobCopy, Dependencies) {
    let id = open_session(Uploads::of(&*world.blobs), 0xb10b).await;
    world.blobs.append(id, None, body(b"bytes", 100)).await.unwrap();
    let generation = Generation { epoch: Epoch(1), sequence: 1_000 };
    let mut stored = world.blobs.finish(id, sha256(b"bytes"), generation).await.unwrap();
    stored.placement = Placement::Object(UploadId(7));
    world.elsewhere(commit(&repository("here"), &stored, NODE, stored.placement.clone()));
    world.registry.catch_up().await.unwrap();
    let answers = Mutex::new(answers.iter().copied().collect());
    let blobs = Arc::new(Objects { answers, memory: world.blobs.clone() });
    (stored, Dependencies { blobs, ..world.dependencies() })
}

fn placement(world: &World, digest: Digest) -> Placement {
    match world.metadata.row(&Key::Blob(digest)) {
        Some(Record::Blob(blob)) => blob.placement,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_object_that_is_gone_is_lost_and_comes_back_with_the_next_push() {
    let world = world();
    let here = repository("here");
    let (copy, dependencies) = object(&world, &[Answer::Absent, Answer::Absent]).await;
    let digest = copy.digest;
    let registry = Registry::new(dependencies);
    world.registry.blobs().stat(&here, digest).await.unwrap();
    // A reader needs no other permission.
    let read = registry.by(Arc::new(Somebody { name: "alice", stands: false }));
    let read = read.blobs().open(&here, digest).await.err();
    assert!(
        matches!(read, Some(Error::Internal { what, .. }) if what.contains("lost")),
        "{read:?}"
    );
    assert!(placement(&world, digest).is_lost());
    let asked = registry.blobs().stat(&here, digest).await;
    assert!(matches!(asked, Err(Error::BlobUnknown(_))), "{asked:?}");
    assert!(!registry.blobs().mount(here.clone(), repository("to"), digest).await.unwrap());
    let again = registry.uploads().push(here.clone(), digest, body(b"bytes", 3)).await.unwrap();
    assert_ne!(again.generation, copy.generation);
    assert_eq!(registry.blobs().stat(&here, digest).await.unwrap(), again);
    assert_eq!(registry.blobs().open(&here, digest).await.unwrap().size(), 5);
    assert_eq!(world.blobs.deletes(), vec![]);
    world.assert_sound();
}

#[tokio::test]
async fn only_an_object_that_is_absent_twice_is_lost() {
    for (answers, opens) in [
        (&[Answer::Absent][..], true),
        (&[Answer::Absent, Answer::Unreachable], false),
        (&[Answer::Absent, Answer::Broken], false),
        (&[Answer::Unreachable, Answer::Absent], false),
        (&[Answer::Broken, Answer::Absent], false),
    ] {
        let world = world();
        let (copy, dependencies) = object(&world, answers).await;
        let registry = Registry::new(dependencies);
        let read = registry.blobs().open(&repository("here"), copy.digest).await;
        assert_eq!(read.is_ok(), opens, "{answers:?}");
        assert_eq!(placement(&world, copy.digest), copy.placement, "{answers:?}");
        assert_eq!(world.counts().proposals, 0, "{answers:?}");
    }
    // A copy that nodes hold is theirs to find lost.
    let world = world();
    let here = repository("here");
    let digest = world.push(&here, b"bytes").await.unwrap().digest;
    let answers = Mutex::new([Answer::Absent; 4].into());
    let blobs = Arc::new(Objects { answers, memory: world.blobs.clone() });
    let registry = Registry::new(Dependencies { blobs, ..world.dependencies() });
    let read = registry.blobs().open(&here, digest).await.err();
    assert!(matches!(read, Some(Error::Internal { .. })), "{read:?}");
    assert_eq!(placement(&world, digest), Placement::Nodes(vec![NODE]));
}

#[tokio::test]
async fn a_copy_that_came_meanwhile_is_not_lost() {
    let world = world();
    let here = repository("here");
    let (copy, Dependencies { blobs, .. }) = object(&world, &[Answer::Absent; 2]).await;
    let metadata = world.metadata.clone();
    let new = BlobCopy { generation: Generation { sequence: 2_000, ..copy.generation }, ..copy };
    let on_nodes = Placement::Nodes(vec![NODE]);
    let Action::CommitBlob(push) = commit(&here, &new, NODE, on_nodes.clone()) else { panic!() };
    let meddler = world.meddler(move |call| {
        let (metadata, push) = (metadata.clone(), push.clone());
        matches!(call, Call::Propose(Action::LoseObject(_))).then(|| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                ask(&*metadata, push).await.unwrap().unwrap();
            })
        })
    });
    let registry = Registry::new(Dependencies { blobs, metadata: meddler, ..world.dependencies() });
    let read = registry.blobs().open(&here, new.digest).await.err();
    assert!(matches!(read, Some(Error::Unavailable { .. })), "{read:?}");
    assert_eq!(placement(&world, new.digest), on_nodes);
    world.assert_sound();
}
