//! Appending to the journal, sealing its oldest part, forgetting sealed parts.
//!
//! Guarantees: a change and its entry are one step; entries are numbered without gaps; an entry leaves the state only for
//! a segment whose blob is live and held, or because that segment was dropped by age.

use super::{
    AdvanceCursor, CursorRecord, DropSegments, Entry, Event, NoteRefusals, RemoveCursor,
    SealJournal, SegmentRecord, SegmentsDropped, Verdict, system_repository,
};
use crate::blob::Holder;
use crate::command::{Action, Refusal};
use crate::state::{Key, Record, Rows, Store};
use crate::transition::{Decision, Step, refuse};

/// Entries that are read at a time while they are sealed: thousands at once would take many megabytes on every node.
const SEALED_PAGE: usize = 256;

/// Segments that one step forgets.
const SEGMENTS_DROPPED_MAX: usize = 16;

impl<S: Store> Step<'_, S> {
    /// Notes that something changed.
    pub(crate) fn happened(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Appends what a command changed, or that it was refused to a caller; false if there is nothing to note.
    pub(crate) fn note(
        &mut self,
        action: &Action,
        refused: Option<&Refusal>,
    ) -> Result<bool, S::Error> {
        let by = self.terms.by.clone();
        let deed = by.as_ref().and_then(|_| action.deed());
        let verdict = match refused {
            None => Verdict::Done,
            // The proposer asks again under the policy that is in force now: its last answer counts.
            Some(Refusal::PolicyChanged { .. } | Refusal::RepositoryChanged) => return Ok(false),
            Some(refusal) => Verdict::Refused(refusal.reason()),
        };
        if deed.is_none() && self.events.is_empty() {
            return Ok(false);
        }
        let entry = Entry {
            position: self.position,
            at: self.now,
            by,
            deed,
            verdict,
            count: 1,
            events: self.events.clone(),
            chain: [0; 32],
        };
        self.append_entry(entry)?;
        Ok(true)
    }

    fn append_entry(&mut self, mut entry: Entry) -> Result<(), S::Error> {
        let number = self.journal.next;
        entry.chain = entry.chained(&self.journal.head, number);
        self.journal.head = entry.chain;
        self.journal.next = number.saturating_add(1);
        self.journal.bytes = self.journal.bytes.saturating_add(entry.weight());
        self.store.put(Key::Journal(number), Record::Journal(entry))
    }

    pub(crate) fn note_refusals(&mut self, command: &NoteRefusals) -> Decision<(), S::Error> {
        for note in &command.refusals {
            self.append_entry(Entry {
                position: self.position,
                at: self.now,
                by: Some(note.actor.clone()),
                deed: Some(note.deed.clone()),
                verdict: note.verdict.clone(),
                count: note.count,
                events: Vec::new(),
                chain: [0; 32],
            })?;
        }
        Ok(())
    }

    /// Of two nodes that believe they are the consumer, the one that is ahead counts.
    pub(crate) fn advance_cursor(&mut self, command: &AdvanceCursor) -> Decision<(), S::Error> {
        let key = Key::Cursor(command.consumer.clone());
        let known = read!(self.store, Cursor, key).map_or(0, |known| known.number);
        let number = command.number.min(self.journal.next.saturating_sub(1));
        if number > known {
            let record = CursorRecord { number, noted_at: self.now };
            self.store.put(key, Record::Cursor(record))?;
        }
        Ok(())
    }

    pub(crate) fn remove_cursor(&mut self, command: &RemoveCursor) -> Decision<(), S::Error> {
        self.store.delete(&Key::Cursor(command.consumer.clone()))?;
        Ok(())
    }

    pub(crate) fn seal_journal(&mut self, command: &SealJournal) -> Decision<(), S::Error> {
        let SealJournal { first, last, digest, size } = *command;
        let is_in_bounds = first == self.journal.first
            && first <= last
            && last < self.journal.next
            && last - first < SealJournal::ENTRIES_MAX;
        if !is_in_bounds {
            return refuse(Refusal::JournalMoved { first: self.journal.first });
        }
        let repository = system_repository();
        let blob = self.visible_blob(&repository, digest)?;
        if blob.size != size {
            return refuse(Refusal::SizeConflict { digest, live: blob.size });
        }
        let anchor = self.journal.anchor;
        let (mut head, mut last_at) = (anchor, self.now);
        let mut after = first - 1;
        while after < last {
            let limit = usize::try_from(last - after).unwrap_or(usize::MAX).min(SEALED_PAGE);
            let rows = self.store.scan(&Rows::Journal { after }, limit)?;
            after = after.saturating_add(limit as u64);
            for (key, record) in rows {
                let Record::Journal(entry) = record else { continue };
                self.store.delete(&key)?;
                self.journal.bytes = self.journal.bytes.saturating_sub(entry.weight());
                (head, last_at) = (entry.chain, entry.at);
            }
        }
        (self.journal.first, self.journal.anchor) = (last + 1, head);
        let segment = SegmentRecord { last, anchor, head, last_at, digest, size };
        self.store.put(Key::Segment(first), Record::Segment(segment))?;
        self.add_reference(&repository, digest, Holder::Segment(first))?;
        self.happened(Event::JournalSealed { first, last });
        Ok(())
    }

    pub(crate) fn drop_segments(
        &mut self,
        command: &DropSegments,
    ) -> Decision<SegmentsDropped, S::Error> {
        let before = self.now.0.saturating_sub(command.older_than_millis);
        let repository = system_repository();
        let mut dropped = 0;
        let mut first_kept = 0;
        for (key, record) in self.store.scan(&Rows::Segments { after: 0 }, SEGMENTS_DROPPED_MAX)? {
            let (Key::Segment(first), Record::Segment(segment)) = (&key, record) else { continue };
            if segment.last_at.0 >= before {
                break;
            }
            self.store.delete(&key)?;
            self.drop_reference(&repository, segment.digest, Holder::Segment(*first))?;
            if self.needed_by(&repository, segment.digest)?.is_none()
                && let Some(link) = self.link(&repository, segment.digest)?
            {
                let mut ledger = self.ledger(&repository)?;
                self.hide(&mut ledger, segment.digest, link.size)?;
                self.settle(ledger)?;
            }
            first_kept = segment.last + 1;
            dropped += 1;
        }
        if dropped > 0 {
            self.happened(Event::JournalDropped { first: first_kept });
        }
        let more = dropped as usize == SEGMENTS_DROPPED_MAX;
        Ok(SegmentsDropped { dropped, more })
    }
}
