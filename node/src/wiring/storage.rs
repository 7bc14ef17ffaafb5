//! Where blobs are: on the nodes' own disks, or in a shared bucket.

use std::sync::Arc;
use std::time::Duration;

use nora_app::ports::blobs::Blobs;
use nora_app::ports::clock::Clock;
use nora_app::ports::members::NodeReport;
use nora_app::ports::upkeep::Upkeep;
use nora_app::ports::uploads::{Finish, Sessions};
use nora_blobs::{LocalBlobs, Peers, ReplicatedBlobs, ReplicatedBlobsConfig};
use nora_cluster::Cluster;
use nora_domain::NodeId;
use nora_objects::{ObjectBlobs, ObjectBlobsConfig};
use nora_swarm::{Limits, Pool};
use tracing::{error, info};

use super::error::ServeError;
use super::settings::blobs_config;
use nora_config::{Config, S3, StorageMode};

/// How long the file of a copy that was given up stays.
const LINGER: Duration = Duration::from_secs(60);

/// The store in use.
#[derive(Clone)]
pub(super) enum Storage {
    /// On the nodes' disks.
    Nodes(ReplicatedBlobs),
    /// In a bucket.
    Bucket(ObjectBlobs),
}

/// Connections to other members.
struct Members(Arc<Cluster>);

impl Peers for Members {
    fn channel(&self, node: NodeId) -> Option<tonic::transport::Channel> {
        self.0.channel(node)
    }
}

impl Storage {
    /// Opens what the configuration names.
    pub(super) async fn open(
        config: &Config,
        cluster: &Arc<Cluster>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, ServeError> {
        let (config, cluster, clock) = (config.clone(), cluster.clone(), clock.clone());
        let opening = tokio::task::spawn_blocking(move || match config.storage.mode {
            StorageMode::Local => open_nodes(&config, cluster, clock),
            StorageMode::S3 => open_bucket(&config).map(Self::Bucket),
        });
        opening.await.map_err(|error| ServeError::Task(error.to_string()))?
    }

    /// Makes sure that the bucket can be worked with, if there is one: better now than at the first push.
    pub(super) async fn check(&self) -> Result<(), ServeError> {
        let Self::Bucket(objects) = self else { return Ok(()) };
        let mut name = [0; 16];
        getrandom::fill(&mut name)
            .map_err(|error| ServeError::Random(std::io::Error::other(error.to_string())))?;
        objects.check(u128::from_be_bytes(name)).await.map_err(ServeError::Objects)
    }

    pub(super) fn blobs(&self) -> Arc<dyn Blobs> {
        match self {
            Self::Nodes(replicated) => Arc::new(replicated.clone()),
            Self::Bucket(objects) => Arc::new(objects.clone()),
        }
    }

    pub(super) fn uploads(&self) -> Arc<dyn Sessions> {
        match self {
            Self::Nodes(replicated) => Arc::new(replicated.sessions().clone()),
            Self::Bucket(objects) => Arc::new(objects.sessions().clone()),
        }
    }

    pub(super) fn finish(&self) -> Arc<dyn Finish> {
        match self {
            Self::Nodes(replicated) => Arc::new(replicated.clone()),
            Self::Bucket(objects) => Arc::new(objects.clone()),
        }
    }

    /// What other members may ask of this node's blobs.
    pub(super) fn exchange(&self) -> axum::Router {
        match self {
            Self::Nodes(replicated) => replicated.exchange(),
            Self::Bucket(_) => axum::Router::new(),
        }
    }

    /// Fills in what a report says of blobs.
    pub(super) fn report(&self, report: &mut NodeReport) {
        if let Self::Nodes(replicated) = self {
            replicated.report(report);
        }
    }
}

impl Upkeep for Storage {
    fn scrub_now(&self) -> bool {
        let Self::Nodes(replicated) = self else { return false };
        let replicated = replicated.clone();
        tokio::spawn(async move {
            match replicated.scrub_now().await {
                Ok(found) => {
                    info!(
                        copies = found.copies,
                        damaged = found.damaged,
                        "every copy was read again"
                    );
                }
                Err(error) => error!(%error, "the scrub stopped"),
            }
        });
        true
    }
}

fn open_nodes(
    config: &Config,
    cluster: Arc<Cluster>,
    clock: Arc<dyn Clock>,
) -> Result<Storage, ServeError> {
    let local =
        LocalBlobs::open(blobs_config(config, cluster.node_id())).map_err(ServeError::Blobs)?;
    let peers = Arc::new(Members(cluster.clone()));
    let settings = ReplicatedBlobsConfig {
        replicas: config.cluster.replicas,
        repair_rate: config.cluster.repair_rate.map(|rate| rate.bytes()),
        cache_bytes_max: config.storage.cache_bytes_max.bytes(),
        linger: LINGER,
        scrub_interval: config.cluster.scrub_interval,
    };
    let replicated =
        ReplicatedBlobs::open(local, cluster, peers, clock, settings).map_err(ServeError::Blobs)?;
    Ok(Storage::Nodes(replicated))
}

fn open_bucket(config: &Config) -> Result<ObjectBlobs, ServeError> {
    let Some(s3) = &config.storage.s3 else { return Err(ServeError::NoBucket) };
    let settings = object_config(config, s3)?;
    ObjectBlobs::open(&settings, Pool::new(Limits::default())).map_err(ServeError::Objects)
}

fn object_config(config: &Config, s3: &S3) -> Result<ObjectBlobsConfig, ServeError> {
    let secret = |source: &Option<nora_config::SecretSource>| {
        source.as_ref().map(|source| source.read()).transpose().map_err(ServeError::Secret)
    };
    Ok(ObjectBlobsConfig {
        bucket: s3.bucket.clone(),
        endpoint: s3.endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
        region: s3.region.clone(),
        access_key: secret(&s3.access_key)?,
        secret_key: secret(&s3.secret_key)?,
        prefix: s3.prefix.trim_matches('/').to_owned(),
        redirect: s3.redirect,
        presign_seconds: s3.redirect_expiry.as_secs(),
        data_dir: config.storage.data_dir.clone(),
        cache_bytes_max: config.storage.cache_bytes_max.bytes(),
        upload_bytes_max: config.limits.upload_bytes_max.bytes(),
        sessions_max: config.limits.upload_sessions_max,
    })
}
