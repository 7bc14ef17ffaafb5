//! Real processes, real clients, conformance and benchmarks.
//!
//! The library holds what tests and benchmarks over real processes share: a lean HTTP client, a
//! load generator, the life of a server process, what the kernel says about it, and statistics. It
//! drives any registry over HTTP and must not know NORA's crates: what it measures of a peer and of
//! NORA is measured the same way. The simulation alone, [`sim`], runs NORA's own state machine.

pub mod bucket;
pub mod chaos;
pub mod cluster;
pub mod content;
pub mod error;
pub mod folder;
pub mod http;
pub mod issuer;
pub mod kernel;
pub mod linear;
pub mod load;
pub mod output;
pub mod phase;
pub mod proxy;
pub mod registry;
pub mod server;
pub mod sim;
pub mod stats;
pub mod watch;

pub use error::{Error, Result};
