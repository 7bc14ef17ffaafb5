//! This node's copies as the disk has them: whether they are there, whether they are whole, and setting
//! damaged ones aside. Everything here blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nora_app::ports::blobs::BlobCopy;
use nora_domain::Algorithm;

use crate::layout::{self, BlobFileName};
use crate::store::{Inner, remove};
use nora_swarm::{CHUNK_BYTES, ChunkHasher, ChunkTable};

/// What a copy's file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileState {
    /// It is there, with the right size.
    Whole,
    /// It is not there.
    Absent,
    /// It is there and cannot be the copy, or cannot be read.
    Damaged,
}

impl Inner {
    /// Looks at a copy's file without reading it.
    pub(crate) fn state_of(&self, copy: &BlobCopy) -> io::Result<FileState> {
        match std::fs::metadata(self.layout.blob(&copy.digest, copy.generation)) {
            Ok(metadata) if metadata.len() == copy.size => Ok(FileState::Whole),
            Ok(_) => Ok(FileState::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FileState::Absent),
            Err(error) => Err(error),
        }
    }

    /// The chunk table of a copy: the stored one, or computed again where that is missing or torn.
    /// `None` if the bytes are not those of the copy.
    pub(crate) fn table_of(&self, copy: &BlobCopy) -> io::Result<Option<ChunkTable>> {
        let chunks = self.layout.chunks(&copy.digest, copy.generation);
        let stored = std::fs::read(&chunks).ok().and_then(|bytes| ChunkTable::decode(&bytes));
        if let Some(table) = stored.filter(|table| table.root() == copy.chunk_root) {
            // A table without its bytes is of no use to whoever asks.
            std::fs::metadata(self.layout.blob(&copy.digest, copy.generation))?;
            return Ok(Some(table));
        }
        self.rebuild_table(copy)
    }

    /// Reads the whole copy and compares it with its root; writes its chunk table anew if that is not
    /// what is stored. `None` if the bytes are not those of the copy.
    pub(crate) fn rebuild_table(&self, copy: &BlobCopy) -> io::Result<Option<ChunkTable>> {
        let file = File::open(self.layout.blob(&copy.digest, copy.generation))?;
        if file.metadata()?.len() != copy.size {
            return Ok(None);
        }
        let mut hasher = ChunkHasher::default();
        let mut buffer =
            vec![0; CHUNK_BYTES.min(usize::try_from(copy.size).unwrap_or(CHUNK_BYTES))];
        let mut offset = 0;
        while offset < copy.size {
            offset += hash_chunk(&file, &mut buffer, offset, copy.size, &mut hasher)?;
        }
        let right = self.checked_table(copy, &hasher)?;
        Ok(right.map(|_| hasher.table()))
    }

    /// Compares what was computed from a copy's bytes with its root; `None` if they differ. Stores the
    /// chunk table if another or none is stored, and tells so.
    pub(crate) fn checked_table(
        &self,
        copy: &BlobCopy,
        hasher: &ChunkHasher,
    ) -> io::Result<Option<bool>> {
        let table = hasher.table();
        if table.root() != copy.chunk_root {
            return Ok(None);
        }
        let chunks = self.layout.chunks(&copy.digest, copy.generation);
        let encoded = table.encode();
        let stale =
            table.hashes().len() > 1 && std::fs::read(&chunks).ok().as_ref() != Some(&encoded);
        if stale {
            std::fs::write(chunks, encoded)?;
        }
        Ok(Some(stale))
    }

    /// Moves a copy out of the way of readers, for people to look at. False if there is none.
    pub(crate) fn quarantine(&self, copy: &BlobCopy) -> io::Result<bool> {
        let BlobCopy { digest, generation, .. } = copy;
        remove(&self.layout.chunks(digest, *generation))?;
        let aside = self.layout.quarantined(digest, *generation);
        let mut change = self.layout.census().change(digest);
        match std::fs::rename(self.layout.blob(digest, *generation), aside) {
            Ok(()) => change.removed(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        drop(change);
        layout::sync_dir(&self.layout.blob_dir(digest))?;
        Ok(true)
    }

    /// Removes a copy's files.
    pub(crate) fn remove_copy(&self, copy: &BlobFileName) -> io::Result<()> {
        remove(&self.layout.chunks(&copy.digest, copy.generation))?;
        self.layout.remove_blob(&copy.digest, copy.generation).map(drop)
    }

    /// Counts the copies in a folder anew. False if copies came or went all the while.
    pub(crate) fn recount(&self, algorithm: Algorithm, shard: u8) -> io::Result<bool> {
        let count = || Ok(self.copies_in(algorithm, shard)?.len() as u64);
        self.layout.census().recount(algorithm, shard, count)
    }
}

/// Hashes one chunk, from the disk rather than from memory. Returns its length.
pub(crate) fn hash_chunk(
    file: &File,
    buffer: &mut [u8],
    offset: u64,
    size: u64,
    hasher: &mut ChunkHasher,
) -> io::Result<u64> {
    let len = usize::try_from(size - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
    file.read_exact_at(&mut buffer[..len], offset)?;
    hasher.update(&buffer[..len]);
    Ok(len as u64)
}
