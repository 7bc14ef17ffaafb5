//! What every adapter of the ports `Sessions` and `Finish` must do, and the port `Blobs` must show of it.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use nora_domain::{Algorithm, Digest, NodeId, Placement, Timestamp, UploadId};
use tokio::sync::{mpsc, oneshot};

use super::{
    Hashes, MIB, Uploads, body, bytes, generation, open_session, purpose, push, read, repository,
};
use crate::ports::ByteStream;
use crate::ports::blobs::{BlobCopy, Blobs, Delivery};
use crate::ports::uploads::{Admission, Purpose, UploadError, UploadState};

async fn bytes_become_a_blob(uploads: Uploads<'_>, blobs: &dyn Blobs, hashes: Hashes) {
    for (sequence, len) in [0, 1, 70_000, MIB, MIB + 1, 5 * MIB + 77].into_iter().enumerate() {
        let (bytes, sequence) = (bytes(len, 1), sequence as u64);
        let stored = push(uploads, hashes, &bytes, sequence).await;
        let expected = BlobCopy {
            digest: hashes.sha256(&bytes),
            generation: generation(sequence),
            size: len as u64,
            chunk_root: (hashes.chunk_root)(&bytes),
            // Where it is, is the adapter's matter.
            placement: stored.placement.clone(),
        };
        assert_eq!(stored, expected);
        let blob = blobs.open(stored.clone()).await.unwrap();
        assert_eq!(read(&blob, 0..stored.size, Delivery::Process).await, bytes);
    }
}

fn opened_by(opener: &str, at: Timestamp) -> Purpose {
    Purpose { opener: Some(opener.to_owned()), ..purpose("x/y", Algorithm::Sha256, at) }
}

async fn a_session_tells_its_state(uploads: Uploads<'_>) {
    let id = UploadId(0x57a7e);
    let at = Timestamp(77);
    let opened = uploads.open(id, opened_by("alice", at), Admission::ByShare).await.unwrap();
    let is_as_expected = |state: &UploadState, offset| {
        let known = (state.id, &state.repository, state.offset, state.opened_at);
        assert_eq!(known, (id, &repository("x/y"), offset, at));
        assert_eq!(state.opener.as_deref(), Some("alice"));
    };
    is_as_expected(&opened, 0);
    let first = uploads.append(id, None, body(&[7; 10], 3)).await.unwrap();
    is_as_expected(&first, 10);
    is_as_expected(&uploads.append(id, Some(10), body(&[8; 5], 9)).await.unwrap(), 15);
    let state = uploads.state(id).await.unwrap();
    is_as_expected(&state, 15);
    assert!(state.written_at >= first.written_at, "writing did not make it younger");
    uploads.cancel(id).await.unwrap();
    assert!(matches!(uploads.state(id).await, Err(UploadError::Unknown)));
}

async fn unknown_sessions_are_unknown(uploads: Uploads<'_>, hashes: Hashes) {
    let id = UploadId(u128::MAX);
    assert!(matches!(uploads.state(id).await, Err(UploadError::Unknown)));
    assert!(matches!(uploads.append(id, None, body(b"x", 1)).await, Err(UploadError::Unknown)));
    let finished = uploads.finish(id, hashes.sha256(b""), generation(900)).await;
    assert!(matches!(finished, Err(UploadError::Unknown)));
    assert!(matches!(uploads.cancel(id).await, Err(UploadError::Unknown)));
}

async fn a_name_is_used_once(uploads: Uploads<'_>) {
    let id = open_session(uploads, 0x2).await;
    uploads.append(id, None, body(b"kept", 4)).await.unwrap();
    let again = {
        let purpose = purpose("c", Algorithm::Sha256, Timestamp(5));
        uploads.open(id, purpose, Admission::ByShare).await
    };
    assert!(matches!(again, Err(UploadError::Io { .. })), "{again:?}");
    assert_eq!(uploads.state(id).await.unwrap().offset, 4);
    uploads.cancel(id).await.unwrap();
}

async fn a_wrong_start_changes_nothing(uploads: Uploads<'_>, hashes: Hashes) {
    let id = open_session(uploads, 0x3).await;
    uploads.append(id, Some(0), body(&[1; 10], 10)).await.unwrap();
    for start in [0, 9, 11, u64::MAX] {
        let wrong = uploads.append(id, Some(start), body(&[2; 10], 10)).await;
        assert!(
            matches!(wrong, Err(UploadError::WrongOffset { offset: 10, start: s }) if s == start),
            "{wrong:?}"
        );
    }
    uploads.finish(id, hashes.sha256(&[1; 10]), generation(901)).await.unwrap();
}

async fn a_mismatch_ends_the_session(uploads: Uploads<'_>, blobs: &dyn Blobs, hashes: Hashes) {
    let id = open_session(uploads, 0x4).await;
    uploads.append(id, None, body(b"these", 5)).await.unwrap();
    let (expected, computed) = (hashes.sha256(b"those"), hashes.sha256(b"these"));
    let error = uploads.finish(id, expected, generation(902)).await.unwrap_err();
    assert!(
        matches!(error, UploadError::DigestMismatch { expected: e, computed: c }
            if e == expected && c == computed),
        "{error:?}"
    );
    assert!(matches!(uploads.state(id).await, Err(UploadError::Unknown)));
    for digest in [expected, computed] {
        let copy = BlobCopy {
            digest,
            generation: generation(902),
            size: 5,
            chunk_root: [0; 32],
            placement: Placement::Nodes(vec![NodeId(1)]),
        };
        assert!(blobs.open(copy).await.is_err());
    }
}

async fn either_algorithm_ends_a_session(uploads: Uploads<'_>, blobs: &dyn Blobs, hashes: Hashes) {
    let bytes = bytes(3 * MIB + 5, 9);
    let digests: [Digest; 2] = [hashes.sha256(&bytes), hashes.sha512(&bytes)];
    let mut sequence = 910;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for digest in digests {
            sequence += 1;
            let id = UploadId(u128::from(sequence));
            let purpose = purpose("a", algorithm, Timestamp(1));
            uploads.open(id, purpose, Admission::ByShare).await.unwrap();
            uploads.append(id, None, body(&bytes, 70_001)).await.unwrap();
            let stored = uploads.finish(id, digest, generation(sequence)).await.unwrap();
            assert_eq!((stored.digest, stored.chunk_root), (digest, (hashes.chunk_root)(&bytes)));
            let blob = blobs.open(stored.clone()).await.unwrap();
            assert_eq!(read(&blob, 0..stored.size, Delivery::Process).await, bytes);
        }
    }
}

async fn a_broken_body_keeps_what_came(uploads: Uploads<'_>, hashes: Hashes) {
    let bytes = bytes(600_000, 3);
    let id = open_session(uploads, 0x5).await;
    let broken: ByteStream = Box::pin(
        body(&bytes[..500_000], 60_000)
            .chain(stream::once(async { Err("the client went away".into()) })),
    );
    let error = uploads.append(id, Some(0), broken).await.unwrap_err();
    assert!(matches!(error, UploadError::BodyBroken(_)), "{error:?}");
    assert_eq!(uploads.state(id).await.unwrap().offset, 500_000);
    uploads.append(id, Some(500_000), body(&bytes[500_000..], 7)).await.unwrap();
    uploads.finish(id, hashes.sha256(&bytes), generation(930)).await.unwrap();
}

/// A body that comes as the test sends it, and tells when it is first asked for.
fn body_by_hand() -> (mpsc::Sender<Bytes>, oneshot::Receiver<()>, ByteStream) {
    let (sender, receiver) = mpsc::channel(1);
    let (asked, was_asked) = oneshot::channel();
    let body = stream::unfold((receiver, Some(asked)), |(mut receiver, asked)| async move {
        if let Some(asked) = asked {
            let _ = asked.send(());
        }
        let frame = mpsc::Receiver::recv(&mut receiver).await?;
        Some((Ok(frame), (receiver, None)))
    });
    (sender, was_asked, Box::pin(body))
}

async fn a_session_has_one_writer(uploads: Uploads<'_>, hashes: Hashes) {
    let id = open_session(uploads, 0x6).await;
    let (sender, was_asked, first) = body_by_hand();
    let first = uploads.append(id, None, first);
    let others = async move {
        was_asked.await.unwrap();
        let second = uploads.append(id, None, body(b"intruder", 8)).await;
        assert!(matches!(second, Err(UploadError::Busy)), "{second:?}");
        let finished = uploads.finish(id, hashes.sha256(b""), generation(940)).await;
        assert!(matches!(finished, Err(UploadError::Busy)), "{finished:?}");
        assert!(matches!(uploads.cancel(id).await, Err(UploadError::Busy)));
        assert_eq!(uploads.expire(Timestamp(u64::MAX)).await.unwrap(), vec![]);
        sender.send(Bytes::from_static(b"alone")).await.unwrap();
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first.unwrap().offset, 5);
    uploads.finish(id, hashes.sha256(b"alone"), generation(940)).await.unwrap();
}

async fn a_dropped_request_keeps_what_it_read(uploads: Uploads<'_>, hashes: Hashes) {
    let id = open_session(uploads, 0x7).await;
    let bytes = bytes(700_000, 4);
    {
        let (sender, _, by_hand) = body_by_hand();
        let mut request = pin!(uploads.append(id, Some(0), by_hand));
        for frame in bytes.chunks(100_000) {
            let mut sending = pin!(sender.send(Bytes::copy_from_slice(frame)));
            // Drives the request until it took the frame.
            std::future::poll_fn(|context| {
                assert!(request.as_mut().poll(context).is_pending());
                sending.as_mut().poll(context)
            })
            .await
            .unwrap();
        }
        let all_taken = std::future::poll_fn(|context| {
            assert!(request.as_mut().poll(context).is_pending());
            if sender.capacity() == 1 { Poll::Ready(()) } else { Poll::Pending }
        });
        all_taken.await;
    }
    // What was read is being written; the session is free when that is done.
    let offset = loop {
        match uploads.append(id, None, body(b"", 1)).await {
            Ok(state) => break state.offset,
            Err(UploadError::Busy) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(offset, 700_000);
    uploads.finish(id, hashes.sha256(&bytes), generation(950)).await.unwrap();
}

async fn sessions_expire_by_their_last_write(uploads: Uploads<'_>) {
    let (idle, written) = (open_session(uploads, 0x8).await, open_session(uploads, 0x9).await);
    uploads.append(written, None, body(b"now", 3)).await.unwrap();
    assert_eq!(uploads.expire(Timestamp(1000)).await.unwrap(), vec![]);
    assert_eq!(uploads.expire(Timestamp(2000)).await.unwrap(), vec![idle]);
    assert!(matches!(uploads.state(idle).await, Err(UploadError::Unknown)));
    assert_eq!(uploads.state(written).await.unwrap().offset, 3);
    assert_eq!(uploads.expire(Timestamp(u64::MAX)).await.unwrap(), vec![written]);
    assert!(matches!(uploads.state(written).await, Err(UploadError::Unknown)));
}

/// Runs the whole suite; the store needs room for four sessions.
pub async fn uploads_contract(uploads: Uploads<'_>, blobs: &dyn Blobs, hashes: Hashes) {
    bytes_become_a_blob(uploads, blobs, hashes).await;
    a_session_tells_its_state(uploads).await;
    unknown_sessions_are_unknown(uploads, hashes).await;
    a_name_is_used_once(uploads).await;
    a_wrong_start_changes_nothing(uploads, hashes).await;
    a_mismatch_ends_the_session(uploads, blobs, hashes).await;
    either_algorithm_ends_a_session(uploads, blobs, hashes).await;
    a_broken_body_keeps_what_came(uploads, hashes).await;
    a_session_has_one_writer(uploads, hashes).await;
    a_dropped_request_keeps_what_it_read(uploads, hashes).await;
    sessions_expire_by_their_last_write(uploads).await;
}
