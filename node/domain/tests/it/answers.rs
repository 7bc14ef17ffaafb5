//! Each answer and each special case of the transition: commands in, an answer, events and rows out.

use nora_domain::{
    Action, ArtifactDeleted, BlobRecord, Body, DeleteArtifact, Epoch, Event, ExpireUploads, Holder,
    Item, Key, LinkRecord, NodeId, NotePulls, Outcome, Placement, PulledRecord, PutArtifact,
    Record, Refusal, RepositoryRecord, Store, TagName, TenantBlobRecord, Timestamp, UploadId,
    UploadRecord, UsageRecord,
};

use crate::cluster::three;
use crate::universe::{digest, media_type, repository, row, start, tag};
use crate::world::{
    NODE, World, artifact, close, commit, commit_as, committed, created, delete, delete_tag,
    generation, gone, linked, missing, mount, moved, open, opened, pin, pushed, put, put_with,
    removed, set_tag, stored, unlink, unlinked,
};

#[test]
fn each_start_of_a_node_gets_a_new_epoch() {
    // Nodes 1, 2 and 3 run under the epochs 1, 2 and 3.
    let mut world = three();
    world.check(start(NODE), Ok(Outcome::StartNode(Epoch(4))));

    let retired = Err(Refusal::RetiredEpoch);
    world.check(commit(0, 1), retired.clone());
    // Another node's running epoch is not this node's.
    world.check(commit_as(0, 1, 100, generation(2, 1), 1, 0), retired.clone());
    world.check(commit_as(0, 1, 100, generation(5, 1), 1, 0), retired.clone());
    world.check(commit_as(0, 1, 100, generation(4, 1), 1, 0), committed(4, 1));
    World::default().check(commit_as(0, 1, 100, generation(0, 1), 1, 0), retired);
}

#[test]
fn the_clock_never_runs_backwards() {
    let mut world = World::new();
    let clock = |world: &World| world.store.head().clock.0;
    world.answer(5_000, commit(0, 1)).unwrap();
    assert_eq!(clock(&world), 5_000);
    // A proposer whose clock is late acts at the cluster's time.
    world.answer(3_000, put(0, 7, &[1], &[], &["v1"])).unwrap();
    assert_eq!(clock(&world), 5_000);
    assert_eq!(world.artifact(0, 7).pushed_at, Timestamp(5_000));
    assert_eq!(world.tag(0, "v1").unwrap().moved_at, Timestamp(5_000));
    // A refused command moves nothing, an accepted one that changes nothing else does.
    world.answer(8_000, unlink(0, 2)).unwrap_err();
    assert_eq!(clock(&world), 5_000);
    world.answer(9_000, close(4, 0)).unwrap();
    assert_eq!(clock(&world), 9_000);
}

#[test]
fn uploads_are_opened_extended_and_closed() {
    let mut world = World::new();
    let session = |opened_at, expires_at| {
        Some(Record::Upload(UploadRecord {
            repository: repository(0),
            node: NODE,
            opened_at: Timestamp(opened_at),
            expires_at: Timestamp(expires_at),
            reserved_bytes: 0,
        }))
    };
    let key = Key::Upload(repository(0).tenant, UploadId(4));
    world.check(open(4, 0, NODE, 28_000), opened(30_000));
    assert_eq!(row(&world.store, &key), session(2_000, 30_000));
    world.check(open(4, 0, NODE, 37_000), opened(40_000));
    // Its life is never shortened, and the answer says until when it is known.
    world.check(open(4, 0, NODE, 31_000), opened(40_000));
    assert_eq!(row(&world.store, &key), session(2_000, 40_000));

    world.check(open(4, 1, NODE, 99_000), Err(Refusal::UploadConflict));
    world.check(open(4, 0, NodeId(2), 99_000), Err(Refusal::UploadConflict));
    // Another tenant's session of that name is another one, and no tenant ends another's.
    world.check(open(4, 2, NODE, 99_000), opened(106_000));
    world.given([close(4, 2)]);
    assert_eq!(row(&world.store, &key), session(2_000, 40_000));

    for _ in 0..2 {
        world.check(close(4, 0), Ok(Outcome::CloseUpload(())));
        assert_eq!(row(&world.store, &key), None);
    }
    assert_eq!(world.events, []);
}

#[test]
fn of_many_sessions_those_whose_time_is_over_end_whichever_node_holds_them() {
    let mut world = World::new();
    world.given([open(1, 0, NODE, 3_000), open(2, 1, NodeId(2), 2_000), open(3, 0, NODE, 5_000)]);
    world.given([open(4, 2, NODE, 0)]);
    let ids = || (1..=4).map(UploadId).collect::<Vec<_>>();
    let tenant = || repository(0).tenant;
    let expire = |uploads| Action::ExpireUploads(ExpireUploads { tenant: tenant(), uploads });
    let known = |world: &World| -> Vec<bool> {
        ids().into_iter().map(|id| world.has(&Key::Upload(tenant(), id))).collect()
    };
    world.answer(4_999, expire(vec![UploadId(3)])).unwrap();
    assert_eq!(known(&world), [true, true, true, false], "its time is not over");
    assert_eq!(world.answer(5_000, expire(ids())), Ok(Outcome::ExpireUploads(())));
    assert_eq!(known(&world), [false, false, true, false]);
    assert_eq!(world.answer(9_000, expire(ids())), Ok(Outcome::ExpireUploads(())));
    assert_eq!(known(&world), [false; 4]);
    assert!(world.has(&Key::Upload(repository(2).tenant, UploadId(4))), "it is another tenant's");
}

#[test]
fn a_commit_links_pins_and_ends_its_session() {
    let mut world = World::new();
    world.given([open(1, 0, NODE, 30_000), open(2, 0, NODE, 30_000)]);
    world.check(commit(0, 1), committed(1, 1));
    assert_eq!(world.events, [created(0), linked(0, 1)]);
    assert_eq!(world.pinned(0, 1), 54_000);
    let upload = |id| Key::Upload(repository(0).tenant, UploadId(id));
    assert!(!world.has(&upload(1)) && world.has(&upload(2)));
    let expected = BlobRecord {
        generation: generation(1, 1),
        size: 100,
        chunk_root: [1; 32],
        tenants: 1,
        unheld_at: Timestamp(4_000),
        placement: Placement::Nodes(vec![NODE]),
    };
    assert_eq!(world.blob(1), expected);
    let held = |relied_on_at, links| TenantBlobRecord {
        size: 100,
        links,
        references: 0,
        unreferenced_at: Timestamp(4_000),
        relied_on_at: Timestamp(relied_on_at),
    };
    assert_eq!(world.held(0, 1), held(4_000, 1));
    assert!(world.has(&Key::HeldBy(digest(1), repository(0).tenant)));
    assert_eq!(world.pointers, [Event::BlobPlaced { digest: digest(1) }]);

    // Proposed again because no answer came: the same answer, and nothing happens twice.
    world.check(commit(0, 1), committed(1, 1));
    assert_eq!(world.events, []);
    // Other bytes of the same name do not replace the live copy; they rely on it.
    world.check(commit_as(1, 1, 100, generation(1, 77), 3, 40_000), committed(1, 1));
    assert_eq!(world.events, [created(1), linked(1, 1)]);
    assert_eq!(world.pointers, []);
    assert_eq!(world.blob(1), expected);
    assert_eq!(world.held(1, 1), held(6_000, 2));
    assert_eq!((world.pinned(0, 1), world.pinned(1, 1)), (55_000, 46_000));

    let conflict = Err(Refusal::SizeConflict { digest: digest(1), live: 100 });
    world.check(commit_as(2, 1, 99, generation(1, 78), 1, 0), conflict);
}

#[test]
fn a_pin_never_shortens_what_was_promised() {
    let mut world = World::new();
    world.given([commit(0, 1)]);
    assert_eq!(world.pinned(0, 1), 52_000);
    // (what comes at which time, until when the blob is kept then)
    let steps = [
        (pin(0, 1, 50_000), 3_000, 53_000),
        (pin(0, 1, 1_000), 4_000, 53_000),
        // A proposer whose clock is late counts from the cluster's.
        (pin(0, 1, 50_000), 1_000, 54_000),
        (commit(0, 1), 3_500, 54_000),
        (mount(0, 0, 1), 5_000, 65_000),
        (pin(0, 1, 0), 90_000, 90_000),
        (commit_as(0, 1, 100, generation(1, 9), 5, 1_000), 89_000, 91_000),
        (pin(0, 1, u64::MAX), 90_000, u64::MAX),
        (pin(0, 1, 5), 90_000, u64::MAX),
    ];
    for (action, at, expected) in steps {
        world.answer(at, action).unwrap();
        assert_eq!(world.pinned(0, 1), expected, "at {at}");
    }
    // Each repository keeps it by itself.
    world.given([mount(0, 1, 1)]);
    assert_eq!(world.pinned(1, 1), 90_000 + 60_000);
}

#[test]
fn a_mount_needs_a_blob_visible_in_its_source() {
    let unknown = || Err(Refusal::BlobUnknown(digest(1)));
    let mut world = World::new();
    world.check(mount(0, 1, 1), unknown());
    world.given([commit(0, 1)]);
    world.check(mount(1, 2, 1), unknown());
    world.check(mount(0, 2, 1), Ok(Outcome::MountBlob(())));
    assert_eq!(world.events, [created(2), linked(2, 1)]);
    assert_eq!((world.held(2, 1).relied_on_at, world.blob(1).tenants), (Timestamp(5_000), 2));
    let link = LinkRecord {
        size: 100,
        linked_at: Timestamp(5_000),
        pinned_until: Timestamp(65_000),
        unreferenced_at: Timestamp(5_000),
    };
    assert_eq!((world.link(2, 1), world.pinned(0, 1)), (link, 52_000 + 1_000));
    let usage = UsageRecord { bytes: 100, unique_bytes: 100, links: 1, ..UsageRecord::default() };
    assert_eq!(world.usage(2), Some(usage));

    // Where it is visible already, it is only kept.
    for (from, to) in [(0, 2), (0, 0)] {
        world.check(mount(from, to, 1), Ok(Outcome::MountBlob(())));
        assert_eq!(world.events, []);
    }
    assert_eq!(world.held(0, 1).relied_on_at, Timestamp(7_000));
    assert_eq!(world.held(2, 1).relied_on_at, Timestamp(6_000));
    assert_eq!(world.repository(0).unwrap().revision, 3);
}

#[test]
fn a_pin_needs_a_visible_blob() {
    let mut world = World::new();
    world.given([commit(0, 1)]);
    world.check(pin(1, 1, 70_000), Err(Refusal::BlobUnknown(digest(1))));
    world.check(pin(0, 2, 70_000), Err(Refusal::BlobUnknown(digest(2))));
    world.check(pin(0, 1, 70_000), Ok(Outcome::PinBlob(())));
    assert_eq!((world.events.len(), world.repository(0).unwrap().revision), (0, 2));
    assert_eq!(world.held(0, 1).relied_on_at, Timestamp(5_000));
    assert_eq!(world.pinned(0, 1), 75_000);
}

#[test]
fn a_blob_is_unlinked_only_where_no_artifact_needs_it() {
    let mut world = World::new();
    world.given([
        commit(0, 1),
        mount(0, 1, 1),
        put(0, 8, &[1], &[], &[]),
        put(0, 7, &[1], &[], &[]),
    ]);
    world.check(unlink(2, 1), Err(Refusal::BlobUnknown(digest(1))));
    let referenced = Refusal::BlobReferenced { digest: digest(1), by: Holder::Artifact(digest(7)) };
    world.check(unlink(0, 1), Err(referenced));
    // An artifact of another repository is no obstacle.
    world.check(unlink(1, 1), Ok(Outcome::UnlinkBlob(())));
    assert_eq!(world.events, [unlinked(1, 1), removed(1)]);
    world.check(unlink(1, 1), Err(Refusal::BlobUnknown(digest(1))));

    world.given([delete(0, 7), delete(0, 8)]);
    world.check(unlink(0, 1), Ok(Outcome::UnlinkBlob(())));
    assert_eq!(world.events, [unlinked(0, 1), removed(0)]);
    assert_eq!((world.repository(0), world.usage(0)), (None, None));
    // The bytes stay until they are collected.
    assert_eq!((world.blob(1).tenants, world.blob(1).unheld_at), (0, Timestamp(12_000)));
    assert!(!world.has(&Key::HeldBy(digest(1), repository(0).tenant)));
}

#[test]
fn an_artifact_needs_all_it_references() {
    let mut world = World::new();
    world.given([commit(0, 1), commit(2, 3), put(2, 7, &[3], &[], &[])]);
    // Blob 3 and artifact 7 are in another tenant's repository: they are not here. All that is missing is told, sorted.
    world.check(put(0, 8, &[4, 1, 3, 4], &[7, 6], &["v1"]), missing(&[3, 4], &[6, 7]));
    world.check(put(0, 8, &[1], &[8], &[]), missing(&[], &[8]));
    world.check(put(0, 8, &[1, 4], &[], &[]), missing(&[4], &[]));
    world.check(put(0, 8, &[1, 1], &[], &[]), stored(true));
    assert_eq!(world.artifact(0, 8).blobs, [digest(1)]);
    assert_eq!(world.held(0, 1).references, 1);
    world.check(put(0, 6, &[], &[8, 8], &[]), stored(true));
    assert_eq!(world.artifact(0, 6).children, [digest(8)]);

    let lie = put_with(put(0, 4, &[], &[], &[]), |_, size, _| *size = 11);
    world.check(lie, Err(Refusal::SizeConflict { digest: digest(4), live: 10 }));
}

#[test]
fn a_body_that_is_a_blob_is_needed_like_one() {
    let large = |i, size_told| {
        put_with(put(0, i, &[1], &[], &[]), |body, size, _| {
            *body = Body::Blob;
            *size = size_told;
        })
    };
    let mut world = World::new();
    world.given([commit(0, 1)]);
    world.check(large(5, 100), missing(&[5], &[]));
    world.given([commit(0, 5)]);
    world.check(large(5, 99), Err(Refusal::SizeConflict { digest: digest(5), live: 100 }));
    world.check(large(5, 100), stored(true));
    assert_eq!(world.artifact(0, 5).blobs, [digest(1), digest(5)]);
    let usage = UsageRecord {
        bytes: 200,
        unique_bytes: 200,
        links: 2,
        artifacts: 1,
        ..UsageRecord::default()
    };
    assert_eq!(world.usage(0), Some(usage), "its bytes are counted once, by the link");
    let referenced = Refusal::BlobReferenced { digest: digest(5), by: Holder::Artifact(digest(5)) };
    world.check(unlink(0, 5), Err(referenced));
    world.given([delete(0, 5)]);
    let links = world.usage(0).map(|usage| usage.links);
    assert_eq!(links, Some(1), "its own bytes go with it");
    world.check(unlink(0, 5), Err(Refusal::BlobUnknown(digest(5))));
}

#[test]
fn storing_again_keeps_the_record_and_moves_tags() {
    let mut world = World::new();
    world.given([commit(0, 1)]);
    world.check(put(0, 7, &[1], &[], &["v1", "v1"]), stored(true));
    assert_eq!(world.events, [pushed(0, 7), moved(0, "v1", None, 7)]);
    let first = world.artifact(0, 7);
    let v1 = world.tag(0, "v1");

    // Nothing to do: nothing changes, not even the revision.
    world.check(put(0, 7, &[1], &[], &["v1"]), stored(false));
    assert_eq!((world.events.len(), world.repository(0).unwrap().revision), (0, 3));
    assert_eq!(world.tag(0, "v1"), v1);

    let mut again = put(0, 7, &[1], &[], &["v2"]);
    if let Action::PutArtifact(PutArtifact { media_type: told, .. }) = &mut again {
        *told = media_type("type/two");
    }
    world.check(again, stored(false));
    assert_eq!(world.events, [moved(0, "v2", None, 7)]);
    assert_eq!(world.artifact(0, 7), first, "the first push decides");
    assert_eq!(world.held(0, 1).references, 1);

    world.check(put(0, 8, &[1], &[], &["v2"]), stored(true));
    assert_eq!(world.events, [pushed(0, 8), moved(0, "v2", Some(7), 8)]);
    assert!(!world.has(&Key::TagOf(repository(0), artifact(7), tag("v2"))));
    assert_eq!(world.held(0, 1).references, 2);
    let record = world.repository(0).unwrap();
    assert_eq!((record.artifacts, record.tags, record.links, record.revision), (2, 2, 1, 6));
}

#[test]
fn deleting_an_artifact_takes_its_tags_and_leaves_its_parents() {
    let mut world = World::new();
    world.check(delete(0, 7), Err(Refusal::ArtifactUnknown(digest(7))));
    let signature = put_with(put(0, 7, &[1], &[], &["b", "a"]), |_, _, subject| {
        *subject = Some(digest(8));
    });
    world.given([commit(0, 1), signature, put(0, 6, &[], &[7], &["index", "z"])]);
    let referrer = Key::Referrer(repository(0), digest(8), digest(7));
    assert!(world.has(&referrer));
    world.check(delete(1, 7), Err(Refusal::ArtifactUnknown(digest(7))));

    let tags = [tag("a"), tag("b")];
    world.check(delete(0, 7), gone(&["a", "b"]));
    let tag_deleted = |tag: &TagName| Event::TagDeleted {
        repository: repository(0),
        tag: tag.clone(),
        target: artifact(7),
    };
    let deleted = Event::ArtifactDeleted { repository: repository(0), digest: digest(7) };
    assert_eq!(world.events, [tag_deleted(&tags[0]), tag_deleted(&tags[1]), deleted]);
    assert!(!world.has(&referrer));
    assert_eq!(world.held(0, 1).references, 0);
    assert_eq!(world.held(0, 1).unreferenced_at, Timestamp(7_000));
    assert_eq!(world.link(0, 1).unreferenced_at, Timestamp(7_000));
    // What lists it still does, and is found from it should it come back.
    assert!(world.has(&Key::ParentOf(repository(0), digest(7), digest(6))));
    assert_eq!(world.artifact(0, 6).children, [digest(7)]);
    assert!(world.tag(0, "index").is_some());
}

#[test]
fn very_many_tags_go_a_step_at_a_time_and_the_artifact_last() {
    let names: Vec<String> = (0..1_001).map(|i| format!("t{i:04}")).collect();
    let named: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new();
    world.given([put(0, 7, &[], &[], &named), put(0, 8, &[], &[], &["t0300", "other"])]);
    let mut expected: Vec<TagName> = names.iter().map(|name| tag(name)).collect();
    expected.remove(300);
    let step = |tags: &[TagName], more| {
        Ok(Outcome::DeleteArtifact(ArtifactDeleted { tags: tags.to_vec(), more }))
    };
    assert_eq!((expected.len(), DeleteArtifact::TAGS_MAX), (1_000, 500));
    world.check(delete(0, 7), step(&expected[..500], true));
    let record = world.repository(0).unwrap();
    assert_eq!((record.artifacts, record.tags), (2, 502));
    assert_eq!(world.events.len(), 500, "the artifact stays until a later step");
    // Exactly as many as one step removes are the last ones.
    world.check(delete(0, 7), step(&expected[500..], false));
    let record = world.repository(0).unwrap();
    assert_eq!((record.artifacts, record.tags), (1, 2));
    world.check(delete_tag(0, "t0300"), Ok(Outcome::DeleteTag(artifact(8))));
}

#[test]
fn a_tag_is_set_to_what_is_there() {
    let mut world = World::new();
    let unknown = Err(Refusal::ArtifactUnknown(digest(7)));
    world.check(set_tag(0, "v1", artifact(7)), unknown.clone());
    world.given([put(0, 7, &[], &[], &[]), put(0, 8, &[], &[], &["v1"])]);
    world.check(set_tag(1, "v1", artifact(7)), unknown);
    world.check(set_tag(0, "v1", artifact(7)), Ok(Outcome::SetTag(())));
    assert_eq!(world.events, [moved(0, "v1", Some(8), 7)]);
    let revision = world.repository(0).unwrap().revision;
    world.check(set_tag(0, "v1", artifact(7)), Ok(Outcome::SetTag(())));
    assert_eq!((world.events.len(), world.repository(0).unwrap().revision), (0, revision));
    world.check(set_tag(0, "v2", artifact(7)), Ok(Outcome::SetTag(())));
    assert_eq!(world.events, [moved(0, "v2", None, 7)]);
    world.check(delete(0, 7), gone(&["v1", "v2"]));
}

#[test]
fn a_pull_is_noted_of_what_is_there_and_goes_with_it() {
    let mut world = World::new();
    world.given([put(0, 7, &[], &[], &["v1"]), put(2, 8, &[], &[], &[])]);
    let seven = || Item::Artifact(digest(7));
    let v1 = || Item::Tag(tag("v1"));
    let pulls = || {
        let of = [(0, seven()), (0, v1()), (2, Item::Artifact(digest(8))), (1, seven())];
        let gone = [(0, Item::Artifact(digest(8))), (0, Item::Tag(tag("v2")))];
        let pulls = of.into_iter().chain(gone).map(|(repo, item)| (repository(repo), item));
        Action::NotePulls(NotePulls { pulls: pulls.collect() })
    };
    let pulled =
        |world: &World, repo, item| match row(&world.store, &Key::Pulled(repository(repo), item)) {
            Some(Record::Pulled(PulledRecord { at })) => Some(at.0),
            _ => None,
        };
    let entries = world.entries().len();
    world.check(pulls(), Ok(Outcome::NotePulls(())));
    world.check(pulls(), Ok(Outcome::NotePulls(())));
    assert_eq!((world.entries().len(), world.events.len()), (entries, 0), "reads are no news");
    assert_eq!(world.repository(0).unwrap().revision, 2);
    assert_eq!(pulled(&world, 0, seven()), Some(5_000));
    assert_eq!(pulled(&world, 0, v1()), Some(5_000));
    assert_eq!(pulled(&world, 2, Item::Artifact(digest(8))), Some(5_000));
    let all = |world: &World| {
        world.store.rows().filter(|(key, _)| matches!(key, Key::Pulled(..))).count()
    };
    assert_eq!(all(&world), 3);
    world.given([delete_tag(0, "v1")]);
    assert_eq!((pulled(&world, 0, v1()), pulled(&world, 0, seven())), (None, Some(5_000)));
    world.given([delete(0, 7)]);
    assert_eq!(all(&world), 1);
}

#[test]
fn deleting_a_tag_leaves_its_artifact() {
    let mut world = World::new();
    world.given([put(0, 7, &[], &[], &["v1"])]);
    world.check(delete_tag(0, "v2"), Err(Refusal::TagUnknown(tag("v2"))));
    world.check(delete_tag(2, "v1"), Err(Refusal::TagUnknown(tag("v1"))));
    world.check(delete_tag(0, "v1"), Ok(Outcome::DeleteTag(artifact(7))));
    assert_eq!((world.events.len(), world.artifact(0, 7).size), (1, 10));
    world.check(delete_tag(0, "v1"), Err(Refusal::TagUnknown(tag("v1"))));
}

#[test]
fn a_repository_lives_as_long_as_it_holds_anything() {
    let mut world = World::new();
    world.check(put(1, 7, &[], &[], &["v1"]), stored(true));
    assert_eq!(world.events, [created(1), pushed(1, 7), moved(1, "v1", None, 7)]);
    let record = RepositoryRecord {
        created_at: Timestamp(2_000),
        revision: 2,
        artifacts: 1,
        tags: 1,
        ..RepositoryRecord::default()
    };
    assert_eq!(world.repository(1), Some(record));
    world.given([delete(1, 7)]);
    assert_eq!(world.events.last(), Some(&removed(1)));
    assert_eq!((world.repository(1), world.usage(1)), (None, None));
    world.given([put(1, 7, &[], &[], &[])]);
    assert_eq!(world.repository(1).unwrap().created_at, Timestamp(4_000));
}

#[test]
fn a_tenants_blob_counts_each_artifact_of_its_repositories() {
    let mut world = World::new();
    world.given([
        commit(0, 1),
        mount(0, 1, 1),
        mount(0, 2, 1),
        put(0, 7, &[1], &[], &[]),
        put(1, 7, &[1], &[], &[]),
        put(2, 7, &[1], &[], &[]),
    ]);
    let held = |world: &World, repo| {
        let held = world.held(repo, 1);
        (held.links, held.references, held.unreferenced_at.0)
    };
    assert_eq!((held(&world, 0), held(&world, 2)), ((2, 2, 2_000), (1, 1, 4_000)));
    world.given([delete(0, 7)]);
    assert_eq!(held(&world, 0), (2, 1, 2_000));
    // The repository's own link says when its last reference went.
    let unreferenced = |world: &World, repo| world.link(repo, 1).unreferenced_at.0;
    assert_eq!((unreferenced(&world, 0), unreferenced(&world, 1)), (8_000, 3_000));
    world.given([delete(1, 7), delete(2, 7)]);
    assert_eq!((held(&world, 0), held(&world, 2)), ((2, 0, 9_000), (1, 0, 10_000)));
    let usage = |links| UsageRecord {
        bytes: 100 * links,
        unique_bytes: 100,
        links,
        ..UsageRecord::default()
    };
    assert_eq!((world.usage(0), world.usage(2)), (Some(usage(2)), Some(usage(1))));
    assert_eq!(world.blob(1).tenants, 2);
    world.given([unlink(0, 1), unlink(1, 1)]);
    assert_eq!((world.blob(1).tenants, world.blob(1).unheld_at), (1, Timestamp(2_000)));
    world.given([unlink(2, 1)]);
    assert_eq!((world.blob(1).tenants, world.blob(1).unheld_at), (0, Timestamp(13_000)));
}
