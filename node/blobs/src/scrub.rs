//! Reading every copy again before a client meets a bit that flipped.
//!
//! A copy's bytes are compared with the digest, and chunk by chunk with the table, which is compared with
//! the root in the metadata. The digest is computed as well because a broken or hostile member may have
//! stored other bytes with a table that fits them. Guarantees: a round is spread over its interval
//! by bytes, goes on at the folder where an earlier process stopped, and reads the disk rather than
//! memory; what is wrong leaves the readers' way before anything else happens.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nora_app::jobs::{Job, Schedule, Turn};
use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::metadata::MetadataError;
use nora_app::ports::{BoxError, BoxFuture};
use nora_digest::ContentHasher;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::inventory;
use crate::layout::BlobFileName;
use crate::map;
use crate::reconcile::Shard;
use crate::replicated::{Shared, copy_of};
use crate::store::Inner;
use nora_swarm::{CHUNK_BYTES, ChunkHasher};

/// Folders of one algorithm: a round gives each the same time, because digests fall evenly.
const SHARDS: u32 = 256;
/// How soon a round that stopped is taken up again, at most.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How often the job looks whether a round is due, at least.
const LOOK_MAX: Duration = Duration::from_secs(3_600);
/// Chunks that a turn reads.
const CHUNKS_AT_ONCE: usize = 8;

/// What a round found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Copies that were read.
    pub copies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Copies that are damaged; they are in quarantine.
    pub damaged: u64,
}

/// Why a round stopped.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The metadata did not say what a copy should be.
    #[error("cannot learn what a copy should be")]
    Metadata(#[from] MetadataError),
    /// A folder cannot be read, or a damaged file not be moved.
    #[error("cannot scrub this node's copies")]
    Disk(#[from] io::Error),
    /// The server is ending.
    #[error("the work was cut short")]
    Cut(#[from] tokio::task::JoinError),
}

/// How far a round is, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PositionV1 {
    version: u32,
    /// When the round began, in milliseconds since the Unix epoch.
    began_at: u64,
    /// The last folder that is done, as `algorithm/shard`; empty at the beginning.
    done: String,
}

impl PositionV1 {
    fn begin() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began_at = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { version: 1, began_at, done: String::new() }
    }

    /// Reads where an earlier process stopped. A position that cannot be read begins a round: reading
    /// too much is never wrong.
    fn load(inner: &Inner) -> Self {
        let stored = std::fs::read(inner.layout.scrub_position()).ok();
        let stored = stored.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        stored.filter(|position| position.version == 1).unwrap_or_else(Self::begin)
    }

    fn store(&self, inner: &Inner) {
        let stored = serde_json::to_vec(self)
            .map_err(io::Error::other)
            .and_then(|bytes| std::fs::write(inner.layout.scrub_position(), bytes));
        if let Err(error) = stored {
            warn!(%error, "cannot note how far scrubbing is; the next start reads some again");
        }
    }
}

impl Shard {
    fn name(&self) -> String {
        let shard = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{}/{shard}", self.algorithm)
    }
}

/// The time that a folder's bytes are spread over.
struct Pace {
    began: Instant,
    time: Duration,
    total: u64,
    read: u64,
}

impl Pace {
    /// How long until so much of the total may have been read.
    fn wait(&self) -> Duration {
        let share = self.read as f64 / self.total.max(1) as f64;
        self.time.mul_f64(share.min(1.0)).saturating_sub(self.began.elapsed())
    }

    /// How long until the folder's time is over.
    fn left(&self) -> Duration {
        self.time.saturating_sub(self.began.elapsed())
    }
}

/// The job that reads every copy again, round after round.
pub(crate) struct Scrubber {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` until it was read from the disk.
    position: Option<PositionV1>,
    /// The folder that is being read.
    folder: Option<Folder>,
    report: ScrubReport,
}

/// A folder that is being read.
struct Folder {
    name: String,
    /// What is left to read, in order.
    left: VecDeque<BlobFileName>,
    pace: Pace,
    /// The copy that is being read.
    reading: Option<Rereading>,
}

impl Job for Scrubber {
    fn schedule(&self) -> Schedule {
        Schedule::every("blobs-scrub", LOOK_MAX).retry_max(RETRY_MAX)
    }

    fn turn(&self) -> BoxFuture<'_, Result<Turn, BoxError>> {
        Box::pin(async { Ok(self.step().await?) })
    }
}

impl Scrubber {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, state: Mutex::default() }
    }

    async fn step(&self) -> Result<Turn, ScrubError> {
        let mut state = self.state.lock().await;
        let State { position, folder, report } = &mut *state;
        let position = match position {
            Some(position) => position,
            empty => {
                let inner = Arc::clone(&self.shared.local.inner);
                empty.insert(spawn_blocking(move || PositionV1::load(&inner)).await?)
            }
        };
        let Some(current) = folder else {
            return self.next_folder(position, folder, report).await;
        };
        if current.reading.is_none() {
            let Some(name) = current.left.front().copied() else {
                let wait = current.pace.left();
                if wait.is_zero() {
                    position.done.clone_from(&current.name);
                    *folder = None;
                    self.store(position).await?;
                    return Ok(Turn::more());
                }
                return Ok(Turn::after(wait.min(LOOK_MAX)));
            };
            let row = self.shared.live(name.digest).await?;
            let live = row.filter(|blob| blob.generation == name.generation);
            let opened = match live {
                Some(blob) => self.open(copy_of(name.digest, &blob), report).await?,
                None => None,
            };
            current.left.pop_front();
            let Some(reading) = opened else { return Ok(Turn::more()) };
            current.reading = Some(reading);
        }
        let Some(reading) = current.reading.take() else { return Ok(Turn::more()) };
        let before = reading.offset;
        let copy = reading.copy.clone();
        match self.read(reading).await? {
            Ok(reading) if reading.offset < reading.copy.size => {
                current.pace.read += reading.offset - before;
                current.reading = Some(reading);
            }
            Ok(reading) => {
                current.pace.read += reading.offset - before;
                let right = check_table(&self.shared, reading).await?;
                self.ended(&copy, right, report);
            }
            Err(error) => self.ended(&copy, unreadable(&copy, &error), report),
        }
        let turn = Turn::after(current.pace.wait().min(LOOK_MAX));
        Ok(turn.count("copies read", report.copies).count("damaged", report.damaged))
    }

    /// Begins the folder after the last one that is done; or a round, once its time has come.
    async fn next_folder(
        &self,
        position: &mut PositionV1,
        folder: &mut Option<Folder>,
        report: &mut ScrubReport,
    ) -> Result<Turn, ScrubError> {
        let interval = self.shared.config.scrub_interval;
        let (inner, done) = (Arc::clone(&self.shared.local.inner), position.done.clone());
        let listed = spawn_blocking(move || {
            let shards = inner.shards().map_err(io::Error::from)?;
            // Both orders are those of the names.
            let next = shards.into_iter().map(|shard| (shard.name(), shard));
            let Some((name, shard)) = next.into_iter().find(|(name, _)| *name > done) else {
                return Ok(None);
            };
            let (names, total) = copies_of(&inner, &shard)?;
            Ok::<_, io::Error>(Some((name, names, total)))
        });
        if let Some((name, names, total)) = listed.await?? {
            let pace = Pace { began: Instant::now(), time: interval / SHARDS, total, read: 0 };
            *folder = Some(Folder { name, left: names.into(), pace, reading: None });
            return Ok(Turn::more());
        }
        // Folders that are not there yet have their share of the time, too.
        let begin = PositionV1::begin();
        let age = Duration::from_millis(begin.began_at.saturating_sub(position.began_at));
        let wait = interval.saturating_sub(age);
        if !wait.is_zero() {
            return Ok(Turn::after(wait.min(LOOK_MAX)));
        }
        info!(?report, "every copy on this node was read");
        *report = ScrubReport::default();
        *position = begin;
        self.store(position).await?;
        Ok(Turn::more())
    }

    async fn store(&self, position: &PositionV1) -> Result<(), ScrubError> {
        let (inner, position) = (Arc::clone(&self.shared.local.inner), position.clone());
        Ok(spawn_blocking(move || position.store(&inner)).await?)
    }

    /// Opens a copy; `None` if it is not there, or is damaged already from outside.
    async fn open(
        &self,
        copy: BlobCopy,
        report: &mut ScrubReport,
    ) -> Result<Option<Rereading>, ScrubError> {
        let (inner, named) = (Arc::clone(&self.shared.local.inner), copy.clone());
        match spawn_blocking(move || Rereading::open(&inner, named)).await? {
            Ok(Some(reading)) => return Ok(Some(reading)),
            Ok(None) => self.ended(&copy, false, report),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.ended(&copy, unreadable(&copy, &error), report),
        }
        Ok(None)
    }

    /// Reads the next chunks of a copy.
    async fn read(&self, mut reading: Rereading) -> Result<io::Result<Rereading>, ScrubError> {
        let before = reading.offset;
        let read = spawn_blocking(move || {
            for _ in 0..CHUNKS_AT_ONCE {
                if reading.offset < reading.copy.size {
                    reading.next()?;
                }
            }
            Ok::<_, io::Error>(reading)
        });
        let read = read.await?;
        if let Ok(reading) = &read {
            self.shared.counters.scrubbed(reading.offset - before);
        }
        Ok(read)
    }

    fn ended(&self, copy: &BlobCopy, right: bool, report: &mut ScrubReport) {
        report.copies += 1;
        report.bytes += copy.size;
        if !right {
            report.damaged += 1;
            self.shared.suspect(copy);
        }
    }
}

/// The copies in a folder, in order, and how many bytes they have. Blocks.
fn copies_of(inner: &Inner, shard: &Shard) -> io::Result<(Vec<BlobFileName>, u64)> {
    let names = shard.copies().map_err(io::Error::from)?;
    let size = |name: &BlobFileName| {
        std::fs::metadata(inner.layout.blob(&name.digest, name.generation))
            .map_or(0, |metadata| metadata.len())
    };
    let total = names.iter().map(size).sum();
    Ok((names.into_iter().collect(), total))
}

/// Reads every copy at once.
pub(crate) async fn read_all(shared: &Arc<Shared>) -> Result<ScrubReport, ScrubError> {
    let inner = Arc::clone(&shared.local.inner);
    let shards = spawn_blocking(move || inner.shards().map_err(io::Error::from)).await??;
    let mut report = ScrubReport::default();
    for shard in shards {
        let inner = Arc::clone(&shared.local.inner);
        let (names, _) = spawn_blocking(move || copies_of(&inner, &shard)).await??;
        for BlobFileName { digest, generation } in names {
            let Some(blob) = shared.live(digest).await? else { continue };
            if blob.generation != generation {
                continue;
            }
            let copy = copy_of(digest, &blob);
            report.copies += 1;
            report.bytes += copy.size;
            if !is_right(shared, &copy).await? {
                report.damaged += 1;
                shared.suspect(&copy);
            }
        }
    }
    Ok(report)
}

/// The reading itself ended with this process's threads.
pub(crate) type ScrubCut = tokio::task::JoinError;

/// Whether a copy's file is what it should be; true if there is no file.
pub(crate) async fn is_right(shared: &Arc<Shared>, copy: &BlobCopy) -> Result<bool, ScrubCut> {
    let (inner, named) = (Arc::clone(&shared.local.inner), copy.clone());
    let opened = spawn_blocking(move || Rereading::open(&inner, named));
    let mut reading = match opened.await? {
        Ok(Some(reading)) => reading,
        Ok(None) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Ok(unreadable(copy, &error)),
    };
    while reading.offset < copy.size {
        let step = spawn_blocking(move || reading.next().map(|len| (reading, len)));
        let (next, len) = match step.await? {
            Ok(next) => next,
            Err(error) => return Ok(unreadable(copy, &error)),
        };
        reading = next;
        shared.counters.scrubbed(len);
    }
    check_table(shared, reading).await
}

/// Compares what was read of a whole copy with its table; true if the bytes are right.
async fn check_table(shared: &Arc<Shared>, reading: Rereading) -> Result<bool, ScrubCut> {
    let (inner, digest) = (Arc::clone(&shared.local.inner), reading.copy.digest);
    if !reading.has_digest() {
        warn!(%digest, "a copy has other bytes than its digest says, with a table that may fit them");
        return Ok(false);
    }
    let checked = spawn_blocking(move || inner.checked_table(&reading.copy, &reading.hasher));
    match checked.await? {
        Ok(Some(rebuilt)) => {
            shared.counters.table_rebuilt(u64::from(rebuilt));
            Ok(true)
        }
        Ok(None) => Ok(false),
        // The bytes are right; a table that cannot be stored is made again when it is needed.
        Err(error) => {
            warn!(%error, %digest, "cannot store a chunk table");
            Ok(true)
        }
    }
}

fn unreadable(copy: &BlobCopy, error: &io::Error) -> bool {
    warn!(%error, digest = %copy.digest, "a copy cannot be read");
    false
}

/// A copy being read again.
struct Rereading {
    copy: BlobCopy,
    file: File,
    hasher: ChunkHasher,
    content: ContentHasher,
    offset: u64,
}

impl Rereading {
    /// `None` for a file of another size.
    fn open(inner: &Inner, copy: BlobCopy) -> io::Result<Option<Self>> {
        let file = File::open(inner.layout.blob(&copy.digest, copy.generation))?;
        if file.metadata()?.len() != copy.size {
            return Ok(None);
        }
        map::forget_pages(&file);
        let content = ContentHasher::new(copy.digest.algorithm());
        Ok(Some(Self { copy, file, hasher: ChunkHasher::default(), content, offset: 0 }))
    }

    /// Whether the bytes that were read have the digest; asked once all were read.
    fn has_digest(&self) -> bool {
        self.content.digest() == self.copy.digest
    }

    /// Reads one chunk and returns its length.
    fn next(&mut self) -> io::Result<u64> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let (offset, size) = (self.offset, self.copy.size);
        let len = inventory::hash_chunk(&self.file, &mut buffer, offset, size, &mut self.hasher)?;
        // A chunk has no more bytes than the buffer.
        let read = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len());
        self.content.update(&buffer[..read]);
        self.offset += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use nora_domain::{Algorithm, Epoch, Generation, NodeId, Placement};

    use super::*;
    use crate::store;

    #[test]
    fn bytes_are_held_against_the_digest() {
        let (_dir, inner) = store::empty();
        // More than a chunk.
        let bytes = vec![7; CHUNK_BYTES + 100];
        let mut hasher = ChunkHasher::default();
        hasher.update(&bytes);
        let digest_of = |bytes: &[u8]| nora_digest::digest(Algorithm::Sha256, bytes);
        for (digest, is_right) in [(digest_of(&bytes), true), (digest_of(b"others"), false)] {
            let copy = BlobCopy {
                digest,
                generation: Generation { epoch: Epoch(1), sequence: 1 },
                size: bytes.len() as u64,
                chunk_root: hasher.table().root(),
                placement: Placement::Nodes(vec![NodeId(1)]),
            };
            let path = inner.layout.blob(&digest, copy.generation);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &bytes).unwrap();
            let mut reading = Rereading::open(&inner, copy).unwrap().unwrap();
            while reading.offset < reading.copy.size {
                reading.next().unwrap();
            }
            assert_eq!(reading.has_digest(), is_right);
        }
    }

    #[test]
    fn a_round_goes_on_where_it_stopped_and_a_torn_position_begins_one() {
        let (_dir, inner) = store::empty();
        assert_eq!(PositionV1::load(&inner).done, "");
        let position = PositionV1 { done: "sha256/7f".to_owned(), ..PositionV1::begin() };
        position.store(&inner);
        assert_eq!(PositionV1::load(&inner), position);
        std::fs::write(inner.layout.scrub_position(), b"{\"version\":1,\"beg").unwrap();
        assert_eq!(PositionV1::load(&inner).done, "");
        let newer = PositionV1 { version: 2, ..position };
        newer.store(&inner);
        assert_eq!(PositionV1::load(&inner).done, "");
    }
}
