//! Blobs in a shared S3 object store.
