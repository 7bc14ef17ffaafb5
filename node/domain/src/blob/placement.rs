//! Where copies of a blob belong: weighted rendezvous hashing, one failure zone after another.
//!
//! Guarantees: a pure function of the digest and the candidates, in any order of these. A node that is added takes blobs
//! from others and moves none between them; one that is taken away gives up only what it had. Shares are proportional to
//! weights as far as zones let them be.
//!
//! Source: weighted rendezvous hashing with logarithmic scores (Schindelhauer and Schomaker, 2005).

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::ids::NodeId;

/// A node that may be given blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Its failure zone.
    pub zone: String,
    /// Its share relative to others'; 0 counts as 1.
    pub weight: u32,
}

/// All candidates in the order in which they should hold the blob: the best of each zone before a second of any.
pub fn rank(digest: &Digest, candidates: &[Candidate]) -> Vec<NodeId> {
    let seed = hash_of(digest);
    let mut scored: Vec<(f64, &Candidate)> =
        candidates.iter().map(|candidate| (score(seed, candidate), candidate)).collect();
    // Equal scores are told apart by the number, so that the order of the candidates never matters.
    scored.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.node.cmp(&other.node)));
    let mut ranked = Vec::with_capacity(scored.len());
    while !scored.is_empty() {
        let mut zones = BTreeSet::new();
        scored.retain(|(_, candidate)| {
            let first = zones.insert(candidate.zone.as_str());
            if first {
                ranked.push(candidate.node);
            }
            !first
        });
    }
    ranked
}

/// The nodes that should hold the blob, the best first: `replicas` of them, or all if there are fewer.
pub fn desired(digest: &Digest, candidates: &[Candidate], replicas: usize) -> Vec<NodeId> {
    let mut ranked = rank(digest, candidates);
    ranked.truncate(replicas);
    ranked
}

/// How many of `replicas` copies must be durable for an acknowledgement: a majority.
pub fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
}

fn hash_of(digest: &Digest) -> u64 {
    digest.value().chunks(8).fold(0x9e37_79b9_7f4a_7c15, |hash, chunk| {
        let word = chunk.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        mixed(hash ^ word)
    })
}

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
fn mixed(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Greater is better. Of independent uniform u, weight / -ln(u) is greatest for a node with the probability of its share.
fn score(seed: u64, candidate: &Candidate) -> f64 {
    let hash = mixed(seed ^ mixed(candidate.node.0.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    // 53 bits, moved off both ends: 0 < u < 1.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(candidate.weight.max(1)) / -uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(nodes: impl IntoIterator<Item = (u64, &'static str, u32)>) -> Vec<Candidate> {
        let candidate = |(node, zone, weight): (u64, &str, u32)| Candidate {
            node: NodeId(node),
            zone: zone.into(),
            weight,
        };
        nodes.into_iter().map(candidate).collect()
    }

    fn digests() -> impl Iterator<Item = Digest> {
        (0..4_000u32).map(|i| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&i.to_le_bytes());
            Digest::sha256(bytes)
        })
    }

    #[test]
    fn the_order_of_candidates_does_not_matter() {
        let forth = candidates((1..9).map(|n| (n, "", 100)));
        let back: Vec<_> = forth.iter().rev().cloned().collect();
        for digest in digests().take(200) {
            assert_eq!(rank(&digest, &forth), rank(&digest, &back));
            assert_eq!(rank(&digest, &forth).len(), 8);
        }
    }

    #[test]
    fn a_new_node_only_takes_and_a_lost_one_only_gives() {
        let few = candidates((1..6).map(|n| (n, "", 100)));
        let more = candidates((1..7).map(|n| (n, "", 100)));
        let mut moved = 0;
        for digest in digests() {
            let (before, after) = (desired(&digest, &few, 3), desired(&digest, &more, 3));
            let came: Vec<_> = after.iter().filter(|node| !before.contains(node)).collect();
            assert!(came.is_empty() || came == [&NodeId(6)], "{before:?} {after:?}");
            moved += came.len();
        }
        // A sixth node holds half of all blobs at three copies.
        assert!((1_900..2_100).contains(&moved), "{moved}");
    }

    #[test]
    fn a_new_node_only_takes_whatever_its_zone() {
        let few = candidates([(1, "a", 100), (2, "a", 300), (3, "b", 50), (4, "b", 100)]);
        for zone in ["a", "b", "c"] {
            let mut more = few.clone();
            more.extend(candidates([(5, zone, 200)]));
            let mut moved = 0;
            for digest in digests().take(1_000) {
                let (before, after) = (desired(&digest, &few, 3), desired(&digest, &more, 3));
                let came: Vec<_> = after.iter().filter(|node| !before.contains(node)).collect();
                assert!(came.is_empty() || came == [&NodeId(5)], "{before:?} {after:?}");
                moved += came.len();
            }
            assert!(moved > 200, "{zone}: {moved}");
        }
    }

    #[test]
    fn shares_are_as_weights() {
        let nodes = candidates([(1, "", 100), (2, "", 200), (3, "", 100)]);
        let second = digests().filter(|d| desired(d, &nodes, 1) == [NodeId(2)]).count();
        assert!((1_880..2_120).contains(&second), "{second}");
        let weightless = candidates([(1, "", 0), (2, "", 1)]);
        let first = digests().filter(|d| desired(d, &weightless, 1) == [NodeId(1)]).count();
        assert!((1_880..2_120).contains(&first), "{first}");
    }

    #[test]
    fn zones_come_before_scores() {
        let nodes = candidates([(1, "a", 900), (2, "a", 900), (3, "b", 1), (4, "c", 1)]);
        for digest in digests().take(500) {
            let three = desired(&digest, &nodes, 3);
            assert!(three.contains(&NodeId(3)) && three.contains(&NodeId(4)), "{three:?}");
        }
    }

    #[test]
    fn a_majority_is_more_than_half() {
        assert_eq!([1, 2, 3, 4, 5].map(majority), [1, 2, 2, 3, 3]);
    }
}
