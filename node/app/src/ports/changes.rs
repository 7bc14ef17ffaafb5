//! What happened to the replicated state, for a consumer that follows it from a cursor.

use std::sync::Arc;

use nora_domain::Event;

use super::BoxFuture;
use super::metadata::MetadataError;

/// How far a consumer has come. Only the source knows what the number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// What a consumer gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// What happened after the cursor, in order: a bounded part of it.
    Events {
        /// The events, at least one.
        events: Vec<Arc<Event>>,
        /// The cursor after the last of them.
        next: Cursor,
    },
    /// Not everything after the cursor is known any more. The consumer compares what it keeps with the whole state, as
    /// that is from now on, and follows from the new cursor.
    Behind {
        /// The cursor to follow from. Whatever is not seen after it is in the state already.
        next: Cursor,
    },
}

/// Events in the order in which they were applied on this node.
pub trait ChangeSource: Send + Sync {
    /// Waits until something happened after the cursor. A consumer without a cursor is behind.
    fn after(&self, cursor: Option<Cursor>) -> BoxFuture<'_, Result<Changes, MetadataError>>;
}
