//! Acknowledged writes survive SIGKILL.
//!
//! The test starts itself as a process that proposes and prints what was acknowledged, kills it in the middle, and
//! looks for every printed write. (SIGKILL does not test syncs, for the kernel keeps what was written; it tests that
//! nothing acknowledged was still in this process.)

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nora_app::ports::metadata::Metadata;
use nora_cluster::Cluster;
use nora_domain::{Key, UploadId};
use tempfile::TempDir;

use crate::support::{assert_sound, cluster_state, config, life, open_upload, repository};

const DIRECTORY: &str = "NORA_TEST_KILL_DIRECTORY";
const FIRST: &str = "NORA_TEST_KILL_FIRST";
const NAME: &str = "kill::acknowledged_writes_survive_sigkill";

#[test]
fn acknowledged_writes_survive_sigkill() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        propose_until_killed(directory.as_ref());
        return;
    }
    let directory = TempDir::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..3_u64 {
        acknowledged.extend(run_and_kill(&directory, round));
        life(config(directory.path()), async |cluster| {
            assert_eq!(cluster.epoch().0, 2 * round + 2, "the killed process had an epoch too");
            for number in &acknowledged {
                let row = cluster
                    .get(Key::Upload(repository(0).tenant, UploadId((*number).into())))
                    .await
                    .unwrap();
                assert!(row.is_some(), "write {number} was acknowledged and is gone");
            }
            let (head, rows) = cluster_state(&cluster).await;
            assert_sound(&head, &rows);
        });
    }
    assert!(acknowledged.len() >= 900);
}

fn run_and_kill(directory: &TempDir, round: u64) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(DIRECTORY, directory.path())
        .env(FIRST, (round * 1_000_000).to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // The last line may be cut; libtest prints lines of its own.
        let Ok(line) = line else { break };
        let number = line.strip_prefix("acknowledged ").and_then(|line| line.strip_suffix(" ."));
        acknowledged.extend(number.and_then(|number| number.parse::<u64>().ok()));
        if acknowledged.len() >= 300 && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the process ended by itself after {} writes", acknowledged.len());
    acknowledged
}

fn propose_until_killed(directory: &std::path::Path) {
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    life(config(directory), async |cluster: Arc<Cluster>| {
        let next = Arc::new(AtomicU64::new(first));
        let proposers: Vec<_> =
            (0..16).map(|_| tokio::spawn(propose_forever(cluster.clone(), next.clone()))).collect();
        for proposer in proposers {
            proposer.await.unwrap();
        }
    });
}

async fn propose_forever(cluster: Arc<Cluster>, next: Arc<AtomicU64>) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        cluster.propose(open_upload(number)).await.unwrap().unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {number} .").unwrap();
        out.flush().unwrap();
    }
}
