//! Rows that a command is likely to read, as far as the command alone shows them.
//!
//! A state machine that applies many commands can read these rows at once. Guarantee: a wrong or missing key costs time
//! and changes no result. Must not know where rows are kept.

use crate::artifact::PutArtifact;
use crate::blob::{CommitBlob, Holder};
use crate::command::Action;
use crate::digest::Digest;
use crate::names::{RepositoryKey, TagName};
use crate::state::Key;

/// Adds the keys of rows that `action` is likely to read. A command that names very many blobs adds only some.
pub fn add_likely_reads(action: &Action, keys: &mut Vec<Key>) {
    match action {
        Action::OpenUpload(open) => {
            let tenant = &open.repository.tenant;
            keys.extend([Key::Upload(tenant.clone(), open.upload), Key::Usage(tenant.clone())]);
        }
        Action::CloseUpload(close) => {
            keys.push(Key::Upload(close.tenant.clone(), close.upload));
        }
        Action::CommitBlob(commit) => committed(commit, keys),
        Action::MountBlob(mount) => {
            keys.push(Key::Link(mount.from.clone(), mount.digest));
            shown(&mount.to, mount.digest, keys);
        }
        Action::PinBlob(pin) => shown(&pin.repository, pin.digest, keys),
        Action::UnlinkBlob(unlink) => shown(&unlink.repository, unlink.digest, keys),
        Action::AddHolder(add) => keys.push(Key::Blob(add.digest)),
        Action::DropHolder(drop) => keys.push(Key::Blob(drop.digest)),
        Action::PutArtifact(put) => stored(put, keys),
        Action::DeleteArtifact(delete) => {
            repository(&delete.repository, keys);
            keys.push(Key::Artifact(delete.repository.clone(), delete.digest));
        }
        Action::SetTag(set) => tagged(&set.repository, &set.tag, keys),
        Action::DeleteTag(delete) => tagged(&delete.repository, &delete.tag, keys),
        _ => {}
    }
}

/// Blobs of one artifact whose rows are told of.
const BLOBS_MAX: usize = 256;

fn repository(repository: &RepositoryKey, keys: &mut Vec<Key>) {
    keys.push(Key::Repository(repository.clone()));
    keys.push(Key::Usage(repository.tenant.clone()));
}

fn shown(repository: &RepositoryKey, digest: Digest, keys: &mut Vec<Key>) {
    self::repository(repository, keys);
    keys.push(Key::Blob(digest));
    keys.push(Key::TenantBlob(repository.tenant.clone(), digest));
    keys.push(Key::Link(repository.clone(), digest));
}

fn tagged(repository: &RepositoryKey, tag: &TagName, keys: &mut Vec<Key>) {
    self::repository(repository, keys);
    keys.push(Key::Tag(repository.clone(), tag.clone()));
}

fn committed(commit: &CommitBlob, keys: &mut Vec<Key>) {
    keys.push(Key::Upload(commit.repository.tenant.clone(), commit.upload));
    shown(&commit.repository, commit.digest, keys);
}

fn stored(put: &PutArtifact, keys: &mut Vec<Key>) {
    let PutArtifact { repository, digest, .. } = put;
    self::repository(repository, keys);
    keys.push(Key::Artifact(repository.clone(), *digest));
    for blob in put.blobs.iter().take(BLOBS_MAX) {
        keys.push(Key::Link(repository.clone(), *blob));
        keys.push(Key::Blob(*blob));
        keys.push(Key::TenantBlob(repository.tenant.clone(), *blob));
        keys.push(Key::Edge(repository.clone(), *blob, Holder::Artifact(*digest)));
    }
    let children = put.children.iter().take(BLOBS_MAX);
    keys.extend(children.map(|child| Key::Artifact(repository.clone(), *child)));
    keys.extend(put.tags.iter().map(|tag| Key::Tag(repository.clone(), tag.clone())));
}
