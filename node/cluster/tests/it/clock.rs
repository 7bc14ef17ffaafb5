//! The cluster's clock under wall clocks of the test's choice.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nora_app::ports::metadata::Metadata;
use nora_cluster::{Cluster, ClusterConfig, WallClock};
use nora_domain::{NodeId, Outcome, Timestamp};

use crate::support::open_upload;
use crate::trio::{Trio, until};

const DAY: i64 = 86_400_000;

/// By how many milliseconds each node's wall clock is wrong; node 1 comes first.
type Offsets = Arc<[AtomicI64; 3]>;

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn offsets(all: i64) -> Offsets {
    Arc::new([0; 3].map(|_| AtomicI64::new(all)))
}

fn set(offsets: &Offsets, node: u64, offset: i64) {
    offsets[usize::try_from(node).unwrap() - 1].store(offset, Ordering::SeqCst);
}

fn configure(offsets: &Offsets) -> impl Fn(&mut ClusterConfig) + Send + Sync + 'static {
    let offsets = offsets.clone();
    move |config| {
        let (offsets, node) = (offsets.clone(), config.node);
        config.wall = WallClock::new(move || {
            let offset = &offsets[usize::try_from(node.0).unwrap() - 1];
            Timestamp((wall() + offset.load(Ordering::SeqCst)) as u64)
        });
    }
}

/// Writes something, and gives by how much the clock of the state is ahead of real time then.
async fn written(cluster: &Cluster, number: u64) -> i64 {
    let answer = cluster.propose(open_upload(number)).await.unwrap();
    assert!(matches!(answer, Ok(Outcome::OpenUpload(_))), "{answer:?}");
    cluster.head().await.unwrap().clock.0 as i64 - wall()
}

#[track_caller]
fn assert_about(found: i64, expected: i64) {
    assert!((found - expected).abs() < 60_000, "{found} ms instead of {expected} ms");
}

#[test]
fn a_leader_with_a_wrong_wall_clock_moves_nothing_and_lets_another_lead() {
    let offsets = offsets(0);
    let trio = Trio::three(configure(&offsets));
    let wrong = trio.leader();
    assert_about(trio.block(wrong, async |cluster| written(cluster, 1).await), 0);
    set(&offsets, wrong, 400 * DAY);
    assert_about(trio.block(wrong, async |cluster| written(cluster, 2).await), 0);
    until("another node leads", || (trio.leader() != wrong).then_some(()));
    let offset = until("the wrong clock is noticed on its node", || {
        trio.node(wrong).status().clock.offset_millis
    });
    assert_about(offset, 400 * DAY);
    let leader = trio.leader();
    until("the leader shows every member's clock", || {
        let members = trio.node(leader).status().clock.members;
        (members.len() == 3 && members[&NodeId(wrong)] > 399 * DAY).then_some(())
    });
    // It is made to lead again: what it stamps is the cluster's time all the same.
    trio.block(leader, async |cluster| {
        cluster.members().transfer_leader(Some(NodeId(wrong))).await.unwrap();
    });
    let number = std::cell::Cell::new(10);
    for _ in 0..20 {
        number.set(number.get() + 1);
        let ahead = trio.block(wrong, async |cluster| written(cluster, number.get()).await);
        assert_about(ahead, 0);
    }
    for node in trio.running() {
        assert_about(trio.node(node).now().0 as i64 - wall(), 0);
    }
}

#[test]
fn a_cluster_elected_anew_with_one_wrong_clock_keeps_its_time() {
    let offsets = offsets(0);
    let mut trio = Trio::three(configure(&offsets));
    trio.block(1, async |cluster| written(cluster, 1).await);
    let dead = trio.leader();
    for node in trio.running() {
        if node != dead {
            set(&offsets, node, 400 * DAY);
            break;
        }
    }
    // Two voters are left, and nobody can know which of both is right.
    trio.kill(dead);
    let alive = trio.running()[0];
    assert_about(trio.block(alive, async |cluster| written(cluster, 2).await), 0);
    let leader = trio.leader();
    until("the clocks were compared", || {
        (trio.node(leader).status().clock.members.len() == 2).then_some(())
    });
    assert_about(trio.block(alive, async |cluster| written(cluster, 3).await), 0);
}

#[test]
fn a_cluster_that_was_stopped_for_a_week_comes_back_to_real_time() {
    let offsets = offsets(-7 * DAY);
    let mut trio = Trio::three(configure(&offsets));
    assert_about(trio.block(1, async |cluster| written(cluster, 1).await), -7 * DAY);
    for node in trio.running() {
        trio.kill(node);
        set(&offsets, node, 0);
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
    let number = std::cell::Cell::new(10);
    until("the week has passed", || {
        number.set(number.get() + 1);
        let ahead = trio.block(1, async |cluster| written(cluster, number.get()).await);
        assert!(ahead < 60_000, "{ahead}");
        (ahead > -60_000).then_some(())
    });
}

#[test]
fn a_single_node_takes_a_week_for_a_stop_and_a_year_for_a_wrong_clock() {
    let offsets = offsets(-7 * DAY);
    let mut trio = Trio::found(configure(&offsets));
    assert_about(trio.block(1, async |cluster| written(cluster, 1).await), -7 * DAY);
    trio.stop(1);
    set(&offsets, 1, 0);
    trio.start(1);
    assert_about(trio.block(1, async |cluster| written(cluster, 2).await), 0);
    trio.stop(1);
    set(&offsets, 1, 400 * DAY);
    trio.start(1);
    assert_about(trio.block(1, async |cluster| written(cluster, 3).await), 0);
    let offset = until("it says so", || {
        trio.node(1).status().clock.offset_millis.filter(|offset| *offset > DAY)
    });
    assert_about(offset, 400 * DAY);
    // While it runs, no step of its wall clock is followed at once.
    set(&offsets, 1, 7 * DAY);
    assert_about(trio.block(1, async |cluster| written(cluster, 4).await), 0);
}

#[test]
fn a_deletion_does_not_wait_for_a_member_that_hangs() {
    let trio = Trio::three(|_| {});
    let (leader, hangs) = (trio.leader(), trio.follower());
    let other = trio.running().into_iter().find(|node| ![leader, hangs].contains(node)).unwrap();
    trio.gate(hangs).silence();
    for node in [leader, other] {
        let quick = Duration::from_millis(250);
        until("the silent member is not waited for", || {
            trio.block(node, async |cluster| {
                let settled = tokio::time::timeout(quick, cluster.settle()).await;
                settled.ok()
            })
        });
    }
}
