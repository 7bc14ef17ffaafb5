//! `nora-identity`: who may do what, shown on a real cluster of three nodes with real issuers.
//!
//! Each check prints a line, and the last line counts them; the exit code tells whether any failed. What a check is
//! about stands at the head of its module.

mod audit;
mod clock;
mod exchange;
mod limits;
mod outage;
mod policy;
mod quota;
mod revocation;
mod rotation;
mod secrets;
mod spread;
mod stage;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use nora_cluster_tests::issuer::{Fault, Issuer};

use stage::{Issuers, NODES, Stage, Step};

/// Checks of identity on a real cluster.
#[derive(Debug, Parser)]
struct Args {
    /// The program under test.
    #[arg(long, env = "NORA_BIN")]
    nora: PathBuf,
    /// Only checks whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Images that are pushed through changing nodes.
    #[arg(long, default_value_t = 300)]
    images: usize,
    /// Where nodes keep their data, which stays; a folder that is removed again without it.
    #[arg(long)]
    work: Option<PathBuf>,
}

/// What came out.
struct Report {
    only: String,
    passed: usize,
    failed: usize,
}

impl Report {
    /// Runs a check and prints how it went.
    async fn check(&mut self, name: &str, check: impl Future<Output = Step<String>>) {
        if !name.contains(&self.only) {
            return;
        }
        let began = Instant::now();
        let line = match check.await {
            Ok(told) => {
                self.passed += 1;
                format!("ok     {name}: {told}")
            }
            Err(trouble) => {
                self.failed += 1;
                format!("FAILED {name}: {}", trouble.0)
            }
        };
        let _ = writeln!(std::io::stdout(), "{line} ({:.1} s)", began.elapsed().as_secs_f64());
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("nora-identity: {}", trouble.0);
            ExitCode::FAILURE
        }
    }
}

fn issuer(fault: Fault) -> Step<Issuer> {
    let issuer = Issuer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    issuer.set_fault(fault)?;
    Ok(issuer)
}

fn issuers() -> Step<Issuers> {
    let faults = [
        ("down", Fault::Down),
        ("slow", Fault::Slow(Duration::from_secs(30))),
        ("unavailable", Fault::Unavailable),
        ("empty", Fault::EmptyKeys),
        ("liar", Fault::LiesAboutIssuer("https://else.example.com".into())),
        ("weak", Fault::LiesAboutAlgorithms),
    ];
    let mut faulty = BTreeMap::new();
    for (name, fault) in faults {
        faulty.insert(name, issuer(fault)?);
    }
    let (github, fresh) = (issuer(Fault::None)?, issuer(Fault::None)?);
    Ok(Issuers { github, fresh, faulty })
}

fn run(args: &Args) -> Step<bool> {
    let work = match &args.work {
        Some(work) => work.clone(),
        None => std::env::temp_dir().join(format!("nora-identity-{}", std::process::id())),
    };
    std::fs::create_dir_all(&work)?;
    let work = work.canonicalize()?;
    let stage = Stage::start(&args.nora.canonicalize()?, &work, issuers()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report { only: args.only.clone(), passed: 0, failed: 0 };
    runtime.block_on(checks(&stage, &mut report, args.images))?;
    let Report { passed, failed, .. } = report;
    if failed == 0 && args.work.is_none() {
        drop(stage);
        std::fs::remove_dir_all(&work)?;
    } else {
        eprintln!("the nodes' logs and data are in {}", work.display());
    }
    writeln!(std::io::stdout(), "{passed} passed, {failed} failed")?;
    Ok(failed == 0 && passed > 0)
}

async fn checks(stage: &Stage, report: &mut Report, images: usize) -> Step<()> {
    for robot in ["load", "reader", "boss"] {
        stage.add_account(robot, &[], None).await?;
    }
    let load = stage.token("robot:load", "load").await?;
    let reader = stage.token("robot:reader", "reader").await?;
    let boss = stage.token("robot:boss", "boss").await?;
    let mut there = Vec::new();
    report.check("quota", quota::holds(stage, &load, &mut there)).await;
    report.check("quota frees", quota::frees(stage, &load, &there)).await;
    report.check("quota tells", quota::tells(stage, &load)).await;
    report.check("limits", limits::hold(stage, &load)).await;
    report.check("revocation of a token", revocation::of_a_token(stage)).await;
    report.check("revocation of a session", revocation::of_a_session(stage)).await;
    report.check("revocation of a user", revocation::of_a_user(stage)).await;
    report.check("revocation by a new password", revocation::by_password(stage)).await;
    report.check("exchange", exchange::works(stage)).await;
    report.check("exchange once", exchange::works_once(stage)).await;
    report.check("exchange race", exchange::one_of_many(stage)).await;
    report.check("exchange is bound to its rule", exchange::is_bound(stage)).await;
    report.check("exchange refuses", exchange::refuses(stage)).await;
    report.check("exchange with unknown keys", exchange::unknown_keys(stage)).await;
    report.check("exchange with bad issuers", exchange::bad_issuers(stage)).await;
    report.check("exchange without the issuer", exchange::issuer_gone(stage)).await;
    report.check("policy refused whole", policy::refused_whole(stage)).await;
    report.check("policy in force", policy::in_force(stage, &reader)).await;
    report.check("immutable tag", policy::immutable(stage, &load)).await;
    report.check("deleted blobs", policy::deleted_blobs(stage, &load)).await;
    report.check("images over all nodes", spread::over_all_nodes(stage, &load, images)).await;
    report.check("clock of a node is wrong", clock::of_a_node_is_wrong(stage, &load)).await;
    report.check("leader lost", outage::leader_lost(stage, &load)).await;
    report.check("audit of refusals", audit::refusals(stage, &reader)).await;
    report.check("audit counts once", audit::counts_once(stage)).await;
    report.check("audit is whole", audit::is_whole(stage)).await;
    report.check("secrets", secrets::stay(stage, &boss)).await;
    // Last: the clients of the checks before show certificates that this one ends.
    report.check("authority rotated", rotation::under_load(stage, &load)).await;
    for node in 0..NODES {
        stage.cluster().stop(node)?;
    }
    Ok(())
}
