//! What the Linux kernel says about processes: memory, its peak, and who used the processors.
//!
//! Everything is read from `/proc`. A process that ends while it is read counts as using nothing:
//! these figures describe a server that lives, and its absence is reported by who speaks to it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

/// A process and all that it started, the process first.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut children = BTreeMap::<u32, Vec<u32>>::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = stat(id).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        found.extend(children.remove(&found[at]).unwrap_or_default());
        at += 1;
    }
    found
}

/// The memory of some processes, in MB (10^6 bytes).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Memory {
    /// Resident: private memory and the mapped file pages that are in memory.
    pub resident: f64,
    /// Resident, with every shared page divided by the number of processes that map it; `None` if
    /// unreadable.
    pub proportional: Option<f64>,
    /// Private anonymous memory: resident without mapped files.
    pub anonymous: f64,
    /// The highest `resident` since the process started or [`reset_peak`].
    pub peak: f64,
}

/// The memory of these processes together. The peak is the sum of their peaks, so an upper bound.
pub fn memory(pids: &[u32]) -> Memory {
    let mut total = Memory { proportional: Some(0.0), ..Memory::default() };
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        total.resident += kib_field(&status, "VmRSS:").unwrap_or_default();
        total.anonymous += kib_field(&status, "RssAnon:").unwrap_or_default();
        total.peak += kib_field(&status, "VmHWM:").unwrap_or_default();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        total.proportional = total.proportional.zip(kib_field(&rollup, "Pss:")).map(|(a, b)| a + b);
    }
    total
}

/// The private memory of these processes in MB: cheap enough to be sampled many times a second.
pub fn anonymous(pids: &[u32]) -> f64 {
    pids.iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .filter_map(|status| kib_field(&status, "RssAnon:"))
        .sum()
}

/// The highest resident memory of a process in MB, since it started or [`reset_peak`]; 0 once it has
/// ended.
pub fn high_water(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kib_field(&status, "VmHWM:").unwrap_or_default()
}

/// Lets the peaks of these processes start again from now. Says whether the kernel allowed it for
/// all of them.
pub fn reset_peak(pids: &[u32]) -> bool {
    pids.iter().all(|pid| fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok())
}

/// Processor time up to one moment.
#[derive(Debug, Clone, Copy)]
pub struct Processors {
    at: Instant,
    busy_s: f64,
    ours_s: f64,
}

impl Processors {
    /// Reads the machine's time and that of this process, its finished children and these living
    /// ones.
    pub fn read(pids: &[u32]) -> Self {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        let own = stat(std::process::id()).map_or(0.0, |f| sum(&f, 11..15));
        let living = pids.iter().filter_map(|pid| stat(*pid)).map(|f| sum(&f, 11..13));
        Self {
            at: Instant::now(),
            busy_s: busy_ticks(&machine) / ticks,
            ours_s: (own + living.sum::<f64>()) / ticks,
        }
    }

    /// How many processors everybody else used between `self` and `later`, in the mean.
    pub fn others_until(&self, later: &Self) -> f64 {
        let elapsed = (later.at - self.at).as_secs_f64();
        let others = (later.busy_s - self.busy_s) - (later.ours_s - self.ours_s);
        if elapsed > 0.0 { (others / elapsed).max(0.0) } else { 0.0 }
    }
}

/// The first processor's model, and how many there are.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores, {model}")
}

/// The fields of `/proc/PID/stat` after the command's name, which may itself hold spaces and
/// brackets.
fn stat(pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = line.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn sum(fields: &[String], range: std::ops::Range<usize>) -> f64 {
    fields.get(range).unwrap_or_default().iter().filter_map(|f| f.parse::<f64>().ok()).sum()
}

/// Busy ticks of all processors: user, nice, system, irq, softirq, steal. Guests are counted in
/// user already.
fn busy_ticks(stat: &str) -> f64 {
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> =
        first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum()
}

/// A field of a `/proc` table, given in KiB there, as MB.
fn kib_field(table: &str, name: &str) -> Option<f64> {
    let line = table.lines().find(|line| line.starts_with(name))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// Resident memory of one process, in bytes; `None` once it has ended.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_table_is_read_in_mb() {
        let table = "Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n";
        assert_eq!(kib_field(table, "VmRSS:"), Some(1.024));
        assert_eq!(kib_field(table, "Pss:"), None);
    }

    #[test]
    fn idle_and_guest_time_are_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 1"), 63.0);
        assert_eq!(busy_ticks(""), 0.0);
    }

    #[test]
    fn this_process_has_memory_and_a_peak_no_smaller() {
        let now = memory(&[std::process::id()]);
        assert!(now.resident > 0.5 && now.anonymous > 0.0 && now.peak >= now.anonymous, "{now:?}");
    }

    #[test]
    fn a_child_is_in_its_parents_tree() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let found = tree(std::process::id());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(found[0], std::process::id());
        assert!(found.contains(&child.id()), "{found:?}");
        assert!(!tree(std::process::id()).contains(&child.id()));
    }

    #[test]
    fn others_are_what_the_machine_did_without_us() {
        let at = Instant::now();
        let first = Processors { at, busy_s: 10.0, ours_s: 4.0 };
        let after = std::time::Duration::from_secs(2);
        let later = Processors { at: at + after, busy_s: 13.0, ours_s: 6.0 };
        assert_eq!(first.others_until(&later), 0.5);
        assert_eq!(first.others_until(&first), 0.0);
    }
}
