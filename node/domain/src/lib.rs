//! The words and rules of NORA, free of any input or output.
//!
//! Every ecosystem is told in four nouns: a *repository* owned by one tenant holds immutable *artifacts*, mutable
//! *tags* name artifacts, and artifacts reference *blobs*. A [`command::Command`] asks for a change, and
//! [`transition::apply`] decides it against the replicated [`store::Store`], answers with an
//! [`command::Outcome`] or a [`command::Refusal`], and tells what happened as [`event::Event`]s.
//!
//! Guarantees: a transition is a pure function of the store, the command and the command's log position. Time, ids and
//! random values arrive inside commands, stamped by whoever proposed them, so every replica computes the same state.
//!
//! Must not know: async, clocks, files, sockets, randomness, or any encoding. Nothing here iterates a hash map.

pub mod audit;
pub mod command;
pub mod digest;
pub mod event;
pub mod hex;
pub mod identity;
pub mod name;
pub mod placement;
pub mod record;
pub mod reference;
pub mod store;
pub mod transition;

pub use digest::{Algorithm, Digest};
pub use name::{Format, MediaType, RepositoryKey, RepositoryPath, TagName, TenantName};
pub use reference::Reference;
