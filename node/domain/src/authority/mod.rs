//! The cluster's certificate authority, the secret that all members share, and how both are replaced while the cluster
//! works.
//!
//! A rotation has two stages. In the first, every member comes to trust the next authority beside the current one, and
//! makes itself a certificate of the next. In the second, every member shows that certificate. A stage ends when each
//! member has confirmed it. After the second, the old authority, the old secret, all keys that sign sessions and all join
//! tokens are gone.

mod transition;

use crate::ids::NodeId;
use crate::time::Timestamp;

/// A certificate authority with its private key: every member can issue certificates with it, and so renew its own.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityKeys {
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS #8 DER.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for AuthorityKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityKeys").finish_non_exhaustive()
    }
}

/// Random bytes that all members know and nobody else. The administrator's shared password and the proofs of upload sessions
/// are made from them.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSecret(pub [u8; 32]);

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// The row of the cluster's authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRecord {
    /// The authority that certificates lead to.
    pub keys: AuthorityKeys,
    /// What all members know.
    pub secret: SharedSecret,
    /// The rotation that is under way.
    pub rotation: Option<Rotation>,
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RotationStage {
    /// Members come to trust the next authority, and show certificates of the current one.
    Trust,
    /// Members show certificates of the next authority, and trust both.
    Show,
}

/// A rotation that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// How far it is.
    pub stage: RotationStage,
    /// The authority that comes.
    pub keys: AuthorityKeys,
    /// The secret that comes.
    pub secret: SharedSecret,
    /// The key that signs sessions once the rotation is over.
    pub session_key: SharedSecret,
    /// When it began.
    pub begun_at: Timestamp,
    /// Members that have confirmed the stage, by number.
    pub confirmed: Vec<NodeId>,
}

/// Replace the authority and every secret that a member's disk gives away. Refused while a rotation is under way. Join
/// tokens end at once: they name the authority that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginRotation {
    /// The authority that comes.
    pub keys: AuthorityKeys,
    /// The secret that comes.
    pub secret: SharedSecret,
    /// The key that signs sessions once the rotation is over.
    pub session_key: SharedSecret,
}

/// A member has done what a stage of the rotation asks of it. The last member to confirm ends the stage. Refused if that
/// stage is not the present one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmRotation {
    /// The stage.
    pub stage: RotationStage,
    /// The certificate of the authority that comes, DER: a late copy must not count for another rotation.
    pub certificate: Vec<u8>,
    /// Who confirms.
    pub node: NodeId,
}
