//! A fresh node joins a cluster with many manifests: how long until it votes, and what that takes.
//!
//! The cluster is filled over HTTP, by many connections to all nodes. The log does not reach back to
//! the beginning, so that the fresh node gets a snapshot: that it has one is checked, and so is a
//! manifest that it then answers. Pushes go on at a steady rate while it joins.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nora_cluster_tests::cluster::metric;
use nora_cluster_tests::content::Image;
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::folder::bytes_below;
use nora_cluster_tests::load::drive;
use nora_cluster_tests::phase::{together, wait_quiet};
use nora_cluster_tests::registry::Registry;
use nora_cluster_tests::server::{Server, free_address};
use nora_cluster_tests::watch::Watch;

use crate::bench::{Bench, Running, push_blobs, record_memory, wait_for};
use crate::report::{Bar, Measure, Table, Unit};
use crate::tags::{Catalogue, repository};

const A_REPOSITORY: usize = 1000;
const PREPARERS: usize = 24;
/// Filling with a million takes minutes, not hours.
const FILL_LIMIT: Duration = Duration::from_secs(3600);
const JOIN_LIMIT: Duration = Duration::from_secs(1800);
/// A small cluster makes snapshots as often, by its size, as a large one.
const SNAPSHOTS: usize = 20;

/// An empty table of this part.
pub fn table() -> Table {
    Table::new("A fresh node joins a large catalogue", &["nora"])
}

/// Measures.
pub fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let args = &bench.args;
    let entries = (args.manifests / SNAPSHOTS).clamp(100, 50_000);
    let config =
        format!("[cluster]\nsnapshot_entries = {entries}\nkeep_entries = {}\n", entries / 10);
    let running = bench.cluster("catchup", 3, Some(&config))?;
    let image = bench.source.image();
    prepare(&running, &image, args.manifests.div_ceil(A_REPOSITORY))?;
    let addrs = running.spread(args.fill_connections);
    let mut catalogue = Catalogue {
        image: &image,
        addrs: &addrs,
        a_repository: A_REPOSITORY,
        next: 0,
        count: args.manifests,
    };
    let fill = || drive(&addrs, FILL_LIMIT, &mut catalogue);
    let (outcome, seen) = bench.observe(table, running.pids(), fill)?;
    if outcome.latencies.count() != args.manifests {
        let pushed = outcome.latencies.count();
        return Err(Error::Wrong(format!("{pushed} manifests were pushed within {FILL_LIMIT:?}")));
    }
    table.add(0, Measure::new("manifests", Unit::Count), args.manifests as f64);
    let title = format!("filling, {} connections", args.fill_connections);
    table.add(0, Measure::new(title, Unit::PerS), outcome.per_second);
    table.add(0, Measure::new("filling: p99", Unit::Ms), outcome.latencies.percentile_ms(99.0));
    running.record(table, 0, "filling", &seen)?;

    wait_quiet(args.output.wait_quiet(), &running.pids());
    let writers = Writers {
        addrs: &running.spread(WRITERS),
        image: &image,
        repositories: args.manifests.div_ceil(A_REPOSITORY),
        per_second: args.join_writes,
    };
    let (fresh, written) = writers.beside(|| join(table, &running))?;
    if let Some(written) = written {
        let bar = Bar::AtLeast(f64::from(args.join_writes) * 0.95);
        let measure = Measure::new("joining: manifests pushed meanwhile", Unit::PerS).bar(bar);
        table.add(0, measure, written.per_second);
        table.add(0, Measure::new("joining: longest push", Unit::Ms), written.longest_ms);
    }
    let last = args.manifests - 1;
    let (repository, tag) = catalogue.place(last);
    let mut registry = Registry::open(fresh.addr())?;
    registry.verify_manifest(&repository, &tag, &image.variant(last as u64))?;
    fresh.kill()?;
    running.end()
}

/// Gives every repository what its manifests refer to.
fn prepare(running: &Running, image: &Image, repositories: usize) -> Result<()> {
    let addrs = running.spread(PREPARERS);
    let numbers = |at| (at..repositories).step_by(PREPARERS);
    let work = |at: usize, ()| {
        numbers(at).try_for_each(|number| push_blobs(addrs[at], &repository(number), image))
    };
    together(PREPARERS, |_| Ok(()), work).map(|_| ())
}

/// Connections that push while a node joins.
const WRITERS: usize = 16;

/// Pushes at a steady rate.
struct Writers<'a> {
    addrs: &'a [SocketAddr],
    image: &'a Image,
    repositories: usize,
    per_second: u32,
}

/// What was pushed.
struct Written {
    per_second: f64,
    longest_ms: f64,
}

impl Writers<'_> {
    /// Pushes for as long as `work` runs; none if nothing is to be pushed.
    fn beside<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Option<Written>)> {
        if self.per_second == 0 {
            return Ok((work()?, None));
        }
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let begun = Instant::now();
            let writers: Vec<_> = (0..self.addrs.len())
                .map(|at| {
                    let ended = &ended;
                    scope.spawn(move || self.write(at, ended))
                })
                .collect();
            let done = work();
            ended.store(true, Ordering::Release);
            let took = begun.elapsed();
            let (mut count, mut longest) = (0, Duration::ZERO);
            for writer in writers {
                let of = writer.join().map_err(|_| Error::Wrong("a writer panicked".into()))??;
                count += of.0;
                longest = longest.max(of.1);
            }
            let per_second = f64::from(count) / took.as_secs_f64();
            let longest_ms = longest.as_secs_f64() * 1e3;
            Ok((done?, Some(Written { per_second, longest_ms })))
        })
    }

    /// What one connection pushes: how many manifests, and how long the slowest took.
    fn write(&self, at: usize, ended: &AtomicBool) -> Result<(u32, Duration)> {
        let mut registry = Registry::open(self.addrs[at])?;
        let every = Duration::from_secs(self.addrs.len() as u64) / self.per_second;
        let (mut due, mut count, mut longest) = (Instant::now(), 0_u32, Duration::ZERO);
        while !ended.load(Ordering::Acquire) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += every;
            let number = count as usize * self.addrs.len() + at;
            // Manifests of the catalogue have numbers below 2^40.
            let manifest = self.image.variant((1 << 40) + number as u64);
            let pushed = Instant::now();
            let repository = repository(number % self.repositories);
            registry.push_manifest(&repository, &format!("w{number}"), &manifest)?;
            longest = longest.max(pushed.elapsed());
            count += 1;
        }
        Ok((count, longest))
    }
}

fn join(table: &mut Table, running: &Running) -> Result<Server> {
    let leader = running.leader()?;
    let leader_addr = running.cluster.node(leader).http;
    let token = running.cluster.admin(&["join-token"])?;
    let dir = running.dir.join("fresh");
    let addr = free_address()?;
    let mut command = Command::new(running.dir.join("nora"));
    command
        .arg("serve")
        .arg("--config")
        .arg(running.dir.join("nora.toml"))
        .arg("--data-dir")
        .arg(&dir)
        .args(["--listen", &addr.to_string(), "--cluster-listen", &free_address()?.to_string()])
        .args(["--join", &running.cluster.node(0).peer.to_string()])
        .env("NORA_JOIN_TOKEN", token.trim())
        .current_dir(&running.dir);
    let watch = Watch::start(running.pids());
    let started = Instant::now();
    let log = running.dir.join("fresh.log");
    let (fresh, ready) = Server::start(command, addr, "/ready", &log, JOIN_LIMIT)?;
    wait_for(JOIN_LIMIT, "a fourth voter", || {
        (metric(leader_addr, "nora_raft_voters") == Some(4)).then_some(())
    })?;
    let votes = started.elapsed();
    let seen = watch.finish();
    table.others(seen.others);
    let snapshot = metric(addr, "nora_raft_snapshot_index").unwrap_or(0);
    if snapshot <= 0 {
        return Err(Error::Wrong("the fresh node votes without a snapshot".into()));
    }
    let bytes = bytes_below(&dir, "snapshots") as f64 / 1e6;
    table.add(0, Measure::new("fresh node: ready", Unit::S), ready.as_secs_f64());
    table.add(0, Measure::new("fresh node: votes", Unit::S), votes.as_secs_f64());
    table.add(0, Measure::new("snapshot", Unit::Mb), bytes);
    let peak = Watch::start_without_reset(vec![fresh.pid()]).finish();
    for peak in peak.peaks {
        let title = "fresh node: peak resident";
        let measure = Measure::new(title, Unit::Mb).bar(Bar::AtMost(100.0));
        table.add(0, measure, peak.resident);
    }
    record_memory(table, 0, "joining", &seen.peaks, running.leader()?);
    Ok(fresh)
}
