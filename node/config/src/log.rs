//! `[log]`: what this node says about its work, on stderr, and where it keeps the audit's entries for others to read.

use std::path::PathBuf;

use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use super::section::section;
use super::setting::{Context, Kind, Problem, Setting, choice};

choice! {
    /// The shape of a log line.
    LogFormat {
        /// For people if stderr is a terminal, else JSON.
        Auto = "auto",
        /// For people.
        Pretty = "pretty",
        /// One JSON object a line.
        Json = "json",
    }
}

/// What is logged: a level, or levels by module, as `info,nora_cluster=debug`. It was parsed once, so it can be again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The text, for the subscriber to parse.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for LogFilter {
    fn kind() -> Kind {
        Kind::Text
    }

    fn read(value: &DeValue<'_>, context: &Context<'_>) -> Result<Self, Problem> {
        let text = String::read(value, context)?;
        match EnvFilter::builder().parse(&text) {
            Ok(_) if !text.trim().is_empty() => Ok(Self(text)),
            _ => Err(Problem::new("is not a log level", "not a level").help(
                "write error, warn, info, debug or trace, or levels by module, as \
                 \"info,nora_cluster=debug\"",
            )),
        }
    }

    fn shown(&self) -> serde_json::Value {
        serde_json::json!(self.0)
    }
}

section! {
    /// What this node says about its work, on stderr.
    Log in "log" {
        /// The shape of a line: `"pretty"` for people, `"json"` for machines, `"auto"` to choose by where it goes.
        format: LogFormat = "\"auto\"";
        /// What is logged: `"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`, or levels by module.
        level: LogFilter = "\"info\"";
        /// A file that entries of the audit are appended to as JSON, one a line. What is kept in the cluster does not depend on it.
        audit_file: Option<PathBuf> = none;
    }
}
