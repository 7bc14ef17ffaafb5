//! What happened, from the journal, for a consumer that follows it from a number.
//!
//! Guarantees: a consumer gets the events of every entry after its cursor, in order, the last entry's perhaps twice; or it
//! is told that it is behind, because it has no cursor or its next entry is not kept any more. A consumer that keeps up
//! gets events as they are applied, from memory. One that was away, or was slower than the memory of events is deep, reads
//! the journal until it has caught up.

use std::sync::Arc;

use nora_app::Page;
use nora_app::ports::BoxFuture;
use nora_app::ports::changes::{ChangeSource, Changes, Cursor};
use nora_app::ports::metadata::MetadataError;
use nora_app::{Error, Registry};
use nora_cluster::{Cluster, PositionedEvent};
use nora_domain::{Entry, Event, JournalHead};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast, watch};
use tracing::warn;

/// Events that are given at once, about.
const BATCH_MAX: usize = 500;

/// The journal as it is read; tests have one of their own.
pub(super) trait Journal: Send + Sync {
    fn head(&self) -> BoxFuture<'_, Result<JournalHead, Error>>;
    /// Kept entries after a number.
    fn after(&self, number: u64) -> BoxFuture<'_, Result<Page<(u64, Entry)>, Error>>;
}

impl Journal for Registry {
    fn head(&self) -> BoxFuture<'_, Result<JournalHead, Error>> {
        Box::pin(self.journal().head())
    }

    fn after(&self, number: u64) -> BoxFuture<'_, Result<Page<(u64, Entry)>, Error>> {
        Box::pin(self.journal().entries(number, BATCH_MAX))
    }
}

/// The journal, for one consumer.
pub(super) struct Followed<J> {
    journal: J,
    live: Mutex<Live>,
}

/// Events as they are applied.
struct Live {
    events: broadcast::Receiver<PositionedEvent>,
    installed: watch::Receiver<u64>,
    /// The cursor from which the next of `events` goes on; none if something may lie between.
    goes_on_from: Option<Cursor>,
}

impl<J: Journal> Followed<J> {
    pub(super) fn new(journal: J, cluster: &Cluster) -> Self {
        Self::of(journal, cluster.subscribe(), cluster.snapshots_installed())
    }

    fn of(
        journal: J,
        events: broadcast::Receiver<PositionedEvent>,
        installed: watch::Receiver<u64>,
    ) -> Self {
        Self { journal, live: Mutex::new(Live { events, installed, goes_on_from: None }) }
    }

    async fn next(&self, cursor: Option<Cursor>) -> Result<Changes, Error> {
        let mut live = self.live.lock().await;
        let Some(Cursor(mut at)) = cursor else { return self.behind().await };
        loop {
            if live.goes_on_from == Some(Cursor(at))
                && let Some((events, next)) = live.next(at).await
            {
                live.goes_on_from = Some(next);
                return Ok(Changes::Events { events, next });
            }
            // First, so that what is applied from here on is in both, and not in neither.
            live.events = live.events.resubscribe();
            live.installed.mark_unchanged();
            // A state that was restored may end before what this consumer has seen of another.
            if at >= self.journal.head().await?.next {
                return self.behind().await;
            }
            let Page { items: entries, more } = match self.journal.after(at).await {
                Ok(read) => read,
                Err(error) => {
                    warn!(%error, "the journal cannot be read: everything is compared instead");
                    return self.behind().await;
                }
            };
            if entries.first().is_some_and(|(first, _)| *first > at + 1) {
                return self.behind().await;
            }
            at = entries.last().map_or(at, |(last, _)| *last);
            live.goes_on_from = (!more).then_some(Cursor(at));
            let events: Vec<Arc<Event>> =
                entries.into_iter().flat_map(|(_, entry)| entry.events).map(Arc::new).collect();
            if !events.is_empty() {
                return Ok(Changes::Events { events, next: Cursor(at) });
            }
        }
    }

    async fn behind(&self) -> Result<Changes, Error> {
        // Read before the consumer compares: whatever it does not see then comes after this number.
        let head = self.journal.head().await?;
        Ok(Changes::Behind { next: Cursor(head.next.saturating_sub(1)) })
    }
}

impl Live {
    /// Events of entries after `at`, and the cursor to go on from; none if some were missed.
    async fn next(&mut self, at: u64) -> Option<(Vec<Arc<Event>>, Cursor)> {
        let first = loop {
            let event = tokio::select! {
                biased;
                // No event tells of what a snapshot changed; the journal that came with it does.
                Ok(()) = self.installed.changed() => return None,
                event = self.events.recv() => match event {
                    Ok(event) => event,
                    Err(RecvError::Lagged(_)) => return None,
                    Err(RecvError::Closed) => return std::future::pending().await,
                },
            };
            // Those that were read from the journal come here once more.
            if event.entry > at {
                break event;
            }
        };
        let mut last = first.entry;
        let mut events = vec![first.event];
        while events.len() < BATCH_MAX
            && let Ok(PositionedEvent { entry, event, .. }) = self.events.try_recv()
        {
            last = entry;
            events.push(event);
        }
        // More events of the last entry may be to come.
        Some((events, Cursor(last.saturating_sub(1).max(at))))
    }
}

impl<J: Journal> ChangeSource for Followed<J> {
    fn after(&self, cursor: Option<Cursor>) -> BoxFuture<'_, Result<Changes, MetadataError>> {
        Box::pin(async move {
            self.next(cursor).await.map_err(|error| MetadataError::Store(Box::new(error)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Locked;

    use super::*;

    /// A journal from some entry on, each with as many events as its number says, by their places.
    #[derive(Clone, Default)]
    struct Kept(Arc<Locked<(u64, u64)>>);

    impl Kept {
        fn is(&self, first: u64, next: u64) {
            *self.0.lock().unwrap() = (first, next);
        }
    }

    impl Journal for Kept {
        fn head(&self) -> BoxFuture<'_, Result<JournalHead, Error>> {
            let (first, next) = *self.0.lock().unwrap();
            Box::pin(async move { Ok(JournalHead { first, next, ..JournalHead::default() }) })
        }

        fn after(&self, number: u64) -> BoxFuture<'_, Result<Page<(u64, Entry)>, Error>> {
            let (first, next) = *self.0.lock().unwrap();
            let from = first.max(number + 1);
            let entries = (from..next.min(from + 3)).map(|number| (number, entry(number)));
            let page = Page { items: entries.collect(), more: from + 3 < next };
            Box::pin(async move { Ok(page) })
        }
    }

    /// Even entries changed two blobs, odd ones were refusals.
    fn entry(number: u64) -> Entry {
        let count = if number.is_multiple_of(2) { 2 } else { 0 };
        let events = (0..count).map(|index| event_of(number, index)).collect();
        Entry { events, ..Entry::default() }
    }

    fn event_of(number: u64, index: u64) -> Event {
        Event::JournalSealed { first: number, last: index }
    }

    struct World {
        kept: Kept,
        sender: broadcast::Sender<PositionedEvent>,
        installed: watch::Sender<u64>,
        source: Followed<Kept>,
        cursor: Option<Cursor>,
    }

    impl World {
        fn new(cursor: Option<u64>) -> Self {
            let (sender, installed) = (broadcast::Sender::new(4), watch::Sender::new(0));
            let kept = Kept::default();
            kept.is(1, 1);
            let source = Followed::of(kept.clone(), sender.subscribe(), installed.subscribe());
            Self { kept, sender, installed, source, cursor: cursor.map(Cursor) }
        }

        /// Applies entries up to one: rows first, then events, as the state machine does.
        fn apply(&self, entries: std::ops::RangeInclusive<u64>) {
            let (first, _) = *self.kept.0.lock().unwrap();
            self.kept.is(first, entries.end() + 1);
            for number in entries {
                for (index, event) in (0..).zip(entry(number).events) {
                    let event = Arc::new(event);
                    let event = PositionedEvent { position: 0, index, entry: number, event };
                    let _ = self.sender.send(event);
                }
            }
        }

        /// What comes next, as pairs of an entry and a place; none if the consumer is behind.
        async fn next(&mut self) -> Option<Vec<(u64, u64)>> {
            let changes = self.source.after(self.cursor).await.unwrap();
            let (events, next) = match changes {
                Changes::Events { events, next } => (Some(events), next),
                Changes::Behind { next } => (None, next),
            };
            self.cursor = Some(next);
            let place = |event: &Arc<Event>| match **event {
                Event::JournalSealed { first, last } => (first, last),
                ref other => panic!("{other:?}"),
            };
            events.map(|events| events.iter().map(place).collect())
        }
    }

    #[tokio::test]
    async fn a_new_consumer_is_behind_and_one_that_was_away_goes_on() {
        let mut world = World::new(None);
        world.apply(1..=9);
        assert_eq!(world.next().await, None);
        assert_eq!(world.cursor, Some(Cursor(9)));
        world.apply(10..=10);
        assert_eq!(world.next().await, Some(vec![(10, 0), (10, 1)]));

        let mut world = World::new(Some(3));
        world.apply(1..=9);
        assert_eq!(world.next().await, Some(vec![(4, 0), (4, 1), (6, 0), (6, 1)]));
        assert_eq!(world.next().await, Some(vec![(8, 0), (8, 1)]));
    }

    #[tokio::test]
    async fn whatever_happens_every_event_comes_or_the_consumer_is_behind() {
        let mut world = World::new(Some(0));
        world.apply(1..=2);
        assert_eq!(world.next().await, Some(vec![(2, 0), (2, 1)]));
        world.apply(3..=4);
        assert_eq!(world.next().await, Some(vec![(4, 0), (4, 1)]), "from memory");
        // The last entry may have had more events: it comes again when the journal is read.
        assert_eq!(world.cursor, Some(Cursor(3)));
        world.apply(5..=14);
        assert_eq!(
            world.next().await,
            Some(vec![(4, 0), (4, 1), (6, 0), (6, 1)]),
            "more than are kept in memory"
        );
        assert_eq!(world.next().await.unwrap().first(), Some(&(8, 0)));
        while world.next().await.unwrap().last() != Some(&(14, 1)) {}

        // A snapshot took the state's place, and brought the journal up to 18.
        world.kept.is(9, 19);
        world.installed.send_modify(|number| *number += 1);
        let mut seen = Vec::new();
        while seen.last() != Some(&(18, 1)) {
            seen.extend(world.next().await.unwrap());
        }
        assert!(seen.contains(&(16, 0)) && seen.contains(&(16, 1)), "{seen:?}");

        // One that brings a journal whose next entries are not kept any more.
        world.kept.is(30, 33);
        world.installed.send_modify(|number| *number += 1);
        assert_eq!(world.next().await, None);
        assert_eq!(world.cursor, Some(Cursor(32)));
        // And one that ends before what was seen, as after a recovery.
        world.kept.is(1, 12);
        world.installed.send_modify(|number| *number += 1);
        assert_eq!(world.next().await, None);
        assert_eq!(world.cursor, Some(Cursor(11)));
    }
}
