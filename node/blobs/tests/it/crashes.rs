//! Starting again on files as a crash between any two steps leaves them.

use std::cell::RefCell;
use std::fs;

use nora_app::ports::blobs::Delivery;
use nora_app::ports::uploads::{Admission, Purpose, UploadError};
use nora_blobs::{ReconcileError, Reconciled};
use nora_domain::{Algorithm, Epoch, Generation, Timestamp, UploadId};

use crate::support::*;

#[tokio::test]
async fn a_session_goes_on_after_a_restart() {
    let first = store();
    let bytes = bytes(3 * MIB + 17, 1);
    let id = UploadId(5);
    let opener = Some("alice".to_owned());
    let purpose = Purpose { opener, ..purpose("deep/er", Algorithm::Sha512, Timestamp(9)) };
    let before = first.uploads().open(id, purpose, Admission::ByShare).await.unwrap();
    first.uploads().append(id, None, body(&bytes[..2 * MIB + 3], 99_999)).await.unwrap();

    let second = first.restart();
    let after = second.uploads().state(id).await.unwrap();
    assert_eq!(after.offset, 2 * MIB as u64 + 3);
    assert_eq!((after.repository, after.opened_at), (before.repository, before.opened_at));
    assert_eq!(after.opener.as_deref(), Some("alice"), "it counts for its caller as before");
    second
        .uploads()
        .append(id, Some(after.offset), body(&bytes[2 * MIB + 3..], 5000))
        .await
        .unwrap();

    // And once more between the last byte and the end.
    let third = second.restart();
    let stored = third.uploads().finish(id, sha512(&bytes), generation(1)).await.unwrap();
    assert_eq!(stored.chunk_root, chunk_root(&bytes));
    assert_eq!(third.upload_files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_session_without_bytes_survives_and_expires_by_its_opening() {
    let store = store();
    let id = open_session(store.uploads(), 6).await;
    let store = store.restart();
    assert_eq!(store.uploads().state(id).await.unwrap().offset, 0);
    assert_eq!(store.uploads().expire(Timestamp(1000)).await.unwrap(), vec![]);
    assert_eq!(store.uploads().expire(Timestamp(1001)).await.unwrap(), vec![id]);
}

#[tokio::test]
async fn halves_of_sessions_are_removed_at_start() {
    let store = store();
    let uploads = store.dir.path().join("uploads");
    let id = open_session(store.uploads(), 7).await;
    // Opening broke off after the data file; ending broke off before the sidecar; a sidecar was
    // torn.
    fs::write(uploads.join(format!("{:032x}", 8)), b"no sidecar").unwrap();
    fs::copy(uploads.join(format!("{:032x}.json", 7)), uploads.join(format!("{:032x}.json", 9)))
        .unwrap();
    fs::write(uploads.join(format!("{:032x}", 10)), b"bytes").unwrap();
    fs::write(uploads.join(format!("{:032x}.json", 10)), b"{\"version\":1,").unwrap();
    fs::write(uploads.join("notes.txt"), b"not ours").unwrap();

    let store = store.restart();
    assert_eq!(
        store.upload_files(),
        [format!("{:032x}", 7), format!("{:032x}.json", 7), "notes.txt".to_owned()]
    );
    assert!(store.uploads().state(id).await.is_ok());
    for id in [8, 9, 10] {
        assert!(matches!(store.uploads().state(UploadId(id)).await, Err(UploadError::Unknown)));
    }
}

#[tokio::test]
async fn blobs_that_nothing_names_go_and_others_stay() {
    let store = store();
    let (large, small) = (bytes(2 * MIB, 1), bytes(10, 2));
    let kept = push(store.uploads(), &large, 1).await;
    push(store.uploads(), &large, 2).await;
    push(store.uploads(), &small, 3).await;
    let id = open_session(store.uploads(), 1).await;
    let running = Generation { epoch: Epoch(2), sequence: 1 };
    let new = store.uploads().finish(id, sha256(b""), running).await.unwrap();
    let foreign =
        store.dir.path().join("blobs/sha256").join(&kept.digest.hex()[..2]).join("README");
    fs::write(&foreign, b"not ours").unwrap();

    let asked = RefCell::new(Vec::new());
    let reconciled = store.blobs.reconcile(
        |epoch| epoch < Epoch(2),
        |digest, generation| {
            asked.borrow_mut().push((*digest, generation));
            Ok(*digest == kept.digest && generation == kept.generation)
        },
    );
    assert_eq!(reconciled.unwrap(), Reconciled { live: 1, removed: 2 });
    assert_eq!(asked.borrow().len(), 3);

    let kept_blob = store.port().open(kept.clone()).await.unwrap();
    assert!(read(&kept_blob, 0..kept.size, Delivery::Process).await == large);
    assert!(store.port().open(new.clone()).await.is_ok());
    let name = format!("{}.1-1", kept.digest.hex());
    let mut expected = vec![
        name.clone(),
        name + ".chunks",
        format!("{}.2-1", new.digest.hex()),
        "README".to_owned(),
    ];
    expected.sort();
    assert_eq!(store.blob_files(), expected);
}

#[tokio::test]
async fn a_question_without_an_answer_stops_the_sweep() {
    let store = store();
    for sequence in 1..4 {
        push(store.uploads(), &bytes(10, sequence), sequence).await;
    }
    let before = store.blob_files();
    let stopped = store.blobs.reconcile(|epoch| epoch < Epoch(2), |_, _| Err("no leader".into()));
    assert!(matches!(stopped, Err(ReconcileError::Ask { .. })), "{stopped:?}");
    assert_eq!(store.blob_files(), before);
}
