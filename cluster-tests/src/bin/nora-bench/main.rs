//! `nora-bench`: NORA beside other registries and nginx, over HTTP, in one run.
//!
//! Rounds are interleaved (A B C, A B C, …), each with a fresh process and an empty store, so that
//! whatever changes on the machine during the run changes for all. Only ratios within one run are
//! compared. It starts servers on loopback and ends those it started, and no others.

mod args;
mod blobs;
mod catalogue;
mod churn;
mod images;
mod reads;
mod report;
mod round;
mod samples;
mod targets;

use std::process::ExitCode;

use clap::Parser;
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::output::today;

use crate::args::{Args, Part};
use crate::report::Report;
use crate::round::Bench;
use crate::targets::{Kind, Target};

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nora-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Measures and reports; says whether every exchange went well.
fn run(args: Args) -> Result<bool> {
    let targets = find_targets(&args)?;
    let mut errors = Vec::new();
    let mut bench = Bench::new(args)?;
    let rounds = bench.args.rounds;
    let once = [Part::Catalogue, Part::Churn];
    let needs_rounds = bench.args.parts.iter().any(|part| !once.contains(part));
    for round in 1..=if needs_rounds { rounds } else { 0 } {
        for target in &targets {
            let what = format!("round {round} of {rounds}, {}", target.kind.name());
            attempt(&what, &mut errors, || bench.round(target));
        }
    }
    if bench.args.has(Part::Catalogue) {
        for target in &targets {
            let name = target.kind.name();
            if bench.args.manifest_targets.iter().any(|wanted| wanted == name) {
                let what = format!("many manifests, {name}");
                attempt(&what, &mut errors, || catalogue::run(&mut bench, target));
            }
        }
    }
    if bench.args.has(Part::Churn)
        && let Some(target) = targets.iter().find(|target| target.kind == Kind::Nora)
    {
        attempt("manifests pushed and deleted", &mut errors, || churn::run(&mut bench, target));
    }
    let kinds: Vec<Kind> = targets.iter().map(|target| target.kind).collect();
    let report = Report {
        args: &bench.args,
        kinds: &kinds,
        samples: &bench.samples,
        errors: &errors,
        date: today(),
    };
    bench.args.output.publish(&report.markdown(), &report.json())?;
    Ok(errors.is_empty())
}

fn attempt(what: &str, errors: &mut Vec<String>, work: impl FnOnce() -> Result<()>) {
    eprintln!("{what}");
    if let Err(error) = work() {
        eprintln!("  {error}");
        errors.push(format!("{what}: {error}"));
    }
}

fn find_targets(args: &Args) -> Result<Vec<Target>> {
    for name in &args.manifest_targets {
        if !Kind::parse(name)?.takes_pushes() {
            return Err(Error::Wrong(format!("{name} takes no pushes: it cannot be filled")));
        }
    }
    let mut targets = Vec::new();
    for name in &args.targets {
        let kind = Kind::parse(name)?;
        match Target::find(kind, args) {
            Some(target) => targets.push(target),
            None => eprintln!("{name} is not installed and is left out"),
        }
    }
    if targets.is_empty() {
        return Err(Error::Wrong("none of the targets is installed".into()));
    }
    Ok(targets)
}
