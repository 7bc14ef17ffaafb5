//! Each answer and each special case of the transition: commands in, an answer, events and rows out.

use nora_domain::TagName;
use nora_domain::command::{Action, Outcome, Refusal};
use nora_domain::event::Event;
use nora_domain::record::{
    BlobRecord, Body, Epoch, FeatureLevel, Key, LinkRecord, NodeId, Placement, Record,
    RepositoryRecord, Timestamp, UploadId, UploadRecord, UsageRecord,
};

use crate::cluster::three;
use crate::universe::{digest, found, media_type, repository, row, start, tag};
use crate::world::{
    NODE, World, commit, commit_as, committed, created, delete, delete_tag, generation, linked,
    missing, mount, moved, open, pin, pushed, put, put_with, removed, stored, unlink, unlinked,
};

#[test]
fn each_start_of_a_node_gets_a_new_epoch() {
    // Nodes 1, 2 and 3 run under the epochs 1, 2 and 3.
    let mut world = three();
    world.check(start(NODE), Ok(Outcome::NodeStarted(Epoch(4))));

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
    let clock = |world: &World| match row(&world.store, &Key::Cluster) {
        Some(Record::Cluster(cluster)) => cluster.clock.0,
        other => panic!("{other:?}"),
    };
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
    world.answer(9_000, Action::CloseUpload { upload: UploadId(4) }).unwrap();
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
    let key = Key::Upload(UploadId(4));
    world.check(open(4, 0, NODE, 30_000), Ok(Outcome::UploadOpened));
    assert_eq!(row(&world.store, &key), session(2_000, 30_000));
    world.check(open(4, 0, NODE, 40_000), Ok(Outcome::UploadOpened));
    world.check(open(4, 0, NODE, 35_000), Ok(Outcome::UploadOpened));
    assert_eq!(row(&world.store, &key), session(2_000, 40_000));

    world.check(open(4, 1, NODE, 99_000), Err(Refusal::UploadConflict));
    world.check(open(4, 2, NODE, 99_000), Err(Refusal::UploadConflict));
    world.check(open(4, 0, NodeId(2), 99_000), Err(Refusal::UploadConflict));

    for _ in 0..2 {
        world.check(Action::CloseUpload { upload: UploadId(4) }, Ok(Outcome::UploadClosed));
        assert_eq!(row(&world.store, &key), None);
    }
    assert_eq!(world.events, []);
}

#[test]
fn of_many_sessions_those_whose_time_is_over_end_whichever_node_holds_them() {
    let mut world = World::new();
    world.given([found()]);
    world.given([open(1, 0, NODE, 5_000), open(2, 1, NodeId(2), 5_000), open(3, 0, NODE, 9_000)]);
    let ids = || (1..=4).map(UploadId).collect::<Vec<_>>();
    let expire = || Action::ExpireUploads { uploads: ids() };
    let too_early =
        Refusal::FeatureNotReached { level: FeatureLevel::CLUSTER, needed: FeatureLevel::EXPIRY };
    assert_eq!(world.answer(5_000, expire()), Err(too_early));
    world.answer(5_000, Action::RaiseFeatureLevel { level: FeatureLevel::EXPIRY }).unwrap();

    let known = |world: &World| -> Vec<bool> {
        ids().into_iter().map(|id| world.has(&Key::Upload(id))).collect()
    };
    world.answer(4_999, Action::ExpireUploads { uploads: vec![UploadId(3)] }).unwrap();
    assert_eq!(known(&world), [true, true, true, false], "its time is not over");
    assert_eq!(world.answer(5_000, expire()), Ok(Outcome::UploadsExpired));
    assert_eq!(known(&world), [false, false, true, false]);
    assert_eq!(world.answer(9_000, expire()), Ok(Outcome::UploadsExpired));
    assert_eq!(known(&world), [false; 4]);
}

#[test]
fn a_commit_links_pins_and_ends_its_session() {
    let mut world = World::new();
    world.given([open(1, 0, NODE, 30_000), open(2, 0, NODE, 30_000)]);
    world.check(commit(0, 1), committed(1, 1));
    assert_eq!(world.events, [created(0), linked(0, 1)]);
    assert_eq!(world.pins(1), [(1, 50_000)]);
    assert!(!world.has(&Key::Upload(UploadId(1))));
    assert!(world.has(&Key::Upload(UploadId(2))));
    let expected = BlobRecord {
        generation: generation(1, 1),
        size: 100,
        chunk_root: [1; 32],
        references: 0,
        unreferenced_at: Timestamp(4_000),
        touched_at: Timestamp(4_000),
        placement: Placement::Nodes(vec![NODE]),
    };
    assert_eq!(world.blob(1), expected);
    assert_eq!(world.pointers, [Event::BlobPlaced { digest: digest(1) }]);

    // Proposed again because no answer came: the same answer, and nothing happens twice.
    world.check(commit(0, 1), committed(1, 1));
    assert_eq!(world.events, []);
    // Other bytes of the same name do not replace the live copy; they rely on it.
    world.check(commit_as(1, 1, 100, generation(1, 77), 3, 40_000), committed(1, 1));
    assert_eq!(world.events, [created(1), linked(1, 1)]);
    assert_eq!(world.pointers, []);
    assert_eq!(world.blob(1), BlobRecord { touched_at: Timestamp(6_000), ..expected });
    assert_eq!(world.pins(1), [(1, 50_000), (3, 40_000)]);

    let conflict = Err(Refusal::SizeConflict { digest: digest(1), live: 100 });
    world.check(commit_as(2, 1, 99, generation(1, 78), 1, 0), conflict);
}

#[test]
fn pins_are_never_shortened_and_expired_ones_go_a_few_at_a_time() {
    let mut world = World::new();
    world.given([commit(0, 1), pin(0, 1, 1, 60_000), pin(0, 1, 1, 55_000)]);
    assert_eq!(world.pins(1), [(1, 60_000)]);

    // 40 pins that expire at 50000, one that does not, and another blob's.
    world.given([commit(0, 2), pin(0, 2, 30, 50_000), pin(0, 1, 200, 70_000)]);
    for id in 100..140 {
        world.answer(9_000, pin(0, 1, id, 50_000)).unwrap();
    }
    world.answer(49_999, pin(0, 1, 10, 80_000)).unwrap();
    assert_eq!(world.pins(1).len(), 43);
    for left in [27, 11, 3] {
        world.answer(50_000, pin(0, 1, 10, 80_000)).unwrap();
        assert_eq!(world.pins(1).len(), left);
    }
    assert_eq!(world.pins(1), [(1, 60_000), (10, 80_000), (200, 70_000)]);
    assert_eq!(world.pins(2), [(1, 50_000), (30, 50_000)]);
    world.answer(90_000, commit_as(0, 1, 100, generation(1, 9), 5, 95_000)).unwrap();
    assert_eq!(world.pins(1), [(1, 60_000), (5, 95_000)], "a commit removes expired pins, too");
}

#[test]
fn a_mount_needs_a_blob_visible_in_its_source() {
    let unknown = || Err(Refusal::BlobUnknown(digest(1)));
    let mut world = World::new();
    world.check(mount(0, 1, 1), unknown());
    world.given([commit(0, 1)]);
    world.check(mount(1, 2, 1), unknown());
    world.check(mount(0, 2, 1), Ok(Outcome::BlobMounted));
    assert_eq!(world.events, [created(2), linked(2, 1)]);
    assert_eq!(world.blob(1).touched_at, Timestamp(5_000));
    assert_eq!(world.pins(1), [(1, 50_000), (2, 60_000)]);
    let link = Some(Record::Link(LinkRecord { size: 100, linked_at: Timestamp(5_000) }));
    assert_eq!(row(&world.store, &Key::Link(digest(1), repository(2))), link);
    let usage = UsageRecord { bytes: 100, links: 1, ..UsageRecord::default() };
    assert_eq!(world.usage(2), Some(usage));

    // Where it is visible already, it is only kept.
    for (from, to) in [(0, 2), (0, 0)] {
        world.check(mount(from, to, 1), Ok(Outcome::BlobMounted));
        assert_eq!(world.events, []);
    }
    assert_eq!(world.blob(1).touched_at, Timestamp(7_000));
    assert_eq!(world.repository(0).unwrap().revision, 3);
}

#[test]
fn a_pin_needs_a_visible_blob() {
    let mut world = World::new();
    world.given([commit(0, 1)]);
    world.check(pin(1, 1, 5, 70_000), Err(Refusal::BlobUnknown(digest(1))));
    world.check(pin(0, 2, 5, 70_000), Err(Refusal::BlobUnknown(digest(2))));
    world.check(pin(0, 1, 5, 70_000), Ok(Outcome::BlobPinned));
    assert_eq!(world.events, []);
    assert_eq!(world.blob(1).touched_at, Timestamp(5_000));
    assert_eq!(world.pins(1), [(1, 50_000), (5, 70_000)]);
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
    let referenced = Refusal::BlobReferenced { digest: digest(1), by: digest(7) };
    world.check(unlink(0, 1), Err(referenced));
    // An artifact of another repository is no obstacle.
    world.check(unlink(1, 1), Ok(Outcome::BlobUnlinked));
    assert_eq!(world.events, [unlinked(1, 1), removed(1)]);
    world.check(unlink(1, 1), Err(Refusal::BlobUnknown(digest(1))));

    world.given([delete(0, 7), delete(0, 8)]);
    world.check(unlink(0, 1), Ok(Outcome::BlobUnlinked));
    assert_eq!(world.events, [unlinked(0, 1), removed(0)]);
    assert_eq!((world.repository(0), world.usage(0)), (None, None));
    // The bytes stay until they are collected.
    assert_eq!(world.blob(1).references, 0);
}

#[test]
fn an_artifact_needs_all_it_references() {
    let mut world = World::new();
    world.given([commit(0, 1), commit(2, 3), put(2, 7, &[3], &[], &[])]);
    // Blob 3 and artifact 7 are in another tenant's repository: they are not here. All that is missing is told, sorted.
    world.check(put(0, 8, &[4, 1, 3, 4], &[7, 6], &["v1"]), missing(&[3, 4], &[6, 7]));
    world.check(put(0, 8, &[1], &[8], &[]), missing(&[], &[8]));
    world.check(put(0, 8, &[1, 1], &[], &[]), stored(true));
    assert_eq!(world.artifact(0, 8).blobs, [digest(1)]);
    assert_eq!(world.blob(1).references, 1);
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
    let usage = UsageRecord { bytes: 200, links: 2, artifacts: 1, ..UsageRecord::default() };
    assert_eq!(world.usage(0), Some(usage), "its bytes are counted once, by the link");
    let referenced = Refusal::BlobReferenced { digest: digest(5), by: digest(5) };
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
    if let Action::PutArtifact { media_type: told, .. } = &mut again {
        *told = media_type("type/two");
    }
    world.check(again, stored(false));
    assert_eq!(world.events, [moved(0, "v2", None, 7)]);
    assert_eq!(world.artifact(0, 7), first, "the first push decides");
    assert_eq!(world.blob(1).references, 1);

    world.check(put(0, 8, &[1], &[], &["v2"]), stored(true));
    assert_eq!(world.events, [pushed(0, 8), moved(0, "v2", Some(7), 8)]);
    assert!(!world.has(&Key::TagOf(repository(0), digest(7), tag("v2"))));
    assert_eq!(world.blob(1).references, 2);
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

    let tags = vec![tag("a"), tag("b")];
    world.check(delete(0, 7), Ok(Outcome::ArtifactDeleted { tags: tags.clone() }));
    let gone = |tag: &TagName| Event::TagDeleted {
        repository: repository(0),
        tag: tag.clone(),
        digest: digest(7),
    };
    let artifact = Event::ArtifactDeleted { repository: repository(0), digest: digest(7) };
    assert_eq!(world.events, [gone(&tags[0]), gone(&tags[1]), artifact]);
    assert!(!world.has(&referrer));
    assert_eq!(world.blob(1).references, 0);
    assert_eq!(world.blob(1).unreferenced_at, Timestamp(7_000));
    assert_eq!(world.artifact(0, 6).children, [digest(7)]);
    assert!(world.tag(0, "index").is_some());
}

#[test]
fn every_one_of_very_many_tags_goes_with_its_artifact() {
    let names: Vec<String> = (0..600).map(|i| format!("t{i:03}")).collect();
    let named: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new();
    world.given([put(0, 7, &[], &[], &named), put(0, 8, &[], &[], &["t300", "other"])]);
    let mut expected: Vec<TagName> = names.iter().map(|name| tag(name)).collect();
    expected.remove(300);
    world.check(delete(0, 7), Ok(Outcome::ArtifactDeleted { tags: expected }));
    let record = world.repository(0).unwrap();
    assert_eq!((record.artifacts, record.tags), (1, 2));
    world.check(delete_tag(0, "t300"), Ok(Outcome::TagDeleted { digest: digest(8) }));
}

#[test]
fn deleting_a_tag_leaves_its_artifact() {
    let mut world = World::new();
    world.given([put(0, 7, &[], &[], &["v1"])]);
    world.check(delete_tag(0, "v2"), Err(Refusal::TagUnknown(tag("v2"))));
    world.check(delete_tag(2, "v1"), Err(Refusal::TagUnknown(tag("v1"))));
    world.check(delete_tag(0, "v1"), Ok(Outcome::TagDeleted { digest: digest(7) }));
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
        links: 0,
    };
    assert_eq!(world.repository(1), Some(record));
    world.given([delete(1, 7)]);
    assert_eq!(world.events.last(), Some(&removed(1)));
    assert_eq!((world.repository(1), world.usage(1)), (None, None));
    world.given([put(1, 7, &[], &[], &[])]);
    assert_eq!(world.repository(1).unwrap().created_at, Timestamp(4_000));
}

#[test]
fn a_blob_counts_each_artifact_of_each_repository() {
    let mut world = World::new();
    world.given([
        commit(0, 1),
        mount(0, 2, 1),
        put(0, 7, &[1], &[], &[]),
        put(2, 7, &[1], &[], &[]),
    ]);
    assert_eq!(world.blob(1).references, 2);
    world.given([delete(0, 7)]);
    let blob = world.blob(1);
    assert_eq!((blob.references, blob.unreferenced_at), (1, Timestamp(2_000)));
    world.given([delete(2, 7)]);
    let blob = world.blob(1);
    assert_eq!((blob.references, blob.unreferenced_at), (0, Timestamp(7_000)));
    let usage = UsageRecord { bytes: 100, links: 1, ..UsageRecord::default() };
    assert_eq!((world.usage(0), world.usage(2)), (Some(usage.clone()), Some(usage)));
}
