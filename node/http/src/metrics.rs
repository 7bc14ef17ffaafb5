//! What is counted, in Prometheus' terms: base units, few labels, no repository names.
//!
//! Counting a request costs a few atomic additions: routes are a closed set, which the surfaces name, so every series exists
//! from the start.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::StatusCode;
use nora_app::jobs::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// A kind of request: the format whose address it came to, and a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The format's name; empty for NORA's own addresses.
    pub format: &'static str,
    /// What its requests are counted as.
    pub name: &'static str,
}

impl Route {
    /// A kind of request of NORA's own.
    pub const fn own(name: &'static str) -> Self {
        Self { format: "", name }
    }
}

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TenantLabels {
    /// The tenant's name.
    pub tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    format: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    format: &'static str,
    route: &'static str,
}

impl From<Route> for RouteLabels {
    fn from(route: Route) -> Self {
        Self { format: route.format, route: route.name }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    job: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhyLabels {
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    kind: &'static str,
}

/// The buckets of OpenTelemetry's `http.server.request.duration`, in seconds.
const DURATION_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

type Refresh = Box<dyn Fn(&Gauges) + Send + Sync>;

/// Values that are read when they are asked for.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Position of the last applied log entry.
    pub raft_applied_index: Gauge,
    /// Position of the last log entry.
    pub raft_log_index: Gauge,
    /// Position of the last snapshot.
    pub raft_snapshot_index: Gauge,
    /// The leader's term.
    pub raft_term: Gauge,
    /// 1 if this node leads.
    pub raft_is_leader: Gauge,
    /// Voters in the membership.
    pub raft_voters: Gauge,
    /// Entries that the slowest member is not known to have; 0 where this node does not lead.
    pub raft_lag_entries: Gauge,
    /// How often this node, leading, found a member with another state than its own.
    pub raft_state_differences: Gauge,
    /// Milliseconds by which this node's wall clock is ahead of most voters' clocks; 0 if that is unknown.
    pub clock_offset_millis: Gauge,
    /// 1 while a change of the voters is not finished.
    pub raft_is_joint: Gauge,
    /// Blobs that this node holds a copy of.
    pub blobs_held: Gauge,
    /// Blobs that it should hold and does not yet.
    pub blobs_missing: Gauge,
    /// Blobs that it should give up.
    pub blobs_excess: Gauge,
    /// Damaged copies set aside since the start.
    pub blobs_quarantined: Gauge,
    /// Bytes sent to other nodes as copies.
    pub blobs_replicated_bytes: Gauge,
    /// Bytes fetched from other nodes to restore or move copies.
    pub blobs_repaired_bytes: Gauge,
    /// Bytes fetched from other nodes for clients.
    pub blobs_fetched_bytes: Gauge,
    /// Bytes that scrubbing has read again.
    pub blobs_scrubbed_bytes: Gauge,
    /// Disk space of the cache.
    pub blob_cache_bytes: Gauge,
    /// Memory of this process.
    pub resident_memory_bytes: Gauge,
    /// Log lines that could not be written in time.
    pub log_lines_lost: Gauge,
    /// Memory of the metadata stores.
    pub metadata_memory_bytes: Gauge,
    /// Files of the metadata stores.
    pub metadata_disk_bytes: Gauge,
    /// Bytes stored, a blob in each repository that shows it.
    pub usage_bytes: Gauge,
    /// Artifacts stored.
    pub usage_artifacts: Gauge,
    /// Tags stored.
    pub usage_tags: Gauge,
    /// 1 if this node's file says something else than the policy in force.
    pub policy_file_differs: Gauge,
    /// Unique bytes of a tenant.
    pub tenant_unique_bytes: Family<TenantLabels, Gauge>,
    /// Bytes set aside for a tenant's uploads.
    pub tenant_reserved_bytes: Family<TenantLabels, Gauge>,
    /// Bytes that a tenant may store.
    pub tenant_storage_quota_bytes: Family<TenantLabels, Gauge>,
    /// Artifacts of a tenant.
    pub tenant_artifacts: Family<TenantLabels, Gauge>,
    job_runs: Family<JobLabels, Counter>,
    job_failures: Family<JobLabels, Counter>,
    job_last_duration: Family<JobLabels, Gauge<f64, AtomicU64>>,
    job_last_success: Family<JobLabels, Gauge<f64, AtomicU64>>,
}

impl Gauges {
    /// Shows what a background job has done.
    pub fn job(&self, status: &Status) {
        let labels = JobLabels { job: status.schedule.name };
        self.job_runs.get_or_create(&labels).inner().store(status.runs, Relaxed);
        self.job_failures.get_or_create(&labels).inner().store(status.failures, Relaxed);
        let duration = status.duration.unwrap_or_default().as_secs_f64();
        self.job_last_duration.get_or_create(&labels).set(duration);
        let succeeded_at = status.succeeded_at.map_or(0, |at| at.0);
        self.job_last_success.get_or_create(&labels).set(succeeded_at as f64 / 1_000.0);
    }
}

/// What is counted.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    events: Family<EventLabels, Counter>,
    events_missed: Counter,
    bytes_sent: Counter<u64, AtomicU64>,
    bytes_received: Counter<u64, AtomicU64>,
    connections: Gauge,
    connections_refused: Family<WhyLabels, Counter>,
    gauges: Gauges,
    refresh: Mutex<Option<Refresh>>,
    /// Held while gauges are filled and shown.
    pub scraping: tokio::sync::Mutex<()>,
}

impl Metrics {
    /// Nothing counted yet, of these kinds of requests.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let mut registry = Registry::with_prefix("nora");
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<RouteLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(DURATION_BUCKETS)
        });
        for route in routes {
            drop(durations.get_or_create(&route.into()));
        }
        let events = Family::<EventLabels, Counter>::default();
        let (bytes_sent, bytes_received) = (Counter::default(), Counter::default());
        let connections = Gauge::default();
        let connections_refused = Family::<WhyLabels, Counter>::default();
        let gauges = Gauges::default();
        registry.register(
            "build",
            "The running version",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request's head to its response's head",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register("http_connections", "Open connections", connections.clone());
        registry.register(
            "http_connections_refused",
            "Connections closed because their address, or strangers, had too many",
            connections_refused.clone(),
        );
        registry.register_with_unit(
            "blob_sent",
            "Blob bytes sent to clients",
            Unit::Bytes,
            bytes_sent.clone(),
        );
        registry.register_with_unit(
            "body_received",
            "Request body bytes received from clients",
            Unit::Bytes,
            bytes_received.clone(),
        );
        registry.register("events", "Domain events by kind", events.clone());
        let events_missed = Counter::default();
        registry.register(
            "events_missed",
            "Domain events that this count missed, because they came too fast",
            events_missed.clone(),
        );
        for (name, help, gauge) in [
            (
                "raft_applied_index",
                "Position of the last applied log entry",
                &gauges.raft_applied_index,
            ),
            ("raft_log_index", "Position of the last log entry", &gauges.raft_log_index),
            ("raft_snapshot_index", "Position of the last snapshot", &gauges.raft_snapshot_index),
            ("raft_term", "Term of the current leader", &gauges.raft_term),
            ("raft_is_leader", "1 if this node leads", &gauges.raft_is_leader),
            ("raft_voters", "Members that vote", &gauges.raft_voters),
            (
                "raft_lag_entries",
                "Log entries that the slowest member lacks, where this node leads",
                &gauges.raft_lag_entries,
            ),
            (
                "raft_state_differences",
                "Times since the start that this node, leading, found another state on a member",
                &gauges.raft_state_differences,
            ),
            (
                "clock_offset_millis",
                "Milliseconds by which this node's wall clock is ahead of most voters' clocks",
                &gauges.clock_offset_millis,
            ),
            (
                "raft_is_joint",
                "1 while a change of the voters is not finished",
                &gauges.raft_is_joint,
            ),
            ("blobs_held", "Blobs that this node holds", &gauges.blobs_held),
            ("blobs_missing", "Blobs that this node should hold", &gauges.blobs_missing),
            ("blobs_excess", "Blobs that this node should give up", &gauges.blobs_excess),
            (
                "blobs_quarantined",
                "Damaged copies set aside since the start",
                &gauges.blobs_quarantined,
            ),
            (
                "blobs_replicated_bytes",
                "Bytes sent to other nodes as copies since the start",
                &gauges.blobs_replicated_bytes,
            ),
            (
                "blobs_repaired_bytes",
                "Bytes fetched to restore or move copies since the start",
                &gauges.blobs_repaired_bytes,
            ),
            (
                "blobs_fetched_bytes",
                "Bytes fetched from other nodes for clients since the start",
                &gauges.blobs_fetched_bytes,
            ),
            (
                "blobs_scrubbed_bytes",
                "Bytes of copies read again since the start",
                &gauges.blobs_scrubbed_bytes,
            ),
            ("blob_cache_bytes", "Disk space of the cache", &gauges.blob_cache_bytes),
            ("process_resident_memory_bytes", "Resident memory", &gauges.resident_memory_bytes),
            (
                "log_lines_lost",
                "Log lines that could not be written in time since the start",
                &gauges.log_lines_lost,
            ),
            (
                "metadata_memory_bytes",
                "Memory of the metadata stores",
                &gauges.metadata_memory_bytes,
            ),
            ("metadata_disk_bytes", "Files of the metadata stores", &gauges.metadata_disk_bytes),
            (
                "usage_bytes",
                "Bytes stored, a blob in each repository that shows it",
                &gauges.usage_bytes,
            ),
            ("usage_artifacts", "Artifacts stored", &gauges.usage_artifacts),
            ("usage_tags", "Tags stored", &gauges.usage_tags),
            (
                "policy_file_differs",
                "1 if this node's file says something else than the policy in force",
                &gauges.policy_file_differs,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, family) in [
            (
                "tenant_unique_bytes",
                "Bytes that a tenant stores, each blob once",
                &gauges.tenant_unique_bytes,
            ),
            (
                "tenant_reserved_bytes",
                "Bytes set aside for a tenant's uploads",
                &gauges.tenant_reserved_bytes,
            ),
            (
                "tenant_storage_quota_bytes",
                "Bytes that a tenant may store",
                &gauges.tenant_storage_quota_bytes,
            ),
            ("tenant_artifacts", "Artifacts of a tenant", &gauges.tenant_artifacts),
        ] {
            registry.register(name, help, family.clone());
        }
        register_jobs(&mut registry, &gauges);
        Self {
            registry,
            requests,
            durations,
            events,
            events_missed,
            bytes_sent,
            bytes_received,
            connections,
            connections_refused,
            gauges,
            refresh: Mutex::new(None),
            scraping: tokio::sync::Mutex::default(),
        }
    }

    /// Sets what fills the gauges before each reading.
    pub fn on_read(&self, refresh: impl Fn(&Gauges) + Send + Sync + 'static) {
        if let Ok(mut slot) = self.refresh.lock() {
            *slot = Some(Box::new(refresh));
        }
    }

    /// A request was answered.
    pub fn request(&self, route: Route, status: StatusCode, elapsed: Duration) {
        let Route { format, name } = route;
        let labels = RequestLabels { format, route: name, status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&route.into()).observe(elapsed.as_secs_f64());
    }

    /// A domain event happened.
    pub fn event(&self, kind: &'static str) {
        self.events.get_or_create(&EventLabels { kind }).inc();
    }

    /// Domain events went by uncounted.
    pub fn events_missed(&self, count: u64) {
        self.events_missed.inc_by(count);
    }

    /// The gauges, to be set before they are read.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Blob bytes went out.
    pub fn bytes_sent(&self, count: u64) {
        self.bytes_sent.inc_by(count);
    }

    /// Body bytes came in.
    pub fn bytes_received(&self, count: u64) {
        self.bytes_received.inc_by(count);
    }

    /// A connection was closed because its other end has too many.
    pub fn connection_refused(&self, why: &'static str) {
        self.connections_refused.get_or_create(&WhyLabels { why }).inc();
    }

    /// How many connections are open.
    pub fn connections(&self) -> &Gauge {
        &self.connections
    }

    /// Everything as OpenMetrics text.
    pub fn encode(&self) -> String {
        if let Ok(refresh) = self.refresh.lock()
            && let Some(refresh) = refresh.as_ref()
        {
            refresh(&self.gauges);
        }
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn register_jobs(registry: &mut Registry, gauges: &Gauges) {
    registry.register("job_runs", "Turns of background jobs that ended", gauges.job_runs.clone());
    registry.register(
        "job_failures",
        "Turns of background jobs that failed",
        gauges.job_failures.clone(),
    );
    registry.register_with_unit(
        "job_last_duration",
        "How long a job's last turn took",
        Unit::Seconds,
        gauges.job_last_duration.clone(),
    );
    registry.register_with_unit(
        "job_last_success_timestamp",
        "When a job's turn last ended without an error, since the Unix epoch; 0 if none has",
        Unit::Seconds,
        gauges.job_last_success.clone(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_carry_units() {
        let manifest = Route { format: "oci", name: "Manifest" };
        let metrics = Metrics::new([manifest, Route::own("Health")]);
        metrics.request(manifest, StatusCode::OK, Duration::from_millis(3));
        metrics.bytes_sent(7);
        metrics.on_read(|gauges| {
            gauges.raft_term.set(4);
        });
        let text = metrics.encode();
        for line in [
            "nora_http_requests_total{format=\"oci\",route=\"Manifest\",status=\"200\"} 1",
            "nora_blob_sent_bytes_total 7",
            "nora_raft_term 4",
            "nora_http_request_duration_seconds_count{format=\"oci\",route=\"Manifest\"} 1",
            "nora_http_request_duration_seconds_count{format=\"\",route=\"Health\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
