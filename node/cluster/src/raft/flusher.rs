//! The log's syncs: one for all appends that wait for it, made by a thread of its own.
//!
//! Guarantees: callbacks are completed in the order their appends were made, each after a sync that began after its
//! append; how far the log was synced is [noted](Synced) before anybody hears of it. After a failed sync every later
//! one fails too: whether the bytes of before are on the disk can then no longer be known.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::storage::IOFlushed;
use rocksdb::DB;

use super::TypeConfig;
use super::synced::Synced;
use crate::rocks::{io_error, locked};

/// Makes durable what was written to the log.
pub struct Syncer {
    db: Arc<DB>,
    synced: Mutex<Synced>,
    failed: AtomicBool,
}

impl Syncer {
    /// For the log in `db`, of which so much was synced.
    pub fn new(db: Arc<DB>, synced: Synced) -> Self {
        Self { db, synced: Mutex::new(synced), failed: AtomicBool::new(false) }
    }

    /// Fails if a sync failed before.
    pub fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            Err(io::Error::other("an earlier sync of the log failed: restart the node"))
        } else {
            Ok(())
        }
    }

    /// Makes everything durable that was written before the call.
    pub fn sync(&self) -> io::Result<()> {
        self.check()?;
        // Writes that come in from here on may be synced too; they are not counted.
        let number = self.db.latest_sequence_number();
        let flushed = self.db.flush_wal(true).map_err(io_error);
        self.noted(flushed.and_then(|()| locked(&self.synced).reach(number)))
    }

    /// Makes durable how far the log was synced.
    pub fn sync_number(&self) -> io::Result<()> {
        self.check()?;
        self.noted(locked(&self.synced).sync())
    }

    /// In what time [`Self::sync_number`] is to be called; none if not at all, as after a failure.
    fn due(&self) -> Option<Duration> {
        locked(&self.synced).due().filter(|_| !self.failed.load(Ordering::Acquire))
    }

    fn noted(&self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result {
            self.failed.store(true, Ordering::Release);
            tracing::error!(%error, "cannot sync the log: this node stops");
        }
        result
    }
}

/// Hands callbacks to the thread; ends it when dropped.
pub struct Flusher {
    // The queue is bounded by what openraft lets be in flight: it takes proposals from a bounded channel.
    queue: Option<mpsc::Sender<IOFlushed<TypeConfig>>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread.
    pub fn start(syncer: Arc<Syncer>) -> io::Result<Self> {
        let (queue, waiting) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("raft-log-sync".into())
            .spawn(move || run(&syncer, &waiting))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
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

fn run(syncer: &Syncer, waiting: &mpsc::Receiver<IOFlushed<TypeConfig>>) {
    let mut group = Vec::new();
    loop {
        let first = match syncer.due() {
            None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => waiting.recv_timeout(due),
        };
        match first {
            Ok(first) => {
                group.push(first);
                group.extend(waiting.try_iter());
                complete(&mut group, &syncer.sync());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if syncer.due().is_some_and(|due| due.is_zero()) {
            // A failure is logged, and handed to the next append.
            let _ = syncer.sync_number();
        }
    }
    let _ = syncer.sync_number();
}

fn complete(group: &mut Vec<IOFlushed<TypeConfig>>, result: &io::Result<()>) {
    for callback in group.drain(..) {
        let result = match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        callback.io_completed(result);
    }
}
