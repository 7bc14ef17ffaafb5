//! `nora token`: create, ls, revoke.
//!
//! The text of a token is printed once, alone on stdout; nothing else here knows it.

use std::time::Duration;

use clap::Subcommand;
use nora_client::admin::{CreatedToken, NewToken, TokenInfo};
use serde::Serialize;

use super::admin::AdminArgs;
use super::connection::ConnectionArgs;
use super::consent::ConsentArgs;
use super::failure::{Failure, say_note};
use super::output::{Output, columns, moment};
use nora_config::duration_of;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, for yourself or an account; its text goes to stdout and is not shown again.
    ///
    /// Log in with your password, or use the administrator's certificate: a token makes no others. For others, you must be
    /// an administrator.
    Create {
        /// What to call it: unique among its owner's tokens.
        name: String,
        /// Cut it down to this, as pull:frontend/*; give it several times for more. Without it, the token may do
        /// whatever its owner may.
        #[arg(long, value_name = "PERMISSION")]
        scope: Vec<String>,
        /// How long it is good for, as 12h or 90d [default: 90d].
        #[arg(long, value_name = "TIME", value_parser = duration_of)]
        expires: Option<Duration>,
        /// Whose it is, as user:alice or robot:ci; without it, your own.
        #[arg(long, value_name = "OWNER")]
        owner: Option<String>,
    },
    /// List tokens: your own, or everybody's for an administrator.
    ///
    /// For your own, log in with your password: a token lists none.
    Ls {
        /// Only this owner's, as user:alice or robot:ci.
        #[arg(long, value_name = "OWNER")]
        owner: Option<String>,
    },
    /// End a token, on every node: one of your own, or any for an administrator.
    ///
    /// For your own, log in with your password: a token ends itself alone.
    Revoke {
        /// Its id, or its owner and name, as user:alice/laptop.
        token: String,
        #[command(flatten)]
        consent: ConsentArgs,
    },
}

/// A token that was just made, with its text.
#[derive(Serialize)]
struct Shown<'a> {
    secret: &'a str,
    #[serde(flatten)]
    token: &'a TokenInfo,
}

#[derive(Serialize)]
struct Revoked<'a> {
    token: &'a str,
}

pub(crate) async fn run(
    args: AdminArgs,
    connection: &ConnectionArgs,
    command: TokenCommand,
    output: &Output,
) -> Result<(), Failure> {
    let client = args.callers_client(connection)?;
    match command {
        TokenCommand::Create { name, scope, expires, owner } => {
            let wish = NewToken { owner, name, scope, valid: expires };
            let CreatedToken { secret, token } = client.create_token(&wish).await?;
            let secret = secret.expose();
            output.print(&Shown { secret, token: &token }, || format!("{secret}\n"))?;
            say_note(&describe(&token));
            say_note("keep it now: it is not shown again");
            Ok(())
        }
        TokenCommand::Ls { owner } => {
            let tokens = client.tokens(owner.as_deref()).await?;
            output.print(&tokens, || tokens_table(&tokens))
        }
        TokenCommand::Revoke { token, consent } => {
            if !consent.given(&format!("end the token {token}; whoever uses it is refused"))? {
                return Ok(());
            }
            client.revoke_token(&token).await?;
            say_note(&format!("the token {token} is over"));
            output.print(&Revoked { token: &token }, String::new)
        }
    }
}

fn describe(token: &TokenInfo) -> String {
    let TokenInfo { id, name, owner, scope, expires_at, .. } = token;
    let until = moment(*expires_at);
    let may = match scope.as_slice() {
        [] => format!("may do whatever {owner} may"),
        scope => format!("may do what {owner} may of {}", scope.join(", ")),
    };
    format!("the token {owner}/{name} ({id}) is good until {until} and {may}")
}

fn tokens_table(tokens: &[TokenInfo]) -> String {
    let row = |token: &TokenInfo| {
        vec![
            token.id.clone(),
            token.owner.clone(),
            if token.workload { "(exchanged)".to_owned() } else { token.name.clone() },
            if token.scope.is_empty() { "(all)".to_owned() } else { token.scope.join(",") },
            moment(token.expires_at),
            token.last_used_at.map_or_else(|| "never".to_owned(), moment),
        ]
    };
    let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
    columns(&["ID", "OWNER", "NAME", "SCOPE", "EXPIRES", "LAST USED"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> TokenInfo {
        TokenInfo {
            id: "0f".repeat(16),
            name: "laptop".into(),
            owner: "user:alice".into(),
            scope: vec!["pull:*".into(), "push:a/*".into()],
            created_at: 0,
            expires_at: 1_709_210_096_000,
            last_used_at: None,
            workload: false,
        }
    }

    #[test]
    fn tokens_are_listed_without_gaps() {
        let whole = TokenInfo {
            scope: Vec::new(),
            last_used_at: Some(1_709_210_096_000),
            workload: true,
            name: String::new(),
            ..token()
        };
        let table = tokens_table(&[token(), whole]);
        let id = "0f".repeat(16);
        let expected = format!(
            "ID                                OWNER       NAME         SCOPE            EXPIRES               LAST USED\n\
             {id}  user:alice  laptop       pull:*,push:a/*  2024-02-29T12:34:56Z  never\n\
             {id}  user:alice  (exchanged)  (all)            2024-02-29T12:34:56Z  2024-02-29T12:34:56Z\n"
        );
        assert_eq!(table, expected);
    }

    #[test]
    fn a_new_token_is_described_and_shown_as_one_object() {
        let token = token();
        let told = describe(&token);
        assert!(told.contains("user:alice/laptop") && told.contains("pull:*, push:a/*"), "{told}");
        let json = serde_json::to_value(Shown { secret: "nora_pat_x", token: &token }).unwrap();
        assert_eq!((&json["secret"], &json["name"]), (&"nora_pat_x".into(), &"laptop".into()));
    }
}
