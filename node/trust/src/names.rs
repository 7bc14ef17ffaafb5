//! Names in certificates: `n<number>.<cluster>.nora.internal` is a member, `admin.<cluster>.nora.internal` its administrator.

use nora_domain::{ClusterId, NodeId};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{TrustError, certificate};

/// From where the other end of a connection speaks; a request carries it beside its [`Peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub std::net::IpAddr);

/// Who is at the other end of a connection, as its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Nobody that could be told: it showed no certificate.
    Anonymous,
    /// A member. Whether it still is one, the metadata knows.
    Member {
        /// Its number.
        node: NodeId,
    },
    /// The administrator.
    Admin,
}

/// The name of a member's certificate.
pub fn member_name(cluster: ClusterId, node: NodeId) -> String {
    format!("n{}.{:032x}.nora.internal", node.0, cluster.0)
}

/// The name of the administrator's certificate.
pub(crate) fn admin_name(cluster: ClusterId) -> String {
    format!("admin.{:032x}.nora.internal", cluster.0)
}

/// Reads a name; `None` if it is neither a member's nor the administrator's of any cluster.
pub(crate) fn parse(name: &str) -> Option<(ClusterId, Peer)> {
    let (first, rest) = name.split_once('.')?;
    let cluster = rest.strip_suffix(".nora.internal")?;
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if cluster.len() != 32 || !cluster.chars().all(is_hex) {
        return None;
    }
    let cluster = ClusterId(u128::from_str_radix(cluster, 16).ok()?);
    if first == "admin" {
        return Some((cluster, Peer::Admin));
    }
    let digits = first.strip_prefix('n')?;
    let node: u64 = digits.parse().ok()?;
    // One spelling of a number: no sign, no leading zero, and no node 0.
    (node != 0 && node.to_string() == digits)
        .then_some((cluster, Peer::Member { node: NodeId(node) }))
}

/// The DNS names of a certificate.
pub(crate) fn dns_names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, TrustError> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(certificate("a certificate is malformed"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(certificate("a certificate's names are malformed"))?;
    let names = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
    Ok(names
        .into_iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_owned()),
            _ => None,
        })
        .collect())
}

/// Whom a verified chain speaks for: the caller has checked that it leads to this cluster's authority. No certificate at
/// all is nobody; a certificate that names no one of this cluster, or more than one, is an error.
pub fn peer_of(cluster: ClusterId, chain: &[CertificateDer<'_>]) -> Result<Peer, TrustError> {
    let Some(leaf) = chain.first() else { return Ok(Peer::Anonymous) };
    let found = dns_names(leaf)?;
    match found.as_slice() {
        [name] => match parse(name) {
            Some((of, peer)) if of == cluster => Ok(peer),
            _ => Err(TrustError::Stranger { found }),
        },
        _ => Err(TrustError::Stranger { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_nobody() {
        let cluster = ClusterId(0xabc);
        let member = member_name(cluster, NodeId(17));
        assert_eq!(parse(&member), Some((cluster, Peer::Member { node: NodeId(17) })));
        assert_eq!(parse(&admin_name(cluster)), Some((cluster, Peer::Admin)));
        let hex = "00000000000000000000000000000abc";
        for wrong in [
            "n17".to_owned(),
            format!("n017.{hex}.nora.internal"),
            format!("n+17.{hex}.nora.internal"),
            format!("n0.{hex}.nora.internal"),
            format!("x17.{hex}.nora.internal"),
            format!("n17.{hex}.nora.internal."),
            format!("n17.{hex}.nora.external"),
            format!("n17.{}.nora.internal", hex.to_uppercase()),
            format!("n17.{}.nora.internal", &hex[1..]),
            format!("evil.n17.{hex}.nora.internal"),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }
}
