//! Reading: answers that break off, objects that were damaged, URLs for clients, deletions that wait for readers.

use std::time::{Duration, Instant};

use aws_sdk_s3::primitives::ByteStream;
use futures_util::TryStreamExt;
use nora_app::ports::blobs::{BlobError, Blobs, Delivery};
use nora_app::testkit::push;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy::{Fault, Proxy, refusal};
use crate::servers::{BUCKET, Server, on_both};
use crate::support::{HASHES, MIB, bytes, read, store, uploads};

on_both!(
    an_answer_that_breaks_off_is_asked_for_again,
    damage_is_never_handed_out,
    a_server_that_does_not_answer_is_no_absent_blob,
    an_object_that_is_lost_is_absent_and_a_bare_404_is_not,
    a_url_gives_a_client_the_bytes,
    a_second_read_asks_for_nothing,
    a_deletion_waits_for_readers_even_over_a_restart,
);

async fn an_answer_that_breaks_off_is_asked_for_again(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    let bytes = bytes(5 * MIB, 1);
    let copy = push(uploads(&store), HASHES, &bytes, 1).await;
    proxy.plan(1, &["GET", ".chunks"], &Fault::CutAnswer(0));
    proxy.plan(2, &["GET", "range"], &Fault::CutAnswer(100_000));
    proxy.plan(1, &["GET", "range"], &refusal("500 Internal Server Error", "", "InternalError"));
    let blob = store.open(copy).await.unwrap();
    assert!(read(&blob, 0..5 * MIB as u64, Delivery::Process).await == bytes);
    assert_eq!(proxy.left(), 0);
}

async fn a_second_read_asks_for_nothing(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    let bytes = bytes(3 * MIB + 1, 1);
    let copy = push(uploads(&store), HASHES, &bytes, 1).await;
    let blob = store.open(copy.clone()).await.unwrap();
    assert!(read(&blob, 0..copy.size, Delivery::Process).await == bytes);
    drop(blob);
    proxy.plan(1, &["HTTP/1.1"], &Fault::CutAnswer(0));
    let blob = store.open(copy.clone()).await.unwrap();
    assert!(read(&blob, 0..copy.size, Delivery::Process).await == bytes);
    assert_eq!(proxy.left(), 1, "the object store was asked");
    assert_eq!(store.cache_stats().hit_bytes, copy.size);
}

async fn damage_is_never_handed_out(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&server.endpoint(), dir.path());
    let mut bytes = bytes(5 * MIB, 2);
    let copy = push(uploads(&store), HASHES, &bytes, 2).await;
    let keys = server.keys().await;
    bytes[4 * MIB + 9] ^= 1;
    let put = server.client().put_object().bucket(BUCKET).key(&keys[0]);
    put.body(ByteStream::from(bytes.clone())).send().await.unwrap();
    let blob = store.open(copy.clone()).await.unwrap();
    assert!(read(&blob, 5..1000, Delivery::Process).await == bytes[5..1000]);
    let pieces = blob.read(0..5 * MIB as u64, Delivery::Process);
    let mut good = 0;
    let outcome: Result<(), _> = pieces
        .try_for_each(|piece| {
            assert!(piece == bytes[good..good + piece.len()]);
            good += piece.len();
            std::future::ready(Ok(()))
        })
        .await;
    assert!(outcome.unwrap_err().to_string().contains("sent wrong bytes"));
    assert!(good <= 4 * MIB, "{good}");

    // A table that is not the metadata's own is not believed either.
    let put = server.client().put_object().bucket(BUCKET).key(&keys[1]);
    put.body(ByteStream::from_static(b"no table")).send().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = crate::support::store(&server.endpoint(), elsewhere.path());
    assert!(matches!(other.open(copy).await, Err(BlobError::Io { step: "open", .. })));
}

async fn a_server_that_does_not_answer_is_no_absent_blob(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let copy = push(uploads(&store(&server.endpoint(), dir.path())), HASHES, b"here", 3).await;
    let store = store(&proxy.endpoint(), dir.path());
    proxy.plan(100, &["GET"], &refusal("503 Slow Down", "", "SlowDown"));
    let opened = store.open(copy.clone()).await;
    assert!(matches!(opened, Err(BlobError::Unreachable { .. })));
    proxy.calm();
    assert!(store.open(copy).await.is_ok());
}

async fn an_object_that_is_lost_is_absent_and_a_bare_404_is_not(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let bytes = bytes(MIB, 7);
    let copy = push(uploads(&store(&server.endpoint(), dir.path())), HASHES, &bytes, 7).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let reader = store(&proxy.endpoint(), elsewhere.path());
    // A proxy's own 404 says nothing about the object: no copy may be given up for it.
    let bare = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    proxy.plan(1, &["GET", ".chunks"], &Fault::Answer(bare.to_owned()));
    let Err(BlobError::Io { source, .. }) = reader.open(copy.clone()).await else {
        panic!("a bare 404 was taken for an absent object");
    };
    assert!(source.to_string().contains("without the code NoSuchKey"), "{source}");

    // The object goes while its chunk table stays, and this node knows the table already.
    let blob = reader.open(copy.clone()).await.unwrap();
    let keys = server.keys().await;
    let object = keys.iter().find(|key| !key.ends_with(".chunks")).unwrap();
    server.client().delete_object().bucket(BUCKET).key(object).send().await.unwrap();
    let pieces: Result<Vec<_>, _> = blob.read(0..MIB as u64, Delivery::Process).try_collect().await;
    assert!(pieces.is_err(), "bytes came of an object that is gone");
    let opened = reader.open(copy.clone()).await;
    assert!(matches!(opened, Err(BlobError::Absent { .. })), "its loss goes unnoticed");

    let put = server.client().put_object().bucket(BUCKET).key(object);
    put.body(ByteStream::from(bytes.clone())).send().await.unwrap();
    let blob = reader.open(copy).await.unwrap();
    assert!(read(&blob, 0..MIB as u64, Delivery::Process).await == bytes);
}

/// What a client gets that knows nothing but a URL.
async fn get(url: &str) -> (String, Vec<u8>) {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut connection = tokio::net::TcpStream::connect(authority).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let body = answer.split_off(end + 4);
    (String::from_utf8(answer).unwrap().lines().next().unwrap().to_owned(), body)
}

async fn a_url_gives_a_client_the_bytes(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&server.endpoint(), dir.path());
    let copy = push(uploads(&store), HASHES, b"for a client", 4).await;
    let url = store.redirect(&copy).await.unwrap().unwrap();
    assert!(url.contains("X-Amz-Expires=900&"), "{url}");
    let (status, body) = get(&url).await;
    assert!(status.contains(" 200 "), "{status}");
    assert_eq!(body, b"for a client");
    let (status, _) = get(&url.replace("X-Amz-Expires=900&", "X-Amz-Expires=901&")).await;
    assert!(status.contains(" 403 "), "a URL that was tampered with: {status}");

    let mut config = crate::support::config(&server.endpoint(), dir.path());
    config.redirect = false;
    let silent = crate::support::opened(&config).unwrap();
    assert_eq!(silent.redirect(&copy).await.unwrap(), None);
}

async fn until_no_key_is_left(server: &Server) {
    let began = Instant::now();
    while !server.keys().await.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", server.keys().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_deletion_waits_for_readers_even_over_a_restart(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let first = store(&server.endpoint(), dir.path());
    let bytes = bytes(3 * MIB, 5);
    let copy = push(uploads(&first), HASHES, &bytes, 5).await;
    let blob = first.open(copy.clone()).await.unwrap();
    first.delete(copy.clone()).await.unwrap();
    assert!(matches!(first.open(copy.clone()).await, Err(BlobError::Absent { .. })));
    assert!(read(&blob, 0..copy.size, Delivery::Process).await == bytes);
    drop(blob);
    until_no_key_is_left(server).await;

    let copy = push(uploads(&first), HASHES, &bytes, 6).await;
    let blob = first.open(copy.clone()).await.unwrap();
    first.delete(copy.clone()).await.unwrap();
    assert_eq!(server.keys().await.len(), 2);
    // As a process that is killed: nothing of it is dropped.
    std::mem::forget((blob, first));
    let second = store(&server.endpoint(), dir.path());
    until_no_key_is_left(server).await;
    assert!(matches!(second.open(copy).await, Err(BlobError::Absent { .. })));
}
