//! Fetching and caching with sources that fail in every way, and files that are real.

// Clippy knows test functions, not the functions that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use nora_swarm::{
    BoxFuture, CHUNK_BYTES, Cache, ChunkHasher, ChunkTable, FetchError, Fetcher, Limits, Pool,
    Source, SourceError, SourceStream,
};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

fn blob(len: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + i / 977 + i / 65_537) as u8).collect::<Vec<_>>().into()
}

fn table(bytes: &[u8]) -> ChunkTable {
    let mut hasher = ChunkHasher::default();
    hasher.update(bytes);
    hasher.table()
}

/// How a source behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Well,
    /// Takes so many milliseconds for each request.
    Slow(u64),
    /// Never answers.
    Hangs,
    Absent,
    /// One wrong byte in each chunk.
    Lies,
    /// A table of another blob.
    LiesAboutTheTable,
    /// Sends half of what it was asked for.
    Breaks,
    /// Fails so many times, then does well.
    Recovers(usize),
}

struct Holder {
    name: &'static str,
    bytes: Bytes,
    manner: Manner,
    reads: Arc<Mutex<Vec<Range<u64>>>>,
    open: Arc<AtomicUsize>,
    open_max: Arc<AtomicUsize>,
}

impl Holder {
    fn new(name: &'static str, bytes: &Bytes, manner: Manner) -> Arc<Self> {
        Arc::new(Self {
            name,
            bytes: bytes.clone(),
            manner,
            reads: Arc::default(),
            open: Arc::default(),
            open_max: Arc::default(),
        })
    }

    fn reads(&self) -> usize {
        self.reads.lock().unwrap().len()
    }
}

impl Source for Holder {
    fn label(&self) -> String {
        self.name.to_owned()
    }

    fn table(&self) -> BoxFuture<'_, Result<ChunkTable, SourceError>> {
        Box::pin(async {
            match self.manner {
                Manner::Absent => Err(SourceError::Absent),
                Manner::Hangs => std::future::pending().await,
                Manner::LiesAboutTheTable => Ok(table(&self.bytes[1..])),
                _ => Ok(table(&self.bytes)),
            }
        })
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<SourceStream, SourceError>> {
        Box::pin(async move {
            let before = {
                let mut reads = self.reads.lock().unwrap();
                reads.push(range.clone());
                reads.len()
            };
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            self.open_max.fetch_max(open, Ordering::SeqCst);
            let mut part = self.bytes.slice(range.start as usize..range.end as usize).to_vec();
            let answer = match self.manner {
                Manner::Well | Manner::LiesAboutTheTable => Ok(part),
                Manner::Slow(millis) => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    Ok(part)
                }
                Manner::Hangs => std::future::pending().await,
                Manner::Absent => Err(SourceError::Absent),
                Manner::Lies => {
                    part[0] ^= 1;
                    Ok(part)
                }
                Manner::Breaks => {
                    part.truncate(part.len() / 2);
                    Ok(part)
                }
                Manner::Recovers(failures) if before <= failures => {
                    Err(SourceError::Unavailable("not yet".into()))
                }
                Manner::Recovers(_) => Ok(part),
            };
            self.open.fetch_sub(1, Ordering::SeqCst);
            let part = Bytes::from(answer?);
            // In pieces that do not fit the chunks.
            let pieces: Vec<_> = (0..part.len())
                .step_by(70_001)
                .map(|at| Ok(part.slice(at..part.len().min(at + 70_001))))
                .collect();
            Ok(Box::pin(stream::iter(pieces)) as SourceStream)
        })
    }
}

fn fetcher(bytes: &Bytes, holders: &[Arc<Holder>]) -> Arc<Fetcher> {
    let sources = holders.iter().map(|holder| holder.clone() as Arc<dyn Source>).collect();
    let pool = Pool::new(Limits::default());
    Fetcher::new(bytes.len() as u64, table(bytes).root(), sources, pool)
}

async fn all(
    stream: impl futures_util::Stream<Item = Result<Bytes, FetchError>>,
) -> Result<Vec<u8>, FetchError> {
    stream
        .try_fold(Vec::new(), async |mut all, part| {
            all.extend_from_slice(&part);
            Ok(all)
        })
        .await
}

#[tokio::test]
async fn any_range_comes_in_order() {
    let bytes = blob(5 * CHUNK_BYTES + 77);
    let holders = ["a", "b", "c"].map(|name| Holder::new(name, &bytes, Manner::Well));
    let fetcher = fetcher(&bytes, &holders);
    let len = bytes.len() as u64;
    for range in
        [0..len, 0..0, 0..1, len - 1..len, 5..CHUNK_BYTES as u64 + 9, 1 << 20..len, len..len]
    {
        let part = all(fetcher.clone().stream(range.clone())).await.unwrap();
        assert!(part == bytes[range.start as usize..range.end as usize], "{range:?}");
    }
}

#[tokio::test]
async fn small_and_empty_blobs_need_no_table() {
    let bytes = blob(1000);
    // This one would give no table.
    let holder = Holder::new("a", &bytes, Manner::Recovers(0));
    assert_eq!(
        all(fetcher(&bytes, std::slice::from_ref(&holder)).stream(0..1000)).await.unwrap(),
        bytes
    );
    assert_eq!(holder.reads(), 1);
    let empty = blob(0);
    assert_eq!(all(fetcher(&empty, &[]).stream(0..0)).await.unwrap(), b"");
}

#[tokio::test(start_paused = true)]
async fn bad_sources_do_not_spoil_good_ones() {
    let bytes = blob(6 * CHUNK_BYTES);
    let len = bytes.len() as u64;
    for manner in [
        Manner::Absent,
        Manner::Lies,
        Manner::LiesAboutTheTable,
        Manner::Breaks,
        Manner::Hangs,
        Manner::Slow(3_000),
        Manner::Recovers(2),
    ] {
        let good = Holder::new("good", &bytes, Manner::Well);
        let bad = Holder::new("bad", &bytes, manner);
        let read = all(fetcher(&bytes, &[bad.clone(), good]).stream(0..len)).await.unwrap();
        assert!(read == bytes);
        if matches!(manner, Manner::Lies | Manner::LiesAboutTheTable) {
            // Those that were on their way when it was found out may still come.
            assert!(bad.reads() <= 4, "{} reads", bad.reads());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_no_source_is_left_it_is_told_what_each_did() {
    let bytes = blob(3 * CHUNK_BYTES);
    let holders =
        [Holder::new("one", &bytes, Manner::Absent), Holder::new("two", &bytes, Manner::Lies)];
    let error = all(fetcher(&bytes, &holders).stream(0..9)).await.unwrap_err();
    assert_eq!(error.sources.len(), 2);
    assert!(!error.may_pass());
    let told = error.to_string();
    assert!(
        told.contains("one: it does not have") && told.contains("two: it sent wrong"),
        "{told}"
    );

    let broken = Holder::new("broken", &bytes, Manner::Breaks);
    let error = all(fetcher(&bytes, &[broken]).stream(0..9)).await.unwrap_err();
    assert!(error.may_pass() && error.to_string().contains("broke off"), "{error}");
    let error = all(fetcher(&bytes, &[]).stream(0..9)).await.unwrap_err();
    assert!(error.to_string().contains("there is none"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_hedged() {
    let bytes = blob(2 * CHUNK_BYTES);
    let slow = Holder::new("slow", &bytes, Manner::Slow(60_000));
    let well = Holder::new("well", &bytes, Manner::Well);
    let pool = Pool::new(Limits { chunks_max: 4, window: 1 });
    let sources = vec![slow as Arc<dyn Source>, well];
    let fetcher = Fetcher::new(bytes.len() as u64, table(&bytes).root(), sources, pool.clone());
    let started = tokio::time::Instant::now();
    assert!(all(fetcher.stream(0..bytes.len() as u64)).await.unwrap() == bytes);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(pool.stats().hedges >= 1);
}

#[tokio::test]
async fn what_is_held_in_memory_is_bounded() {
    let bytes = blob(12 * CHUNK_BYTES);
    let holder = Holder::new("a", &bytes, Manner::Slow(1));
    let pool = Pool::new(Limits { chunks_max: 3, window: 8 });
    let sources = vec![holder.clone() as Arc<dyn Source>];
    let root = table(&bytes).root();
    let streams = (0..6).map(|_| {
        let fetcher = Fetcher::new(bytes.len() as u64, root, sources.clone(), pool.clone());
        all(fetcher.stream(0..bytes.len() as u64))
    });
    for read in futures_util::future::join_all(streams).await {
        assert!(read.unwrap() == bytes);
    }
    assert!(holder.open_max.load(Ordering::SeqCst) <= 3);
}

struct Disk {
    dir: tempfile::TempDir,
    cache: Cache,
}

fn disk(chunks: u64) -> Disk {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(&dir, chunks);
    Disk { dir, cache }
}

fn open(dir: &tempfile::TempDir, chunks: u64) -> Cache {
    let bytes_max = chunks * CHUNK_BYTES as u64;
    Cache::open(dir.path().join("cache"), bytes_max, Pool::new(Limits::default())).unwrap()
}

async fn read(cache: &Cache, name: &str, bytes: &Bytes, holders: &[Arc<Holder>]) -> Vec<u8> {
    let sources = holders.iter().map(|holder| holder.clone() as Arc<dyn Source>).collect();
    let blob = cache.blob(name, bytes.len() as u64, table(bytes).root(), sources);
    all(blob.read(0..bytes.len() as u64)).await.unwrap()
}

#[tokio::test]
async fn readers_of_one_blob_share_one_download() {
    let bytes = blob(5 * CHUNK_BYTES + 3);
    let holder = Holder::new("a", &bytes, Manner::Slow(5));
    let disk = disk(100);
    let holders = [holder.clone()];
    let readers = (0..8).map(|_| read(&disk.cache, "x", &bytes, &holders));
    for got in futures_util::future::join_all(readers).await {
        assert!(got == bytes);
    }
    assert_eq!(holder.reads(), 6);
    let stats = disk.cache.stats();
    assert_eq!((stats.miss_bytes, stats.used_bytes), (bytes.len() as u64, bytes.len() as u64));
    assert_eq!(stats.hit_bytes, 7 * bytes.len() as u64);
}

#[tokio::test]
async fn a_restart_keeps_what_is_whole_and_believes_nothing_else() {
    let bytes = blob(3 * CHUNK_BYTES);
    let Disk { dir, cache } = disk(100);
    let first = Holder::new("a", &bytes, Manner::Well);
    assert!(read(&cache, "x", &bytes, &[first]).await == bytes);
    drop(cache);
    // A flipped bit in the second chunk.
    let path = dir.path().join("cache/x");
    let mut stored = std::fs::read(&path).unwrap();
    stored[CHUNK_BYTES + 5] ^= 4;
    std::fs::write(&path, stored).unwrap();

    let again = Holder::new("b", &bytes, Manner::Well);
    let cache = open(&dir, 100);
    assert!(read(&cache, "x", &bytes, std::slice::from_ref(&again)).await == bytes);
    assert_eq!(again.reads(), 1, "only the damaged chunk is fetched");
    assert!(read(&cache, "x", &bytes, &[]).await == bytes, "and then it is here");
}

#[tokio::test]
async fn the_least_used_goes_and_what_is_read_stays() {
    let bytes = blob(2 * CHUNK_BYTES);
    let disk = disk(5);
    let holder = [Holder::new("a", &bytes, Manner::Well)];
    for name in ["one", "two"] {
        read(&disk.cache, name, &bytes, &holder).await;
    }
    read(&disk.cache, "one", &bytes, &holder).await;
    read(&disk.cache, "three", &bytes, &holder).await;
    let stats = disk.cache.stats();
    assert_eq!((stats.evictions, stats.used_bytes), (1, 4 * CHUNK_BYTES as u64));
    assert!(!disk.dir.path().join("cache/two").exists());
    assert!(disk.dir.path().join("cache/one").exists());

    // More than fits is read through, without a place on disk.
    let large = blob(9 * CHUNK_BYTES);
    let source = [Holder::new("a", &large, Manner::Well)];
    assert!(read(&disk.cache, "large", &large, &source).await == large);
    assert!(disk.cache.stats().used_bytes <= 5 * CHUNK_BYTES as u64);
}

#[tokio::test]
async fn a_reader_that_leaves_ends_its_fetches() {
    let bytes = blob(40 * CHUNK_BYTES);
    let holder = Holder::new("a", &bytes, Manner::Well);
    let fetcher = fetcher(&bytes, std::slice::from_ref(&holder));
    let mut stream = fetcher.stream(0..bytes.len() as u64);
    stream.next().await.unwrap().unwrap();
    drop(stream);
    let reads = holder.reads();
    assert!(reads <= 6, "{reads} chunks were fetched for one");
}

#[tokio::test]
async fn readers_that_stall_hold_nobody_up() {
    let bytes = blob(6 * CHUNK_BYTES);
    let len = bytes.len() as u64;
    let holder: Arc<dyn Source> = Holder::new("a", &bytes, Manner::Slow(5));
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::new(Limits { chunks_max: 8, window: 4 });
    let cache = Cache::open(dir.path().join("cache"), 100 << 20, pool).unwrap();
    let open =
        |name: &str| cache.blob(name, len, table(&bytes).root(), vec![holder.clone()]).read(0..len);
    let mut stalled = Vec::new();
    for at in 0..6 {
        let mut reader = open(["same", "other"][at % 2]);
        reader.next().await.unwrap().unwrap();
        stalled.push(reader);
    }
    for name in ["same", "other", "third"] {
        let read = tokio::time::timeout(Duration::from_secs(20), all(open(name))).await;
        assert!(read.expect("held up by those that stalled").unwrap() == bytes);
    }
    // And they go on where they were.
    for reader in stalled {
        assert!(all(reader).await.unwrap() == bytes[CHUNK_BYTES..]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_waited_for_once() {
    let bytes = blob(24 * CHUNK_BYTES);
    let hanging = Holder::new("hanging", &bytes, Manner::Hangs);
    let well = Holder::new("well", &bytes, Manner::Slow(10));
    let started = tokio::time::Instant::now();
    let fetcher = fetcher(&bytes, &[hanging.clone(), well]);
    assert!(all(fetcher.stream(0..bytes.len() as u64)).await.unwrap() == bytes);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(hanging.reads() <= 8, "asked {} times", hanging.reads());
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        Just(Manner::Well),
        (1u64..2_000).prop_map(Manner::Slow),
        Just(Manner::Hangs),
        Just(Manner::Absent),
        Just(Manner::Lies),
        Just(Manner::LiesAboutTheTable),
        Just(Manner::Breaks),
        (0usize..3).prop_map(Manner::Recovers),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever the other sources do, with one good one every range comes whole and in order; without it, what came before
    /// the error is right.
    #[test]
    fn what_is_read_is_the_blob(
        len in 1usize..(4 * CHUNK_BYTES),
        cut in any::<(usize, usize)>(),
        manners in proptest::collection::vec(manner(), 0..4),
        good in proptest::option::of(0usize..4),
        (window, chunks_max) in (1usize..6, 1usize..9),
    ) {
        let bytes = blob(len);
        let (a, b) = (cut.0 % (len + 1), cut.1 % (len + 1));
        let range = a.min(b)..a.max(b);
        let mut manners = manners;
        if let Some(at) = good {
            manners.insert(at.min(manners.len()), Manner::Well);
        }
        let sources = manners.iter().map(|manner| Holder::new("a", &bytes, *manner) as Arc<dyn Source>);
        let pool = Pool::new(Limits { chunks_max, window });
        let fetcher = Fetcher::new(len as u64, table(&bytes).root(), sources.collect(), pool);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let mut stream = fetcher.stream(range.start as u64..range.end as u64);
            let mut at = range.start;
            while let Some(part) = stream.next().await {
                match part {
                    Ok(part) => {
                        assert!(part == bytes[at..at + part.len()], "at {at}");
                        at += part.len();
                    }
                    Err(error) => {
                        assert!(good.is_none(), "{error}");
                        return;
                    }
                }
            }
            assert_eq!(at, range.end);
        });
    }
}
