//! The fakes keep the contracts of the ports that they stand for.

use std::sync::Arc;

use nora_app::testkit::{
    ManualClock, MemoryBlobs, MemoryMetadata, Uploads, blobs_contract, metadata_contract,
    uploads_contract,
};

use crate::support::{HASHES, NOW};

fn blobs() -> MemoryBlobs {
    MemoryBlobs::new(HASHES, Arc::new(ManualClock::at(NOW)))
}

#[tokio::test]
async fn of_uploads() {
    let store = blobs();
    uploads_contract(Uploads::of(&store), &store, HASHES).await;
    assert_eq!(store.sessions(), vec![]);
}

#[tokio::test]
async fn of_blobs() {
    let store = blobs();
    blobs_contract(Uploads::of(&store), &store, HASHES).await;
}

#[tokio::test]
async fn of_metadata() {
    let metadata = MemoryMetadata::default();
    metadata_contract(&metadata).await;
    assert_eq!(metadata.audit(), vec![]);
}
