//! Turns at hashing a password, which takes a core and 19 MiB.
//!
//! Guarantees: no more than so many hash at once, and no more than so many wait. Addresses take turns, so a login waits for
//! one login of each other address at most, however many that address has sent. When all places are taken, the address
//! with the most logins gives one up to an address with fewer. Must not know: whose password it is.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Logins from one address wait in one lane; what the node hashes on its own behalf has a lane too.
type Lane = Option<IpAddr>;

/// Who hashes, and who waits for it.
pub(super) struct Turns {
    at_once_max: usize,
    waiting_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hashing: usize,
    waiting: usize,
    lanes: HashMap<Lane, VecDeque<oneshot::Sender<Turn>>>,
    /// Each lane in which somebody waits, the one whose turn it is first.
    order: VecDeque<Lane>,
}

impl State {
    /// Takes out the login whose turn it is.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let lane = self.order.pop_front()?;
        let waiting = self.lanes.get_mut(&lane)?;
        let next = waiting.pop_front();
        match waiting.is_empty() {
            true => drop(self.lanes.remove(&lane)),
            false => self.order.push_back(lane),
        }
        self.waiting -= usize::from(next.is_some());
        next
    }

    /// Takes out the one who came last in the longest lane, if that lane stays as long as `lane` will be.
    fn displaced_by(&mut self, lane: &Lane) -> Option<oneshot::Sender<Turn>> {
        let own = self.lanes.get(lane).map_or(0, VecDeque::len);
        let longest = self.lanes.values_mut().max_by_key(|waiting| waiting.len())?;
        if longest.len() <= own + 1 {
            return None;
        }
        self.waiting -= 1;
        longest.pop_back()
    }
}

/// A place in a lane.
pub(super) struct Place(oneshot::Receiver<Turn>);

impl Place {
    /// Waits for the turn; `None` if the place was given up to another address.
    pub(super) async fn turn(self) -> Option<Turn> {
        self.0.await.ok()
    }
}

/// Leave to hash, until it is dropped.
pub(super) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.locked();
            let next = state.next();
            if next.is_none() {
                state.hashing -= 1;
            }
            next
        };
        if let Some(next) = next {
            // One who waits no more gets a turn that ends at once, and so passes on.
            drop(next.send(Turn(self.0.clone())));
        }
    }
}

impl Turns {
    /// So many hash at once, and so many wait.
    pub(super) fn new(at_once_max: usize, waiting_max: usize) -> Arc<Self> {
        Arc::new(Self { at_once_max, waiting_max, state: Mutex::default() })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the lane of an address; `None` if all places are taken, and no other address has more of them.
    pub(super) fn join(self: &Arc<Self>, lane: Option<IpAddr>) -> Option<Place> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.locked();
        if state.hashing < self.at_once_max {
            state.hashing += 1;
            drop(state);
            drop(sender.send(Turn(self.clone())));
            return Some(Place(receiver));
        }
        let displaced = match state.waiting < self.waiting_max {
            true => None,
            false => Some(state.displaced_by(&lane)?),
        };
        state.waiting += 1;
        let own = state.lanes.entry(lane).or_default();
        own.push_back(sender);
        if own.len() == 1 {
            state.order.push_back(lane);
        }
        drop((state, displaced));
        Some(Place(receiver))
    }

    /// How many hash or wait.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let state = self.locked();
        state.hashing + state.waiting
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn address(last: u8) -> Lane {
        Some([192, 0, 2, last].into())
    }

    #[test]
    fn an_address_that_sends_many_waits_for_itself() {
        let turns = Turns::new(1, 10);
        let mut many: VecDeque<Place> = (0..5).map(|_| turns.join(address(1)).unwrap()).collect();
        let first = many.pop_front().unwrap().turn().now_or_never().unwrap().unwrap();
        let other = turns.join(address(2)).unwrap();
        let second = many.pop_front().unwrap();
        drop(first);
        let second = second.turn().now_or_never().unwrap().unwrap();
        drop(second);
        let other = other.turn().now_or_never().expect("it is the other address's turn").unwrap();
        assert!(many.pop_front().unwrap().turn().now_or_never().is_none());
        drop((other, many));
        assert_eq!(turns.held(), 0, "who waits no more passes its turn on");
    }

    #[test]
    fn the_address_with_the_most_gives_up_a_place() {
        let turns = Turns::new(1, 3);
        let _hashes = turns.join(address(1)).unwrap();
        let many: Vec<Place> = (0..3).map(|_| turns.join(address(1)).unwrap()).collect();
        assert!(turns.join(address(1)).is_none(), "its own places are all that it gets");
        let one = turns.join(address(2)).expect("it has none yet");
        assert!(turns.join(address(2)).is_none(), "as many as the other has");
        assert_eq!(turns.held(), 4);
        let given_up = many.into_iter().last().unwrap();
        assert!(given_up.turn().now_or_never().unwrap().is_none());
        drop(one);
    }
}
