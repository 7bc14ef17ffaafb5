//! Three nodes: elections, proposals and reads anywhere, restarts, snapshots across the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nora_app::ports::metadata::{Metadata, MetadataError};
use nora_cluster::{Cluster, ClusterConfig, StartError};
use nora_domain::{
    CloseUpload, Epoch, Key, NodeId, Outcome, Record, Refusal, Rows, SetStanding, Terms, UploadId,
};
use tempfile::TempDir;

use crate::support::{cluster_rows, config, open_upload, repository};
use crate::trio::{Trio, until};

fn defaults(_: &mut ClusterConfig) {}

fn upload(number: u64) -> Key {
    Key::Upload(repository(0).tenant, UploadId(number.into()))
}

async fn put(cluster: &Cluster, number: u64) {
    let answer = cluster.propose(open_upload(number)).await.unwrap();
    assert!(matches!(answer, Ok(Outcome::OpenUpload(_))), "{answer:?}");
}

async fn has(cluster: &Cluster, number: u64) -> bool {
    cluster.get(upload(number)).await.unwrap().is_some()
}

#[test]
fn a_cluster_of_one_starts_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let directory = TempDir::new().unwrap();
        let begun = Instant::now();
        let cluster = runtime.block_on(Cluster::start(config(directory.path()))).unwrap();
        best = best.min(begun.elapsed());
        assert_eq!(cluster.epoch(), Epoch(1));
    }
    // Alone on a machine it takes a tenth of that; no election's timeout may be in it.
    assert!(best < Duration::from_millis(300), "{best:?}");
}

#[test]
fn every_node_proposes_and_reads_what_it_wrote() {
    let trio = Trio::three(defaults);
    for node in trio.running() {
        trio.block(node, async |cluster| {
            for number in node * 100..node * 100 + 20 {
                put(cluster, number).await;
                assert!(has(cluster, number).await, "node {node} does not read its own write");
            }
        });
    }
    for node in trio.running() {
        trio.block(node, async |cluster| {
            cluster.linearize().await.unwrap();
            for number in [100, 219, 319] {
                assert!(has(cluster, number).await, "node {node} lacks {number}");
            }
            let status = cluster.status();
            assert_eq!(status.voters, [NodeId(1), NodeId(2), NodeId(3)]);
            assert!(status.ready && status.learners.is_empty(), "{status:?}");
        });
    }
    let leader = trio.node(trio.leader());
    until("the leader knows that the others have everything", || {
        let status = leader.status();
        let all = status.replication.len() == 2
            && status.replication.values().all(|other| other.lag_entries == 0);
        all.then_some(())
    });
}

#[test]
fn writes_go_on_within_two_seconds_of_the_leaders_death_and_it_comes_back() {
    let mut trio = Trio::three(defaults);
    let dead = trio.leader();
    trio.block(dead, async |cluster| put(cluster, 1).await);
    trio.kill(dead);
    let begun = Instant::now();
    let survivor = trio.running()[0];
    trio.block(survivor, async |cluster| {
        put(cluster, 2).await;
        assert!(has(cluster, 1).await);
    });
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    eprintln!("writes went on after {took:?}");
    trio.start(dead);
    trio.block(dead, async |cluster| {
        cluster.linearize().await.unwrap();
        assert!(has(cluster, 1).await && has(cluster, 2).await);
        put(cluster, 3).await;
    });
}

#[test]
fn a_leader_that_shuts_down_hands_over_and_nobody_notices() {
    let mut trio = Trio::three(defaults);
    let leader = trio.leader();
    let follower = trio.follower();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = trio.spawn(follower, {
        let (cluster, stop, done) = (trio.node(follower), stop.clone(), done.clone());
        async move {
            let mut slowest = Duration::ZERO;
            while !stop.load(Ordering::SeqCst) {
                let begun = Instant::now();
                put(&cluster, 1000 + done.fetch_add(1, Ordering::SeqCst)).await;
                slowest = slowest.max(begun.elapsed());
            }
            slowest
        }
    });
    until("some writes", || (done.load(Ordering::SeqCst) > 20).then_some(()));
    trio.stop(leader);
    let so_far = done.load(Ordering::SeqCst);
    until("more writes", || (done.load(Ordering::SeqCst) > so_far + 20).then_some(()));
    stop.store(true, Ordering::SeqCst);
    let slowest = trio.block(follower, async |_| writer.await.unwrap());
    eprintln!("the slowest write took {slowest:?}");
    // An election that waits for its timeout takes 1.2 s at least.
    assert!(slowest < Duration::from_millis(1200), "{slowest:?}");
    assert_ne!(trio.leader(), leader);
}

#[test]
fn acknowledged_writes_stand_once_through_changes_of_leader() {
    let mut trio = Trio::three(defaults);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    let (first, last) = (trio.running()[0], trio.running()[2]);
    let victims = [2, 1, 2];
    // Writers on nodes 1 and 3; the nodes that are killed lose theirs, which is what a crash does.
    for node in [first, last] {
        for lane in 0..8_u64 {
            let (cluster, stop) = (trio.node(node), stop.clone());
            writers.push(trio.spawn(node, async move {
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let number = node * 10_000_000 + lane * 1_000_000 + number;
                    match cluster.propose(open_upload(number)).await {
                        Ok(answer) => {
                            assert!(answer.is_ok(), "{answer:?}");
                            acknowledged.push(number);
                        }
                        Err(MetadataError::OutcomeUnknown | MetadataError::NoLeader) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                acknowledged
            }));
        }
    }
    for victim in victims {
        let leader = trio.leader();
        let to = if leader == victim { 3 } else { victim };
        if trio.running().contains(&to) {
            // The victim leads when it dies, if it can be made to.
            let _ = trio.block(leader, async |cluster| {
                cluster.members().transfer_leader(Some(NodeId(to))).await
            });
        }
        if victim == 2 {
            trio.kill(2);
            trio.leader();
            trio.start(2);
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(trio.block(first, async |_| writer.await.unwrap()));
    }
    assert!(acknowledged.len() > 100, "only {} writes", acknowledged.len());
    for node in trio.running() {
        trio.block(node, async |cluster| {
            cluster.linearize().await.unwrap();
            for number in &acknowledged {
                assert!(has(cluster, *number).await, "node {node} lost {number}");
            }
        });
    }
    let states: Vec<_> = trio
        .running()
        .into_iter()
        .map(|node| trio.block(node, async |cluster| cluster_rows(cluster).await))
        .collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "the nodes' states differ");
}

#[test]
fn a_follower_that_was_cut_off_does_not_answer_from_the_past() {
    let trio = Trio::three(|config| config.answer_timeout = Duration::from_secs(2));
    let follower = trio.follower();
    trio.block(follower, async |cluster| put(cluster, 1).await);
    let leader = trio.leader();
    let other = trio.running().into_iter().find(|node| ![leader, follower].contains(node));
    let other = other.unwrap();
    // Nobody reaches the follower, and it reaches nobody.
    for node in trio.running() {
        trio.gate(node).shut(node == follower);
    }
    trio.gate(leader).shut(true);
    trio.gate(leader).shut(false);
    trio.block(other, async |cluster| put(cluster, 2).await);
    // It still reaches the leader, so it asks there, and waits for entries that do not come.
    let read = trio.block(follower, async |cluster| {
        let waited = cluster.linearize().await;
        (waited.is_ok(), has(cluster, 2).await)
    });
    assert!(matches!(read, (false, _) | (true, true)), "a stale read: {read:?}");
    trio.gate(follower).shut(false);
    trio.block(follower, async |cluster| {
        cluster.linearize().await.unwrap();
        assert!(has(cluster, 2).await);
    });
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_nothing_is_said_to_have_failed() {
    let mut trio = Trio::three(|config| config.answer_timeout = Duration::from_secs(1));
    let follower = trio.follower();
    let rest: Vec<_> = trio.running().into_iter().filter(|node| *node != follower).collect();
    for node in &rest {
        trio.kill(*node);
    }
    trio.block(follower, async |cluster| {
        let answer = cluster.propose(open_upload(7)).await;
        assert!(
            matches!(answer, Err(MetadataError::OutcomeUnknown | MetadataError::NoLeader)),
            "{answer:?}"
        );
        assert!(matches!(cluster.linearize().await, Err(MetadataError::NoLeader)));
        assert!(!has(cluster, 7).await);
    });
}

#[test]
fn a_node_that_starts_alone_of_three_says_what_it_needs() {
    let mut trio = Trio::three(|config| config.start_timeout = Duration::from_secs(1));
    for node in trio.running() {
        trio.kill(node);
    }
    trio.open(2);
    let error = trio.block(2, async |cluster| cluster.enter().await.unwrap_err());
    assert!(matches!(error, StartError::NoLeader { .. }), "{error}");
    assert!(error.to_string().contains("start the other voters"), "{error}");
}

#[test]
fn a_whole_cluster_that_was_killed_comes_back() {
    let mut trio = Trio::three(defaults);
    trio.block(2, async |cluster| put(cluster, 5).await);
    for node in trio.running() {
        trio.kill(node);
    }
    for node in 1..=3 {
        trio.open(node);
    }
    std::thread::scope(|scope| {
        for node in 1..=3 {
            let trio = &trio;
            scope.spawn(move || trio.enter(node));
        }
    });
    for node in 1..=3 {
        trio.block(node, async |cluster| {
            cluster.linearize().await.unwrap();
            assert!(has(cluster, 5).await);
        });
    }
}

#[test]
fn a_node_far_behind_gets_a_snapshot_and_goes_on_where_the_connection_broke() {
    let mut trio = Trio::three(|config| {
        config.snapshot_entries = 400;
        config.keep_entries = 10;
    });
    let away = trio.follower();
    trio.kill(away);
    let writer = trio.follower();
    let leader = trio.leader();
    trio.block(writer, async |cluster| {
        let mut number = 0;
        while trio.node(leader).status().purged_index < Some(1100) {
            assert!(number < 20_000, "the log is never cut");
            let writes = (number..number + 200).map(|number| put(cluster, number));
            futures_util::future::join_all(writes).await;
            number += 200;
        }
    });
    // No later snapshot takes its place half-way.
    trio.block(leader, async |cluster| cluster.snapshot_now().await.unwrap());
    // The connection breaks when some of the snapshot's files have come in.
    trio.snapshots_are_slow = true;
    trio.open(away);
    let incoming = trio.directory.path().join(format!("node-{away}/incoming"));
    let came_in = until("a part of the snapshot came in", || {
        let name = std::fs::read_dir(&incoming).ok()?.next()?.ok()?;
        let found = inodes(&name.path().join("files"));
        (!found.is_empty()).then_some(found)
    });
    trio.gate(away).let_no_more();
    trio.gate(away).shut(true);
    trio.gate(away).shut(false);
    trio.enter(away);
    let status = trio.node(away).status();
    assert!(status.purged_index.is_some(), "it came by entries: {status:?}");
    let rows = |node| {
        trio.block(node, async |cluster| {
            cluster.linearize().await.unwrap();
            cluster
                .scan(Rows::Uploads { tenant: repository(0).tenant, after: None }, 100_000)
                .await
                .unwrap()
        })
    };
    assert_eq!(rows(away), rows(leader));
    let snapshots = trio.directory.path().join(format!("node-{away}/snapshots"));
    let snapshot = std::fs::read_dir(snapshots).unwrap().next().unwrap().unwrap();
    let kept = inodes(&snapshot.path().join("files"));
    assert!(came_in.is_subset(&kept), "what had come in was sent again: {came_in:?}, {kept:?}");
    assert!(std::fs::read_dir(&incoming).unwrap().next().is_none(), "nothing is left of it");
}

/// A cluster that cut its log behind a node that is away, and wrote more while that node received a snapshot. Gives the
/// node, and where the leader's snapshot ended before and after those writes.
fn written_during_a_transfer(log_bytes_max: u64) -> (Trio, u64, [Option<u64>; 2]) {
    let mut trio = Trio::three(move |config| {
        config.snapshot_entries = 400;
        config.keep_entries = 10;
        config.log_bytes_max = log_bytes_max;
    });
    let away = trio.follower();
    trio.kill(away);
    let leader = trio.leader();
    let write = |trio: &Trio, from: u64| {
        trio.block(leader, async |cluster| {
            let writes = (from..from + 200).map(|number| put(cluster, number));
            futures_util::future::join_all(writes).await;
        });
    };
    let mut number = 0;
    while trio.node(leader).status().purged_index < Some(1100) {
        assert!(number < 20_000, "the log is never cut");
        write(&trio, number);
        number += 200;
    }
    trio.block(leader, async |cluster| cluster.snapshot_now().await.unwrap());
    let before = trio.node(leader).status().snapshot_index;
    trio.snapshots_are_slow = true;
    trio.open(away);
    let incoming = trio.directory.path().join(format!("node-{away}/incoming"));
    until("a part of the snapshot came in", || {
        let name = std::fs::read_dir(&incoming).ok()?.next()?.ok()?;
        (!inodes(&name.path().join("files")).is_empty()).then_some(())
    });
    trio.gate(away).let_no_more();
    for _ in 0..15 {
        write(&trio, number);
        number += 200;
    }
    let after = trio.node(leader).status().snapshot_index;
    (trio, away, [before, after])
}

#[test]
fn a_member_catches_up_by_a_snapshot_while_others_write() {
    let (trio, away, [before, after]) = written_during_a_transfer(1 << 30);
    assert_eq!(before, after, "the leader made another snapshot while it sent one");
    trio.gate(away).shut(true);
    trio.gate(away).shut(false);
    trio.enter(away);
    let leader = trio.leader();
    // Once the member has caught up, snapshots are made again.
    let number = std::cell::Cell::new(50_000);
    until("another snapshot", || {
        trio.block(leader, async |cluster| {
            for _ in 0..50 {
                number.set(number.get() + 1);
                put(cluster, number.get()).await;
            }
        });
        (trio.node(leader).status().snapshot_index > after).then_some(())
    });
}

#[test]
fn a_log_over_its_limit_is_cut_although_a_member_receives_a_snapshot() {
    let (trio, away, [before, after]) = written_during_a_transfer(0);
    assert!(before < after, "{before:?}, {after:?}");
    trio.gate(away).shut(true);
    trio.gate(away).shut(false);
    trio.enter(away);
}

/// Which files are in a directory, empty ones apart.
fn inodes(directory: &std::path::Path) -> std::collections::BTreeSet<u64> {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(directory).into_iter().flatten();
    let found = files.filter_map(|file| file.ok()?.metadata().ok());
    found.filter(|found| found.len() > 0).map(|found| found.ino()).collect()
}

#[test]
fn a_command_that_arrives_twice_takes_effect_once() {
    use nora_cluster::codec;
    use nora_domain::Timestamp;
    use nora_domain::{Action, Command, Origin};
    use nora_proto::peer::v1 as proto;

    let trio = Trio::three(defaults);
    let (leader, follower) = (trio.leader(), trio.follower());
    let epoch = trio.node(follower).epoch();
    let command = |serial, action| {
        let origin = Some(Origin { epoch, serial, settled_below: 0 });
        bytes::Bytes::from(codec::command::encode(&Command {
            at: Timestamp(1),
            origin,
            terms: Terms::NONE,
            action,
        }))
    };
    let open = command(1000, open_upload(7).action);
    let close = command(
        1001,
        Action::CloseUpload(CloseUpload { tenant: repository(0).tenant, upload: UploadId(7) }),
    );
    let channel = trio.channel(follower, leader);
    trio.block(follower, async |cluster| {
        let mut client = proto::leader_client::LeaderClient::new(channel);
        // What is sent again after it was undone must not be done again.
        let commands = vec![open.clone(), close, open];
        let answer = client.propose(proto::ProposeRequest { commands }).await.unwrap();
        let applied = |result: &proto::Proposed| {
            matches!(result.result, Some(proto::proposed::Result::Index(_)))
        };
        assert!(answer.get_ref().results.iter().all(applied), "{answer:?}");
        cluster.linearize().await.unwrap();
        assert!(!has(cluster, 7).await);
    });
}

#[test]
fn a_proposers_clock_does_not_move_the_clusters() {
    use nora_domain::Command;
    use nora_domain::Timestamp;

    let trio = Trio::three(defaults);
    trio.block(trio.follower(), async |cluster| {
        let ahead = Command { at: Timestamp(u64::MAX), ..open_upload(1) };
        cluster.propose(ahead).await.unwrap().unwrap();
        let head = cluster.head().await.unwrap();
        assert!(head.clock < Timestamp(1 << 50), "{head:?}");
    });
}

#[test]
fn a_removed_node_is_not_listened_to() {
    use nora_domain::{Action, Command, Standing, Timestamp};
    let trio = Trio::three(|config| config.answer_timeout = Duration::from_secs(1));
    let leader = trio.leader();
    let gone = trio.follower();
    trio.block(leader, async |cluster| {
        cluster.members().demote(NodeId(gone)).await.unwrap();
        let action =
            Action::SetStanding(SetStanding { node: NodeId(gone), standing: Standing::Removed });
        let command = Command { at: Timestamp(0), origin: None, terms: Terms::NONE, action };
        assert_eq!(cluster.propose(command).await.unwrap(), Ok(Outcome::SetStanding(())));
        cluster.members().remove_learner(NodeId(gone)).await.unwrap();
    });
    trio.block(gone, async |cluster| {
        let answer = cluster.propose(open_upload(7)).await;
        let refused = matches!(
            answer,
            Err(MetadataError::OutcomeUnknown | MetadataError::NoLeader)
                | Ok(Err(Refusal::RetiredEpoch))
        );
        assert!(refused, "{answer:?}");
    });
    trio.block(leader, async |cluster| {
        assert!(!has(cluster, 7).await);
        put(cluster, 8).await;
        let row = cluster.get(Key::Node(NodeId(gone))).await.unwrap();
        assert!(matches!(row, Some(Record::Node(node)) if node.standing == Standing::Removed));
    });
}

#[test]
fn two_voters_that_become_one_and_two_again_read_what_was_written() {
    let mut trio = Trio::found(defaults);
    trio.block(1, async |cluster| {
        put(cluster, 1).await;
        cluster.linearize().await.unwrap();
    });
    trio.join(2);
    trio.block(2, async |cluster| put(cluster, 2).await);
    trio.block(1, async |cluster| {
        cluster.linearize().await.unwrap();
        assert!(has(cluster, 2).await, "a stale read");
    });
    // The other node makes the first the only voter, and so leaves.
    trio.block(1, async |cluster| {
        cluster.members().transfer_leader(Some(NodeId(2))).await.unwrap();
    });
    trio.block(2, async |cluster| {
        put(cluster, 3).await;
        cluster.members().demote(NodeId(2)).await.unwrap();
    });
    trio.block(1, async |cluster| {
        cluster.linearize().await.unwrap();
        assert!(has(cluster, 3).await);
        put(cluster, 4).await;
        cluster.linearize().await.unwrap();
        assert_eq!(cluster.status().voters, [NodeId(1)]);
    });
}

#[test]
fn the_only_voter_reads_what_a_learner_acknowledged() {
    let mut trio = Trio::found(defaults);
    trio.admit(2);
    trio.open(2);
    let address = trio.address(2);
    trio.block(1, async move |cluster| {
        cluster.members().add_learner(NodeId(2), &address).await.unwrap();
    });
    trio.enter(2);
    let voter = trio.node(1);
    for number in 0..60 {
        // While a snapshot begins, the voter applies nothing; the learner applies and answers meanwhile.
        let stalls = trio.spawn(1, {
            let voter = voter.clone();
            async move { voter.snapshot_now().await.unwrap() }
        });
        trio.block(2, async |cluster| put(cluster, number).await);
        trio.block(1, async |cluster| {
            cluster.linearize().await.unwrap();
            assert!(has(cluster, number).await, "the voter does not read write {number}");
            stalls.await.unwrap();
        });
    }
}

#[test]
fn a_late_copy_of_a_start_does_not_end_the_running_one() {
    use nora_cluster::codec;
    use nora_domain::Timestamp;
    use nora_domain::{Action, Command, NodeProfile, StartNode};
    use nora_proto::peer::v1 as proto;

    let late_copy = |node, start, profile: &NodeProfile| {
        let profile = profile.clone();
        let action = Action::StartNode(StartNode { node, start, replaces: 0, profile });
        let command = Command { at: Timestamp(0), origin: None, terms: Terms::NONE, action };
        proto::ProposeRequest { commands: vec![codec::command::encode(&command).into()] }
    };
    let mut trio = Trio::three(defaults);
    let (leader, follower) = (trio.leader(), trio.follower());
    let channel = trio.channel(follower, leader);
    let first = trio.block(follower, async |cluster| {
        let epoch = cluster.epoch();
        let node = cluster.node_id();
        let Some(Record::Node(first)) = cluster.get(Key::Node(node)).await.unwrap() else {
            panic!("the node has no row")
        };
        // The answer to the first attempt was late, so the node asked again.
        assert_eq!(cluster.enter().await.unwrap(), epoch);
        // Then the first attempt comes a second time.
        let mut client = proto::leader_client::LeaderClient::new(channel);
        client.propose(late_copy(node, first.start, &first.profile)).await.unwrap();
        put(cluster, 1).await;
        assert_eq!(cluster.epoch(), epoch);
        first
    });
    // Copies that come after the node was started anew: of its start before, and of one that no log ever had.
    trio.kill(follower);
    trio.open(follower);
    trio.enter(follower);
    let channel = trio.channel(follower, trio.leader());
    trio.block(follower, async |cluster| {
        let epoch = cluster.epoch();
        let mut client = proto::leader_client::LeaderClient::new(channel);
        for start in [first.start, first.start.wrapping_add(1)] {
            let late = late_copy(cluster.node_id(), start, &first.profile);
            client.propose(late).await.unwrap();
        }
        put(cluster, 2).await;
        assert_eq!(cluster.epoch(), epoch);
    });
}

#[test]
fn a_promotion_that_was_cut_off_is_seen_and_finished() {
    let mut trio = Trio::found(defaults);
    trio.admit(2);
    trio.open(2);
    let address = trio.address(2);
    trio.block(1, async move |cluster| {
        cluster.members().add_learner(NodeId(2), &address).await.unwrap();
    });
    trio.enter(2);
    // The learner is gone, so the change begins and is not committed. Then its caller gives up.
    trio.gate(2).shut(true);
    trio.block(1, async |cluster| {
        let members = cluster.members();
        let promoted = members.promote(NodeId(2));
        tokio::time::timeout(Duration::from_millis(500), promoted).await.unwrap_err();
    });
    trio.gate(2).shut(false);
    until("both voters know of a change that is not finished", || {
        let joint = |node| trio.node(node).status().is_joint;
        (joint(1) && joint(2)).then_some(())
    });
    let leader = trio.leader();
    // It takes until the change that was begun is committed.
    until("the change is finished", || {
        trio.block(leader, async |cluster| cluster.members().finish_change().await).ok()
    });
    let status = trio.node(leader).status();
    assert!(!status.is_joint, "{status:?}");
    assert_eq!(status.voters, [NodeId(1), NodeId(2)]);
}
