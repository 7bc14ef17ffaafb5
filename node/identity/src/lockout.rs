//! Logins that fail too often have to wait.
//!
//! Counted by client address and user name, on each node: whoever guesses gets so many tries in a window, and nobody who
//! logs in from elsewhere is kept out by that. An address that tries many names is counted as such, too. What is kept is
//! bounded.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;

/// Pairs of address and name that are remembered.
const REMEMBERED_MAX: u64 = 100_000;

/// An address may fail so many times as often with all names together.
const NAMES_FACTOR: u32 = 10;

#[derive(Clone)]
struct Failures {
    count: u32,
    since: Instant,
}

/// The address that limits count: of IPv6 the /64, because one customer has all of its 2^64 addresses.
pub fn neighbours(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

/// Whose logins fail.
pub struct Lockout {
    failures_max: u32,
    window: Duration,
    known: Cache<(IpAddr, Arc<str>), Failures>,
}

impl Lockout {
    /// So many failures in a window.
    pub fn new(failures_max: u32, window: Duration) -> Self {
        let known = Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(window).build();
        Self { failures_max, window, known }
    }

    /// How long logins of that name from there have to wait, if they do.
    pub fn wait(&self, address: IpAddr, user: &str) -> Option<Duration> {
        let name = self.left(address, user, self.failures_max);
        let all = self.left(address, "", self.failures_max.saturating_mul(NAMES_FACTOR));
        name.max(all)
    }

    fn left(&self, address: IpAddr, user: &str, max: u32) -> Option<Duration> {
        let failures = self.known.get(&(neighbours(address), user.into()))?;
        let left = self.window.saturating_sub(failures.since.elapsed());
        (failures.count >= max && !left.is_zero()).then_some(left)
    }

    /// A login failed.
    pub fn failed(&self, address: IpAddr, user: &str) {
        for name in [user, ""] {
            let entry = self.known.entry((neighbours(address), name.into()));
            entry.and_upsert_with(|known| match known {
                Some(entry) => {
                    let Failures { count, since } = entry.into_value();
                    if since.elapsed() >= self.window {
                        Failures { count: 1, since: Instant::now() }
                    } else {
                        Failures { count: count.saturating_add(1), since }
                    }
                }
                None => Failures { count: 1, since: Instant::now() },
            });
        }
    }

    /// A login succeeded: what came before was a slip.
    pub fn succeeded(&self, address: IpAddr, user: &str) {
        self.known.invalidate(&(neighbours(address), user.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn failures_of_one_name_from_one_address_make_wait() {
        let lockout = Lockout::new(3, Duration::from_secs(300));
        for _ in 0..3 {
            assert_eq!(lockout.wait(address(1), "alice"), None);
            lockout.failed(address(1), "alice");
        }
        let wait = lockout.wait(address(1), "alice").unwrap();
        assert!(wait > Duration::from_secs(290) && wait <= Duration::from_secs(300), "{wait:?}");
        assert_eq!(lockout.wait(address(1), "bob"), None);
        assert_eq!(lockout.wait(address(2), "alice"), None);
        let near = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        (0..3).for_each(|last| lockout.failed(near(last), "alice"));
        assert!(lockout.wait(near(9), "alice").is_some());
        lockout.succeeded(address(1), "alice");
        assert_eq!(lockout.wait(address(1), "alice"), None);
    }

    #[test]
    fn many_names_from_one_address_make_wait_too() {
        let lockout = Lockout::new(2, Duration::from_secs(300));
        for i in 0..20 {
            lockout.failed(address(1), &format!("user{i}"));
        }
        assert!(lockout.wait(address(1), "another").is_some());
        assert_eq!(lockout.wait(address(2), "another"), None);
    }

    #[test]
    fn a_window_ends() {
        let lockout = Lockout::new(1, Duration::from_millis(20));
        lockout.failed(address(1), "alice");
        assert!(lockout.wait(address(1), "alice").is_some());
        while lockout.wait(address(1), "alice").is_some() {
            std::thread::yield_now();
        }
    }
}
