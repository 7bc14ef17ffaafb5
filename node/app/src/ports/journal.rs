//! How a sealed part of the journal is written down.

use nora_domain::{Digest, Entry};

use super::BoxError;

/// Turns entries into the bytes of a segment and back.
pub trait Segments: Send + Sync {
    /// The bytes of a segment that holds these entries, compressed, and their digest. The same entries give the same
    /// bytes.
    fn encode(&self, entries: &[(u64, Entry)]) -> (Digest, Vec<u8>);

    /// The entries that a segment holds. Bytes that are no segment, or that grow too large, are an error.
    fn decode(&self, bytes: &[u8]) -> Result<Vec<(u64, Entry)>, BoxError>;
}
