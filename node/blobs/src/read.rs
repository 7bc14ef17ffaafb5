//! Streaming a blob out: pieces are loaded on blocking threads, one ahead of the one being sent.
//!
//! Large bodies for a plain socket are slices of mapped windows, which spare a copy; all others are
//! read into buffers. Guarantees: an async thread never waits for the disk; the more streams there
//! are, the smaller are their pieces, so what all of them hold stays bounded (mapped pages count as
//! this process's memory). Must not know sessions or names.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream;
use nora_app::ports::blobs::{Delivery, OpenBlob};
use nora_app::ports::{BoxError, ByteStream};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::map;

/// Blobs up to this size are read whole when they are opened.
pub(crate) const SMALL_BYTES_MAX: usize = 64 << 10;
/// Ranges up to this size are not worth a mapping.
const UNMAPPED_BYTES_MAX: u64 = 128 << 10;
/// What all streams together may hold, as long as none has less than a piece of
/// [`PIECE_BYTES_MIN`].
const STREAMS_BYTES_MAX: usize = 24 << 20;
/// A stream holds up to three pieces: one leaving the socket, one being sent, one being loaded.
const PIECES_PER_STREAM: usize = 3;
const PIECE_BYTES_MIN: usize = 64 << 10;
const WINDOW_BYTES_MAX: usize = 4 << 20;
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// Bytes handed to the socket at once.
const SLICE_BYTES: usize = 1 << 20;

/// A small blob, read when it was opened.
pub(crate) struct StoredSmall {
    bytes: Bytes,
}

impl StoredSmall {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }
}

impl OpenBlob for StoredSmall {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(self: Arc<Self>, range: Range<u64>, _delivery: Delivery) -> ByteStream {
        let place = |at: u64| usize::try_from(at).ok().filter(|at| *at <= self.bytes.len());
        let bytes = match (place(range.start), place(range.end)) {
            (Some(start), Some(end)) if start <= end => Ok(self.bytes.slice(start..end)),
            _ => Err(BoxError::from(io::Error::from(io::ErrorKind::UnexpectedEof))),
        };
        Box::pin(stream::iter([bytes]))
    }
}

/// A blob in an open file.
pub(crate) struct StoredFile {
    file: Arc<File>,
    size: u64,
    readers: Arc<Readers>,
}

impl StoredFile {
    pub(crate) fn new(file: File, size: u64, readers: Arc<Readers>) -> Self {
        Self::of(Arc::new(file), size, readers)
    }

    /// The same for a file that others read too.
    pub(crate) fn of(file: Arc<File>, size: u64, readers: Arc<Readers>) -> Self {
        Self { file, size, readers }
    }
}

impl OpenBlob for StoredFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(self: Arc<Self>, range: Range<u64>, delivery: Delivery) -> ByteStream {
        let len = range.end.saturating_sub(range.start);
        let mapped = delivery == Delivery::Socket && len > UNMAPPED_BYTES_MAX;
        let pieces = Pieces {
            file: Arc::clone(&self.file),
            load: if mapped { map::window } else { read_buffer },
            piece_bytes_max: if mapped { WINDOW_BYTES_MAX } else { BUFFER_BYTES_MAX },
            left: range,
            ahead: None,
            current: Bytes::new(),
            reader: Reader::enter(&self.readers),
        };
        Box::pin(stream::try_unfold(pieces, Pieces::next))
    }
}

fn read_buffer(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; len];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(Bytes::from(buffer))
}

/// How many streams there are.
#[derive(Default)]
pub(crate) struct Readers(AtomicUsize);

/// One stream's place among them.
struct Reader(Arc<Readers>);

impl Reader {
    fn enter(readers: &Arc<Readers>) -> Self {
        readers.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(readers))
    }

    /// Size of the next piece: the stream's share of what all may hold.
    fn piece_bytes(&self, piece_bytes_max: usize) -> usize {
        let streams = self.0.0.load(Ordering::Relaxed).max(1);
        let share = STREAMS_BYTES_MAX / (streams * PIECES_PER_STREAM);
        // Whole multiples of the least piece, so that windows begin where pages begin if the range
        // does.
        let whole = share / PIECE_BYTES_MIN * PIECE_BYTES_MIN;
        whole.clamp(PIECE_BYTES_MIN, piece_bytes_max)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream under way.
struct Pieces {
    file: Arc<File>,
    load: fn(&File, u64, usize) -> io::Result<Bytes>,
    piece_bytes_max: usize,
    // What no piece was asked for yet.
    left: Range<u64>,
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
    current: Bytes,
    reader: Reader,
}

impl Pieces {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BoxError> {
        if self.current.is_empty() {
            let Some(loading) = self.ahead.take().or_else(|| self.start_next()) else {
                return Ok(None);
            };
            self.current = loading.await??;
            self.ahead = self.start_next();
        }
        let slice = self.current.split_to(self.current.len().min(SLICE_BYTES));
        Ok(Some((slice, self)))
    }

    fn start_next(&mut self) -> Option<JoinHandle<io::Result<Bytes>>> {
        let offset = self.left.start;
        let left = self.left.end.saturating_sub(offset);
        if left == 0 {
            return None;
        }
        let piece = self.reader.piece_bytes(self.piece_bytes_max);
        let len = usize::try_from(left).map_or(piece, |left| left.min(piece));
        self.left.start += len as u64;
        let (file, load) = (Arc::clone(&self.file), self.load);
        Some(spawn_blocking(move || load(&file, offset, len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_streams_share_what_one_may_hold() {
        let readers = Arc::default();
        let mut streams = vec![Reader::enter(&readers)];
        assert_eq!(streams[0].piece_bytes(WINDOW_BYTES_MAX), WINDOW_BYTES_MAX);
        streams.extend((1..64).map(|_| Reader::enter(&readers)));
        assert_eq!(streams[0].piece_bytes(WINDOW_BYTES_MAX), 128 << 10);
        streams.extend((64..1000).map(|_| Reader::enter(&readers)));
        assert_eq!(streams[0].piece_bytes(WINDOW_BYTES_MAX), PIECE_BYTES_MIN);
        streams.truncate(1);
        assert_eq!(streams[0].piece_bytes(BUFFER_BYTES_MAX), BUFFER_BYTES_MAX);
    }
}
