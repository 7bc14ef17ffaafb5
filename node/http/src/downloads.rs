//! Places for downloads: each holds a blob's file open until its client has the last byte.
//!
//! Guarantee: downloads take no more descriptors than they may, in all and of each address, so that some are left for
//! connections and for the metadata store. Must not know: what is downloaded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use http::header::RETRY_AFTER;
use nora_identity::neighbours;

use crate::problem::{Kind, Problem};

/// Places that one address gets at most. A download over TLS or HTTP/2 whose reader takes nothing holds 128 KiB of memory
/// besides its file.
const OF_ADDRESS_MAX: usize = 512;

/// The places of a node.
#[derive(Clone, Debug)]
pub struct Downloads {
    places_max: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_address: HashMap<Option<IpAddr>, usize>,
}

impl Downloads {
    /// So many places in all; one address gets half of them, and 512 at most.
    pub fn of(places_max: usize) -> Self {
        Self { places_max, held: Arc::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a download to this address, which counts with its /64 if it is of IPv6.
    pub(crate) fn take(&self, address: Option<IpAddr>) -> Result<Place, Problem> {
        let address = address.map(neighbours);
        let mut held = self.held();
        let own = held.by_address.get(&address).copied().unwrap_or_default();
        if own >= self.places_max.div_ceil(2).min(OF_ADDRESS_MAX) {
            let told = "your address has too many downloads open on this node; end some of them, or wait a moment";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, Kind::TooManyRequests, told)
                .with_header(RETRY_AFTER, "5"));
        }
        if held.all >= self.places_max {
            return Err(Problem::unavailable("too many downloads are open on this node"));
        }
        held.all += 1;
        held.by_address.insert(address, own + 1);
        Ok(Place { of: self.clone(), address })
    }
}

/// A download's place, until it is dropped.
pub(crate) struct Place {
    of: Downloads,
    address: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.of.held();
        held.all = held.all.saturating_sub(1);
        if let Some(own) = held.by_address.get_mut(&self.address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                held.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_takes_half_of_the_places() {
        let downloads = Downloads::of(4);
        let address = |last| Some(IpAddr::from([192, 0, 2, last]));
        let status = |taken: Result<Place, Problem>| taken.err().map(|p| p.status().as_u16());
        let mut taken: Vec<_> = (0..2).map(|_| downloads.take(address(1)).ok()).collect();
        assert!(taken.iter().all(Option::is_some));
        assert_eq!(status(downloads.take(address(1))), Some(429));
        taken.extend((0..2).map(|_| downloads.take(address(2)).ok()));
        assert_eq!(status(downloads.take(address(3))), Some(503));
        drop(taken);
        let network = |last: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]));
        let taken: Vec<_> = (0..2).map(|last| downloads.take(network(last)).ok()).collect();
        assert_eq!(status(downloads.take(network(7))), Some(429), "a customer has a whole network");
        drop(taken);
        assert!(downloads.held().by_address.is_empty());
        assert_eq!(status(downloads.take(address(1))), None);
    }
}
