//! What holds whatever commands come, in whatever order.

use std::collections::BTreeMap;

use nora_domain::audit::audit;
use nora_domain::command::{Action, Command, Outcome, Refusal};
use nora_domain::event::Event;
use nora_domain::identity::{BudgetRecord, Rate};
use nora_domain::record::{
    Body, ClusterRecord, FeatureLevel, Key, Placement, Record, Standing, Timestamp, UsageRecord,
};
use nora_domain::store::MemoryStore;
use nora_domain::transition::Applied;
use nora_domain::{Digest, RepositoryKey};
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
    let findings = audit(after.rows());
    prop_assert!(findings.is_empty(), "{command:?} left {findings:?}");
    check_visible(after)?;
    if applied.answer.is_err() {
        let (before, after) = (without_log(before), without_log(after));
        prop_assert_eq!(before, after, "a refused command changed rows");
        prop_assert!(applied.events.is_empty(), "a refused command emitted events");
    }
    check_revisions(before, after, position)?;
    check_lasting(before, after)?;
    check_limits(before, after)?;
    check_noted(before, after, command, applied)?;
    check_pointers(before, after, &applied.events)?;
    if let Ok(Outcome::BlobCommitted { live }) = applied.answer
        && let Action::CommitBlob { digest, .. } = &command.action
    {
        match row(after, &Key::Blob(*digest)) {
            Some(Record::Blob(blob)) => prop_assert_eq!(blob.generation, live),
            other => prop_assert!(false, "committed, but {other:?}"),
        }
    }
    Ok(())
}

/// The rows that a refusal leaves alone: all but the audit log, and the clock that its entries are stamped with.
fn without_log(store: &MemoryStore) -> Vec<(Key, Record)> {
    let rows = store.rows().filter(|(key, _)| !matches!(key, Key::Audit(_) | Key::AuditHead));
    let rows = rows.map(|(key, record)| match record {
        Record::Cluster(cluster) => {
            let clock = Timestamp(0);
            (key.clone(), Record::Cluster(ClusterRecord { clock, ..cluster.clone() }))
        }
        record => (key.clone(), record.clone()),
    });
    rows.collect()
}

/// Nothing grows over a quota, and no hour grants more than its limit.
fn check_limits(before: &MemoryStore, after: &MemoryStore) -> Result<(), TestCaseError> {
    for (key, record) in after.rows() {
        let (Key::Usage(tenant), Record::Usage(new)) = (key, record) else { continue };
        let Some(Record::Tenant(limits)) = row(after, &Key::Tenant(tenant.clone())) else {
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
        prop_assert!(new.artifacts <= artifacts.max(old.artifacts));
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

/// What somebody asked for is in the audit log, once, whatever came of it; nothing else comes into it by itself.
fn check_noted(
    before: &MemoryStore,
    after: &MemoryStore,
    command: &Command,
    applied: &Applied,
) -> Result<(), TestCaseError> {
    let ends = |store: &MemoryStore| match row(store, &Key::AuditHead) {
        Some(Record::AuditHead(head)) => head.next,
        _ => 1,
    };
    let added = ends(after) - ends(before);
    let is_told = matches!(
        command.action,
        Action::PutArtifact { .. } | Action::DeleteArtifact { .. } | Action::SetPolicy { .. }
    );
    let is_asked_again =
        matches!(applied.answer, Err(Refusal::PolicyChanged { .. } | Refusal::RepositoryChanged));
    let has_terms = matches!(row(before, &Key::Cluster),
        Some(Record::Cluster(cluster)) if cluster.feature_level >= FeatureLevel::IDENTITY);
    if has_terms && command.terms.by.is_some() && is_told && !is_asked_again {
        prop_assert_eq!(added, 1, "{:?} was not noted", command);
    }
    if command.terms.by.is_none() && !matches!(command.action, Action::NoteRefusals { .. }) {
        prop_assert_eq!(added, 0, "{:?} was noted", command);
    }
    Ok(())
}

/// Every visible artifact can be pulled: what it needs is live, and linked where it is. Looks rows up one by one, unlike
/// the audit, so that a mistake in one of the two does not hide in the other.
fn check_visible(store: &MemoryStore) -> Result<(), TestCaseError> {
    for (key, record) in store.rows() {
        let (Key::Artifact(repository, _), Record::Artifact(artifact)) = (key, record) else {
            continue;
        };
        for blob in &artifact.blobs {
            let link = row(store, &Key::Link(*blob, repository.clone()));
            prop_assert!(link.is_some(), "{key:?} needs {blob}, not linked");
            prop_assert!(row(store, &Key::Blob(*blob)).is_some(), "{key:?} needs {blob}, not live");
        }
    }
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
            if let Key::Artifact(at, _)
            | Key::Tag(at, _)
            | Key::Link(_, at)
            | Key::Referrer(at, ..) = key
            {
                contents.entry(at.clone()).or_default().push((key.clone(), record.clone()));
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
                // A live copy stays the live one, unless every holder has lost it.
                let lost = old.placement == Placement::Nodes(Vec::new());
                prop_assert!(lost || old.generation == new.generation);
                prop_assert!(old.touched_at <= new.touched_at);
                prop_assert!(old.unreferenced_at <= new.unreferenced_at);
            }
            (Record::Cluster(old), Some(Record::Cluster(new))) => {
                prop_assert!(old.clock <= new.clock && old.epoch <= new.epoch);
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

fn answer_kind(answer: &Result<Outcome, Refusal>) -> &'static str {
    match answer {
        Ok(Outcome::NodeStarted(_)) => "NodeStarted",
        Ok(Outcome::ClusterFounded) => "ClusterFounded",
        Ok(Outcome::JoinTokenCreated) => "JoinTokenCreated",
        Ok(Outcome::NodeAdmitted(_)) => "NodeAdmitted",
        Ok(Outcome::StandingSet) => "StandingSet",
        Ok(Outcome::FeatureLevelRaised) => "Level raised",
        Ok(Outcome::HolderAdded) => "HolderAdded",
        Ok(Outcome::HolderDropped) => "HolderDropped",
        Ok(Outcome::UploadOpened) => "UploadOpened",
        Ok(Outcome::UploadClosed) => "UploadClosed",
        Ok(Outcome::UploadsExpired) => "UploadsExpired",
        Ok(Outcome::BlobCommitted { .. }) => "BlobCommitted",
        Ok(Outcome::BlobMounted) => "BlobMounted",
        Ok(Outcome::BlobPinned) => "BlobPinned",
        Ok(Outcome::BlobUnlinked) => "BlobUnlinked",
        Ok(Outcome::ArtifactStored { created: true }) => "ArtifactStored",
        Ok(Outcome::ArtifactStored { created: false }) => "ArtifactStored again",
        Ok(Outcome::ArtifactDeleted { .. }) => "ArtifactDeleted",
        Ok(Outcome::TagDeleted { .. }) => "TagDeleted",
        Err(Refusal::RetiredEpoch) => "RetiredEpoch",
        Err(Refusal::Duplicate) => "Duplicate",
        Err(Refusal::ClusterFounded) => "founded already",
        Err(Refusal::NodeUnknown(_)) => "NodeUnknown",
        Err(Refusal::NodeRemoved(_)) => "NodeRemoved",
        Err(Refusal::StandingImpossible { .. }) => "StandingImpossible",
        Err(Refusal::TokenUnknown) => "TokenUnknown",
        Err(Refusal::TokenExpired) => "TokenExpired",
        Err(Refusal::FeatureTooOld { .. }) => "FeatureTooOld",
        Err(Refusal::FeatureNotReached { .. }) => "FeatureNotReached",
        Err(Refusal::MemberTooOld { .. }) => "MemberTooOld",
        Err(Refusal::StaleGeneration(_)) => "StaleGeneration",
        Err(Refusal::TooFewHolders { .. }) => "TooFewHolders",
        Err(Refusal::UploadConflict) => "UploadConflict",
        Err(Refusal::BlobUnknown(_)) => "BlobUnknown",
        Err(Refusal::ArtifactUnknown(_)) => "ArtifactUnknown",
        Err(Refusal::TagUnknown(_)) => "TagUnknown",
        Err(Refusal::ReferencesMissing { .. }) => "ReferencesMissing",
        Err(Refusal::BlobReferenced { .. }) => "BlobReferenced",
        Err(Refusal::SizeConflict { .. }) => "SizeConflict",
        Ok(Outcome::PolicySet(_)) => "PolicySet",
        Ok(Outcome::AccountCreated) => "AccountCreated",
        Ok(Outcome::PasswordSet) => "PasswordSet",
        Ok(Outcome::AccountRemoved { .. }) => "AccountRemoved",
        Ok(Outcome::AccessTokenCreated) => "AccessTokenCreated",
        Ok(Outcome::AccessTokenRevoked) => "AccessTokenRevoked",
        Ok(Outcome::AccessTokensTouched) => "AccessTokensTouched",
        Ok(Outcome::SigningKeyAdded(_)) => "SigningKeyAdded",
        Ok(Outcome::BudgetLeased { .. }) => "BudgetLeased",
        Ok(Outcome::RefusalsNoted) => "RefusalsNoted",
        Ok(Outcome::AuditTrimmed { .. }) => "AuditTrimmed",
        Ok(Outcome::UniqueCounted { .. }) => "UniqueCounted",
        Ok(Outcome::RoomKept) => "RoomKept",
        Ok(Outcome::AuditSentNoted) => "AuditSentNoted",
        Err(Refusal::PolicyChanged { .. }) => "PolicyChanged",
        Err(Refusal::TagExists(_)) => "TagExists",
        Err(Refusal::TagImmutable(_)) => "TagImmutable",
        Err(Refusal::RepositoryChanged) => "RepositoryChanged",
        Err(Refusal::QuotaExceeded { .. }) => "QuotaExceeded",
        Err(Refusal::AccountExists(_)) => "AccountExists",
        Err(Refusal::AccountUnknown(_)) => "AccountUnknown",
        Err(Refusal::AccessTokenExists) => "AccessTokenExists",
        Err(Refusal::AccessTokensTooMany(_)) => "AccessTokensTooMany",
        Err(Refusal::AccessTokenUnknown) => "AccessTokenUnknown",
        Err(Refusal::AssertionUsed) => "AssertionUsed",
        Err(Refusal::AssertionOver) => "AssertionOver",
        Err(Refusal::SigningKeyKnown(_)) => "SigningKeyKnown",
        Err(Refusal::NotLimited) => "NotLimited",
    }
}

#[test]
fn random_commands_reach_every_answer_and_event() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut with_blob_body = 0;
    let mut with_subject = 0;
    for ops in samples(400) {
        let mut store = MemoryStore::default();
        for (op, position) in ops.iter().zip(1..) {
            let command = op.command(&store, position);
            let applied = run(&mut store, position, &command);
            *seen.entry(answer_kind(&applied.answer)).or_default() += 1;
            for event in &applied.events {
                *seen.entry(kind(event)).or_default() += 1;
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
        "NodeStarted",
        "UploadOpened",
        "UploadClosed",
        "BlobCommitted",
        "BlobMounted",
        "BlobPinned",
        "BlobUnlinked",
        "ArtifactStored",
        "ArtifactStored again",
        "ArtifactDeleted",
        "TagDeleted",
        "RetiredEpoch",
        "UploadConflict",
        "BlobUnknown",
        "ArtifactUnknown",
        "TagUnknown",
        "ReferencesMissing",
        "BlobReferenced",
        "SizeConflict",
    ];
    let clusters = [
        "ClusterFounded",
        "JoinTokenCreated",
        "NodeAdmitted",
        "StandingSet",
        "Level raised",
        "HolderAdded",
        "HolderDropped",
        "UploadsExpired",
        "founded already",
        "NodeUnknown",
        "NodeRemoved",
        "StandingImpossible",
        "TokenUnknown",
        "TokenExpired",
        "FeatureNotReached",
        "MemberTooOld",
        "StaleGeneration",
        "TooFewHolders",
        "PolicySet",
        "AccountCreated",
        "PasswordSet",
        "AccountRemoved",
        "AccessTokenCreated",
        "AccessTokenRevoked",
        "AccessTokensTouched",
        "SigningKeyAdded",
        "BudgetLeased",
        "RefusalsNoted",
        "AuditTrimmed",
        "UniqueCounted",
        "RoomKept",
        "AuditSentNoted",
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
        let noticed = samples(20).iter().any(|ops| {
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
    let all: std::collections::BTreeSet<Digest> = (0..9).map(crate::universe::digest).collect();
    assert_eq!(all.len(), 9);
}
