//! The object store keeps the contracts of the ports that it implements.

use nora_app::testkit::{blobs_contract, uploads_contract};

use crate::servers::{Server, on_both};
use crate::support::{HASHES, files, store, uploads};

on_both!(of_uploads, of_blobs);

async fn of_uploads(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&server.endpoint(), dir.path());
    uploads_contract(uploads(&store), &store, HASHES).await;
    assert_eq!(files(&dir.path().join("uploads")), Vec::<String>::new());
}

async fn of_blobs(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&server.endpoint(), dir.path());
    blobs_contract(uploads(&store), &store, HASHES).await;
}
