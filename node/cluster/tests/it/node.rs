//! A node through its public face: starting, recovering, compacting, reading.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use nora_app::ports::metadata::{Metadata, ask};
use nora_cluster::{Cluster, StartError, StopReason};
use nora_domain::{
    ClusterId, Epoch, Event, FeatureLevel, FoundCluster, Key, NodeId, Outcome, Record, Rows,
    SharedSecret, Storage, StorageMode, UploadId,
};
use tempfile::TempDir;

use crate::support::{
    assert_sound, cluster_rows, cluster_state, config, life, open_upload, repository, workload,
};
use crate::trio::{NAME, authority};

// The workload's first command is the start of a node, which would retire the epoch of the node under test.

async fn propose_uploads(cluster: &Arc<Cluster>, numbers: std::ops::Range<u64>) {
    let proposals = numbers.map(|number| cluster.propose(open_upload(number)));
    let answers: Vec<_> = stream::iter(proposals).buffer_unordered(64).collect().await;
    for answer in answers {
        assert!(matches!(answer.unwrap(), Ok(Outcome::OpenUpload(_))));
    }
}

/// Rows that a mere start of the node does not change.
fn without_starts(rows: Vec<(Key, Record)>) -> Vec<(Key, Record)> {
    rows.into_iter()
        .filter(|(key, _)| !matches!(key, Key::Cluster | Key::Node(_) | Key::Journal(_)))
        .collect()
}

#[test]
fn each_start_has_an_epoch_of_its_own() {
    let directory = TempDir::new().unwrap();
    for epoch in 1..=3 {
        life(config(directory.path()), async |cluster| {
            assert_eq!(cluster.epoch(), Epoch(epoch));
            let status = cluster.status();
            assert!(status.ready, "{status:?}");
            assert_eq!((status.leader, status.voters), (Some(NodeId(1)), vec![NodeId(1)]));
            let row = cluster.get(Key::Node(NodeId(1))).await.unwrap();
            let Some(Record::Node(node)) = row else { panic!("{row:?}") };
            assert_eq!(node.epoch, Epoch(epoch));
        });
    }
}

#[test]
fn a_node_that_was_not_shut_down_recovers_what_it_acknowledged() {
    let directory = TempDir::new().unwrap();
    let before = life(config(directory.path()), async |cluster| {
        for command in workload(300).into_iter().skip(1) {
            let _ = cluster.propose(command).await.unwrap();
        }
        let (head, rows) = cluster_state(&cluster).await;
        assert_sound(&head, &rows);
        rows
    });
    life(config(directory.path()), async |cluster| {
        let (head, rows) = cluster_state(&cluster).await;
        assert_sound(&head, &rows);
        assert_eq!(without_starts(rows), without_starts(before));
    });
}

#[test]
fn the_log_is_cut_behind_a_snapshot_and_the_state_survives() {
    let directory = TempDir::new().unwrap();
    let mut config = config(directory.path());
    config.snapshot_entries = 1500;
    config.keep_entries = 10;
    let before = life(config.clone(), async |cluster| {
        let mut next = 0;
        while cluster.status().purged_index.is_none() {
            assert!(next < 40_000, "the log was never cut: {:?}", cluster.status());
            propose_uploads(&cluster, next..next + 500).await;
            next += 500;
        }
        propose_uploads(&cluster, next..next + 100).await;
        let applied = cluster.status().applied_index;
        cluster.snapshot_now().await.unwrap();
        let status = cluster.status();
        assert!(status.snapshot_index >= applied, "{status:?}");
        propose_uploads(&cluster, next + 100..next + 200).await;
        cluster_rows(&cluster).await
    });
    assert!(before.len() > 1700);
    life(config, async |cluster| {
        let (head, rows) = cluster_state(&cluster).await;
        assert_sound(&head, &rows);
        assert_eq!(without_starts(rows), without_starts(before));
        let status = cluster.status();
        assert!(status.purged_index > Some(1000), "{status:?}");
    });
}

#[test]
fn reads_see_every_acknowledged_write_and_pages_follow_one_another() {
    let directory = TempDir::new().unwrap();
    life(config(directory.path()), async |cluster| {
        for number in 0..50 {
            cluster.propose(open_upload(number)).await.unwrap().unwrap();
            cluster.linearize().await.unwrap();
            let row = cluster
                .get(Key::Upload(repository(0).tenant, UploadId(number.into())))
                .await
                .unwrap();
            assert!(matches!(row, Some(Record::Upload(_))));
        }
        assert_eq!(
            cluster.get(Key::Upload(repository(0).tenant, UploadId(50))).await.unwrap(),
            None
        );
        let mut after = None;
        let mut found = Vec::new();
        loop {
            let page = cluster
                .scan(Rows::Uploads { tenant: repository(0).tenant, after }, 7)
                .await
                .unwrap();
            let Some((Key::Upload(_, last), _)) = page.last() else {
                break;
            };
            after = Some(*last);
            found.extend(page.into_iter().map(|(key, _)| key));
        }
        let expected: Vec<_> =
            (0..50).map(|number| Key::Upload(repository(0).tenant, UploadId(number))).collect();
        assert_eq!(found, expected);
    });
}

#[test]
fn the_leader_answers_probes_too() {
    let directory = TempDir::new().unwrap();
    life(config(directory.path()), async |cluster| {
        let probes = (0..100).map(|_| cluster.linearize());
        let answers: Vec<_> = stream::iter(probes).buffer_unordered(32).collect().await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    });
}

#[test]
fn events_are_numbered_by_the_position_of_their_command() {
    let directory = TempDir::new().unwrap();
    life(config(directory.path()), async |cluster| {
        let mut events = cluster.subscribe();
        let mut last = None;
        let mut linked = 0;
        for command in workload(60).into_iter().skip(1) {
            let _ = cluster.propose(command).await.unwrap();
            let mut index = 0;
            while let Ok(event) = events.try_recv() {
                let first = index == 0;
                assert_eq!(event.index, index, "the events of a command are counted from 0");
                assert!(if first {
                    last < Some(event.position)
                } else {
                    last == Some(event.position)
                });
                (last, index) = (Some(event.position), index + 1);
                linked += usize::from(matches!(*event.event, Event::BlobLinked { .. }));
            }
        }
        let rows = cluster_rows(&cluster).await;
        let links = rows.iter().filter(|(key, _)| matches!(key, Key::Link(..))).count();
        assert!(links > 0 && linked >= links, "{linked} events for {links} links");
    });
}

#[test]
fn a_node_that_was_shut_down_says_so_and_takes_no_more() {
    let directory = TempDir::new().unwrap();
    life(config(directory.path()), async |cluster| {
        propose_uploads(&cluster, 0..10).await;
        cluster.shutdown().await.unwrap();
        assert_eq!(cluster.stopped().await, StopReason::Shutdown);
        assert!(!cluster.status().ready);
        assert!(cluster.propose(open_upload(11)).await.is_err());
        let row = cluster.get(Key::Upload(repository(0).tenant, UploadId(9))).await.unwrap();
        assert!(row.is_some(), "what was applied can still be read");
    });
    life(config(directory.path()), async |cluster| {
        let rows = Rows::Uploads { tenant: repository(0).tenant, after: None };
        let rows = cluster.scan(rows, 100).await.unwrap();
        assert_eq!(rows.len(), 10);
    });
}

#[test]
fn two_nodes_cannot_have_the_same_directory() {
    let directory = TempDir::new().unwrap();
    life(config(directory.path()), async |_cluster| {
        let error = Cluster::start(config(directory.path())).await.err().unwrap();
        assert!(error.to_string().contains("cannot open the metadata"), "{error}");
    });
}

#[test]
fn an_entry_that_cannot_be_understood_stops_the_node_and_is_not_skipped_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let before = life(config(directory.path()), async |cluster| {
        propose_uploads(&cluster, 0..10).await;
        let future = vec![0x08, 0x01, 0xc2, 0x0c, 0x00];
        assert!(cluster.propose_raw(future).await.is_err());
        let StopReason::Failed(why) = cluster.stopped().await else { panic!("it goes on") };
        assert!(why.contains("cannot understand the command"), "{why}");
        assert!(!cluster.status().ready);
        assert!(cluster.propose(open_upload(10)).await.is_err());
        cluster_rows(&cluster).await
    });
    assert_eq!(before.iter().filter(|(key, _)| matches!(key, Key::Upload(..))).count(), 10);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut config = config(directory.path());
    config.start_timeout = std::time::Duration::from_secs(5);
    let error = runtime.block_on(Cluster::start(config)).err().unwrap();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("cannot understand the command"), "{error}: {cause}");
}

#[test]
fn a_founder_that_crashed_half_way_goes_on() {
    let directory = TempDir::new().unwrap();
    let founded = async |cluster: &Cluster| match cluster.get(Key::Cluster).await.unwrap() {
        Some(Record::Cluster(record)) => (record.cluster, record.feature_level),
        other => panic!("{other:?}"),
    };
    let whole = (Some(NAME), FeatureLevel::NEWEST);
    life(config(directory.path()), async |cluster| {
        assert_eq!(founded(&cluster).await, (None, FeatureLevel::default()));
        let storage = Storage { mode: StorageMode::Local, replicas: 3 };
        let command = FoundCluster {
            cluster: NAME,
            authority: authority(),
            secret: SharedSecret([5; 32]),
            storage,
        };
        assert_eq!(ask(cluster.as_ref(), command).await.unwrap(), Ok(()));
        assert_eq!(founded(&cluster).await, whole);

        // A node whose identity is another cluster's changes nothing of this one.
        cluster.found(ClusterId(NAME.0 + 1), authority()).await.unwrap();
        let error = cluster.enter().await.unwrap_err();
        assert!(matches!(error, StartError::ForeignCluster { .. }), "{error}");
        assert_eq!(founded(&cluster).await, whole);
    });
    life(config(directory.path()), async |cluster| {
        cluster.found(NAME, authority()).await.unwrap();
        cluster.enter().await.unwrap();
        assert_eq!(founded(&cluster).await, whole);
    });
}
