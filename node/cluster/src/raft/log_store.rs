//! The Raft log in RocksDB.
//!
//! Guarantees: an append can be read when the call returns, and its callback runs once it is durable; many appends
//! share one sync. A vote is durable when the call returns. Entries go only once a durable snapshot
//! [covers](Covered) them. A log that lost what was [synced](Synced) is not opened, and none of its files is changed.
//! Reads for replication and apply take at most [`READ_BYTES_MAX`] at a time, or one entry. Must not know: what
//! commands mean.

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
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::covered::Covered;
use super::flusher::{Flusher, Syncer};
use super::synced::Synced;
use super::tail::Tail;
use super::{Entry, LogId, Membership, TypeConfig, Vote};
use crate::codec::raft as codec;
use crate::rocks::{Memory, create_directory, io_error, remove_directory};

/// How many bytes of entries one read returns at most, unless a single entry is larger.
pub const READ_BYTES_MAX: usize = 1 << 20;

const ENTRIES: &str = "entries";
const META: &str = "default";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

/// The name of the file, beside the log's folder, that says how far the log was synced.
const SYNCED: &str = "raft-log.synced";

/// What to do about a log that was lost in part or whole.
pub const REMEDY: &str = "Nothing was changed. If the other members are a majority, remove this node \
     (nora cluster remove) and let it join anew with an empty data folder. Otherwise restore a copy of the whole data \
     folder that was made while the node was stopped; what was acknowledged after that copy is lost. Without a copy, let \
     another member go on alone (nora recover)";

/// The log; clones share it.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped first, which ends the thread that has the instance too.
    flusher: Flusher,
    syncer: Arc<Syncer>,
    db: Arc<DB>,
    tail: Tail,
    covered: Covered,
}

impl LogStore {
    /// Opens the log in `directory`, or begins one.
    pub fn open(directory: &Path, memory: &Memory, covered: Covered) -> io::Result<Self> {
        let synced = prepare(directory, memory)?;
        let mut options = log_options(memory);
        options.create_if_missing(synced.number() == 0);
        options.create_missing_column_families(synced.number() == 0);
        let db = DB::open_cf_descriptors(&options, directory, families(memory));
        let db = Arc::new(db.map_err(io_error)?);
        compare(directory, &db, synced.number())?;
        let syncer = Arc::new(Syncer::new(db.clone(), synced));
        let flusher = Flusher::start(syncer.clone())?;
        let inner = Inner { flusher, syncer, db, tail: Tail::default(), covered };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The last entry, or the last one that went; none of a new log.
    pub fn last(&self) -> io::Result<Option<LogId>> {
        self.inner.last()
    }

    /// The last entry that went.
    pub fn purged(&self) -> io::Result<Option<LogId>> {
        self.inner.meta(PURGED, codec::decode_log_id)
    }

    /// Whether this node ever voted, or followed anybody: what precedes the first entry of any log.
    pub fn has_vote(&self) -> io::Result<bool> {
        Ok(self.vote()?.is_some())
    }

    /// For whom this node voted last, or whom it followed.
    pub fn vote(&self) -> io::Result<Option<Vote>> {
        self.inner.meta(VOTE, codec::decode_vote)
    }

    /// The last membership among the entries; none if no entry has one.
    pub fn last_membership(&self) -> io::Result<Option<Membership>> {
        let mut next = self.purged()?.map_or(0, |purged| purged.index + 1);
        let mut last = None;
        loop {
            let entries = self.read(next, None, READ_BYTES_MAX)?;
            let Some(end) = entries.last().map(|entry| entry.index() + 1) else {
                return Ok(last);
            };
            let found = entries.into_iter().filter_map(|entry| match entry.payload {
                EntryPayload::Membership(membership) => Some(membership),
                EntryPayload::Blank | EntryPayload::Normal(_) => None,
            });
            last = found.last().or(last);
            next = end;
        }
    }

    /// Appends an entry and takes a vote, both or neither, durable when the call returns. For a log that consensus does not
    /// use.
    pub fn go_on_with(&self, entry: &Entry, vote: &Vote) -> io::Result<()> {
        self.inner.syncer.check()?;
        let mut batch = WriteBatch::default();
        let at = entry.index().to_be_bytes();
        batch.put_cf(self.inner.family(ENTRIES)?, at, codec::encode_entry(entry));
        batch.put_cf(self.inner.family(META)?, VOTE, codec::encode_vote(vote));
        self.inner.db.write_opt(batch, &WriteOptions::default()).map_err(io_error)?;
        self.inner.syncer.sync()?;
        self.inner.syncer.sync_number()
    }

    /// The entry at `index`, by its identity; none if there is none.
    pub fn id_at(&self, index: u64) -> io::Result<Option<LogId>> {
        Ok(self.read(index, index.checked_add(1), 0)?.first().map(|entry| entry.log_id))
    }

    /// Drops every entry, so that the log goes on after `last`. A durable snapshot must cover it.
    pub fn restart_after(&self, last: &LogId) -> io::Result<()> {
        self.inner.remove(0, u64::MAX, last)
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.inner.family(ENTRIES).map_or(0, |entries| {
            let name = rocksdb::properties::TOTAL_SST_FILES_SIZE;
            self.inner.db.property_int_value_cf(entries, name).ok().flatten().unwrap_or(0)
        })
    }

    /// Bytes of entries, on disk and in memory.
    pub fn bytes(&self) -> u64 {
        let in_memory = self.inner.family(ENTRIES).map_or(0, |entries| {
            let name = rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES;
            self.inner.db.property_int_value_cf(entries, name).ok().flatten().unwrap_or(0)
        });
        self.disk_bytes().saturating_add(in_memory)
    }

    /// Makes all that was appended durable, as tables: the next start has no log file to replay.
    pub fn flush(&self) -> io::Result<()> {
        self.inner.syncer.sync()?;
        for family in [META, ENTRIES] {
            self.inner.db.flush_cf(self.inner.family(family)?).map_err(io_error)?;
        }
        self.inner.syncer.sync_number()
    }

    /// Entries from `start` up to `end` (exclusive), as many as fit into `bytes_max`, but one at least.
    fn read(&self, start: u64, end: Option<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if let Some(entries) = self.inner.tail.read(start, end, bytes_max) {
            return Ok(entries);
        }
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
        // Never before the beginning, whatever a crash left there.
        Ok(last.map(|entry| entry.log_id).max(self.meta(PURGED, codec::decode_log_id)?))
    }

    fn purge(&self, upto: &LogId) -> io::Result<()> {
        let first = self.meta(PURGED, codec::decode_log_id)?.map_or(0, |purged| purged.index + 1);
        self.remove(first, upto.index + 1, upto)
    }

    /// Removes entries from `from` up to `to` (exclusive), and says that the log begins after `purged`.
    fn remove(&self, from: u64, to: u64, purged: &LogId) -> io::Result<()> {
        self.tail.purge(to - 1);
        let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
        let entries = self.family(ENTRIES)?;
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(entries, from, to);
        batch.put_cf(self.family(META)?, PURGED, codec::encode_log_id(purged));
        self.db.write_opt(batch, &WriteOptions::default()).map_err(io_error)?;
        // Dropping files is durable at once: that they hold nothing any more must be so before.
        self.syncer.sync()?;
        self.db.delete_file_in_range_cf(entries, from, to).map_err(io_error)
    }
}

/// What the log has in common with other instances, and what it has not.
fn log_options(memory: &Memory) -> Options {
    let mut options = memory.options();
    // Appends go to a buffer of this process; the sync thread writes and syncs them in one go.
    options.set_manual_wal_flush(true);
    // Finds a log file that went missing or short, where reading up to the tear would hide it.
    options.set_track_and_verify_wals_in_manifest(true);
    // What a power cut leaves behind the synced part can be torn anywhere, and is cut off. That nothing before it is
    // cut off with it is compared with the number that was synced. (To refuse every damaged record, as RocksDB can
    // too, would refuse power cuts that leave a hole before the last record.)
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // An open that only looks has a journal too.
    options.set_keep_log_file_num(4);
    options
}

fn families(memory: &Memory) -> [ColumnFamilyDescriptor; 2] {
    [META, ENTRIES].map(|name| ColumnFamilyDescriptor::new(name, memory.options()))
}

/// Looks at the log without changing it: everything that was synced must be there. Makes what a new log needs.
fn prepare(directory: &Path, memory: &Memory) -> io::Result<Synced> {
    let above = directory.parent().unwrap_or(Path::new("."));
    let path = above.join(SYNCED);
    let begun = directory.join("CURRENT").exists();
    let synced = match Synced::open(&path)? {
        None if begun => return Err(lost(format!("{} is missing", path.display()))),
        Some(synced) if synced.number() > 0 && !begun => {
            return Err(lost(format!("the log in {} is missing", directory.display())));
        }
        Some(synced) if begun => synced,
        found => {
            create_directory(above)?;
            // Nothing was acknowledged yet, so what a crash left of a beginning is worth nothing.
            remove_directory(directory)?;
            create_directory(directory)?;
            found.map_or_else(|| Synced::create(above, SYNCED), Ok)?
        }
    };
    if synced.number() > 0 {
        let mut options = log_options(memory);
        options.create_if_missing(false);
        let db = DB::open_cf_descriptors_read_only(&options, directory, families(memory), false)
            .map_err(|error| {
                lost(format!("the log in {} cannot be read: {error}", directory.display()))
            })?;
        compare(directory, &db, synced.number())?;
    }
    Ok(synced)
}

/// Refuses a log that does not reach as far as it was synced.
fn compare(directory: &Path, db: &DB, synced: u64) -> io::Result<()> {
    let found = db.latest_sequence_number();
    if found >= synced {
        return Ok(());
    }
    Err(lost(format!(
        "the log in {} is damaged: {synced} changes of it were synced, and {found} can be read; acknowledged writes or \
         this node's vote are among the others",
        directory.display()
    )))
}

/// The log lost what this node has answered for.
pub fn lost(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}. {REMEDY}"))
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
        self.vote()
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
            inner.syncer.check()?;
            inner.db.put_cf(inner.family(META)?, VOTE, bytes).map_err(io_error)?;
            inner.syncer.sync()?;
            // Votes are few, and nothing else remembers them.
            inner.syncer.sync_number()
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
        self.inner.syncer.check()?;
        let family = self.inner.family(ENTRIES)?;
        let mut batch = WriteBatch::default();
        let mut appended = Vec::new();
        for entry in entries {
            batch.put_cf(family, entry.index().to_be_bytes(), codec::encode_entry(&entry));
            appended.push(entry);
        }
        self.inner.db.write_opt(batch, &WriteOptions::default()).map_err(io_error)?;
        appended.into_iter().for_each(|entry| self.inner.tail.push(entry));
        self.inner.flusher.flush(callback);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first = last.map_or(0, |last| last.index + 1);
        self.inner.tail.truncate(first);
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
