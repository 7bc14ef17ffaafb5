//! A cluster under faults, clients that go on meanwhile, and a judge of what they saw.
//!
//! Guarantees: the same seed gives the same faults in the same order (not at the same instants: processes are real); every
//! violation is told with the moment and what was seen. What it judges: tags are linearizable; what was acknowledged can be
//! pulled from every node afterwards; a manifest whose blobs were acknowledged is never refused for them; writes come back
//! after a leader is lost; memory stays bounded; a tenant stays within its quota and a revoked token is refused; states of one
//! position are equal on all nodes; and at the end every node's data passes `nora check`.

mod callers;
mod clients;
mod faults;
mod images;
mod journal;
mod report;
pub mod states;
mod times;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use callers::Callers;
pub use faults::{Fault, Faults};
pub use journal::Journal;
pub use report::Report;
use times::Times;

use crate::bucket::Bucket;
use crate::cluster::{Cluster, Setup};
use crate::error::{During, Result};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program under test.
    pub program: PathBuf,
    /// Where nodes keep their data.
    pub work: PathBuf,
    /// From which all choices are made.
    pub seed: u64,
    /// Faults to inject.
    pub faults: usize,
    /// No fault begins after so long.
    pub limit: Duration,
    /// Nodes.
    pub nodes: usize,
    /// Clients.
    pub clients: usize,
    /// Whether packets can be dropped.
    pub partitions: bool,
    /// The program of an S3 server, if blobs are to be there.
    pub s3: Option<PathBuf>,
    /// The only kinds of fault to inject; all that are possible if there is none.
    pub only: Vec<Fault>,
}

/// Numbers from a seed: SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end.max(1) as u64).unwrap_or(0)
    }

    /// A time between these.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll() % (to - from).max(1))
    }
}

/// Snapshots come often, so that nodes which were away get one, and what goes wrong is told.
const CONFIG: &str =
    "[cluster]\nsnapshot_entries = 2000\nkeep_entries = 300\n[log]\nlevel = \"warn\"\n";

/// Runs a plan.
pub fn run(plan: &Plan) -> Result<Report> {
    let started = Instant::now();
    let bucket = match &plan.s3 {
        Some(program) => Some(Bucket::start(program, &plan.work)?),
        None => None,
    };
    let config = plan.work.join("nora.toml");
    let text = format!("{CONFIG}{}", bucket.as_ref().map_or("", Bucket::config));
    std::fs::write(&config, &text).during(|| format!("write {}", config.display()))?;
    let mut cluster = Cluster::start(&Setup {
        program: plan.program.clone(),
        work: plan.work.clone(),
        nodes: plan.nodes,
        users: plan.partitions,
        faults: true,
        args: vec!["--config".into(), config.to_string_lossy().into_owned()],
    })?;
    let addresses: Vec<_> = (0..plan.nodes).map(|number| cluster.node(number).http).collect();
    let journal = Arc::new(Journal::new(addresses));
    clients::prepare(&journal)?;
    // Until nodes are a cluster they are open: whether they are one is told by metrics.
    std::fs::write(&config, format!("{text}{}{}", callers::policy(), times::policy()))
        .during(|| format!("write {}", config.display()))?;
    let admin = cluster.administrator();
    admin.run("policy", &["apply", "--yes", "--config", &config.to_string_lossy()])?;
    let times = Arc::new(Times::new(admin.clone(), cluster.node(0).http)?);
    let callers = Arc::new(Callers::new(admin)?);
    let over = Arc::new(AtomicBool::new(false));
    let dice =
        |client: u64| Dice::new(plan.seed ^ (client + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
    let mut clients: Vec<_> = (0..plan.clients)
        .map(|client| {
            let (journal, over) = (journal.clone(), over.clone());
            let dice = dice(client as u64);
            thread::spawn(move || clients::run(&journal, dice, &over))
        })
        .collect();
    clients.push({
        let (callers, journal, over) = (callers.clone(), journal.clone(), over.clone());
        let dice = dice(plan.clients as u64);
        thread::spawn(move || callers.run(&journal, dice, &over))
    });
    clients.push({
        let (times, journal, over) = (times.clone(), journal.clone(), over.clone());
        let dice = dice(plan.clients as u64 + 1);
        thread::spawn(move || times.run(&journal, dice, &over))
    });
    let mut faults = Faults::new(plan, cluster.has_fault_library(), bucket);
    let injected = faults.run(&mut cluster, plan, &journal, started);
    // Whatever was found must not leave packets dropped or processes stopped behind.
    if plan.partitions {
        cluster.heal()?;
    }
    over.store(true, Ordering::Release);
    for client in clients {
        if client.join().is_err() {
            journal.violation("a client panicked".to_owned());
        }
    }
    // What could not go on is judged all the same.
    if let Err(error) = injected {
        journal.violation(format!("the run ended early: {error}"));
    }
    for number in 0..cluster.len() {
        cluster.restart(number)?;
        cluster.wait_ready(number)?;
    }
    faults.compare(&mut cluster, &journal)?;
    journal.judge_tags();
    journal.judge_pulls();
    callers.judge(&journal);
    times.judge(&journal);
    for number in 0..cluster.len() {
        cluster.stop(number)?;
    }
    for number in 0..cluster.len() {
        if let Err(error) = cluster.check(number) {
            journal.violation(error.to_string());
        }
    }
    Ok(Report::new(plan, &faults, &journal, started.elapsed()))
}
