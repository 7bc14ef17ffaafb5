//! Manifest GET on the leader and on a follower: by tag, which asks the leader what it may answer,
//! and by digest.
//!
//! Every byte of every answer is checked.

use nora_cluster_tests::content::{MANIFEST_TYPE, sha256};
use nora_cluster_tests::error::Result;
use nora_cluster_tests::load::Load;
use nora_cluster_tests::registry::{Registry, manifest_path};

use crate::bench::Bench;
use crate::report::{Measure, Table, Unit};

const REPOSITORY: &str = "bench/reads";

/// An empty table of this part.
pub fn table() -> Table {
    Table::new("Manifest GET", &["leader", "follower"])
}

/// Measures.
pub fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let args = &bench.args;
    let running = bench.cluster("reads", 3, None)?;
    let image = bench.source.image();
    Registry::open(running.http()[0])?.push_image(REPOSITORY, &image)?;
    let by_tag = manifest_path(REPOSITORY, &image.tag);
    let by_digest = manifest_path(REPOSITORY, &sha256(&image.manifest));
    for round in 1..=args.rounds {
        eprintln!("  round {round} of {}", args.rounds);
        for (title, path) in [("by tag", &by_tag), ("by digest", &by_digest)] {
            for (column, number) in [running.leader()?, running.follower()?].iter().enumerate() {
                let load = Load {
                    addr: running.cluster.node(*number).http,
                    method: "GET",
                    path,
                    headers: &[("Accept", MANIFEST_TYPE)],
                    connections: args.connections,
                    duration: args.duration(),
                    content: &image.manifest,
                };
                let (outcome, seen) = bench.observe(table, running.pids(), || load.run())?;
                table.add(column, Measure::new(title, Unit::PerS), outcome.per_second);
                for per_cent in [50.0, 99.0] {
                    let measure = Measure::new(format!("{title}: p{per_cent}"), Unit::Ms);
                    table.add(column, measure, outcome.latencies.percentile_ms(per_cent));
                }
                if column == 1 {
                    running.record(table, column, title, &seen)?;
                }
            }
        }
    }
    running.end()
}
