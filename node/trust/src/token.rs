//! Join tokens: what a node shows to be let in, and what tells it that it asks the right cluster.
//!
//! `nora1.` and base64url of 80 bytes: the token's id, its secret, and SHA-256 of the authority's certificate. The cluster
//! stores the id and the hash of the secret; whoever reads the metadata cannot join with it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nora_domain::TokenId;
use rustls::pki_types::CertificateDer;

use crate::authority::sha256;

const PREFIX: &str = "nora1.";
const BYTES: usize = 16 + 16 + 32;

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Its public part.
    pub id: TokenId,
    secret: [u8; 16],
    authority_hash: [u8; 32],
}

/// Why a text is no join token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as one.
    #[error(
        "this is no join token: it does not begin with '{PREFIX}'. 'nora cluster join-token' on a member makes one"
    )]
    Prefix,
    /// It was cut, or something was added or changed.
    #[error("the join token is incomplete or was changed: copy it whole, it is {} characters long", PREFIX.len() + BYTES.div_ceil(3) * 4 - 2)]
    Malformed,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// A new one for the cluster of that authority.
    pub fn new(authority: &CertificateDer<'_>) -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let (mut id, mut secret) = ([0; 16], [0; 16]);
        id.copy_from_slice(&random[..16]);
        secret.copy_from_slice(&random[16..]);
        let id = TokenId(u128::from_be_bytes(id));
        Ok(Self { id, secret, authority_hash: sha256(authority) })
    }

    /// Reads one; blanks around it do not matter.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Malformed)?;
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| TokenError::Malformed)?;
        let (mut id, mut secret, mut authority_hash) = ([0; 16], [0; 16], [0; 32]);
        id.copy_from_slice(&bytes[..16]);
        secret.copy_from_slice(&bytes[16..32]);
        authority_hash.copy_from_slice(&bytes[32..]);
        Ok(Self { id: TokenId(u128::from_be_bytes(id)), secret, authority_hash })
    }

    /// The text that is given to people.
    pub fn text(&self) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend(self.id.0.to_be_bytes());
        bytes.extend(self.secret);
        bytes.extend(self.authority_hash);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What the cluster stores of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(&self.secret)
    }

    /// Whether it was made for the cluster of that authority.
    pub fn is_of(&self, authority: &CertificateDer<'_>) -> bool {
        sha256(authority) == self.authority_hash
    }

    /// SHA-256 of the certificate of the authority that the cluster must show.
    pub fn authority_hash(&self) -> [u8; 32] {
        self.authority_hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, proptest};

    fn token() -> JoinToken {
        JoinToken::new(&CertificateDer::from(vec![1, 2, 3])).unwrap()
    }

    #[test]
    fn a_token_comes_back_and_tells_no_secret() {
        let token = token();
        assert_eq!(JoinToken::parse(&format!(" {}\n", token.text())).unwrap(), token);
        assert!(!format!("{token:?}").contains("secret"));
        assert_eq!(JoinToken::parse("hello"), Err(TokenError::Prefix));
        let text = token.text();
        assert_eq!(JoinToken::parse(&text[..text.len() - 1]), Err(TokenError::Malformed));
        let told = TokenError::Malformed.to_string();
        assert!(told.contains(&format!("{} characters", text.len())), "{told} {}", text.len());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            prop_assert!(JoinToken::parse(&text).is_err());
            let _ = JoinToken::parse(&format!("nora1.{text}"));
        }
    }
}
