//! Some processes watched while something else happens: their memory, and what others did meanwhile.
//!
//! Peaks begin anew when the watch begins, if the kernel allows it. A process that ends meanwhile
//! counts with what was seen of it before. Knows nothing of what the processes are.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::kernel::{self, Processors};

const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// Processes that are watched.
pub struct Watch {
    pids: Vec<u32>,
    before: Processors,
    done: Sender<()>,
    sampler: JoinHandle<Vec<Peak>>,
}

/// The highest memory of a process, in MB (10^6 bytes).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Peak {
    /// Resident, with the pages of mapped files.
    pub resident: f64,
    /// Private, of samples taken every 50 ms.
    pub private: f64,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// How many processors others than these processes and this one used, in the mean.
    pub others: f64,
    /// In the order of the processes.
    pub peaks: Vec<Peak>,
}

impl Watch {
    /// Begins, with peaks of its own.
    pub fn start(pids: Vec<u32>) -> Self {
        kernel::reset_peak(&pids);
        Self::start_without_reset(pids)
    }

    /// Begins; resident peaks are those since each process started, or was last watched.
    pub fn start_without_reset(pids: Vec<u32>) -> Self {
        let (done, finished) = channel::<()>();
        let watched = pids.clone();
        let sampler = thread::spawn(move || {
            let mut peaks = vec![Peak::default(); watched.len()];
            loop {
                for (peak, pid) in peaks.iter_mut().zip(&watched) {
                    peak.private = peak.private.max(kernel::anonymous(&[*pid]));
                    peak.resident = peak.resident.max(kernel::high_water(*pid));
                }
                if finished.recv_timeout(SAMPLE_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return peaks;
                }
            }
        });
        let before = Processors::read(&pids);
        Self { pids, before, done, sampler }
    }

    /// Ends, and tells.
    pub fn finish(self) -> Seen {
        let others = self.before.others_until(&Processors::read(&self.pids));
        drop(self.done);
        let mut peaks = self.sampler.join().unwrap_or_default();
        for (peak, pid) in peaks.iter_mut().zip(&self.pids) {
            peak.resident = peak.resident.max(kernel::high_water(*pid));
        }
        Seen { others, peaks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_process_is_seen_and_one_that_is_gone_is_nothing() {
        let watch = Watch::start(vec![std::process::id(), u32::MAX]);
        let held = vec![1u8; 64 << 20];
        thread::sleep(SAMPLE_EVERY * 4);
        assert_eq!(held.iter().map(|byte| usize::from(*byte)).sum::<usize>(), 64 << 20);
        let seen = watch.finish();
        assert!(seen.peaks[0].private > 64.0 && seen.peaks[0].resident > 64.0, "{seen:?}");
        assert_eq!(seen.peaks[1], Peak::default());
    }
}
