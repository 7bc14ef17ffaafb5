//! Fetching a blob from several sources at once, in chunks that are verified before anybody sees them.
//!
//! A blob is known by its size and the root of its [`ChunkTable`]. A [`Fetcher`] gets the table from any [`Source`], checks
//! it against the root, and then takes chunks from whichever source serves best: slow ones are hedged, failing ones wait,
//! one that sent a wrong chunk is not asked again. A [`Cache`] keeps what was fetched on disk, bounded, and lets all who
//! read a blob share one download.
//!
//! Guarantees: no byte is handed out that was not verified in this process; memory is bounded by [`Limits`] whatever the
//! number and size of blobs; a chunk is fetched once for all readers at hand.
//!
//! Must not know: Raft, registries, gRPC. Whoever has bytes implements [`Source`].

mod cache;
mod fetch;
mod in_order;
mod source;
mod table;

pub use cache::{Cache, CacheStats, CachedBlob};
pub use fetch::{FetchError, Fetcher, Limits, Pool, PoolStats};
pub use source::{BoxFuture, Source, SourceError, SourceStream};
pub use table::{CHUNK_BYTES, ChunkHasher, ChunkTable};
