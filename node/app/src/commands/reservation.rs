//! Room for bytes that come in: set aside of the tenant's quota before they are taken.
//!
//! Guarantee: a byte of a tenant whose bytes are limited is taken only after the log has set room aside for it, so that
//! uploads on all nodes together cannot overrun a quota. Only uploads to such tenants come by here.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use nora_domain::RepositoryKey;
use nora_domain::command::{Action, Outcome, Quota};
use nora_domain::record::{Timestamp, UploadId};

use crate::ports::uploads::UploadState;
use crate::ports::{ByteStream, Incoming};
use crate::{Error, Registry};

/// How much is set aside at first for a body whose length nobody said, and at most at a time as it goes on: small blobs
/// that come at once must not take each other's room, and large ones must not ask often.
const STEP_BYTES_MIN: u64 = 1 << 20;
const STEP_BYTES_MAX: u64 = 64 << 20;

/// A refused body is taken in up to here: an answer that is given while the client still sends is lost with the connection.
const DISCARDED_BYTES_MAX: u64 = 16 << 20;

/// The refusal, once what the client sends is out of the way, if that is not too much.
async fn told_after(error: Error, mut stream: ByteStream, length: u64) -> Error {
    let mut taken = 0;
    while length <= DISCARDED_BYTES_MAX
        && taken <= DISCARDED_BYTES_MAX
        && let Some(Ok(bytes)) = stream.next().await
    {
        taken += bytes.len() as u64;
    }
    error
}

/// What is known of the room while a body streams in.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<Option<Error>>>);

/// A body that room is made for as it comes.
struct Growing {
    body: ByteStream,
    registry: Registry,
    repository: RepositoryKey,
    upload: UploadId,
    /// Where the session ends once what came so far is appended.
    taken: u64,
    /// Up to where room is set aside.
    reserved: u64,
    /// How much was set aside last.
    step: u64,
    lease: Timestamp,
    room: Room,
}

impl Room {
    /// Sets room aside, under a lease, for a body that an upload is to grow by. The stream ends in an error if there is
    /// none left for the rest; [`Room::refusal`] then says so.
    pub(super) async fn made(
        registry: &Registry,
        repository: &RepositoryKey,
        upload: &UploadState,
        body: Incoming,
        lease: Timestamp,
    ) -> Result<(ByteStream, Self), Error> {
        let room = Self::default();
        let Incoming { stream, length } = body;
        if let Some(length) = length {
            let end = upload.offset.saturating_add(length);
            if let Err(error) = registry.set_aside(repository, upload.id, end, lease).await {
                return Err(told_after(error, stream, length).await);
            }
            return Ok((stream, room));
        }
        let step = STEP_BYTES_MIN;
        let made = registry.set_more_aside(repository, upload.id, upload.offset, step, lease).await;
        let reserved = match made {
            Ok(reserved) => reserved,
            Err(error) => return Err(told_after(error, stream, 0).await),
        };
        let growing = Growing {
            body: stream,
            registry: registry.clone(),
            repository: repository.clone(),
            upload: upload.id,
            taken: upload.offset,
            reserved,
            step,
            lease,
            room: room.clone(),
        };
        let body = stream::try_unfold(growing, |mut growing| async move {
            let Some(bytes) = growing.body.next().await.transpose()? else { return Ok(None) };
            growing.taken = growing.taken.saturating_add(bytes.len() as u64);
            while growing.taken > growing.reserved {
                growing.step = growing.step.saturating_mul(2).min(STEP_BYTES_MAX);
                let Growing { registry, repository, upload, reserved, step, lease, .. } = &growing;
                let more = registry.set_more_aside(repository, *upload, *reserved, *step, *lease);
                match more.await {
                    Ok(reserved) => growing.reserved = reserved,
                    Err(error) => {
                        let message = error.to_string();
                        let body = std::mem::replace(&mut growing.body, Box::pin(stream::empty()));
                        growing.room.refuse(told_after(error, body, 0).await);
                        return Err(message.into());
                    }
                }
            }
            Ok(Some((bytes, growing)))
        });
        Ok((Box::pin(body), room))
    }

    fn refuse(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Why there was no room for the whole body, if there was not.
    pub(super) fn refusal(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Registry {
    /// Sets room aside up to `end` bytes of an upload.
    async fn set_aside(
        &self,
        repository: &RepositoryKey,
        upload: UploadId,
        end: u64,
        lease: Timestamp,
    ) -> Result<(), Error> {
        let action = Action::OpenUpload {
            upload,
            repository: repository.clone(),
            node: self.node,
            expires_at: lease,
            reserve: end,
        };
        match self.propose(action).await? {
            Ok(Outcome::UploadOpened) => Ok(()),
            other => Err(Error::impossible(other)),
        }
    }

    /// Sets more room aside than `reserved`: a step, or what little is left. Returns up to where.
    async fn set_more_aside(
        &self,
        repository: &RepositoryKey,
        upload: UploadId,
        reserved: u64,
        step: u64,
        lease: Timestamp,
    ) -> Result<u64, Error> {
        let end = reserved.saturating_add(step);
        match self.set_aside(repository, upload, end, lease).await {
            Ok(()) => Ok(end),
            Err(Error::QuotaExceeded { quota: Quota::Storage, limit, used, .. })
                if used < limit =>
            {
                let end = reserved.saturating_add(limit - used);
                self.set_aside(repository, upload, end, lease).await.map(|()| end)
            }
            Err(error) => Err(error),
        }
    }
}
