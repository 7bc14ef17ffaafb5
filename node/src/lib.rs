//! The shell around the use cases: configuration, command line, HTTP surface, and the wiring of adapters.
//!
//! `main.rs` reads arguments and decides exit codes; [`wiring`] composes a node; [`api`] speaks HTTP. The library exists
//! so that integration tests can hold the parts.

pub mod admin;
pub mod api;
pub mod cli;
pub mod config;
pub mod hash;
pub mod identity;
pub mod jobs;
pub mod memory;
pub mod metrics;
pub mod server;
pub mod telemetry;
pub mod wiring;
#[cfg(test)]
mod world;
