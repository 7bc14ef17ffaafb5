//! Passwords: hashing them, comparing them, and reading htpasswd files.
//!
//! Accounts that this registry makes have Argon2id hashes; htpasswd files bring bcrypt. Guarantees: a login takes the
//! same work whether its user is unknown, has an Argon2id hash or a bcrypt hash, if it comes through [`Passwords::check`];
//! no message and no log says anything of a password or a hash. Must not know: users, or how often one may try. The one
//! random thing here is the salt of [`hash`].

use std::collections::BTreeMap;
use std::hint::black_box;
use std::str::FromStr;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

use crate::identity::{NameRefused, check_name};

/// The shortest password that is stored.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// The longest password that is stored or looked at.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// The largest htpasswd file that is read.
pub const HTPASSWD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bcrypt looks at so many bytes of a password and forgets the rest.
const BCRYPT_BYTES_MAX: usize = 72;
/// The dearest bcrypt hash that is computed: each login would take seconds, and a file is written by people.
const BCRYPT_COST_MAX: u32 = 15;
const BCRYPT_COST_MIN: u32 = 4;
/// So many problems of a file are told.
const PROBLEMS_MAX: usize = 100;

/// What OWASP asks of Argon2id at least: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// What a stored hash may ask for. Ours ask for less; a hash from elsewhere must not take the node's memory.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 8;

/// Why a password is not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It is too easily guessed.
    #[error("the password has fewer than {PASSWORD_BYTES_MIN} bytes: choose a longer one")]
    TooShort,
    /// It is longer than anything that is looked at.
    #[error("the password has more than {PASSWORD_BYTES_MAX} bytes: choose a shorter one")]
    TooLong,
    /// A client could not send it.
    #[error("the password has control characters, which clients cannot send: choose another one")]
    Control,
    /// The system gave no random salt, or no memory.
    #[error("cannot hash the password: {0}. Try again")]
    Hash(String),
}

/// What was computed for a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Argon2's memory in KiB times its passes.
    pub argon2: u64,
    /// Rounds of bcrypt.
    pub bcrypt: u64,
}

/// Whether a new password may be used.
pub fn check_strength(password: &str) -> Result<(), PasswordError> {
    if password.len() < PASSWORD_BYTES_MIN {
        return Err(PasswordError::TooShort);
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    if password.chars().any(char::is_control) {
        return Err(PasswordError::Control);
    }
    Ok(())
}

/// The Argon2id hash of a new password, as a PHC string with a salt of its own.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    check_strength(password)?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| PasswordError::Hash(e.to_string()))?;
    let argon2 = ours().map_err(|e| PasswordError::Hash(e.to_string()))?;
    let hash = argon2
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|e| PasswordError::Hash(e.to_string()))?;
    Ok(hash.to_string())
}

fn ours() -> argon2::Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Whether a password is the one of a stored hash: Argon2id as PHC, or bcrypt.
///
/// A password over 72 bytes never fits a bcrypt hash. Bcrypt would look at its first 72 bytes only and take whatever
/// follows for right; and because it repeats the password to fill its key, a NUL inside would make two passwords one.
pub fn verify(password: &str, hash: &str) -> bool {
    if password.len() > PASSWORD_BYTES_MAX {
        return false;
    }
    let mut work = Work::default();
    if hash.starts_with("$argon2") {
        verify_argon2(password, hash, &mut work)
    } else {
        bcrypt_cost(hash).is_some_and(|cost| verify_bcrypt(password, hash, cost, &mut work))
    }
}

fn verify_argon2(password: &str, hash: &str, work: &mut Work) -> bool {
    let Ok(parsed) = PasswordHash::new(hash) else { return false };
    let modest = Params::try_from(&parsed).ok().filter(|params| {
        params.m_cost() <= MEMORY_KIB_MAX
            && params.t_cost() <= PASSES_MAX
            && params.p_cost() <= LANES_MAX
    });
    let Some(params) = modest.filter(|_| parsed.algorithm == Algorithm::Argon2id.ident()) else {
        return false;
    };
    work.argon2 += u64::from(params.m_cost()) * u64::from(params.t_cost());
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
}

fn verify_bcrypt(password: &str, hash: &str, cost: u32, work: &mut Work) -> bool {
    let usable = password.len() <= BCRYPT_BYTES_MAX && !password.contains('\0');
    // The work is done for a password that cannot be right, too: how long an answer takes must not tell of the hash.
    work.bcrypt += 1 << cost;
    let equal = bcrypt::verify(password, hash).unwrap_or(false);
    usable && equal
}

/// The cost of a bcrypt hash that this registry accepts.
fn bcrypt_cost(hash: &str) -> Option<u32> {
    let prefix = ["$2a$", "$2b$", "$2y$"].into_iter().any(|prefix| hash.starts_with(prefix));
    let cost = bcrypt::HashParts::from_str(hash).ok()?.get_cost();
    (prefix && (BCRYPT_COST_MIN..=BCRYPT_COST_MAX).contains(&cost)).then_some(cost)
}

/// Takes as long as a comparison with one of our own hashes, and says nothing: for users that do not exist.
fn burn_argon2(password: &str, work: &mut Work) {
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    if let Ok(argon2) = ours() {
        work.argon2 += u64::from(MEMORY_KIB) * u64::from(PASSES);
        let done =
            argon2.hash_password_into(password.as_bytes(), b"nobody's own salt", &mut output);
        black_box((done.is_ok(), output));
    }
}

fn burn_bcrypt(password: &str, cost: u32, work: &mut Work) {
    work.bcrypt += 1 << cost;
    let password = &password.as_bytes()[..password.len().min(BCRYPT_BYTES_MAX)];
    black_box(bcrypt::hash_with_salt(password, cost, *b"nobody's salt 16").is_ok());
}

/// Logins that all take the same work.
///
/// Every check computes one Argon2id hash; if there are htpasswd users, it computes bcrypt of their highest cost as well.
/// The part that is not the user's own is computed for nothing. So the time of an answer tells neither whether a user
/// exists nor where its hash came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passwords {
    bcrypt_cost: Option<u32>,
}

impl Passwords {
    /// For a policy with those htpasswd hashes.
    pub fn new<'a>(htpasswd_hashes: impl IntoIterator<Item = &'a str>) -> Self {
        Self { bcrypt_cost: htpasswd_hashes.into_iter().filter_map(bcrypt_cost).max() }
    }

    /// Whether a password is the one of a user's hash; `None` is a user that does not exist.
    pub fn check(&self, password: &str, hash: Option<&str>) -> bool {
        self.check_with(password, hash, &mut Work::default())
    }

    /// The same; adds what was computed to `work`.
    pub fn check_with(&self, password: &str, hash: Option<&str>, work: &mut Work) -> bool {
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        let mut right = false;
        match hash {
            Some(hash) if hash.starts_with("$argon2") => {
                right = verify_argon2(password, hash, work);
            }
            _ => burn_argon2(password, work),
        }
        let own = hash.and_then(bcrypt_cost);
        if let (Some(hash), Some(cost)) = (hash, own) {
            right = verify_bcrypt(password, hash, cost, work);
        }
        match (own, self.bcrypt_cost) {
            // Cost c is 2^c rounds, so costs c, c, c+1, … d-1 together are as many rounds as cost d.
            (Some(own), Some(highest)) => {
                (own..highest).for_each(|cost| burn_bcrypt(password, cost, work));
            }
            (None, Some(highest)) => burn_bcrypt(password, highest, work),
            (_, None) => {}
        }
        right
    }
}

/// Reads an htpasswd file: user to bcrypt hash. All that is wrong with it is told at once, with the line's number; what
/// it says of a hash is never the hash.
pub fn parse_htpasswd(text: &str) -> Result<BTreeMap<String, String>, Vec<(usize, String)>> {
    if text.len() > HTPASSWD_BYTES_MAX {
        let told = format!("the file is larger than {HTPASSWD_BYTES_MAX} bytes: split its users");
        return Err(vec![(1, told)]);
    }
    let mut users = BTreeMap::new();
    let mut lines = BTreeMap::new();
    let mut problems = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        match parse_line(content) {
            Ok((user, hash)) => match lines.get(user) {
                Some(first) => {
                    let told = format!("user '{user}' is in line {first} already: remove one");
                    problems.push((line, told));
                }
                None => {
                    lines.insert(user, line);
                    users.insert(user.to_owned(), hash.to_owned());
                }
            },
            Err(told) => problems.push((line, told)),
        }
        if problems.len() == PROBLEMS_MAX {
            break;
        }
    }
    if problems.is_empty() { Ok(users) } else { Err(problems) }
}

fn parse_line(line: &str) -> Result<(&str, &str), String> {
    let (user, hash) = line
        .split_once(':')
        .ok_or("the line is not user:hash; 'htpasswd -B <file> <user>' writes one")?;
    match check_name(user) {
        Ok(()) => {}
        Err(NameRefused::Reserved) => {
            return Err(format!("'{user}' means something else in rules: rename the user"));
        }
        Err(NameRefused::Empty | NameRefused::TooLong | NameRefused::Character) => {
            return Err(
                "the user name is not 1 to 64 of letters, digits and ._-@+: rename it".into()
            );
        }
    }
    let version = ["$2a$", "$2b$", "$2y$"].into_iter().any(|version| hash.starts_with(version));
    if !version {
        return Err(format!(
            "the password of '{user}' is not hashed with bcrypt: set it again with \
             'htpasswd -B <file> {user}'"
        ));
    }
    match bcrypt::HashParts::from_str(hash) {
        Err(_) => Err(format!(
            "the bcrypt hash of '{user}' is incomplete or was changed: set the password again with \
             'htpasswd -B <file> {user}'"
        )),
        Ok(_) if bcrypt_cost(hash).is_none() => Err(format!(
            "the bcrypt hash of '{user}' has a cost outside {BCRYPT_COST_MIN} to {BCRYPT_COST_MAX}: \
             set the password again with 'htpasswd -B -C 10 <file> {user}'"
        )),
        Ok(_) => Ok((user, hash)),
    }
}
