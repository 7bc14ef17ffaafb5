//! The replicated state as a transition sees it: an ordered map from [`Key`] to [`Record`].
//!
//! `nora-cluster` keeps it in RocksDB behind one write batch per applied entry; [`MemoryStore`] keeps it in a
//! `BTreeMap` for tests and models. Reads see the writes made before them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;

use crate::digest::Digest;
use crate::identity::Rate;
use crate::name::{
    AccountName, Format, OwnerName, RepositoryKey, RepositoryPath, TagName, TenantName, TokenName,
};
use crate::record::{Epoch, Key, NodeId, Record, TokenId, UploadId};

/// A run of neighbouring rows of one kind. `after` is exclusive: a page's last name starts the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every node.
    Nodes,
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
    /// A repository's tags.
    Tags {
        /// The repository.
        repository: RepositoryKey,
        /// Start after this tag, which need not exist.
        after: Option<TagName>,
    },
    /// Tags of a repository that name one artifact, as [`Key::TagOf`] rows.
    TagsOf {
        /// The repository.
        repository: RepositoryKey,
        /// The artifact.
        digest: Digest,
        /// Start after this tag.
        after: Option<TagName>,
    },
    /// Repositories that show a blob.
    Links {
        /// The blob.
        blob: Digest,
        /// Start after this repository.
        after: Option<RepositoryKey>,
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
    /// Every blob.
    Blobs {
        /// Start after this blob.
        after: Option<Digest>,
    },
    /// Artifacts of one repository that reference a blob.
    EdgesIn {
        /// The blob.
        blob: Digest,
        /// The repository.
        repository: RepositoryKey,
    },
    /// A blob's pins.
    Pins {
        /// The blob.
        blob: Digest,
        /// Start after this pin, which need not exist.
        after: Option<UploadId>,
    },
    /// Every upload session.
    Uploads {
        /// Start after this session.
        after: Option<UploadId>,
    },
    /// Every proposer's session.
    Sessions,
    /// Every join token.
    JoinTokens,
    /// Every tenant that uses anything.
    Usages,
    /// Repositories of one tenant that show a blob.
    LinksIn {
        /// The blob.
        blob: Digest,
        /// The tenant.
        tenant: TenantName,
    },
    /// Every tenant that the policy limits.
    Tenants,
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
    /// Every signing key.
    SigningKeys,
    /// Every issuer's token that was exchanged.
    Assertions {
        /// Start after this one, which need not exist.
        after: Option<[u8; 32]>,
    },
    /// What was granted of every tenant's requests.
    Budgets,
    /// The audit log.
    Audit {
        /// Start after this number.
        after: u64,
    },
}

/// The least digest there is.
const DIGEST_MIN: Digest = Digest::sha256([0; 32]);

impl Rows {
    /// Where the run starts.
    pub fn start(&self) -> Bound<Key> {
        fn from<T>(
            after: &Option<T>,
            key: impl Fn(&T) -> Key,
            first: impl Fn() -> Key,
        ) -> Bound<Key> {
            match after {
                Some(after) => Bound::Excluded(key(after)),
                None => Bound::Included(first()),
            }
        }
        match self {
            Self::Nodes => Bound::Included(Key::Node(NodeId(0))),
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
                let key = |digest: &Digest| Key::Artifact(repository.clone(), *digest);
                from(after, key, || key(&DIGEST_MIN))
            }
            Self::Tags { repository, after } => {
                let key = |tag: &TagName| Key::Tag(repository.clone(), tag.clone());
                from(after, key, || key(&TagName::lowest()))
            }
            Self::TagsOf { repository, digest, after } => {
                let key = |tag: &TagName| Key::TagOf(repository.clone(), *digest, tag.clone());
                from(after, key, || key(&TagName::lowest()))
            }
            Self::Links { blob, after } => {
                let key = |repository: &RepositoryKey| Key::Link(*blob, repository.clone());
                from(after, key, || key(&RepositoryKey::lowest()))
            }
            Self::Referrers { repository, subject, after } => {
                let key = |digest: &Digest| Key::Referrer(repository.clone(), *subject, *digest);
                from(after, key, || key(&DIGEST_MIN))
            }
            Self::Blobs { after } => from(after, |d| Key::Blob(*d), || Key::Blob(DIGEST_MIN)),
            Self::EdgesIn { blob, repository } => {
                Bound::Included(Key::Edge(*blob, repository.clone(), DIGEST_MIN))
            }
            Self::Pins { blob, after } => {
                let key = |id: &UploadId| Key::Pin(*blob, *id);
                from(after, key, || key(&UploadId(0)))
            }
            Self::Uploads { after } => {
                from(after, |id| Key::Upload(*id), || Key::Upload(UploadId(0)))
            }
            Self::Sessions => Bound::Included(Key::Session(Epoch(0))),
            Self::JoinTokens => Bound::Included(Key::JoinToken(TokenId(0))),
            Self::Usages => Bound::Included(Key::Usage(TenantName::lowest())),
            Self::LinksIn { blob, tenant } => {
                let lowest = RepositoryKey { tenant: tenant.clone(), ..RepositoryKey::lowest() };
                Bound::Included(Key::Link(*blob, lowest))
            }
            Self::Tenants => Bound::Included(Key::Tenant(TenantName::lowest())),
            Self::Accounts { after } => from(
                after,
                |name| Key::Account(name.clone()),
                || Key::Account(AccountName::lowest()),
            ),
            Self::AccessTokens { after } => {
                from(after, |id| Key::AccessToken(*id), || Key::AccessToken(TokenId(0)))
            }
            Self::TokensOf { owner, after } => {
                let key = |name: &TokenName| Key::TokenOf(owner.clone(), name.clone());
                from(after, key, || key(&TokenName::lowest()))
            }
            Self::SigningKeys => Bound::Included(Key::SigningKey(0)),
            Self::Assertions { after } => {
                from(after, |hash| Key::Assertion(*hash), || Key::Assertion([0; 32]))
            }
            Self::Budgets => Bound::Included(Key::Budget(TenantName::lowest(), Rate::Push)),
            Self::Audit { after } => Bound::Excluded(Key::Audit(*after)),
        }
    }

    /// Whether a key at or after the start belongs to the run.
    pub fn contains(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Nodes, Key::Node(_))
            | (Self::Blobs { .. }, Key::Blob(_))
            | (Self::Uploads { .. }, Key::Upload(_))
            | (Self::Sessions, Key::Session(_))
            | (Self::JoinTokens, Key::JoinToken(_))
            | (Self::Usages, Key::Usage(_))
            | (Self::Tenants, Key::Tenant(_))
            | (Self::Accounts { .. }, Key::Account(_))
            | (Self::AccessTokens { .. }, Key::AccessToken(_))
            | (Self::SigningKeys, Key::SigningKey(_))
            | (Self::Assertions { .. }, Key::Assertion(_))
            | (Self::Budgets, Key::Budget(_, _))
            | (Self::Audit { .. }, Key::Audit(_)) => true,
            (Self::LinksIn { blob, tenant }, Key::Link(of, repository)) => {
                of == blob && repository.tenant == *tenant
            }
            (Self::TokensOf { owner, .. }, Key::TokenOf(of, _)) => of == owner,
            (Self::Repositories { tenant, format, .. }, Key::Repository(key)) => {
                key.tenant == *tenant && key.format == *format
            }
            (Self::Artifacts { repository, .. }, Key::Artifact(of, _))
            | (Self::Tags { repository, .. }, Key::Tag(of, _)) => of == repository,
            (Self::Links { blob, .. }, Key::Link(of, _)) => of == blob,
            (Self::TagsOf { repository, digest, .. }, Key::TagOf(of, named, _)) => {
                of == repository && named == digest
            }
            (Self::Referrers { repository, subject, .. }, Key::Referrer(of, about, _)) => {
                of == repository && about == subject
            }
            (Self::EdgesIn { blob, repository }, Key::Edge(to, of, _)) => {
                to == blob && of == repository
            }
            (Self::Pins { blob, .. }, Key::Pin(of, _)) => of == blob,
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
}

/// The state in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    rows: BTreeMap<Key, Record>,
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
}
