//! Mapped bodies on real sockets, and files that are cut short while they are sent.

use std::fs::OpenOptions;
use std::sync::Arc;

use futures_util::StreamExt;
use nora_app::ports::blobs::{Delivery, OpenBlob};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, client)
}

/// Sends a blob as a server would: only the kernel touches the bytes.
async fn serve(blob: Arc<dyn OpenBlob>, mut socket: TcpStream) -> Result<(), String> {
    let size = blob.size();
    let mut stream = blob.read(0..size, Delivery::Socket);
    while let Some(slice) = stream.next().await {
        let slice = slice.map_err(|error| format!("stream: {error}"))?;
        socket.write_all(&slice).await.map_err(|error| format!("socket: {error}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_mapped_body_arrives_whole() {
    let store = store();
    let bytes = bytes(21 * MIB + 99, 1);
    let stored = push(store.uploads(), &bytes, 1).await;
    let blob = store.port().open(stored.clone()).await.unwrap();
    let (server, mut client) = sockets().await;
    let mut received = Vec::new();
    let (served, read) = tokio::join!(serve(blob, server), client.read_to_end(&mut received));
    served.unwrap();
    read.unwrap();
    assert!(received == bytes);
}

#[tokio::test]
async fn a_file_cut_short_while_it_is_sent_breaks_the_connection_and_no_more() {
    let store = store();
    let bytes = bytes(32 * MIB, 2);
    let stored = push(store.uploads(), &bytes, 1).await;
    let hex = stored.digest.hex();
    let path = store.dir.path().join(format!("blobs/sha256/{}/{hex}.1-1", &hex[..2]));
    let blob = store.port().open(stored.clone()).await.unwrap();

    let (server, mut client) = sockets().await;
    let cutter = async move {
        // The first window is mapped and on its way once a byte has come.
        let mut first = [0; 1];
        client.read_exact(&mut first).await.unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        rest.len() + 1
    };
    let (served, received) = tokio::join!(serve(blob, server), cutter);
    let error = served.unwrap_err();
    assert!(error.starts_with("socket:") || error.starts_with("stream:"), "{error}");
    assert!(received < bytes.len(), "{received}");

    // A slice that is mapped already makes the kernel's copy fail; the process lives on and serves
    // others.
    let other = push(store.uploads(), &bytes[..MIB], 2).await;
    let other = store.port().open(other.clone()).await.unwrap();
    assert!(read(&other, 0..MIB as u64, Delivery::Socket).await == bytes[..MIB]);
    let short = store.port().open(stored.clone()).await;
    assert!(short.is_err(), "a file of another size is not opened");
}

#[tokio::test]
async fn a_mapped_slice_whose_file_was_cut_fails_in_the_kernel() {
    let store = store();
    let stored = push(store.uploads(), &bytes(4 * MIB, 3), 1).await;
    let hex = stored.digest.hex();
    let path = store.dir.path().join(format!("blobs/sha256/{}/{hex}.1-1", &hex[..2]));
    let blob = store.port().open(stored.clone()).await.unwrap();
    let mut stream = blob.read(0..stored.size, Delivery::Socket);
    let slice = stream.next().await.unwrap().unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();

    let (mut server, _client) = sockets().await;
    let error = server.write_all(&slice).await.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
}
