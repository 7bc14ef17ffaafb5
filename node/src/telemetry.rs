//! Logs: one line an event on stderr, for people or for machines.
//!
//! Guarantee: whoever reads stderr slowly, or not at all, holds up no request: a thread of its own writes, and lines that it
//! cannot write in time are lost and counted.

use std::io::{BufWriter, IsTerminal};
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written, of a few hundred bytes each.
const LINES_WAITING_MAX: usize = 16_384;

/// Lines that come together are written together.
const WRITE_BYTES: usize = 64 << 10;

static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Writes what waits when it goes. It lives as long as anything may be logged.
#[must_use]
pub struct Logging {
    _worker: WorkerGuard,
}

/// Log lines that were lost since the start because they could not be written in time.
pub fn lines_lost() -> u64 {
    LOST.get().map_or(0, |lost| lost.dropped_lines() as u64)
}

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
pub fn start(format: Format, filter: &str) -> Logging {
    // Consensus tells each of its steps at info level: for who debugs it, not for who runs a node.
    let (filter, broken) = match EnvFilter::try_new(format!("openraft=error,{filter}")) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .lossy(true)
        .thread_name("nora-log")
        .finish(BufWriter::with_capacity(WRITE_BYTES, std::io::stderr()));
    let _ = LOST.set(writer.error_counter());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
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
    Logging { _worker: worker }
}
