//! What the leader should change next about who takes part, from what it sees. Pure.
//!
//! Guarantees: no step leaves a set of voters of which a majority is silent; whatever is left half done (by a leader that
//! died in between) is found again by the next look, because every step follows from standings and the membership alone.

use std::time::Duration;

use nora_domain::{NodeId, Standing};

/// Voters beyond this many make writes slower and nothing safer.
pub(super) const VOTERS_MAX: usize = 7;
/// A learner votes once it lacks no more entries than this.
const LAG_ENTRIES_MAX: u64 = 1000;
/// A member that has not answered the leader for so long is not counted on.
pub(super) const SILENT: Duration = Duration::from_secs(3);

/// A node's part in consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Outside,
    Learner,
    Voter,
}

/// A node, as its leader sees it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) node: NodeId,
    pub(super) standing: Standing,
    pub(super) part: Part,
    /// Where it listens; empty if it never told.
    pub(super) address: String,
    /// Whether it has answered this leader lately.
    pub(super) live: bool,
    /// For how long this leader has heard nothing for certain; zero for the leader itself.
    pub(super) silent: Duration,
    /// Entries that it is not known to have.
    pub(super) lag_entries: u64,
    /// For how long it has stood so, by the cluster's clock.
    pub(super) stood: Duration,
}

impl Seen {
    /// Whether it has all that was written, nearly.
    pub(super) fn has_caught_up(&self) -> bool {
        self.live && self.lag_entries <= LAG_ENTRIES_MAX
    }

    fn is_voter(&self) -> bool {
        self.part == Part::Voter
    }
}

/// When silence has consequences.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) away_after: Duration,
    pub(super) remove_after: Option<Duration>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Finish a change of the voters that was cut off half-way.
    Finish,
    /// Send it the log.
    AddLearner(NodeId, String),
    /// Let it vote.
    Promote(NodeId),
    /// Let it vote no longer.
    Demote(NodeId),
    /// Send it the log no longer.
    Drop(NodeId),
    /// Let another node lead: this one was removed.
    Yield,
    /// Note that it is away.
    SetAway(NodeId),
    /// Remove it, unless a blob would lose its last copy.
    Remove(NodeId),
}

/// Voters that would be left without `node`: how many, and how many of them live.
fn rest(seen: &[Seen], node: NodeId) -> (usize, usize) {
    let others = || seen.iter().filter(|other| other.is_voter() && other.node != node);
    (others().count(), others().filter(|other| other.live).count())
}

/// Whether the other voters can decide without `node`.
pub(super) fn quorum_without(seen: &[Seen], node: NodeId) -> bool {
    let (voters, live) = rest(seen, node);
    live > voters / 2
}

/// What to do now, in this order. Looking again afterwards gives what remains. While a change of the voters is half done
/// (`is_joint`), nothing else is changed: majorities of the old and of the new voters are needed, and `seen` does not say
/// which node belongs to which.
pub(super) fn plan(seen: &[Seen], leader: NodeId, is_joint: bool, patience: Patience) -> Vec<Step> {
    if is_joint {
        return vec![Step::Finish];
    }
    let mut voters = seen.iter().filter(|node| node.is_voter()).count();
    let mut steps = Vec::new();
    for node in seen {
        steps.extend(match (node.standing, node.part) {
            (Standing::Removed, Part::Voter) if node.node == leader => Some(Step::Yield),
            (Standing::Removed, Part::Voter) => {
                quorum_without(seen, node.node).then_some(Step::Demote(node.node))
            }
            (Standing::Removed, Part::Learner) => Some(Step::Drop(node.node)),
            (Standing::Joining | Standing::Active, Part::Outside) => (!node.address.is_empty())
                .then(|| Step::AddLearner(node.node, node.address.clone())),
            (Standing::Active, Part::Learner | Part::Voter)
                if node.silent >= patience.away_after =>
            {
                Some(Step::SetAway(node.node))
            }
            (Standing::Active, Part::Learner) if node.has_caught_up() && voters < VOTERS_MAX => {
                voters += 1;
                Some(Step::Promote(node.node))
            }
            (Standing::Away, _) if may_go(seen, node, patience) => Some(Step::Remove(node.node)),
            _ => None,
        });
    }
    steps
}

/// Whether a node that is away has been so for long enough, by the clock and in this leader's own experience, and the
/// others are enough without it: a voter goes only if three live ones stay, or an even number becomes odd.
fn may_go(seen: &[Seen], node: &Seen, patience: Patience) -> bool {
    let Some(remove_after) = patience.remove_after else { return false };
    let long = node.stood + patience.away_after >= remove_after
        && node.silent >= remove_after.min(patience.away_after);
    let (voters, live) = rest(seen, node.node);
    let enough = live > voters / 2 && (live >= 3 || voters % 2 == 1);
    long && (!node.is_voter() || enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        away_after: Duration::from_secs(600),
        remove_after: Some(Duration::from_secs(3600)),
    };

    fn seen(number: u64, standing: Standing, part: Part, silent: u64) -> Seen {
        Seen {
            node: NodeId(number),
            standing,
            part,
            address: format!("127.0.0.{number}:4001"),
            live: silent < SILENT.as_secs(),
            silent: Duration::from_secs(silent),
            lag_entries: 0,
            stood: Duration::from_secs(silent.saturating_sub(600)),
        }
    }

    fn voters(count: u64) -> Vec<Seen> {
        (1..=count).map(|number| seen(number, Standing::Active, Part::Voter, 0)).collect()
    }

    /// Checks what node 1 would do as leader of `count` live voters and these others.
    fn check(count: u64, others: &[Seen], expected: &[Step]) {
        let seen = [voters(count), others.to_vec()].concat();
        assert_eq!(
            plan(&seen, NodeId(1), false, PATIENCE),
            expected,
            "{count} voters and {others:?}"
        );
    }

    #[test]
    fn newcomers_learn_and_then_vote() {
        let (node, address) = (NodeId(9), "127.0.0.9:4001".to_owned());
        let outside = seen(9, Standing::Joining, Part::Outside, 0);
        check(1, &[outside], &[Step::AddLearner(node, address.clone())]);
        check(
            1,
            &[seen(9, Standing::Active, Part::Outside, 0)],
            &[Step::AddLearner(node, address)],
        );
        // It has not started with its certificate yet.
        check(1, &[seen(9, Standing::Joining, Part::Learner, 0)], &[]);
        let learner = seen(9, Standing::Active, Part::Learner, 0);
        check(1, std::slice::from_ref(&learner), &[Step::Promote(node)]);
        check(6, std::slice::from_ref(&learner), &[Step::Promote(node)]);
        check(7, std::slice::from_ref(&learner), &[]);
        check(1, &[Seen { lag_entries: LAG_ENTRIES_MAX + 1, ..learner.clone() }], &[]);
        check(1, &[Seen { live: false, ..learner }], &[]);
        check(1, &[seen(9, Standing::Draining, Part::Learner, 0)], &[]);
    }

    #[test]
    fn two_learners_do_not_exceed_the_voters() {
        let learners = [8, 9].map(|number| seen(number, Standing::Active, Part::Learner, 0));
        check(6, &learners, &[Step::Promote(NodeId(8))]);
    }

    #[test]
    fn removed_nodes_leave_in_two_steps_and_never_the_quorum() {
        let voter = seen(9, Standing::Removed, Part::Voter, 4000);
        check(3, std::slice::from_ref(&voter), &[Step::Demote(NodeId(9))]);
        check(3, &[Seen { part: Part::Learner, ..voter.clone() }], &[Step::Drop(NodeId(9))]);
        check(3, &[Seen { part: Part::Outside, ..voter.clone() }], &[]);
        // Of the two others one is silent: without the removed one nothing could be decided.
        let silent = seen(2, Standing::Active, Part::Voter, 5);
        check(1, &[silent, voter], &[]);
        let seen = [seen(1, Standing::Removed, Part::Voter, 0)];
        assert_eq!(plan(&seen, NodeId(1), false, PATIENCE), [Step::Yield]);
    }

    #[test]
    fn silence_makes_away_and_long_silence_removes_if_the_rest_is_enough() {
        check(2, &[seen(9, Standing::Active, Part::Voter, 599)], &[]);
        check(2, &[seen(9, Standing::Active, Part::Voter, 600)], &[Step::SetAway(NodeId(9))]);
        check(2, &[seen(9, Standing::Draining, Part::Voter, 9999)], &[]);
        let away = seen(9, Standing::Away, Part::Voter, 3600);
        // Two of three: no replacement has come, so it stays counted.
        check(2, std::slice::from_ref(&away), &[]);
        check(3, std::slice::from_ref(&away), &[Step::Remove(NodeId(9))]);
        check(1, std::slice::from_ref(&away), &[Step::Remove(NodeId(9))]);
        check(3, &[seen(9, Standing::Away, Part::Voter, 3599)], &[]);
        check(2, &[Seen { part: Part::Learner, ..away.clone() }], &[Step::Remove(NodeId(9))]);
        // A leader that is new, or a clock that has jumped: it was not silent for long in anybody's experience.
        check(3, &[Seen { silent: Duration::from_secs(5), ..away.clone() }], &[]);
        let never = Patience { remove_after: None, ..PATIENCE };
        assert_eq!(plan(&[voters(3), vec![away]].concat(), NodeId(1), false, never), []);
    }

    #[test]
    fn a_change_that_was_cut_off_is_finished_before_anything_else() {
        let removed = seen(9, Standing::Removed, Part::Voter, 4000);
        let seen = [voters(3), vec![removed]].concat();
        assert_eq!(plan(&seen, NodeId(1), true, PATIENCE), [Step::Finish]);
        assert_eq!(plan(&seen, NodeId(1), false, PATIENCE), [Step::Demote(NodeId(9))]);
    }
}
