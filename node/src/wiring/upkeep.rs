//! What a node does as events come, and the gauges that are filled when they are read. Periodic work is in `jobs`.

use std::sync::Arc;

use nora_app::Registry;
use nora_app::jobs::Jobs;
use nora_cluster::{Cluster, PositionedEvent};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tracing::debug;

use super::changes::Followed;
use super::storage::Storage;
use crate::memory;
use crate::telemetry;
use nora_http::metrics::Metrics;

/// Begins what follows events; it ends with `tasks`.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    storage: &Storage,
    cluster: &Arc<Cluster>,
    registry: &Registry,
    metrics: &Arc<Metrics>,
) {
    tasks.spawn(count_events(cluster.subscribe(), metrics.clone()));
    if let Storage::Nodes(replicated) = storage {
        let changes = Arc::new(Followed::new(registry.clone(), cluster));
        let repairing = replicated.clone();
        tasks.spawn(async move { repairing.run(changes).await });
    }
}

pub(super) fn fill_gauges(
    metrics: &Metrics,
    cluster: Arc<Cluster>,
    storage: Storage,
    jobs: Arc<dyn Jobs>,
) {
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
        gauges.raft_voters.set(index(Some(status.voters.len() as u64)));
        gauges
            .raft_lag_entries
            .set(index(status.replication.values().map(|member| member.lag_entries).max()));
        gauges.raft_state_differences.set(index(Some(status.differences)));
        gauges.clock_offset_millis.set(status.clock.offset_millis.unwrap_or(0));
        gauges.raft_is_joint.set(i64::from(status.is_joint));
        if let Storage::Nodes(replicated) = &storage {
            let counts = replicated.counts();
            gauges.blobs_held.set(index(Some(counts.held)));
            gauges.blobs_missing.set(index(Some(counts.missing)));
            gauges.blobs_excess.set(index(Some(counts.excess)));
            gauges.blobs_quarantined.set(index(Some(counts.quarantined)));
            gauges.blobs_replicated_bytes.set(index(Some(counts.replicated_bytes)));
            gauges.blobs_repaired_bytes.set(index(Some(counts.repaired_bytes)));
            gauges.blobs_fetched_bytes.set(index(Some(counts.fetched_bytes)));
            gauges.blobs_scrubbed_bytes.set(index(Some(counts.scrubbed_bytes)));
            gauges.blob_cache_bytes.set(index(Some(counts.cache_used_bytes)));
        }
        jobs.list().iter().for_each(|job| gauges.job(job));
        if let Some(bytes) = memory::resident_bytes() {
            gauges.resident_memory_bytes.set(index(Some(bytes)));
        }
        gauges.log_lines_lost.set(index(Some(telemetry::lines_lost())));
    });
}

async fn count_events(mut events: broadcast::Receiver<PositionedEvent>, metrics: Arc<Metrics>) {
    loop {
        match events.recv().await {
            Ok(PositionedEvent { position, index, event, .. }) => {
                metrics.event(event.name());
                debug!(position, index, ?event, "event");
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => metrics.events_missed(missed),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
