//! Lists: tags, the catalog, referrers. Each page that is not the last links to the next.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LINK};
use http::{HeaderName, Method, StatusCode};
use nora_app::{Error, Registry};
use nora_domain::{Digest, Format, MediaType, Reference, RepositoryKey, RepositoryPath, TagName};
use nora_formats::oci::errors::Code;
use nora_formats::oci::manifest::{self, OCI_INDEX};
use nora_formats::oci::name::fallback_tag;
use nora_formats::oci::render::{self, ReferrerDescriptor};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::blobs::header;
use super::error::ApiError;
use super::{Api, Call, method_not_allowed};
use crate::api::access::{Challenge, challenged};
use crate::identity::Caller;

static FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// What needs no escaping in a query's value.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// Rows of one referrers page: each may carry annotations of a whole manifest.
const REFERRERS_PAGE_MAX: usize = 100;

/// The page size that `n` asks for, within the limit. `Some(0)` is an empty page, as the specification has it.
fn page_size(n: Option<&str>, size_max: usize) -> Result<usize, ApiError> {
    match n {
        None => Ok(size_max),
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            // More digits than a number holds still mean "as many as you can".
            Ok(text.parse::<usize>().unwrap_or(usize::MAX).min(size_max))
        }
        Some(text) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            Code::PaginationNumberInvalid,
            "n must be a number of rows, 0 or more",
        )
        .with_detail("n", text.chars().take(40).collect::<String>())),
    }
}

fn document(content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}

fn link_next(response: &mut Response, url: &str) -> Result<(), ApiError> {
    response.headers_mut().insert(LINK, header(&format!("<{url}>; rel=\"next\""))?);
    Ok(())
}

fn escape(value: &str) -> String {
    utf8_percent_encode(value, QUERY_VALUE).to_string()
}

/// `GET <name>/tags/list`
pub(super) async fn tags(call: Call) -> Result<Response, ApiError> {
    only_reads(&call.method)?;
    let limit = page_size(call.param("n"), call.api.settings.page_size_max)?;
    // `last` only says where to start: a text that is no tag still has a place in the order.
    let last = call.param("last").and_then(|text| TagName::parse(text).ok());
    let page = call.registry.tags(&call.repository, last, limit).await?;
    let body = render::tag_list(&call.repository.path, &page.items);
    let mut response = document("application/json", body);
    if let (true, Some(last)) = (page.more, page.items.last()) {
        let url = format!("tags/list?n={limit}&last={}", escape(last.as_str()));
        link_next(&mut response, &call.location(&url))?;
    }
    Ok(response)
}

/// `GET _catalog`: the repositories that the caller may pull from.
pub(super) async fn catalog(
    api: &Api,
    caller: &Caller,
    challenge: &Challenge,
    method: &Method,
    query: Vec<(String, String)>,
) -> Result<Response, ApiError> {
    only_reads(method)?;
    if caller.is_anonymous() && caller.known().uncut.is_none() {
        return Err(challenged(Some(challenge), Some("registry:catalog:*"), "log in first"));
    }
    let param = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, v)| v.as_str());
    let limit = page_size(param("n"), api.settings.page_size_max)?;
    let last = param("last").and_then(|text| RepositoryPath::parse(text).ok());
    let may_see = |path: &RepositoryPath| caller.lists(Format::Oci, path);
    let page = api.registry.repositories(Format::Oci, last, limit, may_see).await?;
    if caller.is_anonymous() && page.items.is_empty() && param("last").is_none() {
        let why = "there is nothing that anyone may see";
        return Err(challenged(Some(challenge), Some("registry:catalog:*"), why));
    }
    let mut response = document("application/json", render::catalog(&page.items));
    if let (true, Some(last)) = (page.more, page.items.last()) {
        let url = format!("/v2/_catalog?n={limit}&last={}", escape(last.as_str()));
        link_next(&mut response, &api.location(&url))?;
    }
    Ok(response)
}

/// What a repository that is not there answers about referrers.
pub(super) fn no_referrers(
    method: &Method,
    query: &[(String, String)],
) -> Result<Response, ApiError> {
    only_reads(method)?;
    let is_filtered = query.iter().any(|(key, value)| key == "artifactType" && !value.is_empty());
    let mut response = document(OCI_INDEX, render::referrers(&[]));
    if is_filtered {
        let filtered = HeaderValue::from_static("artifactType");
        response.headers_mut().insert(FILTERS_APPLIED.clone(), filtered);
    }
    Ok(response)
}

/// `GET <name>/referrers/<digest>`: always an index, empty if nothing refers to the digest.
pub(super) async fn referrers(call: Call, subject: Digest) -> Result<Response, ApiError> {
    only_reads(&call.method)?;
    let wanted = call.param("artifactType").filter(|text| !text.is_empty()).map(str::to_owned);
    let wanted_type = match &wanted {
        None => None,
        Some(text) => Some(MediaType::parse(text).map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, error.to_string())
                .with_detail("artifactType", text.chars().take(300).collect::<String>())
        })?),
    };
    let size_max = call.api.settings.page_size_max.min(REFERRERS_PAGE_MAX);
    let limit = page_size(call.param("n"), size_max)?.max(1);
    let after = call.param("last").and_then(|text| Digest::parse(text).ok());
    let registry = &call.registry;
    let page =
        registry.referrers(&call.repository, subject, wanted_type.as_ref(), after, limit).await?;
    let mut rows = Vec::with_capacity(page.items.len());
    for referrer in &page.items {
        let bytes = referrer.artifact.bytes().await?;
        // It was parsed when it was pushed; were it unreadable now, its row would still name it.
        let annotations = manifest::parse(&bytes, Some(referrer.artifact.media_type.as_str()))
            .map(|manifest| manifest.annotations)
            .unwrap_or_default();
        rows.push(ReferrerDescriptor::new(
            &referrer.artifact.digest,
            &referrer.artifact.media_type,
            referrer.artifact.size,
            referrer.artifact_type.as_ref(),
            annotations,
        ));
    }
    if !page.more {
        append_fallback_rows(registry, &call.repository, subject, wanted.as_deref(), &mut rows)
            .await?;
    }
    let mut response = document(OCI_INDEX, render::referrers(&rows));
    if wanted.is_some() {
        response
            .headers_mut()
            .insert(FILTERS_APPLIED.clone(), HeaderValue::from_static("artifactType"));
    }
    if let (true, Some(last)) = (page.more, page.items.last()) {
        let mut url = format!("referrers/{subject}?n={limit}&last={}", last.artifact.digest);
        if let Some(wanted) = &wanted {
            url.push_str(&format!("&artifactType={}", escape(wanted)));
        }
        link_next(&mut response, &call.location(&url))?;
    }
    Ok(response)
}

/// Adds what clients listed under the fallback tag before they knew the API, and what the API does not list itself: a
/// manifest that names its subject has a row of its own.
async fn append_fallback_rows(
    registry: &Registry,
    repository: &RepositoryKey,
    subject: Digest,
    wanted: Option<&str>,
    rows: &mut Vec<ReferrerDescriptor>,
) -> Result<(), ApiError> {
    let Some(tag) = fallback_tag(&subject) else { return Ok(()) };
    let index = match registry.artifact(repository, &Reference::Tag(tag)).await {
        Ok(index) if index.media_type.as_str() == OCI_INDEX => index.bytes().await?,
        Ok(_)
        | Err(Error::TagUnknown(_) | Error::RepositoryUnknown | Error::ArtifactUnknown(_)) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let mut listed: BTreeSet<String> = rows.iter().map(|row| row.digest.clone()).collect();
    for row in render::fallback_rows(&index) {
        let fits = wanted.is_none_or(|wanted| row.artifact_type.as_deref() == Some(wanted));
        let Ok(digest) = Digest::parse(&row.digest) else { continue };
        if !fits || listed.contains(&row.digest) {
            continue;
        }
        // On an earlier page already, or deleted since the index was written.
        match registry.artifact(repository, &Reference::Digest(digest)).await {
            Ok(artifact) => {
                let bytes = artifact.bytes().await?;
                let parsed = manifest::parse(&bytes, Some(artifact.media_type.as_str()));
                if parsed.is_ok_and(|manifest| manifest.subject == Some(subject)) {
                    continue;
                }
                listed.insert(row.digest.clone());
                rows.push(row);
            }
            Err(Error::ArtifactUnknown(_) | Error::RepositoryUnknown) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn only_reads(method: &Method) -> Result<(), ApiError> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(method_not_allowed("GET, HEAD")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes() {
        assert_eq!(page_size(None, 100).unwrap(), 100);
        assert_eq!(page_size(Some("0"), 100).unwrap(), 0);
        assert_eq!(page_size(Some("7"), 100).unwrap(), 7);
        assert_eq!(page_size(Some("99999999999999999999999"), 100).unwrap(), 100);
        for bad in ["", "-1", "x", "1.5", "+1"] {
            assert!(page_size(Some(bad), 100).is_err(), "{bad}");
        }
        assert_eq!(escape("a/b c&d=e"), "a/b%20c%26d%3De");
    }
}
