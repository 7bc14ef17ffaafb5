//! Lists: tags, the catalog, referrers. Each page that is not the last links to the next.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LINK, RETRY_AFTER};
use http::{HeaderName, Method, StatusCode};
use nora_app::artifacts::{Annotations, Artifact, Listed};
use nora_app::{Error, Registry};
use nora_domain::{Digest, Format, MediaType, Reference, RepositoryKey, RepositoryPath, TagName};
use nora_formats::oci::annotations;
use nora_formats::oci::manifest::{self, OCI_INDEX};
use nora_formats::oci::name::fallback_tag;
use nora_formats::oci::render::{self, ReferrerDescriptor};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OwnedSemaphorePermit;

use super::blobs::header;
use super::method_not_allowed;
use crate::Api;
use crate::body::{self, Unread};
use crate::pipeline::challenged;
use crate::problem::{Kind, Problem};
use crate::surface::{Call, OtherCall};

static FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// What needs no escaping in a query's value.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// Rows of one referrers page, and about how many bytes they take together: the specification lets a registry end a page at
/// 4 MiB.
const REFERRERS_PAGE_MAX: usize = 100;
const REFERRERS_PAGE_BYTES_MAX: usize = 4 << 20;

/// Rows of a client's own index that one request looks at.
const FALLBACK_ROWS_MAX: usize = 1_000;

/// Larger manifests are parsed off the async threads.
const PARSED_INLINE_BYTES_MAX: usize = 128 << 10;

/// Memory that a manifest takes while it is parsed, as a multiple of its size.
const PARSING_FACTOR: usize = 4;

/// The page size that `n` asks for, within the limit. `Some(0)` is an empty page, as the specification has it.
fn page_size(n: Option<&str>, size_max: usize) -> Result<usize, Problem> {
    match n {
        None => Ok(size_max),
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            // More digits than a number holds still mean "as many as you can".
            Ok(text.parse::<usize>().unwrap_or(usize::MAX).min(size_max))
        }
        Some(text) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            Kind::PageInvalid,
            "n must be a number of rows, 0 or more",
        )
        .with_detail("n", text.chars().take(40).collect::<String>())),
    }
}

fn document(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}

fn link_next(response: &mut Response, url: &str) -> Result<(), Problem> {
    response.headers_mut().insert(LINK, header(&format!("<{url}>; rel=\"next\""))?);
    Ok(())
}

fn escape(value: &str) -> String {
    utf8_percent_encode(value, QUERY_VALUE).to_string()
}

/// `GET <name>/tags/list`
pub(super) async fn tags(call: Call) -> Result<Response, Problem> {
    only_reads(&call.method)?;
    let limit = page_size(call.param("n"), call.api.settings.page_size_max)?;
    // `last` only says where to start: a text that is no tag still has a place in the order.
    let last = call.param("last").and_then(|text| TagName::parse(text).ok());
    let page = call.registry.tags().list(&call.repository, last, limit).await?;
    let body = render::tag_list(&call.repository.path, &page.items);
    let mut response = document("application/json", body);
    if let (true, Some(last)) = (page.more, page.items.last()) {
        let url = format!("tags/list?n={limit}&last={}", escape(last.as_str()));
        link_next(&mut response, &call.location(&url))?;
    }
    Ok(response)
}

/// `GET _catalog`: the repositories that the caller may pull from.
pub(super) async fn catalog(call: OtherCall) -> Result<Response, Problem> {
    only_reads(&call.method)?;
    let OtherCall { api, caller, challenge, .. } = &call;
    if caller.is_anonymous() && caller.principal().unscoped.is_none() {
        return Err(challenged(challenge, Some("registry:catalog:*"), "log in first"));
    }
    api.guard.spend_catalog(caller).map_err(|wait| {
        let told =
            "too many lists of repositories in a minute; ask for longer pages, or less often";
        let seconds = wait.as_secs().max(1).to_string();
        Problem::new(StatusCode::TOO_MANY_REQUESTS, Kind::TooManyRequests, told)
            .with_header(RETRY_AFTER, &seconds)
    })?;
    let limit = page_size(call.param("n"), api.settings.page_size_max)?;
    let last = call.param("last").and_then(|text| RepositoryPath::parse(text).ok());
    let listed = caller.listed(Format::Oci);
    let page = api.registry.repositories().list(Format::Oci, last, limit, &listed).await?;
    if caller.is_anonymous() && page.items.is_empty() && call.param("last").is_none() {
        let why = "there is nothing that anyone may see";
        return Err(challenged(challenge, Some("registry:catalog:*"), why));
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
) -> Result<Response, Problem> {
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
pub(super) async fn referrers(call: Call, subject: Digest) -> Result<Response, Problem> {
    only_reads(&call.method)?;
    let wanted = call.param("artifactType").filter(|text| !text.is_empty()).map(str::to_owned);
    let wanted_type = match &wanted {
        None => None,
        Some(text) => Some(MediaType::parse(text).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, Kind::DocumentInvalid, error.to_string())
                .with_detail("artifactType", text.chars().take(300).collect::<String>())
        })?),
    };
    let size_max = call.api.settings.page_size_max.min(REFERRERS_PAGE_MAX);
    let limit = page_size(call.param("n"), size_max)?.max(1);
    let after = call.param("last").and_then(|text| Digest::parse(text).ok());
    let registry = &call.registry;
    let page = registry
        .artifacts()
        .referrers(&call.repository, subject, wanted_type.as_ref(), after, limit)
        .await?;
    let (mut more, mut last) = (page.more, None);
    let mut rows = Rows::of(&call.api).await?;
    for referrer in &page.items {
        if rows.is_full() {
            more = true;
            break;
        }
        last = Some(referrer.digest);
        // One that was deleted since it was listed is left out.
        if let Some(artifact) =
            registry.artifacts().listed(&call.repository, referrer.digest).await?
        {
            let annotations = annotations_of(&artifact);
            let row = ReferrerDescriptor::new(
                &referrer.digest,
                &artifact.media_type,
                artifact.size,
                referrer.artifact_type.as_ref(),
                annotations,
            );
            rows.push(row).await?;
        }
    }
    if !more {
        append_fallback_rows(registry, &call.repository, subject, wanted.as_deref(), &mut rows)
            .await?;
    }
    let body = render::referrers(&rows.rows);
    let mut response = document(OCI_INDEX, body::counted(body, rows.room));
    if wanted.is_some() {
        response
            .headers_mut()
            .insert(FILTERS_APPLIED.clone(), HeaderValue::from_static("artifactType"));
    }
    if let (true, Some(last)) = (more, last) {
        let mut url = format!("referrers/{subject}?n={limit}&last={last}");
        if let Some(wanted) = &wanted {
            url.push_str(&format!("&artifactType={}", escape(wanted)));
        }
        link_next(&mut response, &call.location(&url))?;
    }
    Ok(response)
}

/// The rows of a page of referrers.
struct Rows<'a> {
    api: &'a Api,
    rows: Vec<ReferrerDescriptor>,
    bytes: usize,
    /// Taken as rows come, and kept until the client has the answer.
    room: OwnedSemaphorePermit,
}

impl<'a> Rows<'a> {
    async fn of(api: &'a Api) -> Result<Self, Problem> {
        let room = api.lists.take(0).await.map_err(too_many_lists)?;
        Ok(Self { api, rows: Vec::new(), bytes: 0, room })
    }

    fn is_full(&self) -> bool {
        self.bytes >= REFERRERS_PAGE_BYTES_MAX
    }

    async fn push(&mut self, row: ReferrerDescriptor) -> Result<(), Problem> {
        let bytes = row.weight();
        self.room.merge(self.api.lists.take(bytes).await.map_err(too_many_lists)?);
        self.bytes += bytes;
        self.rows.push(row);
        Ok(())
    }
}

/// The rows of a client's own index. A large one is parsed off the async threads, and a few of them at a time.
async fn fallback_rows(api: &Api, index: &Artifact) -> Result<Vec<ReferrerDescriptor>, Problem> {
    let size = usize::try_from(index.size).unwrap_or(usize::MAX);
    if size <= PARSED_INLINE_BYTES_MAX {
        return Ok(render::fallback_rows(&index.bytes().await?));
    }
    let room = api.parsing.take(size.saturating_mul(PARSING_FACTOR)).await;
    let _room = room.map_err(too_many_lists)?;
    let bytes = index.bytes().await?;
    nora_compute::run(move || render::fallback_rows(&bytes)).await.map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Unknown, "parsing was interrupted")
    })
}

/// A listed artifact's annotations, unless they are too many for a list.
fn annotations_of(artifact: &Listed) -> BTreeMap<String, String> {
    match &artifact.annotations {
        Annotations::Within(bytes) => {
            // It was parsed when it was pushed; were it unreadable now, its row would still name it.
            let parsed = manifest::parse(bytes, Some(artifact.media_type.as_str()));
            parsed.map(|manifest| manifest.annotations).unwrap_or_default()
        }
        Annotations::Kept(bytes) => annotations::kept(bytes),
    }
}

fn too_many_lists(_: Unread) -> Problem {
    Problem::unavailable("too many large lists are being read at once; try again in a moment")
}

/// Adds what clients listed under the fallback tag before they knew the API, and what the API does not list itself: a
/// manifest that names its subject has a row of its own.
async fn append_fallback_rows(
    registry: &Registry,
    repository: &RepositoryKey,
    subject: Digest,
    wanted: Option<&str>,
    rows: &mut Rows<'_>,
) -> Result<(), Problem> {
    let Some(tag) = fallback_tag(&subject) else { return Ok(()) };
    let index = match registry.artifacts().get(repository, &Reference::Tag(tag)).await {
        Ok(index) if index.media_type.as_str() == OCI_INDEX => index,
        Ok(_)
        | Err(Error::TagUnknown(_) | Error::RepositoryUnknown | Error::ArtifactUnknown(_)) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let mut listed: BTreeSet<String> = rows.rows.iter().map(|row| row.digest.clone()).collect();
    let own = fallback_rows(rows.api, &index).await?;
    for row in own.into_iter().take(FALLBACK_ROWS_MAX) {
        if rows.is_full() {
            break;
        }
        let fits = wanted.is_none_or(|wanted| row.artifact_type.as_deref() == Some(wanted));
        let Ok(digest) = Digest::parse(&row.digest) else { continue };
        if !fits || listed.contains(&row.digest) {
            continue;
        }
        // On an earlier page already, or deleted since the index was written.
        match registry.artifacts().listed(repository, digest).await? {
            Some(artifact) if artifact.subject != Some(subject) => {
                listed.insert(row.digest.clone());
                rows.push(row).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn only_reads(method: &Method) -> Result<(), Problem> {
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
