//! A limit on bytes a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets so many bytes a second through, all who share it together.
pub(crate) struct Rate {
    bytes_a_second: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Rate {
    pub(crate) fn new(bytes_a_second: Option<u64>) -> Self {
        Self { bytes_a_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until the bytes may go.
    pub(crate) async fn take(&self, bytes: u64) {
        let Some(rate) = self.bytes_a_second else { return };
        let at = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*free_at).max(Instant::now());
            *free_at = at + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            at
        };
        tokio::time::sleep_until(at.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_take_their_time_and_no_limit_takes_none() {
        let (limited, free) = (Rate::new(Some(1_000_000)), Rate::new(None));
        let began = Instant::now();
        for _ in 0..4 {
            free.take(1 << 40).await;
            limited.take(50_000).await;
        }
        // The first goes at once, each of the others after those before it.
        assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
    }
}
