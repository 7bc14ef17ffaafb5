//! Upload sessions, once for every storage that takes bytes in.
//!
//! [`OpenSessions`] is the table of sessions and all that a request does with one until its end. A [`Place`] is where a
//! storage puts the bytes. How a session ends as a blob is each storage's own: it [claims](OpenSessions::claim) the session
//! and [forgets](OpenSessions::forget) it.
//!
//! Guarantees: a session has one writer at a time, takes its bytes in order and within the limit, and is free again when
//! its request is gone. Must not know where the bytes of a session go.
#![allow(clippy::result_large_err, reason = "the port's error carries two digests and is rare")]

mod hashes;
mod intake;
mod names;
mod place;
mod purpose;
mod session;
mod sessions;
mod step;
mod table;

pub use hashes::Hashes;
pub use names::{id_of, name_of};
pub use place::{Place, Writing};
pub use purpose::PurposeV1;
pub use session::{Claim, Writer};
pub use sessions::{Limits, OpenSessions};
pub use step::{StepError, blocking, chain, on_disk, step, timestamp_of};
pub use table::Found;
