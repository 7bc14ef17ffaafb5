//! The cluster's certificate authority: makes and signs.

use aws_lc_rs::digest::{SHA256, digest};
use nora_domain::{AuthorityKeys, ClusterId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::{Duration, OffsetDateTime};

use crate::names::{admin_name, member_name};
use crate::{TrustError, certificate};

/// How long the authority's own certificate is good for.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a node's or the administrator's certificate is good for.
pub(crate) const CERTIFICATE_DAYS: i64 = 90;
/// Every certificate is good from this moment on, 2024-01-01 at midnight. The clock of the node that makes a certificate may
/// be wrong; a certificate that begins in the future would cut its node off once the clock is right.
const VALID_FROM_UNIX_SECS: i64 = 1_704_067_200;

/// The authority with its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// The moment from which certificates are good.
pub(crate) fn valid_from() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::seconds(VALID_FROM_UNIX_SECS)
}

fn params(common_name: String, now: OffsetDateTime, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = valid_from();
    // A clock before that moment is wrong. What it makes is good for a while all the same.
    params.not_after = now.max(valid_from()) + Duration::days(days);
    params
}

fn leaf_params(
    name: String,
    now: OffsetDateTime,
    days: i64,
) -> Result<CertificateParams, TrustError> {
    let mut params = params(name.clone(), now, days);
    let name = name.try_into().map_err(certificate("a certificate's name"))?;
    params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Nodes are servers to some and clients to others.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A new key.
pub(crate) fn new_key() -> Result<KeyPair, TrustError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate("cannot make a key"))
}

/// Random bytes for a secret that the members share.
pub fn new_secret() -> Result<[u8; 32], getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(secret)
}

/// SHA-256 of a public key, in the form in which certificates carry it.
pub fn public_key_hash(key: &impl PublicKeyData) -> [u8; 32] {
    sha256(&key.subject_public_key_info())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// A node's wish for a certificate, signed with its key.
pub struct SigningRequest(CertificateSigningRequestParams);

impl SigningRequest {
    /// Reads a request and checks that whoever made it has the key. Names and usages in it are ignored.
    pub fn parse(der: &[u8]) -> Result<Self, TrustError> {
        let der = CertificateSigningRequestDer::from(der.to_vec());
        let request = CertificateSigningRequestParams::from_der(&der)
            .map_err(certificate("the certificate signing request is not usable"))?;
        Ok(Self(request))
    }

    /// SHA-256 of its public key.
    pub fn key_hash(&self) -> [u8; 32] {
        public_key_hash(&self.0.public_key)
    }
}

impl Authority {
    /// A new authority for a cluster.
    pub fn new(cluster: ClusterId) -> Result<Self, TrustError> {
        Self::new_at(cluster, OffsetDateTime::now_utc())
    }

    pub(crate) fn new_at(cluster: ClusterId, now: OffsetDateTime) -> Result<Self, TrustError> {
        let key = new_key()?;
        let name = format!("NORA cluster {:032x}", cluster.0);
        let mut params = params(name, now, AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(&key).map_err(certificate("cannot make the authority"))?;
        let certificate = made.der().clone();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority that the metadata holds.
    pub fn from_keys(keys: &AuthorityKeys) -> Result<Self, TrustError> {
        let key = KeyPair::try_from(keys.key.as_slice())
            .map_err(certificate("the authority's key is not usable"))?;
        let certificate_der = CertificateDer::from(keys.certificate.clone());
        let issuer = Issuer::from_ca_cert_der(&certificate_der, key)
            .map_err(certificate("the authority's certificate is not usable"))?;
        Ok(Self { certificate: certificate_der, issuer })
    }

    /// The authority as the metadata holds it, key included.
    pub fn to_keys(&self) -> AuthorityKeys {
        AuthorityKeys {
            certificate: self.certificate.to_vec(),
            key: self.issuer.key().serialize_der(),
        }
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for a joining node's key.
    pub fn issue_requested(
        &self,
        cluster: ClusterId,
        node: NodeId,
        request: &SigningRequest,
    ) -> Result<CertificateDer<'static>, TrustError> {
        let now = OffsetDateTime::now_utc();
        let params = leaf_params(member_name(cluster, node), now, CERTIFICATE_DAYS)?;
        let made = params
            .signed_by(&request.0.public_key, &self.issuer)
            .map_err(certificate("cannot issue a certificate"))?;
        Ok(made.der().clone())
    }

    /// A certificate for a member's own key.
    pub(crate) fn issue_member(
        &self,
        cluster: ClusterId,
        node: NodeId,
        key: &KeyPair,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, TrustError> {
        self.issue(member_name(cluster, node), key, now)
    }

    /// A certificate for the administrator.
    pub(crate) fn issue_admin(
        &self,
        cluster: ClusterId,
        key: &KeyPair,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, TrustError> {
        self.issue(admin_name(cluster), key, now)
    }

    pub(crate) fn issue(
        &self,
        name: String,
        key: &KeyPair,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, TrustError> {
        let made = leaf_params(name, now, CERTIFICATE_DAYS)?
            .signed_by(key, &self.issuer)
            .map_err(certificate("cannot issue a certificate"))?;
        Ok(made.der().clone())
    }
}
