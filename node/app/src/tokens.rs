//! Access tokens.

use nora_domain::{
    AccessTokenRecord, AccountName, CreateAccessToken, Key, OwnerName, Record, RevokeAccessToken,
    Rows, Timestamp, TokenId, TokenName, TouchAccessTokens,
};

use crate::core::{Core, record};
use crate::{Error, Page};

/// More tokens with names than one owner may have.
const TOKENS_OF_ONE_MAX: usize = 2_000;

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

/// The access tokens.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    core: &'a Core,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// Makes a token.
    pub async fn create(self, token: NewToken) -> Result<(), Error> {
        let NewToken { id, found_by, account, record, assertion, policy } = token;
        let command = CreateAccessToken { token: id, found_by, account, record, assertion };
        Ok(self.core.propose_judged_by(policy, command).await??)
    }

    /// Ends a token on every node that can be reached.
    pub async fn revoke(self, token: TokenId) -> Result<(), Error> {
        self.core.change(RevokeAccessToken { token }).await?;
        self.core.settle().await;
        Ok(())
    }

    /// Notes when tokens were seen used.
    pub async fn touch(self, uses: Vec<(TokenId, Timestamp)>) -> Result<(), Error> {
        self.core.change(TouchAccessTokens { uses }).await
    }

    /// A token, by its public part. One that this node does not know yet may have been made on another a moment ago, so a
    /// miss is asked again.
    pub async fn get(self, token: TokenId) -> Result<Option<AccessTokenRecord>, Error> {
        Ok(record!(AccessToken, self.core.immutable_row(Key::AccessToken(token)).await?))
    }

    /// A token, by its owner and its name.
    pub async fn named(self, owner: OwnerName, name: TokenName) -> Result<Option<TokenId>, Error> {
        self.core.catch_up().await?;
        Ok(record!(TokenOf, self.core.row(Key::TokenOf(owner, name)).await?))
    }

    /// Tokens after `after`.
    pub async fn list(
        self,
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
    pub async fn of(self, owner: OwnerName) -> Result<Vec<(TokenId, AccessTokenRecord)>, Error> {
        self.core.catch_up().await?;
        let rows = Rows::TokensOf { owner, after: None };
        let rows = self.core.rows(rows, TOKENS_OF_ONE_MAX).await?;
        let mut tokens = Vec::with_capacity(rows.len());
        for (_, record) in rows {
            let Record::TokenOf(id) = record else { continue };
            // One that was revoked since the scan is left out.
            if let Some(token) = record!(AccessToken, self.core.row(Key::AccessToken(id)).await?) {
                tokens.push((id, token));
            }
        }
        Ok(tokens)
    }
}
