//! What a driver notes about one job, and when the job's next turn is due.

use std::time::Duration;

use nora_domain::Timestamp;

use super::{Next, Place, Schedule, State, Status, Turn};

/// The first pause after a failure, unless the job runs more often.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Bytes that are kept of an error.
const ERROR_BYTES_MAX: usize = 500;

/// One moment on both clocks: elapsed time decides when turns are due, the wall clock is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the driver's start. Never steps.
    pub elapsed: Duration,
    /// The wall clock.
    pub at: Timestamp,
}

/// What is known about one job's turns.
#[derive(Clone, Debug)]
pub struct Progress {
    schedule: Schedule,
    running: bool,
    leads: bool,
    began: Option<Moment>,
    runs: u64,
    failures: u64,
    failures_in_row: u32,
    duration: Option<Duration>,
    succeeded_at: Option<Timestamp>,
    result: String,
    error: String,
    due: Moment,
}

impl Progress {
    /// A job whose first turn is due now.
    pub fn new(schedule: Schedule, now: Moment) -> Self {
        Self {
            schedule,
            running: false,
            leads: false,
            began: None,
            runs: 0,
            failures: 0,
            failures_in_row: 0,
            duration: None,
            succeeded_at: None,
            result: String::new(),
            error: String::new(),
            due: now,
        }
    }

    /// Notes whether this node leads, and returns whether it is the one to run the job.
    pub fn is_here(&mut self, leads: bool) -> bool {
        self.leads = leads;
        self.schedule.place == Place::EveryNode || leads
    }

    /// When the next turn is due, as elapsed time.
    pub fn due(&self) -> Duration {
        self.due.elapsed
    }

    /// Whether the last turn failed.
    pub fn is_failing(&self) -> bool {
        self.failures_in_row > 0
    }

    /// A turn begins.
    pub fn begin(&mut self, now: Moment) {
        self.running = true;
        self.began = Some(now);
    }

    /// A turn ended. `jitter` is a random number that moves the next turn by up to a tenth of the interval.
    pub fn end(&mut self, now: Moment, turn: Result<Turn, String>, jitter: u32) {
        self.running = false;
        self.runs += 1;
        self.duration = self.began.map(|began| now.elapsed.saturating_sub(began.elapsed));
        let pause = match turn {
            Ok(turn) => {
                self.failures_in_row = 0;
                self.succeeded_at = Some(now.at);
                self.result = turn.to_string();
                self.error.clear();
                match turn.next {
                    Next::AtOnce => Duration::ZERO,
                    Next::After(pause) => pause,
                    Next::Scheduled => moved(self.schedule.every, jitter),
                }
            }
            Err(error) => {
                self.failures += 1;
                self.failures_in_row = self.failures_in_row.saturating_add(1);
                self.error = cut(error);
                moved(retry(&self.schedule, self.failures_in_row), jitter)
            }
        };
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.due = Moment {
            elapsed: now.elapsed.saturating_add(pause),
            at: Timestamp(now.at.0.saturating_add(millis)),
        };
    }

    /// What operators see.
    pub fn status(&self) -> Status {
        let is_standby = self.schedule.place == Place::Leader && !self.leads;
        let state = match (self.running, is_standby, self.is_failing()) {
            (true, ..) => State::Running,
            (false, true, _) => State::Standby,
            (false, false, true) => State::Failing,
            (false, false, false) => State::Waiting,
        };
        let has_due = matches!(state, State::Waiting | State::Failing);
        Status {
            schedule: self.schedule,
            state,
            runs: self.runs,
            failures: self.failures,
            started_at: self.began.map(|began| began.at),
            duration: self.duration,
            succeeded_at: self.succeeded_at,
            result: self.result.clone(),
            error: self.error.clone(),
            due_at: has_due.then_some(self.due.at),
        }
    }
}

/// The pause after so many failures in a row: doubled each time, up to the schedule's limit.
fn retry(schedule: &Schedule, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(30);
    let first = RETRY_MIN.min(schedule.every);
    first.saturating_mul(1 << doublings).min(schedule.retry_max)
}

/// A duration moved by up to a tenth, earlier or later, so that nodes that started together do not stay together.
fn moved(pause: Duration, jitter: u32) -> Duration {
    let tenth = pause / 10;
    let share = f64::from(jitter) / f64::from(u32::MAX);
    pause - tenth + (2 * tenth).mul_f64(share)
}

/// The error's beginning, as long as a list shows it.
fn cut(mut error: String) -> String {
    let mut end = ERROR_BYTES_MAX.min(error.len());
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    error.truncate(end);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    /// A random number in the middle moves nothing.
    const MIDDLE: u32 = u32::MAX / 2;

    fn at(secs: u64) -> Moment {
        Moment { elapsed: Duration::from_secs(secs), at: Timestamp(1_000_000 + secs * 1_000) }
    }

    fn pause(progress: &mut Progress, secs: u64, turn: Result<Turn, String>) -> u64 {
        progress.begin(at(secs));
        progress.end(at(secs), turn, MIDDLE);
        (progress.due() - at(secs).elapsed).as_secs_f64().round() as u64
    }

    #[test]
    fn failures_wait_longer_each_time_and_one_success_ends_that() {
        let failed = || Err("no leader".to_owned());
        let mut progress = Progress::new(Schedule::every("a", MINUTE), at(0));
        let pauses: Vec<_> = (0..8).map(|_| pause(&mut progress, 9, failed())).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!((progress.status().failures, progress.status().state), (8, State::Failing));
        assert_eq!(pause(&mut progress, 9, Ok(Turn::done())), 60);
        assert_eq!(
            (progress.status().error.as_str(), progress.status().state),
            ("", State::Waiting)
        );
        assert_eq!(pause(&mut progress, 9, failed()), 1, "the next failure is a first one");
        // A job that runs often is not slowed down by its first failure.
        let often = Schedule::every("b", Duration::from_millis(250));
        assert_eq!(retry(&often, 1), Duration::from_millis(250));
        assert_eq!(retry(&often, u32::MAX), MINUTE);
        assert_eq!(retry(&often.retry_max(Duration::from_secs(5)), u32::MAX).as_secs(), 5);
        assert_eq!(retry(&Schedule::every("c", 24 * 60 * MINUTE), u32::MAX), 60 * MINUTE);
        assert_eq!(retry(&Schedule::every("d", 10 * MINUTE), u32::MAX), 10 * MINUTE);
    }

    #[test]
    fn a_turn_says_when_the_next_one_is_due() {
        let mut progress = Progress::new(Schedule::every("a", MINUTE), at(0));
        assert_eq!(progress.due(), Duration::ZERO, "the first is due at once");
        assert_eq!(pause(&mut progress, 1, Ok(Turn::more())), 0);
        assert_eq!(pause(&mut progress, 1, Ok(Turn::after(Duration::from_secs(7)))), 7);
        assert_eq!(pause(&mut progress, 1, Ok(Turn::done())), 60);
        for (jitter, secs) in [(0, 54.0), (u32::MAX, 66.0)] {
            assert!((moved(MINUTE, jitter).as_secs_f64() - secs).abs() < 0.01);
        }
    }

    #[test]
    fn the_status_says_what_happened_and_who_runs_it() {
        let schedule = Schedule::every("a", MINUTE).on_leader();
        let mut progress = Progress::new(schedule, at(0));
        assert!(!progress.is_here(false));
        assert_eq!((progress.status().state, progress.status().due_at), (State::Standby, None));
        assert!(progress.is_here(true));
        assert_eq!(progress.status().due_at, Some(at(0).at));
        progress.begin(at(5));
        let running = progress.status();
        assert_eq!((running.state, running.due_at, running.runs), (State::Running, None, 0));
        progress.end(at(8), Ok(Turn::done().count("removed", 3).count("kept", 7)), MIDDLE);
        let status = progress.status();
        assert_eq!(status.result, "3 removed, 7 kept");
        assert_eq!(status.started_at, Some(at(5).at));
        assert_eq!(status.duration, Some(Duration::from_secs(3)));
        assert_eq!((status.succeeded_at, status.runs), (Some(at(8).at), 1));
        progress.begin(at(70));
        progress.end(at(71), Err("ä".repeat(400)), MIDDLE);
        let status = progress.status();
        assert_eq!((status.runs, status.failures), (2, 1));
        assert_eq!((status.result.as_str(), status.error.len()), ("3 removed, 7 kept", 500));
        assert_eq!(status.succeeded_at, Some(at(8).at));
    }
}
