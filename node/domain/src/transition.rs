//! The state transition: decides a command against the store.
//!
//! Guarantees:
//! - A pure function of the store, the command and its position: replicas that apply the same log hold the same rows.
//! - A refused command changes no row, not even the clock, and causes no event: every check comes before the first write.
//!   Two things alone are noted of it: that it was decided, if it has an origin, and that it was refused, in the journal,
//!   if a caller asked for it.
//! - What was judged under a policy takes effect under that policy or not at all.
//! - No tenant's unique bytes, with those reserved, and no count of artifacts and versions grows over the tenant's quota.
//! - A command with an origin takes effect once, at its first place in the log, however often it stands there: accepted or
//!   refused there, it is a duplicate everywhere behind. One of a start that was replaced takes none.
//! - An artifact or a version is stored only if every blob it needs is live, held, and linked in its repository at that
//!   very position, and no blob that anything needs is unlinked while it does.
//! - Counters equal a recount of the rows, and the journal reports every change of links, artifacts, versions and tags.
//! - A failed read or write ends the transition with that error; the caller drops whatever was written until then. The
//!   head is changed last, so a failed transition leaves it as it was.
//!
//! The work of one command is bounded: by what it names, and by a limit of its own where it removes what others made.

use crate::cluster::{ClusterRecord, FeatureLevel};
use crate::command::{Action, Command, Origin, Outcome, Refusal, Terms};
use crate::ids::Epoch;
use crate::journal::{Event, JournalHead};
use crate::node::SessionRecord;
use crate::state::{Key, Record, Store};
use crate::time::Timestamp;

/// What applying a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer for its proposer.
    pub answer: Result<Outcome, Refusal>,
    /// What changed; empty if it was refused.
    pub events: Vec<Event>,
}

/// Decides `command`, which stands at `position` in the log.
pub fn apply<S: Store>(
    store: &mut S,
    position: u64,
    command: &Command,
) -> Result<Applied, S::Error> {
    let refused = |refusal| Ok(Applied { answer: Err(refusal), events: Vec::new() });
    if let Some(Origin { epoch, serial, .. }) = command.origin {
        match store.head().sessions.get(&epoch) {
            None => return refused(Refusal::RetiredEpoch),
            Some(session) if session.has(serial) => return refused(Refusal::Duplicate),
            Some(_) => {}
        }
    }
    let before = read!(store, Cluster, Key::Cluster).unwrap_or_default();
    let now = store.head().clock.max(command.at);
    let mut step = Step {
        position,
        now,
        cluster: before.clone(),
        journal: store.head().journal.clone(),
        sessions: Sessions::default(),
        terms: &command.terms,
        events: Vec::new(),
        store,
    };
    let answer = match step.decide(&command.action) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Refused(refusal)) => {
            debug_assert!(step.events.is_empty(), "refused after a change: {refusal:?}");
            Err(refusal)
        }
        Err(Stop::Failed(error)) => return Err(error),
    };
    let is_noted = step.note(&command.action, answer.as_ref().err())?;
    if answer.is_ok() && step.cluster != before {
        let cluster = std::mem::take(&mut step.cluster);
        step.store.put(Key::Cluster, Record::Cluster(cluster))?;
    }
    let Step { journal, sessions, events, .. } = step;
    // From here on nothing fails.
    let head = store.head_mut();
    head.journal = journal;
    if answer.is_ok() || is_noted {
        head.clock = now;
    }
    if answer.is_ok() {
        for ended in sessions.ended {
            head.sessions.remove(&ended);
        }
        head.sessions.extend(sessions.begun);
    }
    if let Some(Origin { epoch, serial, settled_below }) = command.origin
        // The command itself may have ended its proposer's session; then there is nothing to note.
        && let Some(session) = head.sessions.get_mut(&epoch)
    {
        session.note(serial, settled_below);
    }
    Ok(Applied { answer, events })
}

/// Why a command is not carried out.
pub(crate) enum Stop<E> {
    /// It may not be; no row was changed.
    Refused(Refusal),
    /// The store failed; rows may have been changed.
    Failed(E),
}

impl<E> From<E> for Stop<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

/// What deciding a command gives.
pub(crate) type Decision<T, E> = Result<T, Stop<E>>;

/// The command is refused.
pub(crate) fn refuse<T, E>(refusal: Refusal) -> Decision<T, E> {
    Err(Stop::Refused(refusal))
}

/// Starts of nodes that a command begins and ends.
#[derive(Default)]
pub(crate) struct Sessions {
    pub(crate) ended: Vec<Epoch>,
    pub(crate) begun: Option<(Epoch, SessionRecord)>,
}

/// One command being decided.
pub(crate) struct Step<'s, S> {
    pub(crate) store: &'s mut S,
    pub(crate) position: u64,
    /// The cluster's time: never earlier than that of any command applied before.
    pub(crate) now: Timestamp,
    /// Written back once the command is accepted, if it differs.
    pub(crate) cluster: ClusterRecord,
    /// Becomes the head's once the command is decided.
    pub(crate) journal: JournalHead,
    /// Take effect in the head once the command is accepted.
    pub(crate) sessions: Sessions,
    /// Who asks, and on what terms.
    pub(crate) terms: &'s Terms,
    pub(crate) events: Vec<Event>,
}

impl<S: Store> Step<'_, S> {
    fn decide(&mut self, action: &Action) -> Decision<Outcome, S::Error> {
        let (level, needed) = (self.cluster.feature_level, action.needs());
        if needed > level.max(FeatureLevel::FIRST) {
            return refuse(Refusal::FeatureNotReached { level, needed });
        }
        let epoch = self.cluster.policy_epoch;
        if self.terms.policy.is_some_and(|judged| judged != epoch) {
            return refuse(Refusal::PolicyChanged { epoch });
        }
        self.carry_out(action)
    }
}

/// Adds to a counter. The state holds no counter near the limit, so an overflow is a bug, and wrapping would hide it.
pub(crate) fn raise(counter: &mut u64, by: u64) {
    let sum = counter.checked_add(by);
    debug_assert!(sum.is_some(), "a counter overflows: {counter} + {by}");
    *counter = sum.unwrap_or(u64::MAX);
}

/// Takes from a counter. One that would go below zero was not raised before: a bug, which wrapping would make worse.
pub(crate) fn lower(counter: &mut u64, by: u64) {
    let rest = counter.checked_sub(by);
    debug_assert!(rest.is_some(), "a counter goes below zero: {counter} - {by}");
    *counter = rest.unwrap_or(0);
}
