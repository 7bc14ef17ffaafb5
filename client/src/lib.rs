//! The SDK: what a program says to a NORA server. The command line is made of it.
//!
//! [`admin::AdminClient`] speaks gRPC to a member of the cluster, for administration.
//!
//! [`workload`] logs a program in from CI: it fetches the job's ID token, and [`Client::exchange`] gets a NORA token for it.
//!
//! [`Client`] speaks HTTP to one origin: it signs in, retries what may be retried, reads the error bodies that
//! registries answer with, and checks digests. [`verbs`] compose its methods into what a person asks for and return
//! plain data. Guarantees: credentials go to the configured origin and nowhere else; every body read has a limit;
//! nothing is printed here.
//!
//! Must not know: the server's insides (nothing of `node` but the shared words of `nora-domain`), terminals, tables.

pub mod admin;
mod auth;
mod client;
mod config;
mod content;
mod error;
mod model;
mod reference;
pub mod verbs;
pub mod workload;

pub use client::Client;
pub use config::{Address, AddressError, ClientConfig, Credentials, Secret};
pub use content::{Manifest, ManifestHead, Paged};
pub use error::{ClientError, OciError};
pub use model::{Descriptor, HistoryEntry, ImageConfig, ManifestBody, Platform, RuntimeConfig};
pub use reference::{Reference, ReferenceError, Target};
pub use workload::{IdTokenError, WorkloadToken};
