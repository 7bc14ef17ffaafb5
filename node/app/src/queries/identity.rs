//! The policy, accounts, tokens and the audit log, as this node has applied them.

use nora_domain::TenantName;
use nora_domain::identity::{
    AccessTokenRecord, AccountRecord, AuditHeadRecord, AuditRecord, BudgetRecord, PolicyRecord,
    Rate, SigningKeyRecord, TenantRecord,
};
use nora_domain::name::{AccountName, OwnerName, TokenName};
use nora_domain::record::{ClusterRecord, Key, Record, Timestamp, TokenId};
use nora_domain::store::Rows;

use super::Page;
use crate::{Error, Registry};

/// More signing keys than there are.
const SIGNING_KEYS_MAX: usize = 100;

/// Reads a row as the one kind of record that belongs there.
macro_rules! read {
    ($registry:expr, $kind:ident, $key:expr) => {
        match $registry.row($key).await? {
            Some(Record::$kind(record)) => Ok(Some(record)),
            Some(other) => Err(Registry::wrong_record(&other)),
            None => Ok(None),
        }
    };
}

impl Registry {
    /// Waits until reads on this node show every change that was acknowledged before.
    pub async fn catch_up(&self) -> Result<(), Error> {
        Ok(self.metadata.linearize().await?)
    }

    /// Cluster-wide counters.
    pub async fn cluster(&self) -> Result<ClusterRecord, Error> {
        let record: Result<Option<ClusterRecord>, Error> = read!(self, Cluster, Key::Cluster);
        Ok(record?.unwrap_or_default())
    }

    /// The policy in force, if there is one.
    pub async fn policy(&self) -> Result<Option<PolicyRecord>, Error> {
        read!(self, Policy, Key::Policy)
    }

    /// What the policy lets a tenant use.
    pub async fn tenant_limits(&self, tenant: TenantName) -> Result<TenantRecord, Error> {
        let record: Result<Option<TenantRecord>, Error> = read!(self, Tenant, Key::Tenant(tenant));
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
        self.metadata.linearize().await?;
        let rows = self.metadata.scan(Rows::Accounts { after }, limit + 1).await?;
        let accounts = rows.into_iter().filter_map(|row| match row {
            (Key::Account(name), Record::Account(record)) => Some((name, record)),
            _ => None,
        });
        Ok(Page::cut(accounts.collect(), limit))
    }

    /// A token, by its public part. One that this node does not know yet may have been made on another a moment ago, so a
    /// miss is asked again.
    pub async fn token(&self, token: TokenId) -> Result<Option<AccessTokenRecord>, Error> {
        match self.get_immutable(Key::AccessToken(token)).await? {
            Some(Record::AccessToken(record)) => Ok(Some(record)),
            Some(other) => Err(Self::wrong_record(&other)),
            None => Ok(None),
        }
    }

    /// A token, by its owner and its name.
    pub async fn token_named(
        &self,
        owner: OwnerName,
        name: TokenName,
    ) -> Result<Option<TokenId>, Error> {
        self.metadata.linearize().await?;
        read!(self, TokenOf, Key::TokenOf(owner, name))
    }

    /// Tokens after `after`.
    pub async fn tokens(
        &self,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Page<(TokenId, AccessTokenRecord)>, Error> {
        self.metadata.linearize().await?;
        let rows = self.metadata.scan(Rows::AccessTokens { after }, limit + 1).await?;
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
        self.metadata.linearize().await?;
        let rows = self.metadata.scan(Rows::TokensOf { owner, after: None }, 2_000).await?;
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
        let rows = self.metadata.scan(Rows::SigningKeys, SIGNING_KEYS_MAX).await?;
        let keys = rows.into_iter().filter_map(|row| match row {
            (Key::SigningKey(number), Record::SigningKey(record)) => Some((number, record)),
            _ => None,
        });
        Ok(keys.collect())
    }

    /// Where the audit log begins and ends.
    pub async fn audit_head(&self) -> Result<AuditHeadRecord, Error> {
        let record: Result<Option<AuditHeadRecord>, Error> = read!(self, AuditHead, Key::AuditHead);
        let empty = AuditHeadRecord { first: 1, next: 1, ..AuditHeadRecord::default() };
        Ok(record?.unwrap_or(empty))
    }

    /// Number of the last entry of the audit log that the webhook took; 0 if none.
    pub async fn audit_sent(&self) -> Result<u64, Error> {
        self.metadata.linearize().await?;
        Ok(self.audit_head().await?.sent)
    }

    /// Number of the last entry of the audit log from before a time; entries are in the order of their times.
    pub async fn audit_before(&self, time: Timestamp) -> Result<u64, Error> {
        let head = self.audit_head().await?;
        let (mut low, mut high) = (head.first, head.next);
        while low < high {
            let middle = low + (high - low) / 2;
            let page = self.audit_entries(middle.saturating_sub(1), 1).await?;
            match page.items.first() {
                // Forgotten meanwhile: what is kept begins later.
                Some((number, _)) if *number > middle => low = *number,
                Some((_, entry)) if entry.at < time => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low.saturating_sub(1))
    }

    /// Entries of the audit log after number `after`, as this node has applied them.
    pub async fn audit_entries(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Page<(u64, AuditRecord)>, Error> {
        let rows = self.metadata.scan(Rows::Audit { after }, limit + 1).await?;
        let entries = rows.into_iter().filter_map(|row| match row {
            (Key::Audit(number), Record::Audit(record)) => Some((number, record)),
            _ => None,
        });
        Ok(Page::cut(entries.collect(), limit))
    }

    /// Recomputes the chain over all entries that are kept; the number of the first that does not follow from those
    /// before it.
    pub async fn verify_audit(&self) -> Result<Option<u64>, Error> {
        self.metadata.linearize().await?;
        loop {
            let head = self.audit_head().await?;
            let broken = self.verify_audit_from(&head).await?;
            // What is forgotten while this reads breaks nothing.
            if broken.is_none() || self.audit_head().await?.first == head.first {
                return Ok(broken);
            }
        }
    }

    async fn verify_audit_from(&self, head: &AuditHeadRecord) -> Result<Option<u64>, Error> {
        let (mut next, mut chain) = (head.first, head.anchor);
        loop {
            let page = self.audit_entries(next.saturating_sub(1), 1_000).await?;
            for (number, entry) in &page.items {
                if *number != next || entry.chained(&chain, *number) != entry.chain {
                    return Ok(Some(next));
                }
                (next, chain) = (number + 1, entry.chain);
            }
            if !page.more {
                // Entries that came since the head was read only go on.
                let is_whole = next > head.next || (next == head.next && chain == head.head);
                return Ok((!is_whole).then_some(next));
            }
        }
    }
}
