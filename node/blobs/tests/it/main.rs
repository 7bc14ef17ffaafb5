//! Tests of the local blob store through its ports, against real files and sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod contracts;
mod crashes;
mod local;
mod sockets;
mod support;
