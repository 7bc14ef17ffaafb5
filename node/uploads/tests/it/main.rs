//! Sessions over memory: the contract of the ports, and what no storage's own tests reach.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod memory;
mod sessions;
