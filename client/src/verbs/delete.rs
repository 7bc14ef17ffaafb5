//! Deleting: a tag alone, or a manifest with every tag that names it.

use nora_domain::Digest;
use serde::Serialize;

use super::VerbError;
use crate::client::Client;
use crate::reference::{Reference, Target};

/// What will be or was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deletion {
    /// The repository.
    pub repository: String,
    /// The tag, if only that goes.
    pub tag: Option<String>,
    /// The manifest: it goes if no tag was named, and stays otherwise.
    pub digest: String,
}

/// Finds what a reference names. A reference without a tag or digest is refused, never taken for `latest`.
pub async fn plan(client: &Client, reference: &Reference) -> Result<Deletion, VerbError> {
    let bad = |rule| VerbError::BadTarget { reference: reference.to_string(), rule };
    let target = match (&reference.tag, reference.digest) {
        (None, None) => return Err(bad("say which tag or digest to delete")),
        (Some(_), Some(_)) => {
            return Err(bad("name the tag or the digest, not both: they are deleted differently"));
        }
        _ => reference.target(),
    };
    let head = client.manifest_head(&reference.repository, &target).await?;
    let head = head.ok_or_else(|| VerbError::NotFound { reference: reference.to_string() })?;
    Ok(Deletion {
        repository: reference.repository.clone(),
        tag: reference.tag.clone(),
        digest: head.digest.to_string(),
    })
}

/// Carries a plan out.
pub async fn run(client: &Client, deletion: &Deletion) -> Result<(), VerbError> {
    let target = match (&deletion.tag, Digest::parse(&deletion.digest)) {
        (Some(tag), _) => Target::Tag(tag.clone()),
        (None, Ok(digest)) => Target::Digest(digest),
        (None, Err(_)) => {
            let reference = deletion.repository.clone();
            return Err(VerbError::BadTarget { reference, rule: "the plan names no digest" });
        }
    };
    Ok(client.delete_manifest(&deletion.repository, &target).await?)
}
