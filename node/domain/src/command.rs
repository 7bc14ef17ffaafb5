//! What can be asked of the replicated state, and how it answers.
//!
//! Each command is a struct in its noun's folder, with an outcome type of its own. The list below is the only place that
//! names them all: from it come [`Action`], [`Outcome`], and the dispatch to the transition. Commands carry everything a
//! decision needs; [`Command::at`] is the leader's time. A [`Refusal`] is an ordinary answer that every replica computes
//! alike: nothing was changed.

use crate::account::{AccountRemoved, CreateAccount, RemoveAccount, SetPassword};
use crate::artifact::{ArtifactDeleted, ArtifactStored, DeleteArtifact, PutArtifact};
use crate::authority::{BeginRotation, ConfirmRotation};
use crate::blob::{
    AddHolder, BlobCommitted, CommitBlob, DropHolder, Holder, LoseObject, MountBlob, PinBlob,
    UnlinkBlob,
};
use crate::cluster::{FeatureLevel, FoundCluster, RaiseFeatureLevel, SetReplicas};
use crate::digest::Digest;
use crate::ids::{Epoch, NodeId};
use crate::join_token::{AdmitNode, CreateJoinToken, RevokeJoinToken};
use crate::journal::{
    About, Actor, AdvanceCursor, Deed, DropSegments, NoteRefusals, Reason, RemoveCursor,
    SealJournal, SegmentsDropped, Verb,
};
use crate::names::{AccountName, FileName, TagName, VersionName};
use crate::node::{SetStanding, Standing, StartNode};
use crate::policy::SetPolicy;
use crate::refresh_token::{CreateRefreshToken, RevokeRefreshTokens};
use crate::signing_key::AddSigningKey;
use crate::state::Store;
use crate::tag::{DeleteTag, NotePulls, SetTag, Target};
use crate::tenant::{BudgetLeased, LeaseBudget, Quota};
use crate::time::Timestamp;
use crate::token::{CreateAccessToken, RevokeAccessToken, TouchAccessTokens};
use crate::transition::{Decision, Step};
use crate::upload::{CloseUpload, ExpireUploads, OpenUpload, ShrinkReservation};
use crate::version::{
    DeleteFile, DeleteVersion, PutVersion, SetVersionState, VersionDeleted, VersionStored,
};

/// Calls a macro with the list of all commands: `Name method -> Outcome`. Encodings use it, so that a command which no
/// codec knows does not compile.
#[macro_export]
macro_rules! for_each_command {
    ($callback:ident) => {
        $callback! {
            FoundCluster found_cluster -> (),
            RaiseFeatureLevel raise_feature_level -> (),
            SetReplicas set_replicas -> (),
            StartNode start_node -> Epoch,
            SetStanding set_standing -> (),
            CreateJoinToken create_join_token -> (),
            AdmitNode admit_node -> NodeId,
            OpenUpload open_upload -> Timestamp,
            ShrinkReservation shrink_reservation -> (),
            CloseUpload close_upload -> (),
            ExpireUploads expire_uploads -> (),
            CommitBlob commit_blob -> BlobCommitted,
            MountBlob mount_blob -> (),
            PinBlob pin_blob -> (),
            UnlinkBlob unlink_blob -> (),
            AddHolder add_holder -> (),
            DropHolder drop_holder -> (),
            LoseObject lose_object -> (),
            PutArtifact put_artifact -> ArtifactStored,
            DeleteArtifact delete_artifact -> ArtifactDeleted,
            SetTag set_tag -> (),
            DeleteTag delete_tag -> Target,
            NotePulls note_pulls -> (),
            PutVersion put_version -> VersionStored,
            SetVersionState set_version_state -> (),
            DeleteVersion delete_version -> VersionDeleted,
            DeleteFile delete_file -> (),
            LeaseBudget lease_budget -> BudgetLeased,
            SetPolicy set_policy -> u64,
            CreateAccount create_account -> (),
            SetPassword set_password -> (),
            RemoveAccount remove_account -> AccountRemoved,
            CreateAccessToken create_access_token -> (),
            RevokeAccessToken revoke_access_token -> (),
            TouchAccessTokens touch_access_tokens -> (),
            AddSigningKey add_signing_key -> u64,
            NoteRefusals note_refusals -> (),
            AdvanceCursor advance_cursor -> (),
            RemoveCursor remove_cursor -> (),
            SealJournal seal_journal -> (),
            DropSegments drop_segments -> SegmentsDropped,
            RevokeJoinToken revoke_join_token -> (),
            BeginRotation begin_rotation -> (),
            ConfirmRotation confirm_rotation -> (),
            CreateRefreshToken create_refresh_token -> (),
            RevokeRefreshTokens revoke_refresh_tokens -> u32,
        }
    };
}

/// A command: something that can be asked of the state, with the type of its answer.
pub trait Ask: Into<Action> {
    /// What the state answers if the command is carried out.
    type Done;

    /// The answer, if it is one to this kind of command; the answer unchanged if it is another's.
    fn done(outcome: Outcome) -> Result<Self::Done, Outcome>;
}

macro_rules! commands {
    ($($name:ident $method:ident -> $done:ty,)*) => {
        /// A change asked for: one of the commands.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Action {
            $($name($name),)*
        }

        /// What was done, by the kind of command.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Outcome {
            $($name($done),)*
        }

        impl Action {
            /// The command's name, for logs and metrics.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }
        }

        $(
            impl From<$name> for Action {
                fn from(command: $name) -> Self {
                    Self::$name(command)
                }
            }

            impl Ask for $name {
                type Done = $done;

                fn done(outcome: Outcome) -> Result<$done, Outcome> {
                    match outcome {
                        Outcome::$name(done) => Ok(done),
                        other => Err(other),
                    }
                }
            }
        )*

        impl<S: Store> Step<'_, S> {
            /// Decides a command by its noun's transition.
            pub(crate) fn carry_out(&mut self, action: &Action) -> Decision<Outcome, S::Error> {
                match action {
                    $(Action::$name(command) => self.$method(command).map(Outcome::$name),)*
                }
            }
        }
    };
}

for_each_command!(commands);

impl Action {
    /// The feature level from which on the command may be used: below it, a member might not understand it.
    pub const fn needs(&self) -> FeatureLevel {
        FeatureLevel::FIRST
    }

    /// What a caller asks for with the command, as the journal notes it; `None` for a change of nothing that people know
    /// of.
    pub fn deed(&self) -> Option<Deed> {
        let (verb, about) = match self {
            Self::CommitBlob(CommitBlob { repository, digest, .. }) => {
                (Verb::BlobPush, About::Content(repository.clone(), *digest))
            }
            Self::MountBlob(MountBlob { to, digest, .. }) => {
                (Verb::BlobMount, About::Content(to.clone(), *digest))
            }
            Self::UnlinkBlob(UnlinkBlob { repository, digest }) => {
                (Verb::BlobDelete, About::Content(repository.clone(), *digest))
            }
            Self::PutArtifact(PutArtifact { repository, digest, tags, .. }) => {
                let tags = tags.iter().take(About::TAGS_MAX).cloned().collect();
                (Verb::ArtifactPush, About::Tagged(repository.clone(), *digest, tags))
            }
            Self::DeleteArtifact(DeleteArtifact { repository, digest }) => {
                (Verb::ArtifactDelete, About::Content(repository.clone(), *digest))
            }
            Self::SetTag(SetTag { repository, tag, .. }) => {
                (Verb::TagSet, About::Tag(repository.clone(), tag.clone()))
            }
            Self::DeleteTag(DeleteTag { repository, tag }) => {
                (Verb::TagDelete, About::Tag(repository.clone(), tag.clone()))
            }
            Self::PutVersion(PutVersion { repository, version, .. }) => {
                (Verb::VersionPublish, About::Version(repository.clone(), version.clone()))
            }
            Self::SetVersionState(SetVersionState { repository, version, .. }) => {
                (Verb::VersionState, About::Version(repository.clone(), version.clone()))
            }
            Self::DeleteVersion(DeleteVersion { repository, version, .. }) => {
                (Verb::VersionDelete, About::Version(repository.clone(), version.clone()))
            }
            Self::DeleteFile(DeleteFile { repository, version, file }) => {
                (Verb::FileDelete, About::File(repository.clone(), version.clone(), file.clone()))
            }
            Self::SetPolicy(_) => (Verb::PolicySet, About::Policy),
            Self::SetReplicas(_) => (Verb::ClusterReplicas, About::Cluster),
            Self::BeginRotation(_) => (Verb::ClusterRotate, About::Cluster),
            Self::CreateJoinToken(CreateJoinToken { token, .. }) => {
                (Verb::NodeToken, About::Token(*token))
            }
            Self::RevokeJoinToken(RevokeJoinToken { token }) => {
                (Verb::NodeTokenRevoke, About::Token(*token))
            }
            Self::AdmitNode(AdmitNode { token, .. }) => (Verb::NodeJoin, About::Token(*token)),
            Self::CreateAccount(CreateAccount { account, .. }) => {
                (Verb::AccountCreate, About::Account(account.clone()))
            }
            Self::SetPassword(SetPassword { account, .. }) => {
                (Verb::AccountPassword, About::Account(account.clone()))
            }
            Self::RemoveAccount(RemoveAccount { account }) => {
                (Verb::AccountRemove, About::Account(account.clone()))
            }
            Self::CreateAccessToken(CreateAccessToken { record, assertion, .. }) => {
                let about =
                    About::NamedToken(record.owner.as_str().into(), record.name.as_str().into());
                let verb =
                    if assertion.is_some() { Verb::TokenExchange } else { Verb::TokenCreate };
                (verb, about)
            }
            Self::RevokeAccessToken(RevokeAccessToken { token }) => {
                (Verb::TokenRevoke, About::Token(*token))
            }
            Self::CreateRefreshToken(CreateRefreshToken { token, owner, .. }) => {
                (Verb::SessionCreate, About::Session(owner.as_str().into(), Some(*token)))
            }
            Self::RevokeRefreshTokens(RevokeRefreshTokens { owner, token }) => {
                (Verb::SessionRevoke, About::Session(owner.as_str().into(), *token))
            }
            _ => return None,
        };
        Some(Deed::new(verb, about))
    }
}

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
    /// The policy under which the change was judged: refused if another is in force. `None` if no policy has a say.
    pub policy: Option<u64>,
    /// Tags that may be made and not moved: the caller may not overwrite there. Sorted.
    pub create_only: Vec<TagName>,
    /// Tags that the policy keeps as they are, once they are there. Sorted.
    pub immutable: Vec<TagName>,
    /// For [`DeleteArtifact`] where tags may be immutable: the repository's revision by which it was judged that none of
    /// them needs the artifact. Refused if the repository has changed since; `None` if that has no say.
    pub revision: Option<u64>,
}

impl Terms {
    /// The cluster asks, and no policy has a say.
    pub const NONE: Self = Self {
        by: None,
        policy: None,
        create_only: Vec::new(),
        immutable: Vec::new(),
        revision: None,
    };
}

/// A change asked for, with its circumstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The time: the leader's, or the proposer's until the leader has stamped it.
    pub at: Timestamp,
    /// Which proposal it is; `None` takes effect each time it is applied.
    pub origin: Option<Origin>,
    /// Who asks, and on what terms.
    pub terms: Terms,
    /// What to do.
    pub action: Action,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node that asks has been started anew since: what it wrote belongs to a retired epoch.
    RetiredEpoch,
    /// The command was applied before, or its proposer has given it up.
    Duplicate,
    /// Another start of the node was made known than the one that this start would replace.
    StartReplaced,
    /// The cluster has its name already.
    ClusterFounded,
    /// The cluster has no name yet.
    NotFounded,
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
    /// The join token has admitted as many nodes as it was made for.
    TokenSpent,
    /// The cluster's authority is being replaced.
    RotationUnderWay,
    /// The rotation of the authority is at another stage, or over.
    RotationMoved,
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
    /// Too few nodes hold the blob.
    TooFewHolders {
        /// The blob.
        digest: Digest,
        /// Serving holders that there are, or would be left.
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
    /// Something in the same repository needs the blob.
    BlobReferenced {
        /// The blob.
        digest: Digest,
        /// One of those that need it.
        by: Holder,
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
    /// The tag is there, and the caller may only make tags.
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
        /// What is used and reserved.
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
    /// The account is not the one that logged in, or has another password since.
    AccountChanged(AccountName),
    /// There is no such refresh token, or the owner has none.
    RefreshTokenUnknown,
    /// The issuer's token was exchanged before.
    AssertionUsed,
    /// The issuer's token is over, by the cluster's clock: what was remembered of it may be forgotten.
    AssertionOver,
    /// There is a newer signing key.
    SigningKeyKnown(u64),
    /// The tenant is not limited in this.
    NotLimited,
    /// The version is there already.
    VersionExists(VersionName),
    /// The version is not as it was when its publisher looked.
    VersionChanged(VersionName),
    /// The version was deleted, and its name may not be given again.
    VersionGone(VersionName),
    /// The version is not in the repository.
    VersionUnknown(VersionName),
    /// The version has a file of that name with other bytes.
    FileExists(FileName),
    /// The version has no such file.
    FileUnknown(FileName),
    /// A version may have this many files.
    FilesTooMany(u32),
    /// The journal's rows begin elsewhere: another node has sealed them.
    JournalMoved {
        /// Number of their first entry.
        first: u64,
    },
}

impl Refusal {
    /// Why, as the code that the journal notes.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::RetiredEpoch => Reason::RetiredEpoch,
            Self::Duplicate => Reason::Duplicate,
            Self::StartReplaced => Reason::StartReplaced,
            Self::ClusterFounded => Reason::ClusterFounded,
            Self::NotFounded => Reason::NotFounded,
            Self::NodeUnknown(_) => Reason::NodeUnknown,
            Self::NodeRemoved(_) => Reason::NodeRemoved,
            Self::StandingImpossible { .. } => Reason::StandingImpossible,
            Self::TokenUnknown => Reason::JoinTokenUnknown,
            Self::TokenExpired => Reason::JoinTokenExpired,
            Self::TokenSpent => Reason::JoinTokenSpent,
            Self::RotationUnderWay => Reason::RotationUnderWay,
            Self::RotationMoved => Reason::RotationMoved,
            Self::FeatureTooOld { .. } | Self::MemberTooOld { .. } => Reason::ProgramTooOld,
            Self::FeatureNotReached { .. } => Reason::UpgradeUnfinished,
            Self::StaleGeneration(_) => Reason::StaleCopy,
            Self::TooFewHolders { .. } => Reason::TooFewCopies,
            Self::UploadConflict => Reason::UploadConflict,
            Self::BlobUnknown(_) => Reason::BlobUnknown,
            Self::ArtifactUnknown(_) => Reason::ArtifactUnknown,
            Self::TagUnknown(_) => Reason::TagUnknown,
            Self::ReferencesMissing { .. } => Reason::ReferencesMissing,
            Self::BlobReferenced { .. } => Reason::BlobReferenced,
            Self::SizeConflict { .. } => Reason::SizeConflict,
            Self::PolicyChanged { .. } => Reason::PolicyChanged,
            Self::TagExists(_) => Reason::TagExists,
            Self::TagImmutable(_) => Reason::TagImmutable,
            Self::RepositoryChanged => Reason::RepositoryChanged,
            Self::QuotaExceeded { .. } => Reason::QuotaExceeded,
            Self::AccountExists(_) => Reason::AccountExists,
            Self::AccountUnknown(_) => Reason::AccountUnknown,
            Self::AccessTokenExists => Reason::TokenExists,
            Self::AccessTokensTooMany(_) => Reason::TokensTooMany,
            Self::AccessTokenUnknown => Reason::TokenUnknown,
            Self::AccountChanged(_) => Reason::AccountChanged,
            Self::RefreshTokenUnknown => Reason::SessionUnknown,
            Self::AssertionUsed => Reason::AssertionUsed,
            Self::AssertionOver => Reason::AssertionOver,
            Self::SigningKeyKnown(_) => Reason::SigningKeyKnown,
            Self::NotLimited => Reason::NotLimited,
            Self::VersionExists(_) => Reason::VersionExists,
            Self::VersionChanged(_) => Reason::VersionChanged,
            Self::VersionGone(_) => Reason::VersionGone,
            Self::VersionUnknown(_) => Reason::VersionUnknown,
            Self::FileExists(_) => Reason::FileExists,
            Self::FileUnknown(_) => Reason::FileUnknown,
            Self::FilesTooMany(_) => Reason::FilesTooMany,
            Self::JournalMoved { .. } => Reason::JournalMoved,
        }
    }
}
