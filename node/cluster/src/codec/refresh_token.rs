//! Refresh tokens' records and commands.

use nora_domain::{CreateRefreshToken, RefreshTokenRecord, RevokeRefreshTokens};
use nora_proto::{command::v1 as command, record::v1 as record};

fields!(RefreshTokenRecord => record::RefreshToken { generation, created_at, expires_at, address });

fields!(CreateRefreshToken => command::CreateRefreshToken {
    token,
    owner,
    generation,
    lives_millis,
    address,
});
fields!(RevokeRefreshTokens => command::RevokeRefreshTokens { owner, token });
