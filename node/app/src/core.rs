//! What the handles of a registry share: the ports, this node and its settings, and the caller on whose behalf they act.
//!
//! Guarantees: rows are read from this node's applied state; no generation is given twice.
//!
//! Must not know: what any use case does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nora_domain::{
    Deed, Entry, Epoch, Generation, Head, Key, NodeId, Reason, Record, RepositoryKey, Rows,
    Timestamp,
};

use crate::Error;
use crate::ports::blobs::Blobs;
use crate::ports::clock::{Clock, Ids};
use crate::ports::journal::Segments;
use crate::ports::metadata::{Metadata, MetadataError};
use crate::ports::policy::{Caller, Tenancy};
use crate::ports::uploads::{Finish, Sessions};
use crate::pulls::Pulls;

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
    /// The cluster's clock, by which the log stamps rows and decides ages.
    pub clock: Arc<dyn Clock>,
    /// This machine's clock, by which upload sessions age: their files carry it.
    pub wall: Arc<dyn Clock>,
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

/// A sealed part of the journal that was read: the number of its first entry, and the entries.
pub(crate) type ReadSegment = (u64, Arc<Vec<(u64, Entry)>>);

/// The record of a row that was read, if there is one. Returns the error from the function around it if the record is not of
/// the kind that belongs there.
macro_rules! record {
    ($kind:ident, $row:expr) => {
        match $row {
            Some(nora_domain::Record::$kind(record)) => Some(record),
            Some(other) => return Err($crate::Error::wrong_record(&other)),
            None => None,
        }
    };
}
pub(crate) use record;

/// One node's registry, on behalf of one caller. A clone shares everything but may act for another caller.
#[derive(Clone)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    /// Who acts; the cluster itself if there is none.
    caller: Option<Arc<dyn Caller>>,
}

/// What every clone shares.
struct Shared {
    metadata: Arc<dyn Metadata>,
    blobs: Arc<dyn Blobs>,
    uploads: Arc<dyn Sessions>,
    finish: Arc<dyn Finish>,
    clock: Arc<dyn Clock>,
    wall: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    tenancy: Arc<dyn Tenancy>,
    segments: Arc<dyn Segments>,
    node: NodeId,
    epoch: Epoch,
    sequence: AtomicU64,
    settings: Settings,
    pulls: Pulls,
    last_segment: Mutex<Option<ReadSegment>>,
}

/// Who acts, and the ports.
impl Core {
    pub(crate) fn new(dependencies: Dependencies) -> Self {
        let Dependencies {
            metadata,
            blobs,
            uploads,
            finish,
            clock,
            wall,
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
            wall,
            ids,
            tenancy,
            segments,
            node,
            epoch,
            sequence: AtomicU64::new(0),
            settings,
            pulls: Pulls::default(),
            last_segment: Mutex::default(),
        };
        Self { shared: Arc::new(shared), caller: None }
    }

    /// The same on behalf of `caller`.
    pub(crate) fn by(&self, caller: Arc<dyn Caller>) -> Self {
        Self { shared: self.shared.clone(), caller: Some(caller) }
    }

    /// The same without a caller: what it changes then is the cluster's own doing.
    pub(crate) fn by_itself(&self) -> Self {
        Self { shared: self.shared.clone(), caller: None }
    }

    pub(crate) fn caller(&self) -> Option<&dyn Caller> {
        self.caller.as_deref()
    }

    /// Notes that the caller was refused a change for a reason that no command is refused for.
    pub(crate) fn note_refusal(&self, deed: Deed, why: Reason) {
        if let Some(caller) = &self.caller {
            caller.note_refusal(deed, why);
        }
    }

    pub(crate) fn metadata(&self) -> &dyn Metadata {
        self.shared.metadata.as_ref()
    }

    pub(crate) fn blobs(&self) -> &dyn Blobs {
        self.shared.blobs.as_ref()
    }

    pub(crate) fn uploads(&self) -> &dyn Sessions {
        self.shared.uploads.as_ref()
    }

    pub(crate) fn finish(&self) -> &dyn Finish {
        self.shared.finish.as_ref()
    }

    pub(crate) fn ids(&self) -> &dyn Ids {
        self.shared.ids.as_ref()
    }

    pub(crate) fn tenancy(&self) -> &dyn Tenancy {
        self.shared.tenancy.as_ref()
    }

    pub(crate) fn segments(&self) -> &dyn Segments {
        self.shared.segments.as_ref()
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.shared.node
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// What was pulled and is not written down yet.
    pub(crate) fn pulls(&self) -> &Pulls {
        &self.shared.pulls
    }

    /// The sealed part of the journal that was read last.
    pub(crate) fn last_segment(&self) -> &Mutex<Option<ReadSegment>> {
        &self.shared.last_segment
    }

    /// The cluster's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// This machine's clock.
    pub(crate) fn wall_now(&self) -> Timestamp {
        self.shared.wall.now()
    }

    /// A generation that was never used before: the epoch is this start's own, the sequence counts within it.
    pub(crate) fn next_generation(&self) -> Generation {
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed);
        Generation { epoch: self.shared.epoch, sequence }
    }
}

/// Reads of this node's applied state.
impl Core {
    /// Waits until reads on this node show every change that was acknowledged anywhere before the call.
    pub(crate) async fn catch_up(&self) -> Result<(), MetadataError> {
        self.metadata().linearize().await
    }

    /// Waits, for a moment at most, until every member in reach shows what this node shows.
    pub(crate) async fn settle(&self) {
        self.metadata().settle().await;
    }

    /// The part of the state that every command changes.
    pub(crate) async fn head(&self) -> Result<Head, MetadataError> {
        self.metadata().head().await
    }

    /// One row.
    pub(crate) async fn row(&self, key: Key) -> Result<Option<Record>, MetadataError> {
        self.metadata().get(key).await
    }

    /// Whether there is such a row.
    pub(crate) async fn has_row(&self, key: Key) -> Result<bool, MetadataError> {
        Ok(self.row(key).await?.is_some())
    }

    /// Up to `limit` rows of a run, from one moment of the state.
    pub(crate) async fn rows(
        &self,
        rows: Rows,
        limit: usize,
    ) -> Result<Vec<(Key, Record)>, MetadataError> {
        self.metadata().scan(rows, limit).await
    }

    /// A row whose content its key fixes: a miss is asked again once this node has caught up.
    pub(crate) async fn immutable_row(&self, key: Key) -> Result<Option<Record>, MetadataError> {
        if let Some(record) = self.row(key.clone()).await? {
            return Ok(Some(record));
        }
        self.catch_up().await?;
        self.row(key).await
    }

    /// `absent`, or that the repository itself is not known.
    pub(crate) async fn absent(&self, repository: &RepositoryKey, absent: Error) -> Error {
        match self.row(Key::Repository(repository.clone())).await {
            Ok(Some(_)) => absent,
            Ok(None) => Error::RepositoryUnknown,
            Err(error) => error.into(),
        }
    }
}
