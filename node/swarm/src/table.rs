//! The chunk table: BLAKE3 of every 1 MiB of a blob, made while its bytes stream through.
//!
//! Guarantees: the table depends on the bytes alone, not on how they arrived; its root names it, so
//! a table from anywhere can be checked against the metadata before it is used.

/// Bytes in a chunk; the last one of a blob may have fewer.
pub const CHUNK_BYTES: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"NORACHNK";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 24;

/// The chunk hashes of a whole blob. An empty blob has no chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkTable {
    size: u64,
    hashes: Vec<[u8; 32]>,
}

impl ChunkTable {
    /// The table of a blob of `size` bytes with these chunk hashes; `None` if that is not their number.
    pub fn from_hashes(size: u64, hashes: Vec<[u8; 32]>) -> Option<Self> {
        (size.div_ceil(CHUNK_BYTES as u64) == hashes.len() as u64).then_some(Self { size, hashes })
    }

    /// Size of the blob in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads the stored form back; `None` if it is torn or of another kind.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, hashes) = bytes.split_at_checked(HEAD_BYTES)?;
        let size = u64::from_le_bytes(head[16..24].try_into().ok()?);
        let table = Self::from_hashes(size, hashes.as_chunks().0.to_vec())?;
        (table.encode() == bytes).then_some(table)
    }

    /// Where chunk `index` is in the blob.
    pub fn range(&self, index: usize) -> std::ops::Range<u64> {
        let start = index as u64 * CHUNK_BYTES as u64;
        start..self.size.min(start + CHUNK_BYTES as u64)
    }

    /// Whether these bytes are chunk `index`.
    pub fn verify(&self, index: usize, bytes: &[u8]) -> bool {
        self.hashes.get(index).is_some_and(|hash| blake3::hash(bytes).as_bytes() == hash)
    }

    /// The hash of each chunk, in order.
    pub fn hashes(&self) -> &[[u8; 32]] {
        &self.hashes
    }

    /// What names the table: BLAKE3 over the concatenated chunk hashes.
    pub fn root(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.hashes.as_flattened());
        *hasher.finalize().as_bytes()
    }

    /// The stored form: magic, version, chunk size and blob size (little-endian), then the hashes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.hashes.len() * 32);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(CHUNK_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(self.hashes.as_flattened());
        out
    }
}

/// Makes a [`ChunkTable`] from bytes as they come.
#[derive(Clone, Default)]
pub struct ChunkHasher {
    current: blake3::Hasher,
    filled: usize,
    done: Vec<[u8; 32]>,
}

impl ChunkHasher {
    /// Takes in bytes that follow those before.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.filled));
            self.current.update(now);
            self.filled += now.len();
            if self.filled == CHUNK_BYTES {
                self.done.push(*self.current.finalize().as_bytes());
                self.current.reset();
                self.filled = 0;
            }
            bytes = rest;
        }
    }

    /// Hashes of the chunks that are whole.
    pub fn done(&self) -> &[[u8; 32]] {
        &self.done
    }

    /// The table of the bytes so far; more may follow.
    pub fn table(&self) -> ChunkTable {
        let mut hashes = self.done.clone();
        let size = (hashes.len() * CHUNK_BYTES + self.filled) as u64;
        if self.filled > 0 {
            hashes.push(*self.current.finalize().as_bytes());
        }
        ChunkTable { size, hashes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, proptest};

    use super::*;

    fn one_shot(bytes: &[u8]) -> ChunkTable {
        let hashes = bytes.chunks(CHUNK_BYTES).map(|c| *blake3::hash(c).as_bytes()).collect();
        ChunkTable { size: bytes.len() as u64, hashes }
    }

    #[test]
    fn the_stored_form_is_fixed() {
        let mut hasher = ChunkHasher::default();
        hasher.update(&vec![7; CHUNK_BYTES + 1]);
        let encoded = hasher.table().encode();
        assert_eq!(&encoded[..8], b"NORACHNK");
        assert_eq!(&encoded[8..24], &[1, 0, 0, 0, 0, 0, 16, 0, 1, 0, 16, 0, 0, 0, 0, 0]);
        assert_eq!(&encoded[24..56], blake3::hash(&vec![7; CHUNK_BYTES]).as_bytes());
        assert_eq!(&encoded[56..], blake3::hash(&[7]).as_bytes());
        assert_eq!(hasher.table().root(), *blake3::hash(&encoded[24..]).as_bytes());
    }

    #[test]
    fn an_empty_blob_has_no_chunk() {
        let table = ChunkHasher::default().table();
        assert_eq!(table, one_shot(&[]));
        assert_eq!(table.root(), *blake3::hash(&[]).as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_chunking_gives_the_same_table(
            len in 0usize..(3 * CHUNK_BYTES + 7),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + i / 977) as u8).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (len + 1)).collect();
            cuts.extend([0, len]);
            cuts.sort_unstable();
            let mut hasher = ChunkHasher::default();
            for pair in cuts.windows(2) {
                hasher.update(&bytes[pair[0]..pair[1]]);
            }
            assert_eq!(hasher.table(), one_shot(&bytes));
        }
    }
}
