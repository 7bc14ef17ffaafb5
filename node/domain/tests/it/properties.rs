//! What holds whatever commands come, in whatever order.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;

use nora_domain::{
    Action, Applied, ArtifactStored, BlobCommitted, BlobRecord, Body, BudgetRecord, Command,
    CommitBlob, Digest, Event, Expected, Head, Item, Key, MemoryStore, MountBlob, NoteRefusals,
    Outcome, Placement, PutVersion, Rate, Record, Refusal, RepositoryKey, Rows, Standing, Store,
    Target, TenantName, Timestamp, UsageRecord, VersionState, VersionStored, apply,
    recount::recount,
};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{FileFailurePersistence, TestCaseError, TestRunner};

use crate::projection::{KINDS, POINTERS, Projection, kind};
use crate::universe::{Op, ops, row, run};

/// Failures are kept in a file beside these tests, and run again first. `PROPTEST_CASES` asks for more than 256 cases.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/it/regressions.txt",
        ))),
        ..ProptestConfig::default()
    }
}

/// The log that these choices lead to, and the state after it.
fn log(ops: &[Op]) -> (Vec<Command>, MemoryStore) {
    let mut store = MemoryStore::default();
    let mut commands = Vec::new();
    for (op, position) in ops.iter().zip(1..) {
        let command = op.command(&store, position);
        run(&mut store, position, &command);
        commands.push(command);
    }
    (commands, store)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_step_keeps_every_invariant(ops in ops()) {
        let mut store = MemoryStore::default();
        let mut told = Projection::default();
        for (op, position) in ops.iter().zip(1..) {
            let command = op.command(&store, position);
            let before = store.clone();
            let applied = run(&mut store, position, &command);
            check_step(&before, &store, position, &command, &applied)?;
            for event in &applied.events {
                prop_assert!(told.follow(event), "{event:?} cannot come now");
            }
            prop_assert_eq!(&told, &Projection::of(&store), "events differ from rows");
        }
    }

    #[test]
    fn the_state_is_equal_however_the_log_is_cut(ops in ops(), cuts in any::<[u8; 3]>()) {
        let (commands, whole) = log(&ops);
        let mut answers = Vec::new();
        let mut once = MemoryStore::default();
        for (command, position) in commands.iter().zip(1..) {
            answers.push(run(&mut once, position, command));
        }
        prop_assert_eq!(&once, &whole);

        // Each restart goes on from a snapshot that was taken some commands before the crash.
        let mut cuts = cuts.map(|cut| usize::from(cut) % (commands.len() + 1));
        cuts.sort_unstable();
        let mut snapshot = MemoryStore::default();
        let mut taken_at = 0;
        for cut in cuts.into_iter().chain([commands.len()]) {
            let mut running = snapshot.clone();
            for i in taken_at..cut {
                let applied = run(&mut running, i as u64 + 1, &commands[i]);
                prop_assert_eq!(&applied, &answers[i], "replaying gives another answer");
            }
            let half = taken_at.midpoint(cut);
            for (command, position) in commands.iter().zip(1..).take(half).skip(taken_at) {
                run(&mut snapshot, position, command);
            }
            taken_at = half;
            if cut == commands.len() {
                prop_assert_eq!(&running, &whole);
            }
        }
    }
}

fn check_step(
    before: &MemoryStore,
    after: &MemoryStore,
    position: u64,
    command: &Command,
    applied: &Applied,
) -> Result<(), TestCaseError> {
    let findings = recount(after);
    prop_assert!(findings.is_empty(), "{command:?} left {findings:?}");
    check_visible(after)?;
    if applied.answer.is_err() {
        let (before, after) = (without_journal(before), without_journal(after));
        prop_assert_eq!(before, after, "a refused command changed rows");
        prop_assert!(applied.events.is_empty(), "a refused command emitted events");
    }
    check_revisions(before, after, position)?;
    check_lasting(before, after)?;
    check_limits(before, after)?;
    check_noted(before, after, command, applied)?;
    check_pointers(before, after, &applied.events)?;
    if let Ok(Outcome::CommitBlob(BlobCommitted { live })) = applied.answer
        && let Action::CommitBlob(CommitBlob { digest, .. }) = &command.action
    {
        match row(after, &Key::Blob(*digest)) {
            Some(Record::Blob(blob)) => prop_assert_eq!(blob.generation, live),
            other => prop_assert!(false, "committed, but {other:?}"),
        }
    }
    Ok(())
}

/// What a refusal leaves alone: all but the journal, and the clock that its entries are stamped with.
fn without_journal(store: &MemoryStore) -> (Vec<(Key, Record)>, Head) {
    let rows = store.rows().filter(|(key, _)| !matches!(key, Key::Journal(_)));
    let rows = rows.map(|(key, record)| (key.clone(), record.clone())).collect();
    let sessions = store.head().sessions.clone();
    (rows, Head { sessions, ..Head::default() })
}

/// Nothing grows over a quota, and no hour grants more than its limit.
fn check_limits(before: &MemoryStore, after: &MemoryStore) -> Result<(), TestCaseError> {
    for (key, record) in after.rows() {
        let (Key::Usage(tenant), Record::Usage(new)) = (key, record) else { continue };
        let Some(Record::Limits(limits)) = row(after, &Key::Limits(tenant.clone())) else {
            continue;
        };
        let old = match row(before, key) {
            Some(Record::Usage(old)) => old,
            _ => UsageRecord::default(),
        };
        let (was, is) =
            (old.unique_bytes + old.reserved_bytes, new.unique_bytes + new.reserved_bytes);
        let bytes = limits.storage_quota.unwrap_or(u64::MAX);
        prop_assert!(is <= bytes.max(was), "{is} bytes of {bytes}, {was} before");
        let artifacts = limits.artifact_quota.unwrap_or(u64::MAX);
        let (was, is) = (old.artifacts + old.versions, new.artifacts + new.versions);
        prop_assert!(is <= artifacts.max(was), "{is} of {artifacts}, {was} before");
        let budget = |store| match row(store, &Key::Budget(tenant.clone(), Rate::Push)) {
            Some(Record::Budget(budget)) => budget,
            _ => BudgetRecord::default(),
        };
        let (was, is) = (budget(before), budget(after));
        // A limit that was lowered may be below what the hour has granted already, and some of that is given back.
        let before = if was.hour == is.hour { was.granted } else { 0 };
        let most = limits.push_limit.unwrap_or(u64::MAX).max(before);
        prop_assert!(is.granted <= most || was == is, "{is:?} of {most}, after {was:?}");
    }
    Ok(())
}

/// What changed anything, and what a caller asked for, is in the journal, once, whatever came of it; nothing else comes
/// into it by itself. Its entry carries the events.
fn check_noted(
    before: &MemoryStore,
    after: &MemoryStore,
    command: &Command,
    applied: &Applied,
) -> Result<(), TestCaseError> {
    let next = before.head().journal.next;
    let added = after.head().journal.next - next;
    let is_asked_again =
        matches!(applied.answer, Err(Refusal::PolicyChanged { .. } | Refusal::RepositoryChanged));
    let deed = command.terms.by.as_ref().and_then(|_| command.action.deed());
    let is_noted = !is_asked_again && (deed.is_some() || !applied.events.is_empty());
    if let (Action::NoteRefusals(NoteRefusals { refusals }), Ok(_)) =
        (&command.action, &applied.answer)
    {
        prop_assert_eq!(added, refusals.len() as u64);
        return Ok(());
    }
    prop_assert_eq!(added, u64::from(is_noted), "{:?}", command);
    if is_noted {
        let Some(Record::Journal(entry)) = row(after, &Key::Journal(next)) else {
            return Err(TestCaseError::fail("the entry is not there"));
        };
        prop_assert_eq!(&entry.events, &applied.events);
        prop_assert_eq!((&entry.by, &entry.deed), (&command.terms.by, &deed));
    }
    let is_moved = added > 0 || applied.answer.is_ok();
    let clock = before.head().clock;
    let expected = if is_moved { clock.max(command.at) } else { clock };
    prop_assert_eq!(after.head().clock, expected);
    Ok(())
}

/// Every visible artifact and file can be pulled: what it needs is live, and linked where it is. Looks rows up one by one,
/// unlike the recount, so that a mistake in one of the two does not hide in the other.
fn check_visible(store: &MemoryStore) -> Result<(), TestCaseError> {
    for (key, record) in store.rows() {
        let (repository, blobs) = match (key, record) {
            (Key::Artifact(repository, _), Record::Artifact(artifact)) => {
                (repository, artifact.blobs.clone())
            }
            (Key::File(repository, ..), Record::File(file)) => (repository, vec![file.digest]),
            (Key::Pulled(repository, item), _) => {
                check_pulled(store, repository, item)?;
                continue;
            }
            _ => continue,
        };
        for blob in &blobs {
            let link = row(store, &Key::Link(repository.clone(), *blob));
            prop_assert!(link.is_some(), "{key:?} needs {blob}, not linked");
            prop_assert!(row(store, &Key::Blob(*blob)).is_some(), "{key:?} needs {blob}, not live");
        }
    }
    Ok(())
}

/// What was pulled is there.
fn check_pulled(
    store: &MemoryStore,
    repository: &RepositoryKey,
    item: &Item,
) -> Result<(), TestCaseError> {
    let at = repository.clone();
    let is_there = match item.clone() {
        Item::Artifact(digest) => row(store, &Key::Artifact(at, digest)).is_some(),
        Item::Tag(tag) => row(store, &Key::Tag(at, tag)).is_some(),
        Item::Version(version) => matches!(row(store, &Key::Version(at, version)),
            Some(Record::Version(known)) if known.state != VersionState::Tombstone),
        Item::File(version, file) => row(store, &Key::File(at, version, file)).is_some(),
    };
    prop_assert!(is_there, "{item:?} was pulled from {repository:?} and is not there");
    Ok(())
}

/// A repository's revision is the position of its last change: caches are keyed by it.
fn check_revisions(
    before: &MemoryStore,
    after: &MemoryStore,
    position: u64,
) -> Result<(), TestCaseError> {
    fn contents(store: &MemoryStore) -> BTreeMap<RepositoryKey, Vec<(Key, Record)>> {
        let mut contents: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (key, record) in store.rows() {
            let mut record = record.clone();
            if let Record::Link(link) = &mut record {
                // Keeping a blob longer changes nothing that clients see.
                link.pinned_until = Timestamp(0);
            }
            if let Key::Artifact(at, _)
            | Key::Tag(at, _)
            | Key::Link(at, _)
            | Key::Version(at, _)
            | Key::File(at, ..)
            | Key::Referrer(at, ..) = key
            {
                contents.entry(at.clone()).or_default().push((key.clone(), record));
            }
        }
        contents
    }
    let (old, new) = (contents(before), contents(after));
    for (repository, rows) in &new {
        let key = Key::Repository(repository.clone());
        let Some(Record::Repository(record)) = row(after, &key) else {
            return Err(TestCaseError::fail(format!("{repository} has no row")));
        };
        if old.get(repository) == Some(rows) {
            prop_assert_eq!(row(before, &key), Some(Record::Repository(record)));
        } else {
            prop_assert_eq!(record.revision, position);
        }
    }
    Ok(())
}

/// What may never change: artifacts, live copies; and the clock and epochs only rise.
fn check_lasting(before: &MemoryStore, after: &MemoryStore) -> Result<(), TestCaseError> {
    for (key, old) in before.rows() {
        match (old, row(after, key)) {
            (Record::Artifact(_), Some(new)) => prop_assert_eq!(old, &new),
            (Record::Blob(old), Some(Record::Blob(new))) => {
                let is_same = (old.size, old.generation) == (new.size, new.generation);
                prop_assert!(is_same || is_replaceable(before, old, &new), "{old:?} {new:?}");
                prop_assert!(old.unheld_at <= new.unheld_at);
            }
            (Record::TenantBlob(old), Some(Record::TenantBlob(new))) => {
                prop_assert!(old.relied_on_at <= new.relied_on_at);
                prop_assert!(old.unreferenced_at <= new.unreferenced_at);
            }
            (Record::Link(old), Some(Record::Link(new))) => {
                prop_assert!(old.pinned_until <= new.pinned_until, "a pin was shortened");
                prop_assert!(old.unreferenced_at <= new.unreferenced_at);
                prop_assert_eq!((old.size, old.linked_at), (new.size, new.linked_at));
            }
            (Record::File(_), Some(new)) => prop_assert_eq!(old, &new, "a file changed"),
            (Record::Version(old), Some(Record::Version(new))) => {
                let is_gone = old.state == VersionState::Tombstone;
                prop_assert!(!is_gone || *old == new, "a tombstone changed");
                prop_assert_eq!(old.published_at, new.published_at);
                prop_assert!(*old == new || old.revision < new.revision);
            }
            (Record::Version(old), None) => {
                prop_assert!(old.state != VersionState::Tombstone, "a tombstone went");
            }
            (Record::Cluster(old), Some(Record::Cluster(new))) => {
                prop_assert!(old.epoch <= new.epoch);
                prop_assert!(old.last_node <= new.last_node);
                prop_assert!(old.feature_level <= new.feature_level);
                prop_assert!(old.cluster.is_none() || old.cluster == new.cluster);
            }
            (Record::Node(old), Some(Record::Node(new))) => {
                prop_assert!(old.epoch <= new.epoch);
                let removed = old.standing == Standing::Removed;
                prop_assert!(!removed || *old == new, "a removed node came back");
            }
            (Record::Blob(_) | Record::Cluster(_) | Record::Node(_), new) => {
                prop_assert!(false, "{key:?} became {new:?}");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the new copy may take the old one's place: too few nodes serve that, or it is kept in another kind of place.
fn is_replaceable(before: &MemoryStore, old: &BlobRecord, new: &BlobRecord) -> bool {
    let serving = |placement: &Placement| match placement {
        Placement::Object(_) => 1,
        Placement::Nodes(nodes) => nodes
            .iter()
            .filter(|node| match row(before, &Key::Node(**node)) {
                Some(Record::Node(node)) => node.standing.serves(),
                _ => false,
            })
            .count(),
    };
    let (was, is) = (serving(&old.placement), serving(&new.placement));
    let is_other = matches!(old.placement, Placement::Object(_))
        != matches!(new.placement, Placement::Object(_));
    old.size == new.size && is > 0 && (is_other || was < is)
}

/// Whoever looks only where events point misses nothing, and is never sent in vain.
fn check_pointers(
    before: &MemoryStore,
    after: &MemoryStore,
    events: &[Event],
) -> Result<(), TestCaseError> {
    let place = |row: Option<Record>| match row {
        Some(Record::Blob(blob)) => Some((blob.generation, blob.placement)),
        _ => None,
    };
    for (key, _) in after.rows() {
        let (changed, event) = match key {
            Key::Blob(digest) => (
                place(row(before, key)) != place(row(after, key)),
                Event::BlobPlaced { digest: *digest },
            ),
            Key::Node(node) => {
                (row(before, key) != row(after, key), Event::NodeChanged { node: *node })
            }
            Key::Version(repository, version) => {
                let state = |row: Option<Record>| match row {
                    Some(Record::Version(version)) => version.state,
                    _ => VersionState::Live,
                };
                let (was, is) = (state(row(before, key)), state(row(after, key)));
                let (repository, version) = (repository.clone(), version.clone());
                let event = Event::VersionStateChanged { repository, version };
                (was != is && is != VersionState::Tombstone, event)
            }
            _ => continue,
        };
        prop_assert_eq!(changed, events.contains(&event), "{:?}", key);
    }
    Ok(())
}

/// Random sequences from a fixed seed.
pub fn samples(count: usize) -> Vec<Vec<Op>> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| ops().new_tree(&mut runner).unwrap().current()).collect()
}

fn answer_kind(action: &Action, answer: &Result<Outcome, Refusal>) -> String {
    match answer {
        Ok(Outcome::PutArtifact(ArtifactStored { created: false })) => "PutArtifact again".into(),
        Ok(Outcome::PutVersion(VersionStored { created: false, .. })) => "PutVersion again".into(),
        Ok(_) => action.name().into(),
        Err(refusal) => {
            let text = format!("{refusal:?}");
            text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
        }
    }
}

#[test]
fn random_commands_reach_every_answer_and_event() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut with_blob_body = 0;
    let mut with_subject = 0;
    for ops in samples(560) {
        let mut store = MemoryStore::default();
        for (op, position) in ops.iter().zip(1..) {
            let command = op.command(&store, position);
            let applied = run(&mut store, position, &command);
            *seen.entry(answer_kind(&command.action, &applied.answer)).or_default() += 1;
            for event in &applied.events {
                *seen.entry(kind(event).to_owned()).or_default() += 1;
            }
        }
        for (_, record) in store.rows() {
            if let Record::Artifact(artifact) = record {
                with_blob_body += u32::from(artifact.body == Body::Blob);
                with_subject += u32::from(artifact.subject.is_some());
            }
        }
    }
    let answers = [
        "StartNode",
        "OpenUpload",
        "CloseUpload",
        "CommitBlob",
        "MountBlob",
        "PinBlob",
        "UnlinkBlob",
        "PutArtifact",
        "PutArtifact again",
        "DeleteArtifact",
        "SetTag",
        "DeleteTag",
        "NotePulls",
        "PutVersion",
        "PutVersion again",
        "SetVersionState",
        "DeleteVersion",
        "DeleteFile",
        "AdvanceCursor",
        "RemoveCursor",
        "SealJournal",
        "DropSegments",
        "RetiredEpoch",
        "UploadConflict",
        "BlobUnknown",
        "ArtifactUnknown",
        "TagUnknown",
        "ReferencesMissing",
        "BlobReferenced",
        "SizeConflict",
        "VersionExists",
        "VersionChanged",
        "VersionGone",
        "VersionUnknown",
        "FileUnknown",
        "JournalMoved",
    ];
    let clusters = [
        "FoundCluster",
        "CreateJoinToken",
        "RevokeJoinToken",
        "TokenSpent",
        "BeginRotation",
        "ConfirmRotation",
        "RotationUnderWay",
        "RotationMoved",
        "AdmitNode",
        "SetStanding",
        "RaiseFeatureLevel",
        "SetReplicas",
        "AddHolder",
        "DropHolder",
        "LoseObject",
        "ExpireUploads",
        "ShrinkReservation",
        "ClusterFounded",
        "NotFounded",
        "NodeUnknown",
        "NodeRemoved",
        "StandingImpossible",
        "TokenUnknown",
        "TokenExpired",
        "MemberTooOld",
        "StaleGeneration",
        "TooFewHolders",
        "FileExists",
        "SetPolicy",
        "CreateAccount",
        "SetPassword",
        "RemoveAccount",
        "CreateAccessToken",
        "RevokeAccessToken",
        "TouchAccessTokens",
        "AddSigningKey",
        "LeaseBudget",
        "NoteRefusals",
        "PolicyChanged",
        "TagExists",
        "TagImmutable",
        "RepositoryChanged",
        "QuotaExceeded",
        "AccountExists",
        "AccountUnknown",
        "AccessTokenExists",
        "AccessTokenUnknown",
        "AssertionUsed",
        "SigningKeyKnown",
        "NotLimited",
        "CreateRefreshToken",
        "RevokeRefreshTokens",
        "AccountChanged",
        "RefreshTokenUnknown",
    ];
    for kind in clusters {
        let count = seen.get(kind).copied().unwrap_or(0);
        assert!(count >= 5, "{kind} came {count} times: {seen:?}");
    }
    for kind in answers.into_iter().chain(KINDS).chain(POINTERS) {
        let count = seen.get(kind).copied().unwrap_or(0);
        assert!(count >= 40, "{kind} came {count} times: {seen:?}");
    }
    assert!(with_blob_body >= 20 && with_subject >= 100, "{with_blob_body}, {with_subject}");
}

#[test]
fn dropping_any_kind_of_event_is_noticed() {
    for dropped in KINDS {
        let noticed = samples(40).iter().any(|ops| {
            let mut store = MemoryStore::default();
            let mut told = Projection::default();
            ops.iter().zip(1..).any(|(op, position)| {
                let command = op.command(&store, position);
                let applied = run(&mut store, position, &command);
                let mut events = applied.events.iter().filter(|event| kind(event) != dropped);
                !events.all(|event| told.follow(event)) || told != Projection::of(&store)
            })
        });
        assert!(noticed, "nobody missed {dropped}");
    }
}

#[test]
fn digests_of_the_universe_differ() {
    let all: BTreeSet<Digest> = (0..9).map(crate::universe::digest).collect();
    assert_eq!(all.len(), 9);
}

/// The tenant whose rows a command may touch; none for what the cluster does for all of them, or for none.
fn tenant_of(action: &Action) -> Option<TenantName> {
    let of = |repository: &RepositoryKey| Some(repository.tenant.clone());
    match action {
        Action::OpenUpload(command) => of(&command.repository),
        Action::ShrinkReservation(command) => Some(command.tenant.clone()),
        Action::CloseUpload(command) => Some(command.tenant.clone()),
        Action::ExpireUploads(command) => Some(command.tenant.clone()),
        Action::CommitBlob(command) => of(&command.repository),
        Action::MountBlob(command) => of(&command.to),
        Action::PinBlob(command) => of(&command.repository),
        Action::UnlinkBlob(command) => of(&command.repository),
        Action::PutArtifact(command) => of(&command.repository),
        Action::DeleteArtifact(command) => of(&command.repository),
        Action::SetTag(command) => of(&command.repository),
        Action::DeleteTag(command) => of(&command.repository),
        Action::PutVersion(command) => of(&command.repository),
        Action::SetVersionState(command) => of(&command.repository),
        Action::DeleteVersion(command) => of(&command.repository),
        Action::DeleteFile(command) => of(&command.repository),
        Action::LeaseBudget(command) => Some(command.tenant.clone()),
        Action::SealJournal(_) | Action::DropSegments(_) => Some(TenantName::system()),
        Action::FoundCluster(_)
        | Action::RaiseFeatureLevel(_)
        | Action::SetReplicas(_)
        | Action::StartNode(_)
        | Action::SetStanding(_)
        | Action::CreateJoinToken(_)
        | Action::RevokeJoinToken(_)
        | Action::BeginRotation(_)
        | Action::ConfirmRotation(_)
        | Action::AdmitNode(_)
        | Action::AddHolder(_)
        | Action::DropHolder(_)
        | Action::LoseObject(_)
        | Action::NotePulls(_)
        | Action::SetPolicy(_)
        | Action::CreateAccount(_)
        | Action::SetPassword(_)
        | Action::RemoveAccount(_)
        | Action::CreateAccessToken(_)
        | Action::RevokeAccessToken(_)
        | Action::TouchAccessTokens(_)
        | Action::AddSigningKey(_)
        | Action::CreateRefreshToken(_)
        | Action::RevokeRefreshTokens(_)
        | Action::NoteRefusals(_)
        | Action::AdvanceCursor(_)
        | Action::RemoveCursor(_) => None,
    }
}

/// Whether a command of no single tenant names these tenants itself.
fn names_tenants(action: &Action) -> bool {
    matches!(action, Action::NotePulls(_) | Action::SetPolicy(_))
}

#[test]
fn a_tenants_commands_touch_no_other_tenants_rows() {
    let mut touched = 0;
    for ops in samples(100) {
        let mut store = Recording::default();
        for (op, position) in ops.iter().zip(1..) {
            let command = op.command(&store.rows, position);
            store.forget();
            let Ok(_) = apply(&mut store, position, &command);
            let tenant = tenant_of(&command.action);
            let source = match &command.action {
                Action::MountBlob(MountBlob { from, .. }) => Some(&from.tenant),
                _ => None,
            };
            let named =
                |of: &TenantName| names_tenants(&command.action) || tenant.as_ref() == Some(of);
            for of in store.reads.borrow().iter() {
                assert!(named(of) || source == Some(of), "{of} was read by {command:?}");
                touched += 1;
            }
            for of in &store.writes {
                assert!(named(of), "{of} was written by {command:?}");
            }
        }
    }
    assert!(touched > 1_000, "{touched}");
}

/// Notes whose rows are touched.
#[derive(Default)]
struct Recording {
    rows: MemoryStore,
    reads: RefCell<BTreeSet<TenantName>>,
    writes: BTreeSet<TenantName>,
}

impl Recording {
    fn forget(&mut self) {
        self.reads.borrow_mut().clear();
        self.writes.clear();
    }

    fn read(&self, key: &Key) {
        self.reads.borrow_mut().extend(key.tenant().cloned());
    }
}

impl Store for Recording {
    type Error = Infallible;

    fn get(&self, key: &Key) -> Result<Option<Record>, Infallible> {
        self.read(key);
        self.rows.get(key)
    }

    fn scan(&self, rows: &Rows, limit: usize) -> Result<Vec<(Key, Record)>, Infallible> {
        if let Bound::Included(start) | Bound::Excluded(start) = rows.start() {
            self.read(&start);
        }
        let page = self.rows.scan(rows, limit)?;
        page.iter().for_each(|(key, _)| self.read(key));
        Ok(page)
    }

    fn put(&mut self, key: Key, record: Record) -> Result<(), Infallible> {
        self.writes.extend(key.tenant().cloned());
        self.rows.put(key, record)
    }

    fn delete(&mut self, key: &Key) -> Result<(), Infallible> {
        self.writes.extend(key.tenant().cloned());
        self.rows.delete(key)
    }

    fn head(&self) -> &Head {
        self.rows.head()
    }

    fn head_mut(&mut self) -> &mut Head {
        self.rows.head_mut()
    }
}

/// Of two publishers that found no version, whatever else happens, one alone publishes it.
#[test]
fn of_two_publishers_exactly_one_wins() {
    let mut raced = 0;
    for ops in samples(60) {
        let mut store = MemoryStore::default();
        for (op, position) in ops.iter().zip(1..) {
            let mut command = op.command(&store, position);
            if let Action::PutVersion(PutVersion { expected, .. }) = &mut command.action {
                if *expected == Expected::Any {
                    *expected = Expected::Absent;
                }
                let first = run(&mut store, position, &command);
                let mut second = store.clone();
                let late = run(&mut second, position + 1, &command);
                if matches!(first.answer, Ok(Outcome::PutVersion(_))) && is_changed(&first.events) {
                    assert!(
                        matches!(
                            late.answer,
                            Err(Refusal::VersionExists(_) | Refusal::VersionChanged(_))
                        ),
                        "{command:?}: {late:?}"
                    );
                    raced += 1;
                }
            } else {
                run(&mut store, position, &command);
            }
        }
    }
    assert!(raced > 100, "{raced}");
}

fn is_changed(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::VersionPublished { .. }))
}

/// Every run of neighbouring rows is exactly the rows that it speaks of, whatever other rows there are.
#[test]
fn runs_are_whole_and_pages_follow_one_another() {
    let mut seen = 0;
    for ops in samples(40) {
        let (_, store) = log(&ops);
        let here = crate::universe::repository(0);
        let runs = [
            Rows::Nodes,
            Rows::Cursors,
            Rows::SigningKeys,
            Rows::JoinTokens,
            Rows::Accounts { after: None },
            Rows::AccessTokens { after: None },
            Rows::RefreshTokens { after: None },
            Rows::RefreshTokensOf { owner: crate::universe::owner(0), after: None },
            Rows::Assertions { after: None },
            Rows::Tenants { after: None },
            Rows::Journal { after: 0 },
            Rows::Segments { after: 0 },
            Rows::Blobs { after: None },
            Rows::Uploads { tenant: here.tenant.clone(), after: None },
            Rows::TenantBlobs { tenant: here.tenant.clone(), after: None },
            Rows::Repositories { tenant: here.tenant.clone(), format: here.format, after: None },
            Rows::Artifacts { repository: here.clone(), after: None },
            Rows::Versions { repository: here.clone(), after: None },
            Rows::Tags { repository: here.clone(), after: None },
            Rows::Links { repository: here.clone(), after: None },
        ];
        let many = (0..9u8).map(crate::universe::digest).flat_map(|of| {
            [
                Rows::HeldBy { blob: of, after: None },
                Rows::Edges { repository: here.clone(), blob: of },
                Rows::Parents { repository: here.clone(), child: of, after: None },
                Rows::Referrers { repository: here.clone(), subject: of, after: None },
                Rows::TagsOf {
                    repository: here.clone(),
                    target: Target::Artifact(of),
                    after: None,
                },
            ]
        });
        let versions = (0..4u8).map(|i| crate::universe::version(&format!("1.{i}")));
        let versions = versions.flat_map(|version| {
            [
                Rows::Files { repository: here.clone(), version: version.clone(), after: None },
                Rows::TagsOf {
                    repository: here.clone(),
                    target: Target::Version(version),
                    after: None,
                },
            ]
        });
        for rows in runs.into_iter().chain(many).chain(versions) {
            let Ok(page) = store.scan(&rows, usize::MAX);
            let all: Vec<_> = store
                .rows()
                .filter(|(key, _)| rows.contains(key))
                .map(|(key, record)| (key.clone(), record.clone()))
                .collect();
            assert_eq!(page, all, "{rows:?}");
            seen += all.len();
        }
    }
    assert!(seen > 1_000, "{seen}");
}
