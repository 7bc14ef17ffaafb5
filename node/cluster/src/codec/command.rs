//! Commands as the log holds them.
//!
//! Guarantee: an action that this version does not know is an error. The state machine stops on it, for a replica that
//! skipped an entry would hold another state than the others.

use nora_domain::command::{Action, Command, Origin};
use nora_domain::record::{ClusterId, Epoch, FeatureLevel, NodeId, Timestamp, TokenId};
use nora_domain::{MediaType, TagName};
use nora_proto::command::v1 as proto;
use prost::Message;
use prost::encoding::uint64;

use super::identity;
use super::members::{
    authority_from_proto, authority_to_proto, placement_from_proto, placement_to_proto,
    profile_from_proto, profile_to_proto, standing_from_proto, standing_to_proto,
};
use super::{
    DecodeError, body_required, body_to_proto, digest_optional, digest_required, digest_to_proto,
    digests_from_proto, digests_to_proto, generation_required, generation_to_proto,
    hash_from_proto, media_type_optional, media_type_to_proto, name_from_proto,
    name_or_zero_from_proto, name_or_zero_to_proto, repository_required, repository_to_proto,
    upload_from_proto, upload_to_proto,
};

/// The field number of a command's time.
const AT: u32 = 1;

/// The bytes of a command.
pub fn encode(command: &Command) -> Vec<u8> {
    let origin = command.origin.map(origin_to_proto);
    let terms = identity::terms_to_proto(&command.terms);
    let action = action_to_proto(&command.action);
    proto::Command { at: command.at.0, origin, terms, action: Some(action) }.encode_to_vec()
}

/// Says of an encoded command, which has no origin yet, which proposal it is. Fields may stand in any order, so
/// appending spares encoding the command anew.
pub fn append_origin(bytes: &mut Vec<u8>, origin: Origin) {
    let origin = proto::Command { origin: Some(origin_to_proto(origin)), ..Default::default() };
    bytes.reserve(origin.encoded_len());
    // Writing to a vector cannot run out of room.
    let _ = origin.encode(bytes);
}

/// An encoded command with another time. The leader stamps every command so: a proposer whose clock is wrong must not
/// move the cluster's clock, by which pins and tokens expire. Of two times in a message the last counts, so the leader
/// need not understand what it stamps.
pub fn stamp(bytes: &[u8], at: Timestamp) -> Vec<u8> {
    let mut stamped = Vec::with_capacity(bytes.len() + 11);
    stamped.extend_from_slice(bytes);
    uint64::encode(AT, &at.0, &mut stamped);
    stamped
}

/// The command that these bytes say.
pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
    let command = proto::Command::decode(bytes)?;
    let action = command.action.ok_or(DecodeError::Unknown("command.action"))?;
    let origin = command.origin.map(|origin| Origin {
        epoch: Epoch(origin.epoch),
        serial: origin.serial,
        settled_below: origin.settled_below,
    });
    Ok(Command {
        at: Timestamp(command.at),
        origin,
        terms: identity::terms_from_proto(command.terms)?,
        action: action_from_proto(action)?,
    })
}

fn origin_to_proto(origin: Origin) -> proto::Origin {
    proto::Origin {
        epoch: origin.epoch.0,
        serial: origin.serial,
        settled_below: origin.settled_below,
    }
}

fn action_to_proto(action: &Action) -> proto::command::Action {
    use proto::command::Action as To;
    match action {
        Action::FoundCluster { cluster, authority } => To::FoundCluster(proto::FoundCluster {
            cluster: cluster.0.to_be_bytes().to_vec(),
            authority: Some(authority_to_proto(authority)),
        }),
        Action::StartNode { node, start, profile } => To::StartNode(proto::StartNode {
            node: node.0,
            start: name_or_zero_to_proto(*start),
            profile: profile_to_proto(profile),
        }),
        Action::CreateJoinToken { token, secret_hash, expires_at } => {
            To::CreateJoinToken(proto::CreateJoinToken {
                token: token.0.to_be_bytes().to_vec(),
                secret_hash: secret_hash.to_vec(),
                expires_at: expires_at.0,
            })
        }
        Action::AdmitNode { token, secret_hash, key_hash, profile } => {
            To::AdmitNode(proto::AdmitNode {
                token: token.0.to_be_bytes().to_vec(),
                secret_hash: secret_hash.to_vec(),
                key_hash: key_hash.to_vec(),
                profile: profile_to_proto(profile),
            })
        }
        Action::SetStanding { node, standing } => To::SetStanding(proto::SetStanding {
            node: node.0,
            standing: standing_to_proto(*standing).into(),
        }),
        Action::RaiseFeatureLevel { level } => {
            To::RaiseFeatureLevel(proto::RaiseFeatureLevel { level: level.0 })
        }
        Action::AddHolder { digest, generation, node } => To::AddHolder(proto::AddHolder {
            digest: Some(digest_to_proto(digest)),
            generation: Some(generation_to_proto(generation)),
            node: node.0,
        }),
        Action::DropHolder { digest, generation, node, keep } => {
            To::DropHolder(proto::DropHolder {
                digest: Some(digest_to_proto(digest)),
                generation: Some(generation_to_proto(generation)),
                node: node.0,
                keep: *keep,
            })
        }
        Action::OpenUpload { upload, repository, node, expires_at, reserve } => {
            To::OpenUpload(proto::OpenUpload {
                upload: upload_to_proto(*upload),
                repository: Some(repository_to_proto(repository)),
                node: node.0,
                expires_at: expires_at.0,
                reserve: *reserve,
            })
        }
        Action::CloseUpload { upload } => {
            To::CloseUpload(proto::CloseUpload { upload: upload_to_proto(*upload) })
        }
        Action::ExpireUploads { uploads } => To::ExpireUploads(proto::ExpireUploads {
            uploads: uploads.iter().map(|upload| upload_to_proto(*upload)).collect(),
        }),
        Action::CommitBlob { .. } => To::CommitBlob(commit_blob_to_proto(action)),
        Action::MountBlob { from, to, digest, pin, pinned_until } => {
            To::MountBlob(proto::MountBlob {
                from: Some(repository_to_proto(from)),
                to: Some(repository_to_proto(to)),
                digest: Some(digest_to_proto(digest)),
                pin: upload_to_proto(*pin),
                pinned_until: pinned_until.0,
            })
        }
        Action::PinBlob { repository, digest, pin, pinned_until } => To::PinBlob(proto::PinBlob {
            repository: Some(repository_to_proto(repository)),
            digest: Some(digest_to_proto(digest)),
            pin: upload_to_proto(*pin),
            pinned_until: pinned_until.0,
        }),
        Action::UnlinkBlob { repository, digest } => To::UnlinkBlob(proto::UnlinkBlob {
            repository: Some(repository_to_proto(repository)),
            digest: Some(digest_to_proto(digest)),
        }),
        Action::PutArtifact { .. } => To::PutArtifact(put_artifact_to_proto(action)),
        Action::DeleteArtifact { repository, digest } => {
            To::DeleteArtifact(proto::DeleteArtifact {
                repository: Some(repository_to_proto(repository)),
                digest: Some(digest_to_proto(digest)),
            })
        }
        Action::DeleteTag { repository, tag } => To::DeleteTag(proto::DeleteTag {
            repository: Some(repository_to_proto(repository)),
            tag: tag.as_str().to_owned(),
        }),
        Action::SetPolicy { .. }
        | Action::CreateAccount { .. }
        | Action::SetPassword { .. }
        | Action::RemoveAccount { .. }
        | Action::CreateAccessToken { .. }
        | Action::RevokeAccessToken { .. }
        | Action::TouchAccessTokens { .. }
        | Action::AddSigningKey { .. }
        | Action::LeaseBudget { .. }
        | Action::NoteRefusals { .. }
        | Action::TrimAudit { .. }
        | Action::NoteAuditSent { .. }
        | Action::KeepAside { .. }
        | Action::CountUnique => identity::action_to_proto(action).unwrap_or_else(|| {
            debug_assert!(false, "not encoded: {action:?}");
            To::CountUnique(proto::CountUnique {})
        }),
    }
}

/// For a [`Action::CommitBlob`]; any other action gives an empty message, and none is ever passed.
fn commit_blob_to_proto(action: &Action) -> proto::CommitBlob {
    let Action::CommitBlob {
        repository,
        digest,
        size,
        generation,
        node,
        chunk_root,
        upload,
        pinned_until,
        placement,
    } = action
    else {
        debug_assert!(false, "not a CommitBlob: {action:?}");
        return proto::CommitBlob::default();
    };
    proto::CommitBlob {
        repository: Some(repository_to_proto(repository)),
        digest: Some(digest_to_proto(digest)),
        size: *size,
        generation: Some(generation_to_proto(generation)),
        node: node.0,
        chunk_root: chunk_root.to_vec(),
        upload: upload_to_proto(*upload),
        pinned_until: pinned_until.0,
        placement: Some(placement_to_proto(placement)),
    }
}

/// For a [`Action::PutArtifact`]; any other action gives an empty message, and none is ever passed.
fn put_artifact_to_proto(action: &Action) -> proto::PutArtifact {
    let Action::PutArtifact {
        repository,
        digest,
        media_type,
        size,
        body,
        subject,
        artifact_type,
        blobs,
        children,
        tags,
    } = action
    else {
        debug_assert!(false, "not a PutArtifact: {action:?}");
        return proto::PutArtifact::default();
    };
    proto::PutArtifact {
        repository: Some(repository_to_proto(repository)),
        digest: Some(digest_to_proto(digest)),
        media_type: media_type.as_str().to_owned(),
        size: *size,
        body: Some(body_to_proto(body)),
        subject: subject.as_ref().map(digest_to_proto),
        artifact_type: media_type_to_proto(artifact_type.as_ref()),
        blobs: digests_to_proto(blobs),
        children: digests_to_proto(children),
        tags: tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
    }
}

fn action_from_proto(action: proto::command::Action) -> Result<Action, DecodeError> {
    use proto::command::Action as From;
    Ok(match action {
        From::FoundCluster(m) => Action::FoundCluster {
            cluster: ClusterId(name_from_proto(&m.cluster, "cluster")?),
            authority: authority_from_proto(
                m.authority.ok_or(DecodeError::Unknown("found_cluster.authority"))?,
            ),
        },
        From::StartNode(m) => Action::StartNode {
            node: NodeId(m.node),
            start: name_or_zero_from_proto(&m.start, "start")?,
            profile: profile_from_proto(m.profile),
        },
        From::CreateJoinToken(m) => Action::CreateJoinToken {
            token: TokenId(name_from_proto(&m.token, "token")?),
            secret_hash: hash_from_proto(&m.secret_hash, "secret_hash")?,
            expires_at: Timestamp(m.expires_at),
        },
        From::AdmitNode(m) => Action::AdmitNode {
            token: TokenId(name_from_proto(&m.token, "token")?),
            secret_hash: hash_from_proto(&m.secret_hash, "secret_hash")?,
            key_hash: hash_from_proto(&m.key_hash, "key_hash")?,
            profile: profile_from_proto(m.profile),
        },
        From::SetStanding(m) => {
            Action::SetStanding { node: NodeId(m.node), standing: standing_from_proto(m.standing)? }
        }
        From::RaiseFeatureLevel(m) => Action::RaiseFeatureLevel { level: FeatureLevel(m.level) },
        From::AddHolder(m) => Action::AddHolder {
            digest: digest_required(m.digest.as_ref())?,
            generation: generation_required(m.generation.as_ref())?,
            node: NodeId(m.node),
        },
        From::DropHolder(m) => Action::DropHolder {
            digest: digest_required(m.digest.as_ref())?,
            generation: generation_required(m.generation.as_ref())?,
            node: NodeId(m.node),
            keep: m.keep,
        },
        From::OpenUpload(m) => Action::OpenUpload {
            upload: upload_from_proto(&m.upload)?,
            repository: repository_required(m.repository.as_ref())?,
            node: NodeId(m.node),
            expires_at: Timestamp(m.expires_at),
            reserve: m.reserve,
        },
        From::CloseUpload(m) => Action::CloseUpload { upload: upload_from_proto(&m.upload)? },
        From::ExpireUploads(m) => Action::ExpireUploads {
            uploads: m.uploads.iter().map(|m| upload_from_proto(m)).collect::<Result<_, _>>()?,
        },
        From::CommitBlob(m) => Action::CommitBlob {
            repository: repository_required(m.repository.as_ref())?,
            digest: digest_required(m.digest.as_ref())?,
            size: m.size,
            generation: generation_required(m.generation.as_ref())?,
            node: NodeId(m.node),
            chunk_root: hash_from_proto(&m.chunk_root, "chunk_root")?,
            upload: upload_from_proto(&m.upload)?,
            pinned_until: Timestamp(m.pinned_until),
            placement: placement_from_proto(m.placement, NodeId(m.node))?,
        },
        From::MountBlob(m) => Action::MountBlob {
            from: repository_required(m.from.as_ref())?,
            to: repository_required(m.to.as_ref())?,
            digest: digest_required(m.digest.as_ref())?,
            pin: upload_from_proto(&m.pin)?,
            pinned_until: Timestamp(m.pinned_until),
        },
        From::PinBlob(m) => Action::PinBlob {
            repository: repository_required(m.repository.as_ref())?,
            digest: digest_required(m.digest.as_ref())?,
            pin: upload_from_proto(&m.pin)?,
            pinned_until: Timestamp(m.pinned_until),
        },
        From::UnlinkBlob(m) => Action::UnlinkBlob {
            repository: repository_required(m.repository.as_ref())?,
            digest: digest_required(m.digest.as_ref())?,
        },
        From::PutArtifact(m) => put_artifact_from_proto(m)?,
        From::DeleteArtifact(m) => Action::DeleteArtifact {
            repository: repository_required(m.repository.as_ref())?,
            digest: digest_required(m.digest.as_ref())?,
        },
        From::DeleteTag(m) => Action::DeleteTag {
            repository: repository_required(m.repository.as_ref())?,
            tag: TagName::parse(&m.tag)?,
        },
        other => identity::action_from_proto(other)?,
    })
}

fn put_artifact_from_proto(m: proto::PutArtifact) -> Result<Action, DecodeError> {
    let tags = m.tags.iter().map(|tag| TagName::parse(tag)).collect::<Result<_, _>>()?;
    Ok(Action::PutArtifact {
        repository: repository_required(m.repository.as_ref())?,
        digest: digest_required(m.digest.as_ref())?,
        media_type: MediaType::parse(&m.media_type)?,
        size: m.size,
        body: body_required(m.body)?,
        subject: digest_optional(m.subject.as_ref())?,
        artifact_type: media_type_optional(m.artifact_type.as_ref())?,
        blobs: digests_from_proto(&m.blobs)?,
        children: digests_from_proto(&m.children)?,
        tags,
    })
}
