//! The policy, accounts, tokens and signing keys.

use nora_domain::{
    AccessTokenRecord, AccountName, AddSigningKey, BudgetLeased, BudgetRecord, CreateAccessToken,
    CreateAccount, LeaseBudget, LimitsRecord, OwnerName, Rate, Refusal, RemoveAccount,
    RevokeAccessToken, SetPassword, SetPolicy, SigningKeyRecord, TenantName, Timestamp, TokenId,
    TokenName, TouchAccessTokens,
};

use crate::{Error, Registry};

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its public part.
    pub id: TokenId,
    /// Its owner and its name, if it shall be found by them.
    pub found_by: Option<(OwnerName, TokenName)>,
    /// The account that owns it, if the cluster keeps that.
    pub account: Option<AccountName>,
    /// What is known of it.
    pub record: AccessTokenRecord,
    /// The issuer's token that it is exchanged for, by a hash of its name, and when that expires.
    pub assertion: Option<([u8; 32], Timestamp)>,
    /// The policy by which it gets what it gets; `None` if that has no say.
    pub policy: Option<u64>,
}

impl Registry {
    /// Puts a policy into force; returns its number. `hash` is the SHA-256 of the document.
    pub async fn set_policy(
        &self,
        expected: Option<u64>,
        document: Vec<u8>,
        hash: [u8; 32],
        tenants: Vec<(TenantName, LimitsRecord)>,
    ) -> Result<u64, Error> {
        match self.core.propose(SetPolicy { expected, document, hash, tenants }).await? {
            Err(Refusal::PolicyChanged { epoch }) => Err(Error::Conflict {
                what: format!(
                    "policy {epoch} is in force now; look at it with 'nora policy diff' and apply yours again"
                ),
            }),
            answer => Ok(answer?),
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
        self.core.change(CreateAccount { account, is_robot, password_hash, groups }).await
    }

    /// Gives an account another password.
    pub async fn set_password(
        &self,
        account: AccountName,
        password_hash: String,
    ) -> Result<(), Error> {
        self.core.change(SetPassword { account, password_hash }).await
    }

    /// Removes an account; returns how many tokens ended with it.
    pub async fn remove_account(&self, account: AccountName) -> Result<u32, Error> {
        let removed = self.core.change(RemoveAccount { account }).await?;
        self.core.settle().await;
        Ok(removed.tokens)
    }

    /// Makes a token.
    pub async fn create_token(&self, token: NewToken) -> Result<(), Error> {
        let NewToken { id, found_by, account, record, assertion, policy } = token;
        let command = CreateAccessToken { token: id, found_by, account, record, assertion };
        Ok(self.core.propose_judged_by(policy, command).await??)
    }

    /// Ends a token on every node that can be reached.
    pub async fn revoke_token(&self, token: TokenId) -> Result<(), Error> {
        self.core.change(RevokeAccessToken { token }).await?;
        self.core.settle().await;
        Ok(())
    }

    /// Notes when tokens were seen used.
    pub async fn touch_tokens(&self, uses: Vec<(TokenId, Timestamp)>) -> Result<(), Error> {
        self.core.change(TouchAccessTokens { uses }).await
    }

    /// Signs with another key from now on, unless another node has added one meanwhile.
    pub async fn add_signing_key(
        &self,
        after: Option<u64>,
        key: SigningKeyRecord,
    ) -> Result<(), Error> {
        match self.core.propose(AddSigningKey { after, key }).await? {
            Ok(_) | Err(Refusal::SigningKeyKnown(_)) => Ok(()),
            Err(refusal) => Err(refusal.into()),
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
        match self.core.propose(LeaseBudget { tenant, rate, hour, take, give_back }).await? {
            Ok(BudgetLeased { granted, budget }) => Ok(Some((granted, budget))),
            Err(Refusal::NotLimited) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
