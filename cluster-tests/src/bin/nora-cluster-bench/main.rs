//! `nora-cluster-bench`: a cluster of three NORA nodes, measured on one machine in one run.
//!
//! Writes stand beside three members of etcd, blobs beside one node alone, reads of a follower
//! beside those of the leader; rounds are interleaved, and only ratios within one run are compared.
//! It starts servers on loopback and ends those it started, and no others.

mod args;
mod bench;
mod blobs;
mod catchup;
mod etcd;
mod failover;
mod reads;
mod relay;
mod repair;
mod report;
mod tags;
mod writes;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use nora_cluster_tests::content::Source;
use nora_cluster_tests::error::{During, Result};
use nora_cluster_tests::folder::require_room;
use nora_cluster_tests::output::today;

use crate::args::{Args, Part};
use crate::bench::Bench;
use crate::report::Table;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nora-cluster-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Measures and reports; says whether every exchange went well.
fn run(mut args: Args) -> Result<bool> {
    args.nora = args.nora.canonicalize().during(|| format!("find {}", args.nora.display()))?;
    require_room(&args.work_dir, args.bytes_needed(), "a smaller --repair-mib or --blob-mib")?;
    let source = Source::new(args.blob_mib << 20)?;
    let bench = Bench { args, source };
    let (mut tables, mut errors) = (Vec::new(), Vec::new());
    for part in &bench.args.parts {
        let started = Instant::now();
        eprintln!("{part:?}");
        let mut table = table(*part);
        if let Err(error) = measure(&bench, *part, &mut table) {
            eprintln!("  {error}");
            errors.push(format!("{part:?}: {error}"));
        }
        eprintln!("  took {:.0} s", started.elapsed().as_secs_f64());
        tables.push(table);
    }
    publish(&bench.args, &tables, &errors)?;
    Ok(errors.is_empty())
}

fn table(part: Part) -> Table {
    match part {
        Part::Writes => writes::table(),
        Part::Reads => reads::table(),
        Part::Blobs => blobs::table(),
        Part::Failover => failover::table(),
        Part::Relay => relay::table(),
        Part::Repair => repair::table(),
        Part::Catchup => catchup::table(),
    }
}

fn measure(bench: &Bench, part: Part, table: &mut Table) -> Result<()> {
    match part {
        Part::Writes => writes::run(bench, table),
        Part::Reads => reads::run(bench, table),
        Part::Blobs => blobs::run(bench, table),
        Part::Failover => failover::run(bench, table),
        Part::Relay => relay::run(bench, table),
        Part::Repair => repair::run(bench, table),
        Part::Catchup => catchup::run(bench, table),
    }
}

fn publish(args: &Args, tables: &[Table], errors: &[String]) -> Result<()> {
    let date = today();
    let settings = format!(
        "rounds: {}, phases of {} s, values of {} bytes, {} connections read, blobs of {} MiB, loopback, warm page cache.",
        args.rounds, args.seconds, args.value_bytes, args.connections, args.blob_mib
    );
    let text = report::markdown(&date, &settings, tables, errors);
    args.output.publish(&text, &report::json(&date, &settings, tables, errors))
}
