//! Where bytes come from.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;

use crate::table::ChunkTable;

/// A future of a source.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Bytes as they come, in order, in pieces of any size.
pub type SourceStream = Pin<Box<dyn Stream<Item = Result<Bytes, SourceError>> + Send>>;

/// Why a source did not give what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It cannot be asked now, or not any further: later it may.
    #[error("{0}")]
    Unavailable(String),
    /// It does not have the blob.
    #[error("it does not have the blob")]
    Absent,
    /// What it sent was not the blob's: it is not asked again.
    #[error("it sent wrong bytes")]
    Corrupt,
}

/// Somebody who may have the blob.
pub trait Source: Send + Sync {
    /// Its name, for people.
    fn label(&self) -> String;

    /// The blob's chunk table. It is checked against the root by whoever asks.
    fn table(&self) -> BoxFuture<'_, Result<ChunkTable, SourceError>>;

    /// Bytes of a range that begins and ends with chunks (the last one ends with the blob).
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<SourceStream, SourceError>>;
}
