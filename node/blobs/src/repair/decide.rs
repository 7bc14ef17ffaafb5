//! What a node does about a blob: a pure function of the blob's row, the cluster, and its own file.
//!
//! Guarantees: a file that the log counts is never removed; a copy is given up only where the nodes
//! that should hold the blob all do; the last copy stays wherever it is.

use nora_domain::{BlobRecord, Digest, NodeId, Placement, Standing};

use crate::inventory::FileState;
use crate::replicated::View;

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All is well, or nothing can be done from here.
    Rest,
    /// Get a copy from the holders.
    Fetch,
    /// The file is there: tell the log.
    Claim,
    /// Others have it as they should: give it up, if so many active ones stay.
    GiveUp {
        /// How many.
        keep: u32,
    },
    /// The log counts a copy that is gone.
    Lost,
    /// A holder was removed from the cluster.
    Forget(NodeId),
    /// A file that the log does not count and nobody needs.
    Remove,
}

/// Decides about one blob.
pub(crate) fn decide(digest: &Digest, blob: &BlobRecord, view: &View, file: FileState) -> Step {
    let Placement::Nodes(holders) = &blob.placement else { return Step::Rest };
    // A node that does not take part, or is thought to be gone, changes nothing.
    if !view.is_live(view.me) {
        return Step::Rest;
    }
    let desired = view.desired(digest);
    let i_hold = holders.contains(&view.me);
    let i_should = desired.contains(&view.me);
    // With no active node nobody is desired, and everything stays as it is.
    let settled = !desired.is_empty() && desired.iter().all(|node| holders.contains(node));
    if i_hold {
        if file != FileState::Whole {
            return Step::Lost;
        }
        if !i_should && settled {
            return Step::GiveUp { keep: u32::try_from(desired.len()).unwrap_or(u32::MAX) };
        }
        let removed = |node: &&NodeId| view.standing(**node) == Some(Standing::Removed);
        let first_live = holders.iter().find(|node| view.is_live(**node));
        return match holders.iter().find(removed) {
            // One proposes it, so that not all do.
            Some(node) if first_live == Some(&view.me) => Step::Forget(*node),
            _ => Step::Rest,
        };
    }
    // Holders that were removed will never say that their copies are gone. Where no live holder is left to say it, the
    // first node that should hold the blob does: then the blob counts as lost, and its next push brings it back.
    if !holders.iter().any(|node| view.is_live(*node))
        && desired.first() == Some(&view.me)
        && let Some(gone) =
            holders.iter().find(|node| view.standing(**node) == Some(Standing::Removed))
    {
        return Step::Forget(*gone);
    }
    match file {
        FileState::Whole if i_should || holders.is_empty() => Step::Claim,
        FileState::Whole if settled => Step::Remove,
        FileState::Damaged => Step::Remove,
        FileState::Absent if i_should && !holders.is_empty() => Step::Fetch,
        FileState::Whole | FileState::Absent => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nora_domain::{Generation, NodeRecord, Timestamp};

    use super::*;

    const DIGEST: Digest = Digest::sha256([7; 32]);

    fn blob(holders: &[u64]) -> BlobRecord {
        BlobRecord {
            generation: Generation::default(),
            size: 1,
            chunk_root: [0; 32],
            tenants: 1,
            unheld_at: Timestamp(0),
            placement: Placement::Nodes(holders.iter().copied().map(NodeId).collect()),
        }
    }

    /// Nodes 1, 2, …, of which the first sees it so.
    fn view(me: u64, replicas: usize, standings: &[Standing]) -> View {
        let nodes: BTreeMap<_, _> = standings
            .iter()
            .zip(1..)
            .map(|(standing, node)| {
                (NodeId(node), NodeRecord { standing: *standing, ..NodeRecord::default() })
            })
            .collect();
        View::new(NodeId(me), replicas, nodes)
    }

    use FileState::{Absent, Damaged, Whole};
    use Standing::{Active, Away, Draining, Removed};

    #[test]
    fn every_node_of_few_holds_it() {
        for (me, holders, file, step) in [
            (1, &[1, 2, 3][..], Whole, Step::Rest),
            (3, &[1, 2], Absent, Step::Fetch),
            (3, &[1, 2], Whole, Step::Claim),
            (3, &[1, 2], Damaged, Step::Remove),
            (1, &[1, 2], Absent, Step::Lost),
            (1, &[1, 2], Damaged, Step::Lost),
            (1, &[], Whole, Step::Claim),
            (1, &[], Absent, Step::Rest),
        ] {
            let view = view(me, 3, &[Active, Active, Active]);
            assert_eq!(decide(&DIGEST, &blob(holders), &view, file), step, "{me} {holders:?}");
        }
    }

    #[test]
    fn a_copy_is_given_up_only_once_all_who_should_hold_it_do() {
        let standings = [Active; 5];
        let desired = view(1, 2, &standings).desired(&DIGEST);
        let spare = (1..=5).find(|node| !desired.contains(&NodeId(*node))).unwrap();
        let view = view(spare, 2, &standings);
        let (a, b) = (desired[0].0, desired[1].0);
        let steps = |holders: &[u64], file| decide(&DIGEST, &blob(holders), &view, file);
        assert_eq!(steps(&[a, b, spare], Whole), Step::GiveUp { keep: 2 });
        assert_eq!(steps(&[a, spare], Whole), Step::Rest);
        assert_eq!(steps(&[spare], Whole), Step::Rest);
        assert_eq!(steps(&[a, b], Whole), Step::Remove);
        assert_eq!(steps(&[a], Whole), Step::Rest);
        assert_eq!(steps(&[], Whole), Step::Claim);
        assert_eq!(steps(&[a, b], Absent), Step::Rest);
    }

    #[test]
    fn a_blob_whose_holders_were_all_removed_is_forgotten_by_one_node() {
        let standings = [Removed, Active, Active];
        let steps: Vec<_> = [2, 3]
            .map(|me| decide(&DIGEST, &blob(&[1]), &view(me, 3, &standings), Absent))
            .into_iter()
            .filter(|step| *step == Step::Forget(NodeId(1)))
            .collect();
        assert_eq!(steps.len(), 1, "one of the two says that the copy is gone");
        // A holder that is only away may come back.
        for me in [2, 3] {
            let view = view(me, 3, &[Away, Active, Active]);
            assert_ne!(decide(&DIGEST, &blob(&[1]), &view, Absent), Step::Forget(NodeId(1)));
        }
    }

    #[test]
    fn standings_decide_who_takes_part() {
        for (me, standings, holders, step) in [
            // Node 1 drains: it keeps its copy until 2 and 3 have one.
            (1, [Draining, Active, Active], &[1, 2][..], Step::Rest),
            (3, [Draining, Active, Active], &[1, 2], Step::Fetch),
            (1, [Draining, Active, Active], &[1, 2, 3], Step::GiveUp { keep: 2 }),
            // All drain: nothing moves.
            (1, [Draining, Draining, Draining], &[1, 2, 3], Step::Rest),
            // A removed holder is forgotten by the first who is left.
            (2, [Removed, Active, Active], &[1, 2, 3], Step::Forget(NodeId(1))),
            (3, [Removed, Active, Active], &[1, 2, 3], Step::Rest),
            (3, [Removed, Away, Active], &[1, 2, 3], Step::Forget(NodeId(1))),
            // One that is thought to be away, or was removed, changes nothing.
            (1, [Away, Active, Active], &[1, 2, 3], Step::Rest),
            (1, [Removed, Active, Active], &[1, 2, 3], Step::Rest),
        ] {
            let file = if holders.contains(&me) { Whole } else { Absent };
            let found = decide(&DIGEST, &blob(holders), &view(me, 3, &standings), file);
            assert_eq!(found, step, "{me} of {standings:?}, held by {holders:?}");
        }
    }
}
