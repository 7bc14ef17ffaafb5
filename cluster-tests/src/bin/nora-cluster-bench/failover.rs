//! The leader dies (SIGKILL): how long until each of the others acknowledges a write again.
//!
//! A client at each of the other nodes writes without pause from the moment of the kill, over a
//! connection that was open before. The killed node is started again before the next kill, and must
//! then show what was acknowledged meanwhile.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nora_cluster_tests::cluster::{is_ready, metric};
use nora_cluster_tests::content::Image;
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::http::Connection;
use nora_cluster_tests::registry::{Registry, manifest_path};
use nora_cluster_tests::stats::{Latencies, micros};
use nora_cluster_tests::watch::Watch;

use crate::bench::{Bench, Running, push_blobs, wait_for};
use crate::report::{Measure, Table, Unit};

const REPOSITORY: &str = "bench/failover";
/// Nobody waits longer for a write.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// An empty table of this part.
pub fn table() -> Table {
    Table::new("The leader dies", &["nora"])
}

/// Measures.
pub fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let mut running = bench.cluster("failover", 3, None)?;
    let image = bench.source.image();
    push_blobs(running.http()[0], REPOSITORY, &image)?;
    let (mut each, mut last) = (Vec::new(), Vec::new());
    for kill in 1..=bench.args.failovers {
        let settled = || settled(&running).then_some(());
        wait_for(LIMIT, "a settled cluster", settled)?;
        let took = fail(&mut running, &image, kill)?;
        each.extend(took.iter().map(|elapsed| micros(*elapsed)));
        last.extend(took.iter().max().map(|elapsed| micros(*elapsed)));
    }
    // Nodes begin anew after each kill: what is seen here is a cluster that has settled again.
    let settle = || settled(&running).then_some(());
    wait_for(LIMIT, "a settled cluster", settle)?;
    let seen = Watch::start(running.pids()).finish();
    table.add(0, Measure::new("leaders killed", Unit::Count), bench.args.failovers as f64);
    record(table, "until another node acknowledges a write", each);
    record(table, "until both do", last);
    running.record(table, 0, "", &seen)?;
    running.end()
}

fn record(table: &mut Table, title: &str, samples: Vec<u32>) {
    let latencies = Latencies::from_micros(samples);
    for (name, per_cent) in [("median", 50.0), ("p95", 95.0), ("longest", 100.0)] {
        let measure = Measure::new(format!("{title}: {name}"), Unit::Ms);
        table.add(0, measure, latencies.percentile_ms(per_cent));
    }
}

/// Whether all nodes are ready and none lags.
fn settled(running: &Running) -> bool {
    let Some(leader) = running.cluster.leader() else { return false };
    let addrs = running.http();
    addrs.iter().all(|addr| is_ready(*addr))
        && metric(addrs[leader], "nora_raft_lag_entries") == Some(0)
}

/// Kills the leader and starts it again; how long each of the others took.
fn fail(running: &mut Running, image: &Image, kill: usize) -> Result<Vec<Duration>> {
    let leader = running.leader()?;
    let addrs = running.http();
    let others: Vec<SocketAddr> =
        addrs.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, addr)| *addr).collect();
    let mut writers = Vec::new();
    for (at, addr) in others.iter().enumerate() {
        let mut connection = Connection::open_within(*addr, LIMIT)?;
        put(&mut connection, &format!("before-{kill}-{at}"), image)?;
        writers.push((*addr, connection));
    }
    let killed = Instant::now();
    running.cluster.kill(leader);
    let acknowledged = thread::scope(|scope| {
        let writing: Vec<_> = writers
            .into_iter()
            .enumerate()
            .map(|(at, (addr, connection))| {
                scope
                    .spawn(move || write(addr, connection, &format!("f{kill}-{at}"), image, killed))
            })
            .collect();
        writing
            .into_iter()
            .map(|thread| {
                let done = thread.join();
                done.unwrap_or_else(|_| Err(Error::Wrong("a writer panicked".into())))
            })
            .collect::<Result<Vec<_>>>()
    })?;
    running.cluster.restart(leader)?;
    running.cluster.wait_ready(leader)?;
    for at in 0..others.len() {
        let mut registry = Registry::open(addrs[leader])?;
        registry.verify_manifest(REPOSITORY, &format!("f{kill}-{at}"), &image.manifest)?;
    }
    Ok(acknowledged)
}

/// Writes until a write is acknowledged; the time since the kill.
fn write(
    addr: SocketAddr,
    mut connection: Connection,
    tag: &str,
    image: &Image,
    killed: Instant,
) -> Result<Duration> {
    loop {
        let Err(error) = put(&mut connection, tag, image) else {
            return Ok(killed.elapsed());
        };
        // Refused for now, or the outcome is unknown; anything else went wrong.
        let for_now = match &error {
            Error::Status { status, .. } => matches!(status, 429 | 500..=599),
            _ => true,
        };
        if !for_now || killed.elapsed() > LIMIT {
            return Err(error);
        }
        thread::sleep(PAUSE);
        if !matches!(error, Error::Status { .. }) {
            connection = Connection::open_within(addr, LIMIT)?;
        }
    }
}

fn put(connection: &mut Connection, tag: &str, image: &Image) -> Result<()> {
    let path = manifest_path(REPOSITORY, tag);
    let headers = [("Content-Type", nora_cluster_tests::content::MANIFEST_TYPE)];
    connection.expect(201, "PUT", &path, &headers, &[&image.manifest]).map(|_| ())
}
