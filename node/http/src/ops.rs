//! What operators ask: is it alive, is it ready, what does it count.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{StatusCode, Uri};
use nora_domain::UsageRecord;
use prometheus_client::metrics::family::Family;
use serde_json::json;

use super::Api;
use crate::metrics::TenantLabels;

fn json_response(status: StatusCode, value: &serde_json::Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, value.to_string()).into_response()
}

/// `GET /health`: the process is alive. Says nothing about the cluster, so that a node without a leader is not
/// restarted for it.
pub(super) async fn health() -> Response {
    json_response(StatusCode::OK, &json!({"status": "alive", "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /ready`: requests may be sent here.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let health = api.probe.health().await;
    let ready = health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let document = json!({
        "ready": ready,
        "has_leader": health.has_leader,
        "caught_up": health.caught_up,
        "storage": health.storage_failure.as_deref().unwrap_or("ok"),
        "draining": health.draining,
    });
    json_response(status, &document)
}

/// `GET /metrics`: OpenMetrics text.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    // One at a time: the next would clear what this one has not shown yet.
    let _turn = api.metrics.scraping.lock().await;
    let gauges = api.metrics.gauges();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    if let (Some(own), Ok(in_force)) =
        (api.settings.policy_file, api.registry.access().policy().await)
    {
        let differs = in_force.is_none_or(|in_force| in_force.hash != own);
        gauges.policy_file_differs.set(i64::from(differs));
    }
    let mut sum = UsageRecord::default();
    // Those of a tenant or a quota that is no more must not stay.
    let families = [
        &gauges.tenant_unique_bytes,
        &gauges.tenant_reserved_bytes,
        &gauges.tenant_artifacts,
        &gauges.tenant_storage_quota_bytes,
    ];
    families.into_iter().for_each(Family::clear);
    for name in api.registry.tenants().list() {
        // Should the usage not be readable now, the rest is still worth reading.
        let Ok(usage) = api.registry.tenants().usage(&name).await else { continue };
        sum.bytes = sum.bytes.saturating_add(usage.bytes);
        sum.artifacts = sum.artifacts.saturating_add(usage.artifacts);
        sum.tags = sum.tags.saturating_add(usage.tags);
        let labels = TenantLabels { tenant: name.as_str().to_owned() };
        gauges.tenant_unique_bytes.get_or_create(&labels).set(number(usage.unique_bytes));
        gauges.tenant_reserved_bytes.get_or_create(&labels).set(number(usage.reserved_bytes));
        gauges.tenant_artifacts.get_or_create(&labels).set(number(usage.artifacts));
        if let Ok(limits) = api.registry.tenants().limits(name).await
            && let Some(quota) = limits.storage_quota
        {
            gauges.tenant_storage_quota_bytes.get_or_create(&labels).set(number(quota));
        }
    }
    gauges.usage_bytes.set(number(sum.bytes));
    gauges.usage_artifacts.set(number(sum.artifacts));
    gauges.usage_tags.set(number(sum.tags));
    let headers = [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (headers, api.metrics.encode()).into_response()
}

/// Any other path.
pub(super) async fn not_found(uri: Uri) -> Response {
    let document = json!({"errors": [{
        "code": "NOT_FOUND",
        "message": "nothing is served at this path; container images are under /v2/",
        "detail": {"path": uri.path()},
    }]});
    json_response(StatusCode::NOT_FOUND, &document)
}
