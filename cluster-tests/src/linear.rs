//! Whether a history of one register could have happened one operation after the other.
//!
//! The search is Wing and Gong's with Lowe's memory of configurations: it tries to put the operations into an order that
//! respects real time and in which every read sees the write before it. A write whose outcome is unknown may take effect at
//! any time after it was asked for, or never.

use std::collections::HashSet;

/// What was asked of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Set it to a value that no other operation sets it to.
    Write(u64),
    /// Take its value away.
    Delete,
    /// This value was seen; `None`: that it has none.
    Read(Option<u64>),
}

/// One operation with its times, from any clock that does not step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub op: Op,
    /// When it was asked for.
    pub invoked: u64,
    /// When it was answered; `None` if its outcome is unknown.
    pub returned: Option<u64>,
}

/// Whether there is such an order.
pub fn is_linearizable(events: &[Event]) -> bool {
    let seen: HashSet<u64> = events
        .iter()
        .filter_map(|event| match event.op {
            Op::Read(value) => value,
            Op::Write(_) | Op::Delete => None,
        })
        .collect();
    // A write of unknown outcome that nobody saw may as well never have happened; a read without an answer says nothing.
    let mut events: Vec<Event> = events
        .iter()
        .filter(|event| match event.op {
            Op::Write(value) => event.returned.is_some() || seen.contains(&value),
            Op::Delete => true,
            Op::Read(_) => event.returned.is_some(),
        })
        .copied()
        .collect();
    events.sort_by_key(|event| event.invoked);
    Search { events: &events, tried: HashSet::new() }.run(&mut vec![false; events.len()], None)
}

struct Search<'a> {
    events: &'a [Event],
    tried: HashSet<(Vec<bool>, Option<u64>)>,
}

impl Search<'_> {
    fn run(&mut self, done: &mut Vec<bool>, value: Option<u64>) -> bool {
        let answered = |(at, event): (usize, &Event)| done[at] || event.returned.is_none();
        if self.events.iter().enumerate().all(answered) {
            return true;
        }
        if !self.tried.insert((done.clone(), value)) {
            return false;
        }
        // Next can come only what was asked for before anything that is left was answered.
        let limit = self
            .events
            .iter()
            .enumerate()
            .filter(|(at, _)| !done[*at])
            .filter_map(|(_, event)| event.returned)
            .min()
            .unwrap_or(u64::MAX);
        for at in 0..self.events.len() {
            let event = self.events[at];
            if event.invoked > limit {
                break;
            }
            let after = match event.op {
                _ if done[at] => continue,
                Op::Write(written) => Some(written),
                Op::Delete => None,
                Op::Read(seen) if seen == value => value,
                Op::Read(_) => continue,
            };
            done[at] = true;
            if self.run(done, after) {
                return true;
            }
            done[at] = false;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(op: Op, invoked: u64, returned: u64) -> Event {
        Event { op, invoked, returned: (returned != 0).then_some(returned) }
    }

    use Op::{Delete, Read, Write};

    #[test]
    fn sound_histories_pass() {
        let sound: [&[Event]; 6] = [
            &[],
            &[event(Write(1), 1, 2), event(Read(Some(1)), 3, 4)],
            // Seen before it was answered.
            &[event(Write(1), 1, 9), event(Read(Some(1)), 2, 3), event(Read(Some(1)), 4, 5)],
            // Never answered, and it took effect late.
            &[event(Write(1), 1, 0), event(Read(None), 5, 6), event(Read(Some(1)), 7, 8)],
            &[
                event(Write(1), 1, 2),
                event(Delete, 3, 0),
                event(Read(Some(1)), 4, 5),
                event(Read(None), 6, 7),
            ],
            &[
                event(Write(1), 1, 9),
                event(Write(2), 1, 9),
                event(Read(Some(2)), 2, 3),
                event(Read(Some(1)), 4, 5),
            ],
        ];
        for history in sound {
            assert!(is_linearizable(history), "{history:?}");
        }
    }

    #[test]
    fn faults_are_caught() {
        let faults: [(&str, &[Event]); 7] = [
            ("a lost write", &[event(Write(1), 1, 2), event(Read(None), 3, 4)]),
            (
                "a stale read",
                &[event(Write(1), 1, 2), event(Write(2), 3, 4), event(Read(Some(1)), 5, 6)],
            ),
            (
                "values that go back and forth",
                &[
                    event(Write(1), 1, 9),
                    event(Write(2), 1, 9),
                    event(Read(Some(1)), 2, 3),
                    event(Read(Some(2)), 4, 5),
                    event(Read(Some(1)), 6, 7),
                ],
            ),
            ("a value from nowhere", &[event(Read(Some(7)), 1, 2)]),
            (
                "a write that takes effect twice",
                &[
                    event(Write(1), 1, 2),
                    event(Write(2), 3, 4),
                    event(Read(Some(2)), 5, 6),
                    event(Read(Some(1)), 7, 8),
                ],
            ),
            (
                "a deletion that comes back",
                &[event(Write(1), 1, 2), event(Delete, 3, 4), event(Read(Some(1)), 5, 6)],
            ),
            (
                "an unknown write undone",
                &[event(Write(1), 1, 0), event(Read(Some(1)), 2, 3), event(Read(None), 4, 5)],
            ),
        ];
        for (name, history) in faults {
            assert!(!is_linearizable(history), "{name}");
        }
    }
}
