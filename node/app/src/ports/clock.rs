//! Time and random values: the only place where use cases meet either.

use nora_domain::{Timestamp, UploadId};

/// Tells the time: the cluster's, or this machine's. They may be days apart, so what was stamped by one must never be compared
/// with the other.
pub trait Clock: Send + Sync {
    /// Now, in milliseconds since the Unix epoch. A machine's clock may step.
    fn now(&self) -> Timestamp;
}

/// Makes unguessable names.
pub trait Ids: Send + Sync {
    /// A new name for an upload session of this node, see [`UploadId::made_by`]: knowing it must be as hard as guessing
    /// its 96 random bits.
    fn upload_id(&self) -> UploadId;
}
