//! The folders of a benchmark: empty to begin with, on a disk that has the room, gone at the end.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{During, Error, Result};

/// An empty folder of this name in the scratch folder.
pub fn fresh(work_dir: &Path, name: &str) -> Result<PathBuf> {
    let dir = work_dir.join(name);
    if dir.exists() {
        remove(&dir)?;
    }
    let step = || format!("make {}", dir.display());
    fs::create_dir_all(&dir).during(step)?;
    // What others have left to write is written now, not during our phases.
    rustix::fs::sync();
    // Servers run in their folder: a path relative to ours would not lead there.
    dir.canonicalize().during(step)
}

/// Removes a folder of a benchmark.
pub fn remove(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir).during(|| format!("remove {}", dir.display()))
}

/// Refuses to start a run for which the disk has no room: it would end hours later, and in
/// another's error. `instead` says what would need less, as in "a smaller --blob-mib".
pub fn require_room(work_dir: &Path, needed: u64, instead: &str) -> Result<()> {
    let step = || format!("make {}", work_dir.display());
    fs::create_dir_all(work_dir).during(step)?;
    let disk = rustix::fs::statvfs(work_dir)
        .map_err(std::io::Error::from)
        .during(|| format!("ask for the room in {}", work_dir.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed {
        let (free, needed) = (free >> 30, needed >> 30);
        return Err(Error::Wrong(format!(
            "the stores need {needed} GiB and {} has {free}: try {instead}",
            work_dir.display()
        )));
    }
    Ok(())
}

/// The bytes of all files named so, or below folders named so, in a folder.
pub fn bytes_below(dir: &Path, name: &str) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let named = entry.file_name() == name;
        bytes += match entry.file_type() {
            Ok(kind) if kind.is_dir() && named => bytes_in(&entry.path()),
            Ok(kind) if kind.is_dir() => bytes_below(&entry.path(), name),
            Ok(_) if named => entry.metadata().map_or(0, |file| file.len()),
            _ => 0,
        };
    }
    bytes
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_in(&entry.path()),
        _ => entry.metadata().map_or(0, |file| file.len()),
    };
    entries.map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_does_not_fit_is_refused_before_it_starts() {
        let dir = tempfile::tempdir().unwrap();
        require_room(dir.path(), 1, "less").unwrap();
        let error = require_room(dir.path(), u64::MAX, "a smaller --blob-mib").unwrap_err();
        assert!(error.to_string().contains("try a smaller --blob-mib"), "{error}");
    }

    #[test]
    fn a_folder_is_empty_however_often_it_is_asked_for() {
        let work = tempfile::tempdir().unwrap();
        let dir = fresh(work.path(), "one").unwrap();
        fs::write(dir.join("left"), "over").unwrap();
        let again = fresh(work.path(), "one").unwrap();
        assert_eq!((dir, 0), (again.clone(), fs::read_dir(again).unwrap().count()));
    }

    #[test]
    fn bytes_are_those_below_folders_of_that_name() {
        let work = tempfile::tempdir().unwrap();
        let deep = work.path().join("a/snapshots/1/files");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("table"), [0; 100]).unwrap();
        fs::write(deep.join("other"), [0; 20]).unwrap();
        fs::write(work.path().join("a/log"), [0; 7]).unwrap();
        assert_eq!(bytes_below(work.path(), "snapshots"), 120);
        assert_eq!(bytes_below(work.path(), "log"), 7);
    }
}
