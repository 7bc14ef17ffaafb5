//! Accounts that the cluster keeps.

use nora_domain::{
    AccountName, AccountRecord, CreateAccount, Key, Record, RemoveAccount, Rows, SetPassword,
};

use crate::core::{Core, record};
use crate::{Error, Page};

/// The accounts.
#[derive(Clone, Copy)]
pub struct Accounts<'a> {
    core: &'a Core,
}

impl<'a> Accounts<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// Makes an account.
    pub async fn create(
        self,
        account: AccountName,
        is_robot: bool,
        password_hash: String,
        groups: Vec<String>,
    ) -> Result<(), Error> {
        self.core.change(CreateAccount { account, is_robot, password_hash, groups }).await
    }

    /// Gives an account another password.
    pub async fn set_password(
        self,
        account: AccountName,
        password_hash: String,
    ) -> Result<(), Error> {
        self.core.change(SetPassword { account, password_hash }).await
    }

    /// Removes an account; returns how many tokens ended with it.
    pub async fn remove(self, account: AccountName) -> Result<u32, Error> {
        let removed = self.core.change(RemoveAccount { account }).await?;
        self.core.settle().await;
        Ok(removed.tokens)
    }

    /// An account, as this node has applied it.
    pub async fn get(self, account: AccountName) -> Result<Option<AccountRecord>, Error> {
        Ok(record!(Account, self.core.row(Key::Account(account)).await?))
    }

    /// Accounts after `after`.
    pub async fn list(
        self,
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
}
