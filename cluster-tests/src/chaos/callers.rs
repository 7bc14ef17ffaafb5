//! Clients with tokens in the repositories of a tenant with a quota, while faults come and go.
//!
//! What is judged: the tenant never has more bytes than its quota, with those set aside; what was acknowledged can be read with
//! the right bytes until its deletion is asked for; a token that was made is believed, and one that was revoked is not, within
//! [`BOUND`]. Must not know: which faults there are.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Dice;
use super::clients::PATIENCE;
use super::journal::{Journal, locked};
use crate::cluster::Admin;
use crate::content::sha256;
use crate::error::Result;
use crate::http::{Answer, Connection};

/// Where the tenant's blobs are.
const REPOSITORY: &str = "quota/app";
/// Bytes that the tenant may have.
const QUOTA: u64 = 6 << 20;
const BLOB_BYTES_MAX: usize = 500_000;
/// How long a node may take to hear that a token was made or revoked. A node that is cut off from the leader does not hear it;
/// no fault cuts a node off for as long.
pub(super) const BOUND: Duration = Duration::from_secs(15);
/// Tokens in use at once.
const TOKENS: usize = 4;
/// Revoked tokens that are shown again.
const REVOKED_KEPT: usize = 64;
pub(super) const ROBOT: &str = "robot:chaos";

/// What the cluster is told of the tenant and its robot. A client without a login may do what the other clients and the faults do.
pub(super) fn policy() -> String {
    format!(
        r#"
[auth]
anonymous = ["pull,push,overwrite,delete:chaos/*", "pull,push:hourly/*", "admin:*"]

[[auth.rules]]
subject = "{ROBOT}"
permissions = ["pull,push,overwrite,delete:quota/*"]

[[tenants]]
name = "quota"
storage_quota = "{QUOTA}B"
namespaces = {{ oci = ["quota/*"] }}
"#
    )
}

#[derive(Clone)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) secret: String,
    /// When it was made, or revoked.
    pub(super) since: Instant,
}

#[derive(Clone)]
struct Blob {
    digest: String,
    size: u64,
}

/// The callers of a run, and what they know.
pub(super) struct Callers {
    admin: Admin,
    tokens: Mutex<Vec<Token>>,
    revoked: Mutex<Vec<Token>>,
    blobs: Mutex<Vec<Blob>>,
}

impl Callers {
    /// Makes the robot and its first token; the policy is in force.
    pub(super) fn new(admin: Admin) -> Result<Self> {
        admin.run("user", &["add", "chaos", "--robot"])?;
        let callers = Self {
            admin,
            tokens: Mutex::default(),
            revoked: Mutex::default(),
            blobs: Mutex::default(),
        };
        callers.make_token("first")?;
        Ok(callers)
    }

    fn make_token(&self, name: &str) -> Result<()> {
        let secret = self.admin.run("token", &["create", name, "--owner", ROBOT])?;
        let (name, secret) = (name.to_owned(), secret.trim().to_owned());
        locked(&self.tokens).push(Token { name, secret, since: Instant::now() });
        Ok(())
    }

    /// One caller, until it is over.
    pub(super) fn run(&self, journal: &Journal, mut dice: Dice, over: &AtomicBool) {
        let mut made = 0;
        while !over.load(Ordering::Acquire) {
            let turn = journal.turn();
            let address = journal.addresses[dice.below(journal.addresses.len())];
            let done = match dice.below(20) {
                0 => {
                    made += 1;
                    self.make_token(&format!("t{made}")).map(|()| "made a token")
                }
                1 => self.revoke(&mut dice).map(|()| "revoked a token"),
                2..9 => self.push(journal, &mut dice, address),
                9..12 => self.delete(journal, &mut dice, address),
                12..16 => self.read(journal, &mut dice, address),
                16..18 => self.show_revoked(journal, &mut dice, address),
                _ => self.look_at_usage(journal, address),
            };
            match done {
                Ok(what) => journal.did(what),
                Err(_) => journal.had_no_answer(),
            }
            drop(turn);
            thread::sleep(dice.millis(5, 40));
        }
    }

    fn revoke(&self, dice: &mut Dice) -> Result<()> {
        let token = {
            let mut tokens = locked(&self.tokens);
            if tokens.len() < TOKENS {
                return Ok(());
            }
            let at = dice.below(tokens.len());
            tokens.swap_remove(at)
        };
        // One whose revocation was not answered is shown no more.
        let id = format!("{ROBOT}/{}", token.name);
        self.admin.run("token", &["revoke", &id, "--yes"])?;
        let mut revoked = locked(&self.revoked);
        if revoked.len() >= REVOKED_KEPT {
            revoked.swap_remove(dice.below(REVOKED_KEPT));
        }
        revoked.push(Token { since: Instant::now(), ..token });
        Ok(())
    }

    /// Asks with one of the tokens.
    fn ask(
        &self,
        journal: &Journal,
        dice: &mut Dice,
        address: SocketAddr,
        (method, path, body): (&str, &str, &[u8]),
    ) -> Result<Answer> {
        let token = {
            let tokens = locked(&self.tokens);
            tokens[dice.below(tokens.len())].clone()
        };
        let answer = show(address, &token, method, path, body)?;
        // It may have been taken for its revocation since.
        let is_valid = || locked(&self.tokens).iter().any(|known| known.name == token.name);
        if answer.head.status == 401 && token.since.elapsed() > BOUND && is_valid() {
            journal.violation(format!(
                "{address} does not believe the token {} after {:?}",
                token.name,
                token.since.elapsed()
            ));
        }
        Ok(answer)
    }

    fn push(
        &self,
        journal: &Journal,
        dice: &mut Dice,
        address: SocketAddr,
    ) -> Result<&'static str> {
        let mut bytes = vec![0; 8 + dice.below(BLOB_BYTES_MAX)];
        bytes[..8].copy_from_slice(&dice.roll().to_le_bytes());
        let digest = sha256(&bytes);
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
        let answer = self.ask(journal, dice, address, ("POST", &path, &bytes))?;
        match answer.head.status {
            201 => {
                locked(&self.blobs).push(Blob { digest, size: bytes.len() as u64 });
                Ok("pushed within the quota")
            }
            403 => Ok("refused over the quota"),
            _ => Err(no_answer()),
        }
    }

    fn delete(
        &self,
        journal: &Journal,
        dice: &mut Dice,
        address: SocketAddr,
    ) -> Result<&'static str> {
        let blob = {
            let mut blobs = locked(&self.blobs);
            if blobs.is_empty() {
                return Err(no_answer());
            }
            let at = dice.below(blobs.len());
            blobs.swap_remove(at)
        };
        let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
        let answer = self.ask(journal, dice, address, ("DELETE", &path, b""))?;
        match answer.head.status {
            202 => Ok("deleted within the quota"),
            404 => {
                journal.violation(format!("{path} was acknowledged; {address} has none to delete"));
                Ok("deleted within the quota")
            }
            _ => Err(no_answer()),
        }
    }

    fn read(
        &self,
        journal: &Journal,
        dice: &mut Dice,
        address: SocketAddr,
    ) -> Result<&'static str> {
        let blob = {
            let blobs = locked(&self.blobs);
            blobs.get(dice.below(blobs.len())).cloned().ok_or_else(no_answer)?
        };
        let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
        let answer = self.ask(journal, dice, address, ("GET", &path, b""))?;
        let is_there = || locked(&self.blobs).iter().any(|known| known.digest == blob.digest);
        match answer.head.status {
            200 if sha256(&answer.body) != blob.digest => {
                journal.violation(format!("{path} has other bytes on {address}"));
            }
            200 => {}
            404 if is_there() => {
                journal.violation(format!("{path} was acknowledged; {address} says 404"));
            }
            _ => return Err(no_answer()),
        }
        Ok("read with a token")
    }

    fn show_revoked(
        &self,
        journal: &Journal,
        dice: &mut Dice,
        address: SocketAddr,
    ) -> Result<&'static str> {
        let token = {
            let revoked = locked(&self.revoked);
            revoked.get(dice.below(revoked.len())).cloned().ok_or_else(no_answer)?
        };
        self.must_refuse(journal, address, &token)?;
        Ok("showed a revoked token")
    }

    fn must_refuse(&self, journal: &Journal, address: SocketAddr, token: &Token) -> Result<()> {
        let since = token.since.elapsed();
        let answer = show(address, token, "GET", "/v2/", b"")?;
        if answer.head.status == 200 && since > BOUND {
            journal.violation(format!(
                "{address} believes the token {}, revoked {since:?} ago",
                token.name
            ));
        }
        Ok(())
    }

    fn look_at_usage(&self, journal: &Journal, address: SocketAddr) -> Result<&'static str> {
        let (used, aside) = usage(address)?;
        if used + aside > QUOTA {
            journal.violation(format!(
                "{address} counts {used} bytes and {aside} set aside of a quota of {QUOTA}"
            ));
        }
        Ok("looked at the quota")
    }

    /// Judges what is left when all nodes run and nobody asks for anything any more.
    pub(super) fn judge(&self, journal: &Journal) {
        let (blobs, tokens) = (locked(&self.blobs), locked(&self.tokens));
        let sum: u64 = blobs.iter().map(|blob| blob.size).sum();
        if sum > QUOTA {
            journal.violation(format!("{sum} bytes were acknowledged of a quota of {QUOTA}"));
        }
        for address in &journal.addresses {
            let asked = Instant::now();
            // Nodes hear of it within the bound.
            for (tokens, wanted) in [(&*tokens, 200), (&*locked(&self.revoked), 401)] {
                for token in tokens {
                    while show(*address, token, "GET", "/v2/", b"")
                        .map_or(0, |answer| answer.head.status)
                        != wanted
                    {
                        if asked.elapsed() > BOUND {
                            let name = &token.name;
                            journal.violation(format!("{address} does not say {wanted} to {name}"));
                            break;
                        }
                        thread::sleep(Duration::from_millis(50));
                    }
                }
            }
            match usage(*address) {
                Ok((used, aside)) if (sum..=QUOTA).contains(&used) && used + aside <= QUOTA => {}
                found => journal.violation(format!(
                    "{sum} bytes were acknowledged of {QUOTA}; {address} counts {found:?}"
                )),
            }
            for blob in blobs.iter() {
                let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
                let found = tokens.first().map(|token| show(*address, token, "GET", &path, b""));
                let is_right = matches!(&found, Some(Ok(answer))
                    if answer.head.status == 200 && sha256(&answer.body) == blob.digest);
                if !is_right {
                    journal.violation(format!("{path} was acknowledged; {address} has it not"));
                }
            }
        }
    }
}

pub(super) fn no_answer() -> crate::error::Error {
    crate::error::Error::Wrong("no answer".into())
}

/// Asks with a token.
pub(super) fn show(
    address: SocketAddr,
    token: &Token,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Answer> {
    let login = format!("Bearer {}", token.secret);
    let headers = [("Authorization", login.as_str()), ("Content-Type", "application/octet-stream")];
    Connection::open_within(address, PATIENCE)?.exchange(method, path, &headers, &[body])
}

/// Bytes that the tenant has, and bytes that are set aside for it, as a node counts them.
fn usage(address: SocketAddr) -> Result<(u64, u64)> {
    let path = "/api/v1/usage";
    let answer = Connection::open_within(address, PATIENCE)?.expect(200, "GET", path, &[], &[])?;
    let found: serde_json::Value =
        serde_json::from_slice(&answer.body).unwrap_or(serde_json::Value::Null);
    let tenant = found["tenants"].as_array().into_iter().flatten();
    tenant
        .filter(|tenant| tenant["name"] == "quota")
        .find_map(|tenant| {
            Some((tenant["unique_bytes"].as_u64()?, tenant["reserved_bytes"].as_u64()?))
        })
        .ok_or_else(|| crate::error::Error::Wrong(format!("{path}: no such tenant: {found}")))
}
