//! A small universe of names in which random commands meet one another, and the strategy that makes them.

use nora_domain::command::{Action, Command, Terms};
use nora_domain::identity::{
    AccessTokenRecord, Actor, Rate, RefusalNote, SigningKeyRecord, TenantRecord,
};
use nora_domain::name::{AccountName, OwnerName, TokenName};
use nora_domain::record::{
    AuthorityRecord, Body, ClusterId, FeatureLevel, Generation, Key, NodeId, NodeProfile,
    Placement, Record, Standing, Timestamp, TokenId, UploadId,
};
use nora_domain::store::{MemoryStore, Store};
use nora_domain::transition::{Applied, apply};
use nora_domain::{Digest, Format, MediaType, RepositoryKey, RepositoryPath, TagName, TenantName};
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// Blobs are the digests under 6, artifacts those from 4 on: two may be both.
const BLOBS: u8 = 6;
const ARTIFACTS_FROM: u8 = 4;
const ARTIFACTS: u8 = 5;
/// Nodes are numbered from 1, which starts itself; others come by joining. There is no node 0.
const NODES: u8 = 4;

/// A digest of the universe; one of them is a SHA-512.
pub fn digest(i: u8) -> Digest {
    if i == 2 { Digest::sha512([i; 64]) } else { Digest::sha256([i; 32]) }
}

/// Three repositories of two tenants: two share a tenant, two a path.
pub fn repository(i: u8) -> RepositoryKey {
    let (tenant, path) =
        [("acme", "app"), ("acme", "app/tools"), ("globex", "app")][usize::from(i % 3)];
    RepositoryKey {
        tenant: TenantName::parse(tenant).unwrap(),
        format: Format::Oci,
        path: RepositoryPath::parse(path).unwrap(),
    }
}

pub fn tag(text: &str) -> TagName {
    TagName::parse(text).unwrap()
}

pub fn media_type(text: &str) -> MediaType {
    MediaType::parse(text).unwrap()
}

pub fn row(store: &MemoryStore, key: &Key) -> Option<Record> {
    let Ok(row) = store.get(key);
    row
}

pub fn run(store: &mut MemoryStore, position: u64, command: &Command) -> Applied {
    let Ok(applied) = apply(store, position, command);
    applied
}

/// What a node of this program tells of itself.
pub fn profile() -> NodeProfile {
    NodeProfile { feature_max: FeatureLevel::NEWEST, ..NodeProfile::default() }
}

/// A start without a name: each one is another.
pub fn start(node: NodeId) -> Action {
    Action::StartNode { node, start: 0, profile: profile() }
}

pub fn found() -> Action {
    let authority = AuthorityRecord { certificate: vec![1], key: vec![2] };
    Action::FoundCluster { cluster: ClusterId(7), authority }
}

/// A command with its choices still open; which names exist by then decides some of them.
#[derive(Clone, Debug)]
pub struct Op {
    /// Milliseconds from the cluster's clock to the proposer's: clocks of proposers differ.
    tick: i64,
    repository: u8,
    kind: Kind,
    terms: TermsOp,
}

/// Terms with their choices still open: a command of somebody in three, judged under the policy in force but for one in
/// sixteen.
#[derive(Clone, Debug)]
struct TermsOp {
    by: u8,
    outdated: bool,
    create_only: u8,
    immutable: u8,
    revision: Option<u8>,
}

#[derive(Clone, Debug)]
enum Kind {
    Policy { expected: Option<u8>, storage: u64, artifacts: u64, limit: u64 },
    Account { account: u8, is_robot: bool },
    Password { account: u8 },
    RemoveAccount { account: u8 },
    AccessToken { token: u8, account: u8, assertion: Option<u8>, lives: u64 },
    Revoke { token: u8 },
    Touch { tokens: u8 },
    SigningKey { newest: bool, lives: u64 },
    Lease { hour: u64, take: u64, give_back: u64 },
    Refused { count: u32 },
    Trim { before: i64 },
    Count,
    Sent { number: u8 },
    Keep { upload: u8, bytes: u64, lease: i64 },
    Start { node: u8, name: u8 },
    Found,
    Token { token: u8, for_millis: u64 },
    Admit { token: u8, key: u8 },
    Stand { node: u8, standing: Standing },
    Raise { level: u32 },
    Hold { blob: u8, node: u8, stale: bool },
    Release { blob: u8, node: u8, stale: bool, keep: u32 },
    Open { upload: u8, node: u8, for_millis: u64, reserve: u64 },
    Close { upload: u8 },
    Expire { uploads: u8 },
    Commit { blob: u8, node: u8, upload: u8, stale: bool, corrupt: bool, for_millis: u64, held: u8 },
    Mount { to: u8, blob: u8, pin: u8, for_millis: u64 },
    Pin { blob: u8, pin: u8, for_millis: u64 },
    Unlink { blob: u8 },
    Put(PutOp),
    DeleteArtifact { artifact: u8 },
    DeleteTag { tag: u8 },
}

#[derive(Clone, Debug)]
struct PutOp {
    artifact: u8,
    blobs: u8,
    children: u8,
    subject: Option<u8>,
    tags: u8,
    has_blob_body: bool,
    /// Names only what is there, so that the artifact can be stored.
    only_present: bool,
    corrupt: bool,
}

fn rarely() -> impl Strategy<Value = bool> {
    (0..16u8).prop_map(|n| n == 0)
}

fn put() -> impl Strategy<Value = Kind> {
    let lists = (any::<u8>(), any::<u8>(), proptest::option::of(0..9u8), any::<u8>());
    (0..ARTIFACTS, lists, rarely(), (0..4u8), rarely()).prop_map(
        |(artifact, (blobs, children, subject, tags), has_blob_body, hope, corrupt)| {
            Kind::Put(PutOp {
                artifact: artifact + ARTIFACTS_FROM,
                blobs,
                children,
                subject,
                tags,
                has_blob_body: has_blob_body || (artifact < 2 && hope == 1),
                only_present: hope != 0,
                corrupt,
            })
        },
    )
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        4 => Just(Standing::Active),
        2 => Just(Standing::Away),
        2 => Just(Standing::Draining),
        1 => Just(Standing::Joining),
        1 => Just(Standing::Removed),
    ]
}

/// One random command.
fn op() -> impl Strategy<Value = Op> {
    let blob = 0..BLOBS;
    let millis = 0..400u64;
    let kind = prop_oneof![
        1 => (0..=NODES, 0..4u8).prop_map(|(node, name)| Kind::Start { node, name }),
        1 => Just(Kind::Found),
        1 => (0..2u8, 0..4_000u64)
            .prop_map(|(token, for_millis)| Kind::Token { token, for_millis }),
        2 => (0..2u8, 0..3u8).prop_map(|(token, key)| Kind::Admit { token, key }),
        1 => (1..=NODES, standing()).prop_map(|(node, standing)| Kind::Stand { node, standing }),
        1 => (0..6u32).prop_map(|level| Kind::Raise { level }),
        1 => (proptest::option::of(0..4u8), 0..900u64, 0..6u64, 0..9u64).prop_map(
            |(expected, storage, artifacts, limit)| Kind::Policy { expected, storage, artifacts, limit }
        ),
        2 => (0..3u8, any::<bool>())
            .prop_map(|(account, is_robot)| Kind::Account { account, is_robot }),
        1 => (0..3u8).prop_map(|account| Kind::Password { account }),
        1 => (0..3u8).prop_map(|account| Kind::RemoveAccount { account }),
        3 => (0..6u8, 0..3u8, proptest::option::of(0..6u8), 0..2_000u64).prop_map(
            |(token, account, assertion, lives)| Kind::AccessToken { token, account, assertion, lives }
        ),
        1 => (0..6u8).prop_map(|token| Kind::Revoke { token }),
        1 => any::<u8>().prop_map(|tokens| Kind::Touch { tokens }),
        1 => (any::<bool>(), 0..2_000u64)
            .prop_map(|(newest, lives)| Kind::SigningKey { newest, lives }),
        2 => (0..3u64, 0..7u64, 0..3u64)
            .prop_map(|(hour, take, give_back)| Kind::Lease { hour, take, give_back }),
        1 => (1..9u32).prop_map(|count| Kind::Refused { count }),
        1 => (-3_000..100i64).prop_map(|before| Kind::Trim { before }),
        1 => Just(Kind::Count),
        1 => any::<u8>().prop_map(|number| Kind::Sent { number }),
        2 => (0..4u8, 0..60u64, -100..100i64).prop_map(|(upload, bytes, lease)| Kind::Keep { upload, bytes, lease }),
        3 => (blob.clone(), 1..=NODES, rarely())
            .prop_map(|(blob, node, stale)| Kind::Hold { blob, node, stale }),
        3 => (blob.clone(), 1..=NODES, rarely(), 0..3u32)
            .prop_map(|(blob, node, stale, keep)| Kind::Release { blob, node, stale, keep }),
        3 => (0..4u8, 1..3u8, millis.clone(), 0..300u64).prop_map(
            |(upload, node, for_millis, reserve)| Kind::Open {
                upload, node, for_millis, reserve: reserve.saturating_sub(150),
            }
        ),
        1 => (0..4u8).prop_map(|upload| Kind::Close { upload }),
        1 => any::<u8>().prop_map(|uploads| Kind::Expire { uploads }),
        8 => (blob.clone(), 1..3u8, 0..8u8, rarely(), rarely(), millis.clone(), any::<u8>()).prop_map(
            |(blob, node, upload, stale, corrupt, for_millis, held)| Kind::Commit {
                blob, node, upload, stale, corrupt, for_millis, held,
            }
        ),
        3 => (0..3u8, blob.clone(), 0..8u8, millis.clone())
            .prop_map(|(to, blob, pin, for_millis)| Kind::Mount { to, blob, pin, for_millis }),
        2 => (blob.clone(), 0..8u8, millis)
            .prop_map(|(blob, pin, for_millis)| Kind::Pin { blob, pin, for_millis }),
        6 => blob.prop_map(|blob| Kind::Unlink { blob }),
        10 => put(),
        5 => (0..ARTIFACTS)
            .prop_map(|artifact| Kind::DeleteArtifact { artifact: artifact + ARTIFACTS_FROM }),
        2 => (0..4u8).prop_map(|tag| Kind::DeleteTag { tag }),
    ];
    let terms = (0..6u8, rarely(), any::<u8>(), any::<u8>(), proptest::option::of(any::<u8>()))
        .prop_map(|(by, outdated, create_only, immutable, revision)| TermsOp {
            by,
            outdated,
            create_only,
            immutable: immutable & create_only,
            revision,
        });
    (-50..150i64, 0..3u8, kind, terms).prop_map(|(tick, repository, kind, terms)| Op {
        tick,
        repository,
        kind,
        terms,
    })
}

/// A random sequence of commands to a node that has started; mostly to two in a founded cluster, and mostly to one that
/// knows of policies.
pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    (0..4u8, proptest::collection::vec(op(), 1..150)).prop_map(|(begun, ops)| {
        let mut given = vec![Kind::Start { node: 1, name: 0 }];
        if begun > 0 {
            given.extend([
                Kind::Found,
                Kind::Token { token: 0, for_millis: 4_000 },
                Kind::Admit { token: 0, key: 0 },
                Kind::Start { node: 2, name: 0 },
            ]);
        }
        if begun > 1 {
            given.push(Kind::Raise { level: FeatureLevel::IDENTITY.0 });
        }
        let terms =
            TermsOp { by: 0, outdated: false, create_only: 0, immutable: 0, revision: None };
        let given =
            given.into_iter().map(|kind| Op { tick: 1, repository: 0, kind, terms: terms.clone() });
        given.chain(ops).collect()
    })
}

/// Who acts; nobody in particular at first.
fn actor(i: u8) -> Actor {
    let subject = format!("user:{i}");
    Actor { subject, address: "192.0.2.1".into(), request: "r".into() }
}

pub fn account_name(i: u8) -> AccountName {
    AccountName::parse(&format!("a{i}")).unwrap()
}

/// A token of an account, or one that an issuer's is exchanged for.
fn access_token(
    at: Timestamp,
    token: u8,
    account: u8,
    assertion: Option<u8>,
    lives: u64,
) -> Action {
    let name = format!("t{}", token % 4);
    let owner = match assertion {
        Some(_) => "oidc:ci".to_owned(),
        None => format!("user:{}", account_name(account)),
    };
    let found_by = (OwnerName::parse(&owner).unwrap(), TokenName::parse(&name).unwrap());
    Action::CreateAccessToken {
        token: TokenId(u128::from(token)),
        found_by: assertion.is_none().then_some(found_by),
        account: assertion.is_none().then(|| account_name(account)),
        record: AccessTokenRecord {
            is_workload: assertion.is_some(),
            owner,
            name,
            secret_hash: [token; 32],
            permissions: vec!["pull:*".into()],
            created_at: at,
            expires_at: at.plus_millis(lives),
            last_used_at: Timestamp(0),
        },
        assertion: assertion.map(|i| ([i; 32], at.plus_millis(lives))),
    }
}

impl TermsOp {
    fn terms(&self, store: &MemoryStore, of: u8) -> Terms {
        let revision = match row(store, &Key::Repository(repository(of))) {
            Some(Record::Repository(known)) => known.revision,
            _ => 0,
        };
        let epoch = match row(store, &Key::Cluster) {
            Some(Record::Cluster(cluster)) => cluster.policy_epoch,
            _ => 0,
        };
        let tags = |mask: u8| members(mask, 0, 4).map(|i| tag(&format!("v{i}"))).collect();
        let is_judged = self.by % 2 == 1;
        Terms {
            by: (self.by < 2).then(|| actor(self.by)),
            policy: is_judged.then_some(epoch + u64::from(self.outdated)),
            create_only: if is_judged { tags(self.create_only) } else { Vec::new() },
            immutable: if is_judged { tags(self.immutable) } else { Vec::new() },
            revision: self.revision.filter(|_| is_judged).map(|i| revision + u64::from(i % 4 == 0)),
        }
    }
}

/// A blob's live generation, or one that is not.
fn live(store: &MemoryStore, blob: u8, stale: bool) -> Generation {
    match row(store, &Key::Blob(digest(blob))) {
        Some(Record::Blob(blob)) if !stale => blob.generation,
        _ => Generation::default(),
    }
}

fn members(mask: u8, from: u8, count: u8) -> impl Iterator<Item = u8> {
    (0..count).filter(move |i| mask >> i & 1 == 1).map(move |i| i + from)
}

impl Op {
    /// The command as its proposer would have made it, seeing this state. `serial` is never used twice.
    pub fn command(&self, store: &MemoryStore, serial: u64) -> Command {
        let clock = match row(store, &Key::Cluster) {
            Some(Record::Cluster(cluster)) => cluster.clock,
            _ => Timestamp(1_000),
        };
        let at = Timestamp(clock.0.saturating_add_signed(self.tick));
        let terms = self.terms.terms(store, self.repository);
        Command { at, origin: None, terms, action: self.action(store, at, serial) }
    }

    fn action(&self, store: &MemoryStore, at: Timestamp, serial: u64) -> Action {
        let here = repository(self.repository);
        let upload = |i: u8| UploadId(u128::from(i));
        match self.kind {
            Kind::Start { node, name } => Action::StartNode {
                node: NodeId(u64::from(node)),
                start: u128::from(name),
                profile: profile(),
            },
            Kind::Found => found(),
            Kind::Token { token, for_millis } => Action::CreateJoinToken {
                token: TokenId(u128::from(token)),
                secret_hash: [token; 32],
                expires_at: at.plus_millis(for_millis),
            },
            Kind::Admit { token, key } => Action::AdmitNode {
                token: TokenId(u128::from(token)),
                secret_hash: [token; 32],
                key_hash: [key; 32],
                profile: profile(),
            },
            Kind::Stand { node, standing } => {
                Action::SetStanding { node: NodeId(u64::from(node)), standing }
            }
            Kind::Raise { level } => Action::RaiseFeatureLevel { level: FeatureLevel(level) },
            Kind::Hold { blob, node, stale } => Action::AddHolder {
                digest: digest(blob),
                generation: live(store, blob, stale),
                node: NodeId(u64::from(node)),
            },
            Kind::Release { blob, node, stale, keep } => Action::DropHolder {
                digest: digest(blob),
                generation: live(store, blob, stale),
                node: NodeId(u64::from(node)),
                keep,
            },
            Kind::Policy { expected, storage, artifacts, limit } => Action::SetPolicy {
                expected: expected.map(u64::from),
                document: vec![1],
                hash: [2; 32],
                tenants: vec![(
                    here.tenant,
                    TenantRecord {
                        storage_quota: Some(storage),
                        artifact_quota: Some(artifacts),
                        push_limit: Some(limit),
                        pull_limit: None,
                    },
                )],
            },
            Kind::Account { account, is_robot } => Action::CreateAccount {
                account: account_name(account),
                is_robot,
                password_hash: "hash".into(),
                groups: vec!["devs".into()],
            },
            Kind::Password { account } => Action::SetPassword {
                account: account_name(account),
                password_hash: "another".into(),
            },
            Kind::RemoveAccount { account } => {
                Action::RemoveAccount { account: account_name(account) }
            }
            Kind::AccessToken { token, account, assertion, lives } => {
                access_token(at, token, account, assertion, lives)
            }
            Kind::Revoke { token } => {
                Action::RevokeAccessToken { token: TokenId(u128::from(token)) }
            }
            Kind::Touch { tokens } => Action::TouchAccessTokens {
                uses: members(tokens, 0, 6).map(|i| (TokenId(u128::from(i)), at)).collect(),
            },
            Kind::SigningKey { newest, lives } => Action::AddSigningKey {
                after: store
                    .rows()
                    .filter_map(|(key, _)| match key {
                        Key::SigningKey(number) => Some(*number),
                        _ => None,
                    })
                    .last()
                    .filter(|_| newest),
                key: SigningKeyRecord {
                    secret: [7; 32],
                    created_at: at,
                    expires_at: at.plus_millis(lives),
                },
            },
            Kind::Lease { hour, take, give_back } => {
                Action::LeaseBudget { tenant: here.tenant, rate: Rate::Push, hour, take, give_back }
            }
            Kind::Refused { count } => Action::NoteRefusals {
                refusals: vec![RefusalNote {
                    actor: actor(1),
                    action: "artifact.push".into(),
                    resource: "oci:app".into(),
                    result: "refused: not permitted".into(),
                    count,
                }],
            },
            Kind::Trim { before } => {
                Action::TrimAudit { before: Timestamp(at.0.saturating_add_signed(before)) }
            }
            Kind::Count => Action::CountUnique,
            Kind::Sent { number } => Action::NoteAuditSent { number: u64::from(number) },
            Kind::Keep { upload: id, bytes, lease } => Action::KeepAside {
                upload: upload(id),
                bytes,
                lease: Timestamp(at.0.saturating_add_signed(lease)),
            },
            Kind::Open { upload: id, node, for_millis, reserve } => Action::OpenUpload {
                reserve,
                upload: upload(id),
                repository: here,
                node: NodeId(u64::from(node)),
                expires_at: at.plus_millis(for_millis),
            },
            Kind::Close { upload: id } => Action::CloseUpload { upload: upload(id) },
            Kind::Expire { uploads } => {
                Action::ExpireUploads { uploads: members(uploads, 0, 4).map(upload).collect() }
            }
            Kind::Commit { blob, node, upload: id, stale, corrupt, for_millis, held } => {
                let node = NodeId(u64::from(node));
                let mut epoch = match row(store, &Key::Node(node)) {
                    Some(Record::Node(node)) => node.epoch,
                    _ => Default::default(),
                };
                epoch.0 -= u64::from(stale).min(epoch.0);
                Action::CommitBlob {
                    repository: here,
                    digest: digest(blob),
                    size: 100 + u64::from(blob) + u64::from(corrupt),
                    generation: Generation { epoch, sequence: serial },
                    node,
                    chunk_root: [blob; 32],
                    upload: upload(id),
                    pinned_until: at.plus_millis(for_millis),
                    // One commit in sixteen is to a bucket.
                    placement: match held {
                        0..16 => Placement::Object(upload(id)),
                        _ => Placement::Nodes(
                            members(held, 1, NODES).map(|i| NodeId(u64::from(i))).collect(),
                        ),
                    },
                }
            }
            Kind::Mount { to, blob, pin, for_millis } => Action::MountBlob {
                from: here,
                to: repository(to),
                digest: digest(blob),
                pin: upload(pin),
                pinned_until: at.plus_millis(for_millis),
            },
            Kind::Pin { blob, pin, for_millis } => Action::PinBlob {
                repository: here,
                digest: digest(blob),
                pin: upload(pin),
                pinned_until: at.plus_millis(for_millis),
            },
            Kind::Unlink { blob } => Action::UnlinkBlob { repository: here, digest: digest(blob) },
            Kind::Put(ref put) => put.action(store, here),
            Kind::DeleteArtifact { artifact } => {
                Action::DeleteArtifact { repository: here, digest: digest(artifact) }
            }
            Kind::DeleteTag { tag: i } => {
                Action::DeleteTag { repository: here, tag: tag(&format!("v{i}")) }
            }
        }
    }
}

impl PutOp {
    fn action(&self, store: &MemoryStore, here: RepositoryKey) -> Action {
        let keep = |key: Key| !self.only_present || row(store, &key).is_some();
        let mut blobs: Vec<_> = members(self.blobs, 0, BLOBS)
            .map(digest)
            .filter(|blob| keep(Key::Link(*blob, here.clone())))
            .collect();
        let mut children: Vec<_> = members(self.children, ARTIFACTS_FROM, ARTIFACTS)
            .map(digest)
            .filter(|child| keep(Key::Artifact(here.clone(), *child)))
            .collect();
        blobs.sort_unstable();
        children.sort_unstable();
        let (body, size) = if self.has_blob_body {
            (Body::Blob, 100 + u64::from(self.artifact))
        } else {
            (Body::Inline(vec![self.artifact; 7]), 7)
        };
        Action::PutArtifact {
            repository: here,
            digest: digest(self.artifact),
            media_type: media_type(&format!("type/{}", self.tags % 3)),
            size: size + u64::from(self.corrupt),
            body,
            subject: self.subject.map(digest),
            artifact_type: (self.blobs > 99).then(|| media_type("type/of-artifact")),
            blobs,
            children,
            tags: members(self.tags, 0, 4).map(|i| tag(&format!("v{i}"))).collect(),
        }
    }
}
