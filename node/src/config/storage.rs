//! `[storage]`: where this node keeps what it stores.

use std::path::PathBuf;

use toml::de::DeValue;

use super::section::section;
use super::setting::{Context, Kind, Problem, Setting, Size, choose};

/// Where blobs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageMode {
    /// On this node's own disk.
    Local,
}

impl Setting for StorageMode {
    fn kind() -> Kind {
        Kind::Choice(&["local"])
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        if value.as_str() == Some("s3") {
            let message = "is \"s3\", which this release does not support yet";
            let help = "storage in S3 will come with a later release; use \"local\"";
            return Err(Problem::new(message, "not supported yet").help(help));
        }
        choose(value, &["local"]).map(|_| Self::Local)
    }

    fn shown(&self) -> serde_json::Value {
        match self {
            Self::Local => serde_json::json!("local"),
        }
    }
}

section! {
    /// Where this node keeps blobs and metadata.
    Storage in "storage" {
        /// Where blobs are kept: `"local"`, on this node's own disk.
        mode: StorageMode = "\"local\"";
        /// The folder for everything this node stores. It is made if it is not there.
        data_dir: PathBuf = "\"nora-data\"";
        /// Memory for metadata that was read lately.
        metadata_cache_bytes_max: Size = "\"16MiB\"", "1MiB" ..= "64GiB";
        /// Memory for metadata that was written lately and is not in its final files yet.
        metadata_write_bytes_max: Size = "\"16MiB\"", "1MiB" ..= "16GiB";
    }
}
