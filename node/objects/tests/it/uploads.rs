//! Uploads of several parts, restarts in the middle of them, and what nobody completes.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nora_app::ports::blobs::{Blobs, Delivery};
use nora_app::ports::uploads::{Admission, Finish, Purpose, Sessions, UploadError};
use nora_domain::{Algorithm, Placement, Timestamp, UploadId};

use nora_objects::ObjectBlobs;

use crate::proxy::{Proxy, refusal};
use crate::servers::{Kind, Server, on_both, start};
use crate::support::{
    HASHES, MIB, body, bytes, files, generation, open_session, purpose, read, repository, store,
    uploads,
};

on_both!(
    parts_make_the_blob_that_was_sent,
    a_restarted_node_goes_on_with_its_sessions,
    a_mismatch_after_a_restart_leaves_nothing,
    a_session_whose_end_was_begun_takes_no_more,
    an_upload_goes_straight_to_its_key,
    a_session_that_is_over_is_aborted_by_its_name,
);

async fn parts_make_the_blob_that_was_sent(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&server.endpoint(), dir.path());
    for (n, len) in [8 * MIB, 8 * MIB + 1, 16 * MIB, 21 * MIB + 17].into_iter().enumerate() {
        let bytes = bytes(len, n as u64 + 1);
        for (m, algorithm) in [Algorithm::Sha256, Algorithm::Sha512].into_iter().enumerate() {
            let sequence = (10 * n + m) as u64;
            let id = open_session(uploads(&store), 0x100 + u128::from(sequence)).await;
            let middle = len / 3;
            store.sessions().append(id, Some(0), body(&bytes[..middle], 1 << 16)).await.unwrap();
            store
                .sessions()
                .append(id, Some(middle as u64), body(&bytes[middle..], 1 << 18))
                .await
                .unwrap();
            let digest = (HASHES.digest)(&bytes, algorithm);
            let stored = store.finish(id, digest, generation(sequence)).await.unwrap();
            assert_eq!((stored.digest, stored.size), (digest, len as u64));
            assert_eq!(stored.chunk_root, (HASHES.chunk_root)(&bytes));
            assert_eq!(stored.placement, Placement::Object(id));
            assert_eq!(server.unfinished(id.0).await, 0);
            let blob = Blobs::open(&store, stored).await.unwrap();
            assert!(read(&blob, 0..len as u64, Delivery::Process).await == bytes, "{len}");
        }
    }
    assert_eq!(files(&dir.path().join("uploads")), Vec::<String>::new());
}

async fn a_restarted_node_goes_on_with_its_sessions(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let bytes = bytes(27 * MIB + 5, 3);
    // Nothing yet; a part that is not full; a full one; several.
    for (n, before) in [0, 5, 8 * MIB, 8 * MIB + 1, 20 * MIB].into_iter().enumerate() {
        let id = UploadId(0x200 + n as u128);
        {
            let first = store(&server.endpoint(), dir.path());
            let opened = Timestamp(77 + n as u64);
            let opener = Some("alice".to_owned());
            let purpose = Purpose { opener, ..purpose("r/s", Algorithm::Sha256, opened) };
            first.sessions().open(id, purpose, Admission::ByShare).await.unwrap();
            first.sessions().append(id, None, body(&bytes[..before], 1 << 17)).await.unwrap();
        }
        let second = store(&server.endpoint(), dir.path());
        let state = second.sessions().state(id).await.unwrap();
        assert_eq!((state.offset, state.opened_at.0), (before as u64, 77 + n as u64));
        assert_eq!(state.repository, repository("r/s"));
        assert_eq!(state.opener.as_deref(), Some("alice"), "it counts for its caller as before");
        second
            .sessions()
            .append(id, Some(before as u64), body(&bytes[before..], 1 << 17))
            .await
            .unwrap();
        let stored = second.finish(id, HASHES.sha256(&bytes), generation(n as u64)).await.unwrap();
        assert_eq!(stored.chunk_root, (HASHES.chunk_root)(&bytes), "{before}");
        let blob = Blobs::open(&second, stored).await.unwrap();
        assert!(read(&blob, 0..bytes.len() as u64, Delivery::Process).await == bytes, "{before}");
    }
}

async fn a_mismatch_after_a_restart_leaves_nothing(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let bytes = bytes(9 * MIB, 4);
    let id = {
        let first = store(&server.endpoint(), dir.path());
        let id = open_session(uploads(&first), 0x300).await;
        first.sessions().append(id, None, body(&bytes, 1 << 17)).await.unwrap();
        id
    };
    let second = store(&server.endpoint(), dir.path());
    let error = second.finish(id, HASHES.sha256(b"other"), generation(1)).await.unwrap_err();
    assert!(
        matches!(error, UploadError::DigestMismatch { computed, .. } if computed == HASHES.sha256(&bytes)),
        "{error:?}"
    );
    assert_eq!(server.keys().await, Vec::<String>::new());
    assert_eq!(server.unfinished(0x300).await, 0);
    assert!(matches!(second.sessions().state(id).await, Err(UploadError::Unknown)));
}

async fn a_session_whose_end_was_begun_takes_no_more(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    let id = open_session(uploads(&store), 0xac).await;
    store.sessions().append(id, None, body(b"bytes", 5)).await.unwrap();
    proxy.plan(5, &["PUT", ".1-1.chunks"], &refusal("503 Slow Down", "", "SlowDown"));
    let digest = HASHES.sha256(b"bytes");
    let error = store.finish(id, digest, generation(1)).await.unwrap_err();
    assert!(matches!(error, UploadError::Unavailable(_)), "{error:?}");
    for restarted in [store, crate::support::store(&server.endpoint(), dir.path())] {
        let error = restarted.sessions().append(id, Some(5), body(b"more", 4)).await.unwrap_err();
        assert!(matches!(error, UploadError::Io { step: "append to the upload", .. }), "{error:?}");
        assert_eq!(restarted.sessions().state(id).await.unwrap().offset, 5);
    }
    let store = crate::support::store(&server.endpoint(), dir.path());
    let stored = store.finish(id, digest, generation(2)).await.unwrap();
    let blob = Blobs::open(&store, stored.clone()).await.unwrap();
    assert_eq!(read(&blob, 0..5, Delivery::Process).await, b"bytes");
}

async fn an_upload_goes_straight_to_its_key(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&server.endpoint(), dir.path());
    let id = open_session(uploads(&store), 0xab).await;
    store.sessions().append(id, None, body(b"bytes", 5)).await.unwrap();
    store.finish(id, HASHES.sha256(b"bytes"), generation(1)).await.unwrap();
    let key = "some/prefix/blobs/ab/000000000000000000000000000000ab";
    assert_eq!(server.keys().await, [key.to_owned(), format!("{key}.1-1.chunks")]);
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Two nodes with a multipart upload each, and the second one is gone.
async fn one_lives_one_died(server: &Server, living: &Path) -> ObjectBlobs {
    let dead = tempfile::tempdir().unwrap();
    let living = store(&server.endpoint(), living);
    for (store, id) in [(&living, 0x401), (&store(&server.endpoint(), dead.path()), 0x402)] {
        let id = open_session(uploads(store), id).await;
        store.sessions().append(id, None, body(&bytes(9 * MIB, 5), 1 << 17)).await.unwrap();
    }
    assert_eq!((server.unfinished(0x401).await, server.unfinished(0x402).await), (1, 1));
    living
}

async fn finish_what_lives(server: &Server, living: &ObjectBlobs) {
    assert_eq!((server.unfinished(0x401).await, server.unfinished(0x402).await), (1, 0));
    let digest = HASHES.sha256(&bytes(9 * MIB, 5));
    living.finish(UploadId(0x401), digest, generation(1)).await.unwrap();
    assert_eq!(server.unfinished(0x401).await, 0);
}

async fn a_session_that_is_over_is_aborted_by_its_name(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let living = one_lives_one_died(server, dir.path()).await;
    for id in [0x401, 0x402, 0x402, 0x403] {
        living.abort_session(UploadId(id)).await.unwrap();
    }
    finish_what_lives(server, &living).await;
}

/// Only where the server lists what nobody remembers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_nobody_remembers_are_found() {
    let server = &start(Kind::Versitygw).await;
    let dir = tempfile::tempdir().unwrap();
    let living = one_lives_one_died(server, dir.path()).await;
    // As a time before they were begun: nothing is old enough.
    assert_eq!(living.abandoned(Timestamp(now() - 3_600_000)).await.unwrap(), vec![]);
    let abandoned = living.abandoned(Timestamp(now() + 3_600_000)).await.unwrap();
    assert_eq!(abandoned.iter().map(|found| found.id).collect::<Vec<_>>(), [UploadId(0x402)]);
    for _ in 0..2 {
        living.abort(&abandoned[0]).await.unwrap();
    }
    finish_what_lives(server, &living).await;
}
