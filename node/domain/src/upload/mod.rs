//! Upload sessions that the cluster knows of: which node holds their bytes, and what is reserved of the tenant's quota.
//!
//! A session without a reservation needs no row: its name tells its node.

mod transition;

use crate::ids::{NodeId, UploadId};
use crate::names::{RepositoryKey, TenantName};
use crate::time::Timestamp;

/// An upload session that outlives one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// Where its blob will be linked.
    pub repository: RepositoryKey,
    /// The node that holds its bytes.
    pub node: NodeId,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// From then on the node may drop it.
    pub expires_at: Timestamp,
    /// Bytes of the tenant's quota that are reserved for it.
    pub reserved_bytes: u64,
}

/// An upload session reserves some of its tenant's quota, or goes on: keep it known for a while. Answers with the time
/// until which it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// The session.
    pub upload: UploadId,
    /// Where its blob will be linked.
    pub repository: RepositoryKey,
    /// The node that holds its bytes.
    pub node: NodeId,
    /// How long it is kept from now on.
    pub lives_millis: u64,
    /// Bytes of the tenant's quota to reserve for it in all; what was reserved before stays.
    pub reserve: u64,
}

/// Shrink a session's reservation to `bytes`; never grow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShrinkReservation {
    /// The session's tenant.
    pub tenant: TenantName,
    /// The session.
    pub upload: UploadId,
    /// Bytes that stay reserved.
    pub bytes: u64,
    /// Until when the proposer knows the session to be kept. A later time means that another request goes on with the
    /// session: then nothing changes.
    pub lease: Timestamp,
}

/// An upload session ends without a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseUpload {
    /// The session's tenant.
    pub tenant: TenantName,
    /// The session.
    pub upload: UploadId,
}

/// Of these upload sessions, those whose time is over end without a blob. Their nodes may be gone for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpireUploads {
    /// The tenant of all of them.
    pub tenant: TenantName,
    /// The sessions.
    pub uploads: Vec<UploadId>,
}
