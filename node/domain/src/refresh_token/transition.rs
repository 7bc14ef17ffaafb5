//! Refresh tokens that are made and ended.
//!
//! Guarantees: a refresh token of an account that the cluster keeps is of that account's present password; an owner has
//! no more than [`REFRESH_TOKENS_MAX`]. Ending one raises the identity epoch, so that no cache outlives it.
//!
//! Expired rows go when their owner, or the owner before in the order of keys, gets another refresh token. So an owner
//! that never comes back keeps a bounded number of rows, and those in use keep their neighbours clean.

use super::{CreateRefreshToken, REFRESH_TOKENS_MAX, RefreshTokenRecord, RevokeRefreshTokens};
use crate::command::Refusal;
use crate::ids::TokenId;
use crate::journal::Subject;
use crate::names::{AccountName, OwnerName};
use crate::state::{Key, Record, Rows, Store};
use crate::time::{HOUR_MILLIS, Timestamp};
use crate::transition::{Decision, Step, refuse};

/// Neighbours of a new refresh token that are looked at for expired ones.
const SWEPT_MAX: usize = 16;

/// The account that an owner's name speaks of, and whether it is a robot's. The administrator's is neither.
fn account_of(owner: &OwnerName) -> Option<(AccountName, Option<bool>)> {
    let (name, is_robot) = match Subject::parse(owner.as_str())? {
        Subject::User(name) => (name, Some(false)),
        Subject::Robot(name) => (name, Some(true)),
        Subject::Administrator => (owner.as_str().into(), None),
        _ => return None,
    };
    Some((AccountName::parse(&name).ok()?, is_robot))
}

/// Whether a token may be forgotten. A request that it began may still run, and must not find it revoked.
fn is_forgotten(record: &Record, now: Timestamp) -> bool {
    matches!(record, Record::RefreshToken(token)
        if token.expires_at.plus_millis(HOUR_MILLIS) <= now)
}

impl<S: Store> Step<'_, S> {
    pub(crate) fn create_refresh_token(
        &mut self,
        command: &CreateRefreshToken,
    ) -> Decision<(), S::Error> {
        let CreateRefreshToken { token, owner, generation, lives_millis, address } = command;
        if let Some((name, is_robot)) = account_of(owner)
            && let Some(account) = self.account(&name)?
            && (account.generation != *generation
                || is_robot.is_some_and(|is_robot| is_robot != account.is_robot))
        {
            return refuse(Refusal::AccountChanged(name));
        }
        let rows = Rows::RefreshTokensOf { owner: owner.clone(), after: None };
        let mut kept = Vec::new();
        for (key, record) in self.store.scan(&rows, REFRESH_TOKENS_MAX + 1)? {
            if is_forgotten(&record, self.now) {
                self.store.delete(&key)?;
            } else if let (Key::RefreshToken(_, of), Record::RefreshToken(record)) = (key, record) {
                kept.push((record.created_at, of));
            }
        }
        let excess = (kept.len() + 1).saturating_sub(REFRESH_TOKENS_MAX);
        kept.sort_unstable();
        for (_, oldest) in kept.into_iter().take(excess) {
            self.store.delete(&Key::RefreshToken(owner.clone(), oldest))?;
        }
        if excess > 0 {
            self.identity_changed();
        }
        let record = RefreshTokenRecord {
            generation: *generation,
            created_at: self.now,
            expires_at: self.now.plus_millis(*lives_millis),
            address: address.clone(),
        };
        let key = Key::RefreshToken(owner.clone(), *token);
        self.store.put(key, Record::RefreshToken(record))?;
        let after = Some((owner.clone(), TokenId(u128::MAX)));
        for (key, record) in self.store.scan(&Rows::RefreshTokens { after }, SWEPT_MAX)? {
            if is_forgotten(&record, self.now) {
                self.store.delete(&key)?;
            }
        }
        Ok(())
    }

    pub(crate) fn revoke_refresh_tokens(
        &mut self,
        command: &RevokeRefreshTokens,
    ) -> Decision<u32, S::Error> {
        let RevokeRefreshTokens { owner, token } = command;
        let ended = match token {
            Some(token) => {
                let key = Key::RefreshToken(owner.clone(), *token);
                let is_there = self.store.get(&key)?.is_some();
                if is_there {
                    self.store.delete(&key)?;
                }
                u32::from(is_there)
            }
            None => self.remove_refresh_tokens_of(owner)?,
        };
        if ended == 0 {
            return refuse(Refusal::RefreshTokenUnknown);
        }
        self.identity_changed();
        Ok(ended)
    }

    /// Removes every refresh token of an owner; returns how many those were.
    fn remove_refresh_tokens_of(&mut self, owner: &OwnerName) -> Result<u32, S::Error> {
        let rows = Rows::RefreshTokensOf { owner: owner.clone(), after: None };
        let rows = self.store.scan(&rows, REFRESH_TOKENS_MAX + 1)?;
        for (key, _) in &rows {
            self.store.delete(key)?;
        }
        Ok(u32::try_from(rows.len()).unwrap_or(u32::MAX))
    }

    /// Removes every refresh token of logins with an account's name.
    pub(crate) fn remove_refresh_tokens_of_account(
        &mut self,
        account: &AccountName,
    ) -> Result<(), S::Error> {
        let names = [format!("user:{account}"), format!("robot:{account}"), account.to_string()];
        for name in names {
            let Ok(owner) = OwnerName::parse(&name) else { continue };
            if account_of(&owner).is_some_and(|(of, _)| of == *account) {
                self.remove_refresh_tokens_of(&owner)?;
            }
        }
        Ok(())
    }
}
