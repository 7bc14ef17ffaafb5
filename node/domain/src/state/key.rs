//! Keys and records: one variant for each kind of row.
//!
//! Keys order as the enum is written, then field by field; stored encodings keep that order byte by byte, so a range of
//! keys is the same range everywhere. All kinds from [`Key::Usage`] on begin with a tenant's name, and their encodings
//! put that name before the kind: what one tenant's commands touch is one range. Must not know encodings.

use std::cmp::Ordering;

use crate::account::AccountRecord;
use crate::artifact::{ArtifactRecord, ReferrerRecord};
use crate::authority::AuthorityRecord;
use crate::blob::{BlobRecord, Holder, LinkRecord, TenantBlobRecord};
use crate::cluster::ClusterRecord;
use crate::digest::Digest;
use crate::ids::{NodeId, TokenId, UploadId};
use crate::join_token::JoinTokenRecord;
use crate::journal::{CursorRecord, Entry, SegmentRecord};
use crate::names::{
    AccountName, ConsumerName, FileName, OwnerName, RepositoryKey, TagName, TenantName, TokenName,
    VersionName,
};
use crate::node::NodeRecord;
use crate::policy::PolicyRecord;
use crate::refresh_token::RefreshTokenRecord;
use crate::repository::RepositoryRecord;
use crate::signing_key::SigningKeyRecord;
use crate::tag::{Item, PulledRecord, TagRecord, Target};
use crate::tenant::{BudgetRecord, LimitsRecord, Rate, UsageRecord};
use crate::token::{AccessTokenRecord, AssertionRecord};
use crate::upload::UploadRecord;
use crate::version::{FileRecord, VersionRecord};

/// Where a row of the replicated state is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The one row of cluster-wide counters.
    Cluster,
    /// The one row of the cluster's certificate authority.
    Authority,
    /// A node that ever started.
    Node(NodeId),
    /// A token that lets nodes join.
    JoinToken(TokenId),
    /// The one row of the policy in force.
    Policy,
    /// A user or a robot that the cluster keeps.
    Account(AccountName),
    /// A token, by its public part.
    AccessToken(TokenId),
    /// A token, found from its owner and its name.
    TokenOf(OwnerName, TokenName),
    /// A refresh token, by its owner and its name.
    RefreshToken(OwnerName, TokenId),
    /// A key that the cluster signs session tokens with.
    SigningKey(u64),
    /// An issuer's token that was exchanged, by a hash of its name: it is not taken again.
    Assertion([u8; 32]),
    /// A tenant that uses anything or is limited: the directory of tenants.
    Tenant(TenantName),
    /// An entry of the journal.
    Journal(u64),
    /// A sealed part of the journal, by the number of its first entry.
    Segment(u64),
    /// How far a consumer of the journal has read.
    Cursor(ConsumerName),
    /// A blob's live copy.
    Blob(Digest),
    /// A tenant that holds a blob, found from the blob.
    HeldBy(Digest, TenantName),
    /// What a tenant uses.
    Usage(TenantName),
    /// What the policy lets a tenant use.
    Limits(TenantName),
    /// How many requests of a kind a tenant has been granted in its current hour.
    Budget(TenantName, Rate),
    /// An upload session that the cluster knows of.
    Upload(TenantName, UploadId),
    /// What a tenant does with a blob.
    TenantBlob(TenantName, Digest),
    /// A repository that holds anything at all.
    Repository(RepositoryKey),
    /// An artifact, by its digest.
    Artifact(RepositoryKey, Digest),
    /// An artifact that lists another, found from that: (repository, child, index).
    ParentOf(RepositoryKey, Digest, Digest),
    /// An artifact that names `subject` as its subject: (repository, subject, artifact).
    Referrer(RepositoryKey, Digest, Digest),
    /// A version of a package.
    Version(RepositoryKey, VersionName),
    /// A file of a version.
    File(RepositoryKey, VersionName, FileName),
    /// A tag.
    Tag(RepositoryKey, TagName),
    /// A tag, found from what it names.
    TagOf(RepositoryKey, Target, TagName),
    /// Membership of a blob in a repository: what makes it visible there.
    Link(RepositoryKey, Digest),
    /// Something that needs a blob, found from the blob.
    Edge(RepositoryKey, Digest, Holder),
    /// When something was last pulled.
    Pulled(RepositoryKey, Item),
}

/// The value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// For [`Key::Cluster`].
    Cluster(ClusterRecord),
    /// For [`Key::Authority`].
    Authority(AuthorityRecord),
    /// For [`Key::Node`].
    Node(NodeRecord),
    /// For [`Key::JoinToken`].
    JoinToken(JoinTokenRecord),
    /// For [`Key::Policy`].
    Policy(PolicyRecord),
    /// For [`Key::Account`].
    Account(AccountRecord),
    /// For [`Key::AccessToken`].
    AccessToken(AccessTokenRecord),
    /// For [`Key::TokenOf`]: the token's public part.
    TokenOf(TokenId),
    /// For [`Key::RefreshToken`].
    RefreshToken(RefreshTokenRecord),
    /// For [`Key::SigningKey`].
    SigningKey(SigningKeyRecord),
    /// For [`Key::Assertion`].
    Assertion(AssertionRecord),
    /// For [`Key::Tenant`]: the row's being there says all.
    Tenant,
    /// For [`Key::Journal`].
    Journal(Entry),
    /// For [`Key::Segment`].
    Segment(SegmentRecord),
    /// For [`Key::Cursor`].
    Cursor(CursorRecord),
    /// For [`Key::Blob`].
    Blob(BlobRecord),
    /// For [`Key::HeldBy`]: the row's being there says all.
    HeldBy,
    /// For [`Key::Usage`].
    Usage(UsageRecord),
    /// For [`Key::Limits`].
    Limits(LimitsRecord),
    /// For [`Key::Budget`].
    Budget(BudgetRecord),
    /// For [`Key::Upload`].
    Upload(UploadRecord),
    /// For [`Key::TenantBlob`].
    TenantBlob(TenantBlobRecord),
    /// For [`Key::Repository`].
    Repository(RepositoryRecord),
    /// For [`Key::Artifact`].
    Artifact(ArtifactRecord),
    /// For [`Key::ParentOf`]: the row's being there says all.
    ParentOf,
    /// For [`Key::Referrer`].
    Referrer(ReferrerRecord),
    /// For [`Key::Version`].
    Version(VersionRecord),
    /// For [`Key::File`].
    File(FileRecord),
    /// For [`Key::Tag`].
    Tag(TagRecord),
    /// For [`Key::TagOf`]: the row's being there says all.
    TagOf,
    /// For [`Key::Link`].
    Link(LinkRecord),
    /// For [`Key::Edge`]: the row's being there says all.
    Edge,
    /// For [`Key::Pulled`].
    Pulled(PulledRecord),
}

impl Key {
    /// The tenant whose range the row is in; none for the cluster's own rows and for physical blobs.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Usage(tenant)
            | Self::Limits(tenant)
            | Self::Budget(tenant, _)
            | Self::Upload(tenant, _)
            | Self::TenantBlob(tenant, _) => Some(tenant),
            Self::Repository(repository)
            | Self::Artifact(repository, _)
            | Self::ParentOf(repository, _, _)
            | Self::Referrer(repository, _, _)
            | Self::Version(repository, _)
            | Self::File(repository, _, _)
            | Self::Tag(repository, _)
            | Self::TagOf(repository, _, _)
            | Self::Link(repository, _)
            | Self::Edge(repository, _, _)
            | Self::Pulled(repository, _) => Some(&repository.tenant),
            _ => None,
        }
    }

    /// The kind's place in the order.
    const fn kind(&self) -> u8 {
        match self {
            Self::Cluster => 0,
            Self::Authority => 1,
            Self::Node(_) => 2,
            Self::JoinToken(_) => 3,
            Self::Policy => 4,
            Self::Account(_) => 5,
            Self::AccessToken(_) => 6,
            Self::TokenOf(..) => 7,
            Self::RefreshToken(..) => 8,
            Self::SigningKey(_) => 9,
            Self::Assertion(_) => 10,
            Self::Tenant(_) => 11,
            Self::Journal(_) => 12,
            Self::Segment(_) => 13,
            Self::Cursor(_) => 14,
            Self::Blob(_) => 15,
            Self::HeldBy(..) => 16,
            Self::Usage(_) => 17,
            Self::Limits(_) => 18,
            Self::Budget(..) => 19,
            Self::Upload(..) => 20,
            Self::TenantBlob(..) => 21,
            Self::Repository(_) => 22,
            Self::Artifact(..) => 23,
            Self::ParentOf(..) => 24,
            Self::Referrer(..) => 25,
            Self::Version(..) => 26,
            Self::File(..) => 27,
            Self::Tag(..) => 28,
            Self::TagOf(..) => 29,
            Self::Link(..) => 30,
            Self::Edge(..) => 31,
            Self::Pulled(..) => 32,
        }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        // The cluster's own rows first, then one tenant after the other, then kind by kind.
        let place = self.tenant().cmp(&other.tenant()).then(self.kind().cmp(&other.kind()));
        place.then_with(|| match (self, other) {
            (Self::Node(a), Self::Node(b)) => a.cmp(b),
            (Self::JoinToken(a), Self::JoinToken(b))
            | (Self::AccessToken(a), Self::AccessToken(b)) => a.cmp(b),
            (Self::Account(a), Self::Account(b)) => a.cmp(b),
            (Self::TokenOf(a, c), Self::TokenOf(b, d)) => (a, c).cmp(&(b, d)),
            (Self::RefreshToken(a, c), Self::RefreshToken(b, d)) => (a, c).cmp(&(b, d)),
            (Self::SigningKey(a), Self::SigningKey(b))
            | (Self::Journal(a), Self::Journal(b))
            | (Self::Segment(a), Self::Segment(b)) => a.cmp(b),
            (Self::Assertion(a), Self::Assertion(b)) => a.cmp(b),
            (Self::Tenant(a), Self::Tenant(b)) => a.cmp(b),
            (Self::Cursor(a), Self::Cursor(b)) => a.cmp(b),
            (Self::Blob(a), Self::Blob(b)) => a.cmp(b),
            (Self::HeldBy(a, c), Self::HeldBy(b, d)) => (a, c).cmp(&(b, d)),
            (Self::Budget(_, a), Self::Budget(_, b)) => a.cmp(b),
            (Self::Upload(_, a), Self::Upload(_, b)) => a.cmp(b),
            (Self::TenantBlob(_, a), Self::TenantBlob(_, b)) => a.cmp(b),
            (Self::Repository(a), Self::Repository(b)) => a.cmp(b),
            (Self::Artifact(a, c), Self::Artifact(b, d)) | (Self::Link(a, c), Self::Link(b, d)) => {
                (a, c).cmp(&(b, d))
            }
            (Self::ParentOf(a, c, e), Self::ParentOf(b, d, f))
            | (Self::Referrer(a, c, e), Self::Referrer(b, d, f)) => (a, c, e).cmp(&(b, d, f)),
            (Self::Version(a, c), Self::Version(b, d)) => (a, c).cmp(&(b, d)),
            (Self::File(a, c, e), Self::File(b, d, f)) => (a, c, e).cmp(&(b, d, f)),
            (Self::Tag(a, c), Self::Tag(b, d)) => (a, c).cmp(&(b, d)),
            (Self::TagOf(a, c, e), Self::TagOf(b, d, f)) => (a, c, e).cmp(&(b, d, f)),
            (Self::Edge(a, c, e), Self::Edge(b, d, f)) => (a, c, e).cmp(&(b, d, f)),
            (Self::Pulled(a, c), Self::Pulled(b, d)) => (a, c).cmp(&(b, d)),
            // One row a cluster or a tenant, or two kinds, which differ above.
            _ => Ordering::Equal,
        })
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
