//! Upload sessions in files: what each is for, and how it outlives the process.
//!
//! Guarantees: a session's sidecar file exists from its opening until its end, and a data file without a sidecar (or the
//! other way round) is no session and is removed at start.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use bytes::Bytes;
use nora_app::ports::uploads::{Purpose, UploadError};
use nora_domain::UploadId;
use nora_uploads::{Found, Place, PurposeV1, Writing, name_of, on_disk, timestamp_of};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::layout::{Layout, UploadFileName};
use crate::writer::Writer;

/// The sidecar's stored form.
#[derive(Serialize, Deserialize)]
struct SidecarV1 {
    version: u32,
    #[serde(flatten)]
    purpose: PurposeV1,
}

/// The right to write to a session.
pub(crate) type Claim = nora_uploads::Claim<Writer>;

impl Place for Layout {
    type Writer = Writer;

    fn writer(&self, id: UploadId, purpose: &Purpose) -> Writer {
        Writer::new(self.upload(id), purpose.algorithm, 0)
    }

    fn create(&self, claim: &Claim) -> io::Result<()> {
        create_files(self, claim.id(), claim.purpose())
    }

    fn write(&self, mut claim: Claim, batch: Vec<Bytes>, last: bool) -> Writing<Writer> {
        spawn_blocking(move || {
            let written = if batch.is_empty() { Ok(()) } else { claim.append(&batch) };
            if last || written.is_err() {
                claim.rest();
            }
            claim.record_progress();
            Ok(written.map(|()| claim)?)
        })
    }

    async fn remove(&self, claim: &mut Claim) -> Result<(), UploadError> {
        let (layout, id) = (self.clone(), claim.id());
        on_disk("remove an upload", move || remove_files(&layout, id)).await
    }
}

/// Makes the files of a session that holds nothing yet; none are left after an error.
fn create_files(layout: &Layout, id: UploadId, purpose: &Purpose) -> io::Result<()> {
    let sidecar = SidecarV1 { version: 1, purpose: PurposeV1::of(purpose) };
    let created = serde_json::to_vec(&sidecar).map_err(io::Error::from).and_then(|sidecar| {
        File::create_new(layout.upload(id))?;
        std::fs::write(layout.sidecar(id), sidecar)
    });
    if created.is_err() {
        remove_files(layout, id)?;
    }
    created
}

pub(crate) fn remove_files(layout: &Layout, id: UploadId) -> io::Result<()> {
    for path in [layout.upload(id), layout.sidecar(id)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Reads the sessions that an earlier run of the server left, and removes leftovers that are none.
pub(crate) fn load(layout: &Layout) -> io::Result<Vec<Found<Writer>>> {
    let (mut bytes, mut sidecars) = (BTreeSet::new(), BTreeSet::new());
    for entry in std::fs::read_dir(layout.uploads())? {
        match entry?.file_name().to_str().and_then(UploadFileName::parse) {
            Some(UploadFileName::Bytes(id)) => bytes.insert(id),
            Some(UploadFileName::Sidecar(id)) => sidecars.insert(id),
            None => continue,
        };
    }
    let mut found = Vec::new();
    for id in bytes.union(&sidecars).copied() {
        let whole = bytes.contains(&id) && sidecars.contains(&id);
        match if whole { load_one(layout, id)? } else { None } {
            Some(session) => found.push(session),
            None => {
                warn!(id = name_of(id), "removing the rest of an upload session");
                remove_files(layout, id)?;
            }
        }
    }
    Ok(found)
}

/// Reads a session back from its files; `None` if they are not a session's.
fn load_one(layout: &Layout, id: UploadId) -> io::Result<Option<Found<Writer>>> {
    let path = layout.upload(id);
    let sidecar: SidecarV1 = match serde_json::from_slice(&std::fs::read(layout.sidecar(id))?) {
        Ok(sidecar) => sidecar,
        Err(_) => return Ok(None),
    };
    let (Some(purpose), 1) = (sidecar.purpose.parse(), sidecar.version) else {
        return Ok(None);
    };
    let metadata = std::fs::metadata(&path)?;
    let written_at = match metadata.len() {
        0 => purpose.opened_at,
        _ => metadata.modified().map_or(purpose.opened_at, timestamp_of),
    };
    let writer = Writer::new(path, purpose.algorithm, metadata.len());
    Ok(Some(Found { id, purpose, written_at, writer }))
}

#[cfg(test)]
mod tests {
    use nora_domain::{Algorithm, Format, RepositoryKey, RepositoryPath, TenantName, Timestamp};

    use super::*;

    #[test]
    fn the_sidecars_stored_form_is_fixed() {
        let purpose = Purpose {
            repository: RepositoryKey {
                tenant: TenantName::default_tenant(),
                format: Format::Oci,
                path: RepositoryPath::parse("a/b").unwrap(),
            },
            algorithm: Algorithm::Sha512,
            opener: None,
            opened_at: Timestamp(77),
        };
        let stored = concat!(
            r#"{"version":1,"tenant":"default","format":"oci","path":"a/b","#,
            r#""algorithm":"sha512","opened_at":77}"#
        );
        let sidecar = SidecarV1 { version: 1, purpose: PurposeV1::of(&purpose) };
        assert_eq!(serde_json::to_string(&sidecar).unwrap(), stored);
        let back: SidecarV1 = serde_json::from_str(stored).unwrap();
        assert_eq!((back.version, back.purpose.parse()), (1, Some(purpose)));
    }
}
