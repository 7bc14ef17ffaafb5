//! The issuer over HTTP: what it answers, and what it answers when something is wrong with it.
//!
//! Beside what every issuer has there is a door for tests that run in other processes: `/token`, `/fault`, `/claims`,
//! `/rotate` and `/counts`. No fault but being down touches that door, and nothing there is counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, WeakUnboundedSender};
use tokio::sync::{oneshot, watch};

use super::fault::{Asked, Fault};
use super::{DISCOVERY_PATH, GITHUB_PATH, KEYS_PATH, Shared, claims};

const BODY_BYTES_MAX: usize = 1 << 20;
const BACKLOG: u32 = 1024;

/// To go up or down, and to say when that is done.
pub(super) struct Turn {
    up: bool,
    done: Box<dyn FnOnce() + Send>,
}

impl Turn {
    pub(super) fn new(up: bool, done: impl FnOnce() + Send + 'static) -> Self {
        Self { up, done: Box::new(done) }
    }
}

/// What handlers share.
#[derive(Clone)]
pub(super) struct Server {
    shared: Arc<Shared>,
    turns: WeakUnboundedSender<Turn>,
}

impl Server {
    pub(super) fn new(shared: Arc<Shared>, turns: WeakUnboundedSender<Turn>) -> Self {
        Self { shared, turns }
    }

    /// Serves until the last of those who may turn it up or down is gone.
    pub(super) async fn run(
        self,
        listener: std::net::TcpListener,
        mut asked: UnboundedReceiver<Turn>,
    ) {
        let address = self.shared.address;
        let router = self.router();
        let mut listening = TcpListener::from_std(listener).ok();
        // Keeps the port while nobody listens.
        let mut held: Option<TcpSocket> = None;
        // Connections that exist end with the sender.
        let (mut open, _) = watch::channel(());
        loop {
            let turn = tokio::select! {
                turn = asked.recv() => match turn {
                    Some(turn) => turn,
                    None => return,
                },
                stream = accepted(listening.as_ref()) => {
                    tokio::spawn(connection(stream, router.clone(), open.subscribe()));
                    continue;
                }
            };
            if !turn.up {
                listening = None;
                held = hold(address).or(held);
                (open, _) = watch::channel(());
            } else if listening.is_none() {
                let socket = held.take().or_else(|| hold(address));
                listening = socket.and_then(|socket| socket.listen(BACKLOG).ok());
            }
            if turn.up == listening.is_some() {
                (turn.done)();
            }
        }
    }

    fn router(&self) -> Router {
        let faulty = middleware::from_fn_with_state(self.clone(), struck);
        Router::new()
            .route(DISCOVERY_PATH, get(discovery))
            .route(KEYS_PATH, get(key_set))
            .route(GITHUB_PATH, get(github_token))
            .fallback(|| async { (StatusCode::NOT_FOUND, "no such thing here\n") })
            .layer(faulty)
            .route("/token", get(token).post(token))
            .route("/fault", post(set_fault))
            .route("/claims", post(set_claims))
            .route("/rotate", post(rotate))
            .route("/counts", get(counts))
            .with_state(self.clone())
    }

    /// The fault that strikes this request, which is counted.
    fn strike(&self, path: &str) -> Fault {
        let mut state = self.shared.state();
        *state.counts.0.entry(path.to_owned()).or_default() += 1;
        match state.strikes {
            Some(0) => return Fault::None,
            Some(left) => state.strikes = Some(left - 1),
            None => {}
        }
        state.fault.clone()
    }
}

/// Binds the address without listening: connections are refused, and nobody else takes the port.
fn hold(address: SocketAddr) -> Option<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.ok()?;
    socket.set_reuseaddr(true).ok()?;
    socket.bind(address).ok()?;
    Some(socket)
}

async fn accepted(listener: Option<&TcpListener>) -> TcpStream {
    if let Some(listener) = listener {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return stream,
                // Too many open files, mostly: others close some.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
    std::future::pending().await
}

/// Serves a connection; when the issuer goes down, only the request that runs on it.
async fn connection(stream: TcpStream, router: Router, mut open: watch::Receiver<()>) {
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        _ = open.changed() => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

/// Counts the request, and does what is wrong to it.
async fn struck(State(server): State<Server>, mut request: Request, next: Next) -> Response {
    let fault = server.strike(request.uri().path());
    match &fault {
        Fault::Slow(delay) => tokio::time::sleep(*delay).await,
        Fault::Unavailable => {
            return (StatusCode::SERVICE_UNAVAILABLE, "overloaded\n").into_response();
        }
        Fault::TooMany(seconds) => {
            let retry = [(RETRY_AFTER, seconds.to_string())];
            return (StatusCode::TOO_MANY_REQUESTS, retry, "too many\n").into_response();
        }
        Fault::Redirect(url) => {
            return (StatusCode::FOUND, [(LOCATION, url.clone())]).into_response();
        }
        Fault::NotJson => return page("<html><body>Sign in to the network</body></html>".into()),
        _ => {}
    }
    request.extensions_mut().insert(fault.clone());
    let answer = next.run(request).await;
    match fault {
        Fault::WrongContentType => page(whole_body(answer).await),
        Fault::CutShort => {
            let body = whole_body(answer).await;
            json_answer(body.slice(..body.len() / 2))
        }
        _ => answer,
    }
}

async fn whole_body(answer: Response) -> Bytes {
    axum::body::to_bytes(answer.into_body(), BODY_BYTES_MAX).await.unwrap_or_default()
}

fn page(body: Bytes) -> Response {
    ([(CONTENT_TYPE, "text/html")], body).into_response()
}

fn json_answer(body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

fn refused(status: StatusCode, why: impl ToString) -> Response {
    (status, format!("{}\n", why.to_string())).into_response()
}

async fn discovery(State(server): State<Server>, request: Request) -> Response {
    let url = &server.shared.url;
    let fault = request.extensions().get::<Fault>();
    let issuer = match fault {
        Some(Fault::LiesAboutIssuer(other)) => other,
        _ => url,
    };
    let keys = match fault {
        Some(Fault::KeysElsewhere(other)) => other.clone(),
        _ => format!("{url}{KEYS_PATH}"),
    };
    let algorithms = match fault {
        Some(Fault::LiesAboutAlgorithms) => json!(["none", "HS256"]),
        _ => json!(["RS256", "PS256", "ES256", "EdDSA"]),
    };
    let document = json!({
        "issuer": issuer,
        "jwks_uri": keys,
        "subject_types_supported": ["public"],
        "response_types_supported": ["id_token"],
        "claims_supported": ["sub", "aud", "exp", "iat", "iss", "jti"],
        "id_token_signing_alg_values_supported": algorithms,
        "scopes_supported": ["openid"],
    });
    json_answer(document.to_string())
}

async fn key_set(State(server): State<Server>, request: Request) -> Response {
    let fault = request.extensions().get::<Fault>();
    if let Some(Fault::EmptyKeys) = fault {
        return json_answer(json!({ "keys": [] }).to_string());
    }
    let lies = fault == Some(&Fault::LiesAboutAlgorithms);
    let mut text = server.shared.state().keys.published(lies).to_string();
    if let Some(Fault::HugeKeys(bytes)) = fault {
        text.truncate(text.len().saturating_sub("]}".len()));
        let fill =
            format!(",{{\"kty\":\"oct\",\"kid\":\"fill\",\"k\":\"{}\"}}", "A".repeat(1 << 10));
        while text.len() < *bytes {
            text.push_str(&fill);
        }
        text.push_str("]}");
    }
    json_answer(text)
}

/// An ID token for a job, as GitHub gives it out.
async fn github_token(
    State(server): State<Server>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let shown =
        headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = shown.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if token.map(|(_, token)| token) != Some(server.shared.request_token.as_str()) {
        return refused(StatusCode::UNAUTHORIZED, "the request token is not the job's");
    }
    let given = server.shared.state().github_claims.clone();
    // Without an audience GitHub names the owner's page.
    let audience =
        query.get("audience").cloned().unwrap_or_else(|| "https://github.com/my-org".to_owned());
    let claims = claims::github(&audience, &given);
    match server.shared.mint("RS256", &claims, &Map::new()) {
        Ok(token) => json_answer(json!({ "count": token.len(), "value": token }).to_string()),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

/// `?claims=<JSON>&alg=…&kid=…&header=<JSON>`: any token.
async fn token(
    State(server): State<Server>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let fields = |name: &str| match query.get(name).map(|text| serde_json::from_str(text)) {
        None => Ok(Map::new()),
        Some(Ok(fields)) => Ok(fields),
        Some(Err(error)) => Err(format!("{name} is no JSON object: {error}")),
    };
    let (claims, mut header) = match (fields("claims"), fields("header")) {
        (Ok(claims), Ok(header)) => (claims, header),
        (Err(error), _) | (_, Err(error)) => return refused(StatusCode::BAD_REQUEST, error),
    };
    if let Some(kid) = query.get("kid") {
        header.insert("kid".into(), Value::from(kid.as_str()));
    }
    let algorithm = query.get("alg").map_or("RS256", String::as_str);
    match server.shared.mint(algorithm, &claims, &header) {
        Ok(token) => token.into_response(),
        Err(error) => refused(StatusCode::BAD_REQUEST, error),
    }
}

async fn set_fault(State(server): State<Server>, body: Bytes) -> Response {
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error),
    };
    let fault = match asked.parse() {
        Ok(fault) => fault,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error),
    };
    let up = fault != Fault::Down;
    {
        let mut state = server.shared.state();
        state.fault = fault;
        state.strikes = asked.times;
    }
    turn(&server, up).await;
    if !up {
        tokio::spawn(recover(server, asked.lasts()));
    }
    StatusCode::NO_CONTENT.into_response()
}

/// Comes up again, unless another fault was set in between.
async fn recover(server: Server, after: Duration) {
    tokio::time::sleep(after).await;
    {
        let mut state = server.shared.state();
        if state.fault != Fault::Down {
            return;
        }
        state.fault = Fault::None;
    }
    turn(&server, true).await;
}

async fn turn(server: &Server, up: bool) {
    if let Some(turns) = server.turns.upgrade() {
        let (done, turned) = oneshot::channel();
        if turns
            .send(Turn::new(up, move || {
                let _ = done.send(());
            }))
            .is_ok()
        {
            let _ = turned.await;
        }
    }
}

async fn set_claims(State(server): State<Server>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(claims) => {
            server.shared.state().github_claims = claims;
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => refused(StatusCode::BAD_REQUEST, error),
    }
}

async fn rotate(State(server): State<Server>) -> Response {
    match server.shared.rotate() {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn counts(State(server): State<Server>) -> Response {
    json_answer(json!(server.shared.state().counts.0).to_string())
}
