//! What a tenant's quota has to do with one upload: room is reserved before bytes are taken, and given back when they do not
//! come.
//!
//! Guarantees: bytes of a tenant whose bytes are limited are taken within a reservation; an upload that ended, or stands still,
//! keeps nothing from others. Where the tenant's bytes are not limited, nothing here costs anything.

use nora_domain::{
    About, CloseUpload, Deed, Key, Reason, Record, Refusal, RepositoryKey, ShrinkReservation,
    TenantName, Timestamp, UploadId, Verb,
};
use tracing::warn;

use crate::Error;
use crate::core::Core;
use crate::ports::Incoming;
use crate::ports::uploads::{UploadError, UploadState};
use crate::reservation::Reservation;

/// One upload, as its tenant's quota sees it.
pub(crate) struct UploadQuota<'a> {
    core: &'a Core,
    tenant: TenantName,
    upload: UploadId,
    is_limited: bool,
}

impl<'a> UploadQuota<'a> {
    /// An upload to a tenant that may have a quota.
    pub(crate) fn of(core: &'a Core, tenant: &TenantName, upload: UploadId) -> Self {
        let is_limited = core.tenancy().has_storage_quota(tenant);
        Self { core, tenant: tenant.clone(), upload, is_limited }
    }

    /// An upload that something is reserved for, whether or not the tenant has a quota now.
    pub(crate) fn limited(core: &'a Core, tenant: &TenantName, upload: UploadId) -> Self {
        Self { is_limited: true, ..Self::of(core, tenant, upload) }
    }

    /// Whether the tenant's bytes are limited.
    pub(crate) fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Appends a body to the upload, with room reserved for it where that is needed.
    pub(crate) async fn append(
        &self,
        state: &UploadState,
        start: Option<u64>,
        body: Incoming,
    ) -> Result<UploadState, Error> {
        if self.is_limited {
            return self.append_within(state, start, body).await;
        }
        let appended = self.core.uploads().append(self.upload, start, body.stream).await;
        appended.map_err(|error| Error::of_upload(self.upload, error))
    }

    async fn append_within(
        &self,
        state: &UploadState,
        start: Option<u64>,
        body: Incoming,
    ) -> Result<UploadState, Error> {
        let (id, repository) = (self.upload, &state.repository);
        // A client that lost count must hear that, and not that there is no room for bytes that are there already.
        if let Some(start) = start.filter(|start| *start != state.offset) {
            let error = UploadError::WrongOffset { offset: state.offset, start };
            return Err(Error::of_upload(id, error));
        }
        let reservation = Reservation::default();
        let body = match reservation.make(self.core, repository, state, body).await {
            Ok(body) => body,
            Err(error) => {
                self.end_without_room(repository, &error).await;
                return Err(error);
            }
        };
        // Where the client does not say where the body goes, it goes where room was reserved for it.
        let appended = self.core.uploads().append(id, start.or(Some(state.offset)), body).await;
        let lease = reservation.lease();
        match (reservation.refusal(), appended) {
            (Some(refusal @ Error::QuotaExceeded { .. }), _) => {
                self.end_without_room(repository, &refusal).await;
                Err(refusal)
            }
            (Some(refusal), _) => {
                self.shrink_to_written(lease).await;
                Err(refusal)
            }
            (None, Ok(state)) => Ok(state),
            // Another request writes to the session, and the reservation is that one's.
            (None, Err(error @ UploadError::Busy)) => Err(Error::of_upload(id, error)),
            (None, Err(error)) => {
                self.shrink_to_written(lease).await;
                Err(Error::of_upload(id, error))
            }
        }
    }

    /// An upload without room comes to an end: its client will not go on with it, and what is reserved for it would be
    /// missing to others.
    async fn end_without_room(&self, repository: &RepositoryKey, error: &Error) {
        if !matches!(error, Error::QuotaExceeded { .. }) {
            return;
        }
        let deed = Deed::new(Verb::BlobPush, About::Repository(repository.clone()));
        self.core.note_refusal(deed, Reason::QuotaExceeded);
        match self.core.uploads().cancel(self.upload).await {
            Ok(()) | Err(UploadError::Unknown) => self.release().await,
            // Another request writes to it: it is not over.
            Err(error) => warn!(%error, "an upload without room stays a session until it expires"),
        }
    }

    /// Until when the cluster keeps the session, as this node has it. Only what was reserved has a lease.
    pub(crate) async fn lease(&self) -> Result<Timestamp, Error> {
        if !self.is_limited {
            return Ok(Timestamp(0));
        }
        match self.core.row(Key::Upload(self.tenant.clone(), self.upload)).await? {
            Some(Record::Upload(record)) => Ok(record.expires_at),
            _ => Ok(Timestamp(0)),
        }
    }

    /// Gives back what was reserved, under that lease, for bytes that did not come.
    pub(crate) async fn shrink_to_written(&self, lease: Timestamp) {
        if !self.is_limited {
            return;
        }
        let shrunk = match self.core.uploads().state(self.upload).await {
            Ok(state) => self.shrink(state.offset, lease).await,
            Err(UploadError::Unknown) => self.close().await,
            Err(error) => Err(Error::of_upload(self.upload, error)),
        };
        if let Err(error) = shrunk {
            warn!(%error, "what is reserved for an upload stays so for a while");
        }
    }

    /// Shrinks the reservation, unless another request goes on with the session under a later lease.
    pub(crate) async fn shrink(&self, bytes: u64, lease: Timestamp) -> Result<(), Error> {
        let (tenant, upload) = (self.tenant.clone(), self.upload);
        self.core.by_itself().change(ShrinkReservation { tenant, upload, bytes, lease }).await
    }

    /// Gives back what was reserved for an upload that is over. Should that fail, it is free when the session expires.
    pub(crate) async fn release(&self) {
        if !self.is_limited {
            return;
        }
        if let Err(error) = self.close().await {
            warn!(%error, "what is reserved for an upload stays so until it expires");
        }
    }

    /// The same for an upload that the log refused. A quota that refused it has come since the upload began.
    pub(crate) async fn release_after(&self, refusal: &Refusal) {
        match refusal {
            Refusal::QuotaExceeded { .. } => {
                Self::limited(self.core, &self.tenant, self.upload).release().await;
            }
            _ => self.release().await,
        }
    }

    /// Ends what the cluster knows of the session.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        let (tenant, upload) = (self.tenant.clone(), self.upload);
        self.core.by_itself().change(CloseUpload { tenant, upload }).await
    }
}
