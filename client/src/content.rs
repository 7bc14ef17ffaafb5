//! The calls of the OCI distribution API that the verbs are made of.

use aws_lc_rs::digest as hash;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use nora_domain::{Algorithm, Digest};
use reqwest::Response;

use crate::client::{Ask, Client, malformed, read, refusal};
use crate::error::ClientError;
use crate::model::{Descriptor, ManifestBody};
use crate::reference::Target;

const MANIFEST_BYTES_MAX: usize = 16 << 20;
const PAGE_BYTES_MAX: usize = 16 << 20;
const PAGE_SIZE: usize = 500;
const HEALTH_BYTES_MAX: usize = 64 << 10;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, */*;q=0.1";

/// What a manifest's headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
}

/// A manifest, whose bytes have the digest that it was asked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its exact bytes.
    pub bytes: Bytes,
    /// The same, read.
    pub body: ManifestBody,
}

/// A list that the server gives page by page.
#[derive(Debug)]
pub struct Paged {
    client: Client,
    topic: String,
    next: Option<String>,
    extract: fn(&[u8]) -> Result<Vec<String>, serde_json::Error>,
}

impl Paged {
    /// The next page, or `None` after the last.
    pub async fn next_page(&mut self) -> Result<Option<Vec<String>>, ClientError> {
        let Some(path) = self.next.take() else {
            return Ok(None);
        };
        let ask = Ask::new(Method::GET, &self.topic, path.clone());
        let response = self.client.send_ok(&ask).await?;
        let next = next_link(&self.client, &response);
        if next.as_ref() == Some(&path) {
            return Err(malformed(&ask, "list with an end"));
        }
        let body = read(&ask, response, PAGE_BYTES_MAX).await?;
        let names = (self.extract)(&body).map_err(|source| ClientError::Malformed {
            request: ask.name(),
            expected: "list",
            source: Some(source),
        })?;
        self.next = next;
        Ok(Some(names))
    }
}

/// The path of `Link: <…>; rel="next"`. Only path and query count: behind a proxy the server may believe in another
/// name for itself, and the client goes on with the one it was given.
fn next_link(client: &Client, response: &Response) -> Option<String> {
    let link = response.headers().get(header::LINK)?.to_str().ok()?;
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !parameters.replace('"', "").contains("rel=next") {
        return None;
    }
    // A reference may also be relative to the list, so it is joined to the list's own address.
    let url = response.url().join(target).ok()?;
    let path = crate::client::path_and_query(&url);
    client.address().join(&path).map(|url| crate::client::path_and_query(&url))
}

impl Client {
    /// Asks whether the server is a registry that lets this client in.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.send_ok(&Ask::new(Method::GET, "", "/v2/".into())).await.map(drop)
    }

    /// Asks a probe, as `/health`: the status and the text of its answer.
    pub async fn probe(&self, path: &str) -> Result<(StatusCode, String), ClientError> {
        let ask = Ask::new(Method::GET, "", path.to_owned());
        let response = self.send(&ask).await?;
        let status = response.status();
        let body = read(&ask, response, HEALTH_BYTES_MAX).await?;
        Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
    }

    /// The repositories' names.
    pub fn catalog(&self) -> Paged {
        self.paged("", format!("/v2/_catalog?n={PAGE_SIZE}"), |body| {
            #[derive(serde::Deserialize)]
            struct Page {
                #[serde(default)]
                repositories: Option<Vec<String>>,
            }
            Ok(serde_json::from_slice::<Page>(body)?.repositories.unwrap_or_default())
        })
    }

    /// A repository's tags.
    pub fn tags(&self, repository: &str) -> Paged {
        self.paged(repository, format!("/v2/{repository}/tags/list?n={PAGE_SIZE}"), |body| {
            #[derive(serde::Deserialize)]
            struct Page {
                #[serde(default)]
                tags: Option<Vec<String>>,
            }
            Ok(serde_json::from_slice::<Page>(body)?.tags.unwrap_or_default())
        })
    }

    fn paged(
        &self,
        topic: &str,
        path: String,
        extract: fn(&[u8]) -> Result<Vec<String>, serde_json::Error>,
    ) -> Paged {
        Paged { client: self.clone(), topic: topic.to_owned(), next: Some(path), extract }
    }

    /// A manifest's headers; `None` if there is no such manifest.
    pub async fn manifest_head(
        &self,
        repository: &str,
        target: &Target,
    ) -> Result<Option<ManifestHead>, ClientError> {
        let ask = manifest_ask(Method::HEAD, repository, target);
        let response = self.send(&ask).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let digest = match target {
                    Target::Digest(digest) => *digest,
                    Target::Tag(_) => content_digest(response.headers())
                        .ok_or_else(|| malformed(&ask, "manifest with a digest"))?,
                };
                Ok(Some(ManifestHead { digest, media_type: media_type(response.headers()) }))
            }
            _ => Err(refusal(&ask, response).await),
        }
    }

    /// A manifest, checked against the digest it was asked by or is said to have.
    pub async fn manifest(
        &self,
        repository: &str,
        target: &Target,
    ) -> Result<Manifest, ClientError> {
        let ask = manifest_ask(Method::GET, repository, target);
        let response = self.send_ok(&ask).await?;
        let media_type = media_type(response.headers());
        let said = content_digest(response.headers());
        let bytes = read(&ask, response, MANIFEST_BYTES_MAX).await?;
        let digest = match target {
            Target::Digest(digest) => verify(*digest, &bytes)?,
            Target::Tag(_) => match said {
                Some(digest) => verify(digest, &bytes)?,
                None => compute(Algorithm::Sha256, &bytes),
            },
        };
        let body = serde_json::from_slice(&bytes).map_err(|source| ClientError::Malformed {
            request: ask.name(),
            expected: "manifest",
            source: Some(source),
        })?;
        Ok(Manifest { digest, media_type, bytes, body })
    }

    /// Stores a manifest's exact bytes under a tag or its digest.
    pub async fn put_manifest(
        &self,
        repository: &str,
        target: &Target,
        manifest: &Manifest,
    ) -> Result<(), ClientError> {
        let mut ask = manifest_ask(Method::PUT, repository, target);
        let media_type = HeaderValue::from_str(&manifest.media_type)
            .map_err(|_| malformed(&ask, "manifest with a media type"))?;
        ask.headers.insert(header::CONTENT_TYPE, media_type);
        ask.body = manifest.bytes.clone();
        let response = self.send_ok(&ask).await?;
        match content_digest(response.headers()) {
            Some(computed) if computed != manifest.digest => Err(ClientError::DigestMismatch {
                expected: manifest.digest.into(),
                computed: computed.into(),
            }),
            _ => Ok(()),
        }
    }

    /// Deletes a tag, or a manifest with the tags that name it.
    pub async fn delete_manifest(
        &self,
        repository: &str,
        target: &Target,
    ) -> Result<(), ClientError> {
        self.send_ok(&manifest_ask(Method::DELETE, repository, target)).await.map(drop)
    }

    /// A small blob whole, checked.
    pub async fn blob(
        &self,
        repository: &str,
        digest: &Digest,
        bytes_max: usize,
    ) -> Result<Bytes, ClientError> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let ask = Ask::new(Method::GET, repository, path);
        let response = self.send_ok(&ask).await?;
        let bytes = read(&ask, response, bytes_max).await?;
        verify(*digest, &bytes)?;
        Ok(bytes)
    }

    /// Whether the repository has the blob.
    pub async fn blob_exists(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, ClientError> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let ask = Ask::new(Method::HEAD, repository, path);
        let response = self.send(&ask).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(refusal(&ask, response).await),
        }
    }

    /// Makes a blob of another repository visible in this one; false if the server would have the bytes instead.
    pub async fn mount_blob(
        &self,
        repository: &str,
        from: &str,
        digest: &Digest,
    ) -> Result<bool, ClientError> {
        let path = format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
        let ask = Ask::new(Method::POST, repository, path);
        let response = self.send_ok(&ask).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        // The server opened an upload session that nobody will use. Closing it is a courtesy: it expires anyway.
        let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
        if let Some(url) = location.and_then(|text| response.url().join(text).ok()) {
            let path = crate::client::path_and_query(&url);
            let _ = self.send(&Ask::new(Method::DELETE, repository, path)).await;
        }
        Ok(false)
    }

    /// The manifests that name this one as their subject.
    pub async fn referrers(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let mut path = Some(format!("/v2/{repository}/referrers/{digest}"));
        let mut found = Vec::new();
        while let Some(current) = path.take() {
            let ask = Ask::new(Method::GET, repository, current.clone());
            let response = self.send_ok(&ask).await?;
            path = next_link(self, &response).filter(|next| *next != current);
            let body = read(&ask, response, PAGE_BYTES_MAX).await?;
            let page: ManifestBody =
                serde_json::from_slice(&body).map_err(|source| ClientError::Malformed {
                    request: ask.name(),
                    expected: "referrers list",
                    source: Some(source),
                })?;
            found.extend(page.manifests);
        }
        Ok(found)
    }
}

fn manifest_ask(method: Method, repository: &str, target: &Target) -> Ask {
    let mut ask = Ask::new(method, repository, format!("/v2/{repository}/manifests/{target}"));
    ask.headers.insert(header::ACCEPT, HeaderValue::from_static(MANIFEST_TYPES));
    ask
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::parse(headers.get("docker-content-digest")?.to_str().ok()?).ok()
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn verify(expected: Digest, bytes: &[u8]) -> Result<Digest, ClientError> {
    let computed = compute(expected.algorithm(), bytes);
    if computed == expected {
        Ok(computed)
    } else {
        Err(ClientError::DigestMismatch { expected: expected.into(), computed: computed.into() })
    }
}

fn compute(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    match algorithm {
        Algorithm::Sha256 => {
            let mut value = [0; 32];
            value.copy_from_slice(hash::digest(&hash::SHA256, bytes).as_ref());
            Digest::sha256(value)
        }
        Algorithm::Sha512 => {
            let mut value = [0; 64];
            value.copy_from_slice(hash::digest(&hash::SHA512, bytes).as_ref());
            Digest::sha512(value)
        }
    }
}
