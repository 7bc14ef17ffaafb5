//! The journal: refusals that are noted, cursors that go on, old parts that are sealed and dropped.

use bytes::Bytes;
use nora_domain::{
    AdvanceCursor, ConsumerName, DropSegments, Entry, Key, NoteRefusals, Record, Refusal,
    RefusalNote, Rows, SealJournal, system_repository,
};

use crate::blobs::LinkedBlobs;
use crate::uploads::UploadSessions;
use crate::{Error, Registry};

impl Registry {
    /// Notes refusals that never became commands.
    pub async fn note_refusals(&self, refusals: Vec<RefusalNote>) -> Result<(), Error> {
        self.core.change(NoteRefusals { refusals }).await
    }

    /// Notes that a consumer has dealt with every entry up to this one.
    pub async fn advance_cursor(&self, consumer: ConsumerName, number: u64) -> Result<(), Error> {
        self.core.change(AdvanceCursor { consumer, number }).await
    }

    /// Moves the oldest entries out of the state into a blob, if the rows take more than `bytes_max` bytes; true if there
    /// is more to do. The leader does this: another node that does it at the same time is refused, and its blob goes.
    pub async fn seal_journal(&self, bytes_max: u64) -> Result<bool, Error> {
        let head = self.core.head().await?.journal;
        if head.bytes <= bytes_max {
            return Ok(false);
        }
        let entries = self.oldest_entries(head.first, head.bytes - bytes_max / 2).await?;
        if entries.is_empty() {
            return Ok(false);
        }
        if !self.seal(&entries).await? {
            return Ok(true);
        }
        // Sealing adds entries of its own: a bound that is smaller than those is never reached.
        let bytes = self.core.head().await?.journal.bytes;
        Ok(bytes > bytes_max && bytes < head.bytes)
    }

    /// Moves entries whose time is over out of the state into a blob, so that they can be [dropped](Self::drop_segments): in
    /// a quiet cluster their bytes alone would keep them for ever. Sealing adds entries of its own, so it waits until the
    /// oldest is an eighth over its time, and seals many at once. Done by the leader, as above.
    pub async fn seal_overdue(&self, kept_millis: u64) -> Result<(), Error> {
        let first = self.core.head().await?.journal.first;
        let clock = self.core.now();
        let is_older = |row: &(Key, Record), millis: u64| matches!(row, (_, Record::Journal(entry)) if entry.at.plus_millis(millis) < clock);
        let rows = Rows::Journal { after: first.saturating_sub(1) };
        let oldest = self.core.rows(rows.clone(), 1).await?;
        if !oldest.iter().any(|row| is_older(row, kept_millis.saturating_add(kept_millis / 8))) {
            return Ok(());
        }
        let limit = usize::try_from(SealJournal::ENTRIES_MAX).unwrap_or(usize::MAX);
        let rows = self.core.rows(rows, limit).await?.into_iter();
        let overdue = rows.take_while(|row| is_older(row, kept_millis));
        let entries: Vec<_> = overdue
            .filter_map(|row| match row {
                (Key::Journal(number), Record::Journal(entry)) => Some((number, entry)),
                _ => None,
            })
            .collect();
        self.seal(&entries).await.map(drop)
    }

    /// Moves these entries, the oldest, into a blob; false if somebody else has sealed them.
    async fn seal(&self, entries: &[(u64, Entry)]) -> Result<bool, Error> {
        let ([(first, _), ..], [.., (last, _)]) = (entries, entries) else { return Ok(false) };
        let (first, last) = (*first, *last);
        let (digest, bytes) = self.core.segments().encode(entries);
        let (size, repository) = (bytes.len() as u64, system_repository());
        UploadSessions::new(&self.core)
            .store_bytes(&repository, digest, Bytes::from(bytes))
            .await?;
        match self.core.propose(SealJournal { first, last, digest, size }).await? {
            Ok(()) => Ok(true),
            Err(Refusal::JournalMoved { .. }) => {
                // The same entries may be the same bytes: then the blob is needed, and stays.
                match LinkedBlobs::new(&self.core).unlink(repository, digest).await {
                    Ok(()) | Err(Error::BlobReferenced { .. } | Error::BlobUnknown(_)) => Ok(false),
                    Err(error) => Err(error),
                }
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The oldest entries that are rows, of about so many bytes together, and no more than one segment holds.
    async fn oldest_entries(&self, first: u64, bytes: u64) -> Result<Vec<(u64, Entry)>, Error> {
        let limit = usize::try_from(SealJournal::ENTRIES_MAX).unwrap_or(usize::MAX);
        let rows = Rows::Journal { after: first.saturating_sub(1) };
        let rows = self.core.rows(rows, limit).await?;
        let mut taken = 0;
        let mut entries = Vec::new();
        for row in rows {
            let (Key::Journal(number), Record::Journal(entry)) = row else { continue };
            if taken >= bytes {
                break;
            }
            taken += entry.weight();
            entries.push((number, entry));
        }
        Ok(entries)
    }

    /// Forgets sealed entries from before so long ago; true if there is more to do.
    pub async fn drop_segments(&self, older_than_millis: u64) -> Result<bool, Error> {
        // Nothing is proposed while nothing is old enough: most of the time there is nothing to do.
        let oldest = self.core.rows(Rows::Segments { after: 0 }, 1).await?;
        let clock = self.core.now();
        let is_old = oldest.into_iter().any(|(_, record)| {
            matches!(record, Record::Segment(segment)
                if segment.last_at.plus_millis(older_than_millis) < clock)
        });
        if !is_old {
            return Ok(false);
        }
        Ok(self.core.change(DropSegments { older_than_millis }).await?.more)
    }
}
