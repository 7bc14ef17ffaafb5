//! What is computed of an upload while its bytes come in.

use nora_digest::ContentHasher;
use nora_domain::{Algorithm, Digest};
use nora_swarm::{ChunkHasher, ChunkTable};

/// The digest and the chunk table of bytes, as they come.
#[derive(Clone)]
pub struct Hashes {
    content: ContentHasher,
    chunks: ChunkHasher,
}

impl Hashes {
    /// No bytes yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self { content: ContentHasher::new(algorithm), chunks: ChunkHasher::default() }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.content.update(bytes);
        self.chunks.update(bytes);
    }

    /// The digest of the bytes so far; more may follow.
    pub fn digest(&self) -> Digest {
        self.content.digest()
    }

    /// The chunk table of the bytes so far; more may follow.
    pub fn table(&self) -> ChunkTable {
        self.chunks.table()
    }

    /// Both.
    pub fn result(&self) -> (Digest, ChunkTable) {
        (self.digest(), self.table())
    }
}
