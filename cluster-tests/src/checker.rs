//! Whether a history of operations on one register could have happened one after another.
//!
//! A register is a tag: it names a value or nothing. Values are unique, so a read tells which write
//! it saw. An operation takes effect at one instant between its invocation and its return; one of
//! unknown outcome at any instant after its invocation, or never; one that failed never does.
//!
//! [`is_linearizable`] searches as Wing and Gong do, and remembers with Lowe which sets of
//! operations led to which value. It is exact, and bounded to [`OPERATIONS_MAX`] operations: tests
//! use many short-lived registers instead of few long ones. It must not know what it checks.

use std::collections::HashSet;

use serde::Serialize;

/// The longest history that is checked.
pub const OPERATIONS_MAX: usize = 128;

/// What was asked of the register, and what a known answer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// It shall hold this value.
    Write(u64),
    /// It held this, or nothing.
    Read(Option<u64>),
    /// It shall hold nothing; `true` if it held something before.
    Delete(bool),
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With the answer that [`Call`] holds.
    Answered,
    /// It surely had no effect.
    Failed,
    /// Nobody knows: it may take effect at any time from its invocation on, or never.
    Unknown,
}

/// An operation of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Which client, for people.
    pub client: usize,
    /// Which node was asked, for people.
    pub node: usize,
    /// What was asked and answered.
    pub call: Call,
    /// How it ended.
    pub end: End,
    /// When it was invoked, in microseconds of a monotonic clock.
    pub invoked: u64,
    /// When the answer was there, on the same clock.
    pub returned: u64,
}

/// Whether some order of the operations, each at an instant of its own duration, explains every
/// answer. The register begins with nothing. `None` if the history is too long to be checked.
pub fn is_linearizable(history: &[Operation]) -> Option<bool> {
    let seen: HashSet<u64> = history
        .iter()
        .filter_map(|operation| match (operation.end, operation.call) {
            (End::Answered, Call::Read(value)) => value,
            _ => None,
        })
        .collect();
    let operations: Vec<Operation> = history
        .iter()
        .filter(|operation| match (operation.end, operation.call) {
            (End::Failed, _) | (End::Unknown, Call::Read(_)) => false,
            // Nobody saw its value, so an order with it is one without it too.
            (End::Unknown, Call::Write(value)) => seen.contains(&value),
            _ => true,
        })
        .copied()
        .collect();
    if operations.len() > OPERATIONS_MAX {
        return None;
    }
    Some(search(&operations))
}

fn search(operations: &[Operation]) -> bool {
    let must = |operation: &Operation| operation.end == End::Answered;
    let goal = operations
        .iter()
        .enumerate()
        .filter(|(_, operation)| must(operation))
        .fold(0_u128, |mask, (at, _)| mask | 1 << at);
    let mut known = HashSet::from([(0_u128, None::<u64>)]);
    let mut open = vec![(0_u128, None::<u64>)];
    while let Some((done, value)) = open.pop() {
        if done & goal == goal {
            return true;
        }
        let waiting = |at: usize| done & (1 << at) == 0;
        let horizon = operations
            .iter()
            .enumerate()
            .filter(|(at, operation)| must(operation) && waiting(*at))
            .map(|(_, operation)| operation.returned)
            .min()
            .unwrap_or(u64::MAX);
        for (at, operation) in operations.iter().enumerate() {
            if !waiting(at) || operation.invoked > horizon {
                continue;
            }
            if let Some(next) = effect(operation, value) {
                let state = (done | 1 << at, next);
                if known.insert(state) {
                    open.push(state);
                }
            }
        }
    }
    false
}

/// What the register holds after the operation; `None` if it cannot have answered so.
fn effect(operation: &Operation, value: Option<u64>) -> Option<Option<u64>> {
    match operation.call {
        Call::Write(new) => Some(Some(new)),
        Call::Read(read) => (read == value).then_some(value),
        Call::Delete(existed) => {
            (operation.end == End::Unknown || existed == value.is_some()).then_some(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn op(call: Call, invoked: u64, returned: u64) -> Operation {
        Operation { client: 0, node: 0, call, end: End::Answered, invoked, returned }
    }

    fn unknown(call: Call, invoked: u64) -> Operation {
        Operation { end: End::Unknown, ..op(call, invoked, invoked + 1) }
    }

    fn holds(history: &[Operation]) -> bool {
        is_linearizable(history).unwrap()
    }

    use Call::{Delete, Read, Write};

    #[test]
    fn histories_that_can_have_happened_are_accepted() {
        assert!(holds(&[]));
        assert!(holds(&[op(Read(None), 0, 1), op(Write(1), 2, 3), op(Read(Some(1)), 4, 5)]));
        // A read beside a write may see either value.
        assert!(holds(&[op(Write(1), 0, 1), op(Write(2), 2, 9), op(Read(Some(1)), 3, 4)]));
        assert!(holds(&[op(Write(1), 0, 1), op(Write(2), 2, 9), op(Read(Some(2)), 3, 4)]));
        // Two writes at once, in either order.
        assert!(holds(&[op(Write(1), 0, 9), op(Write(2), 0, 9), op(Read(Some(1)), 10, 11)]));
        // An unknown write takes effect late, or never.
        let late = [unknown(Write(1), 0), op(Read(None), 5, 6), op(Read(Some(1)), 7, 8)];
        assert!(holds(&late));
        assert!(holds(&[unknown(Write(1), 0), op(Read(None), 5, 6)]));
        assert!(holds(&[op(Write(1), 0, 1), unknown(Delete(false), 2), op(Read(None), 5, 6)]));
        assert!(holds(&[op(Write(1), 0, 1), op(Delete(true), 2, 3), op(Delete(false), 4, 5)]));
    }

    #[test]
    fn a_stale_read_is_caught() {
        let history = [op(Write(1), 0, 1), op(Write(2), 2, 3), op(Read(Some(1)), 4, 5)];
        assert!(!holds(&history));
    }

    #[test]
    fn a_lost_write_is_caught() {
        assert!(!holds(&[op(Write(1), 0, 1), op(Read(None), 2, 3)]));
    }

    #[test]
    fn a_write_that_takes_effect_twice_is_caught() {
        let history = [
            op(Write(1), 0, 1),
            op(Write(2), 2, 3),
            op(Read(Some(2)), 4, 5),
            op(Read(Some(1)), 6, 7),
        ];
        assert!(!holds(&history));
        // Also one of unknown outcome: it is one effect, whenever it comes.
        let history = [
            unknown(Write(1), 0),
            op(Read(Some(1)), 2, 3),
            op(Write(2), 4, 5),
            op(Read(Some(2)), 6, 7),
            op(Read(Some(1)), 8, 9),
        ];
        assert!(!holds(&history));
    }

    #[test]
    fn reads_that_run_backwards_are_caught() {
        let history = [
            op(Write(1), 0, 1),
            op(Write(2), 2, 20),
            op(Read(Some(2)), 3, 4),
            op(Read(Some(1)), 5, 6),
        ];
        assert!(!holds(&history));
    }

    #[test]
    fn a_failed_write_that_is_seen_is_caught() {
        let failed = Operation { end: End::Failed, ..op(Write(1), 0, 1) };
        assert!(!holds(&[failed, op(Read(Some(1)), 2, 3)]));
    }

    #[test]
    fn a_value_that_nobody_wrote_and_a_deletion_of_nothing_are_caught() {
        assert!(!holds(&[op(Write(1), 0, 1), op(Read(Some(7)), 2, 3)]));
        assert!(!holds(&[op(Delete(true), 0, 1)]));
        assert!(!holds(&[op(Write(1), 0, 1), op(Delete(false), 2, 3)]));
    }

    #[test]
    fn a_history_that_is_too_long_is_not_judged() {
        let history: Vec<_> = (0..=OPERATIONS_MAX as u64)
            .map(|at| op(Write(at), at * 2, at * 2 + 1))
            .collect();
        assert_eq!(is_linearizable(&history), None);
    }

    /// Histories made by a real register at random instants are accepted; the same histories with
    /// one answer replaced by an older value are refused.
    #[test]
    fn random_histories_are_judged_rightly() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut instants: Vec<u64> = (0..40).map(|at| at * 10).collect();
            let mut value = None;
            let mut history = Vec::new();
            for (count, instant) in instants.drain(..).enumerate() {
                let call = match random.below(4) {
                    0 | 1 => {
                        value = Some(count as u64);
                        Write(count as u64)
                    }
                    2 => Read(value),
                    _ => {
                        let existed = value.take().is_some();
                        Delete(existed)
                    }
                };
                let before = random.below(25) as u64;
                let after = random.below(25) as u64;
                history.push(op(call, (instant + 100).saturating_sub(before), instant + 100 + after));
            }
            assert!(holds(&history), "seed {seed}");
            let end = 1000;
            let mut stale = history.clone();
            stale.push(op(Write(1000), end, end + 1));
            stale.push(op(Write(1001), end + 2, end + 3));
            stale.push(op(Read(Some(1000)), end + 4, end + 5));
            assert!(!holds(&stale), "seed {seed}");
        }
    }
}
