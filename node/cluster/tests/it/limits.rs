//! What is bounded stays bounded.

use bytes::Bytes;
use nora_app::ports::metadata::{Metadata, MetadataError};
use nora_cluster::raft::covered::Covered;
use nora_cluster::raft::log_store::{LogStore, READ_BYTES_MAX};
use nora_cluster::raft::{Entry, Proposal};
use nora_domain::{Action, Body, Command, MediaType, PutArtifact, TagName, Terms, Timestamp};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, StorageError};
use tempfile::TempDir;

use crate::support::{config, digest, life, log_id, open_log, open_log_covered, repository};

fn large_entry(index: u64, bytes: usize) -> Entry {
    let proposal = Proposal { at: Timestamp(1), command: Bytes::from(vec![index as u8; bytes]) };
    Entry { log_id: log_id(index), payload: EntryPayload::Normal(proposal) }
}

fn bytes(entries: &[Entry]) -> usize {
    let size = |entry: &Entry| match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.command.len(),
        _ => 0,
    };
    entries.iter().map(size).sum()
}

#[tokio::test]
async fn a_read_for_replication_takes_a_mebibyte_or_one_entry() {
    let directory = TempDir::new().unwrap();
    let mut log = open_log(directory.path());
    let entries = (1..=40).map(|index| large_entry(index, 100 << 10));
    log.append(entries, IOFlushed::noop()).await.unwrap();
    log.append([large_entry(41, 3 << 20)], IOFlushed::noop()).await.unwrap();

    let first = log.limited_get_log_entries(1, 42).await.unwrap();
    assert!(bytes(&first) <= READ_BYTES_MAX && first.len() == 10, "{} entries", first.len());
    let oversized = log.limited_get_log_entries(41, 42).await.unwrap();
    assert_eq!(oversized.len(), 1, "an entry over the limit is still handed out, alone");

    // Reading on from where the last read ended gives every entry once.
    let mut next = 1;
    while next < 42 {
        let entries = log.limited_get_log_entries(next, 42).await.unwrap();
        assert_eq!(entries[0].log_id.index, next);
        next = entries.last().unwrap().log_id.index + 1;
    }
    let all: Vec<_> = {
        use futures_util::TryStreamExt;
        log.entries_stream(1..42).await.try_collect().await.unwrap()
    };
    assert_eq!(all, log.try_get_log_entries(1..42).await.unwrap());
    assert_eq!(all.len(), 41);
}

#[tokio::test]
async fn a_purged_log_begins_after_what_was_purged_and_says_so()
-> Result<(), StorageError<nora_cluster::raft::TypeConfig>> {
    let directory = TempDir::new().unwrap();
    let mut log = open_log(directory.path());
    let entries = (0..5000).map(|index| large_entry(index, 100));
    log.append(entries, IOFlushed::noop()).await.unwrap();
    log.purge(log_id(2047)).await.unwrap();
    log.purge(log_id(4095)).await.unwrap();
    drop(log);

    let mut log = open_log(directory.path());
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(4095)));
    assert_eq!(state.last_log_id, Some(log_id(4999)));
    let left = log.try_get_log_entries(..).await.unwrap();
    assert_eq!((left.len(), left[0].log_id), (904, log_id(4096)));
    Ok(())
}

/// A crash before the snapshot is there must find the entries.
#[tokio::test]
async fn entries_stay_until_a_snapshot_covers_them() {
    let directory = TempDir::new().unwrap();
    let covered = Covered::nothing();
    let mut log = open_log_covered(directory.path(), covered.clone());
    let entries = (0..100).map(|index| large_entry(index, 10));
    log.append(entries, IOFlushed::noop()).await.unwrap();
    let purge = |mut log: LogStore| tokio::spawn(async move { log.purge(log_id(50)).await });
    let purging = purge(log.clone());
    covered.reach(49);
    // Time to do what it must not.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!purging.is_finished());
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, None);
    covered.reach(50);
    purging.await.unwrap().unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(50)));
    covered.fail();
    log.purge(log_id(60)).await.unwrap_err();
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(50)));
}

fn artifact(body: usize, number: u64) -> Command {
    let action = Action::PutArtifact(PutArtifact {
        repository: repository(0),
        digest: digest(number),
        media_type: MediaType::parse("application/x").unwrap(),
        size: body as u64,
        body: Body::Inline(vec![b' '; body].into()),
        subject: None,
        artifact_type: None,
        annotations: Default::default(),
        blobs: vec![],
        children: vec![],
        tags: vec![TagName::parse("latest").unwrap()],
    });
    Command { at: Timestamp(1), origin: None, terms: Terms::NONE, action }
}

#[test]
fn commands_too_large_and_too_many_are_refused_before_they_are_proposed() {
    let directory = TempDir::new().unwrap();
    let mut config = config(directory.path());
    config.command_bytes_max = 64 << 10;
    config.proposals_bytes_max = 100 << 10;
    life(config, async |cluster| {
        let before = cluster.status().log_index;
        let refused = cluster.propose(artifact(64 << 10, 1)).await.unwrap_err();
        assert!(
            matches!(refused, MetadataError::CommandTooLarge { bytes_max: 65_536, .. }),
            "{refused:?}"
        );
        assert_eq!(cluster.status().log_index, before);

        // The first two fill the budget while they are on their way; the third finds no room.
        let (a, b, c) = tokio::join!(
            cluster.propose(artifact(48 << 10, 1)),
            cluster.propose(artifact(48 << 10, 2)),
            cluster.propose(artifact(48 << 10, 3)),
        );
        a.unwrap().unwrap();
        b.unwrap().unwrap();
        assert!(matches!(c.unwrap_err(), MetadataError::Busy));
        cluster.propose(artifact(48 << 10, 3)).await.unwrap().unwrap();
    });
}

#[test]
fn a_listener_that_is_behind_is_told_and_holds_nobody_up() {
    let directory = TempDir::new().unwrap();
    let mut config = config(directory.path());
    config.events_max = 8;
    life(config, async |cluster| {
        let mut events = cluster.subscribe();
        for number in 0..32 {
            cluster.propose(artifact(10, number)).await.unwrap().unwrap();
        }
        let lagged = events.recv().await.unwrap_err();
        assert!(matches!(
            lagged,
            tokio::sync::broadcast::error::RecvError::Lagged(missed) if missed > 0
        ));
        let event = events.recv().await.unwrap();
        assert!(event.position <= cluster.status().applied_index.unwrap());
    });
}
