//! The administrator that the first start makes.
//!
//! On any address but a loopback one, and wherever logins are configured, a node keeps an administrator's password in a
//! file that only its owner can read. It is made from a secret that all nodes of a cluster have and nobody else, so it is
//! the same on all of them. Nothing ever has a known password. Once the administrator has chosen another one, which the cluster keeps as it keeps
//! accounts' passwords, those in the files open nothing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use nora_domain::SharedSecret;

pub use nora_auth::identity::ADMIN_USER;

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

/// The administrator's password that every node of a cluster knows.
pub fn shared_password(secret: &SharedSecret) -> String {
    use base64::Engine;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret.0);
    let tag = aws_lc_rs::hmac::sign(&key, b"NORA administrator's password");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&tag.as_ref()[..24])
}

/// The file with the administrator's password.
///
/// It holds the one that the members share, unless somebody has written another one into it. Beside it lies a file with
/// the hash of what NORA wrote: a node that was down while the shared secret was replaced must not take the old password for
/// one that somebody chose.
#[derive(Debug)]
pub struct AdminFile {
    path: PathBuf,
    is_new: bool,
    /// The password that somebody has written into it.
    chosen: Option<String>,
}

impl AdminFile {
    /// The file in a data folder, made or brought up to date with the shared password.
    pub fn open(data_dir: &Path, shared: &str) -> io::Result<Self> {
        let path = data_dir.join("admin-password");
        let found = match std::fs::read_to_string(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_shared(&path, shared)?;
                return Ok(Self { path, is_new: true, chosen: None });
            }
            Err(error) => return Err(error),
        };
        let found = found.trim();
        if found.len() < PASSWORD_BYTES_MIN {
            return Err(io::Error::other(format!(
                "{} holds no password of {PASSWORD_BYTES_MIN} characters or more; delete it to have a new one made",
                path.display()
            )));
        }
        let written = match std::fs::read_to_string(mark_of(&path)) {
            Ok(mark) => mark.trim() == mark_for(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let chosen = (found != shared && !written).then(|| found.to_owned());
        if found != shared && written {
            write_shared(&path, shared)?;
        }
        Ok(Self { path, is_new: false, chosen })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this start made it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The password that somebody has written into it, if it is another than the shared one.
    pub fn chosen(&self) -> Option<&str> {
        self.chosen.as_deref()
    }

    /// The members share another password now. One that somebody has written stays.
    pub fn follow(&self, shared: &str) -> io::Result<()> {
        match self.chosen {
            Some(_) => Ok(()),
            None => write_shared(&self.path, shared),
        }
    }
}

fn mark_of(path: &Path) -> PathBuf {
    path.with_extension("shared")
}

fn mark_for(password: &str) -> String {
    nora_domain::hex::encode(&hash(&hash(password.as_bytes())))
}

/// Writes the mark first: a file without one would count as written by somebody.
fn write_shared(path: &Path, password: &str) -> io::Result<()> {
    write_private(&mark_of(path), &mark_for(password))?;
    write_private(path, password)
}

/// Stores a line whole or not at all, readable by its owner alone from the first byte on.
fn write_private(path: &Path, line: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let part = path.with_extension("part");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const FIRST: &str = "the cluster's own password";
    const SECOND: &str = "the cluster's next password";

    #[test]
    fn the_password_is_shared_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let file = AdminFile::open(dir.path(), FIRST).unwrap();
        assert!(file.is_new() && file.chosen().is_none());
        let read = || std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(read(), format!("{FIRST}\n"));
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let file = AdminFile::open(dir.path(), FIRST).unwrap();
        assert!(!file.is_new() && file.chosen().is_none());
        file.follow(SECOND).unwrap();
        assert_eq!(read(), format!("{SECOND}\n"));

        std::fs::write(file.path(), "short\n").unwrap();
        assert!(AdminFile::open(dir.path(), FIRST).is_err());
    }

    #[test]
    fn a_node_that_missed_a_rotation_forgets_the_old_password() {
        let dir = tempfile::tempdir().unwrap();
        AdminFile::open(dir.path(), FIRST).unwrap();
        let file = AdminFile::open(dir.path(), SECOND).unwrap();
        assert_eq!(file.chosen(), None);
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), format!("{SECOND}\n"));
    }

    #[test]
    fn a_password_that_somebody_has_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = AdminFile::open(dir.path(), FIRST).unwrap();
        std::fs::write(file.path(), "what the operator prefers\n").unwrap();
        let file = AdminFile::open(dir.path(), SECOND).unwrap();
        assert_eq!(file.chosen(), Some("what the operator prefers"));
        file.follow(FIRST).unwrap();
        let read = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(read, "what the operator prefers\n");
    }

    #[test]
    fn a_password_is_accepted_whole_and_gives_its_own_generation() {
        let passwords = AdminPasswords::new([FIRST, SECOND]);
        let generation = passwords.accept(FIRST).unwrap();
        assert!(passwords.has_generation(generation) && !passwords.has_generation(0));
        assert!(passwords.accept(SECOND).is_some_and(|other| other != generation));
        for wrong in ["", "admin", "password", &FIRST[1..], &format!("{FIRST} ")] {
            assert_eq!(passwords.accept(wrong), None, "{wrong:?}");
        }
    }
}
