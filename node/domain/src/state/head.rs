//! The part of the state that every command changes.

use std::collections::BTreeMap;

use crate::ids::Epoch;
use crate::journal::JournalHead;
use crate::node::SessionRecord;
use crate::time::Timestamp;

/// What changes with every command. It is small, and a store writes it once with each batch instead of once a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The cluster's clock: the latest time that any applied command carried. A command stamped earlier counts as of this
    /// time.
    pub clock: Timestamp,
    /// Where the journal begins and ends.
    pub journal: JournalHead,
    /// Which proposals of each running start were applied.
    pub sessions: BTreeMap<Epoch, SessionRecord>,
}
