//! How fast the cluster's clock goes while this node leads. Pure: every reading is an argument.
//!
//! Guarantees: the clock never goes back. Soon after an election the clock may step forward to the agreed time, because
//! the cluster may have been stopped. Later it runs at most a tenth faster or slower than real time.

use std::time::Duration;

use tokio::time::Instant;

/// How long after its election a leader may step the clock forward. Reports of other members come within this time.
pub(super) const STEP_WINDOW: Duration = Duration::from_secs(10);

/// A clock that differs from the agreed time runs this fraction of real time faster or slower.
const PULL: u32 = 10;

/// What most clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Since the Unix epoch.
    pub(super) time: Duration,
    /// Whether this node's own wall clock is the only witness.
    pub(super) is_alone: bool,
}

/// The agreed time: the lower median of the voters' clocks, where a silent voter counts as far ahead. None unless more
/// than half of the voters reported. As long as no more than half of the voters' clocks are fast, the agreed time is not
/// ahead of every right clock.
pub(super) fn agreed(voters: usize, mut reports: Vec<Duration>) -> Option<Agreed> {
    let index = reports.len().checked_sub(voters / 2 + 1)?;
    reports.sort_unstable();
    let time = *reports.get(index)?;
    Some(Agreed { time, is_alone: voters == 1 })
}

/// The clock of one term.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// The clock at `read`, since the Unix epoch.
    clock: Duration,
    read: Instant,
    elected: Instant,
    /// Whether the own wall clock alone has been asked once.
    was_alone: bool,
}

impl Pace {
    /// The clock of a leader elected at `elected`, whose state shows `clock`.
    pub(super) fn new(clock: Duration, elected: Instant) -> Self {
        Self { clock, read: elected, elected, was_alone: false }
    }

    /// Moves the clock on to `at`. `step_max` limits what a wall clock without witnesses may do to a clock that was set
    /// before.
    pub(super) fn advance(
        &mut self,
        at: Instant,
        agreed: Option<Agreed>,
        step_max: Duration,
    ) -> Duration {
        let elapsed = at.saturating_duration_since(self.read);
        self.read = self.read.max(at);
        self.clock += elapsed;
        let Some(agreed) = agreed else { return self.clock };
        // A node without witnesses steps once: a later step of its wall clock cannot be a stop of the cluster.
        let may_step = match agreed.is_alone {
            true => !std::mem::replace(&mut self.was_alone, true),
            false => at.saturating_duration_since(self.elected) < STEP_WINDOW,
        };
        if agreed.time < self.clock {
            self.clock -= (self.clock - agreed.time).min(elapsed / PULL);
            return self.clock;
        }
        let gap = agreed.time - self.clock;
        let is_first = self.clock <= at.saturating_duration_since(self.elected);
        if agreed.is_alone && gap > step_max && !is_first {
            return self.clock;
        }
        self.clock += if may_step { gap } else { gap.min(elapsed / PULL) };
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const START: Duration = Duration::from_secs(1_700_000_000);
    const STEP_MAX: Duration = Duration::from_secs(31 * 86_400);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn witnessed(time: Duration) -> Option<Agreed> {
        Some(Agreed { time, is_alone: false })
    }

    fn alone(time: Duration) -> Option<Agreed> {
        Some(Agreed { time, is_alone: true })
    }

    #[test]
    fn the_lower_median_of_a_majority_is_the_time() {
        let check = |voters, reports: &[u64], expected: Option<u64>| {
            let time = agreed(voters, reports.iter().copied().map(secs).collect());
            assert_eq!(time.map(|agreed| agreed.time.as_secs()), expected, "{voters} {reports:?}");
        };
        check(1, &[5], Some(5));
        check(1, &[], None);
        check(2, &[5], None);
        check(2, &[9000, 5], Some(5));
        check(3, &[5], None);
        check(3, &[9000, 5], Some(5));
        check(3, &[9000, 5, 6], Some(6));
        check(3, &[0, 5, 6], Some(5));
        check(4, &[9000, 9001, 5], Some(5));
        check(4, &[9000, 9001, 5, 6], Some(6));
        check(5, &[9000, 5, 9001], Some(5));
        check(5, &[9000, 5, 9001, 6, 7], Some(7));
    }

    #[test]
    fn a_founder_begins_at_its_wall_clock() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, now);
        assert_eq!(pace.advance(now + secs(1), alone(START), STEP_MAX), START);
    }

    #[test]
    fn a_cluster_that_was_stopped_comes_back_to_real_time() {
        let now = Instant::now();
        for agreed in [alone(START + 7 * DAY), witnessed(START + 7 * DAY)] {
            let mut pace = Pace::new(START, now);
            assert_eq!(pace.advance(now, None, STEP_MAX), START, "no member has reported yet");
            assert_eq!(pace.advance(now + secs(1), agreed, STEP_MAX), START + 7 * DAY);
        }
        let mut pace = Pace::new(START, now);
        let year = START + 400 * DAY;
        assert_eq!(pace.advance(now + secs(1), witnessed(year), STEP_MAX), year);
    }

    #[test]
    fn a_lonely_wall_clock_far_ahead_is_not_followed() {
        let now = Instant::now();
        let mut pace = Pace::new(START, now);
        let clock = pace.advance(now + secs(1), alone(START + 400 * DAY), STEP_MAX);
        assert_eq!(clock, START + secs(1));
        let mut pace = Pace::new(START, now);
        pace.advance(now, alone(START), STEP_MAX);
        let clock = pace.advance(now + secs(5), alone(START + 7 * DAY), STEP_MAX);
        assert_eq!(clock, START + Duration::from_millis(5500), "a step while it runs");
    }

    #[test]
    fn the_clock_is_pulled_a_tenth_and_never_goes_back() {
        let now = Instant::now();
        let mut pace = Pace::new(START, now);
        let ahead = pace.advance(now + secs(100), witnessed(START + DAY), STEP_MAX);
        assert_eq!(ahead, START + secs(110));
        let behind = pace.advance(now + secs(200), witnessed(START), STEP_MAX);
        assert_eq!(behind, START + secs(200));
        let close = pace.advance(now + secs(300), witnessed(START + secs(301)), STEP_MAX);
        assert_eq!(close, START + secs(301));
        assert_eq!(pace.advance(now, None, STEP_MAX), START + secs(301));
    }
}
