//! One or more values of every kind that is stored, each with a name.

mod identity;

use std::collections::{BTreeMap, BTreeSet};

use nora_cluster::codec::raft::{FileSummary, Manifest};
use nora_cluster::raft::{Entry, LeaderId, LogId, Membership, Proposal, StoredMembership, Vote};
use nora_domain::command::{Action, Command, Origin, Terms};
use nora_domain::record::{
    ArtifactRecord, AuthorityRecord, BlobRecord, Body, ClusterId, ClusterRecord, Epoch,
    FeatureLevel, Generation, JoinTokenRecord, Key, LinkRecord, NodeId, NodeProfile, NodeRecord,
    PinRecord, Placement, Record, ReferrerRecord, RepositoryRecord, SessionRecord, Standing,
    TagRecord, Timestamp, TokenId, UploadId, UploadRecord, UsageRecord,
};
use nora_domain::{Digest, Format, MediaType, RepositoryKey, RepositoryPath, TagName, TenantName};
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload};

fn repository(format: Format) -> RepositoryKey {
    RepositoryKey {
        tenant: TenantName::parse("frontend").unwrap(),
        format,
        path: RepositoryPath::parse("frontend/shop").unwrap(),
    }
}

fn sha256(byte: u8) -> Digest {
    Digest::sha256([byte; 32])
}

fn sha512(byte: u8) -> Digest {
    Digest::sha512([byte; 64])
}

fn upload() -> UploadId {
    UploadId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)
}

fn media_type() -> MediaType {
    MediaType::parse("application/vnd.oci.image.index.v1+json").unwrap()
}

fn tag() -> TagName {
    TagName::parse("v1.0").unwrap()
}

/// The action's name; a new action must get one here, and a sample below.
pub fn action_name(action: &Action) -> &'static str {
    match action {
        Action::StartNode { .. } => "start-node",
        Action::OpenUpload { .. } => "open-upload",
        Action::CloseUpload { .. } => "close-upload",
        Action::ExpireUploads { .. } => "expire-uploads",
        Action::CommitBlob { .. } => "commit-blob",
        Action::MountBlob { .. } => "mount-blob",
        Action::PinBlob { .. } => "pin-blob",
        Action::UnlinkBlob { .. } => "unlink-blob",
        Action::PutArtifact { .. } => "put-artifact",
        Action::DeleteArtifact { .. } => "delete-artifact",
        Action::DeleteTag { .. } => "delete-tag",
        Action::FoundCluster { .. } => "found-cluster",
        Action::CreateJoinToken { .. } => "create-join-token",
        Action::AdmitNode { .. } => "admit-node",
        Action::SetStanding { .. } => "set-standing",
        Action::RaiseFeatureLevel { .. } => "raise-feature-level",
        Action::AddHolder { .. } => "add-holder",
        Action::DropHolder { .. } => "drop-holder",
        Action::SetPolicy { .. } => "set-policy",
        Action::CreateAccount { .. } => "create-account",
        Action::SetPassword { .. } => "set-password",
        Action::RemoveAccount { .. } => "remove-account",
        Action::CreateAccessToken { .. } => "create-access-token",
        Action::RevokeAccessToken { .. } => "revoke-access-token",
        Action::TouchAccessTokens { .. } => "touch-access-tokens",
        Action::AddSigningKey { .. } => "add-signing-key",
        Action::LeaseBudget { .. } => "lease-budget",
        Action::NoteRefusals { .. } => "note-refusals",
        Action::TrimAudit { .. } => "trim-audit",
        Action::CountUnique => "count-unique",
        Action::KeepAside { .. } => "keep-aside",
        Action::NoteAuditSent { .. } => "note-audit-sent",
    }
}

/// How many names [`action_name`] gives.
pub const ACTIONS: usize = 32;

fn profile() -> NodeProfile {
    NodeProfile {
        cluster_address: "10.0.0.2:4001".to_owned(),
        http_address: "https://b.example".to_owned(),
        zone: "hall-2".to_owned(),
        weight: 3,
        version: "1.2.3".to_owned(),
        feature_max: FeatureLevel::CLUSTER,
    }
}

fn authority() -> AuthorityRecord {
    AuthorityRecord { certificate: vec![0x30, 1], key: vec![0x30, 2, 3] }
}

/// What came with clusters.
fn cluster_actions() -> Vec<Action> {
    let (until, level) = (Timestamp(1_700_000_900_000), FeatureLevel::CLUSTER);
    let (token, secret_hash) = (TokenId(0x0102 << 100), [0x5e; 32]);
    let generation = Generation { epoch: Epoch(3), sequence: 77 };
    vec![
        Action::StartNode { node: NodeId(2), start: 1 << 77, profile: profile() },
        Action::FoundCluster { cluster: ClusterId(7 << 64), authority: authority() },
        Action::CreateJoinToken { token, secret_hash, expires_at: until },
        Action::AdmitNode { token, secret_hash, key_hash: [0x6b; 32], profile: profile() },
        Action::SetStanding { node: NodeId(2), standing: Standing::Draining },
        Action::RaiseFeatureLevel { level },
        Action::AddHolder { digest: sha256(8), generation, node: NodeId(3) },
        Action::DropHolder { digest: sha256(8), generation, node: NodeId(3), keep: 2 },
        Action::CommitBlob {
            repository: repository(Format::Oci),
            digest: sha256(0xab),
            size: 5,
            generation,
            node: NodeId(2),
            chunk_root: [0x5c; 32],
            upload: upload(),
            pinned_until: until,
            placement: Placement::Nodes(vec![NodeId(2), NodeId(3)]),
        },
        Action::CommitBlob {
            repository: repository(Format::Oci),
            digest: sha256(0xab),
            size: 5,
            generation,
            node: NodeId(2),
            chunk_root: [0x5c; 32],
            upload: upload(),
            pinned_until: until,
            placement: Placement::Object(upload()),
        },
    ]
}

/// The first eleven are those that releases before clusters wrote.
pub fn commands() -> Vec<(String, Command)> {
    let oci = || repository(Format::Oci);
    let until = Timestamp(1_700_000_900_000);
    let generation = Generation { epoch: Epoch(3), sequence: 77 };
    let mut actions = vec![
        Action::StartNode { node: NodeId(1), start: 0, profile: NodeProfile::default() },
        Action::OpenUpload {
            upload: upload(),
            repository: repository(Format::Npm),
            node: NodeId(2),
            expires_at: until,
            reserve: 0,
        },
        Action::CloseUpload { upload: UploadId(u128::MAX) },
        Action::CommitBlob {
            repository: oci(),
            digest: sha256(0xab),
            size: 1 << 40,
            generation,
            node: NodeId(1),
            chunk_root: [0x5c; 32],
            upload: upload(),
            pinned_until: until,
            placement: Placement::Nodes(vec![NodeId(1)]),
        },
        Action::MountBlob {
            from: repository(Format::Pypi),
            to: repository(Format::Maven),
            digest: sha512(0xcd),
            pin: upload(),
            pinned_until: until,
        },
        Action::PinBlob {
            repository: repository(Format::Cargo),
            digest: sha256(0),
            pin: upload(),
            pinned_until: until,
        },
        Action::UnlinkBlob { repository: oci(), digest: sha256(1) },
        Action::PutArtifact {
            repository: oci(),
            digest: sha256(2),
            media_type: media_type(),
            size: 3,
            body: Body::Inline(b"{}\n".to_vec()),
            subject: Some(sha512(3)),
            artifact_type: Some(MediaType::parse("application/x").unwrap()),
            blobs: vec![sha256(4), sha256(5)],
            children: vec![sha256(6)],
            tags: vec![tag(), TagName::parse("ünïcode").unwrap()],
        },
        Action::PutArtifact {
            repository: oci(),
            digest: sha256(2),
            media_type: media_type(),
            size: 1 << 20,
            body: Body::Blob,
            subject: None,
            artifact_type: None,
            blobs: vec![sha256(2)],
            children: vec![],
            tags: vec![],
        },
        Action::DeleteArtifact { repository: oci(), digest: sha256(7) },
        Action::DeleteTag { repository: oci(), tag: tag() },
    ];
    actions.extend(cluster_actions());
    // What came with feature level 3.
    actions.push(Action::ExpireUploads { uploads: vec![upload(), UploadId(7)] });
    let mut samples = Vec::new();
    for action in actions {
        let name = format!("{:02} {}", samples.len(), action_name(&action));
        let origin = Origin { epoch: Epoch(4), serial: 1 << 33, settled_below: 300 };
        let origin = (samples.len() > 12).then_some(origin);
        let at = Timestamp(1_700_000_000_000);
        samples.push((name, Command { at, origin, terms: Terms::NONE, action }));
    }
    for (terms, action) in identity::actions() {
        let name = format!("{:02} {}", samples.len(), action_name(&action));
        let at = Timestamp(1_700_000_000_000);
        samples.push((name, Command { at, origin: None, terms, action }));
    }
    samples
}

/// The record kind's name; a new kind must get one here, and a sample below.
pub fn record_name(record: &Record) -> &'static str {
    match record {
        Record::Cluster(_) => "cluster",
        Record::Node(_) => "node",
        Record::Usage(_) => "usage",
        Record::Repository(_) => "repository",
        Record::Artifact(_) => "artifact",
        Record::Tag(_) => "tag",
        Record::TagOf => "tag-of",
        Record::Link(_) => "link",
        Record::Referrer(_) => "referrer",
        Record::Blob(_) => "blob",
        Record::Edge => "edge",
        Record::Pin(_) => "pin",
        Record::Upload(_) => "upload",
        Record::Session(_) => "session",
        Record::JoinToken(_) => "join-token",
        Record::Authority(_) => "authority",
        Record::Policy(_) => "policy",
        Record::Tenant(_) => "tenant",
        Record::Account(_) => "account",
        Record::AccessToken(_) => "access-token",
        Record::TokenOf(_) => "token-of",
        Record::SigningKey(_) => "signing-key",
        Record::Assertion(_) => "assertion",
        Record::Budget(_) => "budget",
        Record::AuditHead(_) => "audit-head",
        Record::Audit(_) => "audit",
    }
}

/// How many names [`record_name`] and [`key_name`] give.
pub const KINDS: usize = 26;

pub fn records() -> Vec<(String, Record)> {
    let at = Timestamp(1_700_000_000_000);
    let artifact = ArtifactRecord {
        media_type: media_type(),
        size: 3,
        body: Body::Inline(b"{}\n".to_vec()),
        subject: Some(sha256(1)),
        artifact_type: Some(MediaType::parse("application/x").unwrap()),
        blobs: vec![sha256(2), sha512(3)],
        children: vec![sha256(4)],
        pushed_at: at,
    };
    let blob = BlobRecord {
        generation: Generation { epoch: Epoch(1), sequence: 2 },
        size: 3,
        chunk_root: [4; 32],
        references: 5,
        unreferenced_at: at,
        touched_at: Timestamp(at.0 + 1),
        placement: Placement::Nodes(vec![NodeId(1)]),
    };
    let records = vec![
        Record::Cluster(ClusterRecord { clock: at, epoch: Epoch(9), ..ClusterRecord::default() }),
        Record::Node(NodeRecord {
            epoch: Epoch(8),
            standing: Standing::Active,
            ..NodeRecord::default()
        }),
        Record::Usage(UsageRecord {
            bytes: u64::MAX,
            artifacts: 1,
            tags: 2,
            links: 3,
            ..UsageRecord::default()
        }),
        Record::Repository(RepositoryRecord {
            created_at: at,
            revision: 5,
            artifacts: 6,
            tags: 7,
            links: 8,
        }),
        Record::Artifact(ArtifactRecord {
            body: Body::Blob,
            subject: None,
            artifact_type: None,
            blobs: vec![],
            children: vec![],
            ..artifact.clone()
        }),
        Record::Artifact(artifact),
        Record::Tag(TagRecord { digest: sha256(9), moved_at: at }),
        Record::TagOf,
        Record::Link(LinkRecord { size: 0, linked_at: at }),
        Record::Referrer(ReferrerRecord { artifact_type: None }),
        Record::Referrer(ReferrerRecord { artifact_type: Some(media_type()) }),
        Record::Blob(blob.clone()),
        Record::Edge,
        Record::Pin(PinRecord { expires_at: at }),
        Record::Upload(UploadRecord {
            repository: repository(Format::Oci),
            node: NodeId(1),
            opened_at: at,
            expires_at: Timestamp(u64::MAX),
            reserved_bytes: 0,
        }),
        Record::Cluster(ClusterRecord {
            clock: at,
            epoch: Epoch(9),
            cluster: Some(ClusterId(1)),
            last_node: NodeId(300),
            feature_level: FeatureLevel::CLUSTER,
            ..ClusterRecord::default()
        }),
        Record::Node(NodeRecord {
            epoch: Epoch(8),
            start: u128::MAX,
            standing: Standing::Away,
            profile: profile(),
            key_hash: [0x11; 32],
            changed_at: at,
        }),
        Record::Blob(BlobRecord { placement: Placement::Nodes(vec![]), ..blob.clone() }),
        Record::Blob(BlobRecord { placement: Placement::Object(upload()), ..blob }),
        Record::Session(SessionRecord {
            node: NodeId(2),
            applied_below: 1000,
            applied: vec![1001, 1 << 40],
        }),
        Record::JoinToken(JoinTokenRecord { secret_hash: [0x22; 32], expires_at: at }),
        Record::Authority(authority()),
    ];
    let records = records.into_iter().chain(identity::records());
    let mut samples = Vec::new();
    for record in records {
        samples.push((format!("{:02} {}", samples.len(), record_name(&record)), record));
    }
    samples
}

/// The key kind's name; a new kind must get one here, and a sample below.
pub fn key_name(key: &Key) -> &'static str {
    match key {
        Key::Cluster => "cluster",
        Key::Node(_) => "node",
        Key::Usage(_) => "usage",
        Key::Repository(_) => "repository",
        Key::Artifact(..) => "artifact",
        Key::Tag(..) => "tag",
        Key::TagOf(..) => "tag-of",
        Key::Link(..) => "link",
        Key::Referrer(..) => "referrer",
        Key::Blob(_) => "blob",
        Key::Edge(..) => "edge",
        Key::Pin(..) => "pin",
        Key::Upload(_) => "upload",
        Key::Session(_) => "session",
        Key::JoinToken(_) => "join-token",
        Key::Authority => "authority",
        Key::Policy => "policy",
        Key::Tenant(_) => "tenant",
        Key::Account(_) => "account",
        Key::AccessToken(_) => "access-token",
        Key::TokenOf(..) => "token-of",
        Key::SigningKey(_) => "signing-key",
        Key::Assertion(_) => "assertion",
        Key::Budget(..) => "budget",
        Key::AuditHead => "audit-head",
        Key::Audit(_) => "audit",
    }
}

pub fn keys() -> Vec<(String, Key)> {
    let oci = || repository(Format::Oci);
    let mut keys = vec![
        Key::Cluster,
        Key::Node(NodeId(0x0102)),
        Key::Usage(TenantName::parse("frontend").unwrap()),
    ];
    for format in [Format::Oci, Format::Npm, Format::Pypi, Format::Maven, Format::Cargo] {
        keys.push(Key::Repository(repository(format)));
    }
    keys.extend([
        Key::Artifact(oci(), sha256(1)),
        Key::Artifact(oci(), sha512(1)),
        Key::Tag(oci(), tag()),
        Key::TagOf(oci(), sha256(1), tag()),
        Key::Link(sha256(2), oci()),
        Key::Referrer(oci(), sha256(3), sha256(4)),
        Key::Blob(sha256(5)),
        Key::Edge(sha256(6), oci(), sha256(7)),
        Key::Pin(sha256(8), upload()),
        Key::Upload(upload()),
        Key::Session(Epoch(0x0304)),
        Key::JoinToken(TokenId(0x0506)),
        Key::Authority,
    ]);
    keys.extend(identity::keys());
    let mut samples = Vec::new();
    for key in keys {
        samples.push((format!("{:02} {}", samples.len(), key_name(&key)), key));
    }
    samples
}

fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId::new(term, node), index }
}

pub fn log_ids() -> Vec<(String, LogId)> {
    vec![("first".to_owned(), log_id(0, 0, 0)), ("later".to_owned(), log_id(7, 3, u64::MAX))]
}

pub fn votes() -> Vec<(String, Vote)> {
    vec![
        ("asked".to_owned(), Vote { leader_id: LeaderId::new(1, 2), committed: false }),
        ("granted".to_owned(), Vote { leader_id: LeaderId::new(300, 2), committed: true }),
    ]
}

fn joint() -> Membership {
    let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
    let members: BTreeMap<u64, BasicNode> =
        (1..=5).map(|node| (node, BasicNode::new(format!("10.0.0.{node}:7700")))).collect();
    Membership::new(configs, members).unwrap()
}

fn one() -> Membership {
    let members = BTreeMap::from([(1, BasicNode::new("127.0.0.1:7700"))]);
    Membership::new(vec![BTreeSet::from([1])], members).unwrap()
}

pub fn memberships() -> Vec<(String, StoredMembership)> {
    vec![
        ("none".to_owned(), StoredMembership::default()),
        ("one".to_owned(), StoredMembership::new(Some(log_id(0, 0, 0)), one())),
        ("joint-with-learner".to_owned(), StoredMembership::new(Some(log_id(4, 1, 9)), joint())),
    ]
}

pub fn entries() -> Vec<(String, Entry)> {
    let command = vec![8, 1, 18, 2, 8, 1];
    vec![
        ("blank".to_owned(), Entry { log_id: log_id(1, 1, 1), payload: EntryPayload::Blank }),
        (
            "command".to_owned(),
            Entry {
                log_id: log_id(1, 1, 2),
                payload: EntryPayload::Normal(Proposal(command.into())),
            },
        ),
        (
            "membership".to_owned(),
            Entry { log_id: log_id(2, 1, 3), payload: EntryPayload::Membership(joint()) },
        ),
    ]
}

pub fn manifests() -> Vec<(String, Manifest)> {
    let file = FileSummary { size: 4096, hash: [0xee; 32] };
    vec![(
        "snapshot".to_owned(),
        Manifest {
            last_log_id: Some(log_id(2, 1, 100)),
            membership: StoredMembership::new(Some(log_id(0, 0, 0)), one()),
            files: BTreeMap::from([("000012.sst".to_owned(), file), ("CURRENT".to_owned(), file)]),
        },
    )]
}
