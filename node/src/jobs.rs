//! The driver of background jobs, on the tokio runtime.
//!
//! Guarantees: two turns of one job never run at once; a turn that panics counts as one that failed, and the job goes on;
//! a leader's job runs only where [`Leadership`] says so, which the driver asks before each turn; at the end, turns that
//! run get [`STOP_TIMEOUT`] and are dropped at an await point after that.
//!
//! Must not know: what any job does, or which adapters stand behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nora_app::jobs::{Job, Jobs, Moment, Place, Progress, Schedule, Status, Turn};
use nora_app::ports::BoxError;
use nora_app::ports::clock::Clock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// How long turns may go on after the driver was stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a node that does not lead looks whether it does.
const LEADER_LOOK: Duration = Duration::from_millis(500);
/// A job that goes on failing is logged once in this time.
const LOGGED_EVERY: Duration = Duration::from_secs(300);

/// Tells whether this node leads.
pub trait Leadership: Send + Sync {
    /// Whether it does now, as far as it knows.
    fn leads(&self) -> bool;
}

struct Shared {
    clock: Arc<dyn Clock>,
    leadership: Arc<dyn Leadership>,
    began: Instant,
    progress: Mutex<BTreeMap<&'static str, Arc<Mutex<Progress>>>>,
}

/// Runs jobs until it is stopped or dropped.
pub struct Driver {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Shows callers what the driver's jobs do.
#[derive(Clone)]
pub struct Overview(Arc<Shared>);

impl Driver {
    /// A driver without jobs.
    pub fn new(clock: Arc<dyn Clock>, leadership: Arc<dyn Leadership>) -> Self {
        let began = Instant::now();
        let shared = Shared { clock, leadership, began, progress: Mutex::default() };
        Self { shared: Arc::new(shared), stop: watch::Sender::new(false), tasks: JoinSet::new() }
    }

    /// A driver whose jobs stand in the same overview and end apart from these.
    pub fn another(&self) -> Self {
        let shared = self.shared.clone();
        Self { shared, stop: watch::Sender::new(false), tasks: JoinSet::new() }
    }

    /// Runs a job from now on. Its first turn is due at once.
    pub fn add(&mut self, job: Arc<dyn Job>) {
        let schedule = job.schedule();
        let progress = Arc::new(Mutex::new(Progress::new(schedule, self.shared.now())));
        locked(&self.shared.progress).insert(schedule.name, progress.clone());
        let runner = Runner { job, schedule, progress, shared: self.shared.clone(), logged: None };
        self.tasks.spawn(runner.run(self.stop.subscribe()));
    }

    /// What the jobs do.
    pub fn overview(&self) -> Overview {
        Overview(self.shared.clone())
    }

    /// Begins no more turns, and lets those that run end within [`STOP_TIMEOUT`].
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            debug!("jobs that still run are cut off");
        }
        self.tasks.shutdown().await;
    }
}

impl Jobs for Overview {
    fn list(&self) -> Vec<Status> {
        let all = locked(&self.0.progress);
        all.values().map(|progress| locked(progress).status()).collect()
    }
}

impl Shared {
    fn now(&self) -> Moment {
        Moment { elapsed: self.began.elapsed(), at: self.clock.now() }
    }
}

/// One job with its turns.
struct Runner {
    job: Arc<dyn Job>,
    schedule: Schedule,
    progress: Arc<Mutex<Progress>>,
    shared: Arc<Shared>,
    /// When a failure was last logged, if no success followed.
    logged: Option<Instant>,
}

impl Runner {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // Not more than one: dropping the set drops the turn.
        let mut turn = JoinSet::new();
        loop {
            tokio::select! {
                () = self.due() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            locked(&self.progress).begin(self.shared.now());
            let job = self.job.clone();
            turn.spawn(async move { job.turn().await });
            // A stop lets the turn end; the driver drops this task if that takes too long.
            let ended = match turn.join_next().await {
                Some(Ok(ended)) => ended.map_err(|error| causes(&error)),
                Some(Err(error)) => Err(format!("the turn did not end in order: {error}")),
                None => Err("the turn was lost".to_owned()),
            };
            self.log(&ended);
            locked(&self.progress).end(self.shared.now(), ended, jitter());
        }
    }

    /// Completes when this node is to begin a turn.
    async fn due(&self) {
        loop {
            let (is_failing, due) = {
                let progress = locked(&self.progress);
                (progress.is_failing(), self.shared.began + progress.due())
            };
            if !self.is_here() {
                tokio::time::sleep(LEADER_LOOK).await;
                continue;
            }
            let woken = async {
                match is_failing {
                    true => std::future::pending().await,
                    false => self.job.woken().await,
                }
            };
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(due) => {}
            }
            // Another node may lead by now.
            if self.is_here() {
                return;
            }
        }
    }

    /// Whether this node is the one to run the job.
    fn is_here(&self) -> bool {
        let leads = self.schedule.place == Place::Leader && self.shared.leadership.leads();
        locked(&self.progress).is_here(leads)
    }

    fn log(&mut self, ended: &Result<Turn, String>) {
        let job = self.schedule.name;
        match ended {
            Ok(turn) => {
                if self.logged.take().is_some() {
                    info!(job, "the job works again");
                }
                debug!(job, result = %turn, "turn done");
            }
            Err(error) => {
                let is_silent = self.logged.is_some_and(|at| at.elapsed() < LOGGED_EVERY);
                if is_silent {
                    debug!(job, error, "turn failed");
                    return;
                }
                warn!(job, error, "the job failed; it is tried again");
                self.logged = Some(Instant::now());
            }
        }
    }
}

/// A random number, or one in the middle if there is none.
fn jitter() -> u32 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => u32::MAX / 2,
    }
}

/// An error with its causes.
fn causes(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every use is one call that leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use nora_app::jobs::State;
    use nora_app::ports::BoxFuture;
    use nora_app::testkit::ManualClock;
    use nora_domain::Timestamp;
    use tokio::sync::{Notify, Semaphore};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// What one turn does.
    enum Act {
        Done,
        More,
        Fail,
        Panic,
        /// Waits until the test gives a permit.
        Hold,
    }

    struct Acting {
        schedule: Schedule,
        acts: Mutex<VecDeque<Act>>,
        begun: AtomicUsize,
        ended: AtomicUsize,
        at_once: AtomicUsize,
        permits: Semaphore,
        wake: Notify,
    }

    impl Acting {
        fn new(schedule: Schedule, acts: impl IntoIterator<Item = Act>) -> Arc<Self> {
            Arc::new(Self {
                schedule,
                acts: Mutex::new(acts.into_iter().collect()),
                begun: AtomicUsize::new(0),
                ended: AtomicUsize::new(0),
                at_once: AtomicUsize::new(0),
                permits: Semaphore::new(0),
                wake: Notify::new(),
            })
        }

        fn counts(&self) -> (usize, usize) {
            (self.begun.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst))
        }
    }

    impl Job for Acting {
        fn schedule(&self) -> Schedule {
            self.schedule
        }

        fn turn(&self) -> BoxFuture<'_, Result<Turn, BoxError>> {
            Box::pin(async {
                assert_eq!(self.at_once.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                self.begun.fetch_add(1, Ordering::SeqCst);
                let act = locked(&self.acts).pop_front().unwrap_or(Act::Done);
                if matches!(act, Act::Hold) {
                    self.permits.acquire().await.unwrap().forget();
                }
                self.at_once.fetch_sub(1, Ordering::SeqCst);
                self.ended.fetch_add(1, Ordering::SeqCst);
                match act {
                    Act::Done | Act::Hold => Ok(Turn::done().count("seen", 1)),
                    Act::More => Ok(Turn::more()),
                    Act::Fail => Err(BoxError::from("no disk")),
                    Act::Panic => panic!("a planted bug"),
                }
            })
        }

        fn woken(&self) -> BoxFuture<'_, ()> {
            Box::pin(self.wake.notified())
        }
    }

    #[derive(Default)]
    struct Lead(AtomicBool);

    impl Leadership for Lead {
        fn leads(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn driver(lead: &Arc<Lead>) -> Driver {
        Driver::new(Arc::new(ManualClock::at(Timestamp(7_000))), lead.clone())
    }

    /// Lets a minute and its jitter go by; time is paused.
    async fn minute() {
        tokio::time::sleep(MINUTE + MINUTE / 10).await;
    }

    fn only(driver: &Driver) -> Status {
        let mut all = driver.overview().list();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_runs_at_once_then_by_its_schedule_and_when_it_is_woken() {
        let mut driver = driver(&Arc::default());
        let job = Acting::new(Schedule::every("a", 10 * MINUTE), [Act::More, Act::Done]);
        driver.add(job.clone());
        minute().await;
        assert_eq!(job.counts(), (2, 2), "more to do is done at once");
        job.wake.notify_one();
        minute().await;
        assert_eq!(job.counts(), (3, 3));
        tokio::time::sleep(11 * MINUTE).await;
        assert_eq!(job.counts(), (4, 4));
        let status = only(&driver);
        assert_eq!((status.runs, status.failures, status.state), (4, 0, State::Waiting));
        assert_eq!((status.result.as_str(), status.started_at), ("1 seen", Some(Timestamp(7_000))));
        driver.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_two_turns_of_a_job_run_at_once_and_one_job_does_not_hold_up_another() {
        let mut driver = driver(&Arc::default());
        let slow = Acting::new(Schedule::every("slow", MINUTE), [Act::Hold]);
        let quick = Acting::new(Schedule::every("quick", MINUTE), []);
        driver.add(slow.clone());
        driver.add(quick.clone());
        for _ in 0..3 {
            slow.wake.notify_one();
            minute().await;
        }
        assert_eq!(slow.counts(), (1, 0));
        assert!(quick.counts().1 >= 3);
        let names: Vec<_> =
            driver.overview().list().iter().map(|s| (s.schedule.name, s.state)).collect();
        assert_eq!(names, [("quick", State::Waiting), ("slow", State::Running)]);
        slow.permits.add_permits(1);
        minute().await;
        assert!(slow.counts().1 >= 2, "it goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_panics_are_shown_and_the_job_goes_on() {
        let mut driver = driver(&Arc::default());
        let acts = [Act::Fail, Act::Panic, Act::Hold];
        let job = Acting::new(Schedule::every("a", 10 * MINUTE), acts);
        driver.add(job.clone());
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = only(&driver);
        assert_eq!((status.state, status.error.as_str()), (State::Failing, "no disk"));
        // A wake does not shorten the pause after a failure.
        job.wake.notify_one();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(job.counts().0, 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = only(&driver);
        assert!(status.error.contains("panic"), "{}", status.error);
        assert_eq!((status.runs, status.failures), (2, 2));
        job.permits.add_permits(1);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let status = only(&driver);
        assert_eq!((status.runs >= 3, status.failures, status.error.as_str()), (true, 2, ""));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_s_job_runs_only_while_this_node_leads() {
        let lead = Arc::new(Lead::default());
        let mut driver = driver(&lead);
        let job = Acting::new(Schedule::every("a", MINUTE).on_leader(), []);
        driver.add(job.clone());
        minute().await;
        assert_eq!((job.counts().0, only(&driver).state), (0, State::Standby));
        lead.0.store(true, Ordering::SeqCst);
        tokio::time::sleep(2 * LEADER_LOOK).await;
        assert_eq!(job.counts().0, 1, "a new leader does not wait for the next interval");
        lead.0.store(false, Ordering::SeqCst);
        job.wake.notify_one();
        minute().await;
        minute().await;
        assert_eq!((job.counts().0, only(&driver).state), (1, State::Standby));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_lets_a_turn_end_and_cuts_off_one_that_does_not() {
        let mut driver_of_two = driver(&Arc::default());
        let ends = Acting::new(Schedule::every("ends", MINUTE), [Act::Hold]);
        let hangs = Acting::new(Schedule::every("hangs", MINUTE), [Act::Hold]);
        driver_of_two.add(ends.clone());
        driver_of_two.add(hangs.clone());
        tokio::time::sleep(Duration::from_millis(1)).await;
        let began = Instant::now();
        let stopping = tokio::spawn(driver_of_two.stop());
        tokio::time::sleep(STOP_TIMEOUT / 2).await;
        ends.permits.add_permits(1);
        stopping.await.unwrap();
        assert_eq!((ends.counts(), hangs.counts()), ((1, 1), (1, 0)));
        assert!(began.elapsed() < 2 * STOP_TIMEOUT);
        hangs.permits.add_permits(1);
        minute().await;
        assert_eq!((ends.counts().0, hangs.counts()), (1, (1, 0)), "nothing runs any more");
    }
}
