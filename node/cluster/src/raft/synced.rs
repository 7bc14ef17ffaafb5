//! How far the log was synced, in a file beside the log.
//!
//! The log alone cannot say that its end is missing. RocksDB reads a log file up to the first record that is damaged: a
//! record that a power cut tore, which nobody was answered for, looks like one that rotted after it was acknowledged.
//! This file tells both apart. It holds a RocksDB sequence number: everything up to it was synced.
//!
//! Guarantees: the number never exceeds what was synced, and once anything was synced it is above 0, on the disk.
//! Later numbers reach the disk within [`LAG_MAX`], so that the log needs one sync for a group of appends and not two.
//! The file survives a process that dies at any moment. A power cut may set it back by [`LAG_MAX`]; rot in the log
//! entries of that time, on top of the power cut, is the one damage that it does not show.
//! Must not know: what the log holds.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::rocks::write_atomically;

/// How long a number may be in the file without a sync of it.
pub const LAG_MAX: Duration = Duration::from_secs(1);

/// Numbers are written into two slots in turn, so that one that is torn leaves the one before it. They are in
/// different blocks of the disk.
const SLOTS: [u64; 2] = [0, 4096];
const NUMBER_BYTES: usize = 8;
const SLOT_BYTES: usize = 32;
const CONTEXT: &str = "nora 2026-11 synced position of the raft log";

/// The file, and the number in it.
#[derive(Debug)]
pub struct Synced {
    file: File,
    number: u64,
    /// The slot that the next number goes to.
    slot: usize,
    /// Since when the file holds a number that was not synced.
    dirty: Option<Instant>,
}

impl Synced {
    /// Opens the file; none if there is none.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut newest = None;
        for (slot, at) in SLOTS.into_iter().enumerate() {
            let mut bytes = [0; SLOT_BYTES];
            let read = file.read_exact_at(&mut bytes, at);
            if let (Ok(()), Some(number)) = (read, decode(&bytes)) {
                newest = newest.max(Some((number, slot)));
            }
        }
        let (number, slot) = newest.ok_or_else(|| {
            let text = format!("{} is damaged: neither of its numbers is whole", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        Ok(Some(Self { file, number, slot: (slot + 1) % SLOTS.len(), dirty: None }))
    }

    /// Makes the file, for a log of which nothing was synced yet.
    pub fn create(directory: &Path, name: &str) -> io::Result<Self> {
        let slot = encode(0);
        let mut bytes =
            vec![0; SLOTS.map(|at| at as usize + SLOT_BYTES).into_iter().max().unwrap_or(0)];
        for at in SLOTS {
            bytes.iter_mut().skip(at as usize).zip(slot).for_each(|(to, from)| *to = from);
        }
        write_atomically(directory, name, &bytes)?;
        let file = OpenOptions::new().read(true).write(true).open(directory.join(name))?;
        Ok(Self { file, number: 0, slot: 0, dirty: None })
    }

    /// What was synced, at least.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Notes that everything up to `number` was synced. To be called before anybody is answered for it.
    pub fn reach(&mut self, number: u64) -> io::Result<()> {
        if number <= self.number {
            return Ok(());
        }
        let at = SLOTS.get(self.slot).copied().unwrap_or_default();
        self.file.write_all_at(&encode(number), at)?;
        let first = self.number == 0;
        self.number = number;
        self.slot = (self.slot + 1) % SLOTS.len();
        self.dirty.get_or_insert_with(Instant::now);
        if first { self.sync() } else { Ok(()) }
    }

    /// Makes the number durable.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.dirty.is_some() {
            self.file.sync_data()?;
            self.dirty = None;
        }
        Ok(())
    }

    /// In what time the number has to be synced; none if it is.
    pub fn due(&self) -> Option<Duration> {
        self.dirty.map(|since| LAG_MAX.saturating_sub(since.elapsed()))
    }
}

fn encode(number: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let number = number.to_be_bytes();
    let check = blake3::derive_key(CONTEXT, &number);
    slot.iter_mut().zip(number.iter().chain(&check)).for_each(|(to, from)| *to = *from);
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<u64> {
    let number = u64::from_be_bytes(*slot.first_chunk::<NUMBER_BYTES>()?);
    (encode(number) == *slot).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_number_survives_and_a_torn_one_leaves_the_one_before_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("synced");
        assert!(Synced::open(&path).unwrap().is_none());
        let mut synced = Synced::create(directory.path(), "synced").unwrap();
        for number in [3, 9, 7] {
            synced.reach(number).unwrap();
        }
        assert_eq!(synced.number(), 9, "it never goes back");
        assert!(synced.due().is_some());
        synced.sync().unwrap();
        assert!(synced.due().is_none());
        let mut synced = Synced::open(&path).unwrap().unwrap();
        assert_eq!(synced.number(), 9);
        synced.reach(12).unwrap();

        let whole = fs::read(&path).unwrap();
        let mut found = std::collections::BTreeSet::new();
        for byte in 0..whole.len() {
            let mut rotten = whole.clone();
            rotten[byte] ^= 0x10;
            fs::write(&path, rotten).unwrap();
            found.insert(Synced::open(&path).unwrap().unwrap().number());
        }
        assert_eq!(found, [9, 12].into());
        fs::write(&path, vec![0; whole.len()]).unwrap();
        let error = Synced::open(&path).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
    }

    #[test]
    fn the_first_number_is_synced_before_anybody_hears_of_it() {
        let directory = TempDir::new().unwrap();
        let mut synced = Synced::create(directory.path(), "synced").unwrap();
        synced.reach(1).unwrap();
        assert!(synced.due().is_none());
        synced.reach(2).unwrap();
        assert!(synced.due().is_some_and(|due| due <= LAG_MAX));
    }
}
