//! The node as a program: connections, admin API, and the wiring of adapters.
//!
//! `main.rs` reads arguments and decides exit codes; [`wiring`] composes a node; [`server`] accepts connections and hands
//! requests to `nora-http`. The library exists so that integration tests can hold the parts.

pub mod admin;
pub mod descriptors;
pub mod jobs;
pub mod memory;
pub mod server;
pub mod telemetry;
pub mod wiring;
