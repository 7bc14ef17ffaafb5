//! What happens to disks: lost with all they hold, and rot in blobs and in everything else.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::super::Dice;
use super::super::journal::Journal;
use super::Faults;
use crate::cluster::{Cluster, is_ready};
use crate::error::{During, Error, Result};
use crate::proxy::Trouble;

/// How long a scrub may take to find what was damaged, beside [`MENDED_OF_FILE_MAX`].
const MENDED_MAX: Duration = Duration::from_secs(60);
/// How much longer that is for each file of the store: a long run leaves tens of thousands, and other work may be beside it.
const MENDED_OF_FILE_MAX: Duration = Duration::from_millis(20);
/// How long a node without a disk may get none of the acknowledged blobs that it lacks: more than two passes of repair.
const STALLED_MAX: Duration = Duration::from_secs(150);
/// How long a node with damaged metadata may take to refuse or to serve.
const DECIDED_MAX: Duration = Duration::from_secs(20);
/// Bits that flip in a file at most.
const FLIPS_MAX: usize = 4;

/// What rots on a disk is found by scrubbing: asks for it, and waits until the copy is set aside or whole again.
fn await_mended(
    cluster: &Cluster,
    (number, files): (usize, usize),
    path: &Path,
    offset: u64,
    whole: u8,
) -> Result<()> {
    let limit = MENDED_MAX + MENDED_OF_FILE_MAX * u32::try_from(files).unwrap_or(u32::MAX);
    cluster.scrub(number)?;
    let begun = Instant::now();
    let mut byte = [0];
    while let Ok(file) = File::open(path) {
        if file.read_at(&mut byte, offset).is_ok() && byte[0] == whole {
            return Ok(());
        }
        if begun.elapsed() > limit {
            let who = number + 1;
            return Err(Error::Wrong(format!(
                "node {who} did not find its damaged copy in {limit:?}"
            )));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The digest that a blob's file is named after.
fn digest_in(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// All files below a folder.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// What a file of a node's metadata is: each kind rots as often as any other.
fn kind_of(metadata: &Path, path: &Path) -> Option<(&'static str, &'static str)> {
    let within = path.strip_prefix(metadata).ok()?;
    let store = match within.components().next()?.as_os_str().to_str()? {
        "raft-log" => "the log",
        "state" => "the state",
        "snapshots" => "a snapshot",
        _ => return None,
    };
    let name = path.file_name()?.to_str()?;
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => "write-ahead log",
        Some("sst") => "table",
        _ if name.starts_with("MANIFEST") => "manifest",
        _ if matches!(name, "manifest" | "CURRENT" | "ACTIVE") => "manifest",
        _ => return None,
    };
    Some((store, kind))
}

/// Flips bits in a file of one kind of a stopped node's metadata; says which file, if there is any.
fn rot_metadata(cluster: &Cluster, number: usize, dice: &mut Dice) -> Result<Option<String>> {
    let metadata = cluster.metadata_dir(number);
    let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |found| found.len());
    let mut files = files_below(&metadata);
    files.retain(|path| kind_of(&metadata, path).is_some() && length(path) > 0);
    let kinds: BTreeSet<_> = files.iter().filter_map(|path| kind_of(&metadata, path)).collect();
    let Some(kind) = kinds.iter().nth(dice.below(kinds.len())) else { return Ok(None) };
    files.retain(|path| kind_of(&metadata, path) == Some(*kind));
    let Some(path) = files.get(dice.below(files.len())) else { return Ok(None) };
    let step = || format!("damage {}", path.display());
    let file = File::options().read(true).write(true).open(path).during(step)?;
    let flips = 1 + dice.below(FLIPS_MAX);
    for _ in 0..flips {
        let offset = dice.roll() % length(path).max(1);
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).during(step)?;
        byte[0] ^= 1 << dice.below(8);
        file.write_all_at(&byte, offset).during(step)?;
    }
    let within = path.strip_prefix(&metadata).unwrap_or(path).display();
    Ok(Some(format!("{flips} bits in a {} of {}, {within}", kind.1, kind.0)))
}

impl Faults {
    /// Damages one copy of a blob on a node's disk, if it has one that is whole everywhere.
    pub(super) fn flip_bit(&mut self, cluster: &Cluster, number: usize) -> Result<()> {
        let mut files = cluster.blob_files(number);
        files.retain(|path| !self.flipped.contains(&digest_in(path)));
        let Some(path) = files.get(self.dice.below(files.len())) else { return Ok(()) };
        let step = || format!("damage {}", path.display());
        let file = File::options().read(true).write(true).open(path).during(step)?;
        let length = file.metadata().during(step)?.len();
        let offset = self.dice.roll() % length.max(1);
        let mut byte = [0];
        if file.read_at(&mut byte, offset).during(step)? == 1 {
            let whole = byte[0];
            byte[0] ^= 1 << self.dice.below(8);
            file.write_all_at(&byte, offset).during(step)?;
            self.flipped.insert(digest_in(path));
            drop(file);
            await_mended(cluster, (number, files.len()), path, offset, whole)?;
        }
        Ok(())
    }

    /// A node loses its disk while copies take long to reach others, and joins anew.
    pub(super) fn lose_disk(
        &mut self,
        cluster: &mut Cluster,
        journal: &Journal,
        number: usize,
    ) -> Result<()> {
        let others = || (0..journal.addresses.len()).filter(|other| *other != number);
        let delay = self.dice.millis(10, 60);
        others().for_each(|other| cluster.trouble(other, Trouble::Delay(delay)));
        thread::sleep(self.dice.millis(200, 800));
        cluster.lose_disk(number)?;
        others().for_each(|other| cluster.trouble(other, Trouble::None));
        self.replace(cluster, journal, number)
    }

    /// A node whose disk is lost joins anew, and gets every acknowledged blob again: before it has, no other disk may be lost.
    fn replace(&mut self, cluster: &mut Cluster, journal: &Journal, number: usize) -> Result<()> {
        let begun = Instant::now();
        cluster.rejoin(number)?;
        let wanted = journal.needed_blobs();
        if self.bucket.is_some() {
            return Ok(());
        }
        let (mut lacking, mut since) = (usize::MAX, Instant::now());
        loop {
            let there: BTreeSet<_> =
                cluster.blob_files(number).iter().map(|path| digest_in(path)).collect();
            // Images that were deleted meanwhile need nothing.
            let needed: BTreeSet<_> = journal.needed_blobs().into_iter().collect();
            let hex = |digest: &String| digest.trim_start_matches("sha256:").to_owned();
            let missing = wanted
                .iter()
                .filter(|digest| needed.contains(*digest) && !there.contains(&hex(digest)))
                .count();
            if missing == 0 {
                let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.restored.push(millis);
                return Ok(());
            }
            if missing < lacking {
                (lacking, since) = (missing, Instant::now());
            }
            if since.elapsed() > STALLED_MAX {
                journal.violation(format!(
                    "node {} joined anew, lacks {missing} of {} acknowledged blobs, and has got none for {STALLED_MAX:?}",
                    number + 1,
                    wanted.len()
                ));
                return Ok(());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Metadata of a node rots while it does not run. It starts beside one node that was behind, so that together they are a
    /// majority which must not forget anything: it refuses, or it serves all that was acknowledged.
    ///
    /// Afterwards it joins anew, as its operator would let it: what is still damaged and was not read stays nowhere.
    pub(super) fn rot(
        &mut self,
        cluster: &mut Cluster,
        journal: &Journal,
        number: usize,
        behind: usize,
    ) -> Result<()> {
        let rest: Vec<_> =
            (0..cluster.len()).filter(|other| ![number, behind].contains(other)).collect();
        cluster.pause(behind);
        thread::sleep(self.dice.millis(200, 1000));
        cluster.kill(number);
        rest.iter().for_each(|other| cluster.kill(*other));
        // The state is not synced: after a power cut it rests on what is left of the log.
        if cluster.has_fault_library() && self.dice.below(2) == 0 {
            self.lost_bytes += cluster.lose_unsynced(number)?;
        }
        let Some(what) = rot_metadata(cluster, number, &mut self.dice)? else {
            cluster.resume(behind);
            return Ok(());
        };
        cluster.resume(behind);
        let logged = cluster.log_bytes(number);
        let begun = Instant::now();
        cluster.restart(number)?;
        while cluster.runs(number)
            && !is_ready(cluster.node(number).http)
            && begun.elapsed() < DECIDED_MAX
        {
            thread::sleep(Duration::from_millis(20));
        }
        if cluster.runs(number) {
            self.served += 1;
            // Clients read and write through the two meanwhile.
            thread::sleep(self.dice.millis(500, 1500));
        } else {
            self.refused += 1;
            let said = cluster.log_since(number, logged);
            if !said.to_lowercase().contains("error") {
                journal.violation(format!(
                    "node {} ended without an error after {what}: {said:?}",
                    number + 1
                ));
            }
        }
        eprintln!("{what}: node {} {}", number + 1, verdict(cluster.runs(number)));
        for other in rest {
            cluster.restart(other)?;
            cluster.wait_ready(other)?;
        }
        cluster.wait_ready(behind)?;
        cluster.lose_disk(number)?;
        self.replace(cluster, journal, number)
    }
}

fn verdict(runs: bool) -> &'static str {
    if runs { "serves" } else { "refuses" }
}
