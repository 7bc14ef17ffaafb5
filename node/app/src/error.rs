//! Why a use case did not do what was asked. Protocol surfaces match on this exhaustively, each into its own codes;
//! causes are for logs and never reach clients.

use nora_domain::{Digest, Holder, Quota, Record, Refusal, TagName, UploadId};

use crate::ports::BoxError;
use crate::ports::blobs::BlobError;
use crate::ports::metadata::MetadataError;
use crate::ports::uploads::UploadError;

/// Why a use case did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was ever stored under that repository name, or all of it was deleted.
    #[error("the repository is not known")]
    RepositoryUnknown,
    /// The blob is not visible in the repository, whether or not its bytes are stored somewhere.
    #[error("blob {0} is not in the repository")]
    BlobUnknown(Digest),
    /// The artifact is not in the repository.
    #[error("artifact {0} is not in the repository")]
    ArtifactUnknown(Digest),
    /// The tag is not in the repository.
    #[error("tag {0} is not in the repository")]
    TagUnknown(TagName),
    /// The session is not there, is over, or belongs to another repository.
    #[error("upload session {:032x} is not known", .0.0)]
    UploadUnknown(UploadId),
    /// Another request is writing to the session.
    #[error("another request is writing to the upload session")]
    UploadBusy,
    /// The bytes do not continue where the session ends.
    #[error("the upload session is at byte {offset}, the request starts at {start}")]
    UploadOffset {
        /// Where the session ends.
        offset: u64,
        /// Where the request wanted to write.
        start: u64,
    },
    /// The bytes have another digest than was said.
    #[error("the bytes have digest {computed}, not {expected}")]
    DigestMismatch {
        /// What was said.
        expected: Digest,
        /// What the bytes have.
        computed: Digest,
    },
    /// More bytes than allowed.
    #[error("more than {bytes_max} bytes")]
    TooLarge {
        /// What is allowed.
        bytes_max: u64,
    },
    /// The artifact names more blobs and artifacts than one log entry may carry.
    #[error("more than {references_max} references")]
    TooManyReferences {
        /// What is allowed.
        references_max: usize,
    },
    /// Too many upload sessions are open on this node; trying again later is right.
    #[error("{sessions_max} upload sessions are open already")]
    TooManyUploads {
        /// What is allowed.
        sessions_max: usize,
    },
    /// The caller has its share of this node's upload sessions. Trying again once some have ended is right.
    #[error("{open} upload sessions of this caller are open already")]
    TooManyUploadsOfCaller {
        /// How many the caller has.
        open: usize,
    },
    /// What the artifact references must be pushed or mounted first.
    #[error("{} blobs and {} artifacts that it references are missing", .blobs.len(), .children.len())]
    ReferencesMissing {
        /// Blobs.
        blobs: Vec<Digest>,
        /// Artifacts.
        children: Vec<Digest>,
    },
    /// The blob cannot go while an artifact of the repository needs it.
    #[error("blob {digest} is referenced by {by}")]
    BlobReferenced {
        /// The blob.
        digest: Digest,
        /// Something that needs it.
        by: Holder,
    },
    /// What was asked for was judged under another policy than the one in force.
    #[error("the policy changed while the request ran")]
    PolicyChanged,
    /// Whoever asks may not do this any more: the policy changed while the request ran.
    #[error("not permitted any more: the policy, or what was shown, changed while the request ran")]
    NotPermitted,
    /// The tag is there, and whoever asks may make tags and not move them.
    #[error("tag {0} exists and may not be overwritten")]
    TagExists(TagName),
    /// The tag is there, and the policy keeps it as it is.
    #[error("tag {0} is immutable")]
    TagImmutable(TagName),
    /// The owner of the repository has no room left.
    #[error("{asked} {} more than the {} of {limit} that are left", quota.unit(), limit.saturating_sub(*used))]
    QuotaExceeded {
        /// What is limited.
        quota: Quota,
        /// The limit.
        limit: u64,
        /// What is used and set aside.
        used: u64,
        /// What was asked for.
        asked: u64,
    },
    /// The change contradicts what is there; the sentence says why, and what to do.
    #[error("{what}")]
    Conflict {
        /// What is in the way.
        what: String,
    },
    /// No such account, token, version or file.
    #[error("{what}")]
    NotFound {
        /// What there is none of.
        what: String,
    },
    /// An issuer's token was exchanged before.
    #[error("this token was exchanged before; each one is taken once")]
    AssertionUsed,
    /// An issuer's token is over, by the cluster's clock.
    #[error("this token has expired")]
    AssertionOver,
    /// The client's body broke off.
    #[error("the request body broke off")]
    BodyBroken(#[source] BoxError),
    /// The node's disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// No leader, too few nodes, or too much waiting: nothing was changed, and trying again is right.
    #[error("{what}")]
    Unavailable {
        /// What is missing, for the client.
        what: &'static str,
        /// Why.
        #[source]
        source: Option<BoxError>,
    },
    /// The change may or may not have happened.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
    /// Something that must be there could not be read or written.
    #[error("{what}")]
    Internal {
        /// What failed.
        what: &'static str,
        /// Why.
        #[source]
        source: Option<BoxError>,
    },
}

impl From<MetadataError> for Error {
    fn from(error: MetadataError) -> Self {
        match error {
            MetadataError::NoLeader => Self::Unavailable {
                what: "no leader can be reached",
                source: Some(Box::new(error)),
            },
            MetadataError::Busy => Self::Unavailable {
                what: "too many changes are waiting",
                source: Some(Box::new(error)),
            },
            MetadataError::OutcomeUnknown => Self::OutcomeUnknown,
            MetadataError::CommandTooLarge { bytes_max, .. } => {
                Self::TooLarge { bytes_max: bytes_max as u64 }
            }
            MetadataError::ForeignAnswer(_) => Self::Internal {
                what: "the metadata answered another command",
                source: Some(Box::new(error)),
            },
            MetadataError::Store(_) => {
                Self::Internal { what: "the metadata store failed", source: Some(Box::new(error)) }
            }
        }
    }
}

impl From<BlobError> for Error {
    /// A visible blob whose bytes are not here is a fault of this node, never an absent blob: a client that is told
    /// 404 would push again, or believe that a signature does not exist.
    fn from(error: BlobError) -> Self {
        if let BlobError::Unreachable { .. } = error {
            let what = "none of the nodes that hold the blob can be reached";
            return Self::Unavailable { what, source: Some(Box::new(error)) };
        }
        Self::Internal { what: "a blob could not be read", source: Some(Box::new(error)) }
    }
}

impl Error {
    /// A stored row is not of its key's kind.
    pub(crate) fn wrong_record(record: &Record) -> Self {
        let what = "a metadata row has the wrong kind";
        Self::Internal { what, source: Some(format!("{record:?}").into()) }
    }

    /// Tells an upload's failure; `id` names the session for the client.
    pub(crate) fn of_upload(id: UploadId, error: UploadError) -> Self {
        match error {
            UploadError::Unknown => Self::UploadUnknown(id),
            UploadError::Busy => Self::UploadBusy,
            UploadError::WrongOffset { offset, start } => Self::UploadOffset { offset, start },
            UploadError::TooLarge { bytes_max } => Self::TooLarge { bytes_max },
            UploadError::TooMany { sessions_max } => Self::TooManyUploads { sessions_max },
            UploadError::TooManyOfOne { open, .. } => Self::TooManyUploadsOfCaller { open },
            UploadError::DigestMismatch { expected, computed } => {
                Self::DigestMismatch { expected, computed }
            }
            UploadError::BodyBroken(source) => Self::BodyBroken(source),
            UploadError::DiskFull => Self::DiskFull,
            UploadError::TooFewCopies { .. } => Self::Unavailable {
                what: "too few nodes could store a copy; what was sent is kept, end the upload again",
                source: Some(Box::new(error)),
            },
            UploadError::Unavailable(_) => Self::Unavailable {
                what: "the store of blobs does not answer; what was sent is kept, try again",
                source: Some(Box::new(error)),
            },
            UploadError::Io { .. } => Self::Internal {
                what: "an upload could not be stored",
                source: Some(Box::new(error)),
            },
        }
    }

    /// This start of the node is over, and another one runs: nothing that it proposes takes effect any more.
    pub(crate) fn retired() -> Self {
        Self::Unavailable { what: "this node has been started anew or removed", source: None }
    }
}

impl From<Refusal> for Error {
    /// The one table from refusals to what use cases tell. Where a use case knows more of what was asked, it matches on
    /// the refusal before.
    fn from(refusal: Refusal) -> Self {
        let conflict = |what: String| Self::Conflict { what };
        match refusal {
            Refusal::Duplicate => Self::OutcomeUnknown,
            Refusal::RetiredEpoch => Self::retired(),
            Refusal::BlobUnknown(digest) => Self::BlobUnknown(digest),
            Refusal::ArtifactUnknown(digest) => Self::ArtifactUnknown(digest),
            Refusal::TagUnknown(tag) => Self::TagUnknown(tag),
            Refusal::ReferencesMissing { blobs, children } => {
                Self::ReferencesMissing { blobs, children }
            }
            Refusal::BlobReferenced { digest, by } => Self::BlobReferenced { digest, by },
            Refusal::TagExists(tag) => Self::TagExists(tag),
            Refusal::TagImmutable(tag) => Self::TagImmutable(tag),
            Refusal::QuotaExceeded { quota, limit, used, asked } => {
                Self::QuotaExceeded { quota, limit, used, asked }
            }
            Refusal::PolicyChanged { .. } | Refusal::RepositoryChanged => Self::PolicyChanged,
            Refusal::AssertionUsed => Self::AssertionUsed,
            Refusal::AssertionOver => Self::AssertionOver,
            Refusal::AccountExists(account) => {
                conflict(format!("there is an account {account}; choose another name"))
            }
            Refusal::AccountUnknown(account) => {
                Self::NotFound { what: format!("there is no account {account}") }
            }
            Refusal::AccessTokenExists => conflict(
                "the owner has a token of that name; choose another, or revoke it first".to_owned(),
            ),
            Refusal::AccessTokensTooMany(max) => conflict(format!(
                "the owner has {max} tokens, which is the most; revoke some first"
            )),
            Refusal::AccessTokenUnknown => Self::NotFound {
                what: "there is no such token; it may be revoked already".to_owned(),
            },
            Refusal::AccountChanged(_) => Self::NotPermitted,
            Refusal::RefreshTokenUnknown => Self::NotFound {
                what: "there is no such session; it may be over already".to_owned(),
            },
            Refusal::FeatureNotReached { .. } => conflict(
                "the cluster's upgrade is not finished: when every node runs this version, run 'nora cluster \
                 finalize-upgrade'"
                    .to_owned(),
            ),
            Refusal::VersionExists(version) => {
                conflict(format!("version {version} exists; publish another version"))
            }
            Refusal::VersionGone(version) => conflict(format!(
                "version {version} was deleted and its name may not be given again; publish another version"
            )),
            Refusal::VersionChanged(version) => {
                conflict(format!("version {version} changed meanwhile; try again"))
            }
            Refusal::FileExists(file) => {
                conflict(format!("the file {file} exists with other bytes; publish another version"))
            }
            Refusal::FilesTooMany(max) => {
                conflict(format!("a version has at most {max} files"))
            }
            Refusal::VersionUnknown(version) => {
                Self::NotFound { what: format!("there is no version {version}") }
            }
            Refusal::FileUnknown(file) => {
                Self::NotFound { what: format!("there is no file {file}") }
            }
            Refusal::TooFewHolders { .. } => Self::Unavailable {
                what: "too few nodes hold the blob durably; push it again",
                source: None,
            },
            Refusal::SizeConflict { digest, live } => Self::Internal {
                what: "a stored blob has another size than the same digest pushed now",
                source: Some(format!("{digest}: {live} bytes are stored").into()),
            },
            // Use cases that propose such commands handle these themselves; clients can do nothing about them.
            refusal @ (Refusal::StartReplaced
            | Refusal::ClusterFounded
            | Refusal::NotFounded
            | Refusal::NodeUnknown(_)
            | Refusal::NodeRemoved(_)
            | Refusal::StandingImpossible { .. }
            | Refusal::TokenUnknown
            | Refusal::TokenExpired
            | Refusal::TokenSpent
            | Refusal::RotationUnderWay
            | Refusal::RotationMoved
            | Refusal::FeatureTooOld { .. }
            | Refusal::MemberTooOld { .. }
            | Refusal::StaleGeneration(_)
            | Refusal::UploadConflict
            | Refusal::SigningKeyKnown(_)
            | Refusal::NotLimited
            | Refusal::JournalMoved { .. }) => Self::Internal {
                what: "the cluster refused a change of its own",
                source: Some(format!("{refusal:?}").into()),
            },
        }
    }
}
