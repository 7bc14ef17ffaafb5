//! Clients of the simulation: what they ask nodes for, and what they hear.

use nora_domain::{
    Action, AdmitNode, Applied, BlobCommitted, Body, Command, CreateJoinToken, DeleteTag, Digest,
    FeatureLevel, Generation, Key, MediaType, NodeId, Origin, Outcome, PutArtifact, Record,
    Refusal, SetStanding, Standing, StartNode, Store, Terms, Timestamp, TokenId,
};

use super::bug::Bug;
use super::{NODES, QUORUM, TAGS, World, digest, machine, profile, repository, tag};
use crate::linear::{Event, Op};

/// Who waits for a proposal.
#[derive(Clone, Debug)]
pub(super) enum Waiter {
    /// A client that changes a tag.
    Tag { tag: usize, op: Op, invoked: u64 },
    /// A client that pushes a blob.
    Blob { digest: Digest },
    /// The node itself, about its own copy.
    Copy { digest: Digest, generation: Generation },
    /// An administrator, or the node itself: nothing comes of the answer.
    Nobody,
}

/// An open proposal.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) command: Command,
    pub(super) waiter: Waiter,
}

/// An open read.
pub(super) struct Read {
    tag: usize,
    invoked: u64,
    /// What must be applied before it is answered, once it is known.
    index: Option<usize>,
}

const KIND_ARTIFACT: u8 = 1;
/// What a program from before the first release understands: no cluster is at so low a level.
const LEVEL_OLD: FeatureLevel = FeatureLevel(0);

impl World {
    /// Sends a proposal to the leader; it stays open until this node has applied it.
    pub(super) fn propose(&mut self, at: usize, action: Action, waiter: Waiter) {
        let Some(epoch) = self.nodes[at].epoch.filter(|_| self.nodes[at].alive) else {
            return self.give_up(Asked {
                command: Command { at: Timestamp(0), origin: None, terms: Terms::NONE, action },
                waiter,
            });
        };
        let node = &mut self.nodes[at];
        let serial = node.next_serial;
        node.next_serial += 1;
        let settled_below = node.waiting.keys().next().copied().unwrap_or(serial);
        let origin = Some(Origin { epoch, serial, settled_below });
        let command = Command { at: self.wall(at), origin, terms: Terms::NONE, action };
        self.nodes[at].waiting.insert(serial, Asked { command: command.clone(), waiter });
        self.send(at, command);
        if self.has(Bug::AckBeforeApply)
            && let Some(Asked {
                waiter: Waiter::Tag { tag, op: op @ Op::Write(_), invoked }, ..
            }) = self.nodes[at].waiting.get(&serial)
        {
            let event = Event { op: *op, invoked: *invoked, returned: Some(self.now) };
            self.histories[*tag].push(event);
            self.nodes[at].waiting.remove(&serial);
        }
    }

    fn send(&mut self, at: usize, command: Command) {
        self.sent.push(command.clone());
        if let Some(leader) = self.leader_of(at) {
            self.append(leader, command);
        }
    }

    /// A node sends again what it has heard nothing of.
    pub(super) fn retry(&mut self, at: usize) {
        if !self.nodes[at].alive {
            return;
        }
        if self.nodes[at].epoch.is_none() {
            return self.propose_start(at);
        }
        let commands: Vec<Command> =
            self.nodes[at].waiting.values().map(|asked| asked.command.clone()).collect();
        for command in commands.into_iter().take(4) {
            self.send(at, command);
        }
    }

    /// Something that was sent once arrives again.
    pub(super) fn deliver_late(&mut self) {
        let leader = (0..NODES).find(|node| self.nodes[*node].leads && self.nodes[*node].alive);
        if let (Some(leader), false) = (leader, self.sent.is_empty()) {
            // Old and new alike: half of the time one of the last few.
            let from = if self.dice.below(2) == 0 { self.sent.len().saturating_sub(8) } else { 0 };
            let at = from + self.dice.below(self.sent.len() - from);
            self.append(leader, self.sent[at].clone());
        }
    }

    /// The outcome is unknown, and stays so.
    pub(super) fn give_up(&mut self, asked: Asked) {
        if let Waiter::Tag { tag, op, invoked } = asked.waiter {
            self.histories[tag].push(Event { op, invoked, returned: None });
        }
    }

    pub(super) fn give_up_waiting(&mut self) {
        for at in 0..NODES {
            let open = std::mem::take(&mut self.nodes[at].waiting);
            open.into_values().for_each(|asked| self.give_up(asked));
        }
    }

    /// After a snapshot: what it holds the decision of is answered by nobody any more.
    pub(super) fn forget_decided(&mut self, at: usize) {
        let Some(epoch) = self.nodes[at].epoch else { return };
        let Some(session) = self.nodes[at].state.head().sessions.get(&epoch) else { return };
        let decided: Vec<u64> =
            self.nodes[at].waiting.keys().filter(|serial| session.has(**serial)).copied().collect();
        for serial in decided {
            if let Some(asked) = self.nodes[at].waiting.remove(&serial) {
                self.give_up(asked);
            }
        }
    }

    /// A node has applied a command: whoever waits for it there is answered.
    pub(super) fn answer(
        &mut self,
        at: usize,
        command: &Command,
        applied: &Applied,
    ) -> Result<(), String> {
        let Some(origin) = command.origin else { return Ok(()) };
        if self.nodes[at].epoch != Some(origin.epoch)
            || matches!(applied.answer, Err(Refusal::Duplicate | Refusal::RetiredEpoch))
        {
            return Ok(());
        }
        let Some(asked) = self.nodes[at].waiting.remove(&origin.serial) else { return Ok(()) };
        match (asked.waiter, &applied.answer) {
            (Waiter::Tag { tag, op, invoked }, Ok(_)) => {
                self.histories[tag].push(Event { op, invoked, returned: Some(self.now) });
            }
            (Waiter::Tag { tag, invoked, .. }, Err(Refusal::TagUnknown(_))) => {
                let op = Op::Read(None);
                self.histories[tag].push(Event { op, invoked, returned: Some(self.now) });
            }
            (Waiter::Blob { digest }, Ok(Outcome::CommitBlob(BlobCommitted { .. }))) => {
                self.acknowledged.insert(digest);
            }
            (Waiter::Copy { digest, generation }, Ok(Outcome::DropHolder(()))) => {
                self.nodes[at].disk.remove(&(digest, generation));
            }
            (Waiter::Nobody, Ok(Outcome::AdmitNode(node))) => self.joined.push(*node),
            (Waiter::Tag { .. }, Err(refusal)) => {
                return Err(format!("a change of a tag was refused: {refusal:?}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// A client changes or reads a tag through a node.
    pub(super) fn operate(&mut self, at: usize) {
        if !self.nodes[at].alive {
            return;
        }
        let number = self.dice.below(TAGS);
        let invoked = self.now;
        match self.dice.below(8) {
            0..3 => {
                let value = self.next_value;
                self.next_value += 1;
                let op = Op::Write(value);
                self.propose(at, put(number, value), Waiter::Tag { tag: number, op, invoked });
            }
            3 => {
                let action =
                    Action::DeleteTag(DeleteTag { repository: repository(), tag: tag(number) });
                let op = Op::Delete;
                self.propose(at, action, Waiter::Tag { tag: number, op, invoked });
            }
            _ => {
                let index = self.has(Bug::StaleFollowerRead).then_some(0);
                self.nodes[at].reads.push(Read { tag: number, invoked, index });
            }
        }
    }

    /// Asks for the read index of the reads that wait, and answers those that may be answered.
    pub(super) fn answer_reads(&mut self, at: usize) {
        if !self.nodes[at].alive {
            return;
        }
        let index = self.leader_of(at).and_then(|leader| self.read_index(leader));
        let mut reads = std::mem::take(&mut self.nodes[at].reads);
        for read in &mut reads {
            read.index = read.index.or(index);
        }
        let applied = self.nodes[at].applied;
        let (done, open): (Vec<Read>, Vec<Read>) =
            reads.into_iter().partition(|read| read.index.is_some_and(|index| index <= applied));
        self.nodes[at].reads = open;
        for read in done {
            let key = Key::Tag(repository(), tag(read.tag));
            let value = match machine::get(&self.nodes[at].state, &key) {
                Some(Record::Tag(record)) => record.target.artifact().as_ref().map(number_of),
                _ => None,
            };
            let event =
                Event { op: Op::Read(value), invoked: read.invoked, returned: Some(self.now) };
            self.histories[read.tag].push(event);
        }
    }

    /// How far a leader has committed, if a majority says that it still leads and it has committed in its own term.
    fn read_index(&self, leader: usize) -> Option<usize> {
        let node = &self.nodes[leader];
        let confirms =
            |other: &usize| self.reaches(leader, *other) && self.nodes[*other].term <= node.term;
        let confirmed = (0..NODES).filter(confirms).count() >= QUORUM;
        // Without that a new leader may not know yet what its predecessor had committed.
        let begun = node.commit.checked_sub(node.base + 1);
        let own =
            begun.and_then(|index| node.log.get(index)).map_or(node.base_term, |entry| entry.term)
                == node.term;
        ((confirmed && own) || self.has(Bug::DeposedLeaderRead)).then_some(node.commit)
    }

    /// An administrator makes tokens, lets nodes join, start, leave, and come back where they must not.
    pub(super) fn administer(&mut self, at: usize) {
        let level = if self.dice.below(4) == 0 { LEVEL_OLD } else { FeatureLevel::NEWEST };
        let token = self.tokens.get(self.dice.below(self.tokens.len())).copied();
        let joined = self.joined.get(self.dice.below(self.joined.len())).copied();
        let action = match (self.dice.below(6), token, joined) {
            (1 | 2, Some(token), _) => Action::AdmitNode(AdmitNode {
                token,
                secret_hash: [8; 32],
                key_hash: [self.dice.below(250) as u8; 32],
                profile: profile(level),
            }),
            (3, _, Some(node)) => {
                let start = self.dice.roll().into();
                let replaces = machine::node_record(&self.nodes[at].state, node)
                    .map_or(0, |record| record.start);
                let profile = profile(FeatureLevel::NEWEST);
                Action::StartNode(StartNode { node, start, replaces, profile })
            }
            (4 | 5, _, Some(node)) => remove(node),
            _ => {
                let token = TokenId(self.dice.roll().into());
                let lives_millis = 2_000 + self.dice.below(10_000) as u64;
                self.tokens.push(token);
                Action::CreateJoinToken(CreateJoinToken {
                    token,
                    secret_hash: [8; 32],
                    lives_millis,
                    uses: u32::MAX,
                })
            }
        };
        self.propose(at, action, Waiter::Nobody);
    }
}

fn remove(node: NodeId) -> Action {
    Action::SetStanding(SetStanding { node, standing: Standing::Removed })
}

fn number_of(digest: &Digest) -> u64 {
    digest.value().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn put(number: usize, value: u64) -> Action {
    Action::PutArtifact(PutArtifact {
        repository: repository(),
        digest: digest(KIND_ARTIFACT, value),
        media_type: MediaType::parse("application/vnd.oci.image.index.v1+json")
            .unwrap_or_else(|_| unreachable!("a valid media type")),
        size: 8,
        body: Body::Inline(value.to_be_bytes().to_vec().into()),
        subject: None,
        artifact_type: None,
        annotations: Default::default(),
        blobs: Vec::new(),
        children: Vec::new(),
        tags: vec![tag(number)],
    })
}
