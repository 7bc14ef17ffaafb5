//! The replicated state as a transition sees it: an ordered map from [`Key`] to [`Record`], and the [`Head`].
//!
//! `nora-cluster` keeps it in RocksDB behind one write batch; [`MemoryStore`] keeps it in a `BTreeMap` for tests and
//! models. Reads see the writes made before them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;

use super::{Head, Key, Record};
use crate::digest::Digest;
use crate::ids::{NodeId, TokenId, UploadId};
use crate::names::{
    AccountName, ConsumerName, FileName, Format, OwnerName, RepositoryKey, RepositoryPath, TagName,
    TenantName, TokenName, VersionName,
};
use crate::tag::Target;

/// A run of neighbouring rows of one kind. `after` is exclusive: a page's last name starts the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every node.
    Nodes,
    /// Every join token.
    JoinTokens,
    /// Every account.
    Accounts {
        /// Start after this account.
        after: Option<AccountName>,
    },
    /// Every token.
    AccessTokens {
        /// Start after this token, which need not exist.
        after: Option<TokenId>,
    },
    /// An owner's tokens that have names.
    TokensOf {
        /// The owner.
        owner: OwnerName,
        /// Start after this name.
        after: Option<TokenName>,
    },
    /// Every refresh token.
    RefreshTokens {
        /// Start after this one, which need not exist.
        after: Option<(OwnerName, TokenId)>,
    },
    /// An owner's refresh tokens.
    RefreshTokensOf {
        /// The owner.
        owner: OwnerName,
        /// Start after this one, which need not exist.
        after: Option<TokenId>,
    },
    /// Every signing key.
    SigningKeys,
    /// Every issuer's token that was exchanged.
    Assertions {
        /// Start after this one, which need not exist.
        after: Option<[u8; 32]>,
    },
    /// Every tenant that uses anything or is limited.
    Tenants {
        /// Start after this tenant.
        after: Option<TenantName>,
    },
    /// Entries of the journal that are in the state.
    Journal {
        /// Start after this number.
        after: u64,
    },
    /// Sealed parts of the journal.
    Segments {
        /// Start after the part that begins with this number.
        after: u64,
    },
    /// Every consumer of the journal.
    Cursors,
    /// Every blob.
    Blobs {
        /// Start after this blob.
        after: Option<Digest>,
    },
    /// Tenants that hold a blob.
    HeldBy {
        /// The blob.
        blob: Digest,
        /// Start after this tenant.
        after: Option<TenantName>,
    },
    /// A tenant's upload sessions.
    Uploads {
        /// The tenant.
        tenant: TenantName,
        /// Start after this session.
        after: Option<UploadId>,
    },
    /// Blobs that a tenant holds.
    TenantBlobs {
        /// The tenant.
        tenant: TenantName,
        /// Start after this blob.
        after: Option<Digest>,
    },
    /// A tenant's repositories of one format.
    Repositories {
        /// The owner.
        tenant: TenantName,
        /// The ecosystem.
        format: Format,
        /// Start after this path.
        after: Option<RepositoryPath>,
    },
    /// A repository's artifacts.
    Artifacts {
        /// The repository.
        repository: RepositoryKey,
        /// Start after this artifact.
        after: Option<Digest>,
    },
    /// Artifacts of a repository that list one of them.
    Parents {
        /// The repository.
        repository: RepositoryKey,
        /// What they list.
        child: Digest,
        /// Start after this artifact.
        after: Option<Digest>,
    },
    /// Artifacts of a repository that speak about `subject`.
    Referrers {
        /// The repository.
        repository: RepositoryKey,
        /// What they speak about.
        subject: Digest,
        /// Start after this artifact.
        after: Option<Digest>,
    },
    /// A repository's versions.
    Versions {
        /// The repository.
        repository: RepositoryKey,
        /// Start after this version.
        after: Option<VersionName>,
    },
    /// A version's files.
    Files {
        /// The repository.
        repository: RepositoryKey,
        /// The version.
        version: VersionName,
        /// Start after this file.
        after: Option<FileName>,
    },
    /// A repository's tags.
    Tags {
        /// The repository.
        repository: RepositoryKey,
        /// Start after this tag, which need not exist.
        after: Option<TagName>,
    },
    /// Tags of a repository that name one thing, as [`Key::TagOf`] rows.
    TagsOf {
        /// The repository.
        repository: RepositoryKey,
        /// What they name.
        target: Target,
        /// Start after this tag.
        after: Option<TagName>,
    },
    /// Blobs that a repository shows.
    Links {
        /// The repository.
        repository: RepositoryKey,
        /// Start after this blob.
        after: Option<Digest>,
    },
    /// What needs a blob in one repository.
    Edges {
        /// The repository.
        repository: RepositoryKey,
        /// The blob.
        blob: Digest,
    },
}

/// The least digest there is.
const DIGEST_MIN: Digest = Digest::sha256([0; 32]);

/// The start of a run: after a name, or at the first key.
fn from<T>(after: &Option<T>, key: impl Fn(&T) -> Key, first: impl Fn() -> Key) -> Bound<Key> {
    match after {
        Some(after) => Bound::Excluded(key(after)),
        None => Bound::Included(first()),
    }
}

/// The start of a run of digests.
fn from_digest(after: &Option<Digest>, key: impl Fn(Digest) -> Key) -> Bound<Key> {
    from(after, |digest| key(*digest), || key(DIGEST_MIN))
}

impl Rows {
    /// Where the run starts.
    pub fn start(&self) -> Bound<Key> {
        match self {
            Self::Nodes => Bound::Included(Key::Node(NodeId(0))),
            Self::JoinTokens => Bound::Included(Key::JoinToken(TokenId(0))),
            Self::Accounts { after } => {
                let key = |name: &AccountName| Key::Account(name.clone());
                from(after, key, || key(&AccountName::lowest()))
            }
            Self::AccessTokens { after } => {
                from(after, |id| Key::AccessToken(*id), || Key::AccessToken(TokenId(0)))
            }
            Self::TokensOf { owner, after } => {
                let key = |name: &TokenName| Key::TokenOf(owner.clone(), name.clone());
                from(after, key, || key(&TokenName::lowest()))
            }
            Self::RefreshTokens { after } => {
                let key =
                    |(owner, id): &(OwnerName, TokenId)| Key::RefreshToken(owner.clone(), *id);
                from(after, key, || Key::RefreshToken(OwnerName::lowest(), TokenId(0)))
            }
            Self::RefreshTokensOf { owner, after } => {
                let key = |id: &TokenId| Key::RefreshToken(owner.clone(), *id);
                from(after, key, || key(&TokenId(0)))
            }
            Self::SigningKeys => Bound::Included(Key::SigningKey(0)),
            Self::Assertions { after } => {
                from(after, |hash| Key::Assertion(*hash), || Key::Assertion([0; 32]))
            }
            Self::Tenants { after } => {
                let key = |name: &TenantName| Key::Tenant(name.clone());
                from(after, key, || key(&TenantName::lowest()))
            }
            Self::Journal { after } => Bound::Excluded(Key::Journal(*after)),
            Self::Segments { after } => Bound::Excluded(Key::Segment(*after)),
            Self::Cursors => Bound::Included(Key::Cursor(ConsumerName::lowest())),
            Self::Blobs { after } => from_digest(after, Key::Blob),
            Self::HeldBy { blob, after } => {
                let key = |name: &TenantName| Key::HeldBy(*blob, name.clone());
                from(after, key, || key(&TenantName::lowest()))
            }
            Self::Uploads { tenant, after } => {
                let key = |id: &UploadId| Key::Upload(tenant.clone(), *id);
                from(after, key, || key(&UploadId(0)))
            }
            Self::TenantBlobs { tenant, after } => {
                from_digest(after, |digest| Key::TenantBlob(tenant.clone(), digest))
            }
            Self::Repositories { tenant, format, after } => {
                let key = |path: &RepositoryPath| {
                    Key::Repository(RepositoryKey {
                        tenant: tenant.clone(),
                        format: *format,
                        path: path.clone(),
                    })
                };
                from(after, key, || key(&RepositoryPath::lowest()))
            }
            Self::Artifacts { repository, after } => {
                from_digest(after, |digest| Key::Artifact(repository.clone(), digest))
            }
            Self::Parents { repository, child, after } => {
                from_digest(after, |digest| Key::ParentOf(repository.clone(), *child, digest))
            }
            Self::Referrers { repository, subject, after } => {
                from_digest(after, |digest| Key::Referrer(repository.clone(), *subject, digest))
            }
            Self::Versions { repository, after } => {
                let key = |version: &VersionName| Key::Version(repository.clone(), version.clone());
                from(after, key, || key(&VersionName::lowest()))
            }
            Self::Files { repository, version, after } => {
                let key =
                    |file: &FileName| Key::File(repository.clone(), version.clone(), file.clone());
                from(after, key, || key(&FileName::lowest()))
            }
            Self::Tags { repository, after } => {
                let key = |tag: &TagName| Key::Tag(repository.clone(), tag.clone());
                from(after, key, || key(&TagName::lowest()))
            }
            Self::TagsOf { repository, target, after } => {
                let key =
                    |tag: &TagName| Key::TagOf(repository.clone(), target.clone(), tag.clone());
                from(after, key, || key(&TagName::lowest()))
            }
            Self::Links { repository, after } => {
                from_digest(after, |digest| Key::Link(repository.clone(), digest))
            }
            Self::Edges { repository, blob } => {
                let lowest = crate::blob::Holder::Artifact(DIGEST_MIN);
                Bound::Included(Key::Edge(repository.clone(), *blob, lowest))
            }
        }
    }

    /// Whether a key at or after the start belongs to the run.
    pub fn contains(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Nodes, Key::Node(_))
            | (Self::JoinTokens, Key::JoinToken(_))
            | (Self::Accounts { .. }, Key::Account(_))
            | (Self::AccessTokens { .. }, Key::AccessToken(_))
            | (Self::RefreshTokens { .. }, Key::RefreshToken(..))
            | (Self::SigningKeys, Key::SigningKey(_))
            | (Self::Assertions { .. }, Key::Assertion(_))
            | (Self::Tenants { .. }, Key::Tenant(_))
            | (Self::Journal { .. }, Key::Journal(_))
            | (Self::Segments { .. }, Key::Segment(_))
            | (Self::Cursors, Key::Cursor(_))
            | (Self::Blobs { .. }, Key::Blob(_)) => true,
            (Self::TokensOf { owner, .. }, Key::TokenOf(of, _))
            | (Self::RefreshTokensOf { owner, .. }, Key::RefreshToken(of, _)) => of == owner,
            (Self::HeldBy { blob, .. }, Key::HeldBy(of, _)) => of == blob,
            (Self::Uploads { tenant, .. }, Key::Upload(of, _))
            | (Self::TenantBlobs { tenant, .. }, Key::TenantBlob(of, _)) => of == tenant,
            (Self::Repositories { tenant, format, .. }, Key::Repository(key)) => {
                key.tenant == *tenant && key.format == *format
            }
            (Self::Artifacts { repository, .. }, Key::Artifact(of, _))
            | (Self::Versions { repository, .. }, Key::Version(of, _))
            | (Self::Tags { repository, .. }, Key::Tag(of, _))
            | (Self::Links { repository, .. }, Key::Link(of, _)) => of == repository,
            (Self::Parents { repository, child, .. }, Key::ParentOf(of, about, _))
            | (Self::Referrers { repository, subject: child, .. }, Key::Referrer(of, about, _)) => {
                of == repository && about == child
            }
            (Self::Files { repository, version, .. }, Key::File(of, about, _)) => {
                of == repository && about == version
            }
            (Self::TagsOf { repository, target, .. }, Key::TagOf(of, named, _)) => {
                of == repository && named == target
            }
            (Self::Edges { repository, blob }, Key::Edge(of, to, _)) => {
                of == repository && to == blob
            }
            _ => false,
        }
    }
}

/// Where a transition reads and writes.
pub trait Store {
    /// Why a read can fail. A failed read stops the transition: half of it must never be kept.
    type Error;

    /// The row at `key`.
    fn get(&self, key: &Key) -> Result<Option<Record>, Self::Error>;

    /// Up to `limit` rows of a run, in key order.
    fn scan(&self, rows: &Rows, limit: usize) -> Result<Vec<(Key, Record)>, Self::Error>;

    /// Sets the row at `key`.
    fn put(&mut self, key: Key, record: Record) -> Result<(), Self::Error>;

    /// Removes the row at `key`, if there is one.
    fn delete(&mut self, key: &Key) -> Result<(), Self::Error>;

    /// The part of the state that every command changes.
    fn head(&self) -> &Head;

    /// The same, to be changed. A transition changes it last, once nothing can fail any more.
    fn head_mut(&mut self) -> &mut Head;
}

/// The state in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    rows: BTreeMap<Key, Record>,
    head: Head,
}

impl MemoryStore {
    /// Every row, in key order.
    pub fn rows(&self) -> impl Iterator<Item = (&Key, &Record)> {
        self.rows.iter()
    }
}

impl Store for MemoryStore {
    type Error = Infallible;

    fn get(&self, key: &Key) -> Result<Option<Record>, Infallible> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, rows: &Rows, limit: usize) -> Result<Vec<(Key, Record)>, Infallible> {
        Ok(self
            .rows
            .range((rows.start(), Bound::Unbounded))
            .take_while(|(key, _)| rows.contains(key))
            .take(limit)
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect())
    }

    fn put(&mut self, key: Key, record: Record) -> Result<(), Infallible> {
        self.rows.insert(key, record);
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<(), Infallible> {
        self.rows.remove(key);
        Ok(())
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}
