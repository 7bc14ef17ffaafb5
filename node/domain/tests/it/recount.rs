//! Every kind of finding, each from one row that was tampered with.

use nora_domain::{
    Action, AdvanceCursor, AuthorityKeys, AuthorityRecord, Body, ClusterId, Command, CommitBlob,
    CursorRecord, Epoch, Facts, FeatureLevel, Generation, HashKind, Head, Holder, Item,
    JoinTokenRecord, Key, MemoryStore, NewFile, NodeId, NodeRecord, NotePulls, OpenUpload,
    Placement, PolicyRecord, PulledRecord, PutArtifact, PutVersion, Record, ReferrerRecord,
    RepositoryKey, SealJournal, SessionRecord, SharedSecret, Standing, Store, Target, Terms,
    Timestamp, TokenId, UploadId, VersionState, recount::recount, system_repository,
};

use crate::universe::{
    consumer, digest, file, media_type, repository, row, run, start, tag, version,
};

/// A state that holds a row of every kind: artifact 7 with blob 1 and subject 8, artifact 5 with its own blob as body
/// and 7 as its child, tag `v1` on 7, version `1.0` with its facts and its file `f0` in blob 1, an upload session, a pull
/// of 7, the first two entries of the journal sealed into blob 3, and a consumer that has read four.
fn sound() -> MemoryStore {
    let here = || repository(0);
    let node = NodeId(1);
    let generation = |sequence| Generation { epoch: Epoch(1), sequence };
    let commit = |repository: RepositoryKey, blob: u8| {
        Action::CommitBlob(CommitBlob {
            repository,
            digest: digest(blob),
            size: 100,
            generation: generation(u64::from(blob)),
            node,
            chunk_root: [blob; 32],
            upload: UploadId(u128::from(blob)),
            pin_millis: 8_000,
            placement: Placement::Nodes(vec![node]),
        })
    };
    let put = |artifact: u8, body: Body, size, subject, blobs, children| {
        Action::PutArtifact(PutArtifact {
            repository: here(),
            digest: digest(artifact),
            media_type: media_type("type/one"),
            size,
            body,
            subject,
            artifact_type: None,
            annotations: Default::default(),
            blobs,
            children,
            tags: if artifact == 7 { vec![tag("v1")] } else { Vec::new() },
        })
    };
    let subject = Some(digest(8));
    let actions = [
        start(node),
        commit(here(), 1),
        commit(here(), 5),
        commit(system_repository(), 3),
        put(7, Body::Inline(vec![0; 3].into()), 3, subject, vec![digest(1)], Vec::new()),
        put(5, Body::Blob, 100, None, vec![digest(1), digest(5)], vec![digest(7)]),
        Action::OpenUpload(OpenUpload {
            upload: UploadId(9),
            repository: here(),
            node,
            lives_millis: 8_000,
            reserve: 0,
        }),
        Action::PutVersion(PutVersion {
            repository: here(),
            version: version("1.0"),
            expected: nora_domain::Expected::Absent,
            facts: Some(Facts::Blob(digest(1))),
            files: vec![NewFile {
                name: file("f0"),
                digest: digest(1),
                size: 100,
                hashes: vec![(HashKind::Md5, vec![0; 16]), (HashKind::Sha1, vec![0; 20])],
            }],
            tags: Vec::new(),
        }),
        Action::NotePulls(NotePulls { pulls: vec![(here(), Item::Artifact(digest(7)))] }),
        Action::SealJournal(SealJournal { first: 1, last: 2, digest: digest(3), size: 100 }),
        Action::AdvanceCursor(AdvanceCursor { consumer: consumer("c0"), number: 4 }),
    ];
    let mut store = MemoryStore::default();
    for (action, position) in actions.into_iter().zip(1..) {
        let applied = run(
            &mut store,
            position,
            &Command { at: Timestamp(1_000), origin: None, terms: Terms::default(), action },
        );
        assert!(applied.answer.is_ok(), "{applied:?}");
    }
    assert_eq!(recount(&store), Vec::new());
    store
}

/// Changes one row of a sound state and expects a finding that says so.
#[track_caller]
fn check(key: Key, change: impl FnOnce(&mut Record), expected: &str) {
    let mut store = sound();
    let mut record = row(&store, &key).expect("the sound state has the row");
    change(&mut record);
    let Ok(()) = store.put(key, record);
    found(&store, expected);
}

/// Adds a row to a sound state and expects a finding that says so.
#[track_caller]
fn check_added(key: Key, record: Record, expected: &str) {
    let mut store = sound();
    assert_eq!(row(&store, &key), None);
    let Ok(()) = store.put(key, record);
    found(&store, expected);
}

/// Removes a row from a sound state and expects a finding that says so.
#[track_caller]
fn check_removed(key: Key, expected: &str) {
    let mut store = sound();
    assert!(row(&store, &key).is_some());
    let Ok(()) = store.delete(&key);
    found(&store, expected);
}

/// Changes the head of a sound state and expects a finding that says so.
#[track_caller]
fn check_head(change: impl FnOnce(&mut Head), expected: &str) {
    let mut store = sound();
    change(store.head_mut());
    found(&store, expected);
}

#[track_caller]
fn found(store: &MemoryStore, expected: &str) {
    let findings: Vec<_> = recount(store).iter().map(ToString::to_string).collect();
    assert!(findings.iter().any(|finding| finding.contains(expected)), "{findings:?}");
}

macro_rules! set {
    ($kind:ident, $field:ident, $value:expr) => {
        |record: &mut Record| match record {
            Record::$kind(record) => record.$field = $value,
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn wrong_values_are_found() {
    let here = || repository(0);
    let artifact = |i| Key::Artifact(here(), digest(i));
    let usage = || Key::Usage(here().tenant);
    let of_version = || Key::Version(here(), version("1.0"));
    let of_file = || Key::File(here(), version("1.0"), file("f0"));
    check(Key::Cluster, set!(Cluster, epoch, Epoch(0)), "never handed out");
    check(Key::Node(NodeId(1)), set!(Node, epoch, Epoch(0)), "never handed out");
    let upload = Key::Upload(here().tenant, UploadId(9));
    check(upload, set!(Upload, opened_at, Timestamp(1_001)), "has time 1001");
    check(artifact(7), set!(Artifact, size, 4), "says 4 bytes, holds 3");
    check(artifact(5), set!(Artifact, size, 4), "says 4 bytes, its blob 100");
    check(artifact(5), set!(Artifact, blobs, vec![digest(1)]), "a blob that it does not reference");
    check(
        artifact(5),
        set!(Artifact, blobs, vec![digest(5), digest(1)]),
        "its blobs are not sorted",
    );
    check(artifact(5), set!(Artifact, children, vec![digest(7); 2]), "its children are not sorted");
    check(artifact(7), set!(Artifact, blobs, vec![digest(5)]), "which has no edge to it");
    check(artifact(7), set!(Artifact, blobs, Vec::new()), "nothing of that name needs the blob");
    check(artifact(7), set!(Artifact, subject, None), "no such artifact has this subject");
    check(artifact(7), set!(Artifact, artifact_type, Some(media_type("a/b"))), "another artifact");
    let of_tag = || Key::Tag(here(), tag("v1"));
    check(of_tag(), set!(Tag, target, Target::Artifact(digest(6))), "which is not there");
    check(of_tag(), set!(Tag, target, Target::Version(version("2.0"))), "which is not there");
    check(of_tag(), set!(Tag, target, Target::Artifact(digest(5))), "names something else");
    check(of_version(), set!(Version, files, 2), "says 2 files, has 1");
    check(of_version(), set!(Version, facts, Facts::Blob(digest(5))), "which has no edge to it");
    check(of_version(), set!(Version, facts, Facts::default()), "nothing of that name needs");
    check(of_version(), set!(Version, facts, Facts::Inline(vec![1; 9].into())), "bytes: 212");
    check(of_version(), set!(Version, published_at, Timestamp(1_001)), "has time 1001");
    check(of_file(), set!(File, size, 99), "says 99 bytes, its blob has others");
    check(of_file(), set!(File, digest, digest(5)), "which has no edge to it");
    let twice = vec![(HashKind::Sha1, vec![0; 20]); 2];
    check(of_file(), set!(File, hashes, twice), "its hashes are not sorted");
    check(Key::Link(here(), digest(1)), set!(Link, size, 99), "says 99 bytes, the blob has 100");
    check(Key::Link(here(), digest(1)), set!(Link, linked_at, Timestamp(1_001)), "has time 1001");
    let of_tenant = || Key::TenantBlob(here().tenant, digest(1));
    check(of_tenant(), set!(TenantBlob, references, 1), "a recount gives (1, 4)");
    check(of_tenant(), set!(TenantBlob, links, 2), "a recount gives (1, 4)");
    check(of_tenant(), set!(TenantBlob, size, 99), "has another size than the blob");
    check(Key::Blob(digest(1)), set!(Blob, tenants, 2), "says 2 tenants, has 1");
    check(
        Key::Blob(digest(1)),
        set!(Blob, generation, Generation::default()),
        "generation of epoch",
    );
    let holders = |nodes: &[u64]| Placement::Nodes(nodes.iter().map(|n| NodeId(*n)).collect());
    check(Key::Blob(digest(1)), set!(Blob, placement, holders(&[1, 1])), "are not sorted");
    check(Key::Blob(digest(1)), set!(Blob, placement, holders(&[3])), "held by node 3, not known");
    check(Key::Segment(1), set!(Segment, digest, digest(5)), "which has no edge to it");
    check(Key::Segment(1), set!(Segment, last, 3), "the rows do not follow from it");
    check(Key::Segment(1), set!(Segment, head, [1; 32]), "the rows do not follow from it");
    check(Key::Journal(3), set!(Journal, count, 2), "does not follow from those before");
    check(Key::Cursor(consumer("c0")), set!(Cursor, number, 99), "has read 99");
    let held = |number| CursorRecord { number, noted_at: Timestamp(1_001) };
    let of_cursor = Key::Cursor(consumer("c0"));
    check(of_cursor, |record| *record = Record::Cursor(held(1)), "has time 1001");
    check(Key::Node(NodeId(1)), set!(Node, epoch, Epoch(9)), "epoch 9 was never handed out");
    check(Key::Cluster, set!(Cluster, cluster, Some(ClusterId(1))), "no authority");
    check(Key::Cluster, set!(Cluster, feature_level, FeatureLevel(9)), "understands level 1");
    check(Key::Repository(here()), set!(Repository, artifacts, 1), "a recount gives (2, 1, 1, 2)");
    check(Key::Repository(here()), set!(Repository, versions, 0), "a recount gives (2, 1, 1, 2)");
    check(Key::Repository(here()), set!(Repository, tags, 0), "a recount gives (2, 1, 1, 2)");
    check(Key::Repository(here()), set!(Repository, links, 3), "a recount gives (2, 1, 1, 2)");
    check(usage(), set!(Usage, bytes, 200), "bytes: 203");
    check(usage(), set!(Usage, unique_bytes, 200), "unique_bytes: 203");
    check(usage(), set!(Usage, reserved_bytes, 1), "reserved_bytes: 0");
    check(usage(), set!(Usage, versions, 2), "versions: 1");
    check(usage(), set!(Usage, artifacts, 1), "artifacts: 2");
    check(usage(), set!(Usage, tags, 2), "tags: 1");
    check(usage(), set!(Usage, links, 1), "links: 2");
    check(Key::Blob(digest(1)), |record| *record = Record::Edge, "a record of another kind");
}

#[test]
fn a_head_that_lies_is_found() {
    check_head(|head| head.clock = Timestamp(999), "after the cluster's 999");
    let session = |change: fn(&mut SessionRecord)| {
        move |head: &mut Head| head.sessions.values_mut().for_each(change)
    };
    check_head(session(|session| session.applied = vec![0]), "not compact");
    check_head(session(|session| session.applied = vec![9, 7]), "not sorted");
    check_head(session(|session| session.node = NodeId(2)), "node 2 does not run it");
    check_head(|head| head.sessions.clear(), "has no session");
    let stranger = || SessionRecord { node: NodeId(2), ..SessionRecord::default() };
    check_head(
        |head| {
            head.sessions.insert(Epoch(2), stranger());
        },
        "node 2 does not run it",
    );
    check_head(|head| head.journal.bytes += 1, "bytes of journal");
    check_head(|head| head.journal.next += 1, "the journal ends before");
    check_head(|head| head.journal.head = [1; 32], "the journal ends before");
    check_head(|head| head.journal.anchor = [1; 32], "does not follow from those before");
    check_head(|head| head.journal.first = 2, "the rows do not follow from it");
}

#[test]
fn rows_that_should_not_be_are_found() {
    let here = || repository(0);
    let unknown = || {
        Record::Node(NodeRecord {
            epoch: Epoch(1),
            standing: Standing::Active,
            ..NodeRecord::default()
        })
    };
    check_added(Key::Node(NodeId(2)), unknown(), "shares its epoch with node");
    let authority = AuthorityRecord {
        keys: AuthorityKeys { certificate: Vec::new(), key: Vec::new() },
        secret: SharedSecret([0; 32]),
        rotation: None,
    };
    check_added(Key::Authority, Record::Authority(authority), "the cluster is not founded");
    let token = JoinTokenRecord {
        secret_hash: [0; 32],
        expires_at: Timestamp(0),
        uses_left: 1,
        created_at: Timestamp(0),
    };
    check_added(Key::JoinToken(TokenId(1)), Record::JoinToken(token), "is not founded");
    let of_seven = || Target::Artifact(digest(7));
    check_added(Key::TagOf(here(), of_seven(), tag("v2")), Record::TagOf, "names something else");
    let strangers = [
        Holder::Artifact(digest(7)),
        Holder::Version(version("1.0")),
        Holder::File(version("1.0"), file("f0")),
        Holder::Segment(1),
    ];
    for holder in strangers {
        let key = Key::Edge(here(), digest(5), holder);
        check_added(key, Record::Edge, "nothing of that name needs");
    }
    let parent = Key::ParentOf(here(), digest(5), digest(7));
    check_added(parent, Record::ParentOf, "no such artifact lists it");
    let never = || Record::Pulled(PulledRecord { at: Timestamp(1) });
    let items = [
        Item::Artifact(digest(8)),
        Item::Tag(tag("v2")),
        Item::Version(version("2.0")),
        Item::File(version("1.0"), file("f1")),
    ];
    for item in items {
        check_added(Key::Pulled(here(), item), never(), "was pulled and is not there");
    }
    let other = || repository(2).tenant;
    check_added(Key::HeldBy(digest(1), other()), Record::HeldBy, "the tenant does not hold it");
    let held = Record::TenantBlob(Default::default());
    check_added(Key::TenantBlob(other(), digest(1)), held, "a recount gives no row");
    check_added(Key::Tenant(other()), Record::Tenant, "uses nothing and is not limited");
    let limits = Record::Limits(Default::default());
    check_added(Key::Limits(other()), limits, "it is missing in the directory");
    let policy = PolicyRecord {
        epoch: 1,
        document: Vec::new(),
        hash: [0; 32],
        applied_at: Timestamp(1),
        applied_by: None,
    };
    check_added(Key::Policy, Record::Policy(policy), "has number 1, counted 0");
    check_added(
        Key::Referrer(here(), digest(8), digest(5)),
        Record::Referrer(ReferrerRecord { artifact_type: None }),
        "no such artifact has this subject",
    );
    check_added(Key::Usage(repository(2).tenant), Record::Usage(Default::default()), "no row");
    let empty = Record::Repository(Default::default());
    check_added(Key::Repository(repository(2)), empty, "a recount gives no row");
    // An upload of another tenant's repository.
    let mut store = sound();
    let Some(upload) = row(&store, &Key::Upload(here().tenant, UploadId(9))) else { panic!() };
    let Ok(()) = store.put(Key::Upload(repository(2).tenant, UploadId(9)), upload);
    found(&store, "is of another tenant's repository");
}

#[test]
fn a_tombstone_has_no_tags_and_was_not_pulled() {
    let mut store = sound();
    let of_version = Key::Version(repository(0), version("1.0"));
    let Some(Record::Version(mut known)) = row(&store, &of_version) else { panic!() };
    known.state = VersionState::Tombstone;
    let Ok(()) = store.put(of_version, Record::Version(known));
    let pulled = Record::Pulled(PulledRecord { at: Timestamp(1) });
    let Ok(()) = store.put(Key::Pulled(repository(0), Item::Version(version("1.0"))), pulled);
    found(&store, "was pulled and is not there");
    let mut tagged = row(&store, &Key::Tag(repository(0), tag("v1"))).unwrap();
    set!(Tag, target, Target::Version(version("1.0")))(&mut tagged);
    let Ok(()) = store.put(Key::Tag(repository(0), tag("v1")), tagged);
    found(&store, "names 1.0, which is not there");
}

#[test]
fn rows_that_are_missing_are_found() {
    let here = || repository(0);
    check_removed(Key::Cluster, "never handed out");
    check_removed(Key::Node(NodeId(1)), "does not run it");
    check_removed(Key::Tenant(here().tenant), "is missing in the directory");
    check_removed(Key::TenantBlob(here().tenant, digest(1)), "the row says no row");
    check_removed(Key::HeldBy(digest(1), here().tenant), "is not found from the blob");
    check_removed(Key::Version(here(), version("1.0")), "its version is not there");
    let of_file = Key::File(here(), version("1.0"), file("f0"));
    check_removed(of_file, "says 1 files, has 0");
    check_removed(Key::ParentOf(here(), digest(7), digest(5)), "is not found from");
    check_removed(Key::Segment(1), "nothing of that name needs the blob");
    check_removed(Key::Journal(4), "the entry is missing");
    check_removed(Key::Usage(here().tenant), "the row says no row");
    check_removed(Key::Repository(here()), "the row says no row");
    check_removed(Key::Artifact(here(), digest(7)), "which is not there");
    check_removed(Key::Tag(here(), tag("v1")), "names something else");
    check_removed(Key::TagOf(here(), Target::Artifact(digest(7)), tag("v1")), "is not found from");
    check_removed(Key::Link(here(), digest(1)), "not linked here");
    check_removed(Key::Referrer(here(), digest(8), digest(7)), "is missing among the referrers");
    check_removed(Key::Blob(digest(1)), "which is not live");
    let holders = [
        Holder::Artifact(digest(7)),
        Holder::Version(version("1.0")),
        Holder::File(version("1.0"), file("f0")),
    ];
    for holder in holders {
        check_removed(Key::Edge(here(), digest(1), holder), "which has no edge to it");
    }
    let sealed = Key::Edge(system_repository(), digest(3), Holder::Segment(1));
    check_removed(sealed, "which has no edge to it");
}
