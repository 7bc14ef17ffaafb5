//! Making a blob of a session: verify, store, and store the chunk table beside it.
//!
//! Guarantees: every step may be done again, so a finish that failed or was dropped half-way can be repeated; nothing is
//! acknowledged whose digest was not verified. Must not know requests.

use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::uploads::UploadError;
use nora_domain::{Algorithm, Digest, Generation, Placement};
use nora_swarm::ChunkTable;
use nora_uploads::{Hashes, Writer as _, chain, on_disk};
use tracing::warn;

use crate::bucket::Body;
use crate::store::Inner;
use crate::writer::Writer;

/// What is read back at once to be verified.
const READ_BYTES: u64 = 8 << 20;

impl Inner {
    /// Stores the session's bytes as `digest/generation`.
    pub(crate) async fn store(
        &self,
        writer: &mut Writer,
        digest: Digest,
        generation: Generation,
    ) -> Result<BlobCopy, UploadError> {
        writer.rest();
        let algorithm = digest.algorithm();
        let known = writer.result(algorithm).await?;
        if let Some((computed, _)) = &known {
            verify(digest, *computed)?;
        }
        writer.seal(generation).await?;
        let (id, size, bucket) = (writer.id(), writer.offset(), &self.bucket);
        match writer.only_part() {
            Some(path) => {
                let body = match size {
                    0 => Body::Bytes(bytes::Bytes::new()),
                    _ => Body::File(path, size),
                };
                bucket.put("store an upload", &bucket.key(id), body, None).await?;
            }
            None => {
                writer.send_all(bucket).await?;
                if let Some((multipart, tags)) = writer.multipart() {
                    bucket.complete(id, multipart, tags, size).await?;
                }
            }
        }
        let table = match known {
            Some((_, table)) => table,
            None => {
                let (computed, table) = self.read_back(writer, algorithm, size).await?;
                verify(digest, computed)?;
                table
            }
        };
        let copy = BlobCopy {
            digest,
            generation,
            size,
            chunk_root: table.root(),
            placement: Placement::Object(id),
        };
        let encoded = Body::Bytes(table.encode().into());
        let key = bucket.table_key(id, generation);
        bucket.put("store a chunk table", &key, encoded, Some(digest)).await?;
        for earlier in writer.attempts().iter().filter(|earlier| **earlier != generation) {
            // What an attempt that failed left is in nobody's way.
            if let Err(error) = bucket.delete(&bucket.table_key(id, *earlier)).await {
                warn!(error = %chain(&error), "cannot clear away a chunk table that nobody needs");
            }
        }
        Ok(copy)
    }

    /// Computes digest and chunk table of what was stored. S3 lets nobody read parts before they are completed, so this
    /// is the way for bytes that came before a restart, or were hashed with another algorithm: it costs reading the
    /// blob once.
    async fn read_back(
        &self,
        writer: &Writer,
        algorithm: Algorithm,
        size: u64,
    ) -> Result<(Digest, ChunkTable), UploadError> {
        let key = self.bucket.key(writer.id());
        let mut hashes = Hashes::new(algorithm);
        let mut start = 0;
        while start < size {
            let range = start..size.min(start + READ_BYTES);
            start = range.end;
            let bytes = self.bucket.get_range("read back an upload", &key, range).await?;
            hashes = on_disk("hash the upload", move || {
                hashes.update(&bytes);
                Ok(hashes)
            })
            .await?;
        }
        Ok(hashes.result())
    }
}

fn verify(expected: Digest, computed: Digest) -> Result<(), UploadError> {
    if expected == computed {
        Ok(())
    } else {
        Err(UploadError::DigestMismatch { expected, computed })
    }
}
