//! A small universe of names in which random commands meet one another, and the strategy that makes them.

use bytes::Bytes;
use nora_domain::{
    About, AccessTokenRecord, AccountName, Action, Actor, AddHolder, AddSigningKey, AdmitNode,
    AdvanceCursor, Applied, AuthorityKeys, BeginRotation, Body, CloseUpload, ClusterId, Command,
    CommitBlob, ConfirmRotation, ConsumerName, CreateAccessToken, CreateAccount, CreateJoinToken,
    CreateRefreshToken, Deed, DeleteArtifact, DeleteFile, DeleteTag, DeleteVersion, Digest,
    DropHolder, DropSegments, Expected, ExpireUploads, Facts, FeatureLevel, FileName, Format,
    FoundCluster, Generation, HashKind, Item, Key, LeaseBudget, LimitsRecord, LoseObject,
    MediaType, MemoryStore, MountBlob, NewFile, NodeId, NodeProfile, NotePulls, NoteRefusals,
    OpenUpload, OwnerName, PinBlob, Placement, PutArtifact, PutVersion, RaiseFeatureLevel, Rate,
    Reason, Record, RefusalNote, RemoveAccount, RemoveCursor, RepositoryKey, RepositoryPath,
    RevokeAccessToken, RevokeJoinToken, RevokeRefreshTokens, RotationStage, Rows, SealJournal,
    SetPassword, SetPolicy, SetReplicas, SetStanding, SetTag, SetVersionState, SharedSecret,
    ShrinkReservation, SigningKeyRecord, Standing, StartNode, Storage, StorageMode, Store, Subject,
    TagName, Target, TenantName, Terms, Timestamp, TokenId, TokenName, TouchAccessTokens,
    UnlinkBlob, UploadId, Verb, Verdict, VersionName, VersionState, apply, system_repository,
};
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// Blobs are the digests under 6, artifacts those from 4 on: two may be both.
const BLOBS: u8 = 6;
const ARTIFACTS_FROM: u8 = 4;
const ARTIFACTS: u8 = 5;
/// Nodes are numbered from 1, which starts itself; others come by joining. There is no node 0.
const NODES: u8 = 4;
const VERSIONS: u8 = 3;
const FILES: u8 = 4;
/// The repository that holds sealed parts of the journal.
const SYSTEM: u8 = 3;

/// A digest of the universe; one of them is a SHA-512.
pub fn digest(i: u8) -> Digest {
    if i == 2 { Digest::sha512([i; 64]) } else { Digest::sha256([i; 32]) }
}

/// Three repositories of two tenants: two share a tenant, two a path. The fourth is the cluster's own.
pub fn repository(i: u8) -> RepositoryKey {
    if i == SYSTEM {
        return system_repository();
    }
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

pub fn version(text: &str) -> VersionName {
    VersionName::parse(text).unwrap()
}

pub fn file(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

pub fn consumer(text: &str) -> ConsumerName {
    ConsumerName::parse(text).unwrap()
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
    Action::StartNode(StartNode { node, start: 0, replaces: 0, profile: profile() })
}

pub fn found() -> Action {
    let authority = AuthorityKeys { certificate: vec![1], key: vec![2] };
    let secret = SharedSecret([1; 32]);
    let storage = Storage { mode: StorageMode::Local, replicas: 1 };
    Action::FoundCluster(FoundCluster { cluster: ClusterId(7), authority, secret, storage })
}

/// A rotation to that authority.
pub fn rotation(authority: u8) -> BeginRotation {
    BeginRotation {
        keys: AuthorityKeys { certificate: vec![authority], key: vec![authority, 2] },
        secret: SharedSecret([authority; 32]),
        session_key: SharedSecret([authority + 100; 32]),
    }
}

/// A node confirms what the rotation under way asks of it, or, if it is late, an earlier one.
pub fn confirmation(store: &MemoryStore, node: u8, is_late: bool) -> Action {
    let rotation = match row(store, &Key::Authority) {
        Some(Record::Authority(authority)) => authority.rotation.filter(|_| !is_late),
        _ => None,
    };
    let (stage, certificate) = match rotation {
        Some(rotation) => (rotation.stage, rotation.keys.certificate),
        None => (RotationStage::Trust, vec![9]),
    };
    let node = NodeId(node.into());
    Action::ConfirmRotation(ConfirmRotation { stage, certificate, node })
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
    RefreshToken { token: u8, account: u8, stale: bool, lives: u64 },
    EndRefreshTokens { account: u8, token: Option<u8> },
    Touch { tokens: u8 },
    SigningKey { newest: bool, lives: u64 },
    Lease { hour: u64, take: u64, give_back: u64 },
    Refused { count: u32 },
    Replicas { replicas: u32 },
    Advance { consumer: u8, number: u64 },
    RemoveCursor { consumer: u8 },
    Seal { entries: u64, blob: u8, moved: bool, corrupt: bool },
    DropSegments { older_than_millis: u64 },
    LoseObject { blob: u8, stale: bool },
    SetTag { tag: u8, artifact: Option<u8>, version: u8 },
    Pulls { artifacts: u8, tags: u8, versions: u8, files: u8 },
    PutVersion(VersionOp),
    VersionState { version: u8, state: VersionState },
    DeleteVersion { version: u8, tombstone: bool },
    DeleteFile { file: u8, gone: bool },
    Keep { upload: u8, bytes: u64, lease: i64 },
    Start { node: u8, name: u8 },
    Found,
    Token { token: u8, for_millis: u64 },
    Admit { token: u8, key: u8 },
    EndToken { token: u8 },
    Rotate { authority: u8 },
    Confirm { node: u8, is_late: bool },
    Stand { node: u8, standing: Standing },
    Raise { level: u32 },
    Hold { blob: u8, node: u8, stale: bool },
    Release { blob: u8, node: u8, stale: bool, keep: u32 },
    Open { upload: u8, node: u8, for_millis: u64, reserve: u64 },
    Close { upload: u8 },
    Expire { uploads: u8 },
    Commit { blob: u8, node: u8, upload: u8, stale: bool, corrupt: bool, for_millis: u64, held: u8 },
    Mount { to: u8, blob: u8, for_millis: u64 },
    Pin { blob: u8, for_millis: u64 },
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

#[derive(Clone, Debug)]
struct VersionOp {
    version: u8,
    expected: u8,
    /// Length of inline facts, or a blob with them.
    facts: Option<u8>,
    files: u8,
    /// Which blob each file is.
    blobs: u8,
    tags: u8,
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

fn put_version() -> impl Strategy<Value = Kind> {
    let lists = (any::<u8>(), any::<u8>(), any::<u8>());
    (0..VERSIONS, any::<u8>(), proptest::option::of(0..12u8), lists, rarely(), rarely()).prop_map(
        |(version, expected, facts, (files, blobs, tags), hope, corrupt)| {
            Kind::PutVersion(VersionOp {
                version,
                expected,
                facts,
                files,
                blobs,
                tags: tags >> 2,
                only_present: !hope,
                corrupt,
            })
        },
    )
}

fn version_state() -> impl Strategy<Value = VersionState> {
    prop_oneof![
        2 => Just(VersionState::Live),
        2 => Just(VersionState::Yanked(None)),
        2 => Just(VersionState::Yanked(Some("broken".into()))),
        2 => Just(VersionState::Deprecated("use another".into())),
        1 => Just(VersionState::Tombstone),
    ]
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
        1 => (0..2u8).prop_map(|token| Kind::EndToken { token }),
        1 => (2..5u8).prop_map(|authority| Kind::Rotate { authority }),
        3 => (1..=NODES, (0..8u8))
            .prop_map(|(node, late)| Kind::Confirm { node, is_late: late == 0 }),
        2 => (1..=NODES, standing()).prop_map(|(node, standing)| Kind::Stand { node, standing }),
        1 => (0..6u32).prop_map(|level| Kind::Raise { level }),
        1 => (proptest::option::of(0..4u8), 0..1_500u64, 0..9u64, 0..9u64).prop_map(
            |(expected, storage, artifacts, limit)| Kind::Policy { expected, storage, artifacts, limit }
        ),
        3 => (0..3u8, any::<bool>())
            .prop_map(|(account, is_robot)| Kind::Account { account, is_robot }),
        1 => (0..3u8).prop_map(|account| Kind::Password { account }),
        1 => (0..3u8).prop_map(|account| Kind::RemoveAccount { account }),
        6 => (0..6u8, 0..3u8, proptest::option::of(0..6u8), 0..2_000u64).prop_map(
            |(token, account, assertion, lives)| Kind::AccessToken { token, account, assertion, lives }
        ),
        3 => (0..6u8).prop_map(|token| Kind::Revoke { token }),
        3 => (0..6u8, 0..3u8, rarely(), 0..2_000u64).prop_map(
            |(token, account, stale, lives)| Kind::RefreshToken { token, account, stale, lives }
        ),
        1 => (0..3u8, proptest::option::of(0..6u8))
            .prop_map(|(account, token)| Kind::EndRefreshTokens { account, token }),
        1 => any::<u8>().prop_map(|tokens| Kind::Touch { tokens }),
        1 => (any::<bool>(), 0..2_000u64)
            .prop_map(|(newest, lives)| Kind::SigningKey { newest, lives }),
        2 => (0..3u64, 0..7u64, 0..3u64)
            .prop_map(|(hour, take, give_back)| Kind::Lease { hour, take, give_back }),
        1 => (1..9u32).prop_map(|count| Kind::Refused { count }),
        1 => (0..4u32).prop_map(|replicas| Kind::Replicas { replicas }),
        2 => (0..3u8, 0..40u64)
            .prop_map(|(consumer, number)| Kind::Advance { consumer, number }),
        1 => (0..3u8).prop_map(|consumer| Kind::RemoveCursor { consumer }),
        3 => (1..6u64, any::<u8>(), rarely(), rarely()).prop_map(
            |(entries, blob, moved, corrupt)| Kind::Seal { entries, blob, moved, corrupt }
        ),
        3 => (0..1_500u64)
            .prop_map(|older_than_millis| Kind::DropSegments { older_than_millis }),
        2 => (blob.clone(), rarely()).prop_map(|(blob, stale)| Kind::LoseObject { blob, stale }),
        3 => (0..4u8, proptest::option::of(0..ARTIFACTS), 0..VERSIONS)
            .prop_map(|(tag, artifact, version)| Kind::SetTag { tag, artifact, version }),
        3 => (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(
            |(artifacts, tags, versions, files)| Kind::Pulls { artifacts, tags, versions, files }
        ),
        22 => put_version(),
        4 => (0..VERSIONS, version_state())
            .prop_map(|(version, state)| Kind::VersionState { version, state }),
        3 => (0..VERSIONS, rarely())
            .prop_map(|(version, tombstone)| Kind::DeleteVersion { version, tombstone }),
        5 => (any::<u8>(), rarely()).prop_map(|(file, gone)| Kind::DeleteFile { file, gone }),
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
        18 => (blob.clone(), 1..3u8, 0..8u8, rarely(), rarely(), millis.clone(), any::<u8>()).prop_map(
            |(blob, node, upload, stale, corrupt, for_millis, held)| Kind::Commit {
                blob, node, upload, stale, corrupt, for_millis, held,
            }
        ),
        4 => (0..=SYSTEM, blob.clone(), millis.clone())
            .prop_map(|(to, blob, for_millis)| Kind::Mount { to, blob, for_millis }),
        2 => (blob.clone(), millis).prop_map(|(blob, for_millis)| Kind::Pin { blob, for_millis }),
        6 => blob.prop_map(|blob| Kind::Unlink { blob }),
        22 => put(),
        9 => (0..ARTIFACTS)
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
    let repository = prop_oneof![6 => Just(0), 3 => 1..SYSTEM, 1 => Just(SYSTEM)];
    (-50..150i64, repository, kind, terms).prop_map(|(tick, repository, kind, terms)| Op {
        tick,
        repository,
        kind,
        terms,
    })
}

/// A random sequence of commands to a node that has started; mostly to two in a founded cluster.
pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    (0..4u8, proptest::collection::vec(op(), 1..160)).prop_map(|(begun, ops)| {
        let mut given = vec![Kind::Start { node: 1, name: 0 }];
        if begun > 0 {
            given.extend([
                Kind::Found,
                Kind::Token { token: 0, for_millis: 4_000 },
                Kind::Admit { token: 0, key: 0 },
                Kind::Start { node: 2, name: 0 },
            ]);
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
    let subject = Subject::User(i.to_string().into());
    Actor { address: "192.0.2.1".into(), request: "r".into(), ..Actor::named(subject) }
}

pub fn account_name(i: u8) -> AccountName {
    AccountName::parse(&format!("a{i}")).unwrap()
}

/// The owner of a user's tokens.
pub fn owner(i: u8) -> OwnerName {
    OwnerName::parse(&format!("user:{}", account_name(i))).unwrap()
}

/// A refresh token of the login that an account has now, or of an earlier one.
fn refresh_token(store: &MemoryStore, token: u8, account: u8, stale: bool, lives: u64) -> Action {
    let generation = match row(store, &Key::Account(account_name(account))) {
        Some(Record::Account(known)) => known.generation,
        _ => 0,
    };
    Action::CreateRefreshToken(CreateRefreshToken {
        token: TokenId(u128::from(token)),
        owner: owner(account),
        generation: generation.wrapping_sub(u64::from(stale)),
        lives_millis: lives,
        address: "192.0.2.1".into(),
    })
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
    Action::CreateAccessToken(CreateAccessToken {
        token: TokenId(u128::from(token)),
        found_by: assertion.is_none().then_some(found_by),
        account: assertion.is_none().then(|| account_name(account)),
        record: AccessTokenRecord {
            is_workload: assertion.is_some(),
            owner,
            name,
            secret_hash: [token; 32],
            permissions: vec!["pull:*".into()],
            claims: Vec::new(),
            created_at: at,
            expires_at: at.plus_millis(lives),
            last_used_at: Timestamp(0),
        },
        assertion: assertion.map(|i| ([i; 32], at.plus_millis(lives))),
    })
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
        let clock = store.head().clock.max(Timestamp(1_000));
        let at = Timestamp(clock.0.saturating_add_signed(self.tick));
        let terms = self.terms.terms(store, self.repository);
        Command { at, origin: None, terms, action: self.action(store, at, serial) }
    }

    fn action(&self, store: &MemoryStore, at: Timestamp, serial: u64) -> Action {
        let here = repository(self.repository);
        let upload = |i: u8| UploadId(u128::from(i));
        match self.kind {
            Kind::Start { node, name } => {
                let node = NodeId(u64::from(node));
                // Most know which start they replace.
                let replaces = match row(store, &Key::Node(node)) {
                    Some(Record::Node(record)) if name % 8 != 7 => record.start,
                    _ => 0,
                };
                let start = u128::from(name);
                Action::StartNode(StartNode { node, start, replaces, profile: profile() })
            }
            Kind::Found => found(),
            Kind::Token { token, for_millis } => Action::CreateJoinToken(CreateJoinToken {
                token: TokenId(u128::from(token)),
                secret_hash: [token; 32],
                lives_millis: for_millis,
                uses: u32::from(token) * 2 + 2,
            }),
            Kind::EndToken { token } => {
                Action::RevokeJoinToken(RevokeJoinToken { token: TokenId(u128::from(token)) })
            }
            Kind::Rotate { authority } => Action::BeginRotation(rotation(authority)),
            Kind::Confirm { node, is_late } => confirmation(store, node, is_late),
            Kind::Admit { token, key } => Action::AdmitNode(AdmitNode {
                token: TokenId(u128::from(token)),
                secret_hash: [token; 32],
                key_hash: [key; 32],
                profile: profile(),
            }),
            Kind::Stand { node, standing } => {
                Action::SetStanding(SetStanding { node: NodeId(u64::from(node)), standing })
            }
            Kind::Raise { level } => {
                Action::RaiseFeatureLevel(RaiseFeatureLevel { level: FeatureLevel(level) })
            }
            Kind::Hold { blob, node, stale } => Action::AddHolder(AddHolder {
                digest: digest(blob),
                generation: live(store, blob, stale),
                node: NodeId(u64::from(node)),
            }),
            Kind::Release { blob, node, stale, keep } => Action::DropHolder(DropHolder {
                digest: digest(blob),
                generation: live(store, blob, stale),
                node: NodeId(u64::from(node)),
                keep,
            }),
            Kind::Policy { expected, storage, artifacts, limit } => Action::SetPolicy(SetPolicy {
                expected: expected.map(u64::from),
                document: vec![1],
                hash: [2; 32],
                tenants: vec![(
                    here.tenant,
                    LimitsRecord {
                        storage_quota: Some(storage),
                        artifact_quota: Some(artifacts),
                        push_limit: Some(limit),
                        pull_limit: None,
                        anonymous_pull_limit: None,
                        caller_pull_limit: None,
                    },
                )],
            }),
            Kind::Account { account, is_robot } => Action::CreateAccount(CreateAccount {
                account: account_name(account),
                is_robot,
                password_hash: "hash".into(),
                groups: vec!["devs".into()],
            }),
            Kind::Password { account } => Action::SetPassword(SetPassword {
                account: account_name(account),
                password_hash: "another".into(),
            }),
            Kind::RemoveAccount { account } => {
                Action::RemoveAccount(RemoveAccount { account: account_name(account) })
            }
            Kind::AccessToken { token, account, assertion, lives } => {
                access_token(at, token, account, assertion, lives)
            }
            Kind::Revoke { token } => {
                Action::RevokeAccessToken(RevokeAccessToken { token: TokenId(u128::from(token)) })
            }
            Kind::RefreshToken { token, account, stale, lives } => {
                refresh_token(store, token, account, stale, lives)
            }
            Kind::EndRefreshTokens { account, token } => {
                let token = token.map(|token| TokenId(u128::from(token)));
                Action::RevokeRefreshTokens(RevokeRefreshTokens { owner: owner(account), token })
            }
            Kind::Touch { tokens } => Action::TouchAccessTokens(TouchAccessTokens {
                uses: members(tokens, 0, 6).map(|i| (TokenId(u128::from(i)), at)).collect(),
            }),
            Kind::SigningKey { newest, lives } => Action::AddSigningKey(AddSigningKey {
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
            }),
            Kind::Lease { hour, take, give_back } => Action::LeaseBudget(LeaseBudget {
                tenant: here.tenant,
                rate: Rate::Push,
                hour,
                take,
                give_back,
            }),
            Kind::Refused { count } => Action::NoteRefusals(NoteRefusals {
                refusals: vec![RefusalNote {
                    actor: actor(1),
                    deed: Deed::new(Verb::ArtifactPush, About::Repository(here)),
                    verdict: Verdict::Refused(Reason::NotPermitted),
                    count,
                }],
            }),
            Kind::Replicas { replicas } => Action::SetReplicas(SetReplicas { replicas }),
            Kind::Advance { consumer: i, number } => Action::AdvanceCursor(AdvanceCursor {
                consumer: consumer(&format!("c{i}")),
                number,
            }),
            Kind::RemoveCursor { consumer: i } => {
                Action::RemoveCursor(RemoveCursor { consumer: consumer(&format!("c{i}")) })
            }
            Kind::Seal { entries, blob, moved, corrupt } => {
                let first = store.head().journal.first + u64::from(moved);
                // A blob that the cluster's own repository shows, if there is one.
                let rows = Rows::Links { repository: system_repository(), after: None };
                let Ok(shown) = store.scan(&rows, usize::from(BLOBS));
                let (digest, size) = match shown.get(usize::from(blob) % shown.len().max(1)) {
                    Some((Key::Link(_, digest), Record::Link(link))) => (*digest, link.size),
                    _ => (digest(blob % BLOBS), 100),
                };
                Action::SealJournal(SealJournal {
                    first,
                    last: first + entries - 1,
                    digest,
                    size: size + u64::from(corrupt),
                })
            }
            Kind::DropSegments { older_than_millis } => {
                Action::DropSegments(DropSegments { older_than_millis })
            }
            Kind::LoseObject { blob, stale } => Action::LoseObject(LoseObject {
                digest: digest(blob),
                generation: live(store, blob, stale),
            }),
            Kind::SetTag { tag: i, artifact, version: j } => Action::SetTag(SetTag {
                repository: here,
                tag: tag(&format!("v{i}")),
                target: match artifact {
                    Some(i) => Target::Artifact(digest(i + ARTIFACTS_FROM)),
                    None => Target::Version(version(&format!("1.{j}"))),
                },
            }),
            Kind::Pulls { artifacts, tags, versions, files } => {
                let mut items = Vec::new();
                items.extend(
                    members(artifacts, ARTIFACTS_FROM, ARTIFACTS)
                        .map(|i| Item::Artifact(digest(i))),
                );
                items.extend(members(tags, 0, 4).map(|i| Item::Tag(tag(&format!("v{i}")))));
                for i in members(versions, 0, VERSIONS) {
                    let of = version(&format!("1.{i}"));
                    items.push(Item::Version(of.clone()));
                    items.extend(
                        members(files, 0, FILES)
                            .map(|j| Item::File(of.clone(), file(&format!("f{j}")))),
                    );
                }
                let pulls = items.into_iter().map(|item| (here.clone(), item)).collect();
                Action::NotePulls(NotePulls { pulls })
            }
            Kind::PutVersion(ref put) => put.action(store, here),
            Kind::VersionState { version: i, ref state } => {
                Action::SetVersionState(SetVersionState {
                    repository: here,
                    version: version(&format!("1.{i}")),
                    state: state.clone(),
                })
            }
            Kind::DeleteVersion { version: i, tombstone } => Action::DeleteVersion(DeleteVersion {
                repository: here,
                version: version(&format!("1.{i}")),
                tombstone,
            }),
            Kind::DeleteFile { file: i, gone } => {
                // A file that is there, if any is.
                let files: Vec<_> = store
                    .rows()
                    .filter_map(|(key, _)| match key {
                        Key::File(at, version, file) if *at == here => Some((version, file)),
                        _ => None,
                    })
                    .collect();
                let (version, file) = match files.get(usize::from(i) % files.len().max(1)) {
                    Some((version, file)) if !gone => ((*version).clone(), (*file).clone()),
                    _ => (version(&format!("1.{}", i % VERSIONS)), file("f9")),
                };
                Action::DeleteFile(DeleteFile { repository: here, version, file })
            }
            Kind::Keep { upload: id, bytes, lease } => {
                Action::ShrinkReservation(ShrinkReservation {
                    tenant: here.tenant,
                    upload: upload(id),
                    bytes,
                    lease: Timestamp(at.0.saturating_add_signed(lease)),
                })
            }
            Kind::Open { upload: id, node, for_millis, reserve } => {
                Action::OpenUpload(OpenUpload {
                    reserve,
                    upload: upload(id),
                    repository: here,
                    node: NodeId(u64::from(node)),
                    lives_millis: for_millis,
                })
            }
            Kind::Close { upload: id } => {
                Action::CloseUpload(CloseUpload { tenant: here.tenant, upload: upload(id) })
            }
            Kind::Expire { uploads } => Action::ExpireUploads(ExpireUploads {
                tenant: here.tenant,
                uploads: members(uploads, 0, 4).map(upload).collect(),
            }),
            Kind::Commit { blob, node, upload: id, stale, corrupt, for_millis, held } => {
                let node = NodeId(u64::from(node));
                let mut epoch = match row(store, &Key::Node(node)) {
                    Some(Record::Node(node)) => node.epoch,
                    _ => Default::default(),
                };
                epoch.0 -= u64::from(stale).min(epoch.0);
                Action::CommitBlob(CommitBlob {
                    repository: here,
                    digest: digest(blob),
                    size: 100 + u64::from(blob) + u64::from(corrupt),
                    generation: Generation { epoch, sequence: serial },
                    node,
                    chunk_root: [blob; 32],
                    upload: upload(id),
                    pin_millis: for_millis,
                    // One commit in sixteen is to a bucket.
                    placement: match held {
                        0..16 => Placement::Object(upload(id)),
                        _ => Placement::Nodes(
                            members(held, 1, NODES).map(|i| NodeId(u64::from(i))).collect(),
                        ),
                    },
                })
            }
            Kind::Mount { to, blob, for_millis } => Action::MountBlob(MountBlob {
                from: here,
                to: repository(to),
                digest: digest(blob),
                pin_millis: for_millis,
            }),
            Kind::Pin { blob, for_millis } => Action::PinBlob(PinBlob {
                repository: here,
                digest: digest(blob),
                pin_millis: for_millis,
            }),
            Kind::Unlink { blob } => {
                Action::UnlinkBlob(UnlinkBlob { repository: here, digest: digest(blob) })
            }
            Kind::Put(ref put) => put.action(store, here),
            Kind::DeleteArtifact { artifact } => Action::DeleteArtifact(DeleteArtifact {
                repository: here,
                digest: digest(artifact),
            }),
            Kind::DeleteTag { tag: i } => {
                Action::DeleteTag(DeleteTag { repository: here, tag: tag(&format!("v{i}")) })
            }
        }
    }
}

impl PutOp {
    fn action(&self, store: &MemoryStore, here: RepositoryKey) -> Action {
        let keep = |key: Key| !self.only_present || row(store, &key).is_some();
        let mut blobs: Vec<_> = members(self.blobs, 0, BLOBS)
            .map(digest)
            .filter(|blob| keep(Key::Link(here.clone(), *blob)))
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
            (Body::Inline(vec![self.artifact; 7].into()), 7)
        };
        let annotations = if self.has_blob_body { vec![b'a'; 11].into() } else { Bytes::new() };
        Action::PutArtifact(PutArtifact {
            repository: here,
            digest: digest(self.artifact),
            media_type: media_type(&format!("type/{}", self.tags % 3)),
            size: size + u64::from(self.corrupt),
            body,
            subject: self.subject.map(digest),
            artifact_type: (self.blobs > 99).then(|| media_type("type/of-artifact")),
            annotations,
            blobs,
            children,
            tags: members(self.tags, 0, 4).map(|i| tag(&format!("v{i}"))).collect(),
        })
    }
}

impl VersionOp {
    fn action(&self, store: &MemoryStore, here: RepositoryKey) -> Action {
        let name = version(&format!("1.{}", self.version));
        let known = match row(store, &Key::Version(here.clone(), name.clone())) {
            Some(Record::Version(known)) => Some(known),
            _ => None,
        };
        let revision = known.as_ref().map_or(0, |known| known.revision);
        // A publisher looks before it publishes, but for one in eight.
        let expected = match (self.expected % 8, known) {
            (0, _) => Expected::Absent,
            (1, _) => Expected::Revision(revision + 1),
            (2 | 3, _) => Expected::Any,
            (_, None) => Expected::Absent,
            (_, Some(_)) => Expected::Revision(revision),
        };
        let is_shown = |i: u8| row(store, &Key::Link(here.clone(), digest(i))).is_some();
        let keep = |i: &u8| !self.only_present || is_shown(*i);
        let files = members(self.files, 0, FILES).filter_map(|i| {
            // Mostly the bytes that the file had before.
            let name = file(&format!("f{i}"));
            let blob = if self.blobs < 80 { self.blobs + i } else { i + self.version } % BLOBS;
            keep(&blob).then(|| NewFile {
                name,
                digest: digest(blob),
                size: 100 + u64::from(blob) + u64::from(self.corrupt),
                hashes: vec![(HashKind::Sha1, vec![blob; 20])],
            })
        });
        let files = files.collect();
        let facts = self.facts.and_then(|i| match i {
            0..BLOBS => keep(&i).then(|| Facts::Blob(digest(i))),
            _ => Some(Facts::Inline(vec![i; usize::from(i)].into())),
        });
        Action::PutVersion(PutVersion {
            repository: here.clone(),
            version: name,
            expected,
            facts,
            files,
            tags: members(self.tags, 0, 4).map(|i| tag(&format!("v{i}"))).collect(),
        })
    }
}
