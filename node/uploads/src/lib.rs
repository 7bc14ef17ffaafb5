//! Upload sessions, once for every storage that takes bytes in.
//!
//! Guarantees: a session has one writer at a time, and all storages name, describe and hash it alike. Must not know where
//! the bytes of a session go.
#![allow(clippy::result_large_err, reason = "the port's error carries two digests and is rare")]

mod hashes;
mod names;
mod purpose;
mod session;
mod step;
mod table;

pub use hashes::Hashes;
pub use names::{id_of, name_of};
pub use purpose::{Purpose, PurposeV1};
pub use session::{Claim, Writer};
pub use step::{StepError, blocking, on_disk, step, timestamp_of};
pub use table::{Found, Table};
