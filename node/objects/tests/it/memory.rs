//! What an upload takes of this machine, whatever its size.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use nora_app::ports::uploads::{Finish, Sessions};

use crate::servers::{Kind, start};
use crate::support::{HASHES, MIB, bytes, generation, open_session, store, uploads};

const UPLOAD_MIB: usize = 256;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Bytes of the files under a folder, as far as they are there long enough to be counted.
fn on_disk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |path: &Path| match path.is_dir() {
        true => on_disk(path),
        false => path.metadata().map_or(0, |metadata| metadata.len()),
    };
    entries.map(|entry| size(&entry.path())).sum()
}

/// Runs alone in a process of its own, started by the test below: other tests' memory is not counted.
async fn upload() {
    let server = start(Kind::Versitygw).await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(&server.endpoint(), dir.path());
    let piece = Bytes::from(bytes(MIB, 9));
    let whole: Vec<u8> = piece.iter().copied().cycle().take(UPLOAD_MIB * MIB).collect();
    let digest = HASHES.sha256(&whole);
    drop(whole);
    let before = resident();
    let (memory, disk, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let highest = Arc::new((memory, disk, done));
    let watching = std::thread::spawn({
        let (highest, folder) = (Arc::clone(&highest), dir.path().to_owned());
        move || {
            while !highest.2.load(Ordering::Acquire) {
                highest.0.fetch_max(resident(), Ordering::AcqRel);
                highest.1.fetch_max(on_disk(&folder), Ordering::AcqRel);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
    let id = open_session(uploads(&store), 1).await;
    let frames = (0..UPLOAD_MIB * 16).map(move |n| {
        let start = n % 16 * (MIB / 16);
        // A copy: frames that come from a socket take memory of their own.
        Ok(Bytes::copy_from_slice(&piece[start..start + MIB / 16]))
    });
    store.sessions().append(id, Some(0), Box::pin(stream::iter(frames))).await.unwrap();
    store.finish(id, digest, generation(1)).await.unwrap();
    highest.2.store(true, Ordering::Release);
    watching.join().unwrap();
    let grown = highest.0.load(Ordering::Acquire).saturating_sub(before);
    let disk = highest.1.load(Ordering::Acquire);
    println!("256 MiB took {} KiB of memory and {} KiB of disk", grown >> 10, disk >> 10);
    assert!(grown < 32 << 20, "{grown} bytes of memory");
    assert!(disk < 17 << 20, "{disk} bytes of disk");
}

const ALONE: &str = "NORA_TEST_MEMORY_ALONE";

#[test]
fn an_upload_takes_bounded_memory_and_disk() {
    if std::env::var_os(ALONE).is_some() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(upload());
    }
    let this = std::env::current_exe().unwrap();
    let mut alone = std::process::Command::new(this);
    alone.args(["--exact", "memory::an_upload_takes_bounded_memory_and_disk", "--nocapture"]);
    let output = alone.env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("256 MiB took"), "{output:?}");
}
