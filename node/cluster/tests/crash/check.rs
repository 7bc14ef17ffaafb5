//! What must be there when the stores are opened.

use std::fmt::Display;
use std::io;
use std::path::Path;

use nora_cluster::raft::LogId;
use nora_cluster::raft::log_store::LogStore;
use nora_cluster::raft::recovery::agree;
use nora_cluster::raft::state_machine::StateMachine;
use openraft::RaftLogReader;
use openraft::StorageHelper;
use openraft::storage::RaftLogStorage;

use crate::intercept::Note;
use crate::run::{Hash, Run, apply, log_hash, open, state_hash};

/// What was acknowledged when the power went, and what was under way.
#[derive(Clone, Debug, Default)]
pub struct Want {
    /// The last version of the log that was acknowledged.
    pub done: usize,
    /// The last one that was begun.
    pub begun: usize,
    /// How far the last snapshot went that was reported as made.
    pub snapshot: Option<LogId>,
}

impl Want {
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Begun(version) => self.begun = *version,
            Note::Done(version) => self.done = self.done.max(*version),
            Note::Snapshot(last) => self.snapshot = self.snapshot.max(*last),
        }
    }
}

pub enum Verdict {
    Right,
    /// The start, or a read, said that something is damaged.
    Refused(String),
    /// Something is not what it was, and nothing said so.
    Wrong(String),
}

/// Opens the stores in `directory`, as a start of a node does, and looks at everything in them.
pub async fn check(directory: &Path, run: &Run, want: &Want) -> Verdict {
    match look(directory, run, want).await {
        Ok(()) => Verdict::Right,
        Err(verdict) => verdict,
    }
}

fn refused(error: impl Display) -> Verdict {
    Verdict::Refused(error.to_string())
}

/// The version of the log that is there.
pub async fn found(log: &mut LogStore) -> io::Result<Hash> {
    let vote = log.read_vote().await?;
    let purged = log.get_log_state().await?.last_purged_log_id;
    let entries = log.try_get_log_entries(..).await?;
    Ok(log_hash(vote.as_ref(), purged.as_ref(), &entries))
}

async fn look(directory: &Path, run: &Run, want: &Want) -> Result<(), Verdict> {
    let (mut log, mut state) = open(directory).map_err(refused)?;
    let version = found(&mut log).await.map_err(refused)?;
    let allowed = &run.versions[want.done..=want.begun];
    if !allowed.contains(&version) {
        let older = run.versions.iter().rposition(|known| *known == version);
        return Err(Verdict::Wrong(format!("the log is version {older:?}, not of {want:?}")));
    }
    agree(&log, &state).map_err(refused)?;
    recover(&mut log, &mut state).await?;

    let covered = state.covered();
    if covered < want.snapshot {
        let text = format!("the snapshot goes to {covered:?}, not of {want:?}");
        return Err(Verdict::Wrong(text));
    }
    if let Some(snapshot) = state.shared().snapshots.current() {
        snapshot.verify().map_err(refused)?;
    }
    replay(&mut log, &mut state, run).await
}

/// What openraft does at a start.
async fn recover(log: &mut LogStore, state: &mut StateMachine) -> Result<(), Verdict> {
    let mut helper = StorageHelper::new(log, state).with_id(1);
    helper.get_initial_state().await.map(drop).map_err(refused)
}

/// Applies the committed entries of the log, and compares the state.
async fn replay(log: &mut LogStore, state: &mut StateMachine, run: &Run) -> Result<(), Verdict> {
    let next = state.applied().map_or(0, |applied| applied.index + 1);
    let tail = log.try_get_log_entries(next..).await.map_err(refused)?;
    let committed = run.history.iter().skip(next as usize);
    let tail: Vec<_> = tail
        .into_iter()
        .zip(committed)
        .take_while(|(entry, committed)| entry.log_id == committed.log_id)
        .map(|(entry, _)| entry)
        .collect();
    apply(state, tail).await.map_err(refused)?;
    let rows: Result<Vec<_>, _> = state.shared().state.load().all().collect();
    let rows = rows.map_err(refused)?;
    let Some(applied) = state.applied() else {
        let empty = rows.is_empty();
        return if empty { Ok(()) } else { Err(Verdict::Wrong("rows of nothing".to_owned())) };
    };
    let index = applied.index as usize;
    if run.history[index].log_id != applied {
        return Err(Verdict::Wrong(format!("{applied} was applied and never committed")));
    }
    let chain = state.shared().state.load().chain().map_err(refused)?;
    if run.states[index] != (state_hash(rows.into_iter()), *chain.hash()) {
        return Err(Verdict::Wrong(format!("the state at {applied} is another one")));
    }
    Ok(())
}
