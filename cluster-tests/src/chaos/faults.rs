//! What goes wrong, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::{Dice, Plan};
use crate::bucket::Bucket;
use crate::cluster::{Cluster, Disturbance};
use crate::error::{During, Error, Result};
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
/// How long a scrub of a small store may take to find what was damaged.
const MENDED_MAX: Duration = Duration::from_secs(60);

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL of any node.
    Kill,
    /// SIGKILL of the leader.
    KillLeader,
    /// SIGKILL of two nodes at once: no quorum for a while.
    KillTwo,
    /// SIGKILL of all nodes at once.
    KillAll,
    /// SIGKILL of a node that takes in a snapshot, or of the one that sends it.
    KillInSnapshot,
    /// SIGKILL of any node, and what it had not synced is lost.
    PowerCut,
    /// The same of all nodes at once.
    PowerCutAll,
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
    /// The way to a node is slow.
    Delay,
    /// All connections to a node break, and new ones do for a while.
    Reset,
    /// Leadership is handed over.
    Transfer,
    /// A snapshot is made.
    Snapshot,
    /// A node's fsync is slow.
    SlowSync,
    /// A node's disk is full.
    FullDisk,
    /// A node's wall clock is off by up to two hours.
    ClockStep,
    /// A bit flips in one copy of a blob.
    FlippedBit,
    /// A node joins, votes, is drained and removed.
    Churn,
    /// S3 is overloaded and says so.
    S3Overload,
    /// S3 does what it is asked, and its answer gets lost.
    S3LostAnswers,
    /// S3 cannot be reached.
    S3Down,
    /// S3 is slow.
    S3Slow,
}

impl Fault {
    /// How often it comes beside others; those that take long come less.
    fn weight(self) -> usize {
        match self {
            Self::Churn | Self::KillInSnapshot => 1,
            Self::FullDisk | Self::PowerCutAll | Self::KillAll | Self::FlippedBit => 3,
            Self::KillLeader | Self::IsolateLeader | Self::PowerCut | Self::Bridge => 8,
            _ => 4,
        }
    }

    fn needs_packets(self) -> bool {
        use Fault::{Bridge, Deafen, IsolateLeader, Loss, Mute};
        matches!(self, IsolateLeader | Mute | Deafen | Bridge | Loss)
    }

    fn needs_library(self) -> bool {
        use Fault::{ClockStep, FullDisk, PowerCut, PowerCutAll, SlowSync};
        matches!(self, ClockStep | FullDisk | PowerCut | PowerCutAll | SlowSync)
    }

    fn needs_bucket(self) -> bool {
        use Fault::{S3Down, S3LostAnswers, S3Overload, S3Slow};
        matches!(self, S3Overload | S3LostAnswers | S3Down | S3Slow)
    }
}

/// The faults of a run.
pub struct Faults {
    dice: Dice,
    /// What may come, each kind as often as its weight says.
    kinds: Vec<Fault>,
    first: Vec<Fault>,
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
    pub(super) fn new(plan: &Plan, fault_library: bool, bucket: Option<Bucket>) -> Self {
        let mut dice = Dice::new(plan.seed);
        let mut kinds = Fault::value_variants().to_vec();
        kinds.retain(|kind| {
            (plan.only.is_empty() || plan.only.contains(kind))
                && (plan.partitions || !kind.needs_packets())
                && (fault_library || !kind.needs_library())
                && bucket.is_some() >= kind.needs_bucket()
                // Copies on the nodes' disks: with S3 they are a cache.
                && (bucket.is_none() || *kind != Fault::FlippedBit)
        });
        // Each kind comes once before any comes again.
        let mut first = kinds.clone();
        for at in (1..first.len()).rev() {
            first.swap(at, dice.below(at + 1));
        }
        Self {
            dice,
            kinds: kinds.into_iter().flat_map(|kind| vec![kind; kind.weight()]).collect(),
            first,
            bucket,
            done: BTreeMap::new(),
            writes_back: Vec::new(),
            memory_max: 0,
            in_snapshot: 0,
            lost_bytes: 0,
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
        if self.kinds.is_empty() {
            return Err(Error::Wrong("none of these faults is possible here".into()));
        }
        while self.count() < plan.faults && started.elapsed() < plan.limit {
            let next = self.first.pop();
            let fault = next.unwrap_or_else(|| self.kinds[self.dice.below(self.kinds.len())]);
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
            Fault::SlowSync => {
                let sync = self.dice.millis(10, 400);
                cluster.disturb(any, Disturbance { sync, ..Disturbance::default() })?;
                thread::sleep(hold * 2);
                cluster.disturb(any, Disturbance::default())?;
            }
            Fault::ClockStep => {
                let clock_millis = 7_200_000 - self.dice.below(14_400_000) as i64;
                cluster.disturb(any, Disturbance { clock_millis, ..Disturbance::default() })?;
                thread::sleep(hold);
                cluster.disturb(any, Disturbance::default())?;
            }
            Fault::FullDisk => {
                cluster.disturb(any, Disturbance { disk_full: true, ..Disturbance::default() })?;
                thread::sleep(hold * 2);
                cluster.disturb(any, Disturbance::default())?;
                // Without a log it can write to, a node ends rather than vote.
                cluster.recover(any)?;
            }
            Fault::Delay | Fault::Reset => {
                cluster.trouble(
                    any,
                    match fault {
                        Fault::Delay => Trouble::Delay(self.dice.millis(5, 200)),
                        _ => Trouble::Cut,
                    },
                );
                thread::sleep(hold * 2);
                cluster.trouble(any, Trouble::None);
            }
            Fault::S3Overload | Fault::S3LostAnswers | Fault::S3Down | Fault::S3Slow => {
                if let Some(bucket) = &self.bucket {
                    bucket.trouble(match fault {
                        Fault::S3Overload => Trouble::Overload,
                        Fault::S3LostAnswers => Trouble::LoseAnswers,
                        Fault::S3Down => Trouble::Cut,
                        _ => Trouble::Delay(Duration::from_millis(50)),
                    });
                    thread::sleep(hold * 3);
                    bucket.trouble(Trouble::None);
                }
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

/// The digest that a blob's file is named after.
fn digest_in(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}
