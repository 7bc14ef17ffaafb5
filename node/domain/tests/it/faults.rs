//! Stores that lie or fail: transitions broken on purpose, which the audit must catch.

use std::cell::Cell;

use nora_domain::audit::audit;
use nora_domain::command::Action;
use nora_domain::record::{
    BlobRecord, ClusterRecord, Generation, Key, LinkRecord, NodeId, NodeRecord, Placement, Record,
    Timestamp,
};
use nora_domain::store::{MemoryStore, Rows, Store};
use nora_domain::transition::apply;

use crate::properties::samples;

/// What a broken store does differently.
#[derive(Clone, Copy)]
struct Fault {
    /// Which commands meet the fault.
    when: fn(&Action) -> bool,
    /// What is read, given what is there.
    get: fn(&Key, Option<Record>) -> Option<Record>,
    /// Whether a run is read as empty.
    hide: fn(&Rows) -> bool,
    /// What is written, if anything is.
    put: fn(&Key, Record) -> Option<Record>,
    /// Whether a row stays that should go.
    keep: fn(&Key) -> bool,
}

const SOUND: Fault = Fault {
    when: |_| true,
    get: |_, there| there,
    hide: |_| false,
    put: |_, record| Some(record),
    keep: |_| false,
};

struct Faulty {
    rows: MemoryStore,
    fault: Fault,
}

impl Store for Faulty {
    type Error = std::convert::Infallible;

    fn get(&self, key: &Key) -> Result<Option<Record>, Self::Error> {
        Ok((self.fault.get)(key, self.rows.get(key)?))
    }

    fn scan(&self, rows: &Rows, limit: usize) -> Result<Vec<(Key, Record)>, Self::Error> {
        if (self.fault.hide)(rows) { Ok(Vec::new()) } else { self.rows.scan(rows, limit) }
    }

    fn put(&mut self, key: Key, record: Record) -> Result<(), Self::Error> {
        match (self.fault.put)(&key, record) {
            Some(record) => self.rows.put(key, record),
            None => Ok(()),
        }
    }

    fn delete(&mut self, key: &Key) -> Result<(), Self::Error> {
        if (self.fault.keep)(key) { Ok(()) } else { self.rows.delete(key) }
    }
}

/// Runs random commands under a fault; the audit's first findings of each run.
fn findings(fault: Fault) -> Vec<String> {
    let mut all = Vec::new();
    for ops in samples(60) {
        let mut store = Faulty { rows: MemoryStore::default(), fault };
        for (op, position) in ops.iter().zip(1..) {
            let command = op.command(&store.rows, position);
            store.fault = if (fault.when)(&command.action) { fault } else { SOUND };
            let Ok(_) = apply(&mut store, position, &command);
            let found = audit(store.rows.rows());
            if !found.is_empty() {
                all.extend(found.iter().map(ToString::to_string));
                break;
            }
        }
    }
    all
}

fn check(name: &str, fault: Fault, expected: &str) {
    let found = findings(fault);
    let caught = found.iter().any(|finding| finding.contains(expected));
    assert!(caught, "{name}: no finding says {expected:?} among {found:?}");
}

#[test]
fn a_sound_store_has_no_findings() {
    assert_eq!(findings(SOUND), Vec::<String>::new());
}

/// Rows that are never written.
#[test]
fn the_audit_catches_lost_writes() {
    macro_rules! lose {
        ($kind:pat) => {
            Fault { put: |key, record| (!matches!(key, $kind)).then_some(record), ..SOUND }
        };
    }
    check("edges", lose!(Key::Edge(..)), "has no edge to it");
    check("referrers", lose!(Key::Referrer(..)), "is missing among the referrers");
    check("reverse tags", lose!(Key::TagOf(..)), "is not found from");
    check("tags", lose!(Key::Tag(..)), "the tag does not name this artifact");
    check("artifacts", lose!(Key::Artifact(..)), "which is not there");
    check("links", lose!(Key::Link(..)), "a recount gives");
    check("live copies", lose!(Key::Blob(..)), "the blob is not live");
    check("repositories", lose!(Key::Repository(..)), "a recount gives");
    check("usage", lose!(Key::Usage(..)), "a recount gives");
    check("epochs and the clock", lose!(Key::Cluster), "never handed out");
    check("sessions", lose!(Key::Session(..)), "its start has no session");
    check("nodes", lose!(Key::Node(..)), "does not run it");
    check("the authority", lose!(Key::Authority), "has no authority");
}

/// Rows that outlive what they are derived from.
#[test]
fn the_audit_catches_rows_left_behind() {
    macro_rules! keep {
        ($kind:pat) => {
            Fault { keep: |key| matches!(key, $kind), ..SOUND }
        };
    }
    check("edges", keep!(Key::Edge(..)), "no such artifact needs the blob");
    check("referrers", keep!(Key::Referrer(..)), "no such artifact has this subject");
    check("reverse tags", keep!(Key::TagOf(..)), "the tag does not name this artifact");
    check("tags", keep!(Key::Tag(..)), "which is not there");
    check("links", keep!(Key::Link(..)), "a recount gives");
    check("artifacts", keep!(Key::Artifact(..)), "a recount gives");
    check("repositories", keep!(Key::Repository(..)), "a recount gives no row");
    check("usage", keep!(Key::Usage(..)), "a recount gives no row");
    check("sessions", keep!(Key::Session(..)), "does not run it");
}

/// Decisions made on what is not so, as a transition would that left a check out.
#[test]
fn the_audit_catches_missing_checks() {
    let unlink_unchecked = Fault { hide: |rows| matches!(rows, Rows::EdgesIn { .. }), ..SOUND };
    check("unlinking what is referenced", unlink_unchecked, "not linked here");

    let delete_with_tags = Fault { hide: |rows| matches!(rows, Rows::TagsOf { .. }), ..SOUND };
    check("deleting what is tagged", delete_with_tags, "which is not there");

    let links_unchecked = Fault {
        when: |action| matches!(action, Action::PutArtifact { .. }),
        get: |key, there| match key {
            Key::Link(..) => {
                there.or(Some(Record::Link(LinkRecord { size: 100, linked_at: Timestamp(1) })))
            }
            _ => there,
        },
        ..SOUND
    };
    check("storing with blobs that are not linked", links_unchecked, "not linked here");

    let members_unasked = Fault { hide: |rows| matches!(rows, Rows::Nodes), ..SOUND };
    check("raising the level over a member", members_unasked, "understands level");

    let strangers_hold = Fault {
        when: |action| matches!(action, Action::AddHolder { .. }),
        get: |key, there| match key {
            Key::Node(_) => there.or(Some(Record::Node(NodeRecord::default()))),
            _ => there,
        },
        ..SOUND
    };
    check("taking a stranger for a holder", strangers_hold, "not known");

    let moves_unseen =
        Fault { get: |key, there| there.filter(|_| !matches!(key, Key::Tag(..))), ..SOUND };
    check("counting a tag that moves", moves_unseen, "a recount gives");

    let liveness_unchecked = Fault {
        when: |action| matches!(action, Action::PutArtifact { .. }),
        get: |key, there| match key {
            Key::Link(..) => {
                there.or(Some(Record::Link(LinkRecord { size: 100, linked_at: Timestamp(1) })))
            }
            Key::Blob(_) => there.or(Some(Record::Blob(BlobRecord {
                generation: Generation::default(),
                size: 100,
                chunk_root: [0; 32],
                references: 0,
                unreferenced_at: Timestamp(1),
                touched_at: Timestamp(1),
                placement: Placement::Nodes(vec![NodeId(1)]),
            }))),
            _ => there,
        },
        ..SOUND
    };
    check("taking a copy for live that never was", liveness_unchecked, "never handed out");
}

/// Values that are written wrong.
#[test]
fn the_audit_catches_wrong_values() {
    let links = Fault {
        put: |_, record| match record {
            Record::Link(link) => Some(Record::Link(LinkRecord { size: link.size + 1, ..link })),
            other => Some(other),
        },
        ..SOUND
    };
    check("sizes of links", links, "bytes, the blob has");
    let references = Fault {
        put: |_, record| match record {
            Record::Blob(blob) => Some(Record::Blob(BlobRecord { references: 0, ..blob })),
            other => Some(other),
        },
        ..SOUND
    };
    check("references", references, "says 0 references");
    let holders = Fault {
        put: |_, record| match record {
            Record::Blob(mut blob) => {
                if let Placement::Nodes(nodes) = &mut blob.placement {
                    nodes.reverse();
                }
                Some(Record::Blob(blob))
            }
            other => Some(other),
        },
        ..SOUND
    };
    check("the order of holders", holders, "are not sorted");
    let numbers = Fault {
        put: |_, record| match record {
            Record::Cluster(cluster) if cluster.cluster.is_some() => {
                Some(Record::Cluster(ClusterRecord { last_node: NodeId(1), ..cluster }))
            }
            other => Some(other),
        },
        ..SOUND
    };
    check("numbers of nodes", numbers, "number never handed out");
}

/// A store that fails at its n-th access.
struct Failing<'a> {
    rows: &'a mut MemoryStore,
    left: Cell<u32>,
}

#[derive(Debug, PartialEq)]
struct Failed;

impl Failing<'_> {
    fn access(&self) -> Result<(), Failed> {
        self.left.set(self.left.get().checked_sub(1).ok_or(Failed)?);
        Ok(())
    }
}

impl Store for Failing<'_> {
    type Error = Failed;

    fn get(&self, key: &Key) -> Result<Option<Record>, Failed> {
        self.access()?;
        let Ok(row) = self.rows.get(key);
        Ok(row)
    }

    fn scan(&self, rows: &Rows, limit: usize) -> Result<Vec<(Key, Record)>, Failed> {
        self.access()?;
        let Ok(page) = self.rows.scan(rows, limit);
        Ok(page)
    }

    fn put(&mut self, key: Key, record: Record) -> Result<(), Failed> {
        self.access()?;
        let Ok(()) = self.rows.put(key, record);
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<(), Failed> {
        self.access()?;
        let Ok(()) = self.rows.delete(key);
        Ok(())
    }
}

#[test]
fn a_failed_access_is_never_taken_for_an_answer() {
    let mut failures = 0;
    for ops in samples(10) {
        let mut store = MemoryStore::default();
        for (op, position) in ops.iter().zip(1..) {
            let command = op.command(&store, position);
            for accesses in 0.. {
                let mut rows = store.clone();
                let mut failing = Failing { rows: &mut rows, left: Cell::new(accesses) };
                let Ok(applied) = apply(&mut failing, position, &command) else {
                    failures += 1;
                    continue;
                };
                assert_eq!(failing.left.get(), 0, "answered without an access it makes otherwise");
                assert_eq!(applied, crate::universe::run(&mut store, position, &command));
                assert_eq!(rows, store);
                break;
            }
        }
    }
    assert!(failures > 2_000, "only {failures} failures were injected");
}
