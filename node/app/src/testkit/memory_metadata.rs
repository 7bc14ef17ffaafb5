//! The replicated state in memory: one log, and one node of it that can lag behind.

use std::sync::{Mutex, MutexGuard};

use nora_domain::{
    Command, Head, Key, MemoryStore, Outcome, Record, Refusal, Rows, Store, apply,
    recount::Finding, recount::recount,
};

use crate::ports::BoxFuture;
use crate::ports::metadata::{Metadata, MetadataError};

/// How a proposal fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no leader; nothing happens.
    NoLeader,
    /// Too much is waiting; nothing happens.
    Busy,
    /// No answer comes, and the log never takes the command.
    Lost,
    /// No answer comes, but the log takes the command.
    AnswerLost,
}

/// What was asked of the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Proposals, failed ones too.
    pub proposals: usize,
    /// Times that reads were brought up to date.
    pub linearizations: usize,
    /// Rows and runs of rows read.
    pub reads: usize,
}

/// The replicated state in memory.
#[derive(Default)]
pub struct MemoryMetadata {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the log says.
    log: MemoryStore,
    /// What this node shows, while that is older than the log.
    shown: Option<MemoryStore>,
    position: u64,
    failure: Option<Failure>,
    outage: Option<Failure>,
    counts: Counts,
}

impl State {
    fn apply(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        self.position += 1;
        let Ok(applied) = apply(&mut self.log, self.position, command);
        applied.answer
    }

    fn read(&mut self) -> &MemoryStore {
        self.counts.reads += 1;
        self.shown.as_ref().unwrap_or(&self.log)
    }
}

impl MemoryMetadata {
    /// The next proposal fails in this way.
    pub fn fail_next(&self, failure: Failure) {
        self.lock().failure = Some(failure);
    }

    /// Every proposal fails in this way, until there is no failure any more.
    pub fn fail(&self, outage: Option<Failure>) {
        self.lock().outage = outage;
    }

    /// Another node proposes: the log takes the command, and this node does not show it before it catches up.
    pub fn propose_elsewhere(&self, command: &Command) -> Result<Outcome, Refusal> {
        let mut state = self.lock();
        if state.shown.is_none() {
            state.shown = Some(state.log.clone());
        }
        state.apply(command)
    }

    /// What was asked of the port so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// The row at `key`, as the log says; not counted.
    pub fn row(&self, key: &Key) -> Option<Record> {
        let Ok(row) = self.lock().log.get(key);
        row
    }

    /// The key of every row, in order, as the log says; not counted.
    pub fn keys(&self) -> Vec<Key> {
        self.lock().log.rows().map(|(key, _)| key.clone()).collect()
    }

    /// What contradicts itself in the state.
    pub fn audit(&self) -> Vec<Finding> {
        recount(&self.lock().log)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Metadata for MemoryMetadata {
    fn propose(
        &self,
        command: Command,
    ) -> BoxFuture<'_, Result<Result<Outcome, Refusal>, MetadataError>> {
        Box::pin(async move {
            let mut state = self.lock();
            state.counts.proposals += 1;
            match state.failure.take().or(state.outage) {
                Some(Failure::NoLeader) => return Err(MetadataError::NoLeader),
                Some(Failure::Busy) => return Err(MetadataError::Busy),
                Some(Failure::Lost) => return Err(MetadataError::OutcomeUnknown),
                Some(Failure::AnswerLost) => {
                    let _ = state.apply(&command);
                    return Err(MetadataError::OutcomeUnknown);
                }
                None => {}
            }
            // An answer means that this node has applied the command, and so everything before it.
            state.shown = None;
            Ok(state.apply(&command))
        })
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), MetadataError>> {
        Box::pin(async move {
            let mut state = self.lock();
            state.counts.linearizations += 1;
            state.shown = None;
            Ok(())
        })
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, MetadataError>> {
        Box::pin(async move { Ok(self.lock().read().head().clone()) })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Record>, MetadataError>> {
        Box::pin(async move {
            let Ok(row) = self.lock().read().get(&key);
            Ok(row)
        })
    }

    fn scan(
        &self,
        rows: Rows,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Key, Record)>, MetadataError>> {
        Box::pin(async move {
            let Ok(found) = self.lock().read().scan(&rows, limit);
            Ok(found)
        })
    }
}
