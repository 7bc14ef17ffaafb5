//! Large blobs, pushed to and pulled from all three nodes at once, beside one node alone.
//!
//! Every push is a new digest. A push is acknowledged by the cluster when a majority of its copies
//! is on disk, so three nodes on one disk write it two or three times. Pulls are of what was pushed
//! and has reached all nodes; one pass of its own compares every byte.

use std::time::Duration;

use nora_cluster_tests::content::LargeBlob;
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::phase::together;
use nora_cluster_tests::registry::Registry;

use crate::bench::{Bench, Running, clients};
use crate::report::{Measure, Table, Unit};

const REPOSITORY: &str = "bench/large";
const COPIES_LIMIT: Duration = Duration::from_secs(600);

/// An empty table of this part.
pub fn table() -> Table {
    Table::new("Large blobs", &["one node", "three nodes"])
}

/// Measures.
pub fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    for round in 1..=bench.args.rounds {
        eprintln!("  round {round} of {}", bench.args.rounds);
        for (column, nodes) in [1, 3].into_iter().enumerate() {
            let running = bench.cluster("blobs", nodes, None)?;
            let mut pushed = 0;
            for count in &bench.args.blob_clients {
                let blobs = push(bench, table, column, &running, *count)?;
                pushed += blobs.len();
                let all: Vec<_> = (0..nodes).collect();
                running.wait_blobs(&all, pushed, COPIES_LIMIT)?;
                pull(bench, table, column, &running, &blobs)?;
                verify(bench, &running, &blobs)?;
            }
            running.end()?;
        }
    }
    Ok(())
}

fn push(
    bench: &Bench,
    table: &mut Table,
    column: usize,
    running: &Running,
    count: usize,
) -> Result<Vec<LargeBlob>> {
    let blobs: Vec<_> = (0..count).map(|_| bench.source.large_blob()).collect();
    let addrs = running.spread(count);
    let push = || {
        together(
            count,
            |at| Registry::open(addrs[at]),
            |at, mut registry: Registry| {
                let blob = &blobs[at];
                registry.push_blob(REPOSITORY, &blob.digest, &bench.source.parts(blob))
            },
        )
    };
    let ((_, took), seen) = bench.observe(table, running.pids(), push)?;
    record(bench, table, column, &format!("push, {}", clients(count)), count, took);
    running.record(table, column, &format!("push, {}", clients(count)), &seen)?;
    Ok(blobs)
}

fn pull(
    bench: &Bench,
    table: &mut Table,
    column: usize,
    running: &Running,
    blobs: &[LargeBlob],
) -> Result<()> {
    let count = blobs.len();
    // Each from another node than the one that took it, where there is another.
    let mut addrs = running.spread(count + 1);
    addrs.remove(0);
    let pull = || {
        together(
            count,
            |at| Registry::open(addrs[at]),
            |at, mut registry: Registry| registry.pull_blob(REPOSITORY, &blobs[at].digest),
        )
    };
    let ((lengths, took), seen) = bench.observe(table, running.pids(), pull)?;
    if lengths.iter().any(|length| *length != (bench.args.blob_mib << 20) as u64) {
        return Err(Error::Wrong(format!("blobs of {lengths:?} bytes were pulled")));
    }
    record(bench, table, column, &format!("pull, {}", clients(count)), count, took);
    running.record(table, column, &format!("pull, {}", clients(count)), &seen)
}

fn verify(bench: &Bench, running: &Running, blobs: &[LargeBlob]) -> Result<()> {
    for (addr, blob) in running.spread(blobs.len()).iter().zip(blobs) {
        let parts = bench.source.parts(blob);
        Registry::open(*addr)?.verify_blob(REPOSITORY, &blob.digest, &parts)?;
    }
    Ok(())
}

fn record(
    bench: &Bench,
    table: &mut Table,
    column: usize,
    title: &str,
    count: usize,
    took: Duration,
) {
    let rate = (count * bench.args.blob_mib) as f64 / took.as_secs_f64();
    table.add(column, Measure::new(title, Unit::MibPerS), rate);
}
