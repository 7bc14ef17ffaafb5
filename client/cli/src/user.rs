//! `nora user`: add, passwd, ls, rm.
//!
//! A password comes from a file, from stdin or from the terminal, never from an argument, and is printed nowhere.

use clap::Subcommand;
use nora_client::admin::{Account, NewAccount};
use serde::Serialize;

use super::admin::AdminArgs;
use super::connection::ConnectionArgs;
use super::consent::ConsentArgs;
use super::failure::{Failure, say_note};
use super::output::{Output, columns, moment};
use super::password::PasswordArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make an account; you are asked for its password unless an option says where it is.
    Add {
        /// Its name.
        name: String,
        /// It is a program's: it has tokens and no password.
        #[arg(long, conflicts_with_all = ["password_file", "password_stdin"])]
        robot: bool,
        /// A group it is in; give it several times for more.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Give an account another password; every session of the old one ends.
    Passwd {
        /// Its name.
        name: String,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// List accounts.
    Ls,
    /// Remove an account and every token of it.
    Rm {
        /// Its name.
        name: String,
        #[command(flatten)]
        consent: ConsentArgs,
    },
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Removed<'a> {
    name: &'a str,
    tokens: u32,
}

pub(crate) async fn run(
    args: AdminArgs,
    connection: &ConnectionArgs,
    command: UserCommand,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        UserCommand::Add { name, robot, groups, password } => {
            if robot && password.is_given() {
                return Err(Failure::Usage {
                    message: format!("{name} is to be a robot, and robots have no password"),
                    hint: "leave --robot out, or the password",
                });
            }
            let client = args.callers_client(&connection.without_password())?;
            let password = if robot { None } else { Some(password.read(&name)?) };
            client.add_user(&NewAccount { name: name.clone(), groups, password }).await?;
            if robot {
                say_note(&format!(
                    "there is a robot {name}; 'nora token create NAME --owner robot:{name}' makes its login"
                ));
            } else {
                say_note(&format!("there is a user {name}"));
            }
            output.print(&Named { name: &name }, String::new)
        }
        UserCommand::Passwd { name, password } => {
            let client = args.callers_client(&connection.without_password())?;
            client.set_password(&name, &password.read(&name)?).await?;
            say_note(&format!("{name} has another password; sessions of the old one are over"));
            output.print(&Named { name: &name }, String::new)
        }
        UserCommand::Ls => {
            let users = args.callers_client(connection)?.users().await?;
            output.print(&users, || users_table(&users))
        }
        UserCommand::Rm { name, consent } => {
            let client = args.callers_client(connection)?;
            if !consent.given(&format!("remove the account {name} and every token of it"))? {
                return Ok(());
            }
            let tokens = client.remove_user(&name).await?;
            say_note(&format!("there is no account {name} any more; tokens that ended: {tokens}"));
            output.print(&Removed { name: &name, tokens }, String::new)
        }
    }
}

fn users_table(users: &[Account]) -> String {
    let row = |user: &Account| {
        vec![
            user.name.clone(),
            if user.robot { "robot" } else { "user" }.to_owned(),
            user.groups.join(","),
            if user.from_htpasswd { "htpasswd" } else { "nora" }.to_owned(),
            user.created_at.map(moment).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = users.iter().map(row).collect();
    columns(&["NAME", "KIND", "GROUPS", "KEPT IN", "MADE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_tell_what_they_are_and_where_they_are_kept() {
        let account = |name: &str, robot: bool, from_htpasswd: bool| Account {
            name: name.into(),
            robot,
            groups: vec!["a".into(), "b".into()],
            created_at: (!from_htpasswd).then_some(1_709_210_096_000),
            from_htpasswd,
        };
        assert_eq!(
            users_table(&[account("alice", false, true), account("ci", true, false)]),
            "NAME   KIND   GROUPS  KEPT IN   MADE\n\
             alice  user   a,b     htpasswd\n\
             ci     robot  a,b     nora      2024-02-29T12:34:56Z\n"
        );
    }
}
