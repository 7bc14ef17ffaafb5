//! The state instance: rows, and the position up to which the log was applied to them.
//!
//! Guarantees: rows and position change in one write, which is atomic though not synced: after a crash the log is
//! replayed from the position found. Which of the directories below `state/` is the live one is told by the file
//! `ACTIVE`, so replacing the whole state is one rename.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nora_domain::{Head, Key, Record, Rows};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::properties;
use rocksdb::{DB, DBRawIterator, ErrorKind, ReadOptions, ReadTier, WriteBatch};

use super::{
    Memory, create_directory, io_error, remove_directory, sync_directory, write_atomically,
};
use crate::codec::{DecodeError, head, key, raft, record};
use crate::raft::chain::{Chain, EncodedRows};
use crate::raft::{LogId, StoredMembership};

const APPLIED: &[u8] = b"\x00applied";
const MEMBERSHIP: &[u8] = b"\x00membership";
const HEAD: &[u8] = b"\x00head";
const HASH: &[u8] = b"\x00hash";
const MARKS: &[u8] = b"\x00marks";

/// Threads that read many rows, and how many rows each reads at least.
const READERS: usize = 4;
const READ_TOGETHER_MIN: usize = 32;

/// How far a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Write buffers and block cache: never waits for the disk, so it may run on an async thread.
    Memory,
    /// The disk too.
    Disk,
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The row is not in memory; read again with [`Tier::Disk`], off the async threads.
    #[error("the row is not in memory")]
    NotInMemory,
    /// RocksDB failed.
    #[error("cannot read the state")]
    Rocks(#[source] rocksdb::Error),
    /// A stored row cannot be understood.
    #[error("a stored row cannot be understood")]
    Decode(#[from] DecodeError),
    /// A thread that read rows ended without them.
    #[error("a thread that read rows panicked")]
    Reader,
}

impl From<rocksdb::Error> for ReadError {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            ErrorKind::Incomplete => Self::NotInMemory,
            _ => Self::Rocks(error),
        }
    }
}

/// An open state.
pub struct StateDb {
    db: DB,
    directory: PathBuf,
    /// Another state has taken this one's place: its directory goes when the last reader has gone.
    obsolete: AtomicBool,
    memory_reads: ReadOptions,
    disk_reads: ReadOptions,
}

impl StateDb {
    /// Opens the state in `directory`; makes one if `create` allows.
    pub fn open(directory: &Path, memory: &Memory, create: bool) -> Result<Self, rocksdb::Error> {
        let mut options = memory.options();
        options.create_if_missing(create);
        // What a crash takes of the instance's own log is applied again from the Raft log, which a power cut asks for anyway.
        // So its records go to the file when a buffer of them is full, and not with a call to the kernel for each batch.
        options.set_manual_wal_flush(true);
        Ok(Self::new(DB::open(&options, directory)?, directory))
    }

    fn new(db: DB, directory: &Path) -> Self {
        let mut memory_reads = ReadOptions::default();
        memory_reads.set_read_tier(ReadTier::BlockCache);
        Self {
            db,
            directory: directory.to_owned(),
            obsolete: AtomicBool::new(false),
            memory_reads,
            disk_reads: ReadOptions::default(),
        }
    }

    /// The position up to which the log was applied.
    pub fn applied(&self) -> Result<Option<LogId>, ReadError> {
        let bytes = self.db.get_pinned(APPLIED)?;
        Ok(bytes.map(|bytes| raft::decode_log_id(&bytes)).transpose()?)
    }

    /// The membership as of that position.
    pub fn membership(&self) -> Result<StoredMembership, ReadError> {
        let bytes = self.db.get_pinned(MEMBERSHIP)?;
        Ok(bytes.map(|bytes| raft::decode_membership(&bytes)).transpose()?.unwrap_or_default())
    }

    /// The part of the state that every command changes, as of that position.
    pub fn head(&self) -> Result<Head, ReadError> {
        let bytes = self.db.get_pinned(HEAD)?;
        Ok(bytes.map(|bytes| head::decode(&bytes)).transpose()?.unwrap_or_default())
    }

    /// The hash of what was written up to that position.
    pub fn chain(&self) -> Result<Chain, ReadError> {
        // Both of one moment: an apply may come between two reads.
        let snapshot = self.db.snapshot();
        let (hash, marks) = (snapshot.get(HASH)?, snapshot.get(MARKS)?);
        Ok(Chain::decode(hash.as_deref(), marks.as_deref())?)
    }

    /// Writes changed rows, the head, and the position that they bring the state to, at once.
    pub fn write(
        &self,
        rows: &EncodedRows,
        state_head: &Head,
        applied: &LogId,
        chain: &Chain,
        membership: Option<&StoredMembership>,
    ) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        for (row, record) in rows {
            match record {
                Some(record) => batch.put(row, record),
                None => batch.delete(row),
            }
        }
        batch.put(HEAD, head::encode(state_head));
        batch.put(APPLIED, raft::encode_log_id(applied));
        batch.put(HASH, chain.hash());
        if chain.is_marked() {
            batch.put(MARKS, chain.encode_marks());
        }
        if let Some(membership) = membership {
            batch.put(MEMBERSHIP, raft::encode_membership(membership));
        }
        self.db.write(batch)
    }

    /// The row at `row`.
    pub fn get(&self, row: &Key, tier: Tier) -> Result<Option<Record>, ReadError> {
        let options = match tier {
            Tier::Memory => &self.memory_reads,
            Tier::Disk => &self.disk_reads,
        };
        let bytes = self.db.get_pinned_opt(key::encode(row), options)?;
        Ok(bytes.map(|bytes| record::decode(&bytes)).transpose()?)
    }

    /// The rows at several keys, in their order, read from the disk at once: by a few threads, each of which asks RocksDB
    /// for a sorted part.
    pub fn get_many(&self, rows: &[Key]) -> Result<Vec<Option<Record>>, ReadError> {
        let part = rows.len().div_ceil(READERS).max(READ_TOGETHER_MIN);
        let parts: Vec<_> = std::thread::scope(|scope| {
            let readers: Vec<_> =
                rows.chunks(part).skip(1).map(|part| scope.spawn(|| self.get_part(part))).collect();
            let first = rows.chunks(part).next().map(|part| self.get_part(part));
            let others =
                readers.into_iter().map(|reader| reader.join().unwrap_or(Err(ReadError::Reader)));
            first.into_iter().chain(others).collect()
        });
        let parts: Result<Vec<_>, ReadError> = parts.into_iter().collect();
        Ok(parts?.into_iter().flatten().collect())
    }

    fn get_part(&self, rows: &[Key]) -> Result<Vec<Option<Record>>, ReadError> {
        let found = self.db.multi_get_opt(rows.iter().map(key::encode), &self.disk_reads);
        let decoded = found
            .into_iter()
            .map(|bytes| Ok(bytes?.map(|bytes| record::decode(&bytes)).transpose()?));
        decoded.collect()
    }

    /// The rows of a run, as they were when the call was made.
    pub fn run<'a>(&'a self, rows: &'a Rows, tier: Tier) -> Run<'a> {
        let (start, skip) = match rows.start() {
            Bound::Included(start) => (key::encode(&start), false),
            Bound::Excluded(start) => (key::encode(&start), true),
            Bound::Unbounded => (vec![key::FIRST_TABLE], false),
        };
        let mut options = ReadOptions::default();
        if tier == Tier::Memory {
            options.set_read_tier(ReadTier::BlockCache);
        }
        // No run leaves its table; the bound spares the iterator from looking past deleted rows beyond it.
        options.set_iterate_upper_bound(key::upper_bound(&start));
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(&start);
        if skip && iterator.key() == Some(start.as_slice()) {
            iterator.next();
        }
        Run { iterator, rows: Some(rows), ended: false }
    }

    /// Every row, as they were when the call was made.
    pub fn all(&self) -> Run<'_> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(256 << 10);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek([key::FIRST_TABLE]);
        Run { iterator, rows: None, ended: false }
    }

    /// Up to `limit` rows of a run.
    pub fn scan(
        &self,
        rows: &Rows,
        limit: usize,
        tier: Tier,
    ) -> Result<Vec<(Key, Record)>, ReadError> {
        self.run(rows, tier).take(limit).collect()
    }

    /// Makes `directory`, which must not exist, a durable copy of the state as it is now.
    pub fn checkpoint(&self, directory: &Path) -> Result<(), rocksdb::Error> {
        // This flushes the write buffer, so the copy is complete and this state itself becomes durable up to here,
        // which is what allows the log to be cut behind it.
        Checkpoint::new(&self.db)?.create_checkpoint(directory)
    }

    /// Makes all that was applied durable.
    pub fn flush(&self) -> Result<(), rocksdb::Error> {
        self.db.flush()
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.db)
    }

    /// Bytes of memory outside the shared budget: what open tables hold.
    pub fn table_reader_bytes(&self) -> u64 {
        property(&self.db, properties::ESTIMATE_TABLE_READERS_MEM)
    }

    /// Lets the directory be removed when the last reader has gone.
    pub fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for StateDb {
    fn drop(&mut self) {
        // The files that RocksDB still holds open stay readable to it until it is dropped, right after this.
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = remove_directory(&self.directory)
        {
            tracing::warn!(directory = %self.directory.display(), %error, "cannot remove old state");
        }
    }
}

/// An instance's bytes on disk, log files of its own not counted.
pub fn disk_bytes(db: &DB) -> u64 {
    property(db, properties::TOTAL_SST_FILES_SIZE)
}

fn property(db: &DB, name: &properties::PropName) -> u64 {
    db.property_int_value(name).ok().flatten().unwrap_or(0)
}

/// Neighbouring rows, read as they are asked for, all as of one moment.
pub struct Run<'a> {
    iterator: DBRawIterator<'a>,
    rows: Option<&'a Rows>,
    ended: bool,
}

impl Iterator for Run<'_> {
    type Item = Result<(Key, Record), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let Some((row, value)) = self.iterator.item() else {
            self.ended = true;
            return self.iterator.status().err().map(|error| Err(error.into()));
        };
        let row = match key::decode(row) {
            Ok(row) => row,
            Err(error) => {
                self.ended = true;
                return Some(Err(error.into()));
            }
        };
        if self.rows.is_some_and(|rows| !rows.contains(&row)) {
            self.ended = true;
            return None;
        }
        let item = record::decode(value).map(|record| (row, record)).map_err(ReadError::from);
        self.iterator.next();
        Some(item)
    }
}

/// The directories that hold states, one of which is live.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    root: PathBuf,
}

const ACTIVE: &str = "ACTIVE";

impl StateDirectory {
    /// The states below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Opens the live state, and removes what a crash left of others.
    pub fn open(&self, memory: &Memory) -> io::Result<(StateDb, u64)> {
        create_directory(&self.root)?;
        let active = match fs::read_to_string(self.root.join(ACTIVE)) {
            Ok(text) => {
                text.trim().parse::<u64>().map_err(|_| damaged("ACTIVE holds no number"))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.begin()?;
                1
            }
            Err(error) => return Err(error),
        };
        let directory = self.root.join(active.to_string());
        let mut leftovers = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path != directory && path != self.root.join(ACTIVE) {
                leftovers.push(path);
            }
        }
        // A crash leaves the live state there. Without it, the others may be all that is left: they stay.
        if !directory.is_dir() && (active != 1 || !leftovers.is_empty()) {
            return Err(damaged(&format!("ACTIVE names state {active}, which is missing")));
        }
        for leftover in leftovers {
            tracing::info!(path = %leftover.display(), "removing what was left of another state");
            if leftover.is_dir() {
                remove_directory(&leftover)?;
            } else {
                fs::remove_file(&leftover)?;
            }
        }
        // Only the first state begins empty; each later one is a snapshot's, and its absence is a loss.
        if active == 1 {
            create_directory(&directory)?;
        }
        let db = StateDb::open(&directory, memory, active == 1).map_err(io_error)?;
        Ok((db, active))
    }

    /// Says that the first state is the live one, before it is made.
    fn begin(&self) -> io::Result<()> {
        let known = |name: &str| name.strip_suffix(".tmp") == Some(ACTIVE);
        for entry in fs::read_dir(&self.root)? {
            if !entry?.file_name().to_str().is_some_and(known) {
                return Err(damaged("there are states but no file ACTIVE that tells the live one"));
            }
        }
        write_atomically(&self.root, ACTIVE, b"1\n")
    }

    /// Makes a state of a snapshot's files: not live yet.
    pub fn prepare(&self, number: u64, files: &Path) -> io::Result<PathBuf> {
        let building = self.root.join(format!("{number}.building"));
        let directory = self.root.join(number.to_string());
        remove_directory(&building)?;
        remove_directory(&directory)?;
        fs::create_dir(&building)?;
        for entry in fs::read_dir(files)? {
            let from = entry?.path();
            let Some(name) = from.file_name() else {
                continue;
            };
            let to = building.join(name);
            // Tables never change, so both directories may share them; RocksDB rewrites the other files.
            let linked = from.extension().is_some_and(|extension| extension == "sst")
                && fs::hard_link(&from, &to).is_ok();
            if !linked {
                fs::copy(&from, &to)?;
                fs::File::open(&to)?.sync_all()?;
            }
        }
        sync_directory(&building)?;
        fs::rename(&building, &directory)?;
        sync_directory(&self.root)?;
        Ok(directory)
    }

    /// Makes the prepared state the live one.
    pub fn activate(&self, number: u64) -> io::Result<()> {
        write_atomically(&self.root, ACTIVE, format!("{number}\n").as_bytes())
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the state directory is damaged: {what}"))
}
