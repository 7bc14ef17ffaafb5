//! What a node does beside answering requests: counting, dropping what expired, sweeping.

use std::sync::Arc;
use std::time::Duration;

use nora_blobs::LocalBlobs;
use nora_cluster::{Cluster, PositionedEvent};
use nora_domain::event::Event;
use tokio::sync::broadcast;
use tracing::{debug, info, warn};

use crate::api::Api;
use crate::metrics::Metrics;

/// How often expired uploads are looked for.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);


pub(super) fn fill_gauges(metrics: &Metrics, cluster: Arc<Cluster>) {
    let index = |index: Option<u64>| i64::try_from(index.unwrap_or(0)).unwrap_or(i64::MAX);
    metrics.on_read(move |gauges| {
        let status = cluster.status();
        gauges.raft_applied_index.set(index(status.applied_index));
        gauges.raft_log_index.set(index(status.log_index));
        gauges.raft_snapshot_index.set(index(status.snapshot_index));
        gauges.raft_term.set(index(Some(status.term)));
        gauges.raft_is_leader.set(i64::from(status.leader == Some(status.node)));
        let usage = cluster.usage();
        let memory = usage.cache_bytes + usage.write_buffer_bytes + usage.table_reader_bytes;
        gauges.metadata_memory_bytes.set(index(Some(memory)));
        gauges.metadata_disk_bytes.set(index(Some(usage.log_disk_bytes + usage.state_disk_bytes)));
        if let Some(bytes) = resident_bytes() {
            gauges.resident_memory_bytes.set(index(Some(bytes)));
        }
    });
}

/// Resident memory of this process, as the kernel tells it.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_bytes())
}

fn page_bytes() -> u64 {
    // Linux on every machine NORA is built for; other page sizes would only scale one gauge.
    4096
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::RepositoryCreated { .. } => "repository_created",
        Event::RepositoryRemoved { .. } => "repository_removed",
        Event::BlobLinked { .. } => "blob_linked",
        Event::BlobUnlinked { .. } => "blob_unlinked",
        Event::ArtifactPushed { .. } => "artifact_pushed",
        Event::ArtifactDeleted { .. } => "artifact_deleted",
        Event::TagMoved { .. } => "tag_moved",
        Event::TagDeleted { .. } => "tag_deleted",
    }
}

pub(super) async fn count_events(mut events: broadcast::Receiver<PositionedEvent>, metrics: Arc<Metrics>) {
    loop {
        match events.recv().await {
            Ok(PositionedEvent { position, index, event }) => {
                metrics.event(kind(&event));
                debug!(position, index, ?event, "event");
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => metrics.events_missed(missed),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

pub(super) async fn expire_uploads(api: Arc<Api>) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        match api.registry.expire_uploads().await {
            Ok(0) => {}
            Ok(sessions) => info!(sessions, "expired uploads dropped"),
            Err(error) => warn!(%error, "expired uploads were not dropped; trying again later"),
        }
    }
}

/// Removes copies that earlier starts wrote and the log never took.
pub(super) async fn sweep_orphans(api: Arc<Api>, blobs: Arc<LocalBlobs>, cluster: Arc<Cluster>) {
    let runtime = tokio::runtime::Handle::current();
    let swept = tokio::task::spawn_blocking(move || {
        blobs.reconcile(cluster.epoch(), |digest, generation| {
            runtime
                .block_on(api.registry.is_live_copy(*digest, generation))
                .map_err(|error| Box::new(error) as _)
        })
    });
    match swept.await {
        Ok(Ok(swept)) if swept.removed > 0 => {
            info!(removed = swept.removed, live = swept.live, "orphaned blobs removed");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            warn!(%error, "the sweep of orphaned blobs stopped; the next start tries again")
        }
        Err(error) => debug!(%error, "the sweep of orphaned blobs was cut short"),
    }
}
