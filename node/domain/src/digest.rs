//! Content digests: the names of immutable bytes.
//!
//! A [`Digest`] is an algorithm and its hash value; its text form is `sha256:<64 hex>` or `sha512:<128 hex>`, lower
//! case only, as the OCI image specification registers them. Must not know how a hash is computed: that is work for
//! the adapters that see the bytes.

use std::fmt;

/// A registered digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256: 32 bytes; what every client uses.
    Sha256,
    /// SHA-512: 64 bytes; optional in OCI 1.1.
    Sha512,
}

impl Algorithm {
    /// The name in a digest's text form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the hash value in bytes.
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The algorithm of that name, if it is one NORA knows.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of immutable bytes: an algorithm and the hash value it gave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    // SHA-256 fills the first half; the rest stays zero, so derived equality and order hold.
    value: [u8; 64],
}

/// Why a text or a value is no digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DigestError {
    /// There is no `algorithm:` part, or it holds characters that no algorithm name has.
    Malformed,
    /// The algorithm is well formed but not one NORA knows.
    UnsupportedAlgorithm(String),
    /// The hash value has the wrong length for its algorithm, or is not lower-case hexadecimal.
    BadValue(Algorithm),
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => {
                f.write_str("a digest is written algorithm:hex, as in sha256:9f86d0…")
            }
            Self::UnsupportedAlgorithm(name) => {
                write!(f, "digest algorithm {name:?} is not supported; use sha256 or sha512")
            }
            Self::BadValue(algorithm) => write!(
                f,
                "a {algorithm} digest has {} lower-case hexadecimal digits after the colon",
                algorithm.len_bytes() * 2
            ),
        }
    }
}

impl std::error::Error for DigestError {}

impl Digest {
    /// The digest with this SHA-256 value.
    pub const fn sha256(value: [u8; 32]) -> Self {
        let mut full = [0; 64];
        let mut i = 0;
        while i < 32 {
            full[i] = value[i];
            i += 1;
        }
        Self { algorithm: Algorithm::Sha256, value: full }
    }

    /// The digest with this SHA-512 value.
    pub const fn sha512(value: [u8; 64]) -> Self {
        Self { algorithm: Algorithm::Sha512, value }
    }

    /// The digest of that algorithm and raw hash value; `None` if the length does not fit.
    pub fn from_parts(algorithm: Algorithm, value: &[u8]) -> Option<Self> {
        if value.len() != algorithm.len_bytes() {
            return None;
        }
        let mut full = [0; 64];
        full[..value.len()].copy_from_slice(value);
        Some(Self { algorithm, value: full })
    }

    /// Reads the text form, strictly: lower case, exact length, known algorithm.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let name_ok = !name.is_empty()
            && name.len() <= 32
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+._-".contains(&b));
        if !name_ok || hex.is_empty() {
            return Err(DigestError::Malformed);
        }
        let algorithm = Algorithm::from_name(name)
            .ok_or_else(|| DigestError::UnsupportedAlgorithm(name.to_owned()))?;
        let bytes = hex.as_bytes();
        if bytes.len() != algorithm.len_bytes() * 2 {
            return Err(DigestError::BadValue(algorithm));
        }
        let mut value = [0; 64];
        for (i, pair) in bytes.chunks_exact(2).enumerate() {
            match (hex_digit(pair[0]), hex_digit(pair[1])) {
                (Some(high), Some(low)) => value[i] = high << 4 | low,
                _ => return Err(DigestError::BadValue(algorithm)),
            }
        }
        Ok(Self { algorithm, value })
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw hash value: 32 or 64 bytes.
    pub fn value(&self) -> &[u8] {
        &self.value[..self.algorithm.len_bytes()]
    }

    /// The hash value as lower-case hexadecimal, without the algorithm.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(self.algorithm.len_bytes() * 2);
        for byte in self.value() {
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        out
    }
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_is_strict() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = Digest::parse(&format!("sha256:{hex}")).unwrap();
        assert_eq!(digest.to_string(), format!("sha256:{hex}"));
        assert_eq!(digest.hex(), hex);
        let long = format!("sha512:{}", "ab".repeat(64));
        assert_eq!(Digest::parse(&long).unwrap().to_string(), long);

        assert_eq!(Digest::parse(hex), Err(DigestError::Malformed));
        assert_eq!(Digest::parse("sha256:"), Err(DigestError::Malformed));
        assert_eq!(Digest::parse("../x:00"), Err(DigestError::Malformed));
        assert_eq!(
            Digest::parse("md5:d41d8cd98f00b204e9800998ecf8427e"),
            Err(DigestError::UnsupportedAlgorithm("md5".into()))
        );
        for bad in
            [hex.to_uppercase(), hex[1..].to_owned(), format!("{hex}0"), hex.replace('e', "g")]
        {
            assert_eq!(
                Digest::parse(&format!("sha256:{bad}")),
                Err(DigestError::BadValue(Algorithm::Sha256))
            );
        }
    }
}
