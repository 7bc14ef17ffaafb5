//! RocksDB as NORA uses it: one log instance and one state instance under a shared memory budget.
//!
//! Guarantees: both instances draw from one block cache and from one budget of write buffers; neither grows with what is
//! stored. Must not know: Raft, or what rows mean.

pub mod format;
pub mod state;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options,
    WriteBufferManager,
};

/// The size of a table that a compaction makes, on the first level: small enough that one compaction is short. Each level
/// has tables four times as large as the one before, so that a large store does not have more of them than may be open:
/// what is in a table that is not open cannot be read from memory.
const TABLE_BYTES: u64 = 16 << 20;
const TABLE_GROWTH: i32 = 4;

/// How many small tables gather before they are merged, from how many on writers are slowed down, and stopped.
const SMALL_TABLES: [i32; 3] = [8, 32, 48];

/// The memory that all instances share.
pub struct Memory {
    cache: Cache,
    write_buffers: WriteBufferManager,
    write_buffer_bytes: usize,
}

impl Memory {
    /// A budget: blocks, indexes and filters together take about `cache_bytes`, write buffers about
    /// `write_buffer_bytes`.
    pub fn new(cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        // Not split into shards as the LRU cache is, whose shards of half a MiB cannot take larger blocks in. Nor are write
        // buffers charged to it: busy writers would leave no room for what they read. Either made every read wait for the disk.
        let cache = Cache::new_hyper_clock_cache(cache_bytes, 0);
        let write_buffers = WriteBufferManager::new_write_buffer_manager(write_buffer_bytes, false);
        Self { cache, write_buffers, write_buffer_bytes }
    }

    /// Bytes in the block cache.
    pub fn cache_usage(&self) -> usize {
        self.cache.get_usage()
    }

    /// Bytes in write buffers.
    pub fn write_buffer_usage(&self) -> usize {
        self.write_buffers.get_usage()
    }

    /// What both instances have in common.
    pub fn options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_bloom_filter(10.0, false);
        // In parts, so that a large table's index and filter need not be in memory whole.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_optimize_filters_for_memory(true);
        table.set_format_version(6);

        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_manager(&self.write_buffers);
        // Small ones: of each instance, one that is full stays until it is written, beside the one that is being filled. As
        // they make small tables, more of those gather before they are merged.
        options.set_write_buffer_size(self.write_buffer_bytes / 3);
        options.set_max_write_buffer_number(3);
        let [merge, slow_down, stop] = SMALL_TABLES;
        options.set_level_zero_file_num_compaction_trigger(merge);
        options.set_level_zero_slowdown_writes_trigger(slow_down);
        options.set_level_zero_stop_writes_trigger(stop);
        options.set_target_file_size_base(TABLE_BYTES);
        options.set_target_file_size_multiplier(TABLE_GROWTH);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_max_open_files(256);
        options.set_max_background_jobs(2);
        // A merge reads ahead in each of its tables, of which there may be forty. With RocksDB's default of 2 MiB each that
        // could take 80 MiB; no difference was measured with 200,000 manifests.
        options.set_compaction_readahead_size(256 << 10);
        options.set_max_total_wal_size(4 * self.write_buffer_bytes as u64);
        options.set_bytes_per_sync(1 << 20);
        options.set_max_manifest_file_size(4 << 20);
        options.set_skip_stats_update_on_db_open(true);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(1 << 20);
        options.set_keep_log_file_num(2);
        options
    }
}

/// Makes a file's bytes durable under its name in one step: a crash leaves the old bytes or the new ones.
pub fn write_atomically(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    sync_directory(directory)
}

/// Makes a directory, and those above it that are missing, each durable in the one above it.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        create_directory(above)?;
    }
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_directory(above.unwrap_or(Path::new("."))),
    }
}

/// Makes a directory's entries durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes a directory and all in it, if it is there.
pub fn remove_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Locks a mutex. One that was poisoned guards values which no panic leaves half-changed.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a failed RocksDB call means to those who know `std` only.
pub fn io_error(error: rocksdb::Error) -> io::Error {
    io::Error::other(error)
}
