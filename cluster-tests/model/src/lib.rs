//! A model of online garbage collection, to be explored state by state.
//!
//! The model holds what decides whether collection is safe: rows that the log orders, files on disks, clients that rely on
//! an answer, and workers that act late on what they read once. It leaves out what does not: bytes, Raft, the network.
//! Everything that the log orders is one step. Everything else can come between any two steps.
//!
//! Time is ages: how long ago a thing happened, up to the longest age that any rule asks for. So the state space is
//! finite, and runs of any length are covered. Generations are names: a new one is any number that nothing remembers.
//!
//! Guarantees: [`Bug::None`] is the design; each other [`Bug`] breaks one of its rules, and one of the properties in
//! [`properties`] finds it. Must not know: the code of the product, which follows these names.

mod apply;
pub mod bug;
pub mod properties;
mod state;
mod world;

pub use bug::Bug;
pub use state::{Blob, Client, Copy, Garbage, Intent, Link, NODES, REPOSITORIES, State, TENANTS};
pub use world::{Action, Storage, World};
