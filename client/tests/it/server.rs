//! A registry in memory that records what it is asked, for tests of the SDK: it speaks real HTTP on a real port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nora_client::{Address, Client, ClientConfig, Credentials};

/// Answers that stand before the registry's own, by request.
type Planned = Box<dyn FnMut(&str, &HeaderMap) -> Option<Response> + Send>;

#[derive(Default)]
pub struct Content {
    /// Media type and bytes by (repository, digest).
    pub manifests: BTreeMap<(String, String), (String, Bytes)>,
    /// Digests by (repository, tag).
    pub tags: BTreeMap<(String, String), String>,
    /// Bytes by (repository, digest).
    pub blobs: BTreeMap<(String, String), Bytes>,
    /// Every request: method, path and query, and what it carried as Authorization.
    pub log: Vec<(String, Option<String>)>,
    /// Repositories that nothing may be mounted from.
    pub closed: BTreeSet<String>,
    /// Bodies of requests, once they are kept.
    pub bodies: Vec<String>,
    /// What whoever sends a body is answered, which is then kept.
    kept_for: Option<(StatusCode, String)>,
}

#[derive(Clone)]
pub struct Server {
    pub content: Arc<Mutex<Content>>,
    planned: Arc<Mutex<Option<Planned>>>,
    pub origin: String,
}

impl Server {
    /// Starts it on a free port; it ends with the test's runtime.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { content: Arc::default(), planned: Arc::default(), origin };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        server
    }

    /// Lets a function answer before the registry does.
    pub fn plan(&self, answer: impl FnMut(&str, &HeaderMap) -> Option<Response> + Send + 'static) {
        *self.planned.lock().unwrap() = Some(Box::new(answer));
    }

    /// Keeps the bodies of requests from now on, and answers each with this JSON.
    pub fn keep_bodies(&self, status: StatusCode, answer: &str) {
        self.content.lock().unwrap().kept_for = Some((status, answer.to_owned()));
    }

    pub fn client(&self, credentials: Credentials) -> Client {
        let address = Address::parse(&self.origin).unwrap();
        Client::new(ClientConfig { credentials, ..ClientConfig::new(address) }).unwrap()
    }

    /// Stores bytes as a blob and gives their digest.
    pub fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let key = (repository.to_owned(), digest.clone());
        self.content.lock().unwrap().blobs.insert(key, Bytes::copy_from_slice(bytes));
        digest
    }

    /// Stores a manifest, under a tag if one is given, and gives its digest.
    pub fn manifest(&self, repository: &str, tag: &str, media_type: &str, body: &str) -> String {
        let digest = sha256(body.as_bytes());
        let mut content = self.content.lock().unwrap();
        let value = (media_type.to_owned(), Bytes::copy_from_slice(body.as_bytes()));
        content.manifests.insert((repository.to_owned(), digest.clone()), value);
        if !tag.is_empty() {
            content.tags.insert((repository.to_owned(), tag.to_owned()), digest.clone());
        }
        digest
    }

    pub fn log(&self) -> Vec<String> {
        self.content.lock().unwrap().log.iter().map(|(request, _)| request.clone()).collect()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let value = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex: String = value.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().unwrap().as_str().to_owned();
    let line = format!("{} {target}", parts.method);
    let authorization = parts.headers.get(header::AUTHORIZATION);
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    server.content.lock().unwrap().log.push((line.clone(), authorization));
    if let Some(planned) = server.planned.lock().unwrap().as_mut()
        && let Some(response) = planned(&line, &parts.headers)
    {
        return response;
    }
    let body = to_bytes(body, 16 << 20).await.unwrap();
    {
        let mut content = server.content.lock().unwrap();
        if let Some((status, answer)) = content.kept_for.clone() {
            content.bodies.push(String::from_utf8(body.to_vec()).unwrap());
            return json(status, &answer);
        }
    }
    let query: BTreeMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let content = &mut *server.content.lock().unwrap();
    registry(content, &parts.method, parts.uri.path(), &query, &parts.headers, body)
}

fn registry(
    content: &mut Content,
    method: &Method,
    path: &str,
    query: &BTreeMap<String, String>,
    headers: &HeaderMap,
    body: Bytes,
) -> Response {
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    if rest == "_catalog" {
        let names: BTreeSet<&String> =
            content.manifests.keys().map(|(repository, _)| repository).collect();
        return page("repositories", "/v2/_catalog", names.into_iter().cloned(), query);
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        let tags = content.tags.keys().filter(|(r, _)| r == repository).map(|(_, t)| t.clone());
        return page("tags", path, tags, query);
    }
    if let Some((repository, reference)) = rest.split_once("/manifests/") {
        return manifest(content, method, repository, reference, headers, body);
    }
    if let Some((repository, _)) = rest.split_once("/referrers/") {
        let _ = repository;
        return json(StatusCode::OK, r#"{"schemaVersion":2,"manifests":null}"#);
    }
    if let Some(repository) = rest.strip_suffix("/blobs/uploads/") {
        let (digest, from) = (query["mount"].clone(), query["from"].clone());
        let source = content.blobs.get(&(from.clone(), digest.clone())).cloned();
        return match source.filter(|_| !content.closed.contains(&from)) {
            Some(bytes) => {
                content.blobs.insert((repository.to_owned(), digest), bytes);
                StatusCode::CREATED.into_response()
            }
            None => {
                let location = format!("/v2/{repository}/blobs/uploads/session-1");
                (StatusCode::ACCEPTED, [(header::LOCATION, location)]).into_response()
            }
        };
    }
    if rest.ends_with("/blobs/uploads/session-1") {
        return StatusCode::NO_CONTENT.into_response();
    }
    if let Some((repository, digest)) = rest.split_once("/blobs/") {
        return match content.blobs.get(&(repository.to_owned(), digest.to_owned())) {
            Some(bytes) => bytes.clone().into_response(),
            None => unknown("BLOB_UNKNOWN"),
        };
    }
    unknown("NAME_UNKNOWN")
}

/// Pages of at most two entries, whatever was asked for.
fn page(
    field: &str,
    path: &str,
    names: impl Iterator<Item = String>,
    query: &BTreeMap<String, String>,
) -> Response {
    let last = query.get("last").cloned().unwrap_or_default();
    let names: Vec<String> = names.filter(|name| *name > last).collect();
    let shown: Vec<&String> = names.iter().take(2).collect();
    let mut response =
        json(StatusCode::OK, &serde_json::json!({ "name": "x", field: shown }).to_string());
    if names.len() > 2 {
        // An absolute link of another name for the server, as behind a proxy.
        let link = format!("<http://proxy.invalid{path}?n=2&last={}>; rel=\"next\"", names[1]);
        response.headers_mut().insert(header::LINK, link.parse().unwrap());
    }
    response
}

fn manifest(
    content: &mut Content,
    method: &Method,
    repository: &str,
    reference: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Response {
    let key = |name: &str| (repository.to_owned(), name.to_owned());
    let digest = content.tags.get(&key(reference)).cloned().unwrap_or(reference.to_owned());
    if *method == Method::PUT {
        let digest = sha256(&body);
        let media_type = headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        content.manifests.insert(key(&digest), (media_type, body));
        if !reference.starts_with("sha256:") {
            content.tags.insert(key(reference), digest.clone());
        }
        return (StatusCode::CREATED, [("docker-content-digest", digest)]).into_response();
    }
    let Some((media_type, bytes)) = content.manifests.get(&key(&digest)).cloned() else {
        return unknown("MANIFEST_UNKNOWN");
    };
    if *method == Method::DELETE {
        if content.tags.remove(&key(reference)).is_none() {
            content.manifests.remove(&key(&digest));
            content.tags.retain(|(r, _), d| r != repository || *d != digest);
        }
        return StatusCode::ACCEPTED.into_response();
    }
    let headers = [("content-type", media_type), ("docker-content-digest", digest)];
    (headers, Body::from(bytes)).into_response()
}

pub fn json(status: StatusCode, body: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_owned()).into_response()
}

fn unknown(code: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"no such thing"}}]}}"#);
    json(StatusCode::NOT_FOUND, &body)
}
