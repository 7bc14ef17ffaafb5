//! What a person asks of a registry, made of the SDK's calls. Verbs return data; showing it is the caller's work.

pub mod delete;
pub mod health;
pub mod images;
pub mod tag;

use nora_domain::Digest;

use crate::error::ClientError;

/// Why a verb did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// A call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no such content.
    #[error("{reference} is not there")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// It is an index, and the verb needs one image of it.
    #[error("{reference} is for several platforms: {}", .platforms.join(", "))]
    ChoosePlatform {
        /// What was asked for.
        reference: String,
        /// What it has.
        platforms: Vec<String>,
    },
    /// It is not a container image, so it has no such part.
    #[error("{reference} is not a container image but {media_type}")]
    NotAnImage {
        /// What was asked for.
        reference: String,
        /// What it is.
        media_type: String,
    },
    /// The reference does not say what to act on.
    #[error("{reference}: {rule}")]
    BadTarget {
        /// What was asked for.
        reference: String,
        /// What it should say.
        rule: &'static str,
    },
    /// The server would not mount a blob.
    #[error("the server did not mount {digest} from {from}")]
    NotMounted {
        /// The blob.
        digest: Digest,
        /// The repository that has it.
        from: String,
    },
    /// A manifest's content is not what it should be.
    #[error("manifest {digest} {problem}")]
    BadManifest {
        /// The manifest.
        digest: Digest,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl VerbError {
    /// What a person can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::NotFound { .. } => Some("`nora images ls` shows what there is".into()),
            Self::ChoosePlatform { .. } => Some("choose one with --platform".into()),
            Self::NotMounted { from, .. } => {
                Some(format!("these credentials must be allowed to pull from {from}"))
            }
            _ => None,
        }
    }
}
