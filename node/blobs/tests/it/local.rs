//! What belongs to this adapter: limits, files, full disks, any chunking.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use futures_util::stream;
use nora_app::ports::uploads::{Admission, UploadError};
use nora_blobs::{LocalBlobs, LocalBlobsConfig};
use nora_domain::{Algorithm, Timestamp, UploadId};
use proptest::prelude::{ProptestConfig, proptest};

use crate::support::*;

#[tokio::test]
async fn an_upload_may_not_grow_over_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalBlobs::open(LocalBlobsConfig { upload_bytes_max: 1000, ..config(dir.path()) })
        .unwrap();
    let uploads = uploads(&store);
    let id = open_session(uploads, 1).await;
    uploads.append(id, None, body(&[1; 600], 100)).await.unwrap();
    let over = uploads.append(id, None, body(&[1; 401], 100)).await;
    assert!(matches!(over, Err(UploadError::TooLarge { bytes_max: 1000 })), "{over:?}");
    let offset = uploads.state(id).await.unwrap().offset;
    uploads.append(id, Some(offset), body(&vec![1; 1000 - offset as usize], 7)).await.unwrap();
    let stored = uploads.finish(id, sha256(&[1; 1000]), generation(1)).await.unwrap();
    assert_eq!(stored.size, 1000);
}

#[tokio::test]
async fn only_so_many_sessions_may_be_open() {
    let store = store();
    for id in 0..8 {
        open_session(store.uploads(), id).await;
    }
    let uploads = store.uploads();
    let open = |id| {
        uploads.open(
            UploadId(id),
            purpose("a", Algorithm::Sha256, Timestamp(1)),
            Admission::ByShare,
        )
    };
    let over = open(8).await;
    assert!(matches!(over, Err(UploadError::TooMany { sessions_max: 8 })), "{over:?}");
    assert_eq!(store.upload_files().len(), 16);
    store.uploads().cancel(UploadId(3)).await.unwrap();
    open(8).await.unwrap();
}

#[tokio::test]
async fn files_are_named_after_digest_and_generation() {
    let store = store();
    let (small, large) = (bytes(10, 1), bytes(2 * MIB + 5, 2));
    push(store.uploads(), &small, 1).await;
    push(store.uploads(), &large, 2).await;
    let (small, large_name) = (sha256(&small).hex(), sha256(&large).hex());
    let mut expected = vec![
        format!("{small}.1-1"),
        format!("{large_name}.1-2"),
        format!("{large_name}.1-2.chunks"),
    ];
    expected.sort();
    assert_eq!(store.blob_files(), expected);

    let folder = store.dir.path().join("blobs/sha256").join(&large_name[..2]);
    assert_eq!(std::fs::read(folder.join(format!("{large_name}.1-2"))).unwrap(), large);
    let table = std::fs::read(folder.join(format!("{large_name}.1-2.chunks"))).unwrap();
    assert_eq!(*blake3::hash(&table[24..]).as_bytes(), chunk_root(&large));
    assert_eq!(table[16..24], (large.len() as u64).to_le_bytes());
}

/// A small file system of its own, unmounted at the end; `None` where the test may not mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(dir.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_session_goes_on_once_there_is_room() {
    let Some(disk) = SmallDisk::mount(8) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let store = LocalBlobs::open(config(disk.path())).unwrap();
    let uploads = uploads(&store);
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 4 * MIB]).unwrap();

    let bytes = bytes(6 * MIB, 3);
    let id = open_session(uploads, 1).await;
    let full = uploads.append(id, Some(0), body(&bytes, 65_536)).await;
    assert!(matches!(full, Err(UploadError::DiskFull)), "{full:?}");
    let offset = uploads.state(id).await.unwrap().offset;
    let on_disk = std::fs::metadata(disk.path().join(format!("uploads/{:032x}", 1))).unwrap().len();
    assert_eq!(offset, on_disk);
    assert!((1..4 * MIB as u64).contains(&offset), "{offset}");

    std::fs::remove_file(ballast).unwrap();
    let rest = body(&bytes[usize::try_from(offset).unwrap()..], 65_536);
    uploads.append(id, Some(offset), rest).await.unwrap();
    let stored = uploads.finish(id, sha256(&bytes), generation(1)).await.unwrap();
    assert_eq!(stored.chunk_root, chunk_root(&bytes));
}

#[tokio::test]
async fn finishing_on_a_full_disk_leaves_the_session_as_it_was() {
    let Some(disk) = SmallDisk::mount(4) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let store = LocalBlobs::open(config(disk.path())).unwrap();
    let uploads = uploads(&store);
    let bytes = bytes(2 * MIB, 3);
    let id = open_session(uploads, 1).await;
    uploads.append(id, Some(0), body(&bytes, 65_536)).await.unwrap();
    // Fills the disk to the last page, so that neither a folder's entry nor the chunk table finds
    // room.
    let ballast = disk.path().join("ballast");
    let filled = std::fs::write(&ballast, vec![0; 4 * MIB]);
    assert!(filled.is_err());

    let full = uploads.finish(id, sha256(&bytes), generation(1)).await;
    assert!(matches!(full, Err(UploadError::DiskFull)), "{full:?}");
    assert_eq!(uploads.state(id).await.unwrap().offset, 2 * MIB as u64);
    std::fs::remove_file(ballast).unwrap();
    uploads.finish(id, sha256(&bytes), generation(1)).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_chunking_gives_the_same_blob(
        len in 0usize..(2 * MIB + 100_000),
        frames in proptest::collection::vec(0usize..150_000, 1..40),
        requests in 1usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = store();
            let uploads = store.uploads();
            let bytes = Bytes::from(bytes(len, 8));
            let id = open_session(uploads, 1).await;
            let mut cut = frames.into_iter().chain([1]).cycle();
            let mut left = bytes.clone();
            for request in 1..=requests {
                let parts = if request == requests { 1 } else { 2 };
                let mut share = left.split_to(left.len() / parts);
                let mut body = Vec::new();
                while !share.is_empty() {
                    let frame = cut.next().unwrap().min(share.len());
                    body.push(Ok(share.split_to(frame)));
                }
                uploads.append(id, None, Box::pin(stream::iter(body))).await.unwrap();
            }
            let stored = uploads.finish(id, sha256(&bytes), generation(1)).await.unwrap();
            assert_eq!((stored.size, stored.chunk_root), (len as u64, chunk_root(&bytes)));
        });
    }
}
