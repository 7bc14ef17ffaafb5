//! Places for connections: so many in all, so many from one address, and fewer of those that have not shown yet that they
//! speak TLS or HTTP.
//!
//! Guarantees: one address, or one IPv6 network of a customer, takes no more than its share, so others find a place; a
//! connection that finds none is closed at once and counted. Must not know: what a connection is used for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nora_config::Network;
use nora_identity::neighbours;

/// Of the connections from one address, this part may be unproven: the first bytes of a real client come within
/// milliseconds.
const UNPROVEN_PART: usize = 8;

/// Why a connection found no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Its address has as many connections as one may have.
    Address,
    /// Its address has as many as may be unproven.
    Unproven,
}

impl NoPlace {
    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Unproven => "unproven",
        }
    }
}

/// How many connections an address has.
#[derive(Clone, Copy, Default)]
struct Held {
    open: usize,
    unproven: usize,
}

/// The places of one door.
#[derive(Clone)]
pub(super) struct Places {
    per_address_max: usize,
    /// Proxies, which connect on behalf of many.
    exempt: Arc<[Network]>,
    held: Arc<Mutex<HashMap<IpAddr, Held>>>,
}

impl Places {
    pub(super) fn new(per_address_max: usize, exempt: &[Network]) -> Self {
        Self { per_address_max, exempt: exempt.into(), held: Arc::default() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<IpAddr, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address, which has shown nothing yet.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, NoPlace> {
        if self.exempt.iter().any(|network| network.contains(address)) {
            return Ok(Place { of: None, is_proven: true });
        }
        let address = neighbours(address);
        let mut all = self.held();
        let held = all.get(&address).copied().unwrap_or_default();
        if held.open >= self.per_address_max {
            return Err(NoPlace::Address);
        }
        if held.unproven >= self.per_address_max.div_ceil(UNPROVEN_PART) {
            return Err(NoPlace::Unproven);
        }
        all.insert(address, Held { open: held.open + 1, unproven: held.unproven + 1 });
        Ok(Place { of: Some((self.clone(), address)), is_proven: false })
    }
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    of: Option<(Places, IpAddr)>,
    is_proven: bool,
}

impl Place {
    /// The other end speaks TLS or HTTP.
    pub(super) fn prove(&mut self) {
        if let (Some((places, address)), false) = (&self.of, self.is_proven) {
            if let Some(held) = places.held().get_mut(address) {
                held.unproven = held.unproven.saturating_sub(1);
            }
            self.is_proven = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.prove();
        let Some((places, address)) = &self.of else { return };
        let mut all = places.held();
        if let Some(held) = all.get_mut(address) {
            held.open = held.open.saturating_sub(1);
            if held.open == 0 {
                all.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_takes_its_share_and_no_more() {
        let file = "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
        let loaded = nora_config::parse(file, None, &nora_config::Overrides::default()).unwrap();
        let places = Places::new(16, &loaded.config.server.trusted_proxies);
        let mut taken = Vec::new();
        for _ in 0..2 {
            taken.push(places.take(address("192.0.2.1")).unwrap());
        }
        assert_eq!(places.take(address("192.0.2.1")).err(), Some(NoPlace::Unproven));
        assert!(places.take(address("192.0.2.2")).is_ok(), "another address");
        for _ in 2..16 {
            taken.iter_mut().for_each(Place::prove);
            taken.push(places.take(address("192.0.2.1")).unwrap());
        }
        taken.iter_mut().for_each(Place::prove);
        assert_eq!(places.take(address("::ffff:192.0.2.1")).err(), Some(NoPlace::Address));
        taken.pop();
        assert!(places.take(address("192.0.2.1")).is_ok());
        drop(taken);
        assert!(places.held().is_empty(), "memory grows with addresses that were here once");
        let proxied: Vec<_> = (0..100).map(|_| places.take(address("10.1.2.3"))).collect();
        assert!(proxied.iter().all(Result::is_ok), "a proxy connects on behalf of many");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let places = Places::new(1, &[]);
        let first = places.take(address("2001:db8::1")).unwrap();
        assert!(places.take(address("2001:db8::2:0:0:1")).is_err());
        assert!(places.take(address("2001:db8:0:1::1")).is_ok());
        drop(first);
    }
}
