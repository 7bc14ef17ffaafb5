//! What every request passes, whatever its format: it is observed, its caller is recognised, the gate decides, limits are
//! spent, and an upload session of another node is passed on to that node. Then the format's surface answers.
//!
//! Guarantees: each request is counted and logged once, with an id that its problems carry; no surface answers a caller who
//! may not do what is asked; a refusal never tells whether something exists that the caller may not see.
//!
//! Must not know: any format. What it has to know of a request, the surface reads for it.

pub(crate) mod forward;
mod limits;
mod observe;
pub(crate) mod origin;
mod permit;
mod proxy;
mod recognise;
mod session;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{EXPECT, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use nora_domain::{About as Place, Deed, Reason, Verb};
use nora_identity::Caller;

pub use observe::{RequestId, make_inert, new_id};
pub(crate) use permit::{Challenge, challenged};
pub(crate) use recognise::rejection;
pub(crate) use session::session_proof;

use crate::metrics::Route;
use crate::problem::Problem;
use crate::surface::{About, Asked, Call, OtherCall, Read, Surface, query_of};
use crate::{Access, Api, Page, body};
use observe::Observation;
use permit::{Denied, permit};
use recognise::{address_of, recognise};

/// Who asks, and in which request.
struct Asker {
    caller: Caller,
    challenge: Challenge,
    id: RequestId,
    /// Whether another member passed the request on: it has judged the upload session, and passes it on no further.
    is_forwarded: bool,
}

/// Answers a request of a format.
pub(crate) async fn serve<S: Surface>(api: Arc<Api>, mut request: Request) -> Response {
    // Only members say on whose behalf they ask, and they come in by another door.
    request.headers_mut().remove(&forward::CALLER);
    let observation = Observation::begin(&api, &request);
    let is_head = request.method() == Method::HEAD;
    let (head, body) = request.into_parts();
    let Read { route, asked } = S::read(&head);
    let request = Request::from_parts(head, body);
    let answer = answered::<S>(&api, request, asked, observation.id()).await;
    let response = rendered::<S>(answer, is_head, observation.id());
    observation.end(&api, Route { format: S::FORMAT.name(), name: route }, response)
}

/// Answers a request of a format that another member passed on. Unless that member asks nobody for anything, the caller is
/// judged here as well: what changes while the request runs counts on the node that writes.
pub(crate) async fn serve_forwarded<S: Surface>(api: Arc<Api>, request: Request) -> Response {
    let _runs = api.forwarded.read().await;
    let observation = Observation::of_forwarded(&request);
    let is_head = request.method() == Method::HEAD;
    let (head, body) = request.into_parts();
    let Read { route, asked } = S::read(&head);
    let request = Request::from_parts(head, body);
    let answer = answered_forwarded::<S>(&api, request, asked, observation.id()).await;
    let response = rendered::<S>(answer, is_head, observation.id());
    observation.end_forwarded(&api, Route { format: S::FORMAT.name(), name: route }, response)
}

fn rendered<S: Surface>(
    answer: Result<Response, Problem>,
    is_head: bool,
    id: &RequestId,
) -> Response {
    let mut response = answer.unwrap_or_else(|problem| S::render(problem.with_request_id(id)));
    if is_head {
        // HEAD answers with GET's status and headers, the length among them, and no bytes.
        *response.body_mut() = Body::empty();
    }
    S::complete(&mut response);
    response
}

async fn answered<S: Surface>(
    api: &Arc<Api>,
    request: Request,
    asked: Result<Asked<S>, Problem>,
    id: &RequestId,
) -> Result<Response, Problem> {
    if api.guard.is_open() {
        origin::check(&api.settings, &request)?;
    }
    let challenge = Challenge::of(S::LOGIN, api, &request);
    let recognised = recognise(api, &request, S::SCHEME, address_of(api, &request), id);
    let caller = recognised.await.map_err(|rejected| rejection(rejected, &challenge))?;
    let asker = Asker { caller, challenge, id: id.clone(), is_forwarded: false };
    match asked? {
        Asked::Repository(about) => in_repository::<S>(api, request, asker, about).await,
        Asked::Other { what, needs_login } => {
            if needs_login {
                permit::admit(Access::Recognised, &asker.caller, &asker.challenge)?;
            }
            let (head, _) = request.into_parts();
            let call = OtherCall {
                api: api.clone(),
                caller: asker.caller,
                challenge: asker.challenge,
                query: query_of(&head),
                method: head.method,
            };
            S::answer_other(call, what).await
        }
    }
}

async fn answered_forwarded<S: Surface>(
    api: &Arc<Api>,
    request: Request,
    asked: Result<Asked<S>, Problem>,
    id: &RequestId,
) -> Result<Response, Problem> {
    let challenge = Challenge::of(S::LOGIN, api, &request);
    let (actor, is_judged) = forward::actor_of(request.headers());
    let caller = if is_judged {
        api.guard.on_behalf_of(actor, id.0.clone())
    } else {
        let recognised = recognise(api, &request, S::SCHEME, actor.address.parse().ok(), id);
        recognised.await.map_err(|rejected| rejection(rejected, &challenge))?
    };
    let asker = Asker { caller, challenge, id: id.clone(), is_forwarded: true };
    match asked? {
        Asked::Repository(about) if about.session.is_some() => {
            in_repository::<S>(api, request, asker, about).await
        }
        // Members pass on nothing but requests of upload sessions.
        _ => Err(Problem::new(
            StatusCode::NOT_FOUND,
            crate::problem::Kind::Unsupported,
            "members of a cluster pass on requests of upload sessions, and no others",
        )),
    }
}

/// A request about a repository, once it is known who asks.
async fn in_repository<S: Surface>(
    api: &Arc<Api>,
    request: Request,
    asker: Asker,
    about: About<S::InRepository>,
) -> Result<Response, Problem> {
    let About { path, action, spends, session, what } = about;
    let repository = api.registry.repository(S::FORMAT, path);
    match permit(&asker.caller, &asker.challenge, action, &repository, request.method()) {
        Ok(()) => {}
        Err(Denied::Told(problem)) => return Err(told_after(api, problem, request).await),
        Err(Denied::Absent) => return S::answer_unseen(&request.into_parts().0, &what),
    }
    if let Some(id) = session
        && !asker.is_forwarded
    {
        if !session::is_own(api, &asker.caller, &request, id) {
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                let deed = Deed::new(Verb::BlobPush, Place::Repository(repository.clone()));
                asker.caller.note_refusal(deed, Reason::AnothersUpload);
            }
            return Err(nora_app::Error::UploadUnknown(id).into());
        }
        if let Some(owner) = api.registry.uploads().owner(id) {
            let passed = forward::pass_through(
                api.peers.as_ref(),
                (owner, id),
                (&asker.caller, &asker.id),
                request,
            );
            let mut answer = passed.await?;
            if answer.status() == StatusCode::UNAUTHORIZED {
                // The owner knows only where this node found it.
                let here = asker.challenge.of_push(&repository);
                answer.headers_mut().insert(WWW_AUTHENTICATE, here);
            }
            return Ok(answer);
        }
    }
    let allowance = limits::spend(api, &asker.caller, &repository, spends).await?;
    let call = Call::new(api.clone(), asker.caller, repository, request);
    let mut response = S::answer(call, what).await?;
    if let Some(allowance) = allowance {
        limits::tell(&mut response, allowance);
    }
    Ok(response)
}

/// A refusal, once what the client sends is out of the way: an answer that is given while it still sends is lost with the
/// connection. A client that waits to be asked for the body gets it at once.
async fn told_after(api: &Api, problem: Problem, request: Request) -> Problem {
    if !request.headers().contains_key(EXPECT) {
        let pace = api.settings.body_pace;
        let stream = body::incoming(request.into_body(), pace, api.metrics.clone());
        body::discard(stream).await;
    }
    problem
}

/// Answers a request of one of NORA's own pages: the same as for a format, with what the page says it takes.
pub(crate) async fn serve_page(
    State((api, page)): State<(Arc<Api>, &'static Page)>,
    mut request: Request,
    next: Next,
) -> Response {
    request.headers_mut().remove(&forward::CALLER);
    let observation = Observation::begin(&api, &request);
    let id = observation.id().clone();
    let answer = answered_page(&api, page, request, next, &id).await;
    let response = answer.unwrap_or_else(|problem| problem.with_request_id(&id).into_response());
    observation.end(&api, page.route, response)
}

async fn answered_page(
    api: &Arc<Api>,
    page: &'static Page,
    mut request: Request,
    next: Next,
    id: &RequestId,
) -> Result<Response, Problem> {
    if page.access == Access::Probe {
        return Ok(next.run(request).await);
    }
    if api.guard.is_open() {
        origin::check(&api.settings, &request)?;
    }
    let challenge = Challenge::of(page.login, api, &request);
    let scheme = nora_auth::credential::Scheme::Docker;
    let recognised = recognise(api, &request, scheme, address_of(api, &request), id);
    let caller = recognised.await.map_err(|rejected| rejection(rejected, &challenge))?;
    permit::admit(page.access, &caller, &challenge)?;
    let extensions = request.extensions_mut();
    extensions.insert(id.clone());
    extensions.insert(challenge);
    extensions.insert(caller);
    Ok(next.run(request).await)
}
