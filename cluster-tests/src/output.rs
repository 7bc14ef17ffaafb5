//! What the benchmarks' command lines have in common: how long to wait for a quiet machine, and where reports go.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{During, Result};

/// Options of every benchmark.
#[derive(Debug, Clone, clap::Args)]
pub struct Output {
    /// Before each phase, wait at most this long until others use less than 0.15 processors.
    #[arg(long, default_value_t = 5)]
    pub wait_quiet_seconds: u64,

    /// Writes every sample here.
    #[arg(long)]
    pub json: Option<PathBuf>,

    /// Writes the tables here as well as to standard output.
    #[arg(long)]
    pub markdown: Option<PathBuf>,
}

impl Output {
    /// The limit of [`Self::wait_quiet_seconds`].
    pub fn wait_quiet(&self) -> Duration {
        Duration::from_secs(self.wait_quiet_seconds)
    }

    /// Writes a report to standard output, and to the files that were asked for.
    pub fn publish(&self, text: &str, json: &serde_json::Value) -> Result<()> {
        io::stdout().write_all(text.as_bytes()).during(|| "write the report".into())?;
        let json = format!("{json:#}\n");
        for (path, content) in [(&self.markdown, text), (&self.json, &json)] {
            if let Some(path) = path {
                fs::write(path, content).during(|| format!("write {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Today, in UTC, as in 2026-11-25.
pub fn today() -> String {
    time::OffsetDateTime::now_utc().date().to_string()
}
