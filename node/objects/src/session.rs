//! The folders of upload sessions: what an earlier run of the server left in them.
//!
//! Guarantees: a session's folder exists from its opening until its end, and a folder that holds no whole session is
//! removed at start. Must not know S3.

use std::io;
use std::path::Path;

use nora_domain::Timestamp;
use nora_uploads::{Found, id_of, timestamp_of};
use tracing::warn;

use crate::writer::Writer;

/// The right to write to a session.
pub(crate) type Claim = nora_uploads::Claim<Writer>;

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
