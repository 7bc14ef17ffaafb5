//! Data on stdout: as a table for people, as JSON or YAML for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::Failure;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
    /// As the configuration file; only `config show` prints it.
    Toml,
}

/// Prints data in the chosen format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub format: OutputFormat,
}

impl Output {
    pub(crate) fn new(format: OutputFormat) -> Self {
        Self { format }
    }

    /// Prints the data, or what `table` makes of it for people.
    pub(crate) fn print(
        &self,
        data: &impl Serialize,
        table: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let unwritable = |format, reason: &dyn std::fmt::Display| Failure::Unwritable {
            format,
            reason: reason.to_string(),
        };
        match self.format {
            OutputFormat::Table => write(&table()),
            OutputFormat::Json => {
                let text = serde_json::to_string_pretty(data)
                    .map_err(|error| unwritable("JSON", &error))?;
                write(&format!("{text}\n"))
            }
            OutputFormat::Yaml => {
                let text =
                    serde_yaml_ng::to_string(data).map_err(|error| unwritable("YAML", &error))?;
                write(&text)
            }
            OutputFormat::Toml => Err(Failure::Usage {
                message: "only `nora config show` prints TOML".into(),
                hint: "use -o table, json or yaml",
            }),
        }
    }
}

/// Writes to stdout.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|source| Failure::Io { step: "write to stdout".into(), source })
}

/// Lays rows out in columns under a header; cells lose what could act on a terminal.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let clean = |cell: &str| -> String {
        cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    };
    let header = header.iter().map(|cell| (*cell).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header)
        .chain(rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()))
        .collect();
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += padded.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A size for people.
pub(crate) fn human_size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) => format!("{:.1} {unit}", bytes as f64 / *factor as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_are_clean() {
        let rows = [vec!["a\x1b[31m".into(), "1".into()], vec!["long name".into(), String::new()]];
        assert_eq!(
            columns(&["NAME", "N"], &rows),
            "NAME       N\na\u{fffd}[31m     1\nlong name\n"
        );
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(human_size(0), "0 B");
        assert_eq!(human_size(1536), "1.5 KiB");
        assert_eq!(human_size(5 << 30), "5.0 GiB");
    }
}
