//! The state transition: decides a command against the store.
//!
//! Guarantees:
//! - A pure function of the store, the command and its position: replicas that apply the same log hold the same rows.
//! - A refused command changes no row, not even the clock, and emits no event: every check comes before the first write.
//!   Two things alone are noted of it: that it was decided, if it has an origin, and that it was refused, in the audit log,
//!   if somebody asked for it.
//! - What was judged under a policy takes effect under that policy or not at all.
//! - No tenant's unique bytes, with those set aside, and no count of artifacts grows over the tenant's quota.
//! - A command with an origin takes effect once, at its first place in the log, however often it stands there: accepted or
//!   refused there, it is a duplicate everywhere behind. One of a start that was replaced takes none.
//! - An artifact is stored only if every blob it needs is live, held, and linked in its repository at that very
//!   position, and no blob that an artifact needs is unlinked while it does.
//! - Counters equal a recount of the rows, and the events tell every change of links, artifacts and tags.
//! - A failed read or write ends the transition with that error; the caller drops whatever was written until then.
//!
//! The work of one command is bounded by what it names, except for deleting an artifact, which removes all its tags.

/// Reads the row at a key as the one kind of record that belongs there.
macro_rules! read {
    ($store:expr, $kind:ident, $key:expr) => {
        match $store.get(&$key)? {
            Some($crate::record::Record::$kind(record)) => Some(record),
            None => None,
            Some(_) => {
                debug_assert!(false, "a record of another kind at {:?}", $key);
                None
            }
        }
    };
}

mod artifacts;
mod audit_log;
mod blobs;
mod holders;
mod identity;
mod ledger;
mod nodes;
mod quotas;
mod uploads;

use crate::command::{Action, Command, Origin, Outcome, Refusal, Terms};
use crate::digest::Digest;
use crate::event::Event;
use crate::name::RepositoryKey;
use crate::record::{
    ArtifactRecord, BlobRecord, ClusterRecord, FeatureLevel, Key, LinkRecord, Record,
    SessionRecord, Timestamp,
};
use crate::store::Store;

/// What applying a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer for whoever proposed it.
    pub answer: Result<Outcome, Refusal>,
    /// What changed; empty if it was refused.
    pub events: Vec<Event>,
}

/// Decides `command`, which stands at `position` in the log.
pub fn apply<S: Store>(
    store: &mut S,
    position: u64,
    command: &Command,
) -> Result<Applied, S::Error> {
    let refused = |refusal| Ok(Applied { answer: Err(refusal), events: Vec::new() });
    if let Some(origin) = command.origin {
        match session(store, origin)? {
            None => return refused(Refusal::RetiredEpoch),
            Some(session) if session.has(origin.serial) => return refused(Refusal::Duplicate),
            Some(_) => {}
        }
    }
    let before = read!(store, Cluster, Key::Cluster).unwrap_or_default();
    let mut cluster = before.clone();
    cluster.clock = cluster.clock.max(command.at);
    let now = cluster.clock;
    let has_terms = before.feature_level >= FeatureLevel::IDENTITY;
    let terms = if has_terms { &command.terms } else { &Terms::NONE };
    let mut step = Step { store, position, now, cluster, terms, events: Vec::new() };
    let answer = match step.decide(&command.action) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Refused(refusal)) => {
            debug_assert!(step.events.is_empty(), "refused after a change: {refusal:?}");
            Err(refusal)
        }
        Err(Stop::Failed(error)) => return Err(error),
    };
    let is_noted = step.note(&command.action, &answer)?;
    if (answer.is_ok() || is_noted) && step.cluster != before {
        step.store.put(Key::Cluster, Record::Cluster(step.cluster))?;
    }
    let applied = Applied { answer, events: step.events };
    if let Some(origin) = command.origin {
        // The command itself may have ended its proposer's session; then there is nothing to note.
        if let Some(mut session) = session(store, origin)? {
            session.note(origin);
            store.put(Key::Session(origin.epoch), Record::Session(session))?;
        }
    }
    Ok(applied)
}

/// The session of the start that proposed a command; none once that start was replaced.
fn session<S: Store>(store: &S, origin: Origin) -> Result<Option<SessionRecord>, S::Error> {
    Ok(read!(store, Session, Key::Session(origin.epoch)))
}

impl SessionRecord {
    /// Whether a proposal was decided, or given up.
    pub fn has(&self, serial: u64) -> bool {
        serial < self.applied_below || self.applied.binary_search(&serial).is_ok()
    }

    /// Notes a proposal as decided, and everything as settled that its proposer has no question about any more. What is
    /// listed was decided above the oldest open question, and proposers stay within
    /// [`SessionRecord::SERIALS_OPEN_MAX`] of that.
    fn note(&mut self, origin: Origin) {
        debug_assert!(
            origin.serial.saturating_sub(self.applied_below.max(origin.settled_below))
                < Self::SERIALS_OPEN_MAX,
            "too far from the oldest open question: {origin:?}"
        );
        if let Err(place) = self.applied.binary_search(&origin.serial) {
            self.applied.insert(place, origin.serial);
        }
        self.applied_below = self.applied_below.max(origin.settled_below);
        let settled = self.applied.partition_point(|serial| *serial < self.applied_below);
        let run = (self.applied_below..)
            .zip(&self.applied[settled..])
            .take_while(|(next, serial)| next == *serial)
            .count();
        self.applied_below += run as u64;
        self.applied.drain(..settled + run);
    }
}

/// Why a command is not carried out.
enum Stop<E> {
    /// It may not be; no row was changed.
    Refused(Refusal),
    /// The store failed; rows may have been changed.
    Failed(E),
}

impl<E> From<E> for Stop<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

/// What deciding a command gives.
type Decision<T, E> = Result<T, Stop<E>>;

/// One command being decided.
struct Step<'s, S> {
    store: &'s mut S,
    position: u64,
    /// The cluster's time: never earlier than that of any command applied before.
    now: Timestamp,
    /// Written back once the command is accepted or noted, if it differs.
    cluster: ClusterRecord,
    /// Who asks, and on what terms.
    terms: &'s Terms,
    events: Vec<Event>,
}

impl<S: Store> Step<'_, S> {
    fn decide(&mut self, action: &Action) -> Decision<Outcome, S::Error> {
        let needed = action.needs();
        if needed > self.level() {
            let level = self.level();
            return Err(Stop::Refused(Refusal::FeatureNotReached { level, needed }));
        }
        let epoch = self.cluster.policy_epoch;
        if self.terms.policy.is_some_and(|judged| judged != epoch) {
            return Err(Stop::Refused(Refusal::PolicyChanged { epoch }));
        }
        match action {
            Action::FoundCluster { cluster, authority } => self.found_cluster(*cluster, authority),
            Action::StartNode { node, start, profile } => self.start_node(*node, *start, profile),
            Action::CreateJoinToken { token, secret_hash, expires_at } => {
                self.create_join_token(*token, *secret_hash, *expires_at)
            }
            Action::AdmitNode { token, secret_hash, key_hash, profile } => {
                self.admit_node(*token, *secret_hash, *key_hash, profile)
            }
            Action::SetStanding { node, standing } => self.set_standing(*node, *standing),
            Action::RaiseFeatureLevel { level } => self.raise_feature_level(*level),
            Action::AddHolder { digest, generation, node } => {
                self.add_holder(*digest, *generation, *node)
            }
            Action::DropHolder { digest, generation, node, keep } => {
                self.drop_holder(*digest, *generation, *node, *keep)
            }
            Action::OpenUpload { upload, repository, node, expires_at, reserve } => {
                self.open_upload(*upload, repository, *node, *expires_at, *reserve)
            }
            Action::KeepAside { upload, bytes, lease } => self.keep_aside(*upload, *bytes, *lease),
            Action::CloseUpload { upload } => self.close_upload(*upload),
            Action::ExpireUploads { uploads } => self.expire_uploads(uploads),
            Action::CommitBlob {
                repository,
                digest,
                size,
                generation,
                node,
                chunk_root,
                upload,
                pinned_until,
                placement,
            } => self.commit_blob(&blobs::Commit {
                repository,
                digest: *digest,
                size: *size,
                generation: *generation,
                node: *node,
                chunk_root: *chunk_root,
                upload: *upload,
                pinned_until: *pinned_until,
                placement,
            }),
            Action::MountBlob { from, to, digest, pin, pinned_until } => {
                self.mount_blob(from, to, *digest, *pin, *pinned_until)
            }
            Action::PinBlob { repository, digest, pin, pinned_until } => {
                self.pin_blob(repository, *digest, *pin, *pinned_until)
            }
            Action::UnlinkBlob { repository, digest } => self.unlink_blob(repository, *digest),
            Action::PutArtifact {
                repository,
                digest,
                media_type,
                size,
                body,
                subject,
                artifact_type,
                blobs,
                children,
                tags,
            } => self.put_artifact(&artifacts::Put {
                repository,
                digest: *digest,
                media_type,
                size: *size,
                body,
                subject: *subject,
                artifact_type: artifact_type.as_ref(),
                blobs,
                children,
                tags,
            }),
            Action::DeleteArtifact { repository, digest } => {
                self.delete_artifact(repository, *digest)
            }
            Action::DeleteTag { repository, tag } => self.delete_tag(repository, tag),
            Action::SetPolicy { expected, document, hash, tenants } => {
                self.set_policy(*expected, document, *hash, tenants)
            }
            Action::CreateAccount { account, is_robot, password_hash, groups } => {
                self.create_account(account, *is_robot, password_hash, groups)
            }
            Action::SetPassword { account, password_hash } => {
                self.set_password(account, password_hash)
            }
            Action::RemoveAccount { account } => self.remove_account(account),
            Action::CreateAccessToken { token, found_by, account, record, assertion } => self
                .create_access_token(
                    *token,
                    found_by.as_ref(),
                    account.as_ref(),
                    record,
                    *assertion,
                ),
            Action::RevokeAccessToken { token } => self.revoke_access_token(*token),
            Action::TouchAccessTokens { uses } => self.touch_access_tokens(uses),
            Action::AddSigningKey { after, key } => self.add_signing_key(*after, key),
            Action::LeaseBudget { tenant, rate, hour, take, give_back } => {
                self.lease_budget(tenant, *rate, *hour, *take, *give_back)
            }
            Action::NoteRefusals { refusals } => self.note_refusals(refusals),
            Action::TrimAudit { before } => self.trim_audit(*before),
            Action::NoteAuditSent { number } => self.note_audit_sent(*number),
            Action::CountUnique => self.count_unique(),
        }
    }

    fn blob(&self, digest: Digest) -> Result<Option<BlobRecord>, S::Error> {
        Ok(read!(self.store, Blob, Key::Blob(digest)))
    }

    fn link(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Option<LinkRecord>, S::Error> {
        Ok(read!(self.store, Link, Key::Link(digest, repository.clone())))
    }

    fn artifact(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Option<ArtifactRecord>, S::Error> {
        Ok(read!(self.store, Artifact, Key::Artifact(repository.clone(), digest)))
    }

    /// The live copy of a blob that is visible in a repository, unless it is lost.
    fn visible_blob(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Decision<BlobRecord, S::Error> {
        let live = match self.link(repository, digest)? {
            Some(_) => self.blob(digest)?.filter(|blob| !blob.placement.is_lost()),
            None => None,
        };
        live.ok_or(Stop::Refused(Refusal::BlobUnknown(digest)))
    }
}

/// Adds to a counter. The state holds no counter near the limit, so an overflow is a bug, and wrapping would hide it.
fn raise(counter: &mut u64, by: u64) {
    let sum = counter.checked_add(by);
    debug_assert!(sum.is_some(), "a counter overflows: {counter} + {by}");
    *counter = sum.unwrap_or(u64::MAX);
}

/// Takes from a counter. One that would go below zero was not raised before: a bug, which wrapping would make worse.
fn lower(counter: &mut u64, by: u64) {
    let rest = counter.checked_sub(by);
    debug_assert!(rest.is_some(), "a counter goes below zero: {counter} - {by}");
    *counter = rest.unwrap_or(0);
}
