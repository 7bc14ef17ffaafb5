//! What the cluster decides by its clock, while faults come and go: short tokens, limits by the hour, the audit's retention.
//!
//! What is judged: a token opens nothing once its time is over, and opens something before, by the cluster's clock; a tenant
//! is granted no more pulls in an hour than its limit, and is refused beyond it when all is well; the audit's chain stays
//! whole while what is too old goes. Must not know: which faults there are.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Dice;
use super::callers::{BOUND, ROBOT, Token, no_answer, show};
use super::clients::PATIENCE;
use super::journal::{Journal, locked};
use crate::cluster::Admin;
use crate::content::Source;
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::registry::{Registry, manifest_path};

const TENANT: &str = "hourly";
const REPOSITORY: &str = "hourly/app";
const TAG: &str = "v1";
/// Pulls that the tenant may make in an hour.
const PULLS: u64 = 400;
/// More pulls than nodes may have been granted beyond those that they let pass.
const PULLS_TRIED: u64 = PULLS + 100;
/// How long a short token lives, in seconds.
const LIVES: std::ops::Range<u64> = 10..60;
/// Tokens whose time goes on for longer are not waited for at the end.
const WAITED_MAX: Duration = Duration::from_secs(20);
/// Short tokens that are shown.
const TOKENS: usize = 24;
/// How long the audit's entries are kept.
const KEPT: Duration = Duration::from_secs(45);
/// How old one may become: parts go as a whole, a few at a time.
const KEPT_MAX: Duration = Duration::from_secs(120);

/// What the policy says of the tenant and the audit.
pub(super) fn policy() -> String {
    format!(
        r#"
[[tenants]]
name = "{TENANT}"
namespaces = {{ oci = ["{TENANT}/*"] }}
rate_limit = {{ pull = {PULLS} }}

[audit]
retention = "{}s"
"#,
        KEPT.as_secs()
    )
}

struct Short {
    token: Token,
    lives: Duration,
    /// The cluster's clock before it was made, in milliseconds.
    clock: u64,
}

/// What a run knows of what depends on time.
pub(super) struct Times {
    admin: Admin,
    short: Mutex<Vec<Short>>,
}

impl Times {
    /// Pushes what is pulled; the policy is in force.
    pub(super) fn new(admin: Admin, address: SocketAddr) -> Result<Self> {
        let image = Source::new(1 << 10)?.image();
        let mut registry = Registry::open(address)?;
        registry.push_image(REPOSITORY, &image)?;
        registry.push_manifest(REPOSITORY, TAG, &image.variant(0))?;
        Ok(Self { admin, short: Mutex::default() })
    }

    /// One client, until it is over.
    pub(super) fn run(&self, journal: &Journal, mut dice: Dice, over: &AtomicBool) {
        let mut made = 0;
        while !over.load(Ordering::Acquire) {
            let turn = journal.turn();
            let address = journal.addresses[dice.below(journal.addresses.len())];
            let done = match dice.below(20) {
                0..2 => {
                    made += 1;
                    self.make_short(&mut dice, made).map(|()| "made a short token")
                }
                2..14 => self.show_short(journal, &mut dice, address),
                14..18 => pull(address).map(|_| "pulled within the hour's limit"),
                _ => look_at_grants(journal, address),
            };
            match done {
                Ok(what) => journal.did(what),
                Err(_) => journal.had_no_answer(),
            }
            drop(turn);
            thread::sleep(dice.millis(50, 150));
        }
    }

    /// The cluster's clock in milliseconds, as some node has heard it.
    fn clock(&self) -> Result<u64> {
        let status = self.admin.run("cluster", &["status", "-o", "json"])?;
        let status: serde_json::Value =
            serde_json::from_str(&status).map_err(|error| Error::Wrong(error.to_string()))?;
        status["clock_millis"]
            .as_u64()
            .ok_or_else(|| Error::Wrong(format!("no clock in the status: {status}")))
    }

    fn make_short(&self, dice: &mut Dice, number: usize) -> Result<()> {
        let lives = LIVES.start + dice.roll() % (LIVES.end - LIVES.start);
        let clock = self.clock()?;
        let name = format!("s{number}");
        let expires = format!("{lives}s");
        let secret = self
            .admin
            .run("token", &["create", &name, "--owner", ROBOT, "--expires", &expires])?
            .trim()
            .to_owned();
        let token = Token { name, secret, since: Instant::now() };
        let mut short = locked(&self.short);
        if short.len() >= TOKENS {
            short.remove(0);
        }
        short.push(Short { token, lives: Duration::from_secs(lives), clock });
        Ok(())
    }

    fn show_short(
        &self,
        journal: &Journal,
        dice: &mut Dice,
        address: SocketAddr,
    ) -> Result<&'static str> {
        let (token, lives, clock) = {
            let short = locked(&self.short);
            let short = short.get(dice.below(short.len())).ok_or_else(no_answer)?;
            (short.token.clone(), short.lives, short.clock)
        };
        let since = token.since.elapsed();
        let answer = show(address, &token, "GET", "/v2/", b"")?;
        match answer.head.status {
            200 if since > lives + BOUND => journal.violation(format!(
                "{address} believes the token {} {since:?} after it was made for {lives:?}",
                token.name
            )),
            200 => return Ok("showed a short token in its time"),
            // Nodes have heard of it by now. The clock may have gone further than the time that passed.
            401 if since > BOUND && since < lives => {
                let (now, ends) = (self.clock()?, clock + millis(lives));
                if now + millis(BOUND) < ends {
                    journal.violation(format!(
                        "{address} refuses the token {} {} ms before its time is over",
                        token.name,
                        ends - now
                    ));
                }
            }
            401 => {}
            _ => return Err(no_answer()),
        }
        Ok("showed a short token after its time")
    }

    /// Judges what is left when all nodes run and nobody asks for anything any more.
    pub(super) fn judge(&self, journal: &Journal) {
        for short in locked(&self.short).iter() {
            let left = (short.lives + BOUND).saturating_sub(short.token.since.elapsed());
            if left > WAITED_MAX {
                continue;
            }
            thread::sleep(left);
            for address in &journal.addresses {
                match show(*address, &short.token, "GET", "/v2/", b"") {
                    Ok(answer) if answer.head.status == 401 => {}
                    found => journal.violation(format!(
                        "{address} does not refuse the token {}, whose time is over: {found:?}",
                        short.token.name
                    )),
                }
            }
        }
        self.judge_limit(journal);
        if let Err(error) = self.judge_audit(journal) {
            journal.violation(format!("the audit could not be judged: {error}"));
        }
    }

    /// Whether pulls beyond the limit are refused. The next hour may begin meanwhile, once.
    fn judge_limit(&self, journal: &Journal) {
        let hour = || self.clock().map(|clock| clock / millis(Duration::from_secs(3600)));
        for _ in 0..2 {
            let before = hour();
            let is_refused = (0..PULLS_TRIED).any(|at| {
                let at = usize::try_from(at).unwrap_or(0) % journal.addresses.len();
                matches!(pull(journal.addresses[at]), Ok(429))
            });
            if is_refused {
                return;
            }
            match (before, hour()) {
                (Ok(before), Ok(after)) if before != after => {}
                _ => break,
            }
        }
        journal.violation(format!("{PULLS_TRIED} pulls were let pass of {PULLS} an hour"));
    }

    /// Whether the audit is whole, has what was done last, and no longer has what is far too old.
    fn judge_audit(&self, journal: &Journal) -> Result<()> {
        self.admin.run("token", &["create", "last", "--owner", ROBOT])?;
        self.admin.run("audit", &["verify"])?;
        let entries = self.admin.run("audit", &["-o", "json"])?;
        let made = |line: &str| {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            entry["action"] == "token.create"
                && entry["resource"].as_str().is_some_and(|resource| resource.contains("last"))
        };
        if !entries.lines().any(made) {
            journal.violation("the audit does not have the token that was made last".into());
        }
        let asked = Instant::now();
        loop {
            let entries = self.admin.run("audit", &["-o", "json"])?;
            let oldest = entries.lines().next().and_then(|line| {
                serde_json::from_str::<serde_json::Value>(line).ok()?["at"].as_u64()
            });
            let now = self.clock()?;
            let age = Duration::from_millis(now.saturating_sub(oldest.unwrap_or(now)));
            if age <= KEPT_MAX {
                return Ok(());
            }
            // A job drops what is too old, every few seconds.
            if asked.elapsed() > KEPT_MAX {
                journal.violation(format!("the audit has an entry that is {age:?} old"));
                return Ok(());
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Pulls the tenant's image; the answer's status.
fn pull(address: SocketAddr) -> Result<u16> {
    let path = manifest_path(REPOSITORY, TAG);
    let answer = Connection::open_within(address, PATIENCE)?.exchange("GET", &path, &[], &[])?;
    match answer.head.status {
        status @ (200 | 429) => Ok(status),
        _ => Err(no_answer()),
    }
}

/// What the cluster granted this hour, as a node counts it.
fn look_at_grants(journal: &Journal, address: SocketAddr) -> Result<&'static str> {
    let path = "/api/v1/usage";
    let answer = Connection::open_within(address, PATIENCE)?.expect(200, "GET", path, &[], &[])?;
    let found: serde_json::Value =
        serde_json::from_slice(&answer.body).unwrap_or(serde_json::Value::Null);
    let mut tenants = found["tenants"].as_array().into_iter().flatten();
    let tenant = tenants.find(|tenant| tenant["name"] == TENANT).ok_or_else(no_answer)?;
    let granted = tenant["pulls"].as_u64().unwrap_or(0);
    if granted > PULLS {
        journal.violation(format!("{address} counts {granted} pulls granted of {PULLS} an hour"));
    }
    Ok("looked at the hour's limit")
}
