//! Logging in: tokens of the Docker flow, kept and renewed; ID tokens of CI, fetched and exchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use nora_client::workload::GithubActions;
use nora_client::{ClientError, Credentials, IdTokenError, Secret, Target};
use nora_domain::Digest;

use crate::server::{Server, json};

fn password() -> Credentials {
    Credentials::Password { username: "me".into(), password: Secret::new("pw") }
}

fn challenge(realm: &str, scope: &str) -> Response {
    let value = format!("Bearer realm=\"{realm}\",service=\"nora\",scope=\"{scope}\"");
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, value)]).into_response()
}

/// A registry that takes the newest token of the scope alone; each lives so long. Told to forget, it takes none that it
/// gave before.
async fn with_tokens(lives: u64) -> (Server, Arc<AtomicUsize>) {
    let server = Server::start().await;
    let newest = Arc::new(AtomicUsize::new(0));
    let (realm, count) = (format!("{}/v2/token", server.origin), newest.clone());
    server.plan(move |line, headers| {
        let shown = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
        if line.starts_with("GET /v2/token?") {
            assert_eq!(shown, Some("Basic bWU6cHc="));
            let token = format!("T{}", count.fetch_add(1, Ordering::SeqCst) + 1);
            let answer = serde_json::json!({
                "token": token, "access_token": token, "expires_in": lives, "issued_at": "now",
            });
            return Some(json(StatusCode::OK, &answer.to_string()));
        }
        let good = format!("Bearer T{}", count.load(Ordering::SeqCst));
        let repository = line.split('/').nth(2).unwrap();
        (shown != Some(&good)).then(|| challenge(&realm, &format!("repository:{repository}:pull")))
    });
    (server, newest)
}

fn trips(server: &Server) -> usize {
    server.log().iter().filter(|line| line.starts_with("GET /v2/token?")).count()
}

#[tokio::test]
async fn a_token_is_fetched_once_for_its_scope_however_many_ask_at_once() {
    let (server, newest) = with_tokens(3600).await;
    let digest = Digest::parse(&server.blob("a", b"bytes")).unwrap();
    let client = server.client(password());
    let asks = (0..8).map(|_| client.blob_exists("a", &digest));
    for answer in futures_util::future::join_all(asks).await {
        assert!(answer.unwrap());
    }
    assert_eq!(trips(&server), 1);
    // Another kind of request, of the same scope.
    client.blob("a", &digest, 100).await.unwrap();
    assert_eq!(trips(&server), 1);

    // The server takes it no more, though it has not ended.
    newest.fetch_add(1, Ordering::SeqCst);
    assert!(client.blob_exists("a", &digest).await.unwrap());
    assert_eq!(trips(&server), 2);
    // What was refused is fetched anew for everybody.
    client.blob("a", &digest, 100).await.unwrap();
    assert_eq!(trips(&server), 2);
}

#[tokio::test]
async fn a_token_that_ended_is_not_shown_any_more() {
    let (server, _) = with_tokens(0).await;
    let digest = Digest::parse(&server.blob("a", b"bytes")).unwrap();
    let client = server.client(password());
    for _ in 0..2 {
        assert!(client.blob_exists("a", &digest).await.unwrap());
    }
    let content = server.content.lock().unwrap();
    let shown: Vec<Option<&str>> = content.log.iter().map(|(_, shown)| shown.as_deref()).collect();
    let basic = Some("Basic bWU6cHc=");
    assert_eq!(shown, [None, basic, Some("Bearer T1"), None, basic, Some("Bearer T2")]);
}

#[tokio::test]
async fn a_token_endpoint_that_gives_no_token_is_told_and_not_believed() {
    for (answer, status) in [
        (r#"{"token":""}"#, None),
        ("{}", None),
        ("<html>", None),
        (r#"{"errors":[{"code":"DENIED","message":"wrong password"}]}"#, Some(401)),
        (r#"{"error":"invalid_grant","error_description":"wrong password"}"#, Some(401)),
    ] {
        let server = Server::start().await;
        let realm = format!("{}/v2/token", server.origin);
        server.plan(move |line, _| {
            if line.starts_with("GET /v2/token") {
                let code =
                    status.map_or(StatusCode::OK, |code| StatusCode::from_u16(code).unwrap());
                return Some(json(code, answer));
            }
            Some(challenge(&realm, "x"))
        });
        let client = server.client(password());
        let error = client.manifest("a", &Target::Tag("v".into())).await.unwrap_err();
        match status {
            None => assert!(matches!(error, ClientError::Malformed { .. }), "{answer}: {error}"),
            Some(code) => {
                assert_eq!(error.status().map(|status| status.as_u16()), Some(code));
                assert!(error.to_string().contains("wrong password"), "{error}");
            }
        }
        assert_eq!(server.log().len(), 2, "{answer}");
    }
}

const EXCHANGED: &str = r#"{
    "access_token": "nora_wl_secret",
    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "token_type": "Bearer",
    "expires_in": 900,
    "scope": "push:my-org/* pull:*"
}"#;

#[tokio::test]
async fn an_id_token_is_exchanged_without_any_other_login() {
    let server = Server::start().await;
    server.plan(|line, headers| {
        assert_eq!(line, "POST /auth/oidc/token");
        assert_eq!(headers[header::CONTENT_TYPE], "application/x-www-form-urlencoded");
        Some(json(StatusCode::OK, EXCHANGED))
    });
    let client = server.client(Credentials::Token(Secret::new("mine")));
    let token = client.exchange(&Secret::new("ey.J+/.x")).await.unwrap();
    assert_eq!(token.access_token.expose(), "nora_wl_secret");
    assert_eq!(token.expires_in, Duration::from_secs(900));
    assert_eq!(token.scope, ["push:my-org/*", "pull:*"]);
    assert!(!format!("{token:?}").contains("nora_wl_secret"));
    assert_eq!(server.content.lock().unwrap().log[0].1, None);

    server
        .plan(|line, _| (line == "POST /auth/oidc/revoke").then(|| StatusCode::OK.into_response()));
    client.revoke(&token.access_token).await.unwrap();
    assert_eq!(server.content.lock().unwrap().log[1].1, None);
}

#[tokio::test]
async fn what_is_posted_to_exchange_and_revoke_is_the_form_of_the_standard() {
    let server = Server::start().await;
    server.keep_bodies(StatusCode::OK, EXCHANGED);
    let client = server.client(Credentials::Anonymous);
    client.exchange(&Secret::new("ey.J+/.x")).await.unwrap();
    client.revoke(&Secret::new("nora_wl_s")).await.unwrap();
    let bodies = server.content.lock().unwrap().bodies.clone();
    assert_eq!(
        bodies,
        [
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &subject_token=ey.J%2B%2F.x\
             &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid_token",
            "token=nora_wl_s",
        ]
    );
}

#[tokio::test]
async fn a_refused_exchange_tells_why_and_what_to_ask() {
    let server = Server::start().await;
    let id_token = Secret::new("hunter2");
    let client = server.client(password());
    let ask = async |status: StatusCode, body: &'static str| {
        server.plan(move |_, _| Some(json(status, body)));
        client.exchange(&id_token).await.unwrap_err()
    };
    let body = r#"{"error":"invalid_grant","error_description":"no rule matches repository"}"#;
    let error = ask(StatusCode::FORBIDDEN, body).await;
    assert_eq!(
        error.to_string(),
        "the server exchanged no token: it answered 403 Forbidden; no rule matches repository (invalid_grant)"
    );
    assert!(error.hint().unwrap().contains("nora auth explain"));
    let error = ask(StatusCode::NOT_FOUND, "").await;
    assert!(error.hint().unwrap().contains("[auth.oidc]"), "{error}");
    for wrong in [
        "",
        "{}",
        r#"{"access_token":"hunter3","token_type":"mac","expires_in":1}"#,
        r#"{"access_token":"","token_type":"Bearer","expires_in":1}"#,
        r#"{"access_token":["hunter3"],"token_type":"Bearer","expires_in":1}"#,
    ] {
        let error = ask(StatusCode::OK, wrong).await;
        assert!(matches!(error, ClientError::Malformed { .. }), "{wrong}: {error}");
        let told = format!("{error} {error:?}");
        assert!(!told.contains("hunter"), "{told}");
    }
    // A challenge asks for a login that such a request never has.
    server.plan(|_, _| {
        let value = "Basic realm=\"NORA\"";
        Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, value)]).into_response())
    });
    let error = client.exchange(&id_token).await.unwrap_err();
    assert!(matches!(error, ClientError::NotExchanged { .. }), "{error}");
    let shown = server.content.lock().unwrap().log.iter().all(|(_, shown)| shown.is_none());
    assert!(shown, "no credentials were sent");
}

#[tokio::test]
async fn an_id_token_never_follows_a_redirect() {
    for status in
        [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT, StatusCode::FOUND]
    {
        let server = Server::start().await;
        let thief = Server::start().await;
        let location = format!("{}/auth/oidc/token", thief.origin);
        server.plan(move |_, _| {
            Some((status, [(header::LOCATION, location.clone())]).into_response())
        });
        let client = server.client(Credentials::Anonymous);
        let error = client.exchange(&Secret::new("ey.J.x")).await.unwrap_err();
        assert_eq!(error.status(), Some(status));
        client.revoke(&Secret::new("nora_wl_s")).await.unwrap_err();
        assert_eq!(thief.log(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn github_gives_an_id_token_for_the_audience() {
    let github = Server::start().await;
    github.plan(|line, _| {
        assert_eq!(line, "GET /idtoken?api-version=2.0&audience=https%3A%2F%2Fnora.example.com");
        Some(json(StatusCode::OK, r#"{"count":1,"value":"ey.J.x"}"#))
    });
    let url = format!("{}/idtoken?api-version=2.0", github.origin);
    let job = GithubActions::new(&url, &Secret::new("request")).unwrap();
    let token = job.id_token("https://nora.example.com").await.unwrap();
    assert_eq!(token.expose(), "ey.J.x");
    assert_eq!(github.content.lock().unwrap().log[0].1.as_deref(), Some("Bearer request"));

    github.plan(|_, _| Some(StatusCode::FORBIDDEN.into_response()));
    let error = job.id_token("a").await.unwrap_err();
    assert!(matches!(error, IdTokenError::Refused(StatusCode::FORBIDDEN)), "{error}");
    for nothing in ["", "{}", r#"{"value":""}"#] {
        github.plan(move |_, _| Some(json(StatusCode::OK, nothing)));
        let error = job.id_token("a").await.unwrap_err();
        assert!(matches!(error, IdTokenError::Malformed), "{nothing}: {error}");
    }
    github.plan(|_, _| Some("x".repeat(1 << 20).into_response()));
    assert!(matches!(job.id_token("a").await, Err(IdTokenError::Malformed)));
    // The right to ask stays where CI said.
    let thief = Server::start().await;
    let location = format!("{}/idtoken", thief.origin);
    github.plan(move |_, _| {
        Some(
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location.clone())])
                .into_response(),
        )
    });
    assert!(matches!(job.id_token("a").await, Err(IdTokenError::Refused(_))));
    assert_eq!(thief.log(), Vec::<String>::new());
}
