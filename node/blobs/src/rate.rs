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
