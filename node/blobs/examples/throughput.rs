//! Measures the store alone: pushes from memory, pulls through plain TCP sockets, and the memory
//! both take.
//!
//! `throughput FOLDER [MIB]` prints a line per case. FOLDER must be on the disk that is to be
//! measured.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use nora_app::ports::ByteStream;
use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::blobs::{Blobs, Delivery};
use nora_app::ports::uploads::{Admission, Finish, Purpose, Sessions};
use nora_blobs::{LocalBlobs, LocalBlobsConfig};
use nora_domain::{
    Algorithm, Digest, Epoch, Format, Generation, NodeId, RepositoryKey, RepositoryPath,
    TenantName, Timestamp, UploadId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Frames as large as an HTTP server hands them out under load.
const FRAME_BYTES: usize = 128 << 10;

fn pattern() -> Bytes {
    let mut x = 1u64;
    let words = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    words.take((4 << 20) / 8).flatten().collect()
}

fn body(pattern: &Bytes, len: usize) -> ByteStream {
    let pattern = pattern.clone();
    Box::pin(stream::iter((0..len / FRAME_BYTES).map(move |i| {
        let at = i * FRAME_BYTES % pattern.len();
        // A copy, as a frame from a socket would be memory of its own.
        Ok(Bytes::copy_from_slice(&pattern[at..at + FRAME_BYTES]))
    })))
}

fn digest(pattern: &Bytes, len: usize) -> Digest {
    let mut hasher = nora_digest::ContentHasher::new(Algorithm::Sha256);
    for i in 0..len / FRAME_BYTES {
        let at = i * FRAME_BYTES % pattern.len();
        hasher.update(&pattern[at..at + FRAME_BYTES]);
    }
    hasher.digest()
}

async fn push(store: &LocalBlobs, pattern: &Bytes, len: usize, digest: Digest, n: u64) -> BlobCopy {
    let uploads = store.sessions();
    let id = UploadId(u128::from(n));
    let repository = RepositoryKey {
        tenant: TenantName::default_tenant(),
        format: Format::Oci,
        path: RepositoryPath::parse("bench").unwrap(),
    };
    let (algorithm, opened_at) = (Algorithm::Sha256, Timestamp(0));
    let purpose = Purpose { repository, algorithm, opener: None, opened_at };
    uploads.open(id, purpose, Admission::ByShare).await.unwrap();
    uploads.append(id, None, body(pattern, len)).await.unwrap();
    store.finish(id, digest, Generation { epoch: Epoch(1), sequence: n }).await.unwrap()
}

async fn serve(store: LocalBlobs, blob: BlobCopy, delivery: Delivery, mut socket: TcpStream) {
    let blobs: &dyn Blobs = &store;
    let open = blobs.open(blob.clone()).await.unwrap();
    let mut stream = open.read(0..blob.size, delivery);
    while let Some(slice) = stream.next().await {
        socket.write_all(&slice.unwrap()).await.unwrap();
    }
}

async fn pull(address: std::net::SocketAddr) -> u64 {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match socket.read(&mut buffer).await.unwrap() {
            0 => return total,
            n => total += n as u64,
        }
    }
}

/// Peak resident memory since the last call, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    kib >> 10
}

fn report(what: &str, bytes: u64, since: Instant) {
    let rate = bytes as f64 / 1e6 / since.elapsed().as_secs_f64();
    println!("{what:28} {rate:6.0} MB/s  peak {:3} MiB", peak_mib());
}

async fn pulls(store: &LocalBlobs, blob: &BlobCopy, delivery: Delivery, clients: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server_store, server_blob) = (store.clone(), blob.clone());
    let server = tokio::spawn(async move {
        for _ in 0..clients {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(server_store.clone(), server_blob.clone(), delivery, socket));
        }
    });
    peak_mib();
    let since = Instant::now();
    let tasks: Vec<_> = (0..clients).map(|_| tokio::spawn(pull(address))).collect();
    let total: u64 = future::join_all(tasks).await.into_iter().map(|r| r.unwrap()).sum();
    assert_eq!(total, blob.size * clients as u64);
    report(&format!("pull {delivery:?} x{clients}"), total, since);
    server.await.unwrap();
}

async fn run(dir: PathBuf, len: usize) {
    let config = LocalBlobsConfig {
        node: NodeId(1),
        data_dir: dir.clone(),
        upload_bytes_max: u64::MAX,
        sessions_max: 1000,
    };
    let store = LocalBlobs::open(config).unwrap();
    let pattern = pattern();
    let large = digest(&pattern, len);
    let mut last = None;
    for n in 0..6 {
        peak_mib();
        let since = Instant::now();
        let stored = push(&store, &pattern, len, large, n).await;
        report("push, synced", len as u64, since);
        // The copy before goes, so that the pages of each push are ones that were used before.
        if let Some(copy) = last.replace(stored) {
            Blobs::delete(&store, copy).await.unwrap();
        }
    }
    let last = last.unwrap();
    for clients in [1, 1, 8, 8, 64] {
        for delivery in [Delivery::Socket, Delivery::Process] {
            pulls(&store, &last, delivery, clients).await;
        }
    }
    let small = digest(&pattern, FRAME_BYTES);
    for pushers in [1, 16] {
        let since = Instant::now();
        let pushes =
            (0..400).map(|n| push(&store, &pattern, FRAME_BYTES, small, 10_000 * pushers + n));
        stream::iter(pushes).buffer_unordered(usize::try_from(pushers).unwrap()).count().await;
        let rate = 400.0 / since.elapsed().as_secs_f64();
        println!("pushes of 128 KiB x{pushers:<9} {rate:6.0} /s");
    }
    peak_mib();
    let since = Instant::now();
    let share = len / 4;
    let quarter = digest(&pattern, share);
    let store = Arc::new(store);
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let (store, pattern) = (Arc::clone(&store), pattern.clone());
            tokio::spawn(async move { push(&store, &pattern, share, quarter, 100 + n).await.size })
        })
        .collect();
    let total = future::join_all(tasks).await.into_iter().map(|size| size.unwrap()).sum();
    report("push x64", total, since);
    drop(store);
    std::fs::remove_dir_all(dir).unwrap();
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap()).join("throughput");
    let mib: usize = arguments.next().map_or(256, |mib| mib.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(dir, mib << 20));
}
