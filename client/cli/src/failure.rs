//! Why a command did not do what was asked, told on stderr.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use nora_client::admin::AdminError;
use nora_client::verbs::VerbError;
use nora_client::{ClientError, ReferenceError};

use nora_config::{ConfigErrors, SecretError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Verb(#[from] VerbError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("cannot {step}")]
    Io { step: String, source: io::Error },
    #[error("cannot write the data as {format}: {reason}")]
    Unwritable { format: &'static str, reason: String },
    /// The question itself is wrong.
    #[error("{message}")]
    Usage { message: String, hint: &'static str },
    /// Everything there is to say was said.
    #[error("failed")]
    Told,
}

impl Failure {
    /// Tells the failure on stderr, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Told => {}
            Self::Config(errors) => say_config_errors(errors),
            // Whoever read our output has seen enough.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            failure => say_error(failure, failure.hint().as_deref()),
        }
        match self {
            Self::Usage { .. } | Self::Reference(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Admin(error) => error.hint(),
            Self::Verb(error) => error.hint(),
            Self::Usage { hint, .. } if !hint.is_empty() => Some((*hint).to_owned()),
            _ => None,
        }
    }
}

/// Tells an error with its causes and what to do.
pub(crate) fn say_error(error: &dyn std::error::Error, hint: Option<&str>) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Some errors repeat their cause's words.
        if !text.contains(&message) {
            text += &format!(": {message}");
        }
        cause = error.source();
    }
    say("error", "31", &text);
    if let Some(hint) = hint {
        say("help", "36", hint);
    }
}

/// Tells what happened, or what to beware of.
pub(crate) fn say_note(text: &str) {
    say("note", "36", text);
}

/// Tells what may be a mistake.
pub(crate) fn say_warning(text: &str) {
    say("warning", "33", text);
}

fn say_config_errors(errors: &ConfigErrors) {
    for line in errors.to_string().lines() {
        match line.strip_prefix("error: ") {
            Some(message) => say("error", "31", message),
            None => write_line(line),
        }
    }
}

fn say(kind: &str, colour: &str, text: &str) {
    // A server's words may hold anything; a terminal obeys control characters.
    let text: String =
        text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
    if is_coloured() {
        write_line(&format!("\x1b[1;{colour}m{kind}:\x1b[0m {text}"));
    } else {
        write_line(&format!("{kind}: {text}"));
    }
}

fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn write_line(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
