//! Who may ask.
//!
//! On a loopback address a node is open: whoever can reach it is on the machine. On any other address a node without
//! configured users makes an administrator with a random password on its first start, keeps it in a file that only its
//! owner can read, and lets nobody else in. Nothing ever has a known password.
//!
//! Must not know: routes' handlers, or where passwords come from in later releases (tokens, OIDC).

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::metrics::Route;

/// The administrator's user name.
pub const ADMIN_USER: &str = "admin";

/// Decides about a request before its handler sees it.
pub enum Gate {
    /// Anyone who reaches the address.
    Open,
    /// The administrator alone.
    Admin(AdminCredentials),
}

/// What is known of the administrator's credentials: their hash, so that comparing takes the same time for all.
pub struct AdminCredentials {
    /// The password in this node's file, and the one that all nodes of the cluster know.
    accepted: Vec<[u8; 32]>,
}

/// What the gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The handler may run.
    Allow,
    /// Credentials are missing or wrong.
    Challenge,
}

fn hash(user_and_password: &[u8]) -> [u8; 32] {
    let mut value = [0; 32];
    value.copy_from_slice(digest(&SHA256, user_and_password).as_ref());
    value
}

impl AdminCredentials {
    /// The administrator with any of these passwords.
    pub fn new<'a>(passwords: impl IntoIterator<Item = &'a str>) -> Self {
        let hashed = |password| hash(format!("{ADMIN_USER}:{password}").as_bytes());
        Self { accepted: passwords.into_iter().map(hashed).collect() }
    }

    fn accept(&self, user_and_password: &[u8]) -> bool {
        let presented = hash(user_and_password);
        // All are compared, so that the time tells nothing of which one it was.
        self.accepted
            .iter()
            .fold(false, |found, known| found | verify_slices_are_equal(&presented, known).is_ok())
    }
}

impl Gate {
    /// Decides by route and headers. Health is for load balancers and orchestrators, which have no credentials.
    pub fn decide(&self, route: Route, headers: &HeaderMap) -> Decision {
        let Self::Admin(admin) = self else { return Decision::Allow };
        if route == Route::Health {
            return Decision::Allow;
        }
        let presented = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .and_then(|(scheme, value)| match scheme.to_ascii_lowercase().as_str() {
                "basic" => decode_base64(value.trim()),
                // The administrator's password is a token as well: whoever has it needs no name.
                "bearer" => Some(format!("{ADMIN_USER}:{}", value.trim()).into_bytes()),
                _ => None,
            });
        match presented {
            // The password has 192 random bits, so one fast hash hides nothing less than a slow one would.
            Some(presented) if admin.accept(&presented) => Decision::Allow,
            _ => Decision::Challenge,
        }
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Where the administrator's password is kept, and whether this start made it.
#[derive(Debug)]
pub struct AdminFile {
    /// The file.
    pub path: PathBuf,
    /// Whether it is new.
    pub created: bool,
}

/// The administrator's password that every node of a cluster knows: made from the authority's key, which all of them have
/// and nobody else.
pub fn shared_password(authority_key: &[u8]) -> String {
    use base64::Engine;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, authority_key);
    let tag = aws_lc_rs::hmac::sign(&key, b"NORA administrator's password");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&tag.as_ref()[..24])
}

/// The gate for a node that listens on `address` and has no users configured. The password goes into a file if there is
/// none: the one that the cluster shares, or a random one.
pub fn gate_for(
    address: IpAddr,
    data_dir: &Path,
    shared: Option<&str>,
) -> std::io::Result<(Gate, Option<AdminFile>)> {
    if address.is_loopback() {
        return Ok((Gate::Open, None));
    }
    let path = data_dir.join("admin-password");
    let created = match std::fs::metadata(&path) {
        Ok(_) => false,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_password(&path, shared)?;
            true
        }
        Err(error) => return Err(error),
    };
    let password = std::fs::read_to_string(&path)?;
    let password = password.trim();
    if password.len() < 16 {
        return Err(std::io::Error::other(format!(
            "{} holds no password of 16 characters or more; delete it to have a new one made",
            path.display()
        )));
    }
    let passwords = [password].into_iter().chain(shared);
    Ok((Gate::Admin(AdminCredentials::new(passwords)), Some(AdminFile { path, created })))
}

/// Makes the password and stores it whole or not at all, readable by its owner alone from the first byte on.
fn write_password(path: &Path, shared: Option<&str>) -> std::io::Result<()> {
    use base64::Engine;
    use std::os::unix::fs::OpenOptionsExt;
    let password = match shared {
        Some(shared) => shared.to_owned(),
        None => {
            let mut random = [0; 24];
            getrandom::fill(&mut random)
                .map_err(|error| std::io::Error::other(error.to_string()))?;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random)
        }
    };
    let part = path.with_extension("part");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    writeln!(file, "{password}")?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use http::HeaderValue;
    use std::os::unix::fs::PermissionsExt;

    fn basic(user: &str, password: &str) -> HeaderMap {
        let encoded =
            base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Basic {encoded}")).unwrap());
        headers
    }

    #[test]
    fn loopback_is_open_and_everything_else_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, file) = gate_for("127.0.0.1".parse().unwrap(), dir.path(), None).unwrap();
        assert!(matches!(gate, Gate::Open) && file.is_none());
        assert_eq!(gate.decide(Route::Manifest, &HeaderMap::new()), Decision::Allow);

        let (gate, file) = gate_for("0.0.0.0".parse().unwrap(), dir.path(), None).unwrap();
        let file = file.unwrap();
        assert!(file.created);
        assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        let password = std::fs::read_to_string(&file.path).unwrap();
        let password = password.trim();
        assert_eq!(gate.decide(Route::Manifest, &HeaderMap::new()), Decision::Challenge);
        assert_eq!(gate.decide(Route::Metrics, &HeaderMap::new()), Decision::Challenge);
        assert_eq!(gate.decide(Route::Health, &HeaderMap::new()), Decision::Allow);
        assert_eq!(gate.decide(Route::Manifest, &basic("admin", "admin")), Decision::Challenge);
        assert_eq!(gate.decide(Route::Manifest, &basic("root", password)), Decision::Challenge);
        assert_eq!(gate.decide(Route::Manifest, &basic("admin", password)), Decision::Allow);
        let bearer = |token: &str| {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            HeaderMap::from_iter([(AUTHORIZATION, value)])
        };
        assert_eq!(gate.decide(Route::Manifest, &bearer("admin")), Decision::Challenge);
        assert_eq!(gate.decide(Route::Manifest, &bearer("")), Decision::Challenge);
        assert_eq!(gate.decide(Route::Manifest, &bearer(password)), Decision::Allow);

        // The next start keeps the password.
        let (gate, file) = gate_for("0.0.0.0".parse().unwrap(), dir.path(), None).unwrap();
        assert!(!file.unwrap().created);
        assert_eq!(gate.decide(Route::Blob, &basic("admin", password)), Decision::Allow);
    }
}
