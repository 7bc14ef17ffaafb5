//! `nora check`: the data of a node that does not run.

use std::io;

use nora_app::ports::blobs::Blobs;
use nora_blobs::LocalBlobs;
use nora_cluster::Cluster;
use nora_domain::audit::Audit;
use nora_domain::record::{Key, Record};
use tracing::warn;

use super::adapters::lock_data_dir;
use super::error::ServeError;
use super::settings::{blobs_config, cluster_config};
use crate::config::Config;

/// What [`check`] found.
pub struct Checked {
    /// Rows of metadata.
    pub rows: u64,
    /// Live blobs.
    pub blobs: u64,
    /// What is wrong, a sentence each.
    pub findings: Vec<String>,
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
    let cluster = Cluster::start(cluster_config(config)).await.map_err(ServeError::Metadata)?;
    let read = cluster.inspect(|rows| {
        let (mut audit, mut live, mut count) = (Audit::default(), Vec::new(), 0);
        for row in rows {
            let (key, record) = row?;
            audit.add(&key, &record);
            count += 1;
            if let (Key::Blob(digest), Record::Blob(blob)) = (key, record) {
                live.push((digest, blob.generation, blob.size));
            }
        }
        Ok((audit.finish(), live, count))
    });
    let (found, live, rows) = read.await.flatten().map_err(ServeError::Unreadable)?;
    let mut findings: Vec<String> = found.iter().map(ToString::to_string).collect();
    let blobs = LocalBlobs::open(blobs_config(config)).map_err(ServeError::Blobs)?;
    let blobs: &dyn Blobs = &blobs;
    for (digest, generation, size) in &live {
        if let Err(error) = blobs.open(*digest, *generation, *size).await {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            findings.push(format!("blob {digest}: {error}{}", cause.unwrap_or_default()));
        }
    }
    if let Err(error) = cluster.shutdown().await {
        warn!(%error, "the metadata was not closed in order");
    }
    Ok(Checked { rows, blobs: live.len() as u64, findings })
}

