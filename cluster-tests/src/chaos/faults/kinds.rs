//! The kinds of fault, and which of them go together.

use super::super::Plan;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL of any node.
    Kill,
    /// SIGKILL of the leader.
    KillLeader,
    /// SIGKILL of two nodes at once: no quorum for a while.
    KillTwo,
    /// SIGKILL of all nodes at once.
    KillAll,
    /// SIGKILL of a node that takes in a snapshot, or of the one that sends it.
    KillInSnapshot,
    /// SIGKILL of any node, and what it had not synced is lost.
    PowerCut,
    /// The same of all nodes at once.
    PowerCutAll,
    /// SIGTERM, and a start.
    Restart,
    /// SIGSTOP for a while.
    Pause,
    /// SIGSTOP of the leader.
    PauseLeader,
    /// The leader neither hears nor is heard.
    IsolateLeader,
    /// A node is heard by nobody, and hears.
    Mute,
    /// A node hears nobody, and is heard.
    Deafen,
    /// Two nodes are cut off from each other; the third hears both.
    Bridge,
    /// A share of all packets is lost.
    Loss,
    /// The way to a node is slow.
    Delay,
    /// All connections to a node break, and new ones do for a while.
    Reset,
    /// Leadership is handed over.
    Transfer,
    /// A snapshot is made.
    Snapshot,
    /// A node's fsync is slow.
    SlowSync,
    /// A node's disk is full.
    FullDisk,
    /// A node's wall clock is off by up to two hours.
    ClockStep,
    /// A bit flips in one copy of a blob.
    FlippedBit,
    /// The clocks of all others step by up to a day, and the leader is killed: the next one's clock is wrong.
    ClockElection,
    /// A disk is lost with all that was on it; the node is removed and joins anew.
    DiskLost,
    /// Bits flip in what a stopped node has stored besides blobs; it starts beside one that was behind.
    Rot,
    /// A node joins, votes, is drained and removed.
    Churn,
    /// Another fault comes while one lasts.
    Pair,
    /// S3 is overloaded and says so.
    S3Overload,
    /// S3 does what it is asked, and its answer gets lost.
    S3LostAnswers,
    /// S3 cannot be reached.
    S3Down,
    /// S3 is slow.
    S3Slow,
}

impl Fault {
    /// How often it comes beside others; those that take long come less.
    pub(super) fn weight(self) -> usize {
        match self {
            Self::Churn | Self::KillInSnapshot => 1,
            Self::FullDisk | Self::PowerCutAll | Self::KillAll | Self::FlippedBit => 3,
            Self::DiskLost | Self::Rot => 2,
            Self::KillLeader | Self::IsolateLeader | Self::PowerCut | Self::Bridge => 8,
            Self::Pair => 20,
            _ => 4,
        }
    }

    /// Whether it is possible where a run takes place.
    pub(super) fn is_possible(self, plan: &Plan, has_library: bool) -> bool {
        use Fault::{Bridge, Deafen, IsolateLeader, Loss, Mute};
        use Fault::{ClockElection, ClockStep, FullDisk, PowerCut, PowerCutAll, SlowSync};
        use Fault::{DiskLost, FlippedBit, Rot};
        use Fault::{S3Down, S3LostAnswers, S3Overload, S3Slow};
        match self {
            IsolateLeader | Mute | Deafen | Bridge | Loss => plan.partitions,
            ClockElection | ClockStep | FullDisk | PowerCut | PowerCutAll | SlowSync => has_library,
            S3Overload | S3LostAnswers | S3Down | S3Slow => plan.s3.is_some(),
            // Copies on the nodes' disks: with S3 they are a cache.
            FlippedBit => plan.s3.is_none(),
            // The others must be a majority.
            DiskLost | Rot => plan.nodes >= 3,
            _ => true,
        }
    }

    /// Whether it lasts until it is ended, so that another can come meanwhile.
    pub(super) fn lasts(self) -> bool {
        use Fault::{Bridge, Deafen, Delay, Loss, Mute, Pause, Reset};
        use Fault::{ClockStep, FullDisk, SlowSync};
        use Fault::{S3Down, S3LostAnswers, S3Overload, S3Slow};
        matches!(
            self,
            Bridge
                | Deafen
                | Delay
                | Loss
                | Mute
                | Pause
                | Reset
                | ClockStep
                | FullDisk
                | SlowSync
                | S3Down
                | S3LostAnswers
                | S3Overload
                | S3Slow
        )
    }

    /// Whether a node is without its process, its disk or its network meanwhile: two of them may be no minority any more.
    pub(super) fn takes_out(self) -> bool {
        use Fault::{ClockStep, Delay, FlippedBit, Loss, SlowSync, Snapshot, Transfer};
        use Fault::{S3Down, S3LostAnswers, S3Overload, S3Slow};
        !matches!(
            self,
            ClockStep
                | Delay
                | FlippedBit
                | Loss
                | SlowSync
                | Snapshot
                | Transfer
                | S3Down
                | S3LostAnswers
                | S3Overload
                | S3Slow
        )
    }

    /// Whether it can come while `first` lasts. What needs the others to answer does not come while one is out, and what is a
    /// pair of faults in itself, or takes all nodes, not at all.
    pub(super) fn can_join(self, first: Self) -> bool {
        use Fault::{Churn, KillAll, KillInSnapshot, KillTwo, Pair, PowerCutAll, Rot};
        use Fault::{DiskLost, FlippedBit, Restart, Snapshot, Transfer};
        match self {
            Churn | KillAll | KillInSnapshot | KillTwo | Pair | PowerCutAll | Rot => false,
            // A node dates the certificates that it gives by its own clock.
            DiskLost => matches!(first, Self::SlowSync | Self::Delay | Self::Loss),
            FlippedBit | Restart | Snapshot | Transfer => !first.takes_out(),
            _ => self != first,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn pairs() -> impl Iterator<Item = (Fault, Fault)> {
        let kinds = Fault::value_variants();
        let firsts = kinds.iter().filter(|kind| kind.lasts());
        firsts.flat_map(|first| {
            let seconds = kinds.iter().filter(|second| second.can_join(*first));
            seconds.map(|second| (*first, *second))
        })
    }

    #[test]
    fn what_needs_a_majority_never_comes_while_a_node_is_out() {
        let needs = [Fault::DiskLost, Fault::FlippedBit, Fault::Transfer, Fault::Snapshot];
        for second in needs {
            assert!(pairs().any(|(_, other)| other == second), "{second:?} comes with something");
        }
        for (first, second) in pairs() {
            assert!(!(first.takes_out() && needs.contains(&second)), "{first:?}, {second:?}");
            assert!(second != Fault::PowerCutAll && second != Fault::Pair, "{first:?}, {second:?}");
        }
    }

    #[test]
    fn every_kind_comes_and_what_cannot_come_does_not() {
        assert!(Fault::value_variants().iter().all(|kind| kind.weight() > 0));
        let plan = Plan {
            program: "nora".into(),
            work: "work".into(),
            seed: 1,
            faults: 1,
            limit: std::time::Duration::ZERO,
            nodes: 3,
            clients: 1,
            partitions: true,
            s3: None,
            only: Vec::new(),
        };
        let possible = |plan: &Plan, library| {
            let kinds = Fault::value_variants().iter();
            kinds.filter(|kind| kind.is_possible(plan, library)).count()
        };
        let all = Fault::value_variants().len();
        assert_eq!(possible(&plan, true), all - 4, "all but those of S3");
        let with_s3 = Plan { s3: Some("s3".into()), ..plan.clone() };
        assert_eq!(possible(&with_s3, true), all - 1, "copies are a cache");
        let alone = Plan { partitions: false, nodes: 1, ..plan };
        assert_eq!(possible(&alone, false), all - 4 - 5 - 6 - 2);
    }
}
