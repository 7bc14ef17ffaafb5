//! The policy, accounts and tokens, as this node has applied them.

use nora_domain::{
    AccessTokenRecord, AccountName, AccountRecord, AuthorityRecord, BudgetRecord, ClusterRecord,
    Key, LimitsRecord, OwnerName, PolicyRecord, Rate, Record, Rows, SharedSecret, SigningKeyRecord,
    TenantName, TokenId, TokenName,
};

use super::Page;
use crate::{Error, Registry};

/// More signing keys than there are.
const SIGNING_KEYS_MAX: usize = 100;

/// Reads a row as the one kind of record that belongs there.
macro_rules! read {
    ($registry:expr, $kind:ident, $key:expr) => {
        match $registry.core.row($key).await? {
            Some(Record::$kind(record)) => Ok(Some(record)),
            Some(other) => Err(Error::wrong_record(&other)),
            None => Ok(None),
        }
    };
}

impl Registry {
    /// Waits until reads on this node show every change that was acknowledged before.
    pub async fn catch_up(&self) -> Result<(), Error> {
        Ok(self.core.catch_up().await?)
    }

    /// Cluster-wide counters.
    pub async fn cluster(&self) -> Result<ClusterRecord, Error> {
        let record: Result<Option<ClusterRecord>, Error> = read!(self, Cluster, Key::Cluster);
        Ok(record?.unwrap_or_default())
    }

    /// What all members know and nobody else: the secret in force, and the one that comes while it is replaced. Empty before
    /// the cluster is founded.
    pub async fn shared_secrets(&self) -> Result<Vec<SharedSecret>, Error> {
        let record: Result<Option<AuthorityRecord>, Error> = read!(self, Authority, Key::Authority);
        Ok(record?.map_or_else(Vec::new, |record| {
            let next = record.rotation.map(|rotation| rotation.secret);
            [Some(record.secret), next].into_iter().flatten().collect()
        }))
    }

    /// The policy in force, if there is one.
    pub async fn policy(&self) -> Result<Option<PolicyRecord>, Error> {
        read!(self, Policy, Key::Policy)
    }

    /// What the policy lets a tenant use.
    pub async fn tenant_limits(&self, tenant: TenantName) -> Result<LimitsRecord, Error> {
        let record: Result<Option<LimitsRecord>, Error> = read!(self, Limits, Key::Limits(tenant));
        Ok(record?.unwrap_or_default())
    }

    /// What was granted of a tenant's requests.
    pub async fn budget(&self, tenant: TenantName, rate: Rate) -> Result<BudgetRecord, Error> {
        let key = Key::Budget(tenant, rate);
        let record: Result<Option<BudgetRecord>, Error> = read!(self, Budget, key);
        Ok(record?.unwrap_or_default())
    }

    /// An account.
    pub async fn account(&self, account: AccountName) -> Result<Option<AccountRecord>, Error> {
        read!(self, Account, Key::Account(account))
    }

    /// Accounts after `after`.
    pub async fn accounts(
        &self,
        after: Option<AccountName>,
        limit: usize,
    ) -> Result<Page<(AccountName, AccountRecord)>, Error> {
        self.core.catch_up().await?;
        let rows = self.core.rows(Rows::Accounts { after }, limit + 1).await?;
        let accounts = rows.into_iter().filter_map(|row| match row {
            (Key::Account(name), Record::Account(record)) => Some((name, record)),
            _ => None,
        });
        Ok(Page::cut(accounts.collect(), limit))
    }

    /// A token, by its public part. One that this node does not know yet may have been made on another a moment ago, so a
    /// miss is asked again.
    pub async fn token(&self, token: TokenId) -> Result<Option<AccessTokenRecord>, Error> {
        match self.core.immutable_row(Key::AccessToken(token)).await? {
            Some(Record::AccessToken(record)) => Ok(Some(record)),
            Some(other) => Err(Error::wrong_record(&other)),
            None => Ok(None),
        }
    }

    /// A token, by its owner and its name.
    pub async fn token_named(
        &self,
        owner: OwnerName,
        name: TokenName,
    ) -> Result<Option<TokenId>, Error> {
        self.core.catch_up().await?;
        read!(self, TokenOf, Key::TokenOf(owner, name))
    }

    /// Tokens after `after`.
    pub async fn tokens(
        &self,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Page<(TokenId, AccessTokenRecord)>, Error> {
        self.core.catch_up().await?;
        let rows = self.core.rows(Rows::AccessTokens { after }, limit + 1).await?;
        let tokens = rows.into_iter().filter_map(|row| match row {
            (Key::AccessToken(id), Record::AccessToken(record)) => Some((id, record)),
            _ => None,
        });
        Ok(Page::cut(tokens.collect(), limit))
    }

    /// Tokens of one owner that have names: all of them, for there is a limit to how many one may have.
    pub async fn tokens_of(
        &self,
        owner: OwnerName,
    ) -> Result<Vec<(TokenId, AccessTokenRecord)>, Error> {
        self.core.catch_up().await?;
        let rows = self.core.rows(Rows::TokensOf { owner, after: None }, 2_000).await?;
        let mut tokens = Vec::with_capacity(rows.len());
        for (_, record) in rows {
            let Record::TokenOf(id) = record else { continue };
            // One that was revoked since the scan is left out.
            let record: Result<Option<AccessTokenRecord>, Error> =
                read!(self, AccessToken, Key::AccessToken(id));
            if let Some(record) = record? {
                tokens.push((id, record));
            }
        }
        Ok(tokens)
    }

    /// Signing keys in order of their numbers: the last one signs.
    pub async fn signing_keys(&self) -> Result<Vec<(u64, SigningKeyRecord)>, Error> {
        let rows = self.core.rows(Rows::SigningKeys, SIGNING_KEYS_MAX).await?;
        let keys = rows.into_iter().filter_map(|row| match row {
            (Key::SigningKey(number), Record::SigningKey(record)) => Some((number, record)),
            _ => None,
        });
        Ok(keys.collect())
    }
}
