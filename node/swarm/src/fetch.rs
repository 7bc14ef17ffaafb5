//! Taking a blob's chunks from several sources.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use crate::in_order::in_order;
use crate::source::{Source, SourceError};
use crate::table::{CHUNK_BYTES, ChunkTable};

/// A source is given at least this long before another one is asked beside it.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(200);
/// And so many times what its chunks took lately.
const HEDGE_FACTOR: u32 = 4;
/// A source that says nothing for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a source that failed is left alone, doubled with each failure in a row.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often a chunk is tried with sources that may get better, before it is given up.
const ROUNDS_MAX: u32 = 4;

/// What fetching may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Chunks that all fetches together hold in memory; one that is hedged may be there twice while it is.
    pub chunks_max: usize,
    /// Chunks that one stream asks for ahead of its reader.
    pub window: usize,
}

impl Default for Limits {
    /// 32 MiB for all, 4 for each.
    fn default() -> Self {
        Self { chunks_max: 32, window: 4 }
    }
}

/// What all fetches of a process share.
#[derive(Debug)]
pub struct Pool {
    /// Places of chunks that a reader waits for. Given back when the chunk has come, whatever the reader does.
    pub(crate) awaited: Arc<Semaphore>,
    /// Places of chunks ahead of a reader. Held until it takes them, so those who stall may use up these, but not the
    /// others: all who wait for a chunk get on, at worst one chunk at a time.
    pub(crate) ahead: Arc<Semaphore>,
    pub(crate) window: usize,
    fetched_bytes: AtomicU64,
    hedges: AtomicU64,
    bans: AtomicU64,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Verified bytes from sources.
    pub fetched_bytes: u64,
    /// Times that a second source was asked for a chunk because the first was slow.
    pub hedges: u64,
    /// Sources that sent wrong bytes.
    pub bans: u64,
}

impl Pool {
    /// A pool with these limits.
    pub fn new(limits: Limits) -> Arc<Self> {
        let awaited = (limits.chunks_max / 4).max(1);
        Arc::new(Self {
            awaited: Arc::new(Semaphore::new(awaited)),
            ahead: Arc::new(Semaphore::new(limits.chunks_max.saturating_sub(awaited))),
            window: limits.window.max(1),
            fetched_bytes: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
            bans: AtomicU64::new(0),
        })
    }

    /// What was counted.
    pub fn stats(&self) -> PoolStats {
        PoolStats {
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
            hedges: self.hedges.load(Ordering::Relaxed),
            bans: self.bans.load(Ordering::Relaxed),
        }
    }
}

/// Why a chunk could not be had: what each source did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no source gave the blob: {}", tell(.sources))]
pub struct FetchError {
    /// Each source's name and why it failed.
    pub sources: Vec<(String, SourceError)>,
}

fn tell(sources: &[(String, SourceError)]) -> String {
    if sources.is_empty() {
        return "there is none".to_owned();
    }
    let told: Vec<_> = sources.iter().map(|(label, error)| format!("{label}: {error}")).collect();
    told.join("; ")
}

impl FetchError {
    /// It failed in this process, whatever the sources would have done.
    pub(crate) fn here(error: SourceError) -> Self {
        Self { sources: vec![("this process".to_owned(), error)] }
    }

    /// Whether asking again later may help.
    pub fn may_pass(&self) -> bool {
        self.sources.iter().any(|(_, error)| matches!(error, SourceError::Unavailable(_)))
    }
}

/// A source and how it did.
struct Standing {
    source: Arc<dyn Source>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What a chunk took lately, smoothed; `None` until one came.
    chunk_time: Option<Duration>,
    running: u32,
    failures: u32,
    wait_until: Option<Instant>,
    last_error: Option<SourceError>,
    gone: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a source's running requests, however they end.
struct Running<'a>(&'a Standing);

impl<'a> Running<'a> {
    fn enter(standing: &'a Standing) -> Self {
        locked(&standing.state).running += 1;
        Self(standing)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        locked(&self.0.state).running -= 1;
    }
}

impl Standing {
    fn new(source: Arc<dyn Source>) -> Self {
        Self { source, state: Mutex::default() }
    }

    fn is_gone(&self) -> bool {
        locked(&self.state).gone
    }

    /// How long a request to it would take, about; `None` while it should be left alone.
    fn cost(&self, now: Instant) -> Option<Duration> {
        let state = locked(&self.state);
        if state.gone || state.wait_until.is_some_and(|until| until > now) {
            return None;
        }
        // One that was never asked is tried early.
        let chunk = state.chunk_time.unwrap_or(Duration::from_millis(1));
        Some(chunk * (state.running + 1))
    }

    fn patience(&self) -> Duration {
        let chunk = locked(&self.state).chunk_time.unwrap_or_default();
        HEDGE_AFTER_MIN.max(chunk * HEDGE_FACTOR)
    }

    fn succeeded(&self, took: Duration) {
        let mut state = locked(&self.state);
        state.failures = 0;
        state.wait_until = None;
        state.chunk_time = Some(match state.chunk_time {
            Some(before) => (before * 3 + took) / 4,
            None => took,
        });
    }

    /// Another one was faster, so what a chunk takes here is known to be no less than this. Without it a source that never
    /// answers would look as good as one that was never asked, and be waited for with each chunk.
    fn outrun(&self, waited: Duration) {
        let mut state = locked(&self.state);
        state.chunk_time = Some(state.chunk_time.unwrap_or_default().max(waited));
    }

    fn failed(&self, error: SourceError) {
        let mut state = locked(&self.state);
        state.gone |= matches!(error, SourceError::Absent | SourceError::Corrupt);
        let wait = BACKOFF_MIN * 2u32.saturating_pow(state.failures.min(10));
        state.failures += 1;
        state.wait_until = Some(Instant::now() + wait.min(BACKOFF_MAX));
        state.last_error = Some(error);
    }
}

/// Fetches one blob.
pub struct Fetcher {
    size: u64,
    root: [u8; 32],
    sources: Vec<Standing>,
    table: OnceCell<ChunkTable>,
    pool: Arc<Pool>,
}

impl Fetcher {
    /// A fetcher of the blob with that size and table root. Sources come in the order in which they are liked.
    pub fn new(
        size: u64,
        root: [u8; 32],
        sources: Vec<Arc<dyn Source>>,
        pool: Arc<Pool>,
    ) -> Arc<Self> {
        let sources = sources.into_iter().map(Standing::new).collect();
        Arc::new(Self { size, root, sources, table: OnceCell::new(), pool })
    }

    /// The blob's size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes a table that is known already; false if it is not this blob's.
    pub fn set_table(&self, table: ChunkTable) -> bool {
        let fits = table.size() == self.size && table.root() == self.root;
        if fits {
            // Another one that was set meanwhile has the same root, so it is the same.
            let _ = self.table.set(table);
        }
        fits
    }

    /// The chunk table, from a source if it is not known. That of a blob of one chunk is made from its bytes, which
    /// spares a question.
    pub async fn table(&self) -> Result<&ChunkTable, FetchError> {
        self.table.get_or_try_init(|| self.fetch_table()).await
    }

    /// Whether no source is left that could give anything.
    pub(crate) fn is_spent(&self) -> bool {
        self.sources.iter().all(Standing::is_gone)
    }

    pub(crate) fn known_table(&self) -> Option<&ChunkTable> {
        self.table.get()
    }

    async fn fetch_table(&self) -> Result<ChunkTable, FetchError> {
        for round in 0..ROUNDS_MAX {
            let mut untried = self.sources.iter().filter(|standing| !standing.is_gone());
            let mut asked = FuturesUnordered::new();
            loop {
                // One more is asked whenever none is left that is waited for, or those are slow.
                let answer = match asked.is_empty() {
                    true => None,
                    false => tokio::time::timeout(HEDGE_AFTER_MIN, asked.next()).await.ok(),
                };
                if let Some(Some(Some(table))) = answer {
                    return Ok(table);
                }
                match untried.next() {
                    Some(standing) => asked.push(self.ask_for_table(standing)),
                    None if asked.is_empty() => break,
                    None => {}
                }
            }
            if !self.wait(round).await {
                break;
            }
        }
        Err(self.error())
    }

    /// The verified table from one source, or `None` and the source's standing is lower.
    async fn ask_for_table(&self, standing: &Standing) -> Option<ChunkTable> {
        let asked = tokio::time::timeout(SILENCE_MAX, standing.source.table()).await;
        match asked.unwrap_or_else(|_| Err(silent())) {
            Ok(table) if table.size() == self.size && table.root() == self.root => Some(table),
            Ok(_) => {
                self.ban(standing);
                None
            }
            Err(error) => {
                standing.failed(error);
                None
            }
        }
    }

    /// How many chunks the blob has.
    pub fn chunks(&self) -> usize {
        usize::try_from(self.size.div_ceil(CHUNK_BYTES as u64)).unwrap_or(usize::MAX)
    }

    fn range(&self, index: usize) -> Range<u64> {
        let start = index as u64 * CHUNK_BYTES as u64;
        start..self.size.min(start + CHUNK_BYTES as u64)
    }

    /// Whether these bytes are chunk `index`. Hashing a chunk takes well under a millisecond, so it is done where the bytes
    /// are.
    async fn verify(&self, index: usize, bytes: &Bytes) -> Result<bool, FetchError> {
        if self.chunks() == 1 && self.table.get().is_none() {
            let mut hasher = crate::table::ChunkHasher::default();
            hasher.update(bytes);
            return Ok(self.set_table(hasher.table()));
        }
        Ok(self.table().await?.verify(index, bytes))
    }

    /// One chunk, verified.
    pub async fn chunk(&self, index: usize) -> Result<Bytes, FetchError> {
        if self.chunks() > 1 {
            self.table().await?;
        }
        for round in 0..ROUNDS_MAX {
            while let Some(first) = self.best(&[]) {
                if let Some(bytes) = self.hedged(index, first).await? {
                    return Ok(bytes);
                }
            }
            if !self.wait(round).await {
                break;
            }
        }
        Err(self.error())
    }

    /// The source that will serve soonest, of those that are not in `except`. Equal ones are taken as they are liked.
    fn best(&self, except: &[usize]) -> Option<usize> {
        let now = Instant::now();
        let usable = self.sources.iter().enumerate().filter(|(at, _)| !except.contains(at));
        let costs = usable.filter_map(|(at, standing)| Some((standing.cost(now)?, at)));
        costs.min().map(|(_, at)| at)
    }

    /// Waits for a source to be worth asking again; false if none will be.
    async fn wait(&self, round: u32) -> bool {
        if round + 1 == ROUNDS_MAX {
            return false;
        }
        let soonest = self
            .sources
            .iter()
            .filter(|standing| !standing.is_gone())
            .map(|standing| locked(&standing.state).wait_until.unwrap_or_else(Instant::now))
            .min();
        match soonest {
            Some(until) => {
                tokio::time::sleep_until(until).await;
                true
            }
            None => false,
        }
    }

    /// Asks one source, and a second one beside it if the first is slow. The first verified answer counts; the other
    /// request ends. `None` if neither gave one.
    async fn hedged(&self, index: usize, first: usize) -> Result<Option<Bytes>, FetchError> {
        let started = Instant::now();
        let patience = self.sources[first].patience();
        let mut asked = Box::pin(self.ask(index, first));
        if let Ok(answer) = tokio::time::timeout(patience, &mut asked).await {
            return answer;
        }
        let Some(second) = self.best(&[first]) else { return asked.await };
        self.pool.hedges.fetch_add(1, Ordering::Relaxed);
        match select(asked, Box::pin(self.ask(index, second))).await {
            Either::Left((answer, other)) => match answer? {
                Some(bytes) => Ok(Some(bytes)),
                None => other.await,
            },
            Either::Right((answer, other)) => match answer? {
                Some(bytes) => {
                    self.sources[first].outrun(started.elapsed());
                    Ok(Some(bytes))
                }
                None => other.await,
            },
        }
    }

    /// One request to one source: the verified chunk, or `None` and the source's standing is lower.
    async fn ask(&self, index: usize, at: usize) -> Result<Option<Bytes>, FetchError> {
        let standing = &self.sources[at];
        let _running = Running::enter(standing);
        let started = Instant::now();
        match read(&*standing.source, self.range(index)).await {
            Ok(bytes) if self.verify(index, &bytes).await? => {
                standing.succeeded(started.elapsed());
                self.pool.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(Some(bytes))
            }
            Ok(_) => {
                self.ban(standing);
                Ok(None)
            }
            Err(error) => {
                standing.failed(error);
                Ok(None)
            }
        }
    }

    fn ban(&self, standing: &Standing) {
        self.pool.bans.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(source = standing.source.label(), "wrong bytes: not asked again");
        standing.failed(SourceError::Corrupt);
    }

    fn error(&self) -> FetchError {
        let sources = self.sources.iter().map(|standing| {
            let error = locked(&standing.state).last_error.clone();
            let error = error.unwrap_or_else(|| SourceError::Unavailable("not asked".into()));
            (standing.source.label(), error)
        });
        FetchError { sources: sources.collect() }
    }

    /// A range of the blob, in order; chunks are fetched ahead of the reader. A reader that goes away ends its fetches.
    pub fn stream(
        self: Arc<Self>,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<Bytes, FetchError>> {
        let pool = self.pool.clone();
        in_order(pool, range, move |index| {
            let fetcher = self.clone();
            async move { fetcher.chunk(index).await }
        })
    }
}

fn silent() -> SourceError {
    SourceError::Unavailable(format!("it said nothing for {} s", SILENCE_MAX.as_secs()))
}

/// Reads a range whole.
async fn read(source: &dyn Source, range: Range<u64>) -> Result<Bytes, SourceError> {
    let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let opened = tokio::time::timeout(SILENCE_MAX, source.read(range)).await;
    let mut pieces = opened.unwrap_or_else(|_| Err(silent()))?;
    let mut all = BytesMut::new();
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, pieces.next()).await;
        let Some(piece) = next.map_err(|_| silent())? else { break };
        let piece = piece?;
        // The usual case: the range comes in one piece, and is not copied.
        if all.is_empty() && piece.len() == wanted {
            return Ok(piece);
        }
        if all.len() + piece.len() > wanted {
            return Err(SourceError::Corrupt);
        }
        if all.is_empty() {
            all.reserve(wanted);
        }
        all.extend_from_slice(&piece);
    }
    if all.len() < wanted {
        return Err(SourceError::Unavailable("it broke off".into()));
    }
    Ok(all.freeze())
}
