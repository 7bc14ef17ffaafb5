//! Docker's token flow: what sessions hold, and when they end.

use http::{Method, StatusCode};
use nora_domain::name::AccountName;

use crate::world::{PASSWORD, Shown, World};

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
    // A refresh token opens nothing by itself, and a session refreshes nothing.
    let shown = Shown::Bearer(refresh.clone());
    assert_eq!(world.ask(Method::GET, "/v2/", &shown).await.status, StatusCode::UNAUTHORIZED);
    let session = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(ask(&session).await.status, StatusCode::UNAUTHORIZED);
    // Another password ends it.
    let hash = nora_auth::password::hash("another password").unwrap();
    let alice = AccountName::parse("alice").unwrap();
    world.registry.set_password(alice, hash).await.unwrap();
    world.guard.reload().await.unwrap();
    assert_eq!(ask(&refresh).await.status, StatusCode::UNAUTHORIZED);
    for body in ["grant_type=password&username=alice&password=x", "grant_type=x", ""] {
        let answer = world.send(Method::POST, "/v2/token", &Shown::Nothing, &form, body).await;
        assert!(matches!(answer.status.as_u16(), 400 | 401), "{body}: {}", answer.status);
    }
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
    let id = nora_auth::credential::ApiToken::parse(&token).unwrap().id;
    world.registry.revoke_token(nora_domain::record::TokenId(id)).await.unwrap();
    world.guard.reload().await.unwrap();
    assert_eq!((asked(&of_token).await, asked(&of_password).await), (401, 200));
    assert_eq!(asked(&Shown::Bearer(token)).await, 401);
    let alice = AccountName::parse("alice").unwrap();
    world.registry.remove_account(alice).await.unwrap();
    world.guard.reload().await.unwrap();
    assert_eq!(asked(&of_password).await, 401);
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
