//! What is measured, and the samples of it.
//!
//! A timed sample carries how many processors others used meanwhile: a figure without it cannot be
//! trusted.

use std::collections::BTreeMap;

use nora_cluster_tests::stats::{median, spread};

use crate::targets::Kind;

/// A table of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Start and idle memory, empty.
    Start,
    /// Large blobs.
    Blobs,
    /// Manifest GET and blob HEAD.
    Reads,
    /// Small images.
    Images,
    /// Start and memory with many manifests.
    Catalogue,
    /// What stays of manifests that were deleted.
    Churn,
}

impl Section {
    /// All tables, in the report's order.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Blobs, Self::Reads, Self::Images, Self::Catalogue, Self::Churn];

    /// The table's heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Start => "Start and idle memory, empty store",
            Self::Blobs => "Large blobs",
            Self::Reads => "Manifest GET by tag and blob HEAD",
            Self::Images => "Small images pushed",
            Self::Catalogue => "Start and memory, many manifests",
            Self::Churn => "Manifests pushed and deleted again",
        }
    }
}

/// The unit of a measure; it also says which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds: less is better.
    Ms,
    /// 10^6 bytes of memory: less is better.
    Mb,
    /// 10^6 bytes a second: more is better.
    MbPerS,
    /// Exchanges a second: more is better.
    PerS,
    /// A number that is only told.
    Count,
}

impl Unit {
    /// As written in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ms => "ms",
            Self::Mb => "MB",
            Self::MbPerS => "MB/s",
            Self::PerS => "1/s",
            Self::Count => "",
        }
    }

    /// Whether less is better.
    pub fn less_is_better(self) -> bool {
        matches!(self, Self::Ms | Self::Mb)
    }
}

/// What NORA has set itself for a measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// At most this.
    AtMost(f64),
    /// At least this many times the best peer.
    TimesBestPeer(f64),
    /// At least this many times nginx.
    TimesNginx(f64),
}

/// A thing that is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Its table.
    pub section: Section,
    /// Its row.
    pub title: String,
    /// Its unit.
    pub unit: Unit,
    /// Only peers that sync what they acknowledge count as rivals.
    pub synced_rivals: bool,
    /// What NORA has set itself.
    pub bar: Option<Bar>,
}

impl Measure {
    /// A measure without a bar, compared with all peers.
    pub fn new(section: Section, title: impl Into<String>, unit: Unit) -> Self {
        Self { section, title: title.into(), unit, synced_rivals: false, bar: None }
    }

    /// With a bar.
    pub fn bar(self, bar: Option<Bar>) -> Self {
        Self { bar, ..self }
    }

    /// Compared only with peers that sync what they acknowledge, as NORA does.
    pub fn against_synced(self) -> Self {
        Self { synced_rivals: true, ..self }
    }
}

/// The samples of one measure of one target.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// The samples in the order in which they were taken.
    pub values: Vec<f64>,
    /// The most processors that others used while one was taken; `None` for what they cannot
    /// disturb.
    pub others: Option<f64>,
}

impl Series {
    /// The median.
    pub fn median(&self) -> Option<f64> {
        median(&self.values)
    }

    /// (largest − smallest) ÷ median.
    pub fn spread(&self) -> Option<f64> {
        spread(&self.values)
    }
}

/// All samples of a run.
#[derive(Debug, Default)]
pub struct Samples {
    rows: Vec<(Measure, BTreeMap<&'static str, Series>)>,
}

impl Samples {
    /// Takes a sample, with the processors that others used meanwhile if that could change it.
    pub fn add(&mut self, measure: Measure, kind: Kind, value: f64, others: Option<f64>) {
        let same = |row: &Measure| row.section == measure.section && row.title == measure.title;
        let at = match self.rows.iter().position(|(row, _)| same(row)) {
            Some(at) => at,
            None => {
                self.rows.push((measure, BTreeMap::new()));
                self.rows.len() - 1
            }
        };
        let series = self.rows[at].1.entry(kind.name()).or_default();
        series.values.push(value);
        series.others = match (series.others, others) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
    }

    /// The measures of a section in the order of their first samples.
    pub fn rows(&self, section: Section) -> impl Iterator<Item = Row<'_>> {
        self.rows
            .iter()
            .filter(move |(measure, _)| measure.section == section)
            .map(|(measure, series)| Row { measure, series })
    }
}

/// A measure with its samples by target.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The measure.
    pub measure: &'a Measure,
    /// The samples by the target's name.
    pub series: &'a BTreeMap<&'static str, Series>,
}

impl Row<'_> {
    /// The median of a target.
    pub fn median(&self, kind: Kind) -> Option<f64> {
        self.series.get(kind.name())?.median()
    }

    /// The best peer and how many times better NORA is; above 1 NORA is ahead, whatever the unit.
    pub fn times_best_peer(&self) -> Option<(Kind, f64)> {
        Kind::all()
            .filter(|kind| kind.is_peer())
            .filter(|kind| !self.measure.synced_rivals || kind.syncs())
            .filter_map(|kind| Some((kind, self.times(kind)?)))
            .min_by(|(_, one), (_, other)| one.total_cmp(other))
    }

    /// How many times better than nginx NORA is.
    pub fn times_nginx(&self) -> Option<f64> {
        self.times(Kind::Nginx)
    }

    /// How many times better than the earlier build NORA is.
    pub fn times_before(&self) -> Option<f64> {
        self.times(Kind::NoraBefore)
    }

    /// Whether NORA holds its bar; `None` without a bar or without the samples to tell.
    pub fn holds(&self) -> Option<bool> {
        match self.measure.bar? {
            Bar::AtMost(limit) => Some(self.median(Kind::Nora)? <= limit),
            Bar::TimesBestPeer(times) => Some(self.times_best_peer()?.1 >= times),
            Bar::TimesNginx(times) => Some(self.times_nginx()? >= times),
        }
    }

    fn times(&self, rival: Kind) -> Option<f64> {
        let (nora, rival) = (self.median(Kind::Nora)?, self.median(rival)?);
        let (over, under) = match self.measure.unit {
            Unit::Count => return None,
            unit if unit.less_is_better() => (rival, nora),
            _ => (nora, rival),
        };
        (under > 0.0).then_some(over / under)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(measure: &Measure, values: &[(Kind, f64)]) -> Samples {
        let mut samples = Samples::default();
        for (kind, value) in values {
            samples.add(measure.clone(), *kind, *value, None);
        }
        samples
    }

    #[test]
    fn the_best_peer_is_the_one_that_nora_leads_least() {
        let rate = Measure::new(Section::Blobs, "push", Unit::MbPerS);
        let all = [(Kind::Nora, 600.0), (Kind::Zot, 800.0), (Kind::Distribution, 400.0)];
        let taken = samples(&rate, &all);
        let row = taken.rows(Section::Blobs).next().unwrap();
        assert_eq!(row.times_best_peer(), Some((Kind::Zot, 0.75)));
        assert_eq!(row.times_before(), None);
        assert_eq!(row.times_nginx(), None);
        let taken = samples(&rate.against_synced(), &all);
        let row = taken.rows(Section::Blobs).next().unwrap();
        assert_eq!(row.times_best_peer(), Some((Kind::Distribution, 1.5)));
    }

    #[test]
    fn less_time_is_more_times_better() {
        let time = Measure::new(Section::Start, "start", Unit::Ms);
        let taken = samples(&time, &[(Kind::Nora, 20.0), (Kind::Nginx, 10.0), (Kind::Zot, 40.0)]);
        let row = taken.rows(Section::Start).next().unwrap();
        assert_eq!(row.times_nginx(), Some(0.5));
        assert_eq!(row.times_best_peer(), Some((Kind::Zot, 2.0)));
    }

    #[test]
    fn bars_hold_or_not_and_say_nothing_without_samples() {
        let holds = |bar, values: &[(Kind, f64)]| {
            let measure = Measure::new(Section::Reads, "get", Unit::PerS).bar(Some(bar));
            samples(&measure, values).rows(Section::Reads).next().unwrap().holds()
        };
        let both = [(Kind::Nora, 100.0), (Kind::Nginx, 100.0)];
        assert_eq!(holds(Bar::TimesNginx(1.0), &both), Some(true));
        assert_eq!(holds(Bar::TimesNginx(1.1), &both), Some(false));
        assert_eq!(holds(Bar::TimesBestPeer(1.0), &both), None);
        assert_eq!(holds(Bar::AtMost(99.0), &both), Some(false));
    }

    #[test]
    fn samples_of_one_measure_form_one_series() {
        let measure = Measure::new(Section::Start, "start", Unit::Ms);
        let mut samples = samples(&measure, &[(Kind::Nora, 1.0), (Kind::Nora, 3.0)]);
        samples.add(measure, Kind::Nora, 2.0, Some(0.4));
        let row = samples.rows(Section::Start).next().unwrap();
        let series = &row.series["nora"];
        assert_eq!((series.median(), series.spread()), (Some(2.0), Some(1.0)));
        assert_eq!(series.others, Some(0.4));
        assert_eq!(samples.rows(Section::Blobs).count(), 0);
    }
}
