//! Writes of tags as traffic: each request puts one known manifest under a tag that nobody had.
//!
//! Used to measure writes and to fill a catalogue. Every answer must be 201.

use std::net::SocketAddr;

use nora_cluster_tests::content::{Image, MANIFEST_TYPE};
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::http::{BodyEnd, Head, request_head};
use nora_cluster_tests::load::Traffic;
use nora_cluster_tests::registry::manifest_path;

/// Tags of one manifest in one repository.
pub struct Tags<'a> {
    /// The repository; it has what the manifest refers to.
    pub repository: &'a str,
    /// The manifest.
    pub manifest: &'a [u8],
    /// Where each connection leads.
    pub addrs: &'a [SocketAddr],
    /// The next tag's number.
    pub next: u64,
}

impl Traffic for Tags<'_> {
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
        let tag = format!("t{}", self.next);
        self.next += 1;
        put(self.addrs[connection], self.repository, &tag, self.manifest, request);
        true
    }

    fn judge(&mut self, _connection: usize, head: &Head, body: &[u8]) -> Result<bool> {
        created(head, body)
    }

    fn body_bytes_max(&self) -> usize {
        4096
    }
}

/// Manifests, all different, of which a number share a repository, each with a tag of its own.
pub struct Catalogue<'a> {
    /// What the manifests refer to; all repositories have it.
    pub image: &'a Image,
    /// Where each connection leads.
    pub addrs: &'a [SocketAddr],
    /// How many manifests a repository has.
    pub a_repository: usize,
    /// The next manifest's number.
    pub next: usize,
    /// How many there are to be.
    pub count: usize,
}

/// The repository of that number.
pub fn repository(number: usize) -> String {
    format!("bench/c{number:05}")
}

impl Catalogue<'_> {
    /// Where a manifest is: its repository and tag.
    pub fn place(&self, number: usize) -> (String, String) {
        // Neighbours go to different repositories, as they do when many people push.
        let repositories = self.count.div_ceil(self.a_repository).max(1);
        (repository(number % repositories), format!("t{number}"))
    }
}

impl Traffic for Catalogue<'_> {
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
        if self.next == self.count {
            return false;
        }
        let (repository, tag) = self.place(self.next);
        let manifest = self.image.variant(self.next as u64);
        self.next += 1;
        put(self.addrs[connection], &repository, &tag, &manifest, request);
        true
    }

    fn judge(&mut self, _connection: usize, head: &Head, body: &[u8]) -> Result<bool> {
        created(head, body)
    }

    fn body_bytes_max(&self) -> usize {
        4096
    }
}

fn put(addr: SocketAddr, repository: &str, tag: &str, manifest: &[u8], request: &mut Vec<u8>) {
    let path = manifest_path(repository, tag);
    let headers = [("Content-Type", MANIFEST_TYPE)];
    request.clear();
    request.extend(request_head(addr, "PUT", &path, &headers, manifest.len()).into_bytes());
    request.extend_from_slice(manifest);
}

/// Whether the answer is whole; it must be 201.
fn created(head: &Head, body: &[u8]) -> Result<bool> {
    let whole = matches!(head.body, BodyEnd::Length(length) if body.len() as u64 >= length);
    match head.status {
        201 if !head.closes => Ok(whole),
        status => {
            let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
            Err(Error::Wrong(format!("status {status}: {text}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nora_cluster_tests::content::Source;

    #[test]
    fn every_request_is_another_tag_and_a_catalogue_ends() {
        let addrs = ["127.0.0.1:1".parse().unwrap()];
        let mut request = Vec::new();
        let manifest = b"{}";
        let mut tags = Tags { repository: "r", manifest, addrs: &addrs, next: 7 };
        assert!(tags.ask(0, &mut request));
        let text = String::from_utf8(request.clone()).unwrap();
        assert!(text.starts_with("PUT /v2/r/manifests/t7 HTTP/1.1\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 2\r\n\r\n{}"), "{text}");
        assert_eq!(tags.next, 8);

        let source = Source::new(1 << 20).unwrap();
        let image = source.image();
        let mut all =
            Catalogue { image: &image, addrs: &addrs, a_repository: 2, next: 0, count: 3 };
        assert_eq!(all.place(2), ("bench/c00000".into(), "t2".into()));
        for expected in [true, true, true, false] {
            assert_eq!(all.ask(0, &mut request), expected);
        }
    }

    #[test]
    fn only_201_is_right() {
        let head = |status| Head {
            status,
            body: BodyEnd::Length(2),
            location: None,
            range: None,
            closes: false,
        };
        assert!(!created(&head(201), b"x").unwrap());
        assert!(created(&head(201), b"xy").unwrap());
        assert_eq!(created(&head(503), b"no").unwrap_err().to_string(), "status 503: no");
    }
}
