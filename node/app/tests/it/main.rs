//! The use cases over the ports in memory, and those ports against their contracts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod artifacts;
mod blobs;
mod contracts;
mod journal;
mod lists;
mod pulls;
mod reservations;
mod support;
mod uploads;
