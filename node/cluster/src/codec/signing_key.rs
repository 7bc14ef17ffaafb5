//! Signing keys' records and commands.

use nora_domain::{AddSigningKey, SigningKeyRecord};
use nora_proto::{command::v1 as command, record::v1 as record};

fields!(SigningKeyRecord => record::SigningKey { secret, created_at, expires_at });

fields!(AddSigningKey => command::AddSigningKey { after } required { key });
