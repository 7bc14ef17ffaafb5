//! For tests only: a registry in memory and the guard over it, with a policy written as in `nora.toml`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "only tests call this, and a test that cannot go on has failed"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nora_app::ports::clock::Ids;
use nora_app::testkit::{
    Hashes, ManualClock, MemoryBlobs, MemoryMetadata, MemorySegments, found_cluster, start_node,
};
use nora_app::{Dependencies, Registry, Settings};
use nora_auth::credential::{ApiToken, TokenKind};
use nora_auth::document::PolicyDocument;
use nora_config::{Overrides, parse};
use nora_digest::digest;
use nora_domain::{
    AccessTokenRecord, AccountName, Command, Epoch, NodeId, OwnerName, Terms, Timestamp, TokenId,
    TokenName, UploadId,
};
use nora_egress::Egress;

use crate::{AdminPasswords, Clocks, Guard, GuardSettings, Policies, canonical, tenant_limits};

/// The one node.
pub const NODE: NodeId = NodeId(1);
/// When tests begin.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// The administrator's password.
pub const ADMIN_PASSWORD: &str = "correct horse battery staple";
/// The password of every user.
pub const PASSWORD: &str = "a password of some length";

/// Upload sessions of this node, one after the other.
struct OwnIds(AtomicU64);

impl Ids for OwnIds {
    fn upload_id(&self) -> UploadId {
        UploadId::made_by(NODE, self.0.fetch_add(1, Ordering::Relaxed).into())
    }
}

/// A node's use cases over memory, and its guard.
pub struct MemoryNode {
    /// Who asks, and what they may do.
    pub guard: Arc<Guard>,
    /// The use cases.
    pub registry: Registry,
    /// Stands still until it is moved.
    pub clock: Arc<ManualClock>,
    /// The replicated state, to which other nodes may propose.
    pub metadata: Arc<MemoryMetadata>,
}

impl MemoryNode {
    /// With no policy; its address is this machine's alone if `is_loopback`.
    pub async fn without_policy(is_loopback: bool) -> Self {
        let node = Self::new(GuardSettings {
            is_loopback,
            admin: (!is_loopback).then(|| AdminPasswords::new([ADMIN_PASSWORD])),
            login_failures_max: 5,
            login_window: Duration::from_secs(300),
            admin_file: None,
            egress: Egress::new(|_| false, Duration::from_secs(5)).unwrap(),
        });
        node.guard.make_keys().await.unwrap();
        node
    }

    /// With no policy, and no keys that sign sessions.
    pub fn new(settings: GuardSettings) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let policies = Arc::new(Policies::none().unwrap());
        let metadata = Arc::new(MemoryMetadata::default());
        for action in [start_node(NODE), found_cluster()] {
            let command = Command { at: NOW, origin: None, terms: Terms::NONE, action };
            metadata.propose_elsewhere(&command).unwrap();
        }
        let digest_of = |bytes: &[u8], algorithm| digest(algorithm, bytes);
        let hashes = Hashes { digest: digest_of, chunk_root: |_| [0; 32] };
        let blobs = Arc::new(MemoryBlobs::new(hashes, clock.clone()));
        let registry = Registry::new(Dependencies {
            metadata: metadata.clone(),
            blobs: blobs.clone(),
            uploads: blobs.clone(),
            finish: blobs,
            clock: clock.clone(),
            wall: clock.clone(),
            ids: Arc::new(OwnIds(AtomicU64::new(1))),
            tenancy: policies.clone(),
            segments: Arc::new(MemorySegments::new(hashes)),
            node: NODE,
            epoch: Epoch(1),
            settings: Settings {
                artifact_bytes_max: 1 << 20,
                references_max: 10,
                pin_millis: 60_000,
                upload_expiry_millis: 86_400_000,
            },
        });
        let clocks = Clocks { cluster: clock.clone(), wall: clock.clone() };
        let guard = Guard::new(registry.clone(), clocks, policies, settings).unwrap();
        Self { guard, registry, clock, metadata }
    }

    /// Puts a policy into force.
    pub async fn apply(&self, policy: &str) {
        let loaded = parse(policy, None, &Overrides::default());
        let document = loaded.unwrap_or_else(|error| panic!("{error}")).config.policy;
        self.apply_document(&document).await;
    }

    /// Puts a policy into force that no file can say, as one with the lines of an htpasswd file.
    pub async fn apply_document(&self, document: &PolicyDocument) {
        let (bytes, hash) = canonical(document).unwrap();
        self.registry
            .access()
            .set_policy(None, bytes, hash, tenant_limits(document))
            .await
            .unwrap();
        self.guard.reload().await.unwrap();
    }

    /// Makes users who log in with [`PASSWORD`]; all have the same hash, for hashing takes long.
    pub async fn users(&self, names: &[&str]) {
        let hash = nora_auth::password::hash(PASSWORD).unwrap();
        for name in names {
            let name = AccountName::parse(name).unwrap();
            self.registry.accounts().create(name, false, hash.clone(), Vec::new()).await.unwrap();
        }
        self.guard.reload().await.unwrap();
    }

    /// Makes a token of a user's, cut down to these permissions.
    pub async fn token(&self, user: &str, name: &str, scope: &[&str]) -> String {
        let (secret, token) = Self::new_token(user, name, scope);
        self.registry.tokens().create(token).await.unwrap();
        secret
    }

    /// Such a token, and what it is made with.
    pub fn new_token(
        user: &str,
        name: &str,
        scope: &[&str],
    ) -> (String, nora_app::tokens::NewToken) {
        let mut random = [0; 32];
        getrandom::fill(&mut random).unwrap();
        let secret = ApiToken::generate(TokenKind::Personal, random);
        let owner = format!("user:{user}");
        let token = nora_app::tokens::NewToken {
            id: TokenId(secret.id),
            found_by: Some((OwnerName::parse(&owner).unwrap(), TokenName::parse(name).unwrap())),
            account: Some(AccountName::parse(user).unwrap()),
            record: AccessTokenRecord {
                is_workload: false,
                owner,
                name: name.to_owned(),
                secret_hash: secret.secret_hash(),
                permissions: scope.iter().map(ToString::to_string).collect(),
                claims: Vec::new(),
                created_at: NOW,
                expires_at: NOW.plus_millis(3_600_000),
                last_used_at: Timestamp(0),
            },
            assertion: None,
            policy: None,
        };
        (secret.reveal(), token)
    }
}
