//! The admin API over gRPC: what the command line uses, and other programs may.
//!
//! Guarantees: the server is a member of the cluster whose authority's certificate is given, whatever its address;
//! credentials go nowhere else. Calls have deadlines; one that a member cannot be reached for, or cannot answer now, goes
//! to the next address. No call does harm if it is carried out twice. Lists come in pages, and a list that does not get
//! on is an error, never an endless loop.

mod audit;
mod cluster;
mod identity;
mod policy;
mod tenants;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nora_trust::any_member_config;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};

pub use audit::{AuditEntry, AuditFilter, AuditPage, AuditVerdict};
pub use cluster::{
    ClusterStatus, JobStatus, JoinTokenInfo, MemberStatus, NodeReport, RotationStatus,
};
pub use identity::{
    About, Account, Caller, CreatedToken, Explanation, ExplanationStep, NewAccount, NewToken,
    SessionInfo, TokenInfo,
};
pub use policy::{PolicyChange, PolicyInForce};
pub use tenants::TenantUsage;

use crate::config::Credentials;

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
    /// The certificate of the cluster's authority, PEM; both authorities' while one replaces the other.
    pub authority: PathBuf,
    /// The administrator's certificate and key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A password or a token, in place of a certificate or beside it.
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
    /// The answer is not what the contract promises.
    #[error("the server answered with something that is no {expected}")]
    Malformed {
        /// What should have come.
        expected: &'static str,
    },
}

impl AdminError {
    /// Whether another member, or the same one later, may well answer.
    fn is_unavailable(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::Unavailable)
    }

    /// What the server's refusal is, where it refused.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(status) => Some(status.code()),
            _ => None,
        }
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
            Self::Malformed { .. } => {
                Some("is the node of the same version as this program? See `nora version`".into())
            }
            Self::Refused(status) => match status.code() {
                Code::Unauthenticated => {
                    Some("see --data-dir, --cert and --key, or --password-file and --token-file".into())
                }
                Code::PermissionDenied => Some(
                    "`nora auth whoami` tells who you are to the server, `nora auth explain` which rule decides".into(),
                ),
                Code::ResourceExhausted => Some("wait a while and try again".into()),
                Code::Unimplemented => Some(
                    "the node is older than this program: upgrade it, or use its own version of nora".into(),
                ),
                Code::Unavailable => Some("the cluster has no leader now; try again".into()),
                _ => None,
            },
        }
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The part, in the list's order.
    pub items: Vec<T>,
    /// Whether there are more after it.
    pub more: bool,
}

/// Fetches all pages of a list; `place` says where an item stands, which is where the next page goes on.
async fn all_pages<T>(
    place: impl Fn(&T) -> String,
    fetch: impl AsyncFn(&str) -> Result<Page<T>, AdminError>,
) -> Result<Vec<T>, AdminError> {
    let mut all: Vec<T> = Vec::new();
    let mut after = String::new();
    loop {
        let page = fetch(&after).await?;
        let next = page.items.last().map(&place);
        all.extend(page.items);
        match next {
            _ if !page.more => return Ok(all),
            Some(next) if next != after => after = next,
            _ => return Err(AdminError::Malformed { expected: "list with an end" }),
        }
    }
}

/// A number that stands for "none" where it is 0.
fn unless_zero(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number != 0)
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
        let unreadable = |source| AdminError::File { path: config.authority.clone(), source };
        let authorities = CertificateDer::pem_file_iter(&config.authority)
            .and_then(|found| found.collect::<Result<Vec<_>, _>>())
            .map_err(unreadable)?;
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
            tls: TlsConnector::from(Arc::new(any_member_config(&authorities, client)?)),
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
