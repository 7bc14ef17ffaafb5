//! Values of what came with policies, accounts and the audit log.

use nora_domain::command::{Action, Terms};
use nora_domain::identity::{
    AccessTokenRecord, AccountRecord, Actor, AssertionRecord, AuditHeadRecord, AuditRecord,
    BudgetRecord, PolicyRecord, Rate, RefusalNote, SigningKeyRecord, TenantRecord,
};
use nora_domain::name::{AccountName, OwnerName, TokenName};
use nora_domain::record::{
    ClusterRecord, Key, NodeId, Record, Timestamp, TokenId, UniqueTo, UploadRecord, UsageRecord,
};
use nora_domain::{Format, TenantName};

use super::{repository, sha256, tag, upload};

const AT: Timestamp = Timestamp(1_700_000_000_000);
const LATER: Timestamp = Timestamp(1_700_000_900_000);
const TOKEN: TokenId = TokenId(0x0708 << 96);

fn tenant() -> TenantName {
    TenantName::parse("frontend").unwrap()
}

fn account() -> AccountName {
    AccountName::parse("alice").unwrap()
}

fn names() -> (OwnerName, TokenName) {
    (OwnerName::parse("user:alice").unwrap(), TokenName::parse("laptop").unwrap())
}

fn actor() -> Actor {
    Actor { subject: "user:alice".into(), address: "192.0.2.7".into(), request: "00ff".into() }
}

fn limits() -> TenantRecord {
    TenantRecord {
        storage_quota: Some(50_000_000_000),
        artifact_quota: Some(0),
        push_limit: None,
        pull_limit: Some(1_000),
    }
}

fn token(is_workload: bool) -> AccessTokenRecord {
    AccessTokenRecord {
        is_workload,
        owner: "user:alice".into(),
        name: "laptop".into(),
        secret_hash: [0x5e; 32],
        permissions: vec!["pull:*".into(), "push:oci:frontend/*".into()],
        created_at: AT,
        expires_at: LATER,
        last_used_at: Timestamp(0),
    }
}

fn signing_key() -> SigningKeyRecord {
    SigningKeyRecord { secret: [0x4b; 32], created_at: AT, expires_at: LATER }
}

pub fn actions() -> Vec<(Terms, Action)> {
    let by = Some(actor());
    let judged = Terms {
        by: by.clone(),
        policy: Some(7),
        create_only: vec![tag()],
        immutable: vec![tag()],
        revision: None,
    };
    let (found_by, account) = (Some(names()), account());
    let asked = Terms { by, ..Terms::NONE };
    let upload = Action::OpenUpload {
        upload: upload(),
        repository: repository(Format::Oci),
        node: NodeId(2),
        expires_at: LATER,
        reserve: 1 << 33,
    };
    let delete = Action::DeleteArtifact { repository: repository(Format::Oci), digest: sha256(9) };
    let unchanged_since =
        |revision| Terms { revision: Some(revision), policy: Some(0), ..Terms::NONE };
    vec![
        (judged, Action::DeleteTag { repository: repository(Format::Oci), tag: tag() }),
        (unchanged_since(0), delete.clone()),
        (unchanged_since(1 << 40), delete),
        (Terms::NONE, upload),
        (
            asked.clone(),
            Action::SetPolicy {
                expected: Some(0),
                document: b"{}".to_vec(),
                hash: [1; 32],
                tenants: vec![(tenant(), limits())],
            },
        ),
        (
            asked.clone(),
            Action::CreateAccount {
                account: account.clone(),
                is_robot: true,
                password_hash: String::new(),
                groups: vec!["devs".into()],
            },
        ),
        (
            asked.clone(),
            Action::SetPassword {
                account: account.clone(),
                password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".into(),
            },
        ),
        (asked.clone(), Action::RemoveAccount { account: account.clone() }),
        (
            asked.clone(),
            Action::CreateAccessToken {
                token: TOKEN,
                found_by,
                account: Some(account),
                record: token(false),
                assertion: None,
            },
        ),
        (
            asked.clone(),
            Action::CreateAccessToken {
                token: TOKEN,
                found_by: None,
                account: None,
                record: token(true),
                assertion: Some(([3; 32], LATER)),
            },
        ),
        (asked, Action::RevokeAccessToken { token: TOKEN }),
        (Terms::NONE, Action::TouchAccessTokens { uses: vec![(TOKEN, AT)] }),
        (Terms::NONE, Action::AddSigningKey { after: Some(2), key: signing_key() }),
        (
            Terms::NONE,
            Action::LeaseBudget {
                tenant: tenant(),
                rate: Rate::Pull,
                hour: 472_222,
                take: 20,
                give_back: 3,
            },
        ),
        (
            Terms::NONE,
            Action::NoteRefusals {
                refusals: vec![RefusalNote {
                    actor: actor(),
                    action: "artifact.push".into(),
                    resource: "oci:frontend/shop".into(),
                    result: "refused: not permitted".into(),
                    count: 3,
                }],
            },
        ),
        (Terms::NONE, Action::TrimAudit { before: AT }),
        (Terms::NONE, Action::CountUnique),
        (Terms::NONE, Action::NoteAuditSent { number: 4_711 }),
        (Terms::NONE, Action::KeepAside { upload: super::upload(), bytes: 1 << 20, lease: AT }),
    ]
}

pub fn records() -> Vec<Record> {
    let cluster = ClusterRecord { policy_epoch: 3, identity_epoch: 900, ..Default::default() };
    vec![
        Record::Cluster(ClusterRecord { unique_to: UniqueTo::Blob(sha256(1)), ..cluster.clone() }),
        Record::Cluster(ClusterRecord { unique_to: UniqueTo::Everything, ..cluster }),
        Record::Usage(UsageRecord { unique_bytes: 5, reserved_bytes: 6, ..Default::default() }),
        Record::Upload(UploadRecord {
            repository: repository(Format::Oci),
            node: NodeId(1),
            opened_at: AT,
            expires_at: LATER,
            reserved_bytes: 1 << 24,
        }),
        Record::Policy(PolicyRecord {
            epoch: 3,
            document: b"{}".to_vec(),
            hash: [2; 32],
            applied_at: AT,
            applied_by: "admin".into(),
        }),
        Record::Tenant(limits()),
        Record::Account(AccountRecord {
            is_robot: false,
            password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".into(),
            groups: vec!["devs".into(), "ops".into()],
            created_at: AT,
            generation: 12,
        }),
        Record::AccessToken(token(false)),
        Record::AccessToken(AccessTokenRecord { last_used_at: AT, ..token(true) }),
        Record::TokenOf(TOKEN),
        Record::SigningKey(signing_key()),
        Record::Assertion(AssertionRecord { expires_at: LATER }),
        Record::Budget(BudgetRecord { hour: 472_222, granted: 20 }),
        Record::AuditHead(AuditHeadRecord {
            first: 3,
            next: 9,
            anchor: [6; 32],
            head: [7; 32],
            sent: 0,
        }),
        Record::AuditHead(AuditHeadRecord { first: 3, next: 9, sent: 7, ..Default::default() }),
        Record::Audit(AuditRecord {
            at: AT,
            actor: actor(),
            action: "artifact.push".into(),
            resource: "oci:frontend/shop:v1".into(),
            result: "done".into(),
            count: 1,
            chain: [8; 32],
        }),
    ]
}

pub fn keys() -> Vec<Key> {
    let (owner, name) = names();
    vec![
        Key::Policy,
        Key::Tenant(tenant()),
        Key::Account(account()),
        Key::AccessToken(TOKEN),
        Key::TokenOf(owner, name),
        Key::SigningKey(2),
        Key::Assertion([9; 32]),
        Key::Budget(tenant(), Rate::Push),
        Key::Budget(tenant(), Rate::Pull),
        Key::AuditHead,
        Key::Audit(0x0102_0304),
    ]
}
