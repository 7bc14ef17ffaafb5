//! Networks and servers that fail in the middle of an upload.

use nora_app::ports::blobs::{Blobs, Delivery};
use nora_app::ports::uploads::{Finish, Sessions, UploadError};
use nora_domain::UploadId;
use nora_objects::ObjectBlobs;

use crate::proxy::{Fault, Proxy, refusal};
use crate::servers::{Server, on_both};
use crate::support::{HASHES, MIB, body, bytes, generation, open_session, read, store, uploads};

on_both!(
    an_answer_that_is_lost_loses_nothing,
    an_answer_that_stays_lost_is_found_out,
    a_part_that_breaks_off_is_sent_again,
    damage_on_the_way_is_refused,
    a_server_that_is_busy_is_asked_again,
    a_server_that_stays_busy_ends_nothing,
);

async fn pushed(store: &ObjectBlobs, id: u128, bytes: &[u8]) -> UploadId {
    let id = open_session(uploads(store), id).await;
    store.sessions().append(id, Some(0), body(bytes, 1 << 17)).await.unwrap();
    id
}

async fn finishes(store: &ObjectBlobs, id: UploadId, bytes: &[u8]) {
    let copy = store.finish(id, HASHES.sha256(bytes), generation(id.0 as u64)).await.unwrap();
    let blob = Blobs::open(store, copy).await.unwrap();
    assert!(read(&blob, 0..bytes.len() as u64, Delivery::Process).await == bytes);
}

async fn an_answer_that_is_lost_loses_nothing(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    let (small, large) = (bytes(MIB, 1), bytes(9 * MIB, 2));
    proxy.plan(1, &["PUT", "some/prefix/blobs/"], &Fault::LoseAnswer);
    proxy.plan(1, &["PUT", ".chunks"], &Fault::LoseAnswer);
    let id = pushed(&store, 1, &small).await;
    finishes(&store, id, &small).await;
    assert_eq!(proxy.left(), 0);
    proxy.plan(1, &["PUT", "partNumber=1"], &Fault::LoseAnswer);
    proxy.plan(1, &["PUT", "partNumber=2"], &Fault::LoseAnswer);
    proxy.plan(1, &["POST", "uploadId="], &Fault::LoseAnswer);
    let id = pushed(&store, 2, &large).await;
    finishes(&store, id, &large).await;
    assert_eq!(proxy.left(), 0);
    assert_eq!(server.unfinished(2).await, 0);
}

async fn an_answer_that_stays_lost_is_found_out(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    let (small, large) = (bytes(1000, 3), bytes(8 * MIB + 1, 4));
    proxy.plan(5, &["PUT", "blobs/03/"], &Fault::LoseAnswer);
    let id = pushed(&store, 3, &small).await;
    finishes(&store, id, &small).await;
    assert_eq!(proxy.left(), 0);
    let id = pushed(&store, 4, &large).await;
    proxy.plan(5, &["POST", "uploadId="], &Fault::LoseAnswer);
    finishes(&store, id, &large).await;
    // Servers differ in what they answer to the second attempt, so not all need be lost.
    proxy.calm();
}

async fn a_part_that_breaks_off_is_sent_again(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    let large = bytes(17 * MIB, 5);
    proxy.plan(2, &["PUT", "partNumber=1"], &Fault::CutRequest(3 * MIB));
    proxy.plan(1, &["PUT", "partNumber=3"], &Fault::CutRequest(1000));
    let id = pushed(&store, 5, &large).await;
    finishes(&store, id, &large).await;
    assert_eq!(proxy.left(), 0);
}

async fn damage_on_the_way_is_refused(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    for (id, words, len) in [(21, "blobs/15/", MIB), (22, "partNumber=2", 9 * MIB)] {
        let bytes = bytes(len, 21);
        let id = pushed(&store, id, &bytes).await;
        proxy.plan(1, &["PUT", words], &Fault::Damage);
        let error = store.finish(id, HASHES.sha256(&bytes), generation(1)).await.unwrap_err();
        assert!(matches!(error, UploadError::Unavailable(_)), "{error:?}");
        assert_eq!(proxy.left(), 0);
        finishes(&store, id, &bytes).await;
    }
}

async fn a_server_that_is_busy_is_asked_again(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    let large = bytes(8 * MIB + 1, 6);
    let slow_down = refusal("503 Slow Down", "", "SlowDown");
    for words in [["POST", "uploads"], ["PUT", "partNumber=1"], ["POST", "uploadId="]] {
        proxy.plan(2, &words, &slow_down);
    }
    let id = pushed(&store, 6, &large).await;
    finishes(&store, id, &large).await;
    assert_eq!(proxy.left(), 0);
}

async fn a_server_that_stays_busy_ends_nothing(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    let slow_down = refusal("503 Slow Down", "", "SlowDown");
    let small = bytes(1000, 7);
    let id = pushed(&store, 7, &small).await;
    proxy.plan(100, &["HTTP/1.1"], &slow_down);
    let error = store.finish(id, HASHES.sha256(&small), generation(7)).await.unwrap_err();
    assert!(matches!(error, UploadError::Unavailable(_)), "{error:?}");
    assert_eq!(store.sessions().state(id).await.unwrap().offset, 1000);
    proxy.calm();
    finishes(&store, id, &small).await;

    // In the middle of a body: what the session says it holds is what it goes on from.
    let large = bytes(30 * MIB, 8);
    proxy.plan(100, &["partNumber"], &slow_down);
    let id = open_session(uploads(&store), 8).await;
    let error = store.sessions().append(id, Some(0), body(&large, 1 << 17)).await.unwrap_err();
    assert!(matches!(error, UploadError::Unavailable(_)), "{error:?}");
    let offset = store.sessions().state(id).await.unwrap().offset;
    assert!((8 * MIB as u64..=16 * MIB as u64).contains(&offset), "{offset}");
    proxy.calm();
    store
        .sessions()
        .append(id, Some(offset), body(&large[offset as usize..], 1 << 17))
        .await
        .unwrap();
    finishes(&store, id, &large).await;
}
