//! From the configuration to what each part keeps to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nora_app::Settings;
use nora_auth::document::PolicyDocument;
use nora_blobs::LocalBlobsConfig;
use nora_cluster::{ClusterConfig, MembersConfig};
use nora_domain::{FeatureLevel, NodeId, NodeProfile};

use super::error::ServeError;
use crate::descriptors::Shares;
use crate::server::{Certificate, ServerSettings, TlsFiles};
use nora_config::{Config, StorageMode};
use nora_http::ApiSettings;
use nora_http::body::Pace;
use nora_identity::canonical;

/// Connections on the cluster port whose other end shows no certificate: joining nodes, and the command line with a password.
const STRANGERS_MAX: usize = 256;
/// Requests that a client may have open on one HTTP/2 connection.
const CLIENT_STREAMS_MAX: u32 = 200;
/// Requests that a member may.
const PEER_STREAMS_MAX: u32 = 4096;
/// Members keep streams open for as long as they can, and nothing of theirs is lost when one breaks.
const PEER_DRAIN: Duration = Duration::from_millis(300);

/// What this node tells others of itself.
pub(super) fn profile(
    config: &Config,
    http: SocketAddr,
    peer: SocketAddr,
    tls: bool,
) -> NodeProfile {
    let scheme = if tls { "https" } else { "http" };
    let public_url = config.server.public_url.as_ref().map(|url| url.as_str().to_owned());
    NodeProfile {
        cluster_address: config.cluster.advertise.clone().unwrap_or_else(|| peer.to_string()),
        http_address: public_url.unwrap_or_else(|| format!("{scheme}://{http}")),
        zone: config.cluster.zone.clone(),
        weight: u32::try_from(config.cluster.weight).unwrap_or(u32::MAX),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        feature_max: FeatureLevel::NEWEST,
    }
}

pub(super) fn members_config(config: &Config) -> MembersConfig {
    MembersConfig {
        away_after: config.cluster.away_after,
        remove_after: config.cluster.remove_after,
        ..MembersConfig::default()
    }
}

pub(super) fn cluster_config(config: &Config, node: NodeId, profile: NodeProfile) -> ClusterConfig {
    let mut cluster = ClusterConfig::new(config.storage.data_dir.join("metadata"));
    cluster.node = node;
    cluster.address.clone_from(&profile.cluster_address);
    cluster.profile = profile;
    cluster.storage = storage(config);
    cluster.cache_bytes = config.storage.metadata_cache_bytes_max.bytes_usize();
    cluster.write_buffer_bytes = config.storage.metadata_write_bytes_max.bytes_usize();
    cluster.snapshot_entries = config.cluster.snapshot_entries as u64;
    cluster.keep_entries = config.cluster.keep_entries as u64;
    cluster.log_bytes_max = config.cluster.log_bytes_max.bytes();
    cluster.clock_skew_max = config.cluster.clock_skew_max;
    cluster.clock_step_max = config.cluster.clock_step_max;
    cluster.proposals_bytes_max = config.cluster.proposal_bytes_max.bytes_usize();
    cluster.answer_timeout = config.cluster.proposal_timeout;
    cluster
}

/// How this node would have the cluster keep blobs. Once a cluster is founded, its own word counts.
pub(super) fn storage(config: &Config) -> nora_domain::Storage {
    let mode = match config.storage.mode {
        StorageMode::Local => nora_domain::StorageMode::Local,
        StorageMode::S3 => nora_domain::StorageMode::Object,
    };
    let replicas = u32::try_from(config.cluster.replicas).unwrap_or(u32::MAX);
    nora_domain::Storage { mode, replicas }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn settings(config: &Config) -> Settings {
    Settings {
        artifact_bytes_max: config.limits.manifest_bytes_max.bytes_usize(),
        references_max: config.limits.references_max,
        pin_millis: millis(config.limits.pin_expiry),
        upload_expiry_millis: millis(config.limits.upload_expiry),
    }
}

pub(super) fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings {
        public_url: config.server.public_url.as_ref().map(|url| url.as_str().to_owned()),
        upload_bytes_max: config.limits.upload_bytes_max.bytes(),
        manifest_bytes_max: config.limits.manifest_bytes_max.bytes_usize(),
        page_size_max: config.limits.page_size_max,
        body_pace: Pace {
            idle: config.limits.body_idle_timeout,
            bytes_per_second_min: config.limits.body_rate_min.bytes(),
        },
        trusted_proxies: config.server.trusted_proxies.clone(),
        // A file that says nothing agrees with whatever is in force.
        policy_file: Some(&config.policy)
            .filter(|policy| **policy != PolicyDocument::default())
            .and_then(|policy| canonical(policy).ok())
            .map(|(_, hash)| hash),
    }
}

pub(super) fn blobs_config(config: &Config, node: NodeId) -> LocalBlobsConfig {
    LocalBlobsConfig {
        node,
        data_dir: config.storage.data_dir.clone(),
        upload_bytes_max: config.limits.upload_bytes_max.bytes(),
        sessions_max: config.limits.upload_sessions_max,
    }
}

pub(super) fn server_settings(config: &Config) -> ServerSettings {
    ServerSettings {
        connections_max: config.limits.connections_max.min(Shares::now().connections),
        connections_per_address_max: config.limits.connections_per_address_max,
        trusted_proxies: config.server.trusted_proxies.clone(),
        strangers_max: STRANGERS_MAX,
        head_timeout: config.limits.request_header_timeout,
        write_timeout: config.limits.body_idle_timeout,
        drain_timeout: config.limits.drain_timeout,
        http2_streams_max: CLIENT_STREAMS_MAX,
        read_buffer_bytes_max: config.limits.request_header_bytes_max.bytes_usize(),
    }
}

/// For connections between members: many requests share one.
pub(super) fn peer_server_settings(config: &Config) -> ServerSettings {
    ServerSettings {
        connections_max: config.limits.connections_max.min(Shares::now().peers),
        http2_streams_max: PEER_STREAMS_MAX,
        drain_timeout: PEER_DRAIN,
        ..server_settings(config)
    }
}

pub(super) fn load_certificate(config: &Config) -> Result<Option<Arc<Certificate>>, ServeError> {
    let Some(tls) = &config.server.tls else { return Ok(None) };
    let files = TlsFiles { cert: tls.cert.clone(), key: tls.key.clone() };
    Certificate::load(files).map(Some).map_err(|error| ServeError::Tls(Box::new(error)))
}
