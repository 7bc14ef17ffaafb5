//! What must hold, judged apart from the replicas: the committed log, the state after each entry, and what the state
//! machine's rules promise.

use std::collections::{BTreeMap, BTreeSet};

use nora_domain::{
    Action, AdmitNode, Applied, Command, CreateJoinToken, Digest, Generation, Key, MemoryStore,
    NodeId, Outcome, Placement, Record, SetStanding, Standing, Store, Timestamp, TokenId,
    recount::recount,
};

use super::bug::Bug;
use super::machine;

/// An entry of the log; one without a command is what a new leader begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term it was appended in.
    pub term: u64,
    /// What it does.
    pub command: Option<Command>,
}

/// The cluster's clock may be this far ahead of the time as it really is: not at all, because the clocks by which leaders
/// count the time since their elections are right. Wall clocks are off by far more.
const CLOCK_AHEAD_MAX_MILLIS: u64 = 0;

/// The judge.
#[derive(Default)]
pub struct Oracle {
    log: Vec<Entry>,
    /// The state after so many entries.
    states: Vec<MemoryStore>,
    taken: BTreeSet<(u64, u64)>,
    admitted: BTreeMap<NodeId, [u8; 32]>,
    removed: BTreeSet<NodeId>,
    tokens: BTreeMap<TokenId, Timestamp>,
}

impl Oracle {
    /// Nothing is committed.
    pub fn new() -> Self {
        Self { states: vec![MemoryStore::default()], ..Self::default() }
    }

    /// How many entries are committed.
    pub fn committed(&self) -> usize {
        self.log.len()
    }

    /// The state after everything that is committed.
    pub fn state(&self) -> &MemoryStore {
        &self.states[self.log.len()]
    }

    /// A node says at `time`, as it really is, that its log is committed up to and with entry `at`, counted from 1.
    pub fn commit(
        &mut self,
        at: usize,
        entry: &Entry,
        time: Timestamp,
        bug: Option<Bug>,
    ) -> Result<(), String> {
        if let Some(known) = self.log.get(at - 1) {
            if known != entry {
                return Err(format!("entry {at} was committed as {known:?} and as {entry:?}"));
            }
            return Ok(());
        }
        let mut state = self.state().clone();
        let applied = entry
            .command
            .as_ref()
            .map(|command| (command, machine::step(&mut state, at as u64, command, bug)));
        self.log.push(entry.clone());
        self.states.push(state);
        match applied {
            Some((command, applied)) => self.judge(command, &applied, time),
            None => Ok(()),
        }
    }

    /// A replica has applied so many entries and holds this.
    pub fn compare(&self, node: usize, applied: usize, state: &MemoryStore) -> Result<(), String> {
        match self.states.get(applied) {
            Some(known) if known == state => Ok(()),
            Some(_) => Err(format!("node {node} holds another state after {applied} entries")),
            None => Err(format!("node {node} has applied {applied} entries, more than committed")),
        }
    }

    fn judge(
        &mut self,
        command: &Command,
        applied: &Applied,
        time: Timestamp,
    ) -> Result<(), String> {
        let clock = self.state().head().clock;
        let ahead = clock.millis_since(time);
        if ahead > CLOCK_AHEAD_MAX_MILLIS {
            return Err(format!("the cluster's clock is {ahead} ms ahead"));
        }
        if let (Some(origin), Ok(_)) = (command.origin, &applied.answer)
            && !self.taken.insert((origin.epoch.0, origin.serial))
        {
            return Err(format!("{origin:?} took effect twice"));
        }
        match (&command.action, &applied.answer) {
            (Action::CreateJoinToken(CreateJoinToken { token, lives_millis, .. }), Ok(_)) => {
                self.tokens.insert(*token, clock.plus_millis(*lives_millis));
            }
            (
                Action::AdmitNode(AdmitNode { token, key_hash, .. }),
                Ok(Outcome::AdmitNode(node)),
            ) => {
                if self.tokens.get(token).is_none_or(|expires_at| *expires_at <= clock) {
                    return Err(format!("{node:?} joined with an expired token"));
                }
                let known = self.admitted.insert(*node, *key_hash);
                if known.is_some_and(|known| known != *key_hash) {
                    return Err(format!("{node:?} was given to two nodes"));
                }
            }
            (Action::SetStanding(SetStanding { node, standing: Standing::Removed }), Ok(_)) => {
                self.removed.insert(*node);
            }
            _ => {}
        }
        for node in &self.removed {
            let record = machine::node_record(self.state(), *node);
            if record.is_none_or(|record| record.standing != Standing::Removed) {
                return Err(format!("{node:?} was removed and is back"));
            }
        }
        let level = machine::cluster_record(self.state()).feature_level;
        for (key, record) in self.state().rows() {
            let Record::Node(record) = record else { continue };
            let understood = record.profile.feature_max;
            if record.standing != Standing::Removed && understood < level {
                return Err(format!("{key:?} does not understand level {level:?}"));
            }
        }
        Ok(())
    }

    /// Every blob's live copy and who is logged as its holder.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, Generation, &[NodeId])> {
        self.state().rows().filter_map(|row| match row {
            (Key::Blob(digest), Record::Blob(blob)) => match &blob.placement {
                Placement::Nodes(holders) => Some((*digest, blob.generation, holders.as_slice())),
                Placement::Object(_) => None,
            },
            _ => None,
        })
    }

    /// Recounts the last state.
    pub fn recount(&self) -> Result<(), String> {
        match recount(self.state()).first() {
            None => Ok(()),
            Some(finding) => Err(format!("recount: {finding}")),
        }
    }
}
