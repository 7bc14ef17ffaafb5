//! What each request takes, and how it is refused.
//!
//! Guarantees: nobody learns from a refusal whether something exists that they may not see. Reading without permission is
//! answered as if nothing were there; whoever showed nothing, or a session for something else, is asked for more in words
//! that clients understand; refused changes are written down.

use std::sync::Arc;

use axum::extract::Request;
use http::header::{CACHE_CONTROL, HOST, HeaderValue, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{Method, StatusCode};
use nora_auth::permission::{Action, Resource};
use nora_domain::{About, Deed, Reason, RepositoryKey, Verb};
use nora_identity::Caller;

use super::proxy;
use crate::problem::{Kind, Problem};
use crate::surface::Login;
use crate::{Access, Api, ConnectionInfo};

/// Lets a request of a page through if the page takes no more than the caller has.
pub(super) fn admit(access: Access, caller: &Caller, challenge: &Challenge) -> Result<(), Problem> {
    let allowed = match access {
        // What these are about, their handlers say.
        Access::Probe | Access::Public | Access::Credential => true,
        Access::Recognised => !caller.is_anonymous() || caller.principal().unscoped.is_some(),
        Access::Administrator => caller.administers(),
    };
    if allowed {
        return Ok(());
    }
    if caller.is_anonymous() {
        return Err(challenged(challenge, None, "log in first"));
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        Kind::Denied,
        format!(
            "{} may not do this: it takes the permission `admin:*`; ask an administrator",
            caller.identity().subject
        ),
    ))
}

/// How a client is told where to log in: what is needed for that of a request, most of which are told nothing.
#[derive(Clone)]
pub(crate) struct Challenge(Option<AskedAt>);

/// Where a client found this registry, and so its token endpoint.
#[derive(Clone)]
struct AskedAt {
    api: Arc<Api>,
    is_https: bool,
    authority: Option<Authority>,
    host: Option<HeaderValue>,
}

/// The most bytes of a host and its port that are repeated: a name of DNS has 253.
const HOST_BYTES_MAX: usize = 260;

/// Whether a client may be sent back to a host that it named. It stands in quotes in a header, and clients take it for an
/// address. Whoever invents one misleads only itself: no page can make a browser send another host's name, and no cache may
/// keep the answer for others.
fn is_sane(host: &str) -> bool {
    let is_plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-_[]".contains(&b));
    let Ok(parsed) = Authority::try_from(host) else { return false };
    let has_port = parsed.host().len() < host.len();
    is_plain
        && host.len() <= HOST_BYTES_MAX
        && parsed.host().bytes().any(|b| b.is_ascii_alphanumeric())
        && (!has_port || parsed.port_u16().is_some())
}

impl AskedAt {
    fn base(&self) -> Option<String> {
        if let Some(url) = &self.api.settings.public_url {
            return Some(url.trim_end_matches('/').to_owned());
        }
        let scheme = if self.is_https { "https" } else { "http" };
        let host = match (&self.authority, &self.host) {
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => host.to_str().ok()?,
            (None, None) => return None,
        };
        is_sane(host).then(|| format!("{scheme}://{host}"))
    }
}

impl Challenge {
    /// For a request: the token endpoint is where the client found this registry.
    pub(super) fn of(login: Login, api: &Arc<Api>, request: &Request) -> Self {
        if login != Login::Sessions || !api.guard.makes_sessions() {
            return Self(None);
        }
        let info = request.extensions().get::<ConnectionInfo>();
        // A proxy that ends TLS says so; whose word is not taken has to be known by `server.public_url`.
        let trusted = &api.settings.trusted_proxies;
        let is_trusted = info.is_some_and(|info| proxy::is_trusted(trusted, info.peer.ip()));
        let is_https = is_trusted && proxy::says_https(request.headers());
        Self(Some(AskedAt {
            api: api.clone(),
            is_https: is_https || info.is_some_and(|info| info.tls),
            authority: request.uri().authority().cloned(),
            host: request.headers().get(HOST).cloned(),
        }))
    }

    /// What whoever pushes to a repository is to log in for.
    pub(super) fn of_push(&self, repository: &RepositoryKey) -> HeaderValue {
        let scope = format!("repository:{}:pull,push", repository.path);
        let text = self.header(Some(&scope), false);
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Basic realm=\"nora\""))
    }

    fn header(&self, scope: Option<&str>, is_insufficient: bool) -> String {
        // Without a token endpoint clients send name and password with each request.
        let Some(base) = self.0.as_ref().and_then(AskedAt::base) else {
            return "Basic realm=\"nora\", charset=\"UTF-8\"".to_owned();
        };
        let realm = format!("{base}/v2/token");
        let mut text = format!("Bearer realm=\"{realm}\",service=\"nora\"");
        if let Some(scope) = scope {
            text.push_str(&format!(",scope=\"{scope}\""));
        }
        if is_insufficient {
            text.push_str(",error=\"insufficient_scope\"");
        }
        text
    }
}

/// The answer that makes a client log in.
pub(crate) fn challenged(challenge: &Challenge, scope: Option<&str>, why: &str) -> Problem {
    let header = challenge.header(scope, false);
    Problem::new(
        StatusCode::UNAUTHORIZED,
        Kind::LoginNeeded,
        format!("{why}: this registry asks for a user name and a password, or a token"),
    )
    .with_header(WWW_AUTHENTICATE, &header)
    .with_header(CACHE_CONTROL, "no-store")
}

/// What may be told of a refusal.
pub(super) enum Denied {
    /// As if nothing were there.
    Absent,
    /// This.
    Told(Problem),
}

/// Whether a caller may do something to a repository.
pub(super) fn permit(
    caller: &Caller,
    challenge: &Challenge,
    action: Action,
    repository: &RepositoryKey,
    method: &Method,
) -> Result<(), Denied> {
    if caller.may_in(action, repository) {
        return Ok(());
    }
    let path = &repository.path;
    let what = Resource::Repository { format: repository.format, path: path.as_str() };
    let could = caller.could_with_another_session(action, &what);
    let words = match action {
        Action::Pull => "pull",
        Action::Delete => "delete",
        Action::Push | Action::Overwrite | Action::Admin => "pull,push",
    };
    let scope = format!("repository:{path}:{words}");
    let note = |why: Reason| {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let verb = match action {
                Action::Delete => Verb::ArtifactDelete,
                _ => Verb::ArtifactPush,
            };
            let about = About::Repository(repository.clone());
            caller.note_refusal(Deed::new(verb, about), why);
        }
    };
    // With a session or without: whoever is nobody is asked who they are, whatever they asked about.
    if caller.is_anonymous() {
        // A client that has not shown anything yet is not refused: its next request may show what it has.
        return Err(Denied::Told(challenged(challenge, Some(&scope), "log in first")));
    }
    if could {
        let header = challenge.header(Some(&scope), true);
        let message = "this session is for something else; ask for one that covers this";
        return Err(Denied::Told(
            Problem::new(StatusCode::UNAUTHORIZED, Kind::LoginNeeded, message)
                .with_header(WWW_AUTHENTICATE, &header)
                .with_header(CACHE_CONTROL, "no-store"),
        ));
    }
    note(Reason::NotPermitted);
    if action == Action::Pull {
        return Err(Denied::Absent);
    }
    let (who, verb) = (&caller.identity().subject, action.name());
    Err(Denied::Told(Problem::new(
        StatusCode::FORBIDDEN,
        Kind::Denied,
        format!(
            "{who} may not {verb} here: it takes the permission `{verb}:{path}`; ask an administrator, who finds out more \
             with 'nora auth explain {verb} {path} --subject {who}'"
        ),
    )))
}
