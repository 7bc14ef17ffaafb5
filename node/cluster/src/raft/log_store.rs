//! The Raft log in RocksDB.
//!
//! Guarantees: an append can be read when the call returns, and its callback runs once it is durable; many appends
//! share one sync. A vote is durable when the call returns. Entries go only once a durable snapshot [covers](Covered) them. Reads for replication and apply take at most
//! [`READ_BYTES_MAX`] at a time, or one entry. Must not know: what commands mean.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, ReadOptions, WriteBatch, WriteOptions};

use super::covered::Covered;
use super::flusher::Flusher;
use super::voters::SoleVoter;
use super::{Entry, LogId, TypeConfig, Vote};
use crate::codec::raft as codec;
use crate::rocks::{Memory, io_error};

/// How many bytes of entries one read returns at most, unless a single entry is larger.
pub const READ_BYTES_MAX: usize = 1 << 20;

const ENTRIES: &str = "entries";
const META: &str = "default";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

/// The log; clones share it.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped first, which ends the thread that has the instance too.
    flusher: Flusher,
    db: Arc<DB>,
    voters: Arc<SoleVoter>,
    covered: Covered,
}

impl LogStore {
    /// Opens the log in `directory`, or begins one.
    pub fn open(
        directory: &Path,
        memory: &Memory,
        voters: Arc<SoleVoter>,
        covered: Covered,
    ) -> io::Result<Self> {
        let mut options = memory.options();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // Appends go to a buffer of this process; the sync thread writes and syncs them in one go.
        options.set_manual_wal_flush(true);
        // Finds a log file that went missing or short, where reading up to the tear would hide it.
        options.set_track_and_verify_wals_in_manifest(true);
        let families =
            [META, ENTRIES].map(|name| ColumnFamilyDescriptor::new(name, memory.options()));
        let db =
            Arc::new(DB::open_cf_descriptors(&options, directory, families).map_err(io_error)?);
        let inner = Inner { flusher: Flusher::start(db.clone())?, db, voters, covered };
        if let Some(vote) = inner.meta(VOTE, codec::decode_vote)? {
            inner.voters.started_in(vote.leader_id.term);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The index of the last entry, or of the last one that went; none of a new log.
    pub fn last_index(&self) -> io::Result<Option<u64>> {
        Ok(self.inner.last()?.map(|last| last.index))
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.inner.family(ENTRIES).map_or(0, |entries| {
            let name = rocksdb::properties::TOTAL_SST_FILES_SIZE;
            self.inner.db.property_int_value_cf(entries, name).ok().flatten().unwrap_or(0)
        })
    }

    /// Makes all that was appended durable, as tables: the next start has no log file to replay.
    pub fn flush(&self) -> io::Result<()> {
        self.inner.db.flush_wal(true).map_err(io_error)?;
        for family in [META, ENTRIES] {
            self.inner.db.flush_cf(self.inner.family(family)?).map_err(io_error)?;
        }
        Ok(())
    }

    /// Entries from `start` up to `end` (exclusive), as many as fit into `bytes_max`, but one at least.
    fn read(&self, start: u64, end: Option<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut options = ReadOptions::default();
        if let Some(end) = end {
            options.set_iterate_upper_bound(end.to_be_bytes());
        }
        let entries = self.inner.family(ENTRIES)?;
        let mut iterator = self.inner.db.raw_iterator_cf_opt(entries, options);
        iterator.seek(start.to_be_bytes());
        let mut found = Vec::new();
        let mut bytes = 0;
        while let Some((key, value)) = iterator.item() {
            bytes += value.len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            let entry = codec::decode_entry(Bytes::copy_from_slice(value)).map_err(damaged)?;
            if key != entry.index().to_be_bytes() {
                return Err(damaged(format!(
                    "an entry of index {} stands elsewhere",
                    entry.index()
                )));
            }
            found.push(entry);
            iterator.next();
        }
        iterator.status().map_err(io_error)?;
        Ok(found)
    }
}

impl Inner {
    fn family(&self, name: &str) -> io::Result<&ColumnFamily> {
        self.db.cf_handle(name).ok_or_else(|| damaged(format!("there is no family {name}")))
    }

    fn meta<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
        name: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, E>,
    ) -> io::Result<Option<T>> {
        let bytes = self.db.get_pinned_cf(self.family(META)?, name).map_err(io_error)?;
        bytes.map(|bytes| decode(&bytes)).transpose().map_err(damaged)
    }

    fn last(&self) -> io::Result<Option<LogId>> {
        let mut iterator = self.db.raw_iterator_cf(self.family(ENTRIES)?);
        iterator.seek_to_last();
        let last = iterator
            .value()
            .map(|value| codec::decode_entry(Bytes::copy_from_slice(value)).map_err(damaged))
            .transpose()?;
        iterator.status().map_err(io_error)?;
        match last {
            Some(entry) => Ok(Some(entry.log_id)),
            None => self.meta(PURGED, codec::decode_log_id),
        }
    }

    fn purge(&self, upto: &LogId) -> io::Result<()> {
        let first = self.meta(PURGED, codec::decode_log_id)?.map_or(0, |purged| purged.index + 1);
        let (from, to) = (first.to_be_bytes(), (upto.index + 1).to_be_bytes());
        let (meta, entries) = (self.family(META)?, self.family(ENTRIES)?);
        self.db.put_cf(meta, PURGED, codec::encode_log_id(upto)).map_err(io_error)?;
        // Dropping files is durable at once: the log's new beginning must be so before.
        self.db.flush_wal(true).map_err(io_error)?;
        self.db.delete_file_in_range_cf(entries, from, to).map_err(io_error)?;
        self.db.delete_range_cf(entries, from, to).map_err(io_error)
    }
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A range as its first index and the index after its last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, Option<u64>) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.checked_add(1),
        Bound::Excluded(end) => Some(*end),
        Bound::Unbounded => None,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend {
        let (start, end) = bounds(&range);
        let log = self.clone();
        let chunks = stream::try_unfold(start, move |next| {
            let chunk = log.read(next, end, READ_BYTES_MAX);
            async move {
                let chunk = chunk?;
                let next = chunk.last().map(|entry| entry.index() + 1);
                Ok::<_, io::Error>(next.map(|next| (stream::iter(chunk).map(Ok), next)))
            }
        });
        chunks.try_flatten()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, Some(end), READ_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.inner.meta(VOTE, codec::decode_vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let last_purged_log_id = self.inner.meta(PURGED, codec::decode_log_id)?;
        Ok(LogState { last_purged_log_id, last_log_id: self.inner.last()? })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let inner = self.inner.clone();
        let bytes = codec::encode_vote(vote);
        blocking(move || {
            inner.flusher.check()?;
            inner.db.put_cf(inner.family(META)?, VOTE, bytes).map_err(io_error)?;
            inner.db.flush_wal(true).map_err(io_error)
        })
        .await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let meta = self.inner.family(META)?;
        match committed {
            Some(at) => self.inner.db.put_cf(meta, COMMITTED, codec::encode_log_id(&at)),
            None => self.inner.db.delete_cf(meta, COMMITTED),
        }
        .map_err(io_error)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.inner.meta(COMMITTED, codec::decode_log_id)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.inner.flusher.check()?;
        let family = self.inner.family(ENTRIES)?;
        let mut batch = WriteBatch::default();
        for entry in entries {
            if matches!(entry.payload, EntryPayload::Membership(_)) {
                self.inner.voters.appended(entry.index());
            }
            batch.put_cf(family, entry.index().to_be_bytes(), codec::encode_entry(&entry));
        }
        self.inner.db.write_opt(batch, &WriteOptions::default()).map_err(io_error)?;
        self.inner.flusher.flush(callback);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first = last.map_or(0, |last| last.index + 1);
        // Appends that follow are synced after this, in the same log file, so it need not be synced by itself.
        let (from, to) = (first.to_be_bytes(), u64::MAX.to_be_bytes());
        let entries = self.inner.family(ENTRIES)?;
        self.inner.db.delete_range_cf(entries, from, to).map_err(io_error)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let inner = self.inner.clone();
        // Consensus stands still meanwhile. What it waits for does not need it: an installation has a task of its own, and
        // that one's notices fit into a queue of 65,536.
        inner.covered.wait(upto.index).await?;
        blocking(move || inner.purge(&upto)).await
    }
}

/// Runs what waits for the disk off the async threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
