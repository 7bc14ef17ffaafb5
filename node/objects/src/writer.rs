//! The bytes of one session: the part that is being filled lies in a file, full parts go to the object store.
//!
//! Guarantees: a part's file is removed only when the journal on the disk knows that the object store has the part. At
//! most one part is on its way and one is being filled. Must not know requests or locks.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use nora_app::ports::uploads::{Purpose, UploadError};
use nora_domain::{Algorithm, Digest, Generation, UploadId};
use nora_swarm::ChunkTable;
use nora_uploads::{Hashes, Writer as _, on_disk};
use tokio::task::JoinHandle;

use crate::bucket::Bucket;
use crate::error::ObjectError;
use crate::journal::{self, Entry, Header};

const READ_BYTES: usize = 1 << 20;

/// A session's bytes and what is known of them.
pub(crate) struct Writer {
    id: UploadId,
    folder: PathBuf,
    header: Header,
    // `None` when bytes came before this process started: the digest is then computed from what was stored.
    hashes: Option<Hashes>,
    multipart: Option<String>,
    // Entity tags of the parts that the journal knows.
    parts: Vec<String>,
    // Of the first part that the journal does not know.
    uploading: Option<JoinHandle<Result<String, ObjectError>>>,
    // The part that is being filled, from 1.
    number: usize,
    len: u64,
    file: Option<File>,
    sealed: bool,
    // What this process may have stored and nobody was told of.
    attempts: Vec<Generation>,
}

impl Writer {
    /// A session that holds nothing yet and has no files.
    pub(crate) fn new(folder: PathBuf, id: UploadId, header: Header) -> Self {
        let hashes = Some(Hashes::new(header.purpose.algorithm));
        Self::with(folder, id, header, hashes)
    }

    /// Makes the folder and journal of a new session. Blocks.
    pub(crate) fn create(&self) -> io::Result<()> {
        std::fs::create_dir(&self.folder)?;
        journal::create(&self.journal_path(), &self.header)
    }

    fn with(folder: PathBuf, id: UploadId, header: Header, hashes: Option<Hashes>) -> Self {
        Self {
            id,
            folder,
            header,
            hashes,
            multipart: None,
            parts: Vec::new(),
            uploading: None,
            number: 1,
            len: 0,
            file: None,
            sealed: false,
            attempts: Vec::new(),
        }
    }

    /// Reads a session back; `None` if the folder does not hold a whole one.
    pub(crate) fn load(folder: PathBuf, id: UploadId) -> io::Result<Option<Self>> {
        let Some((header, entries)) = journal::load(&folder.join("journal"))? else {
            return Ok(None);
        };
        let mut writer = Self::with(folder, id, header, None);
        for entry in entries {
            match entry {
                Entry::Sealed => writer.sealed = true,
                Entry::Multipart(upload) => writer.multipart = Some(upload),
                Entry::Part(number, tag) if number == writer.parts.len() + 1 => {
                    writer.parts.push(tag);
                }
                Entry::Part(number, tag) => match writer.parts.get_mut(number.wrapping_sub(1)) {
                    Some(part) => *part = tag,
                    None => return Ok(None),
                },
            }
        }
        writer.number = writer.parts.len() + 1;
        while let Some(len) = writer.stored_len(writer.number)? {
            writer.len = len;
            if len > writer.header.part_bytes {
                return Ok(None);
            }
            match writer.stored_len(writer.number + 1)? {
                // Only a full part is followed by another.
                Some(_) if len < writer.header.part_bytes => return Ok(None),
                Some(_) => (writer.number, writer.len) = (writer.number + 1, 0),
                None => break,
            }
        }
        if writer.offset() == 0 {
            writer.hashes = Some(Hashes::new(writer.header.purpose.algorithm));
        }
        Ok(Some(writer))
    }

    fn stored_len(&self, number: usize) -> io::Result<Option<u64>> {
        match std::fs::metadata(self.part_path(number)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn id(&self) -> UploadId {
        self.id
    }

    pub(crate) fn purpose(&self) -> &Purpose {
        &self.header.purpose
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn journal_path(&self) -> PathBuf {
        self.folder.join("journal")
    }

    fn part_path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("part-{number:05}"))
    }

    /// Notes that storing the whole begins.
    pub(crate) async fn seal(&mut self, generation: Generation) -> Result<(), UploadError> {
        if !self.sealed {
            self.note(Entry::Sealed).await?;
            self.sealed = true;
        }
        self.attempts.push(generation);
        Ok(())
    }

    /// The generations that this process tried to store the session as.
    pub(crate) fn attempts(&self) -> &[Generation] {
        &self.attempts
    }

    /// Whether nothing more fits into the part that is being filled.
    pub(crate) fn part_is_full(&self) -> bool {
        self.len == self.header.part_bytes
    }

    /// Writes frames until they are all written or the part is full. Blocks. After an error the part holds what was
    /// written before the frame that failed.
    pub(crate) fn write(&mut self, frames: &mut VecDeque<Bytes>) -> io::Result<()> {
        let path = self.part_path(self.number);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().append(true).create(true).open(path)?),
        };
        while let Some(frame) = frames.front_mut() {
            let room = usize::try_from(self.header.part_bytes - self.len).unwrap_or(usize::MAX);
            if room == 0 {
                break;
            }
            let now = &frame[..frame.len().min(room)];
            if let Err(error) = file.write_all(now) {
                file.set_len(self.len)?;
                return Err(error);
            }
            if let Some(hashes) = &mut self.hashes {
                hashes.update(now);
            }
            let written = now.len();
            self.len += written as u64;
            frame.advance(written);
            if frame.is_empty() {
                frames.pop_front();
            }
        }
        Ok(())
    }

    /// Closes the part's file: an open session that nobody writes to costs no descriptor.
    pub(crate) fn rest(&mut self) {
        self.file = None;
    }

    /// Sends the full part off and begins the next one. Parts that are still owed go first.
    pub(crate) async fn begin_next_part(
        &mut self,
        bucket: &Arc<Bucket>,
    ) -> Result<(), UploadError> {
        self.settle().await?;
        while self.parts.len() + 1 < self.number {
            self.send(bucket, self.header.part_bytes).await?;
            self.settle().await?;
        }
        self.send(bucket, self.len).await?;
        self.file = None;
        (self.number, self.len) = (self.number + 1, 0);
        Ok(())
    }

    /// Waits until the object store has every part.
    pub(crate) async fn send_all(&mut self, bucket: &Arc<Bucket>) -> Result<(), UploadError> {
        self.settle().await?;
        while self.parts.len() < self.number {
            let last = self.parts.len() + 1 == self.number;
            let len = if last { self.len } else { self.header.part_bytes };
            if len == 0 {
                break;
            }
            self.send(bucket, len).await?;
            self.settle().await?;
        }
        Ok(())
    }

    /// Starts to send the first part that the journal does not know.
    async fn send(&mut self, bucket: &Arc<Bucket>, len: u64) -> Result<(), UploadError> {
        let upload = match &self.multipart {
            Some(upload) => upload.clone(),
            None => {
                let upload = bucket.create_multipart(self.id).await?;
                // Should this fail, the sweep of abandoned uploads finds the one that nobody remembers.
                self.note(Entry::Multipart(upload.clone())).await?;
                self.multipart.insert(upload).clone()
            }
        };
        let number = self.parts.len() + 1;
        let (path, bucket, id) = (self.part_path(number), Arc::clone(bucket), self.id);
        self.uploading =
            Some(tokio::spawn(
                async move { bucket.upload_part(id, &upload, number, path, len).await },
            ));
        Ok(())
    }

    /// Waits for the part that is on its way, if one is, and takes note of it.
    async fn settle(&mut self) -> Result<(), UploadError> {
        let Some(uploading) = &mut self.uploading else {
            return Ok(());
        };
        let sent = uploading.await;
        self.uploading = None;
        let tag = match sent {
            Ok(sent) => sent?,
            Err(error) => {
                return Err(UploadError::Io { step: "send a part", source: error.into() });
            }
        };
        let number = self.parts.len() + 1;
        self.note(Entry::Part(number, tag.clone())).await?;
        let path = self.part_path(number);
        self.parts.push(tag);
        on_disk("remove a part's file", move || std::fs::remove_file(path)).await
    }

    async fn note(&self, entry: Entry) -> Result<(), UploadError> {
        let path = self.journal_path();
        on_disk("write the session's journal", move || journal::append(&path, &entry)).await
    }

    /// Stops sending.
    pub(crate) async fn stop(&mut self) {
        if let Some(uploading) = self.uploading.take() {
            uploading.abort();
            // It has ended, one way or another, once this returns.
            let _ = uploading.await;
        }
    }

    /// The multipart upload that the parts belong to, and their entity tags.
    pub(crate) fn multipart(&self) -> Option<(&str, &[String])> {
        self.multipart.as_deref().map(|upload| (upload, self.parts.as_slice()))
    }

    /// The file that holds all of the session's bytes, if they are few enough not to need a multipart upload.
    pub(crate) fn only_part(&self) -> Option<PathBuf> {
        (self.multipart.is_none() && self.number == 1).then(|| self.part_path(1))
    }

    /// Digest and chunk table, if they can be told without reading back what was stored.
    pub(crate) async fn result(
        &self,
        algorithm: Algorithm,
    ) -> Result<Option<(Digest, ChunkTable)>, UploadError> {
        match (&self.hashes, self.only_part()) {
            (Some(hashes), _) if self.header.purpose.algorithm == algorithm => {
                Ok(Some(hashes.result()))
            }
            (_, Some(_)) if self.len == 0 => Ok(Some(Hashes::new(algorithm).result())),
            (_, Some(path)) => {
                let read = move || {
                    let mut hashes = Hashes::new(algorithm);
                    read_file(&path, |bytes| hashes.update(bytes))?;
                    Ok(hashes.result())
                };
                on_disk("read the upload", read).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Removes the session's files, for good. Blocks.
    pub(crate) fn remove(folder: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }
}

impl nora_uploads::Writer for Writer {
    fn offset(&self) -> u64 {
        (self.number as u64 - 1) * self.header.part_bytes + self.len
    }

    /// Not once storing the whole was begun. A request of then may still be on its way to the object store, so what is
    /// stored under the key must stay the same.
    fn takes_more(&self) -> Result<(), UploadError> {
        if !self.sealed {
            return Ok(());
        }
        let source = "its end was begun; end it again, or start anew".into();
        Err(UploadError::Io { step: "append to the upload", source })
    }
}

/// Reads a file in pieces. Blocks.
pub(crate) fn read_file(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => each(&buffer[..read]),
        }
    }
}
