//! Acknowledged writes: tags put into NORA beside keys put into etcd, by the same numbers of clients.
//!
//! Clients are spread over all three nodes, wait for each answer, and never write the same name
//! twice. Both keep their defaults, so that both sync what they acknowledge, and both have a fresh
//! store in every round. Our generator is one thread for either.

use nora_cluster_tests::error::Result;
use nora_cluster_tests::folder::fresh;
use nora_cluster_tests::load::{Outcome, drive};
use nora_cluster_tests::registry::Registry;

use crate::bench::{Bench, clients, push_blobs, record_memory};
use crate::etcd::{self, Etcd};
use crate::report::{Bar, Measure, Table, Unit};
use crate::tags::Tags;

const ETCD: usize = 0;
const NORA: usize = 1;
const REPOSITORY: &str = "bench/writes";

/// An empty table of this part.
pub fn table() -> Table {
    Table::new("Acknowledged writes, three nodes", &["etcd", "nora"])
}

/// Measures.
pub fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let (version, sharing) = (etcd::version(&bench.args)?, bench.args.etcd_sharing);
    table.note(format!("{version}, over gRPC, up to {sharing} clients a connection."));
    for round in 1..=bench.args.rounds {
        eprintln!("  round {round} of {}", bench.args.rounds);
        put_keys(bench, table, round == 1 && bench.args.check_perf)?;
        put_tags(bench, table)?;
    }
    Ok(())
}

fn put_keys(bench: &Bench, table: &mut Table, check_perf: bool) -> Result<()> {
    let args = &bench.args;
    let etcd = Etcd::start(args, &fresh(&args.work_dir, "etcd")?)?;
    for count in &args.write_clients {
        let write = || etcd.put(*count, args);
        let (outcome, seen) = bench.observe(table, etcd.pids(), write)?;
        record(table, ETCD, *count, &outcome);
        record_memory(table, ETCD, &clients(*count), &seen.peaks, etcd.leader()?);
    }
    if check_perf {
        table.note(format!("etcdctl check perf --load l: {}.", etcd.check_perf(args)?));
    }
    etcd.end()
}

fn put_tags(bench: &Bench, table: &mut Table) -> Result<()> {
    let args = &bench.args;
    let running = bench.cluster("writes", 3, None)?;
    let image = bench.source.image();
    push_blobs(running.http()[0], REPOSITORY, &image)?;
    let mut next = 0;
    for count in &args.write_clients {
        let addrs = running.spread(*count);
        let mut tags =
            Tags { repository: REPOSITORY, manifest: &image.manifest, addrs: &addrs, next };
        let write = || drive(&addrs, args.duration(), &mut tags);
        let (outcome, seen) = bench.observe(table, running.pids(), write)?;
        record(table, NORA, *count, &outcome);
        running.record(table, NORA, &clients(*count), &seen)?;
        next = tags.next;
        // What was asked last may not have been answered; what was asked before all of that was.
        let acknowledged = format!("t{}", next.saturating_sub(*count as u64 + 1));
        for addr in running.http() {
            let mut registry = Registry::open(addr)?;
            registry.verify_manifest(REPOSITORY, &acknowledged, &image.manifest)?;
        }
    }
    running.end()
}

fn record(table: &mut Table, column: usize, count: usize, outcome: &Outcome) {
    let title = clients(count);
    let rate = Measure::new(title.clone(), Unit::PerS).bar(Bar::Times(1.0));
    table.add(column, rate, outcome.per_second);
    for per_cent in [50.0, 99.0] {
        let measure = Measure::new(format!("{title}: p{per_cent}"), Unit::Ms);
        table.add(column, measure, outcome.latencies.percentile_ms(per_cent));
    }
}
