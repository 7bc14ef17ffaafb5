//! Start and memory with many manifests: a store is filled over HTTP, then started again and again.
//!
//! Manifests are small, each has a tag, and 1,000 share a repository with one configuration and one
//! layer. The page cache stays warm: what is measured is the program, not the disk. A kept store
//! carries a note of what is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nora_cluster_tests::error::{During, Error, Result};
use serde::{Deserialize, Serialize};

use crate::round::{Bench, start};
use crate::samples::{Bar, Measure, Section, Unit};
use crate::targets::{Kind, Target};
use nora_cluster_tests::folder::{bytes_below, remove};
use nora_cluster_tests::phase::{Observed, observe, together, wait_quiet};
use nora_cluster_tests::registry::Registry;

const CLIENTS: usize = 32;
const A_REPOSITORY: u64 = 1000;
const TENTHS: u64 = 10;

/// What a filled store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Filled {
    manifests: u64,
    /// One of them, to be compared after each start.
    repository: String,
    tag: String,
    manifest: String,
}

/// Measures `target` with many manifests.
pub fn run(bench: &mut Bench, target: &Target) -> Result<()> {
    let kept = bench.args.keep_store.clone();
    let dir = folder(bench, target.kind, kept.as_deref())?;
    let filled = match read_note(&dir)? {
        Some(filled) => filled,
        None => fill(bench, target, &dir)?,
    };
    let count = Measure::new(Section::Catalogue, "manifests", Unit::Count);
    bench.samples.add(count, target.kind, filled.manifests as f64, None);
    for _ in 0..bench.args.rounds {
        let server = timed_start(bench, target, &dir, "start to ready")?;
        check(&filled, server.addr())?;
        bench.idle_memory(&server, target.kind, Section::Catalogue);
        server.kill()?;
        let server = timed_start(bench, target, &dir, "start to ready, after SIGKILL")?;
        check(&filled, server.addr())?;
        server.stop()?;
    }
    if kept.is_none() { remove(&dir) } else { Ok(()) }
}

fn folder(bench: &Bench, kind: Kind, kept: Option<&Path>) -> Result<PathBuf> {
    let Some(kept) = kept else {
        return bench.fresh_folder(&format!("{}-catalogue", kind.name()));
    };
    let dir = kept.join(format!("{}-{}", kind.name(), bench.args.manifests));
    let step = || format!("make {}", dir.display());
    // Without its note a store is one whose filling broke off.
    if dir.exists() && read_note(&dir)?.is_none() {
        remove(&dir)?;
    }
    fs::create_dir_all(&dir).during(step)?;
    dir.canonicalize().during(step)
}

fn timed_start(
    bench: &mut Bench,
    target: &Target,
    dir: &Path,
    title: &str,
) -> Result<nora_cluster_tests::server::Server> {
    let quiet = wait_quiet(bench.args.output.wait_quiet(), &[]);
    let (server, took) = start(target, dir)?;
    let measure = Measure::new(Section::Catalogue, title, Unit::Ms);
    let measure = measure.bar(Some(Bar::AtMost(1000.0)));
    bench.samples.add(measure, target.kind, took.as_secs_f64() * 1e3, Some(quiet));
    Ok(server)
}

fn check(filled: &Filled, addr: std::net::SocketAddr) -> Result<()> {
    let mut registry = Registry::open(addr)?;
    registry.verify_manifest(&filled.repository, &filled.tag, filled.manifest.as_bytes())
}

/// Pushes the manifests, ends the server cleanly and leaves a note.
fn fill(bench: &mut Bench, target: &Target, dir: &Path) -> Result<Filled> {
    let (server, _) = start(target, dir)?;
    let filling = Filling {
        bench,
        addr: server.addr(),
        next_repository: AtomicU64::new(0),
        pushed: AtomicU64::new(0),
        begun: OnceLock::new(),
        tenths: Mutex::default(),
        ends: Instant::now() + Duration::from_secs(bench.args.fill_seconds),
    };
    let ((lasts, elapsed), seen) = observe(bench.args.output.wait_quiet(), server.pid(), || {
        together(
            CLIENTS,
            |_| Registry::open(filling.addr),
            |_, registry: Registry| filling.push_repositories(registry),
        )
    })?;
    let pushed = filling.pushed.load(Ordering::Relaxed);
    let last = lasts.into_iter().flatten().next();
    let (repository, tag, manifest) =
        last.ok_or_else(|| Error::Wrong("no manifest was pushed in time".into()))?;
    let filled = Filled { manifests: pushed, repository, tag, manifest };
    let tenths = filling.tenths.into_inner().unwrap_or_else(PoisonError::into_inner);
    record_filling(bench, target.kind, pushed as f64 / elapsed.as_secs_f64(), seen);
    record_tenths(bench, target.kind, &tenths);
    server.stop()?;
    if target.kind == Kind::Nora {
        let measure = Measure::new(Section::Catalogue, "snapshots kept", Unit::Mb);
        bench.samples.add(measure, target.kind, bytes_below(dir, "snapshots") as f64 / 1e6, None);
    }
    let note = serde_json::to_vec(&filled).map_err(|error| Error::Wrong(error.to_string()))?;
    fs::write(note_path(dir), note).during(|| format!("write in {}", dir.display()))?;
    Ok(filled)
}

fn record_filling(bench: &mut Bench, kind: Kind, rate: f64, seen: Observed) {
    let others = Some(seen.others);
    let title = format!("filling: manifests tagged, {CLIENTS} clients");
    let measure = Measure::new(Section::Catalogue, title, Unit::PerS).against_synced();
    bench.samples.add(measure, kind, rate, others);
    let name = "filling: peak private";
    let measure = Measure::new(Section::Catalogue, name, Unit::Mb);
    bench.samples.add(measure, kind, seen.peak_private, others);
    if let Some(peak) = seen.peak {
        let measure = Measure::new(Section::Catalogue, "filling: peak resident", Unit::Mb);
        bench.samples.add(measure, kind, peak, others);
    }
}

/// How fast the first and the last tenth of the manifests were pushed: a rate that falls says that a write costs more the
/// more there is.
fn record_tenths(bench: &mut Bench, kind: Kind, ends: &[Duration]) {
    let manifests = bench.args.manifests / TENTHS;
    let rate = |from: Duration, to: Duration| manifests as f64 / (to - from).as_secs_f64();
    let (Some(first), [.., before_last, last]) = (ends.first(), ends) else { return };
    if ends.len() as u64 != TENTHS {
        return;
    }
    let rates = [("first", rate(Duration::ZERO, *first)), ("last", rate(*before_last, *last))];
    for (which, rate) in rates {
        let title = format!("filling: the {which} tenth");
        bench.samples.add(Measure::new(Section::Catalogue, title, Unit::PerS), kind, rate, None);
    }
}

/// A store that is being filled by several clients.
struct Filling<'a> {
    bench: &'a Bench,
    addr: std::net::SocketAddr,
    next_repository: AtomicU64,
    pushed: AtomicU64,
    begun: OnceLock<Instant>,
    /// When each tenth of the manifests was pushed.
    tenths: Mutex<Vec<Duration>>,
    ends: Instant,
}

impl Filling<'_> {
    /// Fills repository after repository; returns the last manifest with its repository and tag.
    fn push_repositories(
        &self,
        mut registry: Registry,
    ) -> Result<Option<(String, String, String)>> {
        let wanted = self.bench.args.manifests;
        let begun = *self.begun.get_or_init(Instant::now);
        let mut last = None;
        loop {
            let number = self.next_repository.fetch_add(1, Ordering::Relaxed);
            let first = number * A_REPOSITORY;
            if first >= wanted || Instant::now() >= self.ends {
                return Ok(last);
            }
            let repository = format!("bench/c{number:05}");
            let image = self.bench.source.image();
            registry.push_blob(&repository, &image.config.1, &[&image.config.0])?;
            registry.push_blob(&repository, &image.layer.1, &[&image.layer.0])?;
            for manifest_number in first..(first + A_REPOSITORY).min(wanted) {
                if Instant::now() >= self.ends {
                    return Ok(last);
                }
                let manifest = image.variant(manifest_number);
                let tag = format!("t{manifest_number}");
                registry.push_manifest(&repository, &tag, &manifest)?;
                self.note_pushed(begun);
                let text = String::from_utf8_lossy(&manifest).into_owned();
                last = Some((repository.clone(), tag, text));
            }
        }
    }

    fn note_pushed(&self, begun: Instant) {
        let pushed = self.pushed.fetch_add(1, Ordering::Relaxed) + 1;
        let tenth = (self.bench.args.manifests / TENTHS).max(1);
        if pushed.is_multiple_of(tenth) {
            let mut tenths = self.tenths.lock().unwrap_or_else(PoisonError::into_inner);
            tenths.push(begun.elapsed());
        }
    }
}

fn note_path(dir: &Path) -> PathBuf {
    dir.join("filled.json")
}

fn read_note(dir: &Path) -> Result<Option<Filled>> {
    let path = note_path(dir);
    if !path.exists() {
        return Ok(None);
    }
    let note = fs::read(&path).during(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&note)
        .map(Some)
        .map_err(|error| Error::Wrong(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_written_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_note(dir.path()).unwrap(), None);
        let filled =
            Filled { manifests: 7, repository: "r".into(), tag: "t".into(), manifest: "{}".into() };
        fs::write(note_path(dir.path()), serde_json::to_vec(&filled).unwrap()).unwrap();
        assert_eq!(read_note(dir.path()).unwrap(), Some(filled));
        fs::write(note_path(dir.path()), "{").unwrap();
        let error = read_note(dir.path()).unwrap_err().to_string();
        assert!(error.contains("filled.json"), "{error}");
    }
}
