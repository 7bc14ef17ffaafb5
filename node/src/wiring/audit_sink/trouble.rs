//! What goes wrong again and again: when to try once more, and when to say so.
//!
//! Guarantees: pauses grow while nothing gets through, and never beyond a minute; what goes on or comes back is said at
//! most once in [`TOLD_EVERY`]; that it is over is said if that it had begun was. Must not know what it is about, nor a
//! clock.

use std::time::{Duration, Instant};

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long nothing is said after something was.
const TOLD_EVERY: Duration = Duration::from_secs(300);

/// How long to wait after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(6);
    (PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX)
}

/// Failures of one kind.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Since something last got through.
    failures: u32,
    /// No other try before then.
    until: Option<Instant>,
    /// When it was last said that it fails.
    told_at: Option<Instant>,
    /// Whether it was said that it fails, and not yet that it is over.
    is_told: bool,
    /// What got through since it was said.
    entries: u64,
}

impl Trouble {
    /// Whether it is too early for another try. Who looks once in a while waits a little longer than the pause is.
    pub(super) fn is_pausing(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// It failed; whether that is to be said now.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause_after(self.failures));
        let is_due = self.told_at.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY);
        if is_due {
            self.told_at = Some(now);
            if !std::mem::replace(&mut self.is_told, true) {
                self.entries = 0;
            }
        }
        is_due
    }

    /// So many entries got through: the next failure is the first again.
    pub(super) fn took(&mut self, entries: u64) {
        self.failures = 0;
        self.until = None;
        self.entries = self.entries.saturating_add(entries);
    }

    /// Nothing waits any more: if it was said that it fails, how many entries got through since.
    pub(super) fn over(&mut self) -> Option<u64> {
        self.took(0);
        std::mem::take(&mut self.is_told).then_some(self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_when_something_gets_through() {
        let pauses: Vec<_> = (1..=9).map(|failures| pause_after(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);

        let (mut trouble, now) = (Trouble::default(), Instant::now());
        assert!(!trouble.is_pausing(now));
        for pause in [1, 2, 4] {
            trouble.failed(now);
            assert!(trouble.is_pausing(now + SECOND * pause - SECOND / 2));
            assert!(!trouble.is_pausing(now + SECOND * pause));
        }
        trouble.took(1);
        assert!(!trouble.is_pausing(now));
        trouble.failed(now);
        assert!(!trouble.is_pausing(now + SECOND));
    }

    #[test]
    fn it_is_said_when_it_begins_now_and_then_and_when_it_is_over() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        trouble.took(100);
        assert_eq!(trouble.over(), None, "nothing was said");
        assert!(trouble.failed(now));
        assert!(!trouble.failed(now + SECOND));
        trouble.took(3);
        assert!(!trouble.failed(now + SECOND * 299));
        assert!(trouble.failed(now + SECOND * 300));
        trouble.took(4);
        assert_eq!(trouble.over(), Some(7));
        assert_eq!(trouble.over(), None);
        // What comes and goes does not fill anybody's log.
        assert!(!trouble.failed(now + SECOND * 301));
        assert_eq!(trouble.over(), None);
        assert!(trouble.failed(now + SECOND * 600));
        assert_eq!(trouble.over(), Some(0));
    }
}
