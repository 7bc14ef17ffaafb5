//! The registry: what every protocol surface talks to. Its use cases are in `commands` and `queries`.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nora_domain::{
    Deed, Digest, Epoch, Format, Generation, Key, NodeId, Placement, Reason, Record, RepositoryKey,
    RepositoryPath, Timestamp,
};

use crate::Error;
use crate::ports::blobs::Blobs;
use crate::ports::clock::{Clock, Ids};
use crate::ports::journal::Segments;
use crate::ports::metadata::{Metadata, MetadataError};
use crate::ports::policy::{Caller, Tenancy};
use crate::ports::uploads::{Finish, Sessions};
use crate::pulls::Pulls;
use crate::queries::ReadSegment;

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
    pub uploads: Arc<dyn Sessions>,
    /// What makes blobs of them.
    pub finish: Arc<dyn Finish>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random names.
    pub ids: Arc<dyn Ids>,
    /// Who owns names.
    pub tenancy: Arc<dyn Tenancy>,
    /// How sealed parts of the journal are written down.
    pub segments: Arc<dyn Segments>,
    /// This node.
    pub node: NodeId,
    /// This start of it, as the log gave it.
    pub epoch: Epoch,
    /// Limits and times.
    pub settings: Settings,
}

/// The registry of one node, on behalf of one caller: a cheap handle.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    /// Who acts; the cluster itself if there is none.
    pub(crate) caller: Option<Arc<dyn Caller>>,
}

/// What handles of one registry share.
pub struct Shared {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) uploads: Arc<dyn Sessions>,
    pub(crate) finish: Arc<dyn Finish>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) tenancy: Arc<dyn Tenancy>,
    pub(crate) segments: Arc<dyn Segments>,
    pub(crate) pulls: Pulls,
    /// The sealed part of the journal that was read last.
    pub(crate) segment: Mutex<Option<ReadSegment>>,
    pub(crate) node: NodeId,
    pub(crate) settings: Settings,
    epoch: Epoch,
    sequence: AtomicU64,
}

impl Deref for Registry {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Registry {
    /// A registry over these ports.
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies {
            metadata,
            blobs,
            uploads,
            finish,
            clock,
            ids,
            tenancy,
            segments,
            node,
            epoch,
            settings,
        } = dependencies;
        let shared = Shared {
            metadata,
            blobs,
            uploads,
            finish,
            clock,
            ids,
            tenancy,
            segments,
            pulls: Pulls::default(),
            segment: Mutex::default(),
            node,
            settings,
            epoch,
            sequence: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), caller: None }
    }

    /// The registry without a caller: what it changes then is the cluster's own doing.
    pub(crate) fn by_itself(&self) -> Self {
        Self { shared: self.shared.clone(), caller: None }
    }

    /// Notes that the caller was refused a change for a reason that no command is refused for.
    pub(crate) fn note_refusal(&self, deed: Deed, why: Reason) {
        if let Some(caller) = &self.caller {
            caller.note_refusal(deed, why);
        }
    }

    /// The registry on behalf of `caller`: what it changes is judged by the policy and noted as theirs.
    pub fn by(&self, caller: Arc<dyn Caller>) -> Self {
        Self { shared: self.shared.clone(), caller: Some(caller) }
    }

    /// The repository of that name, under the tenant that owns it. Who owns a name is read from the policy here and
    /// nowhere else.
    pub fn repository(&self, format: Format, path: RepositoryPath) -> RepositoryKey {
        RepositoryKey { tenant: self.tenancy.owner(format, &path), format, path }
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

    /// Whether a copy is on a node that takes part, or in the object store.
    pub(crate) async fn has_serving_copy(&self, placement: &Placement) -> Result<bool, Error> {
        let Placement::Nodes(holders) = placement else { return Ok(true) };
        for holder in holders {
            match self.row(Key::Node(*holder)).await? {
                Some(Record::Node(node)) if node.standing.serves() => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Reads a row from this node's applied state.
    pub(crate) async fn row(&self, key: Key) -> Result<Option<Record>, MetadataError> {
        self.metadata.get(key).await
    }

    /// The error of a stored row that is not of its key's kind.
    pub(crate) fn wrong_record(record: &Record) -> Error {
        Error::Internal {
            what: "a metadata row has the wrong kind",
            source: Some(format!("{record:?}").into()),
        }
    }
}
