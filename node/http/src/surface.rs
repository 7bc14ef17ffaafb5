//! A surface: a format's part of the HTTP API.
//!
//! A format reads a request's head, answers the request, and renders problems in its clients' words. All else is the
//! pipeline's (`crate::pipeline`): who asks, what they may do, limits, upload sessions of other nodes, metrics and logs. To
//! add a format, implement [`Surface`] in a folder beside `oci` and add one line to `SURFACES` in `lib.rs`.
//!
//! Guarantee: a request about a repository reaches [`Surface::answer`] only if its caller may do there what the request
//! needs, and a request's path is read once, by [`Surface::read`].

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use nora_app::Registry;
use nora_app::ports::blobs::Delivery;
use nora_app::ports::{BoxFuture, Incoming};
use nora_auth::credential::Scheme;
use nora_auth::permission::Action;
use nora_domain::{Format, RepositoryKey, RepositoryPath, UploadId};
use nora_identity::{Caller, Spends};

use crate::downloads::Place;
use crate::pipeline::{self, Challenge};
use crate::problem::Problem;
use crate::{Api, ConnectionInfo, body};

/// An address of a format: one line of its documentation, and what its requests are counted as.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// What its requests are counted as; several addresses may share it.
    pub route: &'static str,
    /// The path, with names of its parts in braces.
    pub path: &'static str,
    /// The methods it takes.
    pub methods: &'static [&'static str],
}

/// How clients of a format log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// By Docker's token flow, where the node makes sessions.
    Sessions,
    /// With a name and a password, or a token, in each request.
    Basic,
}

/// A format's part of the HTTP API.
pub(crate) trait Surface: Sized + Send + Sync + 'static {
    /// A request about one repository, as the format understands it.
    type InRepository: Send + 'static;
    /// Any other request of the format.
    type Other: Send + 'static;

    /// Whose repositories these are.
    const FORMAT: Format;
    /// Patterns of the paths that belong to it, as the router takes them.
    const PATTERNS: &'static [&'static str];
    /// All its addresses.
    const ADDRESSES: &'static [Address];
    /// How its clients send credentials.
    const SCHEME: Scheme;
    /// How its clients log in.
    const LOGIN: Login;

    /// What a request asks for.
    fn read(head: &Parts) -> Read<Self>;

    /// Answers a request about a repository.
    fn answer(
        call: Call,
        what: Self::InRepository,
    ) -> impl Future<Output = Result<Response, Problem>> + Send;

    /// Answers any other request.
    fn answer_other(
        call: OtherCall,
        what: Self::Other,
    ) -> impl Future<Output = Result<Response, Problem>> + Send;

    /// The answer about a repository that the caller may not see: the same as for one that does not exist.
    fn answer_unseen(head: &Parts, what: &Self::InRepository) -> Result<Response, Problem> {
        let _ = (head, what);
        Err(nora_app::Error::RepositoryUnknown.into())
    }

    /// A problem in the words of the format's clients.
    fn render(problem: Problem) -> Response;

    /// Adds what each of the format's answers has.
    fn complete(response: &mut Response) {
        let _ = response;
    }
}

/// What was read from a request's head.
pub(crate) struct Read<S: Surface> {
    /// What the request is counted as, even if it is malformed.
    pub(crate) route: &'static str,
    /// What is asked for, or what is wrong with the request.
    pub(crate) asked: Result<Asked<S>, Problem>,
}

/// What a request is about.
pub(crate) enum Asked<S: Surface> {
    /// One repository.
    Repository(About<S::InRepository>),
    /// Something else.
    Other {
        /// What, in the format's terms.
        what: S::Other,
        /// Whether the pipeline refuses a caller without a login; otherwise the answer decides.
        needs_login: bool,
    },
}

/// A request about one repository: what the pipeline has to know of it.
pub(crate) struct About<T> {
    /// The repository.
    pub(crate) path: RepositoryPath,
    /// The right that it needs there.
    pub(crate) action: Action,
    /// What it spends of the limits by the hour.
    pub(crate) spends: Spends,
    /// The upload session that it goes on with.
    pub(crate) session: Option<UploadId>,
    /// What is asked for, in the format's terms.
    pub(crate) what: T,
}

/// A request about a repository that the caller may do this to: everything that an answer needs.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    /// The use cases, on behalf of the caller.
    pub(crate) registry: Registry,
    pub(crate) caller: Caller,
    pub(crate) method: Method,
    pub(crate) repository: RepositoryKey,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) delivery: Delivery,
    pub(crate) body: Body,
}

impl Call {
    pub(crate) fn new(
        api: Arc<Api>,
        caller: Caller,
        repository: RepositoryKey,
        request: Request,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let tls = parts.extensions.get::<ConnectionInfo>().is_none_or(|info| info.tls);
        let http1 = matches!(parts.version, Version::HTTP_10 | Version::HTTP_11);
        // Only a plain HTTP/1 connection hands bytes to the kernel without looking at them.
        let delivery = if http1 && !tls { Delivery::Socket } else { Delivery::Process };
        Self {
            registry: api.registry.by(Arc::new(caller.clone())),
            query: query_of(&parts),
            api,
            caller,
            method: parts.method,
            repository,
            headers: parts.headers,
            delivery,
            body,
        }
    }

    /// The first value of a query parameter.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        param(&self.query, name)
    }

    /// A header as text; one that is no text counts as absent.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The request's body as a stream. One that announces more than `bytes_max` is refused, before it is sent if the
    /// client waits to be asked for it; the reader counts the bytes of one that announces nothing.
    pub(crate) async fn take_body(&mut self, bytes_max: u64) -> Result<Incoming, nora_app::Error> {
        let announced = self.header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let waits = self.headers.contains_key(EXPECT);
        let taken = std::mem::take(&mut self.body);
        let pace = self.api.settings.body_pace;
        let stream = body::incoming(taken, pace, self.api.metrics.clone());
        if announced.is_some_and(|announced| announced > bytes_max) {
            if !waits {
                body::discard(stream).await;
            }
            return Err(nora_app::Error::TooLarge { bytes_max });
        }
        Ok(Incoming { stream, length: announced })
    }

    /// A place among the downloads, to be taken before a blob is opened and given to its body.
    pub(crate) fn place_to_download(&self) -> Result<Place, Problem> {
        self.api.downloads.take(self.caller.address())
    }

    /// The query parameter that makes an upload session the caller's own, where logins are asked for.
    pub(crate) fn session_proof(&self, id: UploadId) -> Option<(&'static str, String)> {
        pipeline::session_proof(&self.api, &self.caller, &self.query, id)
    }
}

/// A request that is about no repository, or about many.
pub(crate) struct OtherCall {
    pub(crate) api: Arc<Api>,
    pub(crate) caller: Caller,
    pub(crate) challenge: Challenge,
    pub(crate) method: Method,
    pub(crate) query: Vec<(String, String)>,
}

impl OtherCall {
    /// The first value of a query parameter.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        param(&self.query, name)
    }
}

/// A request's query parameters, in order.
pub(crate) fn query_of(head: &Parts) -> Vec<(String, String)> {
    let text = head.uri.query().unwrap_or("");
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn param<'q>(query: &'q [(String, String)], name: &str) -> Option<&'q str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// A surface as the router holds it.
#[derive(Clone, Copy)]
pub(crate) struct Mounted {
    pub(crate) format: Format,
    pub(crate) patterns: &'static [&'static str],
    pub(crate) addresses: &'static [Address],
    /// Answers a client.
    pub(crate) serve: fn(Arc<Api>, Request) -> BoxFuture<'static, Response>,
    /// Answers another member of the cluster, which has let the request through.
    pub(crate) serve_forwarded: fn(Arc<Api>, Request) -> BoxFuture<'static, Response>,
}

impl Mounted {
    pub(crate) const fn of<S: Surface>() -> Self {
        Self {
            format: S::FORMAT,
            patterns: S::PATTERNS,
            addresses: S::ADDRESSES,
            serve: |api, request| Box::pin(pipeline::serve::<S>(api, request)),
            serve_forwarded: |api, request| Box::pin(pipeline::serve_forwarded::<S>(api, request)),
        }
    }
}
