//! Tests of the local blob store through its ports, against real files and sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod cluster;
mod contracts;
mod crashes;
mod local;
mod repair;
mod replicated;
mod sockets;
mod support;
