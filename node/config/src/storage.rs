//! `[storage]`: where blobs and metadata are kept.

use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use super::setting::{PublicUrl, SecretSource, Size, choice};

choice! {
    /// Where blobs are kept.
    StorageMode {
        /// On the nodes' own disks.
        Local = "local",
        /// In an S3 bucket that all nodes share.
        S3 = "s3",
    }
}

section! {
    /// Where this node keeps blobs and metadata.
    Storage in "storage" {
        /// Where blobs are kept: `"local"`, on the nodes' own disks, or `"s3"`, in a bucket that all nodes share.
        mode: StorageMode = "\"local\"";
        /// The folder for everything this node stores. It is made if it is not there.
        data_dir: PathBuf = "\"nora-data\"";
        /// Disk space for blobs that were fetched from other nodes or from S3 and may be wanted again.
        cache_bytes_max: Size = "\"10GiB\"", "16MiB" ..= "1000TiB";
        /// Memory for metadata that was read lately.
        metadata_cache_bytes_max: Size = "\"16MiB\"", "1MiB" ..= "64GiB";
        /// Memory for metadata that was written lately and is not in its final files yet.
        metadata_write_bytes_max: Size = "\"12MiB\"", "1MiB" ..= "16GiB";
    }
    tables {
        /// The bucket, if `mode` is `"s3"`.
        s3: S3;
    }
}

section! {
    /// The bucket that holds the blobs of the whole cluster, if `mode` is `"s3"`. All nodes use the same one.
    S3 in "storage.s3" {
        /// The bucket's name. It must be there.
        bucket: String = required;
        /// The service's address, if it is not that of AWS.
        endpoint: Option<PublicUrl> = none;
        /// The region.
        region: String = "\"us-east-1\"";
        /// What every key begins with: several clusters may share a bucket under different prefixes.
        prefix: String = "\"\"";
        /// The access key's id; without it, the environment variable `AWS_ACCESS_KEY_ID`.
        access_key: Option<SecretSource> = none;
        /// The secret access key; without it, the environment variable `AWS_SECRET_ACCESS_KEY`.
        secret_key: Option<SecretSource> = none;
        /// Whether clients are sent to the bucket for blobs, by URLs that are signed and short-lived, instead of getting them through NORA.
        redirect: bool = "false";
        /// How long such a URL is good for.
        redirect_expiry: Duration = "\"15m\"", "1m" ..= "7d";
    }
}
