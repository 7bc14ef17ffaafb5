//! What an object store needs to be told.

use std::path::PathBuf;

/// The smallest part of a multipart upload that is sent; S3 takes no more than [`PARTS_MAX`] of them.
const PART_BYTES_MIN: u64 = 8 << 20;
const PARTS_MAX: u64 = 10_000;

/// A shared object store and how this node uses it.
#[derive(Clone)]
pub struct ObjectBlobsConfig {
    /// Bucket name; the bucket must exist.
    pub bucket: String,
    /// URL of the S3 service. `None`: Amazon's in the region. With an endpoint the bucket is part of the path, not of
    /// the host name.
    pub endpoint: Option<String>,
    /// Region, as requests are signed for.
    pub region: String,
    /// Access key. `None`: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` of the environment.
    pub access_key: Option<String>,
    /// Secret key that belongs to `access_key`.
    pub secret_key: Option<String>,
    /// What all keys begin with, without a slash at either end; may be empty.
    pub prefix: String,
    /// Whether clients may be sent to the store by presigned URLs.
    pub redirect: bool,
    /// How long a presigned URL is good, in seconds; a week is S3's limit.
    pub presign_seconds: u64,
    /// The node's data folder: unfinished parts are in `uploads`, the cache is in `object-cache`.
    pub data_dir: PathBuf,
    /// Bytes that the cache of read blobs may hold.
    pub cache_bytes_max: u64,
    /// Bytes that one upload may have.
    pub upload_bytes_max: u64,
    /// Upload sessions that may be open on this node at once.
    pub sessions_max: usize,
}

impl ObjectBlobsConfig {
    /// Bytes of each part but the last: whole chunks, and so many that the largest upload has few enough parts.
    pub(crate) fn part_bytes(&self) -> u64 {
        let needed = self.upload_bytes_max.div_ceil(PARTS_MAX);
        needed.max(PART_BYTES_MIN).next_multiple_of(nora_swarm::CHUNK_BYTES as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(upload_bytes_max: u64) -> ObjectBlobsConfig {
        ObjectBlobsConfig {
            bucket: "b".to_owned(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            access_key: None,
            secret_key: None,
            prefix: String::new(),
            redirect: false,
            presign_seconds: 900,
            data_dir: PathBuf::new(),
            cache_bytes_max: 0,
            upload_bytes_max,
            sessions_max: 1,
        }
    }

    #[test]
    fn the_largest_upload_fits_into_the_parts_that_s3_takes() {
        for (bytes_max, mib) in
            [(1, 8), (64 << 30, 8), (78 << 30, 8), (80 << 30, 9), (5 << 40, 525)]
        {
            let part_bytes = config(bytes_max).part_bytes();
            assert_eq!(part_bytes >> 20, mib, "for {bytes_max}");
            assert!(bytes_max.div_ceil(part_bytes) <= PARTS_MAX);
        }
    }
}
