//! What every adapter of the port `Blobs` must do with blobs that came through uploads.

use std::sync::Arc;

use futures_util::TryStreamExt;

use super::{Hashes, MIB, Uploads, bytes, generation, push, read};
use crate::ports::blobs::{BlobCopy, BlobError, Blobs, Delivery};

async fn ranges_equal_slices(uploads: Uploads<'_>, blobs: &dyn Blobs, hashes: Hashes) {
    for (sequence, len) in [(1, 40_000), (2, 200_000), (3, 9 * MIB + 4321)] {
        let bytes = bytes(len, 5);
        let stored = push(uploads, hashes, &bytes, sequence).await;
        let blob = blobs.open(stored.clone()).await.unwrap();
        assert_eq!(blob.size(), len as u64);
        let ranges =
            [0..len, 0..0, len..len, 0..1, len - 1..len, 1..len, 4095..len - 1, 4096..32_768];
        for range in ranges {
            for delivery in [Delivery::Socket, Delivery::Process] {
                let part = read(&blob, range.start as u64..range.end as u64, delivery).await;
                assert!(part == bytes[range.clone()], "{range:?} of {len}, {delivery:?}");
            }
        }
    }
}

async fn a_range_past_the_end_is_an_error(uploads: Uploads<'_>, blobs: &dyn Blobs, hashes: Hashes) {
    for (sequence, len) in [(11, 1000), (12, 300_000)] {
        let stored = push(uploads, hashes, &bytes(len, 6), sequence).await;
        let blob = blobs.open(stored.clone()).await.unwrap();
        for delivery in [Delivery::Socket, Delivery::Process] {
            let range = 0..stored.size + 200_000;
            let pieces = Arc::clone(&blob).read(range, delivery);
            assert!(pieces.try_collect::<Vec<_>>().await.is_err(), "{len}, {delivery:?}");
        }
    }
}

async fn only_the_copy_that_was_stored_is_there(
    uploads: Uploads<'_>,
    blobs: &dyn Blobs,
    hashes: Hashes,
) {
    let stored = push(uploads, hashes, b"copy", 21).await;
    let absent = blobs.open(BlobCopy { generation: generation(22), ..stored.clone() }).await;
    assert!(matches!(absent, Err(BlobError::Absent { digest }) if digest == stored.digest));
    let absent = blobs.open(BlobCopy { digest: hashes.sha512(b"copy"), ..stored.clone() }).await;
    assert!(matches!(absent, Err(BlobError::Absent { .. })));
    let wrong_size = blobs.open(BlobCopy { size: 5, ..stored.clone() }).await;
    assert!(matches!(wrong_size, Err(BlobError::Io { step: "open", .. })));
}

async fn deleting_takes_one_copy_and_may_be_repeated(
    uploads: Uploads<'_>,
    blobs: &dyn Blobs,
    hashes: Hashes,
) {
    let bytes = bytes(2 * MIB, 7);
    let (first, second) =
        (push(uploads, hashes, &bytes, 31).await, push(uploads, hashes, &bytes, 32).await);
    let open = blobs.open(first.clone()).await.unwrap();
    for _ in 0..2 {
        blobs.delete(first.clone()).await.unwrap();
        let gone = blobs.open(first.clone()).await;
        assert!(matches!(gone, Err(BlobError::Absent { .. })));
    }
    assert!(read(&open, 0..first.size, Delivery::Socket).await == bytes, "an open blob reads on");
    let other = blobs.open(second.clone()).await.unwrap();
    assert!(read(&other, 0..second.size, Delivery::Process).await == bytes);
}

/// Runs the whole suite.
pub async fn blobs_contract(uploads: Uploads<'_>, blobs: &dyn Blobs, hashes: Hashes) {
    ranges_equal_slices(uploads, blobs, hashes).await;
    a_range_past_the_end_is_an_error(uploads, blobs, hashes).await;
    only_the_copy_that_was_stored_is_there(uploads, blobs, hashes).await;
    deleting_takes_one_copy_and_may_be_repeated(uploads, blobs, hashes).await;
}
