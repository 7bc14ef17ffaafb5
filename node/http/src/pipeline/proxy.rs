//! What a trusted proxy says of its client: the address, and whether the client's connection is encrypted.
//!
//! Guarantees: a proxy that is not trusted says nothing; of addresses only those count that a trusted proxy has seen
//! itself. Must not know: what the address or the scheme is used for.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use nora_config::Network;

static FORWARDED: HeaderName = HeaderName::from_static("forwarded");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether the word of a proxy at this address is taken.
pub(super) fn is_trusted(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// Where a request comes from: the other end of the connection, unless that is a trusted proxy. Then it is the last
/// address in `X-Forwarded-For` that no trusted proxy has: everything before it may be made up.
///
/// `Forwarded` is not read for addresses. A proxy that writes only one of the two headers passes a client's own version
/// of the other on.
pub(super) fn client_address(trusted: &[Network], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut client = peer;
    let forwarded = headers.get_all(&X_FORWARDED_FOR).iter().rev();
    let forwarded = forwarded.filter_map(|value| value.to_str().ok());
    for address in forwarded.flat_map(|value| value.rsplit(',')).map(|text| text.trim().parse()) {
        if !is_trusted(trusted, client) {
            break;
        }
        match address {
            Ok(address) => client = address,
            Err(_) => break,
        }
    }
    client
}

/// Whether a trusted proxy says that its client's connection is encrypted: by `X-Forwarded-Proto`, or by `Forwarded` (RFC
/// 7239) without one. Of a chain of proxies the first one has the client. A client that makes this up misleads only
/// itself.
pub(super) fn says_https(headers: &HeaderMap) -> bool {
    let first = |name| headers.get(name).and_then(|value| value.to_str().ok()?.split(',').next());
    match first(&X_FORWARDED_PROTO) {
        Some(proto) => is_https(proto),
        None => first(&FORWARDED).is_some_and(|element| {
            element.split(';').filter_map(|pair| pair.split_once('=')).any(|(name, value)| {
                name.trim().eq_ignore_ascii_case("proto")
                    && is_https(value.trim().trim_matches('"'))
            })
        }),
    }
}

fn is_https(scheme: &str) -> bool {
    scheme.trim().eq_ignore_ascii_case("https")
}
