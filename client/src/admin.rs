//! The admin API over gRPC: what the command line uses, and other programs may.
//!
//! Guarantees: the server is a member of the cluster whose authority's certificate is given, whatever its address;
//! credentials go nowhere else. Calls have deadlines; one that a member cannot be reached for, or cannot answer now, goes
//! to the next address. No call does harm if it is carried out twice.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
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
use tonic::{Code, Request, Response, Status};

use crate::config::{Credentials, Secret};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How often all addresses are tried: a cluster that has lost its leader has another within about a second.
const ROUNDS: usize = 4;
const PAUSE: Duration = Duration::from_millis(700);

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
    /// The administrator's password or token, in place of a certificate or beside it.
    pub credentials: Credentials,
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
            // Only its owner can read the key.
            certificate: Some(certificate).filter(|(_, key)| File::open(key).is_ok()),
            credentials: Credentials::Anonymous,
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
    /// No address was given.
    #[error("no member's address was given")]
    NoAddress,
    /// A header cannot carry the password or token.
    #[error("the password or token has characters that cannot be sent")]
    Credentials,
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
    /// Whether another member, or the same one later, may well answer.
    fn is_unavailable(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::Unavailable)
    }

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
            Self::Address(_) | Self::Credentials => None,
            Self::NoAddress => Some("see --cluster-addr".into()),
            Self::Refused(status) => match status.code() {
                Code::Unauthenticated => {
                    Some("see --data-dir, --cert and --key, or --password-file and --token-file".into())
                }
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
    /// Where its snapshot ends; 0 if it has none.
    pub snapshot_index: u64,
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

/// Speaks to the admin API of a member: the first of those given that can answer.
pub struct AdminClient {
    members: Vec<Endpoint>,
    tls: TlsConnector,
    authorization: Option<AsciiMetadataValue>,
    /// Which member answered last, and the connection to it.
    current: Mutex<(usize, Option<Channel>)>,
}

impl AdminClient {
    /// Reads the certificates; nothing is sent yet.
    pub fn new(config: &AdminConfig) -> Result<Self, AdminError> {
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
        let members: Result<Vec<Endpoint>, AdminError> =
            config.addresses.iter().map(|address| endpoint(address)).collect();
        let members = members?;
        if members.is_empty() {
            return Err(AdminError::NoAddress);
        }
        Ok(Self {
            members,
            tls: TlsConnector::from(Arc::new(any_member_config(&authority, client)?)),
            authorization: authorization(&config.credentials)?,
            current: Mutex::new((0, None)),
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(CALL_TIMEOUT);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// Asks the member that answered last; if it cannot be reached or cannot answer now, the next one, and all of them
    /// again after a pause.
    async fn call<M: Clone, T>(
        &self,
        message: M,
        send: impl AsyncFn(Channel, Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, AdminError> {
        let mut last = AdminError::NoAddress;
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let mut answered = false;
            for _ in &self.members {
                last = match self.connected().await {
                    Ok(channel) => match send(channel, self.request(message.clone())).await {
                        Ok(response) => return Ok(response.into_inner()),
                        Err(status) => {
                            answered = true;
                            let status = AdminError::Refused(Box::new(status));
                            if !status.is_unavailable() {
                                return Err(status);
                            }
                            status
                        }
                    },
                    Err(error) => error,
                };
                self.turn();
            }
            // Where nobody listens, nobody will in a moment.
            if !answered {
                break;
            }
        }
        Err(last)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, (usize, Option<Channel>)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call goes to the next member.
    fn turn(&self) {
        let mut current = self.current();
        *current = ((current.0 + 1) % self.members.len(), None);
    }

    async fn connected(&self) -> Result<Channel, AdminError> {
        let (index, known) = self.current().clone();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let channel = dial(&self.members[index], self.tls.clone()).await?;
        *self.current() = (index, Some(channel.clone()));
        Ok(channel)
    }

    /// The cluster as that member sees it.
    pub async fn status(&self) -> Result<ClusterStatus, AdminError> {
        let asked = self.call(proto::StatusRequest {}, async |channel, request| {
            ClusterClient::new(channel).status(request).await
        });
        let status = asked.await?;
        Ok(ClusterStatus {
            cluster: status.cluster,
            node: status.node,
            leader: Some(status.leader).filter(|leader| *leader != 0),
            term: status.term,
            log_index: status.log_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            feature_level: status.feature_level,
            members: status.members.into_iter().map(MemberStatus::from).collect(),
        })
    }

    /// A token that lets nodes join for so long.
    pub async fn create_join_token(&self, valid: Duration) -> Result<Secret, AdminError> {
        let valid_millis = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
        let request = proto::CreateJoinTokenRequest { valid_millis };
        let made = self.call(request, async |channel, request| {
            ClusterClient::new(channel).create_join_token(request).await
        });
        Ok(Secret::new(made.await?.token))
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, node: u64) -> Result<(), AdminError> {
        let done = self.call(proto::PromoteRequest { node }, async |channel, request| {
            ClusterClient::new(channel).promote(request).await
        });
        done.await.map(drop)
    }

    /// Lets others take over what a node holds.
    pub async fn drain(&self, node: u64) -> Result<(), AdminError> {
        let done = self.call(proto::DrainRequest { node }, async |channel, request| {
            ClusterClient::new(channel).drain(request).await
        });
        done.await.map(drop)
    }

    /// Takes a node out for good.
    pub async fn remove(&self, node: u64, force: bool) -> Result<(), AdminError> {
        let done = self.call(proto::RemoveRequest { node, force }, async |channel, request| {
            ClusterClient::new(channel).remove(request).await
        });
        done.await.map(drop)
    }

    /// Lets another voter lead, and tells which does.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, AdminError> {
        let request = proto::TransferLeaderRequest { to: to.unwrap_or(0) };
        let moved = self.call(request, async |channel, request| {
            ClusterClient::new(channel).transfer_leader(request).await
        });
        Ok(moved.await?.leader)
    }

    /// Makes a snapshot on that member, and tells its position.
    pub async fn snapshot(&self) -> Result<u64, AdminError> {
        let made = self.call(proto::SnapshotRequest {}, async |channel, request| {
            ClusterClient::new(channel).snapshot(request).await
        });
        Ok(made.await?.index)
    }

    /// Raises the feature level as far as every member understands, and tells it.
    pub async fn finalize_upgrade(&self) -> Result<u32, AdminError> {
        let raised = self.call(proto::FinalizeUpgradeRequest {}, async |channel, request| {
            ClusterClient::new(channel).finalize_upgrade(request).await
        });
        Ok(raised.await?.feature_level)
    }

    /// Begins a scrub on that member.
    pub async fn scrub(&self) -> Result<(), AdminError> {
        let begun = self.call(proto::ScrubRequest {}, async |channel, request| {
            BlobsClient::new(channel).scrub(request).await
        });
        begun.await.map(drop)
    }

    /// That member's configuration as TOML, without secrets.
    pub async fn configuration(&self) -> Result<String, AdminError> {
        let shown = self.call(proto::ShowRequest {}, async |channel, request| {
            ConfigClient::new(channel).show(request).await
        });
        Ok(shown.await?.toml)
    }
}

fn authorization(credentials: &Credentials) -> Result<Option<AsciiMetadataValue>, AdminError> {
    use base64::Engine;
    let text = match credentials {
        Credentials::Anonymous => return Ok(None),
        Credentials::Password { username, password } => {
            let both = format!("{username}:{}", password.expose());
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both))
        }
        Credentials::Token(token) => format!("Bearer {}", token.expose()),
    };
    let mut value: AsciiMetadataValue = text.parse().map_err(|_| AdminError::Credentials)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn endpoint(address: &str) -> Result<Endpoint, AdminError> {
    let malformed = || AdminError::Address(address.to_owned());
    let bare = address.strip_prefix("https://").unwrap_or(address).trim_end_matches('/');
    // What encrypts is the connector; for the transport this is a plain connection.
    let endpoint = Endpoint::from_shared(format!("http://{bare}")).map_err(|_| malformed())?;
    match endpoint.uri().port() {
        Some(_) if endpoint.uri().path() == "/" => Ok(endpoint.connect_timeout(CONNECT_TIMEOUT)),
        _ => Err(malformed()),
    }
}

async fn dial(endpoint: &Endpoint, tls: TlsConnector) -> Result<Channel, AdminError> {
    let address = endpoint.uri().authority().map(ToString::to_string).unwrap_or_default();
    let to = address.clone();
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
        .map_err(|source| AdminError::Unreachable { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:4001", "https://a.example.com:4001", "[::1]:4001", "https://a:1/"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for wrong in ["", "127.0.0.1", "a:b:c", "http://a:1", "a:1/path", "a b:1"] {
            assert!(matches!(endpoint(wrong), Err(AdminError::Address(_))), "{wrong}");
        }
    }

    #[test]
    fn a_data_folder_says_where_and_who() {
        let folder = std::env::temp_dir().join(format!("nora-admin-{}", std::process::id()));
        let identity = folder.join("identity");
        std::fs::create_dir_all(&identity).unwrap();
        let config = AdminConfig::of_data_dir(&folder);
        assert_eq!(config.addresses, [DEFAULT_ADDRESS]);
        assert_eq!(config.certificate, None);
        for (name, text) in [("identity/admin.key", ""), ("cluster-address", "127.0.0.1:7\n")] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let config = AdminConfig::of_data_dir(&folder);
        assert_eq!(config.addresses, ["127.0.0.1:7"]);
        assert_eq!(config.authority, identity.join("ca.crt"));
        let files = (identity.join("admin.crt"), identity.join("admin.key"));
        assert_eq!(config.certificate, Some(files));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
