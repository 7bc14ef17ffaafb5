//! `nora check`: the data of a node that does not run.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nora_app::ports::blobs::{BlobCopy, Blobs};
use nora_blobs::LocalBlobs;
use nora_cluster::{Alone, Cluster};
use nora_domain::{Key, NodeId, NodeProfile, Placement, Record, recount::Recount};
use nora_trust::Identity;
use tracing::warn;

use super::adapters::lock_data_dir;
use super::error::ServeError;
use super::settings::{blobs_config, cluster_config};
use nora_config::Config;

/// What [`check`] found.
pub struct Checked {
    /// Rows of metadata.
    pub rows: u64,
    /// Live blobs.
    pub blobs: u64,
    /// What is wrong, a sentence each.
    pub findings: Vec<String>,
}

/// How long a member that is looked at alone may take to apply what its log has committed.
const SETTLE: Duration = Duration::from_secs(3);

/// Opens the metadata of a node by itself. Nobody is asked and nobody is told: what a member of a larger cluster shows is
/// what it had applied.
async fn open(config: &Config, node: NodeId) -> Result<Cluster, ServeError> {
    let profile = NodeProfile {
        cluster_address: config.cluster.listen.to_string(),
        ..NodeProfile::default()
    };
    let opened = Cluster::open(cluster_config(config, node, profile), Arc::new(Alone)).await;
    let cluster = opened.map_err(ServeError::Metadata)?;
    let deadline = tokio::time::Instant::now() + SETTLE;
    loop {
        let status = cluster.status();
        let settled = status.applied_index == status.log_index;
        if settled || tokio::time::Instant::now() > deadline {
            return Ok(cluster);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks the data of a node that does not run: the metadata against itself, and that every live blob is there with
/// its size. Contents are not read again. Memory grows with the number of rows.
pub async fn check(config: &Config) -> Result<Checked, ServeError> {
    let data_dir = &config.storage.data_dir;
    if !data_dir.is_dir() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(ServeError::DataDir { path: data_dir.clone(), source });
    }
    let _lock = lock_data_dir(data_dir)?;
    let identity = Identity::load(data_dir).map_err(ServeError::Identity)?;
    let node = identity.map_or(NodeId(1), |identity| identity.node());
    let cluster = open(config, node).await?;
    let read = cluster.inspect(move |head, rows| {
        let (mut recount, mut live, mut count) = (Recount::default(), Vec::new(), 0);
        for row in rows {
            let (key, record) = row?;
            recount.add(&key, &record);
            count += 1;
            if let (Key::Blob(digest), Record::Blob(blob)) = (key, record) {
                // Copies of other nodes, and those in a bucket, are not here to be looked at.
                if matches!(&blob.placement, Placement::Nodes(holders) if holders.contains(&node)) {
                    live.push(BlobCopy {
                        digest,
                        generation: blob.generation,
                        size: blob.size,
                        chunk_root: blob.chunk_root,
                        placement: blob.placement,
                    });
                }
            }
        }
        Ok((recount.finish(head), live, count))
    });
    let (found, live, rows) = read.await.flatten().map_err(ServeError::Unreadable)?;
    let mut findings: Vec<String> = found.iter().map(ToString::to_string).collect();
    // A node that keeps its blobs in a bucket has none here, and its folders are laid out otherwise.
    if !live.is_empty() {
        let blobs = LocalBlobs::open(blobs_config(config, node)).map_err(ServeError::Blobs)?;
        look_for(&blobs, &live, &mut findings).await;
    }
    if let Err(error) = cluster.shutdown().await {
        warn!(%error, "the metadata was not closed in order");
    }
    Ok(Checked { rows, blobs: live.len() as u64, findings })
}

async fn look_for(blobs: &dyn Blobs, live: &[BlobCopy], findings: &mut Vec<String>) {
    for copy in live {
        let digest = copy.digest;
        if let Err(error) = blobs.open(copy.clone()).await {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            findings.push(format!("blob {digest}: {error}{}", cause.unwrap_or_default()));
        }
    }
}
