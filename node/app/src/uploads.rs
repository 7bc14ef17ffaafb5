//! Pushing a blob: a session takes its bytes, and the log makes them visible once they are durable.
//!
//! Guarantee: `CommitBlob` is proposed only after the bytes are durable under `digest/generation`, so a blob that the
//! metadata calls live was whole before on every node that it names. What a refused or repeated push wrote is deleted
//! again; what an unknown outcome left is not, because the log may have made it the live copy.

use std::collections::BTreeMap;

use nora_domain::{
    About, Algorithm, BlobCommitted, CloseUpload, CommitBlob, Deed, Digest, ExpireUploads, Key,
    NodeId, OpenUpload, Reason, Record, Refusal, RepositoryKey, Rows, ShrinkReservation,
    TenantName, Timestamp, UploadId, UploadRecord, Verb,
};
use tracing::warn;

use crate::core::Core;
use crate::ports::blobs::BlobCopy;
use crate::ports::metadata::MetadataError;
use crate::ports::uploads::{UploadError, UploadState};
use crate::ports::{ByteStream, Incoming};
use crate::proposing::NoAnswer;
use crate::reservation::Reservation;
use crate::{BlobStat, Error};

/// Rows that upkeep looks at in one step.
const UPKEEP_PAGE_ROWS: usize = 256;

/// How long a reservation waits for bytes that do not come: longer than a client waits before it goes on.
const ROOM_IDLE_MILLIS: u64 = 15 * 60 * 1_000;

/// How long nobody wrote to a session that may be ended for another's.
const PLACE_IDLE_MILLIS: u64 = 60_000;

/// How long nobody wrote to a session with bytes that may be ended for one of the same tenant. A client that lost its network
/// comes back sooner; a build that was cancelled never does.
const HALF_IDLE_MILLIS: u64 = 5 * 60_000;

/// How far a look at all tenants' sessions has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPlace {
    /// The tenant that it has reached.
    tenant: TenantName,
    /// The last session of that tenant that it has seen; `None` if it has seen all of them.
    upload: Option<UploadId>,
}

/// What one look at expired sessions did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Sessions of this node that were dropped.
    pub dropped: usize,
    /// Where the next look goes on; `None` if this one came to the end.
    pub next: Option<UploadPlace>,
}

/// Sessions of which a caller who pushes to `tenant` may have one ended, the first one first. They are idle, and the tenant
/// that has the most has them, so that nobody who opens many keeps the others out. Of the tenant's own, those that hold nothing
/// come first, and those that hold something only if they are idle for much longer.
fn dispensable(
    sessions: &[UploadState],
    tenant: &TenantName,
    now: Timestamp,
) -> Vec<(TenantName, UploadId)> {
    let idle_since = |millis: u64| Timestamp(now.0.saturating_sub(millis));
    let (idle, half_idle) = (idle_since(PLACE_IDLE_MILLIS), idle_since(HALF_IDLE_MILLIS));
    let mut counts: BTreeMap<&TenantName, usize> = BTreeMap::new();
    for state in sessions {
        *counts.entry(&state.repository.tenant).or_default() += 1;
    }
    let own = counts.get(tenant).copied().unwrap_or(0);
    let most = counts.iter().max_by_key(|(_, count)| **count);
    let most = most.filter(|(_, count)| **count > own).map(|(name, _)| *name);
    let may_go = |state: &&UploadState| match most {
        _ if state.written_at >= idle => false,
        Some(most) => state.repository.tenant == *most,
        None if state.repository.tenant != *tenant => false,
        None => state.offset == 0 || state.written_at < half_idle,
    };
    let mut open: Vec<_> = sessions.iter().filter(may_go).collect();
    let is_own = |state: &UploadState| state.repository.tenant == *tenant;
    open.sort_by_key(|state| (is_own(state) && state.offset > 0, state.written_at));
    open.into_iter().map(|state| (state.repository.tenant.clone(), state.id)).collect()
}

/// The upload sessions of this node.
#[derive(Clone, Copy)]
pub struct UploadSessions<'a> {
    core: &'a Core,
}

impl<'a> UploadSessions<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// How long a session is kept after its last byte, in milliseconds.
    pub fn expiry_millis(self) -> u64 {
        self.core.settings().upload_expiry_millis
    }

    /// Opens an upload session.
    pub async fn start(
        self,
        repository: RepositoryKey,
        algorithm: Algorithm,
    ) -> Result<UploadState, Error> {
        let id = self.core.ids().upload_id();
        let open = || self.core.uploads().open(id, repository.clone(), algorithm, self.core.now());
        let mut opened = open().await;
        if let Err(UploadError::TooMany { .. }) = opened
            && self.make_place(&repository.tenant).await
        {
            opened = open().await;
        }
        opened.map_err(|error| Error::of_upload(id, error))
    }

    /// Ends a session that nobody writes to, for somebody who needs its place; false if none may be ended.
    async fn make_place(self, tenant: &TenantName) -> bool {
        for (of, id) in dispensable(&self.core.uploads().list(), tenant, self.core.now()) {
            match self.core.uploads().cancel(id).await {
                Ok(()) => {
                    self.release(&of, id).await;
                    return true;
                }
                // It is over by itself, or ended for somebody else who needs a place: that one is theirs.
                // Or somebody writes to it, too slowly to be seen.
                Err(UploadError::Unknown | UploadError::Busy) => {}
                Err(error) => {
                    warn!(%error, "an idle upload was not ended for another");
                    return false;
                }
            }
        }
        false
    }

    /// The node that holds a session's bytes, if it is not this one: its requests belong there.
    pub fn owner(self, id: UploadId) -> Option<NodeId> {
        Some(id.owner()).filter(|owner| *owner != self.core.node())
    }

    /// The session as it is, for whoever pushes to that repository.
    pub async fn state(
        self,
        repository: &RepositoryKey,
        id: UploadId,
    ) -> Result<UploadState, Error> {
        let state =
            self.core.uploads().state(id).await.map_err(|error| Error::of_upload(id, error))?;
        // A session of another repository is told from none by nothing: its id opens only its own repository.
        if state.repository != *repository {
            return Err(Error::UploadUnknown(id));
        }
        Ok(state)
    }

    /// Appends a part of a blob, which a later request goes on from. A session's id names its node, so the cluster learns
    /// of a session only where some of a quota is reserved for it.
    pub async fn append(
        self,
        repository: &RepositoryKey,
        id: UploadId,
        start: Option<u64>,
        body: impl Into<Incoming>,
    ) -> Result<UploadState, Error> {
        let body = body.into();
        let state = self.state(repository, id).await?;
        if self.core.tenancy().has_storage_quota(&repository.tenant) {
            return self.append_within_quota(repository, &state, start, body).await;
        }
        let age = self.core.now().millis_since(state.opened_at);
        if age > self.core.settings().upload_expiry_millis {
            // The sweep of abandoned uploads in a bucket goes by age, and spares what the cluster knows of.
            let command = OpenUpload {
                upload: id,
                repository: repository.clone(),
                node: self.core.node(),
                lives_millis: self.core.settings().upload_expiry_millis,
                reserve: 0,
            };
            self.core.by_itself().change(command).await?;
        }
        let appended = self.core.uploads().append(id, start, body.stream).await;
        appended.map_err(|error| Error::of_upload(id, error))
    }

    /// Appends a part of a blob of a tenant whose bytes are limited: room is reserved before bytes are taken.
    async fn append_within_quota(
        self,
        repository: &RepositoryKey,
        state: &UploadState,
        start: Option<u64>,
        body: Incoming,
    ) -> Result<UploadState, Error> {
        let id = state.id;
        // A client that lost count must hear that, and not that there is no room for bytes that are there already.
        if let Some(start) = start.filter(|start| *start != state.offset) {
            let error = UploadError::WrongOffset { offset: state.offset, start };
            return Err(Error::of_upload(id, error));
        }
        let reservation = Reservation::default();
        let body = match reservation.make(self.core, repository, state, body).await {
            Ok(body) => body,
            Err(error) => {
                self.end_without_room(repository, id, &error).await;
                return Err(error);
            }
        };
        // Where the client does not say where the body goes, it goes where room was reserved for it.
        let appended = self.core.uploads().append(id, start.or(Some(state.offset)), body).await;
        let (tenant, lease) = (&repository.tenant, reservation.lease());
        if let Some(refusal) = reservation.refusal() {
            match refusal {
                Error::QuotaExceeded { .. } => {
                    self.end_without_room(repository, id, &refusal).await
                }
                _ => self.shrink_to_written(tenant, id, lease).await,
            }
            return Err(refusal);
        }
        match appended {
            Ok(state) => Ok(state),
            // Another request writes to the session, and the reservation is that one's.
            Err(error @ UploadError::Busy) => Err(Error::of_upload(id, error)),
            Err(error) => {
                self.shrink_to_written(tenant, id, lease).await;
                Err(Error::of_upload(id, error))
            }
        }
    }

    /// An upload without room comes to an end: its client will not go on with it, and what is reserved for it would be
    /// missing to others.
    async fn end_without_room(self, repository: &RepositoryKey, id: UploadId, error: &Error) {
        if !matches!(error, Error::QuotaExceeded { .. }) {
            return;
        }
        let deed = Deed::new(Verb::BlobPush, About::Repository(repository.clone()));
        self.core.note_refusal(deed, Reason::QuotaExceeded);
        match self.core.uploads().cancel(id).await {
            Ok(()) | Err(UploadError::Unknown) => self.release(&repository.tenant, id).await,
            // Another request writes to it: it is not over.
            Err(error) => warn!(%error, "an upload without room stays a session until it expires"),
        }
    }

    /// Gives back what was reserved, under that lease, for bytes that did not come.
    async fn shrink_to_written(self, tenant: &TenantName, id: UploadId, lease: Timestamp) {
        let shrunk = match self.core.uploads().state(id).await {
            Ok(state) => self.shrink_reservation(tenant, id, state.offset, lease).await,
            Err(UploadError::Unknown) => self.close_upload(tenant, id).await,
            Err(error) => Err(Error::of_upload(id, error)),
        };
        if let Err(error) = shrunk {
            warn!(%error, "what is reserved for an upload stays so for a while");
        }
    }

    /// Shrinks a session's reservation, unless another request goes on with the session under a later lease.
    async fn shrink_reservation(
        self,
        tenant: &TenantName,
        upload: UploadId,
        bytes: u64,
        lease: Timestamp,
    ) -> Result<(), Error> {
        let tenant = tenant.clone();
        self.core.by_itself().change(ShrinkReservation { tenant, upload, bytes, lease }).await
    }

    /// Appends what is left of a blob and makes it visible in the repository.
    pub async fn finish(
        self,
        repository: RepositoryKey,
        id: UploadId,
        start: Option<u64>,
        rest: Option<impl Into<Incoming>>,
        digest: Digest,
    ) -> Result<BlobStat, Error> {
        let state = self.state(&repository, id).await?;
        let is_blind = rest.is_some() && start.is_none();
        let is_limited = self.core.tenancy().has_storage_quota(&repository.tenant);
        if let Some(body) = rest {
            if is_limited {
                self.append_within_quota(&repository, &state, start, body.into()).await?;
            } else {
                self.core
                    .uploads()
                    .append(id, start, body.into().stream)
                    .await
                    .map_err(|error| Error::of_upload(id, error))?;
            }
        }
        let lease = match is_limited {
            true => self.lease_of(&repository.tenant, id).await?,
            false => Timestamp(0),
        };
        match self.core.finish().finish(id, digest, self.core.next_generation()).await {
            Ok(stored) => self.commit(repository, id, stored).await,
            Err(error @ (UploadError::TooFewCopies { .. } | UploadError::Unavailable(_)))
                if is_blind =>
            {
                // Sent again, the request would append its bytes a second time: it must find no session.
                match self.core.uploads().cancel(id).await {
                    Ok(()) | Err(UploadError::Unknown) if is_limited => {
                        self.release(&repository.tenant, id).await;
                    }
                    Ok(()) | Err(UploadError::Unknown) => {}
                    Err(error) => {
                        warn!(%error, "an upload that failed stays a session until it expires");
                    }
                }
                let what = "the upload could not be stored; start it anew";
                Err(Error::Unavailable { what, source: Some(Box::new(error)) })
            }
            // Another request writes to the session, and the reservation is that one's.
            Err(error @ UploadError::Busy) => Err(Error::of_upload(id, error)),
            Err(error) => {
                if is_limited {
                    self.shrink_to_written(&repository.tenant, id, lease).await;
                }
                Err(Error::of_upload(id, error))
            }
        }
    }

    /// Until when the cluster keeps a session, as this node has it.
    async fn lease_of(self, tenant: &TenantName, id: UploadId) -> Result<Timestamp, Error> {
        match self.core.row(Key::Upload(tenant.clone(), id)).await? {
            Some(Record::Upload(record)) => Ok(record.expires_at),
            _ => Ok(Timestamp(0)),
        }
    }

    /// Gives back what was reserved for an upload that is over. Should that fail, it is free when the session expires.
    async fn release(self, tenant: &TenantName, id: UploadId) {
        if let Err(error) = self.close_upload(tenant, id).await {
            warn!(%error, "what is reserved for an upload stays so until it expires");
        }
    }

    /// Drops a session and its bytes.
    pub async fn cancel(self, repository: &RepositoryKey, id: UploadId) -> Result<(), Error> {
        self.state(repository, id).await?;
        self.core.uploads().cancel(id).await.map_err(|error| Error::of_upload(id, error))?;
        if self.core.row(Key::Upload(repository.tenant.clone(), id)).await?.is_some() {
            self.close_upload(&repository.tenant, id).await?;
        }
        Ok(())
    }

    /// Drops sessions that no client wrote to for too long, and the cluster's rows of sessions that have expired; gives
    /// back what is reserved for sessions of this node that are gone or idle. One call looks at a page of the cluster's
    /// rows, after `after`. Runs now and then on every node.
    pub async fn expire(self, after: Option<UploadPlace>) -> Result<Expired, Error> {
        let now = self.core.now();
        let before = Timestamp(now.0.saturating_sub(self.core.settings().upload_expiry_millis));
        let dropped =
            self.core.uploads().expire(before).await.map_err(|error| Error::Internal {
                what: "expired uploads could not be dropped",
                source: Some(Box::new(error)),
            })?;
        // A tenant counts as a row, so that many tenants without a session make several turns too.
        let (mut rows_left, mut reached) = (UPKEEP_PAGE_ROWS, after);
        while rows_left > 0 {
            let (tenant, upload) = match reached {
                Some(UploadPlace { tenant, upload: Some(upload) }) => (tenant, Some(upload)),
                other => match self.tenant_after(other.map(|place| place.tenant)).await? {
                    Some(tenant) => (tenant, None),
                    None => return Ok(Expired { dropped: dropped.len(), next: None }),
                },
            };
            let seen = self.expire_reservations(&tenant, upload, rows_left, now).await?;
            let last = seen.last().copied().filter(|_| seen.len() == rows_left);
            rows_left = rows_left.saturating_sub(seen.len().max(1));
            reached = Some(UploadPlace { tenant, upload: last });
        }
        Ok(Expired { dropped: dropped.len(), next: reached })
    }

    async fn tenant_after(self, after: Option<TenantName>) -> Result<Option<TenantName>, Error> {
        match self.core.rows(Rows::Tenants { after }, 1).await?.into_iter().next() {
            Some((Key::Tenant(tenant), _)) => Ok(Some(tenant)),
            _ => Ok(None),
        }
    }

    /// Ends what is reserved for one tenant's uploads that have expired, and shrinks it for those that are idle. It looks at
    /// up to `limit` of them, and returns which.
    async fn expire_reservations(
        self,
        tenant: &TenantName,
        after: Option<UploadId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<UploadId>, Error> {
        let rows = Rows::Uploads { tenant: tenant.clone(), after };
        let rows = self.core.rows(rows, limit).await?;
        let leases = rows.iter().filter_map(|row| match row {
            (Key::Upload(_, id), Record::Upload(lease)) => Some((*id, lease)),
            _ => None,
        });
        let seen = leases.clone().map(|(id, _)| id).collect();
        let (expired, running): (Vec<_>, Vec<_>) =
            leases.partition(|(_, lease)| lease.expires_at < now);
        for (id, lease) in running {
            if lease.node == self.core.node() && lease.reserved_bytes > 0 {
                self.give_back_if_idle(id, lease).await?;
            }
        }
        if !expired.is_empty() {
            // Other nodes' sessions too: those nodes may never come back to do it.
            let uploads = expired.iter().map(|(id, _)| *id).collect();
            self.core.change(ExpireUploads { tenant: tenant.clone(), uploads }).await?;
        }
        Ok(seen)
    }

    /// Gives back what is reserved for a session that is gone or idle. A client that goes on with it reserves again.
    async fn give_back_if_idle(self, id: UploadId, lease: &UploadRecord) -> Result<(), Error> {
        let tenant = &lease.repository.tenant;
        let since = self.core.now().0.saturating_sub(ROOM_IDLE_MILLIS);
        let leased_at =
            lease.expires_at.0.saturating_sub(self.core.settings().upload_expiry_millis);
        if leased_at > since || self.core.uploads().is_written(id) {
            return Ok(());
        }
        match self.core.uploads().state(id).await {
            Ok(state) if state.written_at.0 > since => Ok(()),
            Ok(_) => self.shrink_reservation(tenant, id, 0, lease.expires_at).await,
            Err(UploadError::Unknown) => self.close_upload(tenant, id).await,
            // It is asked again next time.
            Err(_) => Ok(()),
        }
    }

    async fn close_upload(self, tenant: &TenantName, upload: UploadId) -> Result<(), Error> {
        self.core.by_itself().change(CloseUpload { tenant: tenant.clone(), upload }).await
    }

    /// Makes durable bytes visible, and tells which copy is the one to read.
    async fn commit(
        self,
        repository: RepositoryKey,
        upload: UploadId,
        stored: BlobCopy,
    ) -> Result<BlobStat, Error> {
        let BlobCopy { digest, generation, size, chunk_root, placement } = stored.clone();
        let tenant = repository.tenant.clone();
        let is_limited = self.core.tenancy().has_storage_quota(&tenant);
        let command = CommitBlob {
            repository,
            digest,
            size,
            generation,
            node: self.core.node(),
            chunk_root,
            upload,
            pin_millis: self.core.settings().pin_millis,
            placement,
        };
        let answer = match self.core.judge_and_propose(command).await {
            Ok(answer) => answer,
            Err(
                error @ (NoAnswer::NotProposed(_)
                | NoAnswer::Metadata(MetadataError::NoLeader | MetadataError::Busy)),
            ) => {
                self.without_copy(stored, &tenant, upload, is_limited).await;
                return Err(error.into());
            }
            // Any other failure leaves the outcome open: the copy may be live now. It stays; if the log never took
            // it, the next start finds it as an orphan of a retired epoch.
            Err(error) => return Err(error.into()),
        };
        match answer {
            Ok(BlobCommitted { live }) => {
                if live != generation {
                    self.delete_copy(stored).await;
                }
                Ok(BlobStat { digest, size, generation: live })
            }
            // Sent twice by the metadata, and the first answer missed: the copy may be live. The same if the node was
            // removed in between: what is an orphan of a retired epoch is found as such.
            Err(refusal @ (Refusal::Duplicate | Refusal::RetiredEpoch)) => Err(refusal.into()),
            Err(refusal) => {
                let is_limited = is_limited || matches!(refusal, Refusal::QuotaExceeded { .. });
                self.without_copy(stored, &tenant, upload, is_limited).await;
                Err(refusal.into())
            }
        }
    }

    /// A push came to nothing: its copy goes, and what was reserved for it is free.
    async fn without_copy(
        self,
        stored: BlobCopy,
        tenant: &TenantName,
        upload: UploadId,
        is_limited: bool,
    ) {
        self.delete_copy(stored).await;
        if is_limited {
            self.release(tenant, upload).await;
        }
    }

    /// Deletes a copy that the log did not take. A failure costs only disk space until the next start.
    async fn delete_copy(self, stored: BlobCopy) {
        let digest = stored.digest;
        if let Err(error) = self.core.blobs().delete(stored).await {
            warn!(%digest, %error, "a redundant copy was not deleted");
        }
    }

    /// Pushes a blob whose whole body comes at once. Nobody else learns of its session, which ends with the call however
    /// that ends.
    pub async fn push(
        self,
        repository: RepositoryKey,
        digest: Digest,
        body: impl Into<Incoming>,
    ) -> Result<BlobStat, Error> {
        let is_limited = self.core.tenancy().has_storage_quota(&repository.tenant);
        let id = self.start(repository.clone(), digest.algorithm()).await?.id;
        let tenant = repository.tenant.clone();
        let finished = self.finish(repository, id, None, Some(body), digest).await;
        if finished.is_err() {
            if is_limited {
                self.release(&tenant, id).await;
            }
            match self.core.uploads().cancel(id).await {
                Ok(()) | Err(UploadError::Unknown) => {}
                Err(error) => warn!(%error, "a failed push stays a session until it expires"),
            }
        }
        finished
    }

    /// Stores bytes that are in memory already as a blob of the repository.
    pub(crate) async fn store_bytes(
        self,
        repository: &RepositoryKey,
        digest: Digest,
        bytes: bytes::Bytes,
    ) -> Result<BlobStat, Error> {
        let length = Some(bytes.len() as u64);
        let stream: ByteStream = Box::pin(futures_util::stream::iter([Ok(bytes)]));
        self.push(repository.clone(), digest, Incoming { stream, length }).await
    }
}
