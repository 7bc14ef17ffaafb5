//! The journal across rows and sealed parts: whole, in order, bounded, and proof against tampering.

use std::sync::Arc;

use nora_app::ports::journal::Segments;
use nora_app::ports::{BoxError, BoxFuture};
use nora_app::testkit::{ManualClock, MemorySegments, repository};
use nora_app::{Dependencies, Error, Registry};
use nora_domain::{
    Action, ConsumerName, CursorRecord, Digest, Entry, Epoch, JournalHead, Key, Record, Reference,
    SealJournal, Timestamp, system_repository,
};

use crate::support::{Call, HASHES, NOW, World, artifact, tag, world};

/// A tag moves to and fro, so many times: an entry each, each a millisecond after the one before.
async fn flips(world: &World, count: usize) {
    let here = repository("here");
    let mut targets = Vec::new();
    for content in ["one", "other"] {
        let put = artifact(&here, content);
        targets.push(put.digest);
        if world.registry.artifacts().put(put).await.unwrap() {
            world.clock.advance(1);
        }
    }
    let mut named = world.registry.tags().resolve(&here, &tag("t")).await.ok();
    for _ in 0..count {
        let next = if named == Some(targets[0]) { targets[1] } else { targets[0] };
        named = Some(next);
        world.registry.tags().set(here.clone(), tag("t"), Reference::Digest(next)).await.unwrap();
        world.clock.advance(1);
    }
}

/// Seals until the rows take no more than that.
async fn seal(registry: &Registry, bytes_max: u64) {
    while registry.journal().seal(bytes_max).await.unwrap() {}
}

async fn head(world: &World) -> JournalHead {
    world.registry.journal().head().await.unwrap()
}

fn segments(world: &World) -> Vec<u64> {
    let keys = world.metadata.keys().into_iter();
    keys.filter_map(|key| match key {
        Key::Segment(first) => Some(first),
        _ => None,
    })
    .collect()
}

/// Numbers of all entries, read page by page.
async fn numbers(registry: &Registry, mut after: u64, limit: usize) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let page = registry.journal().entries(after, limit).await.unwrap();
        assert!(page.items.len() <= limit);
        found.extend(page.items.iter().map(|(number, _)| *number));
        after = found.last().copied().unwrap_or(after);
        if !page.more {
            return found;
        }
    }
}

#[tokio::test]
async fn pages_hold_every_entry_once_and_in_order() {
    let world = world();
    for _ in 0..3 {
        flips(&world, 2_000).await;
        seal(&world.registry, 100_000).await;
        assert!(head(&world).await.bytes <= 100_000);
    }
    let JournalHead { first, next, .. } = head(&world).await;
    assert!(first > 5_000 && next - first > 100, "{first}, {next}");
    assert_eq!(segments(&world).len(), 3);
    for limit in [7, 1_000, 20_000] {
        let found = numbers(&world.registry, 0, limit).await;
        assert!(found.into_iter().eq(1..next), "in pages of {limit}");
    }
    for after in [1, 1_999, first - 2, first - 1, first, next - 2, next - 1, next + 5] {
        let found = numbers(&world.registry, after, 500).await;
        assert!(found.into_iter().eq(after + 1..next), "after {after}");
    }
    let check = world.registry.journal().verify().await.unwrap();
    assert_eq!((check.first, check.last, check.broken), (1, next - 1, None));
    world.assert_sound();
}

#[tokio::test]
async fn more_sealed_parts_than_a_page_are_read_through() {
    let world = world();
    for _ in 0..150 {
        flips(&world, 10).await;
        seal(&world.registry, 3_000).await;
    }
    let (parts, next) = (segments(&world), head(&world).await.next);
    assert!(parts.len() > 130, "{}", parts.len());
    for limit in [9, 5_000] {
        assert!(numbers(&world.registry, 0, limit).await.into_iter().eq(1..next));
    }
    let late = *parts.last().unwrap();
    assert_eq!(world.registry.journal().entries(late, 1).await.unwrap().items[0].0, late + 1);
    assert_eq!(world.registry.journal().verify().await.unwrap().broken, None);
    world.assert_sound();
}

#[tokio::test]
async fn one_part_holds_no_more_than_a_step_may_seal() {
    let world = world();
    flips(&world, 9_000).await;
    assert!(world.registry.journal().seal(1_000).await.unwrap(), "there is more to do");
    assert_eq!(head(&world).await.first, SealJournal::ENTRIES_MAX + 1);
    seal(&world.registry, 5_000).await;
    assert!(head(&world).await.bytes <= 5_000);
    let before = world.counts().proposals;
    assert!(!world.registry.journal().seal(5_000).await.unwrap());
    assert_eq!(world.counts().proposals, before, "nothing to do costs nothing");
    // A bound that sealing itself exceeds comes to an end all the same.
    seal(&world.registry, 1).await;
    let next = head(&world).await.next;
    assert!(numbers(&world.registry, 0, 5_000).await.into_iter().eq(1..next));
    world.assert_sound();
}

/// What a quiet cluster never has enough of to seal it goes by its age all the same, and the entries that this makes stay few.
#[tokio::test]
async fn entries_whose_time_is_over_go_although_they_are_few() {
    const KEPT: u64 = 80_000;
    let world = world();
    let keep = async || {
        world.registry.journal().seal_overdue(KEPT).await.unwrap();
        while world.registry.journal().drop_segments(KEPT).await.unwrap() {}
    };
    flips(&world, 50).await;
    let early = head(&world).await.next;
    world.clock.advance(KEPT / 2);
    flips(&world, 5).await;
    let before = world.counts().proposals;
    world.clock.advance(KEPT / 2);
    keep().await;
    assert_eq!(world.counts().proposals, before, "an entry may stay an eighth longer");
    world.clock.advance(KEPT / 8);
    keep().await;
    let left = numbers(&world.registry, 0, 500).await;
    let next = head(&world).await.next;
    assert!(left.iter().copied().eq(early..next), "from {early} to {next}: {left:?}");
    assert_eq!(segments(&world), []);
    assert_eq!(world.registry.journal().verify().await.unwrap().broken, None);
    // Left alone for a year of that, it makes no more than it drops.
    for _ in 0..1_000 {
        world.clock.advance(KEPT / 8);
        keep().await;
    }
    let left = numbers(&world.registry, 0, 500).await;
    assert!(left.len() < 64, "{} entries", left.len());
    world.assert_sound();
}

/// The journal is stamped by the cluster's clock, which may be a day ahead of the leader's own.
#[tokio::test]
async fn a_leader_whose_own_clock_is_behind_lets_old_entries_go() {
    const KEPT: u64 = 80_000;
    let world = world();
    let wall = Arc::new(ManualClock::at(Timestamp(NOW.0 - 24 * 3_600_000)));
    let registry = Registry::new(Dependencies { wall, ..world.dependencies() });
    flips(&world, 50).await;
    let early = head(&world).await.next;
    world.clock.advance(2 * KEPT);
    registry.journal().seal_overdue(KEPT).await.unwrap();
    while registry.journal().drop_segments(KEPT).await.unwrap() {}
    assert_eq!(numbers(&registry, 0, 500).await.first(), Some(&early));
}

/// Calls of a read to the metadata, and a few more.
const CALLS: usize = 20;

/// What happens while somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upkeep {
    Seal,
    Drop,
}

/// A world with sealed parts and rows; and a registry of it that meets the upkeep before its call of that number.
async fn racing(upkeep: Upkeep, number: usize) -> (World, Registry) {
    let world = world();
    for _ in 0..2 {
        flips(&world, 20).await;
        seal(&world.registry, 3_000).await;
    }
    flips(&world, 20).await;
    let (registry, clock) = (world.registry.clone(), world.clock.clone());
    let reader = world.meddled_at(number, async move {
        seal(&registry, 2_000).await;
        if upkeep == Upkeep::Drop {
            clock.advance(1_000);
            while registry.journal().drop_segments(100).await.unwrap() {}
        }
    });
    (world, reader)
}

#[tokio::test]
async fn a_page_that_is_read_while_entries_are_sealed_has_no_gap() {
    for number in 0..CALLS {
        for after in [0, 30, 48, 60] {
            let (_world, reader) = racing(Upkeep::Seal, number).await;
            let page = reader.journal().entries(after, 1_000).await.unwrap();
            let found = page.items.iter().map(|(number, _)| *number);
            assert!(!page.items.is_empty(), "{after}, sealed before call {number}");
            assert!(
                found.eq(after + 1..after + 1 + page.items.len() as u64),
                "after {after}, sealed before call {number}"
            );
        }
    }
}

#[tokio::test]
async fn parts_that_are_dropped_while_they_are_read_are_left_out() {
    for number in 0..CALLS {
        let (world, reader) = racing(Upkeep::Drop, number).await;
        let before = head(&world).await.next;
        let found = numbers(&reader, 0, 1_000).await;
        let JournalHead { first, next, .. } = head(&world).await;
        assert_eq!(found.last(), Some(&(next - 1)), "before call {number}");
        for pair in found.windows(2) {
            // What was dropped between two pages is all that may be missing.
            let is_next = pair[1] == pair[0] + 1 || pair[0] < first && pair[1] == first;
            assert!(next >= before && is_next, "{pair:?}, before call {number}");
        }
    }
}

#[tokio::test]
async fn upkeep_while_the_chain_is_verified_breaks_nothing() {
    for upkeep in [Upkeep::Seal, Upkeep::Drop] {
        for number in 0..CALLS {
            let (world, reader) = racing(upkeep, number).await;
            let check = reader.journal().verify().await;
            let check = check.unwrap_or_else(|error| panic!("{upkeep:?} {number}: {error:?}"));
            assert_eq!(check.broken, None, "{upkeep:?} before call {number}");
            assert!(check.last > check.first);
            world.assert_sound();
        }
    }
}

#[tokio::test]
async fn an_entry_is_found_by_its_time_wherever_it_is() {
    let (world, _) = racing(Upkeep::Seal, usize::MAX).await;
    let entries = all_entries(&world.registry).await;
    assert_eq!(entries[0].0, 1);
    let (first, last) = (entries[0].1.at, entries[entries.len() - 1].1.at);
    for time in (first.0 - 1..last.0 + 3).map(Timestamp) {
        let expected = entries.iter().filter(|(_, entry)| entry.at < time).count() as u64;
        assert_eq!(world.registry.journal().before(time).await.unwrap(), expected, "{time:?}");
        for number in (0..CALLS).step_by(if time.0 % 7 == 0 { 1 } else { CALLS }) {
            let (_world, reader) = racing(Upkeep::Seal, number).await;
            let before = reader.journal().before(time).await.unwrap();
            // What the sealing itself adds comes later than everything here.
            let expected = if time > last { before.max(expected) } else { expected };
            assert_eq!(before, expected, "{time:?}, sealed before call {number}");
        }
    }
}

/// All entries that are kept.
async fn all_entries(registry: &Registry) -> Vec<(u64, Entry)> {
    let mut entries: Vec<(u64, Entry)> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |(number, _)| *number);
        let page = registry.journal().entries(after, 1_000).await.unwrap();
        entries.extend(page.items);
        if !page.more {
            return entries;
        }
    }
}

#[tokio::test]
async fn an_entry_is_found_by_its_time_while_old_parts_are_dropped() {
    let (world, _) = racing(Upkeep::Seal, usize::MAX).await;
    let all = all_entries(&world.registry).await;
    let (first, middle) = (all[0].1.at, all[all.len() / 2].1.at);
    for time in [Timestamp(0), first.plus_millis(5), middle] {
        for number in 0..CALLS {
            let (world, reader) = racing(Upkeep::Drop, number).await;
            let before = reader.journal().before(time).await;
            let before = before.unwrap_or_else(|error| panic!("{time:?}, {number}: {error:?}"));
            let kept = all_entries(&world.registry).await;
            let later = kept.iter().find(|(_, entry)| entry.at >= time);
            let page = world.registry.journal().entries(before, 1).await.unwrap();
            assert_eq!(page.items.first(), later, "{time:?}, dropped before call {number}");
            assert!(!page.items.is_empty(), "what upkeep does itself is later than all of that");
        }
    }
}

/// Segments of which one comes back otherwise than it was written.
struct Tampered {
    honest: Arc<MemorySegments>,
    change: fn(&mut Vec<(u64, Entry)>),
}

impl Segments for Tampered {
    fn encode(&self, entries: &[(u64, Entry)]) -> (Digest, Vec<u8>) {
        self.honest.encode(entries)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<(u64, Entry)>, BoxError> {
        let mut entries = self.honest.decode(bytes)?;
        if entries.iter().any(|(number, _)| *number == 30) {
            (self.change)(&mut entries);
        }
        Ok(entries)
    }
}

fn place(entries: &[(u64, Entry)], wanted: u64) -> usize {
    entries.iter().position(|(number, _)| *number == wanted).unwrap()
}

/// Something that happens to entries that are read.
type Change = fn(&mut Vec<(u64, Entry)>);

#[tokio::test]
async fn a_tampered_part_is_found() {
    let changes: [(Change, u64); 6] = [
        (
            |entries| {
                let at = place(entries, 30);
                entries[at].1.position += 1;
            },
            30,
        ),
        (
            |entries| {
                let at = place(entries, 30);
                entries[at].1.events.clear();
            },
            30,
        ),
        // Even if the entry's own value is made to fit.
        (
            |entries| {
                let at = place(entries, 30);
                let before = entries[at - 1].1.chain;
                entries[at].1.count = 9;
                entries[at].1.chain = entries[at].1.chained(&before, 30);
            },
            31,
        ),
        (
            |entries| {
                let at = place(entries, 30);
                entries.remove(at);
            },
            30,
        ),
        (
            |entries| {
                let at = place(entries, 30);
                let (one, other) = (entries[at].1.clone(), entries[at + 1].1.clone());
                (entries[at].1, entries[at + 1].1) = (other, one);
            },
            30,
        ),
        // The part ends too early: 40 is within it.
        (|entries| entries.retain(|(number, _)| *number < 40), 40),
    ];
    for (place, (change, broken)) in changes.into_iter().enumerate() {
        let world = world();
        let honest = Arc::new(MemorySegments::new(HASHES));
        let segments = Arc::new(Tampered { honest, change });
        let registry = Registry::new(Dependencies { segments, ..world.dependencies() });
        flips(&world, 50).await;
        seal(&registry, 500).await;
        flips(&world, 5).await;
        assert!(head(&world).await.first > 40);
        let check = registry.journal().verify().await.unwrap();
        assert_eq!((check.first, check.broken), (1, Some(broken)), "change {place}");
        assert_eq!(world.metadata.audit(), vec![], "the rows are as they were");
    }
}

#[tokio::test]
async fn a_part_that_ends_too_early_is_no_endless_list() {
    let world = world();
    let honest = Arc::new(MemorySegments::new(HASHES));
    let change: fn(&mut Vec<(u64, Entry)>) = |entries| entries.retain(|(number, _)| *number < 40);
    let segments = Arc::new(Tampered { honest, change });
    let registry = Registry::new(Dependencies { segments, ..world.dependencies() });
    flips(&world, 50).await;
    seal(&registry, 500).await;
    let page = registry.journal().entries(20, 1_000).await.unwrap();
    assert_eq!(page.items.last().map(|(number, _)| *number), Some(39));
    let beyond = registry.journal().entries(39, 1_000).await;
    assert!(matches!(beyond, Err(Error::Internal { .. })), "{beyond:?}");
}

/// Two nodes seal at once: the second one does all of it right before the first one proposes `before`.
async fn sealed_twice(entries: usize, bounds: (u64, u64), before: fn(&Action) -> bool) -> World {
    let world = world();
    flips(&world, entries).await;
    let node = world.second_node();
    world.registry.catch_up().await.unwrap();
    let second = Registry::new(Dependencies { node, epoch: Epoch(2), ..world.dependencies() });
    let mut comes = true;
    let first = world.meddled(move |call| {
        let Call::Propose(action) = call else { return None };
        if !before(action) || !std::mem::take(&mut comes) {
            return None;
        }
        let second = second.clone();
        Some(Box::pin(async move {
            second.journal().seal(bounds.1).await.unwrap();
        }) as BoxFuture<'static, ()>)
    });
    assert!(first.journal().seal(bounds.0).await.unwrap(), "it looks again");
    world
}

/// Blobs that the cluster's own repository shows.
fn shown(world: &World) -> Vec<Digest> {
    let keys = world.metadata.keys().into_iter();
    keys.filter_map(|key| match key {
        Key::Link(repository, digest) if repository == system_repository() => Some(digest),
        _ => None,
    })
    .collect()
}

fn sealed(world: &World) -> Vec<Digest> {
    let segments = segments(world).into_iter();
    segments
        .map(|first| match world.metadata.row(&Key::Segment(first)) {
            Some(Record::Segment(segment)) => segment.digest,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn of_two_nodes_that_seal_at_once_one_wins() {
    let moments: [fn(&Action) -> bool; 2] = [
        |action| matches!(action, Action::CommitBlob(_)),
        |action| matches!(action, Action::SealJournal(_)),
    ];
    for before in moments {
        // Other entries: the second one's blob alone stays.
        let world = sealed_twice(200, (20_000, 10_000), before).await;
        assert_eq!((segments(&world).len(), shown(&world)), (1, sealed(&world)));
        let next = head(&world).await.next;
        assert!(numbers(&world.registry, 0, 1_000).await.into_iter().eq(1..next));
        world.assert_sound();

        // The same entries, as many as a part holds: the blob is needed, and stays.
        let world = sealed_twice(8_400, (1_000, 1_000), before).await;
        assert_eq!((segments(&world).len(), shown(&world)), (1, sealed(&world)));
        assert_eq!(head(&world).await.first, SealJournal::ENTRIES_MAX + 1);
        let next = head(&world).await.next;
        assert!(numbers(&world.registry, 0, 1_000).await.into_iter().eq(1..next));
        assert_eq!(world.registry.journal().verify().await.unwrap().broken, None);
        world.assert_sound();
    }
}

#[tokio::test]
async fn old_parts_are_dropped_and_their_blobs_shown_no_more() {
    let world = world();
    for _ in 0..20 {
        flips(&world, 20).await;
        seal(&world.registry, 2_000).await;
        world.clock.advance(1_000);
    }
    let before = world.counts().proposals;
    assert!(!world.registry.journal().drop_segments(60_000).await.unwrap());
    assert_eq!(world.counts().proposals, before, "nothing is old enough");
    let parts = segments(&world).len();
    assert!(parts >= 20);
    assert!(
        world.registry.journal().drop_segments(2_500).await.unwrap(),
        "a step drops so many at most"
    );
    while world.registry.journal().drop_segments(2_500).await.unwrap() {}
    let left = segments(&world);
    assert!((1..5).contains(&left.len()), "{left:?} of {parts}");
    assert_eq!(shown(&world).len(), left.len());
    let next = head(&world).await.next;
    assert!(numbers(&world.registry, 0, 1_000).await.into_iter().eq(left[0]..next));
    let check = world.registry.journal().verify().await.unwrap();
    assert_eq!((check.first, check.broken), (left[0], None));
    world.clock.advance(10_000);
    while world.registry.journal().drop_segments(2_500).await.unwrap() {}
    assert_eq!((segments(&world), shown(&world)), (vec![], vec![]));
    assert_eq!(world.registry.journal().verify().await.unwrap().broken, None);
    world.assert_sound();
}

#[tokio::test]
async fn a_cursor_goes_on_and_never_back() {
    let world = world();
    flips(&world, 20).await;
    let consumer = || ConsumerName::parse("audit-webhook").unwrap();
    let cursor = async || world.registry.journal().cursor(consumer()).await.unwrap();
    assert_eq!(cursor().await, CursorRecord::default());
    let now = Timestamp(NOW.0 + 22);
    world.registry.journal().advance(consumer(), 10).await.unwrap();
    assert_eq!(cursor().await, CursorRecord { number: 10, noted_at: now });
    world.registry.journal().advance(consumer(), 7).await.unwrap();
    assert_eq!(cursor().await.number, 10);
    let last = head(&world).await.next - 1;
    world.registry.journal().advance(consumer(), last + 100).await.unwrap();
    assert_eq!(cursor().await.number, last, "no further than there are entries");
    assert_eq!(head(&world).await.next - 1, last, "reading adds nothing to read");
    let other =
        world.registry.journal().cursor(ConsumerName::parse("other").unwrap()).await.unwrap();
    assert_eq!(other, CursorRecord::default());
    world.assert_sound();
}

/// The bound of the journal's rows, and how long sealed parts are kept, in a long run.
const BYTES_MAX: u64 = 100_000;
const KEPT_MILLIS: u64 = 200_000;

/// Rows by what they hang on: the journal's own, physical blobs, and all others.
fn rows(world: &World) -> (usize, usize, usize) {
    let (mut journal, mut blobs, mut others) = (0, 0, 0);
    for key in world.metadata.keys() {
        let is_the_clusters = key.tenant().is_some_and(|of| *of == system_repository().tenant);
        match key {
            Key::Journal(_) | Key::Segment(_) => journal += 1,
            Key::HeldBy(_, tenant) if tenant == system_repository().tenant => journal += 1,
            Key::Blob(_) => blobs += 1,
            _ if is_the_clusters => journal += 1,
            _ => others += 1,
        }
    }
    (journal, blobs, others)
}

/// Pushes an image, pulls it and deletes all of it again: four changes, and a note of the pull.
async fn come_and_go(world: &World, round: u32) {
    let here = repository("here");
    let content = (round % 10).to_be_bytes();
    let layer = world.push(&here, &content).await.unwrap().digest;
    let mut put = artifact(&here, format!("image {round}"));
    (put.blobs, put.tags) = (vec![layer], vec![tag(&format!("t{round}"))]);
    let digest = put.digest;
    world.registry.artifacts().put(put).await.unwrap();
    let name = Reference::Tag(tag(&format!("t{round}")));
    world.registry.artifacts().get(&here, &name).await.unwrap();
    world.registry.artifacts().write_pulls().await.unwrap();
    world.registry.artifacts().delete(here.clone(), digest).await.unwrap();
    world.registry.blobs().unlink(here, layer).await.unwrap();
    world.clock.advance(1_000);
}

#[tokio::test]
async fn the_state_does_not_grow_with_time() {
    let world = world();
    let (mut after_some, mut parts) = ((0, 0, 0), 0);
    for round in 0..5_000 {
        come_and_go(&world, round).await;
        assert!(head(&world).await.bytes <= BYTES_MAX + 10_000, "round {round}");
        if round % 10 == 9 {
            seal(&world.registry, BYTES_MAX).await;
            while world.registry.journal().drop_segments(KEPT_MILLIS).await.unwrap() {}
            assert!(head(&world).await.bytes <= BYTES_MAX, "round {round}");
        }
        if round == 499 {
            // By then the first sealed parts are old enough to go.
            after_some = rows(&world);
        }
        parts = parts.max(segments(&world).len() * usize::from(round % 100 == 0));
    }
    assert!(head(&world).await.next > 20_000);
    let (journal, blobs, others) = rows(&world);
    assert_eq!(others, after_some.2, "nothing that was deleted leaves a row");
    let most = BYTES_MAX as usize / 288 + 6 * parts;
    assert!(journal <= most && parts < 10, "{journal} rows, {parts} parts");
    // Ten layers; and physical blobs of dropped parts, which are the garbage collection's to remove.
    let next = head(&world).await.next as usize;
    assert!(blobs <= 10 + next / 100, "{blobs} blobs");
    let check = world.registry.journal().verify().await.unwrap();
    assert!(check.first > 15_000 && check.broken.is_none(), "{check:?}");
    world.assert_sound();
}
