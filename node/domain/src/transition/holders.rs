//! Which nodes hold a blob's live copy.
//!
//! Guarantees: a holder was added after its copy was durable (whoever proposes it sees to that) and for the live
//! generation alone; with `keep`, no holder goes unless that many others, active and of the same generation, stay. A copy
//! that is lost is taken off the list whatever is left, because the list says what is, not what should be.

use super::{Decision, Step, Stop};
use crate::command::{Outcome, Refusal};
use crate::digest::Digest;
use crate::event::Event;
use crate::record::{BlobRecord, Generation, Key, NodeId, Placement, Record, Standing};
use crate::store::Store;

impl<S: Store> Step<'_, S> {
    /// The holders that a commit names: sorted, each once, members alone. None at all is refused.
    pub(super) fn checked_placement(
        &self,
        digest: Digest,
        placement: &Placement,
    ) -> Decision<Placement, S::Error> {
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
        if holders.is_empty() {
            return Err(Stop::Refused(Refusal::TooFewHolders { digest, left: 0 }));
        }
        Ok(Placement::Nodes(holders))
    }

    pub(super) fn add_holder(
        &mut self,
        digest: Digest,
        generation: Generation,
        node: NodeId,
    ) -> Decision<Outcome, S::Error> {
        let (blob, mut holders) = self.held(digest, generation)?;
        self.member(node)?;
        if let Err(place) = holders.binary_search(&node) {
            holders.insert(place, node);
            self.place(digest, blob, holders)?;
        }
        Ok(Outcome::HolderAdded)
    }

    pub(super) fn drop_holder(
        &mut self,
        digest: Digest,
        generation: Generation,
        node: NodeId,
        keep: u32,
    ) -> Decision<Outcome, S::Error> {
        let (blob, mut holders) = self.held(digest, generation)?;
        let Ok(place) = holders.binary_search(&node) else { return Ok(Outcome::HolderDropped) };
        holders.remove(place);
        let mut left = 0;
        for holder in &holders {
            let record = self.node(*holder)?;
            left += u32::from(record.is_some_and(|record| record.standing == Standing::Active));
        }
        if left < keep {
            return Err(Stop::Refused(Refusal::TooFewHolders { digest, left }));
        }
        self.place(digest, blob, holders)?;
        Ok(Outcome::HolderDropped)
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
                Placement::Object(_) => Err(Stop::Refused(Refusal::StaleGeneration(digest))),
            },
            _ => Err(Stop::Refused(Refusal::StaleGeneration(digest))),
        }
    }

    fn place(
        &mut self,
        digest: Digest,
        blob: BlobRecord,
        holders: Vec<NodeId>,
    ) -> Result<(), S::Error> {
        let blob = BlobRecord { placement: Placement::Nodes(holders), ..blob };
        self.store.put(Key::Blob(digest), Record::Blob(blob))?;
        self.events.push(Event::BlobPlaced { digest });
        Ok(())
    }
}
