//! Join tokens' records and commands.

use nora_domain::{AdmitNode, CreateJoinToken, JoinTokenRecord, RevokeJoinToken};
use nora_proto::{command::v1 as command, record::v1 as record};

fields!(JoinTokenRecord => record::JoinToken { secret_hash, expires_at, uses_left, created_at });

fields!(CreateJoinToken => command::CreateJoinToken { token, secret_hash, lives_millis, uses });
fields!(RevokeJoinToken => command::RevokeJoinToken { token });
fields!(AdmitNode => command::AdmitNode { token, secret_hash, key_hash } required { profile });
