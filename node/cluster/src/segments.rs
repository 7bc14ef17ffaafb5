//! Sealed parts of the journal as bytes: what `nora_app::ports::journal` asks for.

use nora_app::ports::BoxError;
use nora_app::ports::journal::Segments;
use nora_domain::{Digest, Entry};
use sha2::{Digest as _, Sha256};

use crate::codec::journal;

/// The encoding of sealed parts of the journal.
#[derive(Clone, Copy, Debug, Default)]
pub struct JournalSegments;

impl Segments for JournalSegments {
    fn encode(&self, entries: &[(u64, Entry)]) -> (Digest, Vec<u8>) {
        let bytes = journal::encode_segment(entries);
        (Digest::sha256(Sha256::digest(&bytes).into()), bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<(u64, Entry)>, BoxError> {
        Ok(journal::decode_segment(bytes)?)
    }
}
