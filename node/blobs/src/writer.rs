//! The end of an upload that touches the disk: writes and hashes batches, and turns a session's
//! bytes into a blob.
//!
//! Guarantees: `offset` is what the file holds and the hashes cover; a write that fails is undone,
//! so the session can go on from `offset`. Everything here blocks and belongs on a blocking thread.
//! Must not know async.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nora_app::ports::blobs::BlobCopy;
use nora_domain::{Algorithm, Digest, Generation, NodeId, Placement};

use crate::layout::{self, Layout};
use crate::map;
use nora_digest::ContentHasher;
use nora_swarm::ChunkTable;
use nora_uploads::{Hashes, StepError, step};

/// Write-back is started whenever so many bytes are new.
pub(crate) const WRITE_BACK_BYTES: u64 = 2 << 20;
/// Space is reserved ahead once a file has grown to this: most blobs are smaller and need none.
const ALLOCATE_FROM_BYTES: u64 = 1 << 20;
/// As much again as there is already is reserved, within these bounds.
const ALLOCATE_BYTES_MIN: u64 = 4 << 20;
const ALLOCATE_BYTES_MAX: u64 = 64 << 20;
/// Buffer for reading a file back to hash it.
const REREAD_BYTES: usize = 256 << 10;

/// Why a session did not become a blob.
#[derive(Debug)]
pub(crate) enum FinishError {
    /// The bytes have another digest.
    Mismatch { computed: Digest },
    /// A step failed; the session is as it was.
    Step(StepError),
    /// The bytes or their name could not be made durable. The kernel forgets which pages it failed
    /// to write, so asking again would say nothing: the session cannot go on.
    Sync(io::Error),
}

impl From<StepError> for FinishError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

/// Writes one session's file.
pub(crate) struct Writer {
    path: PathBuf,
    algorithm: Algorithm,
    offset: u64,
    // None until first needed, after a restart, and after a failure that left the file in doubt.
    hashes: Option<Hashes>,
    // Open only while a request writes, so that waiting sessions hold no descriptor.
    file: Option<File>,
    allocated_to: u64,
    written_back_to: u64,
}

impl Writer {
    /// A writer for a file that exists and holds `offset` bytes.
    pub(crate) fn new(path: PathBuf, algorithm: Algorithm, offset: u64) -> Self {
        let hashes = (offset == 0).then(|| Hashes::new(algorithm));
        Self {
            path,
            algorithm,
            offset,
            hashes,
            file: None,
            allocated_to: offset,
            written_back_to: offset,
        }
    }

    /// Opens the file and, where they were lost, computes the hashes again.
    fn resume(&mut self) -> Result<(&mut File, &mut Hashes), StepError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .read(true)
                .write(true)
                .open(&self.path)
                .and_then(|mut file| file.seek(SeekFrom::Start(self.offset)).map(|_| file))
                .map_err(step("open the upload"))?,
        };
        let file = self.file.insert(file);
        let hashes = match self.hashes.take() {
            Some(hashes) => hashes,
            None => {
                // Cuts what a failed write left, and space that was reserved before a crash.
                file.set_len(self.offset)
                    .and_then(|()| file.seek(SeekFrom::Start(self.offset)))
                    .map_err(step("cut the upload to its length"))?;
                let mut hashes = Hashes::new(self.algorithm);
                reread(file, self.offset, |bytes| hashes.update(bytes))?;
                hashes
            }
        };
        Ok((file, self.hashes.insert(hashes)))
    }

    /// Appends a batch.
    pub(crate) fn append(&mut self, batch: &[Bytes]) -> Result<(), StepError> {
        let len: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
        let (offset, allocated_to) = (self.offset, self.allocated_to);
        let (file, hashes) = self.resume()?;
        let end = offset + len;
        let mut allocate = 0;
        if end > ALLOCATE_FROM_BYTES && end > allocated_to {
            allocate = len + end.clamp(ALLOCATE_BYTES_MIN, ALLOCATE_BYTES_MAX);
            map::allocate_ahead(file, offset, allocate);
        }
        if let Err(source) = write_all(file, batch) {
            self.undo();
            return Err(StepError { step: "write the upload", source });
        }
        for bytes in batch {
            hashes.update(bytes);
        }
        self.offset = end;
        self.allocated_to = allocated_to.max(offset + allocate);
        if end - self.written_back_to >= WRITE_BACK_BYTES {
            if let Some(file) = &self.file {
                map::start_write_back(file, self.written_back_to, end - self.written_back_to);
            }
            self.written_back_to = end;
        }
        Ok(())
    }

    /// Cuts the file back to what the hashes cover.
    fn undo(&mut self) {
        let offset = self.offset;
        let cut = self.file.as_mut().map(|file| {
            file.set_len(offset).and_then(|()| file.seek(SeekFrom::Start(offset))).map(|_| ())
        });
        self.allocated_to = offset;
        if !matches!(cut, Some(Ok(()))) {
            // The file is in doubt: the next request cuts it again and hashes what is there.
            self.file = None;
            self.hashes = None;
        }
    }

    /// Ends a request's writes: gives back reserved space and the descriptor.
    pub(crate) fn rest(&mut self) {
        if self.allocated_to > self.offset {
            self.undo();
        }
        self.file = None;
    }

    /// Verifies the bytes, makes them durable and gives them their final name. The session is not
    /// over: it is ended, or goes on after [`Self::take_back`].
    pub(crate) fn finish(
        &mut self,
        layout: &Layout,
        expected: Digest,
        generation: Generation,
        node: NodeId,
    ) -> Result<BlobCopy, FinishError> {
        let Verified { copy, table, file } = self.verify(expected, generation, node)?;
        file.sync_data().map_err(FinishError::Sync)?;
        publish(layout, &self.path, &copy, &table)?;
        Ok(copy)
    }

    /// Checks that the bytes have the digest that is expected.
    pub(crate) fn verify(
        &mut self,
        expected: Digest,
        generation: Generation,
        node: NodeId,
    ) -> Result<Verified, FinishError> {
        let (algorithm, size) = (self.algorithm, self.offset);
        let (file, hashes) = self.resume()?;
        let computed = if expected.algorithm() == algorithm {
            hashes.digest()
        } else {
            let mut content = ContentHasher::new(expected.algorithm());
            reread(file, size, |bytes| content.update(bytes))?;
            content.digest()
        };
        if computed != expected {
            return Err(FinishError::Mismatch { computed });
        }
        let table = hashes.table();
        let file = Arc::new(file.try_clone().map_err(step("open the upload once more"))?);
        let placement = Placement::Nodes(vec![node]);
        let chunk_root = table.root();
        let copy = BlobCopy { digest: computed, generation, size, chunk_root, placement };
        Ok(Verified { copy, table, file })
    }

    /// Makes verified bytes durable under their final name.
    pub(crate) fn persist(&self, layout: &Layout, verified: &Verified) -> Result<(), FinishError> {
        verified.file.sync_data().map_err(FinishError::Sync)?;
        publish(layout, &self.path, &verified.copy, &verified.table)
    }

    /// Makes the session of the blob again: nobody was told of it.
    pub(crate) fn take_back(&mut self, layout: &Layout, copy: &BlobCopy) -> io::Result<()> {
        let _ = std::fs::remove_file(layout.chunks(&copy.digest, copy.generation));
        let mut change = layout.census().change(&copy.digest);
        std::fs::rename(layout.blob(&copy.digest, copy.generation), &self.path)?;
        change.removed();
        drop(change);
        self.rest();
        Ok(())
    }
}

impl nora_uploads::Writer for Writer {
    fn offset(&self) -> u64 {
        self.offset
    }
}

/// A session's bytes, with the digest that they were said to have.
pub(crate) struct Verified {
    pub(crate) copy: BlobCopy,
    pub(crate) table: ChunkTable,
    pub(crate) file: Arc<File>,
}

/// Gives bytes that are on the disk their final name, durably.
pub(crate) fn publish(
    layout: &Layout,
    from: &Path,
    copy: &BlobCopy,
    table: &ChunkTable,
) -> Result<(), FinishError> {
    let BlobCopy { digest, generation, .. } = copy;
    let (blob, chunks) = (layout.blob(digest, *generation), layout.chunks(digest, *generation));
    let mut change = layout.census().change(digest);
    let is_new = !blob.exists();
    match std::fs::rename(from, &blob) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            layout.create_blob_dir(digest).map_err(step("create the blob's folder"))?;
            std::fs::rename(from, &blob).map_err(step("name the blob"))?;
        }
        other => other.map_err(step("name the blob"))?,
    }
    // A table of one chunk says no more than the root does. The file needs no sync of its own: a
    // table that a crash tore does not have the root that the metadata names, and can be computed
    // again from the bytes.
    if table.hashes().len() > 1
        && let Err(source) = std::fs::write(&chunks, table.encode())
    {
        let _ = std::fs::remove_file(&chunks);
        // Should this fail too, the blob is one that nobody names.
        let _ = std::fs::rename(&blob, from);
        return Err(StepError { step: "write the chunk table", source }.into());
    }
    if is_new {
        change.added();
    }
    drop(change);
    // A name that may or may not be on the disk belongs to a blob that nobody names.
    layout::sync_dir(&layout.blob_dir(digest)).map_err(FinishError::Sync)
}

pub(crate) fn write_all(file: &mut File, batch: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut left = slices.as_mut_slice();
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn reread(file: &File, len: u64, mut each: impl FnMut(&[u8])) -> Result<(), StepError> {
    let mut buffer = vec![0; REREAD_BYTES];
    let mut offset = 0;
    while offset < len {
        let take =
            usize::try_from(len - offset).map_or(REREAD_BYTES, |left| left.min(REREAD_BYTES));
        file.read_exact_at(&mut buffer[..take], offset).map_err(step("read the upload back"))?;
        each(&buffer[..take]);
        offset += take as u64;
    }
    Ok(())
}
