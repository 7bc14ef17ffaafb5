//! Every kind of finding, each from one row that was tampered with.

use nora_domain::audit::audit;
use nora_domain::command::{Action, Command, Terms};
use nora_domain::record::{
    AuthorityRecord, Body, ClusterId, Epoch, FeatureLevel, Generation, JoinTokenRecord, Key,
    NodeId, NodeRecord, PinRecord, Placement, Record, ReferrerRecord, SessionRecord, Standing,
    Timestamp, TokenId, UploadId,
};
use nora_domain::store::{MemoryStore, Store};

use crate::universe::{digest, media_type, repository, row, run, start, tag};

/// A state that holds a row of every kind: artifact 7 with blob 1 and subject 8, artifact 5 with its own blob as body
/// and 7 as its child, tag `v1` on 7, an upload session.
fn sound() -> MemoryStore {
    let here = || repository(0);
    let node = NodeId(1);
    let generation = |sequence| Generation { epoch: Epoch(1), sequence };
    let commit = |blob: u8| Action::CommitBlob {
        repository: here(),
        digest: digest(blob),
        size: 100,
        generation: generation(u64::from(blob)),
        node,
        chunk_root: [blob; 32],
        upload: UploadId(u128::from(blob)),
        pinned_until: Timestamp(9_000),
        placement: Placement::Nodes(vec![node]),
    };
    let put = |artifact: u8, body: Body, size, subject, blobs, children| Action::PutArtifact {
        repository: here(),
        digest: digest(artifact),
        media_type: media_type("type/one"),
        size,
        body,
        subject,
        artifact_type: None,
        blobs,
        children,
        tags: if artifact == 7 { vec![tag("v1")] } else { Vec::new() },
    };
    let subject = Some(digest(8));
    let actions = [
        start(node),
        commit(1),
        commit(5),
        put(7, Body::Inline(vec![0; 3]), 3, subject, vec![digest(1)], Vec::new()),
        put(5, Body::Blob, 100, None, vec![digest(1), digest(5)], vec![digest(7)]),
        Action::OpenUpload {
            upload: UploadId(9),
            repository: here(),
            node,
            expires_at: Timestamp(9_000),
            reserve: 0,
        },
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
    assert_eq!(audit(store.rows()), Vec::new());
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

#[track_caller]
fn found(store: &MemoryStore, expected: &str) {
    let findings: Vec<_> = audit(store.rows()).iter().map(ToString::to_string).collect();
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
    check(Key::Cluster, set!(Cluster, clock, Timestamp(999)), "after the cluster's 999");
    check(Key::Cluster, set!(Cluster, epoch, Epoch(0)), "never handed out");
    check(Key::Node(NodeId(1)), set!(Node, epoch, Epoch(0)), "never handed out");
    check(Key::Upload(UploadId(9)), set!(Upload, opened_at, Timestamp(1_001)), "has time 1001");
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
    check(artifact(7), set!(Artifact, blobs, Vec::new()), "no such artifact needs the blob");
    check(artifact(7), set!(Artifact, subject, None), "no such artifact has this subject");
    check(artifact(7), set!(Artifact, artifact_type, Some(media_type("a/b"))), "another artifact");
    check(Key::Tag(here(), tag("v1")), set!(Tag, digest, digest(6)), "which is not there");
    check(Key::Tag(here(), tag("v1")), set!(Tag, digest, digest(5)), "does not name this artifact");
    check(Key::Link(digest(1), here()), set!(Link, size, 99), "says 99 bytes, the blob has 100");
    check(Key::Blob(digest(1)), set!(Blob, references, 1), "says 1 references, has 2");
    check(
        Key::Blob(digest(1)),
        set!(Blob, generation, Generation::default()),
        "generation of epoch",
    );
    let holders = |nodes: &[u64]| Placement::Nodes(nodes.iter().map(|n| NodeId(*n)).collect());
    check(Key::Blob(digest(1)), set!(Blob, placement, holders(&[1, 1])), "are not sorted");
    check(Key::Blob(digest(1)), set!(Blob, placement, holders(&[3])), "held by node 3, not known");
    check(Key::Session(Epoch(1)), set!(Session, applied, vec![0]), "not compact");
    check(Key::Session(Epoch(1)), set!(Session, node, NodeId(2)), "node 2 does not run it");
    check(Key::Node(NodeId(1)), set!(Node, epoch, Epoch(9)), "epoch 9 was never handed out");
    check(Key::Cluster, set!(Cluster, cluster, Some(ClusterId(1))), "no authority");
    check(Key::Cluster, set!(Cluster, feature_level, FeatureLevel(9)), "understands level 4");
    check(Key::Repository(here()), set!(Repository, artifacts, 1), "a recount gives (2, 1, 2)");
    check(Key::Repository(here()), set!(Repository, tags, 0), "a recount gives (2, 1, 2)");
    check(Key::Repository(here()), set!(Repository, links, 3), "a recount gives (2, 1, 2)");
    check(usage(), set!(Usage, bytes, 200), "bytes: 203");
    check(usage(), set!(Usage, artifacts, 1), "artifacts: 2");
    check(usage(), set!(Usage, tags, 2), "tags: 1");
    check(usage(), set!(Usage, links, 1), "links: 2");
    check(Key::Blob(digest(1)), |record| *record = Record::Edge, "a record of another kind");
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
    let stranger = SessionRecord { node: NodeId(2), ..SessionRecord::default() };
    check_added(Key::Session(Epoch(2)), Record::Session(stranger), "node 2 does not run it");
    let authority = AuthorityRecord { certificate: Vec::new(), key: Vec::new() };
    check_added(Key::Authority, Record::Authority(authority), "the cluster is not founded");
    let token = JoinTokenRecord { secret_hash: [0; 32], expires_at: Timestamp(0) };
    check_added(Key::JoinToken(TokenId(1)), Record::JoinToken(token), "is not founded");
    check_added(Key::TagOf(here(), digest(7), tag("v2")), Record::TagOf, "does not name");
    check_added(Key::Edge(digest(5), here(), digest(7)), Record::Edge, "no such artifact needs");
    check_added(
        Key::Referrer(here(), digest(8), digest(5)),
        Record::Referrer(ReferrerRecord { artifact_type: None }),
        "no such artifact has this subject",
    );
    let pin = |at| Record::Pin(PinRecord { expires_at: Timestamp(at) });
    check_added(Key::Pin(digest(3), UploadId(1)), pin(1_001), "the blob is not live");
    check_added(Key::Usage(repository(2).tenant), Record::Usage(Default::default()), "no row");
    let empty = Record::Repository(Default::default());
    check_added(Key::Repository(repository(2)), empty, "a recount gives no row");

    // A pin that has expired keeps nothing, so there is nothing wrong with it.
    let mut store = sound();
    let Ok(()) = store.put(Key::Pin(digest(3), UploadId(1)), pin(1_000));
    assert_eq!(audit(store.rows()), Vec::new());
}

#[test]
fn rows_that_are_missing_are_found() {
    let here = || repository(0);
    check_removed(Key::Cluster, "after the cluster's 0");
    check_removed(Key::Usage(here().tenant), "the row says no row");
    check_removed(Key::Repository(here()), "the row says no row");
    check_removed(Key::Artifact(here(), digest(7)), "which is not there");
    check_removed(Key::Tag(here(), tag("v1")), "the tag does not name this artifact");
    check_removed(Key::TagOf(here(), digest(7), tag("v1")), "is not found from");
    check_removed(Key::Link(digest(1), here()), "not linked here");
    check_removed(Key::Referrer(here(), digest(8), digest(7)), "is missing among the referrers");
    check_removed(Key::Blob(digest(1)), "which is not live");
    check_removed(Key::Edge(digest(1), here(), digest(7)), "which has no edge to it");
}
