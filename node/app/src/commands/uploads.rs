//! Pushing a blob: a session takes its bytes, and the log makes them visible once they are durable.
//!
//! Guarantee: `CommitBlob` is proposed only after the bytes are durable under `digest/generation`, so a blob that the
//! metadata calls live was whole before on every node that it names. What a refused or repeated push wrote is deleted
//! again; what an unknown outcome left is not, because the log may have made it the live copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join;
use nora_domain::command::{Action, Outcome, Refusal};
use nora_domain::record::{Key, NodeId, Record, Timestamp, UploadId, UploadRecord};
use nora_domain::store::Rows;
use nora_domain::{Algorithm, Digest, RepositoryKey, TenantName};
use tracing::warn;

use super::room::Room;
use crate::ports::blobs::BlobCopy;
use crate::ports::metadata::MetadataError;
use crate::ports::uploads::{UploadError, UploadState};
use crate::ports::{ByteStream, Incoming};
use crate::registry::Unanswered;
use crate::{BlobStat, Error, Registry};

/// Rows that upkeep looks at in one step.
const UPKEEP_PAGE_ROWS: usize = 256;

/// How long what is set aside waits for bytes that do not come: longer than a client waits before it goes on.
const ROOM_IDLE_MILLIS: u64 = 15 * 60 * 1_000;

/// How long nobody wrote to a session that may be ended for another's.
const PLACE_IDLE_MILLIS: u64 = 60_000;

/// Sessions, idle since `before`, of which whoever pushes to a tenant may have one ended: those of the tenant that has the
/// most, the oldest first, so that nobody who opens many keeps the others out; of the tenant itself only such as hold
/// nothing.
fn dispensable(sessions: &[UploadState], tenant: &TenantName, before: Timestamp) -> Vec<UploadId> {
    let mut counts: BTreeMap<&TenantName, usize> = BTreeMap::new();
    for state in sessions {
        *counts.entry(&state.repository.tenant).or_default() += 1;
    }
    let own = counts.get(tenant).copied().unwrap_or(0);
    let most = counts.iter().max_by_key(|(_, count)| **count);
    let most = most.filter(|(_, count)| **count > own).map(|(name, _)| *name);
    let may_go = |state: &&UploadState| match most {
        _ if state.written_at >= before => false,
        Some(most) => state.repository.tenant == *most,
        None => state.repository.tenant == *tenant && state.offset == 0,
    };
    let mut open: Vec<_> = sessions.iter().filter(may_go).collect();
    open.sort_by_key(|state| state.written_at);
    open.into_iter().map(|state| state.id).collect()
}

impl Registry {
    /// Opens an upload session.
    pub async fn start_upload(
        &self,
        repository: RepositoryKey,
        algorithm: Algorithm,
    ) -> Result<UploadState, Error> {
        let id = self.ids.upload_id();
        let open = || self.uploads.open(id, repository.clone(), algorithm, self.now());
        let mut opened = open().await;
        if let Err(UploadError::TooMany { .. }) = opened
            && self.make_place(&repository.tenant).await
        {
            opened = open().await;
        }
        opened.map_err(|error| Error::of_upload(id, error))
    }

    /// Ends a session that nobody writes to, for somebody who needs its place; false if none may be ended.
    async fn make_place(&self, tenant: &TenantName) -> bool {
        let before = Timestamp(self.now().0.saturating_sub(PLACE_IDLE_MILLIS));
        for id in dispensable(&self.uploads.list(), tenant, before) {
            match self.uploads.cancel(id).await {
                Ok(()) => {
                    self.free_room(id).await;
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
    pub fn upload_owner(&self, id: UploadId) -> Option<NodeId> {
        Some(id.owner()).filter(|owner| *owner != self.node)
    }

    /// The session as it is, for whoever pushes to that repository.
    pub async fn upload_state(
        &self,
        repository: &RepositoryKey,
        id: UploadId,
    ) -> Result<UploadState, Error> {
        let state = self.uploads.state(id).await.map_err(|error| Error::of_upload(id, error))?;
        // A session of another repository is told from none by nothing: its id opens only its own repository.
        if state.repository != *repository {
            return Err(Error::UploadUnknown(id));
        }
        Ok(state)
    }

    /// Appends a part of a blob, which a later request goes on from: the cluster gets to know the session.
    pub async fn append_upload(
        &self,
        repository: &RepositoryKey,
        id: UploadId,
        start: Option<u64>,
        body: impl Into<Incoming>,
    ) -> Result<UploadState, Error> {
        let body = body.into();
        let state = self.upload_state(repository, id).await?;
        if self.tenancy.has_storage_quota(&repository.tenant) {
            return self.append_within_quota(repository, &state, start, body).await;
        }
        let body = body.stream;
        let lease = self.propose(Action::OpenUpload {
            upload: id,
            repository: repository.clone(),
            node: self.node,
            expires_at: self.now().plus_millis(self.settings.upload_expiry_millis),
            reserve: 0,
        });
        // The lease's round goes on while the bytes stream in.
        let (appended, lease) = join(self.uploads.append(id, start, body), lease).await;
        match lease {
            Ok(Ok(_)) => {}
            // The lease tells other nodes of the session; the bytes are safe without it.
            Ok(Err(refusal)) => warn!(?refusal, "upload lease refused"),
            Err(error) => warn!(%error, "upload lease not written"),
        }
        appended.map_err(|error| Error::of_upload(id, error))
    }

    /// Appends a part of a blob of a tenant whose bytes are limited: room is set aside before bytes are taken.
    async fn append_within_quota(
        &self,
        repository: &RepositoryKey,
        state: &UploadState,
        start: Option<u64>,
        body: Incoming,
    ) -> Result<UploadState, Error> {
        let id = state.id;
        // Whoever lost count is told so, and not that there is no room for bytes that are there already.
        if let Some(start) = start.filter(|start| *start != state.offset) {
            let error = UploadError::WrongOffset { offset: state.offset, start };
            return Err(Error::of_upload(id, error));
        }
        let lease = self.now().plus_millis(self.settings.upload_expiry_millis);
        let (body, room) = match Room::made(self, repository, state, body, lease).await {
            Ok(made) => made,
            Err(error) => {
                self.without_room(repository, id, &error).await;
                return Err(error);
            }
        };
        // Where nobody says where the body goes, it goes where room was made for it.
        let appended = self.uploads.append(id, start.or(Some(state.offset)), body).await;
        if let Some(refusal) = room.refusal() {
            match refusal {
                Error::QuotaExceeded { .. } => self.without_room(repository, id, &refusal).await,
                _ => self.keep_room(id, lease).await,
            }
            return Err(refusal);
        }
        match appended {
            Ok(state) => Ok(state),
            // Somebody else writes to it, and what is set aside is theirs.
            Err(error @ UploadError::Busy) => Err(Error::of_upload(id, error)),
            Err(error) => {
                self.keep_room(id, lease).await;
                Err(Error::of_upload(id, error))
            }
        }
    }

    /// A blob that there is no room for comes to an end: its client will not go on with it, and what it has set aside
    /// already would be missing to others.
    async fn without_room(&self, repository: &RepositoryKey, id: UploadId, error: &Error) {
        if !matches!(error, Error::QuotaExceeded { .. }) {
            return;
        }
        self.note_refusal("blob.push", &repository.to_string(), Refusal::QUOTA_EXCEEDED);
        match self.uploads.cancel(id).await {
            Ok(()) | Err(UploadError::Unknown) => self.free_room(id).await,
            // Somebody else writes to it: it is not over.
            Err(error) => warn!(%error, "an upload without room stays a session until it expires"),
        }
    }

    /// Gives back what was set aside, under that lease, for bytes that did not come.
    async fn keep_room(&self, id: UploadId, lease: Timestamp) {
        let kept = match self.uploads.state(id).await {
            Ok(state) => self.keep_aside(id, state.offset, lease).await,
            Err(UploadError::Unknown) => self.close_upload(id).await,
            Err(error) => Err(Error::of_upload(id, error)),
        };
        if let Err(error) = kept {
            warn!(%error, "what was set aside for an upload stays so for a while");
        }
    }

    /// Should somebody go on with the session meanwhile, under a later lease, what is set aside is theirs.
    async fn keep_aside(
        &self,
        upload: UploadId,
        bytes: u64,
        lease: Timestamp,
    ) -> Result<(), Error> {
        match self.by_itself().propose(Action::KeepAside { upload, bytes, lease }).await? {
            Ok(Outcome::RoomKept) => Ok(()),
            other => Err(Error::impossible(other)),
        }
    }

    /// Appends what is left of a blob and makes it visible in the repository.
    pub async fn finish_upload(
        &self,
        repository: RepositoryKey,
        id: UploadId,
        start: Option<u64>,
        rest: Option<impl Into<Incoming>>,
        digest: Digest,
    ) -> Result<BlobStat, Error> {
        let state = self.upload_state(&repository, id).await?;
        let is_blind = rest.is_some() && start.is_none();
        let is_limited = self.tenancy.has_storage_quota(&repository.tenant);
        if let Some(body) = rest {
            if is_limited {
                self.append_within_quota(&repository, &state, start, body.into()).await?;
            } else {
                self.uploads
                    .append(id, start, body.into().stream)
                    .await
                    .map_err(|error| Error::of_upload(id, error))?;
            }
        }
        let lease = match is_limited {
            true => self.lease_of(id).await?,
            false => Timestamp(0),
        };
        match self.uploads.finish(id, digest, self.next_generation()).await {
            Ok(stored) => self.commit_blob(repository, id, stored).await,
            Err(error @ (UploadError::TooFewCopies { .. } | UploadError::Unavailable(_)))
                if is_blind =>
            {
                // Sent again, the request would append its bytes a second time: it must find no session.
                match self.uploads.cancel(id).await {
                    Ok(()) | Err(UploadError::Unknown) if is_limited => self.free_room(id).await,
                    Ok(()) | Err(UploadError::Unknown) => {}
                    Err(error) => {
                        warn!(%error, "an upload that failed stays a session until it expires");
                    }
                }
                let what = "the upload could not be stored; start it anew";
                Err(Error::Unavailable { what, source: Some(Box::new(error)) })
            }
            // Somebody else writes to it, and what is set aside is theirs.
            Err(error @ UploadError::Busy) => Err(Error::of_upload(id, error)),
            Err(error) => {
                if is_limited {
                    self.keep_room(id, lease).await;
                }
                Err(Error::of_upload(id, error))
            }
        }
    }

    /// When what the cluster knows of a session may be dropped, as this node has it.
    async fn lease_of(&self, id: UploadId) -> Result<Timestamp, Error> {
        match self.metadata.get(Key::Upload(id)).await? {
            Some(Record::Upload(record)) => Ok(record.expires_at),
            _ => Ok(Timestamp(0)),
        }
    }

    /// Gives back what was set aside for an upload that is over. Should that fail, it is free when the session expires.
    async fn free_room(&self, id: UploadId) {
        if let Err(error) = self.close_upload(id).await {
            warn!(%error, "what was set aside for an upload stays so until it expires");
        }
    }

    /// Drops a session and its bytes.
    pub async fn cancel_upload(
        &self,
        repository: &RepositoryKey,
        id: UploadId,
    ) -> Result<(), Error> {
        self.upload_state(repository, id).await?;
        self.uploads.cancel(id).await.map_err(|error| Error::of_upload(id, error))?;
        self.close_upload(id).await
    }

    /// Drops sessions that nobody wrote to for too long, and leases that outlived theirs; what is set aside for sessions of
    /// this node that are gone, or that nobody writes to, is given back. Returns how many sessions were dropped. Runs now
    /// and then on every node.
    pub async fn expire_uploads(&self) -> Result<usize, Error> {
        let now = self.now();
        let before = Timestamp(now.0.saturating_sub(self.settings.upload_expiry_millis));
        let dropped = self.uploads.expire(before).await.map_err(|error| Error::Internal {
            what: "expired uploads could not be dropped",
            source: Some(Box::new(error)),
        })?;
        let mut after = None;
        loop {
            let rows = self.metadata.scan(Rows::Uploads { after }, UPKEEP_PAGE_ROWS).await?;
            let Some((Key::Upload(last), _)) = rows.last() else { break };
            after = Some(*last);
            let leases = rows.iter().filter_map(|row| match row {
                (Key::Upload(id), Record::Upload(lease)) => Some((*id, lease)),
                _ => None,
            });
            let (expired, running): (Vec<_>, Vec<_>) =
                leases.partition(|(_, lease)| lease.expires_at < now);
            for (id, lease) in running {
                if lease.node == self.node && lease.reserved_bytes > 0 {
                    self.give_back_if_idle(id, lease).await?;
                }
            }
            if !expired.is_empty() {
                self.drop_leases(&expired).await?;
            }
        }
        Ok(dropped.len())
    }

    /// Gives back the room of a session that is gone, or that nobody writes to. Whoever goes on with it asks for room again.
    async fn give_back_if_idle(&self, id: UploadId, lease: &UploadRecord) -> Result<(), Error> {
        let since = self.now().0.saturating_sub(ROOM_IDLE_MILLIS);
        let leased_at = lease.expires_at.0.saturating_sub(self.settings.upload_expiry_millis);
        if leased_at > since {
            return Ok(());
        }
        if self.uploads.is_written(id) {
            return Ok(());
        }
        match self.uploads.state(id).await {
            Ok(state) if state.written_at.0 > since => Ok(()),
            Ok(_) => self.keep_aside(id, 0, lease.expires_at).await,
            Err(UploadError::Unknown) => self.close_upload(id).await,
            // It is asked again next time.
            Err(_) => Ok(()),
        }
    }

    /// Drops leases that have expired; those of other nodes too, which may never come back to do it.
    async fn drop_leases(&self, leases: &[(UploadId, &UploadRecord)]) -> Result<(), Error> {
        let uploads = leases.iter().map(|(id, _)| *id).collect();
        match self.propose(Action::ExpireUploads { uploads }).await? {
            Ok(_) => Ok(()),
            // Until an upgrade is finished, each node drops its own, one by one.
            Err(Refusal::FeatureNotReached { .. }) => {
                for (id, _) in leases.iter().filter(|(_, lease)| lease.node == self.node) {
                    self.close_upload(*id).await?;
                }
                Ok(())
            }
            Err(refusal) => Err(Error::impossible(refusal)),
        }
    }

    async fn close_upload(&self, upload: UploadId) -> Result<(), Error> {
        match self.by_itself().propose(Action::CloseUpload { upload }).await? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Error::impossible(refusal)),
        }
    }

    /// Makes durable bytes visible, and tells which copy is the one to read.
    pub(super) async fn commit_blob(
        &self,
        repository: RepositoryKey,
        upload: UploadId,
        stored: BlobCopy,
    ) -> Result<BlobStat, Error> {
        let BlobCopy { digest, generation, size, chunk_root, placement } = stored.clone();
        let is_limited = self.tenancy.has_storage_quota(&repository.tenant);
        let action = Action::CommitBlob {
            repository,
            digest,
            size,
            generation,
            node: self.node,
            chunk_root,
            upload,
            pinned_until: self.now().plus_millis(self.settings.pin_millis),
            placement,
        };
        let answer = match self.propose_judged(action).await {
            Ok(answer) => answer,
            Err(
                error @ (Unanswered::Unproposed(_)
                | Unanswered::Metadata(MetadataError::NoLeader | MetadataError::Busy)),
            ) => {
                self.without_copy(stored, upload, is_limited).await;
                return Err(error.into());
            }
            // Any other failure leaves the outcome open: the copy may be live now. It stays; if the log never took
            // it, the next start finds it as an orphan of a retired epoch.
            Err(error) => return Err(error.into()),
        };
        match answer {
            Ok(Outcome::BlobCommitted { live }) => {
                if live != generation {
                    self.delete_copy(stored).await;
                }
                Ok(BlobStat { digest, size, generation: live })
            }
            Ok(other) => Err(Error::impossible(other)),
            Err(Refusal::SizeConflict { digest, live }) => {
                self.without_copy(stored, upload, is_limited).await;
                Err(Error::Internal {
                    what: "a stored blob has another size than the same digest pushed now",
                    source: Some(format!("{digest}: {live} bytes are stored").into()),
                })
            }
            // Sent twice by the metadata, and the first answer missed: the copy may be live.
            Err(Refusal::Duplicate) => Err(Error::OutcomeUnknown),
            // The same, if the node was removed in between. What is an orphan of a retired epoch is found as such.
            Err(Refusal::RetiredEpoch) => Err(Error::retired()),
            Err(Refusal::TooFewHolders { .. }) => {
                self.without_copy(stored, upload, is_limited).await;
                let what = "the nodes that stored the blob were removed meanwhile; push it again";
                Err(Error::Unavailable { what, source: None })
            }
            Err(Refusal::QuotaExceeded { quota, limit, used, asked }) => {
                self.without_copy(stored, upload, true).await;
                Err(Error::QuotaExceeded { quota, limit, used, asked })
            }
            Err(refusal) => {
                self.without_copy(stored, upload, is_limited).await;
                Err(Error::impossible(refusal))
            }
        }
    }

    /// A push came to nothing: its copy goes, and what was set aside for it is free.
    async fn without_copy(&self, stored: BlobCopy, upload: UploadId, is_limited: bool) {
        self.delete_copy(stored).await;
        if is_limited {
            self.free_room(upload).await;
        }
    }

    /// Deletes a copy that the log did not take. A failure costs only disk space until the next start.
    async fn delete_copy(&self, stored: BlobCopy) {
        let digest = stored.digest;
        if let Err(error) = self.blobs.delete(stored).await {
            warn!(%digest, %error, "a redundant copy was not deleted");
        }
    }

    /// Pushes a blob whose whole body comes at once. Nobody else learns of its session, which ends with the call however
    /// that ends.
    pub async fn push_blob(
        &self,
        repository: RepositoryKey,
        digest: Digest,
        body: impl Into<Incoming>,
    ) -> Result<BlobStat, Error> {
        let is_limited = self.tenancy.has_storage_quota(&repository.tenant);
        let id = self.start_upload(repository.clone(), digest.algorithm()).await?.id;
        let finished = self.finish_upload(repository, id, None, Some(body), digest).await;
        if finished.is_err() {
            if is_limited {
                self.free_room(id).await;
            }
            match self.uploads.cancel(id).await {
                Ok(()) | Err(UploadError::Unknown) => {}
                Err(error) => warn!(%error, "a failed push stays a session until it expires"),
            }
        }
        finished
    }

    /// Stores bytes that are in memory already as a blob of the repository.
    pub(super) async fn store_bytes(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
        bytes: bytes::Bytes,
    ) -> Result<BlobStat, Error> {
        let length = Some(bytes.len() as u64);
        let stream: ByteStream = Box::pin(futures_util::stream::iter([Ok(bytes)]));
        self.push_blob(repository.clone(), digest, Incoming { stream, length }).await
    }
}

/// Registries are shared between requests.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<Registry>>();
};
