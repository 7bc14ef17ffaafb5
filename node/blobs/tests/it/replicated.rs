//! Blobs on several nodes: what a push guarantees, what a read finds, and who is let in.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use nora_app::ports::blobs::{BlobCopy, BlobError, Delivery};
use nora_app::ports::uploads::UploadError;
use nora_app::testkit::{blobs_contract, uploads_contract};
use nora_domain::{NodeId, Placement, Standing};
use nora_proto::exchange::v1::exchange_client::ExchangeClient;
use nora_proto::exchange::v1::store_request::Part;
use nora_proto::exchange::v1::{
    Copy, DeleteRequest, ReadRequest, StoreHeader, StoreRequest, TableRequest,
};
use nora_proto::name::v1 as name;
use nora_trust::Peer;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{Cluster, eventually};
use crate::support::{HASHES, MIB, bytes, chunk_root, open_session, sha256};

#[tokio::test]
async fn one_node_keeps_the_contracts() {
    let cluster = Cluster::of(1, 3).await;
    let node = cluster.node(1);
    uploads_contract(node.uploads(), node.port(), HASHES).await;
    blobs_contract(node.uploads(), node.port(), HASHES).await;
    assert_eq!(node.blobs.counts().replicated_bytes, 0);
}

#[tokio::test]
async fn three_nodes_keep_the_contracts() {
    let cluster = Cluster::of(3, 3).await;
    let node = cluster.node(2);
    uploads_contract(node.uploads(), node.port(), HASHES).await;
    blobs_contract(node.uploads(), node.port(), HASHES).await;
    assert!(node.blobs.counts().replicated_bytes > 0);
}

#[tokio::test]
async fn a_push_is_on_two_disks_when_it_is_answered_and_on_three_soon() {
    let mut cluster = Cluster::of(3, 3).await;
    for (len, node) in [(0, 1), (1, 2), (MIB, 3), (9 * MIB + 77, 1)] {
        let bytes = bytes(len, len as u64);
        let (upload, copy) = cluster.upload(node, &bytes).await;
        let copy = copy.unwrap();
        let Placement::Nodes(holders) = &copy.placement else { panic!("{copy:?}") };
        assert_eq!(holders.len(), 2, "{copy:?}");
        assert!(holders.contains(&NodeId(node)) && holders.is_sorted());
        for holder in holders {
            let file = cluster.node(holder.0).file_of(&copy);
            assert!(std::fs::read(file).unwrap() == bytes, "{len}, {holder:?}");
        }
        cluster.commit(node, upload, &copy).await;
        for reader in 1..=3 {
            assert!(cluster.node(reader).read(&copy).await == bytes, "{len}, {reader}");
        }
        cluster.settled(&[copy]).await;
    }
    for id in 1..=3 {
        assert_eq!(cluster.node(id).files("incoming"), Vec::<String>::new());
        assert_eq!(cluster.node(id).files("uploads"), Vec::<String>::new());
    }
}

#[tokio::test]
async fn without_enough_nodes_the_session_stays_and_can_be_finished_later() {
    let mut cluster = Cluster::of(3, 3).await;
    let bytes = bytes(3 * MIB + 5, 1);
    cluster.kill(2);
    cluster.kill(3);
    let (upload, failed) = cluster.upload(1, &bytes).await;
    let failed = failed.unwrap_err();
    assert!(matches!(failed, UploadError::TooFewCopies { stored: 1, needed: 2 }), "{failed:?}");
    eventually("the session is free again", async || {
        cluster
            .finish(1, upload, &bytes)
            .await
            .is_err_and(|error| matches!(error, UploadError::TooFewCopies { .. }))
    })
    .await;
    eventually("the session has its bytes again", async || {
        let state = cluster.node(1).uploads().state(upload).await;
        state.is_ok_and(|state| state.offset == bytes.len() as u64)
    })
    .await;
    cluster.restart(3).await;
    let mut finished = None;
    eventually("the third node takes the copy", async || {
        finished = cluster.finish(1, upload, &bytes).await.ok();
        finished.is_some()
    })
    .await;
    let copy = finished.unwrap();
    assert_eq!(copy.placement, Placement::Nodes(vec![NodeId(1), NodeId(3)]));
    cluster.commit(1, upload, &copy).await;
    assert!(cluster.node(3).read(&copy).await == bytes);
    assert!(cluster.node(1).uploads().state(upload).await.is_err());
}

#[tokio::test]
async fn one_dead_node_is_passed_over() {
    let mut cluster = Cluster::of(3, 3).await;
    cluster.kill(2);
    for seed in 0..4 {
        let bytes = bytes(200_000, seed);
        let copy = cluster.push(1, &bytes).await;
        assert_eq!(copy.placement, Placement::Nodes(vec![NodeId(1), NodeId(3)]));
        assert!(cluster.node(3).read(&copy).await == bytes);
    }
}

#[tokio::test]
async fn a_node_that_hangs_is_passed_over() {
    let mut cluster = Cluster::of(3, 3).await;
    let before = bytes(3 * MIB, 9);
    let held = cluster.push(3, &before).await;
    cluster.settled(std::slice::from_ref(&held)).await;
    let held = BlobCopy { placement: cluster.row(held.digest).placement, ..held };
    std::fs::remove_file(cluster.node(1).file_of(&held)).unwrap();
    let _silent = cluster.silence(2);
    let started = std::time::Instant::now();
    for seed in 0..8 {
        let bytes = bytes(2 * MIB, seed);
        let copy = cluster.push(1, &bytes).await;
        assert_eq!(copy.placement, Placement::Nodes(vec![NodeId(1), NodeId(3)]));
        assert!(cluster.node(1).read(&held).await == before);
    }
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(20), "its timeout counts once: {took:?}");
}

#[tokio::test]
async fn a_reader_goes_on_when_the_holder_it_reads_from_dies() {
    let mut cluster = Cluster::of(4, 3).await;
    let bytes = bytes(40 * MIB, 2);
    let copy = cluster.push(1, &bytes).await;
    cluster.settled(std::slice::from_ref(&copy)).await;
    let copy = BlobCopy { placement: cluster.row(copy.digest).placement, ..copy };
    let holders = cluster.holders(copy.digest);
    let reader = (1..=4).find(|id| !holders.contains(id)).unwrap();
    let blob = cluster.node(reader).port().open(copy.clone()).await.unwrap();
    let mut stream = Arc::clone(&blob).read(0..copy.size, Delivery::Process);
    let mut received = stream.next().await.unwrap().unwrap().to_vec();
    for holder in &holders[..2] {
        cluster.kill(*holder);
    }
    while let Some(piece) = stream.next().await {
        received.extend_from_slice(&piece.unwrap());
    }
    assert!(received == bytes);
    // The next reader there finds it on the disk.
    cluster.kill(holders[2]);
    assert!(cluster.node(reader).read(&copy).await == bytes);
    let counts = cluster.node(reader).blobs.counts();
    assert!(counts.cache_hit_bytes >= copy.size, "{counts:?}");
}

#[tokio::test]
async fn nobody_who_holds_it_answers() {
    let mut cluster = Cluster::of(4, 3).await;
    let copy = cluster.push(1, &bytes(MIB + 1, 3)).await;
    cluster.settled(std::slice::from_ref(&copy)).await;
    let holders = cluster.holders(copy.digest);
    let reader = (1..=4).find(|id| !holders.contains(id)).unwrap();
    let copy = BlobCopy { placement: cluster.row(copy.digest).placement, ..copy };
    for holder in &holders {
        cluster.kill(*holder);
    }
    let failed = cluster.node(reader).port().open(copy.clone()).await.err().unwrap();
    assert!(matches!(failed, BlobError::Unreachable { .. }), "{failed:?}");
    let nobody = BlobCopy { placement: Placement::Nodes(Vec::new()), ..copy };
    let failed = cluster.node(reader).port().open(nobody).await.err().unwrap();
    assert!(matches!(failed, BlobError::Absent { .. }), "{failed:?}");
}

/// A copy that no node has, as it is said on the wire.
fn wire_copy(bytes: &[u8]) -> Copy {
    let digest = name::Digest {
        algorithm: name::Algorithm::Sha256.into(),
        value: sha256(bytes).value().to_vec(),
    };
    Copy {
        digest: Some(digest),
        generation: Some(name::Generation { epoch: 1, sequence: 1 }),
        size: bytes.len() as u64,
        chunk_root: chunk_root(bytes).to_vec().into(),
    }
}

fn hashes(bytes: &[u8]) -> Bytes {
    bytes.chunks(MIB).flat_map(|chunk| *blake3::hash(chunk).as_bytes()).collect()
}

fn header(bytes: &[u8]) -> StoreRequest {
    let header = StoreHeader { copy: Some(wire_copy(bytes)), hashes: hashes(bytes) };
    StoreRequest { part: Some(Part::Header(header)) }
}

fn data(bytes: &[u8]) -> Vec<StoreRequest> {
    let part =
        |piece: &[u8]| StoreRequest { part: Some(Part::Data(Bytes::copy_from_slice(piece))) };
    bytes.chunks(300_000).map(part).collect()
}

async fn client(address: std::net::SocketAddr) -> ExchangeClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    ExchangeClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn what_does_not_arrive_whole_and_right_leaves_nothing() {
    let cluster = Cluster::of(1, 1).await;
    let node = cluster.node(1);
    let mut client = client(node.address).await;
    let good = bytes(3 * MIB + 9, 4);
    let mut flipped = good.clone();
    flipped[2 * MIB + 1] ^= 1;
    let longer = [&good[..], b"x"].concat();
    let mut misnamed = header(&good);
    if let Some(Part::Header(header)) = &mut misnamed.part {
        header.hashes = hashes(&flipped);
    }
    let big = StoreRequest { part: Some(Part::Data(Bytes::from(vec![0; MIB + 1]))) };
    for (what, code, parts) in [
        ("corrupt", Code::DataLoss, [vec![header(&good)], data(&flipped)].concat()),
        ("short", Code::DataLoss, [vec![header(&good)], data(&good[..2 * MIB])].concat()),
        ("long", Code::DataLoss, [vec![header(&good)], data(&longer)].concat()),
        ("other hashes", Code::DataLoss, [vec![misnamed], data(&good)].concat()),
        ("no header", Code::InvalidArgument, data(&good)),
        ("two headers", Code::InvalidArgument, vec![header(&good), header(&good)]),
        ("large parts", Code::InvalidArgument, vec![header(&good), big]),
        ("nothing", Code::InvalidArgument, vec![]),
    ] {
        let refused = client.store(stream::iter(parts)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{what}: {refused:?}");
        eventually(what, async || node.files("incoming").is_empty()).await;
        assert_eq!(node.files("blobs"), Vec::<String>::new(), "{what}");
    }
    // A stream that is cut: the half of it is on the disk by then.
    let parts = stream::iter([vec![header(&good)], data(&good[..2 * MIB])].concat());
    let parts = parts.chain(stream::pending());
    let mut cut = Box::pin(client.store(parts));
    eventually("the copy is on its way", async || {
        assert!(futures_util::poll!(&mut cut).is_pending());
        !node.files("incoming").is_empty()
    })
    .await;
    drop(cut);
    eventually("the half is gone", async || node.files("incoming").is_empty()).await;
    assert_eq!(node.files("blobs"), Vec::<String>::new());

    for _ in 0..2 {
        let parts = [vec![header(&good)], data(&good)].concat();
        client.store(stream::iter(parts)).await.unwrap();
        assert_eq!(node.files("blobs").len(), 2, "the copy and its table");
    }
    client.delete(DeleteRequest { copy: Some(wire_copy(&good)) }).await.unwrap();
    assert_eq!(node.files("blobs"), Vec::<String>::new());
}

#[tokio::test]
async fn nobody_but_members_is_served() {
    let mut cluster = Cluster::of(2, 1).await;
    let bytes = bytes(10, 5);
    cluster.push(1, &bytes).await;
    cluster.stand(2, Standing::Removed).await;
    let removed = Some(Peer::Member { node: NodeId(2) });
    for (peer, code) in [
        (None, Code::Unauthenticated),
        (Some(Peer::Anonymous), Code::Unauthenticated),
        (Some(Peer::Admin), Code::PermissionDenied),
        (removed, Code::PermissionDenied),
        (Some(Peer::Member { node: NodeId(77) }), Code::Unavailable),
    ] {
        let mut router = cluster.node(1).blobs.exchange();
        if let Some(peer) = peer {
            router = router.layer(axum::Extension(peer));
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let mut client = client(address).await;
        let copy = || Some(wire_copy(&bytes));
        // The removal reaches the node a little later than the log.
        eventually("the caller is not served", async || {
            client.clone().table(TableRequest { copy: copy() }).await.is_err()
        })
        .await;
        let read = ReadRequest { copy: copy(), offset: 0, length: 10 };
        let store = stream::iter([vec![header(&bytes)], data(&bytes)].concat());
        let answers = [
            client.table(TableRequest { copy: copy() }).await.map(drop),
            client.read(read).await.map(drop),
            client.store(store).await.map(drop),
            client.delete(DeleteRequest { copy: copy() }).await.map(drop),
        ];
        for answer in answers {
            assert_eq!(answer.unwrap_err().code(), code);
        }
        server.abort();
    }
}

#[tokio::test]
async fn a_live_copy_cannot_be_deleted_by_another_node() {
    let mut cluster = Cluster::of(1, 1).await;
    let bytes = bytes(100, 6);
    let copy = cluster.push(1, &bytes).await;
    let mut wire = wire_copy(&bytes);
    wire.generation = Some(name::Generation {
        epoch: copy.generation.epoch.0,
        sequence: copy.generation.sequence,
    });
    let mut client = client(cluster.node(1).address).await;
    let refused = client.delete(DeleteRequest { copy: Some(wire) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(cluster.node(1).read(&copy).await == bytes);
}

#[tokio::test]
async fn a_client_that_goes_away_at_the_end_can_come_back() {
    let cluster = Cluster::of(3, 3).await;
    let node = cluster.node(1);
    let bytes = bytes(4 * MIB, 7);
    let id = open_session(node.uploads(), 0xabc).await;
    let body = crate::support::body(&bytes, 100_000);
    node.uploads().append(id, None, body).await.unwrap();
    let generation = nora_domain::Generation { epoch: node.epoch, sequence: 900 };
    let digest = sha256(&bytes);
    for polls in 1..6 {
        let mut finish = node.uploads().finish(id, digest, generation);
        let mut done = false;
        for _ in 0..polls {
            done = futures_util::poll!(&mut finish).is_ready();
            if done {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(finish);
        assert!(!done, "the disk is slower than {polls} polls");
        eventually("the session is free", async || {
            node.uploads().append(id, None, Box::pin(stream::empty())).await.is_ok()
        })
        .await;
    }
    let copy = node.uploads().finish(id, digest, generation).await.unwrap();
    assert!(node.read(&copy).await == bytes);
}
