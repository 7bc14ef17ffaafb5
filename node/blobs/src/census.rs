//! How many copies are on this node's disk, counted as files come and go.
//!
//! Guarantees: a folder's count is what a listing found, plus and minus what changed since; a listing that raced with a
//! change is thrown away. Nothing is listed but where [`Census::recount`] is called for a folder: once after the start,
//! and where a file was found missing.

use std::io;
use std::sync::{Mutex, PoisonError};

use nora_domain::{Algorithm, Digest};

/// Folders of one algorithm.
pub(crate) const SHARDS: usize = 256;
/// Listings of a folder in a row: more means that files come and go faster than they can be counted.
const ATTEMPTS: usize = 3;

/// One folder.
#[derive(Default)]
struct Folder {
    /// `None` until it was listed.
    count: Option<u64>,
    /// Changes that were begun and have not ended.
    changing: u32,
    /// Changes that ended.
    changes: u64,
}

/// The counts of all folders.
pub(crate) struct Census(Vec<Mutex<Folder>>);

impl Default for Census {
    fn default() -> Self {
        Self((0..2 * SHARDS).map(|_| Mutex::default()).collect())
    }
}

/// A change of a folder that is under way. Dropped without [`Change::added`] or [`Change::removed`], it changed nothing.
pub(crate) struct Change<'a> {
    census: &'a Census,
    folder: usize,
    by: i8,
}

impl Change<'_> {
    /// A file came.
    pub(crate) fn added(&mut self) {
        self.by = 1;
    }

    /// A file went.
    pub(crate) fn removed(&mut self) {
        self.by = -1;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut folder = self.census.folder(self.folder);
        folder.changing = folder.changing.saturating_sub(1);
        folder.changes += 1;
        folder.count = folder.count.map(|count| count.saturating_add_signed(self.by.into()));
    }
}

impl Census {
    fn folder(&self, folder: usize) -> std::sync::MutexGuard<'_, Folder> {
        // Every use is one assignment after another of plain numbers.
        self.0[folder % (2 * SHARDS)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file of a blob is about to come or go.
    pub(crate) fn change(&self, digest: &Digest) -> Change<'_> {
        let shard = digest.value().first().copied().unwrap_or_default();
        let folder = index(digest.algorithm(), shard);
        self.folder(folder).changing += 1;
        Change { census: self, folder, by: 0 }
    }

    /// Counts a folder anew by listing it. False if something changed whenever it was listed: then the earlier count
    /// stays, and the caller tries again later.
    pub(crate) fn recount(
        &self,
        algorithm: Algorithm,
        shard: u8,
        list: impl Fn() -> io::Result<u64>,
    ) -> io::Result<bool> {
        let folder = index(algorithm, shard);
        for _ in 0..ATTEMPTS {
            let before = {
                let folder = self.folder(folder);
                (folder.changing, folder.changes)
            };
            let count = list()?;
            let mut folder = self.folder(folder);
            if before == (0, folder.changes) && folder.changing == 0 {
                folder.count = Some(count);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies in all folders that were counted.
    pub(crate) fn copies(&self) -> u64 {
        (0..self.0.len()).filter_map(|folder| self.folder(folder).count).sum()
    }
}

fn index(algorithm: Algorithm, shard: u8) -> usize {
    let first = match algorithm {
        Algorithm::Sha256 => 0,
        Algorithm::Sha512 => SHARDS,
    };
    first + usize::from(shard)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn files_that_come_and_go_are_counted_once_the_folder_was_listed() {
        let (census, digest) = (Census::default(), Digest::sha256([7; 32]));
        census.change(&digest).added();
        assert_eq!(census.copies(), 0, "nobody listed it yet");
        assert!(census.recount(Algorithm::Sha256, 7, || Ok(5)).unwrap());
        census.change(&digest).added();
        census.change(&digest).added();
        census.change(&digest).removed();
        drop(census.change(&digest));
        census.recount(Algorithm::Sha512, 7, || Ok(10)).unwrap();
        assert_eq!(census.copies(), 16);
    }

    #[test]
    fn a_listing_that_raced_with_a_change_does_not_count() {
        let (census, digest) = (Census::default(), Digest::sha256([7; 32]));
        census.recount(Algorithm::Sha256, 7, || Ok(5)).unwrap();
        let listings = Cell::new(0);
        let racing = || {
            listings.set(listings.get() + 1);
            if listings.get() == 1 {
                census.change(&digest).added();
            }
            Ok(6)
        };
        census.recount(Algorithm::Sha256, 7, racing).unwrap();
        assert_eq!((listings.get(), census.copies()), (2, 6));
        let mut under_way = census.change(&digest);
        assert!(!census.recount(Algorithm::Sha256, 7, || Ok(100)).unwrap());
        under_way.added();
        drop(under_way);
        assert_eq!(census.copies(), 7);
    }
}
