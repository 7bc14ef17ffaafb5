//! Docker's token flow: what sessions hold, and when they end.

use std::sync::Arc;

use http::{Method, StatusCode};
use nora_app::Registry;
use nora_auth::credential::{ApiToken, Credential, Secret};
use nora_domain::{
    AccountName, Digest, Format, Reference, RepositoryKey, RepositoryPath, TagName, TokenId,
};

use crate::testkit::{PASSWORD, Shown, World};

const POLICY: &str = r#"
[auth]
[[auth.rules]]
subject = "alice"
permissions = ["pull:team/*", "overwrite:team/app", "pull:shared"]
"#;

async fn world() -> World {
    let world = World::with(POLICY).await;
    world.users(&["alice"]).await;
    for repository in ["team/app", "team/other", "shared"] {
        world.push(&Shown::admin(), repository, "v1", b"layer").await.unwrap();
    }
    world
}

fn app(registry: &Registry) -> RepositoryKey {
    registry.repository(Format::Oci, RepositoryPath::parse("team/app").unwrap())
}

/// What a request does that goes on: gives what `v1` names another tag.
async fn tag_v1_as(registry: &Registry, name: &str) -> Result<Digest, nora_app::Error> {
    let v1 = Reference::Tag(TagName::parse("v1").unwrap());
    registry.tags().set(app(registry), TagName::parse(name).unwrap(), v1).await
}

#[tokio::test]
async fn a_session_holds_what_was_asked_for_and_is_permitted() {
    let world = world().await;
    let alice = Shown::login("alice");
    let scopes = [
        "repository:team/app:pull,push",
        "repository:team/other:pull,push",
        "repository:secret:pull",
    ];
    let answer = world.session(&alice, &scopes).await;
    assert_eq!(answer.status, StatusCode::OK);
    let document = answer.json();
    assert_eq!(document["scope"], "repository:team/app:pull,push repository:team/other:pull");
    assert_eq!(document["token"], document["access_token"]);
    assert!(document["expires_in"].as_u64().unwrap() >= 60);
    assert!(document["token"].as_str().unwrap().starts_with("nora_st_"));
    assert_eq!(answer.header("cache-control"), "no-store");
    // Several scopes in one parameter are the same.
    let joined = world.session(&alice, &[&scopes.join("%20")]).await;
    assert_eq!(joined.json()["scope"], document["scope"]);

    let session = Shown::Bearer(document["token"].as_str().unwrap().to_owned());
    world.push(&session, "team/app", "v2", b"another").await.unwrap();
    let pulled = world.ask(Method::GET, "/v2/team/other/manifests/v1", &session).await;
    assert_eq!(pulled.status, StatusCode::OK);
    // What its holder could do with another session makes the client ask for one.
    let more = world.ask(Method::GET, "/v2/shared/manifests/v1", &session).await;
    assert_eq!(more.status, StatusCode::UNAUTHORIZED);
    assert!(more.header("www-authenticate").contains("scope=\"repository:shared:pull\""));
    assert!(more.header("www-authenticate").contains("error=\"insufficient_scope\""));
    // What they could not is refused for good.
    let never = world.ask(Method::POST, "/v2/team/other/blobs/uploads/", &session).await;
    assert_eq!(never.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn forms_get_and_refresh_sessions() {
    let world = world().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = format!(
        "grant_type=password&username=alice&password={}&service=nora&access_type=offline\
         &scope=repository:team/app:pull",
        PASSWORD.replace(' ', "+")
    );
    let answer = world.send(Method::POST, "/v2/token", &Shown::Nothing, &form, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let refresh = answer.json()["refresh_token"].as_str().unwrap().to_owned();
    let ask = async |refresh: &str| {
        let body = format!(
            "grant_type=refresh_token&refresh_token={refresh}&scope=repository:team/other:pull"
        );
        world.send(Method::POST, "/v2/token", &Shown::Nothing, &form, body).await
    };
    let answer = ask(&refresh).await;
    assert_eq!(answer.json()["scope"], "repository:team/other:pull");
    assert_eq!(answer.json()["refresh_token"], refresh, "it is never renewed by itself");
    // A refresh token opens nothing by itself, and a session refreshes nothing.
    let shown = Shown::Bearer(refresh.clone());
    assert_eq!(world.ask(Method::GET, "/v2/", &shown).await.status, StatusCode::UNAUTHORIZED);
    let session = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(ask(&session).await.status, StatusCode::UNAUTHORIZED);
    // Another password ends it.
    let hash = nora_auth::password::hash("another password").unwrap();
    let alice = AccountName::parse("alice").unwrap();
    world.registry.accounts().set_password(alice, hash).await.unwrap();
    world.guard.reload().await.unwrap();
    assert_eq!(ask(&refresh).await.status, StatusCode::UNAUTHORIZED);
    for body in ["grant_type=password&username=alice&password=x", "grant_type=x", ""] {
        let answer = world.send(Method::POST, "/v2/token", &Shown::Nothing, &form, body).await;
        assert!(matches!(answer.status.as_u16(), 400 | 401), "{body}: {}", answer.status);
    }
}

#[tokio::test]
async fn a_refresh_token_is_ended_alone_and_with_its_sessions() {
    let world = world().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let post = async |path: &str, body: String| {
        world.send(Method::POST, path, &Shown::Nothing, &form, body).await
    };
    let path = "/v2/token?service=nora&offline_token=true&scope=repository:team/app:pull";
    let log_in = async || world.ask(Method::GET, path, &Shown::login("alice")).await.json();
    let text =
        |document: &serde_json::Value, field: &str| document[field].as_str().unwrap().to_owned();
    let (lost, kept) = (log_in().await, log_in().await);
    let refreshed = async |document: &serde_json::Value| {
        let refresh = text(document, "refresh_token");
        let body = format!(
            "grant_type=refresh_token&refresh_token={refresh}&scope=repository:team/app:pull"
        );
        post("/v2/token", body).await
    };
    let asked = async |session: &str| {
        let shown = Shown::Bearer(session.to_owned());
        world.ask(Method::GET, "/v2/team/app/manifests/v1", &shown).await.status.as_u16()
    };
    let later = text(&refreshed(&lost).await.json(), "token");
    assert_eq!((asked(&text(&lost, "token")).await, asked(&later).await), (200, 200));
    // Its client, or whoever found it, ends it.
    let revoke = format!("token={}&token_type_hint=refresh_token", text(&lost, "refresh_token"));
    for _ in 0..2 {
        assert_eq!(post("/auth/oidc/revoke", revoke.clone()).await.status, StatusCode::OK);
        world.guard.reload().await.unwrap();
        assert_eq!(refreshed(&lost).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!((asked(&text(&lost, "token")).await, asked(&later).await), (401, 401));
    }
    // The other login goes on, and its sessions are not ended alone.
    assert_eq!(refreshed(&kept).await.status, StatusCode::OK);
    let session = format!("token={}", text(&kept, "token"));
    let refused = post("/auth/oidc/revoke", session).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.json()["error"], "unsupported_token_type");
    assert_eq!(asked(&text(&kept, "token")).await, 200);
}

#[tokio::test]
async fn what_a_session_came_from_ends_it() {
    let world = world().await;
    let scopes = ["repository:team/app:pull"];
    let token = world.token("alice", "laptop", &["pull:team/*"]).await;
    let of_token = world.session_token(&Shown::Bearer(token.clone()), &scopes).await;
    let of_password = world.session_token(&Shown::login("alice"), &scopes).await;
    let asked = async |shown: &Shown| {
        world.ask(Method::GET, "/v2/team/app/manifests/v1", shown).await.status.as_u16()
    };
    assert_eq!((asked(&of_token).await, asked(&of_password).await), (200, 200));
    let id = ApiToken::parse(&token).unwrap().id;
    world.registry.tokens().revoke(TokenId(id)).await.unwrap();
    world.guard.reload().await.unwrap();
    assert_eq!((asked(&of_token).await, asked(&of_password).await), (401, 200));
    assert_eq!(asked(&Shown::Bearer(token)).await, 401);
    let alice = AccountName::parse("alice").unwrap();
    world.registry.accounts().remove(alice).await.unwrap();
    world.guard.reload().await.unwrap();
    assert_eq!(asked(&of_password).await, 401);
}

#[tokio::test]
async fn a_chosen_password_ends_what_the_administrator_had() {
    let world = world().await;
    let scopes = ["repository:team/app:pull"];
    let session = world.session_token(&Shown::admin(), &scopes).await;
    let asked = async |shown: &Shown| {
        world.ask(Method::GET, "/v2/team/app/manifests/v1", shown).await.status.as_u16()
    };
    assert_eq!((asked(&session).await, asked(&Shown::admin()).await), (200, 200));
    let hash = nora_auth::password::hash("a password of my own").unwrap();
    let admin = AccountName::parse("admin").unwrap();
    world.registry.accounts().create(admin, false, hash, Vec::new()).await.unwrap();
    world.guard.reload().await.unwrap();
    assert_eq!((asked(&session).await, asked(&Shown::admin()).await), (401, 401));
    let chosen = Shown::Basic("admin".into(), "a password of my own".into());
    assert_eq!(asked(&chosen).await, 200);
}

#[tokio::test]
async fn who_is_known_is_not_kept_out_by_who_guesses() {
    let world = world().await;
    let asked = async |password: &str| {
        let shown = Shown::Basic("alice".into(), password.into());
        world.ask(Method::GET, "/v2/", &shown).await.status.as_u16()
    };
    assert_eq!(asked(PASSWORD).await, 200);
    for _ in 0..5 {
        assert_eq!(asked("a guess").await, 401);
    }
    // Something changes that has nothing to do with her: she is still known, and her password is not hashed again.
    world.users(&["bob"]).await;
    assert_eq!((asked(PASSWORD).await, asked("a guess").await), (200, 429));
    // What does have to do with her makes her log in, and that has to wait.
    let hash = nora_auth::password::hash(PASSWORD).unwrap();
    let alice = AccountName::parse("alice").unwrap();
    world.registry.accounts().set_password(alice, hash).await.unwrap();
    world.guard.reload().await.unwrap();
    assert_eq!(asked(PASSWORD).await, 429);
}

#[tokio::test]
async fn what_is_revoked_while_a_request_runs_ends_it() {
    let world = world().await;
    let token = world.token("alice", "laptop", &[]).await;
    let credential = Credential::Bearer(Secret::new(&token));
    let caller = world.guard.recognise(credential, None, "request".into()).await.unwrap();
    let registry = world.registry.by(Arc::new(caller));
    let again = async |name: &str| tag_v1_as(&registry, name).await;
    again("v2").await.unwrap();
    let id = ApiToken::parse(&token).unwrap().id;
    world.registry.tokens().revoke(TokenId(id)).await.unwrap();
    let refused = again("v3").await.unwrap_err();
    assert!(matches!(refused, nora_app::Error::NotPermitted), "{refused:?}");
    let v3 = TagName::parse("v3").unwrap();
    assert!(world.registry.tags().resolve(&app(&registry), &v3).await.is_err());
}

#[tokio::test]
async fn what_a_new_password_ended_sets_no_password() {
    let world = world().await;
    let shown = Credential::of_login("alice".into(), Secret::new(PASSWORD));
    let old = world.guard.recognise(shown, None, "request".into()).await.unwrap();
    let alice = AccountName::parse("alice").unwrap();
    let hash = |password: &str| nora_auth::password::hash(password).unwrap();
    world
        .registry
        .accounts()
        .set_password(alice.clone(), hash("set by the administrator"))
        .await
        .unwrap();
    let by_old = world.registry.by(Arc::new(old));
    let refused =
        by_old.accounts().set_password(alice, hash("set by the thief")).await.unwrap_err();
    assert!(matches!(refused, nora_app::Error::NotPermitted), "{refused:?}");
}

#[tokio::test]
async fn a_session_ends_whatever_it_asks_for() {
    let world = world().await;
    let scopes = ["repository:team/app:pull"];
    let session = world.session_token(&Shown::login("alice"), &scopes).await;
    world.clock.advance(200_000);
    let next = world.session(&session, &scopes).await.json();
    assert_eq!(next["expires_in"], 100);
    let next = Shown::Bearer(next["token"].as_str().unwrap().to_owned());
    let asked =
        async || world.ask(Method::GET, "/v2/team/app/manifests/v1", &next).await.status.as_u16();
    assert_eq!(asked().await, 200);
    world.clock.advance(100_000);
    assert_eq!(asked().await, 401);
}

#[tokio::test]
async fn who_was_asked_for_nothing_is_asked_once_a_policy_asks() {
    let world = World::without_policy(true).await;
    world.push(&Shown::Nothing, "team/app", "v1", b"layer").await.unwrap();
    let caller = world.guard.recognise(Credential::None, None, "request".into()).await.unwrap();
    let registry = world.registry.by(Arc::new(caller));
    let again = async |name: &str| tag_v1_as(&registry, name).await;
    again("v2").await.unwrap();
    world.apply("[auth]\n").await;
    let refused = again("v3").await.unwrap_err();
    assert!(matches!(refused, nora_app::Error::NotPermitted), "{refused:?}");
}

#[tokio::test]
async fn a_token_is_made_under_the_policy_that_was_looked_at() {
    let world = world().await;
    let epoch = world.registry.access().counters().await.unwrap().policy_epoch;
    world.apply("[auth]\n").await;
    let token = nora_identity::testkit::MemoryNode::new_token("alice", "late", &[]).1;
    let late = nora_app::tokens::NewToken { policy: Some(epoch), ..token };
    let refused = world.registry.tokens().create(late).await.unwrap_err();
    assert!(matches!(refused, nora_app::Error::PolicyChanged), "{refused:?}");
}

#[tokio::test]
async fn time_ends_tokens_and_sessions() {
    let world = world().await;
    let token = Shown::Bearer(world.token("alice", "laptop", &[]).await);
    let session = world.session_token(&token, &["repository:team/app:pull"]).await;
    let asked = async |shown: &Shown| {
        world.ask(Method::GET, "/v2/team/app/manifests/v1", shown).await.status.as_u16()
    };
    assert_eq!((asked(&token).await, asked(&session).await), (200, 200));
    world.clock.advance(301_000);
    assert_eq!((asked(&token).await, asked(&session).await), (200, 401));
    world.clock.advance(3_600_000);
    assert_eq!(asked(&token).await, 401);
}

#[tokio::test]
async fn a_token_never_gives_more_than_its_owner_has() {
    let world = world().await;
    let wide = Shown::Bearer(world.token("alice", "wide", &["admin:*"]).await);
    assert_eq!(world.ask(Method::GET, "/metrics", &wide).await.status, StatusCode::FORBIDDEN);
    let narrow = Shown::Bearer(world.token("alice", "narrow", &["pull:team/app"]).await);
    let asked = async |path: &str| world.ask(Method::GET, path, &narrow).await.status.as_u16();
    assert_eq!(asked("/v2/team/app/manifests/v1").await, 200);
    assert_eq!(asked("/v2/team/other/manifests/v1").await, 404);
    let push = world.ask(Method::POST, "/v2/team/app/blobs/uploads/", &narrow).await;
    assert_eq!(push.status, StatusCode::FORBIDDEN);
    let session = world.session(&narrow, &["repository:team/app:pull,push"]).await;
    assert_eq!(session.json()["scope"], "repository:team/app:pull");
}
