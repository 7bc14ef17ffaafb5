//! A running hash over everything that was written to the state.
//!
//! Equal logs must lead to equal states on every node. Each applied entry extends the hash by its log id and by the
//! bytes of the rows that it changed; at every [`MARK_ENTRIES`]th entry the hash takes in the state's head too, and is
//! kept for a while, as a mark. Two nodes that have different marks of one entry have different states, whatever else they agree on.
//!
//! Guarantees: the hash depends on the entries alone, and neither on how many were written at once nor on restarts; it
//! is written together with the rows. Must not know: who compares it.

use std::collections::BTreeMap;

use nora_domain::Head;

use super::LogId;
use super::overlay::Changes;
use crate::codec::{DecodeError, head, key, record};

/// A mark is kept of every so many entries.
pub const MARK_ENTRIES: u64 = 1024;
/// So many marks are kept.
pub const MARKS_MAX: usize = 8;

const HASH_BYTES: usize = 32;
const INDEX_BYTES: usize = 8;

/// The hash after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which entry.
    pub index: u64,
    /// The hash.
    pub hash: [u8; HASH_BYTES],
}

/// The hash, and marks of it.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    hash: [u8; HASH_BYTES],
    marks: Vec<Mark>,
    /// Whether a mark came that is not stored yet.
    marked: bool,
}

impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        (self.hash, &self.marks) == (other.hash, &other.marks)
    }
}

/// Encoded rows to write; `None` is one to delete.
pub type EncodedRows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl Chain {
    /// A chain that was stored; a state that has none yet begins one.
    pub fn decode(hash: Option<&[u8]>, marks: Option<&[u8]>) -> Result<Self, DecodeError> {
        let hash = match hash {
            Some(hash) => hash.try_into().map_err(|_| DecodeError::Length("chain.hash"))?,
            None => [0; HASH_BYTES],
        };
        let (marks, []) = marks.unwrap_or_default().as_chunks::<{ INDEX_BYTES + HASH_BYTES }>()
        else {
            return Err(DecodeError::Length("chain.marks"));
        };
        let marks = marks.iter().filter_map(decode_mark).collect();
        Ok(Self { hash, marks, marked: false })
    }

    /// The hash, to be stored.
    pub fn hash(&self) -> &[u8; HASH_BYTES] {
        &self.hash
    }

    /// The marks, the newest last.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The same, as it is once it is stored.
    pub fn stored(&self) -> Self {
        Self { marked: false, ..self.clone() }
    }

    /// Whether the marks are to be stored anew.
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// The marks, to be stored.
    pub fn encode_marks(&self) -> Vec<u8> {
        self.marks
            .iter()
            .flat_map(|mark| mark.index.to_be_bytes().into_iter().chain(mark.hash))
            .collect()
    }

    /// Goes on by an entry, which changed these rows and left this head; the rows' bytes are added to those that are to be
    /// written.
    pub fn extend(
        &mut self,
        at: &LogId,
        changes: &Changes,
        left: &Head,
        written: &mut EncodedRows,
    ) {
        let is_mark = at.index.is_multiple_of(MARK_ENTRIES);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hash);
        for number in [at.leader_id.term, at.leader_id.node_id, at.index] {
            hasher.update(&number.to_be_bytes());
        }
        for (row, change) in changes {
            let (row, record) = (key::encode(row), change.as_deref().map(record::encode));
            part(&mut hasher, &row);
            match &record {
                Some(record) => part(&mut hasher, record),
                None => drop(hasher.update(&[0xff; 8])),
            }
            written.insert(row, record);
        }
        // Nearly every entry changes the head a little: where marks are is often enough to see that it differs.
        if is_mark {
            part(&mut hasher, &head::encode(left));
        }
        self.hash = *hasher.finalize().as_bytes();
        if is_mark {
            self.marks.push(Mark { index: at.index, hash: self.hash });
            let over = self.marks.len().saturating_sub(MARKS_MAX);
            self.marks.drain(..over);
            self.marked = true;
        }
    }
}

fn part(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    // No row is as long as the number that stands for a deletion.
    hasher.update(&(bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

fn decode_mark(bytes: &[u8; INDEX_BYTES + HASH_BYTES]) -> Option<Mark> {
    let (index, hash) = bytes.split_first_chunk()?;
    Some(Mark { index: u64::from_be_bytes(*index), hash: hash.try_into().ok()? })
}

/// The newest entry of which both have a mark, if they differ there.
pub fn difference(here: &[Mark], there: &[Mark]) -> Option<u64> {
    let both = here.iter().filter_map(|mark| {
        let other = there.iter().find(|other| other.index == mark.index)?;
        Some((mark.index, mark.hash != other.hash))
    });
    both.max().and_then(|(index, differs)| differs.then_some(index))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nora_domain::{JoinTokenRecord, Key, Record, Timestamp, TokenId};
    use openraft::vote::RaftLeaderId;

    use super::*;
    use crate::raft::LeaderId;

    fn at(index: u64) -> LogId {
        LogId { leader_id: LeaderId::new(1, 1), index }
    }

    fn changes(number: u64) -> Changes {
        let token = |number: u64| Key::JoinToken(TokenId(number.into()));
        let record = JoinTokenRecord {
            secret_hash: [1; 32],
            expires_at: Timestamp(number),
            uses_left: 1,
            created_at: Timestamp(0),
        };
        let record = Arc::new(Record::JoinToken(record));
        Changes::from([(token(1), Some(record)), (token(number), None)])
    }

    fn extend(chain: &mut Chain, index: u64, changes: &Changes) {
        chain.extend(&at(index), changes, &Head::default(), &mut EncodedRows::new());
    }

    fn chain(entries: std::ops::Range<u64>) -> Chain {
        let mut chain = Chain::default();
        entries.for_each(|index| extend(&mut chain, index, &changes(index)));
        chain
    }

    #[test]
    fn a_chain_keeps_a_few_marks_and_is_what_was_stored() {
        let chain = chain(0..20_000);
        let indexes: Vec<_> = chain.marks().iter().map(|mark| mark.index).collect();
        assert_eq!(indexes, [12, 13, 14, 15, 16, 17, 18, 19].map(|mark| mark * MARK_ENTRIES));
        let stored = Chain::decode(Some(chain.hash()), Some(&chain.encode_marks())).unwrap();
        assert_eq!(stored, chain);
        assert_eq!(Chain::decode(None, None).unwrap(), Chain::default());
        assert!(Chain::decode(Some(&[0; 31]), None).is_err());
        assert!(Chain::decode(None, Some(&[0; 41])).is_err());
    }

    #[test]
    fn every_entry_and_every_changed_byte_counts() {
        let of = |index, changes: &Changes| {
            let mut chain = chain(0..3);
            extend(&mut chain, index, changes);
            *chain.hash()
        };
        let mut fewer = changes(7);
        fewer.pop_last();
        let all = [
            of(3, &changes(7)),
            of(4, &changes(7)),
            of(3, &changes(8)),
            of(3, &fewer),
            of(3, &Changes::new()),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn a_mark_takes_in_the_head() {
        let of = |index, head: &Head| {
            let mut chain = Chain::default();
            chain.extend(&at(index), &changes(7), head, &mut EncodedRows::new());
            *chain.hash()
        };
        let later = Head { clock: Timestamp(1), ..Head::default() };
        assert_ne!(of(MARK_ENTRIES, &Head::default()), of(MARK_ENTRIES, &later));
    }

    #[test]
    fn states_are_compared_where_both_have_a_mark() {
        let mark = |index, byte| Mark { index, hash: [byte; HASH_BYTES] };
        let here = [mark(1024, 1), mark(2048, 2), mark(3072, 3)];
        assert_eq!(difference(&here, &here), None);
        assert_eq!(difference(&here, &[]), None);
        assert_eq!(difference(&here, &[mark(2048, 2), mark(4096, 9)]), None);
        assert_eq!(difference(&here, &[mark(2048, 9)]), Some(2048));
        // A node that was given the leader's state since has its marks again.
        assert_eq!(difference(&here, &[mark(1024, 9), mark(3072, 3)]), None);
    }
}
