//! The policy, accounts, tokens and signing keys, and what is written down about who did what.

use nora_domain::TenantName;
use nora_domain::command::{Action, Outcome, Refusal};
use nora_domain::identity::{
    AccessTokenRecord, BudgetRecord, Rate, RefusalNote, SigningKeyRecord, TenantRecord,
};
use nora_domain::name::{AccountName, OwnerName, TokenName};
use nora_domain::record::{Timestamp, TokenId};

use crate::{Error, Registry};

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its public part.
    pub id: TokenId,
    /// Whose it is and what it is called, if it shall be found so.
    pub found_by: Option<(OwnerName, TokenName)>,
    /// The account whose it is, if the cluster keeps that.
    pub account: Option<AccountName>,
    /// What is known of it.
    pub record: AccessTokenRecord,
    /// The issuer's token that it is exchanged for, by a hash of its name, and when that expires.
    pub assertion: Option<([u8; 32], Timestamp)>,
    /// The policy by which it gets what it gets; `None` if that has no say.
    pub policy: Option<u64>,
}

fn conflict<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::Conflict { what: what.into() })
}

fn unknown<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::IdentityUnknown { what: what.into() })
}

impl Registry {
    /// Puts a policy into force; returns its number. `hash` is the SHA-256 of the document.
    pub async fn set_policy(
        &self,
        expected: Option<u64>,
        document: Vec<u8>,
        hash: [u8; 32],
        tenants: Vec<(TenantName, TenantRecord)>,
    ) -> Result<u64, Error> {
        match self.propose(Action::SetPolicy { expected, document, hash, tenants }).await? {
            Ok(Outcome::PolicySet(epoch)) => Ok(epoch),
            Err(Refusal::PolicyChanged { epoch }) => conflict(format!(
                "policy {epoch} is in force now; look at it with 'nora policy diff' and apply yours again"
            )),
            Err(Refusal::FeatureNotReached { .. }) => not_finished(),
            other => Err(Error::impossible(other)),
        }
    }

    /// Makes an account.
    pub async fn create_account(
        &self,
        account: AccountName,
        is_robot: bool,
        password_hash: String,
        groups: Vec<String>,
    ) -> Result<(), Error> {
        let action = Action::CreateAccount { account, is_robot, password_hash, groups };
        match self.propose(action).await? {
            Ok(Outcome::AccountCreated) => Ok(()),
            Err(Refusal::AccountExists(account)) => {
                conflict(format!("there is an account {account}; choose another name"))
            }
            Err(Refusal::FeatureNotReached { .. }) => not_finished(),
            other => Err(Error::impossible(other)),
        }
    }

    /// Gives an account another password.
    pub async fn set_password(
        &self,
        account: AccountName,
        password_hash: String,
    ) -> Result<(), Error> {
        match self.propose(Action::SetPassword { account, password_hash }).await? {
            Ok(Outcome::PasswordSet) => Ok(()),
            Err(Refusal::AccountUnknown(account)) => {
                unknown(format!("there is no account {account}"))
            }
            other => Err(Error::impossible(other)),
        }
    }

    /// Removes an account; returns how many tokens ended with it.
    pub async fn remove_account(&self, account: AccountName) -> Result<u32, Error> {
        match self.propose(Action::RemoveAccount { account }).await? {
            Ok(Outcome::AccountRemoved { tokens }) => {
                self.metadata.settle().await;
                Ok(tokens)
            }
            Err(Refusal::AccountUnknown(account)) => {
                unknown(format!("there is no account {account}"))
            }
            other => Err(Error::impossible(other)),
        }
    }

    /// Makes a token.
    pub async fn create_token(&self, token: NewToken) -> Result<(), Error> {
        let NewToken { id, found_by, account, record, assertion, policy } = token;
        let action = Action::CreateAccessToken { token: id, found_by, account, record, assertion };
        match self.propose_under(policy, action).await? {
            Ok(Outcome::AccessTokenCreated) => Ok(()),
            Err(Refusal::PolicyChanged { .. }) => Err(Error::PolicyChanged),
            Err(Refusal::AccessTokenExists) => {
                conflict("the owner has a token of that name; choose another, or revoke it first")
            }
            Err(Refusal::AccessTokensTooMany(max)) => conflict(format!(
                "the owner has {max} tokens, which is the most; revoke some first"
            )),
            Err(Refusal::AccountUnknown(account)) => {
                unknown(format!("there is no account {account}"))
            }
            Err(Refusal::AssertionUsed) => Err(Error::AssertionUsed),
            Err(Refusal::AssertionOver) => Err(Error::AssertionOver),
            Err(Refusal::FeatureNotReached { .. }) => not_finished(),
            other => Err(Error::impossible(other)),
        }
    }

    /// Ends a token on every node that can be reached.
    pub async fn revoke_token(&self, token: TokenId) -> Result<(), Error> {
        match self.propose(Action::RevokeAccessToken { token }).await? {
            Ok(Outcome::AccessTokenRevoked) => {
                self.metadata.settle().await;
                Ok(())
            }
            Err(Refusal::AccessTokenUnknown) => {
                unknown("there is no such token; it may be revoked already")
            }
            other => Err(Error::impossible(other)),
        }
    }

    /// Notes when tokens were seen used.
    pub async fn touch_tokens(&self, uses: Vec<(TokenId, Timestamp)>) -> Result<(), Error> {
        match self.propose(Action::TouchAccessTokens { uses }).await? {
            Ok(Outcome::AccessTokensTouched) => Ok(()),
            other => Err(Error::impossible(other)),
        }
    }

    /// Signs with another key from now on, unless another node has added one meanwhile.
    pub async fn add_signing_key(
        &self,
        after: Option<u64>,
        key: SigningKeyRecord,
    ) -> Result<(), Error> {
        match self.propose(Action::AddSigningKey { after, key }).await? {
            Ok(Outcome::SigningKeyAdded(_)) | Err(Refusal::SigningKeyKnown(_)) => Ok(()),
            Err(Refusal::FeatureNotReached { .. }) => not_finished(),
            other => Err(Error::impossible(other)),
        }
    }

    /// Asks for some of a tenant's requests in an hour, and gives back what was not used of it; `None` if they are not
    /// limited.
    pub async fn lease_budget(
        &self,
        tenant: TenantName,
        rate: Rate,
        hour: u64,
        take: u64,
        give_back: u64,
    ) -> Result<Option<(u64, BudgetRecord)>, Error> {
        let action = Action::LeaseBudget { tenant, rate, hour, take, give_back };
        match self.propose(action).await? {
            Ok(Outcome::BudgetLeased { granted, budget }) => Ok(Some((granted, budget))),
            Err(Refusal::NotLimited) => Ok(None),
            other => Err(Error::impossible(other)),
        }
    }

    /// Writes refusals down that never became commands.
    pub async fn note_refusals(&self, refusals: Vec<RefusalNote>) -> Result<(), Error> {
        match self.propose(Action::NoteRefusals { refusals }).await? {
            Ok(Outcome::RefusalsNoted) => Ok(()),
            Err(Refusal::FeatureNotReached { .. }) => not_finished(),
            other => Err(Error::impossible(other)),
        }
    }

    /// Forgets audit entries from before a time.
    pub async fn trim_audit(&self, before: Timestamp) -> Result<(), Error> {
        loop {
            match self.propose(Action::TrimAudit { before }).await? {
                Ok(Outcome::AuditTrimmed { more: true }) => {}
                Ok(Outcome::AuditTrimmed { more: false }) => return Ok(()),
                Err(Refusal::FeatureNotReached { .. }) => return not_finished(),
                other => return Err(Error::impossible(other)),
            }
        }
    }

    /// Notes that the webhook has taken the audit's entries up to that number.
    pub async fn note_audit_sent(&self, number: u64) -> Result<(), Error> {
        match self.propose(Action::NoteAuditSent { number }).await? {
            Ok(Outcome::AuditSentNoted) => Ok(()),
            Err(Refusal::FeatureNotReached { .. }) => not_finished(),
            other => Err(Error::impossible(other)),
        }
    }

    /// Counts a step of blobs that tenants' unique bytes are not exact for yet; true once all are counted.
    pub async fn count_unique(&self) -> Result<bool, Error> {
        match self.propose(Action::CountUnique).await? {
            Ok(Outcome::UniqueCounted { done }) => Ok(done),
            Err(Refusal::FeatureNotReached { .. }) => not_finished(),
            other => Err(Error::impossible(other)),
        }
    }
}

fn not_finished<T>() -> Result<T, Error> {
    conflict(
        "the cluster's upgrade is not finished: when every node runs this version, 'nora cluster finalize-upgrade'",
    )
}
