//! What a Raft group costs that has nothing to do: `cargo run --release -p nora-cluster --example groups -- 1 10 100`.
//!
//! Each group has three members, all of them in this process, with stores of their own and connections over the loopback.
//! After each number of groups it prints a member's resident memory, what a group sends, and what of a processor it takes.
//! Run it on a machine that is otherwise quiet: all traffic of the loopback counts.

use std::time::Duration;

#[allow(dead_code, clippy::unwrap_used, reason = "it belongs to the tests, which need more of it")]
#[path = "../tests/it/trio.rs"]
mod trio;

use trio::Trio;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const MEMBERS: usize = 3;

/// How long idle groups are watched.
const SPAN: Duration = Duration::from_secs(20);

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Failure> {
    let counts = std::env::args().skip(1).map(|count| count.parse::<usize>());
    let mut counts = counts.collect::<Result<Vec<_>, _>>()?;
    counts.sort_unstable();
    let empty = Reading::now()?;
    let mut groups = Vec::new();
    println!("groups  KiB/member  packets/s  bytes/s  processor");
    for count in counts {
        while groups.len() < count {
            groups.push(Trio::three(|_| {}));
        }
        // What the start of the last group left to do is done by then.
        std::thread::sleep(SPAN / 4);
        let before = Reading::now()?;
        std::thread::sleep(SPAN);
        let after = Reading::now()?;
        let each = |total: u64| total as f64 / count as f64 / SPAN.as_secs_f64();
        println!(
            "{count:6}  {:10}  {:9.1}  {:7.0}  {:8.2}%",
            (after.resident_kib - empty.resident_kib) / (count * MEMBERS) as u64,
            each(after.packets - before.packets),
            each(after.bytes - before.bytes),
            each(after.processor_millis - before.processor_millis) / 10.0,
        );
    }
    Ok(())
}

/// What this process takes, and what passed the loopback.
struct Reading {
    resident_kib: u64,
    packets: u64,
    bytes: u64,
    processor_millis: u64,
}

impl Reading {
    fn now() -> Result<Self, Failure> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident_kib = number(resident.unwrap_or_default(), 0)?;
        let devices = std::fs::read_to_string("/proc/net/dev")?;
        let loopback = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
        let loopback = loopback.unwrap_or_default();
        let (bytes, packets) = (number(loopback, 0)?, number(loopback, 1)?);
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // Behind the name: the 12th and 13th are ticks of a hundredth of a second, for itself and for the system.
        let stat = stat.rsplit(')').next().unwrap_or_default();
        let ticks = number(stat, 11)? + number(stat, 12)?;
        Ok(Self { resident_kib, packets, bytes, processor_millis: ticks * 10 })
    }
}

fn number(words: &str, at: usize) -> Result<u64, Failure> {
    Ok(words.split_whitespace().nth(at).ok_or("a word is missing")?.parse()?)
}
