//! Reading every copy again before a client meets a bit that flipped.
//!
//! A copy's bytes are compared chunk by chunk with its table and that with the root in the metadata.
//! The digest itself is not computed again: the table was made from the very bytes that were compared
//! with it, so bytes with this root have that digest. Guarantees: a round is spread over its interval
//! by bytes, goes on at the folder where an earlier process stopped, and reads the disk rather than
//! memory; what is wrong leaves the readers' way before anything else happens.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::metadata::MetadataError;
use serde::{Deserialize, Serialize};
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
/// How soon a round that stopped is taken up again.
const RETRY: Duration = Duration::from_secs(60);

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
    /// Waits until so many bytes of the total may have been read.
    async fn keep(&mut self, bytes: u64) {
        self.read += bytes;
        let share = self.read as f64 / self.total.max(1) as f64;
        let due = self.began + self.time.mul_f64(share.min(1.0));
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Scrubs round after round.
pub(crate) async fn run(shared: &Arc<Shared>) {
    loop {
        match round(shared, Some(shared.config.scrub_interval)).await {
            Ok(report) => info!(?report, "every copy on this node was read"),
            Err(error) => {
                warn!(%error, "scrubbing stopped; it goes on soon");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Reads every copy: spread over `interval`, from where the last round stopped; or all at once.
pub(crate) async fn round(
    shared: &Arc<Shared>,
    interval: Option<Duration>,
) -> Result<ScrubReport, ScrubError> {
    let inner = Arc::clone(&shared.local.inner);
    let shards = spawn_blocking({
        let inner = Arc::clone(&inner);
        move || inner.shards().map_err(io::Error::from)
    });
    let shards = shards.await??;
    let mut report = ScrubReport::default();
    let mut position = PositionV1::load(&inner);
    let shard_time = interval.map(|interval| interval / SHARDS);
    let began = Instant::now();
    for shard in shards {
        let name = shard.name();
        // Both orders are those of the names.
        if interval.is_some() && name <= position.done {
            continue;
        }
        scrub_shard(shared, shard, shard_time, &mut report).await?;
        if interval.is_some() {
            position.done = name;
            position.store(&inner);
        }
    }
    if let Some(interval) = interval {
        // Folders that are not there yet have their share of the time, too.
        let age =
            Duration::from_millis(PositionV1::begin().began_at.saturating_sub(position.began_at));
        tokio::time::sleep_until((began + interval.saturating_sub(age)).into()).await;
        PositionV1::begin().store(&inner);
    }
    Ok(report)
}

async fn scrub_shard(
    shared: &Arc<Shared>,
    shard: Shard,
    time: Option<Duration>,
    report: &mut ScrubReport,
) -> Result<(), ScrubError> {
    let inner = Arc::clone(&shared.local.inner);
    let listed = spawn_blocking(move || {
        let names = shard.copies().map_err(io::Error::from)?;
        let size = |name: &BlobFileName| {
            std::fs::metadata(inner.layout.blob(&name.digest, name.generation))
                .map_or(0, |metadata| metadata.len())
        };
        let total = names.iter().map(size).sum();
        Ok::<_, io::Error>((names, total))
    });
    let (names, total) = listed.await??;
    let began = Instant::now();
    let mut pace = time.map(|time| Pace { began, time, total, read: 0 });
    for BlobFileName { digest, generation } in names {
        let Some(blob) = shared.live(digest).await? else { continue };
        if blob.generation != generation {
            continue;
        }
        let copy = copy_of(digest, &blob);
        let right = read_again(shared, &copy, pace.as_mut()).await?;
        report.copies += 1;
        report.bytes += copy.size;
        if !right {
            report.damaged += 1;
            shared.suspect(&copy);
        }
    }
    if let Some(pace) = &mut pace {
        pace.keep(total).await;
    }
    Ok(())
}

/// Whether a copy's file is what it should be; true if there is no file.
pub(crate) async fn is_right(shared: &Arc<Shared>, copy: &BlobCopy) -> Result<bool, ScrubCut> {
    read_again(shared, copy, None).await
}

/// The reading itself ended with this process's threads.
pub(crate) type ScrubCut = tokio::task::JoinError;

async fn read_again(
    shared: &Arc<Shared>,
    copy: &BlobCopy,
    mut pace: Option<&mut Pace>,
) -> Result<bool, ScrubCut> {
    let (inner, named) = (Arc::clone(&shared.local.inner), copy.clone());
    let opened = spawn_blocking(move || Rereading::open(&inner, named));
    let mut reading = match opened.await? {
        Ok(Some(reading)) => reading,
        Ok(None) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Ok(unreadable(copy, &error)),
    };
    let inner = Arc::clone(&shared.local.inner);
    while reading.offset < copy.size {
        let step = spawn_blocking(move || reading.next().map(|len| (reading, len)));
        let (next, len) = match step.await? {
            Ok(next) => next,
            Err(error) => return Ok(unreadable(copy, &error)),
        };
        reading = next;
        shared.counters.scrubbed(len);
        if let Some(pace) = &mut pace {
            pace.keep(len).await;
        }
    }
    let checked = spawn_blocking(move || inner.checked_table(&reading.copy, &reading.hasher));
    match checked.await? {
        Ok(Some(rebuilt)) => {
            shared.counters.table_rebuilt(u64::from(rebuilt));
            Ok(true)
        }
        Ok(None) => Ok(false),
        // The bytes are right; a table that cannot be stored is made again by whoever needs it.
        Err(error) => {
            warn!(%error, digest = %copy.digest, "cannot store a chunk table");
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
        Ok(Some(Self { copy, file, hasher: ChunkHasher::default(), offset: 0 }))
    }

    /// Reads one chunk and returns its length.
    fn next(&mut self) -> io::Result<u64> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let (offset, size) = (self.offset, self.copy.size);
        let len = inventory::hash_chunk(&self.file, &mut buffer, offset, size, &mut self.hasher)?;
        self.offset += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use nora_domain::NodeId;

    use super::*;
    use crate::store::{LocalBlobs, LocalBlobsConfig};

    #[test]
    fn a_round_goes_on_where_it_stopped_and_a_torn_position_begins_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = LocalBlobsConfig {
            node: NodeId(1),
            data_dir: dir.path().to_owned(),
            upload_bytes_max: 1,
            sessions_max: 1,
        };
        let inner = LocalBlobs::open(config).unwrap().inner;
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
