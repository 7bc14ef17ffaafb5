//! What a node does beside answering requests: counting, dropping what expired, sweeping.

use std::sync::Arc;
use std::time::Duration;

use nora_app::Registry;
use nora_app::ports::BoxError;
use nora_app::ports::clock::Clock;
use nora_app::ports::metadata::Metadata;
use nora_blobs::ReplicatedBlobs;
use nora_cluster::{Cluster, PositionedEvent};
use nora_domain::{Event, Key, Rows, Timestamp, UploadId};
use nora_objects::ObjectBlobs;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::adapters::SystemClock;
use super::storage::Storage;
use crate::api::Api;
use crate::identity::{Guard, Policies};
use crate::metrics::Metrics;

/// How often expired uploads are looked for.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of the journal that stay in the state; older entries are sealed.
const JOURNAL_BYTES_MAX: u64 = 8 << 20;
/// Tenants that are read at a time.
const TENANTS_PAGE: usize = 256;
/// How often abandoned parts are looked for in the bucket.
const ABANDONED_INTERVAL: Duration = Duration::from_secs(3600);

/// Begins what goes on beside the requests; it ends with `tasks`.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    api: &Arc<Api>,
    storage: &Storage,
    cluster: &Arc<Cluster>,
    metrics: &Arc<Metrics>,
) {
    tasks.spawn(count_events(cluster.subscribe(), metrics.clone()));
    tasks.spawn(expire_uploads(api.clone()));
    match storage {
        Storage::Nodes(replicated) => {
            tasks.spawn(tell_events(cluster.subscribe(), replicated.clone()));
            let repairing = replicated.clone();
            tasks.spawn(async move { repairing.run().await });
        }
        Storage::Bucket(objects) => {
            tasks.spawn(sweep_abandoned(api.clone(), objects.clone(), cluster.clone()));
        }
    }
}

/// Tells the blobs where to look.
async fn tell_events(mut events: broadcast::Receiver<PositionedEvent>, blobs: ReplicatedBlobs) {
    loop {
        match events.recv().await {
            Ok(PositionedEvent { event, .. }) => blobs.notice(&event),
            Err(broadcast::error::RecvError::Lagged(_)) => blobs.missed(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Drops parts of uploads that a node left in the bucket and nobody will end: they are older than any session may be, and
/// no node has a lease on them.
async fn sweep_abandoned(api: Arc<Api>, objects: ObjectBlobs, cluster: Arc<Cluster>) {
    let mut ticks = tokio::time::interval(ABANDONED_INTERVAL);
    let oldest_millis = 2 * api.registry.settings().upload_expiry_millis;
    loop {
        ticks.tick().await;
        let now = SystemClock.now();
        let before = Timestamp(now.0.saturating_sub(oldest_millis));
        if let Err(error) = drop_abandoned(&objects, &cluster, before).await {
            warn!(%error, "abandoned uploads stay in the bucket for now");
        }
    }
}

async fn drop_abandoned(
    objects: &ObjectBlobs,
    cluster: &Cluster,
    before: Timestamp,
) -> Result<(), BoxError> {
    let abandoned = objects.abandoned(before).await?;
    if abandoned.is_empty() {
        return Ok(());
    }
    // Whatever lease there was when the list was made is seen below.
    cluster.linearize().await?;
    for upload in abandoned {
        if !is_leased(cluster, upload.id).await? {
            info!(
                id = format!("{:032x}", upload.id.0),
                "dropping the parts of an abandoned upload"
            );
            objects.abort(&upload).await?;
        }
    }
    Ok(())
}

/// Whether the cluster knows of an upload session, whichever tenant's it is.
async fn is_leased(cluster: &Cluster, upload: UploadId) -> Result<bool, BoxError> {
    let mut after = None;
    loop {
        let tenants = cluster.scan(Rows::Tenants { after: after.take() }, TENANTS_PAGE).await?;
        let is_last = tenants.len() < TENANTS_PAGE;
        for (key, _) in tenants {
            let Key::Tenant(tenant) = key else { continue };
            if cluster.get(Key::Upload(tenant.clone(), upload)).await?.is_some() {
                return Ok(true);
            }
            after = Some(tenant);
        }
        if is_last {
            return Ok(false);
        }
    }
}

pub(super) fn fill_gauges(metrics: &Metrics, cluster: Arc<Cluster>, storage: Storage) {
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

async fn count_events(mut events: broadcast::Receiver<PositionedEvent>, metrics: Arc<Metrics>) {
    loop {
        match events.recv().await {
            Ok(PositionedEvent { position, index, event }) => {
                metrics.event(event.name());
                debug!(position, index, ?event, "event");
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => metrics.events_missed(missed),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Lets no revoked credential and no old policy outlive the entry that ended it.
pub(super) async fn reload_identity(
    mut events: broadcast::Receiver<PositionedEvent>,
    guard: Arc<Guard>,
) {
    loop {
        let changed = match events.recv().await {
            Ok(PositionedEvent { event, .. }) => matches!(*event, Event::IdentityChanged),
            Err(broadcast::error::RecvError::Lagged(_)) => true,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if changed && let Err(error) = guard.reload().await {
            warn!(%error, "the policy that the cluster runs by cannot be used here; changes are refused until it can");
        }
    }
}

/// What the leader does for the journal: seals its oldest part, and forgets sealed parts that are older than the policy
/// keeps them.
pub(super) async fn keep_journal(
    registry: Registry,
    policies: Arc<Policies>,
    cluster: Arc<Cluster>,
) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let status = cluster.status();
        if status.leader != Some(status.node) {
            continue;
        }
        let kept_secs = policies.in_force().policy().document().audit.retention_seconds;
        if let Err(error) = keep_journal_once(&registry, kept_secs.saturating_mul(1_000)).await {
            warn!(%error, "the journal is not sealed; it stays in the state until it can be");
        }
    }
}

async fn keep_journal_once(registry: &Registry, kept_millis: u64) -> Result<(), nora_app::Error> {
    while registry.seal_journal(JOURNAL_BYTES_MAX).await? {}
    while registry.drop_segments(kept_millis).await? {}
    Ok(())
}

async fn expire_uploads(api: Arc<Api>) {
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
