//! The registry: what every protocol surface talks to. It gives out handles, whose methods are the use cases.
//!
//! Must not know: what a use case does. It stays small: whatever speaks of a noun belongs into that noun's handle.

use std::sync::Arc;

use nora_domain::{Format, RepositoryKey, RepositoryPath};

use crate::access::Access;
use crate::accounts::Accounts;
use crate::artifacts::Artifacts;
use crate::blobs::LinkedBlobs;
use crate::core::Core;
use crate::journal::Journal;
use crate::ports::policy::Caller;
use crate::refresh_tokens::RefreshTokens;
use crate::repositories::Repositories;
use crate::tags::Tags;
use crate::tenants::Tenants;
use crate::tokens::Tokens;
use crate::uploads::UploadSessions;
use crate::{Dependencies, Error};

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

    /// The refresh tokens.
    pub fn refresh_tokens(&self) -> RefreshTokens<'_> {
        RefreshTokens::new(&self.core)
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
