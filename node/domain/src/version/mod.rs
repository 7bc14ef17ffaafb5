//! Versions of packages, and their files.
//!
//! A version is a name in a repository that is given once. Its facts are what its ecosystem's index documents say of it:
//! canonical bytes that the domain stores and never reads. Its files are blobs. OCI has no versions.

mod transition;

use bytes::Bytes;

use crate::digest::Digest;
use crate::names::{FileName, RepositoryKey, TagName, VersionName};
use crate::time::Timestamp;

/// Where a version's facts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Facts {
    /// In the record itself: at most [`Facts::INLINE_BYTES_MAX`].
    Inline(Bytes),
    /// In this blob, which the repository shows.
    Blob(Digest),
}

impl Default for Facts {
    fn default() -> Self {
        Self::Inline(Bytes::new())
    }
}

impl Facts {
    /// Larger facts are stored as blobs, so that log entries stay small.
    pub const INLINE_BYTES_MAX: usize = 64 << 10;

    /// Bytes that the record holds itself.
    pub fn inline_bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob(_) => 0,
        }
    }
}

/// How a version stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VersionState {
    /// Clients may choose it.
    #[default]
    Live,
    /// Clients choose it only if they ask for exactly this one; with the reason, if one was given.
    Yanked(Option<Box<str>>),
    /// Clients may choose it and are shown this text.
    Deprecated(Box<str>),
    /// It is gone, and its name may not be given again.
    Tombstone,
}

/// A version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionRecord {
    /// How it stands.
    pub state: VersionState,
    /// What its ecosystem says of it.
    pub facts: Facts,
    /// Its files.
    pub files: u32,
    /// When it was published first.
    pub published_at: Timestamp,
    /// Log position of its last change.
    pub revision: u64,
}

/// A hash that clients of an ecosystem ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashKind {
    /// 16 bytes; Maven's and PyPI's old clients.
    Md5,
    /// 20 bytes; npm's `shasum`, Maven.
    Sha1,
    /// 32 bytes.
    Sha256,
    /// 64 bytes; npm's `integrity`, Maven.
    Sha512,
    /// 32 bytes; PyPI's uploads.
    Blake2b256,
}

impl HashKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512, Self::Blake2b256];

    /// Length of the value in bytes.
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Blake2b256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A file of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Its bytes, which the repository shows as a blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Hashes beside the digest; sorted by kind, each once.
    pub hashes: Vec<(HashKind, Vec<u8>)>,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
}

/// A file to be stored; its blob was pushed before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Its name, unique in the version.
    pub name: FileName,
    /// Its bytes.
    pub digest: Digest,
    /// Its size in bytes; refused if the blob has another.
    pub size: u64,
    /// Hashes beside the digest; sorted by kind, each once.
    pub hashes: Vec<(HashKind, Vec<u8>)>,
}

/// What a change of a version expects to find: of two publishers of one version exactly one finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No version of that name, and no tombstone.
    Absent,
    /// The version as it was when it had this revision.
    Revision(u64),
    /// The version or none, but no tombstone.
    Any,
}

/// Publish a version with its files and tags, or replace its facts and add files, in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutVersion {
    /// The repository.
    pub repository: RepositoryKey,
    /// The version.
    pub version: VersionName,
    /// What it expects to find.
    pub expected: Expected,
    /// The version's facts; `None` leaves them as they are.
    pub facts: Option<Facts>,
    /// Files to add. One that is there already must have the same digest.
    pub files: Vec<NewFile>,
    /// Tags that shall name it.
    pub tags: Vec<TagName>,
}

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionStored {
    /// False if it was there before.
    pub created: bool,
    /// Its revision now.
    pub revision: u64,
}

/// Yank, deprecate, or take either back. A tombstone stays one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetVersionState {
    /// The repository.
    pub repository: RepositoryKey,
    /// The version.
    pub version: VersionName,
    /// How it stands from now on; [`VersionState::Tombstone`] is refused: delete it instead.
    pub state: VersionState,
}

/// Remove a version, its files and the tags that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteVersion {
    /// The repository.
    pub repository: RepositoryKey,
    /// The version.
    pub version: VersionName,
    /// Whether its name may not be given again.
    pub tombstone: bool,
}

impl DeleteVersion {
    /// Tags that one step removes.
    pub const TAGS_MAX: usize = 500;
}

/// What a deletion removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionDeleted {
    /// Whether tags are left, and the version with them: propose the deletion again.
    pub more: bool,
}

/// Remove one file of a version; the version stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteFile {
    /// The repository.
    pub repository: RepositoryKey,
    /// The version.
    pub version: VersionName,
    /// The file.
    pub file: FileName,
}

impl VersionRecord {
    /// Files that one version may have: what bounds the work of deleting it.
    pub const FILES_MAX: u32 = 1_000;
}
