//! The last entries of the log, in memory.
//!
//! Whoever appends has the entries at hand, and replication and apply want them a moment later: read from here, they share
//! the bytes that came, and nobody decodes them again. Guarantees: what is given is what the log holds at that moment; the
//! entries take at most [`BYTES_MAX`], or are one. Must not know: what is durable. Entries are appended here once the log
//! has them, and removed before it loses them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use super::Entry;

/// What the entries take at most: about what one read for replication takes.
const BYTES_MAX: usize = 1 << 20;

/// What an entry takes besides its command, roughly.
const ENTRY_BYTES: usize = 128;

/// The last entries; no two have the same index, and none is missing between two of them.
#[derive(Default)]
pub struct Tail {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Tail {
    /// Takes over an entry that the log has now.
    pub fn push(&self, entry: Entry) {
        let mut kept = self.kept();
        if kept.entries.back().is_some_and(|last| last.index() + 1 != entry.index()) {
            kept.clear();
        }
        kept.bytes += bytes(&entry);
        kept.entries.push_back(entry);
        while kept.bytes > BYTES_MAX && kept.entries.len() > 1 {
            kept.pop_front();
        }
    }

    /// Forgets entries from `first` on.
    pub fn truncate(&self, first: u64) {
        let mut kept = self.kept();
        while kept.entries.back().is_some_and(|last| last.index() >= first) {
            kept.entries.pop_back();
        }
        kept.bytes = kept.entries.iter().map(bytes).sum();
    }

    /// Forgets entries up to `last`.
    pub fn purge(&self, last: u64) {
        let mut kept = self.kept();
        while kept.entries.front().is_some_and(|first| first.index() <= last) {
            kept.pop_front();
        }
    }

    /// The entries from `start` up to `end` (exclusive), as many as fit into `bytes_max`, but one at least; none unless all from
    /// `start` on are kept.
    pub fn read(&self, start: u64, end: Option<u64>, bytes_max: usize) -> Option<Vec<Entry>> {
        let kept = self.kept();
        let first = kept.entries.front()?.index();
        let skipped = usize::try_from(start.checked_sub(first)?).ok()?;
        if skipped >= kept.entries.len() {
            return None;
        }
        let mut found = Vec::new();
        let mut sum = 0;
        for entry in kept.entries.range(skipped..) {
            sum += bytes(entry);
            let is_past = end.is_some_and(|end| entry.index() >= end);
            if is_past || (sum > bytes_max && !found.is_empty()) {
                break;
            }
            found.push(entry.clone());
        }
        Some(found)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn pop_front(&mut self) {
        if let Some(first) = self.entries.pop_front() {
            self.bytes -= bytes(&first);
        }
    }
}

fn bytes(entry: &Entry) -> usize {
    let command = match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.command.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    command + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nora_domain::Timestamp;
    use openraft::vote::RaftLeaderId;

    use super::*;
    use crate::raft::{LeaderId, LogId, Proposal};

    fn entry(index: u64, command: usize) -> Entry {
        let log_id = LogId { leader_id: LeaderId::new(1, 1), index };
        let proposal = Proposal { at: Timestamp(index), command: Bytes::from(vec![0; command]) };
        Entry { log_id, payload: EntryPayload::Normal(proposal) }
    }

    fn tail(indexes: std::ops::Range<u64>, command: usize) -> Tail {
        let tail = Tail::default();
        indexes.for_each(|index| tail.push(entry(index, command)));
        tail
    }

    fn read(tail: &Tail, start: u64, end: Option<u64>, bytes_max: usize) -> Option<Vec<u64>> {
        Some(tail.read(start, end, bytes_max)?.iter().map(RaftEntry::index).collect())
    }

    #[test]
    fn what_is_kept_is_read_from_anywhere_up_to_anywhere() {
        let tail = tail(5..9, 10);
        assert_eq!(read(&tail, 5, None, usize::MAX), Some(vec![5, 6, 7, 8]));
        assert_eq!(read(&tail, 6, Some(8), usize::MAX), Some(vec![6, 7]));
        assert_eq!(read(&tail, 6, Some(6), usize::MAX), Some(vec![]));
        assert_eq!(read(&tail, 6, None, 2 * (ENTRY_BYTES + 10)), Some(vec![6, 7]));
        assert_eq!(read(&tail, 6, None, 0), Some(vec![6]), "one at least");
        assert_eq!(read(&tail, 4, None, usize::MAX), None, "4 is not kept");
        assert_eq!(read(&tail, 9, None, usize::MAX), None, "only the log knows what follows");
        assert_eq!(read(&Tail::default(), 0, None, usize::MAX), None);
    }

    #[test]
    fn what_the_log_loses_is_forgotten() {
        let kept = tail(5..9, 10);
        kept.truncate(7);
        assert_eq!(read(&kept, 5, None, usize::MAX), Some(vec![5, 6]));
        kept.push(entry(7, 20));
        kept.purge(5);
        assert_eq!(read(&kept, 5, None, usize::MAX), None);
        assert_eq!(read(&kept, 6, None, usize::MAX), Some(vec![6, 7]));
        kept.truncate(0);
        assert_eq!(kept.kept().bytes, 0);
        let kept = tail(5..9, 10);
        kept.purge(u64::MAX);
        assert_eq!(kept.kept().bytes, 0);
    }

    #[test]
    fn a_gap_forgets_what_was_before_it() {
        let tail = tail(5..9, 10);
        tail.push(entry(12, 10));
        assert_eq!(read(&tail, 8, None, usize::MAX), None);
        assert_eq!(read(&tail, 12, None, usize::MAX), Some(vec![12]));
    }

    #[test]
    fn no_more_is_kept_than_its_bytes_or_one_entry() {
        let tail = tail(0..100, 64 << 10);
        assert!(tail.kept().bytes <= BYTES_MAX);
        assert_eq!(read(&tail, 99, None, usize::MAX), Some(vec![99]));
        assert_eq!(read(&tail, 80, None, usize::MAX), None);
        tail.push(entry(100, 2 * BYTES_MAX));
        assert_eq!(read(&tail, 99, None, usize::MAX), None);
        assert_eq!(read(&tail, 100, None, usize::MAX), Some(vec![100]));
    }
}
