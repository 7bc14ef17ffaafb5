//! A folder as the record leads to it: what a process sees now, and what a power cut would leave.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::intercept::{Node, Op, ROOT};

/// What survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Survival {
    /// What was synced, and nothing else.
    Synced,
    /// Synced names, and of each file's unsynced bytes so many thirds.
    Torn(u8),
    /// Synced names, and of each file's unsynced bytes the second half, after a hole of zeros.
    Hole,
    /// All names, and the synced bytes: the file system's journal was ahead of the data.
    Names,
    /// All names, and half of the unsynced bytes.
    NamesTorn,
    /// Everything: only the process died.
    All,
}

impl Survival {
    /// What is looked at before a sync, when most is at stake.
    pub const BEFORE_A_SYNC: [Self; 7] = [
        Self::Torn(1),
        Self::Torn(2),
        Self::Torn(3),
        Self::Hole,
        Self::Names,
        Self::NamesTorn,
        Self::All,
    ];

    fn all_names(self) -> bool {
        matches!(self, Self::Names | Self::NamesTorn | Self::All)
    }
}

#[derive(Debug)]
enum Content {
    Folder { now: BTreeMap<String, Node>, synced: BTreeMap<String, Node> },
    File { now: Vec<u8>, synced: Arc<Vec<u8>>, version: u64, synced_version: u64 },
}

impl Content {
    fn folder() -> Self {
        Self::Folder { now: BTreeMap::new(), synced: BTreeMap::new() }
    }

    fn file() -> Self {
        Self::File { now: Vec::new(), synced: Arc::default(), version: 0, synced_version: 0 }
    }
}

/// The folder.
#[derive(Debug)]
pub struct Disk {
    nodes: BTreeMap<Node, Content>,
}

impl Default for Disk {
    fn default() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Content::folder())]) }
    }
}

/// What tells one surviving folder from another: names, with the nodes and the versions of their bytes.
pub type Key = Vec<(String, Node, u64, u8)>;

impl Disk {
    /// Makes a recorded change.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::MakeFile(folder, name, node) => {
                self.nodes.insert(*node, Content::file());
                self.names(*folder).insert(name.clone(), *node);
            }
            Op::MakeFolder(folder, name, node) => {
                self.nodes.insert(*node, Content::folder());
                self.names(*folder).insert(name.clone(), *node);
            }
            Op::Link(folder, name, node) => {
                self.names(*folder).insert(name.clone(), *node);
            }
            Op::Unlink(folder, name) => {
                self.names(*folder).remove(name);
            }
            Op::Rename((from, old), (to, new)) => {
                let node = self.names(*from).remove(old).unwrap();
                self.names(*to).insert(new.clone(), node);
            }
            Op::Write(node, at, bytes) => self.change(*node, |now| {
                let (at, end) = (*at as usize, *at as usize + bytes.len());
                now.resize(now.len().max(end), 0);
                now[at..end].copy_from_slice(bytes);
            }),
            Op::Resize(node, size) => self.change(*node, |now| now.resize(*size as usize, 0)),
            Op::Sync(node) => match self.nodes.get_mut(node).unwrap() {
                Content::Folder { now, synced } => synced.clone_from(now),
                Content::File { now, synced, version, synced_version } => {
                    if version != synced_version {
                        *synced = Arc::new(now.clone());
                        *synced_version = *version;
                    }
                }
            },
            Op::Note(_) => {}
        }
    }

    fn names(&mut self, folder: Node) -> &mut BTreeMap<String, Node> {
        match self.nodes.get_mut(&folder) {
            Some(Content::Folder { now, .. }) => now,
            other => panic!("{folder} is no folder but {other:?}"),
        }
    }

    fn change(&mut self, file: Node, change: impl FnOnce(&mut Vec<u8>)) {
        match self.nodes.get_mut(&file) {
            Some(Content::File { now, version, .. }) => {
                change(now);
                *version += 1;
            }
            other => panic!("{file} is no file but {other:?}"),
        }
    }

    /// What survives, as a value to compare.
    pub fn key(&self, survival: Survival) -> Key {
        let mut key = Vec::new();
        self.visit(ROOT, Path::new(""), survival, &mut |path, node, content| {
            let path = path.to_str().unwrap().to_owned();
            key.push(match content {
                Content::Folder { .. } => (path, node, 0, 0),
                Content::File { version, synced_version, .. } if version == synced_version => {
                    (path, node, *version, 0)
                }
                Content::File { version, synced_version, .. } => match survival {
                    Survival::Synced | Survival::Names => (path, node, *synced_version, 0),
                    Survival::All | Survival::Torn(3) => (path, node, *version, 0),
                    Survival::Torn(thirds) => (path, node, *version, thirds),
                    Survival::Hole => (path, node, *version, 4),
                    Survival::NamesTorn => (path, node, *version, 5),
                },
            });
        });
        key
    }

    /// What survives.
    pub fn image(&self, survival: Survival) -> Image {
        let mut image = Image::default();
        self.visit(ROOT, Path::new(""), survival, &mut |path, _, content| match content {
            Content::Folder { .. } => image.folders.push(path.to_owned()),
            Content::File { now, synced, version, synced_version } => {
                let bytes = if version == synced_version {
                    synced.clone()
                } else {
                    survived(now, synced, survival)
                };
                image.files.insert(path.to_owned(), bytes);
            }
        });
        image
    }

    fn visit(
        &self,
        folder: Node,
        path: &Path,
        survival: Survival,
        visit: &mut impl FnMut(&Path, Node, &Content),
    ) {
        let Some(Content::Folder { now, synced }) = self.nodes.get(&folder) else { return };
        for (name, node) in if survival.all_names() { now } else { synced } {
            // RocksDB's own journal says nothing that it reads again.
            if name.starts_with("LOG") {
                continue;
            }
            let path = path.join(name);
            let content = &self.nodes[node];
            visit(&path, *node, content);
            if matches!(content, Content::Folder { .. }) {
                self.visit(*node, &path, survival, visit);
            }
        }
    }
}

/// The bytes that are left of a file that was changed since it was synced.
fn survived(now: &[u8], synced: &Arc<Vec<u8>>, survival: Survival) -> Arc<Vec<u8>> {
    let first = now.iter().zip(synced.iter()).take_while(|(now, synced)| now == synced).count();
    let end = now.len().max(synced.len());
    let part = |of: usize, parts: usize| first + (end - first) * of / parts;
    let torn = |cut: usize| {
        let old = synced.get(cut..).unwrap_or_default();
        Arc::new([&now[..cut.min(now.len())], old].concat())
    };
    match survival {
        Survival::Synced | Survival::Names => synced.clone(),
        Survival::All => Arc::new(now.to_vec()),
        Survival::Torn(thirds) => torn(part(thirds.into(), 3)),
        Survival::NamesTorn => torn(part(1, 2)),
        Survival::Hole => {
            let mut bytes = now.to_vec();
            // What was written over keeps its old bytes; what came at the end was never written.
            let hole = first..part(1, 2).min(bytes.len());
            for place in hole {
                bytes[place] = synced.get(place).copied().unwrap_or(0);
            }
            Arc::new(bytes)
        }
    }
}

/// Folders and files, to be put on a disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    folders: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Arc<Vec<u8>>>,
}

impl Image {
    /// Writes all of it below `root`.
    pub fn write(&self, root: &Path) {
        self.folders.iter().for_each(|path| fs::create_dir(root.join(path)).unwrap());
        self.files.iter().for_each(|(path, bytes)| fs::write(root.join(path), &***bytes).unwrap());
    }

    /// The files, by their paths.
    pub fn files(&self) -> BTreeMap<PathBuf, Arc<Vec<u8>>> {
        self.files.clone()
    }

    /// The same with one bit of one file flipped.
    pub fn flipped(&self, path: &Path, place: usize, bit: u8) -> Self {
        let mut image = self.clone();
        let bytes = image.files.get_mut(path).unwrap();
        Arc::make_mut(bytes)[place] ^= 1 << bit;
        image
    }
}

/// What kind of file this is, of those whose rot matters.
pub fn kind(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    match name {
        _ if path.starts_with("snapshots") => Some("snapshot"),
        _ if name.ends_with(".log") => Some("log"),
        _ if name.ends_with(".sst") => Some("table"),
        _ if name.starts_with("MANIFEST") => Some("MANIFEST"),
        "CURRENT" => Some("CURRENT"),
        "ACTIVE" => Some("ACTIVE"),
        "raft-log.synced" => Some("synced"),
        _ => None,
    }
}

/// What is below a folder, without RocksDB's own journal.
pub fn read(root: &Path) -> BTreeMap<PathBuf, Arc<Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.starts_with("LOG") {
                let of = path.strip_prefix(root).unwrap().to_owned();
                files.insert(of, Arc::new(fs::read(path).unwrap()));
            }
        }
    }
    files
}
