//! Time as the replicated state knows it: the cluster's clock, which the leader stamps into each command.
//!
//! Guarantee: whatever the state decides by age, it decides by this clock, so commands carry lengths of time and never
//! moments of a node's own clock. Must not know how a leader tells the time.

/// Milliseconds since the Unix epoch, by the cluster's clock; the state never runs backwards on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time and so many milliseconds more; saturates.
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this time; 0 if that is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds of an hour; hours count from the Unix epoch.
pub const HOUR_MILLIS: u64 = 3_600_000;
