//! Versions and their files: published once, by one, and gone for good if that was asked for.

use nora_domain::{
    Action, DeleteFile, DeleteVersion, Event, Expected, Facts, HashKind, Holder, Item, Key,
    LimitsRecord, NewFile, NotePulls, Outcome, PutVersion, Quota, Record, Refusal, SetPolicy,
    SetVersionState, Target, Terms, Timestamp, UsageRecord, VersionDeleted, VersionRecord,
    VersionState, VersionStored,
};

use crate::universe::{digest, file, found, repository, row, tag, version};
use crate::world::{World, commit, created, delete_tag, linked, mount, set_tag, unlink, unlinked};

/// A version with inline facts of three bytes and these (file, blob).
fn publish(repo: u8, name: &str, expected: Expected, files: &[(&str, u8)]) -> Action {
    let new = |(name, blob): &(&str, u8)| NewFile {
        name: file(name),
        digest: digest(*blob),
        size: 100,
        hashes: vec![(HashKind::Sha1, vec![*blob; 20])],
    };
    Action::PutVersion(PutVersion {
        repository: repository(repo),
        version: version(name),
        expected,
        facts: Some(Facts::Inline(vec![1, 2, 3].into())),
        files: files.iter().map(new).collect(),
        tags: Vec::new(),
    })
}

fn with(mut action: Action, change: impl FnOnce(&mut PutVersion)) -> Action {
    if let Action::PutVersion(put) = &mut action {
        change(put);
    }
    action
}

fn stored(created: bool, revision: u64) -> Result<Outcome, Refusal> {
    Ok(Outcome::PutVersion(VersionStored { created, revision }))
}

fn state(name: &str, state: VersionState) -> Action {
    let repository = repository(0);
    Action::SetVersionState(SetVersionState { repository, version: version(name), state })
}

fn delete(name: &str, tombstone: bool) -> Action {
    let repository = repository(0);
    Action::DeleteVersion(DeleteVersion { repository, version: version(name), tombstone })
}

fn delete_file(name: &str, of: &str) -> Action {
    let repository = repository(0);
    Action::DeleteFile(DeleteFile { repository, version: version(name), file: file(of) })
}

fn deleted(more: bool) -> Result<Outcome, Refusal> {
    Ok(Outcome::DeleteVersion(VersionDeleted { more }))
}

fn known(world: &World, name: &str) -> Option<VersionRecord> {
    match row(&world.store, &Key::Version(repository(0), version(name))) {
        Some(Record::Version(known)) => Some(known),
        _ => None,
    }
}

fn published(name: &str, created: bool) -> Event {
    Event::VersionPublished { repository: repository(0), version: version(name), created }
}

fn file_published(name: &str, of: &str, blob: u8) -> Event {
    Event::FilePublished {
        repository: repository(0),
        version: version(name),
        file: file(of),
        digest: digest(blob),
        size: 100,
    }
}

fn edge(world: &World, blob: u8, holder: Holder) -> bool {
    world.has(&Key::Edge(repository(0), digest(blob), holder))
}

fn holder(name: &str, of: &str) -> Holder {
    Holder::File(version(name), file(of))
}

/// With blobs 1 and 3 in repository 0.
fn world() -> World {
    let mut world = World::new();
    world.given([commit(0, 1), commit(0, 3)]);
    world
}

#[test]
fn a_version_comes_with_its_facts_files_and_tags_in_one_step() {
    let mut world = world();
    let put = publish(0, "1.0", Expected::Absent, &[("f0", 1), ("f1", 3), ("f2", 1)]);
    world.check(with(put, |put| put.tags = vec![tag("latest")]), stored(true, 4));
    let moved = Event::TagMoved {
        repository: repository(0),
        tag: tag("latest"),
        from: None,
        to: Target::Version(version("1.0")),
    };
    let files = [("f0", 1), ("f1", 3), ("f2", 1)].map(|(of, i)| file_published("1.0", of, i));
    assert_eq!(world.events[..3], files);
    assert_eq!(world.events[3..], [published("1.0", true), moved]);
    let expected = VersionRecord {
        state: VersionState::Live,
        facts: Facts::Inline(vec![1, 2, 3].into()),
        files: 3,
        published_at: Timestamp(4_000),
        revision: 4,
    };
    assert_eq!(known(&world, "1.0"), Some(expected));
    match row(&world.store, &Key::File(repository(0), version("1.0"), file("f1"))) {
        Some(Record::File(known)) => {
            assert_eq!((known.digest, known.size), (digest(3), 100));
            assert_eq!(known.hashes, [(HashKind::Sha1, vec![3; 20])]);
            assert_eq!(known.uploaded_at, Timestamp(4_000));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((world.held(0, 1).references, world.held(0, 3).references), (2, 1));
    let usage = UsageRecord {
        bytes: 203,
        unique_bytes: 203,
        versions: 1,
        tags: 1,
        links: 2,
        ..UsageRecord::default()
    };
    assert_eq!(world.usage(0), Some(usage));
    let record = world.repository(0).unwrap();
    assert_eq!((record.versions, record.tags, record.revision), (1, 1, 4));
    let referenced = Refusal::BlobReferenced { digest: digest(3), by: holder("1.0", "f1") };
    world.check(unlink(0, 3), Err(referenced));
    assert_eq!(
        Refusal::BlobReferenced { digest: digest(3), by: holder("1.0", "f1") }.reason(),
        nora_domain::Reason::BlobReferenced
    );
}

#[test]
fn of_two_publishers_one_wins_and_the_other_loses_whole() {
    let mut world = world();
    let rival = || {
        let put = publish(0, "1.0", Expected::Absent, &[("f1", 3)]);
        with(put, |put| put.tags = vec![tag("latest")])
    };
    world.check(publish(0, "1.0", Expected::Absent, &[("f0", 1)]), stored(true, 4));
    world.check(rival(), Err(Refusal::VersionExists(version("1.0"))));
    assert!(!world.has(&Key::File(repository(0), version("1.0"), file("f1"))));
    assert!(world.tag(0, "latest").is_none() && !edge(&world, 3, holder("1.0", "f1")));
    // The same name in another repository is another version.
    world.given([mount(0, 2, 1), publish(2, "1.0", Expected::Absent, &[("f0", 1)])]);

    // Both saw revision 4, and one of them changed it.
    let seen = Expected::Revision(4);
    world.check(publish(0, "1.0", seen, &[("f1", 3)]), stored(false, 8));
    let late = publish(0, "1.0", seen, &[("f2", 3)]);
    world.check(late, Err(Refusal::VersionChanged(version("1.0"))));
    let none = publish(0, "9.9", seen, &[]);
    world.check(none, Err(Refusal::VersionChanged(version("9.9"))));
    world.check(publish(0, "1.0", Expected::Any, &[("f2", 3)]), stored(false, 11));
    world.check(publish(0, "1.1", Expected::Any, &[]), stored(true, 12));
    assert_eq!(known(&world, "1.0").map(|known| known.files), Some(3));
}

#[test]
fn files_are_added_and_never_changed() {
    let mut world = world();
    let first = publish(0, "1.0", Expected::Absent, &[("f0", 1), ("f0", 1)]);
    world.check(first, stored(true, 4));
    assert_eq!(known(&world, "1.0").map(|known| known.files), Some(1), "named twice is one");
    let exists = || Err(Refusal::FileExists(file("f0")));
    world.check(publish(0, "1.0", Expected::Any, &[("f0", 3)]), exists());
    world.check(publish(0, "1.0", Expected::Any, &[("f1", 3), ("f0", 3)]), exists());
    assert!(!world.has(&Key::File(repository(0), version("1.0"), file("f1"))));
    let two_of_a_name = publish(0, "2.0", Expected::Any, &[("f0", 1), ("f0", 3)]);
    world.check(two_of_a_name, exists());

    // What is published again changes nothing, not even the revision.
    let again = |files: &[(&str, u8)]| publish(0, "1.0", Expected::Any, files);
    world.check(again(&[("f0", 1)]), stored(false, 4));
    assert_eq!((world.events.len(), world.repository(0).unwrap().revision), (0, 4));
    world.check(with(again(&[("f0", 1)]), |put| put.facts = None), stored(false, 4));
    let tagged = with(again(&[]), |put| put.tags = vec![tag("next")]);
    world.check(tagged, stored(false, 4));
    assert_eq!(world.events.len(), 1, "a tag moved");

    world.check(again(&[("f0", 1), ("f1", 3)]), stored(false, 11));
    assert_eq!(world.events, [file_published("1.0", "f1", 3), published("1.0", false)]);
}

#[test]
fn a_file_is_a_blob_that_the_repository_shows() {
    let mut world = world();
    let unknown = |i| Err(Refusal::BlobUnknown(digest(i)));
    world.check(publish(0, "1.0", Expected::Absent, &[("f0", 4)]), unknown(4));
    world.given([commit(2, 4)]);
    world.check(publish(0, "1.0", Expected::Absent, &[("f0", 1), ("f1", 4)]), unknown(4));
    let lie = with(publish(0, "1.0", Expected::Absent, &[("f0", 1)]), |put| put.files[0].size = 9);
    world.check(lie, Err(Refusal::SizeConflict { digest: digest(1), live: 100 }));
    assert_eq!((known(&world, "1.0"), world.repository(0).unwrap().versions), (None, 0));
}

#[test]
fn a_version_has_so_many_files_and_no_more() {
    let mut world = world();
    let names: Vec<String> = (0..=VersionRecord::FILES_MAX).map(|i| format!("f{i:04}")).collect();
    let files: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let all = files.len();
    let too_many = || Err(Refusal::FilesTooMany(VersionRecord::FILES_MAX));
    world.check(publish(0, "1.0", Expected::Absent, &files), too_many());
    world.check(publish(0, "1.0", Expected::Absent, &files[..all - 1]), stored(true, 5));
    world.check(publish(0, "1.0", Expected::Any, &files[all - 1..]), too_many());
    assert_eq!(world.held(0, 1).references, 1_000);
    world.given([delete_file("1.0", "f0500")]);
    world.given([publish(0, "1.0", Expected::Any, &files[all - 1..])]);
    world.check(delete("1.0", false), deleted(false));
    assert_eq!(world.held(0, 1).references, 0);
}

#[test]
fn facts_are_replaced_whole_wherever_they_are() {
    let mut world = world();
    let facts = |facts: Facts| {
        let put = publish(0, "1.0", Expected::Any, &[]);
        with(put, |put| put.facts = Some(facts))
    };
    let of_version = || Holder::Version(version("1.0"));
    world.check(facts(Facts::Blob(digest(4))), Err(Refusal::BlobUnknown(digest(4))));
    world.given([facts(Facts::Blob(digest(1)))]);
    assert!(edge(&world, 1, of_version()));
    let referenced = Refusal::BlobReferenced { digest: digest(1), by: of_version() };
    world.check(unlink(0, 1), Err(referenced));
    let bytes = |world: &World| world.usage(0).map(|usage| (usage.bytes, usage.unique_bytes));
    assert_eq!(bytes(&world), Some((200, 200)));
    world.given([facts(Facts::Blob(digest(3)))]);
    assert!(!edge(&world, 1, of_version()) && edge(&world, 3, of_version()));
    world.given([facts(Facts::Inline(vec![0; 50].into()))]);
    assert!(!edge(&world, 3, of_version()));
    assert_eq!(bytes(&world), Some((250, 250)));
    world.given([facts(Facts::Inline(vec![0; 20].into()))]);
    assert_eq!(bytes(&world), Some((220, 220)));
    assert_eq!(known(&world, "1.0").map(|known| known.published_at), Some(Timestamp(5_000)));
    // No facts at all leave them as they are.
    let untouched = with(publish(0, "1.0", Expected::Any, &[("f0", 1)]), |put| put.facts = None);
    world.given([untouched]);
    assert_eq!(known(&world, "1.0").map(|known| known.facts.inline_bytes()), Some(20));
    world.given([delete("1.0", false)]);
    assert_eq!(bytes(&world), Some((200, 200)));
}

#[test]
fn a_version_is_yanked_deprecated_and_live_again() {
    let mut world = world();
    let unknown = || Err(Refusal::VersionUnknown(version("1.0")));
    world.check(state("1.0", VersionState::Yanked(None)), unknown());
    world.given([publish(0, "1.0", Expected::Absent, &[])]);
    let done = || Ok(Outcome::SetVersionState(()));
    let changed = Event::VersionStateChanged { repository: repository(0), version: version("1.0") };
    let states = [
        VersionState::Yanked(None),
        VersionState::Yanked(Some("broken".into())),
        VersionState::Deprecated("use another".into()),
        VersionState::Live,
    ];
    for to in states {
        world.check(state("1.0", to.clone()), done());
        assert_eq!(world.pointers, std::slice::from_ref(&changed));
        let record = known(&world, "1.0").unwrap();
        assert_eq!((&record.state, record.revision), (&to, world.position));
        assert_eq!(world.repository(0).unwrap().revision, world.position);
        world.check(state("1.0", to), done());
        assert_eq!(world.pointers, [], "it stands so already");
    }
    let gone = Err(Refusal::VersionGone(version("1.0")));
    world.check(state("1.0", VersionState::Tombstone), gone);
    // Publishing more files does not take a yank back.
    world.given([state("1.0", VersionState::Yanked(None))]);
    world.given([publish(0, "1.0", Expected::Any, &[("f0", 1)])]);
    assert_eq!(known(&world, "1.0").map(|known| known.state), Some(VersionState::Yanked(None)));
}

#[test]
fn a_version_goes_with_its_files_and_tags() {
    let mut world = world();
    world.check(delete("1.0", true), Err(Refusal::VersionUnknown(version("1.0"))));
    let put = || {
        let put = publish(0, "1.0", Expected::Absent, &[("f0", 1), ("f1", 3)]);
        with(put, |put| put.tags = vec![tag("a"), tag("b")])
    };
    world.given([put(), publish(0, "1.1", Expected::Absent, &[("f0", 1)])]);
    world.given([set_tag(0, "c", Target::Version(version("1.1")))]);
    world.check(delete("1.0", false), deleted(false));
    let tag_deleted = |name: &str| Event::TagDeleted {
        repository: repository(0),
        tag: tag(name),
        target: Target::Version(version("1.0")),
    };
    let gone = Event::VersionDeleted { repository: repository(0), version: version("1.0") };
    assert_eq!(world.events, [tag_deleted("a"), tag_deleted("b"), gone]);
    assert_eq!(known(&world, "1.0"), None);
    assert_eq!((world.held(0, 1).references, world.held(0, 3).references), (1, 0));
    assert_eq!(world.link(0, 3).unreferenced_at, Timestamp(8_000));
    // Its name may be given again, to other bytes.
    world.given([publish(0, "1.0", Expected::Absent, &[("f0", 3)])]);
    world.given([delete("1.0", false), delete("1.1", false)]);
    let record = world.repository(0).unwrap();
    assert_eq!((record.versions, record.tags, record.links), (0, 0, 2));
    world.given([unlink(0, 1)]);
    world.check(unlink(0, 3), Ok(Outcome::UnlinkBlob(())));
    assert_eq!(world.events[0], unlinked(0, 3));
    assert_eq!((world.repository(0), world.usage(0)), (None, None));
}

#[test]
fn a_tombstones_name_is_never_given_again() {
    let mut world = world();
    world.given([publish(0, "1.0", Expected::Absent, &[("f0", 1)])]);
    world.given([set_tag(0, "latest", Target::Version(version("1.0")))]);
    world.check(delete("1.0", true), deleted(false));
    let record = known(&world, "1.0").unwrap();
    assert_eq!((&record.state, record.files, record.revision), (&VersionState::Tombstone, 0, 6));
    assert_eq!((record.facts, record.published_at), (Facts::default(), Timestamp(4_000)));
    assert_eq!((world.held(0, 1).references, world.tag(0, "latest")), (0, None));
    let usage = world.usage(0).unwrap();
    assert_eq!((usage.versions, usage.bytes), (1, 200), "it is counted, and holds no bytes");
    for expected in [Expected::Absent, Expected::Any, Expected::Revision(6)] {
        let gone = Err(Refusal::VersionGone(version("1.0")));
        world.check(publish(0, "1.0", expected, &[]), gone);
    }
    let unknown = || Err(Refusal::VersionUnknown(version("1.0")));
    world.check(delete("1.0", false), unknown());
    world.check(delete("1.0", true), unknown());
    world.check(delete_file("1.0", "f0"), unknown());
    world.check(state("1.0", VersionState::Live), unknown());
    world.check(set_tag(0, "latest", Target::Version(version("1.0"))), unknown());
    // The repository stays for its sake.
    world.given([unlink(0, 1), unlink(0, 3)]);
    assert_eq!(world.repository(0).map(|record| record.versions), Some(1));
}

#[test]
fn one_file_goes_and_the_version_stays() {
    let mut world = world();
    world.check(delete_file("1.0", "f0"), Err(Refusal::VersionUnknown(version("1.0"))));
    world.given([publish(0, "1.0", Expected::Absent, &[("f0", 1), ("f1", 1)])]);
    world.check(delete_file("1.0", "f2"), Err(Refusal::FileUnknown(file("f2"))));
    world.check(delete_file("1.0", "f0"), Ok(Outcome::DeleteFile(())));
    let (version, of) = (version("1.0"), file("f0"));
    let gone = Event::FileDeleted { repository: repository(0), version, file: of };
    assert_eq!(world.events, [gone]);
    let record = known(&world, "1.0").unwrap();
    assert_eq!((record.files, record.revision, world.held(0, 1).references), (1, 7, 1));
    world.check(delete_file("1.0", "f0"), Err(Refusal::FileUnknown(file("f0"))));
    // Its name is free for other bytes.
    world.given([publish(0, "1.0", Expected::Any, &[("f0", 3)])]);
}

#[test]
fn very_many_tags_go_a_step_at_a_time_and_the_version_last() {
    let mut world = world();
    let names: Vec<_> = (0..DeleteVersion::TAGS_MAX + 1).map(|i| tag(&format!("t{i}"))).collect();
    let put = publish(0, "1.0", Expected::Absent, &[("f0", 1)]);
    world.given([with(put, |put| put.tags = names)]);
    world.check(delete("1.0", true), deleted(true));
    assert_eq!(world.repository(0).unwrap().tags, 1);
    assert_eq!(known(&world, "1.0").map(|known| known.files), Some(1));
    world.check(delete("1.0", true), deleted(false));
    assert_eq!(world.repository(0).unwrap().tags, 0);
}

#[test]
fn tags_name_versions_and_artifacts_alike() {
    let mut world = world();
    let of = |name: &str| Target::Version(version(name));
    world.check(set_tag(0, "latest", of("1.0")), Err(Refusal::VersionUnknown(version("1.0"))));
    world.given([publish(0, "1.0", Expected::Absent, &[]), set_tag(0, "latest", of("1.0"))]);
    world.given([crate::world::put(0, 7, &[], &[], &[])]);
    world.check(set_tag(0, "latest", crate::world::artifact(7)), Ok(Outcome::SetTag(())));
    assert!(!world.has(&Key::TagOf(repository(0), of("1.0"), tag("latest"))));
    world.given([set_tag(0, "latest", of("1.0"))]);
    world.check(delete_tag(0, "latest"), Ok(Outcome::DeleteTag(of("1.0"))));

    // What may not be overwritten is not, whichever command would.
    world.given([set_tag(0, "v1", of("1.0"))]);
    let names = || vec![tag("v1")];
    let terms = [
        (Terms { create_only: names(), ..Terms::NONE }, Refusal::TagExists(tag("v1"))),
        (Terms { immutable: names(), ..Terms::NONE }, Refusal::TagImmutable(tag("v1"))),
    ];
    for (terms, refusal) in terms {
        let put = publish(0, "2.0", Expected::Absent, &[]);
        let actions =
            [set_tag(0, "v1", crate::world::artifact(7)), with(put, |put| put.tags = names())];
        for action in actions {
            let answer = world.told(terms.clone(), action).answer;
            assert_eq!(answer, Err(refusal.clone()));
        }
        assert_eq!(known(&world, "2.0"), None);
        let same = world.told(terms, set_tag(0, "v1", of("1.0"))).answer;
        assert_eq!(same, Ok(Outcome::SetTag(())));
    }
}

#[test]
fn versions_count_towards_quotas() {
    let mut world = World::new();
    let limits = |storage, artifacts| {
        let limits = LimitsRecord {
            storage_quota: Some(storage),
            artifact_quota: Some(artifacts),
            ..LimitsRecord::default()
        };
        Action::SetPolicy(SetPolicy {
            expected: None,
            document: Vec::new(),
            hash: [0; 32],
            tenants: vec![(repository(0).tenant, limits)],
        })
    };
    let over =
        |quota, limit, used, asked| Err(Refusal::QuotaExceeded { quota, limit, used, asked });
    let put = |name: &str| publish(0, name, Expected::Any, &[]);
    let facts = |bytes: usize| {
        with(put("1.0"), |put| put.facts = Some(Facts::Inline(vec![0; bytes].into())))
    };
    world.given([found(), limits(10, 2), put("1.0")]);
    world.check(facts(11), over(Quota::Storage, 10, 3, 8));
    world.given([facts(10), facts(4)]);
    world.given([limits(99, 2), crate::world::put(1, 7, &[], &[], &[])]);
    world.check(put("1.1"), over(Quota::Artifacts, 2, 2, 1));
    world.check(crate::world::put(0, 8, &[], &[], &[]), over(Quota::Artifacts, 2, 2, 1));
    // What is there may grow in files, and a tombstone goes on counting.
    world.given([put("1.0"), delete("1.0", true)]);
    world.check(put("1.1"), over(Quota::Artifacts, 2, 2, 1));
}

#[test]
fn pulls_of_versions_and_files_go_with_them() {
    let mut world = world();
    world.given([publish(0, "1.0", Expected::Absent, &[("f0", 1), ("f1", 1)])]);
    let pulls = || {
        let items = [
            Item::Version(version("1.0")),
            Item::File(version("1.0"), file("f0")),
            Item::File(version("1.0"), file("f1")),
            Item::File(version("1.0"), file("f2")),
        ];
        let pulls = items.into_iter().map(|item| (repository(0), item)).collect();
        Action::NotePulls(NotePulls { pulls })
    };
    let pulled = |world: &World| {
        world.store.rows().filter(|(key, _)| matches!(key, Key::Pulled(..))).count()
    };
    world.given([pulls()]);
    assert_eq!(pulled(&world), 3);
    world.given([delete_file("1.0", "f1")]);
    assert_eq!(pulled(&world), 2);
    world.given([delete("1.0", true)]);
    assert_eq!(pulled(&world), 0);
    // A pull that was noted late finds a tombstone.
    world.given([pulls()]);
    assert_eq!(pulled(&world), 0);
}

#[test]
fn a_blob_is_shown_before_it_is_a_file() {
    let mut world = World::new();
    world.check(commit(0, 1), crate::world::committed(1, 1));
    assert_eq!(world.events, [created(0), linked(0, 1)]);
    world.check(publish(0, "1.0", Expected::Absent, &[("f0", 1)]), stored(true, 3));
    assert_eq!(world.events, [file_published("1.0", "f0", 1), published("1.0", true)]);
}
