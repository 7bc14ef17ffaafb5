//! Medians, spreads and percentiles of samples.
//!
//! Percentiles are exact (nearest rank over all samples), not estimates from buckets.

use std::time::Duration;

/// The median; of an even number of samples the mean of the middle two. `None` without samples.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// (largest − smallest) ÷ median: 0.1 says that the samples lie within a tenth. `None` for fewer
/// than two samples.
pub fn spread(samples: &[f64]) -> Option<f64> {
    let middle = median(samples)?;
    if samples.len() < 2 || middle == 0.0 {
        return None;
    }
    let largest = samples.iter().copied().fold(f64::MIN, f64::max);
    let smallest = samples.iter().copied().fold(f64::MAX, f64::min);
    Some((largest - smallest) / middle)
}

/// Latencies of one run, sorted.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    sorted_us: Vec<u32>,
}

impl Latencies {
    /// Takes latencies in microseconds, in any order.
    pub fn from_micros(mut samples: Vec<u32>) -> Self {
        samples.sort_unstable();
        Self { sorted_us: samples }
    }

    /// How many samples there are.
    pub fn count(&self) -> usize {
        self.sorted_us.len()
    }

    /// The latency in milliseconds that `per_cent` of the samples do not exceed. 0 without samples.
    pub fn percentile_ms(&self, per_cent: f64) -> f64 {
        let exact = per_cent / 100.0 * self.sorted_us.len() as f64;
        // 99.9 % of 1,000 is 999: what floating point adds to it must not round it up.
        let rank = (exact - 1e-6).ceil().max(0.0) as usize;
        let at = rank.clamp(1, self.sorted_us.len().max(1)) - 1;
        self.sorted_us.get(at).map_or(0.0, |us| f64::from(*us) / 1e3)
    }
}

/// Whole microseconds, capped at what 32 bits hold (71 minutes).
pub fn micros(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_middle_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        assert_eq!(spread(&[5.0]), None);
        assert_eq!(spread(&[90.0, 100.0, 110.0]), Some(0.2));
        assert_eq!(spread(&[0.0, 0.0]), None);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let all = Latencies::from_micros((1..=1000).rev().map(|ms| ms * 1000).collect());
        assert_eq!(all.count(), 1000);
        assert_eq!(all.percentile_ms(50.0), 500.0);
        assert_eq!(all.percentile_ms(99.0), 990.0);
        assert_eq!(all.percentile_ms(99.9), 999.0);
        assert_eq!(all.percentile_ms(100.0), 1000.0);
        assert_eq!(all.percentile_ms(0.0), 1.0);
        assert_eq!(Latencies::default().percentile_ms(50.0), 0.0);
    }
}
