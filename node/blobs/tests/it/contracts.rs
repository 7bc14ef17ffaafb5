//! The local store keeps the contracts of the ports that it implements.

use nora_app::testkit::{blobs_contract, uploads_contract};

use crate::support::{HASHES, store};

#[tokio::test]
async fn of_uploads() {
    let store = store();
    uploads_contract(store.uploads(), store.port(), HASHES).await;
    assert_eq!(store.upload_files(), Vec::<String>::new());
}

#[tokio::test]
async fn of_blobs() {
    let store = store();
    blobs_contract(store.uploads(), store.port(), HASHES).await;
}
