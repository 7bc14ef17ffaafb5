//! Copies on their way in from other nodes.
//!
//! Guarantees: a copy gets its final name only when it is whole, every chunk was compared with the
//! table that names it, its bytes have the digest, and they are on the disk; a copy that breaks off
//! leaves nothing. The digest is computed here once more: a broken or hostile member may send other
//! bytes with a table that fits them. Everything here blocks.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nora_app::ports::blobs::BlobCopy;
use nora_digest::ContentHasher;
use nora_domain::Digest;
use tracing::warn;

use crate::layout;
use crate::map;
use crate::store::{Inner, remove};
use crate::writer::{self, FinishError};
use nora_swarm::{ChunkHasher, ChunkTable};
use nora_uploads::{StepError, step};

/// Tells the files of this process apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Why a copy was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncomingError {
    /// The bytes are not those of the table.
    #[error("chunk {chunk} is not the one that the table names")]
    Corrupt {
        /// Its place.
        chunk: usize,
    },
    /// The bytes do not have the digest.
    #[error("the bytes have the digest {computed}")]
    Digest {
        /// What they have.
        computed: Digest,
    },
    /// More or fewer bytes came than were announced.
    #[error("{came} bytes came, {size} were announced")]
    Length {
        /// Bytes that came, until it was seen.
        came: u64,
        /// The copy's size.
        size: u64,
    },
    /// The disk failed.
    #[error("cannot {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl From<StepError> for IncomingError {
    fn from(StepError { step, source }: StepError) -> Self {
        Self::Io { step, source }
    }
}

/// A copy being written.
pub(crate) struct Incoming {
    inner: Arc<Inner>,
    copy: BlobCopy,
    // None where the sender's bytes are verified before they come here.
    table: Option<ChunkTable>,
    path: PathBuf,
    file: File,
    hasher: ChunkHasher,
    content: ContentHasher,
    offset: u64,
    written_back_to: u64,
    checked: usize,
    named: bool,
}

impl Incoming {
    pub(crate) fn create(
        inner: &Arc<Inner>,
        copy: BlobCopy,
        table: Option<ChunkTable>,
    ) -> Result<Self, IncomingError> {
        let path = inner.layout.incoming(NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(step("create a file for a copy"))?;
        map::allocate_ahead(&file, 0, copy.size);
        Ok(Self {
            content: ContentHasher::new(copy.digest.algorithm()),
            inner: Arc::clone(inner),
            copy,
            table,
            path,
            file,
            hasher: ChunkHasher::default(),
            offset: 0,
            written_back_to: 0,
            checked: 0,
            named: false,
        })
    }

    /// Takes the next bytes.
    pub(crate) fn write(&mut self, batch: &[Bytes]) -> Result<(), IncomingError> {
        let len: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
        let end = self.offset + len;
        if end > self.copy.size {
            return Err(IncomingError::Length { came: end, size: self.copy.size });
        }
        for bytes in batch {
            self.hasher.update(bytes);
            self.content.update(bytes);
        }
        self.check(self.hasher.done())?;
        self.checked = self.hasher.done().len();
        writer::write_all(&mut self.file, batch).map_err(step("write a copy"))?;
        self.offset = end;
        if end - self.written_back_to >= writer::WRITE_BACK_BYTES {
            map::start_write_back(&self.file, self.written_back_to, end - self.written_back_to);
            self.written_back_to = end;
        }
        Ok(())
    }

    /// Compares the hashes that were not yet compared.
    fn check(&self, hashes: &[[u8; 32]]) -> Result<(), IncomingError> {
        let Some(table) = &self.table else { return Ok(()) };
        let expected = table.hashes().iter().zip(hashes).enumerate().skip(self.checked);
        for (chunk, (expected, hash)) in expected {
            if expected != hash {
                return Err(IncomingError::Corrupt { chunk });
            }
        }
        Ok(())
    }

    /// Makes the copy durable under its final name.
    pub(crate) fn finish(mut self) -> Result<(), IncomingError> {
        if self.offset != self.copy.size {
            return Err(IncomingError::Length { came: self.offset, size: self.copy.size });
        }
        let table = self.hasher.table();
        self.check(table.hashes())?;
        if table.root() != self.copy.chunk_root {
            return Err(IncomingError::Corrupt { chunk: self.checked });
        }
        let computed = self.content.digest();
        if computed != self.copy.digest {
            return Err(IncomingError::Digest { computed });
        }
        self.file.sync_data().map_err(step("sync a copy"))?;
        match writer::publish(&self.inner.layout, &self.path, &self.copy, &table) {
            Ok(()) => {
                self.named = true;
                Ok(())
            }
            Err(FinishError::Step(error)) => Err(error.into()),
            Err(FinishError::Sync(source)) => {
                self.named = true;
                Err(IncomingError::Io { step: "sync the name of a copy", source })
            }
            Err(FinishError::Mismatch { .. }) => Err(IncomingError::Corrupt { chunk: 0 }),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.named
            && let Err(error) = remove(&self.path)
        {
            warn!(%error, path = %self.path.display(), "cannot remove a copy that broke off");
        }
    }
}

/// Makes the name of a copy that is there durable once more: it may be one whose first sync failed.
pub(crate) fn sync_name(inner: &Inner, copy: &BlobCopy) -> Result<(), IncomingError> {
    let synced = layout::sync_dir(&inner.layout.blob_dir(&copy.digest));
    Ok(synced.map_err(step("sync the name of a copy"))?)
}

#[cfg(test)]
mod tests {
    use nora_domain::{Algorithm, Epoch, Generation, NodeId, Placement};

    use super::*;
    use crate::store;

    #[test]
    fn bytes_that_fit_their_table_and_not_the_digest_are_no_copy() {
        let (_dir, inner) = store::empty();
        let bytes = Bytes::from_static(b"what a broken member sends");
        let mut hasher = ChunkHasher::default();
        hasher.update(&bytes);
        let table = hasher.table();
        let digest_of = |bytes: &[u8]| nora_digest::digest(Algorithm::Sha256, bytes);
        for (digest, is_right) in
            [(digest_of(b"what it was to be"), false), (digest_of(&bytes), true)]
        {
            let copy = BlobCopy {
                digest,
                generation: Generation { epoch: Epoch(1), sequence: 1 },
                size: bytes.len() as u64,
                chunk_root: table.root(),
                placement: Placement::Nodes(vec![NodeId(1)]),
            };
            let path = inner.layout.blob(&digest, copy.generation);
            let mut incoming = Incoming::create(&inner, copy, Some(table.clone())).unwrap();
            incoming.write(std::slice::from_ref(&bytes)).unwrap();
            match incoming.finish() {
                Err(IncomingError::Digest { computed }) => assert_eq!(computed, digest_of(&bytes)),
                other => assert!(other.is_ok() && is_right, "{other:?}"),
            }
            assert_eq!(path.exists(), is_right);
        }
        let left = std::fs::read_dir(inner.layout.incoming(0).parent().unwrap()).unwrap();
        assert_eq!(left.count(), 0, "a copy that was refused left something");
    }
}
