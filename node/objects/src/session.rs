//! Upload sessions in folders, and in the parts of a multipart upload.
//!
//! Guarantees: a session's folder exists from its opening until its end, and a folder that holds no whole session is
//! removed at start. Must not know requests.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nora_app::ports::uploads::{Purpose, UploadError};
use nora_domain::{Timestamp, UploadId};
use nora_uploads::{Found, Place, Writing, id_of, name_of, on_disk, timestamp_of};
use tracing::warn;

use crate::bucket::Bucket;
use crate::journal::Header;
use crate::writer::Writer;

/// The right to write to a session.
pub(crate) type Claim = nora_uploads::Claim<Writer>;

/// Where the bytes of sessions go.
pub(crate) struct Spool {
    pub(crate) folder: PathBuf,
    pub(crate) bucket: Arc<Bucket>,
    /// Bytes of each part but the last.
    pub(crate) part_bytes: u64,
}

impl Place for Spool {
    type Writer = Writer;

    fn writer(&self, id: UploadId, purpose: &Purpose) -> Writer {
        let header = Header { purpose: purpose.clone(), part_bytes: self.part_bytes };
        Writer::new(self.folder.join(name_of(id)), id, header)
    }

    fn create(&self, claim: &Claim) -> io::Result<()> {
        claim.create()
    }

    fn write(&self, claim: Claim, batch: Vec<Bytes>, last: bool) -> Writing<Writer> {
        tokio::spawn(write(Arc::clone(&self.bucket), claim, batch.into(), last))
    }

    async fn remove(&self, claim: &mut Claim) -> Result<(), UploadError> {
        let bucket = &self.bucket;
        claim.stop().await;
        if let Some((multipart, _)) = claim.multipart() {
            bucket.abort(&bucket.key(claim.id()), multipart).await?;
        }
        if !claim.attempts().is_empty() {
            // Nobody was told that there is such a blob. What an earlier process may have stored is left where it is:
            // this one cannot know who was told.
            bucket.delete(&bucket.key(claim.id())).await?;
        }
        for generation in claim.attempts() {
            bucket.delete(&bucket.table_key(claim.id(), *generation)).await?;
        }
        remove_folder(claim).await
    }
}

/// Writes a batch, and sends off the parts that it fills.
async fn write(
    bucket: Arc<Bucket>,
    mut claim: Claim,
    mut batch: VecDeque<Bytes>,
    last: bool,
) -> Result<Claim, UploadError> {
    while !batch.is_empty() {
        if claim.part_is_full()
            && let Err(error) = claim.begin_next_part(&bucket).await
        {
            claim.rest();
            return Err(error);
        }
        (claim, batch) = on_disk("write the upload", move || {
            let written = claim.write(&mut batch);
            if written.is_err() {
                claim.rest();
            }
            claim.record_progress();
            written.map(|()| (claim, batch))
        })
        .await?;
    }
    if last {
        claim.rest();
    }
    Ok(claim)
}

/// Removes a session's files, for good.
pub(crate) async fn remove_folder(claim: &Claim) -> Result<(), UploadError> {
    let folder = claim.folder().to_owned();
    on_disk("remove an upload", move || Writer::remove(&folder)).await
}

/// Reads back the sessions that a folder holds, and removes what is left of those that are not whole. Blocks.
pub(crate) fn load(folder: &Path) -> io::Result<Vec<Found<Writer>>> {
    std::fs::create_dir_all(folder)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(id_of) else {
            continue;
        };
        let path = entry.path();
        let written_at = written_at(&path)?;
        match Writer::load(path.clone(), id) {
            Ok(Some(writer)) => {
                let purpose = writer.purpose().clone();
                found.push(Found { id, purpose, written_at, writer });
            }
            Ok(None) => Writer::remove(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Writer::remove(&path)?,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// When the newest file of a session was written to.
fn written_at(folder: &Path) -> io::Result<Timestamp> {
    let mut newest = Timestamp(0);
    for entry in std::fs::read_dir(folder)? {
        match entry?.metadata().and_then(|metadata| metadata.modified()) {
            Ok(modified) => newest = newest.max(timestamp_of(modified)),
            Err(error) => warn!(%error, "cannot tell when an upload session was written to"),
        }
    }
    Ok(newest)
}
