//! The state transition: decides a command against the store.

use crate::command::{Command, Outcome, Refusal};
use crate::event::Event;
use crate::store::Store;

/// What applying a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer for whoever proposed it.
    pub answer: Result<Outcome, Refusal>,
    /// What changed; empty if it was refused.
    pub events: Vec<Event>,
}

/// Decides `command`, which stands at `position` in the log.
pub fn apply<S: Store>(store: &mut S, position: u64, command: &Command) -> Result<Applied, S::Error> {
    let _ = (store, position, command);
    unimplemented!()
}
