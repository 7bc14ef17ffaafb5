//! What goes wrong, and in which order.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::{Dice, Plan};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::kernel;

/// Without a leader for longer than this nobody could call it high availability.
const WRITES_BACK_MAX: Duration = Duration::from_secs(30);

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
}

const WITHOUT_PARTITIONS: [Fault; 10] = [
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
];

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
}

impl Faults {
    pub(super) fn new(dice: Dice, partitions: bool) -> Self {
        let mut kinds = WITHOUT_PARTITIONS.to_vec();
        if partitions {
            kinds.extend(PARTITIONS);
        }
        Self { dice, kinds, done: BTreeMap::new(), writes_back: Vec::new(), memory_max: 0 }
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
            let fault = self.kinds[self.dice.below(self.kinds.len())];
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
