//! What is read ahead for a command is what the command reads.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::convert::Infallible;

use nora_domain::{Head, Key, MemoryStore, Record, Rows, Store, add_likely_reads, apply};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::universe::{ops, run};

/// A state that remembers which rows were asked for.
struct Watched {
    store: MemoryStore,
    read: RefCell<BTreeSet<Key>>,
}

impl Store for Watched {
    type Error = Infallible;

    fn get(&self, key: &Key) -> Result<Option<Record>, Infallible> {
        self.read.borrow_mut().insert(key.clone());
        self.store.get(key)
    }

    fn scan(&self, rows: &Rows, limit: usize) -> Result<Vec<(Key, Record)>, Infallible> {
        self.store.scan(rows, limit)
    }

    fn put(&mut self, key: Key, record: Record) -> Result<(), Infallible> {
        self.store.put(key, record)
    }

    fn delete(&mut self, key: &Key) -> Result<(), Infallible> {
        self.store.delete(key)
    }

    fn head(&self) -> &Head {
        self.store.head()
    }

    fn head_mut(&mut self) -> &mut Head {
        self.store.head_mut()
    }
}

#[test]
fn most_rows_that_accepted_commands_read_were_told_before() {
    let mut runner = TestRunner::deterministic();
    let (mut told_and_read, mut told_alone, mut read_alone) = (0, 0, 0);
    for _ in 0..200 {
        let mut store = MemoryStore::default();
        for (op, position) in ops().new_tree(&mut runner).unwrap().current().iter().zip(1..) {
            let command = op.command(&store, position);
            let mut likely = Vec::new();
            add_likely_reads(&command.action, &mut likely);
            let likely: BTreeSet<Key> = likely.into_iter().collect();
            let mut watched = Watched { store: store.clone(), read: RefCell::default() };
            let Ok(applied) = apply(&mut watched, position, &command);
            run(&mut store, position, &command);
            if applied.answer.is_err() || likely.is_empty() {
                continue;
            }
            // The cluster's own rows are read by every command, so they are always at hand.
            let tenants = |key: &&Key| key.tenant().is_some() || matches!(key, Key::Blob(_));
            let read = watched.read.into_inner();
            told_and_read += likely.intersection(&read).count();
            told_alone += likely.difference(&read).count();
            read_alone += read.difference(&likely).filter(tenants).count();
        }
    }
    let counted = format!("{told_and_read} right, {told_alone} not read, {read_alone} not told");
    assert!(told_and_read > 1_000, "{counted}");
    assert!(told_and_read > 5 * told_alone, "{counted}");
    assert!(told_and_read > 4 * read_alone, "{counted}");
}
