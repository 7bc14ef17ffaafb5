//! The thread that makes the log durable: one sync for all appends that wait for it.
//!
//! Guarantee: callbacks are completed in the order their appends were made, each after a sync that began after its
//! append. After a failed sync every later one fails too: whether the bytes of before are on the disk can then no
//! longer be known.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use openraft::storage::IOFlushed;
use rocksdb::DB;

use super::TypeConfig;

/// Hands callbacks to the thread; ends it when dropped.
pub struct Flusher {
    // The queue is bounded by what openraft lets be in flight: it takes proposals from a bounded channel.
    queue: Option<mpsc::Sender<IOFlushed<TypeConfig>>>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<AtomicBool>,
}

impl Flusher {
    /// Starts the thread.
    pub fn start(db: Arc<DB>) -> io::Result<Self> {
        let (queue, waiting) = mpsc::channel();
        let failed = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("raft-log-sync".into()).spawn({
            let failed = failed.clone();
            move || run(&db, &waiting, &failed)
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), failed })
    }

    /// Completes `callback` once all that is written so far is durable.
    pub fn flush(&self, callback: IOFlushed<TypeConfig>) {
        let refused = match &self.queue {
            Some(queue) => queue.send(callback).err().map(|mpsc::SendError(callback)| callback),
            None => Some(callback),
        };
        if let Some(callback) = refused {
            callback.io_completed(Err(io::Error::other("the log's sync thread has ended")));
        }
    }

    /// Fails if a sync failed before.
    pub fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) { Err(failed_before()) } else { Ok(()) }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's sync thread panicked");
        }
    }
}

fn failed_before() -> io::Error {
    io::Error::other("an earlier sync of the log failed: restart the node")
}

fn run(db: &DB, waiting: &mpsc::Receiver<IOFlushed<TypeConfig>>, failed: &AtomicBool) {
    let mut group = Vec::new();
    while let Ok(first) = waiting.recv() {
        group.push(first);
        group.extend(waiting.try_iter());
        let result = if failed.load(Ordering::Acquire) {
            Err(failed_before())
        } else {
            db.flush_wal(true).map_err(crate::rocks::io_error)
        };
        if let Err(error) = &result {
            failed.store(true, Ordering::Release);
            tracing::error!(%error, "cannot sync the log: this node stops");
        }
        for callback in group.drain(..) {
            let result = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            callback.io_completed(result);
        }
    }
}
