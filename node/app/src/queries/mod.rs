//! Use cases that read. None calls a command, and none changes what callers see, with one exception: a read that finds a
//! blob's object gone marks the blob as lost.
//!
//! A tag is read after the metadata is known to be up to date. What a digest names cannot change, so a row found by
//! digest is served as it is; only a miss is asked again after catching up, so that a client reads its own writes
//! whichever node it asks.

mod journal;

pub use journal::JournalCheck;
pub(crate) use journal::ReadSegment;
