//! The registry: what every protocol surface talks to. Its use cases are in `commands` and `queries`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nora_domain::command::{Action, Command, Outcome, Refusal};
use nora_domain::record::{Epoch, Generation, NodeId, Record, Timestamp};
use nora_domain::{Digest, Format, RepositoryKey, RepositoryPath, TenantName};

use crate::Error;
use crate::ports::blobs::Blobs;
use crate::ports::clock::{Clock, Ids};
use crate::ports::metadata::Metadata;
use crate::ports::uploads::Uploads;

/// Limits and times that use cases keep.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An artifact's own bytes.
    pub artifact_bytes_max: usize,
    /// Blobs and children that one artifact may reference.
    pub references_max: usize,
    /// How long a pushed, mounted or confirmed blob is kept with no artifact referencing it, in milliseconds.
    pub pin_millis: u64,
    /// How long an upload session is kept after its last byte, in milliseconds.
    pub upload_expiry_millis: u64,
}

/// A blob that a repository shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The copy to read.
    pub generation: Generation,
}

/// What a registry stands on.
pub struct Dependencies {
    /// The replicated state.
    pub metadata: Arc<dyn Metadata>,
    /// Blobs at rest.
    pub blobs: Arc<dyn Blobs>,
    /// Blobs on their way in.
    pub uploads: Arc<dyn Uploads>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random names.
    pub ids: Arc<dyn Ids>,
    /// This node.
    pub node: NodeId,
    /// This start of it, as the log gave it.
    pub epoch: Epoch,
    /// Limits and times.
    pub settings: Settings,
}

/// The registry of one node.
pub struct Registry {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) uploads: Arc<dyn Uploads>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) node: NodeId,
    pub(crate) settings: Settings,
    epoch: Epoch,
    sequence: AtomicU64,
}

impl Registry {
    /// A registry over these ports.
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies { metadata, blobs, uploads, clock, ids, node, epoch, settings } =
            dependencies;
        Self {
            metadata,
            blobs,
            uploads,
            clock,
            ids,
            node,
            settings,
            epoch,
            sequence: AtomicU64::new(0),
        }
    }

    /// The repository of that name, under the tenant that owns it. There is one tenant so far; who owns a name will
    /// be read from the policy here and nowhere else.
    pub fn repository(&self, format: Format, path: RepositoryPath) -> RepositoryKey {
        RepositoryKey { tenant: TenantName::default_tenant(), format, path }
    }

    /// The limits and times it keeps.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A generation that was never used before: the epoch is this start's own, the sequence counts within it.
    pub(crate) fn next_generation(&self) -> Generation {
        Generation { epoch: self.epoch, sequence: self.sequence.fetch_add(1, Ordering::Relaxed) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Proposes a change. The metadata stamps its own origin and the leader's time onto the command; refusals that speak
    /// of the proposer and not of the change are errors.
    pub(crate) async fn propose(&self, action: Action) -> Result<Result<Outcome, Refusal>, Error> {
        let command = Command { at: self.now(), origin: None, action };
        match self.metadata.propose(command).await? {
            Err(Refusal::Duplicate) => Err(Error::OutcomeUnknown),
            Err(Refusal::RetiredEpoch) => Err(Error::retired()),
            answer => Ok(answer),
        }
    }

    /// The error of a stored row that is not of its key's kind.
    pub(crate) fn wrong_record(record: &Record) -> Error {
        Error::Internal {
            what: "a metadata row has the wrong kind",
            source: Some(format!("{record:?}").into()),
        }
    }
}
