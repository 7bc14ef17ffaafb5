//! One member goes on after its cluster lost its majority.

use std::time::Duration;

use nora_app::ports::metadata::{Metadata, MetadataError, ask};
use nora_cluster::{ClusterConfig, StartError, Survivor};
use nora_domain::{Key, NodeId, Outcome, SetStanding, Standing, UploadId};

use crate::support::{open_upload, repository};
use crate::trio::Trio;

fn config(trio: &Trio, node: u64) -> ClusterConfig {
    let mut config = ClusterConfig::new(trio.directory.path().join(format!("node-{node}")));
    config.node = NodeId(node);
    config
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn look(trio: &Trio, node: u64) -> Survivor {
    runtime().block_on(Survivor::look(config(trio, node))).unwrap()
}

#[test]
fn a_survivor_keeps_its_whole_log_and_heeds_none_of_the_others() {
    let mut trio = Trio::three(|config| config.answer_timeout = Duration::from_millis(500));
    let leader = trio.leader();
    let others: Vec<u64> = trio.running().into_iter().filter(|node| *node != leader).collect();
    for other in &others {
        trio.gate(*other).shut(true);
    }
    // Two voters may have had this entry and acknowledged it: the survivor cannot know.
    trio.block(leader, async |cluster| {
        let unknown = cluster.propose(open_upload(77)).await;
        assert!(matches!(unknown, Err(MetadataError::OutcomeUnknown)), "{unknown:?}");
    });
    for node in trio.running() {
        trio.kill(node);
    }

    let before = look(&trio, leader).found().clone();
    assert_eq!(before.voters, [1, 2, 3].map(NodeId));
    assert!(before.last_index > before.applied_index, "{before:?}");
    let survivor = look(&trio, leader);
    assert_eq!(survivor.found(), &before, "looking changed something");
    runtime().block_on(survivor.go_on_alone()).unwrap();
    let after = look(&trio, leader);
    assert!(after.found().is_alone(NodeId(leader)), "{:?}", after.found());
    assert!(after.found().term > before.term);
    let position = after.found().last_index;
    runtime().block_on(after.go_on_alone()).unwrap();
    assert_eq!(look(&trio, leader).found().last_index, position, "done twice, it wrote twice");

    trio.open(leader);
    trio.enter(leader);
    trio.block(leader, async |cluster| {
        let upload = Key::Upload(repository(0).tenant, UploadId(77));
        assert!(cluster.get(upload).await.unwrap().is_some(), "an entry of the log was dropped");
        for other in &others {
            let removal = SetStanding { node: NodeId(*other), standing: Standing::Removed };
            ask(cluster, removal).await.unwrap().unwrap();
        }
    });

    // One of the old nodes comes back, against all advice.
    let old = others[0];
    trio.open(old);
    let term = trio.node(leader).status().term;
    trio.block(old, async |cluster| {
        let entered = cluster.enter();
        let entered = tokio::time::timeout(Duration::from_secs(3), entered).await;
        assert!(!matches!(entered, Ok(Ok(_))), "a node of before entered: {entered:?}");
    });
    let status = trio.node(leader).status();
    assert_eq!((status.leader, status.term), (Some(NodeId(leader)), term), "it was disturbed");
    assert_eq!(status.voters, [NodeId(leader)]);
    trio.block(leader, async |cluster| {
        let answer = cluster.propose(open_upload(78)).await.unwrap();
        assert!(matches!(answer, Ok(Outcome::OpenUpload(_))), "{answer:?}");
    });
}

#[test]
fn a_folder_without_a_cluster_has_no_survivor() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = ClusterConfig::new(folder.path().join("metadata"));
    config.node = NodeId(1);
    let found = runtime().block_on(Survivor::look(config));
    assert!(matches!(found, Err(StartError::Open { .. })), "no cluster was found");
}
