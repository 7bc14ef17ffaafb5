//! The object store against real S3 servers, and against networks that fail.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "figures for whoever reads the output")]

mod contracts;
mod faults;
mod memory;
mod proxy;
mod reads;
mod servers;
mod startup;
mod support;
mod uploads;
