//! Integration tests of the binary: real processes, spoken to over HTTP.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod admin;
mod cli;
mod connections;
mod durability;
mod identity_cli;
mod lists;
mod manifests;
mod node;
mod observation;
mod recover;
mod shell;
mod shutdown;
mod tls;
mod uploads;
