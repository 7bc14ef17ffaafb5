//! A node's identity, in the folder `identity` of its data:
//!
//! ```text
//! ca.crt                    the authority's certificate; both authorities' while one replaces the other
//! node.pem                  this node's certificate and key
//! next.pem                  those of the authority that comes, until they are shown
//! admin.crt, admin.key      the administrator's, for the command line on this machine
//! authority.key             only on the founder, and only until the metadata has it
//! bound                     there once the node has a log: the log says the same
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use nora_domain::{AuthorityKeys, AuthorityRecord, ClusterId, NodeId};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::authority::{Authority, CERTIFICATE_DAYS, new_key, valid_from};
use crate::files::{self, failed, make_private_dir};
use crate::names::{Peer, peer_of};
use crate::tls::Trusted;
use crate::{TrustError, certificate, tls};

pub(crate) const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "authority.key";
pub(crate) const NODE: &str = "node.pem";
const ADMIN: &str = "admin.crt";
const ADMIN_KEY: &str = "admin.key";
const BOUND: &str = "bound";
const JOIN_KEY: &str = "join.key";
/// The name of the file in the log's folder that says whose it is.
const LOG_OWNER: &str = "identity";

/// What a renewal did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// This node has a new certificate.
    pub node: bool,
    /// The administrator has one.
    pub admin: bool,
}

/// A member's identity.
pub struct Identity {
    pub(crate) dir: PathBuf,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) trusted: Arc<Trusted>,
    /// The certificate that this node shows, and behind it that of its authority.
    pub(crate) current: Arc<ArcSwap<CertifiedKey>>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// Files are changed by one at a time.
    pub(crate) changing: Mutex<()>,
}

/// A node that has asked, or is about to ask, to be let in.
pub struct Joining {
    dir: PathBuf,
    key: KeyPair,
}

pub(crate) fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn joining_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("identity.joining")
}

impl Joining {
    /// Takes up a join that broke off, or begins one. The key stays the same, and so will the number.
    pub fn begin(data_dir: &Path) -> Result<Self, TrustError> {
        let dir = joining_dir(data_dir);
        make_private_dir(&dir)?;
        let path = dir.join(JOIN_KEY);
        let key = match files::read(&path)? {
            Some(bytes) => KeyPair::from_pem(&String::from_utf8_lossy(&bytes))
                .map_err(certificate("the key of the join that broke off is not usable"))?,
            None => {
                let key = new_key()?;
                files::write(&dir, JOIN_KEY, key.serialize_pem().as_bytes())?;
                key
            }
        };
        Ok(Self { dir: data_dir.to_owned(), key })
    }

    /// The request for a certificate, DER.
    pub fn signing_request(&self) -> Result<Vec<u8>, TrustError> {
        let request = CertificateParams::default()
            .serialize_request(&self.key)
            .map_err(certificate("cannot make a certificate signing request"))?;
        Ok(request.der().to_vec())
    }

    /// Takes what the cluster answered, and is a member from then on.
    pub fn accept(
        self,
        cluster: ClusterId,
        node: NodeId,
        leaf: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Identity, TrustError> {
        if whose(&leaf)? != (cluster, node) {
            return Err(TrustError::Certificate {
                what: "the certificate that the cluster gave",
                why: format!("it is not one for node {}", node.0),
            });
        }
        let node_pem = format!("{}{}", pem(&leaf), self.key.serialize_pem());
        let files: [(&str, String); 2] = [(AUTHORITY, pem(&authority)), (NODE, node_pem)];
        store(&self.dir, &files)?;
        let dir = joining_dir(&self.dir);
        fs::remove_dir_all(&dir).map_err(failed("remove", &dir))?;
        Identity::load(&self.dir)?.ok_or(TrustError::Certificate {
            what: "the identity",
            why: "it was written and is not there".into(),
        })
    }
}

/// Writes the folder `identity` whole or not at all.
fn store(data_dir: &Path, contents: &[(&str, String)]) -> Result<(), TrustError> {
    let (part, dir) = (data_dir.join("identity.part"), data_dir.join("identity"));
    if part.exists() {
        fs::remove_dir_all(&part).map_err(failed("remove", &part))?;
    }
    make_private_dir(&part)?;
    for (name, text) in contents {
        files::write(&part, name, text.as_bytes())?;
    }
    fs::rename(&part, &dir).and_then(|()| files::sync_dir(data_dir)).map_err(failed("make", &dir))
}

impl Identity {
    /// Begins a cluster: its authority, and this node as number 1.
    pub fn found(data_dir: &Path, cluster: ClusterId) -> Result<Self, TrustError> {
        Self::found_at(data_dir, cluster, OffsetDateTime::now_utc())
    }

    fn found_at(
        data_dir: &Path,
        cluster: ClusterId,
        now: OffsetDateTime,
    ) -> Result<Self, TrustError> {
        let authority = Authority::new_at(cluster, now)?;
        let (key, admin_key) = (new_key()?, new_key()?);
        let leaf = authority.issue_member(cluster, NodeId(1), &key, now)?;
        let admin = authority.issue_admin(cluster, &admin_key, now)?;
        let authority_key = KeyPair::try_from(authority.to_keys().key.as_slice())
            .map_err(certificate("the authority's key"))?;
        store(
            data_dir,
            &[
                (AUTHORITY, pem(authority.certificate())),
                (AUTHORITY_KEY, authority_key.serialize_pem()),
                (NODE, format!("{}{}", pem(&leaf), key.serialize_pem())),
                (ADMIN, pem(&admin)),
                (ADMIN_KEY, admin_key.serialize_pem()),
            ],
        )?;
        Self::load(data_dir)?.ok_or(TrustError::Certificate {
            what: "the identity",
            why: "it was written and is not there".into(),
        })
    }

    /// The identity in this data folder; `None` if there is none.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, TrustError> {
        let dir = data_dir.join("identity");
        if !dir.is_dir() {
            return Ok(None);
        }
        let authorities = authorities_in(&dir.join(AUTHORITY))?;
        let path = dir.join(NODE);
        let unreadable = |error: rustls::pki_types::pem::Error| {
            failed("read", &path)(std::io::Error::other(error.to_string()))
        };
        let leaf = CertificateDer::from_pem_file(&path).map_err(unreadable)?;
        let key = PrivateKeyDer::from_pem_file(&path).map_err(unreadable)?;
        let (cluster, node) = whose(&leaf)?;
        let authority = match authorities.as_slice() {
            [only] => Some(only.clone()),
            several => issuer_among(&leaf, several),
        };
        let authority = authority.ok_or(TrustError::Certificate {
            what: "this node's certificate",
            why: format!("no authority in {AUTHORITY} has issued it"),
        })?;
        let certified = tls::certified(leaf, authority.clone(), key)?;
        let current = Arc::new(ArcSwap::from_pointee(certified));
        let trusted = Trusted::new(authorities)?;
        let server = Arc::new(tls::server_config(trusted.clone(), current.clone())?);
        let client = Arc::new(tls::client_config(trusted.clone(), current.clone())?);
        let changing = Mutex::default();
        Ok(Some(Self { dir, cluster, node, trusted, current, server, client, changing }))
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The certificate of the authority that issued the certificate which this node shows.
    pub fn authority(&self) -> CertificateDer<'static> {
        // `certified` puts it there.
        self.current.load().cert.last().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()))
    }

    /// Whether a handshake with this verified chain would be accepted now: a connection may be older than a change of the
    /// authority. No certificate at all is no reason to refuse.
    pub fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        self.trusted.has_issued(chain)
    }

    /// The authority with its key, if this node founded the cluster and the metadata does not have it yet.
    pub fn founding_authority(&self) -> Result<Option<AuthorityKeys>, TrustError> {
        let Some(bytes) = files::read(&self.dir.join(AUTHORITY_KEY))? else { return Ok(None) };
        let key = KeyPair::from_pem(&String::from_utf8_lossy(&bytes))
            .map_err(certificate("the authority's key is not usable"))?;
        Ok(Some(AuthorityKeys { certificate: self.authority().to_vec(), key: key.serialize_der() }))
    }

    /// The metadata has the authority's key: it goes from this disk.
    pub fn authority_committed(&self) -> Result<(), TrustError> {
        let path = self.dir.join(AUTHORITY_KEY);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => files::sync_dir(&self.dir).map_err(failed("sync", &self.dir)),
        }
    }

    /// For the cluster port.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For dialling members; the server's name is [`crate::member_name`].
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Who showed this verified chain.
    pub fn peer_of(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, TrustError> {
        peer_of(self.cluster, chain)
    }

    /// Gives this node and the administrator new certificates if a third of the old ones' life or less is left, if the old
    /// ones are not valid now (a wrong clock made them), or if there are none. Connections go on; new ones use the new
    /// certificate.
    pub fn renew(&self, authority: &AuthorityRecord) -> Result<Renewed, TrustError> {
        self.renew_at(authority, OffsetDateTime::now_utc())
    }

    fn renew_at(
        &self,
        authority: &AuthorityRecord,
        now: OffsetDateTime,
    ) -> Result<Renewed, TrustError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.authority();
        let next = authority.rotation.as_ref().map(|rotation| &rotation.keys);
        let keys = [Some(&authority.keys), next]
            .into_iter()
            .flatten()
            .find(|keys| keys.certificate == own.as_ref())
            .ok_or_else(other_authority)?;
        let authority = Authority::from_keys(keys)?;
        let mut renewed = Renewed::default();
        let leaf = self.current.load_full();
        if let Some(why) = leaf.cert.first().map_or(Some(Due::Unreadable), |leaf| due(leaf, now)) {
            why.say("this node's");
            let key = new_key()?;
            let leaf = authority.issue_member(self.cluster, self.node, &key, now)?;
            // Certificate and key are one file, so that a crash cannot leave one of each.
            let text = format!("{}{}", pem(&leaf), key.serialize_pem());
            files::write(&self.dir, NODE, text.as_bytes())?;
            let der = PrivateKeyDer::try_from(key.serialize_der())
                .map_err(certificate("a new key is not usable"))?;
            let certified = tls::certified(leaf, own, der)?;
            self.current.store(Arc::new(certified));
            renewed.node = true;
        }
        let admin = files::read(&self.dir.join(ADMIN))?
            .and_then(|bytes| CertificateDer::from_pem_slice(&bytes).ok());
        if let Some(why) = admin.map_or(Some(Due::Unreadable), |admin| due(&admin, now)) {
            why.say("the administrator's");
            self.issue_admin(&authority, now)?;
            renewed.admin = true;
        }
        Ok(renewed)
    }

    /// Gives the administrator on this machine a new certificate.
    pub(crate) fn issue_admin(
        &self,
        authority: &Authority,
        now: OffsetDateTime,
    ) -> Result<(), TrustError> {
        let key = new_key()?;
        let admin = authority.issue_admin(self.cluster, &key, now)?;
        files::write(&self.dir, ADMIN_KEY, key.serialize_pem().as_bytes())?;
        files::write(&self.dir, ADMIN, pem(&admin).as_bytes())
    }

    /// Binds the log's folder to this identity, or sees that it is bound. An identity that had a log and finds none is
    /// refused: it may not vote as if it had never voted.
    pub fn bind(&self, log_dir: &Path) -> Result<(), TrustError> {
        let owner = format!("cluster {:032x}\nnode {}\n", self.cluster.0, self.node.0);
        let bound = self.dir.join(BOUND).exists();
        match files::read(&log_dir.join(LOG_OWNER))? {
            Some(found) if found == owner.as_bytes() => {}
            Some(_) => return Err(TrustError::OtherLog(log_dir.to_owned())),
            None if bound => return Err(TrustError::LogGone(self.node)),
            None => {
                fs::create_dir_all(log_dir).map_err(failed("make", log_dir))?;
                files::write(log_dir, LOG_OWNER, owner.as_bytes())?;
            }
        }
        if !bound {
            files::write(&self.dir, BOUND, b"")?;
        }
        Ok(())
    }

    /// Sees, before an identity is made, that the log's folder does not belong to one that is gone.
    pub fn check_unbound(log_dir: &Path) -> Result<(), TrustError> {
        match files::read(&log_dir.join(LOG_OWNER))? {
            Some(_) => Err(TrustError::IdentityGone(log_dir.to_owned())),
            None => Ok(()),
        }
    }
}

pub(crate) fn other_authority() -> TrustError {
    TrustError::Certificate {
        what: "the authority in the metadata",
        why: "it is not the one that this node's certificate is of".into(),
    }
}

/// The authorities in a file.
fn authorities_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let unreadable = |error: rustls::pki_types::pem::Error| {
        failed("read", path)(std::io::Error::other(error.to_string()))
    };
    CertificateDer::pem_file_iter(path)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(unreadable)
}

/// The authority whose key a certificate says that it was signed with. This does not verify the signature: it is for this
/// node's own files.
fn issuer_among(
    leaf: &CertificateDer<'_>,
    authorities: &[CertificateDer<'static>],
) -> Option<CertificateDer<'static>> {
    let wanted = key_ids(leaf)?.issuer?;
    let is_it = |authority: &&CertificateDer<'_>| {
        key_ids(authority).and_then(|ids| ids.own).as_ref() == Some(&wanted)
    };
    authorities.iter().find(is_it).cloned()
}

/// The ids of keys that a certificate names.
#[derive(Default)]
struct KeyIds {
    /// Of the key that signed it.
    issuer: Option<Vec<u8>>,
    /// Of its own key.
    own: Option<Vec<u8>>,
}

fn key_ids(der: &CertificateDer<'_>) -> Option<KeyIds> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let mut ids = KeyIds::default();
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(of) => {
                ids.issuer = of.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::SubjectKeyIdentifier(own) => ids.own = Some(own.0.to_vec()),
            _ => {}
        }
    }
    Some(ids)
}

/// Whether a certificate says that this authority signed it.
pub(crate) fn is_of(leaf: &CertificateDer<'_>, authority: &CertificateDer<'static>) -> bool {
    issuer_among(leaf, std::slice::from_ref(authority)).is_some()
}

fn whose(leaf: &CertificateDer<'_>) -> Result<(ClusterId, NodeId), TrustError> {
    let found = crate::names::dns_names(leaf)?;
    match found.first().and_then(|name| crate::names::parse(name)) {
        Some((cluster, Peer::Member { node })) => Ok((cluster, node)),
        _ => Err(TrustError::Stranger { found }),
    }
}

/// Why a certificate should be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It is not there, or cannot be read.
    Unreadable,
    /// It is not valid yet.
    NotYet,
    /// It is not valid any more.
    NoMore,
    /// A third of its life or less is left.
    Soon,
}

impl Due {
    /// A certificate that a wrong clock made is worth a warning: the operator may not know of that clock.
    fn say(self, whose: &str) {
        match self {
            Self::NotYet => tracing::warn!(whose, "a certificate is not valid yet: renewing it"),
            Self::NoMore => tracing::warn!(whose, "a certificate has expired: renewing it"),
            Self::Soon => tracing::debug!(whose, "a certificate is due: renewing it"),
            Self::Unreadable => tracing::debug!(whose, "there is no certificate: making it"),
        }
    }
}

/// Why a certificate should be replaced, if it should. A clock from before the first certificate of any cluster is wrong:
/// a certificate made by it would be no better.
fn due(leaf: &CertificateDer<'_>, now: OffsetDateTime) -> Option<Due> {
    if now < valid_from() {
        return None;
    }
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return Some(Due::Unreadable) };
    let (validity, now) = (parsed.validity(), now.unix_timestamp());
    let left = validity.not_after.timestamp() - now;
    let life = CERTIFICATE_DAYS * 86_400;
    if validity.not_before.timestamp() > now {
        Some(Due::NotYet)
    } else if left <= 0 {
        Some(Due::NoMore)
    } else {
        (left <= life / 3).then_some(Due::Soon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nora_domain::SharedSecret;
    use time::Duration;

    const CLUSTER: ClusterId = ClusterId(7);

    fn settled(keys: AuthorityKeys) -> AuthorityRecord {
        AuthorityRecord { keys, secret: SharedSecret([0; 32]), rotation: None }
    }

    #[test]
    fn an_identity_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::load(dir.path()).unwrap().is_none());
        let founded = Identity::found(dir.path(), CLUSTER).unwrap();
        let loaded = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!((loaded.cluster(), loaded.node()), (CLUSTER, NodeId(1)));
        assert_eq!(loaded.authority(), founded.authority());
        assert!(loaded.founding_authority().unwrap().is_some());
        loaded.authority_committed().unwrap();
        loaded.authority_committed().unwrap();
        assert!(loaded.founding_authority().unwrap().is_none());
        for file in fs::read_dir(dir.path().join("identity")).unwrap() {
            use std::os::unix::fs::PermissionsExt;
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", file.path());
        }
    }

    #[test]
    fn certificates_are_renewed_in_their_last_third_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::found(dir.path(), CLUSTER).unwrap();
        let authority = settled(identity.founding_authority().unwrap().unwrap());
        let at = |days| OffsetDateTime::now_utc() + Duration::days(days);
        assert_eq!(identity.renew_at(&authority, at(59)).unwrap(), Renewed::default());
        let before = identity.current.load_full();
        let both = Renewed { node: true, admin: true };
        assert_eq!(identity.renew_at(&authority, at(61)).unwrap(), both);
        assert_ne!(before.cert, identity.current.load_full().cert);
        let loaded = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded.current.load_full().cert, identity.current.load_full().cert);
        let other = settled(Authority::new(CLUSTER).unwrap().to_keys());
        assert!(identity.renew(&other).is_err());
    }

    #[test]
    fn a_node_that_ran_with_a_wrong_clock_is_reachable_when_the_clock_is_right() {
        let now = OffsetDateTime::now_utc();
        let is_valid = |leaf: &CertificateDer<'_>| {
            let (_, parsed) = X509Certificate::from_der(leaf).unwrap();
            let validity = parsed.validity();
            let now = now.unix_timestamp();
            validity.not_before.timestamp() <= now && now < validity.not_after.timestamp()
        };
        let admin =
            |dir: &Path| CertificateDer::from_pem_file(dir.join("identity/admin.crt")).unwrap();
        let both = Renewed { node: true, admin: true };
        for wrong in [now + Duration::days(400), OffsetDateTime::UNIX_EPOCH + Duration::days(1)] {
            // The clock was wrong when the cluster was founded.
            let dir = tempfile::tempdir().unwrap();
            let identity = Identity::found_at(dir.path(), CLUSTER, wrong).unwrap();
            assert!(is_valid(&identity.authority()), "{wrong}");
            let authority = settled(identity.founding_authority().unwrap().unwrap());
            let expected = if wrong < now { both } else { Renewed::default() };
            assert_eq!(identity.renew_at(&authority, now).unwrap(), expected, "{wrong}");
            let leaf = identity.current.load_full().cert[0].clone();
            assert!(is_valid(&leaf) && is_valid(&admin(dir.path())), "{wrong}");

            // The clock was wrong at a later start.
            let dir = tempfile::tempdir().unwrap();
            let identity = Identity::found(dir.path(), CLUSTER).unwrap();
            let authority = settled(identity.founding_authority().unwrap().unwrap());
            identity.renew_at(&authority, wrong).unwrap();
            let identity = Identity::load(dir.path()).unwrap().unwrap();
            let leaf = identity.current.load_full().cert[0].clone();
            assert!(is_valid(&leaf) && is_valid(&admin(dir.path())), "{wrong}");
        }
    }

    #[test]
    fn a_log_and_its_identity_belong_together() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("metadata");
        Identity::check_unbound(&log).unwrap();
        let identity = Identity::found(dir.path(), CLUSTER).unwrap();
        identity.bind(&log).unwrap();
        identity.bind(&log).unwrap();
        assert!(matches!(Identity::check_unbound(&log), Err(TrustError::IdentityGone(_))));

        let other = tempfile::tempdir().unwrap();
        let stranger = Identity::found(other.path(), ClusterId(8)).unwrap();
        assert!(matches!(stranger.bind(&log), Err(TrustError::OtherLog(_))));

        fs::remove_dir_all(&log).unwrap();
        let refused = identity.bind(&log).unwrap_err();
        assert!(matches!(refused, TrustError::LogGone(NodeId(1))), "{refused}");
        assert!(refused.to_string().contains("Remove node 1"), "{refused}");
    }

    #[test]
    fn a_join_that_broke_off_goes_on_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let founder = tempfile::tempdir().unwrap();
        let identity = Identity::found(founder.path(), CLUSTER).unwrap();
        let record = settled(identity.founding_authority().unwrap().unwrap());
        let authority = Authority::from_keys(&record.keys).unwrap();
        let hash = |joining: &Joining| {
            let der = joining.signing_request().unwrap();
            crate::SigningRequest::parse(&der).unwrap().key_hash()
        };
        let first = hash(&Joining::begin(dir.path()).unwrap());
        let joining = Joining::begin(dir.path()).unwrap();
        assert_eq!(hash(&joining), first);
        let request = crate::SigningRequest::parse(&joining.signing_request().unwrap()).unwrap();
        let leaf = authority.issue_requested(CLUSTER, NodeId(2), &request).unwrap();
        let ca = authority.certificate().clone();
        let joined = joining.accept(CLUSTER, NodeId(2), leaf, ca).unwrap();
        assert_eq!(joined.node(), NodeId(2));
        assert!(!joining_dir(dir.path()).exists());
        assert_eq!(joined.renew(&record).unwrap(), Renewed { node: false, admin: true });
    }
}
