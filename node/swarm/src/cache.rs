//! Fetched chunks on disk: bounded, shared by all who read the same blob.
//!
//! A blob is one sparse file, `<name>`, and its table, `<name>.table`. Which chunks a file holds is not written down: after
//! a start a chunk counts as there once it was read and matched its hash. So nothing has to be synced, a crash costs at most
//! what it tore, and no byte of before the start is believed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::task::spawn_blocking;

use crate::fetch::{FetchError, Fetcher, Pool};
use crate::in_order::in_order;
use crate::source::Source;
use crate::table::ChunkTable;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was counted since the start, and what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Bytes that readers got from here.
    pub hit_bytes: u64,
    /// Bytes that had to be fetched for readers.
    pub miss_bytes: u64,
    /// Blobs that were removed to make room.
    pub evictions: u64,
}

/// A bounded cache in one folder.
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    bytes_max: u64,
    pool: Arc<Pool>,
    index: Mutex<Index>,
    hit_bytes: AtomicU64,
    miss_bytes: AtomicU64,
    evictions: AtomicU64,
}

#[derive(Default)]
struct Index {
    files: HashMap<String, Cached>,
    /// Names by the time of their last use.
    by_use: BTreeMap<u64, String>,
    next_use: u64,
    used_bytes: u64,
    open: HashMap<String, Weak<CachedBlob>>,
}

struct Cached {
    bytes: u64,
    last_use: u64,
}

impl Index {
    fn touch(&mut self, name: &str) {
        let at = self.next_use;
        self.next_use += 1;
        let cached = self.files.entry(name.to_owned()).or_insert(Cached { bytes: 0, last_use: at });
        self.by_use.remove(&cached.last_use);
        cached.last_use = at;
        self.by_use.insert(at, name.to_owned());
    }

    fn grow(&mut self, name: &str, bytes: u64) {
        if let Some(cached) = self.files.get_mut(name) {
            cached.bytes += bytes;
            self.used_bytes += bytes;
        }
    }

    fn shrink(&mut self, name: &str, bytes: u64) {
        if let Some(cached) = self.files.get_mut(name) {
            let bytes = bytes.min(cached.bytes);
            cached.bytes -= bytes;
            self.used_bytes -= bytes;
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some(cached) = self.files.remove(name) {
            self.by_use.remove(&cached.last_use);
            self.used_bytes -= cached.bytes;
        }
    }

    /// The blob that was not used for longest and that nobody reads.
    fn victim(&self) -> Option<String> {
        let idle =
            |name: &&String| self.open.get(*name).is_none_or(|blob| blob.strong_count() == 0);
        self.by_use.values().find(idle).cloned()
    }
}

impl Cache {
    /// Opens the cache in `dir`, with what earlier runs left there as far as `bytes_max` allows. Blocks.
    pub fn open(dir: PathBuf, bytes_max: u64, pool: Arc<Pool>) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut found: Vec<(SystemTime, String, u64)> = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let (Ok(name), metadata) = (entry.file_name().into_string(), entry.metadata()?) else {
                continue;
            };
            if metadata.is_file() && !name.ends_with(TABLE) {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((used, name, metadata.blocks() * 512));
            }
        }
        found.sort();
        let mut index = Index::default();
        for (_, name, bytes) in found {
            index.touch(&name);
            index.grow(&name, bytes);
        }
        let inner = Inner {
            dir,
            bytes_max,
            pool,
            index: Mutex::new(index),
            hit_bytes: AtomicU64::new(0),
            miss_bytes: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        };
        inner.reserve("", 0);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What was counted, and what is held.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            used_bytes: locked(&self.inner.index).used_bytes,
            hit_bytes: self.inner.hit_bytes.load(Ordering::Relaxed),
            miss_bytes: self.inner.miss_bytes.load(Ordering::Relaxed),
            evictions: self.inner.evictions.load(Ordering::Relaxed),
        }
    }

    /// A blob by its name here (letters, digits, `.` and `-`), size and table root. Whoever opens one that is open shares it,
    /// sources included.
    pub fn blob(
        &self,
        name: &str,
        size: u64,
        root: [u8; 32],
        sources: Vec<Arc<dyn Source>>,
    ) -> Arc<CachedBlob> {
        let mut index = locked(&self.inner.index);
        index.touch(name);
        // Shared as long as its sources serve; one whose sources are all spent is opened anew with those of now.
        let shared = index.open.get(name).and_then(Weak::upgrade);
        if let Some(shared) =
            shared.filter(|shared| shared.size() == size && !shared.fetcher.is_spent())
        {
            return shared;
        }
        index.open.retain(|_, blob| blob.strong_count() > 0);
        let fetcher = Fetcher::new(size, root, sources, self.inner.pool.clone());
        let blob = Arc::new(CachedBlob {
            chunks: Mutex::new(vec![Chunk::Unknown; fetcher.chunks()]),
            fetching: Mutex::default(),
            file: Mutex::new(None),
            name: name.to_owned(),
            fetcher,
            cache: self.inner.clone(),
        });
        index.open.insert(name.to_owned(), Arc::downgrade(&blob));
        blob
    }

    /// Removes a blob that is no longer wanted; readers that have it open read on.
    pub fn remove(&self, name: &str) {
        let mut index = locked(&self.inner.index);
        index.open.remove(name);
        index.forget(name);
        self.inner.unlink(name);
    }
}

const TABLE: &str = ".table";

impl Inner {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn unlink(&self, name: &str) {
        for path in [self.path(name), self.path(&format!("{name}{TABLE}"))] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove from the cache");
            }
        }
    }

    /// Takes `bytes` for a blob, removing others until they fit; false if they cannot be made to, or the blob was removed.
    /// Counted before they are
    /// written, so that writers at once do not take the same room.
    fn reserve(&self, name: &str, bytes: u64) -> bool {
        let mut index = locked(&self.index);
        while index.used_bytes + bytes > self.bytes_max {
            let Some(victim) = index.victim() else { return false };
            index.forget(&victim);
            self.unlink(&victim);
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        index.grow(name, bytes);
        index.files.contains_key(name)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// Perhaps on disk from an earlier run.
    Unknown,
    /// Not on disk.
    Missing,
    /// On disk, verified by this process.
    Present,
}

/// A blob that is read through the cache.
pub struct CachedBlob {
    name: String,
    fetcher: Arc<Fetcher>,
    cache: Arc<Inner>,
    chunks: Mutex<Vec<Chunk>>,
    /// One who fetches a chunk holds its lock; the others wait for it and then find the chunk on disk.
    fetching: Mutex<HashMap<usize, Arc<tokio::sync::Mutex<()>>>>,
    file: Mutex<Option<Arc<File>>>,
}

impl CachedBlob {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.fetcher.size()
    }

    /// Makes sure that the blob can be had: its first chunk is there, from here or from a source.
    pub async fn probe(&self) -> Result<(), FetchError> {
        if self.size() == 0 {
            return Ok(());
        }
        // Never closed: the place is given in the end.
        let _place = self.cache.pool.awaited.acquire().await.ok();
        self.chunk(0).await.map(drop)
    }

    /// A range, in order. What is not here is fetched, ahead of the reader.
    pub fn read(
        self: Arc<Self>,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<Bytes, FetchError>> {
        let pool = self.cache.pool.clone();
        in_order(pool, range, move |index| {
            let blob = self.clone();
            async move { blob.chunk(index).await }
        })
    }

    fn state(&self, index: usize) -> Chunk {
        locked(&self.chunks).get(index).copied().unwrap_or(Chunk::Missing)
    }

    fn set(&self, index: usize, chunk: Chunk) {
        if let Some(slot) = locked(&self.chunks).get_mut(index) {
            *slot = chunk;
        }
    }

    async fn chunk(&self, index: usize) -> Result<Bytes, FetchError> {
        if self.state(index) == Chunk::Present
            && let Some(bytes) = self.load(index).await
        {
            self.cache.hit_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return Ok(bytes);
        }
        let lock = locked(&self.fetching).entry(index).or_default().clone();
        let fetching = lock.lock().await;
        let found = match self.state(index) {
            Chunk::Present => self.load(index).await,
            Chunk::Unknown => self.take_up(index).await?,
            Chunk::Missing => None,
        };
        let chunk = match found {
            Some(bytes) => {
                self.cache.hit_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                bytes
            }
            None => {
                let bytes = self.fetcher.chunk(index).await?;
                self.cache.miss_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.keep(index, bytes.clone()).await;
                bytes
            }
        };
        drop(fetching);
        locked(&self.fetching).remove(&index);
        Ok(chunk)
    }

    /// A chunk that an earlier run may have left.
    async fn take_up(&self, index: usize) -> Result<Option<Bytes>, FetchError> {
        let path = self.cache.path(&self.name);
        let there = spawn_blocking(move || path.exists()).await.unwrap_or(false);
        if !there {
            self.set(index, Chunk::Missing);
            return Ok(None);
        }
        self.load_table().await;
        let Some(bytes) = self.load(index).await else {
            self.set(index, Chunk::Missing);
            return Ok(None);
        };
        let whole = self.fetcher.table().await?.verify(index, &bytes);
        self.set(index, if whole { Chunk::Present } else { Chunk::Missing });
        Ok(whole.then_some(bytes))
    }

    async fn load_table(&self) {
        if self.fetcher.known_table().is_some() {
            return;
        }
        let path = self.cache.path(&format!("{}{TABLE}", self.name));
        let read = spawn_blocking(move || fs::read(path)).await;
        if let Ok(Ok(bytes)) = read
            && let Some(table) = ChunkTable::decode(&bytes)
        {
            self.fetcher.set_table(table);
        }
    }

    /// Reads a chunk from the file; `None` if it cannot be.
    async fn load(&self, index: usize) -> Option<Bytes> {
        let file = self.open_file().await.ok()?;
        let start = index as u64 * crate::table::CHUNK_BYTES as u64;
        let len =
            usize::try_from(self.size().min(start + crate::table::CHUNK_BYTES as u64) - start)
                .ok()?;
        let read = spawn_blocking(move || {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, start).map(|()| Bytes::from(bytes))
        });
        match read.await {
            Ok(Ok(bytes)) => Some(bytes),
            _ => {
                self.set(index, Chunk::Missing);
                None
            }
        }
    }

    async fn open_file(&self) -> io::Result<Arc<File>> {
        if let Some(file) = locked(&self.file).clone() {
            return Ok(file);
        }
        let (path, size) = (self.cache.path(&self.name), self.size());
        let opened = spawn_blocking(move || open(&path, size)).await;
        let file = Arc::new(opened.unwrap_or_else(|error| Err(io::Error::other(error)))?);
        Ok(locked(&self.file).get_or_insert(file).clone())
    }

    /// Writes a verified chunk. A cache that is full of what others read, or a disk that is, costs only the next reader a
    /// fetch.
    async fn keep(&self, index: usize, bytes: Bytes) {
        let len = bytes.len() as u64;
        let (cache, name) = (self.cache.clone(), self.name.clone());
        let room = spawn_blocking(move || cache.reserve(&name, len)).await.unwrap_or(false);
        if !room {
            return self.set(index, Chunk::Missing);
        }
        let written = match self.open_file().await {
            Ok(file) => {
                let start = index as u64 * crate::table::CHUNK_BYTES as u64;
                let table = (index == 0).then(|| self.table_file()).flatten();
                let write = spawn_blocking(move || {
                    if let Some((path, table)) = table {
                        fs::write(path, table)?;
                    }
                    file.write_all_at(&bytes, start)
                });
                write.await.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => self.set(index, Chunk::Present),
            Err(error) => {
                locked(&self.cache.index).shrink(&self.name, len);
                tracing::warn!(name = self.name, %error, "cannot write to the cache");
                self.set(index, Chunk::Missing);
            }
        }
    }

    fn table_file(&self) -> Option<(PathBuf, Vec<u8>)> {
        // Set by whoever fetched the chunk that is being kept.
        let table = self.fetcher.known_table()?;
        Some((self.cache.path(&format!("{}{TABLE}", self.name)), table.encode()))
    }
}

fn open(path: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() != size {
        file.set_len(size)?;
    }
    // What counts for the order after a start is when it was last opened.
    file.set_modified(SystemTime::now())?;
    Ok(file)
}
