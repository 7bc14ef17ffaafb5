//! How often somebody may do something within a time.
//!
//! Guarantees: memory is bounded; one who is forgotten to keep it so begins anew. Must not know: what is done.

use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

/// Names that are counted.
const NAMES_MAX: u64 = 10_000;

/// What each name has done within a time.
pub(super) struct Pace {
    counts: Cache<String, (u32, Instant)>,
    most: u32,
    within: Duration,
}

impl Pace {
    /// `most` times within that time, for each name.
    pub(super) fn new(most: u32, within: Duration) -> Self {
        let counts = Cache::builder().max_capacity(NAMES_MAX).time_to_live(within).build();
        Self { counts, most, within }
    }

    /// Counts once more for a name; `Err` says how long it has to wait.
    pub(super) fn take(&self, name: &str) -> Result<(), Duration> {
        let entry = self.counts.entry_by_ref(name).and_upsert_with(|known| {
            match known.map(moka::Entry::into_value) {
                Some((count, since)) if since.elapsed() < self.within => {
                    (count.saturating_add(1), since)
                }
                _ => (1, Instant::now()),
            }
        });
        let (count, since) = entry.into_value();
        if count <= self.most { Ok(()) } else { Err(self.within.saturating_sub(since.elapsed())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_name_has_a_count_of_its_own_that_begins_anew() {
        let pace = Pace::new(2, Duration::from_secs(60));
        assert!(pace.take("a").is_ok() && pace.take("a").is_ok() && pace.take("b").is_ok());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(pace.take("a"), Err(Duration::from_secs(50)));
        assert!(pace.take("b").is_ok());
        tokio::time::advance(Duration::from_secs(50)).await;
        assert!(pace.take("a").is_ok());
    }
}
