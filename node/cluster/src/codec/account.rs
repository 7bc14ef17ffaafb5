//! Accounts' records and commands.

use nora_domain::{AccountRecord, CreateAccount, RemoveAccount, SetPassword};
use nora_proto::{command::v1 as command, record::v1 as record};

fields!(AccountRecord => record::Account {
    is_robot,
    password_hash,
    groups,
    created_at,
    generation,
});

fields!(CreateAccount => command::CreateAccount { account, is_robot, password_hash, groups });
fields!(SetPassword => command::SetPassword { account, password_hash });
fields!(RemoveAccount => command::RemoveAccount { account });
