//! Copies find their places after nodes went, came, drained, or lost something.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nora_app::jobs::Next;
use nora_app::ports::blobs::BlobCopy;
use nora_domain::Standing;

use crate::cluster::{Cluster, eventually};
use crate::support::{MIB, bytes};

const DAY: Duration = Duration::from_secs(86_400);

/// Blobs of several sizes, pushed through all nodes in turn.
async fn pushed(cluster: &mut Cluster, blobs: u64) -> Vec<BlobCopy> {
    let mut copies = Vec::new();
    for n in 0..blobs {
        let len = [10, 70_000, MIB + 3, 2 * MIB][n as usize % 4];
        let node = cluster.nodes[n as usize % cluster.nodes.len()].id.0;
        copies.push(cluster.push(node, &bytes(len, n)).await);
    }
    copies
}

/// Every blob reads right from every node that runs.
async fn all_read(cluster: &Cluster, copies: &[BlobCopy], readers: &[u64]) {
    for (n, copy) in copies.iter().enumerate() {
        let now = BlobCopy { placement: cluster.row(copy.digest).placement, ..copy.clone() };
        for reader in readers {
            let read = cluster.node(*reader).read(&now).await;
            assert!(read == bytes(copy.size as usize, n as u64), "blob {n} from {reader}");
        }
    }
}

#[tokio::test]
async fn what_a_lost_node_held_is_made_anew_elsewhere() {
    let mut cluster = Cluster::of(4, 3).await;
    let copies = pushed(&mut cluster, 12).await;
    cluster.settled(&copies).await;
    cluster.kill(3);
    cluster.stand(3, Standing::Away).await;
    // Holders that are away stay listed; those who should hold it now do.
    eventually("each blob is on the three that are left", async || {
        copies.iter().all(|copy| {
            [1, 2, 4].iter().all(|id| {
                cluster.holders(copy.digest).contains(id)
                    && cluster.node(*id).file_of(copy).exists()
            })
        })
    })
    .await;
    all_read(&cluster, &copies, &[1, 2, 4]).await;
    // Removed for good, it is forgotten.
    cluster.stand(3, Standing::Removed).await;
    cluster.settled(&copies).await;
}

#[tokio::test]
async fn a_node_that_comes_back_takes_its_place_again() {
    let mut cluster = Cluster::of(4, 2).await;
    let copies = pushed(&mut cluster, 8).await;
    cluster.settled(&copies).await;
    cluster.kill(2);
    cluster.stand(2, Standing::Away).await;
    eventually("two others hold each blob", async || {
        copies
            .iter()
            .all(|copy| cluster.holders(copy.digest).iter().filter(|id| **id != 2).count() >= 2)
    })
    .await;
    cluster.restart(2).await;
    cluster.settled(&copies).await;
    all_read(&cluster, &copies, &[1, 2, 3, 4]).await;
}

#[tokio::test]
async fn new_nodes_take_their_share_and_others_give_it_up() {
    let mut cluster = Cluster::of(2, 2).await;
    let copies = pushed(&mut cluster, 16).await;
    cluster.settled(&copies).await;
    cluster.add().await;
    cluster.add().await;
    cluster.settled(&copies).await;
    for id in 1..=4 {
        let held = copies.iter().filter(|copy| cluster.holders(copy.digest).contains(&id)).count();
        assert!(held > 0, "node {id} holds nothing of 16");
    }
    all_read(&cluster, &copies, &[1, 2, 3, 4]).await;
    eventually("the reports say so", async || {
        (1..=4).all(|id| {
            let counts = cluster.node(id).blobs.counts();
            let held = copies.iter().filter(|c| cluster.holders(c.digest).contains(&id)).count();
            (counts.held, counts.missing, counts.excess) == (held as u64, 0, 0)
        })
    })
    .await;
}

#[tokio::test]
async fn a_draining_node_ends_with_nothing_that_others_lack() {
    let mut cluster = Cluster::of(4, 3).await;
    let copies = pushed(&mut cluster, 12).await;
    cluster.settled(&copies).await;
    cluster.stand(1, Standing::Draining).await;
    let asked = cluster.node(4).blobs.clone();
    eventually("no blob is short without it", async || {
        asked.short_without(nora_domain::NodeId(1)).await.unwrap() == 0
    })
    .await;
    cluster.settled(&copies).await;
    assert_eq!(cluster.node(1).files("blobs"), Vec::<String>::new());
    all_read(&cluster, &copies, &[1, 2, 3, 4]).await;
    // With all others draining, too, everything stays where it is.
    for id in 2..=4 {
        cluster.stand(id, Standing::Draining).await;
    }
    cluster.node(2).missed();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(copies.iter().all(|copy| cluster.holders(copy.digest) == [2, 3, 4]));
    all_read(&cluster, &copies, &[2]).await;
}

#[tokio::test]
async fn a_flipped_bit_is_found_set_aside_and_made_good() {
    let mut cluster = Cluster::of(3, 3).await;
    let copies = pushed(&mut cluster, 4).await;
    cluster.settled(&copies).await;
    let sound = cluster.node(2).blobs.scrub_now().await.unwrap();
    assert_eq!((sound.copies, sound.damaged), (4, 0));
    let (victim, file) = (&copies[2], cluster.node(2).file_of(&copies[2]));
    let damaged = fs::OpenOptions::new().write(true).open(&file).unwrap();
    damaged.write_all_at(&[0xff, 0xff, 0xff], MIB as u64).unwrap();
    damaged.sync_all().unwrap();
    // A table that is gone is made anew; the bytes are right.
    let table = cluster.node(2).file_of(&copies[3]).display().to_string() + ".chunks";
    fs::remove_file(&table).unwrap();

    let found = cluster.node(2).blobs.scrub_now().await.unwrap();
    assert_eq!((found.copies, found.damaged), (4, 1));
    assert!(fs::exists(&table).unwrap());
    eventually("the damaged copy is set aside", async || {
        cluster.node(2).files("quarantine").len() == 1
    })
    .await;
    eventually("a good one is in its place", async || {
        fs::read(&file).is_ok_and(|bytes_now| bytes_now == bytes(victim.size as usize, 2))
    })
    .await;
    cluster.settled(&copies).await;
    let counts = cluster.node(2).blobs.counts();
    assert_eq!((counts.quarantined, counts.tables_rebuilt), (1, 1));
    all_read(&cluster, &copies, &[1, 2, 3]).await;
}

#[tokio::test]
async fn a_short_or_missing_file_is_read_from_others_and_made_good() {
    let mut cluster = Cluster::of(3, 3).await;
    let copies = pushed(&mut cluster, 4).await;
    cluster.settled(&copies).await;
    let short = cluster.node(1).file_of(&copies[3]);
    fs::OpenOptions::new().write(true).open(&short).unwrap().set_len(4096).unwrap();
    fs::remove_file(cluster.node(1).file_of(&copies[1])).unwrap();
    all_read(&cluster, &copies, &[1]).await;
    eventually("the file is whole again", async || {
        fs::metadata(&short).is_ok_and(|metadata| metadata.len() == copies[3].size)
    })
    .await;
    cluster.settled(&copies).await;
    assert_eq!(cluster.node(1).files("quarantine").len(), 1);
}

#[tokio::test]
async fn what_was_lost_while_a_node_was_down_is_found_at_its_start() {
    let mut cluster = Cluster::of(3, 3).await;
    let copies = pushed(&mut cluster, 6).await;
    cluster.settled(&copies).await;
    cluster.kill(3);
    for copy in &copies[..3] {
        fs::remove_file(cluster.node(3).file_of(copy)).unwrap();
    }
    cluster.restart(3).await;
    cluster.settled(&copies).await;
    all_read(&cluster, &copies, &[3]).await;
}

#[tokio::test]
async fn the_last_copy_comes_back_with_its_node() {
    let mut cluster = Cluster::of(1, 1).await;
    let copies = pushed(&mut cluster, 1).await;
    let (copy, file) = (&copies[0], cluster.node(1).file_of(&copies[0]));
    let aside = cluster.node(1).path("aside");
    fs::rename(&file, &aside).unwrap();
    cluster.node(1).missed();
    eventually("the log knows that it is lost", async || cluster.holders(copy.digest).is_empty())
        .await;
    fs::rename(&aside, &file).unwrap();
    cluster.settled(&copies).await;
    all_read(&cluster, &copies, &[1]).await;
}

#[tokio::test]
async fn copies_that_no_log_names_go_once_their_start_is_over() {
    let mut cluster = Cluster::of(3, 3).await;
    let (_, orphan) = cluster.upload(1, &bytes(MIB + 1, 1)).await;
    let orphan = orphan.unwrap();
    let kept = cluster.push(1, &bytes(10, 2)).await;
    cluster.settled(std::slice::from_ref(&kept)).await;
    let holder = (2..=3).find(|id| cluster.node(*id).file_of(&orphan).exists()).unwrap();
    // Its epoch runs: node 1 may be about to commit it.
    for _ in 0..3 {
        cluster.node(holder).missed();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(cluster.node(holder).file_of(&orphan).exists());
    }
    cluster.restart(1).await;
    eventually("the orphans are gone", async || {
        cluster.nodes.iter().all(|node| !node.file_of(&orphan).exists())
    })
    .await;
    cluster.settled(&[kept]).await;
}

#[tokio::test]
async fn an_idle_node_reads_no_rows_and_a_round_reads_each_row_once() {
    let mut cluster = Cluster::of(1, 1).await;
    let mut copies = Vec::new();
    for n in 0..700 {
        copies.push(cluster.push(1, &n.to_string().into_bytes()).await);
    }
    cluster.settled(&copies).await;
    let held = || cluster.node(1).blobs.counts().held == 700;
    eventually("all are counted", async || held()).await;
    let position = cluster.node(1).path("compare.json");
    let is_over =
        || fs::read_to_string(&position).is_ok_and(|text| text.contains("\"round\":null"));
    eventually("the first round is over", async || is_over()).await;
    // Sixty days go by on the node's clock, as fast as the job's pauses allow.
    let node = cluster.node(1);
    let compare = node.blobs.jobs().into_iter().find(|job| job.schedule().name == "blobs-compare");
    let (compare, mut passed, mut turns) = (compare.unwrap(), Duration::ZERO, 0);
    cluster.log.reads();
    while passed < 60 * DAY {
        let turn = compare.turn().await.unwrap();
        let Next::After(pause) = turn.next else { panic!("{turn:?}") };
        node.clock.advance(u64::try_from(pause.as_millis()).unwrap() + 1);
        (passed, turns) = (passed + pause, turns + 1);
        assert!(turns < 3_000, "a turn each {:?}", passed / turns);
    }
    let (scanned, got) = cluster.log.reads();
    // Two rounds of 700 rows and a few pages; the nodes are read for each page.
    assert!((700..=2_200).contains(&scanned), "{scanned} rows scanned in sixty days");
    assert!(got <= 4, "{got} rows read one by one for 700 files");
    let a_minute = scanned as f64 / (passed.as_secs_f64() / 60.0);
    assert!(a_minute < 0.1, "{a_minute} rows a minute");

    fs::remove_file(&position).unwrap();
    cluster.node(1).missed();
    eventually("the second round is over", async || is_over()).await;
    let (scanned, got) = cluster.log.reads();
    // A page ends within a folder or with one, and the nodes are read for the view.
    assert!((700..=1_000).contains(&scanned), "{scanned} rows scanned");
    assert!(got <= 2, "{got} rows read one by one for 700 files");
}
