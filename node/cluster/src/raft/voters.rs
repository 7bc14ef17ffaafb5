//! Whether this node is the only voter, known before anybody else could act on the contrary.
//!
//! While it is, a read on it needs no question to anybody. The proof:
//!
//! 1. A change is acknowledged only by a leader that has applied it, and a leader needs a quorum of the voters of the
//!    newest membership in its log. With this node the only voter in its own log's newest membership, no quorum
//!    exists without this node.
//! 2. Another voter can come to be only by an entry that this node, the only possible leader, appends to its own log.
//!    What openraft sends to others it reads from this node's log store, and [`SoleVoter::appended`] lowers the flag
//!    before the store takes the entry in. So when another node first hears that it is a voter, the flag here is
//!    already down, and with it every later [`SoleVoter::holds`].
//! 3. Hence, if the flag is up, every change that was acknowledged anywhere was acknowledged by this node, after its
//!    own state machine had written it: a read that starts now sees it.
//!
//! The flag goes up only for a membership that is applied while no later membership stands in the log: the later one
//! may already have voters of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Membership;
use crate::rocks::locked;

/// The flag, shared by the log store (which lowers it) and the state machine (which raises it).
#[derive(Debug)]
pub struct SoleVoter {
    node: u64,
    /// Index of the newest membership entry in the log, as far as this process has seen.
    newest: Mutex<Option<u64>>,
    sole: AtomicBool,
}

impl SoleVoter {
    /// Down, until a membership is applied.
    pub fn new(node: u64) -> Self {
        Self { node, newest: Mutex::new(None), sole: AtomicBool::new(false) }
    }

    /// Whether this node was the only voter at some moment during the call.
    pub fn holds(&self) -> bool {
        self.sole.load(Ordering::SeqCst)
    }

    /// A membership entry is about to stand in the log.
    pub fn appended(&self, index: u64) {
        let mut newest = locked(&self.newest);
        *newest = Some(newest.map_or(index, |newest| newest.max(index)));
        self.sole.store(false, Ordering::SeqCst);
    }

    /// The membership entry at `index` was applied, or was found applied at start.
    pub fn applied(&self, index: u64, membership: &Membership) {
        let newest = locked(&self.newest);
        if newest.is_none_or(|newest| newest <= index) {
            let mut voters = membership.voter_ids();
            let sole = voters.next() == Some(self.node) && voters.next().is_none();
            self.sole.store(sole, Ordering::SeqCst);
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
        assert!(flag.holds());

        flag.appended(7);
        assert!(!flag.holds(), "an entry stands in the log that may add a voter");
        flag.applied(0, &voters(&[1]));
        assert!(!flag.holds(), "an older membership says nothing about the newest");
        flag.applied(7, &voters(&[1, 2]));
        assert!(!flag.holds());

        flag.appended(9);
        flag.applied(9, &voters(&[1]));
        assert!(flag.holds(), "the other voter left");
        flag.appended(10);
        flag.applied(10, &voters(&[2]));
        assert!(!flag.holds(), "the only voter is another node");
    }
}
