//! Values of every stored type, drawn from a number.
//!
//! The same number gives the same value, so golden files and random tests share this one source. Each field is drawn by
//! its name and each variant by its own: a field or a variant that comes later leaves most other samples as they are.

use std::collections::BTreeMap;

use nora_domain::*;

/// Where values are drawn from.
#[derive(Clone, Copy)]
pub struct Draw(pub u64);

fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl Draw {
    /// Another source, by a name.
    pub fn of(self, name: &str) -> Self {
        Self(name.bytes().fold(mixed(self.0), |seed, byte| mixed(seed ^ u64::from(byte))))
    }

    /// A value of its own for a name.
    pub fn get<T: Drawn>(self, name: &str) -> T {
        T::draw(self.of(name))
    }

    fn below(self, end: u64) -> u64 {
        mixed(self.0) % end
    }

    /// One of some names: where one is added, the others stay chosen as often as they can.
    fn one_of<'a>(self, names: &[&'a str]) -> &'a str {
        names.iter().max_by_key(|name| self.of(name).0).unwrap()
    }
}

pub trait Drawn: Sized {
    fn draw(d: Draw) -> Self;
}

/// Structs, field by field.
macro_rules! structs {
    ($($type:ident { $($field:ident),* $(,)? })*) => {
        $(impl Drawn for $type {
            fn draw(d: Draw) -> Self {
                Self { $($field: d.get(stringify!($field)),)* }
            }
        })*
    };
}

/// Enums: one of the variants, and all of them.
macro_rules! enums {
    ($($type:ident {
        $($variant:ident $(($($part:literal),*))? $({ $($field:ident),* })?,)*
    })*) => {
        $(
            impl Drawn for $type {
                fn draw(d: Draw) -> Self {
                    Self::all(d).swap_remove(d.one(&[$(stringify!($variant)),*]))
                }
            }

            impl All for $type {
                const COUNT: usize = [$(stringify!($variant)),*].len();

                fn all(d: Draw) -> Vec<Self> {
                    // A variant that is not listed here does not compile.
                    let _listed = |value: &Self| match value {
                        $(Self::$variant { .. } => {})*
                    };
                    vec![$({
                        let _d = d.of(stringify!($variant));
                        Self::$variant
                            $(($(_d.get($part)),*))?
                            $({ $($field: _d.get(stringify!($field))),* })?
                    }),*]
                }
            }
        )*
    };
}

/// A value of each variant.
pub trait All: Sized {
    /// How many there are.
    const COUNT: usize;

    fn all(d: Draw) -> Vec<Self>;
}

impl Draw {
    fn one(self, names: &[&str]) -> usize {
        let name = self.one_of(names);
        names.iter().position(|other| *other == name).unwrap()
    }
}

impl Drawn for u64 {
    fn draw(d: Draw) -> Self {
        match d.below(8) {
            0 => 0,
            1 => 1,
            2 => 255,
            3 => 256,
            4 => Self::MAX,
            5 => 1_700_000_000_000 + d.of("time").below(1 << 20),
            _ => mixed(d.of("any").0),
        }
    }
}

impl Drawn for u32 {
    fn draw(d: Draw) -> Self {
        d.get::<u64>("u32") as Self
    }
}

impl Drawn for u128 {
    fn draw(d: Draw) -> Self {
        match d.below(8) {
            0 => 0,
            1 => Self::MAX,
            _ => Self::from(mixed(d.of("high").0)) << 64 | Self::from(mixed(d.of("low").0)),
        }
    }
}

impl Drawn for bool {
    fn draw(d: Draw) -> Self {
        d.below(2) == 1
    }
}

impl Drawn for u8 {
    fn draw(d: Draw) -> Self {
        [0, 1, 255, mixed(d.0) as Self][d.of("byte").below(4) as usize]
    }
}

impl Drawn for SharedSecret {
    fn draw(d: Draw) -> Self {
        Self(d.get("secret"))
    }
}

impl Drawn for [u8; 32] {
    fn draw(d: Draw) -> Self {
        let mut value = [d.get("all"); 32];
        value[31] = d.get("last");
        value
    }
}

/// Short names over few letters, so that names which start others, and equal names, come up often.
impl Drawn for String {
    fn draw(d: Draw) -> Self {
        let letters: &[char] = if d.below(5) == 0 {
            &['a', 'z', '0', 'é', 'ß', '/', '~', '\u{10ffff}']
        } else {
            &['a', 'b', '/', ' ', '-']
        };
        let length = 1 + d.of("length").below(if d.below(5) == 0 { 12 } else { 3 });
        let letter = |at| letters[d.of(&format!("{at}")).below(letters.len() as u64) as usize];
        (0..length).map(letter).collect()
    }
}

impl Drawn for Box<str> {
    fn draw(d: Draw) -> Self {
        String::draw(d).into()
    }
}

impl Drawn for bytes::Bytes {
    fn draw(d: Draw) -> Self {
        Vec::draw(d).into()
    }
}

impl<T: Drawn> Drawn for Option<T> {
    fn draw(d: Draw) -> Self {
        (d.below(3) != 0).then(|| d.get("some"))
    }
}

impl<T: Drawn> Drawn for Vec<T> {
    fn draw(d: Draw) -> Self {
        (0..d.below(4)).map(|at| d.get(&format!("{at}"))).collect()
    }
}

impl<A: Drawn, B: Drawn> Drawn for (A, B) {
    fn draw(d: Draw) -> Self {
        (d.get("first"), d.get("second"))
    }
}

macro_rules! names {
    ($($type:ident)*) => {
        $(impl Drawn for $type {
            fn draw(d: Draw) -> Self {
                Self::parse(&String::draw(d)).unwrap()
            }
        })*
    };
}

names! {
    AccountName ConsumerName FileName MediaType OwnerName RepositoryPath TagName TenantName
    TokenName VersionName
}

macro_rules! wrapped {
    ($($type:ident)*) => {
        $(impl Drawn for $type {
            fn draw(d: Draw) -> Self {
                Self(Drawn::draw(d))
            }
        })*
    };
}

wrapped! { ClusterId Epoch FeatureLevel NodeId Timestamp TokenId UploadId }

impl Drawn for Digest {
    fn draw(d: Draw) -> Self {
        let half: [u8; 32] = d.get("value");
        if d.below(3) > 0 {
            return Self::sha256(half);
        }
        let mut whole = [half[0]; 64];
        whole[63] = half[31];
        Self::sha512(whole)
    }
}

impl Drawn for Verb {
    fn draw(d: Draw) -> Self {
        Self::ALL[d.below(Self::ALL.len() as u64) as usize]
    }
}

impl Drawn for Reason {
    fn draw(d: Draw) -> Self {
        Self::from_code(d.below(50) as u32).unwrap_or_else(|| Self::Words(d.get("words")))
    }
}

enums! {
    Format { Oci, Npm, Pypi, Maven, Cargo, }
    StorageMode { Local, Object, }
    Standing { Joining, Active, Away, Draining, Removed, }
    RotationStage { Trust, Show, }
    HashKind { Md5, Sha1, Sha256, Sha512, Blake2b256, }
    Rate { Push, Pull, AnonymousPull, }
    Placement { Nodes("nodes"), Object("object"), }
    Body { Inline("inline"), Blob, }
    Facts { Inline("inline"), Blob("blob"), }
    VersionState { Live, Yanked("reason"), Deprecated("text"), Tombstone, }
    Expected { Absent, Revision("revision"), Any, }
    Target { Artifact("artifact"), Version("version"), }
    Item { Artifact("artifact"), Tag("tag"), Version("version"), File("version", "file"), }
    Holder { Artifact("artifact"), Version("version"), File("version", "file"), Segment("first"), }
    Verdict { Done, Asked, Refused("reason"), Failed("reason"), }
    Subject {
        Anonymous, Unknown, Administrator, User("name"), Robot("name"),
        Workload { provider, subject }, Configuration, Node("node"), Several, Anyone,
    }
    About {
        Registry, Repository("repository"), Content("repository", "digest"),
        Tagged("repository", "digest", "tags"), Tag("repository", "tag"),
        Version("repository", "version"), File("repository", "version", "file"), Policy,
        Account("account"), NamedToken("owner", "name"), Token("token"), JoinToken, Node("node"),
        Cluster, Words("words"), Session("owner", "token"),
    }
    Event {
        RepositoryCreated { repository },
        RepositoryRemoved { repository },
        BlobLinked { repository, digest, size },
        BlobUnlinked { repository, digest },
        ArtifactPushed { repository, digest, media_type, size },
        ArtifactDeleted { repository, digest },
        TagMoved { repository, tag, from, to },
        TagDeleted { repository, tag, target },
        VersionPublished { repository, version, created },
        VersionStateChanged { repository, version },
        VersionDeleted { repository, version },
        FilePublished { repository, version, file, digest, size },
        FileDeleted { repository, version, file },
        BlobPlaced { digest },
        NodeChanged { node },
        IdentityChanged,
        FeatureLevelRaised { level },
        ReplicasChanged { replicas },
        JournalSealed { first, last },
        JournalDropped { first },
    }
    Key {
        Cluster, Authority, Node("node"), JoinToken("token"), Policy, Account("account"),
        AccessToken("token"), TokenOf("owner", "name"), RefreshToken("owner", "token"),
        SigningKey("number"), Assertion("hash"),
        Tenant("tenant"), Journal("number"), Segment("first"), Cursor("consumer"), Blob("blob"),
        HeldBy("blob", "tenant"), Usage("tenant"), Limits("tenant"), Budget("tenant", "rate"),
        Upload("tenant", "upload"), TenantBlob("tenant", "blob"), Repository("repository"),
        Artifact("repository", "digest"), ParentOf("repository", "child", "parent"),
        Referrer("repository", "subject", "digest"), Version("repository", "version"),
        File("repository", "version", "file"), Tag("repository", "tag"),
        TagOf("repository", "target", "tag"), Link("repository", "blob"),
        Edge("repository", "blob", "holder"), Pulled("repository", "item"),
    }
    Record {
        Cluster("record"), Authority("record"), Node("record"), JoinToken("record"),
        Policy("record"), Account("record"), AccessToken("record"), TokenOf("token"),
        RefreshToken("record"), SigningKey("record"), Assertion("record"), Tenant, Journal("record"), Segment("record"),
        Cursor("record"), Blob("record"), HeldBy, Usage("record"), Limits("record"),
        Budget("record"), Upload("record"), TenantBlob("record"), Repository("record"),
        Artifact("record"), ParentOf, Referrer("record"), Version("record"), File("record"),
        Tag("record"), TagOf, Link("record"), Edge, Pulled("record"),
    }
}

structs! {
    RepositoryKey { tenant, format, path }
    Generation { epoch, sequence }
    Storage { mode, replicas }
    AuthorityKeys { certificate, key }
    AuthorityRecord { keys, secret, rotation }
    Rotation { stage, keys, secret, session_key, begun_at, confirmed }
    ClusterRecord {
        epoch, cluster, last_node, active_nodes, feature_level, storage, policy_epoch,
        identity_epoch,
    }
    NodeProfile { cluster_address, http_address, zone, weight, version, feature_max }
    NodeRecord { epoch, start, standing, profile, key_hash, changed_at }
    SessionRecord { node, applied_below, applied }
    JoinTokenRecord { secret_hash, expires_at, uses_left, created_at }
    PolicyRecord { epoch, document, hash, applied_at, applied_by }
    AccountRecord { is_robot, password_hash, groups, created_at, generation }
    AccessTokenRecord {
        is_workload, owner, name, secret_hash, permissions, claims, created_at, expires_at,
        last_used_at,
    }
    RefreshTokenRecord { generation, created_at, expires_at, address }
    SigningKeyRecord { secret, created_at, expires_at }
    AssertionRecord { expires_at }
    JournalHead { first, next, anchor, head, bytes }
    Entry { position, at, by, deed, verdict, count, events, chain }
    SegmentRecord { last, anchor, head, last_at, digest, size }
    CursorRecord { number, noted_at }
    Actor { subject, token, address, request }
    Deed { verb, about }
    RefusalNote { actor, deed, verdict, count }
    BlobRecord { generation, size, chunk_root, tenants, unheld_at, placement }
    TenantBlobRecord { size, links, references, unreferenced_at, relied_on_at }
    LinkRecord { size, linked_at, pinned_until, unreferenced_at }
    UsageRecord { bytes, artifacts, versions, tags, links, unique_bytes, reserved_bytes, uploads }
    LimitsRecord { storage_quota, artifact_quota, push_limit, pull_limit, anonymous_pull_limit, caller_pull_limit }
    BudgetRecord { hour, granted }
    UploadRecord { repository, node, opened_at, expires_at, reserved_bytes }
    RepositoryRecord { created_at, revision, artifacts, versions, tags, links }
    ArtifactRecord {
        media_type, size, body, subject, artifact_type, annotations, blobs, children, pushed_at,
    }
    ReferrerRecord { artifact_type }
    VersionRecord { state, facts, files, published_at, revision }
    FileRecord { digest, size, hashes, uploaded_at }
    NewFile { name, digest, size, hashes }
    TagRecord { target, moved_at }
    PulledRecord { at }
    Origin { epoch, serial, settled_below }
    Terms { by, policy, create_only, immutable, revision }
    Command { at, origin, terms, action }

    FoundCluster { cluster, authority, secret, storage }
    RaiseFeatureLevel { level }
    SetReplicas { replicas }
    StartNode { node, start, replaces, profile }
    SetStanding { node, standing }
    CreateJoinToken { token, secret_hash, lives_millis, uses }
    RevokeJoinToken { token }
    BeginRotation { keys, secret, session_key }
    ConfirmRotation { stage, certificate, node }
    AdmitNode { token, secret_hash, key_hash, profile }
    OpenUpload { upload, repository, node, lives_millis, reserve }
    ShrinkReservation { tenant, upload, bytes, lease }
    CloseUpload { tenant, upload }
    ExpireUploads { tenant, uploads }
    CommitBlob {
        repository, digest, size, generation, node, chunk_root, upload, pin_millis, placement,
    }
    MountBlob { from, to, digest, pin_millis }
    PinBlob { repository, digest, pin_millis }
    UnlinkBlob { repository, digest }
    AddHolder { digest, generation, node }
    DropHolder { digest, generation, node, keep }
    LoseObject { digest, generation }
    PutArtifact {
        repository, digest, media_type, size, body, subject, artifact_type, annotations, blobs, children, tags,
    }
    DeleteArtifact { repository, digest }
    SetTag { repository, tag, target }
    DeleteTag { repository, tag }
    NotePulls { pulls }
    PutVersion { repository, version, expected, facts, files, tags }
    SetVersionState { repository, version, state }
    DeleteVersion { repository, version, tombstone }
    DeleteFile { repository, version, file }
    LeaseBudget { tenant, rate, hour, take, give_back }
    SetPolicy { expected, document, hash, tenants }
    CreateAccount { account, is_robot, password_hash, groups }
    SetPassword { account, password_hash }
    RemoveAccount { account }
    CreateAccessToken { token, found_by, account, record, assertion }
    RevokeAccessToken { token }
    TouchAccessTokens { uses }
    AddSigningKey { after, key }
    CreateRefreshToken { token, owner, generation, lives_millis, address }
    RevokeRefreshTokens { owner, token }
    NoteRefusals { refusals }
    AdvanceCursor { consumer, number }
    RemoveCursor { consumer }
    SealJournal { first, last, digest, size }
    DropSegments { older_than_millis }
}

impl Drawn for Head {
    fn draw(d: Draw) -> Self {
        let sessions: BTreeMap<_, _> =
            d.get::<Vec<(Epoch, SessionRecord)>>("sessions").into_iter().collect();
        Self { clock: d.get("clock"), journal: d.get("journal"), sessions }
    }
}

macro_rules! actions {
    ($($name:ident $method:ident -> $done:ty,)*) => {
        impl All for Action {
            const COUNT: usize = ACTIONS.len();

            fn all(d: Draw) -> Vec<Self> {
                vec![$(Self::$name(d.get(stringify!($name))),)*]
            }
        }

        impl Drawn for Action {
            fn draw(d: Draw) -> Self {
                Self::all(d).swap_remove(d.one(&[$(stringify!($name)),*]))
            }
        }

        /// Every command's name.
        pub const ACTIONS: &[&str] = &[$(stringify!($name)),*];
    };
}

for_each_command!(actions);
