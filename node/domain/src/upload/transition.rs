//! Sessions that are opened, go on, and end.
//!
//! Guarantee: a tenant's reserved bytes are the sum over its sessions.

use super::{CloseUpload, ExpireUploads, OpenUpload, ShrinkReservation, UploadRecord};
use crate::command::Refusal;
use crate::ids::UploadId;
use crate::names::TenantName;
use crate::state::{Key, Record, Store};
use crate::time::Timestamp;
use crate::transition::{Decision, Step, lower, raise, refuse};

impl<S: Store> Step<'_, S> {
    fn upload(
        &self,
        tenant: &TenantName,
        upload: UploadId,
    ) -> Result<Option<UploadRecord>, S::Error> {
        Ok(read!(self.store, Upload, Key::Upload(tenant.clone(), upload)))
    }

    pub(crate) fn open_upload(&mut self, command: &OpenUpload) -> Decision<Timestamp, S::Error> {
        let OpenUpload { upload, repository, node, lives_millis, reserve } = command;
        let tenant = &repository.tenant;
        let known = self.upload(tenant, *upload)?;
        let before = known.as_ref().map_or(0, |known| known.reserved_bytes);
        let more = reserve.saturating_sub(before);
        let is_new = known.is_none();
        let expires_at = self.now.plus_millis(*lives_millis);
        let record = match known {
            // A session never changes hands: answering for another repository's would let one tenant end it.
            Some(known) if known.repository != *repository || known.node != *node => {
                return refuse(Refusal::UploadConflict);
            }
            // Proposals of one session may overtake one another, so none may shorten its life.
            Some(known) => UploadRecord {
                expires_at: known.expires_at.max(expires_at),
                reserved_bytes: before.saturating_add(more),
                ..known
            },
            None => UploadRecord {
                repository: repository.clone(),
                node: *node,
                opened_at: self.now,
                expires_at,
                reserved_bytes: more,
            },
        };
        if more > 0 {
            self.check_quota(tenant, more, 0, 0)?;
        }
        if more > 0 || is_new {
            let mut usage = self.usage(tenant)?;
            raise(&mut usage.reserved_bytes, more);
            raise(&mut usage.uploads, u64::from(is_new));
            self.put_usage(tenant, usage)?;
        }
        let expires_at = record.expires_at;
        self.store.put(Key::Upload(tenant.clone(), *upload), Record::Upload(record))?;
        Ok(expires_at)
    }

    pub(crate) fn shrink_reservation(
        &mut self,
        command: &ShrinkReservation,
    ) -> Decision<(), S::Error> {
        let ShrinkReservation { tenant, upload, bytes, lease } = command;
        if let Some(known) = self.upload(tenant, *upload)?
            && known.reserved_bytes > *bytes
            && known.expires_at <= *lease
        {
            let mut usage = self.usage(tenant)?;
            lower(&mut usage.reserved_bytes, known.reserved_bytes - bytes);
            self.put_usage(tenant, usage)?;
            let record = UploadRecord { reserved_bytes: *bytes, ..known };
            self.store.put(Key::Upload(tenant.clone(), *upload), Record::Upload(record))?;
        }
        Ok(())
    }

    pub(crate) fn close_upload(&mut self, command: &CloseUpload) -> Decision<(), S::Error> {
        self.end_upload(&command.tenant, command.upload)?;
        Ok(())
    }

    /// The proposer has looked at the sessions earlier: one that was extended meanwhile stays.
    pub(crate) fn expire_uploads(&mut self, command: &ExpireUploads) -> Decision<(), S::Error> {
        for upload in &command.uploads {
            let known = self.upload(&command.tenant, *upload)?;
            if known.is_some_and(|known| known.expires_at <= self.now) {
                self.end_upload(&command.tenant, *upload)?;
            }
        }
        Ok(())
    }

    /// Bytes that are reserved for an upload.
    pub(crate) fn reserved_for(
        &self,
        tenant: &TenantName,
        upload: UploadId,
    ) -> Result<u64, S::Error> {
        Ok(self.upload(tenant, upload)?.map_or(0, |known| known.reserved_bytes))
    }

    /// An upload is over: its row goes, and with it its reservation.
    pub(crate) fn end_upload(
        &mut self,
        tenant: &TenantName,
        upload: UploadId,
    ) -> Result<(), S::Error> {
        let Some(known) = self.upload(tenant, upload)? else { return Ok(()) };
        let mut usage = self.usage(tenant)?;
        lower(&mut usage.reserved_bytes, known.reserved_bytes);
        lower(&mut usage.uploads, 1);
        self.put_usage(tenant, usage)?;
        self.store.delete(&Key::Upload(tenant.clone(), upload))
    }
}
