//! Upload sessions, once for every storage that takes bytes in.
//!
//! Guarantees: all storages name, describe and hash a session alike. Must not know where the bytes of a session go.
#![allow(clippy::result_large_err, reason = "the port's error carries two digests and is rare")]

mod hashes;
mod names;
mod purpose;
mod step;

pub use hashes::Hashes;
pub use names::{id_of, name_of};
pub use purpose::{Purpose, PurposeV1};
pub use step::{StepError, blocking, on_disk, step, timestamp_of};
