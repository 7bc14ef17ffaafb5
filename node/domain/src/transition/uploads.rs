//! Upload sessions that outlive one request: the cluster knows which node holds their bytes, and what is set aside of the
//! tenant's quota for them.

use super::{Decision, Step, Stop, lower, raise};
use crate::command::{Outcome, Refusal};
use crate::name::RepositoryKey;
use crate::record::{Key, NodeId, Record, Timestamp, UploadId, UploadRecord};
use crate::store::Store;

impl<S: Store> Step<'_, S> {
    pub(super) fn open_upload(
        &mut self,
        upload: UploadId,
        repository: &RepositoryKey,
        node: NodeId,
        expires_at: Timestamp,
        reserve: u64,
    ) -> Decision<Outcome, S::Error> {
        let key = Key::Upload(upload);
        let known = read!(self.store, Upload, key);
        let before = known.as_ref().map_or(0, |known| known.reserved_bytes);
        let more = reserve.saturating_sub(before);
        let record = match known {
            // A session never changes hands: answering for another repository's would let one tenant end it.
            Some(known) if known.repository != *repository || known.node != node => {
                return Err(Stop::Refused(Refusal::UploadConflict));
            }
            // Proposals of one session may overtake one another, so none may shorten its life.
            Some(known) => UploadRecord {
                expires_at: known.expires_at.max(expires_at),
                reserved_bytes: before.saturating_add(more),
                ..known
            },
            None => UploadRecord {
                repository: repository.clone(),
                node,
                opened_at: self.now,
                expires_at,
                reserved_bytes: more,
            },
        };
        if more > 0 {
            self.check_room(&repository.tenant, more, 0, 0)?;
            let mut usage = self.usage(&repository.tenant)?;
            raise(&mut usage.reserved_bytes, more);
            self.put_usage(&repository.tenant, usage)?;
        }
        self.store.put(key, Record::Upload(record))?;
        Ok(Outcome::UploadOpened)
    }

    pub(super) fn keep_aside(
        &mut self,
        upload: UploadId,
        bytes: u64,
        lease: Timestamp,
    ) -> Decision<Outcome, S::Error> {
        let key = Key::Upload(upload);
        // What a later request set aside is that request's.
        if let Some(known) = read!(self.store, Upload, key)
            && known.reserved_bytes > bytes
            && known.expires_at <= lease
        {
            let tenant = known.repository.tenant.clone();
            let mut usage = self.usage(&tenant)?;
            lower(&mut usage.reserved_bytes, known.reserved_bytes - bytes);
            self.put_usage(&tenant, usage)?;
            let record = UploadRecord { reserved_bytes: bytes, ..known };
            self.store.put(key, Record::Upload(record))?;
        }
        Ok(Outcome::RoomKept)
    }

    pub(super) fn close_upload(&mut self, upload: UploadId) -> Decision<Outcome, S::Error> {
        self.end_upload(upload)?;
        Ok(Outcome::UploadClosed)
    }

    /// Whoever asks has looked at the sessions earlier, and by its own clock: one that was extended meanwhile stays.
    pub(super) fn expire_uploads(&mut self, uploads: &[UploadId]) -> Decision<Outcome, S::Error> {
        for upload in uploads {
            let key = Key::Upload(*upload);
            let known = read!(self.store, Upload, key);
            if known.is_some_and(|known| known.expires_at <= self.now) {
                self.end_upload(*upload)?;
            }
        }
        Ok(Outcome::UploadsExpired)
    }
}
