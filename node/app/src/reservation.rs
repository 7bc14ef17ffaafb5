//! Reserving some of a tenant's quota for bytes before they are taken.
//!
//! Guarantee: a byte of a tenant whose bytes are limited is taken only after the log has reserved room for it, so that
//! uploads on all nodes together cannot overrun a quota. Uploads to other tenants reserve nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt, stream};
use nora_domain::{OpenUpload, Quota, RepositoryKey, Timestamp, UploadId};

use crate::Error;
use crate::core::Core;
use crate::ports::uploads::UploadState;
use crate::ports::{ByteStream, Incoming};

/// How much is reserved at first for a body whose length its client did not say, and at most at a time as it goes on:
/// small blobs that come at once must not take each other's room, and large ones must not ask often.
const STEP_BYTES_MIN: u64 = 1 << 20;
const STEP_BYTES_MAX: u64 = 64 << 20;

/// A refused body is read and dropped up to here: a client that still sends would lose an answer with its connection.
const DISCARDED_BYTES_MAX: u64 = 16 << 20;

/// Reads and drops what the client still sends, if that is not too much, and then gives the refusal.
async fn after_discarding(error: Error, mut stream: ByteStream, length: u64) -> Error {
    let mut taken = 0;
    while length <= DISCARDED_BYTES_MAX
        && taken <= DISCARDED_BYTES_MAX
        && let Some(Ok(bytes)) = stream.next().await
    {
        taken += bytes.len() as u64;
    }
    error
}

/// What one request has reserved while its body streams in.
#[derive(Clone, Default)]
pub(crate) struct Reservation(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Until when the cluster keeps the session, as of the request's last reservation.
    lease: Timestamp,
    refusal: Option<Error>,
}

/// A body that more is reserved for as it comes.
struct Growing {
    body: ByteStream,
    core: Core,
    repository: RepositoryKey,
    upload: UploadId,
    /// Where the session ends once what came so far is appended.
    taken: u64,
    /// Up to where room is reserved.
    reserved: u64,
    /// How much was reserved last.
    step: u64,
    reservation: Reservation,
}

impl Reservation {
    /// Reserves room for a body that an upload is to grow by. The stream ends in an error if there is none left for the
    /// rest; [`Reservation::refusal`] then says so.
    pub(crate) async fn make(
        &self,
        core: &Core,
        repository: &RepositoryKey,
        upload: &UploadState,
        body: Incoming,
    ) -> Result<ByteStream, Error> {
        let Incoming { stream, length } = body;
        if let Some(length) = length {
            let end = upload.offset.saturating_add(length);
            if let Err(error) = self.reserve(core, repository, upload.id, end).await {
                return Err(after_discarding(error, stream, length).await);
            }
            return Ok(stream);
        }
        let step = STEP_BYTES_MIN;
        let reserved =
            match self.reserve_more(core, repository, upload.id, upload.offset, step).await {
                Ok(reserved) => reserved,
                Err(error) => return Err(after_discarding(error, stream, 0).await),
            };
        let growing = Growing {
            body: stream,
            core: core.clone(),
            repository: repository.clone(),
            upload: upload.id,
            taken: upload.offset,
            reserved,
            step,
            reservation: self.clone(),
        };
        let body = stream::try_unfold(growing, |mut growing| async move {
            let Some(bytes) = growing.body.next().await.transpose()? else { return Ok(None) };
            growing.taken = growing.taken.saturating_add(bytes.len() as u64);
            while growing.taken > growing.reserved {
                growing.step = growing.step.saturating_mul(2).min(STEP_BYTES_MAX);
                let Growing { core, repository, upload, reserved, step, reservation, .. } =
                    &growing;
                let more = reservation.reserve_more(core, repository, *upload, *reserved, *step);
                match more.await {
                    Ok(reserved) => growing.reserved = reserved,
                    Err(error) => {
                        let message = error.to_string();
                        let body = std::mem::replace(&mut growing.body, Box::pin(stream::empty()));
                        let refusal = after_discarding(error, body, 0).await;
                        growing.reservation.state().refusal = Some(refusal);
                        return Err(message.into());
                    }
                }
            }
            Ok(Some((bytes, growing)))
        });
        Ok(Box::pin(body))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there was no room for the whole body, if there was not.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.state().refusal.take()
    }

    /// Until when the cluster keeps the session, as of this request's last reservation.
    pub(crate) fn lease(&self) -> Timestamp {
        self.state().lease
    }

    /// Reserves room up to `end` bytes of an upload.
    async fn reserve(
        &self,
        core: &Core,
        repository: &RepositoryKey,
        upload: UploadId,
        end: u64,
    ) -> Result<(), Error> {
        let command = OpenUpload {
            upload,
            repository: repository.clone(),
            node: core.node(),
            lives_millis: core.settings().upload_expiry_millis,
            reserve: end,
        };
        let lease = core.change(command).await?;
        let mut state = self.state();
        state.lease = state.lease.max(lease);
        Ok(())
    }

    /// Reserves more than `reserved`: a step, or what little is left. Returns up to where.
    async fn reserve_more(
        &self,
        core: &Core,
        repository: &RepositoryKey,
        upload: UploadId,
        reserved: u64,
        step: u64,
    ) -> Result<u64, Error> {
        let end = reserved.saturating_add(step);
        match self.reserve(core, repository, upload, end).await {
            Ok(()) => Ok(end),
            Err(Error::QuotaExceeded { quota: Quota::Storage, limit, used, .. })
                if used < limit =>
            {
                let end = reserved.saturating_add(limit - used);
                self.reserve(core, repository, upload, end).await.map(|()| end)
            }
            Err(error) => Err(error),
        }
    }
}
