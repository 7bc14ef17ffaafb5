//! The use cases of NORA and the ports through which they reach the world.
//!
//! A [`Registry`] is what every protocol surface talks to. Its `commands` change things (push, mount, delete), its
//! `queries` read them; neither calls the other. Both speak domain words and know no protocol.
//!
//! Guarantees: a blob's bytes are durable before the log says they are there; an artifact is acknowledged only after
//! its command is committed and applied; a tag is read only after the metadata is known to be up to date.
//!
//! Must not know: HTTP, gRPC, RocksDB, files, or a concrete async runtime.

pub mod access;
pub mod accounts;
pub mod artifacts;
pub mod blobs;
pub mod commands;
mod core;
pub mod error;
mod immutable;
pub mod jobs;
mod judging;
mod page;
pub mod ports;
mod proposing;
mod pulls;
pub mod queries;
mod registry;
pub mod repositories;
mod reservation;
pub mod tags;
pub mod tenants;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod tokens;
pub mod uploads;

pub use blobs::BlobStat;
pub use error::Error;
pub use page::Page;
pub use registry::{Dependencies, Registry, Settings};
