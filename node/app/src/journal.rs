//! The journal: noting refusals, following it, sealing and dropping its old parts, reading and verifying it.
//!
//! The newest entries are rows of the state. Older ones are sealed: they are in blobs, with a row for each. Readers see both
//! alike.
//!
//! Guarantee: entries that are sealed or dropped while they are read are neither missed nor taken for damage.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use nora_domain::{
    AdvanceCursor, ConsumerName, CursorRecord, DropSegments, Entry, JournalHead, Key, NoteRefusals,
    Record, Refusal, RefusalNote, Rows, SealJournal, SegmentRecord, Timestamp, system_repository,
};

use crate::blobs::LinkedBlobs;
use crate::core::{Core, record};
use crate::ports::blobs::Delivery;
use crate::uploads::UploadSessions;
use crate::{Error, Page};

/// Sealed parts whose rows are read at a time.
const SEGMENTS_PAGE: usize = 64;

/// Entries that are verified at a time.
const VERIFIED_PAGE: usize = 1_000;

/// What a recomputation of the chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalCheck {
    /// Number of the first entry that is kept.
    pub first: u64,
    /// Number of the last entry that was read.
    pub last: u64,
    /// Number of the first entry that does not follow from those before it.
    pub broken: Option<u64>,
}

/// The journal.
#[derive(Clone, Copy)]
pub struct Journal<'a> {
    core: &'a Core,
}

/// Changes.
impl<'a> Journal<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// Notes refusals that never became commands.
    pub async fn note_refusals(self, refusals: Vec<RefusalNote>) -> Result<(), Error> {
        self.core.change(NoteRefusals { refusals }).await
    }

    /// Notes that a consumer has dealt with every entry up to this one.
    pub async fn advance(self, consumer: ConsumerName, number: u64) -> Result<(), Error> {
        self.core.change(AdvanceCursor { consumer, number }).await
    }

    /// Moves the oldest entries out of the state into a blob, if the rows take more than `bytes_max` bytes; true if there
    /// is more to do. The leader does this: another node that does it at the same time is refused, and its blob goes.
    pub async fn seal(self, bytes_max: u64) -> Result<bool, Error> {
        let head = self.core.head().await?.journal;
        if head.bytes <= bytes_max {
            return Ok(false);
        }
        let entries = self.oldest_entries(head.first, head.bytes - bytes_max / 2).await?;
        if entries.is_empty() {
            return Ok(false);
        }
        if !self.seal_entries(&entries).await? {
            return Ok(true);
        }
        // Sealing adds entries of its own: a bound that is smaller than those is never reached.
        let bytes = self.core.head().await?.journal.bytes;
        Ok(bytes > bytes_max && bytes < head.bytes)
    }

    /// Moves entries whose time is over out of the state into a blob, so that they can be [dropped](Self::drop_segments): in
    /// a quiet cluster their bytes alone would keep them for ever. Sealing adds entries of its own, so it waits until the
    /// oldest is an eighth over its time, and seals many at once. Done by the leader, as above.
    pub async fn seal_overdue(self, kept_millis: u64) -> Result<(), Error> {
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
        self.seal_entries(&entries).await.map(drop)
    }

    /// Moves these entries, the oldest, into a blob; false if somebody else has sealed them.
    async fn seal_entries(self, entries: &[(u64, Entry)]) -> Result<bool, Error> {
        let ([(first, _), ..], [.., (last, _)]) = (entries, entries) else { return Ok(false) };
        let (first, last) = (*first, *last);
        let (digest, bytes) = self.core.segments().encode(entries);
        let (size, repository) = (bytes.len() as u64, system_repository());
        UploadSessions::new(self.core).store_bytes(&repository, digest, Bytes::from(bytes)).await?;
        match self.core.propose(SealJournal { first, last, digest, size }).await? {
            Ok(()) => Ok(true),
            Err(Refusal::JournalMoved { .. }) => {
                // The same entries may be the same bytes: then the blob is needed, and stays.
                match LinkedBlobs::new(self.core).unlink(repository, digest).await {
                    Ok(()) | Err(Error::BlobReferenced { .. } | Error::BlobUnknown(_)) => Ok(false),
                    Err(error) => Err(error),
                }
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The oldest entries that are rows, of about so many bytes together, and no more than one segment holds.
    async fn oldest_entries(self, first: u64, bytes: u64) -> Result<Vec<(u64, Entry)>, Error> {
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
    pub async fn drop_segments(self, older_than_millis: u64) -> Result<bool, Error> {
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

/// Reads.
impl Journal<'_> {
    /// Where the journal begins and ends, as this node has applied it.
    pub async fn head(self) -> Result<JournalHead, Error> {
        Ok(self.core.head().await?.journal)
    }

    /// How far a consumer has read; nothing, if it is not known.
    pub async fn cursor(self, consumer: ConsumerName) -> Result<CursorRecord, Error> {
        self.core.catch_up().await?;
        Ok(record!(Cursor, self.core.row(Key::Cursor(consumer)).await?).unwrap_or_default())
    }

    /// Entries of the journal after number `after`, as this node has applied them. Entries that are not kept any more are
    /// left out: the first number then tells how many are missing.
    pub async fn entries(self, after: u64, limit: usize) -> Result<Page<(u64, Entry)>, Error> {
        let page = self.kept_entries(after, limit).await?;
        if page.items.is_empty() && page.more {
            // A reader would ask for the same page for ever.
            let what = "a sealed part of the journal does not hold all of its entries";
            return Err(Error::Internal { what, source: None });
        }
        Ok(page)
    }

    /// Entries after number `after`. A page that is empty though there is more means a damaged segment.
    async fn kept_entries(self, after: u64, limit: usize) -> Result<Page<(u64, Entry)>, Error> {
        let next = after.saturating_add(1);
        if next < self.head().await?.first
            && let Some(page) = self.sealed_entries(after, limit).await?
        {
            return Ok(page);
        }
        let rows = self.core.rows(Rows::Journal { after }, limit + 1).await?;
        let entries = rows.into_iter().filter_map(|row| match row {
            (Key::Journal(number), Record::Journal(record)) => Some((number, record)),
            _ => None,
        });
        let page = Page::cut(entries.collect(), limit);
        // Rows that begin later were sealed before they were read. They are in a segment, or were dropped.
        if page.items.first().is_some_and(|(number, _)| *number > next)
            && let Some(sealed) = self.sealed_entries(after, limit).await?
        {
            return Ok(sealed);
        }
        Ok(page)
    }

    /// Entries after number `after` of the sealed part that holds the first of them; `None` if no part does.
    async fn sealed_entries(
        self,
        after: u64,
        limit: usize,
    ) -> Result<Option<Page<(u64, Entry)>>, Error> {
        // A part that is dropped while it is read is passed over: each turn meets another part.
        while let Some((first, segment)) = self.segment_after(after).await? {
            let Some(entries) = self.read_segment(first, &segment).await? else { continue };
            let from = entries.partition_point(|(number, _)| *number <= after);
            let items = entries[from..].iter().take(limit).cloned().collect::<Vec<_>>();
            // Rows follow each segment, so there always is more.
            return Ok(Some(Page { items, more: true }));
        }
        Ok(None)
    }

    /// The first sealed part that holds an entry after this number.
    async fn segment_after(self, after: u64) -> Result<Option<(u64, SegmentRecord)>, Error> {
        // No part holds more entries than that, so the one that holds the next entry begins later than here.
        let mut from = after.saturating_sub(SealJournal::ENTRIES_MAX);
        loop {
            let rows = self.core.rows(Rows::Segments { after: from }, SEGMENTS_PAGE).await?;
            let is_last = rows.len() < SEGMENTS_PAGE;
            for row in rows {
                if let (Key::Segment(first), Record::Segment(segment)) = row {
                    if segment.last > after {
                        return Ok(Some((first, segment)));
                    }
                    from = first;
                }
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// The entries of a sealed part; `None` if the part was dropped while this read it.
    async fn read_segment(
        self,
        first: u64,
        segment: &SegmentRecord,
    ) -> Result<Option<Arc<Vec<(u64, Entry)>>>, Error> {
        match self.read_kept_segment(first, segment).await {
            Ok(entries) => Ok(Some(entries)),
            Err(_) if self.core.row(Key::Segment(first)).await?.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entries of a sealed part that is kept. The part that was read last stays in memory, because readers go on from
    /// page to page.
    async fn read_kept_segment(
        self,
        first: u64,
        segment: &SegmentRecord,
    ) -> Result<Arc<Vec<(u64, Entry)>>, Error> {
        let kept = self.core.last_segment().lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((of, entries)) = kept
            && of == first
        {
            return Ok(entries);
        }
        let unreadable = |source| Error::Internal {
            what: "a sealed part of the journal could not be read",
            source,
        };
        let opened = LinkedBlobs::new(self.core).open(&system_repository(), segment.digest).await;
        let blob = opened.map_err(|error| match error {
            Error::RepositoryUnknown | Error::BlobUnknown(_) => unreadable(Some(error.into())),
            error => error,
        })?;
        let stream = blob.clone().read(0..blob.size(), Delivery::Process);
        let bytes = stream
            .try_fold(Vec::new(), async |mut all, part| {
                all.extend_from_slice(&part);
                Ok(all)
            })
            .await
            .map_err(|source| unreadable(Some(source)))?;
        let entries =
            self.core.segments().decode(&bytes).map_err(|source| unreadable(Some(source)))?;
        let entries = Arc::new(entries);
        let read = Some((first, entries.clone()));
        *self.core.last_segment().lock().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(entries)
    }

    /// Number of the last entry from before a time; entries are in the order of their times.
    pub async fn before(self, time: Timestamp) -> Result<u64, Error> {
        let mut before = 0;
        let mut after = 0;
        'sealed: loop {
            // Read first: entries that are sealed from here on are found among the sealed parts.
            let head = self.head().await?;
            // Sealed parts first, a row each.
            loop {
                let rows = self.core.rows(Rows::Segments { after }, SEGMENTS_PAGE).await?;
                let is_last = rows.len() < SEGMENTS_PAGE;
                for row in rows {
                    let (Key::Segment(first), Record::Segment(segment)) = row else { continue };
                    if segment.last_at >= time {
                        let Some(entries) = self.read_segment(first, &segment).await? else {
                            continue 'sealed;
                        };
                        let older = entries.partition_point(|(_, entry)| entry.at < time) as u64;
                        return Ok(first.saturating_add(older).saturating_sub(1));
                    }
                    (after, before) = (first, segment.last);
                }
                if is_last {
                    break;
                }
            }
            let (mut low, mut high) = (head.first.max(before + 1), head.next);
            while low < high {
                let middle = low + (high - low) / 2;
                match self.core.row(Key::Journal(middle)).await? {
                    Some(Record::Journal(entry)) if entry.at < time => low = middle + 1,
                    Some(_) => high = middle,
                    // The entry was sealed since the head was read: it is in a part that was not read yet.
                    None => continue 'sealed,
                }
            }
            return Ok(low.saturating_sub(1));
        }
    }

    /// Number of the first entry that is kept, sealed or not, and the chain's value before it.
    async fn first_kept(self) -> Result<(u64, [u8; 32]), Error> {
        // Read first: should its rows be sealed by the second read, the sealed part begins with the same entry.
        let head = self.head().await?;
        let segments = self.core.rows(Rows::Segments { after: 0 }, 1).await?;
        Ok(match segments.into_iter().next() {
            Some((Key::Segment(first), Record::Segment(segment))) => (first, segment.anchor),
            _ => (head.first, head.anchor),
        })
    }

    /// Recomputes the chain over all entries that are kept, sealed or not.
    pub async fn verify(self) -> Result<JournalCheck, Error> {
        self.core.catch_up().await?;
        let (first, mut chain) = self.first_kept().await?;
        let head = self.head().await?;
        let mut next = first;
        loop {
            let page = self.kept_entries(next.saturating_sub(1), VERIFIED_PAGE).await?;
            if page.items.is_empty() && page.more {
                return Ok(JournalCheck { first, last: next - 1, broken: Some(next) });
            }
            for (number, entry) in &page.items {
                if *number != next || entry.chained(&chain, *number) != entry.chain {
                    // Parts that were dropped while this reads break nothing.
                    if self.first_kept().await?.0 > first {
                        return Box::pin(self.verify()).await;
                    }
                    return Ok(JournalCheck { first, last: *number, broken: Some(next) });
                }
                (next, chain) = (number + 1, entry.chain);
            }
            if !page.more {
                // Entries that came since the head was read only go on.
                let is_whole = next > head.next || (next == head.next && chain == head.head);
                let broken = (!is_whole).then_some(next);
                return Ok(JournalCheck { first, last: next.saturating_sub(1), broken });
            }
        }
    }
}
