//! The journal: what comes into it, how its oldest part leaves the state, and who has read how far.

use nora_domain::{
    Action, Actor, AdvanceCursor, CommitBlob, CursorRecord, Deed, DropSegments, Event, Holder, Key,
    NoteRefusals, Outcome, Reason, Record, Refusal, RefusalNote, RemoveCursor, SealJournal,
    SegmentRecord, SegmentsDropped, Store, Subject, Terms, Timestamp, Verb, Verdict,
    system_repository,
};

use crate::universe::{consumer, digest, repository, row};
use crate::world::{World, commit, put, stored, unlink};

/// The cluster's own repository.
const SYSTEM: u8 = 3;

fn seal(first: u64, last: u64, i: u8) -> Action {
    Action::SealJournal(SealJournal { first, last, digest: digest(i), size: 100 })
}

fn drop_older(older_than_millis: u64) -> Action {
    Action::DropSegments(DropSegments { older_than_millis })
}

fn advance(name: &str, number: u64) -> Action {
    Action::AdvanceCursor(AdvanceCursor { consumer: consumer(name), number })
}

fn dropped(dropped: u32, more: bool) -> Result<Outcome, Refusal> {
    Ok(Outcome::DropSegments(SegmentsDropped { dropped, more }))
}

fn numbers(world: &World) -> Vec<u64> {
    world.entries().into_iter().map(|(number, _)| number).collect()
}

fn moved(first: u64) -> Result<Outcome, Refusal> {
    Err(Refusal::JournalMoved { first })
}

/// With entries 1 to 5, and blob 1 in the cluster's own repository.
fn world() -> World {
    let mut world = World::new();
    world.given([commit(SYSTEM, 1), commit(0, 2), put(0, 7, &[2], &[], &["v1"])]);
    world.given([put(0, 8, &[], &[], &[])]);
    assert_eq!(numbers(&world), [1, 2, 3, 4, 5]);
    world
}

#[test]
fn what_changes_nothing_leaves_no_entry() {
    let mut world = world();
    let head = world.store.head().journal.clone();
    world.check(put(0, 8, &[], &[], &[]), stored(false));
    world.check(unlink(0, 5), Err(Refusal::BlobUnknown(digest(5))));
    world.given([advance("c", 3), drop_older(0)]);
    assert_eq!(world.store.head().journal, head);
    // A caller who asked for it is noted all the same, and moves the clock.
    let alice = Actor::named(Subject::User("alice".into()));
    let by = Terms { by: Some(alice.clone()), ..Terms::NONE };
    let refused = world.told(by.clone(), unlink(0, 5));
    assert_eq!(refused.answer, Err(Refusal::BlobUnknown(digest(5))));
    let (number, entry) = world.entries().pop().unwrap();
    assert_eq!((number, entry.position, entry.at), (6, world.position, world.store.head().clock));
    assert_eq!(entry.at, Timestamp(world.position * 1_000));
    assert_eq!((entry.by, entry.count), (Some(alice), 1));
    assert_eq!(entry.verdict, Verdict::Refused(Reason::BlobUnknown));
    assert_eq!(entry.deed.map(|deed| deed.verb), Some(Verb::BlobDelete));
    assert_eq!(entry.events, []);
    // What no caller asks for is no deed of anybody's.
    assert!(world.told(by, drop_older(0)).answer.is_ok());
    assert_eq!(world.entries().len(), 6);
}

#[test]
fn refusals_that_were_no_commands_are_noted_one_by_one() {
    let mut world = world();
    let note = |count| RefusalNote {
        actor: Actor::named(Subject::Anonymous),
        deed: Deed::new(Verb::Several, nora_domain::About::Registry),
        verdict: Verdict::Refused(Reason::LoginNeeded),
        count,
    };
    let refusals = vec![note(3), note(1)];
    world.check(Action::NoteRefusals(NoteRefusals { refusals }), Ok(Outcome::NoteRefusals(())));
    assert_eq!(world.events, []);
    let entries = world.entries();
    assert_eq!(entries[5..].iter().map(|(_, entry)| entry.count).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(entries[5].1.verdict, Verdict::Refused(Reason::LoginNeeded));
}

#[test]
fn the_oldest_entries_leave_for_a_blob_that_is_there() {
    let mut world = world();
    world.check(seal(2, 3, 1), moved(1));
    world.check(seal(1, 6, 1), moved(1));
    world.check(seal(1, 0, 1), moved(1));
    world.check(seal(0, 2, 1), moved(1));
    world.check(seal(1, 3, 4), Err(Refusal::BlobUnknown(digest(4))));
    // A blob of another repository is not the cluster's.
    world.check(seal(1, 3, 2), Err(Refusal::BlobUnknown(digest(2))));
    let lie = SealJournal { first: 1, last: 3, digest: digest(1), size: 99 };
    let conflict = Refusal::SizeConflict { digest: digest(1), live: 100 };
    world.check(Action::SealJournal(lie), Err(conflict));

    let entries = world.entries();
    world.check(seal(1, 3, 1), Ok(Outcome::SealJournal(())));
    assert_eq!(world.pointers, [Event::JournalSealed { first: 1, last: 3 }]);
    assert_eq!(numbers(&world), [4, 5, 6], "the sealing is an entry itself");
    let segment = SegmentRecord {
        last: 3,
        anchor: [0; 32],
        head: entries[2].1.chain,
        last_at: Timestamp(4_000),
        digest: digest(1),
        size: 100,
    };
    assert_eq!(entries[2].1.at, Timestamp(3_000));
    let segment = SegmentRecord { last_at: Timestamp(3_000), ..segment };
    assert_eq!(row(&world.store, &Key::Segment(1)), Some(Record::Segment(segment)));
    let journal = world.store.head().journal.clone();
    assert_eq!((journal.first, journal.next, journal.anchor), (4, 7, entries[2].1.chain));
    let weights: u64 = world.entries().iter().map(|(_, entry)| entry.weight()).sum();
    assert_eq!(journal.bytes, weights);
    // The segment keeps its blob.
    let referenced = Refusal::BlobReferenced { digest: digest(1), by: Holder::Segment(1) };
    world.check(unlink(SYSTEM, 1), Err(referenced));

    // Two nodes that seal at once: the second finds the rows elsewhere.
    world.check(seal(1, 3, 1), moved(4));
    // The chain goes on, and every entry may leave.
    world.given([seal(4, 6, 1)]);
    assert_eq!(numbers(&world), [7]);
    world.given([seal(7, 7, 1)]);
    assert_eq!(numbers(&world), [8]);
}

#[test]
fn a_segment_holds_so_many_entries_and_no_more() {
    let mut world = world();
    let note = RefusalNote {
        actor: Actor::default(),
        deed: Deed::new(Verb::Several, nora_domain::About::Registry),
        verdict: Verdict::Done,
        count: 1,
    };
    let many = SealJournal::ENTRIES_MAX;
    let refusals = vec![note; usize::try_from(many).unwrap()];
    world.given([Action::NoteRefusals(NoteRefusals { refusals })]);
    world.check(seal(1, many + 1, 1), moved(1));
    world.check(seal(1, many, 1), Ok(Outcome::SealJournal(())));
    assert_eq!(world.store.head().journal.first, many + 1);
    assert_eq!(numbers(&world).first(), Some(&(many + 1)), "a row stayed");
}

#[test]
fn old_segments_are_forgotten_with_their_blobs() {
    let mut world = world();
    world.given([commit(SYSTEM, 3), seal(1, 3, 1), seal(4, 5, 3), seal(6, 7, 1)]);
    assert_eq!(numbers(&world), [8, 9]);
    let shown = |world: &World, i| world.has(&Key::Link(system_repository(), digest(i)));
    // Entry 3 is of 4,000, entry 5 of 5,000 and entry 7 of 7,000.
    assert_eq!(world.answer(20_000, drop_older(20_000)), dropped(0, false));
    assert_eq!(world.answer(20_000, drop_older(16_999)), dropped(1, false));
    assert_eq!(world.pointers, [Event::JournalDropped { first: 4 }]);
    assert!(!world.has(&Key::Segment(1)) && shown(&world, 1), "another segment is in that blob");
    // A clock that is behind forgets nothing more.
    assert_eq!(world.answer(1_000, drop_older(16_999)), dropped(0, false));
    assert_eq!(world.answer(20_000, drop_older(0)), dropped(2, false));
    assert!(!shown(&world, 1) && !shown(&world, 3));
    assert_eq!(world.pointers, [Event::JournalDropped { first: 8 }]);
    assert!(world.events.contains(&Event::RepositoryRemoved { repository: system_repository() }));
    // Entries that are rows stay, and the chain goes on from them.
    assert_eq!(numbers(&world), [8, 9, 10, 11]);
    assert_eq!(world.answer(99_000, drop_older(0)), dropped(0, false));
    assert_eq!(world.usage(SYSTEM), None);
}

#[test]
fn very_many_segments_go_a_few_a_step() {
    let mut world = World::new();
    world.given([commit(SYSTEM, 1)]);
    for first in 1..=20 {
        world.given([seal(first, first, 1)]);
    }
    assert_eq!(world.answer(99_000, drop_older(0)), dropped(16, true));
    assert!(world.has(&Key::Link(system_repository(), digest(1))));
    assert_eq!(world.answer(99_000, drop_older(0)), dropped(4, false));
    assert!(!world.has(&Key::Link(system_repository(), digest(1))));
}

#[test]
fn a_blob_of_a_lost_copy_takes_no_entries() {
    let mut world = world();
    let lost = nora_domain::DropHolder {
        digest: digest(1),
        generation: crate::world::generation(1, 1),
        node: crate::world::NODE,
        keep: 0,
    };
    world.given([Action::DropHolder(lost)]);
    world.check(seal(1, 3, 1), Err(Refusal::BlobUnknown(digest(1))));
    let mut again = commit(SYSTEM, 1);
    if let Action::CommitBlob(CommitBlob { generation, .. }) = &mut again {
        generation.sequence = 9;
    }
    world.given([again]);
    world.check(seal(1, 3, 1), Ok(Outcome::SealJournal(())));
}

#[test]
fn a_consumer_never_reads_backwards_or_ahead() {
    let mut world = world();
    let key = || Key::Cursor(consumer("webhooks"));
    let cursor = |world: &World| match row(&world.store, &key()) {
        Some(Record::Cursor(CursorRecord { number, noted_at })) => Some((number, noted_at.0)),
        _ => None,
    };
    let done = || Ok(Outcome::AdvanceCursor(()));
    world.check(advance("webhooks", 0), done());
    assert_eq!(cursor(&world), None);
    world.check(advance("webhooks", 3), done());
    assert_eq!(cursor(&world), Some((3, 7_000)));
    world.check(advance("webhooks", 2), done());
    world.check(advance("webhooks", 3), done());
    assert_eq!(cursor(&world), Some((3, 7_000)));
    world.check(advance("webhooks", 99), done());
    assert_eq!(cursor(&world), Some((5, 10_000)), "there is no entry behind the fifth");
    world.given([advance("metrics", 1)]);
    let remove = || Action::RemoveCursor(RemoveCursor { consumer: consumer("webhooks") });
    world.check(remove(), Ok(Outcome::RemoveCursor(())));
    world.check(remove(), Ok(Outcome::RemoveCursor(())));
    assert_eq!(cursor(&world), None);
    assert!(world.has(&Key::Cursor(consumer("metrics"))));
    assert_eq!(world.store.head().journal.next, 6, "nobody's reading is news");
}

#[test]
fn the_clusters_own_repository_is_no_tenants() {
    let system = system_repository();
    assert_eq!(system.tenant.as_str(), "_system");
    assert!((0..3).all(|i| repository(i).tenant != system.tenant));
    // What tenants do does not touch it.
    let mut world = world();
    assert_eq!(world.usage(SYSTEM).map(|usage| usage.links), Some(1));
    world.given([commit(0, 1), unlink(0, 1)]);
    assert_eq!(world.usage(SYSTEM).map(|usage| usage.links), Some(1));
}
