//! API tokens: what a person, a robot or a workload shows instead of a password.
//!
//! `nora_pat_` or `nora_wl_`, then the id and the secret as 22 base62 digits each, then CRC-32 of all that as 6 digits.
//! The fixed prefix and the checksum let a scanner of leaked secrets find a token without asking anybody, and let a
//! damaged one be refused without a look-up. Guarantees: a token has one spelling; the secret is in no Debug output.
//! Must not know: whom a token belongs to, and until when.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Base62 digits of 128 bits.
const NUMBER_DIGITS: usize = 22;
/// Base62 digits of 32 bits.
const CHECKSUM_DIGITS: usize = 6;
/// What follows the prefix.
const BODY_DIGITS: usize = 2 * NUMBER_DIGITS + CHECKSUM_DIGITS;

/// What a token was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    /// `pat`: made for a person or a robot, and kept.
    Personal,
    /// `wl`: given to a workload for its identity token, for minutes.
    Workload,
}

impl TokenKind {
    const ALL: [Self; 2] = [Self::Personal, Self::Workload];

    /// How tokens of the kind begin: what a scanner of leaked secrets looks for.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Personal => "nora_pat_",
            Self::Workload => "nora_wl_",
        }
    }
}

/// An API token, secret and all.
#[derive(Clone)]
pub struct ApiToken {
    /// What it was made for.
    pub kind: TokenKind,
    /// Its public part: what the cluster knows it by.
    pub id: u128,
    secret: [u8; 16],
}

impl std::fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiToken")
            .field("kind", &self.kind)
            .field("id", &self.id_hex())
            .finish_non_exhaustive()
    }
}

impl ApiToken {
    /// A new token of random bytes, which come from the system's generator and are used for nothing else.
    pub fn generate(kind: TokenKind, random: [u8; 32]) -> Self {
        let (mut id, mut secret) = ([0; 16], [0; 16]);
        id.copy_from_slice(&random[..16]);
        secret.copy_from_slice(&random[16..]);
        Self { kind, id: u128::from_be_bytes(id), secret }
    }

    /// Reads a token. One that is not exactly as [`ApiToken::reveal`] wrote it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let kind = TokenKind::ALL.into_iter().find(|kind| text.starts_with(kind.prefix()))?;
        if text.len() != kind.prefix().len() + BODY_DIGITS || !text.is_ascii() {
            return None;
        }
        let (checked, checksum) = text.split_at(text.len() - CHECKSUM_DIGITS);
        if number(checksum)? != u128::from(crc32fast::hash(checked.as_bytes())) {
            return None;
        }
        let (id, secret) = checked[kind.prefix().len()..].split_at(NUMBER_DIGITS);
        Some(Self { kind, id: number(id)?, secret: number(secret)?.to_be_bytes() })
    }

    /// The token as it is given to its owner, once.
    pub fn reveal(&self) -> String {
        let mut text = String::with_capacity(self.kind.prefix().len() + BODY_DIGITS);
        text.push_str(self.kind.prefix());
        write_digits(&mut text, self.id, NUMBER_DIGITS);
        write_digits(&mut text, u128::from_be_bytes(self.secret), NUMBER_DIGITS);
        let checksum = crc32fast::hash(text.as_bytes());
        write_digits(&mut text, u128::from(checksum), CHECKSUM_DIGITS);
        text
    }

    /// The id as 32 hexadecimal digits: how it is named to people and in [`crate::session::Claims::cred`].
    pub fn id_hex(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// SHA-256 of the secret: what the cluster stores.
    ///
    /// A password needs a slow hash because people choose it among few. This secret is 128 bits from a generator: whoever
    /// read the hash would have 2¹²⁸ to try, however fast one try is. A slow hash would only make every request slow.
    pub fn secret_hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.secret).as_ref());
        hash
    }

    /// Whether its secret is the one of that hash. Takes the same time wherever they differ.
    pub fn verify(&self, hash: &[u8; 32]) -> bool {
        verify_slices_are_equal(&self.secret_hash(), hash).is_ok()
    }
}

/// Appends a number as so many base62 digits.
fn write_digits(text: &mut String, number: u128, digits: usize) {
    let mut reversed = Vec::with_capacity(digits);
    let mut rest = number;
    for _ in 0..digits {
        reversed.push(char::from(DIGITS[(rest % 62) as usize]));
        rest /= 62;
    }
    text.extend(reversed.into_iter().rev());
}

/// Reads base62 digits. Too large a number is none: it would be another spelling of a smaller one.
fn number(digits: &str) -> Option<u128> {
    digits.bytes().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            _ => return None,
        };
        number.checked_mul(62)?.checked_add(u128::from(value))
    })
}
