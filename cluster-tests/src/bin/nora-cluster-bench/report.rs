//! The report: Markdown tables for people, JSON with every sample for programs.
//!
//! A table compares its last column with its first, within the run. Knows nothing of how anything
//! was measured.

use std::fmt::Write as _;

use nora_cluster_tests::kernel;
use nora_cluster_tests::stats::{median, spread};
use serde_json::{Value, json};

const LEGEND: &str = "Each cell: median (spread = (max − min) ÷ median) of the rounds. The `×` column says how many times \
better the last column is than the first, above 1 it is ahead, whatever the unit. MB are 10^6 bytes, MiB 2^20. *Others* are \
the most processors that other programs used in any phase of the table: its figures mean little where they are not near 0.";

/// A unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A second.
    PerS,
    /// MiB a second.
    MibPerS,
    /// MB a second.
    MbPerS,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
    /// MB.
    Mb,
    /// A number.
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::PerS => "1/s",
            Self::MibPerS => "MiB/s",
            Self::MbPerS => "MB/s",
            Self::Ms => "ms",
            Self::S => "s",
            Self::Mb => "MB",
            Self::Count => "",
        }
    }

    fn less_is_better(self) -> bool {
        matches!(self, Self::Ms | Self::S | Self::Mb)
    }
}

/// What NORA has set itself for a measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// At most this, in the last column.
    AtMost(f64),
    /// At least this, in the last column.
    AtLeast(f64),
    /// The last column is at least so many times better than the first.
    Times(f64),
}

/// A thing that is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    title: String,
    unit: Unit,
    bar: Option<Bar>,
}

impl Measure {
    /// A measure without a bar.
    pub fn new(title: impl Into<String>, unit: Unit) -> Self {
        Self { title: title.into(), unit, bar: None }
    }

    /// With a bar.
    pub fn bar(self, bar: Bar) -> Self {
        Self { bar: Some(bar), ..self }
    }
}

#[derive(Debug)]
struct Row {
    measure: Measure,
    /// By column.
    samples: Vec<Vec<f64>>,
}

/// What one part has measured.
#[derive(Debug)]
pub struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Row>,
    others: f64,
    notes: Vec<String>,
}

impl Table {
    /// A table without samples.
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        let (columns, rows, notes) = (columns.to_vec(), Vec::new(), Vec::new());
        Self { title: title.into(), columns, rows, others: 0.0, notes }
    }

    /// Takes a sample for a column.
    pub fn add(&mut self, column: usize, measure: Measure, value: f64) {
        let at = self.row(measure);
        if let Some(samples) = self.rows[at].samples.get_mut(column) {
            samples.push(value);
        }
    }

    /// The place of a measure's row: below all that came before, even if its samples come later.
    pub fn row(&mut self, measure: Measure) -> usize {
        let same = |row: &Row| row.measure.title == measure.title;
        if let Some(at) = self.rows.iter().position(same) {
            return at;
        }
        let samples = vec![Vec::new(); self.columns.len()];
        self.rows.push(Row { measure, samples });
        self.rows.len() - 1
    }

    /// Takes what others used of the machine during a phase.
    pub fn others(&mut self, processors: f64) {
        self.others = self.others.max(processors);
    }

    /// A line below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn markdown(&self, out: &mut String) {
        if self.rows.is_empty() {
            return;
        }
        let compared = self.columns.len() > 1;
        let _ = write!(out, "\n### {}\n\n| measure | unit |", self.title);
        for column in &self.columns {
            let _ = write!(out, " {column} |");
        }
        out.push_str(if compared { " × | bar | held |\n" } else { " bar | held |\n" });
        let count = 2 + self.columns.len() + if compared { 3 } else { 2 };
        let _ = writeln!(out, "|{}", "---|".repeat(count));
        for row in &self.rows {
            let _ = write!(out, "| {} | {} |", row.measure.title, row.measure.unit.name());
            for samples in &row.samples {
                let _ = write!(out, " {} |", cell(samples, row.measure.unit));
            }
            let times = row.times().map_or("–".into(), |times| format!("{times:.2}"));
            if compared {
                let _ = write!(out, " {times} |");
            }
            let held = row.holds().map_or("–", |held| if held { "yes" } else { "**no**" });
            let _ = writeln!(out, " {} | {held} |", row.measure.bar.map_or("–".into(), bar));
        }
        let _ = writeln!(out, "\nOthers: {:.2}.", self.others);
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "measure": row.measure.title,
                    "unit": row.measure.unit.name(),
                    "samples": row.samples,
                    "times": row.times(),
                    "bar": row.measure.bar.map(bar),
                    "held": row.holds(),
                })
            })
            .collect();
        json!({
            "title": self.title,
            "columns": self.columns,
            "rows": rows,
            "others": self.others,
            "notes": self.notes,
        })
    }
}

impl Row {
    /// How many times better the last column is than the first.
    fn times(&self) -> Option<f64> {
        if self.samples.len() < 2 || self.measure.unit == Unit::Count {
            return None;
        }
        let (first, last) = (median(self.samples.first()?)?, median(self.samples.last()?)?);
        let less = self.measure.unit.less_is_better();
        let (over, under) = if less { (first, last) } else { (last, first) };
        (under > 0.0).then_some(over / under)
    }

    fn holds(&self) -> Option<bool> {
        match self.measure.bar? {
            Bar::AtMost(limit) => {
                let samples = self.samples.last()?;
                let most = samples.iter().copied().fold(f64::MIN, f64::max);
                (!samples.is_empty()).then_some(most <= limit)
            }
            Bar::AtLeast(limit) => {
                let samples = self.samples.last()?;
                let least = samples.iter().copied().fold(f64::MAX, f64::min);
                (!samples.is_empty()).then_some(least >= limit)
            }
            Bar::Times(times) => Some(self.times()? >= times),
        }
    }
}

fn bar(bar: Bar) -> String {
    match bar {
        Bar::AtMost(limit) => format!("≤ {limit}"),
        Bar::AtLeast(limit) => format!("≥ {limit}"),
        Bar::Times(times) => format!("≥ {times} ×"),
    }
}

fn cell(samples: &[f64], unit: Unit) -> String {
    let Some(middle) = median(samples) else {
        return "–".into();
    };
    let value = match unit {
        Unit::Count => format!("{middle:.0}"),
        _ if middle >= 100.0 => format!("{middle:.0}"),
        _ if middle >= 10.0 => format!("{middle:.1}"),
        _ => format!("{middle:.2}"),
    };
    match spread(samples) {
        Some(spread) => format!("{value} ({:.0} %)", spread * 100.0),
        None => value,
    }
}

/// The whole report as Markdown.
pub fn markdown(date: &str, settings: &str, tables: &[Table], errors: &[String]) -> String {
    let machine = kernel::machine();
    let mut out = format!("{date}; {machine}; {settings}\n\n{LEGEND}\n");
    tables.iter().for_each(|table| table.markdown(&mut out));
    if !errors.is_empty() {
        out.push_str("\nWent wrong:\n");
        for error in errors {
            let _ = writeln!(out, "- {error}");
        }
    }
    out
}

/// The whole report with every sample.
pub fn json(date: &str, settings: &str, tables: &[Table], errors: &[String]) -> Value {
    let tables: Vec<Value> = tables.iter().map(Table::json).collect();
    json!({
        "date": date,
        "machine": kernel::machine(),
        "settings": settings,
        "tables": tables,
        "errors": errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_is_compared_with_the_first_and_bars_are_judged() {
        let mut table = Table::new("Writes", &["etcd", "nora"]);
        let rate = || Measure::new("32 clients", Unit::PerS).bar(Bar::Times(2.0));
        let p99 = || Measure::new("32 clients: p99", Unit::Ms);
        let memory = || Measure::new("follower", Unit::Mb).bar(Bar::AtMost(100.0));
        for (column, rates, latency) in [(0, [90.0, 110.0], 20.0), (1, [300.0, 300.0], 10.0)] {
            rates.iter().for_each(|value| table.add(column, rate(), *value));
            table.add(column, p99(), latency);
        }
        table.add(1, memory(), 90.0);
        table.add(1, memory(), 101.0);
        table.note("A note.");
        let text = markdown("2026-01-02", "x", &[table], &["part: refused".into()]);
        for line in [
            "| measure | unit | etcd | nora | × | bar | held |",
            "| 32 clients | 1/s | 100 (20 %) | 300 (0 %) | 3.00 | ≥ 2 × | yes |",
            "| 32 clients: p99 | ms | 20.0 | 10.0 | 2.00 | – | – |",
            // The highest of all counts, not the median.
            "| follower | MB | – | 95.5 (12 %) | – | ≤ 100 | **no** |",
            "A note.",
            "- part: refused",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn one_column_is_compared_with_nothing_and_an_empty_table_is_left_out() {
        let mut table = Table::new("Failover", &["nora"]);
        table.add(0, Measure::new("writes again", Unit::Ms), 700.0);
        let text = markdown("2026-01-02", "x", &[table, Table::new("Repair", &["nora"])], &[]);
        assert!(text.contains("| writes again | ms | 700 | – | – |"), "{text}");
        assert!(!text.contains("Repair"));
        let json = json("2026-01-02", "x", &[Table::new("Repair", &["nora"])], &[]);
        assert_eq!(json["tables"][0]["title"], "Repair");
    }
}
