//! `nora auth`: explain, whoami.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use nora_client::Secret;
use nora_client::admin::{About, Caller, Explanation, ExplanationStep};

use super::admin::AdminArgs;
use super::connection::{ConnectionArgs, read_stdin};
use super::failure::Failure;
use super::output::{Output, clean, columns, facts};
use nora_config::SecretSource;

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Tell why something is allowed or refused: which rule and which claim decided. The exit code is 0 if it is
    /// allowed, 1 if it is not.
    ///
    /// Everybody may ask about themselves; asking about others, or about a token, is for administrators.
    Explain(ExplainArgs),
    /// Tell who you are to the server.
    Whoami,
}

/// About whom and what.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// About whom, as user:alice, robot:ci or anonymous; without it or a token, about yourself.
    #[arg(long, value_name = "SUBJECT", conflicts_with_all = ["token_file", "token_stdin"])]
    subject: Option<String>,
    /// A file that holds the token it is about: an API token, or an issuer's ID token, whose claims are explained.
    #[arg(long, value_name = "FILE", conflicts_with = "token_stdin")]
    token_file: Option<PathBuf>,
    /// Read the token it is about from stdin.
    #[arg(long)]
    token_stdin: bool,
    /// pull, push, overwrite, delete or admin.
    action: String,
    /// As frontend/app or npm:@acme/lib; without it, the registry itself.
    resource: Option<String>,
}

impl ExplainArgs {
    fn about(&self) -> Result<About, Failure> {
        let token = match &self.token_file {
            Some(path) => SecretSource::File(path.clone()).read()?,
            None if self.token_stdin => read_stdin("token")?,
            None => {
                return Ok(match &self.subject {
                    Some(subject) => About::Subject(subject.clone()),
                    None => About::Caller,
                });
            }
        };
        if token.is_empty() {
            return Err(Failure::Usage {
                message: "there is no token where one should be".into(),
                hint: "see --token-file and --token-stdin",
            });
        }
        Ok(About::Credential(Secret::new(token)))
    }
}

pub(crate) async fn run(
    args: AdminArgs,
    connection: &ConnectionArgs,
    command: AuthCommand,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        AuthCommand::Explain(question) => {
            let client = args.callers_client(&connection.without_token())?;
            let about = question.about()?;
            let resource = question.resource.as_deref().unwrap_or_default();
            let explanation = client.explain(&about, &question.action, resource).await?;
            output.print(&explanation, || explanation_text(&explanation))?;
            if explanation.allowed { Ok(()) } else { Err(Failure::Told) }
        }
        AuthCommand::Whoami => {
            let caller = args.callers_client(connection)?.who_am_i().await?;
            output.print(&caller, || caller_text(&caller))
        }
    }
}

fn explanation_text(explanation: &Explanation) -> String {
    let Explanation { allowed, summary, steps } = explanation;
    let mut text = format!("{}: {summary}\n", if *allowed { "allowed" } else { "refused" });
    // Where nothing decided, no rule allows it, and the summary says so.
    if let Some(ExplanationStep { place, text: stands, effect, why }) = explanation.deciding() {
        text += &format!("{place}: {stands}\n  {effect}: {why}\n");
    }
    // A server's words are laid out here, so they keep their place.
    let mut text: String = text.lines().map(|line| clean(line) + "\n").collect();
    if !steps.is_empty() {
        let row = |step: &ExplanationStep| {
            vec![step.place.clone(), step.text.clone(), step.effect.clone(), step.why.clone()]
        };
        let rows: Vec<Vec<String>> = steps.iter().map(row).collect();
        text.push('\n');
        text += &columns(&["PLACE", "TEXT", "EFFECT", "WHY"], &rows);
    }
    text
}

fn caller_text(caller: &Caller) -> String {
    let Caller { subject, groups, token, scope } = caller;
    let mut told = vec![("Subject", subject.clone())];
    if !groups.is_empty() {
        told.push(("Groups", groups.join(", ")));
    }
    if let Some(token) = token {
        told.push(("Token", token.clone()));
    }
    if !scope.is_empty() {
        told.push(("Cut down to", scope.join(", ")));
    }
    facts(&told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(place: &str, text: &str, effect: &str, why: &str) -> ExplanationStep {
        let [place, text, effect, why] = [place, text, effect, why].map(str::to_owned);
        ExplanationStep { place, text, effect, why }
    }

    #[test]
    fn what_decided_stands_first() {
        let explanation = Explanation {
            allowed: false,
            summary: "push frontend/app by user:alice".into(),
            steps: vec![
                step("auth.rules[0].permissions[0]", "push:frontend/*", "allows", "group:devs"),
                step("auth.rules[1].deny[0]", "push:frontend/app", "denies", "user:alice"),
            ],
        };
        assert_eq!(
            explanation_text(&explanation),
            "refused: push frontend/app by user:alice\n\
             auth.rules[1].deny[0]: push:frontend/app\n\
             \x20 denies: user:alice\n\
             \n\
             PLACE                         TEXT               EFFECT  WHY\n\
             auth.rules[0].permissions[0]  push:frontend/*    allows  group:devs\n\
             auth.rules[1].deny[0]         push:frontend/app  denies  user:alice\n"
        );
        let nothing =
            Explanation { allowed: false, summary: "x\x1b[31m".into(), steps: Vec::new() };
        assert_eq!(explanation_text(&nothing), "refused: x\u{fffd}[31m\n");
    }

    #[test]
    fn the_caller_is_told_what_limits_it() {
        let caller = Caller {
            subject: "user:alice".into(),
            groups: vec!["devs".into(), "ops".into()],
            token: Some("laptop".into()),
            scope: vec!["pull:*".into()],
        };
        assert_eq!(
            caller_text(&caller),
            "Subject:      user:alice\nGroups:       devs, ops\nToken:        laptop\nCut down to:  pull:*\n"
        );
        let nobody = Caller {
            subject: "anonymous".into(),
            groups: Vec::new(),
            token: None,
            scope: Vec::new(),
        };
        assert_eq!(caller_text(&nobody), "Subject:  anonymous\n");
    }
}
