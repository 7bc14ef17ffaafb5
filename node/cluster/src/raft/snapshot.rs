//! Snapshots: directories on disk, each a RocksDB checkpoint and a manifest of its files' hashes.
//!
//! Guarantees: a snapshot's directory has its final name only when all of it is durable, so what a crash leaves half
//! made is told by its name and removed at the next start; a snapshot that somebody reads is removed only when the
//! last reader has gone. A snapshot never passes through memory. Must not know: how it travels between nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::covered::Covered;
use super::{LogId, Snapshot, SnapshotMeta, StoredMembership};
use crate::codec::raft::{FileSummary, Manifest, decode_manifest, encode_manifest};
use crate::rocks::state::StateDb;
use crate::rocks::{create_directory, locked, remove_directory, sync_directory, write_atomically};

const MANIFEST: &str = "manifest";
const FILES: &str = "files";
const BUILDING: &str = "building";

/// A finished snapshot; its directory lives at least as long as this.
#[derive(Clone)]
pub struct SnapshotHandle(Arc<Finished>);

struct Finished {
    directory: Mutex<PathBuf>,
    manifest: Manifest,
    obsolete: AtomicBool,
}

impl fmt::Debug for SnapshotHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot in {}", self.directory().display())
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        let directory = locked(&self.directory).clone();
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = remove_directory(&directory)
        {
            tracing::warn!(directory = %directory.display(), %error, "cannot remove old snapshot");
        }
    }
}

impl SnapshotHandle {
    /// The snapshot in `directory`: its manifest must be there; the files are checked by [`Self::verify`].
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        let manifest = read_manifest(&directory)?;
        Ok(Self::new(directory, manifest))
    }

    fn new(directory: PathBuf, manifest: Manifest) -> Self {
        let directory = Mutex::new(directory);
        Self(Arc::new(Finished { directory, manifest, obsolete: AtomicBool::new(false) }))
    }

    /// Where it is.
    pub fn directory(&self) -> PathBuf {
        locked(&self.0.directory).clone()
    }

    /// Where its files are.
    pub fn files(&self) -> PathBuf {
        self.directory().join(FILES)
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// What it covers.
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.0.manifest.last_log_id,
            last_membership: self.0.manifest.membership.clone(),
        }
    }

    /// Reads every file and compares it with the manifest.
    pub fn verify(&self) -> io::Result<()> {
        for (name, expected) in &self.0.manifest.files {
            if Path::new(name).file_name() != Some(name.as_ref()) {
                return Err(damaged(format!("the manifest names {name:?}, which is no file name")));
            }
            let path = self.files().join(name);
            if !is_whole_file(&path, expected)? {
                return Err(damaged(format!("{} is not the file that was sent", path.display())));
            }
        }
        Ok(())
    }

    /// Whether every file is there with its size: what a start can afford to check.
    fn is_whole(&self) -> bool {
        self.0.manifest.files.iter().all(|(name, expected)| {
            fs::metadata(self.files().join(name)).is_ok_and(|found| found.len() == expected.size)
        })
    }

    /// Lets the directory be removed when the last reader has gone.
    fn retire(&self) {
        self.0.obsolete.store(true, Ordering::Release);
    }
}

impl From<SnapshotHandle> for Snapshot {
    fn from(handle: SnapshotHandle) -> Self {
        Self { meta: handle.meta(), snapshot: handle }
    }
}

/// Makes `manifest` the one of the snapshot in `directory`. Its bytes follow their hash: a manifest that rotted could
/// say that a snapshot covers more than it does, and the log would be cut by it.
pub fn write_manifest(directory: &Path, manifest: &Manifest) -> io::Result<()> {
    let bytes = encode_manifest(manifest);
    let hash = *blake3::hash(&bytes).as_bytes();
    write_atomically(directory, MANIFEST, &[hash.as_slice(), &bytes].concat())
}

/// The manifest of a snapshot's directory, as it was written. One that is damaged is [`io::ErrorKind::InvalidData`].
pub fn read_manifest(directory: &Path) -> io::Result<Manifest> {
    let path = directory.join(MANIFEST);
    let bytes = fs::read(&path)?;
    match bytes.split_first_chunk() {
        Some((hash, bytes)) if blake3::hash(bytes).as_bytes() == hash => {
            decode_manifest(bytes).map_err(damaged)
        }
        _ => Err(damaged(format!("{} is not what was written", path.display()))),
    }
}

/// A snapshot that was begun.
#[derive(Debug)]
pub struct Building {
    directory: PathBuf,
    last_log_id: Option<LogId>,
    membership: StoredMembership,
}

/// The directory of snapshots; at most one is current.
pub struct Snapshots {
    root: PathBuf,
    covered: Covered,
    current: Mutex<Option<SnapshotHandle>>,
}

impl Snapshots {
    /// Opens the directory, and removes what a crash left half made or out of date.
    pub fn open(root: PathBuf, covered: Covered) -> io::Result<Self> {
        create_directory(&root)?;
        let mut newest: Option<SnapshotHandle> = None;
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            let finished =
                path.extension().is_none_or(|extension| extension != BUILDING) && path.is_dir();
            let whole = if finished { SnapshotHandle::open(path.clone()).ok() } else { None }
                .filter(SnapshotHandle::is_whole);
            let Some(snapshot) = whole else {
                if finished {
                    tracing::error!(path = %path.display(), "removing a snapshot that is damaged");
                } else {
                    tracing::info!(path = %path.display(), "removing an unfinished snapshot");
                }
                if path.is_dir() {
                    remove_directory(&path)?;
                } else {
                    fs::remove_file(&path)?;
                }
                continue;
            };
            let newer = newest.as_ref().is_none_or(|newest| {
                newest.manifest().last_log_id < snapshot.manifest().last_log_id
            });
            let older = if newer { newest.replace(snapshot) } else { Some(snapshot) };
            if let Some(older) = older {
                older.retire();
            }
        }
        if let Some(newest) = &newest {
            reach(&covered, newest);
        }
        Ok(Self { root, covered, current: Mutex::new(newest) })
    }

    /// A snapshot could not be installed.
    pub fn failed(&self) {
        self.covered.fail();
    }

    /// The current snapshot.
    pub fn current(&self) -> Option<SnapshotHandle> {
        locked(&self.current).clone()
    }

    /// Starts a snapshot of `state` as it is now. No entry may be applied meanwhile.
    pub fn begin(&self, state: &StateDb) -> io::Result<Building> {
        let directory = self.root.join(format!("new.{BUILDING}"));
        remove_directory(&directory)?;
        fs::create_dir(&directory)?;
        let last_log_id = state.applied().map_err(io::Error::other)?;
        let membership = state.membership().map_err(io::Error::other)?;
        state.checkpoint(&directory.join(FILES)).map_err(io::Error::other)?;
        Ok(Building { directory, last_log_id, membership })
    }

    /// Finishes a snapshot and makes it the current one. Entries may be applied meanwhile.
    pub fn finish(&self, building: Building) -> io::Result<SnapshotHandle> {
        let Building { directory: building, last_log_id, membership } = building;
        let building = building.as_path();
        let previous = self.current();
        let files = summarise_all(&building.join(FILES), previous.as_ref())?;
        let manifest = Manifest { last_log_id, membership, files };
        write_manifest(building, &manifest)?;
        let name = directory_name(last_log_id.as_ref());
        if let Some(previous) = previous
            && previous.manifest().last_log_id == manifest.last_log_id
        {
            remove_directory(building)?;
            return Ok(previous);
        }
        let directory = self.root.join(name);
        remove_directory(&directory)?;
        fs::rename(building, &directory)?;
        sync_directory(&self.root)?;
        let snapshot = SnapshotHandle::new(directory, manifest);
        self.replace(snapshot.clone());
        Ok(snapshot)
    }

    /// Takes over a verified snapshot that came from elsewhere, as the current one.
    pub fn adopt(&self, snapshot: &SnapshotHandle) -> io::Result<()> {
        let directory = self.root.join(directory_name(snapshot.manifest().last_log_id.as_ref()));
        if snapshot.directory() == directory {
            return Ok(());
        }
        remove_directory(&directory)?;
        for file in fs::read_dir(snapshot.files())? {
            File::open(file?.path())?.sync_all()?;
        }
        sync_directory(&snapshot.files())?;
        sync_directory(&snapshot.directory())?;
        fs::rename(snapshot.directory(), &directory)?;
        sync_directory(&self.root)?;
        *locked(&snapshot.0.directory) = directory;
        self.replace(snapshot.clone());
        Ok(())
    }

    /// Makes a durable snapshot the current one.
    fn replace(&self, snapshot: SnapshotHandle) {
        reach(&self.covered, &snapshot);
        if let Some(older) = locked(&self.current).replace(snapshot) {
            older.retire();
        }
    }
}

fn reach(covered: &Covered, snapshot: &SnapshotHandle) {
    if let Some(last) = snapshot.manifest().last_log_id {
        covered.reach(last.index);
    }
}

/// Names sort as positions do.
fn directory_name(last: Option<&LogId>) -> String {
    match last {
        Some(last) => {
            format!("{:020}-{}-{}", last.index, last.leader_id.term, last.leader_id.node_id)
        }
        None => "empty".to_owned(),
    }
}

/// Hashes a snapshot's files, sparing those that the previous snapshot has too: its tables are the same files on disk
/// under another name, and RocksDB never changes a table.
fn summarise_all(
    files: &Path,
    previous: Option<&SnapshotHandle>,
) -> io::Result<BTreeMap<String, FileSummary>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(files)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(damaged(format!("{} has no name of ours", path.display())));
        };
        let known = previous.and_then(|previous| known_summary(previous, name, &path));
        let summary = match known {
            Some(summary) => summary,
            None => {
                File::open(&path)?.sync_all()?;
                summarise(&path)?
            }
        };
        found.insert(name.to_owned(), summary);
    }
    sync_directory(files)?;
    Ok(found)
}

fn known_summary(previous: &SnapshotHandle, name: &str, path: &Path) -> Option<FileSummary> {
    let summary = previous.manifest().files.get(name).filter(|_| name.ends_with(".sst"))?;
    let before = fs::metadata(previous.files().join(name)).ok()?;
    let now = fs::metadata(path).ok()?;
    let same = before.ino() == now.ino() && before.dev() == now.dev();
    (same && now.len() == summary.size).then_some(*summary)
}

/// Reads a file and compares it with what a manifest says of it.
pub fn is_whole_file(path: &Path, expected: &FileSummary) -> io::Result<bool> {
    let size = fs::metadata(path)?.len();
    Ok(size == expected.size && summarise(path)? == *expected)
}

fn summarise(path: &Path) -> io::Result<FileSummary> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(FileSummary { size, hash: *hasher.finalize().as_bytes() });
        }
        size += read as u64;
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
