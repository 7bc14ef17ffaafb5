//! The cluster's clock: what leases, tokens and ages are measured by.
//!
//! The leader stamps every command with the clock as it knew it at its election plus the time that has passed since, by
//! its monotonic clock. What it knew is the later of the state's clock and what the leader before told it. Once a second the leader compares the wall clocks of all members. The agreed time, the lower
//! median of the voters' clocks, corrects the cluster's clock (`pace` says how far).
//!
//! Guarantees: no single wall clock moves the cluster's clock of several voters ahead; the clock never goes back; a node
//! whose wall clock is wrong says so. Must not know: what is timed by the clock.

mod compare;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nora_domain::{NodeId, Timestamp};
use tokio::time::Instant;

use self::pace::{Agreed, Pace, agreed};
use crate::rocks::locked;
pub(crate) use compare::keep_comparing;

/// How long a member's answer counts.
const REPORT_FRESH: Duration = Duration::from_secs(5);

/// How long a member that has answered the leader counts as in reach.
const REACH_FRESH: Duration = Duration::from_secs(3);

/// A source of wall clock time.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl WallClock {
    /// A clock of the caller's choice, for tests.
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for WallClock {
    /// The operating system's clock. A clock before 1970 counts as 1970.
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            timestamp(since)
        })
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wall clock at {}", self.now().0)
    }
}

fn timestamp(since: Duration) -> Timestamp {
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn duration(at: Timestamp) -> Duration {
    Duration::from_millis(at.0)
}

/// `a` minus `b`, in milliseconds.
fn difference(a: Duration, b: Duration) -> i64 {
    let millis = |length: Duration| i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
    if a >= b { millis(a - b) } else { -millis(b - a) }
}

/// The clock that the applied state shows. The state machine writes it.
#[derive(Debug, Default)]
pub struct AppliedClock(AtomicU64);

impl AppliedClock {
    /// The state's clock stands here now.
    pub fn note(&self, clock: Timestamp) {
        self.0.fetch_max(clock.0, Ordering::AcqRel);
    }

    fn get(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Acquire))
    }
}

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockLimits {
    pub(crate) skew_max: Duration,
    pub(crate) step_max: Duration,
}

/// How the clocks stand, for people and gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockStatus {
    /// The cluster's clock, as this node knows it.
    pub now: Timestamp,
    /// By how many milliseconds this node's wall clock is ahead of the agreed time; none if nobody has compared it lately.
    /// With a single voter it is compared with the cluster's clock.
    pub offset_millis: Option<i64>,
    /// The same of every member that answered lately; only the leader knows, elsewhere it is empty.
    pub members: BTreeMap<NodeId, i64>,
    /// By how many milliseconds the cluster's clock is behind the agreed time; negative if it is ahead. Only the leader
    /// knows.
    pub lag_millis: Option<i64>,
}

/// A member's wall clock, as it was at a moment of this node's monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Report {
    wall: Duration,
    at: Instant,
}

impl Report {
    fn wall_at(&self, at: Instant) -> Duration {
        self.wall + at.saturating_duration_since(self.at)
    }
}

/// What a follower has heard of the cluster's clock.
#[derive(Clone, Copy, Debug)]
struct Heard {
    term: u64,
    clock: Duration,
    at: Instant,
}

impl Heard {
    fn clock_at(&self, at: Instant) -> Duration {
        self.clock + at.saturating_duration_since(self.at)
    }
}

#[derive(Debug)]
struct Lead {
    term: u64,
    pace: Pace,
}

#[derive(Debug)]
struct Inner {
    lead: Option<Lead>,
    voters: BTreeSet<NodeId>,
    reports: BTreeMap<NodeId, Report>,
    heard: Heard,
    offset: Option<(i64, Instant)>,
    reachable: Option<(BTreeSet<NodeId>, Instant)>,
    is_off: bool,
}

/// The cluster's clock, as one node keeps it.
#[derive(Debug)]
pub(crate) struct ClusterClock {
    node: NodeId,
    wall: WallClock,
    limits: ClockLimits,
    applied: Arc<AppliedClock>,
    /// The latest time that was read here. A new leader begins at the last command's time, and what was over stays over.
    read: AtomicU64,
    inner: Mutex<Inner>,
}

/// What the leader tells a member.
#[derive(Clone, Debug)]
struct Told {
    term: u64,
    clock: Timestamp,
    offset_millis: Option<i64>,
    reachable: BTreeSet<NodeId>,
}

impl ClusterClock {
    pub(crate) fn new(
        node: NodeId,
        wall: WallClock,
        limits: ClockLimits,
        applied: Arc<AppliedClock>,
    ) -> Self {
        let clock = match applied.get() {
            Timestamp(0) => wall.now(),
            clock => clock,
        };
        let heard = Heard { term: 0, clock: duration(clock), at: Instant::now() };
        let inner = Inner {
            lead: None,
            voters: BTreeSet::new(),
            reports: BTreeMap::new(),
            heard,
            offset: None,
            reachable: None,
            is_off: false,
        };
        Self { node, wall, limits, applied, read: AtomicU64::new(0), inner: Mutex::new(inner) }
    }

    /// The cluster's clock, as far as this node knows. It never goes back here, once the state has a clock.
    pub(crate) fn now(&self) -> Timestamp {
        let mut inner = locked(&self.inner);
        let at = Instant::now();
        let clock = match inner.lead {
            Some(_) => self.advance(&mut inner, at),
            None => inner.heard.clock_at(at),
        };
        let (clock, applied) = (timestamp(clock), self.applied.get());
        if applied == Timestamp(0) {
            return clock;
        }
        let clock = clock.max(applied);
        Timestamp(self.read.fetch_max(clock.0, Ordering::AcqRel).max(clock.0))
    }

    /// The stamp for commands that this node writes into the log as the leader of `term`.
    pub(crate) fn stamp(&self, term: u64, voters: impl Iterator<Item = NodeId>) -> Timestamp {
        let mut inner = locked(&self.inner);
        let at = Instant::now();
        self.lead(&mut inner, term, voters, at);
        timestamp(self.advance(&mut inner, at)).max(self.applied.get())
    }

    /// This node leads in `term`.
    fn lead(
        &self,
        inner: &mut Inner,
        term: u64,
        voters: impl Iterator<Item = NodeId>,
        at: Instant,
    ) {
        if inner.lead.as_ref().is_none_or(|lead| lead.term != term) {
            let pace = Pace::new(self.known(inner, at), at);
            inner.lead = Some(Lead { term, pace });
            inner.reports.clear();
            inner.voters = voters.collect();
        }
    }

    /// The cluster's clock, as this node knew it before it led. In a quiet cluster the last command is old; the leader
    /// before went on to tell its clock, and what had ended by it must not begin again.
    fn known(&self, inner: &Inner, at: Instant) -> Duration {
        match self.applied.get() {
            // No clock was set yet: the first leader sets it.
            Timestamp(0) => Duration::ZERO,
            applied => duration(applied).max(inner.heard.clock_at(at)),
        }
    }

    /// Another node leads, or nobody does.
    fn follow(&self) {
        let mut inner = locked(&self.inner);
        if inner.lead.is_some() {
            let at = Instant::now();
            let clock = self.advance(&mut inner, at);
            let term = inner.lead.take().map_or(0, |lead| lead.term);
            inner.heard = Heard { term, clock, at };
            inner.reports.clear();
            inner.offset = None;
        }
    }

    fn advance(&self, inner: &mut Inner, at: Instant) -> Duration {
        let agreed = self.agreed(inner, at);
        let step_max = self.limits.step_max;
        let clock = inner.lead.as_mut().map(|lead| lead.pace.advance(at, agreed, step_max));
        clock.unwrap_or(inner.heard.clock)
    }

    /// What most voters' clocks say at `at`.
    fn agreed(&self, inner: &Inner, at: Instant) -> Option<Agreed> {
        let others = inner.reports.iter().filter(|(node, report)| {
            inner.voters.contains(node) && at.saturating_duration_since(report.at) < REPORT_FRESH
        });
        let mut reports: Vec<_> = others.map(|(_, report)| report.wall_at(at)).collect();
        if inner.voters.contains(&self.node) {
            reports.push(duration(self.wall.now()));
        }
        agreed(inner.voters.len(), reports)
    }

    /// What this node, as the leader of `term`, tells `member`.
    fn tell(&self, member: NodeId) -> Option<Told> {
        let mut inner = locked(&self.inner);
        let at = Instant::now();
        let term = inner.lead.as_ref()?.term;
        let clock = timestamp(self.advance(&mut inner, at)).max(self.applied.get());
        let agreed = self.agreed(&inner, at).map(|agreed| agreed.time);
        let offset = |agreed| {
            let report = inner.reports.get(&member)?;
            Some(difference(report.wall_at(at), agreed))
        };
        let offset_millis = agreed.and_then(offset);
        let reachable = self.in_reach_of_leader(&inner, at);
        Some(Told { term, clock, offset_millis, reachable })
    }

    fn in_reach_of_leader(&self, inner: &Inner, at: Instant) -> BTreeSet<NodeId> {
        let fresh = |report: &Report| at.saturating_duration_since(report.at) < REACH_FRESH;
        let others = inner.reports.iter().filter(|(_, report)| fresh(report));
        others.map(|(node, _)| *node).chain([self.node]).collect()
    }

    /// A member answered a question of the leader of `term`, asked at `asked`, with its wall clock.
    fn answered(&self, term: u64, member: NodeId, asked: Instant, wall: Timestamp) {
        let mut inner = locked(&self.inner);
        if inner.lead.as_ref().is_some_and(|lead| lead.term == term) {
            let at = Instant::now();
            // The member read its clock somewhere between question and answer.
            let at = asked + at.saturating_duration_since(asked) / 2;
            inner.reports.insert(member, Report { wall: duration(wall), at });
        }
    }

    /// The leader told this node how its clock stands. Gives this node's wall clock.
    fn hear(&self, told: Told) -> Timestamp {
        let wall = self.wall.now();
        let mut inner = locked(&self.inner);
        let at = Instant::now();
        let leads_later = inner.lead.as_ref().is_some_and(|lead| lead.term >= told.term);
        if leads_later || told.term < inner.heard.term {
            return wall;
        }
        inner.heard = Heard { term: told.term, clock: duration(told.clock), at };
        inner.reachable = Some((told.reachable, at));
        if let Some(offset) = told.offset_millis {
            inner.offset = Some((offset, at));
            self.say_if_off(&mut inner, offset);
        }
        wall
    }

    /// Compares this leader's own clock. Gives its offset from the agreed time, if there are witnesses.
    fn compare_own(&self) -> Option<i64> {
        let mut inner = locked(&self.inner);
        let at = Instant::now();
        let clock = self.advance(&mut inner, at);
        let agreed = self.agreed(&inner, at)?;
        let reference = if agreed.is_alone { clock } else { agreed.time };
        let offset = difference(duration(self.wall.now()), reference);
        inner.offset = Some((offset, at));
        self.say_if_off(&mut inner, offset);
        (!agreed.is_alone).then_some(offset)
    }

    fn say_if_off(&self, inner: &mut Inner, offset_millis: i64) {
        let is_over = self.is_over(offset_millis);
        // Half of the limit, so that a clock near it is not reported again and again.
        let is_right = !self.is_over(offset_millis.saturating_mul(2));
        if is_over && !inner.is_off {
            inner.is_off = true;
            tracing::warn!(
                offset_millis,
                limit_millis = difference(self.limits.skew_max, Duration::ZERO),
                "this node's wall clock is wrong: set it, and keep it right with NTP"
            );
        } else if is_right && inner.is_off {
            inner.is_off = false;
            tracing::info!(offset_millis, "this node's wall clock is right again");
        }
    }

    fn is_over(&self, offset_millis: i64) -> bool {
        Duration::from_millis(offset_millis.unsigned_abs()) > self.limits.skew_max
    }

    /// Members that this node can count on to answer: as the leader heard them lately, or told this node.
    pub(crate) fn reachable(&self) -> BTreeSet<NodeId> {
        let inner = locked(&self.inner);
        let at = Instant::now();
        if inner.lead.is_some() {
            return self.in_reach_of_leader(&inner, at);
        }
        let told = inner.reachable.as_ref();
        told.filter(|(_, told_at)| at.saturating_duration_since(*told_at) < REACH_FRESH)
            .map(|(reachable, _)| reachable.clone())
            .unwrap_or_default()
    }

    pub(crate) fn status(&self) -> ClockStatus {
        let now = self.now();
        let inner = locked(&self.inner);
        let at = Instant::now();
        let agreed = inner.lead.as_ref().and_then(|_| self.agreed(&inner, at));
        let offset =
            inner.offset.filter(|(_, of)| at.saturating_duration_since(*of) < REPORT_FRESH);
        let fresh = |report: &Report| at.saturating_duration_since(report.at) < REPORT_FRESH;
        let offset_of = |(node, report): (&NodeId, &Report)| {
            let offset = difference(report.wall_at(at), agreed?.time);
            fresh(report).then_some((*node, offset))
        };
        let own = offset.map(|(offset, _)| (self.node, offset)).filter(|_| inner.lead.is_some());
        ClockStatus {
            now,
            offset_millis: offset.map(|(offset, _)| offset),
            members: inner.reports.iter().filter_map(offset_of).chain(own).collect(),
            lag_millis: agreed.map(|agreed| difference(agreed.time, duration(now))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn clock(applied: u64) -> ClusterClock {
        let limits = ClockLimits {
            skew_max: Duration::from_secs(60),
            step_max: Duration::from_secs(86_400),
        };
        let shown = AppliedClock::default();
        shown.note(Timestamp(applied));
        ClusterClock::new(NodeId(2), WallClock::new(|| Timestamp(1)), limits, Arc::new(shown))
    }

    fn told(term: u64, clock: u64) -> Told {
        let clock = Timestamp(clock);
        Told { term, clock, offset_millis: None, reachable: BTreeSet::new() }
    }

    #[test]
    fn a_new_leader_goes_on_from_the_clock_that_the_leader_before_told() {
        let node = clock(1_000_000);
        assert_eq!(node.hear(told(1, 9_000_000)), Timestamp(1));
        let first = node.stamp(2, VOTERS.into_iter());
        assert!(first >= Timestamp(9_000_000), "{first:?}");
        // It leads again after another did, which told nothing yet.
        node.follow();
        assert!(node.stamp(4, VOTERS.into_iter()) >= first);
        // The state's clock is later than what was heard long ago.
        node.follow();
        node.applied.note(Timestamp(20_000_000));
        assert!(node.stamp(5, VOTERS.into_iter()) >= Timestamp(20_000_000));
    }

    #[test]
    fn the_first_leader_of_all_has_no_clock_to_go_on_from() {
        let node = clock(0);
        assert!(node.stamp(1, VOTERS.into_iter()) < Timestamp(60_000));
    }
}
