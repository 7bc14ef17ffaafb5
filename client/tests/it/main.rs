//! Integration tests of the SDK, against a registry in memory that speaks real HTTP, and members that
//! speak real gRPC over TLS.

#![allow(clippy::unwrap_used, reason = "tests and their helpers may panic")]

mod admin;
mod calls;
mod conversation;
mod login;
mod member;
mod server;
mod verbs;
