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
    /// As the configuration file; only `config show` and `policy show` print it.
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
                message: "only `nora config show` and `nora policy show` print TOML".into(),
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

/// A text without what could act on a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Lays rows out in columns under a header; cells lose what could act on a terminal.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let header = header.iter().map(|cell| clean(cell)).collect();
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

/// Facts as `name: value`, the values in a column.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let cells: Vec<Vec<String>> =
        facts.iter().map(|(name, value)| vec![format!("{name}:"), value.clone()]).collect();
    // The first fact stands where a table has its header.
    match cells.split_first() {
        Some((first, rest)) => {
            let first: Vec<&str> = first.iter().map(String::as_str).collect();
            columns(&first, rest)
        }
        None => String::new(),
    }
}

/// A time for people, as `2026-01-31T12:00:00Z`; a number no calendar has stays one.
pub(crate) fn moment(unix_millis: u64) -> String {
    let seconds = i64::try_from(unix_millis / 1000).unwrap_or(i64::MAX);
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => {
            let (hour, minute, second) = at.to_hms();
            format!("{}T{hour:02}:{minute:02}:{second:02}Z", at.date())
        }
        Err(_) => unix_millis.to_string(),
    }
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
    fn times_are_of_the_calendar() {
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(1_709_210_096_789), "2024-02-29T12:34:56Z");
        assert_eq!(moment(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn facts_line_up() {
        assert_eq!(
            facts(&[("A", "1".into()), ("Long", "\x07".into())]),
            "A:     1\nLong:  \u{fffd}\n"
        );
        assert_eq!(facts(&[]), "");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(human_size(0), "0 B");
        assert_eq!(human_size(1536), "1.5 KiB");
        assert_eq!(human_size(5 << 30), "5.0 GiB");
    }
}
