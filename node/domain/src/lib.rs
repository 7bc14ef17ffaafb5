//! The words and rules of NORA, free of any input or output.
//!
//! Every ecosystem is described by the same nouns: a *repository* owned by one tenant holds immutable *artifacts* and
//! *versions* with their files, mutable *tags* name those, and *blobs* are the bytes. Each noun has a folder with its
//! record, its commands, their outcomes and their transition. A [`Command`] asks for a change, and [`apply`] decides it
//! against the replicated [`Store`], answers with an [`Outcome`] or a [`Refusal`], and reports what happened as
//! [`Event`]s.
//!
//! Guarantees: a transition is a pure function of the store, the command and the command's log position. Time, ids and
//! random values arrive inside commands, so every replica computes the same state.
//!
//! Must not know: async, clocks, files, sockets, randomness, or any encoding. Nothing here iterates a hash map.

/// Reads the row at a key as the one kind of record that belongs there.
macro_rules! read {
    ($store:expr, $kind:ident, $key:expr) => {
        match $store.get(&$key)? {
            Some($crate::state::Record::$kind(record)) => Some(record),
            None => None,
            Some(_) => {
                debug_assert!(false, "a record of another kind at {:?}", $key);
                None
            }
        }
    };
}

mod account;
mod artifact;
mod authority;
mod blob;
mod cluster;
mod command;
mod digest;
mod footprint;
mod ids;
mod join_token;
mod journal;
mod names;
mod node;
mod policy;
mod reference;
mod refresh_token;
mod repository;
mod signing_key;
mod state;
mod tag;
mod tenant;
mod time;
mod token;
mod transition;
mod upload;
mod version;

pub mod hex;

pub use account::{AccountRecord, AccountRemoved, CreateAccount, RemoveAccount, SetPassword};
pub use artifact::{
    ArtifactDeleted, ArtifactRecord, ArtifactStored, Body, DeleteArtifact, PutArtifact,
    ReferrerRecord,
};
pub use authority::{
    AuthorityKeys, AuthorityRecord, BeginRotation, ConfirmRotation, Rotation, RotationStage,
    SharedSecret,
};
pub use blob::{
    AddHolder, BlobCommitted, BlobRecord, CommitBlob, DropHolder, Holder, LinkRecord, LoseObject,
    MountBlob, PinBlob, Placement, TenantBlobRecord, UnlinkBlob, placement,
};
pub use cluster::{
    ClusterRecord, FeatureLevel, FoundCluster, RaiseFeatureLevel, SetReplicas, Storage, StorageMode,
};
pub use command::{Action, Ask, Command, Origin, Outcome, Refusal, Terms};
pub use digest::{Algorithm, Digest, DigestError};
pub use footprint::add_likely_reads;
pub use ids::{ClusterId, Epoch, Generation, NodeId, TokenId, UploadId};
pub use join_token::{AdmitNode, CreateJoinToken, JoinTokenRecord, RevokeJoinToken};
pub use journal::{
    About, Actor, AdvanceCursor, CursorRecord, Deed, DropSegments, Entry, Event, JournalHead,
    NoteRefusals, Reason, RefusalNote, RemoveCursor, SealJournal, SegmentRecord, SegmentsDropped,
    Subject, Verb, Verdict, system_repository,
};
pub use names::{
    AccountName, ConsumerName, FileName, Format, MediaType, NameError, OwnerName, RepositoryKey,
    RepositoryPath, TagName, TenantName, TokenName, VersionName,
};
pub use node::{NodeProfile, NodeRecord, SessionRecord, SetStanding, Standing, StartNode};
pub use policy::{PolicyRecord, SetPolicy};
pub use reference::Reference;
pub use refresh_token::{
    CreateRefreshToken, REFRESH_TOKENS_MAX, RefreshTokenRecord, RevokeRefreshTokens,
};
pub use repository::RepositoryRecord;
pub use signing_key::{AddSigningKey, SigningKeyRecord};
pub use state::{Head, Key, MemoryStore, Record, Rows, Store, recount};
pub use tag::{DeleteTag, Item, NotePulls, PulledRecord, SetTag, TagRecord, Target};
pub use tenant::{BudgetLeased, BudgetRecord, LeaseBudget, LimitsRecord, Quota, Rate, UsageRecord};
pub use time::{HOUR_MILLIS, Timestamp};
pub use token::{
    AccessTokenRecord, AssertionRecord, CreateAccessToken, RevokeAccessToken, TouchAccessTokens,
};
pub use transition::{Applied, apply};
pub use upload::{CloseUpload, ExpireUploads, OpenUpload, ShrinkReservation, UploadRecord};
pub use version::{
    DeleteFile, DeleteVersion, Expected, Facts, FileRecord, HashKind, NewFile, PutVersion,
    SetVersionState, VersionDeleted, VersionRecord, VersionState, VersionStored,
};
