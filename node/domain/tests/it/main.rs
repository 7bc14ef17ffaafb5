//! Tests of the state transition through its public face, and tests that these tests can fail.

// Clippy knows test functions, not the functions that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod cluster;
mod faults;
mod footprint;
mod identity;
mod journal;
mod projection;
mod properties;
mod recount;
mod refresh_tokens;
mod universe;
mod versions;
mod world;
