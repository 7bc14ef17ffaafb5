//! Records as rows hold them.

use nora_domain::MediaType;
use nora_domain::record::{
    ArtifactRecord, BlobRecord, ClusterId, ClusterRecord, Epoch, FeatureLevel, JoinTokenRecord,
    LinkRecord, NodeId, NodeRecord, PinRecord, Record, ReferrerRecord, RepositoryRecord,
    SessionRecord, TagRecord, Timestamp, UniqueTo, UploadRecord, UsageRecord,
};
use nora_proto::record::v1 as proto;
use prost::Message;

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
};

/// The only node there was before there were several: it holds the blobs of that time.
const FIRST_NODE: NodeId = NodeId(1);
/// What a node has for a key's hash that never joined.
const NO_KEY: [u8; 32] = [0; 32];

/// The bytes of a record.
pub fn encode(record: &Record) -> Vec<u8> {
    proto::Record { kind: Some(kind_to_proto(record)) }.encode_to_vec()
}

/// The record that these bytes say.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let record = proto::Record::decode(bytes)?;
    kind_from_proto(record.kind.ok_or(DecodeError::Unknown("record.kind"))?)
}

fn kind_to_proto(record: &Record) -> proto::record::Kind {
    use proto::record::Kind as To;
    match record {
        Record::Cluster(r) => To::Cluster(proto::Cluster {
            clock: r.clock.0,
            epoch: r.epoch.0,
            cluster: r.cluster.map(|id| id.0.to_be_bytes().to_vec()).unwrap_or_default(),
            last_node: r.last_node.0,
            feature_level: r.feature_level.0,
            policy_epoch: r.policy_epoch,
            identity_epoch: r.identity_epoch,
            unique_to: match &r.unique_to {
                UniqueTo::Blob(last) => Some(digest_to_proto(last)),
                UniqueTo::Nothing | UniqueTo::Everything => None,
            },
            unique_to_everything: r.unique_to == UniqueTo::Everything,
        }),
        Record::Node(r) => To::Node(proto::Node {
            epoch: r.epoch.0,
            start: name_or_zero_to_proto(r.start),
            standing: standing_to_proto(r.standing).into(),
            profile: profile_to_proto(&r.profile),
            key_hash: if r.key_hash == NO_KEY { Vec::new() } else { r.key_hash.to_vec() },
            changed_at: r.changed_at.0,
        }),
        Record::Usage(r) => To::Usage(proto::Usage {
            bytes: r.bytes,
            artifacts: r.artifacts,
            tags: r.tags,
            links: r.links,
            unique_bytes: r.unique_bytes,
            reserved_bytes: r.reserved_bytes,
        }),
        Record::Repository(r) => To::Repository(proto::Repository {
            created_at: r.created_at.0,
            revision: r.revision,
            artifacts: r.artifacts,
            tags: r.tags,
            links: r.links,
        }),
        Record::Artifact(r) => To::Artifact(artifact_to_proto(r)),
        Record::Tag(r) => {
            To::Tag(proto::Tag { digest: Some(digest_to_proto(&r.digest)), moved_at: r.moved_at.0 })
        }
        Record::TagOf => To::TagOf(proto::TagOf {}),
        Record::Link(r) => To::Link(proto::Link { size: r.size, linked_at: r.linked_at.0 }),
        Record::Referrer(r) => To::Referrer(proto::Referrer {
            artifact_type: media_type_to_proto(r.artifact_type.as_ref()),
        }),
        Record::Blob(r) => To::Blob(proto::Blob {
            generation: Some(generation_to_proto(&r.generation)),
            size: r.size,
            chunk_root: r.chunk_root.to_vec(),
            references: r.references,
            unreferenced_at: r.unreferenced_at.0,
            touched_at: r.touched_at.0,
            placement: Some(placement_to_proto(&r.placement)),
        }),
        Record::Session(r) => To::Session(proto::Session {
            node: r.node.0,
            applied_below: r.applied_below,
            applied: r.applied.clone(),
        }),
        Record::JoinToken(r) => To::JoinToken(proto::JoinToken {
            secret_hash: r.secret_hash.to_vec(),
            expires_at: r.expires_at.0,
        }),
        Record::Authority(r) => To::Authority(authority_to_proto(r)),
        Record::Edge => To::Edge(proto::Edge {}),
        Record::Pin(r) => To::Pin(proto::Pin { expires_at: r.expires_at.0 }),
        Record::Upload(r) => To::Upload(proto::Upload {
            repository: Some(repository_to_proto(&r.repository)),
            node: r.node.0,
            opened_at: r.opened_at.0,
            expires_at: r.expires_at.0,
            reserved_bytes: r.reserved_bytes,
        }),
        Record::Policy(r) => To::Policy(identity::policy_to_proto(r)),
        Record::Tenant(r) => To::Tenant(identity::tenant_to_proto(r)),
        Record::Account(r) => To::Account(identity::account_to_proto(r)),
        Record::AccessToken(r) => To::AccessToken(identity::access_token_to_proto(r)),
        Record::TokenOf(token) => To::NamedToken(identity::named_token_to_proto(*token)),
        Record::SigningKey(r) => To::SigningKey(identity::signing_key_to_proto(r)),
        Record::Assertion(r) => To::Assertion(identity::assertion_to_proto(r)),
        Record::Budget(r) => To::Budget(identity::budget_to_proto(r)),
        Record::AuditHead(r) => To::AuditHead(identity::audit_head_to_proto(r)),
        Record::Audit(r) => To::Audit(identity::audit_to_proto(r)),
    }
}

fn artifact_to_proto(r: &ArtifactRecord) -> proto::Artifact {
    proto::Artifact {
        media_type: r.media_type.as_str().to_owned(),
        size: r.size,
        body: Some(body_to_proto(&r.body)),
        subject: r.subject.as_ref().map(digest_to_proto),
        artifact_type: media_type_to_proto(r.artifact_type.as_ref()),
        blobs: digests_to_proto(&r.blobs),
        children: digests_to_proto(&r.children),
        pushed_at: r.pushed_at.0,
    }
}

fn kind_from_proto(kind: proto::record::Kind) -> Result<Record, DecodeError> {
    use proto::record::Kind as From;
    Ok(match kind {
        From::Cluster(m) => Record::Cluster(ClusterRecord {
            clock: Timestamp(m.clock),
            epoch: Epoch(m.epoch),
            cluster: match m.cluster.as_slice() {
                [] => None,
                name => Some(ClusterId(name_from_proto(name, "cluster.cluster")?)),
            },
            last_node: NodeId(m.last_node),
            feature_level: FeatureLevel(m.feature_level),
            policy_epoch: m.policy_epoch,
            identity_epoch: m.identity_epoch,
            unique_to: match digest_optional(m.unique_to.as_ref())? {
                _ if m.unique_to_everything => UniqueTo::Everything,
                Some(last) => UniqueTo::Blob(last),
                None => UniqueTo::Nothing,
            },
        }),
        From::Node(m) => Record::Node(NodeRecord {
            epoch: Epoch(m.epoch),
            start: name_or_zero_from_proto(&m.start, "node.start")?,
            standing: standing_from_proto(m.standing)?,
            profile: profile_from_proto(m.profile),
            key_hash: match m.key_hash.as_slice() {
                [] => NO_KEY,
                hash => hash_from_proto(hash, "node.key_hash")?,
            },
            changed_at: Timestamp(m.changed_at),
        }),
        From::Usage(m) => Record::Usage(UsageRecord {
            bytes: m.bytes,
            artifacts: m.artifacts,
            tags: m.tags,
            links: m.links,
            unique_bytes: m.unique_bytes,
            reserved_bytes: m.reserved_bytes,
        }),
        From::Repository(m) => Record::Repository(RepositoryRecord {
            created_at: Timestamp(m.created_at),
            revision: m.revision,
            artifacts: m.artifacts,
            tags: m.tags,
            links: m.links,
        }),
        From::Artifact(m) => Record::Artifact(artifact_from_proto(m)?),
        From::Tag(m) => Record::Tag(TagRecord {
            digest: digest_required(m.digest.as_ref())?,
            moved_at: Timestamp(m.moved_at),
        }),
        From::TagOf(proto::TagOf {}) => Record::TagOf,
        From::Link(m) => {
            Record::Link(LinkRecord { size: m.size, linked_at: Timestamp(m.linked_at) })
        }
        From::Referrer(m) => Record::Referrer(ReferrerRecord {
            artifact_type: media_type_optional(m.artifact_type.as_ref())?,
        }),
        From::Blob(m) => Record::Blob(BlobRecord {
            generation: generation_required(m.generation.as_ref())?,
            size: m.size,
            chunk_root: hash_from_proto(&m.chunk_root, "chunk_root")?,
            references: m.references,
            unreferenced_at: Timestamp(m.unreferenced_at),
            touched_at: Timestamp(m.touched_at),
            placement: placement_from_proto(m.placement, FIRST_NODE)?,
        }),
        From::Session(m) => Record::Session(SessionRecord {
            node: NodeId(m.node),
            applied_below: m.applied_below,
            applied: m.applied,
        }),
        From::JoinToken(m) => Record::JoinToken(JoinTokenRecord {
            secret_hash: hash_from_proto(&m.secret_hash, "join_token.secret_hash")?,
            expires_at: Timestamp(m.expires_at),
        }),
        From::Authority(m) => Record::Authority(authority_from_proto(m)),
        From::Edge(proto::Edge {}) => Record::Edge,
        From::Pin(m) => Record::Pin(PinRecord { expires_at: Timestamp(m.expires_at) }),
        From::Upload(m) => Record::Upload(UploadRecord {
            repository: repository_required(m.repository.as_ref())?,
            node: NodeId(m.node),
            opened_at: Timestamp(m.opened_at),
            expires_at: Timestamp(m.expires_at),
            reserved_bytes: m.reserved_bytes,
        }),
        From::Policy(m) => Record::Policy(identity::policy_from_proto(m)?),
        From::Tenant(m) => Record::Tenant(identity::tenant_from_proto(m)),
        From::Account(m) => Record::Account(identity::account_from_proto(m)),
        From::AccessToken(m) => Record::AccessToken(identity::access_token_from_proto(m)?),
        From::NamedToken(m) => Record::TokenOf(identity::token_from_proto(&m.token)?),
        From::SigningKey(m) => Record::SigningKey(identity::signing_key_from_proto(m)?),
        From::Assertion(m) => Record::Assertion(identity::assertion_from_proto(m)),
        From::Budget(m) => Record::Budget(identity::budget_from_proto(m)),
        From::AuditHead(m) => Record::AuditHead(identity::audit_head_from_proto(m)?),
        From::Audit(m) => Record::Audit(identity::audit_from_proto(m)?),
    })
}

fn artifact_from_proto(m: proto::Artifact) -> Result<ArtifactRecord, DecodeError> {
    Ok(ArtifactRecord {
        media_type: MediaType::parse(&m.media_type)?,
        size: m.size,
        body: body_required(m.body)?,
        subject: digest_optional(m.subject.as_ref())?,
        artifact_type: media_type_optional(m.artifact_type.as_ref())?,
        blobs: digests_from_proto(&m.blobs)?,
        children: digests_from_proto(&m.children)?,
        pushed_at: Timestamp(m.pushed_at),
    })
}
