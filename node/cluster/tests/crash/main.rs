//! Power cuts and rot under the real log store and state machine.
//!
//! One run is recorded: every call by which RocksDB and the stores change a folder. From the record, the disk is made as
//! a power cut would have left it at each sync, with what was not synced gone, torn or out of order. The stores are
//! opened on each of these disks: what was acknowledged must be there, and the log's tail must lead to the very state
//! that the domain computes. Then bits are flipped in every file: the start must refuse, or what is read must be right.
//!
//! This is a test binary of its own, beside `it`, because it [takes the place of libc's calls](intercept) for its whole
//! process: a fault in that must not be able to falsify any other test.

// Helpers outside of test functions may panic too: it is all a test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod check;
mod disk;
mod intercept;
mod run;
#[path = "../it/support.rs"]
#[allow(dead_code, reason = "the other binary uses the rest")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use check::{Verdict, Want};
use disk::{Disk, Image, Survival};
use intercept::Op;
use run::Run;
use tempfile::TempDir;

/// Disks that are checked at once.
const WORKERS: usize = 2;

/// Seed of the run whose crash points are all looked at; another one can be named in this variable.
const SEED: u64 = 1;
const SEED_VARIABLE: &str = "NORA_TEST_CRASH_SEED";

/// Findings that are enough: the rest of a run is not looked at.
const FINDINGS_MAX: usize = 10;

struct Job {
    name: String,
    image: Image,
    want: Want,
}

/// Checks disks as they come; gives how many, and those that are not as they must be.
fn check_all(
    run: &Arc<Run>,
    jobs: Receiver<Job>,
    may_refuse: bool,
) -> (BTreeMap<&'static str, u64>, Vec<String>) {
    let jobs = Mutex::new(jobs);
    let results = Mutex::new((BTreeMap::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.unwrap();
                loop {
                    if results.lock().unwrap().1.len() >= FINDINGS_MAX {
                        break;
                    }
                    let Ok(job) = ({ jobs.lock().unwrap().recv() }) else { break };
                    let folder = folder();
                    job.image.write(folder.path());
                    let verdict = runtime.block_on(check::check(folder.path(), run, &job.want));
                    let mut results = results.lock().unwrap();
                    let (kind, wrong) = match verdict {
                        Verdict::Right => ("right", None),
                        Verdict::Refused(_) if may_refuse => ("refused", None),
                        Verdict::Refused(why) => ("refused", Some(why)),
                        Verdict::Wrong(why) => ("wrong", Some(why)),
                    };
                    *results.0.entry(kind).or_default() += 1;
                    results.1.extend(wrong.map(|why| format!("{}: {why}", job.name)));
                }
            });
        }
    });
    results.into_inner().unwrap()
}

/// In memory where that is possible: thousands of disks are written.
fn folder() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// A run, and what it did to its folder.
fn recorded(seed: u64) -> (Arc<Run>, Vec<Op>) {
    let folder = folder();
    let recording = intercept::begin(folder.path());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let run = runtime.unwrap().block_on(run::run(seed, folder.path()));
    let ops = intercept::end(recording);
    // What the record leads to is what is on the disk: no call was missed.
    let mut disk = Disk::default();
    ops.iter().for_each(|op| disk.apply(op));
    assert_eq!(disk.image(Survival::All).files(), disk::read(folder.path()));
    (Arc::new(run), ops)
}

#[test]
fn every_crash_point_starts_with_all_that_was_acknowledged() {
    let seed = std::env::var(SEED_VARIABLE).map_or(SEED, |seed| seed.parse().unwrap());
    let (run, ops) = recorded(seed);
    let (send, jobs) = sync_channel::<Job>(8);
    let syncs = ops.iter().filter(|op| op.is_sync()).count();
    let (verdicts, wrong) = std::thread::scope(|scope| {
        let checked = scope.spawn(|| check_all(&run, jobs, false));
        let mut disk = Disk::default();
        let (mut want, mut seen) = (Want::default(), BTreeSet::new());
        for (at, op) in ops.iter().enumerate() {
            let mut look = |disk: &Disk, want: &Want, survivals: &[Survival]| {
                for survival in survivals {
                    // A disk that was there before is right if it was right then, unless more was acknowledged.
                    if seen.insert((disk.key(*survival), want.done, want.snapshot)) {
                        let (name, image) = (format!("{at} {survival:?}"), disk.image(*survival));
                        // Nobody takes any more once there are findings enough.
                        let _ = send.send(Job { name, image, want: want.clone() });
                    }
                }
            };
            match op {
                Op::Note(note) => want.note(note),
                op if op.is_sync() => {
                    look(&disk, &want, &Survival::BEFORE_A_SYNC);
                    disk.apply(op);
                    look(&disk, &want, &[Survival::Synced]);
                }
                op => disk.apply(op),
            }
        }
        drop(send);
        checked.join().unwrap()
    });
    let total: u64 = verdicts.values().sum();
    println!(
        "seed {seed}: {} operations of the stores, {} calls to the disk, {syncs} syncs, {total} disks after a power \
         cut: {verdicts:?}",
        run.versions.len(),
        ops.len()
    );
    assert!(wrong.is_empty(), "{} of {total}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(total > 1000, "{total} crash points are too few to mean anything");
}

#[test]
fn a_flipped_bit_is_refused_or_mended_and_never_makes_anything_shorter() {
    let (run, ops) = recorded(3);
    let mut disk = Disk::default();
    let mut want = Want::default();
    for op in &ops {
        match op {
            Op::Note(note) => want.note(note),
            op => disk.apply(op),
        }
    }
    assert_eq!(want.done, want.begun, "all is acknowledged, so nothing may be missing");
    let whole = disk.image(Survival::All);
    let (send, jobs) = sync_channel::<Job>(8);
    let mut flips = BTreeMap::<&str, u64>::new();
    let (verdicts, wrong) = std::thread::scope(|scope| {
        let checked = scope.spawn(|| check_all(&run, jobs, true));
        for (path, bytes) in whole.files() {
            let Some(kind) = disk::kind(&path) else { continue };
            for (place, bit) in run::places(bytes.len()) {
                *flips.entry(kind).or_default() += 1;
                let image = whole.flipped(&path, place, bit);
                let name = format!("{} byte {place} bit {bit}", path.display());
                let _ = send.send(Job { name, image, want: want.clone() });
            }
        }
        drop(send);
        checked.join().unwrap()
    });
    println!("bits flipped: {flips:?}: {verdicts:?}");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    for kind in ["log", "table", "MANIFEST", "CURRENT", "snapshot", "synced", "ACTIVE"] {
        assert!(flips.contains_key(kind), "nothing of {kind} was flipped");
    }
    assert!(verdicts.get("refused").is_some_and(|refused| *refused > 100));
}
