//! Refresh tokens: what keeps a login going.

use nora_domain::{
    CreateRefreshToken, Key, OwnerName, REFRESH_TOKENS_MAX, Record, RefreshTokenRecord,
    RevokeRefreshTokens, Rows, TokenId,
};

use crate::core::{Core, record};
use crate::{Error, Page};

/// A refresh token with its owner and its name.
pub type OwnedRefreshToken = (OwnerName, TokenId, RefreshTokenRecord);

/// The refresh tokens.
#[derive(Clone, Copy)]
pub struct RefreshTokens<'a> {
    core: &'a Core,
}

impl<'a> RefreshTokens<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// Makes a refresh token. Refused if the login that it comes from is not good any more.
    pub async fn create(
        self,
        token: TokenId,
        owner: OwnerName,
        generation: u64,
        lives_millis: u64,
        address: String,
    ) -> Result<(), Error> {
        let command = CreateRefreshToken { token, owner, generation, lives_millis, address };
        self.core.change(command).await
    }

    /// Ends a refresh token, or all of an owner's, on every node that can be reached; returns how many those were.
    pub async fn revoke(self, owner: OwnerName, token: Option<TokenId>) -> Result<u32, Error> {
        let ended = self.core.change(RevokeRefreshTokens { owner, token }).await?;
        self.core.settle().await;
        Ok(ended)
    }

    /// A refresh token, by its owner and its name. A miss is asked again, as for an access token.
    pub async fn get(
        self,
        owner: OwnerName,
        token: TokenId,
    ) -> Result<Option<RefreshTokenRecord>, Error> {
        let row = self.core.immutable_row(Key::RefreshToken(owner, token)).await?;
        Ok(record!(RefreshToken, row))
    }

    /// Refresh tokens after `after`.
    pub async fn list(
        self,
        after: Option<(OwnerName, TokenId)>,
        limit: usize,
    ) -> Result<Page<OwnedRefreshToken>, Error> {
        self.core.catch_up().await?;
        let rows = self.core.rows(Rows::RefreshTokens { after }, limit + 1).await?;
        Ok(Page::cut(rows.into_iter().filter_map(owned).collect(), limit))
    }

    /// Refresh tokens of one owner: all of them, for there is a limit to how many one may have.
    pub async fn of(self, owner: OwnerName) -> Result<Vec<OwnedRefreshToken>, Error> {
        self.core.catch_up().await?;
        let rows = Rows::RefreshTokensOf { owner, after: None };
        let rows = self.core.rows(rows, REFRESH_TOKENS_MAX).await?;
        Ok(rows.into_iter().filter_map(owned).collect())
    }
}

fn owned(row: (Key, Record)) -> Option<OwnedRefreshToken> {
    match row {
        (Key::RefreshToken(owner, token), Record::RefreshToken(record)) => {
            Some((owner, token, record))
        }
        _ => None,
    }
}
