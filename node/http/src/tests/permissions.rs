//! Every route asks; every credential is judged alike; making, moving and keeping tags are three things.

use http::{Method, StatusCode};
use nora_app::tokens::NewToken;
use nora_auth::credential::{ApiToken, TokenKind};
use nora_domain::{AccessTokenRecord, AccountName, OwnerName, Timestamp, TokenId, TokenName};

use super::{Takes, addresses};
use crate::Access;
use crate::testkit::{Answer, NOW, PASSWORD, Shown, World};
use nora_config::{Overrides, parse};

const POLICY: &str = r#"
[auth]
anonymous = ["pull:public/*"]

[[auth.rules]]
subject = "alice"
permissions = ["pull:team/*", "push:team/*", "delete:team/*"]

[[auth.rules]]
subject = "lead"
permissions = ["pull:team/*", "overwrite:team/*", "delete:team/*"]

[[auth.rules]]
subject = "boss"
permissions = ["admin:*"]

[[policy.immutable]]
match = "team/*"
tags = ["v*"]
"#;

async fn world() -> World {
    let world = World::with(POLICY).await;
    world.users(&["alice", "lead", "boss", "nobody"]).await;
    world
}

/// Requests for an address.
fn samples(path: &str, methods: &[&str]) -> Vec<(Method, String)> {
    let own: &[&str] = match path {
        "/v2/token" => &["GET", "POST"],
        "/auth/oidc/token" | "/auth/oidc/revoke" => &["POST"],
        "/api/v1/whoami" | "/api/v1/usage" | "/api/openapi.json" => &["GET"],
        "/health" | "/ready" | "/metrics" => &["GET"],
        // Methods that it does not take are asked for the same right.
        path if path.ends_with("/manifests/{reference}") => &["PATCH"],
        path if path.ends_with("/tags/list") => &["POST"],
        other if methods.is_empty() => {
            panic!("{other} has no sample here: say who may ask it what")
        }
        _ => &[],
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    let path = path
        .replace("{name}", "team/app")
        .replace("{reference}", "one")
        .replace("{digest}", &digest)
        .replace("{session}", "00000001000000000000000000000000");
    assert!(!path.contains('{'), "{path} has a part without a sample here");
    let methods = methods.iter().chain(own);
    methods.map(|method| (method.parse().unwrap(), path.clone())).collect()
}

#[tokio::test]
async fn every_route_asks() {
    let world = world().await;
    for (route, takes, methods) in addresses() {
        for (method, path) in samples(route, methods) {
            let statuses =
                async |shown: &Shown| world.ask(method.clone(), &path, shown).await.status.as_u16();
            let anonymous = statuses(&Shown::Nothing).await;
            let nobody = statuses(&Shown::login("nobody")).await;
            let boss = statuses(&Shown::login("boss")).await;
            let wrong = statuses(&Shown::Basic("boss".into(), "not the password".into())).await;
            let told = format!("{method} {path}: {anonymous} {nobody} {boss} {wrong}");
            assert!(boss != 401 && boss != 403, "{told}");
            if takes != Takes::Page(Access::Probe) {
                assert!(matches!(wrong, 401 | 429), "a wrong password is taken for none: {told}");
            }
            let expected = match takes {
                Takes::Page(Access::Probe | Access::Public) => (200, 200),
                Takes::Page(Access::Recognised) => (401, 200),
                Takes::Page(Access::Administrator) => (401, 403),
                Takes::Page(Access::Credential) => {
                    assert!(anonymous < 404, "{told}");
                    continue;
                }
                Takes::Right => (401, unpermitted(&method, &path)),
            };
            assert_eq!((anonymous, nobody), expected, "{told}");
        }
    }
    assert_eq!(world.ask(Method::GET, "/nowhere", &Shown::Nothing).await.status, 404);
}

/// What a caller is told who may not do what is asked: as if nothing were there, where reading is all that is asked.
fn unpermitted(method: &Method, path: &str) -> u16 {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match path {
        // A list of what the caller may see, which is nothing; and nothing refers to what is not there.
        path if path.contains("_catalog") || path.contains("referrers") => 200,
        path if path.contains("uploads") => 403,
        path if reads || path.contains("tags/list") => 404,
        _ => 403,
    }
}

fn outcome(answer: Result<(String, String), Answer>) -> u16 {
    answer.map_or_else(|answer| answer.status.as_u16(), |_| 201)
}

/// What alice may do, for those that log in otherwise than she does.
const ALIKE: &str = r#"
[[auth.rules]]
subject = "user:carol"
permissions = ["pull:team/*", "push:team/*", "delete:team/*"]

[[auth.rules]]
subject = "robot:ci"
permissions = ["pull:team/*", "push:team/*", "delete:team/*"]

[auth.oidc]
enabled = true

[[auth.oidc.providers]]
name = "forge"
issuer = "https://forge.example"
audience = "https://nora.example"

[[auth.oidc.providers.rules]]
match = { sub = "project:team/app" }
permissions = ["pull:team/*", "push:team/*", "delete:team/*"]
"#;

/// Carol's hash in the htpasswd file: bcrypt of [`PASSWORD`].
const CAROL: &str = "$2y$04$n3mGlF0vCDvNOT0aNSuGM.xDk91RHffDn.mT8NJHnv5oz.mvI.UjS";

/// The policy with those rules and that login, and a robot.
async fn alike(world: &World) {
    let loaded = parse(&format!("{POLICY}{ALIKE}"), None, &Overrides::default()).unwrap();
    let mut document = loaded.config.policy;
    document.auth.as_mut().unwrap().htpasswd.insert("carol".to_owned(), CAROL.to_owned());
    world.apply_document(&document).await;
    let robot = AccountName::parse("ci").unwrap();
    world.registry.accounts().create(robot, true, String::new(), Vec::new()).await.unwrap();
    world.guard.reload().await.unwrap();
}

/// Makes a token of a robot, or of a workload as an exchange makes it: such a one is found by nobody, uses up what it was
/// exchanged for, and its permissions are all that it has.
async fn token_of(world: &World, owner: &str, permissions: &[&str]) -> String {
    let robot = owner.strip_prefix("robot:").map(|name| AccountName::parse(name).unwrap());
    let kind = if robot.is_some() { TokenKind::Personal } else { TokenKind::Workload };
    let mut random = [0; 32];
    getrandom::fill(&mut random).unwrap();
    let secret = ApiToken::generate(kind, random);
    let record = AccessTokenRecord {
        is_workload: robot.is_none(),
        owner: owner.to_owned(),
        name: secret.id_hex(),
        secret_hash: secret.secret_hash(),
        permissions: permissions.iter().map(ToString::to_string).collect(),
        claims: br#"{"iss":"https://forge.example","sub":"project:team/app"}"#.to_vec(),
        created_at: NOW,
        expires_at: NOW.plus_millis(900_000),
        last_used_at: Timestamp(0),
    };
    let named = || (OwnerName::parse(owner).unwrap(), TokenName::parse(&record.name).unwrap());
    let token = NewToken {
        id: TokenId(secret.id),
        found_by: robot.is_some().then(named),
        assertion: robot.is_none().then_some(([7; 32], record.expires_at)),
        account: robot,
        record,
        policy: None,
    };
    world.registry.tokens().create(token).await.unwrap();
    secret.reveal()
}

#[tokio::test]
async fn each_kind_of_credential_is_judged_alike() {
    let world = world().await;
    alike(&world).await;
    let admin = Shown::admin();
    world.push(&admin, "team/app", "one", b"layer").await.unwrap();
    world.push(&admin, "other/app", "one", b"layer").await.unwrap();
    let token = world.token("alice", "laptop", &[]).await;
    let scopes = [
        "repository:team/app:pull,push,delete",
        "repository:other/app:pull,push,delete",
        "repository:team/new:pull,push",
    ];
    let session = world.session_token(&Shown::login("alice"), &scopes).await;
    let of_token = world.session_token(&Shown::Bearer(token.clone()), &scopes).await;
    let robot = Shown::Bearer(token_of(&world, "robot:ci", &[]).await);
    let permissions = ["pull:team/*", "push:team/*", "delete:team/*"];
    let workload = token_of(&world, "oidc:forge:project:team/app", &permissions).await;
    let workload = Shown::Bearer(workload);
    let of_workload = world.session_token(&workload, &scopes).await;
    let kinds = [
        Shown::login("alice"),
        Shown::Bearer(token.clone()),
        Shown::Basic("whoever".into(), token.clone()),
        Shown::Basic("__token__".into(), token),
        session,
        of_token,
        // A line of the htpasswd file.
        Shown::login("carol"),
        robot,
        workload,
        of_workload,
    ];
    // What each of them is answered, and what the administrator is.
    let asked = [
        (Method::GET, "/v2/team/app/manifests/one", 200, 200),
        (Method::GET, "/v2/other/app/manifests/one", 404, 200),
        (Method::GET, "/v2/team/app/tags/list", 200, 200),
        (Method::GET, "/v2/other/app/tags/list", 404, 200),
        (Method::POST, "/v2/team/new/blobs/uploads/", 202, 202),
        (Method::POST, "/v2/other/app/blobs/uploads/", 403, 202),
        (Method::DELETE, "/v2/other/app/manifests/one", 403, 202),
        (Method::GET, "/metrics", 403, 200),
        (Method::GET, "/api/v1/usage", 403, 200),
    ];
    for shown in &kinds {
        for (method, path, expected, _) in &asked {
            let answer = world.ask(method.clone(), path, shown).await;
            assert_eq!(answer.status.as_u16(), *expected, "{method} {path} as {shown:?}");
        }
    }
    // Last, for what the administrator deletes is gone.
    for (method, path, _, expected) in asked {
        let answer = world.ask(method.clone(), path, &admin).await;
        assert_eq!(answer.status.as_u16(), expected, "{method} {path} as the administrator");
    }
}

#[tokio::test]
async fn a_workload_keeps_what_its_rules_give_now() {
    let world = world().await;
    alike(&world).await;
    world.push(&Shown::admin(), "team/app", "one", b"layer").await.unwrap();
    let permissions = ["pull:team/*", "push:team/*", "delete:team/*"];
    let workload = token_of(&world, "oidc:forge:project:team/app", &permissions).await;
    let workload = Shown::Bearer(workload);
    let scopes = ["repository:team/app:pull,push"];
    let session = world.session_token(&workload, &scopes).await;
    let asked = async |shown: &Shown| {
        let pull = world.ask(Method::GET, "/v2/team/app/manifests/one", shown).await;
        let push = world.ask(Method::POST, "/v2/team/app/blobs/uploads/", shown).await;
        (pull.status.as_u16(), push.status.as_u16())
    };
    assert_eq!((asked(&workload).await, asked(&session).await), ((200, 202), (200, 202)));
    let rules = |rule: &str| {
        let whole = r#"permissions = ["pull:team/*", "push:team/*", "delete:team/*"]"#;
        let (before, _) = ALIKE.rsplit_once(whole).unwrap();
        format!("{POLICY}{before}{rule}")
    };
    // Its rule gives less.
    world.apply(&rules(r#"permissions = ["pull:team/*"]"#)).await;
    assert_eq!((asked(&workload).await, asked(&session).await), ((200, 403), (200, 403)));
    // Its rule is another's now.
    let others = rules(r#"permissions = ["pull:team/*"]"#).replace("project:team/app", "project:x");
    world.apply(&others).await;
    assert_eq!((asked(&workload).await, asked(&session).await), ((401, 401), (401, 401)));
    // And back.
    world.apply(&format!("{POLICY}{ALIKE}")).await;
    assert_eq!((asked(&workload).await, asked(&session).await), ((200, 202), (200, 202)));
}

#[tokio::test]
async fn making_a_tag_and_moving_it_are_two_things() {
    let world = world().await;
    let (alice, lead) = (Shown::login("alice"), Shown::login("lead"));
    let (first, _) = world.push(&alice, "team/app", "latest", b"one").await.unwrap();
    // The same again changes nothing, and is no overwriting.
    world.push(&alice, "team/app", "latest", b"one").await.unwrap();
    let refused = world.push(&alice, "team/app", "latest", b"two").await.unwrap_err();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.json()["errors"][0]["code"], "DENIED");
    let named = async || {
        let answer = world.ask(Method::HEAD, "/v2/team/app/manifests/latest", &lead).await;
        answer.header("docker-content-digest").to_owned()
    };
    assert_eq!(named().await, first, "a refused push moved the tag");
    let (second, _) = world.push(&lead, "team/app", "latest", b"two").await.unwrap();
    assert_eq!(named().await, second);
}

#[tokio::test]
async fn immutable_tags_stay_whoever_asks_and_however() {
    let world = world().await;
    let (alice, lead, admin) = (Shown::login("alice"), Shown::login("lead"), Shown::admin());
    let (digest, _) = world.push(&alice, "team/app", "v1", b"one").await.unwrap();
    let by_tag = "/v2/team/app/manifests/v1";
    let by_digest = format!("/v2/team/app/manifests/{digest}");
    for shown in [&alice, &lead, &admin] {
        let moved = world.push(shown, "team/app", "v1", b"two").await;
        assert_eq!(outcome(moved), 403, "moved by {shown:?}");
        for path in [by_tag, &by_digest] {
            let deleted = world.ask(Method::DELETE, path, shown).await;
            assert_eq!(deleted.status, StatusCode::FORBIDDEN, "{path} deleted by {shown:?}");
        }
    }
    // A second tag of the same artifact does not open a way around.
    world.push(&lead, "team/app", "other", b"one").await.unwrap();
    assert_eq!(world.ask(Method::DELETE, &by_digest, &lead).await.status, 403);
    assert_eq!(world.ask(Method::DELETE, "/v2/team/app/manifests/other", &lead).await.status, 202);
    let there = world.ask(Method::GET, by_tag, &lead).await;
    assert_eq!(there.header("docker-content-digest"), digest);
    // What an immutable index lists stays with it: without its parts it could not be pulled.
    let (part, _) = world.push(&lead, "team/app", "part", b"part").await.unwrap();
    let by_part = format!("/v2/team/app/manifests/{part}");
    let got = world.ask(Method::GET, &by_part, &lead).await;
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "manifests": [{
            "mediaType": got.header("content-type"), "digest": part, "size": got.body.len(),
        }],
    });
    let (path, kind) = ("/v2/team/app/manifests/v2", [("content-type", kind)]);
    let put = world.send(Method::PUT, path, &alice, &kind, index.to_string()).await;
    assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
    for shown in [&alice, &lead, &admin] {
        let deleted = world.ask(Method::DELETE, &by_part, shown).await;
        assert_eq!(deleted.status, StatusCode::FORBIDDEN, "part deleted by {shown:?}");
    }
    assert_eq!(world.ask(Method::DELETE, "/v2/team/app/manifests/part", &lead).await.status, 202);
    assert_eq!(world.ask(Method::GET, &by_part, &lead).await.status, 200);
    // Without the rule they go.
    world.apply(&POLICY.replace("tags = [\"v*\"]", "tags = [\"release-*\"]")).await;
    for path in [by_digest, by_part] {
        assert_eq!(world.ask(Method::DELETE, &path, &lead).await.status, 202);
    }
}

#[tokio::test]
async fn a_policy_that_changed_judges_the_next_request() {
    let world = world().await;
    let alice = Shown::login("alice");
    world.push(&alice, "team/app", "a", b"one").await.unwrap();
    let without = POLICY.replace(
        "\"push:team/*\", \"delete:team/*\"]\n\n[[auth.rules]]\nsubject = \"lead\"",
        "\"delete:team/*\"]\n\n[[auth.rules]]\nsubject = \"lead\"",
    );
    assert_ne!(without, POLICY);
    world.apply(&without).await;
    assert_eq!(outcome(world.push(&alice, "team/app", "b", b"one").await), 403);
    assert_eq!(world.ask(Method::GET, "/v2/team/app/manifests/a", &alice).await.status, 200);
    world.apply("[auth]\n").await;
    assert_eq!(world.ask(Method::GET, "/v2/team/app/manifests/a", &alice).await.status, 404);
}

#[tokio::test]
async fn what_is_public_is_pulled_with_a_session_and_nothing_else() {
    let world = world().await;
    world.push(&Shown::admin(), "public/app", "one", b"layer").await.unwrap();
    let asked = world.ask(Method::GET, "/v2/public/app/manifests/one", &Shown::Nothing).await;
    assert_eq!(asked.status, 200, "what anyone may do needs no session");
    let challenged = world.ask(Method::GET, "/v2/team/app/manifests/one", &Shown::Nothing).await;
    assert_eq!(challenged.status, 401);
    assert_eq!(
        challenged.header("www-authenticate"),
        "Bearer realm=\"https://nora.internal/v2/token\",service=\"nora\",scope=\"repository:team/app:pull\""
    );
    let session = world.session_token(&Shown::Nothing, &["repository:public/app:pull,push"]).await;
    assert_eq!(world.ask(Method::GET, "/v2/", &session).await.status, 200);
    assert_eq!(world.ask(Method::GET, "/v2/public/app/manifests/one", &session).await.status, 200);
    let pushed = world.ask(Method::POST, "/v2/public/app/blobs/uploads/", &session).await;
    assert_eq!(pushed.status, 401, "nobody in particular is asked who they are");
}

#[tokio::test]
async fn guessing_makes_wait() {
    let world = world().await;
    let wrong = Shown::Basic("alice".into(), "guess".into());
    for _ in 0..5 {
        assert_eq!(world.ask(Method::GET, "/v2/", &wrong).await.status, 401);
    }
    let locked = world.ask(Method::GET, "/v2/", &Shown::login("alice")).await;
    assert_eq!(locked.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(locked.header("retry-after").parse::<u64>().unwrap() > 200);
    assert_eq!(world.ask(Method::GET, "/v2/", &Shown::login("lead")).await.status, 200);
}

#[tokio::test]
async fn an_open_node_asks_nobody_until_it_has_logins() {
    let world = World::without_policy(true).await;
    world.push(&Shown::Nothing, "a", "one", b"layer").await.unwrap();
    let anything = Shown::Basic("who".into(), "ever".into());
    assert_eq!(world.ask(Method::GET, "/v2/", &anything).await.status, 200);
    world.apply("[auth]\nanonymous = [\"pull:a\"]\n").await;
    assert_eq!(world.ask(Method::GET, "/v2/a/manifests/one", &Shown::Nothing).await.status, 200);
    assert_eq!(world.ask(Method::POST, "/v2/a/blobs/uploads/", &Shown::Nothing).await.status, 401);
    assert_eq!(world.ask(Method::GET, "/v2/", &anything).await.status, 401);
}

#[tokio::test]
async fn nothing_has_a_known_password() {
    let world = world().await;
    let mut address = 0;
    for user in ["admin", "root", "nora", "alice", "anonymous", ""] {
        for password in ["", "admin", "password", "nora", "Harbor12345", "admin123", user] {
            if password == PASSWORD {
                continue;
            }
            // Each from elsewhere, so that each is compared: an address that guesses on has to wait.
            address += 1;
            let shown = Shown::Basic(user.into(), password.into());
            let answer = world.ask_from([198, 51, 100, address], Method::GET, "/v2/", &shown).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{user}:{password}");
        }
    }
}
