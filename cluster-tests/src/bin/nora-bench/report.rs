//! The report: Markdown tables for people, JSON with every sample for programs.

use std::fmt::Write as _;

use nora_cluster_tests::kernel;
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::samples::{Bar, Row, Samples, Section, Series, Unit};
use crate::targets::Kind;

/// What a reader must know to read the tables.
const LEGEND: &str = "Each cell: median (spread = (max − min) ÷ median; most processors that others used meanwhile). \
`×` columns say how many times better NORA is, above 1 it is ahead, whatever the unit. \
Pushes are compared with peers that sync what they acknowledge. MB are 10^6 bytes.";

/// A finished run.
pub struct Report<'a> {
    /// The command line.
    pub args: &'a Args,
    /// What was measured, in the order of the columns.
    pub kinds: &'a [Kind],
    /// The samples.
    pub samples: &'a Samples,
    /// What went wrong.
    pub errors: &'a [String],
    /// The day, as YYYY-MM-DD.
    pub date: String,
}

impl Report<'_> {
    /// The tables.
    pub fn markdown(&self) -> String {
        let args = self.args;
        let mut out = format!(
            "{}; {}; rounds: {}, blobs of {} MiB, {} connections for {} s, loopback, warm page cache.\n\n{LEGEND}\n",
            self.date,
            kernel::machine(),
            args.rounds,
            args.blob_mib,
            args.connections,
            args.read_seconds
        );
        for section in Section::ALL {
            self.table(section, &mut out);
        }
        if !self.errors.is_empty() {
            out.push_str("\nWent wrong:\n");
            for error in self.errors {
                let _ = writeln!(out, "- {error}");
            }
        }
        out
    }

    fn table(&self, section: Section, out: &mut String) {
        let rows: Vec<_> = self.samples.rows(section).collect();
        if rows.is_empty() {
            return;
        }
        let sampled = |kind: &&Kind| rows.iter().any(|row| row.series.contains_key(kind.name()));
        let kinds: Vec<&Kind> = self.kinds.iter().filter(sampled).collect();
        let _ = write!(out, "\n### {}\n\n| measure | unit |", section.title());
        for kind in &kinds {
            let _ = write!(out, " {} |", kind.name());
        }
        let with_before = kinds.contains(&&Kind::NoraBefore);
        out.push_str(if with_before { " × before |" } else { "" });
        out.push_str(" × best peer | × nginx | bar | held |\n|---|---|");
        out.push_str(&"---|".repeat(kinds.len() + 4 + usize::from(with_before)));
        out.push('\n');
        for row in rows {
            let _ = write!(out, "| {} | {} |", row.measure.title, row.measure.unit.name());
            for kind in &kinds {
                let _ = write!(out, " {} |", cell(row.series.get(kind.name()), row.measure.unit));
            }
            if with_before {
                let times = row.times_before().map(|times| format!("{times:.2}"));
                let _ = write!(out, " {} |", times.unwrap_or_else(|| "–".into()));
            }
            let _ = writeln!(out, " {} |", verdict(&row).join(" | "));
        }
    }

    /// Every sample, with medians and ratios.
    pub fn json(&self) -> Value {
        let measures: Vec<Value> = Section::ALL
            .iter()
            .flat_map(|section| self.samples.rows(*section))
            .map(|row| measure_json(&row))
            .collect();
        json!({
            "date": self.date,
            "machine": kernel::machine(),
            "settings": {
                "rounds": self.args.rounds,
                "blob_mib": self.args.blob_mib,
                "connections": self.args.connections,
                "read_seconds": self.args.read_seconds,
                "image_seconds": self.args.image_seconds,
            },
            "measures": measures,
            "errors": self.errors,
        })
    }
}

fn measure_json(row: &Row<'_>) -> Value {
    let targets: Map<String, Value> = row
        .series
        .iter()
        .map(|(name, series)| {
            let value = json!({
                "samples": series.values,
                "median": series.median(),
                "spread": series.spread(),
                "others": series.others,
            });
            ((*name).to_owned(), value)
        })
        .collect();
    let best = row.times_best_peer();
    json!({
        "section": row.measure.section.title(),
        "measure": row.measure.title,
        "unit": row.measure.unit.name(),
        "targets": targets,
        "best_peer": best.map(|(kind, _)| kind.name()),
        "times_best_peer": best.map(|(_, times)| times),
        "times_nginx": row.times_nginx(),
        "times_before": row.times_before(),
        "bar": row.measure.bar.map(bar),
        "held": row.holds(),
    })
}

fn verdict(row: &Row<'_>) -> [String; 4] {
    let best = row.times_best_peer().map(|(kind, times)| format!("{times:.2} ({})", kind.name()));
    let nginx = row.times_nginx().map(|times| format!("{times:.2}"));
    let held = row.holds().map(|holds| if holds { "yes" } else { "**no**" }.to_owned());
    [best, nginx, row.measure.bar.map(bar), held].map(|cell| cell.unwrap_or_else(|| "–".into()))
}

fn bar(bar: Bar) -> String {
    match bar {
        Bar::AtMost(limit) => format!("≤ {limit}"),
        Bar::TimesBestPeer(times) => format!("≥ {times} × best peer"),
        Bar::TimesNginx(times) => format!("≥ {times} × nginx"),
    }
}

fn cell(series: Option<&Series>, unit: Unit) -> String {
    let Some((series, median)) = series.and_then(|series| Some((series, series.median()?))) else {
        return "–".into();
    };
    let value = number(median, unit);
    let spread = series.spread().map(|spread| format!("{:.0} %", spread * 100.0));
    let others = series.others.map(|others| format!("{others:.2}"));
    match (spread, others) {
        (None, None) => value,
        (Some(one), None) => format!("{value} ({one})"),
        (None, Some(other)) => format!("{value} (–; {other})"),
        (Some(one), Some(other)) => format!("{value} ({one}; {other})"),
    }
}

/// Three digits that count, and no fraction of what can only be whole.
fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count => format!("{value:.0}"),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Measure;
    use clap::Parser;

    #[test]
    fn cells_show_median_spread_and_noise() {
        let series = Series { values: vec![90.0, 100.0, 110.0], others: Some(0.05) };
        assert_eq!(cell(Some(&series), Unit::MbPerS), "100 (20 %; 0.05)");
        let single = Series { values: vec![2.345], others: None };
        assert_eq!(cell(Some(&single), Unit::Ms), "2.35");
        assert_eq!(cell(None, Unit::Ms), "–");
    }

    #[test]
    fn a_report_has_a_row_a_measure_and_a_column_a_target() {
        let args = Args::parse_from(["nora-bench", "--rounds", "2"]);
        let kinds = [Kind::Distribution, Kind::Nginx, Kind::Nora];
        let mut samples = Samples::default();
        let rate = Measure::new(Section::Blobs, "pull, 1 client", Unit::MbPerS)
            .bar(Some(Bar::TimesNginx(1.0)));
        for (kind, value) in [(kinds[0], 1000.0), (kinds[1], 4000.0), (kinds[2], 2000.0)] {
            samples.add(rate.clone(), kind, value, Some(0.1));
        }
        let push = Measure::new(Section::Images, "one repository", Unit::PerS);
        samples.add(push, Kind::Nora, 50.0, None);
        let errors = ["round 1, zot: refused".to_owned()];
        let report = Report {
            args: &args,
            kinds: &kinds,
            samples: &samples,
            errors: &errors,
            date: "2026-01-02".into(),
        };
        let text = report.markdown();
        assert!(text.contains("| measure | unit | distribution | nginx | nora | × best peer |"));
        let row = "| pull, 1 client | MB/s | 1000 (–; 0.10) | 4000 (–; 0.10) | 2000 (–; 0.10) \
                   | 2.00 (distribution) | 0.50 | ≥ 1 × nginx | **no** |";
        assert!(text.contains(row), "{text}");
        assert!(!text.contains("Start and idle"));
        // What takes no pushes has no column in the table of pushes, in its heading or in its rows.
        assert!(text.contains("| measure | unit | nora | × best peer | × nginx | bar | held |"));
        assert!(text.contains("| one repository | 1/s | 50.0 | – | – | – | – |"), "{text}");
        assert!(text.contains("- round 1, zot: refused"));
        let json = report.json();
        let measure = &json["measures"][0];
        assert_eq!(measure["targets"]["nora"]["samples"][0], 2000.0);
        assert_eq!(measure["best_peer"], "distribution");
        assert_eq!(measure["held"], false);
        assert_eq!(json["errors"][0], "round 1, zot: refused");
    }
}
