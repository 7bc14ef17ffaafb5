//! rustls as nodes use it: TLS 1.3, both sides with certificates of the cluster's authority.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::authority::sha256;
use crate::names::{self, Peer};
use crate::{TrustError, certificate};

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(Arc::new(roots))
}

/// A certificate and its key, with the authority's certificate behind it: a node that joins must be able to see it.
pub(crate) fn certified(
    leaf: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TrustError> {
    CertifiedKey::from_der(vec![leaf, authority], key, &provider())
        .map_err(certificate("the certificate and its key cannot be used together"))
}

/// The certificate in use; new handshakes take the newest.
#[derive(Debug)]
pub(crate) struct Current(pub(crate) Arc<ArcSwap<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for Current {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The authorities that a node trusts. They change while the configurations that rest on them are in use; handshakes take
/// the newest.
#[derive(Debug)]
pub(crate) struct Trusted(ArcSwap<Anchors>);

#[derive(Debug)]
struct Anchors {
    authorities: Vec<CertificateDer<'static>>,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

impl Anchors {
    fn of(authorities: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let failed = certificate("TLS cannot be set up");
        let made = roots(&authorities).and_then(|roots| {
            let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
            let servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
            Ok(Self { authorities, clients, servers })
        });
        made.map_err(failed)
    }
}

impl Trusted {
    pub(crate) fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Arc<Self>, TrustError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(Anchors::of(authorities)?))))
    }

    /// Trusts these from now on, and no others.
    pub(crate) fn set(&self, authorities: Vec<CertificateDer<'static>>) -> Result<(), TrustError> {
        self.0.store(Arc::new(Anchors::of(authorities)?));
        Ok(())
    }

    pub(crate) fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.0.load().authorities.clone()
    }

    /// Whether a client with this chain would be let in by a handshake now.
    pub(crate) fn has_issued(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, rest)) = chain.split_first() else { return true };
        self.0.load().clients.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
    }
}

/// Judges clients by the authorities that are trusted now.
#[derive(Debug)]
struct Clients(Arc<Trusted>);

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: members have one certificate each, and show it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.0.load().clients.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.0.load().clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.0.load().clients.supported_verify_schemes()
    }
}

/// Judges servers by the authorities that are trusted now.
#[derive(Debug)]
struct Servers(Arc<Trusted>);

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let servers = &self.0.0.load().servers;
        servers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.0.load().servers.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.0.load().servers.supported_verify_schemes()
    }
}

fn only_tls13() -> Error {
    Error::General("TLS 1.3 alone is spoken between nodes".into())
}

/// For the cluster port. A client may come without a certificate (to join, or with a password); one that it shows must be
/// an authority's that is trusted, and in date.
pub(crate) fn server_config(
    trusted: Arc<Trusted>,
    current: Arc<ArcSwap<CertifiedKey>>,
) -> Result<ServerConfig, TrustError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(certificate("TLS cannot be set up"))?
        .with_client_cert_verifier(Arc::new(Clients(trusted)))
        .with_cert_resolver(Arc::new(Current(current)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A session that is taken up again would be one with the certificate of before.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For dialling members: the name that is dialled must be the certificate's.
pub(crate) fn client_config(
    trusted: Arc<Trusted>,
    current: Arc<ArcSwap<CertifiedKey>>,
) -> Result<ClientConfig, TrustError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(certificate("TLS cannot be set up"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers(trusted)))
        .with_client_cert_resolver(Arc::new(Current(current)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// What the far end's authority must be.
#[derive(Debug)]
enum Anchor {
    /// This one.
    Known(Arc<RootCertStore>),
    /// The one whose certificate has this SHA-256; the far end shows it.
    Hash([u8; 32]),
}

/// Takes any member of the cluster, whatever its number: for those who know an address and not who is there. The chain is
/// verified as any chain is, against the name that the certificate itself says.
#[derive(Debug)]
struct AnyMember(Anchor);

impl ServerCertVerifier for AnyMember {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let anchor = match &self.0 {
            Anchor::Known(roots) => roots.clone(),
            Anchor::Hash(hash) => {
                let authority = intermediates
                    .iter()
                    .find(|shown| sha256(shown) == *hash)
                    .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                roots(&[authority.clone().into_owned()])?
            }
        };
        let names = names::dns_names(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let member =
            names.iter().find(|name| matches!(names::parse(name), Some((_, Peer::Member { .. }))));
        let name = member
            .and_then(|name| ServerName::try_from(name.clone()).ok())
            .ok_or(Error::InvalidCertificate(CertificateError::NotValidForName))?;
        WebPkiServerVerifier::builder_with_provider(anchor, provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn any_member(
    anchor: Anchor,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyMember(anchor)));
    let mut config = match client {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// For the first contact of a node that joins: the far end must show the authority's certificate that the token speaks of,
/// and be one of its members.
pub fn pinned_config(authority_hash: [u8; 32]) -> Result<ClientConfig, TrustError> {
    any_member(Anchor::Hash(authority_hash), None).map_err(certificate("TLS cannot be set up"))
}

/// For an administrator, who has the authority's certificate and may have one of its own. While the authority is being
/// replaced, there are two.
pub fn any_member_config(
    authorities: &[CertificateDer<'static>],
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, TrustError> {
    roots(authorities)
        .and_then(|roots| any_member(Anchor::Known(roots), client))
        .map_err(certificate("the certificates cannot be used"))
}
