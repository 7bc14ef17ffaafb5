//! Signing in, waiting, refusing: what happens beneath every call.

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use nora_client::{ClientError, Credentials, Secret, Target};
use nora_domain::Digest;

use crate::server::{Server, json, sha256};

fn password() -> Credentials {
    Credentials::Password { username: "me".into(), password: Secret::new("pw") }
}

fn challenge(value: &str) -> axum::response::Response {
    let mut response = json(
        StatusCode::UNAUTHORIZED,
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"log in first"}]}"#,
    );
    response.headers_mut().insert(header::WWW_AUTHENTICATE, value.parse().unwrap());
    response
}

#[tokio::test]
async fn basic_is_met_with_the_password_and_remembered() {
    let server = Server::start().await;
    server.plan(|_, headers| match headers.get(header::AUTHORIZATION) {
        Some(value) if value == "Basic bWU6cHc=" => Some(StatusCode::OK.into_response()),
        _ => Some(challenge("Basic realm=\"NORA\"")),
    });
    let client = server.client(password());
    client.ping().await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(server.log().len(), 3, "one challenge, two answers");

    let error = server.client(Credentials::Anonymous).ping().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(
        error.to_string(),
        "GET /v2/ was answered with 401 Unauthorized; log in first (UNAUTHORIZED)"
    );
    assert!(error.hint().unwrap().contains("NORA_TOKEN"));
}

#[tokio::test]
async fn bearer_trades_the_password_for_a_token_of_the_scope() {
    let server = Server::start().await;
    let realm = format!("{}/v2/token", server.origin);
    server.plan(move |line, headers| {
        let authorization = headers.get(header::AUTHORIZATION).map(|v| v.to_str().unwrap());
        if line.starts_with("GET /v2/token?") {
            let scoped = line.contains("service=nora")
                && line.contains("scope=repository%3Aa%3Apull")
                && line.contains("scope=repository%3Ab%3Apull");
            return Some(match authorization {
                Some("Basic bWU6cHc=") if scoped => json(StatusCode::OK, r#"{"token":"T"}"#),
                _ => StatusCode::FORBIDDEN.into_response(),
            });
        }
        (authorization != Some("Bearer T")).then(|| {
            challenge(&format!(
                "Bearer realm=\"{realm}\",service=\"nora\",scope=\"repository:a:pull repository:b:pull\""
            ))
        })
    });
    let body = r#"{"schemaVersion":2}"#;
    server.manifest("a", "v1", "application/vnd.oci.image.manifest.v1+json", body);
    let manifest = server.client(password()).manifest("a", &Target::Tag("v1".into())).await;
    assert_eq!(manifest.unwrap().digest.to_string(), sha256(body.as_bytes()));
}

#[tokio::test]
async fn a_password_never_follows_a_challenge_to_another_origin() {
    let server = Server::start().await;
    let thief = Server::start().await;
    let realm = format!("{}/token", thief.origin);
    server.plan(move |_, _| Some(challenge(&format!("Bearer realm=\"{realm}\""))));
    let error = server.client(password()).ping().await.unwrap_err();
    assert!(matches!(error, ClientError::ForeignOrigin { .. }), "{error}");
    assert_eq!(thief.log(), Vec::<String>::new());
}

#[tokio::test]
async fn a_redirect_to_another_origin_carries_no_credentials() {
    let server = Server::start().await;
    let other = Server::start().await;
    let digest = other.blob("a", b"elsewhere");
    let location = format!("{}/v2/a/blobs/{digest}", other.origin);
    server.plan(move |_, _| {
        Some(
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location.clone())])
                .into_response(),
        )
    });
    let client = server.client(Credentials::Token(Secret::new("T")));
    let bytes = client.blob("a", &Digest::parse(&digest).unwrap(), 100).await.unwrap();
    assert_eq!(&bytes[..], b"elsewhere");
    assert_eq!(server.content.lock().unwrap().log[0].1.as_deref(), Some("Bearer T"));
    assert_eq!(other.content.lock().unwrap().log[0].1, None);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_says_and_not_for_ever() {
    let server = Server::start().await;
    let mut turned_away = 0;
    server.plan(move |_, _| {
        turned_away += 1;
        (turned_away <= 2).then(|| {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "0")]).into_response()
        })
    });
    let client = server.client(Credentials::Anonymous);
    assert_eq!(client.catalog().next_page().await.unwrap(), Some(Vec::new()));
    assert_eq!(server.log().len(), 3);

    let server = Server::start().await;
    server.plan(|_, _| {
        Some((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")]).into_response())
    });
    let error = server.client(Credentials::Anonymous).ping().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(server.log().len(), 5);

    // A pause that nobody would wait for is not waited for.
    let server = Server::start().await;
    server.plan(|_, _| {
        Some((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "3600")]).into_response())
    });
    server.client(Credentials::Anonymous).ping().await.unwrap_err();
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn bytes_that_are_not_what_the_digest_names_are_refused() {
    let server = Server::start().await;
    let digest = server.blob("a", b"right");
    server.plan(|_, _| Some("wrong".into_response()));
    let client = server.client(Credentials::Anonymous);
    let digest = Digest::parse(&digest).unwrap();
    let error = client.blob("a", &digest, 100).await.unwrap_err();
    assert!(matches!(error, ClientError::DigestMismatch { .. }), "{error}");
    let error = client.manifest("a", &Target::Digest(digest)).await.unwrap_err();
    assert!(matches!(error, ClientError::DigestMismatch { .. }), "{error}");
    let error = client.blob("a", &digest, 4).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { bytes_max: 4, .. }), "{error}");
}

#[tokio::test]
async fn a_list_that_points_to_itself_ends() {
    let server = Server::start().await;
    server.plan(|line, _| {
        let path = line.strip_prefix("GET ").unwrap();
        let link = format!("<{path}>; rel=\"next\"");
        Some(([(header::LINK, link)], r#"{"repositories":["a"]}"#).into_response())
    });
    let mut catalog = server.client(Credentials::Anonymous).catalog();
    let error = catalog.next_page().await.unwrap_err();
    assert!(matches!(error, ClientError::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start().await;
    let mut gone = server.clone();
    gone.origin = format!("http://{port}");
    let error = gone.client(Credentials::Anonymous).ping().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--addr"));
}
