//! Background work: what a job is, when its next turn is due, and what is known about its turns.
//!
//! A [`Job`] is a schedule and one bounded turn. A driver runs the turns; [`Progress`] computes when the next one is due
//! and keeps what operators see. Guarantees: [`Progress`] is a pure computation over the times that the driver hands in;
//! a job that fails waits longer after each failure, up to its limit; one success ends that.
//!
//! Must not know: a runtime, a clock, or what any job does.

mod progress;

pub use progress::{Moment, Progress};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nora_domain::Timestamp;

use crate::ports::{BoxError, BoxFuture};

/// Which nodes run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Every node, for itself.
    EveryNode,
    /// The leader, for the cluster. Other nodes stand by.
    Leader,
}

/// When a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The job's name in lists and metrics: lower case, words joined by `-`. No two jobs share one.
    pub name: &'static str,
    /// From the end of one turn to the begin of the next, give or take a tenth.
    pub every: Duration,
    /// The longest pause after failures.
    pub retry_max: Duration,
    /// Which nodes run it.
    pub place: Place,
}

/// The longest pause after failures, for jobs that run more often than that.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The longest pause after failures, for jobs that run less often than that.
const RETRY_MAX_OF_RARE: Duration = Duration::from_secs(3_600);

impl Schedule {
    /// A job of every node. After failures it waits at most a minute, or up to an hour if it runs less often than once
    /// a minute.
    pub const fn every(name: &'static str, every: Duration) -> Self {
        let retry_max = if every.as_millis() <= RETRY_MAX.as_millis() {
            RETRY_MAX
        } else if every.as_millis() < RETRY_MAX_OF_RARE.as_millis() {
            every
        } else {
            RETRY_MAX_OF_RARE
        };
        Self { name, every, retry_max, place: Place::EveryNode }
    }

    /// The same job, run by the leader alone.
    pub const fn on_leader(self) -> Self {
        Self { place: Place::Leader, ..self }
    }

    /// The same job, with another longest pause after failures.
    pub const fn retry_max(self, retry_max: Duration) -> Self {
        Self { retry_max, ..self }
    }
}

/// When a turn wants the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When the schedule says.
    Scheduled,
    /// At once: there is more to do.
    AtOnce,
    /// After this time.
    After(Duration),
}

/// What a turn did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When the next turn is due.
    pub next: Next,
    /// What the turn counted, by name.
    pub counts: Vec<(&'static str, u64)>,
}

impl Turn {
    /// Everything is done until the schedule says otherwise.
    pub const fn done() -> Self {
        Self { next: Next::Scheduled, counts: Vec::new() }
    }

    /// There is more to do at once.
    pub const fn more() -> Self {
        Self { next: Next::AtOnce, counts: Vec::new() }
    }

    /// There is more to do after a time.
    pub const fn after(pause: Duration) -> Self {
        Self { next: Next::After(pause), counts: Vec::new() }
    }

    /// There is more to do at once if `more` says so.
    pub const fn more_if(more: bool) -> Self {
        if more { Self::more() } else { Self::done() }
    }

    /// Adds a count to the turn's result.
    #[must_use]
    pub fn count(mut self, name: &'static str, count: u64) -> Self {
        self.counts.push((name, count));
        self
    }
}

impl fmt::Display for Turn {
    /// The counts, as `3 removed, 7 kept`; empty if the turn counted nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, count)) in self.counts.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{count} {name}")?;
        }
        Ok(())
    }
}

/// Work that a node does beside answering requests.
pub trait Job: Send + Sync {
    /// When it runs.
    fn schedule(&self) -> Schedule;

    /// Does one bounded piece of the work. The driver never runs two turns of a job at once, and may drop a turn at any
    /// await point when the node stops.
    fn turn(&self) -> BoxFuture<'_, Result<Turn, BoxError>>;

    /// Completes when a turn should come early. The driver polls it between turns, and not in the pause after a failure.
    /// It may be dropped at any await point, so a signal that it consumed must not be lost with it.
    fn woken(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// A job of a schedule and a function that does one turn.
pub fn job<F, T>(schedule: Schedule, turn: F) -> Arc<dyn Job>
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<Turn, BoxError>> + Send + 'static,
{
    Arc::new(Scheduled { schedule, turn })
}

struct Scheduled<F> {
    schedule: Schedule,
    turn: F,
}

impl<F, T> Job for Scheduled<F>
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = Result<Turn, BoxError>> + Send + 'static,
{
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn turn(&self) -> BoxFuture<'_, Result<Turn, BoxError>> {
        Box::pin((self.turn)())
    }
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A turn runs.
    Running,
    /// The next turn is not due yet.
    Waiting,
    /// The last turn failed, and the next one waits.
    Failing,
    /// Another node leads and runs it.
    Standby,
}

impl State {
    /// The state in lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Standby => "standby",
        }
    }
}

/// What is known about a job since the node's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// When it runs.
    pub schedule: Schedule,
    /// What it is doing.
    pub state: State,
    /// Turns that ended.
    pub runs: u64,
    /// Turns that ended with an error.
    pub failures: u64,
    /// When the last turn began.
    pub started_at: Option<Timestamp>,
    /// How long the last turn that ended took.
    pub duration: Option<Duration>,
    /// When a turn last ended without an error.
    pub succeeded_at: Option<Timestamp>,
    /// What the last turn without an error counted.
    pub result: String,
    /// Why the last turn failed; empty if it did not.
    pub error: String,
    /// When the next turn is due; `None` while one runs and on a node that stands by.
    pub due_at: Option<Timestamp>,
}

/// The jobs of this node.
pub trait Jobs: Send + Sync {
    /// Every job as it is now, in order of names.
    fn list(&self) -> Vec<Status>;
}
