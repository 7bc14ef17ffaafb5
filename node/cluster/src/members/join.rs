//! Joining, on both sides: a node that has nothing but a token, and the member that it asks.
//!
//! Guarantees: what a stranger sends is written nowhere unless its token is known; each join, and each refusal of a known
//! token, is in the journal with the address it came from; a join that broke off and is asked for again gives the same number; the node trusts an address only once that has proved to be the cluster of the token.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nora_app::ports::BoxError;
use nora_app::ports::metadata::{Metadata, MetadataError};
use nora_domain::{Actor, AdmitNode, ClusterId, Key, NodeId, NodeProfile, Record, Refusal};
use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::members_client::MembersClient;
use nora_proto::raft::v1::Member;
use nora_proto::record::v1 as proto_record;
use nora_trust::{
    Authority, Identity, JoinToken, Joining, SigningRequest, TokenError, TrustError, pinned_config,
};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::{Code, Status};

use super::Roster;
use crate::codec::{profile_from_proto, profile_to_proto};
use crate::transport::endpoint;

/// The longest name, address or version that a node may tell of itself.
const PROFILE_TEXT_BYTES_MAX: usize = 256;
/// How long one attempt to join may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(500);

fn unavailable(error: &MetadataError) -> Status {
    // Whatever became of it, asking again with the same key gives the same node.
    Status::unavailable(format!("the cluster cannot answer now: {error}"))
}

fn internal(error: &TrustError) -> Status {
    tracing::error!(%error, "a node could not be given a certificate");
    Status::internal("this member cannot issue a certificate: its log says why")
}

fn checked_profile(profile: Option<proto_record::NodeProfile>) -> Result<NodeProfile, Status> {
    let profile = profile_from_proto(profile);
    let texts = [&profile.cluster_address, &profile.http_address, &profile.zone, &profile.version];
    if texts.iter().any(|text| text.len() > PROFILE_TEXT_BYTES_MAX) {
        return Err(Status::invalid_argument(format!(
            "addresses, zone and version may have {PROFILE_TEXT_BYTES_MAX} bytes each"
        )));
    }
    if profile.cluster_address.is_empty() {
        return Err(Status::invalid_argument("the node does not say where it listens"));
    }
    Ok(profile)
}

impl Roster {
    /// Lets a node in that shows a valid token.
    pub(super) async fn admit(
        &self,
        m: proto::JoinRequest,
        address: Option<IpAddr>,
    ) -> Result<proto::JoinResponse, Status> {
        let token = JoinToken::parse(&m.token)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let signing_request = SigningRequest::parse(&m.signing_request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let profile = checked_profile(m.profile)?;
        if !token.is_of(&self.0.identity.authority()) {
            return Err(Status::failed_precondition(
                "the join token is of another cluster, or was made before this one's authority was replaced: have one made \
                 on a member of this one",
            ));
        }
        self.refuse_unknown(&token).await?;
        // Only nodes with a known token come so far.
        let Ok(_place) = self.0.joins.try_acquire() else {
            return Err(Status::unavailable("other nodes are joining: try again in a moment"));
        };
        let command = AdmitNode {
            token: token.id,
            secret_hash: token.secret_hash(),
            key_hash: signing_request.key_hash(),
            profile,
        };
        // The journal has who joined, from where, with which token; and who tried to with one that is spent or over.
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let by = Actor { address, ..Actor::default() };
        match self.propose_by(by, command).await.map_err(|error| unavailable(&error))? {
            Ok(node) => self.welcome(node, &signing_request).await,
            Err(refusal) => Err(not_admitted(&refusal)),
        }
    }

    /// Anybody can make tokens up. None of those reaches the log, and they do not keep nodes with a known token out: only
    /// tokens that this member does not know yet share places.
    async fn refuse_unknown(&self, token: &JoinToken) -> Result<(), Status> {
        if let Some(is_known) = self.knows(token).await? {
            return is_known.then_some(()).ok_or_else(|| not_admitted(&Refusal::TokenUnknown));
        }
        let Ok(_place) = self.0.unknown_joins.try_acquire() else {
            return Err(Status::unavailable(
                "this member does not know the join token yet, and others ask it the same: try again in a moment",
            ));
        };
        // It may have been made on another member a moment ago.
        self.0.cluster.linearize().await.map_err(|error| unavailable(&error))?;
        match self.knows(token).await? {
            Some(true) => Ok(()),
            Some(false) | None => Err(not_admitted(&Refusal::TokenUnknown)),
        }
    }

    /// Whether a token is right; `None` if this member's state has none of its id.
    async fn knows(&self, token: &JoinToken) -> Result<Option<bool>, Status> {
        let known = self.0.cluster.get(Key::JoinToken(token.id)).await;
        Ok(match known.map_err(|error| unavailable(&error))? {
            Some(Record::JoinToken(known)) => Some(known.secret_hash == token.secret_hash()),
            _ => None,
        })
    }

    async fn welcome(
        &self,
        node: NodeId,
        request: &SigningRequest,
    ) -> Result<proto::JoinResponse, Status> {
        let record =
            self.authority().await.map_err(|error| unavailable(&error))?.ok_or_else(|| {
                Status::unavailable("the cluster has no authority yet: try again")
            })?;
        let authority = Authority::from_keys(&record.keys).map_err(|error| internal(&error))?;
        let cluster = self.0.identity.cluster();
        let certificate =
            authority.issue_requested(cluster, node, request).map_err(|error| internal(&error))?;
        let status = self.status();
        let records = self.records().await.map_err(|error| unavailable(&error))?;
        let members = records
            .into_iter()
            .filter(|(node, _)| status.voters.contains(node) || status.learners.contains(node))
            .map(|(node, record)| Member { node: node.0, address: record.profile.cluster_address })
            .collect();
        tracing::info!(node = node.0, "a node joins");
        Ok(proto::JoinResponse {
            cluster: cluster.0.to_be_bytes().to_vec().into(),
            node: node.0,
            certificate: certificate.to_vec().into(),
            authority: record.keys.certificate.into(),
            members,
        })
    }
}

fn not_admitted(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::TokenUnknown => Status::permission_denied(
            "the cluster does not know this join token: have one made with 'nora cluster join-token'",
        ),
        Refusal::TokenSpent => Status::permission_denied(
            "the join token has admitted as many nodes as it was made for: have another made with 'nora cluster \
             join-token', or one for several with --uses",
        ),
        Refusal::RotationUnderWay => Status::unavailable(
            "the cluster's authority is being replaced: ask for a new join token once that is over",
        ),
        Refusal::TokenExpired => Status::permission_denied(
            "the join token has expired: have a new one made with 'nora cluster join-token'",
        ),
        Refusal::FeatureTooOld { level, understood } => Status::failed_precondition(format!(
            "the cluster is at feature level {}, and this program understands {} at most: install a newer version",
            level.0, understood.0
        )),
        refusal => Status::failed_precondition(format!("the node is not let in: {refusal:?}")),
    }
}

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The identity cannot be made or kept.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Whoever answers there is not of the token's cluster.
    #[error(
        "{address} does not prove to be a member of the cluster that the token is of: look at both, and at what is \
         between"
    )]
    OtherCluster {
        /// Who was asked.
        address: String,
        /// What was wrong with its proof.
        source: std::io::Error,
    },
    /// The cluster does not let it in.
    #[error("{address} refuses: {why}")]
    Refused {
        /// Who was asked.
        address: String,
        /// What it said.
        why: String,
    },
    /// Nobody answers, or nobody can for now.
    #[error("{address} let no node join within {within:?}: {last}")]
    NoAnswer {
        /// Who was asked.
        address: String,
        /// How long it was tried.
        within: Duration,
        /// What came of the last attempt.
        last: String,
    },
    /// It answered with something that makes no sense.
    #[error("{address} answered a join with {what}")]
    Senseless {
        /// Who was asked.
        address: String,
        /// What was wrong.
        what: &'static str,
    },
}

enum Attempt {
    Done(proto::JoinResponse),
    Again(String),
    Never(JoinError),
}

/// Joins the cluster that the token is of, by way of a member at `address` (`host:port`), and keeps the identity in
/// `data_dir`. Tries again for as long as `within` while nobody can answer. A join that broke off goes on when it is asked
/// for again, and the node gets the same number.
pub async fn join(
    address: &str,
    token: &str,
    profile: NodeProfile,
    data_dir: &Path,
    within: Duration,
) -> Result<Identity, JoinError> {
    let deadline = Instant::now() + within;
    let token = JoinToken::parse(token)?;
    let joining = Joining::begin(data_dir)?;
    let request = proto::JoinRequest {
        token: token.text(),
        signing_request: joining.signing_request()?.into(),
        profile: profile_to_proto(&profile),
    };
    let response = loop {
        let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, attempt(address, &token, &request));
        let last = match attempt.await {
            Ok(Attempt::Done(response)) => break response,
            Ok(Attempt::Never(error)) => return Err(error),
            Ok(Attempt::Again(last)) => last,
            Err(_) => "it does not answer".to_owned(),
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(JoinError::NoAnswer { address: address.to_owned(), within, last });
        }
        tracing::info!(address, last, "not joined yet; trying again");
        tokio::time::sleep(PAUSE).await;
    };
    let senseless = |what| JoinError::Senseless { address: address.to_owned(), what };
    let authority = CertificateDer::from(response.authority.to_vec());
    if !token.is_of(&authority) {
        return Err(senseless("another authority than the token's"));
    }
    let cluster: [u8; 16] =
        response.cluster.as_ref().try_into().map_err(|_| senseless("a malformed cluster id"))?;
    let cluster = ClusterId(u128::from_be_bytes(cluster));
    let certificate = CertificateDer::from(response.certificate.to_vec());
    Ok(joining.accept(cluster, NodeId(response.node), certificate, authority)?)
}

async fn attempt(address: &str, token: &JoinToken, request: &proto::JoinRequest) -> Attempt {
    let connection = match connect(address, token).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let mut connection = Some(TokioIo::new(connection));
    // One connection, made above; when it is lost, the attempt fails.
    let connector = tower::service_fn(move |_: http::Uri| {
        let connection = connection.take();
        async move { connection.ok_or_else(|| std::io::Error::other("the connection was lost")) }
    });
    let channel = match endpoint("join.nora.internal") {
        Ok(endpoint) => endpoint.connect_with_connector(connector).await,
        Err(error) => return Attempt::Again(error.to_string()),
    };
    let answer = match channel {
        Ok(channel) => MembersClient::new(channel).join(request.clone()).await,
        Err(error) => return Attempt::Again(chain(&error)),
    };
    match answer {
        Ok(response) => Attempt::Done(response.into_inner()),
        Err(status) => match status.code() {
            Code::InvalidArgument | Code::PermissionDenied | Code::FailedPrecondition => {
                let (address, why) = (address.to_owned(), status.message().to_owned());
                Attempt::Never(JoinError::Refused { address, why })
            }
            _ => Attempt::Again(status.message().to_owned()),
        },
    }
}

async fn connect(address: &str, token: &JoinToken) -> Result<TlsStream<TcpStream>, Attempt> {
    let again = |error: BoxError| Attempt::Again(chain(&*error));
    let config = pinned_config(token.authority_hash())
        .map_err(|error| Attempt::Never(JoinError::Trust(error)))?;
    // The far end's own certificate says its name; any member will do.
    let name = ServerName::try_from("join.nora.internal").map_err(|error| again(error.into()))?;
    let plain = TcpStream::connect(address).await.map_err(|error| again(error.into()))?;
    plain.set_nodelay(true).map_err(|error| again(error.into()))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, plain).await;
    connected.map_err(|source| {
        let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) => {
                Attempt::Never(JoinError::OtherCluster { address: address.to_owned(), source })
            }
            _ => again(source.into()),
        }
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
