//! What goes wrong, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Dice, Plan};
use crate::cluster::Cluster;
use crate::error::{During, Error, Result};
use crate::http::Connection;
use crate::kernel;

/// Without a leader for longer than this nobody could call it high availability.
const WRITES_BACK_MAX: Duration = Duration::from_secs(30);
/// How long a scrub of a small store may take to find what was damaged.
const MENDED_MAX: Duration = Duration::from_secs(60);

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL of any node.
    Kill,
    /// SIGKILL of the leader.
    KillLeader,
    /// SIGKILL of two nodes at once: no quorum for a while.
    KillTwo,
    /// SIGTERM, and a start.
    Restart,
    /// SIGSTOP for a while.
    Pause,
    /// SIGSTOP of the leader.
    PauseLeader,
    /// The leader neither hears nor is heard.
    IsolateLeader,
    /// A node is heard by nobody, and hears.
    Mute,
    /// A node hears nobody, and is heard.
    Deafen,
    /// Two nodes are cut off from each other; the third hears both.
    Bridge,
    /// A share of all packets is lost.
    Loss,
    /// Leadership is handed over.
    Transfer,
    /// A snapshot is made.
    Snapshot,
    /// SIGKILL of all nodes at once.
    KillAll,
    /// A node's fsync is slow.
    SlowSync,
    /// A node's wall clock is off by up to two hours.
    ClockStep,
    /// A bit flips in one copy of a blob.
    FlippedBit,
    /// A node joins, votes, is drained and removed.
    Churn,
}

const WITHOUT_PARTITIONS: [Fault; 12] = [
    Fault::Kill,
    Fault::Kill,
    Fault::KillLeader,
    Fault::KillLeader,
    Fault::KillTwo,
    Fault::Restart,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::Transfer,
    Fault::Snapshot,
    Fault::KillAll,
    Fault::FlippedBit,
];

const WITH_FAULT_LIBRARY: [Fault; 4] =
    [Fault::SlowSync, Fault::SlowSync, Fault::ClockStep, Fault::ClockStep];

/// Of so many faults one is [`Fault::Churn`], which takes longer than others.
const CHURN_EVERY: usize = 60;

const PARTITIONS: [Fault; 7] = [
    Fault::IsolateLeader,
    Fault::IsolateLeader,
    Fault::Mute,
    Fault::Deafen,
    Fault::Bridge,
    Fault::Bridge,
    Fault::Loss,
];

/// The faults of a run.
pub struct Faults {
    dice: Dice,
    kinds: Vec<Fault>,
    /// How many of each kind there were.
    pub done: BTreeMap<Fault, usize>,
    /// From the loss of a leader to the next acknowledged write, in milliseconds.
    pub writes_back: Vec<u64>,
    /// The most memory that any node had, in bytes.
    pub memory_max: u64,
    /// Blobs of which one copy was damaged: no second one is, or nothing whole might be left.
    flipped: BTreeSet<String>,
}

/// What rots on a disk is found by scrubbing: asks for it, and waits until the copy is set aside or whole again.
fn await_mended(
    cluster: &Cluster,
    number: usize,
    path: &Path,
    offset: u64,
    whole: u8,
) -> Result<()> {
    use std::os::unix::fs::FileExt;
    cluster.scrub(number)?;
    let begun = Instant::now();
    let mut byte = [0];
    while let Ok(file) = File::open(path) {
        if file.read_at(&mut byte, offset).is_ok() && byte[0] == whole {
            return Ok(());
        }
        if begun.elapsed() > MENDED_MAX {
            let who = number + 1;
            return Err(Error::Wrong(format!(
                "node {who} did not find its damaged copy in {MENDED_MAX:?}"
            )));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

impl Faults {
    pub(super) fn new(dice: Dice, partitions: bool, fault_library: bool) -> Self {
        let mut kinds = WITHOUT_PARTITIONS.to_vec();
        if partitions {
            kinds.extend(PARTITIONS);
        }
        if fault_library {
            kinds.extend(WITH_FAULT_LIBRARY);
        }
        Self {
            dice,
            kinds,
            done: BTreeMap::new(),
            writes_back: Vec::new(),
            memory_max: 0,
            flipped: BTreeSet::new(),
        }
    }

    /// Faults that were injected.
    pub fn count(&self) -> usize {
        self.done.values().sum()
    }

    pub(super) fn run(
        &mut self,
        cluster: &mut Cluster,
        plan: &Plan,
        started: Instant,
    ) -> Result<()> {
        while self.count() < plan.faults && started.elapsed() < plan.limit {
            let fault = match self.dice.below(CHURN_EVERY) {
                0 => Fault::Churn,
                _ => self.kinds[self.dice.below(self.kinds.len())],
            };
            self.inject(cluster, fault)?;
            *self.done.entry(fault).or_default() += 1;
            if self.count().is_multiple_of(50) {
                eprintln!("{} faults after {:.0} s", self.count(), started.elapsed().as_secs_f64());
            }
            for number in 0..cluster.len() {
                cluster.restart(number)?;
            }
            for number in 0..cluster.len() {
                cluster.wait_ready(number)?;
                if let Some(memory) = cluster.pid(number).and_then(kernel::resident_bytes) {
                    self.memory_max = self.memory_max.max(memory);
                }
            }
            thread::sleep(self.dice.millis(20, 150));
        }
        Ok(())
    }

    fn leader(&mut self, cluster: &Cluster) -> usize {
        cluster.leader().unwrap_or_else(|| self.dice.below(cluster.len()))
    }

    fn inject(&mut self, cluster: &mut Cluster, fault: Fault) -> Result<()> {
        let any = self.dice.below(cluster.len());
        let other = (any + 1 + self.dice.below(cluster.len() - 1)) % cluster.len();
        let hold = self.dice.millis(100, 1200);
        match fault {
            Fault::Kill => cluster.kill(any),
            Fault::KillTwo => {
                cluster.kill(any);
                cluster.kill(other);
                thread::sleep(hold / 4);
            }
            Fault::KillLeader => {
                let leader = self.leader(cluster);
                cluster.kill(leader);
                self.await_write(cluster, leader)?;
            }
            Fault::KillAll => (0..cluster.len()).for_each(|number| cluster.kill(number)),
            Fault::SlowSync => {
                cluster.disturb(any, 0, self.dice.millis(10, 400))?;
                thread::sleep(hold * 2);
                cluster.disturb(any, 0, Duration::ZERO)?;
            }
            Fault::ClockStep => {
                let off = 7_200_000 - self.dice.below(14_400_000) as i64;
                cluster.disturb(any, off, Duration::ZERO)?;
                thread::sleep(hold);
                cluster.disturb(any, 0, Duration::ZERO)?;
            }
            Fault::FlippedBit => self.flip_bit(cluster, any)?,
            Fault::Churn => {
                let number = cluster.add()?;
                cluster.wait_voters(number + 1)?;
                thread::sleep(hold);
                cluster.withdraw_last()?;
            }
            Fault::Restart => {
                cluster.stop(any)?;
            }
            Fault::Pause | Fault::PauseLeader => {
                let paused = if fault == Fault::Pause { any } else { self.leader(cluster) };
                cluster.pause(paused);
                thread::sleep(hold);
                cluster.resume(paused);
            }
            Fault::IsolateLeader => {
                let leader = self.leader(cluster);
                cluster.mute(leader)?;
                cluster.deafen(leader)?;
                self.await_write(cluster, leader)?;
                cluster.heal()?;
            }
            Fault::Mute | Fault::Deafen | Fault::Bridge | Fault::Loss => {
                match fault {
                    Fault::Mute => cluster.mute(any)?,
                    Fault::Deafen => cluster.deafen(any)?,
                    Fault::Bridge => cluster.cut(any, other)?,
                    _ => cluster.lose(0.15)?,
                }
                thread::sleep(hold * 2);
                cluster.heal()?;
            }
            // These ask for what may be refused in the middle of other things; that is no fault.
            Fault::Transfer => drop(cluster.admin(&["transfer-leader"])),
            Fault::Snapshot => drop(cluster.admin(&["snapshot"])),
        }
        Ok(())
    }

    /// Damages one copy of a blob on a node's disk, if it has one that is whole everywhere.
    fn flip_bit(&mut self, cluster: &Cluster, number: usize) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let mut files = cluster.blob_files(number);
        files.retain(|path| !self.flipped.contains(&digest_in(path)));
        let Some(path) = files.get(self.dice.below(files.len())) else { return Ok(()) };
        let step = || format!("damage {}", path.display());
        let file = File::options().read(true).write(true).open(path).during(step)?;
        let length = file.metadata().during(step)?.len();
        let offset = self.dice.roll() % length.max(1);
        let mut byte = [0];
        if file.read_at(&mut byte, offset).during(step)? == 1 {
            let whole = byte[0];
            byte[0] ^= 1 << self.dice.below(8);
            file.write_all_at(&byte, offset).during(step)?;
            self.flipped.insert(digest_in(path));
            drop(file);
            await_mended(cluster, number, path, offset, whole)?;
        }
        Ok(())
    }

    /// Measures how long the others take to acknowledge a write without `lost`.
    fn await_write(&mut self, cluster: &Cluster, lost: usize) -> Result<()> {
        let begun = Instant::now();
        let mut to = lost;
        while begun.elapsed() < WRITES_BACK_MAX {
            to = (to + 1) % cluster.len();
            if to == lost {
                continue;
            }
            // An upload session that is closed again: a proposal, and nothing that stays.
            let path = "/v2/chaos/probe/blobs/uploads/?digest=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
            let written = Connection::open_within(cluster.node(to).http, Duration::from_secs(5))
                .and_then(|mut connection| connection.exchange("POST", path, &[], &[]));
            if written.is_ok_and(|answer| answer.head.status == 201) {
                let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.writes_back.push(millis);
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let who = lost + 1;
        Err(Error::Wrong(format!("no write for {WRITES_BACK_MAX:?} after node {who} was lost")))
    }
}

/// The digest that a blob's file is named after.
fn digest_in(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}
