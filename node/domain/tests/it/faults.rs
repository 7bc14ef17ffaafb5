//! Stores that lie or fail: transitions broken on purpose, which the recount must catch.

use std::cell::Cell;

use nora_domain::{
    Action, AddHolder, BlobRecord, ClusterRecord, Entry, Generation, Head, Key, LinkRecord,
    MemoryStore, NodeId, NodeRecord, NotePulls, Placement, PutArtifact, PutVersion, Record, Rows,
    Store, TagRecord, Target, TenantBlobRecord, Timestamp, VersionRecord, apply, recount::recount,
};

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

    fn head(&self) -> &Head {
        self.rows.head()
    }

    fn head_mut(&mut self) -> &mut Head {
        self.rows.head_mut()
    }
}

/// Runs random commands under a fault; the recount's first findings of each run, until one says what is expected.
fn findings(fault: Fault, expected: Option<&str>) -> Vec<String> {
    let mut all = Vec::new();
    for ops in samples(100) {
        let mut store = Faulty { rows: MemoryStore::default(), fault };
        for (op, position) in ops.iter().zip(1..) {
            let command = op.command(&store.rows, position);
            store.fault = if (fault.when)(&command.action) { fault } else { SOUND };
            let Ok(_) = apply(&mut store, position, &command);
            let found = recount(&store.rows);
            if !found.is_empty() {
                all.extend(found.iter().map(ToString::to_string));
                break;
            }
        }
        if all.iter().any(|finding| expected.is_some_and(|expected| finding.contains(expected))) {
            break;
        }
    }
    all
}

fn check(name: &str, fault: Fault, expected: &str) {
    let found = findings(fault, Some(expected));
    let caught = found.iter().any(|finding| finding.contains(expected));
    assert!(caught, "{name}: no finding says {expected:?} among {found:?}");
}

#[test]
fn a_sound_store_has_no_findings() {
    assert_eq!(findings(SOUND, None), Vec::<String>::new());
}

/// Rows that are never written.
#[test]
fn the_recount_catches_lost_writes() {
    macro_rules! lose {
        ($kind:pat) => {
            Fault { put: |key, record| (!matches!(key, $kind)).then_some(record), ..SOUND }
        };
    }
    check("edges", lose!(Key::Edge(..)), "has no edge to it");
    check("referrers", lose!(Key::Referrer(..)), "is missing among the referrers");
    check("reverse tags", lose!(Key::TagOf(..)), "is not found from");
    check("tags", lose!(Key::Tag(..)), "the tag names something else");
    check("parents", lose!(Key::ParentOf(..)), "is not found from");
    check("versions", lose!(Key::Version(..)), "its version is not there");
    check("files", lose!(Key::File(..)), "nothing of that name needs the blob");
    check("blobs of tenants", lose!(Key::TenantBlob(..)), "the tenant does not hold it");
    check("tenants of blobs", lose!(Key::HeldBy(..)), "is not found from the blob");
    check("the directory of tenants", lose!(Key::Tenant(_)), "is missing in the directory");
    check("the journal", lose!(Key::Journal(_)), "the journal ends before");
    check("segments", lose!(Key::Segment(_)), "nothing of that name needs the blob");
    check("names of tokens", lose!(Key::TokenOf(..)), "is not found by its name");
    check("the policy", lose!(Key::Policy), "has number 0, counted");
    check("artifacts", lose!(Key::Artifact(..)), "which is not there");
    check("links", lose!(Key::Link(..)), "a recount gives");
    check("live copies", lose!(Key::Blob(..)), "the blob is not live");
    check("repositories", lose!(Key::Repository(..)), "a recount gives");
    check("usage", lose!(Key::Usage(..)), "a recount gives");
    check("epochs", lose!(Key::Cluster), "never handed out");
    check("nodes", lose!(Key::Node(..)), "does not run it");
    check("the authority", lose!(Key::Authority), "has no authority");
}

/// Rows that outlive what they are derived from.
#[test]
fn the_recount_catches_rows_left_behind() {
    macro_rules! keep {
        ($kind:pat) => {
            Fault { keep: |key| matches!(key, $kind), ..SOUND }
        };
    }
    check("edges", keep!(Key::Edge(..)), "nothing of that name needs the blob");
    check("parents", keep!(Key::ParentOf(..)), "no such artifact lists it");
    check("versions", keep!(Key::Version(..)), "a recount gives");
    check("files", keep!(Key::File(..)), "its version is not there");
    check("notes of pulls", keep!(Key::Pulled(..)), "was pulled and is not there");
    check("blobs of tenants", keep!(Key::TenantBlob(..)), "a recount gives no row");
    check("tenants of blobs", keep!(Key::HeldBy(..)), "the tenant does not hold it");
    check("the directory of tenants", keep!(Key::Tenant(_)), "uses nothing and is not limited");
    check("the journal", keep!(Key::Journal(_)), "does not follow from those before");
    check("segments", keep!(Key::Segment(_)), "which has no edge to it");
    check("names of tokens", keep!(Key::TokenOf(..)), "no such token has this owner and name");
    check("referrers", keep!(Key::Referrer(..)), "no such artifact has this subject");
    check("reverse tags", keep!(Key::TagOf(..)), "the tag names something else");
    check("tags", keep!(Key::Tag(..)), "which is not there");
    check("links", keep!(Key::Link(..)), "a recount gives");
    check("artifacts", keep!(Key::Artifact(..)), "a recount gives");
    check("repositories", keep!(Key::Repository(..)), "a recount gives no row");
    check("usage", keep!(Key::Usage(..)), "a recount gives no row");
}

/// What a tenant does with a blob that it does not hold.
fn held() -> TenantBlobRecord {
    TenantBlobRecord { size: 100, ..TenantBlobRecord::default() }
}

/// Decisions made on what is not so, as a transition would that left a check out.
#[test]
fn the_recount_catches_missing_checks() {
    let unlink_unchecked = Fault {
        when: |action| matches!(action, Action::UnlinkBlob(_)),
        hide: |rows| matches!(rows, Rows::Edges { .. }),
        get: |_, there| match there {
            Some(Record::TenantBlob(held)) => {
                Some(Record::TenantBlob(TenantBlobRecord { references: 0, ..held }))
            }
            there => there,
        },
        ..SOUND
    };
    check("unlinking what is referenced", unlink_unchecked, "not linked here");

    let delete_with_tags = Fault { hide: |rows| matches!(rows, Rows::TagsOf { .. }), ..SOUND };
    check("deleting what is tagged", delete_with_tags, "which is not there");

    let links_unchecked = Fault {
        when: |action| matches!(action, Action::PutArtifact(PutArtifact { .. })),
        get: |key, there| match key {
            Key::Link(..) => {
                there.or(Some(Record::Link(LinkRecord { size: 100, ..LinkRecord::default() })))
            }
            Key::TenantBlob(..) => there.or(Some(Record::TenantBlob(held()))),
            _ => there,
        },
        ..SOUND
    };
    check("storing with blobs that are not linked", links_unchecked, "not linked here");

    let files_unchecked = Fault {
        when: |action| matches!(action, Action::PutVersion(PutVersion { .. })),
        get: |key, there| match key {
            Key::File(..) => None,
            _ => there,
        },
        ..SOUND
    };
    check("storing a file twice", files_unchecked, "files, has");

    let gone_is_pulled = Fault {
        when: |action| matches!(action, Action::NotePulls(NotePulls { .. })),
        get: |key, there| match key {
            Key::Tag(..) => there.or(Some(Record::Tag(TagRecord {
                target: Target::Artifact(crate::universe::digest(7)),
                moved_at: Timestamp(1),
            }))),
            _ => there,
        },
        ..SOUND
    };
    check("noting a pull of what is gone", gone_is_pulled, "was pulled and is not there");

    let members_unasked = Fault { hide: |rows| matches!(rows, Rows::Nodes), ..SOUND };
    check("raising the level over a member", members_unasked, "understands level");

    let strangers_hold = Fault {
        when: |action| matches!(action, Action::AddHolder(AddHolder { .. })),
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
        when: |action| matches!(action, Action::PutArtifact(PutArtifact { .. })),
        get: |key, there| match key {
            Key::Link(..) => {
                there.or(Some(Record::Link(LinkRecord { size: 100, ..LinkRecord::default() })))
            }
            Key::TenantBlob(..) => there.or(Some(Record::TenantBlob(held()))),
            Key::Blob(_) => there.or(Some(Record::Blob(BlobRecord {
                generation: Generation::default(),
                size: 100,
                chunk_root: [0; 32],
                tenants: 1,
                unheld_at: Timestamp(1),
                placement: Placement::Nodes(vec![NodeId(1)]),
            }))),
            _ => there,
        },
        ..SOUND
    };
    check("taking a copy for live that never was", liveness_unchecked, "which is not live");
}

/// Values that are written wrong.
#[test]
fn the_recount_catches_wrong_values() {
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
            Record::TenantBlob(held) => {
                Some(Record::TenantBlob(TenantBlobRecord { references: 0, ..held }))
            }
            other => Some(other),
        },
        ..SOUND
    };
    check("references", references, "links and references: the row says");
    let tenants = Fault {
        put: |_, record| match record {
            Record::Blob(blob) => Some(Record::Blob(BlobRecord { tenants: 0, ..blob })),
            other => Some(other),
        },
        ..SOUND
    };
    check("tenants of a blob", tenants, "says 0 tenants");
    let files = Fault {
        put: |_, record| match record {
            Record::Version(known) => {
                Some(Record::Version(VersionRecord { files: known.files + 1, ..known }))
            }
            other => Some(other),
        },
        ..SOUND
    };
    check("files of a version", files, "files, has");
    let entries = Fault {
        put: |_, record| match record {
            Record::Journal(entry) => {
                Some(Record::Journal(Entry { count: entry.count + 1, ..entry }))
            }
            other => Some(other),
        },
        ..SOUND
    };
    check("entries of the journal", entries, "does not follow from those before");
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

/// Starts that are begun and ended are in the head, which a store cannot lose by the row.
#[test]
fn the_recount_catches_a_head_that_lies() {
    type Lie = (fn(&mut Head), &'static str);
    let mut caught = [0; 4];
    for ops in samples(20) {
        let mut store = MemoryStore::default();
        for (op, position) in ops.iter().zip(1..) {
            let command = op.command(&store, position);
            crate::universe::run(&mut store, position, &command);
        }
        let lies: [Lie; 4] = [
            (|head| head.sessions.clear(), "has no session"),
            (|head| head.clock = Timestamp(0), "after the cluster's 0"),
            (|head| head.journal.bytes += 1, "bytes of journal"),
            (|head| head.journal.next += 1, "the journal ends before"),
        ];
        for ((lie, expected), caught) in lies.into_iter().zip(&mut caught) {
            let mut store = store.clone();
            lie(store.head_mut());
            let found: Vec<_> = recount(&store).iter().map(ToString::to_string).collect();
            *caught += u32::from(found.iter().any(|finding| finding.contains(expected)));
        }
    }
    assert!(caught.iter().all(|caught| *caught >= 15), "{caught:?}");
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

    fn head(&self) -> &Head {
        self.rows.head()
    }

    fn head_mut(&mut self) -> &mut Head {
        self.rows.head_mut()
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
