//! Integration tests of the SDK, against a registry in memory that speaks real HTTP.

mod conversation;
mod server;
mod verbs;
