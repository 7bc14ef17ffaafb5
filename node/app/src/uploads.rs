//! Pushing a blob: a session takes its bytes, and the log makes them visible once they are durable.
//!
//! Guarantee: `CommitBlob` is proposed only after the bytes are durable under `digest/generation`, so a blob that the
//! metadata calls live was whole before on every node that it names. What a refused or repeated push wrote is deleted
//! again; what an unknown outcome left is not, because the log may have made it the live copy.

use std::collections::{BTreeMap, HashSet};

use nora_domain::{
    Algorithm, BlobCommitted, CommitBlob, Digest, ExpireUploads, Key, NodeId, OpenUpload, Record,
    Refusal, RepositoryKey, Rows, TenantName, Timestamp, UploadId, UploadRecord,
};
use tracing::warn;

use crate::core::Core;
use crate::ports::blobs::BlobCopy;
use crate::ports::metadata::MetadataError;
use crate::ports::policy::Caller;
use crate::ports::uploads::{Admission, Purpose, UploadError, UploadState};
use crate::ports::{ByteStream, Incoming};
use crate::proposing::NoAnswer;
use crate::upload_quota::UploadQuota;
use crate::{BlobStat, Error};

/// Rows that upkeep looks at in one step.
const UPKEEP_PAGE_ROWS: usize = 256;

/// How long a reservation waits for bytes that do not come: longer than a client waits before it goes on.
const ROOM_IDLE_MILLIS: u64 = 15 * 60 * 1_000;

/// How long a session is idle that may be ended for a caller of another tenant, or one that holds nothing for a caller of its
/// own tenant.
const PLACE_IDLE_MILLIS: u64 = 60_000;

/// How long a session with bytes is idle that may be ended for a caller of its own tenant. A client that lost its network
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

/// Sessions of which one may be ended for a caller who pushes to `tenant`, the first one first. The tenant that has the most
/// comes first, with sessions that are idle, so that nobody who opens many keeps the others out. Then come the tenant's own
/// that were most likely given up: those that hold nothing before those that hold something.
fn dispensable<'a>(
    sessions: &'a [UploadState],
    tenant: &TenantName,
    now: Timestamp,
) -> Vec<&'a UploadState> {
    let idle = Timestamp(now.0.saturating_sub(PLACE_IDLE_MILLIS));
    let mut counts: BTreeMap<&TenantName, usize> = BTreeMap::new();
    for state in sessions {
        *counts.entry(&state.repository.tenant).or_default() += 1;
    }
    let own = counts.get(tenant).copied().unwrap_or(0);
    let most = counts.iter().max_by_key(|(_, count)| **count);
    let most = most.filter(|(_, count)| **count > own).map(|(name, _)| *name);
    let is_own = |state: &UploadState| state.repository.tenant == *tenant;
    let may_go = |state: &&UploadState| match most {
        _ if is_own(state) => is_given_up(state, now),
        Some(most) => state.repository.tenant == *most && state.written_at < idle,
        None => false,
    };
    let mut open: Vec<_> = sessions.iter().filter(may_go).collect();
    open.sort_by_key(|state| (is_own(state), is_own(state) && state.offset > 0, state.written_at));
    open
}

/// Whether a session is idle for so long that its client has most likely given it up.
fn is_given_up(state: &UploadState, now: Timestamp) -> bool {
    let idle_millis = if state.offset == 0 { PLACE_IDLE_MILLIS } else { HALF_IDLE_MILLIS };
    state.written_at < Timestamp(now.0.saturating_sub(idle_millis))
}

/// What it takes to find a place for a caller who has its share, or on a node that is full.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// None is found: nothing may be ended that would leave the caller a share.
    None,
    /// There is a place.
    Free,
    /// The first of these that nobody writes to is to be ended.
    End(Vec<(TenantName, UploadId)>),
}

/// Finds a place for a session. Sessions that may be ended for it count as free places: so what was given up takes nothing
/// from anybody's share, and nothing is ended for a caller who would be refused all the same.
fn way_to_a_place(sessions: &[UploadState], purpose: &Purpose, sessions_max: usize) -> Way {
    let may_go = dispensable(sessions, &purpose.repository.tenant, purpose.opened_at);
    let left = sessions_max.saturating_sub(sessions.len());
    let is_own = |state: &&UploadState| purpose.opener.is_some() && state.opener == purpose.opener;
    let own = sessions.iter().filter(is_own).count();
    let own_kept = own - may_go.iter().copied().filter(is_own).count();
    if own_kept >= left + may_go.len() {
        return Way::None;
    }
    match left {
        0 => Way::End(
            may_go.into_iter().map(|state| (state.repository.tenant.clone(), state.id)).collect(),
        ),
        _ => Way::Free,
    }
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
        let opener = self.core.caller().map(Caller::counted_as);
        self.open(Purpose { repository, algorithm, opener, opened_at: self.core.wall_now() }).await
    }

    /// Opens a session. Where the caller has its share, or the node is full, sessions that were given up make place.
    async fn open(self, purpose: Purpose) -> Result<UploadState, Error> {
        let id = self.core.ids().upload_id();
        let open = |admission| self.core.uploads().open(id, purpose.clone(), admission);
        let mut opened = open(Admission::ByShare).await;
        if let Err(
            UploadError::TooMany { sessions_max } | UploadError::TooManyOfOne { sessions_max, .. },
        ) = opened
        {
            let has_place =
                match way_to_a_place(&self.core.uploads().list(), &purpose, sessions_max) {
                    Way::None => false,
                    Way::Free => true,
                    Way::End(may_go) => self.make_place(may_go).await,
                };
            if has_place {
                opened = open(Admission::AnyPlace).await;
            }
        }
        opened.map_err(|error| Error::of_upload(id, error))
    }

    /// Ends the first of these sessions that nobody writes to; false if there is none.
    async fn make_place(self, may_go: Vec<(TenantName, UploadId)>) -> bool {
        for (of, id) in may_go {
            match self.core.uploads().cancel(id).await {
                Ok(()) => {
                    UploadQuota::limited(self.core, &of, id).release().await;
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
        // A caller cannot tell a session of another repository from a missing one: an id opens only its own repository.
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
        let state = self.state(repository, id).await?;
        let quota = UploadQuota::of(self.core, &repository.tenant, id);
        if !quota.is_limited() {
            self.announce_if_old(&state).await?;
        }
        quota.append(&state, start, body.into()).await
    }

    /// Tells the cluster of a session that is older than sessions are kept for. The sweep of abandoned uploads in a bucket
    /// goes by age, and spares the sessions that the cluster knows of.
    async fn announce_if_old(self, state: &UploadState) -> Result<(), Error> {
        let lives_millis = self.core.settings().upload_expiry_millis;
        if self.core.wall_now().millis_since(state.opened_at) <= lives_millis {
            return Ok(());
        }
        let command = OpenUpload {
            upload: state.id,
            repository: state.repository.clone(),
            node: self.core.node(),
            lives_millis,
            reserve: 0,
        };
        self.core.by_itself().change(command).await.map(drop)
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
        let quota = UploadQuota::of(self.core, &repository.tenant, id);
        let is_blind = rest.is_some() && start.is_none();
        if let Some(body) = rest {
            quota.append(&state, start, body.into()).await?;
        }
        let lease = quota.lease().await?;
        match self.core.finish().finish(id, digest, self.core.next_generation()).await {
            Ok(stored) => self.commit(repository, id, stored).await,
            Err(error @ (UploadError::TooFewCopies { .. } | UploadError::Unavailable(_)))
                if is_blind =>
            {
                // Sent again, the request would append its bytes a second time: it must find no session.
                match self.core.uploads().cancel(id).await {
                    Ok(()) | Err(UploadError::Unknown) => quota.release().await,
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
                quota.shrink_to_written(lease).await;
                Err(Error::of_upload(id, error))
            }
        }
    }

    /// Drops a session and its bytes.
    pub async fn cancel(self, repository: &RepositoryKey, id: UploadId) -> Result<(), Error> {
        self.state(repository, id).await?;
        self.core.uploads().cancel(id).await.map_err(|error| Error::of_upload(id, error))?;
        if self.core.row(Key::Upload(repository.tenant.clone(), id)).await?.is_some() {
            UploadQuota::limited(self.core, &repository.tenant, id).close().await?;
        }
        Ok(())
    }

    /// Drops sessions that no client wrote to for too long, and the cluster's rows of sessions that have expired; gives
    /// back what is reserved for sessions of this node that are gone or idle. One call looks at a page of the cluster's
    /// rows, after `after`. Runs now and then on every node.
    pub async fn expire(self, after: Option<UploadPlace>) -> Result<Expired, Error> {
        let (now, wall_now) = (self.core.now(), self.core.wall_now());
        let expiry_millis = self.core.settings().upload_expiry_millis;
        let before = Timestamp(wall_now.0.saturating_sub(expiry_millis));
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

    /// Those of some sessions that the cluster knows of. It goes through the leases of all tenants once, however many sessions
    /// are asked about.
    pub async fn leased(self, asked: &HashSet<UploadId>) -> Result<HashSet<UploadId>, Error> {
        self.core.catch_up().await?;
        let mut leased = HashSet::new();
        let mut tenant = self.tenant_after(None).await?;
        while let Some(name) = tenant {
            let mut after = None;
            loop {
                let rows = Rows::Uploads { tenant: name.clone(), after };
                let rows = self.core.rows(rows, UPKEEP_PAGE_ROWS).await?;
                let ids = rows.iter().filter_map(|(key, _)| match key {
                    Key::Upload(_, id) => Some(*id),
                    _ => None,
                });
                after = ids.clone().last();
                leased.extend(ids.filter(|id| asked.contains(id)));
                if rows.len() < UPKEEP_PAGE_ROWS {
                    break;
                }
            }
            tenant = self.tenant_after(Some(name)).await?;
        }
        Ok(leased)
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
        let since = self.core.now().0.saturating_sub(ROOM_IDLE_MILLIS);
        let wall_since = self.core.wall_now().0.saturating_sub(ROOM_IDLE_MILLIS);
        let leased_at =
            lease.expires_at.0.saturating_sub(self.core.settings().upload_expiry_millis);
        if leased_at > since || self.core.uploads().is_written(id) {
            return Ok(());
        }
        let quota = UploadQuota::limited(self.core, &lease.repository.tenant, id);
        match self.core.uploads().state(id).await {
            Ok(state) if state.written_at.0 > wall_since => Ok(()),
            Ok(_) => quota.shrink(0, lease.expires_at).await,
            Err(UploadError::Unknown) => quota.close().await,
            // It is asked again next time.
            Err(_) => Ok(()),
        }
    }

    /// Makes durable bytes visible, and tells which copy is the one to read.
    async fn commit(
        self,
        repository: RepositoryKey,
        upload: UploadId,
        stored: BlobCopy,
    ) -> Result<BlobStat, Error> {
        let BlobCopy { digest, generation, size, chunk_root, placement } = stored.clone();
        let quota = UploadQuota::of(self.core, &repository.tenant, upload);
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
                self.delete_copy(stored).await;
                quota.release().await;
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
                self.delete_copy(stored).await;
                quota.release_after(&refusal).await;
                Err(refusal.into())
            }
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
        let id = self.start(repository.clone(), digest.algorithm()).await?.id;
        self.push_into(repository, id, digest, body.into()).await
    }

    /// Pushes a whole body into a session that nobody else learns of.
    async fn push_into(
        self,
        repository: RepositoryKey,
        id: UploadId,
        digest: Digest,
        body: Incoming,
    ) -> Result<BlobStat, Error> {
        let quota = UploadQuota::of(self.core, &repository.tenant, id);
        let finished = self.finish(repository, id, None, Some(body), digest).await;
        if finished.is_err() {
            quota.release().await;
            match self.core.uploads().cancel(id).await {
                Ok(()) | Err(UploadError::Unknown) => {}
                Err(error) => warn!(%error, "a failed push stays a session until it expires"),
            }
        }
        finished
    }

    /// Stores bytes that are in memory already as a blob of the repository. The session ends at once, so it is not counted
    /// against the caller.
    pub(crate) async fn store_bytes(
        self,
        repository: &RepositoryKey,
        digest: Digest,
        bytes: bytes::Bytes,
    ) -> Result<BlobStat, Error> {
        let length = Some(bytes.len() as u64);
        let stream: ByteStream = Box::pin(futures_util::stream::iter([Ok(bytes)]));
        let (repository, algorithm) = (repository.clone(), digest.algorithm());
        let opened_at = self.core.wall_now();
        let purpose =
            Purpose { repository: repository.clone(), algorithm, opener: None, opened_at };
        let id = self.open(purpose).await?.id;
        self.push_into(repository, id, digest, Incoming { stream, length }).await
    }
}
