//! Which nodes hold a blob's live copy.
//!
//! Guarantees: a holder was added after its copy was durable (its proposer sees to that) and for the live generation
//! alone; with `keep`, no holder goes unless that many others, active and of the same generation, stay. A copy that is
//! lost is taken off the list however few are left, because the list says what is, not what should be.

use super::{AddHolder, BlobRecord, DropHolder, Placement};
use crate::command::Refusal;
use crate::digest::Digest;
use crate::ids::{Generation, NodeId};
use crate::journal::Event;
use crate::node::Standing;
use crate::state::{Key, Record, Store};
use crate::transition::{Decision, Step, refuse};

impl<S: Store> Step<'_, S> {
    /// A placement without the nodes that are gone: sorted, each once.
    pub(crate) fn members_of(&self, placement: &Placement) -> Result<Placement, S::Error> {
        let Placement::Nodes(named) = placement else { return Ok(placement.clone()) };
        let mut holders = Vec::with_capacity(named.len());
        for node in named {
            // A node that was removed meanwhile takes its copy with it.
            let record = self.node(*node)?;
            if record.is_some_and(|record| record.standing != Standing::Removed) {
                holders.push(*node);
            }
        }
        holders.sort_unstable();
        holders.dedup();
        Ok(Placement::Nodes(holders))
    }

    /// How many holders serve a copy; an object store is one.
    pub(crate) fn serving(&self, placement: &Placement) -> Result<u32, S::Error> {
        let Placement::Nodes(holders) = placement else { return Ok(1) };
        let mut serving = 0;
        for holder in holders {
            let record = self.node(*holder)?;
            serving += u32::from(record.is_some_and(|record| record.standing.serves()));
        }
        Ok(serving)
    }

    pub(crate) fn add_holder(&mut self, command: &AddHolder) -> Decision<(), S::Error> {
        let AddHolder { digest, generation, node } = *command;
        let (blob, mut holders) = self.held(digest, generation)?;
        self.member(node)?;
        if let Err(place) = holders.binary_search(&node) {
            holders.insert(place, node);
            self.place(digest, blob, holders)?;
        }
        Ok(())
    }

    pub(crate) fn drop_holder(&mut self, command: &DropHolder) -> Decision<(), S::Error> {
        let DropHolder { digest, generation, node, keep } = *command;
        let (blob, mut holders) = self.held(digest, generation)?;
        let Ok(place) = holders.binary_search(&node) else { return Ok(()) };
        holders.remove(place);
        let mut left = 0;
        for holder in &holders {
            let record = self.node(*holder)?;
            left += u32::from(record.is_some_and(|record| record.standing == Standing::Active));
        }
        if left < keep {
            return refuse(Refusal::TooFewHolders { digest, left });
        }
        self.place(digest, blob, holders)?;
        Ok(())
    }

    /// A blob's row and its holders, if the generation is its live one and nodes hold it.
    fn held(
        &self,
        digest: Digest,
        generation: Generation,
    ) -> Decision<(BlobRecord, Vec<NodeId>), S::Error> {
        match self.blob(digest)? {
            Some(blob) if blob.generation == generation => match &blob.placement {
                Placement::Nodes(holders) => {
                    let holders = holders.clone();
                    Ok((blob, holders))
                }
                Placement::Object(_) => refuse(Refusal::StaleGeneration(digest)),
            },
            _ => refuse(Refusal::StaleGeneration(digest)),
        }
    }

    pub(crate) fn place(
        &mut self,
        digest: Digest,
        blob: BlobRecord,
        holders: Vec<NodeId>,
    ) -> Result<(), S::Error> {
        let blob = BlobRecord { placement: Placement::Nodes(holders), ..blob };
        self.store.put(Key::Blob(digest), Record::Blob(blob))?;
        self.happened(Event::BlobPlaced { digest });
        Ok(())
    }
}
