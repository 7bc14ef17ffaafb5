//! What the crate decides, from outside: permissions, the policy, tenants, workload claims, and credentials.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![allow(clippy::print_stdout, reason = "figures for whoever reads the output")]

mod cache;
mod claims;
mod credential;
mod keys;
mod password;
mod permission;
mod policy;
mod properties;
mod refusals;
mod session;
mod support;
mod tenancy;
mod workload;
