//! A node follows the rotation of its cluster's authority.
//!
//! Guarantees: a node trusts the next authority before any member shows a certificate of it, and the old one for as long
//! as any member does; what a stage asks is on disk before it is confirmed; a crash at any point leaves an identity that
//! loads, and following the same stage again does what is left of it.

use std::sync::{Arc, PoisonError};

use nora_domain::{AuthorityKeys, AuthorityRecord, RotationStage};
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::authority::{Authority, new_key};
use crate::files::{self, failed};
use crate::identity::{AUTHORITY, Identity, NODE, is_of, other_authority, pem};
use crate::{TrustError, certificate, tls};

const NEXT: &str = "next.pem";

/// What following the authority's row did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// What this node trusts, or what it shows, is not what it was: connections of before may be of the old authority.
    pub has_changed: bool,
    /// The stage that this node has done its part of.
    pub confirms: Option<RotationStage>,
}

/// A certificate with its key, as a file holds both.
struct Certified {
    leaf: CertificateDer<'static>,
    key: KeyPair,
}

impl Certified {
    fn parse(bytes: &[u8]) -> Result<Self, TrustError> {
        let unusable = "the next certificate of this node is not usable";
        let leaf = CertificateDer::from_pem_slice(bytes)
            .map_err(|error| TrustError::Certificate { what: unusable, why: error.to_string() })?;
        let key =
            KeyPair::from_pem(&String::from_utf8_lossy(bytes)).map_err(certificate(unusable))?;
        Ok(Self { leaf, key })
    }

    fn text(&self) -> String {
        format!("{}{}", pem(&self.leaf), self.key.serialize_pem())
    }
}

/// The authorities to trust.
fn wanted(record: &AuthorityRecord) -> Vec<CertificateDer<'static>> {
    let next = record.rotation.as_ref().map(|rotation| &rotation.keys);
    let keys = [Some(&record.keys), next].into_iter().flatten();
    keys.map(|keys| CertificateDer::from(keys.certificate.clone())).collect()
}

impl Identity {
    /// Whether this node trusts those whom the authority's row says, and nobody else.
    pub fn trusts_as(&self, record: &AuthorityRecord) -> bool {
        self.trusted.authorities() == wanted(record)
    }

    /// Does what the authority's row asks of this node: trusts who is to be trusted, and makes or shows its certificate
    /// of the next authority. Cheap if there is nothing to do.
    pub fn follow(&self, record: &AuthorityRecord) -> Result<Followed, TrustError> {
        self.follow_at(record, OffsetDateTime::now_utc())
    }

    fn follow_at(
        &self,
        record: &AuthorityRecord,
        now: OffsetDateTime,
    ) -> Result<Followed, TrustError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted(record);
        // Without this, a node whose certificate is of neither would cut itself off.
        if !wanted.contains(&self.authority()) {
            return Err(other_authority());
        }
        let mut followed = Followed::default();
        if self.trusted.authorities() != wanted {
            let text: String = wanted.iter().map(pem).collect();
            files::write(&self.dir, AUTHORITY, text.as_bytes())?;
            self.trusted.set(wanted)?;
            followed.has_changed = true;
        }
        let Some(rotation) = &record.rotation else { return Ok(followed) };
        match rotation.stage {
            RotationStage::Trust => drop(self.next(&rotation.keys, now)?),
            RotationStage::Show => followed.has_changed |= self.show_next(&rotation.keys, now)?,
        }
        followed.confirms = Some(rotation.stage);
        Ok(followed)
    }

    /// This node's certificate of the authority that comes. The key is new as well: the old one may have been read.
    fn next(&self, keys: &AuthorityKeys, now: OffsetDateTime) -> Result<Certified, TrustError> {
        let authority = Authority::from_keys(keys)?;
        if let Some(bytes) = files::read(&self.dir.join(NEXT))? {
            // It may be of a rotation before this one.
            match Certified::parse(&bytes) {
                Ok(next) if is_of(&next.leaf, authority.certificate()) => return Ok(next),
                _ => {}
            }
        }
        let key = new_key()?;
        let leaf = authority.issue_member(self.cluster, self.node, &key, now)?;
        let next = Certified { leaf, key };
        files::write(&self.dir, NEXT, next.text().as_bytes())?;
        Ok(next)
    }

    /// Shows the certificate of the authority that comes from now on. Returns whether it was not shown before.
    fn show_next(&self, keys: &AuthorityKeys, now: OffsetDateTime) -> Result<bool, TrustError> {
        let authority = Authority::from_keys(keys)?;
        let is_shown = self.authority() == *authority.certificate();
        if !is_shown {
            let next = self.next(keys, now)?;
            self.issue_admin(&authority, now)?;
            files::write(&self.dir, NODE, next.text().as_bytes())?;
            let key = PrivateKeyDer::try_from(next.key.serialize_der())
                .map_err(certificate("a new key is not usable"))?;
            let certified = tls::certified(next.leaf, authority.certificate().clone(), key)?;
            self.current.store(Arc::new(certified));
        }
        let path = self.dir.join(NEXT);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(!is_shown),
        }
    }
}
