//! The few exchanges of the OCI distribution API that benchmarks make. Every status is checked, and bytes where
//! a method says so.

use std::net::SocketAddr;

use crate::content::{Image, MANIFEST_TYPE};
use crate::error::{Error, Result};
use crate::http::Connection;

/// A client of one registry, over one connection.
pub struct Registry {
    connection: Connection,
    addr: SocketAddr,
}

/// The path of a blob.
pub fn blob_path(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// The path of a manifest.
pub fn manifest_path(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

impl Registry {
    /// Connects.
    pub fn open(addr: SocketAddr) -> Result<Self> {
        Ok(Self { connection: Connection::open(addr)?, addr })
    }

    /// Pushes a blob as most clients do: POST opens an upload, one PUT sends it all.
    pub fn push_blob(&mut self, repository: &str, digest: &str, parts: &[&[u8]]) -> Result<()> {
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let opened = self.connection.expect(202, "POST", &uploads, &[], &[])?;
        let location = opened
            .head
            .location
            .ok_or_else(|| Error::Wrong(format!("POST {uploads}: no Location")))?;
        let upload = upload_path(self.addr, &location, digest)?;
        let headers = [("Content-Type", "application/octet-stream")];
        self.connection.expect(201, "PUT", &upload, &headers, parts)?;
        Ok(())
    }

    /// Pushes a manifest under a tag.
    pub fn push_manifest(&mut self, repository: &str, tag: &str, manifest: &[u8]) -> Result<()> {
        let path = manifest_path(repository, tag);
        let headers = [("Content-Type", MANIFEST_TYPE)];
        self.connection.expect(201, "PUT", &path, &headers, &[manifest])?;
        Ok(())
    }

    /// Whether there is such a manifest.
    pub fn has_manifest(&mut self, repository: &str, reference: &str) -> Result<bool> {
        let path = manifest_path(repository, reference);
        match self.connection.exchange("HEAD", &path, &[], &[])?.head.status {
            200 => Ok(true),
            404 => Ok(false),
            status => Err(Error::Wrong(format!("HEAD {path}: status {status}"))),
        }
    }

    /// Deletes a manifest with all its tags.
    pub fn delete_manifest(&mut self, repository: &str, digest: &str) -> Result<()> {
        let path = manifest_path(repository, digest);
        self.connection.expect(202, "DELETE", &path, &[], &[])?;
        Ok(())
    }

    /// Pushes a whole small image.
    pub fn push_image(&mut self, repository: &str, image: &Image) -> Result<()> {
        self.push_blob(repository, &image.config.1, &[&image.config.0])?;
        self.push_blob(repository, &image.layer.1, &[&image.layer.0])?;
        self.push_manifest(repository, &image.tag, &image.manifest)
    }

    /// Pulls a blob and counts its bytes.
    pub fn pull_blob(&mut self, repository: &str, digest: &str) -> Result<u64> {
        let path = blob_path(repository, digest);
        let head = self.connection.send("GET", &path, &[], &[])?;
        if head.status != 200 {
            return Err(Error::Wrong(format!("GET {path}: status {}", head.status)));
        }
        self.connection.receive("GET", &head, |_| Ok(()))
    }

    /// Pulls a blob and compares every byte with `parts`.
    pub fn verify_blob(&mut self, repository: &str, digest: &str, parts: &[&[u8]]) -> Result<()> {
        let path = blob_path(repository, digest);
        let head = self.connection.send("GET", &path, &[], &[])?;
        let mut expected = Expected { parts, at: 0 };
        let length = self.connection.receive("GET", &head, |bytes| {
            expected.take(bytes).ok_or_else(|| Error::Wrong(format!("GET {path}: wrong bytes")))
        })?;
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        if head.status != 200 || length != whole as u64 {
            let status = head.status;
            let what = format!("GET {path}: status {status}, {length} bytes of {whole}");
            return Err(Error::Wrong(what));
        }
        Ok(())
    }

    /// Pulls a manifest by tag and compares it with what was pushed.
    pub fn verify_manifest(&mut self, repository: &str, tag: &str, pushed: &[u8]) -> Result<()> {
        let path = manifest_path(repository, tag);
        let answer =
            self.connection.expect(200, "GET", &path, &[("Accept", MANIFEST_TYPE)], &[])?;
        if answer.body != pushed {
            return Err(Error::Wrong(format!("GET {path}: wrong bytes")));
        }
        Ok(())
    }
}

/// Bytes that must come, in parts.
struct Expected<'a> {
    parts: &'a [&'a [u8]],
    at: usize,
}

impl Expected<'_> {
    /// Compares what came with what is next.
    fn take(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let part = self.parts.first()?;
            let rest = &part[self.at..];
            let here = rest.len().min(bytes.len());
            if rest[..here] != bytes[..here] {
                return None;
            }
            bytes = &bytes[here..];
            self.at += here;
            if self.at == part.len() {
                self.parts = &self.parts[1..];
                self.at = 0;
            }
        }
        Some(())
    }
}

/// The path to send a blob to: a Location may be absolute, and may have a query.
fn upload_path(addr: SocketAddr, location: &str, digest: &str) -> Result<String> {
    let path = match location.strip_prefix("http://") {
        None => location,
        Some(rest) => rest
            .strip_prefix(&addr.to_string())
            .ok_or_else(|| Error::Wrong(format!("the upload is at another host: {location}")))?,
    };
    if !path.starts_with('/') {
        return Err(Error::Wrong(format!("not an upload's path: {location}")));
    }
    let separator = if path.contains('?') { '&' } else { '?' };
    Ok(format!("{path}{separator}digest={digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_found_from_any_location() {
        let addr = "127.0.0.1:80".parse().unwrap();
        let path = |location| upload_path(addr, location, "sha256:1").ok();
        assert_eq!(path("/up/1"), Some("/up/1?digest=sha256:1".into()));
        assert_eq!(path("http://127.0.0.1:80/up?s=2"), Some("/up?s=2&digest=sha256:1".into()));
        assert_eq!(path("http://10.0.0.1/up"), None);
        assert_eq!(path("up"), None);
    }

    #[test]
    fn bytes_are_compared_across_parts() {
        let parts: [&[u8]; 2] = [b"abc", b"de"];
        let mut expected = Expected { parts: &parts, at: 0 };
        assert!(expected.take(b"ab").is_some());
        assert!(expected.take(b"cd").is_some());
        assert!(expected.take(b"e").is_some());
        assert!(expected.take(b"f").is_none());
        assert!(Expected { parts: &parts, at: 0 }.take(b"abcx").is_none());
    }
}
