//! What the replicated state holds: a [`Key`] for every row and a [`Record`] for its value.
//!
//! Keys order as the enum is written, then field by field; stored encodings keep that order byte by byte, so a range of
//! keys is the same range everywhere. Must not know encodings: `nora-cluster` has a versioned one for each.

use crate::digest::Digest;
use crate::identity::{
    AccessTokenRecord, AccountRecord, AssertionRecord, AuditHeadRecord, AuditRecord, BudgetRecord,
    PolicyRecord, Rate, SigningKeyRecord, TenantRecord,
};
use crate::name::{
    AccountName, MediaType, OwnerName, RepositoryKey, TagName, TenantName, TokenName,
};

/// Milliseconds since the Unix epoch, stamped by a proposer; the state never runs backwards on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time and so many milliseconds more; saturates.
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// A node's number: given once by the cluster, never used again after a node is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A start of a node: each start of any node gets a new one from the log, so bytes written by an earlier start can be
/// told from those of the running one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// One physical copy's name beside its digest. `digest/generation` is never used twice, so deleting it can be repeated
/// or delayed without ever touching bytes that came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// The start of the node that wrote the bytes.
    pub epoch: Epoch,
    /// Counts within the epoch.
    pub sequence: u64,
}

/// The name of an upload session, or of a pin: the node that made it in the upper 32 bits, random below. 96 random bits
/// are as good as unguessable, and whoever gets a request for a session knows its owner without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub u128);

impl UploadId {
    /// Bits that tell the owner.
    const NODE_BITS: u32 = 32;

    /// A name made by `node`; of `random` the lower 96 bits count.
    pub const fn made_by(node: NodeId, random: u128) -> Self {
        let random = random & (u128::MAX >> Self::NODE_BITS);
        Self((node.0 as u128) << (u128::BITS - Self::NODE_BITS) | random)
    }

    /// The node that made it. Node numbers count joins, so 32 bits hold them.
    pub const fn owner(self) -> NodeId {
        NodeId((self.0 >> (u128::BITS - Self::NODE_BITS)) as u64)
    }
}

/// A cluster's random name: certificates carry it, so that nodes of two clusters never take each other for members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// The public part of a join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u128);

/// What commands and records a cluster may use: it rises only when every member understands the next level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// A single node's: everything before clusters.
    pub const SINGLE: Self = Self(1);
    /// Members, holders of blobs, deduplicated proposals.
    pub const CLUSTER: Self = Self(2);
    /// Expired upload sessions go many at once, whichever node held them.
    pub const EXPIRY: Self = Self(3);
    /// Policies, accounts and tokens, quotas, and the audit log.
    pub const IDENTITY: Self = Self(4);
    /// The highest that this program understands.
    pub const NEWEST: Self = Self::IDENTITY;
}

/// Where a row of the replicated state is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The one row of cluster-wide counters.
    Cluster,
    /// A node that ever started.
    Node(NodeId),
    /// What a tenant uses.
    Usage(TenantName),
    /// A repository that holds anything at all.
    Repository(RepositoryKey),
    /// An artifact, by its digest.
    Artifact(RepositoryKey, Digest),
    /// A tag.
    Tag(RepositoryKey, TagName),
    /// A tag that names an artifact, found from the artifact: (repository, artifact, tag).
    TagOf(RepositoryKey, Digest, TagName),
    /// Membership of a blob in a repository: what makes it visible there. The blob comes first, so that the
    /// repositories which show it are found from it.
    Link(Digest, RepositoryKey),
    /// An artifact that names `subject` as its subject: (repository, subject, artifact).
    Referrer(RepositoryKey, Digest, Digest),
    /// A blob's live copy.
    Blob(Digest),
    /// An artifact that references a blob, found from the blob: (blob, repository, artifact).
    Edge(Digest, RepositoryKey, Digest),
    /// What keeps an unreferenced blob: (blob, upload or request that pinned it).
    Pin(Digest, UploadId),
    /// An upload session that outlives one request.
    Upload(UploadId),
    /// Which proposals of a node's start were applied.
    Session(Epoch),
    /// A token that lets nodes join.
    JoinToken(TokenId),
    /// The one row of the cluster's certificate authority.
    Authority,
    /// The one row of the policy in force.
    Policy,
    /// What the policy lets a tenant use.
    Tenant(TenantName),
    /// A user or a robot that the cluster keeps.
    Account(AccountName),
    /// A token, by its public part.
    AccessToken(TokenId),
    /// A token, found from its owner and its name.
    TokenOf(OwnerName, TokenName),
    /// A key that the cluster signs session tokens with.
    SigningKey(u64),
    /// An issuer's token that was exchanged, by a hash of its name: it is not taken again.
    Assertion([u8; 32]),
    /// How many requests of a kind a tenant has been granted in its current hour.
    Budget(TenantName, Rate),
    /// The one row that tells where the audit log begins and ends.
    AuditHead,
    /// An entry of the audit log.
    Audit(u64),
}

/// The value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// For [`Key::Cluster`].
    Cluster(ClusterRecord),
    /// For [`Key::Node`].
    Node(NodeRecord),
    /// For [`Key::Usage`].
    Usage(UsageRecord),
    /// For [`Key::Repository`].
    Repository(RepositoryRecord),
    /// For [`Key::Artifact`].
    Artifact(ArtifactRecord),
    /// For [`Key::Tag`].
    Tag(TagRecord),
    /// For [`Key::TagOf`]: the row's being there says all.
    TagOf,
    /// For [`Key::Link`].
    Link(LinkRecord),
    /// For [`Key::Referrer`].
    Referrer(ReferrerRecord),
    /// For [`Key::Blob`].
    Blob(BlobRecord),
    /// For [`Key::Edge`]: the row's being there says all.
    Edge,
    /// For [`Key::Pin`].
    Pin(PinRecord),
    /// For [`Key::Upload`].
    Upload(UploadRecord),
    /// For [`Key::Session`].
    Session(SessionRecord),
    /// For [`Key::JoinToken`].
    JoinToken(JoinTokenRecord),
    /// For [`Key::Authority`].
    Authority(AuthorityRecord),
    /// For [`Key::Policy`].
    Policy(PolicyRecord),
    /// For [`Key::Tenant`].
    Tenant(TenantRecord),
    /// For [`Key::Account`].
    Account(AccountRecord),
    /// For [`Key::AccessToken`].
    AccessToken(AccessTokenRecord),
    /// For [`Key::TokenOf`]: the token's public part.
    TokenOf(TokenId),
    /// For [`Key::SigningKey`].
    SigningKey(SigningKeyRecord),
    /// For [`Key::Assertion`].
    Assertion(AssertionRecord),
    /// For [`Key::Budget`].
    Budget(BudgetRecord),
    /// For [`Key::AuditHead`].
    AuditHead(AuditHeadRecord),
    /// For [`Key::Audit`].
    Audit(AuditRecord),
}

/// Cluster-wide counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRecord {
    /// The latest time any applied command carried; a command stamped earlier counts as of this time.
    pub clock: Timestamp,
    /// The newest epoch handed out.
    pub epoch: Epoch,
    /// The cluster's name; `None` until it is founded.
    pub cluster: Option<ClusterId>,
    /// The highest node number handed out; the founder's is 1. None is ever handed out again.
    pub last_node: NodeId,
    /// What commands may be used; 0, as in states from before there were levels, is [`FeatureLevel::SINGLE`].
    pub feature_level: FeatureLevel,
    /// Counts the policies that were in force; 0 is none yet.
    pub policy_epoch: u64,
    /// Counts changes of policy, accounts, tokens and signing keys: what caches of them are keyed by.
    pub identity_epoch: u64,
    /// Which blobs tenants' unique bytes are exact for.
    pub unique_to: UniqueTo,
}

/// How far [`UsageRecord::unique_bytes`] counts shared blobs once. States from before there were quotas are counted in
/// small steps, while the cluster works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UniqueTo {
    /// No blob: each link counts.
    #[default]
    Nothing,
    /// Blobs up to and with this one.
    Blob(Digest),
    /// All of them.
    Everything,
}

impl UniqueTo {
    /// Whether a blob counts once in each tenant, however many of its repositories show it.
    pub fn covers(self, blob: Digest) -> bool {
        match self {
            Self::Nothing => false,
            Self::Blob(last) => blob <= last,
            Self::Everything => true,
        }
    }
}

/// How a node stands with the others. Only an active node gets new blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Admitted, but never started with its certificate yet.
    #[default]
    Joining,
    /// A member that takes its share.
    Active,
    /// Silent for so long that its share is made anew elsewhere; comes back by starting.
    Away,
    /// On its way out: it serves what it has until others have it.
    Draining,
    /// Gone for good.
    Removed,
}

/// What a node tells of itself when it joins and whenever it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeProfile {
    /// Where other nodes reach it, as `host:port`.
    pub cluster_address: String,
    /// Where clients reach it, as a URL; empty if unknown.
    pub http_address: String,
    /// Its failure zone: copies of a blob go to different ones if they can.
    pub zone: String,
    /// Its share of the blobs relative to others'; 0 counts as 1.
    pub weight: u32,
    /// Its program's version, for people.
    pub version: String,
    /// The highest feature level that it understands.
    pub feature_max: FeatureLevel,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its running (or last) start; earlier epochs of this node are retired. 0 before its first start.
    pub epoch: Epoch,
    /// The random name of that start, by which a repeated proposal of it is known.
    pub start: u128,
    /// How it stands.
    pub standing: Standing,
    /// What it told of itself last.
    pub profile: NodeProfile,
    /// SHA-256 of the public key that it joined with: a repeated admission gives the same node.
    pub key_hash: [u8; 32],
    /// When its standing last changed.
    pub changed_at: Timestamp,
}

/// Where a blob's live copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On the disks of these nodes; sorted, each once. Empty once every copy was lost.
    Nodes(Vec<NodeId>),
    /// In the shared object store, under a key made from this name.
    Object(UploadId),
}

impl Placement {
    /// Whether no copy is left: the blob can be had again only by pushing it again.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Nodes(holders) if holders.is_empty())
    }
}

/// Which proposals of one start of a node were applied: all below `applied_below`, and those listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRecord {
    /// The node.
    pub node: NodeId,
    /// Every serial below counts as applied: it was, or its proposer has given it up.
    pub applied_below: u64,
    /// Applied serials from there on; sorted, each once. None is [`SessionRecord::SERIALS_OPEN_MAX`] or further from
    /// `applied_below`.
    pub applied: Vec<u64>,
}

impl SessionRecord {
    /// A proposer has its oldest open question settled before it makes a proposal this many serials later: what bounds
    /// the list, which is read and written with each of its commands.
    pub const SERIALS_OPEN_MAX: u64 = 4096;
}

/// A token that lets nodes join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTokenRecord {
    /// SHA-256 of its secret part.
    pub secret_hash: [u8; 32],
    /// From then on it opens nothing.
    pub expires_at: Timestamp,
}

/// The cluster's certificate authority: every member can issue certificates with it, and so renew its own.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityRecord {
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS #8 DER.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for AuthorityRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityRecord").finish_non_exhaustive()
    }
}

/// What a tenant uses; always equal to a recount of its rows. A tenant that uses nothing has no such row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRecord {
    /// Sum over the tenant's links of their blobs' sizes, and over its artifacts with inline bodies of their sizes.
    pub bytes: u64,
    /// Artifacts.
    pub artifacts: u64,
    /// Tags.
    pub tags: u64,
    /// Links.
    pub links: u64,
    /// What quotas count: each of the tenant's blobs once, however many of its repositories show it, and the artifacts'
    /// inline bodies. Exact for blobs that [`ClusterRecord::unique_to`] covers; for others each link counts.
    pub unique_bytes: u64,
    /// Set aside for uploads that run.
    pub reserved_bytes: u64,
}

/// A repository; the row goes when the last artifact, tag and link are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryRecord {
    /// When the first thing was stored in it.
    pub created_at: Timestamp,
    /// Log position of the last change: what caches of derived documents are keyed by.
    pub revision: u64,
    /// Artifacts in it.
    pub artifacts: u64,
    /// Tags in it.
    pub tags: u64,
    /// Links in it.
    pub links: u64,
}

/// Where an artifact's exact bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In the record itself: at most [`Body::INLINE_BYTES_MAX`].
    Inline(Vec<u8>),
    /// A blob of the artifact's own digest, linked in the same repository and referenced by the artifact.
    Blob,
}

impl Body {
    /// Larger bodies are stored as blobs, so that log entries stay small.
    pub const INLINE_BYTES_MAX: usize = 64 << 10;
}

/// An immutable version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactRecord {
    /// The media type it was pushed with, byte for byte.
    pub media_type: MediaType,
    /// Size of its bytes.
    pub size: u64,
    /// Its bytes, exactly as they were pushed.
    pub body: Body,
    /// The artifact it speaks about, present or not.
    pub subject: Option<Digest>,
    /// What kind of thing it is, if it says so: OCI's artifactType, or its config's media type.
    pub artifact_type: Option<MediaType>,
    /// Blobs that must live as long as it does; sorted, each once. Holds its own digest if its body is a blob.
    pub blobs: Vec<Digest>,
    /// Artifacts of the same repository that it lists; sorted, each once.
    pub children: Vec<Digest>,
    /// When it was pushed first.
    pub pushed_at: Timestamp,
}

/// A mutable name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// The artifact it names; always one that is there.
    pub digest: Digest,
    /// When it last moved.
    pub moved_at: Timestamp,
}

/// Membership of a blob in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRecord {
    /// The blob's size in bytes, counted to the tenant.
    pub size: u64,
    /// When it was pushed or mounted there first.
    pub linked_at: Timestamp,
}

/// A row of the referrers list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrerRecord {
    /// The referring artifact's own artifact type, repeated here so that filtering needs no second read.
    pub artifact_type: Option<MediaType>,
}

/// A blob's live copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// Which physical copy is the one to read.
    pub generation: Generation,
    /// Size in bytes.
    pub size: u64,
    /// Root of the table of chunk hashes (BLAKE3 over the concatenated chunk hashes).
    pub chunk_root: [u8; 32],
    /// Edges that point to it.
    pub references: u64,
    /// When the last edge to it went, or when it was stored, if none came yet.
    pub unreferenced_at: Timestamp,
    /// When a push or mount last relied on it.
    pub touched_at: Timestamp,
    /// Where its bytes are.
    pub placement: Placement,
}

/// Keeps a blob that nothing references yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// From then on it keeps nothing.
    pub expires_at: Timestamp,
}

/// An upload session that outlives one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// Where its blob will be linked.
    pub repository: RepositoryKey,
    /// The node that holds its bytes.
    pub node: NodeId,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// From then on the node may drop it.
    pub expires_at: Timestamp,
    /// Bytes of the tenant's quota that are set aside for it.
    pub reserved_bytes: u64,
}
