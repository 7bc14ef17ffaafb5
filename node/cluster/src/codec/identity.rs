//! Policies, accounts, tokens, budgets and audit entries, in commands and in rows.

use nora_domain::command::{Action, Terms};
use nora_domain::identity::{
    AccessTokenRecord, AccountRecord, Actor, AssertionRecord, AuditHeadRecord, AuditRecord,
    BudgetRecord, PolicyRecord, Rate, RefusalNote, SigningKeyRecord, TenantRecord,
};
use nora_domain::name::{AccountName, OwnerName, TokenName};
use nora_domain::record::{Timestamp, TokenId, UploadId};
use nora_domain::{TagName, TenantName};
use nora_proto::command::v1 as command;
use nora_proto::record::v1 as record;

use super::{DecodeError, hash_from_proto, name_from_proto, name_to_proto};

fn actor_to_proto(actor: &Actor) -> record::Actor {
    record::Actor {
        subject: actor.subject.clone(),
        address: actor.address.clone(),
        request: actor.request.clone(),
    }
}

fn actor_from_proto(actor: record::Actor) -> Actor {
    Actor { subject: actor.subject, address: actor.address, request: actor.request }
}

fn tags_to_proto(tags: &[TagName]) -> Vec<String> {
    tags.iter().map(|tag| tag.as_str().to_owned()).collect()
}

fn tags_from_proto(tags: &[String]) -> Result<Vec<TagName>, DecodeError> {
    tags.iter().map(|tag| Ok(TagName::parse(tag)?)).collect()
}

/// Terms of a command; none if nobody has a say.
pub(super) fn terms_to_proto(terms: &Terms) -> Option<command::Terms> {
    (*terms != Terms::NONE).then(|| command::Terms {
        by: terms.by.as_ref().map(actor_to_proto),
        policy: terms.policy,
        create_only: tags_to_proto(&terms.create_only),
        immutable: tags_to_proto(&terms.immutable),
        revision: terms.revision,
    })
}

pub(super) fn terms_from_proto(terms: Option<command::Terms>) -> Result<Terms, DecodeError> {
    let Some(terms) = terms else { return Ok(Terms::NONE) };
    Ok(Terms {
        by: terms.by.map(actor_from_proto),
        policy: terms.policy,
        create_only: tags_from_proto(&terms.create_only)?,
        immutable: tags_from_proto(&terms.immutable)?,
        revision: terms.revision,
    })
}

pub(super) fn policy_to_proto(r: &PolicyRecord) -> record::Policy {
    record::Policy {
        epoch: r.epoch,
        document: r.document.clone(),
        hash: r.hash.to_vec(),
        applied_at: r.applied_at.0,
        applied_by: r.applied_by.clone(),
    }
}

pub(super) fn policy_from_proto(m: record::Policy) -> Result<PolicyRecord, DecodeError> {
    Ok(PolicyRecord {
        epoch: m.epoch,
        document: m.document,
        hash: hash_from_proto(&m.hash, "policy.hash")?,
        applied_at: Timestamp(m.applied_at),
        applied_by: m.applied_by,
    })
}

pub(super) fn tenant_to_proto(r: &TenantRecord) -> record::Tenant {
    record::Tenant {
        storage_quota: r.storage_quota,
        artifact_quota: r.artifact_quota,
        push_limit: r.push_limit,
        pull_limit: r.pull_limit,
    }
}

pub(super) fn tenant_from_proto(m: record::Tenant) -> TenantRecord {
    TenantRecord {
        storage_quota: m.storage_quota,
        artifact_quota: m.artifact_quota,
        push_limit: m.push_limit,
        pull_limit: m.pull_limit,
    }
}

pub(super) fn account_to_proto(r: &AccountRecord) -> record::Account {
    record::Account {
        is_robot: r.is_robot,
        password_hash: r.password_hash.clone(),
        groups: r.groups.clone(),
        created_at: r.created_at.0,
        generation: r.generation,
    }
}

pub(super) fn account_from_proto(m: record::Account) -> AccountRecord {
    AccountRecord {
        is_robot: m.is_robot,
        password_hash: m.password_hash,
        groups: m.groups,
        created_at: Timestamp(m.created_at),
        generation: m.generation,
    }
}

pub(super) fn access_token_to_proto(r: &AccessTokenRecord) -> record::AccessToken {
    record::AccessToken {
        is_workload: r.is_workload,
        owner: r.owner.clone(),
        name: r.name.clone(),
        secret_hash: r.secret_hash.to_vec(),
        permissions: r.permissions.clone(),
        created_at: r.created_at.0,
        expires_at: r.expires_at.0,
        last_used_at: r.last_used_at.0,
    }
}

pub(super) fn access_token_from_proto(
    m: record::AccessToken,
) -> Result<AccessTokenRecord, DecodeError> {
    Ok(AccessTokenRecord {
        is_workload: m.is_workload,
        owner: m.owner,
        name: m.name,
        secret_hash: hash_from_proto(&m.secret_hash, "access_token.secret_hash")?,
        permissions: m.permissions,
        created_at: Timestamp(m.created_at),
        expires_at: Timestamp(m.expires_at),
        last_used_at: Timestamp(m.last_used_at),
    })
}

pub(super) fn named_token_to_proto(token: TokenId) -> record::NamedToken {
    record::NamedToken { token: name_to_proto(token.0) }
}

pub(super) fn token_from_proto(bytes: &[u8]) -> Result<TokenId, DecodeError> {
    Ok(TokenId(name_from_proto(bytes, "token")?))
}

pub(super) fn signing_key_to_proto(r: &SigningKeyRecord) -> record::SigningKey {
    record::SigningKey {
        secret: r.secret.to_vec(),
        created_at: r.created_at.0,
        expires_at: r.expires_at.0,
    }
}

pub(super) fn signing_key_from_proto(
    m: record::SigningKey,
) -> Result<SigningKeyRecord, DecodeError> {
    Ok(SigningKeyRecord {
        secret: hash_from_proto(&m.secret, "signing_key.secret")?,
        created_at: Timestamp(m.created_at),
        expires_at: Timestamp(m.expires_at),
    })
}

pub(super) fn assertion_to_proto(r: &AssertionRecord) -> record::Assertion {
    record::Assertion { expires_at: r.expires_at.0 }
}

pub(super) fn assertion_from_proto(m: record::Assertion) -> AssertionRecord {
    AssertionRecord { expires_at: Timestamp(m.expires_at) }
}

pub(super) fn budget_to_proto(r: &BudgetRecord) -> record::Budget {
    record::Budget { hour: r.hour, granted: r.granted }
}

pub(super) fn budget_from_proto(m: record::Budget) -> BudgetRecord {
    BudgetRecord { hour: m.hour, granted: m.granted }
}

pub(super) fn audit_head_to_proto(r: &AuditHeadRecord) -> record::AuditHead {
    record::AuditHead {
        first: r.first,
        next: r.next,
        anchor: r.anchor.to_vec(),
        head: r.head.to_vec(),
        sent: r.sent,
    }
}

pub(super) fn audit_head_from_proto(m: record::AuditHead) -> Result<AuditHeadRecord, DecodeError> {
    Ok(AuditHeadRecord {
        first: m.first,
        next: m.next,
        anchor: hash_from_proto(&m.anchor, "audit_head.anchor")?,
        head: hash_from_proto(&m.head, "audit_head.head")?,
        sent: m.sent,
    })
}

pub(super) fn audit_to_proto(r: &AuditRecord) -> record::Audit {
    record::Audit {
        at: r.at.0,
        actor: Some(actor_to_proto(&r.actor)),
        action: r.action.clone(),
        resource: r.resource.clone(),
        result: r.result.clone(),
        count: r.count,
        chain: r.chain.to_vec(),
    }
}

pub(super) fn audit_from_proto(m: record::Audit) -> Result<AuditRecord, DecodeError> {
    Ok(AuditRecord {
        at: Timestamp(m.at),
        actor: m.actor.map(actor_from_proto).unwrap_or_default(),
        action: m.action,
        resource: m.resource,
        result: m.result,
        count: m.count,
        chain: hash_from_proto(&m.chain, "audit.chain")?,
    })
}

fn rate_to_proto(rate: Rate) -> command::Rate {
    match rate {
        Rate::Push => command::Rate::Push,
        Rate::Pull => command::Rate::Pull,
    }
}

fn rate_from_proto(rate: command::Rate) -> Result<Rate, DecodeError> {
    match rate {
        command::Rate::Push => Ok(Rate::Push),
        command::Rate::Pull => Ok(Rate::Pull),
        command::Rate::Unspecified => Err(DecodeError::Unknown("lease_budget.rate")),
    }
}

fn note_to_proto(note: &RefusalNote) -> command::Refused {
    command::Refused {
        actor: Some(actor_to_proto(&note.actor)),
        action: note.action.clone(),
        resource: note.resource.clone(),
        result: note.result.clone(),
        count: note.count,
    }
}

fn note_from_proto(m: command::Refused) -> RefusalNote {
    RefusalNote {
        actor: m.actor.map(actor_from_proto).unwrap_or_default(),
        action: m.action,
        resource: m.resource,
        result: m.result,
        count: m.count,
    }
}

/// An action of this module's; `None` for another's.
pub(super) fn action_to_proto(action: &Action) -> Option<command::command::Action> {
    use command::command::Action as To;
    Some(match action {
        Action::SetPolicy { expected, document, hash, tenants } => {
            To::SetPolicy(command::SetPolicy {
                expected: *expected,
                document: document.clone(),
                hash: hash.to_vec(),
                tenants: tenants
                    .iter()
                    .map(|(name, limits)| command::TenantLimits {
                        name: name.as_str().to_owned(),
                        limits: Some(tenant_to_proto(limits)),
                    })
                    .collect(),
            })
        }
        Action::CreateAccount { account, is_robot, password_hash, groups } => {
            To::CreateAccount(command::CreateAccount {
                account: account.as_str().to_owned(),
                is_robot: *is_robot,
                password_hash: password_hash.clone(),
                groups: groups.clone(),
            })
        }
        Action::SetPassword { account, password_hash } => To::SetPassword(command::SetPassword {
            account: account.as_str().to_owned(),
            password_hash: password_hash.clone(),
        }),
        Action::RemoveAccount { account } => {
            To::RemoveAccount(command::RemoveAccount { account: account.as_str().to_owned() })
        }
        Action::CreateAccessToken { token, found_by, account, record, assertion } => {
            To::CreateAccessToken(command::CreateAccessToken {
                token: name_to_proto(token.0),
                found_by: found_by.as_ref().map(|(owner, name)| command::NamedBy {
                    owner: owner.as_str().to_owned(),
                    name: name.as_str().to_owned(),
                }),
                account: account.as_ref().map(|account| account.as_str().to_owned()),
                record: Some(access_token_to_proto(record)),
                assertion: assertion.map(|(hash, expires_at)| command::Exchanged {
                    hash: hash.to_vec(),
                    expires_at: expires_at.0,
                }),
            })
        }
        Action::RevokeAccessToken { token } => {
            To::RevokeAccessToken(command::RevokeAccessToken { token: name_to_proto(token.0) })
        }
        Action::TouchAccessTokens { uses } => {
            let uses = uses
                .iter()
                .map(|(token, at)| command::TokenUse { token: name_to_proto(token.0), at: at.0 });
            To::TouchAccessTokens(command::TouchAccessTokens { uses: uses.collect() })
        }
        Action::AddSigningKey { after, key } => To::AddSigningKey(command::AddSigningKey {
            after: *after,
            key: Some(signing_key_to_proto(key)),
        }),
        Action::LeaseBudget { tenant, rate, hour, take, give_back } => {
            To::LeaseBudget(command::LeaseBudget {
                tenant: tenant.as_str().to_owned(),
                rate: rate_to_proto(*rate).into(),
                hour: *hour,
                take: *take,
                give_back: *give_back,
            })
        }
        Action::NoteRefusals { refusals } => To::NoteRefusals(command::NoteRefusals {
            refusals: refusals.iter().map(note_to_proto).collect(),
        }),
        Action::TrimAudit { before } => To::TrimAudit(command::TrimAudit { before: before.0 }),
        Action::CountUnique => To::CountUnique(command::CountUnique {}),
        Action::NoteAuditSent { number } => {
            To::NoteAuditSent(command::NoteAuditSent { number: *number })
        }
        Action::KeepAside { upload, bytes, lease } => To::KeepAside(command::KeepAside {
            upload: name_to_proto(upload.0),
            bytes: *bytes,
            lease: lease.0,
        }),
        _ => return None,
    })
}

/// An action of this module's; none of another's is passed.
pub(super) fn action_from_proto(action: command::command::Action) -> Result<Action, DecodeError> {
    use command::command::Action as From;
    Ok(match action {
        From::SetPolicy(m) => Action::SetPolicy {
            expected: m.expected,
            document: m.document,
            hash: hash_from_proto(&m.hash, "set_policy.hash")?,
            tenants: m
                .tenants
                .into_iter()
                .map(|m| {
                    let limits = tenant_from_proto(m.limits.unwrap_or_default());
                    Ok((TenantName::parse(&m.name)?, limits))
                })
                .collect::<Result<_, DecodeError>>()?,
        },
        From::CreateAccount(m) => Action::CreateAccount {
            account: AccountName::parse(&m.account)?,
            is_robot: m.is_robot,
            password_hash: m.password_hash,
            groups: m.groups,
        },
        From::SetPassword(m) => Action::SetPassword {
            account: AccountName::parse(&m.account)?,
            password_hash: m.password_hash,
        },
        From::RemoveAccount(m) => {
            Action::RemoveAccount { account: AccountName::parse(&m.account)? }
        }
        From::CreateAccessToken(m) => Action::CreateAccessToken {
            token: token_from_proto(&m.token)?,
            found_by: m
                .found_by
                .map(|by| {
                    let owner = OwnerName::parse(&by.owner)?;
                    Ok::<_, DecodeError>((owner, TokenName::parse(&by.name)?))
                })
                .transpose()?,
            account: m.account.map(|account| AccountName::parse(&account)).transpose()?,
            record: access_token_from_proto(
                m.record.ok_or(DecodeError::Unknown("create_access_token.record"))?,
            )?,
            assertion: m
                .assertion
                .map(|m| {
                    let hash = hash_from_proto(&m.hash, "assertion.hash")?;
                    Ok::<_, DecodeError>((hash, Timestamp(m.expires_at)))
                })
                .transpose()?,
        },
        From::RevokeAccessToken(m) => {
            Action::RevokeAccessToken { token: token_from_proto(&m.token)? }
        }
        From::TouchAccessTokens(m) => Action::TouchAccessTokens {
            uses: m
                .uses
                .into_iter()
                .map(|m| Ok((token_from_proto(&m.token)?, Timestamp(m.at))))
                .collect::<Result<_, DecodeError>>()?,
        },
        From::AddSigningKey(m) => Action::AddSigningKey {
            after: m.after,
            key: signing_key_from_proto(m.key.ok_or(DecodeError::Unknown("add_signing_key.key"))?)?,
        },
        From::LeaseBudget(m) => Action::LeaseBudget {
            tenant: TenantName::parse(&m.tenant)?,
            rate: rate_from_proto(m.rate())?,
            hour: m.hour,
            take: m.take,
            give_back: m.give_back,
        },
        From::NoteRefusals(m) => {
            Action::NoteRefusals { refusals: m.refusals.into_iter().map(note_from_proto).collect() }
        }
        From::TrimAudit(m) => Action::TrimAudit { before: Timestamp(m.before) },
        From::CountUnique(command::CountUnique {}) => Action::CountUnique,
        From::NoteAuditSent(m) => Action::NoteAuditSent { number: m.number },
        From::KeepAside(m) => Action::KeepAside {
            upload: UploadId(name_from_proto(&m.upload, "keep_aside.upload")?),
            bytes: m.bytes,
            lease: Timestamp(m.lease),
        },
        _ => return Err(DecodeError::Unknown("command.action")),
    })
}
