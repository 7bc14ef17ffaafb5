//! The policy, accounts, tokens and signing keys.
//!
//! Guarantees: every change of what somebody may do raises the identity epoch and tells it, so that nobody's cache
//! outlives it; an issuer's token is exchanged once; a removed account leaves no token behind.

use super::{Decision, Step, Stop, raise};
use crate::command::{Outcome, Refusal};
use crate::event::Event;
use crate::identity::{
    AccessTokenRecord, AccountRecord, AssertionRecord, HOUR_MILLIS, PolicyRecord, SigningKeyRecord,
    TenantRecord,
};
use crate::name::{AccountName, OwnerName, TenantName, TokenName};
use crate::record::{Key, Record, Timestamp, TokenId};
use crate::store::{Rows, Store};

/// Tokens with names that one owner may have.
const TOKENS_MAX: usize = 1_000;
/// Neighbours of a new token, or of a new assertion, that are looked at for expired ones. Both have random names, so the
/// neighbours are a fair sample: once more than one in so many has expired, each new one removes more than it adds.
const SWEPT_MAX: usize = 16;
/// Rows that are read at a time.
const PAGE: usize = 256;
/// More tenants, and more signing keys, than there are.
const FEW_MAX: usize = 100_000;

/// How long a key signs at least.
const SIGNS_MILLIS_MIN: u64 = 24 * 3_600_000;

/// How many signing keys there may be: the newest signs, the others are still good for what they signed.
const SIGNING_KEYS_MAX: usize = 16;

impl<S: Store> Step<'_, S> {
    /// Something about who may do what is another now.
    fn identity_changed(&mut self) {
        raise(&mut self.cluster.identity_epoch, 1);
        self.events.push(Event::IdentityChanged);
    }

    pub(super) fn set_policy(
        &mut self,
        expected: Option<u64>,
        document: &[u8],
        hash: [u8; 32],
        tenants: &[(TenantName, TenantRecord)],
    ) -> Decision<Outcome, S::Error> {
        let epoch = self.cluster.policy_epoch;
        if expected.is_some_and(|expected| expected != epoch) {
            return Err(Stop::Refused(Refusal::PolicyChanged { epoch }));
        }
        raise(&mut self.cluster.policy_epoch, 1);
        let epoch = self.cluster.policy_epoch;
        let by = self.terms.by.as_ref();
        let record = PolicyRecord {
            epoch,
            document: document.to_vec(),
            hash,
            applied_at: self.now,
            applied_by: by.map_or_else(|| "cluster".to_owned(), |actor| actor.subject.clone()),
        };
        self.store.put(Key::Policy, Record::Policy(record))?;
        for (key, _) in self.store.scan(&Rows::Tenants, FEW_MAX)? {
            self.store.delete(&key)?;
        }
        for (tenant, limits) in tenants {
            self.store.put(Key::Tenant(tenant.clone()), Record::Tenant(limits.clone()))?;
        }
        self.identity_changed();
        Ok(Outcome::PolicySet(epoch))
    }

    fn account(&self, account: &AccountName) -> Result<Option<AccountRecord>, S::Error> {
        Ok(read!(self.store, Account, Key::Account(account.clone())))
    }

    pub(super) fn create_account(
        &mut self,
        account: &AccountName,
        is_robot: bool,
        password_hash: &str,
        groups: &[String],
    ) -> Decision<Outcome, S::Error> {
        if self.account(account)?.is_some() {
            return Err(Stop::Refused(Refusal::AccountExists(account.clone())));
        }
        // Whoever had the name before, in an htpasswd file say, leaves nothing to a namesake.
        for kind in ["user", "robot"] {
            self.remove_tokens_of(kind, account)?;
        }
        self.identity_changed();
        let record = AccountRecord {
            is_robot,
            password_hash: password_hash.to_owned(),
            groups: groups.to_vec(),
            created_at: self.now,
            generation: self.cluster.identity_epoch,
        };
        self.store.put(Key::Account(account.clone()), Record::Account(record))?;
        Ok(Outcome::AccountCreated)
    }

    pub(super) fn set_password(
        &mut self,
        account: &AccountName,
        password_hash: &str,
    ) -> Decision<Outcome, S::Error> {
        let Some(known) = self.account(account)? else {
            return Err(Stop::Refused(Refusal::AccountUnknown(account.clone())));
        };
        self.identity_changed();
        let (password_hash, generation) = (password_hash.to_owned(), self.cluster.identity_epoch);
        let record = AccountRecord { password_hash, generation, ..known };
        self.store.put(Key::Account(account.clone()), Record::Account(record))?;
        Ok(Outcome::PasswordSet)
    }

    pub(super) fn remove_account(&mut self, account: &AccountName) -> Decision<Outcome, S::Error> {
        let Some(known) = self.account(account)? else {
            return Err(Stop::Refused(Refusal::AccountUnknown(account.clone())));
        };
        let kind = if known.is_robot { "robot" } else { "user" };
        let tokens = self.remove_tokens_of(kind, account)?;
        self.store.delete(&Key::Account(account.clone()))?;
        self.identity_changed();
        Ok(Outcome::AccountRemoved { tokens })
    }

    /// Removes every token of an owner that has a name; returns how many.
    fn remove_tokens_of(&mut self, kind: &str, account: &AccountName) -> Result<u32, S::Error> {
        let mut tokens = 0;
        // Every account's name makes a valid owner's.
        let Ok(owner) = OwnerName::parse(&format!("{kind}:{account}")) else { return Ok(0) };
        let mut after: Option<TokenName> = None;
        loop {
            let rows = Rows::TokensOf { owner: owner.clone(), after: after.take() };
            let page = self.store.scan(&rows, PAGE)?;
            let is_last = page.len() < PAGE;
            for (key, record) in page {
                if let Record::TokenOf(token) = record {
                    self.store.delete(&Key::AccessToken(token))?;
                    tokens += 1;
                }
                self.store.delete(&key)?;
                if let Key::TokenOf(_, name) = key {
                    after = Some(name);
                }
            }
            if is_last {
                return Ok(tokens);
            }
        }
    }

    pub(super) fn create_access_token(
        &mut self,
        token: TokenId,
        found_by: Option<&(OwnerName, TokenName)>,
        account: Option<&AccountName>,
        record: &AccessTokenRecord,
        assertion: Option<([u8; 32], Timestamp)>,
    ) -> Decision<Outcome, S::Error> {
        if let Some(account) = account
            && self.account(account)?.is_none()
        {
            return Err(Stop::Refused(Refusal::AccountUnknown(account.clone())));
        }
        if read!(self.store, AccessToken, Key::AccessToken(token)).is_some() {
            return Err(Stop::Refused(Refusal::AccessTokenExists));
        }
        if let Some((owner, name)) = found_by {
            let key = Key::TokenOf(owner.clone(), name.clone());
            if read!(self.store, TokenOf, key).is_some() {
                return Err(Stop::Refused(Refusal::AccessTokenExists));
            }
            let rows = Rows::TokensOf { owner: owner.clone(), after: None };
            if self.store.scan(&rows, TOKENS_MAX)?.len() >= TOKENS_MAX {
                return Err(Stop::Refused(Refusal::AccessTokensTooMany(TOKENS_MAX)));
            }
        }
        if let Some((hash, expires_at)) = assertion {
            // What has expired may be swept: whoever's clock still believes the token must not find it unused.
            if expires_at <= self.now {
                return Err(Stop::Refused(Refusal::AssertionOver));
            }
            if read!(self.store, Assertion, Key::Assertion(hash)).is_some() {
                return Err(Stop::Refused(Refusal::AssertionUsed));
            }
        }
        if let Some((owner, name)) = found_by {
            let key = Key::TokenOf(owner.clone(), name.clone());
            self.store.put(key, Record::TokenOf(token))?;
        }
        if let Some((hash, expires_at)) = assertion {
            let used = AssertionRecord { expires_at };
            self.store.put(Key::Assertion(hash), Record::Assertion(used))?;
            self.sweep_assertions(hash)?;
        }
        // The proposer counts from its own clock; the cluster's is what it expires by.
        let lives = record.expires_at.0.saturating_sub(record.created_at.0);
        let record = AccessTokenRecord {
            created_at: self.now,
            expires_at: self.now.plus_millis(lives),
            ..record.clone()
        };
        self.store.put(Key::AccessToken(token), Record::AccessToken(record))?;
        self.sweep_tokens(token)?;
        Ok(Outcome::AccessTokenCreated)
    }

    /// Removes workload tokens that have expired for an hour among the neighbours of a new one: a request that one of them
    /// began may still run, and must find that it was not revoked. Tokens with names stay until they are revoked:
    /// their owners shall see that they expired.
    fn sweep_tokens(&mut self, token: TokenId) -> Result<(), S::Error> {
        let rows = Rows::AccessTokens { after: Some(token) };
        for (key, record) in self.store.scan(&rows, SWEPT_MAX)? {
            if matches!(&record, Record::AccessToken(old) if old.is_workload && old.expires_at.plus_millis(HOUR_MILLIS) <= self.now)
            {
                self.store.delete(&key)?;
            }
        }
        Ok(())
    }

    fn sweep_assertions(&mut self, hash: [u8; 32]) -> Result<(), S::Error> {
        let rows = Rows::Assertions { after: Some(hash) };
        for (key, record) in self.store.scan(&rows, SWEPT_MAX)? {
            if matches!(&record, Record::Assertion(old) if old.expires_at <= self.now) {
                self.store.delete(&key)?;
            }
        }
        Ok(())
    }

    pub(super) fn revoke_access_token(&mut self, token: TokenId) -> Decision<Outcome, S::Error> {
        let key = Key::AccessToken(token);
        let Some(known) = read!(self.store, AccessToken, key) else {
            return Err(Stop::Refused(Refusal::AccessTokenUnknown));
        };
        if !known.is_workload
            && let (Ok(owner), Ok(name)) =
                (OwnerName::parse(&known.owner), TokenName::parse(&known.name))
        {
            self.store.delete(&Key::TokenOf(owner, name))?;
        }
        self.store.delete(&key)?;
        self.identity_changed();
        Ok(Outcome::AccessTokenRevoked)
    }

    pub(super) fn touch_access_tokens(
        &mut self,
        uses: &[(TokenId, Timestamp)],
    ) -> Decision<Outcome, S::Error> {
        for (token, used_at) in uses {
            let key = Key::AccessToken(*token);
            let Some(known) = read!(self.store, AccessToken, key) else { continue };
            // Nobody's clock makes a token used in the future.
            let last_used_at = known.last_used_at.max((*used_at).min(self.now));
            if last_used_at != known.last_used_at {
                let record = AccessTokenRecord { last_used_at, ..known };
                self.store.put(key, Record::AccessToken(record))?;
            }
        }
        Ok(Outcome::AccessTokensTouched)
    }

    pub(super) fn add_signing_key(
        &mut self,
        after: Option<u64>,
        key: &SigningKeyRecord,
    ) -> Decision<Outcome, S::Error> {
        let mut keys = self.store.scan(&Rows::SigningKeys, FEW_MAX)?;
        let newest = keys.iter().rev().find_map(|(key, _)| match key {
            Key::SigningKey(number) => Some(*number),
            _ => None,
        });
        if let Some(newest) = newest.filter(|newest| Some(*newest) != after) {
            return Err(Stop::Refused(Refusal::SigningKeyKnown(newest)));
        }
        // A node whose clock is ahead must not push out the keys that are in use.
        let is_young = |record: &Record| {
            matches!(record, Record::SigningKey(key)
                if key.created_at.plus_millis(SIGNS_MILLIS_MIN) > self.now)
        };
        if let Some(newest) = newest.filter(|_| keys.last().is_some_and(|(_, key)| is_young(key))) {
            return Err(Stop::Refused(Refusal::SigningKeyKnown(newest)));
        }
        let number = newest.unwrap_or(0).saturating_add(1);
        let excess = (keys.len() + 1).saturating_sub(SIGNING_KEYS_MAX);
        for (place, (key, record)) in keys.drain(..).enumerate() {
            let is_over = matches!(&record, Record::SigningKey(old) if old.expires_at <= self.now);
            if is_over || place < excess {
                self.store.delete(&key)?;
            }
        }
        let lives = key.expires_at.0.saturating_sub(key.created_at.0);
        let record = SigningKeyRecord {
            created_at: self.now,
            expires_at: self.now.plus_millis(lives),
            ..key.clone()
        };
        self.store.put(Key::SigningKey(number), Record::SigningKey(record))?;
        self.identity_changed();
        Ok(Outcome::SigningKeyAdded(number))
    }
}
