//! `nora session`: ls, revoke.

use clap::Subcommand;
use nora_client::admin::SessionInfo;
use serde::Serialize;

use super::admin::AdminArgs;
use super::connection::ConnectionArgs;
use super::consent::ConsentArgs;
use super::failure::{Failure, say_note};
use super::output::{Output, columns, moment};

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List sessions: your own, or everybody's for an administrator.
    ///
    /// Each is a login with a password whose client keeps a refresh token, as `docker login` does. For your own, log in
    /// with your password: a token lists none.
    Ls {
        /// Only this owner's, as user:alice.
        #[arg(long, value_name = "OWNER")]
        owner: Option<String>,
    },
    /// End a session, on every node: one of your own, or any for an administrator. Its client has to log in again.
    ///
    /// The password stays good. Whoever may know it gets another session: change it with `nora user passwd`, which ends
    /// all sessions of it.
    Revoke {
        /// Its id; or an owner, as user:alice, for all of its sessions.
        session: String,
        #[command(flatten)]
        consent: ConsentArgs,
    },
}

#[derive(Serialize)]
struct Revoked<'a> {
    session: &'a str,
    ended: u32,
}

pub(crate) async fn run(
    args: AdminArgs,
    connection: &ConnectionArgs,
    command: SessionCommand,
    output: &Output,
) -> Result<(), Failure> {
    let client = args.callers_client(connection)?;
    match command {
        SessionCommand::Ls { owner } => {
            let sessions = client.sessions(owner.as_deref()).await?;
            output.print(&sessions, || sessions_table(&sessions))
        }
        SessionCommand::Revoke { session, consent } => {
            let what = match session.contains('/') {
                true => format!("end the session {session}"),
                false => format!("end every session of {session}"),
            };
            if !consent.given(&format!("{what}; its client has to log in again"))? {
                return Ok(());
            }
            let ended = client.revoke_sessions(&session).await?;
            say_note(&format!("sessions that ended: {ended}"));
            output.print(&Revoked { session: &session, ended }, String::new)
        }
    }
}

fn sessions_table(sessions: &[SessionInfo]) -> String {
    let row = |session: &SessionInfo| {
        vec![
            session.id.clone(),
            session.address.clone().unwrap_or_default(),
            moment(session.created_at),
            moment(session.expires_at),
        ]
    };
    let rows: Vec<Vec<String>> = sessions.iter().map(row).collect();
    columns(&["ID", "FROM", "MADE", "EXPIRES"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_tell_where_they_come_from() {
        let session = |address: Option<&str>| SessionInfo {
            id: "user:alice/0f".into(),
            owner: "user:alice".into(),
            created_at: 1_709_210_096_000,
            expires_at: 1_709_210_097_000,
            address: address.map(Into::into),
        };
        assert_eq!(
            sessions_table(&[session(Some("192.0.2.7")), session(None)]),
            "ID             FROM       MADE                  EXPIRES\n\
             user:alice/0f  192.0.2.7  2024-02-29T12:34:56Z  2024-02-29T12:34:57Z\n\
             user:alice/0f             2024-02-29T12:34:56Z  2024-02-29T12:34:57Z\n"
        );
    }
}
