//! Changes of the state from this node's live events, which nothing stores.
//!
//! Guarantees: a consumer is behind when it begins, when more events came than are kept in memory, and when a snapshot
//! took the state's place; nothing that it is not told of is missing from the state that it compares with then.

use nora_app::ports::BoxFuture;
use nora_app::ports::changes::{ChangeSource, Changes, Cursor};
use nora_app::ports::metadata::MetadataError;
use nora_cluster::{Cluster, PositionedEvent};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast, watch};

/// Events that are given at once.
const BATCH_MAX: usize = 500;

/// The live events, for one consumer.
pub(super) struct LiveEvents(Mutex<Live>);

struct Live {
    events: broadcast::Receiver<PositionedEvent>,
    installed: watch::Receiver<u64>,
    /// Position of the last event.
    position: u64,
    is_new: bool,
}

impl LiveEvents {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self::of(cluster.subscribe(), cluster.snapshots_installed())
    }

    fn of(events: broadcast::Receiver<PositionedEvent>, installed: watch::Receiver<u64>) -> Self {
        Self(Mutex::new(Live { events, installed, position: 0, is_new: true }))
    }
}

impl ChangeSource for LiveEvents {
    fn after(&self, cursor: Option<Cursor>) -> BoxFuture<'_, Result<Changes, MetadataError>> {
        Box::pin(async move { Ok(self.0.lock().await.next(cursor).await) })
    }
}

impl Live {
    async fn next(&mut self, cursor: Option<Cursor>) -> Changes {
        // A cursor of an earlier process says nothing about these events.
        if std::mem::take(&mut self.is_new) || cursor.is_none() {
            return self.behind();
        }
        let first = tokio::select! {
            biased;
            Ok(()) = self.installed.changed() => return self.behind(),
            event = self.events.recv() => match event {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => return self.behind(),
                Err(RecvError::Closed) => return std::future::pending().await,
            },
        };
        let mut events = vec![first.event];
        self.position = first.position;
        while events.len() < BATCH_MAX
            && let Ok(PositionedEvent { position, event, .. }) = self.events.try_recv()
        {
            self.position = position;
            events.push(event);
        }
        Changes::Events { events, next: Cursor(self.position) }
    }

    fn behind(&self) -> Changes {
        Changes::Behind { next: Cursor(self.position) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nora_domain::Event;

    use super::*;

    fn event(position: u64) -> PositionedEvent {
        PositionedEvent { position, index: 0, event: Arc::new(Event::IdentityChanged) }
    }

    #[tokio::test]
    async fn a_consumer_gets_every_event_or_is_told_that_it_is_behind() {
        let (sender, installed) = (broadcast::Sender::new(4), watch::Sender::new(0));
        let source = LiveEvents::of(sender.subscribe(), installed.subscribe());
        let mut cursor = Some(Cursor(90));
        let mut next = async || {
            let (changes, count) = match source.after(cursor).await.unwrap() {
                Changes::Events { events, next } => (next, events.len()),
                Changes::Behind { next } => (next, 0),
            };
            cursor = Some(changes);
            (count, changes.0)
        };
        assert_eq!(next().await, (0, 0), "a cursor of an earlier process");
        (1..=3).for_each(|position| drop(sender.send(event(position))));
        assert_eq!(next().await, (3, 3));
        (4..=9).for_each(|position| drop(sender.send(event(position))));
        assert_eq!(next().await.0, 0, "more than are kept");
        assert_eq!(next().await, (4, 9));
        sender.send(event(10)).unwrap();
        installed.send_modify(|number| *number += 1);
        assert_eq!(next().await.0, 0, "a snapshot took the state's place");
        assert_eq!(next().await, (1, 10));
    }
}
