//! A second format, to show what one takes: this file, and a line where the surfaces are listed.
//!
//! The toy keeps files by digest, under `/toy/<name>/-/<digest>`, and says what went wrong in a line of text. Its repositories
//! are Maven's, because every format has to be one that the domain knows.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, StatusCode};
use nora_auth::credential::Scheme;
use nora_auth::permission::Action;
use nora_digest::digest;
use nora_domain::{Algorithm, Digest, Format, RepositoryPath};
use nora_identity::Spends;

use crate::body;
use crate::oci::Oci;
use crate::problem::{Kind, Problem};
use crate::surface::{About, Address, Asked, Call, Login, Mounted, OtherCall, Read, Surface};
use crate::testkit::{Shown, World};

struct Toy;

impl Surface for Toy {
    type InRepository = Digest;
    type Other = std::convert::Infallible;

    const FORMAT: Format = Format::Maven;
    const PATTERNS: &'static [&'static str] = &["/toy/{*path}"];
    const ADDRESSES: &'static [Address] =
        &[Address { route: "File", path: "/toy/{name}/-/{digest}", methods: &["GET", "PUT"] }];
    const SCHEME: Scheme = Scheme::Maven;
    const LOGIN: Login = Login::Basic;

    fn read(head: &Parts) -> Read<Self> {
        let parsed = head.uri.path().strip_prefix("/toy/").and_then(|rest| {
            let (name, digest) = rest.split_once("/-/")?;
            Some((RepositoryPath::parse(name).ok()?, Digest::parse(digest).ok()?))
        });
        let (action, spends) = match head.method {
            Method::PUT => (Action::Push, Spends::Push),
            _ => (Action::Pull, Spends::Pull),
        };
        let asked = parsed.map(|(path, what)| {
            Asked::Repository(About { path, action, spends, session: None, what })
        });
        let nonsense = || Problem::new(StatusCode::BAD_REQUEST, Kind::NameInvalid, "no such file");
        Read { route: "File", asked: asked.ok_or_else(nonsense) }
    }

    async fn answer(mut call: Call, digest: Digest) -> Result<Response, Problem> {
        if call.method == Method::PUT {
            let body = call.take_body(call.api.settings.upload_bytes_max).await?;
            call.registry.uploads().push(call.repository, digest, body).await?;
            return Ok(Response::new(Body::empty()));
        }
        let size = call.registry.blobs().stat(&call.repository, digest).await?.size;
        let place = call.place_to_download()?;
        let blob = call.registry.blobs().open(&call.repository, digest).await?;
        let (stream, metrics) = (blob.read(0..size, call.delivery), call.api.metrics.clone());
        let mut response = Response::new(body::sized(stream, size, metrics, place));
        response.headers_mut().insert(CONTENT_LENGTH, size.into());
        Ok(response)
    }

    async fn answer_other(_: OtherCall, what: Self::Other) -> Result<Response, Problem> {
        match what {}
    }

    fn render(problem: Problem) -> Response {
        let parts = problem.into_parts();
        let mut response = Response::new(Body::from(format!("toy: {}\n", parts.message)));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response
    }
}

const POLICY: &str = r#"
[auth]

[[auth.rules]]
subject = "alice"
permissions = ["pull:maven:team.*", "push:maven:team.*"]

[[tenants]]
name = "team"
namespaces = { maven = ["team.*"] }
rate_limit = { push = 2 }
"#;

#[tokio::test]
async fn a_second_format_needs_its_folder_and_a_line() {
    let world = World::with(POLICY).await.mounting(&[Mounted::of::<Oci>(), Mounted::of::<Toy>()]);
    world.users(&["alice", "bob"]).await;
    let (alice, bob) = (Shown::login("alice"), Shown::login("bob"));
    let path = format!("/toy/team.app/-/{}", digest(Algorithm::Sha256, b"a file"));
    let put = async |shown: &Shown| world.send(Method::PUT, &path, shown, &[], "a file").await;

    let refused = put(&Shown::Nothing).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.header(WWW_AUTHENTICATE.as_str()).starts_with("Basic "), "{refused:?}");
    assert!(refused.body.starts_with(b"toy: log in first"), "{refused:?}");
    assert_eq!(put(&bob).await.status, StatusCode::FORBIDDEN);

    let stored = put(&alice).await;
    assert_eq!((stored.status, stored.header("ratelimit-remaining")), (StatusCode::OK, "1;w=3600"));
    let read = world.ask(Method::GET, &path, &alice).await;
    assert_eq!((read.status, &read.body[..]), (StatusCode::OK, &b"a file"[..]));
    assert_eq!(read.header("x-content-type-options"), "nosniff");
    let head = world.ask(Method::HEAD, &path, &alice).await;
    assert_eq!((head.header("content-length"), head.body.len()), ("6", 0));

    // What bob may not see is to him as what is not there.
    let hidden = world.ask(Method::GET, &path, &bob).await;
    let absent = world.ask(Method::GET, &path.replace("team.app", "nowhere"), &bob).await;
    assert_eq!((hidden.status, hidden.body), (StatusCode::NOT_FOUND, absent.body));
    assert_eq!(world.ask(Method::GET, "/toy/x", &alice).await.status, StatusCode::BAD_REQUEST);

    assert_eq!(put(&alice).await.status, StatusCode::OK);
    assert_eq!(put(&alice).await.status, StatusCode::TOO_MANY_REQUESTS);
    let counted = world.api.metrics.encode();
    let line = r#"nora_http_requests_total{format="maven",route="File",status="429"} 1"#;
    assert!(counted.contains(line), "{counted}");
    assert_eq!(world.ask(Method::GET, "/v2/", &alice).await.status, StatusCode::OK);
}
