//! Access tokens' records and commands.

use nora_domain::{
    AccessTokenRecord, AssertionRecord, CreateAccessToken, OwnerName, RevokeAccessToken, Timestamp,
    TokenId, TokenName, TouchAccessTokens,
};
use nora_proto::{command::v1 as command, record::v1 as record};

use super::{Codec, DecodeError};

fields!(AccessTokenRecord => record::AccessToken {
    is_workload,
    owner,
    name,
    secret_hash,
    permissions,
    claims,
    created_at,
    expires_at,
    last_used_at,
});
fields!(AssertionRecord => record::Assertion { expires_at });

fields!(CreateAccessToken => command::CreateAccessToken { token, found_by, account, assertion }
    required { record });
fields!(RevokeAccessToken => command::RevokeAccessToken { token });
fields!(TouchAccessTokens => command::TouchAccessTokens { uses });

impl Codec for (OwnerName, TokenName) {
    type Message = command::FoundBy;

    fn to_proto(&self) -> command::FoundBy {
        command::FoundBy { owner: self.0.to_proto(), name: self.1.to_proto() }
    }

    fn from_proto(message: command::FoundBy) -> Result<Self, DecodeError> {
        Ok((Codec::from_proto(message.owner)?, Codec::from_proto(message.name)?))
    }
}

impl Codec for ([u8; 32], Timestamp) {
    type Message = command::Exchanged;

    fn to_proto(&self) -> command::Exchanged {
        command::Exchanged { hash: self.0.to_proto(), expires_at: self.1.to_proto() }
    }

    fn from_proto(message: command::Exchanged) -> Result<Self, DecodeError> {
        Ok((Codec::from_proto(message.hash)?, Codec::from_proto(message.expires_at)?))
    }
}

impl Codec for (TokenId, Timestamp) {
    type Message = command::TokenUse;

    fn to_proto(&self) -> command::TokenUse {
        command::TokenUse { token: self.0.to_proto(), at: self.1.to_proto() }
    }

    fn from_proto(message: command::TokenUse) -> Result<Self, DecodeError> {
        Ok((Codec::from_proto(message.token)?, Codec::from_proto(message.at)?))
    }
}
