//! A simulated cluster: the real state transition, over a log, disks and a network that a seed drives.
//!
//! Three replicas elect leaders, replicate, commit, apply, crash (and lose what was not synced), are cut off, install
//! snapshots and read by read index; proposers retry, the network duplicates and delays, clocks are off; blobs are
//! written, synced, repaired and dropped. After every step: committed entries never change, states are equal at equal
//! positions, a proposal takes effect once, node numbers, tokens and feature levels keep their rules, the cluster's clock is
//! not ahead of real time, a logged holder has its copy on disk, an acknowledged blob has [`COPIES_MIN`] durable copies. At
//! the end: tags were linearizable, and a recount finds nothing.
//!
//! Consensus here is a model (elections and appends are single steps); `nora-cluster` tests the real one. What is real is
//! the state machine and the protocol around it. The same seed gives the same run, step by step. [`Bug`] puts a bug in.

mod blobs;
pub mod bug;
mod clients;
mod log;
mod machine;
mod oracle;

use std::collections::{BTreeMap, BTreeSet};

use nora_domain::{
    Action, AdmitNode, AuthorityKeys, ClusterId, Command, CreateJoinToken, Digest, Epoch,
    FeatureLevel, Format, FoundCluster, Generation, MemoryStore, NodeId, NodeProfile,
    RepositoryKey, RepositoryPath, SharedSecret, StartNode, Storage, StorageMode, TagName,
    TenantName, Terms, Timestamp, TokenId,
};

pub use bug::Bug;
use clients::{Asked, Read};
use oracle::{Entry, Oracle};

use crate::chaos::Dice;
use crate::linear::{Event, is_linearizable};

/// Replicas.
const NODES: usize = 3;
const QUORUM: usize = 2;
/// An acknowledged blob has so many durable copies at any time: a majority of those that the cluster keeps, one on each
/// node.
pub const COPIES_MIN: usize = 2;
const STEPS: usize = 1000;
const TAGS: usize = 3;

/// What a node keeps over a crash, besides its synced log.
#[derive(Clone, Default)]
struct Checkpoint {
    state: MemoryStore,
    applied: usize,
}

/// When a node was elected last, and what the clock of its state was then.
#[derive(Clone, Copy, Default)]
struct Elected {
    step: u64,
    clock: Timestamp,
}

struct Node {
    alive: bool,
    leads: bool,
    elected: Elected,
    term: u64,
    /// Entries before the first of `log`, and the last one's term.
    base: usize,
    base_term: u64,
    log: Vec<Entry>,
    synced: usize,
    commit: usize,
    /// Of each node, how much of the log it is known to have; while it leads.
    matched: [usize; NODES],
    applied: usize,
    state: MemoryStore,
    checkpoint: Checkpoint,
    /// The name of this start, and its epoch once it was applied.
    start: u128,
    epoch: Option<Epoch>,
    next_serial: u64,
    waiting: BTreeMap<u64, Asked>,
    reads: Vec<Read>,
    /// How far its wall clock is off, in milliseconds.
    skew: i64,
    /// Its copies of blobs, and whether they are durable.
    disk: BTreeMap<(Digest, Generation), bool>,
    sequence: u64,
    pushes: Vec<blobs::Push>,
}

struct World {
    dice: Dice,
    bug: Option<Bug>,
    now: u64,
    nodes: Vec<Node>,
    cut: BTreeSet<(usize, usize)>,
    oracle: Oracle,
    /// Everything that was ever sent: the network may deliver it again, late.
    sent: Vec<Command>,
    histories: Vec<Vec<Event>>,
    next_value: u64,
    tokens: Vec<TokenId>,
    joined: Vec<NodeId>,
    acknowledged: BTreeSet<Digest>,
    snapshots: usize,
}

/// What a run that violated nothing has gone through: what never happens is not tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lived {
    /// Entries that were committed.
    pub committed: usize,
    /// Snapshots that were installed.
    pub snapshots: usize,
    /// Operations on tags that were answered.
    pub answered: usize,
    /// Operations on tags of unknown outcome.
    pub unknown: usize,
    /// Blobs that were acknowledged.
    pub blobs: usize,
    /// Nodes that joined beside the three.
    pub joined: usize,
}

/// Runs a seed. The error says which invariant was violated, and when.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Lived, String> {
    let mut world = World::new(seed, bug);
    world.found()?;
    for step in 0..STEPS {
        world.now += 1;
        world.step().map_err(|what| format!("seed {seed}, step {step}: {what}"))?;
    }
    world.finish().map_err(|what| format!("seed {seed}, at the end: {what}"))?;
    Ok(world.lived())
}

fn repository() -> RepositoryKey {
    let path = RepositoryPath::parse("sim/app");
    RepositoryKey {
        tenant: TenantName::default_tenant(),
        format: Format::Oci,
        path: path.unwrap_or_else(|_| unreachable!("a valid name")),
    }
}

fn tag(number: usize) -> TagName {
    TagName::parse(&format!("t{number}")).unwrap_or_else(|_| unreachable!("a valid name"))
}

/// A digest that carries a number: values are told apart by it.
fn digest(kind: u8, number: u64) -> Digest {
    let mut value = [kind; 32];
    value[..8].copy_from_slice(&number.to_be_bytes());
    Digest::sha256(value)
}

fn profile(feature_max: FeatureLevel) -> NodeProfile {
    NodeProfile { feature_max, weight: 100, ..NodeProfile::default() }
}

fn node_id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut dice = Dice::new(seed);
        let node = |_| Node {
            alive: true,
            leads: false,
            elected: Elected::default(),
            term: 1,
            base: 0,
            base_term: 0,
            log: Vec::new(),
            synced: 0,
            commit: 0,
            matched: [0; NODES],
            applied: 0,
            state: MemoryStore::default(),
            checkpoint: Checkpoint::default(),
            start: dice.roll().into(),
            epoch: None,
            next_serial: 0,
            waiting: BTreeMap::new(),
            reads: Vec::new(),
            skew: dice.below(20_000) as i64 - 10_000,
            disk: BTreeMap::new(),
            sequence: 0,
            pushes: Vec::new(),
        };
        let nodes = (0..NODES).map(node).collect();
        Self {
            dice,
            bug,
            now: 0,
            nodes,
            cut: BTreeSet::new(),
            oracle: Oracle::new(),
            sent: Vec::new(),
            histories: vec![Vec::new(); TAGS],
            next_value: 1,
            tokens: Vec::new(),
            joined: Vec::new(),
            acknowledged: BTreeSet::new(),
            snapshots: 0,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The cluster begins: node 1 founds it, the others join. All have these entries.
    fn found(&mut self) -> Result<(), String> {
        let token = TokenId(1);
        let authority = AuthorityKeys { certificate: vec![1], key: vec![2] };
        let storage = Storage { mode: StorageMode::Local, replicas: NODES as u32 };
        let start = |node: usize, start| {
            Action::StartNode(StartNode {
                node: node_id(node),
                start,
                replaces: 0,
                profile: profile(FeatureLevel::NEWEST),
            })
        };
        let admit = |key: u8| {
            Action::AdmitNode(AdmitNode {
                token,
                secret_hash: [7; 32],
                key_hash: [key; 32],
                profile: profile(FeatureLevel::NEWEST),
            })
        };
        let starts: Vec<u128> = self.nodes.iter().map(|node| node.start).collect();
        let actions = [
            start(0, starts[0]),
            Action::FoundCluster(FoundCluster {
                cluster: ClusterId(9),
                authority,
                secret: SharedSecret([9; 32]),
                storage,
            }),
            Action::CreateJoinToken(CreateJoinToken {
                token,
                secret_hash: [7; 32],
                lives_millis: 1_000_000,
                uses: u32::MAX,
            }),
            admit(2),
            admit(3),
            start(1, starts[1]),
            start(2, starts[2]),
        ];
        for action in actions {
            let command = Command { at: log::BEGIN, origin: None, terms: Terms::NONE, action };
            for node in &mut self.nodes {
                node.log.push(Entry { term: 1, command: Some(command.clone()) });
            }
        }
        let count = self.nodes[0].log.len();
        for node in 0..NODES {
            self.nodes[node].synced = count;
            self.learn_commit(node, count)?;
            while self.nodes[node].applied < count {
                self.apply(node)?;
            }
        }
        self.elect(0)
    }

    fn step(&mut self) -> Result<(), String> {
        let node = self.dice.below(NODES);
        let other = (node + 1 + self.dice.below(NODES - 1)) % NODES;
        // There may be several that think they lead; each goes on as if it did.
        let leaders: Vec<usize> = (0..NODES).filter(|at| self.nodes[*at].leads).collect();
        let leader = leaders.get(self.dice.below(leaders.len())).copied().unwrap_or(node);
        let follower = (leader + 1 + self.dice.below(NODES - 1)) % NODES;
        match self.dice.below(200) {
            0..50 => self.replicate(leader, follower)?,
            50..75 => self.advance_commit(leader)?,
            75..85 => self.sync_log(node),
            85..120 => {
                for _ in 0..1 + self.dice.below(6) {
                    self.apply(node)?;
                }
            }
            120..138 => self.operate(node),
            138..152 => self.answer_reads(node),
            152..157 => self.retry(node),
            157 => self.deliver_late(),
            158..160 => self.elect(node)?,
            160 => self.crash(node),
            161..165 => self.restart(node),
            165 => drop(self.cut.insert((node.min(other), node.max(other)))),
            166..168 => self.cut.clear(),
            168..172 => self.checkpoint(node),
            172..177 => self.administer(node),
            177..182 => self.push(node, other),
            182..188 => self.sync_disk(node),
            188..192 => self.commit_pushes(node),
            192..196 => self.repair(node),
            196..199 => self.give_up_copy(node),
            _ => self.nodes[node].skew = self.dice.below(60_000) as i64 - 30_000,
        }
        self.check_copies()
    }

    fn lived(&self) -> Lived {
        let events = || self.histories.iter().flatten();
        Lived {
            committed: self.oracle.committed(),
            snapshots: self.snapshots,
            answered: events().filter(|event| event.returned.is_some()).count(),
            unknown: events().filter(|event| event.returned.is_none()).count(),
            blobs: self.acknowledged.len(),
            joined: self.joined.len(),
        }
    }

    /// Heals everything, lets all catch up, and judges what remains.
    fn finish(&mut self) -> Result<(), String> {
        self.cut.clear();
        for node in 0..NODES {
            self.restart(node);
        }
        for round in 0..4 * NODES {
            self.now += 1;
            self.elect(round % NODES)?;
            if !self.nodes[round % NODES].leads {
                continue;
            }
            let leader = round % NODES;
            for _ in 0..40 {
                self.sync_log(leader);
                for other in (0..NODES).filter(|other| *other != leader) {
                    self.replicate(leader, other)?;
                }
                self.advance_commit(leader)?;
            }
        }
        for node in 0..NODES {
            while self.nodes[node].applied < self.nodes[node].commit {
                self.apply(node)?;
            }
            self.answer_reads(node);
        }
        self.give_up_waiting();
        for (number, history) in self.histories.iter().enumerate() {
            if !is_linearizable(history) {
                return Err(format!("tag t{number} was not linearizable: {history:?}"));
            }
        }
        self.check_copies()?;
        self.oracle.recount()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: u64 = 1000;

    #[test]
    fn no_seed_violates_anything() {
        let mut total = Lived::default();
        for seed in 0..SEEDS {
            let lived = run(seed, None).unwrap_or_else(|what| panic!("{what}"));
            total.committed += lived.committed;
            total.snapshots += lived.snapshots;
            total.answered += lived.answered;
            total.unknown += lived.unknown;
            total.blobs += lived.blobs;
            total.joined += lived.joined;
        }
        // A run in which little happens would find nothing either.
        let seeds = SEEDS as usize;
        assert!(total.committed > 40 * seeds && total.answered > 20 * seeds, "{total:?}");
        assert!(total.snapshots > seeds / 2 && total.unknown > seeds, "{total:?}");
        assert!(total.blobs > seeds && total.joined > seeds / 2, "{total:?}");
        println!("{seeds} seeds: {total:?}");
    }

    #[test]
    fn every_planted_bug_is_caught() {
        for bug in Bug::ALL {
            let caught = (0..SEEDS).find_map(|seed| run(seed, Some(bug)).err());
            let caught = caught.unwrap_or_else(|| panic!("{SEEDS} seeds do not catch {bug:?}"));
            println!("{bug:?}: {}", caught.chars().take(160).collect::<String>());
        }
    }

    #[test]
    fn a_seed_gives_the_same_run_again() {
        for bug in Bug::ALL {
            for seed in 0..10 {
                assert_eq!(run(seed, Some(bug)), run(seed, Some(bug)));
            }
        }
    }
}
