//! Blobs that wait for repair: those with the fewest copies first, those that failed later and later.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nora_domain::Digest;
use tokio::sync::Notify;

/// More blobs than this are not told one by one: all are looked at.
const WOKEN_MAX: usize = 10_000;
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How closely a copy that the log counts is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// It is taken to be there.
    Trust,
    /// Its file must be there with its size.
    Look,
    /// Its bytes are read.
    Read,
}

/// A blob to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Todo {
    pub(crate) digest: Digest,
    pub(crate) check: Check,
    /// Live holders, as far as known.
    pub(crate) live: usize,
    /// Whether this node should hold it and does not, as far as known.
    pub(crate) missing: bool,
}

/// Blobs that may wait for repair; the comparison waits for room.
const QUEUE_MAX: usize = 10_000;
/// Blobs that one stretch of the comparison may find.
const STRETCH_MAX: usize = 11_000;

/// What others tell repair. Telling it never blocks.
#[derive(Default)]
pub(crate) struct Wakes {
    told: Mutex<Told>,
    blobs: Notify,
    rounds: Notify,
}

#[derive(Default)]
struct Told {
    placed: HashSet<Digest>,
    suspects: HashSet<Digest>,
    /// What the comparison found.
    found: Vec<Todo>,
    /// Blobs in the queue.
    queued: usize,
    /// Number of the last comparison that was asked for, of the last that began, and of the last that is on the disk.
    demanded: u64,
    begun: u64,
    stored: u64,
}

/// A comparison of everything that was asked for and is not on the disk yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) number: u64,
    /// Whether it has not begun.
    pub(crate) is_new: bool,
}

impl Wakes {
    fn told(&self) -> MutexGuard<'_, Told> {
        // Every use leaves it whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, tell: impl FnOnce(&mut Told)) {
        let mut told = self.told();
        tell(&mut told);
        if told.placed.len() > WOKEN_MAX {
            told.placed.clear();
            told.demanded += 1;
            self.rounds.notify_one();
        }
    }

    /// A blob has other holders.
    pub(crate) fn blob(&self, digest: Digest) {
        self.tell(|told| {
            told.placed.insert(digest);
        });
        self.blobs.notify_one();
    }

    /// This node's copy looks wrong.
    pub(crate) fn suspect(&self, digest: Digest) {
        self.tell(|told| {
            // Beyond the bound the passes find what is gone, and the scrubber what is wrong.
            if told.suspects.len() < WOKEN_MAX {
                told.suspects.insert(digest);
            }
        });
        self.blobs.notify_one();
    }

    /// The comparison found something to do. The caller asks [`Self::has_room`] before each stretch.
    pub(crate) fn found(&self, todo: Todo) {
        self.tell(|told| {
            if told.found.len() < STRETCH_MAX {
                told.found.push(todo);
            }
        });
        self.blobs.notify_one();
    }

    /// Whether another stretch may be compared: what the last one found is taken, and the queue is not full.
    pub(crate) fn has_room(&self) -> bool {
        let told = self.told();
        told.found.is_empty() && told.queued < QUEUE_MAX
    }

    /// Compare everything.
    pub(crate) fn round(&self) {
        self.tell(|told| told.demanded += 1);
        self.rounds.notify_one();
    }

    /// A comparison that was asked for and is not on the disk.
    pub(crate) fn demand(&self) -> Option<Demand> {
        let told = self.told();
        let demand = Demand { number: told.demanded, is_new: told.begun != told.demanded };
        (told.stored != told.demanded).then_some(demand)
    }

    /// The comparison of that number, and of all numbers before it, began.
    pub(crate) fn begun(&self, number: u64) {
        self.tell(|told| told.begun = number);
    }

    /// That it began is on the disk.
    pub(crate) fn stored(&self, number: u64) {
        self.tell(|told| told.stored = number);
    }

    /// Whether all that was told or found so far is dealt with.
    pub(crate) fn is_idle(&self) -> bool {
        let told = self.told();
        told.placed.is_empty() && told.found.is_empty() && told.queued == 0
    }

    /// Whether nothing waits that would be forgotten if the node stopped now.
    pub(crate) fn is_settled(&self) -> bool {
        let told = self.told();
        told.placed.is_empty() && told.queued == 0 && told.stored == told.demanded
    }

    /// So many blobs are in the queue.
    pub(super) fn queued(&self, count: usize) {
        self.tell(|told| told.queued = count);
    }

    pub(super) async fn blobs(&self) -> Vec<Todo> {
        self.blobs.notified().await;
        let mut told = self.told();
        let (placed, suspects) =
            (std::mem::take(&mut told.placed), std::mem::take(&mut told.suspects));
        let found = std::mem::take(&mut told.found);
        // They are in the queue from now on, as far as others see.
        told.queued += placed.len() + suspects.len() + found.len();
        drop(told);
        let todo = |digest, check, live| Todo { digest, check, live, missing: false };
        let placed = placed.into_iter().map(|digest| todo(digest, Check::Trust, 2));
        let suspects = suspects.into_iter().map(|digest| todo(digest, Check::Read, 1));
        placed.chain(suspects).chain(found).collect()
    }

    pub(super) async fn rounds(&self) {
        self.rounds.notified().await;
    }
}

enum State {
    Ready,
    Waiting(Instant),
    Running,
    /// Told of again while it ran.
    RunningAgain,
}

struct Entry {
    todo: Todo,
    attempts: u32,
    state: State,
}

/// The queue. A blob is in it once, and nobody works on it twice at a time.
#[derive(Default)]
pub(super) struct Queue {
    entries: HashMap<Digest, Entry>,
    // Live holders first; then as they came.
    ready: BinaryHeap<Reverse<(usize, u64, Digest)>>,
    waiting: BTreeSet<(Instant, Digest)>,
    came: u64,
    missing: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Blobs that this node should hold and does not, of those in the queue.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// Notes whether a blob in the queue is missing here.
    pub(super) fn is_missing(&mut self, digest: Digest, missing: bool) {
        let Some(entry) = self.entries.get_mut(&digest) else { return };
        let before = std::mem::replace(&mut entry.todo.missing, missing);
        self.missing = self.missing + u64::from(missing) - u64::from(before);
    }

    pub(super) fn push(&mut self, todo: Todo) {
        let Some(entry) = self.entries.get_mut(&todo.digest) else {
            self.entries.insert(todo.digest, Entry { todo, attempts: 0, state: State::Ready });
            self.missing += u64::from(todo.missing);
            self.make_ready(todo);
            return;
        };
        entry.todo.check = entry.todo.check.max(todo.check);
        entry.todo.live = todo.live;
        self.missing += u64::from(todo.missing && !entry.todo.missing);
        entry.todo.missing |= todo.missing;
        match entry.state {
            State::Ready | State::RunningAgain => {}
            State::Running => entry.state = State::RunningAgain,
            State::Waiting(due) => {
                entry.state = State::Ready;
                self.waiting.remove(&(due, todo.digest));
                self.make_ready(todo);
            }
        }
    }

    fn make_ready(&mut self, todo: Todo) {
        self.came += 1;
        self.ready.push(Reverse((todo.live, self.came, todo.digest)));
    }

    /// The next blob to work on.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Todo> {
        while let Some(first) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&first);
            if let Some(entry) = self.entries.get_mut(&first.1) {
                entry.state = State::Ready;
                let todo = entry.todo;
                self.make_ready(todo);
            }
        }
        let Reverse((_, _, digest)) = self.ready.pop()?;
        let entry = self.entries.get_mut(&digest)?;
        entry.state = State::Running;
        Some(entry.todo)
    }

    /// When the next one is due that waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// A blob was worked on: it is settled, or there is more to do after some time.
    pub(super) fn done(&mut self, digest: Digest, now: Instant, after: Option<Duration>) {
        let Some(entry) = self.entries.get_mut(&digest) else { return };
        match (&entry.state, after) {
            (State::RunningAgain, _) => {
                entry.state = State::Ready;
                let todo = entry.todo;
                self.make_ready(todo);
            }
            (_, Some(after)) => {
                let due = now + after;
                entry.state = State::Waiting(due);
                self.waiting.insert((due, digest));
            }
            (_, None) => {
                let gone = self.entries.remove(&digest);
                self.missing -= u64::from(gone.is_some_and(|entry| entry.todo.missing));
            }
        }
    }

    /// A blob could not be worked on: later again.
    pub(super) fn failed(&mut self, digest: Digest, now: Instant) {
        let Some(entry) = self.entries.get_mut(&digest) else { return };
        let delay = RETRY_MIN.saturating_mul(1 << entry.attempts.min(16)).min(RETRY_MAX);
        entry.attempts += 1;
        entry.state = State::Running;
        self.done(digest, now, Some(delay));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn todo(n: u8, live: usize) -> Todo {
        Todo { digest: Digest::sha256([n; 32]), check: Check::Look, live, missing: false }
    }

    #[test]
    fn the_rarest_come_first_and_each_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (n, live) in [(1, 2), (2, 1), (3, 2), (2, 1)] {
            queue.push(todo(n, live));
        }
        let order: Vec<_> =
            std::iter::from_fn(|| queue.pop(now)).map(|todo| todo.digest.value()[0]).collect();
        assert_eq!(order, [2, 1, 3]);
        assert_eq!(queue.len(), 3, "they run");
    }

    #[test]
    fn missing_blobs_are_counted_until_they_are_there() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(Todo { missing: true, ..todo(1, 1) });
        queue.push(todo(2, 1));
        let digest = queue.pop(now).unwrap().digest;
        queue.is_missing(digest, true);
        queue.failed(digest, now);
        queue.is_missing(queue_digest(2), true);
        assert_eq!(queue.missing(), 2);
        queue.is_missing(queue_digest(2), false);
        queue.pop(now);
        queue.done(queue_digest(2), now, None);
        assert_eq!(queue.missing(), 1);
        queue.done(digest, now, None);
        assert_eq!(queue.missing(), 0);
    }

    fn queue_digest(n: u8) -> Digest {
        Digest::sha256([n; 32])
    }

    #[test]
    fn a_cursor_may_be_stored_only_while_nothing_would_be_forgotten() {
        let wakes = Wakes::default();
        assert!(wakes.is_settled());
        wakes.blob(queue_digest(1));
        assert!(!wakes.is_settled(), "a blob waits");
        wakes.told().placed.clear();
        wakes.queued(1);
        assert!(!wakes.is_settled(), "it is worked on");
        wakes.queued(0);
        wakes.round();
        let demand = wakes.demand().unwrap();
        assert!(demand.is_new && !wakes.is_settled(), "a comparison was asked for");
        wakes.begun(demand.number);
        assert!(!wakes.demand().unwrap().is_new && !wakes.is_settled(), "it is in memory alone");
        wakes.stored(demand.number);
        assert_eq!((wakes.demand(), wakes.is_settled()), (None, true));
    }

    #[test]
    fn more_blobs_than_are_told_one_by_one_are_found_by_a_comparison() {
        let wakes = Wakes::default();
        for n in 0..=WOKEN_MAX as u64 {
            let mut value = [0; 32];
            value[..8].copy_from_slice(&n.to_be_bytes());
            wakes.blob(Digest::sha256(value));
        }
        assert!(wakes.told().placed.is_empty() && wakes.demand().unwrap().is_new);
    }

    #[test]
    fn what_is_told_while_it_runs_runs_again() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(todo(1, 1));
        let running = queue.pop(now).unwrap();
        queue.push(todo(1, 1));
        assert!(queue.pop(now).is_none(), "not twice at a time");
        queue.done(running.digest, now, None);
        assert!(queue.pop(now).is_some());
        queue.done(running.digest, now, None);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn failures_wait_longer_each_time_unless_something_changes() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.push(todo(1, 1));
        let mut last = Duration::ZERO;
        for _ in 0..5 {
            let running = queue.pop(now).unwrap();
            queue.failed(running.digest, now);
            assert!(queue.pop(now).is_none());
            let wait = queue.due().unwrap() - now;
            assert!(wait > last && wait <= RETRY_MAX);
            (last, now) = (wait, now + wait);
        }
        queue.pop(now).unwrap();
        queue.failed(todo(1, 1).digest, now);
        queue.push(todo(1, 1));
        assert!(queue.pop(now).is_some(), "news make it due");
    }
}
