//! Blobs of the simulation: written to disks, synced, committed, repaired, given up.

use nora_domain::{
    Action, AddHolder, CommitBlob, Digest, DropHolder, Generation, Key, Placement, Record, UploadId,
};

use super::bug::Bug;
use super::clients::Waiter;
use super::{COPIES_MIN, NODES, World, digest, machine, node_id, repository};

const KIND_BLOB: u8 = 2;
/// So many blobs are pushed again and again.
const BLOBS: usize = 6;
const BLOB_BYTES: u64 = 100;

/// A blob that was received and is not proposed yet.
pub(super) struct Push {
    digest: Digest,
    generation: Generation,
}

impl World {
    /// A client pushes a blob through `at`, which sends it to `other` as well.
    pub(super) fn push(&mut self, at: usize, other: usize) {
        let Some(epoch) = self.nodes[at].epoch.filter(|_| self.nodes[at].alive) else { return };
        let digest = digest(KIND_BLOB, self.dice.below(BLOBS) as u64);
        self.nodes[at].sequence += 1;
        let generation = Generation { epoch, sequence: self.nodes[at].sequence };
        self.nodes[at].disk.insert((digest, generation), false);
        if self.reaches(at, other) {
            self.nodes[other].disk.insert((digest, generation), false);
        }
        self.nodes[at].pushes.push(Push { digest, generation });
        if self.has(Bug::PrematureBlobAck) {
            self.commit_pushes(at);
        }
    }

    /// Makes a node's copies durable.
    pub(super) fn sync_disk(&mut self, at: usize) {
        if self.nodes[at].alive {
            self.nodes[at].disk.values_mut().for_each(|durable| *durable = true);
        }
    }

    /// Nodes with a copy, durable or at all.
    fn holders(&self, digest: Digest, generation: Generation, durable: bool) -> Vec<usize> {
        let has = |at: &usize| {
            let copy = self.nodes[*at].disk.get(&(digest, generation));
            copy.is_some_and(|synced| *synced || !durable)
        };
        (0..NODES).filter(has).collect()
    }

    /// Proposes those pushes that are durable on enough nodes.
    pub(super) fn commit_pushes(&mut self, at: usize) {
        if !self.nodes[at].alive {
            return;
        }
        let must_be_durable = !self.has(Bug::PrematureBlobAck);
        for push in std::mem::take(&mut self.nodes[at].pushes) {
            let Push { digest, generation } = push;
            let holders = self.holders(digest, generation, must_be_durable);
            if holders.len() < COPIES_MIN {
                self.nodes[at].pushes.push(push);
                continue;
            }
            let random = self.dice.roll().into();
            let action = Action::CommitBlob(CommitBlob {
                repository: repository(),
                digest,
                size: BLOB_BYTES,
                generation,
                node: node_id(at),
                chunk_root: [3; 32],
                upload: UploadId::made_by(node_id(at), random),
                pin_millis: 1_000_000,
                placement: Placement::Nodes(holders.into_iter().map(node_id).collect()),
            });
            self.propose(at, action, Waiter::Blob { digest });
        }
    }

    /// The live copy of a blob and its holders, as a node knows them.
    fn known(&self, at: usize, digest: Digest) -> Option<(Generation, Vec<usize>)> {
        match machine::get(&self.nodes[at].state, &Key::Blob(digest)) {
            Some(Record::Blob(blob)) => match blob.placement {
                Placement::Nodes(holders) => {
                    let holders = holders.iter().map(|holder| holder.0 as usize - 1).collect();
                    Some((blob.generation, holders))
                }
                Placement::Object(_) => None,
            },
            _ => None,
        }
    }

    /// Whether a node has an open question about its own copy: then it asks no second one.
    fn asks_about(&self, at: usize, digest: Digest) -> bool {
        self.nodes[at].waiting.values().any(|asked| match &asked.command.action {
            Action::AddHolder(AddHolder { digest: open, .. })
            | Action::DropHolder(DropHolder { digest: open, .. }) => *open == digest,
            _ => false,
        })
    }

    /// A node that lacks a blob fetches it; once the copy is durable, it says so.
    pub(super) fn repair(&mut self, at: usize) {
        let digest = digest(KIND_BLOB, self.dice.below(BLOBS) as u64);
        let Some((generation, holders)) = self.known(at, digest) else { return };
        if !self.nodes[at].alive
            || self.nodes[at].epoch.is_none()
            || holders.contains(&at)
            || self.asks_about(at, digest)
        {
            return;
        }
        let copy = self.nodes[at].disk.get(&(digest, generation)).copied();
        let early = self.has(Bug::HolderBeforeDurable);
        match copy {
            Some(durable) if durable || early => {
                let action = Action::AddHolder(AddHolder { digest, generation, node: node_id(at) });
                self.propose(at, action, Waiter::Nobody);
            }
            Some(_) => {}
            None => {
                let source = holders.iter().find(|holder| self.reaches(at, **holder));
                let has =
                    |holder: &usize| self.nodes[*holder].disk.contains_key(&(digest, generation));
                if source.is_some_and(has) {
                    self.nodes[at].disk.insert((digest, generation), false);
                }
            }
        }
    }

    /// A node gives up its copy of a blob that enough others hold; the copy goes once that is decided.
    pub(super) fn give_up_copy(&mut self, at: usize) {
        let digest = digest(KIND_BLOB, self.dice.below(BLOBS) as u64);
        let Some((generation, holders)) = self.known(at, digest) else { return };
        let holds = holders.contains(&at);
        if !self.nodes[at].alive
            || self.nodes[at].epoch.is_none()
            || !holds
            || self.asks_about(at, digest)
        {
            return;
        }
        let keep = if self.has(Bug::DropBelowKeep) { 0 } else { COPIES_MIN as u32 };
        let action = Action::DropHolder(DropHolder { digest, generation, node: node_id(at), keep });
        self.propose(at, action, Waiter::Copy { digest, generation });
    }

    /// Every logged holder has its copy on disk, and every acknowledged blob has enough of them.
    pub(super) fn check_copies(&self) -> Result<(), String> {
        for (digest, generation, logged) in self.oracle.blobs() {
            let durable = self.holders(digest, generation, true);
            for holder in logged {
                if !durable.contains(&(holder.0 as usize - 1)) {
                    return Err(format!("{holder:?} is logged to hold {digest}, and does not"));
                }
            }
            if self.acknowledged.contains(&digest) && logged.len() < COPIES_MIN {
                let count = logged.len();
                return Err(format!("{digest} was acknowledged and has {count} holders"));
            }
        }
        Ok(())
    }
}
