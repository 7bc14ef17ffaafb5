//! An issuer's discovery document: where its keys are.
//!
//! Guarantees: the document is of the issuer that was asked for, byte for byte, and leads to no address that is less
//! protected than the issuer's own. Whatever it says of algorithms is not read: the policy's list counts. Must not know:
//! how documents are fetched.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{WorkloadError, json};

/// The largest document that is read.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// What is used of an OpenID Connect discovery document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryDocument {
    /// Where the issuer's keys are.
    pub jwks_uri: String,
}

impl DiscoveryDocument {
    /// Reads the document that was found below an issuer.
    pub fn parse(document: &[u8], issuer: &str) -> Result<Self, WorkloadError> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(WorkloadError::DiscoveryTooLarge);
        }
        let document = json::object(document, "discovery document")?;
        let text = |field: &str| document.get(field).and_then(|value| value.as_str());
        if text("issuer") != Some(issuer) {
            return Err(WorkloadError::DiscoveryIssuer { expected: issuer.to_owned() });
        }
        let address = text("jwks_uri").ok_or(WorkloadError::DiscoveryKeysAddress)?;
        let protected = match protection(address) {
            Some(Protection::Https) => true,
            Some(Protection::Loopback) => protection(issuer) == Some(Protection::Loopback),
            None => false,
        };
        if !protected {
            return Err(WorkloadError::DiscoveryKeysAddress);
        }
        Ok(Self { jwks_uri: address.to_owned() })
    }
}

/// Why nobody between here and an address can change what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    Https,
    Loopback,
}

/// What protects an address; `None` is an address that is not used.
fn protection(address: &str) -> Option<Protection> {
    // A user part, a backslash or a blank is read differently by different readers of addresses.
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>^`{|}#".contains(&byte);
    if address.len() > 2048 || !address.bytes().all(plain) {
        return None;
    }
    let (scheme, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    if authority.contains('@') {
        return None;
    }
    let (host, port) = match authority.rfind(']') {
        Some(end) => authority.split_at(end + 1),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_valid = port.is_empty()
        || port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()).is_some();
    if host.is_empty() || !port_valid {
        return None;
    }
    match scheme {
        "https" => Some(Protection::Https),
        "http" if is_loopback(host) => Some(Protection::Loopback),
        _ => None,
    }
}

fn is_loopback(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || v6.and_then(|host| host.parse::<Ipv6Addr>().ok()).is_some_and(|a| a.is_loopback())
}
