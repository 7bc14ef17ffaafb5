//! Between the messages and what they say.

use bytes::Bytes;
use nora_app::ports::blobs::BlobCopy;
use nora_domain::{Algorithm, Digest, Epoch, Generation, Placement};
use nora_proto::exchange::v1::Copy;
use nora_proto::name::v1 as name;
use tonic::Status;

use nora_swarm::ChunkTable;

pub(super) fn copy_to(copy: &BlobCopy) -> Copy {
    let algorithm = match copy.digest.algorithm() {
        Algorithm::Sha256 => name::Algorithm::Sha256,
        Algorithm::Sha512 => name::Algorithm::Sha512,
    };
    Copy {
        digest: Some(name::Digest {
            algorithm: algorithm.into(),
            value: copy.digest.value().to_vec(),
        }),
        generation: Some(name::Generation {
            epoch: copy.generation.epoch.0,
            sequence: copy.generation.sequence,
        }),
        size: copy.size,
        chunk_root: Bytes::copy_from_slice(&copy.chunk_root),
    }
}

/// Reads a copy's name; where it is, the message does not tell.
pub(super) fn copy_from(copy: Option<Copy>) -> Result<BlobCopy, Status> {
    let parsed = copy.and_then(|copy| {
        let digest = copy.digest?;
        let algorithm = match digest.algorithm() {
            name::Algorithm::Sha256 => Algorithm::Sha256,
            name::Algorithm::Sha512 => Algorithm::Sha512,
            name::Algorithm::Unspecified => return None,
        };
        let generation = copy.generation?;
        Some(BlobCopy {
            digest: Digest::from_parts(algorithm, &digest.value)?,
            generation: Generation {
                epoch: Epoch(generation.epoch),
                sequence: generation.sequence,
            },
            size: copy.size,
            chunk_root: copy.chunk_root.as_ref().try_into().ok()?,
            placement: Placement::Nodes(Vec::new()),
        })
    });
    parsed.ok_or_else(|| Status::invalid_argument("the copy is not named in full"))
}

pub(super) fn table_to(table: &ChunkTable) -> Bytes {
    Bytes::copy_from_slice(table.hashes().as_flattened())
}

/// Reads a table; `None` if it is not that of the copy.
pub(super) fn table_from(copy: &BlobCopy, hashes: &[u8]) -> Option<ChunkTable> {
    let (hashes, rest) = hashes.as_chunks();
    let table = ChunkTable::from_hashes(copy.size, hashes.to_vec())?;
    (rest.is_empty() && table.root() == copy.chunk_root).then_some(table)
}
