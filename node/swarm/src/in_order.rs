//! A range of a blob as a stream: chunks in order, fetched ahead of the reader.
//!
//! Guarantees: a fetch that began goes on whether or not its reader takes bytes, so a reader that stalls (a client that is
//! slow, or gone without a word) keeps neither the chunks of others nor all the places in memory. A reader that is dropped
//! ends its fetches.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::fetch::{FetchError, Pool};
use crate::source::SourceError;
use crate::table::CHUNK_BYTES;

/// One chunk on its way, in a task of its own.
struct Running {
    task: JoinHandle<Result<Bytes, FetchError>>,
    /// Its place until it is handed on, if it was begun ahead of the reader; one that the reader waits for gives its place
    /// back by itself.
    _place: Option<OwnedSemaphorePermit>,
}

impl Running {
    async fn finish(mut self) -> Result<Bytes, FetchError> {
        match (&mut self.task).await {
            Ok(fetched) => fetched,
            Err(error) => Err(FetchError::here(SourceError::Unavailable(error.to_string()))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reader<C> {
    pool: Arc<Pool>,
    range: Range<u64>,
    /// The chunk after those that were begun.
    next: u64,
    end: u64,
    running: VecDeque<(u64, Running)>,
    chunk: C,
}

/// A range in chunks, up to the pool's window of them on their way at once.
pub(crate) fn in_order<F>(
    pool: Arc<Pool>,
    range: Range<u64>,
    chunk: impl Fn(usize) -> F + Send + 'static,
) -> BoxStream<'static, Result<Bytes, FetchError>>
where
    F: Future<Output = Result<Bytes, FetchError>> + Send + 'static,
{
    let next = range.start / CHUNK_BYTES as u64;
    let end = if range.is_empty() { next } else { range.end.div_ceil(CHUNK_BYTES as u64) };
    let reader = Reader { pool, range, next, end, running: VecDeque::new(), chunk };
    stream::unfold(reader, |mut reader| async move {
        let part = reader.part().await?;
        Some((part, reader))
    })
    .boxed()
}

impl<C, F> Reader<C>
where
    C: Fn(usize) -> F,
    F: Future<Output = Result<Bytes, FetchError>> + Send + 'static,
{
    /// What the range has of its next chunk; `None` at its end.
    async fn part(&mut self) -> Option<Result<Bytes, FetchError>> {
        if self.running.is_empty() {
            if self.next == self.end {
                return None;
            }
            // Never closed, so it is always given in the end.
            let place = self.pool.awaited.clone().acquire_owned().await.ok()?;
            let fetch = self.fetch();
            let task = tokio::spawn(async move {
                let _place = place;
                fetch.await
            });
            self.began(task, None);
        }
        while self.next < self.end && self.running.len() < self.pool.window {
            let Ok(place) = self.pool.ahead.clone().try_acquire_owned() else { break };
            let task = tokio::spawn(self.fetch());
            self.began(task, Some(place));
        }
        let (index, running) = self.running.pop_front()?;
        let fetched = running.finish().await;
        if fetched.is_err() {
            // What follows a gap is of no use.
            self.running.clear();
            self.next = self.end;
        }
        Some(fetched.map(|bytes| self.cut(index, &bytes)))
    }

    fn fetch(&self) -> F {
        (self.chunk)(usize::try_from(self.next).unwrap_or(usize::MAX))
    }

    fn began(
        &mut self,
        task: JoinHandle<Result<Bytes, FetchError>>,
        place: Option<OwnedSemaphorePermit>,
    ) {
        self.running.push_back((self.next, Running { task, _place: place }));
        self.next += 1;
    }

    /// What of a chunk lies in the range.
    fn cut(&self, index: u64, bytes: &Bytes) -> Bytes {
        let start = index * CHUNK_BYTES as u64;
        let place = |at: u64| {
            usize::try_from(at.saturating_sub(start)).map_or(bytes.len(), |at| at.min(bytes.len()))
        };
        bytes.slice(place(self.range.start)..place(self.range.end))
    }
}
