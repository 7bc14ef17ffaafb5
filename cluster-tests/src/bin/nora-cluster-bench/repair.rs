//! A node is lost with its disk and another one takes its place: how long until no blob is short.
//!
//! The cluster is filled, a follower is killed, its data removed, and it is taken out of the
//! cluster. The clock runs from the start of the fresh node until its disk has every blob; that no
//! node misses any is then awaited from the nodes' own counts, which are made once a minute. Some blobs are then pulled from it and compared.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nora_cluster_tests::cluster::metric;
use nora_cluster_tests::content::{LargeBlob, Source};
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::folder::remove;
use nora_cluster_tests::phase::{together, wait_quiet};
use nora_cluster_tests::registry::Registry;
use nora_cluster_tests::watch::Watch;

use crate::bench::{Bench, Running, record_memory, wait_for};
use crate::report::{Measure, Table, Unit};

const REPOSITORY: &str = "bench/repair";
const FILLERS: usize = 6;
const COPIES_LIMIT: Duration = Duration::from_secs(600);
const REPAIR_LIMIT: Duration = Duration::from_secs(3600);
/// Counts are made once a minute.
const COUNT_LIMIT: Duration = Duration::from_secs(180);
const VERIFIED_MAX: usize = 8;

/// An empty table of this part.
pub fn table() -> Table {
    Table::new("A node is lost and replaced", &["nora"])
}

/// Measures.
pub fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let args = &bench.args;
    let source = Source::new(args.repair_blob_mib << 20)?;
    let count = args.repair_mib.div_ceil(args.repair_blob_mib);
    let bytes = (count * args.repair_blob_mib) << 20;
    let mut running = bench.cluster("repair", 3, None)?;
    let watch = Watch::start(running.pids());
    let (blobs, took) = fill(&running, &source, count)?;
    running.wait_blobs(&[0, 1, 2], count, COPIES_LIMIT)?;
    let seen = watch.finish();
    table.others(seen.others);
    table.add(0, Measure::new("blobs", Unit::Count), count as f64);
    table.add(0, Measure::new("all of them", Unit::Mb), bytes as f64 / 1e6);
    let rate = bytes as f64 / 1e6 / took.as_secs_f64();
    table.add(0, Measure::new("filling", Unit::MbPerS), rate);
    running.record(table, 0, "filling", &seen)?;

    // Administration uses the first node's identity: another one is lost.
    let leader = running.leader()?;
    let lost = if leader == 2 { 1 } else { 2 };
    lose(&mut running, lost)?;
    wait_quiet(args.output.wait_quiet(), &running.pids());
    let watch = Watch::start(running.pids());
    let started = Instant::now();
    let fresh = running.cluster.add()?;
    let ready = started.elapsed();
    running.wait_blobs(&[fresh], count, REPAIR_LIMIT)?;
    let took = started.elapsed();
    let seen = watch.finish();
    table.others(seen.others);
    table.add(0, Measure::new("fresh node: ready", Unit::S), ready.as_secs_f64());
    table.add(0, Measure::new("until no blob is short", Unit::S), took.as_secs_f64());
    let rate = bytes as f64 / 1e6 / took.as_secs_f64();
    table.add(0, Measure::new("copied", Unit::MbPerS), rate);
    // The fresh node counts from its start, as one more follower.
    let mut peaks = seen.peaks;
    let pid = running.cluster.pid(fresh).into_iter().collect();
    peaks.extend(Watch::start_without_reset(pid).finish().peaks);
    let living: Vec<_> = (0..running.cluster.len()).filter(|number| *number != lost).collect();
    let now = running.leader()?;
    let at = living.iter().position(|number| *number == now).unwrap_or(0);
    record_memory(table, 0, "repair", &peaks, at);

    let wanted = i64::try_from(count).unwrap_or(i64::MAX);
    wait_for(COUNT_LIMIT, "every blob counted on every node", || {
        let counted = |number: &usize| {
            let addr = running.cluster.node(*number).http;
            metric(addr, "nora_blobs_held") == Some(wanted)
                && metric(addr, "nora_blobs_missing") == Some(0)
        };
        living.iter().all(counted).then_some(())
    })?;
    let mut registry = Registry::open(running.cluster.node(fresh).http)?;
    for blob in blobs.iter().take(VERIFIED_MAX) {
        registry.verify_blob(REPOSITORY, &blob.digest, &source.parts(blob))?;
    }
    running.end()
}

/// Pushes so many blobs to all nodes at once.
fn fill(running: &Running, source: &Source, count: usize) -> Result<(Vec<LargeBlob>, Duration)> {
    let addrs = running.spread(FILLERS);
    let next = AtomicUsize::new(0);
    let (blobs, took) = together(
        FILLERS,
        |at| Registry::open(addrs[at]),
        |_, mut registry: Registry| {
            let mut pushed = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let blob = source.large_blob();
                registry.push_blob(REPOSITORY, &blob.digest, &source.parts(&blob))?;
                pushed.push(blob);
            }
            Ok(pushed)
        },
    )?;
    Ok((blobs.into_iter().flatten().collect(), took))
}

/// Kills a node, removes its data and takes it out of the cluster.
fn lose(running: &mut Running, number: usize) -> Result<()> {
    let address = running.cluster.node(number).peer.to_string();
    running.cluster.kill(number);
    remove(&running.dir.join(format!("node{}", number + 1)))?;
    let said = running.cluster.admin(&["members", "-o", "json"])?;
    let members: serde_json::Value = serde_json::from_str(&said)
        .map_err(|error| Error::Wrong(format!("nora cluster members: {error}")))?;
    let mut members = members.as_array().into_iter().flatten();
    let id = members
        .find(|member| member["cluster_address"] == address.as_str())
        .and_then(|member| member["node"].as_u64())
        .ok_or_else(|| Error::Wrong(format!("{address} is no member: {said}")))?;
    // By force, because it is not away for long enough yet. All blobs have two more copies.
    running.cluster.admin(&["remove", &id.to_string(), "--force", "--yes"]).map(|_| ())
}
