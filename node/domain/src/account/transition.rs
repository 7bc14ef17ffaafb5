//! Accounts that are made, changed and removed.
//!
//! Guarantees: every change of what a caller may do raises the identity epoch and reports it, so that no cache outlives
//! it; a removed account leaves no token behind, and a changed password no refresh token.

use super::{AccountRecord, AccountRemoved, CreateAccount, RemoveAccount, SetPassword};
use crate::command::Refusal;
use crate::journal::Event;
use crate::names::{AccountName, OwnerName, TokenName};
use crate::state::{Key, Record, Rows, Store};
use crate::transition::{Decision, Step, raise, refuse};

/// Rows that are read at a time.
const PAGE: usize = 256;

impl<S: Store> Step<'_, S> {
    /// The rules about who may do what have changed.
    pub(crate) fn identity_changed(&mut self) {
        raise(&mut self.cluster.identity_epoch, 1);
        self.happened(Event::IdentityChanged);
    }

    pub(crate) fn account(&self, account: &AccountName) -> Result<Option<AccountRecord>, S::Error> {
        Ok(read!(self.store, Account, Key::Account(account.clone())))
    }

    pub(crate) fn create_account(&mut self, command: &CreateAccount) -> Decision<(), S::Error> {
        let CreateAccount { account, is_robot, password_hash, groups } = command;
        if self.account(account)?.is_some() {
            return refuse(Refusal::AccountExists(account.clone()));
        }
        // An earlier holder of the name, in an htpasswd file say, leaves nothing to a namesake.
        for kind in ["user", "robot"] {
            self.remove_tokens_of(kind, account)?;
        }
        self.remove_refresh_tokens_of_account(account)?;
        self.identity_changed();
        let record = AccountRecord {
            is_robot: *is_robot,
            password_hash: password_hash.clone(),
            groups: groups.clone(),
            created_at: self.now,
            generation: self.cluster.identity_epoch,
        };
        self.store.put(Key::Account(account.clone()), Record::Account(record))?;
        Ok(())
    }

    pub(crate) fn set_password(&mut self, command: &SetPassword) -> Decision<(), S::Error> {
        let SetPassword { account, password_hash } = command;
        let Some(known) = self.account(account)? else {
            return refuse(Refusal::AccountUnknown(account.clone()));
        };
        self.remove_refresh_tokens_of_account(account)?;
        self.identity_changed();
        let (password_hash, generation) = (password_hash.clone(), self.cluster.identity_epoch);
        let record = AccountRecord { password_hash, generation, ..known };
        self.store.put(Key::Account(account.clone()), Record::Account(record))?;
        Ok(())
    }

    pub(crate) fn remove_account(
        &mut self,
        command: &RemoveAccount,
    ) -> Decision<AccountRemoved, S::Error> {
        let RemoveAccount { account } = command;
        let Some(known) = self.account(account)? else {
            return refuse(Refusal::AccountUnknown(account.clone()));
        };
        let kind = if known.is_robot { "robot" } else { "user" };
        let tokens = self.remove_tokens_of(kind, account)?;
        self.remove_refresh_tokens_of_account(account)?;
        self.store.delete(&Key::Account(account.clone()))?;
        self.identity_changed();
        Ok(AccountRemoved { tokens })
    }

    /// Removes every token of an owner that has a name; returns how many. An owner has at most a thousand of them.
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
}
