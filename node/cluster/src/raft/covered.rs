//! How far snapshots on disk go: what the log may drop its beginning by.
//!
//! Invariant kept here: an entry goes from the log only once a snapshot that covers it is durable. A snapshot that comes
//! from elsewhere is installed by one task while another is told to drop the log that it stands for; were the drop to
//! reach the disk first, a crash between both would leave neither the entries nor the state they led to.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The index after the last one that is covered.
    end: u64,
    /// A snapshot could not be installed: nothing more will be.
    failed: bool,
}

/// Shared by the log and the snapshots of a node.
#[derive(Clone, Debug)]
pub struct Covered(Arc<watch::Sender<State>>);

impl Covered {
    /// Nothing yet.
    pub fn nothing() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    /// A durable snapshot goes up to `index`.
    pub fn reach(&self, index: u64) {
        self.0.send_modify(|state| state.end = state.end.max(index.saturating_add(1)));
    }

    /// A snapshot that was to be installed is not, and consensus is about to end for it.
    pub fn fail(&self) {
        self.0.send_modify(|state| state.failed = true);
    }

    /// Waits until entries up to `index` may go. An error if a snapshot could not be installed: then they must not.
    pub async fn wait(&self, index: u64) -> io::Result<()> {
        let mut state = self.0.subscribe();
        let found = state.wait_for(|state| state.end > index || state.failed).await;
        match found.map(|state| state.end > index) {
            Ok(true) => Ok(()),
            _ => Err(io::Error::other("no snapshot covers what is to go from the log")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_go_once_they_are_covered_and_not_after_a_failure() {
        let covered = Covered::nothing();
        covered.reach(5);
        covered.wait(5).await.unwrap();
        let waiting = tokio::spawn({
            let covered = covered.clone();
            async move { covered.wait(6).await }
        });
        while covered.0.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        covered.reach(3);
        covered.reach(6);
        waiting.await.unwrap().unwrap();

        covered.fail();
        covered.wait(6).await.unwrap();
        covered.wait(7).await.unwrap_err();
    }
}
