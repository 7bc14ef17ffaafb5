//! Whether this node is the only voter and leads, known before anybody else could act on the contrary.
//!
//! While it is, a read on it needs no question to anybody. The flag goes up when this node applies an entry that it wrote
//! itself as a leader elected in this process's life, while the newest membership in its log is applied and has no
//! other voter. The proof:
//!
//! 1. A leader acknowledges a change once it has applied it, and for that a quorum of the voters of the newest membership
//!    in its log must have it. An entry of a leader is applied here only when all before it are: so when the flag goes
//!    up, this node has applied whatever any leader of an earlier term acknowledged, and what it acknowledged itself.
//! 2. This node gave its own vote to a term of its own, so it takes in nothing from leaders of earlier terms any more.
//!    One that still believes to lead (say, the one that made this node the only voter, and left) needs this node for
//!    a quorum, and gets nothing acknowledged. Nobody else can be elected either: whoever has this membership in its log
//!    needs this node's vote, and whoever has not lacks entries that this node has, and needs its vote too, because one
//!    voter of the membership before that must have had this one committed.
//! 3. Another voter can come to be only by an entry that this node, the only possible leader, appends to its own log.
//!    What openraft sends to others it reads from this node's log store, and [`SoleVoter::appended`] lowers the flag
//!    before the store takes the entry in. So when another node first hears that it is a voter, the flag here is
//!    already down, and with it every later [`SoleVoter::holds`].
//! 4. A snapshot that is installed comes from a leader that is not this node: it lowers the flag, and only an entry of
//!    this node's own leading raises it again.
//!
//! That the leading be of this process's life matters after a restart: entries of an earlier life are applied again one
//! by one, and those that were acknowledged but are not applied yet must not be missed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Membership;
use crate::rocks::locked;

/// The flag, shared by the log store (which lowers it) and the state machine (which raises it).
#[derive(Debug)]
pub struct SoleVoter {
    node: u64,
    seen: Mutex<Seen>,
    /// Whether the next entry of this node's own leading raises the flag.
    alone: AtomicBool,
    sole: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    /// Index of the newest membership entry in the log, as far as this process has seen.
    newest: Option<u64>,
    /// The newest term of which this node knew when it started.
    term: u64,
}

impl SoleVoter {
    /// Down, until this node leads alone.
    pub fn new(node: u64) -> Self {
        Self {
            node,
            seen: Mutex::default(),
            alone: AtomicBool::new(false),
            sole: AtomicBool::new(false),
        }
    }

    /// This node.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// Whether this node was the only voter, and led, at some moment during the call.
    pub fn holds(&self) -> bool {
        self.sole.load(Ordering::SeqCst)
    }

    /// The newest term of which this node knows at its start.
    pub fn started_in(&self, term: u64) {
        let mut seen = locked(&self.seen);
        seen.term = seen.term.max(term);
    }

    /// A membership entry is about to stand in the log, or a snapshot of another leader to take its place.
    pub fn appended(&self, index: u64) {
        let mut seen = locked(&self.seen);
        seen.newest = Some(seen.newest.map_or(index, |newest| newest.max(index)));
        self.alone.store(false, Ordering::SeqCst);
        self.sole.store(false, Ordering::SeqCst);
    }

    /// The membership entry at `index` was applied, or was found applied at start.
    pub fn applied(&self, index: u64, membership: &Membership) {
        let seen = locked(&self.seen);
        if seen.newest.is_none_or(|newest| newest <= index) {
            let mut voters = membership.voter_ids();
            let alone = voters.next() == Some(self.node) && voters.next().is_none();
            self.alone.store(alone, Ordering::SeqCst);
            if !alone {
                self.sole.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Everything up to an entry that `leader` wrote in `term` was applied and can be read.
    pub fn reached(&self, term: u64, leader: u64) {
        if leader == self.node && self.alone.load(Ordering::SeqCst) && !self.holds() {
            let seen = locked(&self.seen);
            let alone = self.alone.load(Ordering::SeqCst);
            if alone && term > seen.term {
                self.sole.store(true, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn voters(ids: &[u64]) -> Membership {
        Membership::new_with_defaults(vec![ids.iter().copied().collect::<BTreeSet<_>>()], [])
    }

    #[test]
    fn flag_is_up_only_while_nobody_else_can_be_a_voter() {
        let flag = SoleVoter::new(1);
        assert!(!flag.holds(), "nothing is known yet");
        flag.appended(0);
        flag.applied(0, &voters(&[1]));
        assert!(!flag.holds(), "this node has not led yet");
        flag.reached(1, 1);
        assert!(flag.holds());

        flag.appended(7);
        assert!(!flag.holds(), "an entry stands in the log that may add a voter");
        flag.applied(0, &voters(&[1]));
        flag.reached(1, 1);
        assert!(!flag.holds(), "an older membership says nothing about the newest");
        flag.applied(7, &voters(&[1, 2]));
        flag.reached(1, 1);
        assert!(!flag.holds());

        flag.appended(9);
        flag.applied(9, &voters(&[1]));
        flag.reached(2, 2);
        assert!(!flag.holds(), "the other voter has left, but it may lead for a while");
        flag.reached(3, 1);
        assert!(flag.holds(), "this node leads, alone");
        flag.appended(10);
        flag.applied(10, &voters(&[2]));
        flag.reached(3, 1);
        assert!(!flag.holds(), "the only voter is another node");
    }

    #[test]
    fn entries_of_an_earlier_life_do_not_raise_the_flag() {
        let flag = SoleVoter::new(1);
        flag.started_in(4);
        flag.applied(0, &voters(&[1]));
        flag.reached(4, 1);
        assert!(
            !flag.holds(),
            "later entries of that term may be acknowledged and not applied yet"
        );
        flag.reached(5, 1);
        assert!(flag.holds());
    }
}
