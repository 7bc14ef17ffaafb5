//! The state transition: decides a command against the store.
//!
//! Guarantees:
//! - A pure function of the store, the command and its position: replicas that apply the same log hold the same rows.
//! - A refused command changes no row, not even the clock, and emits no event: every check comes before the first write.
//! - An artifact is stored only if every blob it needs is live and linked in its repository at that very position, and
//!   no blob that an artifact needs is unlinked while it does.
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
mod blobs;
mod ledger;
mod uploads;

use crate::command::{Action, Command, Outcome, Refusal};
use crate::digest::Digest;
use crate::event::Event;
use crate::name::RepositoryKey;
use crate::record::{
    ArtifactRecord, BlobRecord, ClusterRecord, Epoch, Key, LinkRecord, NodeId, NodeRecord, Record,
    Timestamp,
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
    let before = read!(store, Cluster, Key::Cluster).unwrap_or_default();
    let mut cluster = before.clone();
    cluster.clock = cluster.clock.max(command.at);
    let now = cluster.clock;
    let mut step = Step { store, position, now, cluster, events: Vec::new() };
    match step.decide(&command.action) {
        Ok(outcome) => {
            if step.cluster != before {
                step.store.put(Key::Cluster, Record::Cluster(step.cluster))?;
            }
            Ok(Applied { answer: Ok(outcome), events: step.events })
        }
        Err(Stop::Refused(refusal)) => {
            debug_assert!(step.events.is_empty(), "refused after a change: {refusal:?}");
            Ok(Applied { answer: Err(refusal), events: Vec::new() })
        }
        Err(Stop::Failed(error)) => Err(error),
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
    /// Written back once the command is accepted, if it differs.
    cluster: ClusterRecord,
    events: Vec<Event>,
}

impl<S: Store> Step<'_, S> {
    fn decide(&mut self, action: &Action) -> Decision<Outcome, S::Error> {
        match action {
            Action::StartNode { node } => self.start_node(*node),
            Action::OpenUpload { upload, repository, node, expires_at } => {
                self.open_upload(*upload, repository, *node, *expires_at)
            }
            Action::CloseUpload { upload } => self.close_upload(*upload),
            Action::CommitBlob {
                repository,
                digest,
                size,
                generation,
                node,
                chunk_root,
                upload,
                pinned_until,
            } => self.commit_blob(&blobs::Commit {
                repository,
                digest: *digest,
                size: *size,
                generation: *generation,
                node: *node,
                chunk_root: *chunk_root,
                upload: *upload,
                pinned_until: *pinned_until,
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
        }
    }

    fn start_node(&mut self, node: NodeId) -> Decision<Outcome, S::Error> {
        raise(&mut self.cluster.epoch.0, 1);
        let epoch: Epoch = self.cluster.epoch;
        self.store.put(Key::Node(node), Record::Node(NodeRecord { epoch }))?;
        Ok(Outcome::NodeStarted(epoch))
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

    /// The live copy of a blob that is visible in a repository.
    fn visible_blob(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Decision<BlobRecord, S::Error> {
        let live = match self.link(repository, digest)? {
            Some(_) => self.blob(digest)?,
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
