//! Blobs that wait for repair: those with the fewest copies first, those that failed later and later.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
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
}

/// What others tell repair. Never blocks whoever tells it.
#[derive(Default)]
pub(crate) struct Wakes {
    told: Mutex<Told>,
    blobs: Notify,
    pass: Notify,
}

#[derive(Default)]
struct Told {
    placed: HashSet<Digest>,
    suspects: HashSet<Digest>,
    pass: bool,
}

impl Wakes {
    fn tell(&self, tell: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&mut told);
        if told.placed.len() > WOKEN_MAX {
            told.placed.clear();
            told.pass = true;
            self.pass.notify_one();
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

    /// Look at all blobs.
    pub(crate) fn pass(&self) {
        self.tell(|told| told.pass = true);
        self.pass.notify_one();
    }

    pub(super) async fn blobs(&self) -> Vec<Todo> {
        self.blobs.notified().await;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (placed, suspects) =
            (std::mem::take(&mut told.placed), std::mem::take(&mut told.suspects));
        drop(told);
        let placed = placed.into_iter().map(|digest| Todo { digest, check: Check::Trust, live: 2 });
        let suspects =
            suspects.into_iter().map(|digest| Todo { digest, check: Check::Read, live: 1 });
        placed.chain(suspects).collect()
    }

    pub(super) async fn passes(&self) {
        self.pass.notified().await;
    }

    pub(super) fn pass_begins(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).pass = false;
    }

    pub(super) fn pass_is_wanted(&self) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).pass
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
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn push(&mut self, todo: Todo) {
        let Some(entry) = self.entries.get_mut(&todo.digest) else {
            self.entries.insert(todo.digest, Entry { todo, attempts: 0, state: State::Ready });
            self.make_ready(todo);
            return;
        };
        entry.todo.check = entry.todo.check.max(todo.check);
        entry.todo.live = todo.live;
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
                self.entries.remove(&digest);
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
        Todo { digest: Digest::sha256([n; 32]), check: Check::Look, live }
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
