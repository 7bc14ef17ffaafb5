//! The object store against real S3 servers, and against networks that fail.

mod contracts;
mod faults;
mod memory;
mod proxy;
mod reads;
mod servers;
mod startup;
mod support;
mod uploads;
