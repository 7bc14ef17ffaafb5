//! OCI distribution 1.1 and the Docker registry protocol, under `/v2/`.
//!
//! Repository names hold slashes, so one pattern takes every path below `/v2/` and [`route`] tells what is asked.

mod blobs;
mod lists;
mod manifests;
mod range;
mod route;
mod uploads;
mod words;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderName, Method, StatusCode};
use nora_auth::credential::Scheme;
use nora_domain::{Format, UploadId};

use self::route::{Place, Target, parse};
use crate::problem::{Kind, Problem};
use crate::surface::{Address, Asked, Call, Login, OtherCall, Read, Surface, query_of};

static API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

static CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Images and artifacts.
pub(crate) struct Oci;

/// A request that is about no repository, or about many.
pub(crate) enum Apart {
    /// Whether this is a registry, and whether the caller may use it.
    Ping,
    /// The repositories that the caller may pull from.
    Catalog,
}

const fn address(
    route: &'static str,
    path: &'static str,
    methods: &'static [&'static str],
) -> Address {
    Address { route, path, methods }
}

impl Surface for Oci {
    type InRepository = Target;
    type Other = Apart;

    const FORMAT: Format = Format::Oci;
    const PATTERNS: &'static [&'static str] = &["/v2", "/v2/", "/v2/{*path}"];
    const ADDRESSES: &'static [Address] = &[
        address("Ping", "/v2/", &["GET", "HEAD"]),
        address("Catalog", "/v2/_catalog", &["GET", "HEAD"]),
        address("Manifest", "/v2/{name}/manifests/{reference}", &["GET", "HEAD", "PUT", "DELETE"]),
        address("Blob", "/v2/{name}/blobs/{digest}", &["GET", "HEAD", "DELETE"]),
        address("Upload", "/v2/{name}/blobs/uploads/", &["POST"]),
        address(
            "Upload",
            "/v2/{name}/blobs/uploads/{session}",
            &["GET", "HEAD", "PATCH", "PUT", "DELETE"],
        ),
        address("Tags", "/v2/{name}/tags/list", &["GET", "HEAD"]),
        address("Referrers", "/v2/{name}/referrers/{digest}", &["GET", "HEAD"]),
    ];
    const SCHEME: Scheme = Scheme::Docker;
    const LOGIN: Login = Login::Sessions;

    fn read(head: &Parts) -> Read<Self> {
        let (route, place) = parse(head.uri.path());
        let asked = place.map(|place| match place {
            Place::Ping => Asked::Other { what: Apart::Ping, needs_login: true },
            // To a caller without a login it shows what everybody may pull.
            Place::Catalog => Asked::Other { what: Apart::Catalog, needs_login: false },
            Place::In(path, target) => Asked::Repository(target.about(path, &head.method)),
        });
        Read { route, asked }
    }

    async fn answer(call: Call, what: Target) -> Result<Response, Problem> {
        match what {
            Target::Manifest(reference) => manifests::handle(call, reference).await,
            Target::Blob(digest) => blobs::handle(call, digest).await,
            Target::Uploads => uploads::handle_collection(call).await,
            Target::Upload(id) => uploads::handle_session(call, id).await,
            Target::Tags => lists::tags(call).await,
            Target::Referrers(digest) => lists::referrers(call, digest).await,
        }
    }

    async fn answer_other(call: OtherCall, what: Apart) -> Result<Response, Problem> {
        match what {
            Apart::Ping => ping(&call.method),
            Apart::Catalog => lists::catalog(call).await,
        }
    }

    fn answer_unseen(head: &Parts, what: &Target) -> Result<Response, Problem> {
        match what {
            // Nothing refers to anything in a repository that is not there.
            Target::Referrers(_) => lists::no_referrers(&head.method, &query_of(head)),
            _ => Err(nora_app::Error::RepositoryUnknown.into()),
        }
    }

    fn render(problem: Problem) -> Response {
        problem.into_response()
    }

    fn complete(response: &mut Response) {
        let version = HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert(API_VERSION.clone(), version);
    }
}

impl Call {
    /// Where a session goes on. Where logins are asked for, it says whose session it is: it opens for nobody else.
    fn session_location(&self, id: UploadId) -> String {
        let mut path = format!("blobs/uploads/{:032x}", id.0);
        if let Some((name, proof)) = self.session_proof(id) {
            path.push_str(&format!("?{name}={proof}"));
        }
        self.location(&path)
    }

    /// A path under this repository, as clients are to be told it.
    fn location(&self, rest: &str) -> String {
        self.api.location(&format!("/v2/{}/{rest}", self.repository.path))
    }
}

fn ping(method: &Method) -> Result<Response, Problem> {
    match *method {
        Method::GET | Method::HEAD => {
            Ok((StatusCode::OK, [(CONTENT_TYPE, "application/json")], "{}").into_response())
        }
        _ => Err(method_not_allowed("GET, HEAD")),
    }
}

fn method_not_allowed(allowed: &'static str) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Kind::Unsupported,
        format!("this address takes {allowed}"),
    )
    .with_header(ALLOW, allowed)
}
