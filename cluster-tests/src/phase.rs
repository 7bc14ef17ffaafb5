//! One timed phase: waiting for a quiet machine, watching the server meanwhile, many clients at
//! once.

use std::sync::Barrier;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::kernel::{self, Processors};

/// Others who use less than this do not disturb.
const QUIET: f64 = 0.15;
const QUIET_WINDOW: Duration = Duration::from_millis(500);
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// What was seen of server and machine during a phase.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observed {
    /// How many processors others used, in the mean.
    pub others: f64,
    /// The server's highest resident memory in MB; `None` where the kernel does not let it be
    /// reset.
    pub peak: Option<f64>,
    /// The server's highest private memory in MB, of samples taken every 20 ms.
    pub peak_private: f64,
}

/// Waits until others use little of the machine, or `limit`; returns what they used last.
pub fn wait_quiet(limit: Duration, pids: &[u32]) -> f64 {
    let started = Instant::now();
    loop {
        let before = Processors::read(pids);
        thread::sleep(QUIET_WINDOW);
        let others = before.others_until(&Processors::read(pids));
        if others < QUIET || started.elapsed() >= limit {
            return others;
        }
    }
}

/// Does `work` on the quiet machine and watches the server `pid` meanwhile.
pub fn observe<T>(
    quiet_limit: Duration,
    pid: u32,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Observed)> {
    let pids = kernel::tree(pid);
    let before_it = wait_quiet(quiet_limit, &pids);
    let resets = kernel::reset_peak(&pids);
    let (done, finished) = channel::<()>();
    let started = Instant::now();
    let before = Processors::read(&pids);
    let (result, peak_private) = thread::scope(|scope| {
        let server = &pids;
        let sampler = scope.spawn(move || {
            let mut highest = kernel::anonymous(server);
            while finished.recv_timeout(SAMPLE_EVERY) == Err(RecvTimeoutError::Timeout) {
                highest = highest.max(kernel::anonymous(server));
            }
            highest
        });
        let result = work();
        drop(done);
        (result, sampler.join().unwrap_or_default())
    });
    // The kernel counts in ticks of 10 ms: over a short phase the window before it tells more.
    let during = before.others_until(&Processors::read(&pids));
    let others = if started.elapsed() < QUIET_WINDOW { before_it } else { during };
    let peak = resets.then(|| kernel::memory(&pids).peak);
    Ok((result?, Observed { others, peak, peak_private }))
}

/// Runs `work` in `count` threads at once, each on what it has prepared for itself, and returns the
/// results in the threads' order with the time from when all were prepared until the last was done.
pub fn together<P, T: Send>(
    count: usize,
    prepare: impl Fn(usize) -> Result<P> + Sync,
    work: impl Fn(usize, P) -> Result<T> + Sync,
) -> Result<(Vec<T>, Duration)> {
    let prepared_all = Barrier::new(count + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|at| {
                let (prepare, work, prepared_all) = (&prepare, &work, &prepared_all);
                scope.spawn(move || {
                    // Whoever fails must still arrive, or the others would wait for ever.
                    let prepared = prepare(at);
                    prepared_all.wait();
                    work(at, prepared?)
                })
            })
            .collect();
        prepared_all.wait();
        let started = Instant::now();
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Error::Wrong("a client panicked".into())))
            })
            .collect();
        let elapsed = started.elapsed();
        Ok((results.into_iter().collect::<Result<Vec<T>>>()?, elapsed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_a_failed_preparation_fails_all() {
        let (results, elapsed) = together(4, Ok, |at, prepared| Ok((at, prepared))).unwrap();
        assert_eq!(results, [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert!(elapsed < Duration::from_secs(10));
        let prepare = |at| {
            if at == 2 { Err(Error::Wrong("two".into())) } else { Ok(()) }
        };
        let failed = together(4, prepare, |_, ()| Ok(()));
        assert_eq!(failed.unwrap_err().to_string(), "two");
    }

    #[test]
    fn the_peak_of_private_memory_is_seen() {
        let allocate = || {
            let held = vec![1u8; 64 << 20];
            thread::sleep(SAMPLE_EVERY * 4);
            Ok(held.iter().map(|byte| usize::from(*byte)).sum::<usize>())
        };
        let (sum, seen) = observe(Duration::ZERO, std::process::id(), allocate).unwrap();
        assert_eq!(sum, 64 << 20);
        assert!(seen.peak_private > 64.0, "{seen:?}");
        assert!(seen.peak.is_none_or(|peak| peak > 64.0), "{seen:?}");
    }
}
