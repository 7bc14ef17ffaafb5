//! Pushing blobs: what becomes visible, and which copies stay.

use std::sync::Arc;

use nora_app::ports::ByteStream;
use nora_app::ports::blobs::{BlobCopy, Blobs};
use nora_app::ports::clock::Clock;
use nora_app::ports::metadata::Metadata;
use nora_app::testkit::{
    Failure, ManualClock, Uploads, body, generation, push, repository, start_node,
};
use nora_app::{Dependencies, Error, Registry};
use nora_domain::{
    Action, Algorithm, BlobRecord, CommitBlob, Digest, DropHolder, Epoch, Generation, Key, NodeId,
    OpenUpload, Placement, Record, RepositoryKey, SetStanding, Standing, TenantName, Timestamp,
    UploadId,
};

use crate::support::{
    HASHES, LimitedTenant, NODE, NOW, Somebody, World, settings, sha256, world, world_of,
};

#[tokio::test]
async fn a_pushed_blob_is_visible_where_it_was_pushed() {
    let world = world();
    let (here, there) = (repository("here"), repository("there"));
    let stored = world.push(&here, b"some bytes").await.unwrap();
    assert_eq!((stored.digest, stored.size), (sha256(b"some bytes"), 10));
    let stat = world.registry.blobs().stat(&here, stored.digest).await.unwrap();
    assert_eq!((stat.size, stat.generation), (10, stored.generation));
    assert_eq!(world.pull(&here, stored.digest).await, b"some bytes");

    let unknown = world.registry.blobs().stat(&there, stored.digest).await;
    assert!(matches!(unknown, Err(Error::RepositoryUnknown)), "{unknown:?}");
    world.push(&there, b"others").await.unwrap();
    let unknown = world.registry.blobs().stat(&there, stored.digest).await;
    assert!(matches!(unknown, Err(Error::BlobUnknown(d)) if d == stored.digest), "{unknown:?}");
    world.assert_sound();
}

#[tokio::test]
async fn a_push_in_parts_proposes_no_more_than_one_at_once() {
    let world = world();
    let here = repository("here");
    world.push(&here, b"at once").await.unwrap();
    assert_eq!(world.counts().proposals, 1);
    let id = world.registry.uploads().start(here.clone(), Algorithm::Sha256).await.unwrap().id;
    for part in 0..50_u8 {
        world.registry.uploads().append(&here, id, None, body(&[part], 1)).await.unwrap();
    }
    assert_eq!(world.counts().proposals, 1, "its name tells its node, and nothing is reserved");
    let digest = sha256(&(0..50).collect::<Vec<u8>>());
    world
        .registry
        .uploads()
        .finish(here.clone(), id, None, None::<ByteStream>, digest)
        .await
        .unwrap();
    assert_eq!(world.counts().proposals, 2);
    let id = world.registry.uploads().start(here.clone(), Algorithm::Sha256).await.unwrap().id;
    world.registry.uploads().append(&here, id, None, body(b"given up", 3)).await.unwrap();
    world.registry.uploads().cancel(&here, id).await.unwrap();
    assert_eq!(world.counts().proposals, 2);
    world.assert_sound();
}

#[tokio::test]
async fn a_push_in_parts_to_a_limited_tenant_is_leased_until_it_ends() {
    let world = world_of(Arc::new(LimitedTenant));
    let here = repository("here");
    let id = world.registry.uploads().start(here.clone(), Algorithm::Sha256).await.unwrap().id;
    assert_eq!(world.counts().proposals, 0, "opening a session costs no write");
    let state =
        world.registry.uploads().append(&here, id, Some(0), body(b"first ", 4)).await.unwrap();
    assert_eq!(state.offset, 6);
    let row = || world.metadata.row(&Key::Upload(here.tenant.clone(), id));
    let Some(Record::Upload(lease)) = row() else { panic!("none") };
    assert_eq!((lease.node, &lease.repository), (NODE, &here));
    assert_eq!(lease.expires_at, NOW.plus_millis(settings().upload_expiry_millis));

    // Without room reserved for them, no bytes are taken; the session can go on later.
    world.metadata.fail_next(Failure::NoLeader);
    let refused = world.registry.uploads().append(&here, id, Some(6), body(b"second ", 4)).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    let rest = body(b"second ", 4);
    let state = world.registry.uploads().append(&here, id, Some(6), rest).await.unwrap();
    assert_eq!(state.offset, 13);

    let wrong = world.registry.uploads().append(&here, id, Some(5), body(b"x", 1)).await;
    assert!(matches!(wrong, Err(Error::UploadOffset { offset: 13, start: 5 })), "{wrong:?}");
    let digest = sha256(b"first second third");
    let rest = Some(body(b"third", 4));
    world.registry.uploads().finish(here.clone(), id, Some(13), rest, digest).await.unwrap();
    assert_eq!(row(), None);
    assert_eq!(world.pull(&here, digest).await, b"first second third");
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused_and_kept_nowhere() {
    let world = world();
    let here = repository("here");
    let id = world.registry.uploads().start(here.clone(), Algorithm::Sha256).await.unwrap().id;
    let (said, rest) = (sha256(b"those"), Some(body(b"these", 5)));
    let answer = world.registry.uploads().finish(here.clone(), id, None, rest, said).await;
    assert!(matches!(answer, Err(Error::DigestMismatch { expected, computed })
        if expected == said && computed == sha256(b"these")));
    assert_eq!((world.blobs.copies(), world.counts().proposals), (vec![], 0));
}

#[tokio::test]
async fn an_unknown_outcome_keeps_the_copy() {
    for (failure, visible) in [(Failure::AnswerLost, true), (Failure::Lost, false)] {
        let world = world();
        let (here, digest) = (repository("here"), sha256(b"bytes"));
        world.metadata.fail_next(failure);
        let answer = world.push(&here, b"bytes").await;
        assert!(matches!(answer, Err(Error::OutcomeUnknown)), "{answer:?}");
        assert_eq!((world.blobs.copies().len(), world.blobs.deletes()), (1, vec![]));
        assert_eq!(
            world.registry.blobs().stat(&here, digest).await.is_ok(),
            visible,
            "{failure:?}"
        );
        if visible {
            assert_eq!(world.pull(&here, digest).await, b"bytes");
        }
        // Trying again is what a client does; the copy that is read stays.
        let again = world.push(&here, b"bytes").await.unwrap();
        assert_eq!(world.pull(&here, digest).await, b"bytes");
        let (first, second) = (generation(0), generation(1));
        assert_eq!(again.generation, if visible { first } else { second });
        assert_eq!(world.blobs.deletes(), if visible { vec![(digest, second)] } else { vec![] });
    }
}

#[tokio::test]
async fn what_the_log_never_took_is_deleted() {
    for failure in [Failure::NoLeader, Failure::Busy] {
        let world = world();
        let here = repository("here");
        world.metadata.fail_next(failure);
        let answer = world.push(&here, b"bytes").await;
        let Err(Error::Unavailable { what, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(what.contains("leader"), failure == Failure::NoLeader);
        assert_eq!(world.blobs.copies(), vec![]);
        assert_eq!(world.blobs.deletes(), vec![(sha256(b"bytes"), generation(0))]);
        world.push(&here, b"bytes").await.unwrap();
        assert_eq!(world.pull(&here, sha256(b"bytes")).await, b"bytes");
    }
}

#[tokio::test]
async fn a_repeated_push_keeps_the_first_copy() {
    let world = world();
    let (here, there) = (repository("here"), repository("there"));
    let first = world.push(&here, b"bytes").await.unwrap();
    for to in [&here, &there] {
        let again = world.push(to, b"bytes").await.unwrap();
        assert_eq!(again, first, "the live copy is answered");
        assert_eq!(world.pull(to, first.digest).await, b"bytes");
    }
    assert_eq!(world.blobs.copies(), vec![(first.digest, first.generation)]);
    let redundant = vec![(first.digest, generation(1)), (first.digest, generation(2))];
    assert_eq!(world.blobs.deletes(), redundant);
    world.assert_sound();
}

#[tokio::test]
async fn a_copy_stays_while_it_is_live_or_may_become_it() {
    let world = world();
    let digest = world.push(&repository("here"), b"bytes").await.unwrap().digest;
    let stays = async |epoch, sequence| {
        let generation = Generation { epoch: Epoch(epoch), sequence };
        world.registry.blobs().is_live_copy(digest, generation).await.unwrap()
    };
    assert!(stays(1, 0).await && stays(1, 1).await);
    // What another node writes under a start that this one does not know of yet may not be deleted either.
    let second = world.second_node();
    assert!(stays(2, 7).await);
    world.elsewhere(start_node(NODE));
    world.elsewhere(Action::SetStanding(SetStanding { node: second, standing: Standing::Removed }));
    assert!(stays(1, 1).await && stays(2, 7).await, "as far as this node knows yet");
    world.metadata.linearize().await.unwrap();
    assert!(!stays(1, 1).await && !stays(2, 7).await);
    assert!(stays(1, 0).await, "the live copy outlives its epoch");
}

#[tokio::test]
async fn a_blob_is_read_from_where_it_is_now() {
    let world = world();
    let here = repository("here");
    let first = world.push(&here, b"bytes").await.unwrap();
    let old = open_copy(&world, first.digest, first.generation);
    let loses = |generation| {
        Action::DropHolder(DropHolder { digest: first.digest, generation, node: NODE, keep: 0 })
    };
    // The copy is lost, and another push makes the blob whole again: this node knows of neither.
    let new = push(Uploads::of(&*world.blobs), HASHES, b"bytes", 50).await;
    world.elsewhere(loses(first.generation));
    world.elsewhere(Action::CommitBlob(CommitBlob {
        repository: repository("there"),
        digest: first.digest,
        size: 5,
        generation: new.generation,
        node: NODE,
        chunk_root: new.chunk_root,
        upload: UploadId(1 << 100),
        pin_millis: 1,
        placement: Placement::Nodes(vec![NODE]),
    }));
    world.blobs.delete(old).await.unwrap();
    assert_eq!(world.pull(&here, first.digest).await, b"bytes");
    assert_eq!(world.counts().linearizations, 1);

    // Lost for good: whoever asks whether it is there pushes it again, whoever wants to read it is told of the fault.
    world.elsewhere(loses(new.generation));
    world.blobs.delete(new).await.unwrap();
    let read = world.registry.blobs().open(&here, first.digest).await.err();
    assert!(
        matches!(read, Some(Error::Internal { what, .. }) if what.contains("lost")),
        "{read:?}"
    );
    let asked = world.registry.blobs().stat(&here, first.digest).await;
    assert!(matches!(asked, Err(Error::BlobUnknown(_))), "{asked:?}");
    let mounted = world.registry.blobs().mount(here.clone(), repository("to"), first.digest).await;
    assert!(!mounted.unwrap(), "it must be pushed");
    let again = world.push(&here, b"bytes").await.unwrap();
    assert_eq!(world.registry.blobs().stat(&here, first.digest).await.unwrap(), again);
    assert_eq!(world.pull(&here, first.digest).await, b"bytes");
    world.assert_sound();
}

fn open_copy(world: &World, digest: Digest, generation: Generation) -> BlobCopy {
    match world.metadata.row(&Key::Blob(digest)) {
        Some(Record::Blob(BlobRecord { size, chunk_root, placement, .. })) => {
            BlobCopy { digest, generation, size, chunk_root, placement }
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_upload_that_found_too_few_nodes_can_be_ended_again() {
    let world = world();
    let here = repository("here");
    let digest = sha256(b"bytes");
    let id = world.registry.uploads().start(here.clone(), Algorithm::Sha256).await.unwrap().id;
    world.registry.uploads().append(&here, id, Some(0), body(b"bytes", 5)).await.unwrap();
    world.blobs.lack_nodes_next();
    let failed =
        world.registry.uploads().finish(here.clone(), id, None, None::<ByteStream>, digest).await;
    assert!(matches!(failed, Err(Error::Unavailable { .. })), "{failed:?}");
    assert_eq!(world.registry.uploads().state(&here, id).await.unwrap().offset, 5);
    world
        .registry
        .uploads()
        .finish(here.clone(), id, None, None::<ByteStream>, digest)
        .await
        .unwrap();
    assert_eq!(world.pull(&here, digest).await, b"bytes");

    // One whose last request brings bytes and does not say where they begin would bring them twice.
    let digest = sha256(b"others");
    let id = world.registry.uploads().start(here.clone(), Algorithm::Sha256).await.unwrap().id;
    let finish = async || {
        let rest = Some(body(b"others", 3));
        world.registry.uploads().finish(here.clone(), id, None, rest, digest).await
    };
    world.blobs.lack_nodes_next();
    let failed = finish().await;
    assert!(matches!(failed, Err(Error::Unavailable { .. })), "{failed:?}");
    let again = finish().await;
    assert!(matches!(again, Err(Error::UploadUnknown(i)) if i == id), "{again:?}");
    world.assert_sound();
}

#[tokio::test]
async fn a_session_tells_its_owner() {
    let world = world();
    let random = u128::MAX;
    assert_eq!(world.registry.uploads().owner(UploadId::made_by(NODE, random)), None);
    let other = UploadId::made_by(NodeId(2), random);
    assert_eq!(world.registry.uploads().owner(other), Some(NodeId(2)));
    // Should a request for it come here all the same, there is no such session.
    let state = world.registry.uploads().state(&repository("here"), other).await;
    assert!(matches!(state, Err(Error::UploadUnknown(id)) if id == other), "{state:?}");
}

/// Another node commits the blob `bytes`, but says that it has `size` bytes.
fn commit_elsewhere(world: &World, bytes: &[u8], size: u64) -> Generation {
    let node = world.second_node();
    let generation = Generation { epoch: Epoch(2), sequence: 7 };
    world.elsewhere(Action::CommitBlob(CommitBlob {
        repository: repository("elsewhere"),
        digest: sha256(bytes),
        size,
        generation,
        node,
        chunk_root: [1; 32],
        upload: UploadId(1 << 100),
        pin_millis: 1,
        placement: Placement::Nodes(vec![node]),
    }));
    generation
}

#[tokio::test]
async fn another_size_under_the_same_digest_is_told_and_the_copy_goes() {
    let world = world();
    let live = commit_elsewhere(&world, b"bytes", 6);
    let answer = world.push(&repository("here"), b"bytes").await;
    assert!(matches!(answer, Err(Error::Internal { .. })), "{answer:?}");
    assert_eq!(world.blobs.copies(), vec![]);
    assert_eq!(world.blobs.deletes(), vec![(sha256(b"bytes"), generation(0))]);
    assert!(world.registry.blobs().is_live_copy(sha256(b"bytes"), live).await.unwrap());
}

#[tokio::test]
async fn a_copy_of_a_retired_epoch_is_refused_and_left_to_the_sweep() {
    let world = world();
    world.elsewhere(start_node(NODE));
    let answer = world.push(&repository("here"), b"bytes").await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    // The refusal may be that of a second delivery, after the first one made the copy live.
    assert_eq!(world.blobs.deletes(), vec![]);
    assert!(!world.registry.blobs().is_live_copy(sha256(b"bytes"), generation(0)).await.unwrap());
    world.assert_sound();
}

#[tokio::test]
async fn a_session_is_known_in_its_own_repository_alone() {
    let world = world();
    let (here, foreign) = (repository("here"), repository("foreign"));
    let id = world.registry.uploads().start(here.clone(), Algorithm::Sha256).await.unwrap().id;
    let unknown = |error: Option<Error>| matches!(error, Some(Error::UploadUnknown(i)) if i == id);
    assert!(unknown(world.registry.uploads().state(&foreign, id).await.err()));
    let appended = world.registry.uploads().append(&foreign, id, None, body(b"x", 1)).await;
    assert!(unknown(appended.err()));
    let finished = world
        .registry
        .uploads()
        .finish(foreign.clone(), id, None, None::<ByteStream>, sha256(b""))
        .await;
    assert!(unknown(finished.err()));
    assert!(unknown(world.registry.uploads().cancel(&foreign, id).await.err()));
    assert_eq!(world.registry.uploads().state(&here, id).await.unwrap().offset, 0);
    assert_eq!(world.counts().proposals, 0);
    world.registry.uploads().cancel(&here, id).await.unwrap();
    assert!(unknown(world.registry.uploads().state(&here, id).await.err()));
}

/// Looks at all sessions. Returns how many were dropped, and in how many turns.
async fn expire_all(world: &World) -> (usize, usize) {
    let (mut dropped, mut turns, mut reached) = (0, 0, None);
    loop {
        let turn = world.registry.uploads().expire(reached.take()).await.unwrap();
        (dropped, turns, reached) = (dropped + turn.dropped, turns + 1, turn.next);
        if reached.is_none() {
            return (dropped, turns);
        }
    }
}

#[tokio::test]
async fn upkeep_drops_idle_sessions_and_stale_leases() {
    let world = world_of(Arc::new(LimitedTenant));
    let here = repository("here");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let id = world.registry.uploads().start(here.clone(), Algorithm::Sha256).await.unwrap().id;
        world.registry.uploads().append(&here, id, None, body(b"begun", 5)).await.unwrap();
        ids.push(id);
    }
    let lease = |upload: u128, node| {
        Action::OpenUpload(OpenUpload {
            upload: UploadId(upload),
            repository: repository("here"),
            node,
            lives_millis: 1,
            reserve: 10,
        })
    };
    // More than one step of upkeep looks at; sessions long gone.
    for upload in 1000..1600 {
        world.elsewhere(lease(upload, NODE));
    }
    world.elsewhere(lease(5000, NodeId(2)));

    world.clock.advance(settings().upload_expiry_millis);
    world.registry.uploads().append(&here, ids[1], None, body(b" again", 6)).await.unwrap();
    world.clock.advance(1);
    let before = world.counts().proposals;
    assert_eq!(expire_all(&world).await, (1, 3), "one session, in turns of 256 rows");
    assert!(world.counts().proposals - before <= 4, "many at once");
    assert_eq!(world.blobs.sessions(), vec![ids[1]]);
    let leased = |id| world.metadata.row(&Key::Upload(here.tenant.clone(), id)).is_some();
    assert_eq!((leased(ids[0]), leased(ids[1])), (false, true));
    assert!((1000..1600).all(|upload| !leased(UploadId(upload))));
    assert!(!leased(UploadId(5000)), "another node may never come back to drop its own");
    let before = world.counts().proposals;
    assert_eq!(expire_all(&world).await, (0, 1));
    assert_eq!(world.counts().proposals, before, "nothing is left to do");
    assert!(leased(ids[1]));
    world.assert_sound();
}

#[tokio::test]
async fn nobody_takes_all_places() {
    let world = world_of(Arc::new(LimitedTenant));
    world.blobs.limit_sessions(6);
    let of = |tenant: &str| RepositoryKey {
        tenant: TenantName::parse(tenant).unwrap(),
        ..repository("app")
    };
    let (greedy, modest) = (of("greedy"), of("modest"));
    let start = async |to: &RepositoryKey| {
        let started = world.registry.uploads().start(to.clone(), Algorithm::Sha256).await;
        started.map(|state| state.id)
    };
    let full = |answer: Result<UploadId, Error>| {
        assert!(matches!(answer, Err(Error::TooManyUploads { .. })), "{answer:?}");
    };
    let mut taken = Vec::new();
    for _ in 0..6 {
        let id = start(&greedy).await.unwrap();
        world.registry.uploads().append(&greedy, id, None, body(b"begun", 5)).await.unwrap();
        taken.push(id);
        world.clock.advance(1);
    }
    full(start(&modest).await);
    world.clock.advance(61_000);
    // One's own are not ended for one's own, as long as they hold something.
    full(start(&greedy).await);
    // Who writes too slowly to be seen keeps their place, and keeps nobody out.
    let (sender, parts) = tokio::sync::mpsc::unbounded_channel();
    let parts = futures_util::stream::unfold(parts, async |mut parts| {
        parts.recv().await.map(|part| (Ok(part), parts))
    });
    let writing = {
        let (registry, greedy, id) = (world.registry.clone(), greedy.clone(), taken.remove(0));
        let body: ByteStream = Box::pin(parts);
        tokio::spawn(async move { registry.uploads().append(&greedy, id, None, body).await })
    };
    tokio::task::yield_now().await;
    let first = start(&modest).await.unwrap();
    sender.send(bytes::Bytes::from_static(b" again")).unwrap();
    drop(sender);
    let written = writing.await.unwrap().unwrap();
    assert_eq!(written.offset, 11);
    assert!(!world.blobs.sessions().contains(&taken[0]), "the oldest makes place");
    assert!(
        world.metadata.row(&Key::Upload(greedy.tenant.clone(), taken[0])).is_none(),
        "and holds nothing"
    );
    let second = start(&modest).await.unwrap();
    let third = start(&modest).await.unwrap();
    // As many as the other: theirs are left to them; the own ones are not idle yet.
    full(start(&modest).await);
    world.registry.uploads().append(&modest, second, None, body(b"begun", 5)).await.unwrap();
    world.clock.advance(61_000);
    let fourth = start(&modest).await.unwrap();
    let mut left = vec![written.id, taken[3], taken[4], second, third, fourth];
    let mut open = world.blobs.sessions();
    left.sort();
    open.sort();
    assert_eq!(open, left, "{first:?} held nothing");
}

#[tokio::test]
async fn builds_that_were_cancelled_keep_nobody_out_for_long() {
    let world = world();
    world.blobs.limit_sessions(3);
    let here = repository("here");
    let start = async || world.registry.uploads().start(here.clone(), Algorithm::Sha256).await;
    let half = async |id| {
        world.registry.uploads().append(&here, id, None, body(b"half", 4)).await.unwrap();
        world.clock.advance(1_000);
    };
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(start().await.unwrap().id);
        half(taken[taken.len() - 1]).await;
    }
    world.clock.advance(2 * 60_000);
    let full = start().await;
    assert!(matches!(full, Err(Error::TooManyUploads { .. })), "they may come back: {full:?}");
    // One that goes on stays.
    half(taken[0]).await;
    world.clock.advance(3 * 60_000);
    let first = start().await.unwrap().id;
    half(first).await;
    let second = start().await.unwrap().id;
    let mut open = world.blobs.sessions();
    open.sort();
    let mut left = vec![taken[0], first, second];
    left.sort();
    assert_eq!(open, left, "the oldest make place, one by one");
    assert!(matches!(start().await, Err(Error::TooManyUploads { .. })), "all others are fresh");
}

/// A world with places for so many sessions. Sessions are opened for named callers, hold some bytes, and are half a second
/// apart.
struct Places {
    world: World,
}

impl Places {
    fn of(sessions_max: usize) -> Self {
        let world = world();
        world.blobs.limit_sessions(sessions_max);
        Self { world }
    }

    fn registry(&self, name: &'static str) -> Registry {
        self.world.registry.by(Arc::new(Somebody { name, stands: true }))
    }

    async fn open(&self, name: &'static str) -> Result<UploadId, Error> {
        self.open_in("default", name).await
    }

    async fn open_in(&self, tenant: &str, name: &'static str) -> Result<UploadId, Error> {
        let tenant = TenantName::parse(tenant).unwrap();
        let here = RepositoryKey { tenant, ..repository("here") };
        let started = self.registry(name).uploads().start(here.clone(), Algorithm::Sha256).await?;
        self.world.registry.uploads().append(&here, started.id, None, body(b"half", 4)).await?;
        self.world.clock.advance(500);
        Ok(started.id)
    }

    fn sessions(&self) -> Vec<UploadId> {
        self.world.blobs.sessions()
    }
}

fn is_over_its_share(answer: Result<UploadId, Error>, own: usize) {
    assert!(
        matches!(answer, Err(Error::TooManyUploadsOfCaller { open }) if open == own),
        "{answer:?}"
    );
}

#[tokio::test]
async fn one_caller_leaves_places_to_others() {
    let places = Places::of(4);
    let first = places.open("alice").await.unwrap();
    places.world.clock.advance(2_000);
    let second = places.open("alice").await.unwrap();
    is_over_its_share(places.open("alice").await, 2);
    let alice = places.registry("alice");
    let whole = alice.uploads().push(repository("here"), sha256(b"one"), body(b"one", 3));
    let pushed = whole.await;
    assert!(matches!(pushed, Err(Error::TooManyUploadsOfCaller { open: 2 })), "{pushed:?}");
    let others = places.open("bob").await.unwrap();
    // What was given up takes nothing from anybody's share, and is ended only when the node is full.
    places.world.clock.advance(5 * 60_000 - 2_500);
    let third = places.open("alice").await.unwrap();
    assert_eq!(places.sessions(), [first, second, others, third]);
    let full = places.open("alice").await;
    assert!(
        matches!(full, Err(Error::TooManyUploads { .. })),
        "one of three was given up: {full:?}"
    );
    places.world.clock.advance(1_500);
    let fourth = places.open("alice").await.unwrap();
    assert_eq!(places.sessions(), [second, others, third, fourth], "the oldest makes place");
}

#[tokio::test]
async fn nothing_is_ended_for_a_caller_who_is_refused_all_the_same() {
    let places = Places::of(12);
    for _ in 0..6 {
        places.open("alice").await.unwrap();
    }
    for _ in 0..3 {
        places.open("bob").await.unwrap();
    }
    places.world.clock.advance(4 * 60_000);
    let before = places.sessions();
    for _ in 0..3 {
        is_over_its_share(places.open("bob").await, 3);
    }
    assert_eq!(places.sessions(), before);
    // One of alice's is given up: it counts as a place, and alice has more than four all the same.
    places.world.clock.advance(60_000 - 4_000);
    is_over_its_share(places.open("alice").await, 6);
    assert_eq!(places.sessions(), before);
}

#[tokio::test]
async fn builds_that_were_cancelled_take_no_share() {
    let places = Places::of(64);
    for build in 0..62 {
        let name = ["a", "b", "c", "d", "e", "f", "g", "h"][build % 8];
        let opened = places.open(name).await;
        if opened.is_err() {
            break;
        }
    }
    places.world.clock.advance(6 * 60_000);
    // A push of twelve layers at once, from a caller of its own, and then the builds' own caller again.
    for _ in 0..12 {
        places.open("pusher").await.unwrap();
    }
    for _ in 0..12 {
        places.open("a").await.unwrap();
    }
}

#[tokio::test]
async fn another_tenants_idle_session_is_ended_only_for_whom_it_helps() {
    let places = Places::of(4);
    let greedy: Vec<_> = [
        places.open_in("greedy", "g").await.unwrap(),
        places.open_in("greedy", "g").await.unwrap(),
        places.open_in("greedy", "h").await.unwrap(),
    ]
    .into();
    places.open_in("modest", "m").await.unwrap();
    let full = places.open_in("modest", "n").await;
    assert!(matches!(full, Err(Error::TooManyUploads { .. })), "nobody is idle yet: {full:?}");
    places.world.clock.advance(61_000);
    places.open_in("modest", "m").await.unwrap();
    assert!(!places.sessions().contains(&greedy[0]), "the oldest makes place");
    let before = places.sessions();
    assert_eq!(before.len(), 4);
    // Two are left that may be ended, and the caller has two already.
    let full = places.open_in("modest", "m").await;
    assert!(matches!(full, Err(Error::TooManyUploads { .. })), "{full:?}");
    assert_eq!(places.sessions(), before, "nothing is ended for nothing");
}

#[tokio::test]
async fn leases_are_found_whichever_tenants_they_are() {
    let world = world();
    let lease = |tenant: &str, number: u128| {
        let repository =
            RepositoryKey { tenant: TenantName::parse(tenant).unwrap(), ..repository("app") };
        let lease = OpenUpload {
            upload: UploadId(number),
            repository,
            node: NODE,
            lives_millis: 60_000,
            reserve: 0,
        };
        world.elsewhere(Action::OpenUpload(lease));
    };
    // More than a page of one tenant, and many tenants.
    for number in 0..300 {
        lease("a", number);
        lease(&format!("t{number:03}"), 1_000 + number);
    }
    let asked = |numbers: &[u128]| numbers.iter().map(|number| UploadId(*number)).collect();
    let ids = asked(&[0, 299, 300, 1_000, 1_299, 1_300]);
    let leased = world.registry.uploads().leased(&ids).await.unwrap();
    assert_eq!(leased, asked(&[0, 299, 1_000, 1_299]));
    let before = world.counts().linearizations;
    assert!(world.registry.uploads().leased(&asked(&[7_000])).await.unwrap().is_empty());
    assert_eq!(world.counts().linearizations, before + 1, "it is seen what others acknowledged");
}

/// The clocks of the cluster and of a machine may be days apart: each age is told by the clock that stamped its beginning.
#[tokio::test]
async fn sessions_age_by_the_machines_clock_and_leases_by_the_clusters() {
    const DAY: u64 = 24 * 3_600_000;
    let world = world();
    let wall = Arc::new(ManualClock::at(Timestamp(NOW.0 - 2 * DAY)));
    let registry = Registry::new(Dependencies { wall: wall.clone(), ..world.dependencies() });
    let here = repository("here");
    let session = registry.uploads().start(here.clone(), Algorithm::Sha256).await.unwrap();
    assert_eq!(session.opened_at, wall.now());
    let lease = OpenUpload {
        upload: UploadId(7),
        repository: here.clone(),
        node: NodeId(2),
        lives_millis: 60_000,
        reserve: 0,
    };
    world.elsewhere(Action::OpenUpload(lease));
    world.metadata.linearize().await.unwrap();
    let lease = Key::Upload(here.tenant.clone(), UploadId(7));
    world.clock.advance(3 * DAY);
    let expired = registry.uploads().expire(None).await.unwrap();
    assert_eq!(expired.dropped, 0, "this machine's clock stands still");
    assert_eq!(world.metadata.row(&lease), None, "the cluster's does not");
    wall.advance(registry.uploads().expiry_millis() + 1);
    let expired = registry.uploads().expire(None).await.unwrap();
    assert_eq!((expired.dropped, world.blobs.sessions()), (1, vec![]));
}
