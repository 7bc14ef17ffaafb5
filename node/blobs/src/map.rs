//! What this crate asks of the kernel about a file's pages: mapped windows, space ahead of a write,
//! early write-back.
//!
//! Guarantees: a [`Window`]'s bytes were in the page cache when it was made, and making one never
//! raises a signal, even if the file is cut short by somebody else: that is an error like any
//! other. What must hold for the bytes is said at [`Window::map`]. This is the one module with
//! unsafe code; it must not know blobs or sessions.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};

/// Buffer through which pages are warmed where the kernel cannot populate a mapping.
const WARM_BYTES: usize = 64 << 10;

/// A read-only mapping of a part of a file.
struct Window(Mmap);

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Maps `len` bytes from `offset` and brings them into memory; blocks while the disk reads. The
/// mapping goes when the last slice of the answer goes.
///
/// The slices are meant for the kernel: handed to `write` on a plain socket, a page that vanished
/// with the end of the file makes the call fail with `EFAULT`, whereas this process touching it
/// would be killed by `SIGBUS`.
pub(crate) fn window(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let window = Window::map(file, offset, len)?;
    match window.0.advise(Advice::PopulateRead) {
        Ok(()) => {}
        // Kernels before 5.14 do not know the advice.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => warm(file, offset, len)?,
        Err(error) => return Err(error),
    }
    Ok(Bytes::from_owner(window))
}

impl Window {
    fn map(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        // SAFETY: the mapping is private, read-only and owned by the value that is returned, and
        // memmap2 checks offset and length. What remains is that the file's bytes must not change
        // while Rust code looks at them. No code of this program writes to or shortens a file that
        // has its final name, so the bytes behind a slice stay the same; and slices go only to
        // callers who asked for `Delivery::Socket`, by which they promise that the kernel alone
        // reads the bytes. Were the file shortened from outside, the kernel would answer with an
        // error.
        let map = unsafe { MmapOptions::new().offset(offset).len(len).map(file)? };
        Ok(Self(map))
    }
}

/// Reads a range for the page cache's sake; an end of the file within the range is an error.
fn warm(file: &File, mut offset: u64, len: usize) -> io::Result<()> {
    let mut buffer = vec![0; WARM_BYTES.min(len)];
    let end = offset + len as u64;
    while offset < end {
        let take =
            usize::try_from(end - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact_at(&mut buffer[..take], offset)?;
        offset += take as u64;
    }
    Ok(())
}

/// Reserves space for bytes to come, so that they are laid out in one run and need no allocation
/// one page at a time. The file's length stays. Best effort: where it fails, the writes themselves
/// say what is wrong.
pub(crate) fn allocate_ahead(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len)) else {
        return;
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no
    // memory of this process.
    unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, offset, len) };
}

/// Asks the kernel to begin writing a range to the disk, so that a sync at the end finds little
/// left to do. Best effort.
pub(crate) fn start_write_back(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (libc::off64_t::try_from(offset), libc::off64_t::try_from(len))
    else {
        return;
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no
    // memory of this process.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Lets the kernel drop a file's clean pages, so that the next read comes from the disk. Best effort.
pub(crate) fn forget_pages(file: &File) {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no
    // memory of this process.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn file_with(len: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        (file, bytes)
    }

    #[test]
    fn a_window_holds_the_bytes_of_its_range_and_outlives_the_file() {
        let (file, bytes) = file_with(300_000);
        let mut all = window(&file, 4097, 200_001).unwrap();
        drop(file);
        let tail = all.split_off(100_000);
        assert_eq!(all, &bytes[4097..104_097]);
        drop(all);
        assert_eq!(tail, &bytes[104_097..204_098]);
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error_and_no_signal() {
        let (file, _) = file_with(20_000);
        assert!(window(&file, 0, 200_000).is_err());
        assert!(warm(&file, 0, 200_000).is_err());
        assert!(warm(&file, 0, 20_000).is_ok());
    }

    #[test]
    fn space_ahead_keeps_the_length() {
        let (file, _) = file_with(10);
        allocate_ahead(&file, 10, 1 << 20);
        start_write_back(&file, 0, 10);
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 10);
        assert!(metadata.blocks() * 512 >= 1 << 20, "{} blocks", metadata.blocks());
    }
}
