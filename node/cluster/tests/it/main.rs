//! The replicated metadata, tested as one binary: linking RocksDB takes long enough once.

// Helpers outside of test functions may panic too: it is all a test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod clock;
mod cluster;
mod codec;
mod contract;
mod golden;
mod kill;
mod limits;
mod members;
mod mtls;
mod node;
mod recovery;
mod samples;
mod snapshots;
mod state_machine;
mod storage_suite;
mod support;
mod survivor;
mod trio;
