//! The contract, limits, failures, and what an earlier run left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use nora_app::ports::ByteStream;
use nora_app::ports::uploads::{Admission, Purpose, UploadError};
use nora_app::testkit::{
    blobs_contract, body, bytes, generation, open_session, purpose, repository, uploads_contract,
};
use nora_domain::{Algorithm, Timestamp, UploadId};
use nora_uploads::{Found, Limits};

use crate::memory::{HASHES, Held, STUCK, Store};

const LIMITS: Limits = Limits { bytes_max: 64 << 20, sessions_max: 8 };

#[tokio::test]
async fn the_contract_of_uploads() {
    let store = Store::new(LIMITS, Vec::new());
    uploads_contract(store.uploads(), &store.blobs, HASHES).await;
    assert_eq!(store.uploads().list(), vec![]);
}

#[tokio::test]
async fn the_contract_of_blobs() {
    let store = Store::new(LIMITS, Vec::new());
    blobs_contract(store.uploads(), &store.blobs, HASHES).await;
}

#[tokio::test]
async fn only_so_many_sessions_may_be_open() {
    let store = Store::new(Limits { sessions_max: 2, ..LIMITS }, Vec::new());
    let uploads = store.uploads();
    let open = |id| {
        uploads.open(
            UploadId(id),
            purpose("a", Algorithm::Sha256, Timestamp(1)),
            Admission::ByShare,
        )
    };
    open(1).await.unwrap();
    open(2).await.unwrap();
    let over = open(3).await;
    assert!(matches!(over, Err(UploadError::TooMany { sessions_max: 2 })), "{over:?}");
    uploads.cancel(UploadId(1)).await.unwrap();
    open(3).await.unwrap();
}

#[tokio::test]
async fn a_caller_gets_half_of_what_is_left() {
    let store = Store::new(Limits { sessions_max: 9, ..LIMITS }, Vec::new());
    let uploads = store.uploads();
    let mut ids = (1..).map(UploadId);
    let mut open = |opener: &str| {
        let opener = Some(opener.to_owned());
        let purpose = Purpose { opener, ..purpose("a", Algorithm::Sha256, Timestamp(1)) };
        uploads.open(ids.next().unwrap(), purpose, Admission::ByShare)
    };
    for (opener, places) in [("alice", 5), ("bob", 2), ("carol", 1)] {
        for _ in 0..places {
            open(opener).await.unwrap();
        }
        let over = open(opener).await;
        assert!(
            matches!(over, Err(UploadError::TooManyOfOne { open, .. }) if open == places),
            "{opener}: {over:?}"
        );
    }
    let over = open("alice").await;
    assert!(
        matches!(over, Err(UploadError::TooManyOfOne { open: 5, sessions_max: 9 })),
        "{over:?}"
    );
    open("dora").await.unwrap();
    let over = open("emil").await;
    assert!(matches!(over, Err(UploadError::TooMany { sessions_max: 9 })), "{over:?}");
    // One place is free: alice has more than that, and takes it only if the registry found it for her.
    uploads.cancel(UploadId(1)).await.unwrap();
    let over = open("alice").await;
    assert!(matches!(over, Err(UploadError::TooManyOfOne { open: 4, .. })), "{over:?}");
    let purpose = Purpose {
        opener: Some("alice".to_owned()),
        ..purpose("a", Algorithm::Sha256, Timestamp(1))
    };
    let id = UploadId(77);
    uploads.open(id, purpose.clone(), Admission::AnyPlace).await.unwrap();
    let over = uploads.open(UploadId(78), purpose, Admission::AnyPlace).await;
    assert!(matches!(over, Err(UploadError::TooMany { .. })), "{over:?}");
    uploads.cancel(id).await.unwrap();
    open("emil").await.unwrap();
}

#[tokio::test]
async fn a_session_without_files_is_none_and_takes_no_place() {
    let store = Store::new(Limits { sessions_max: 1, ..LIMITS }, Vec::new());
    let uploads = store.uploads();
    let open = || {
        uploads.open(UploadId(1), purpose("a", Algorithm::Sha256, Timestamp(1)), Admission::ByShare)
    };
    store.faults.create.store(true, Ordering::Relaxed);
    let full = open().await;
    assert!(matches!(full, Err(UploadError::DiskFull)), "{full:?}");
    assert!(matches!(uploads.state(UploadId(1)).await, Err(UploadError::Unknown)));
    store.faults.create.store(false, Ordering::Relaxed);
    open().await.unwrap();
}

#[tokio::test]
async fn an_upload_may_not_grow_over_the_limit() {
    let store = Store::new(Limits { bytes_max: 1000, ..LIMITS }, Vec::new());
    let uploads = store.uploads();
    let id = open_session(uploads, 1).await;
    let over = uploads.append(id, None, body(&[1; 1001], 100)).await;
    assert!(matches!(over, Err(UploadError::TooLarge { bytes_max: 1000 })), "{over:?}");
    assert_eq!(uploads.state(id).await.unwrap().offset, 1000);
    uploads.finish(id, HASHES.sha256(&[1; 1000]), generation(1)).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_cannot_be_written_frees_the_session() {
    let store = Store::new(LIMITS, Vec::new());
    let uploads = store.uploads();
    let id = open_session(uploads, 1).await;
    uploads.append(id, None, body(b"kept", 4)).await.unwrap();
    store.faults.write.store(true, Ordering::Relaxed);
    let full = uploads.append(id, None, body(b"lost", 4)).await;
    assert!(matches!(full, Err(UploadError::DiskFull)), "{full:?}");
    assert!(!uploads.is_written(id));
    store.faults.write.store(false, Ordering::Relaxed);
    assert_eq!(uploads.append(id, Some(4), body(b"!", 1)).await.unwrap().offset, 5);
    uploads.finish(id, HASHES.sha256(b"kept!"), generation(1)).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_removed_stays_and_keeps_no_other() {
    let store = Store::new(LIMITS, Vec::new());
    let uploads = store.uploads();
    for id in [1, STUCK.0, 2] {
        open_session(uploads, id).await;
    }
    store.faults.remove.store(true, Ordering::Relaxed);
    assert!(matches!(uploads.cancel(STUCK).await, Err(UploadError::DiskFull)));
    let mut expired = uploads.expire(Timestamp(u64::MAX)).await.unwrap();
    expired.sort();
    assert_eq!(expired, [UploadId(1), UploadId(2)]);
    assert_eq!(uploads.state(STUCK).await.unwrap().id, STUCK);
    store.faults.remove.store(false, Ordering::Relaxed);
    assert_eq!(uploads.expire(Timestamp(u64::MAX)).await.unwrap(), [STUCK]);
    assert!(matches!(uploads.state(STUCK).await, Err(UploadError::Unknown)));
}

#[tokio::test]
async fn a_session_that_takes_no_more_is_asked_before_the_body() {
    let store = Store::new(LIMITS, Vec::new());
    let uploads = store.uploads();
    let id = open_session(uploads, 1).await;
    store.claim(id).sealed = true;
    let (asks, endless) = endless();
    let refused = uploads.append(id, None, endless).await;
    assert!(matches!(refused, Err(UploadError::DiskFull)), "{refused:?}");
    assert_eq!(asks.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_session_that_was_found_goes_on() {
    let found = |id, path, written_at| Found {
        id: UploadId(id),
        purpose: purpose(path, Algorithm::Sha256, Timestamp(7)),
        written_at: Timestamp(written_at),
        writer: Held::new(Algorithm::Sha256),
    };
    let store = Store::new(LIMITS, vec![found(1, "a/b", 50), found(2, "c/d", 60)]);
    let uploads = store.uploads();
    let state = uploads.state(UploadId(2)).await.unwrap();
    let expected = (repository("c/d"), Timestamp(7), Timestamp(60));
    assert_eq!((state.repository, state.opened_at, state.written_at), expected);
    assert_eq!(uploads.expire(Timestamp(60)).await.unwrap(), [UploadId(1)]);
    let bytes = bytes(700_000, 5);
    uploads.append(UploadId(2), Some(0), body(&bytes, 9000)).await.unwrap();
    uploads.finish(UploadId(2), HASHES.sha256(&bytes), generation(1)).await.unwrap();
}

/// A body without an end, each frame of which is a batch; and how often it was asked for one.
fn endless() -> (Arc<AtomicUsize>, ByteStream) {
    let asks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asks);
    let frames = stream::repeat_with(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from_static(&[0; 256 << 10]))
    });
    (asks, frames.boxed())
}

#[tokio::test]
async fn what_all_requests_read_ahead_is_bounded() {
    let store = Store::new(Limits { sessions_max: 20, ..LIMITS }, Vec::new());
    let uploads = store.uploads();
    store.faults.gate.forget_permits(usize::MAX);
    let (mut asked, mut requests) = (Vec::new(), Vec::new());
    for id in 0..20 {
        let id = open_session(uploads, id).await;
        let (asks, body) = endless();
        asked.push(asks);
        requests.push(uploads.append(id, None, body));
    }
    let mut requests = future::join_all(requests);
    // Nothing is ever written, so a few polls bring each request to where it stays.
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut requests).is_pending());
        tokio::task::yield_now().await;
    }
    let asked: Vec<_> = asked.iter().map(|asks| asks.load(Ordering::Relaxed)).collect();
    assert_eq!(asked.iter().filter(|asks| **asks == 2).count(), 16, "{asked:?}");
    assert_eq!(asked.iter().filter(|asks| **asks == 1).count(), 4, "{asked:?}");
}
