//! The admin API over gRPC: what the command line uses, and other programs may.
//!
//! Guarantees: the server is a member of the cluster whose authority's certificate is given, whatever its address; the
//! password goes nowhere else. Calls have deadlines; one that could not be sent goes to the next address.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nora_proto::v1 as proto;
use nora_proto::v1::blobs_client::BlobsClient;
use nora_proto::v1::cluster_client::ClusterClient;
use nora_proto::v1::config_client::ConfigClient;
use nora_trust::any_member_config;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use crate::config::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a node listens for administration when nothing is configured.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:4001";

/// Where to go, whom to trust, and who is asking.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Members' cluster addresses, `host:port`; they are tried in order.
    pub addresses: Vec<String>,
    /// The certificate of the cluster's authority, PEM.
    pub authority: PathBuf,
    /// The administrator's certificate and key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The administrator's password, if there is no certificate.
    pub password: Option<(String, Secret)>,
}

impl AdminConfig {
    /// What the owner of a member's data folder has: the files in its folder `identity`, and the address that the node
    /// left there if it runs or ran.
    pub fn of_data_dir(data_dir: &Path) -> Self {
        let identity = data_dir.join("identity");
        let left = std::fs::read_to_string(data_dir.join("cluster-address")).ok();
        let address = left.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let certificate = (identity.join("admin.crt"), identity.join("admin.key"));
        Self {
            addresses: vec![address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned())],
            authority: identity.join("ca.crt"),
            certificate: Some(certificate).filter(|(certificate, _)| certificate.exists()),
            password: None,
        }
    }
}

/// Why an admin call gave no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A certificate or key cannot be read.
    #[error("cannot read {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Trust(#[from] nora_trust::TrustError),
    /// An address cannot be understood.
    #[error("{0:?} is not an address: write it as host:port")]
    Address(String),
    /// No member could be reached.
    #[error("cannot reach {address}")]
    Unreachable {
        /// The last one tried.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The server said no.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
}

impl AdminError {
    /// What a person can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { .. } | Self::Trust(_) => Some(
                "--data-dir names a member's data folder; from elsewhere, name its identity/ca.crt, admin.crt and \
                 admin.key with --ca, --cert and --key"
                    .into(),
            ),
            Self::Unreachable { .. } => Some(
                "is the node running, and is that its cluster address? See --cluster-addr; a node of another cluster \
                 than the certificate's counts as unreachable"
                    .into(),
            ),
            Self::Address(_) => None,
            Self::Refused(status) => match status.code() {
                Code::Unauthenticated => Some("see --data-dir, --cert and --key".into()),
                Code::Unavailable => Some("the cluster has no leader now; try again".into()),
                _ => None,
            },
        }
    }
}

/// The cluster, as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answered.
    pub node: u64,
    /// Who leads, if that is known.
    pub leader: Option<u64>,
    /// The Raft term.
    pub term: u64,
    /// The last entry in its log.
    pub log_index: u64,
    /// The last entry that it applied.
    pub applied_index: u64,
    /// What commands may be used.
    pub feature_level: u32,
    /// Every member.
    pub members: Vec<MemberStatus>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// Its number.
    pub node: u64,
    /// `leader`, `voter`, `learner` or `outside`.
    pub role: &'static str,
    /// `joining`, `active`, `away` or `draining`.
    pub standing: &'static str,
    /// Where other nodes reach it.
    pub cluster_address: String,
    /// Where clients reach it.
    pub http_address: String,
    /// Its failure zone.
    pub zone: String,
    /// Its share of the blobs.
    pub weight: u32,
    /// The highest feature level that it understands.
    pub feature_max: u32,
    /// What it tells; none if it does not answer.
    pub report: Option<NodeReport>,
}

/// What a node tells of itself. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// The last entry that it applied.
    pub applied_index: u64,
    /// Its program's version.
    pub version: String,
    /// Size of its file system.
    pub disk_total: u64,
    /// Of that, free.
    pub disk_free: u64,
    /// Blobs that it holds.
    pub blobs_held: u64,
    /// Blobs that it should hold and does not.
    pub blobs_missing: u64,
    /// Blobs that it should give up.
    pub blobs_excess: u64,
    /// Damaged copies set aside.
    pub blobs_quarantined: u64,
    /// Bytes that scrubbing has read again.
    pub scrubbed_bytes: u64,
}

impl From<proto::Report> for NodeReport {
    fn from(report: proto::Report) -> Self {
        Self {
            applied_index: report.applied_index,
            version: report.version,
            disk_total: report.disk_total,
            disk_free: report.disk_free,
            blobs_held: report.blobs_held,
            blobs_missing: report.blobs_missing,
            blobs_excess: report.blobs_excess,
            blobs_quarantined: report.blobs_quarantined,
            scrubbed_bytes: report.scrubbed_bytes,
        }
    }
}

impl From<proto::Member> for MemberStatus {
    fn from(member: proto::Member) -> Self {
        let role = match member.role() {
            proto::Role::Leader => "leader",
            proto::Role::Voter => "voter",
            proto::Role::Learner => "learner",
            proto::Role::Outside | proto::Role::Unspecified => "outside",
        };
        let standing = match member.standing() {
            proto::Standing::Joining => "joining",
            proto::Standing::Active => "active",
            proto::Standing::Away => "away",
            proto::Standing::Draining => "draining",
            proto::Standing::Unspecified => "unknown",
        };
        Self {
            node: member.node,
            role,
            standing,
            cluster_address: member.cluster_address,
            http_address: member.http_address,
            zone: member.zone,
            weight: member.weight,
            feature_max: member.feature_max,
            report: member.report.map(NodeReport::from),
        }
    }
}

/// Speaks to the admin API of one member.
pub struct AdminClient {
    channel: Channel,
    authorization: Option<AsciiMetadataValue>,
}

impl AdminClient {
    /// Connects to the first address that answers.
    pub async fn connect(config: &AdminConfig) -> Result<Self, AdminError> {
        let read = |path: &PathBuf| {
            CertificateDer::from_pem_file(path)
                .map_err(|source| AdminError::File { path: path.clone(), source })
        };
        let authority = read(&config.authority)?;
        let client = match &config.certificate {
            Some((certificate, key)) => {
                let chain = vec![read(certificate)?];
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|source| AdminError::File { path: key.clone(), source })?;
                Some((chain, key))
            }
            None => None,
        };
        let tls = TlsConnector::from(Arc::new(any_member_config(&authority, client)?));
        let authorization = config.password.as_ref().and_then(basic);
        let mut last = AdminError::Address(String::new());
        for address in &config.addresses {
            match dial(address, tls.clone()).await {
                Ok(channel) => return Ok(Self { channel, authorization }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(CALL_TIMEOUT);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    /// The cluster as that member sees it.
    pub async fn status(&self) -> Result<ClusterStatus, AdminError> {
        let asked = self.cluster().status(self.request(proto::StatusRequest {})).await;
        let status = asked.map_err(refused)?.into_inner();
        Ok(ClusterStatus {
            cluster: status.cluster,
            node: status.node,
            leader: Some(status.leader).filter(|leader| *leader != 0),
            term: status.term,
            log_index: status.log_index,
            applied_index: status.applied_index,
            feature_level: status.feature_level,
            members: status.members.into_iter().map(MemberStatus::from).collect(),
        })
    }

    /// A token that lets nodes join for so long.
    pub async fn create_join_token(&self, valid: Duration) -> Result<Secret, AdminError> {
        let valid_millis = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
        let request = self.request(proto::CreateJoinTokenRequest { valid_millis });
        let made = self.cluster().create_join_token(request).await.map_err(refused)?;
        Ok(Secret::new(made.into_inner().token))
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, node: u64) -> Result<(), AdminError> {
        let request = self.request(proto::PromoteRequest { node });
        self.cluster().promote(request).await.map(drop).map_err(refused)
    }

    /// Lets others take over what a node holds.
    pub async fn drain(&self, node: u64) -> Result<(), AdminError> {
        let request = self.request(proto::DrainRequest { node });
        self.cluster().drain(request).await.map(drop).map_err(refused)
    }

    /// Takes a node out for good.
    pub async fn remove(&self, node: u64, force: bool) -> Result<(), AdminError> {
        let request = self.request(proto::RemoveRequest { node, force });
        self.cluster().remove(request).await.map(drop).map_err(refused)
    }

    /// Lets another voter lead, and tells which does.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, AdminError> {
        let request = self.request(proto::TransferLeaderRequest { to: to.unwrap_or(0) });
        let moved = self.cluster().transfer_leader(request).await.map_err(refused)?;
        Ok(moved.into_inner().leader)
    }

    /// Makes a snapshot on that member, and tells its position.
    pub async fn snapshot(&self) -> Result<u64, AdminError> {
        let request = self.request(proto::SnapshotRequest {});
        Ok(self.cluster().snapshot(request).await.map_err(refused)?.into_inner().index)
    }

    /// Raises the feature level as far as every member understands, and tells it.
    pub async fn finalize_upgrade(&self) -> Result<u32, AdminError> {
        let request = self.request(proto::FinalizeUpgradeRequest {});
        let raised = self.cluster().finalize_upgrade(request).await.map_err(refused)?;
        Ok(raised.into_inner().feature_level)
    }

    /// Begins a scrub on that member.
    pub async fn scrub(&self) -> Result<(), AdminError> {
        let request = self.request(proto::ScrubRequest {});
        let begun = BlobsClient::new(self.channel.clone()).scrub(request).await;
        begun.map(drop).map_err(refused)
    }

    /// That member's configuration as TOML, without secrets.
    pub async fn configuration(&self) -> Result<String, AdminError> {
        let request = self.request(proto::ShowRequest {});
        let shown = ConfigClient::new(self.channel.clone()).show(request).await;
        Ok(shown.map_err(refused)?.into_inner().toml)
    }
}

fn refused(status: Status) -> AdminError {
    AdminError::Refused(Box::new(status))
}

fn basic((username, password): &(String, Secret)) -> Option<AsciiMetadataValue> {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD
        .encode(format!("{username}:{}", password.expose()));
    let mut value: AsciiMetadataValue = format!("Basic {encoded}").parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn dial(address: &str, tls: TlsConnector) -> Result<Channel, AdminError> {
    let bare = address.strip_prefix("https://").unwrap_or(address).trim_end_matches('/').to_owned();
    let endpoint = Endpoint::from_shared(format!("http://{bare}"))
        .map_err(|_| AdminError::Address(address.to_owned()))?
        .connect_timeout(CONNECT_TIMEOUT);
    let to = bare.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, to) = (tls.clone(), to.clone());
        async move {
            let connection = TcpStream::connect(&*to).await?;
            connection.set_nodelay(true)?;
            // Whom this name belongs to is told by the certificate alone.
            let name =
                ServerName::try_from("member.nora.internal").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, connection).await?))
        }
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|source| AdminError::Unreachable { address: bare, source })
}
