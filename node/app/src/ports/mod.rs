//! What the use cases need from the world. Each port is `dyn`-safe: adapters are chosen from the configuration.

pub mod blobs;
pub mod changes;
pub mod clock;
pub mod health;
pub mod journal;
pub mod members;
pub mod metadata;
pub mod policy;
pub mod upkeep;
pub mod uploads;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;

/// A boxed future that ports return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What an adapter could not do, for logs; use cases wrap it and never show it to clients.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Bytes on their way: in from a client, or out to one.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send + 'static>>;

/// A client's body on its way in.
pub struct Incoming {
    /// The bytes.
    pub stream: ByteStream,
    /// How many there are, if the client says so; it cannot send more.
    pub length: Option<u64>,
}

impl From<ByteStream> for Incoming {
    fn from(stream: ByteStream) -> Self {
        Self { stream, length: None }
    }
}
