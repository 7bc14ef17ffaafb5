//! How far the comparison of all blobs is, as a node keeps it on its disk.
//!
//! A round goes over all digests in order, as over a ring: one that was asked for anew in the middle goes on from where
//! it is, past the end and from the beginning, until it is there again. Guarantees: what was compared before it was asked
//! for does not count for the new round; a position that cannot be read begins a round, because comparing too much is
//! never wrong.

use std::time::Duration;

use nora_domain::{Algorithm, Digest};
use serde::{Deserialize, Serialize};

/// How far rounds are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PositionV1 {
    version: u32,
    /// When the last round began, in milliseconds since the Unix epoch.
    began_at: u64,
    /// The round that runs.
    round: Option<RoundV1>,
}

/// A round that runs. Digests are in their text form; empty is before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct RoundV1 {
    /// The last digest that was compared.
    after: String,
    /// The digest after which the round began.
    from: String,
    /// Whether the round passed the end.
    wrapped: bool,
    /// Whether the round was asked for, rather than due.
    urgent: bool,
}

/// What to compare next: the digests after one, up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) after: Option<Digest>,
    /// The last one; `None` for all there are.
    pub(super) end: Option<Digest>,
}

impl PositionV1 {
    /// Reads what was stored; `None` if that is no position.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let position: Self = serde_json::from_slice(bytes).ok()?;
        (position.version == 1).then_some(position)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // A struct of numbers and texts has a form in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Begins a round at `now`, or lets the one that runs go all the way around from where it is.
    pub(super) fn begin(&mut self, now: u64, urgent: bool) {
        let after = self.round.take().map(|round| round.after).unwrap_or_default();
        self.version = 1;
        self.began_at = now;
        self.round = Some(RoundV1 { from: after.clone(), after, wrapped: false, urgent });
    }

    pub(super) fn is_running(&self) -> bool {
        self.round.is_some()
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.urgent)
    }

    /// How long until a round is due. A clock that was set back does not put it off.
    pub(super) fn due_in(&self, now: u64, interval: Duration) -> Duration {
        match now.checked_sub(self.began_at) {
            Some(age) => interval.saturating_sub(Duration::from_millis(age)),
            None => Duration::ZERO,
        }
    }

    /// How much earlier than due the round is, if its digests are spread evenly over `span`. An urgent round never is.
    pub(super) fn ahead(&self, now: u64, span: Duration) -> Duration {
        let Some(round) = self.round.as_ref().filter(|round| !round.urgent) else {
            return Duration::ZERO;
        };
        let (at, from) = (place(&round.after), place(&round.from));
        let share = if round.wrapped { 1.0 - from + at } else { at - from };
        let due = span.mul_f64(share.clamp(0.0, 1.0));
        due.saturating_sub(Duration::from_millis(now.saturating_sub(self.began_at)))
    }

    /// What to compare next; `None` while no round runs.
    pub(super) fn next(&self) -> Option<Stretch> {
        let round = self.round.as_ref()?;
        let end = if round.wrapped { parse(&round.from) } else { None };
        Some(Stretch { after: parse(&round.after), end })
    }

    /// Everything up to `end` was compared; `None` for all that the stretch had. Ends a round that is around.
    pub(super) fn compared(&mut self, end: Option<Digest>) {
        let Some(round) = &mut self.round else { return };
        let is_around = match end {
            Some(end) => {
                round.after = end.to_string();
                round.wrapped && parse(&round.from).is_none_or(|from| end >= from)
            }
            None if round.wrapped || round.from.is_empty() => true,
            None => {
                round.wrapped = true;
                round.after.clear();
                false
            }
        };
        if is_around {
            self.round = None;
        }
    }
}

fn parse(text: &str) -> Option<Digest> {
    Digest::parse(text).ok()
}

/// Where a digest is among all, from 0 to 1: digests fall evenly, and half of the ring belongs to each algorithm.
fn place(text: &str) -> f64 {
    let Some(digest) = parse(text) else { return 0.0 };
    let mut first = [0; 4];
    first.iter_mut().zip(digest.value()).for_each(|(to, from)| *to = *from);
    let share = f64::from(u32::from_be_bytes(first)) / (f64::from(u32::MAX) + 1.0);
    match digest.algorithm() {
        Algorithm::Sha256 => share / 2.0,
        Algorithm::Sha512 => (1.0 + share) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const DAY_MILLIS: u64 = 86_400_000;

    fn digest(first: u8) -> Digest {
        let mut value = [0; 32];
        value[0] = first;
        Digest::sha256(value)
    }

    fn stretch(after: Option<u8>, end: Option<u8>) -> Option<Stretch> {
        Some(Stretch { after: after.map(digest), end: end.map(digest) })
    }

    fn restarted(position: &PositionV1) -> PositionV1 {
        PositionV1::decode(&position.encode()).unwrap()
    }

    #[test]
    fn a_round_goes_over_all_and_survives_restarts() {
        let mut position = PositionV1::default();
        assert_eq!(position.next(), None);
        position.begin(5, true);
        assert_eq!(position.next(), stretch(None, None));
        position.compared(Some(digest(9)));
        position = restarted(&position);
        assert_eq!(position.next(), stretch(Some(9), None));
        position.compared(None);
        assert!(!position.is_running());
    }

    #[test]
    fn a_round_that_is_asked_for_anew_goes_all_the_way_around() {
        let mut position = PositionV1::default();
        position.begin(5, false);
        position.compared(Some(digest(9)));
        position.begin(6, true);
        assert!(position.is_urgent());
        position.compared(Some(digest(200)));
        position.compared(None);
        assert_eq!(
            position.next(),
            stretch(None, Some(9)),
            "what was compared before counts no more"
        );
        position = restarted(&position);
        position.compared(Some(digest(3)));
        assert_eq!(position.next(), stretch(Some(3), Some(9)));
        // Asked for again near the end of the ring's rest.
        position.begin(7, true);
        position.compared(None);
        assert_eq!(position.next(), stretch(None, Some(3)));
        position.compared(None);
        assert!(!position.is_running());
        position.begin(8, true);
        position.compared(Some(digest(3)));
        position.begin(9, true);
        position.compared(None);
        position.compared(Some(digest(3)));
        assert!(!position.is_running(), "around at the very digest");
    }

    #[test]
    fn a_round_that_is_due_is_spread_and_one_that_was_asked_for_is_not() {
        let mut position = PositionV1::default();
        assert_eq!(position.due_in(40 * DAY_MILLIS, 30 * DAY), Duration::ZERO);
        position.begin(40 * DAY_MILLIS, false);
        assert_eq!(position.due_in(50 * DAY_MILLIS, 30 * DAY), 20 * DAY);
        assert_eq!(position.due_in(DAY_MILLIS, 30 * DAY), Duration::ZERO, "set back");
        position.compared(Some(digest(0x80)));
        // A quarter of the ring.
        assert_eq!(position.ahead(40 * DAY_MILLIS, 8 * DAY), 2 * DAY);
        assert_eq!(position.ahead(41 * DAY_MILLIS, 8 * DAY), DAY);
        assert_eq!(position.ahead(50 * DAY_MILLIS, 8 * DAY), Duration::ZERO);
        position.begin(50 * DAY_MILLIS, true);
        position.compared(Some(digest(0xff)));
        assert_eq!(position.ahead(50 * DAY_MILLIS, 8 * DAY), Duration::ZERO);
    }

    #[test]
    fn what_is_no_position_is_none() {
        for bytes in [&b""[..], b"{\"version\":1,\"beg", b"{\"version\":2,\"began_at\":1}"] {
            assert_eq!(PositionV1::decode(bytes), None);
        }
    }
}
