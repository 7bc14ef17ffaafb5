//! The administrator that the first start makes.
//!
//! On any address but a loopback one, and wherever logins are configured, a node keeps an administrator's password in a
//! file that only its owner can read: random, or made from a secret that all nodes of a cluster have and nobody else.
//! Nothing ever has a known password. Once the administrator has chosen another one, which the cluster keeps as it keeps
//! accounts' passwords, those in the files open nothing.

use std::io::Write;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

/// The administrator's user name.
pub const ADMIN_USER: &str = "admin";

/// Passwords are random; a shorter one was written by hand.
const PASSWORD_BYTES_MIN: usize = 16;

/// What is known of the administrator's passwords: their hashes, so that comparing takes the same time for all.
pub struct AdminPasswords {
    /// The one in this node's file, and the one that all nodes of the cluster know.
    accepted: Vec<[u8; 32]>,
}

fn hash(password: &[u8]) -> [u8; 32] {
    let mut value = [0; 32];
    value.copy_from_slice(digest(&SHA256, password).as_ref());
    value
}

impl AdminPasswords {
    /// Any of these.
    pub fn new<'a>(passwords: impl IntoIterator<Item = &'a str>) -> Self {
        Self { accepted: passwords.into_iter().map(|password| hash(password.as_bytes())).collect() }
    }

    /// If it is one of them, the generation that sessions of it are of: another password's are another's. They have 192
    /// random bits, so one fast hash hides nothing less than a slow one would.
    pub fn accept(&self, password: &str) -> Option<u64> {
        let presented = hash(password.as_bytes());
        // All are compared, so that the time tells nothing of which one it was.
        let accepted = self
            .accepted
            .iter()
            .fold(false, |found, known| found | verify_slices_are_equal(&presented, known).is_ok());
        accepted.then(|| generation(&presented))
    }

    /// Whether sessions of that generation are of one of them.
    pub fn has_generation(&self, wanted: u64) -> bool {
        self.accepted.iter().any(|known| generation(known) == wanted)
    }
}

/// A number that is another one for every other password, and tells nothing of it.
fn generation(hashed: &[u8; 32]) -> u64 {
    hash(hashed).iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
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

/// The administrator's passwords. The one of this node goes into a file if there is none: the one that the cluster shares,
/// or a random one.
pub fn admin_passwords(
    data_dir: &Path,
    shared: Option<&str>,
) -> std::io::Result<(AdminPasswords, AdminFile)> {
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
    if password.len() < PASSWORD_BYTES_MIN {
        return Err(std::io::Error::other(format!(
            "{} holds no password of {PASSWORD_BYTES_MIN} characters or more; delete it to have a new one made",
            path.display()
        )));
    }
    Ok((AdminPasswords::new([password].into_iter().chain(shared)), AdminFile { path, created }))
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
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_password_is_random_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let (passwords, file) = admin_passwords(dir.path(), None).unwrap();
        assert!(file.created);
        assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        let password = std::fs::read_to_string(&file.path).unwrap();
        let password = password.trim();
        let generation = passwords.accept(password).unwrap();
        assert!(passwords.has_generation(generation) && !passwords.has_generation(0));
        for wrong in ["", "admin", "password", &password[1..], &format!("{password} ")] {
            assert_eq!(passwords.accept(wrong), None, "{wrong:?}");
        }
        // The next start keeps it, and takes the cluster's as well.
        let (passwords, file) = admin_passwords(dir.path(), Some("the cluster's own")).unwrap();
        assert!(!file.created && passwords.accept(password) == Some(generation));
        assert!(passwords.accept("the cluster's own").is_some_and(|own| own != generation));

        std::fs::write(&file.path, "short\n").unwrap();
        assert!(admin_passwords(dir.path(), None).is_err());
    }
}
