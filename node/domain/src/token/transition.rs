//! Tokens that are made, used and revoked.
//!
//! Guarantees: an issuer's token is exchanged once; a token is found by its owner and name exactly while it is there.

use super::{
    AccessTokenRecord, AssertionRecord, CreateAccessToken, RevokeAccessToken, TouchAccessTokens,
};
use crate::command::Refusal;
use crate::ids::TokenId;
use crate::names::{OwnerName, TokenName};
use crate::state::{Key, Record, Rows, Store};
use crate::time::HOUR_MILLIS;
use crate::transition::{Decision, Step, refuse};

/// Tokens with names that one owner may have.
const TOKENS_MAX: usize = 1_000;
/// Neighbours of a new token, or of a new assertion, that are looked at for expired ones. Both have random names, so the
/// neighbours are a fair sample: once more than one in so many has expired, each new one removes more than it adds.
const SWEPT_MAX: usize = 16;

impl<S: Store> Step<'_, S> {
    pub(crate) fn create_access_token(
        &mut self,
        command: &CreateAccessToken,
    ) -> Decision<(), S::Error> {
        let CreateAccessToken { token, found_by, account, record, assertion } = command;
        if let Some(account) = account
            && self.account(account)?.is_none()
        {
            return refuse(Refusal::AccountUnknown(account.clone()));
        }
        if read!(self.store, AccessToken, Key::AccessToken(*token)).is_some() {
            return refuse(Refusal::AccessTokenExists);
        }
        if let Some((owner, name)) = found_by {
            let key = Key::TokenOf(owner.clone(), name.clone());
            if read!(self.store, TokenOf, key).is_some() {
                return refuse(Refusal::AccessTokenExists);
            }
            let rows = Rows::TokensOf { owner: owner.clone(), after: None };
            if self.store.scan(&rows, TOKENS_MAX)?.len() >= TOKENS_MAX {
                return refuse(Refusal::AccessTokensTooMany(TOKENS_MAX));
            }
        }
        if let Some((hash, expires_at)) = assertion {
            // What has expired may be swept: a node whose clock still believes the token must not find it unused.
            if *expires_at <= self.now {
                return refuse(Refusal::AssertionOver);
            }
            if read!(self.store, Assertion, Key::Assertion(*hash)).is_some() {
                return refuse(Refusal::AssertionUsed);
            }
        }
        if let Some((owner, name)) = found_by {
            let key = Key::TokenOf(owner.clone(), name.clone());
            self.store.put(key, Record::TokenOf(*token))?;
        }
        if let Some((hash, expires_at)) = assertion {
            let used = AssertionRecord { expires_at: *expires_at };
            self.store.put(Key::Assertion(*hash), Record::Assertion(used))?;
            self.sweep_assertions(*hash)?;
        }
        // The proposer counts from its own clock; the cluster's is what the token expires by.
        let lives = record.expires_at.millis_since(record.created_at);
        let record = AccessTokenRecord {
            created_at: self.now,
            expires_at: self.now.plus_millis(lives),
            ..record.clone()
        };
        self.store.put(Key::AccessToken(*token), Record::AccessToken(record))?;
        self.sweep_tokens(*token)?;
        Ok(())
    }

    /// Removes workload tokens that have expired for an hour among the neighbours of a new one: a request that one of them
    /// began may still run, and must find that it was not revoked. Tokens with names stay until they are revoked:
    /// their owners shall see that they expired.
    fn sweep_tokens(&mut self, token: TokenId) -> Result<(), S::Error> {
        let rows = Rows::AccessTokens { after: Some(token) };
        for (key, record) in self.store.scan(&rows, SWEPT_MAX)? {
            let is_over = matches!(&record, Record::AccessToken(old) if old.is_workload
                && old.expires_at.plus_millis(HOUR_MILLIS) <= self.now);
            if is_over {
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

    pub(crate) fn revoke_access_token(
        &mut self,
        command: &RevokeAccessToken,
    ) -> Decision<(), S::Error> {
        let key = Key::AccessToken(command.token);
        let Some(known) = read!(self.store, AccessToken, key) else {
            return refuse(Refusal::AccessTokenUnknown);
        };
        if !known.is_workload
            && let (Ok(owner), Ok(name)) =
                (OwnerName::parse(&known.owner), TokenName::parse(&known.name))
        {
            self.store.delete(&Key::TokenOf(owner, name))?;
        }
        self.store.delete(&key)?;
        self.identity_changed();
        Ok(())
    }

    pub(crate) fn touch_access_tokens(
        &mut self,
        command: &TouchAccessTokens,
    ) -> Decision<(), S::Error> {
        for (token, used_at) in &command.uses {
            let key = Key::AccessToken(*token);
            let Some(known) = read!(self.store, AccessToken, key) else { continue };
            // A node's clock that is ahead makes no token used in the future.
            let last_used_at = known.last_used_at.max((*used_at).min(self.now));
            if last_used_at != known.last_used_at {
                let record = AccessTokenRecord { last_used_at, ..known };
                self.store.put(key, Record::AccessToken(record))?;
            }
        }
        Ok(())
    }
}
