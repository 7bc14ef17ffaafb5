//! The log of the simulation: elections, appends, commits, snapshots, crashes.

use nora_domain::{Action, Command, FeatureLevel, StartNode, Store, Terms, Timestamp};

use super::bug::Bug;
use super::oracle::Entry;
use super::{Checkpoint, Elected, NODES, Node, QUORUM, World, machine, node_id, profile};

/// When the simulation begins.
pub(super) const BEGIN: Timestamp = Timestamp(1_000_000);
/// Milliseconds of one step.
const STEP_MILLIS: u64 = 100;

impl Node {
    /// Entries of its log, those before a snapshot included.
    pub(super) fn length(&self) -> usize {
        self.base + self.log.len()
    }

    /// The term of entry `at`, counted from 1; `None` if the log does not have it any more or yet.
    fn term_of(&self, at: usize) -> Option<u64> {
        if at == self.base {
            return Some(self.base_term);
        }
        self.log.get(at.checked_sub(self.base + 1)?).map(|entry| entry.term)
    }

    fn last(&self) -> (u64, usize) {
        let length = self.length();
        (self.term_of(length).unwrap_or_default(), length)
    }
}

impl World {
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        self.nodes[from].alive
            && self.nodes[to].alive
            && (from == to || !self.cut.contains(&(from.min(to), from.max(to))))
    }

    /// The leader that a node would send a proposal to.
    pub(super) fn leader_of(&self, node: usize) -> Option<usize> {
        let reachable = (0..NODES).filter(|other| self.nodes[*other].leads);
        reachable.filter(|other| self.reaches(node, *other)).max_by_key(|at| self.nodes[*at].term)
    }

    /// The time as it really is. No node knows it.
    fn time(&self) -> Timestamp {
        BEGIN.plus_millis(self.now * STEP_MILLIS)
    }

    /// A node's wall clock.
    pub(super) fn wall(&self, node: usize) -> Timestamp {
        Timestamp(self.time().0.saturating_add_signed(self.nodes[node].skew))
    }

    /// The cluster's clock, as a leader tells it: the clock of its state when it was elected, and the time since then by
    /// a clock that does not step.
    fn stamp(&self, leader: usize) -> Timestamp {
        if self.has(Bug::ClockFollowsWall) {
            return self.wall(leader);
        }
        let Node { elected, state, .. } = &self.nodes[leader];
        let since = (self.now - elected.step) * STEP_MILLIS;
        elected.clock.plus_millis(since).max(state.head().clock)
    }

    /// Appends to a leader's log, stamped with the cluster's clock.
    pub(super) fn append(&mut self, leader: usize, mut command: Command) {
        command.at = self.stamp(leader);
        let term = self.nodes[leader].term;
        self.nodes[leader].log.push(Entry { term, command: Some(command) });
    }

    pub(super) fn elect(&mut self, candidate: usize) -> Result<(), String> {
        let reachable: Vec<usize> =
            (0..NODES).filter(|voter| self.reaches(candidate, *voter)).collect();
        let last = self.nodes[candidate].last();
        let outdated = self.has(Bug::OutdatedLeader);
        let voters: Vec<usize> = reachable
            .into_iter()
            .filter(|voter| outdated || self.nodes[*voter].last() <= last)
            .collect();
        if voters.len() < QUORUM {
            return Ok(());
        }
        let term = voters.iter().map(|voter| self.nodes[*voter].term).max().unwrap_or_default() + 1;
        for voter in voters {
            self.nodes[voter].term = term;
            self.nodes[voter].leads = false;
        }
        let node = &mut self.nodes[candidate];
        node.leads = true;
        node.elected = Elected { step: self.now, clock: node.state.head().clock };
        node.matched = [0; NODES];
        node.log.push(Entry { term, command: None });
        Ok(())
    }

    /// Makes what a node has appended durable.
    pub(super) fn sync_log(&mut self, node: usize) {
        if self.nodes[node].alive {
            self.nodes[node].synced = self.nodes[node].length();
        }
    }

    /// A leader sends a follower what it lacks, or a snapshot if it does not have that any more.
    pub(super) fn replicate(&mut self, leader: usize, follower: usize) -> Result<(), String> {
        if !self.nodes[leader].leads || !self.reaches(leader, follower) {
            return Ok(());
        }
        if self.nodes[follower].term > self.nodes[leader].term {
            self.nodes[leader].leads = false;
            return Ok(());
        }
        self.nodes[follower].term = self.nodes[leader].term;
        self.nodes[follower].leads = false;
        let from = self.nodes[leader].base;
        let to = self.nodes[leader].length().min(self.nodes[follower].length());
        let same = |at: &usize| {
            let term = self.nodes[follower].term_of(*at);
            term.is_some() && term == self.nodes[leader].term_of(*at)
        };
        let start = from.max(self.nodes[follower].base);
        let Some(agreed) = (start..=to).rev().find(same) else {
            return self.install_snapshot(leader, follower);
        };
        if self.nodes[follower].length() > agreed {
            if agreed < self.nodes[follower].commit {
                let at = agreed + 1;
                return Err(format!(
                    "node {follower} must take back entry {at}, which it committed"
                ));
            }
            let keep = agreed - self.nodes[follower].base;
            self.nodes[follower].log.truncate(keep);
            self.nodes[follower].synced = self.nodes[follower].synced.min(agreed);
        }
        let skip = agreed - self.nodes[leader].base;
        let batch = 1 + self.dice.below(8);
        let entries: Vec<Entry> =
            self.nodes[leader].log[skip..].iter().take(batch).cloned().collect();
        self.nodes[follower].log.extend(entries);
        let length = self.nodes[follower].length();
        if !self.has(Bug::LostFsync) {
            self.nodes[follower].synced = length;
        }
        self.nodes[leader].matched[follower] = length;
        let commit = self.nodes[leader].commit.min(length);
        if commit > self.nodes[follower].commit {
            self.learn_commit(follower, commit)?;
        }
        Ok(())
    }

    pub(super) fn advance_commit(&mut self, leader: usize) -> Result<(), String> {
        let node = &self.nodes[leader];
        if !node.leads || !node.alive {
            return Ok(());
        }
        let unchecked = self.has(Bug::CommitWithoutQuorum);
        let is_committed = |at: &usize| {
            let others = (0..NODES).filter(|other| *other != leader);
            let have = others.filter(|other| node.matched[*other] >= *at).count()
                + usize::from(node.synced >= *at);
            node.term_of(*at) == Some(node.term) && (have >= QUORUM || unchecked)
        };
        match (node.commit + 1..=node.length()).rev().find(is_committed) {
            Some(commit) => self.learn_commit(leader, commit),
            None => Ok(()),
        }
    }

    pub(super) fn learn_commit(&mut self, node: usize, commit: usize) -> Result<(), String> {
        let time = self.time();
        let from = self.nodes[node].commit.max(self.nodes[node].base) + 1;
        for at in from..=commit {
            let entry = &self.nodes[node].log[at - self.nodes[node].base - 1];
            self.oracle.commit(at, entry, time, self.bug)?;
        }
        self.nodes[node].commit = self.nodes[node].commit.max(commit);
        Ok(())
    }

    /// A node applies its next committed entry and answers who waits for it.
    pub(super) fn apply(&mut self, at: usize) -> Result<(), String> {
        let node = &mut self.nodes[at];
        if !node.alive || node.applied >= node.commit {
            return Ok(());
        }
        let position = node.applied + 1;
        // What a snapshot held already is not in the log any more: it could not be applied again.
        let Some(index) = node.applied.checked_sub(node.base) else { return Ok(()) };
        let entry = node.log[index].clone();
        node.applied = position;
        if let Some(command) = &entry.command {
            let applied = machine::step(&mut node.state, position as u64, command, self.bug);
            self.oracle.compare(at, position, &self.nodes[at].state)?;
            self.answer(at, command, &applied)?;
            let record = machine::node_record(&self.nodes[at].state, node_id(at));
            if let Some(record) = record.filter(|record| record.start == self.nodes[at].start) {
                self.nodes[at].epoch = Some(record.epoch);
            }
        }
        Ok(())
    }

    fn install_snapshot(&mut self, leader: usize, follower: usize) -> Result<(), String> {
        let from = &self.nodes[leader];
        // The state is newer than the log's first entry, and the term of its last entry is known.
        let Some(term) = from.term_of(from.applied) else { return Ok(()) };
        if from.applied <= self.nodes[follower].applied {
            return Ok(());
        }
        let mut state = from.state.clone();
        let applied = from.applied;
        if self.has(Bug::SessionsLostInSnapshot) {
            state = machine::without_sessions(&state);
        }
        let node = &mut self.nodes[follower];
        node.checkpoint = Checkpoint { state: state.clone(), applied };
        (node.state, node.applied, node.commit) = (state, applied, applied);
        (node.base, node.base_term, node.synced) = (applied, term, applied);
        node.log.clear();
        if self.has(Bug::DoubleApplyAfterSnapshot) {
            let entry =
                self.nodes[leader].log.get(applied.wrapping_sub(self.nodes[leader].base + 1));
            if let Some(command) = entry.and_then(|entry| entry.command.clone()) {
                let node = &mut self.nodes[follower];
                node.base = applied - 1;
                node.base_term = term;
                node.log.push(Entry { term, command: Some(command) });
                node.applied = applied - 1;
            }
        }
        self.snapshots += 1;
        let node = &self.nodes[follower];
        self.oracle.compare(follower, node.applied, &node.state)?;
        self.forget_decided(follower);
        let record = machine::node_record(&self.nodes[follower].state, node_id(follower));
        if let Some(record) = record.filter(|record| record.start == self.nodes[follower].start) {
            self.nodes[follower].epoch = Some(record.epoch);
        }
        Ok(())
    }

    /// Makes the state durable and drops the log that it holds.
    pub(super) fn checkpoint(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(term) = node.term_of(node.applied) else { return };
        if !node.alive || node.applied <= node.base || node.synced < node.applied {
            return;
        }
        node.checkpoint = Checkpoint { state: node.state.clone(), applied: node.applied };
        node.log.drain(..node.applied - node.base);
        (node.base, node.base_term) = (node.applied, term);
    }

    /// A node loses power: what was not synced is gone, and whoever waits for it learns nothing.
    pub(super) fn crash(&mut self, at: usize) {
        if !self.nodes[at].alive {
            return;
        }
        let open = std::mem::take(&mut self.nodes[at].waiting);
        open.into_values().for_each(|asked| self.give_up(asked));
        let node = &mut self.nodes[at];
        (node.alive, node.leads, node.epoch) = (false, false, None);
        node.log.truncate(node.synced.saturating_sub(node.base));
        let Checkpoint { state, applied } = node.checkpoint.clone();
        (node.state, node.applied, node.commit) = (state, applied, applied);
        node.reads.clear();
        node.pushes.clear();
        node.disk.retain(|_, durable| *durable);
    }

    pub(super) fn restart(&mut self, at: usize) {
        if self.nodes[at].alive {
            return;
        }
        let start = self.dice.roll().into();
        let node = &mut self.nodes[at];
        (node.alive, node.start, node.next_serial) = (true, start, 0);
        self.propose_start(at);
    }

    /// A node without an epoch asks for one, by the name of its start.
    pub(super) fn propose_start(&mut self, at: usize) {
        let profile = profile(FeatureLevel::NEWEST);
        let action = Action::StartNode(StartNode {
            node: node_id(at),
            start: self.nodes[at].start,
            replaces: machine::node_record(&self.nodes[at].state, node_id(at))
                .map_or(0, |record| record.start),
            profile,
        });
        let command = Command { at: self.wall(at), origin: None, terms: Terms::NONE, action };
        if let Some(leader) = self.leader_of(at) {
            self.append(leader, command);
        }
    }
}
