//! What the replicated state holds: a [`Key`] for every row, a [`Record`] for its value, and the [`Head`].
//!
//! Rows are ordered tenants last: first the cluster's own tables and physical blobs, then one contiguous range of keys for
//! each tenant with everything that the tenant's commands read and write. The head is the part that every command
//! changes; a store writes it once with each batch.

mod head;
mod key;
mod store;

pub mod recount;

pub use head::Head;
pub use key::{Key, Record};
pub use store::{MemoryStore, Rows, Store};
