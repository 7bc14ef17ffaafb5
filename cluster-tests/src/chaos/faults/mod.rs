//! What goes wrong, and in which order.

mod disks;
mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

pub use kinds::Fault;

use super::journal::Journal;
use super::{Dice, Plan, states};
use crate::bucket::Bucket;
use crate::cluster::{Cluster, Disturbance};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::kernel;
use crate::proxy::Trouble;

/// Without a leader for longer than this nobody could call it high availability.
const WRITES_BACK_MAX: Duration = Duration::from_secs(30);
/// How long one write may take.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// A push of an empty blob, which is there already: proposals, and nothing that stays.
const EMPTY_BLOB: &str = "/v2/chaos/probe/blobs/uploads/?digest=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// More entries than a log keeps behind a snapshot.
const FAR_BEHIND: usize = 2_500;
const WRITERS: usize = 16;
const GROW_MAX: Duration = Duration::from_secs(20);
/// How long to wait for a snapshot to be sent.
const SNAPSHOT_MAX: Duration = Duration::from_secs(8);
/// The states of all nodes are compared after so many faults.
const COMPARE_EVERY: usize = 25;
/// How far behind a clock may be: certificates are backdated by an hour, and what is not valid yet makes no cluster.
const BEHIND_MAX: Duration = Duration::from_secs(50 * 60);
/// How far ahead.
const AHEAD_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// How far ahead at an election.
const AHEAD_AT_ELECTION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How far off with S3, which refuses requests that are dated fifteen minutes from its own clock.
const OFF_FROM_S3_MAX: Duration = Duration::from_secs(10 * 60);

/// A clock that is off.
fn wrong_clock(dice: &mut Dice, behind_max: Duration, ahead_max: Duration) -> Disturbance {
    let millis = |time: Duration| usize::try_from(time.as_millis()).unwrap_or(0);
    let off = dice.below(millis(behind_max + ahead_max));
    let clock_millis = off as i64 - millis(behind_max) as i64;
    Disturbance { clock_millis, ..Disturbance::default() }
}

/// The faults of a run.
pub struct Faults {
    dice: Dice,
    /// What may come, each kind as often as its weight says.
    kinds: Vec<Fault>,
    first: Vec<Fault>,
    /// What may come two at once.
    possible: Vec<Fault>,
    bucket: Option<Bucket>,
    /// How many of each kind there were.
    pub done: BTreeMap<Fault, usize>,
    /// From the loss of a leader to the next acknowledged write, in milliseconds.
    pub writes_back: Vec<u64>,
    /// The most memory that any node had, in bytes.
    pub memory_max: u64,
    /// Kills that did come in the middle of a snapshot.
    pub in_snapshot: usize,
    /// What power cuts took, in bytes.
    pub lost_bytes: u64,
    /// Of nodes whose metadata rotted, how many refused to start, and how many served.
    pub refused: usize,
    /// See [`Self::refused`].
    pub served: usize,
    /// From a new start without a disk until every acknowledged blob was there again, in milliseconds.
    pub restored: Vec<u64>,
    /// How often each fault came while another one lasted: the lasting one first.
    pub pairs: BTreeMap<(Fault, Fault), usize>,
    /// How often the states of all nodes at one position were compared.
    pub compared: usize,
    /// Blobs of which one copy was damaged: no second one is, or nothing whole might be left.
    flipped: BTreeSet<String>,
    /// Whether it is judged that writes come back: not while more than a minority may be out.
    is_judged: bool,
    /// Whether a node may have stopped by itself.
    may_have_ended: bool,
}

impl Faults {
    pub(super) fn new(plan: &Plan, fault_library: bool, bucket: Option<Bucket>) -> Self {
        let mut dice = Dice::new(plan.seed);
        let mut kinds = Fault::value_variants().to_vec();
        kinds.retain(|kind| {
            (plan.only.is_empty() || plan.only.contains(kind))
                && kind.is_possible(plan, fault_library)
        });
        let mut pairs = Fault::value_variants().to_vec();
        pairs.retain(|kind| kind.is_possible(plan, fault_library));
        // Each kind comes once before any comes again.
        let mut first = kinds.clone();
        for at in (1..first.len()).rev() {
            first.swap(at, dice.below(at + 1));
        }
        Self {
            dice,
            kinds: kinds.into_iter().flat_map(|kind| vec![kind; kind.weight()]).collect(),
            first,
            possible: pairs,
            bucket,
            done: BTreeMap::new(),
            writes_back: Vec::new(),
            memory_max: 0,
            in_snapshot: 0,
            lost_bytes: 0,
            refused: 0,
            served: 0,
            restored: Vec::new(),
            pairs: BTreeMap::new(),
            compared: 0,
            flipped: BTreeSet::new(),
            is_judged: true,
            may_have_ended: false,
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
        journal: &Journal,
        started: Instant,
    ) -> Result<()> {
        if self.kinds.is_empty() {
            return Err(Error::Wrong("none of these faults is possible here".into()));
        }
        while self.count() < plan.faults && started.elapsed() < plan.limit {
            let next = self.first.pop();
            let fault = next.unwrap_or_else(|| self.kinds[self.dice.below(self.kinds.len())]);
            let any = self.dice.below(cluster.len());
            self.inject(cluster, journal, fault, any)?;
            *self.done.entry(fault).or_default() += 1;
            if self.count().is_multiple_of(50) {
                eprintln!("{} faults after {:.0} s", self.count(), started.elapsed().as_secs_f64());
            }
            self.settle(cluster)?;
            states::judge_differences(cluster, journal);
            if self.count().is_multiple_of(COMPARE_EVERY) {
                self.compare(cluster, journal)?;
            }
            thread::sleep(self.dice.millis(20, 150));
        }
        Ok(())
    }

    /// Starts what does not run, and waits until all nodes are ready.
    fn settle(&mut self, cluster: &mut Cluster) -> Result<()> {
        for number in 0..cluster.len() {
            cluster.restart(number)?;
        }
        for number in 0..cluster.len() {
            // Without a log it can write to, a node ends rather than vote.
            match self.may_have_ended {
                true => cluster.recover(number)?,
                false => cluster.wait_ready(number).map(drop)?,
            }
            if let Some(memory) = cluster.pid(number).and_then(kernel::resident_bytes) {
                self.memory_max = self.memory_max.max(memory);
            }
        }
        self.may_have_ended = false;
        Ok(())
    }

    /// Compares the states of all nodes.
    pub(super) fn compare(&mut self, cluster: &mut Cluster, journal: &Journal) -> Result<()> {
        let compared = states::compare(cluster, journal, states::at_rest)?;
        self.compared += usize::from(compared);
        Ok(())
    }

    fn leader(&mut self, cluster: &Cluster) -> usize {
        cluster.leader().unwrap_or_else(|| self.dice.below(cluster.len()))
    }

    fn inject(
        &mut self,
        cluster: &mut Cluster,
        journal: &Journal,
        fault: Fault,
        any: usize,
    ) -> Result<()> {
        let other = (any + 1 + self.dice.below(cluster.len() - 1)) % cluster.len();
        let hold = self.dice.millis(100, 1200);
        match fault {
            lasting if lasting.lasts() => {
                self.begin(cluster, lasting, any, other)?;
                thread::sleep(hold * 2);
                self.end(cluster, lasting, any)?;
            }
            Fault::Pair => self.pair(cluster, journal, any, other)?,
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
            Fault::ClockElection => self.step_clocks_at_election(cluster, hold)?,
            Fault::KillAll => (0..cluster.len()).for_each(|number| cluster.kill(number)),
            Fault::PowerCut => {
                cluster.kill(any);
                self.lost_bytes += cluster.lose_unsynced(any)?;
            }
            Fault::PowerCutAll => {
                (0..cluster.len()).for_each(|number| cluster.kill(number));
                for number in 0..cluster.len() {
                    self.lost_bytes += cluster.lose_unsynced(number)?;
                }
            }
            Fault::KillInSnapshot => self.kill_in_snapshot(cluster, any)?,
            Fault::FlippedBit => self.flip_bit(cluster, any)?,
            Fault::DiskLost => self.lose_disk(cluster, journal, any)?,
            Fault::Rot => self.rot(cluster, journal, any, other)?,
            Fault::Churn => {
                let number = cluster.add()?;
                cluster.wait_voters(number + 1)?;
                thread::sleep(hold);
                cluster.withdraw_last()?;
            }
            Fault::Restart => {
                cluster.stop(any)?;
            }
            Fault::PauseLeader => {
                let paused = self.leader(cluster);
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
            // These ask for what may be refused in the middle of other things; that is no fault.
            Fault::Transfer => drop(cluster.admin(&["transfer-leader"])),
            Fault::Snapshot => drop(cluster.admin(&["snapshot"])),
            _ => {}
        }
        Ok(())
    }

    /// Begins a fault that lasts.
    fn begin(&mut self, cluster: &Cluster, fault: Fault, any: usize, other: usize) -> Result<()> {
        match fault {
            Fault::SlowSync => {
                let sync = self.dice.millis(10, 400);
                cluster.disturb(any, Disturbance { sync, ..Disturbance::default() })
            }
            Fault::ClockStep => cluster.disturb(any, self.wrong_clock(AHEAD_MAX)),
            Fault::FullDisk => {
                self.may_have_ended = true;
                cluster.disturb(any, Disturbance { disk_full: true, ..Disturbance::default() })
            }
            Fault::Delay => {
                cluster.trouble(any, Trouble::Delay(self.dice.millis(5, 200)));
                Ok(())
            }
            Fault::Reset => {
                cluster.trouble(any, Trouble::Cut);
                Ok(())
            }
            Fault::Pause => {
                cluster.pause(any);
                Ok(())
            }
            Fault::Mute => cluster.mute(any),
            Fault::Deafen => cluster.deafen(any),
            Fault::Bridge => cluster.cut(any, other),
            Fault::Loss => cluster.lose(0.15),
            Fault::S3Overload | Fault::S3LostAnswers | Fault::S3Down | Fault::S3Slow => {
                if let Some(bucket) = &self.bucket {
                    bucket.trouble(match fault {
                        Fault::S3Overload => Trouble::Overload,
                        Fault::S3LostAnswers => Trouble::LoseAnswers,
                        Fault::S3Down => Trouble::Cut,
                        _ => Trouble::Delay(Duration::from_millis(50)),
                    });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Ends a fault that lasts.
    fn end(&mut self, cluster: &Cluster, fault: Fault, any: usize) -> Result<()> {
        match fault {
            Fault::SlowSync | Fault::ClockStep | Fault::FullDisk => {
                cluster.disturb(any, Disturbance::default())?;
            }
            Fault::Delay | Fault::Reset => cluster.trouble(any, Trouble::None),
            Fault::Pause => cluster.resume(any),
            Fault::Mute | Fault::Deafen | Fault::Bridge | Fault::Loss => cluster.heal()?,
            _ => {
                if let Some(bucket) = &self.bucket {
                    bucket.trouble(Trouble::None);
                }
            }
        }
        Ok(())
    }

    /// One fault lasts, and another comes and goes meanwhile, on the same node or another one.
    fn pair(
        &mut self,
        cluster: &mut Cluster,
        journal: &Journal,
        any: usize,
        other: usize,
    ) -> Result<()> {
        let choose = |dice: &mut Dice, kinds: Vec<Fault>| {
            kinds.get(dice.below(kinds.len())).copied().unwrap_or(Fault::Kill)
        };
        let kinds = |fits: &dyn Fn(Fault) -> bool| -> Vec<Fault> {
            self.possible.iter().copied().filter(|kind| fits(*kind)).collect()
        };
        let firsts = kinds(&Fault::lasts);
        let first = choose(&mut self.dice, firsts);
        let seconds: Vec<_> =
            self.possible.iter().copied().filter(|kind| kind.can_join(first)).collect();
        let second = choose(&mut self.dice, seconds);
        let at = if self.dice.below(2) == 0 { any } else { other };
        // While no majority is there, or the bucket cannot be reached, nobody can acknowledge a push.
        self.is_judged = !(first.takes_out() && second.takes_out()) && first != Fault::S3Down;
        self.begin(cluster, first, any, other)?;
        thread::sleep(self.dice.millis(50, 400));
        let injected = self.inject(cluster, journal, second, at);
        thread::sleep(self.dice.millis(50, 400));
        self.end(cluster, first, any)?;
        self.is_judged = true;
        *self.pairs.entry((first, second)).or_default() += 1;
        injected
    }

    /// A clock that is off by as much as blobs' storage lets it be.
    fn wrong_clock(&mut self, ahead_max: Duration) -> Disturbance {
        match self.bucket {
            Some(_) => wrong_clock(&mut self.dice, OFF_FROM_S3_MAX, OFF_FROM_S3_MAX),
            None => wrong_clock(&mut self.dice, BEHIND_MAX, ahead_max),
        }
    }

    /// The next leader has a clock that is off. The nodes that elect it may have one too.
    fn step_clocks_at_election(&mut self, cluster: &mut Cluster, hold: Duration) -> Result<()> {
        let leader = self.leader(cluster);
        for number in (0..cluster.len()).filter(|number| *number != leader) {
            cluster.disturb(number, self.wrong_clock(AHEAD_AT_ELECTION_MAX))?;
        }
        cluster.kill(leader);
        self.await_write(cluster, leader)?;
        cluster.restart(leader)?;
        thread::sleep(hold);
        for number in 0..cluster.len() {
            cluster.disturb(number, Disturbance::default())?;
        }
        Ok(())
    }

    /// Lets a node fall so far behind that it is sent a snapshot, and kills it, or the sender, in the middle of that.
    fn kill_in_snapshot(&mut self, cluster: &mut Cluster, number: usize) -> Result<()> {
        cluster.kill(number);
        let other = (number + 1) % cluster.len();
        grow_log(cluster.node(other).http, FAR_BEHIND)?;
        let leader = self.leader(cluster);
        cluster.admin_at(leader, &["snapshot"])?;
        // Slow, so that there is a middle.
        cluster.trouble(number, Trouble::Delay(Duration::from_millis(20)));
        cluster.restart(number)?;
        let begun = Instant::now();
        while !cluster.takes_snapshot(number) && begun.elapsed() < SNAPSHOT_MAX {
            thread::sleep(Duration::from_millis(2));
        }
        if cluster.takes_snapshot(number) {
            self.in_snapshot += 1;
        }
        let killed = match self.dice.below(2) {
            0 => number,
            _ => self.leader(cluster),
        };
        cluster.kill(killed);
        cluster.trouble(number, Trouble::None);
        Ok(())
    }

    /// Measures how long the others take to acknowledge a write without `lost`.
    fn await_write(&mut self, cluster: &Cluster, lost: usize) -> Result<()> {
        if !self.is_judged {
            return Ok(());
        }
        let begun = Instant::now();
        let mut to = lost;
        while begun.elapsed() < WRITES_BACK_MAX {
            to = (to + 1) % cluster.len();
            if to == lost {
                continue;
            }
            let written = Connection::open_within(cluster.node(to).http, WRITE_MAX)
                .and_then(|mut connection| connection.exchange("POST", EMPTY_BLOB, &[], &[]));
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

/// Writes until the log has grown by so many entries at least, or a while is over; several writers at once.
fn grow_log(address: SocketAddr, entries: usize) -> Result<()> {
    let (begun, written) = (Instant::now(), AtomicUsize::new(0));
    let write = || -> Result<()> {
        let mut connection = Connection::open_within(address, WRITE_MAX)?;
        while written.load(Ordering::Relaxed) < entries && begun.elapsed() < GROW_MAX {
            let answer = connection.exchange("POST", EMPTY_BLOB, &[], &[])?;
            // Anything else is a cluster that has no leader just now.
            if answer.head.status == 201 {
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        // One whose connection broke is no loss: there are others.
        let ended: Vec<_> = writers.into_iter().filter_map(|writer| writer.join().ok()).collect();
        ended.into_iter().find(Result::is_ok).unwrap_or(Ok(()))
    })
}
