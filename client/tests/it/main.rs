//! Integration tests of the SDK, against a registry in memory that speaks real HTTP.

#![allow(clippy::unwrap_used, reason = "tests and their helpers may panic")]

mod conversation;
mod server;
mod verbs;
