//! One question to the leader for all readers that wait for one.
//!
//! Guarantee: a reader's answer comes from a probe that *started after* the reader came. One that was already under way
//! may have been answered from before a change that the reader must see.

use std::sync::{Arc, Mutex};

use nora_app::ports::BoxFuture;
use tokio::sync::oneshot;

use crate::rocks::locked;

/// Why a probe gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// There is no leader, or it cannot reach a quorum.
    NoLeader,
    /// The leader answered, but this node did not catch up in time.
    Behind,
}

/// A probe's answer.
pub type ProbeResult = Result<(), ProbeError>;

/// Waits until this node's state holds whatever was acknowledged anywhere before the call.
pub type Probe = dyn Fn() -> BoxFuture<'static, ProbeResult> + Send + Sync;

/// Readers that share probes.
pub struct SharedProbe {
    inner: Arc<Inner>,
}

struct Inner {
    probe: Box<Probe>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    readers: Vec<oneshot::Sender<ProbeResult>>,
    probing: bool,
}

impl SharedProbe {
    /// Readers that share `probe`.
    pub fn new(probe: Box<Probe>) -> Self {
        Self { inner: Arc::new(Inner { probe, waiting: Mutex::default() }) }
    }

    /// Waits for a probe that starts after this call.
    pub async fn wait(&self) -> ProbeResult {
        let (reader, answer) = oneshot::channel();
        let start = {
            let mut waiting = locked(&self.inner.waiting);
            waiting.readers.push(reader);
            !std::mem::replace(&mut waiting.probing, true)
        };
        if start {
            // A task of its own: a reader that goes away must not take the others' probe with it.
            tokio::spawn(run(self.inner.clone()));
        }
        answer.await.unwrap_or(Err(ProbeError::NoLeader))
    }
}

async fn run(inner: Arc<Inner>) {
    loop {
        let readers = {
            let mut waiting = locked(&inner.waiting);
            if waiting.readers.is_empty() {
                waiting.probing = false;
                return;
            }
            std::mem::take(&mut waiting.readers)
        };
        let answer = (inner.probe)().await;
        for reader in readers {
            // A reader may have gone away.
            let _ = reader.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn readers_share_a_probe_that_starts_after_they_came() {
        let started = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let probe = SharedProbe::new(Box::new({
            let (started, gate) = (started.clone(), gate.clone());
            move || {
                started.fetch_add(1, Ordering::SeqCst);
                let gate = gate.clone();
                Box::pin(async move {
                    gate.acquire().await.map_err(|_| ProbeError::NoLeader)?.forget();
                    Ok(())
                })
            }
        }));
        let probe = Arc::new(probe);

        let first = tokio::spawn({
            let probe = probe.clone();
            async move { probe.wait().await }
        });
        while started.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..32)
            .map(|_| {
                let probe = probe.clone();
                tokio::spawn(async move { probe.wait().await })
            })
            .collect();
        while locked(&probe.inner.waiting).readers.len() < 32 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
        assert_eq!(first.await.unwrap(), Ok(()));
        assert!(
            later.iter().all(|reader| !reader.is_finished()),
            "the first probe started before they came"
        );
        gate.add_permits(1);
        for reader in later {
            assert_eq!(reader.await.unwrap(), Ok(()));
        }
        assert_eq!(started.load(Ordering::SeqCst), 2, "32 readers cost one probe");
    }
}
