//! What can be asked of the replicated state, and how it answers.
//!
//! Commands are imperatives and carry everything a decision needs; [`Command::at`] is the proposer's clock. A
//! [`Refusal`] is an ordinary answer that every replica computes alike: nothing was changed.

use crate::digest::Digest;
use crate::identity::{
    AccessTokenRecord, Actor, BudgetRecord, Rate, RefusalNote, SigningKeyRecord, TenantRecord,
};
use crate::name::{
    AccountName, MediaType, OwnerName, RepositoryKey, TagName, TenantName, TokenName,
};
use crate::record::{
    AuthorityRecord, Body, ClusterId, Epoch, FeatureLevel, Generation, NodeId, NodeProfile,
    Placement, Standing, Timestamp, TokenId, UploadId,
};

/// Which proposal of which start of a node a command is. However often it stands in the log, it takes effect once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The proposer's start.
    pub epoch: Epoch,
    /// Counts the proposer's proposals.
    pub serial: u64,
    /// Every serial below is answered or given up: what still arrives of them takes no effect.
    pub settled_below: u64,
}

/// Who asks for a change, and what the proposer's judgement of it rests on. Globs and claims are judged by proposers; what
/// they could not know yet, because a racing command may come first, is decided where commands have an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Who asks; `None` is the cluster itself.
    pub by: Option<Actor>,
    /// The policy under which the change was judged: refused if another is in force. `None` if none has a say.
    pub policy: Option<u64>,
    /// Tags that may be made and not moved: who asks may not overwrite there. Sorted.
    pub create_only: Vec<TagName>,
    /// Tags that the policy keeps as they are, once they are there. Sorted.
    pub immutable: Vec<TagName>,
    /// For [`Action::DeleteArtifact`] where tags may be immutable: the repository's revision by which it was judged that
    /// none of them needs the artifact. Refused if the repository has changed since; `None` if that has no say.
    pub revision: Option<u64>,
}

impl Terms {
    /// The cluster asks, and nobody has a say.
    pub const NONE: Self = Self {
        by: None,
        policy: None,
        create_only: Vec::new(),
        immutable: Vec::new(),
        revision: None,
    };
}

/// A change asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The time: the leader's, or the proposer's until the leader has stamped it.
    pub at: Timestamp,
    /// Which proposal it is; `None` takes effect each time it is applied.
    pub origin: Option<Origin>,
    /// Who asks, and on what terms. Below [`FeatureLevel::IDENTITY`] they have no say.
    pub terms: Terms,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A cluster begins: give it its name and its certificate authority. Refused if it has one.
    FoundCluster {
        /// Its name.
        cluster: ClusterId,
        /// Its authority.
        authority: AuthorityRecord,
    },
    /// A node has started: give it an epoch and retire its earlier ones. It is active from then on, unless it is
    /// draining. Refused for a node that was removed, for one that does not understand the feature level, and for one
    /// that was never admitted, other than node 1, which founds the cluster.
    StartNode {
        /// Who.
        node: NodeId,
        /// Names this start: proposed twice, it gives the same epoch; a running node that was away comes back so. 0, as
        /// from before there was a name, makes each proposal a start of its own.
        start: u128,
        /// What it tells of itself.
        profile: NodeProfile,
    },
    /// Let nodes join that know a secret. Tokens that have expired go.
    CreateJoinToken {
        /// The public part.
        token: TokenId,
        /// SHA-256 of the secret part.
        secret_hash: [u8; 32],
        /// When it ends.
        expires_at: Timestamp,
    },
    /// A node wants to join: give it a number that no node ever had.
    AdmitNode {
        /// The token it showed.
        token: TokenId,
        /// SHA-256 of the secret it showed.
        secret_hash: [u8; 32],
        /// SHA-256 of its public key.
        key_hash: [u8; 32],
        /// What it tells of itself.
        profile: NodeProfile,
    },
    /// A node's standing changes. Nothing comes back from [`Standing::Removed`], and nothing goes to
    /// [`Standing::Joining`].
    SetStanding {
        /// Who.
        node: NodeId,
        /// How it stands from now on.
        standing: Standing,
    },
    /// Allow what every member understands by now. Never goes down.
    RaiseFeatureLevel {
        /// The level.
        level: FeatureLevel,
    },
    /// Another node has a whole, durable copy of a blob's live generation.
    AddHolder {
        /// The blob.
        digest: Digest,
        /// The copy.
        generation: Generation,
        /// The node.
        node: NodeId,
    },
    /// A node gives up its copy of a blob's live generation, or has found it gone or damaged.
    DropHolder {
        /// The blob.
        digest: Digest,
        /// The copy.
        generation: Generation,
        /// The node.
        node: NodeId,
        /// How many active holders must be left for it to be accepted; 0 if the copy is lost anyway.
        keep: u32,
    },
    /// An upload session outlives its first request, or goes on: keep it known until `expires_at`.
    OpenUpload {
        /// The session.
        upload: UploadId,
        /// Where its blob will be linked.
        repository: RepositoryKey,
        /// The node that holds its bytes.
        node: NodeId,
        /// When it may be dropped.
        expires_at: Timestamp,
        /// Bytes of the tenant's quota to set aside for it in all; what was set aside before stays.
        reserve: u64,
    },
    /// An upload session needs no more of what was set aside for it than this. What it has less of stays less.
    KeepAside {
        /// The session.
        upload: UploadId,
        /// Bytes that stay set aside.
        bytes: u64,
        /// When it may be dropped, as whoever gives back knows it. Later means that somebody goes on with it.
        lease: Timestamp,
    },
    /// An upload session ends without a blob.
    CloseUpload {
        /// The session.
        upload: UploadId,
    },
    /// Of these upload sessions, those whose time is over end without a blob. Their nodes may be gone for good.
    ExpireUploads {
        /// The sessions.
        uploads: Vec<UploadId>,
    },
    /// A blob's bytes are durable under `digest/generation`: make them the live copy if there is none, and make the
    /// blob visible in a repository.
    CommitBlob {
        /// Where it becomes visible.
        repository: RepositoryKey,
        /// Its name.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The copy that was written.
        generation: Generation,
        /// The node that wrote it: refused if its epoch is not the generation's.
        node: NodeId,
        /// Root of its chunk table.
        chunk_root: [u8; 32],
        /// The session that it ends; also names the pin.
        upload: UploadId,
        /// How long it is kept with no artifact referencing it.
        pinned_until: Timestamp,
        /// Where its bytes are durable.
        placement: Placement,
    },
    /// Make a blob that is visible in one repository visible in another.
    MountBlob {
        /// Where it is visible. The proposer has checked that the caller may read it there.
        from: RepositoryKey,
        /// Where it becomes visible.
        to: RepositoryKey,
        /// The blob.
        digest: Digest,
        /// Names the pin.
        pin: UploadId,
        /// How long it is kept with no artifact referencing it.
        pinned_until: Timestamp,
    },
    /// A client was told that a blob is there and will rely on it.
    PinBlob {
        /// Where the client saw it.
        repository: RepositoryKey,
        /// The blob.
        digest: Digest,
        /// Names the pin.
        pin: UploadId,
        /// How long it is kept with no artifact referencing it.
        pinned_until: Timestamp,
    },
    /// Take a blob out of a repository; refused while an artifact there references it.
    UnlinkBlob {
        /// The repository.
        repository: RepositoryKey,
        /// The blob.
        digest: Digest,
    },
    /// Store an artifact and move tags to it, in one step.
    PutArtifact {
        /// The repository.
        repository: RepositoryKey,
        /// The digest of its bytes, computed by the proposer.
        digest: Digest,
        /// Its media type, as sent.
        media_type: MediaType,
        /// Its size in bytes.
        size: u64,
        /// Its bytes.
        body: Body,
        /// The artifact it speaks about.
        subject: Option<Digest>,
        /// What kind of thing it is.
        artifact_type: Option<MediaType>,
        /// Blobs it needs; sorted, each once. Every one must be live, not lost, and linked, or the command is refused.
        blobs: Vec<Digest>,
        /// Artifacts it lists; sorted, each once. Every one must be there, or the command is refused.
        children: Vec<Digest>,
        /// Tags that shall name it.
        tags: Vec<TagName>,
    },
    /// Remove an artifact and every tag that names it.
    DeleteArtifact {
        /// The repository.
        repository: RepositoryKey,
        /// The artifact.
        digest: Digest,
    },
    /// Remove a tag; the artifact stays.
    DeleteTag {
        /// The repository.
        repository: RepositoryKey,
        /// The tag.
        tag: TagName,
    },
    /// Put a policy into force. Its limits for tenants are told apart from the document, which is opaque here.
    SetPolicy {
        /// Refused if another policy than this one is in force; `None` takes whatever is.
        expected: Option<u64>,
        /// The document.
        document: Vec<u8>,
        /// SHA-256 of it.
        hash: [u8; 32],
        /// What tenants may use; sorted by name, each once.
        tenants: Vec<(TenantName, TenantRecord)>,
    },
    /// Make an account. Refused if there is one of that name.
    CreateAccount {
        /// Its name.
        account: AccountName,
        /// Whether it is a program.
        is_robot: bool,
        /// Its password's hash; empty for a robot.
        password_hash: String,
        /// Its groups.
        groups: Vec<String>,
    },
    /// Give an account another password: its sessions end.
    SetPassword {
        /// The account.
        account: AccountName,
        /// The new password's hash.
        password_hash: String,
    },
    /// Remove an account and every token of it.
    RemoveAccount {
        /// The account.
        account: AccountName,
    },
    /// Make a token. Its times are counted from the cluster's clock.
    CreateAccessToken {
        /// Its public part.
        token: TokenId,
        /// Its owner and its name, if it is to be found by them; then they are unique.
        found_by: Option<(OwnerName, TokenName)>,
        /// The account whose it is, if the cluster keeps that: refused if it is gone, for a later account of the same name
        /// must not come into tokens of the earlier.
        account: Option<AccountName>,
        /// What is known of it.
        record: AccessTokenRecord,
        /// An issuer's token that it is exchanged for, by a hash of its name, and when that expires: refused if it was
        /// exchanged before.
        assertion: Option<([u8; 32], Timestamp)>,
    },
    /// End a token.
    RevokeAccessToken {
        /// Its public part.
        token: TokenId,
    },
    /// Tokens were seen used.
    TouchAccessTokens {
        /// Which, and when last.
        uses: Vec<(TokenId, Timestamp)>,
    },
    /// Sign with another key from now on. Keys whose time is over go.
    AddSigningKey {
        /// The newest key that the proposer knows of; refused if there is a newer one already.
        after: Option<u64>,
        /// The key.
        key: SigningKeyRecord,
    },
    /// Grant a node some of a tenant's requests in an hour, or take back what it did not use.
    LeaseBudget {
        /// The tenant.
        tenant: TenantName,
        /// Of which kind.
        rate: Rate,
        /// What hour the node takes it to be: hours since the Unix epoch. What is granted is of the cluster's hour; only
        /// what was granted in that one is taken back.
        hour: u64,
        /// How many more it would like.
        take: u64,
        /// How many it gives back of what it was granted in that hour.
        give_back: u64,
    },
    /// Note refusals that never became commands.
    NoteRefusals {
        /// What was refused.
        refusals: Vec<RefusalNote>,
    },
    /// Forget audit entries from before a time, some of them at a time.
    TrimAudit {
        /// Entries from before go.
        before: Timestamp,
    },
    /// The webhook has taken the audit's entries up to this one.
    NoteAuditSent {
        /// The entry's number.
        number: u64,
    },
    /// Count the next blobs once in each tenant that shows them: a step of [`crate::record::UniqueTo`].
    CountUnique,
}

impl Action {
    /// The feature level from which on the command may be used: below it, a member might not understand it. Founding and
    /// starting are understood by every program that can be in such a place.
    pub fn needs(&self) -> FeatureLevel {
        match self {
            Self::CreateJoinToken { .. }
            | Self::AdmitNode { .. }
            | Self::SetStanding { .. }
            | Self::RaiseFeatureLevel { .. }
            | Self::AddHolder { .. }
            | Self::DropHolder { .. } => FeatureLevel::CLUSTER,
            Self::ExpireUploads { .. } => FeatureLevel::EXPIRY,
            Self::SetPolicy { .. }
            | Self::CreateAccount { .. }
            | Self::SetPassword { .. }
            | Self::RemoveAccount { .. }
            | Self::CreateAccessToken { .. }
            | Self::RevokeAccessToken { .. }
            | Self::TouchAccessTokens { .. }
            | Self::AddSigningKey { .. }
            | Self::LeaseBudget { .. }
            | Self::NoteRefusals { .. }
            | Self::TrimAudit { .. }
            | Self::NoteAuditSent { .. }
            | Self::KeepAside { .. }
            | Self::CountUnique => FeatureLevel::IDENTITY,
            Self::OpenUpload { reserve, .. } if *reserve > 0 => FeatureLevel::IDENTITY,
            Self::FoundCluster { .. }
            | Self::StartNode { .. }
            | Self::OpenUpload { .. }
            | Self::CloseUpload { .. }
            | Self::CommitBlob { .. }
            | Self::MountBlob { .. }
            | Self::PinBlob { .. }
            | Self::UnlinkBlob { .. }
            | Self::PutArtifact { .. }
            | Self::DeleteArtifact { .. }
            | Self::DeleteTag { .. } => FeatureLevel::SINGLE,
        }
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node runs under this epoch.
    NodeStarted(Epoch),
    /// The cluster has its name.
    ClusterFounded,
    /// Nodes may join with the token.
    JoinTokenCreated,
    /// The node has this number.
    NodeAdmitted(NodeId),
    /// The node stands as was asked.
    StandingSet,
    /// The level is at least what was asked.
    FeatureLevelRaised,
    /// The node is known to hold the blob.
    HolderAdded,
    /// The node is no longer counted as holding the blob: it may delete its copy.
    HolderDropped,
    /// The session is known, or known for longer.
    UploadOpened,
    /// The session is gone, or was not known.
    UploadClosed,
    /// Those sessions whose time was over are gone.
    UploadsExpired,
    /// The blob is visible; `live` is the copy to read. If it is not the one just written, the writer deletes its own.
    BlobCommitted {
        /// The copy to read.
        live: Generation,
    },
    /// The blob is visible in the target.
    BlobMounted,
    /// The blob stays until the pin expires.
    BlobPinned,
    /// The blob is no longer visible there.
    BlobUnlinked,
    /// The artifact is stored and its tags name it.
    ArtifactStored {
        /// False if it was there before.
        created: bool,
    },
    /// The artifact is gone, and so are these tags.
    ArtifactDeleted {
        /// Tags that named it; sorted.
        tags: Vec<TagName>,
    },
    /// The tag is gone; it named this artifact.
    TagDeleted {
        /// What it named.
        digest: Digest,
    },
    /// The policy is in force under this number.
    PolicySet(u64),
    /// The account is there.
    AccountCreated,
    /// The account has the new password.
    PasswordSet,
    /// The account is gone.
    AccountRemoved {
        /// Tokens that went with it.
        tokens: u32,
    },
    /// The token opens what it is for.
    AccessTokenCreated,
    /// The token opens nothing any more.
    AccessTokenRevoked,
    /// The uses are noted.
    AccessTokensTouched,
    /// The key has this number.
    SigningKeyAdded(u64),
    /// What was granted of the tenant's requests.
    BudgetLeased {
        /// How many more the node may let through.
        granted: u64,
        /// What all nodes together were granted in the hour.
        budget: BudgetRecord,
    },
    /// The refusals are in the audit log.
    RefusalsNoted,
    /// Entries that were too old are gone.
    AuditTrimmed {
        /// Whether there are more of them.
        more: bool,
    },
    /// No more than that is set aside.
    RoomKept,
    /// It is noted how far the webhook is.
    AuditSentNoted,
    /// A step was counted.
    UniqueCounted {
        /// Whether every blob is counted now.
        done: bool,
    },
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node that asks has been started anew since: what it wrote belongs to a retired epoch.
    RetiredEpoch,
    /// The command was applied before, or its proposer has given it up.
    Duplicate,
    /// The cluster has its name already.
    ClusterFounded,
    /// No such node.
    NodeUnknown(NodeId),
    /// The node was removed; it must join anew under another number.
    NodeRemoved(NodeId),
    /// No standing leads from the node's own to the one asked for.
    StandingImpossible {
        /// How it stands.
        from: Standing,
        /// What was asked for.
        to: Standing,
    },
    /// There is no such token, or the secret is not its.
    TokenUnknown,
    /// The token has expired.
    TokenExpired,
    /// The node does not understand the level that the cluster is at.
    FeatureTooOld {
        /// The cluster's level.
        level: FeatureLevel,
        /// The highest that the node understands.
        understood: FeatureLevel,
    },
    /// The command needs a level that the cluster is not at: a member may not understand it.
    FeatureNotReached {
        /// The cluster's level.
        level: FeatureLevel,
        /// What the command needs.
        needed: FeatureLevel,
    },
    /// This member does not understand the level asked for.
    MemberTooOld {
        /// The member.
        node: NodeId,
        /// The highest that it understands.
        understood: FeatureLevel,
    },
    /// The generation is not the blob's live one.
    StaleGeneration(Digest),
    /// Too few others hold the blob.
    TooFewHolders {
        /// The blob.
        digest: Digest,
        /// Active holders that would be left.
        left: u32,
    },
    /// An upload session of that name is known already, for another repository or on another node.
    UploadConflict,
    /// The blob is not visible in the repository asked about.
    BlobUnknown(Digest),
    /// The artifact is not in the repository.
    ArtifactUnknown(Digest),
    /// The tag is not in the repository.
    TagUnknown(TagName),
    /// What an artifact needs is not there: blobs not live or not linked, and children not present. Each sorted.
    ReferencesMissing {
        /// Blobs.
        blobs: Vec<Digest>,
        /// Artifacts.
        children: Vec<Digest>,
    },
    /// The blob is referenced by this artifact of the same repository.
    BlobReferenced {
        /// The blob.
        digest: Digest,
        /// One of the artifacts that need it.
        by: Digest,
    },
    /// What is stored under the digest has another size than the command says: one of the two is corrupt.
    SizeConflict {
        /// The blob, or the artifact.
        digest: Digest,
        /// Size of what is stored, in bytes.
        live: u64,
    },
    /// The change was judged under another policy than the one in force: judge it again.
    PolicyChanged {
        /// The number of the one in force.
        epoch: u64,
    },
    /// The tag is there, and who asks may only make tags.
    TagExists(TagName),
    /// The tag is there, and the policy keeps it as it is.
    TagImmutable(TagName),
    /// The repository is not as it was when the change was judged: judge it again.
    RepositoryChanged,
    /// The tenant's quota has no room for it.
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
    /// There is an account of that name.
    AccountExists(AccountName),
    /// There is no such account.
    AccountUnknown(AccountName),
    /// The owner has a token of that name.
    AccessTokenExists,
    /// The owner has this many tokens, which is as many as one may have.
    AccessTokensTooMany(usize),
    /// There is no such token.
    AccessTokenUnknown,
    /// The issuer's token was exchanged before.
    AssertionUsed,
    /// The issuer's token is over, by the cluster's clock: what was remembered of it may be forgotten.
    AssertionOver,
    /// There is a newer signing key.
    SigningKeyKnown(u64),
    /// The tenant is not limited in this.
    NotLimited,
}

impl Refusal {
    /// Why a tag that the policy keeps is neither moved nor deleted.
    pub const TAG_IMMUTABLE: &'static str = "the tag is immutable";
    /// Why a push ends that has no room in its tenant.
    pub const QUOTA_EXCEEDED: &'static str = "over the quota";

    /// Why, in a few words: what the audit log says.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::RetiredEpoch => "the node was started anew",
            Self::Duplicate => "applied before",
            Self::ClusterFounded => "founded already",
            Self::NodeUnknown(_) => "no such node",
            Self::NodeRemoved(_) => "the node was removed",
            Self::StandingImpossible { .. } => "not possible from where the node stands",
            Self::TokenUnknown => "no such join token",
            Self::TokenExpired => "the join token has expired",
            Self::FeatureTooOld { .. } | Self::MemberTooOld { .. } => "the program is too old",
            Self::FeatureNotReached { .. } => "the upgrade is not finished",
            Self::StaleGeneration(_) => "another copy is the live one",
            Self::TooFewHolders { .. } => "too few copies",
            Self::UploadConflict => "the upload belongs elsewhere",
            Self::BlobUnknown(_) => "no such blob",
            Self::ArtifactUnknown(_) => "no such artifact",
            Self::TagUnknown(_) => "no such tag",
            Self::ReferencesMissing { .. } => "what it references is missing",
            Self::BlobReferenced { .. } => "an artifact needs the blob",
            Self::SizeConflict { .. } => "another size is stored",
            Self::PolicyChanged { .. } => "the policy changed meanwhile",
            Self::TagExists(_) => "the tag exists and may not be overwritten",
            Self::TagImmutable(_) => Self::TAG_IMMUTABLE,
            Self::RepositoryChanged => "the repository changed meanwhile",
            Self::QuotaExceeded { .. } => Self::QUOTA_EXCEEDED,
            Self::AccountExists(_) => "the account exists",
            Self::AccountUnknown(_) => "no such account",
            Self::AccessTokenExists => "the token exists",
            Self::AccessTokensTooMany(_) => "too many tokens",
            Self::AccessTokenUnknown => "no such token",
            Self::AssertionUsed => "the token was exchanged before",
            Self::AssertionOver => "the token has expired",
            Self::SigningKeyKnown(_) => "there is a newer key",
            Self::NotLimited => "no limit",
        }
    }
}

/// What a tenant has a limited amount of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Unique bytes.
    Storage,
    /// Artifacts.
    Artifacts,
}

impl Quota {
    /// What it counts.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Storage => "bytes",
            Self::Artifacts => "artifacts",
        }
    }
}
