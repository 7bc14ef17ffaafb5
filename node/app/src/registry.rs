//! The registry: what every protocol surface talks to. It gives out handles, whose methods are the use cases.
//!
//! Must not know: what a use case does. It stays small: whatever speaks of a noun belongs into that noun's handle.

use std::sync::Arc;

use nora_domain::{Epoch, Format, NodeId, RepositoryKey, RepositoryPath};

use crate::Error;
use crate::access::Access;
use crate::accounts::Accounts;
use crate::artifacts::Artifacts;
use crate::blobs::LinkedBlobs;
use crate::core::Core;
use crate::journal::Journal;
use crate::ports::blobs::Blobs;
use crate::ports::clock::{Clock, Ids};
use crate::ports::journal::Segments;
use crate::ports::metadata::Metadata;
use crate::ports::policy::{Caller, Tenancy};
use crate::ports::uploads::{Finish, Sessions};
use crate::repositories::Repositories;
use crate::tags::Tags;
use crate::tenants::Tenants;
use crate::tokens::Tokens;
use crate::uploads::UploadSessions;

/// Limits and times that use cases keep.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An artifact's own bytes.
    pub artifact_bytes_max: usize,
    /// Blobs and children that one artifact may reference.
    pub references_max: usize,
    /// How long a pushed, mounted or confirmed blob is kept with no artifact referencing it, in milliseconds.
    pub pin_millis: u64,
    /// How long an upload session is kept after its last byte, in milliseconds.
    pub upload_expiry_millis: u64,
}

/// What a registry stands on.
pub struct Dependencies {
    /// The replicated state.
    pub metadata: Arc<dyn Metadata>,
    /// Blobs at rest.
    pub blobs: Arc<dyn Blobs>,
    /// Blobs on their way in.
    pub uploads: Arc<dyn Sessions>,
    /// What makes blobs of them.
    pub finish: Arc<dyn Finish>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random names.
    pub ids: Arc<dyn Ids>,
    /// Who owns names.
    pub tenancy: Arc<dyn Tenancy>,
    /// How sealed parts of the journal are written down.
    pub segments: Arc<dyn Segments>,
    /// This node.
    pub node: NodeId,
    /// This start of it, as the log gave it.
    pub epoch: Epoch,
    /// Limits and times.
    pub settings: Settings,
}

/// The registry of one node, on behalf of one caller. A clone is cheap.
#[derive(Clone)]
pub struct Registry {
    core: Core,
}

impl Registry {
    /// A registry over these ports.
    pub fn new(dependencies: Dependencies) -> Self {
        Self { core: Core::new(dependencies) }
    }

    /// The registry on behalf of `caller`: what it changes is judged by the policy and noted as theirs.
    pub fn by(&self, caller: Arc<dyn Caller>) -> Self {
        Self { core: self.core.by(caller) }
    }

    /// The repository of that name, under the tenant that owns it. Who owns a name is read from the policy here and
    /// nowhere else.
    pub fn repository(&self, format: Format, path: RepositoryPath) -> RepositoryKey {
        RepositoryKey { tenant: self.core.tenancy().owner(format, &path), format, path }
    }

    /// Waits until reads on this node show every change that was acknowledged before.
    pub async fn catch_up(&self) -> Result<(), Error> {
        Ok(self.core.catch_up().await?)
    }

    /// The artifacts of repositories.
    pub fn artifacts(&self) -> Artifacts<'_> {
        Artifacts::new(&self.core)
    }

    /// The tags of repositories.
    pub fn tags(&self) -> Tags<'_> {
        Tags::new(&self.core)
    }

    /// The blobs that repositories show.
    pub fn blobs(&self) -> LinkedBlobs<'_> {
        LinkedBlobs::new(&self.core)
    }

    /// The upload sessions of this node.
    pub fn uploads(&self) -> UploadSessions<'_> {
        UploadSessions::new(&self.core)
    }

    /// The accounts.
    pub fn accounts(&self) -> Accounts<'_> {
        Accounts::new(&self.core)
    }

    /// The access tokens.
    pub fn tokens(&self) -> Tokens<'_> {
        Tokens::new(&self.core)
    }

    /// The policy and the signing keys.
    pub fn access(&self) -> Access<'_> {
        Access::new(&self.core)
    }

    /// The repositories.
    pub fn repositories(&self) -> Repositories<'_> {
        Repositories::new(&self.core)
    }

    /// The tenants.
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants::new(&self.core)
    }

    /// The journal.
    pub fn journal(&self) -> Journal<'_> {
        Journal::new(&self.core)
    }
}

/// Registries are shared between requests.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Registry>();
};
