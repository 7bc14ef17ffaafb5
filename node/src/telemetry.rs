//! Logs: one line an event on stderr, for people or for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// For people on a terminal, for machines elsewhere.
    pub fn automatic() -> Self {
        if std::io::stderr().is_terminal() { Self::Pretty } else { Self::Json }
    }
}

/// Starts logging. `filter` is a level or a list of `target=level`; an unreadable one counts as `info`, and so says the
/// first line.
pub fn start(format: Format, filter: &str) {
    // Consensus tells each of its steps at info level: for who debugs it, not for who runs a node.
    let (filter, broken) = match EnvFilter::try_new(format!("openraft=error,{filter}")) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written, as on a full disk, is lost; to complain of that in the same place would panic.
        .log_internal_errors(false);
    let started = match format {
        Format::Pretty => {
            let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(color).with_target(false).try_init()
        }
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_ok()
        && let Some(error) = broken
    {
        tracing::warn!(%error, "the log filter cannot be read; logging at level info");
    }
}
