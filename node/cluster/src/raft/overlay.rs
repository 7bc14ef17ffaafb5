//! Entries being applied: what they changed, laid over the stored rows until all is written at once.
//!
//! Guarantee: a command sees what commands before it wrote, and a command whose transition fails half-way leaves
//! nothing behind.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use nora_domain::{Body, Head, Key, Record, Rows, Store};

use crate::rocks::locked;
use crate::rocks::state::{ReadError, StateDb, Tier};

/// A row's value; `None` is a row that is not there, or was deleted. Shared, because a record is large and moves often.
pub type Row = Option<Arc<Record>>;

/// Changed rows.
pub type Changes = BTreeMap<Key, Row>;

/// What earlier commands of the same write changed.
#[derive(Debug, Default)]
pub struct Overlay {
    changes: Changes,
    bytes: usize,
}

impl Overlay {
    /// Takes over what a command changed.
    pub fn merge(&mut self, changes: Changes) {
        for (key, row) in changes {
            self.bytes += weight(&row);
            self.changes.insert(key, row);
        }
    }

    /// Whether a row was changed.
    pub fn has(&self, key: &Key) -> bool {
        self.changes.contains_key(key)
    }

    /// The changed rows, given away.
    pub fn into_rows(self) -> Changes {
        self.changes
    }

    /// About how many bytes the changes take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Rows that were read or written lately. A push touches few rows again and again (its repository, its blobs, what its
/// tenant uses), and finding them here spares a search in the overlay and in RocksDB.
///
/// Invariant: what is here is what is stored, or what the write under way will store. So only the one who writes the state
/// may have it, and [notes](Self::note) every change before the next command is applied. If that write fails, nothing is
/// applied any more.
#[derive(Debug, Default)]
pub struct Recent(Mutex<RecentRows>);

/// Found by hash: keys of one tenant begin alike, so a search in their order compares many long texts.
#[derive(Debug, Default)]
struct RecentRows {
    rows: HashMap<Key, Row>,
    bytes: usize,
}

impl Recent {
    /// When they take more memory than this, in bytes, all are forgotten; those in use are back at once.
    const BYTES_MAX: usize = 1 << 20;

    /// Notes rows as they are from now on.
    pub fn note<'a>(&self, rows: impl IntoIterator<Item = (&'a Key, &'a Row)>) {
        let mut recent = locked(&self.0);
        for (key, row) in rows {
            // Entries of the journal are many and large, and no command reads one by its number.
            if matches!(key, Key::Journal(_)) {
                continue;
            }
            if recent.bytes > Self::BYTES_MAX {
                *recent = RecentRows::default();
            }
            recent.bytes += weight(row);
            recent.rows.insert(key.clone(), row.clone());
        }
    }

    /// Whether a row is known.
    pub fn has(&self, key: &Key) -> bool {
        locked(&self.0).rows.contains_key(key)
    }

    fn get(&self, key: &Key) -> Option<Row> {
        locked(&self.0).rows.get(key).cloned()
    }
}

/// A row's memory, roughly: what matters is that inline bodies and long lists count.
fn weight(row: &Row) -> usize {
    const ROW: usize = 256;
    match row.as_deref() {
        Some(Record::Artifact(artifact)) => {
            let body = match &artifact.body {
                Body::Inline(bytes) => bytes.len(),
                Body::Blob => artifact.annotations.len(),
            };
            ROW + body + 65 * (artifact.blobs.len() + artifact.children.len())
        }
        _ => ROW,
    }
}

/// One command's view: stored rows, under the overlay, under its own changes; and the head, which a command changes last.
pub struct Transaction<'a> {
    db: &'a StateDb,
    recent: &'a Recent,
    overlay: &'a Overlay,
    head: &'a mut Head,
    changes: Changes,
    tier: Tier,
}

impl<'a> Transaction<'a> {
    /// A view that reads as far as `tier` allows.
    pub fn new(
        db: &'a StateDb,
        recent: &'a Recent,
        overlay: &'a Overlay,
        head: &'a mut Head,
        tier: Tier,
    ) -> Self {
        Self { db, recent, overlay, head, changes: Changes::new(), tier }
    }

    /// What the command changed.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    /// Changes within a run, the command's own before the overlay's.
    fn changes_in(&self, rows: &Rows) -> BTreeMap<&Key, &Row> {
        let from = (rows.start(), Bound::Unbounded);
        let within = |(key, _): &(&Key, &Row)| rows.contains(key);
        let mut changes: BTreeMap<_, _> =
            self.overlay.changes.range(from.clone()).take_while(within).collect();
        changes.extend(self.changes.range(from).take_while(within));
        changes
    }
}

impl Store for Transaction<'_> {
    type Error = ReadError;

    fn get(&self, key: &Key) -> Result<Option<Record>, ReadError> {
        let known = self.changes.get(key).cloned().or_else(|| self.recent.get(key));
        if let Some(row) = known.or_else(|| self.overlay.changes.get(key).cloned()) {
            return Ok(row.map(Arc::unwrap_or_clone));
        }
        let row = self.db.get(key, self.tier)?.map(Arc::new);
        self.recent.note([(key, &row)]);
        Ok(row.map(Arc::unwrap_or_clone))
    }

    fn scan(&self, rows: &Rows, limit: usize) -> Result<Vec<(Key, Record)>, ReadError> {
        let mut changed = self.changes_in(rows).into_iter().peekable();
        let mut stored = self.db.run(rows, self.tier).peekable();
        let mut found = Vec::new();
        while found.len() < limit {
            // An error ends the run; it is handed on as soon as it comes up.
            if let Some(Err(_)) = stored.peek() {
                if let Some(Err(error)) = stored.next() {
                    return Err(error);
                }
                break;
            }
            let stored_key = match stored.peek() {
                Some(Ok((key, _))) => Some(key),
                _ => None,
            };
            let change_first = match (changed.peek(), stored_key) {
                (Some((changed, _)), Some(stored)) => *changed <= stored,
                (change, _) => change.is_some(),
            };
            if change_first {
                let Some((key, record)) = changed.next() else {
                    break;
                };
                if stored_key == Some(key) {
                    stored.next();
                }
                if let Some(record) = record {
                    found.push((key.clone(), record.as_ref().clone()));
                }
            } else {
                let Some(row) = stored.next() else { break };
                found.push(row?);
            }
        }
        Ok(found)
    }

    fn put(&mut self, key: Key, record: Record) -> Result<(), ReadError> {
        self.changes.insert(key, Some(Arc::new(record)));
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<(), ReadError> {
        self.changes.insert(key.clone(), None);
        Ok(())
    }

    fn head(&self) -> &Head {
        self.head
    }

    fn head_mut(&mut self) -> &mut Head {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use nora_domain::{CursorRecord, Timestamp};

    use super::*;

    #[test]
    fn recent_rows_are_what_was_noted_last_and_never_too_many() {
        let recent = Recent::default();
        let key = Key::Segment;
        let row = |number| {
            let cursor = CursorRecord { number, noted_at: Timestamp(0) };
            Some(Arc::new(Record::Cursor(cursor)))
        };
        let note = |key: Key, row: Row| recent.note([(&key, &row)]);
        assert_eq!(recent.get(&key(1)), None);
        note(key(1), row(1));
        note(key(2), None);
        assert_eq!(recent.get(&key(1)), Some(row(1)));
        assert_eq!(recent.get(&key(2)), Some(None), "that a row is not there is known too");
        note(key(1), None);
        note(key(2), row(2));
        assert_eq!(recent.get(&key(1)), Some(None));
        assert_eq!(recent.get(&key(2)), Some(row(2)));

        for number in 0..100_000 {
            note(key(number), row(number));
            let held = locked(&recent.0).rows.len();
            assert!(held <= Recent::BYTES_MAX / 256 + 1, "{held} rows");
        }
        assert_eq!(recent.get(&key(3)), None);
    }
}
