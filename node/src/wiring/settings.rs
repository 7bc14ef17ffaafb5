//! From the configuration to what each part keeps to.

use std::sync::Arc;
use std::time::Duration;

use nora_app::Settings;
use nora_blobs::LocalBlobsConfig;
use nora_cluster::ClusterConfig;

use super::error::ServeError;
use crate::api::ApiSettings;
use crate::config::Config;
use crate::server::{Certificate, ServerSettings, TlsFiles};

pub(super) fn cluster_config(config: &Config) -> ClusterConfig {
    let mut cluster = ClusterConfig::new(config.storage.data_dir.join("metadata"));
    cluster.address = config.cluster.listen.to_string();
    cluster.cache_bytes = config.storage.metadata_cache_bytes_max.bytes_usize();
    cluster.write_buffer_bytes = config.storage.metadata_write_bytes_max.bytes_usize();
    cluster.snapshot_entries = config.cluster.snapshot_entries as u64;
    cluster.keep_entries = config.cluster.keep_entries as u64;
    cluster.proposals_bytes_max = config.cluster.proposal_bytes_max.bytes_usize();
    cluster.answer_timeout = config.cluster.proposal_timeout;
    cluster
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
        body_idle_timeout: config.limits.body_idle_timeout,
        trusted_proxies: config.server.trusted_proxies.clone(),
    }
}

pub(super) fn blobs_config(config: &Config) -> LocalBlobsConfig {
    LocalBlobsConfig {
        data_dir: config.storage.data_dir.clone(),
        upload_bytes_max: config.limits.upload_bytes_max.bytes(),
        sessions_max: config.limits.upload_sessions_max,
    }
}

pub(super) fn server_settings(config: &Config) -> ServerSettings {
    ServerSettings {
        connections_max: config.limits.connections_max,
        head_timeout: config.limits.request_header_timeout,
        write_timeout: config.limits.body_idle_timeout,
        drain_timeout: config.limits.drain_timeout,
        read_buffer_bytes_max: config.limits.request_header_bytes_max.bytes_usize(),
    }
}

pub(super) fn load_certificate(config: &Config) -> Result<Option<Arc<Certificate>>, ServeError> {
    let Some(tls) = &config.server.tls else { return Ok(None) };
    let files = TlsFiles { cert: tls.cert.clone(), key: tls.key.clone() };
    Certificate::load(files).map(Some).map_err(|error| ServeError::Tls(Box::new(error)))
}

