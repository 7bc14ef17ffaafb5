//! The use cases of NORA and the ports through which they reach the world.
//!
//! A [`Registry`] is what every protocol surface talks to. It gives out handles, one for each noun: artifacts, tags, blobs,
//! upload sessions, repositories, accounts, tokens, access, tenants and the journal. A handle's methods are the use cases. They
//! speak domain words and know no protocol. All handles share one core, which reads rows and proposes changes.
//!
//! A tag is read after the metadata is known to be up to date. What a digest names cannot change, so a row found by digest
//! is served as it is. Only a miss is asked again after catching up, so that a client reads its own writes whichever node
//! it asks.
//!
//! A caller that must not leave a use case half done when its client hangs up runs it in a task of its own.
//!
//! Guarantees: a blob's bytes are durable before the log says they are there; an artifact is acknowledged only after
//! its command is committed and applied; a tag is read only after the metadata is known to be up to date.
//!
//! Must not know: HTTP, gRPC, RocksDB, files, or a concrete async runtime.

pub mod access;
pub mod accounts;
pub mod artifacts;
pub mod blobs;
mod core;
pub mod error;
mod immutable;
pub mod jobs;
pub mod journal;
mod judging;
mod page;
pub mod ports;
mod proposing;
mod pulls;
pub mod refresh_tokens;
mod registry;
pub mod repositories;
mod reservation;
pub mod tags;
pub mod tenants;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod tokens;
mod upload_quota;
pub mod uploads;

pub use crate::core::{Dependencies, Settings};
pub use blobs::BlobStat;
pub use error::Error;
pub use page::Page;
pub use registry::Registry;
