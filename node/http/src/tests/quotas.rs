//! Quotas and limits by the hour, as clients meet them.

use bytes::Bytes;
use http::{Method, StatusCode};
use nora_app::ports::{BoxError, Incoming};
use nora_domain::{Algorithm, Format, RepositoryPath, TenantName};
use nora_identity::{Spends, Why};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::testkit::{Shown, World};

const POLICY: &str = r#"
[auth]
[[auth.rules]]
subject = "red"
permissions = ["pull:*", "overwrite:red/*", "delete:red/*", "overwrite:free/*"]

[[tenants]]
name = "red"
namespaces = { oci = ["red/*"] }
storage_quota = "10kB"
artifact_quota = 3
rate_limit = { push = 6, pull = 10 }
"#;

async fn world() -> World {
    let world = World::with(POLICY).await;
    world.users(&["red"]).await;
    world
}

async fn used(world: &World) -> (u64, u64) {
    let usage = world.registry.tenants().usage(&TenantName::parse("red").unwrap()).await.unwrap();
    (usage.unique_bytes, usage.reserved_bytes)
}

async fn upload(world: &World, bytes: Bytes) -> (StatusCode, String) {
    let red = Shown::login("red");
    let digest = nora_digest::digest(Algorithm::Sha256, &bytes);
    let opened = world.ask(Method::POST, "/v2/red/app/blobs/uploads/", &red).await;
    let location = opened.header("location").to_owned();
    let patched = world.send(Method::PATCH, &location, &red, &[], bytes).await;
    if patched.status != StatusCode::ACCEPTED {
        return (patched.status, String::from_utf8_lossy(&patched.body).into_owned());
    }
    let path = format!("{location}&digest={digest}");
    let put = world.send(Method::PUT, &path, &red, &[], "").await;
    (put.status, String::from_utf8_lossy(&put.body).into_owned())
}

#[tokio::test]
async fn bytes_over_a_quota_are_refused_before_they_are_taken() {
    let world = world().await;
    let (status, _) = upload(&world, vec![1; 6_000].into()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(used(&world).await, (6_000, 0));
    let (status, body) = upload(&world, vec![2; 6_000].into()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    assert!(body.contains("over the quota") && body.contains("\"limit\":10000"), "{body}");
    assert_eq!(used(&world).await, (6_000, 0), "what was set aside is free again");
    // What is there counts once, in however many repositories it is shown.
    let red = Shown::login("red");
    let digest = nora_digest::digest(Algorithm::Sha256, &Bytes::from(vec![1; 6_000]));
    let path = format!("/v2/red/other/blobs/uploads/?mount={digest}&from=red/app");
    assert_eq!(world.ask(Method::POST, &path, &red).await.status, StatusCode::CREATED);
    assert_eq!(used(&world).await.0, 6_000);
    let blob = |repository: &str| format!("/v2/red/{repository}/blobs/{digest}");
    assert_eq!(world.ask(Method::DELETE, &blob("app"), &red).await.status, StatusCode::ACCEPTED);
    assert_eq!(used(&world).await.0, 6_000);
    assert_eq!(world.ask(Method::DELETE, &blob("other"), &red).await.status, StatusCode::ACCEPTED);
    assert_eq!(used(&world).await.0, 0);
    let (status, _) = upload(&world, vec![2; 10_000].into()).await;
    assert_eq!(status, StatusCode::CREATED, "the last byte of a quota is the tenant's");
    assert_eq!(upload(&world, vec![3; 1].into()).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_blob_in_one_request_is_held_to_the_quota_too() {
    let world = world().await;
    let red = Shown::login("red");
    let refused = world.push(&red, "red/app", "a", &[7; 12_000]).await.unwrap_err();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let (bytes, reserved) = used(&world).await;
    assert_eq!((bytes, reserved), (2, 0), "only the config of two bytes is there");
    // Others' quotas are others'.
    world.push(&red, "free/app", "a", &[7; 12_000]).await.unwrap();
}

#[tokio::test]
async fn artifacts_are_counted() {
    let world = world().await;
    let red = Shown::login("red");
    for i in 0..3u8 {
        world.push(&red, "red/app", &format!("t{i}"), &[i; 10]).await.unwrap();
    }
    let refused = world.push(&red, "red/app", "t3", &[3; 10]).await.unwrap_err();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(String::from_utf8_lossy(&refused.body).contains("artifacts"));
    let deleted = world.ask(Method::DELETE, "/v2/red/app/manifests/t0", &red).await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED);
    let (digest, _) = world.push(&red, "red/app", "t1", &[1; 10]).await.unwrap();
    let path = format!("/v2/red/app/manifests/{digest}");
    assert_eq!(world.ask(Method::DELETE, &path, &red).await.status, StatusCode::ACCEPTED);
    world.push(&red, "red/app", "t3", &[3; 10]).await.unwrap();
}

#[tokio::test]
async fn an_hour_has_so_many_requests() {
    let world = world().await;
    let red = Shown::login("red");
    world.push(&red, "red/app", "a", b"layer").await.unwrap();
    let pull = async || world.ask(Method::GET, "/v2/red/app/manifests/a", &red).await;
    let mut answers = Vec::new();
    for _ in 0..11 {
        answers.push(pull().await);
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 429]);
    assert_eq!(answers[0].header("ratelimit-limit"), "10;w=3600");
    let last = &answers[10];
    assert_eq!(last.header("ratelimit-remaining"), "0;w=3600");
    let wait: u64 = last.header("retry-after").parse().unwrap();
    assert!((1..=3_600).contains(&wait), "{wait}");
    assert_eq!(last.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    // Asking whether something is there is no pull.
    let head = world.ask(Method::HEAD, "/v2/red/app/manifests/a", &red).await;
    assert_eq!(head.status, StatusCode::OK);
    world.clock.advance(wait * 1_000);
    assert_eq!(pull().await.status, StatusCode::OK, "the next hour begins anew");
}

fn tenant() -> TenantName {
    TenantName::parse("red").unwrap()
}

/// A body that announces so many bytes, or none, and breaks off after others.
fn broken(bytes: &'static [u8], length: Option<u64>) -> Incoming {
    let parts: [Result<Bytes, BoxError>; 2] =
        [Ok(Bytes::from_static(bytes)), Err("the connection is gone".into())];
    Incoming { stream: Box::pin(futures_util::stream::iter(parts)), length }
}

#[tokio::test]
async fn room_for_bytes_that_do_not_come_is_given_back() {
    let world = world().await;
    let path = RepositoryPath::parse("red/app").unwrap();
    let repository = world.registry.repository(Format::Oci, path);
    assert_eq!(repository.tenant, tenant());
    let id =
        world.registry.uploads().start(repository.clone(), Algorithm::Sha256).await.unwrap().id;
    for (length, kept) in [(Some(9_000), 5), (None, 10)] {
        let broke =
            world.registry.uploads().append(&repository, id, None, broken(b"12345", length)).await;
        assert!(broke.is_err());
        assert_eq!(used(&world).await, (0, kept), "only what came stays set aside");
    }
    // Nobody goes on with it: the room is free long before the session is over, and whoever does goes on all the same.
    world.clock.advance(16 * 60 * 1_000);
    world.registry.uploads().expire(None).await.unwrap();
    assert_eq!(used(&world).await, (0, 0));
}

#[tokio::test]
async fn a_blob_without_a_length_that_does_not_fit_leaves_nothing_behind() {
    let world = world().await;
    let path = RepositoryPath::parse("red/app").unwrap();
    let repository = world.registry.repository(Format::Oci, path);
    let registry = &world.registry;
    let id = registry.uploads().start(repository.clone(), Algorithm::Sha256).await.unwrap().id;
    let parts = (0..12).map(|_| Ok(Bytes::from_static(&[7; 1_000])));
    let body = Incoming { stream: Box::pin(futures_util::stream::iter(parts)), length: None };
    let refused = registry.uploads().append(&repository, id, None, body).await.unwrap_err();
    assert!(matches!(refused, nora_app::Error::QuotaExceeded { .. }), "{refused:?}");
    assert_eq!(used(&world).await, (0, 0));
    let gone = registry.uploads().state(&repository, id).await;
    assert!(matches!(gone, Err(nora_app::Error::UploadUnknown(_))), "{gone:?}");
}

/// A body that announces so many bytes and goes on as somebody sends.
fn slow(length: u64) -> (UnboundedSender<Result<Bytes, BoxError>>, Incoming) {
    let (sender, parts) = unbounded_channel();
    let stream = futures_util::stream::unfold(parts, async |mut parts| {
        parts.recv().await.map(|part| (part, parts))
    });
    (sender, Incoming { stream: Box::pin(stream), length: Some(length) })
}

#[tokio::test]
async fn room_stays_with_whoever_writes_however_slowly() {
    let world = world().await;
    let path = RepositoryPath::parse("red/app").unwrap();
    let repository = world.registry.repository(Format::Oci, path);
    let registry = world.registry.clone();
    let id = registry.uploads().start(repository.clone(), Algorithm::Sha256).await.unwrap().id;
    let (sender, body) = slow(9_000);
    let writing = {
        let (registry, repository) = (registry.clone(), repository.clone());
        tokio::spawn(async move { registry.uploads().append(&repository, id, None, body).await })
    };
    while used(&world).await != (0, 9_000) {
        tokio::task::yield_now().await;
    }
    // Another request comes in between, and so does upkeep.
    let bytes = Bytes::from(vec![1; 9_000]);
    let digest = nora_digest::digest(Algorithm::Sha256, &bytes);
    let nothing: Option<Incoming> = None;
    let busy = registry.uploads().finish(repository.clone(), id, None, nothing, digest).await;
    assert!(matches!(busy, Err(nora_app::Error::UploadBusy)), "{busy:?}");
    assert_eq!(used(&world).await, (0, 9_000));
    world.clock.advance(16 * 60 * 1_000);
    registry.uploads().expire(None).await.unwrap();
    assert_eq!(used(&world).await, (0, 9_000));
    sender.send(Ok(bytes)).unwrap();
    drop(sender);
    writing.await.unwrap().unwrap();
    let nothing: Option<Incoming> = None;
    registry.uploads().finish(repository, id, None, nothing, digest).await.unwrap();
    assert_eq!(used(&world).await, (9_000, 0));
}

#[tokio::test]
async fn a_full_tenant_still_takes_what_it_has_room_for() {
    let world = world().await;
    let red = Shown::login("red");
    let opened = world.ask(Method::POST, "/v2/red/app/blobs/uploads/", &red).await;
    let location = opened.header("location").to_owned();
    let bytes = Bytes::from(vec![3; 10_000]);
    let part = world.send(Method::PATCH, &location, &red, &[], bytes.slice(..6_000)).await;
    assert_eq!(part.status, StatusCode::ACCEPTED);
    // Its answer is lost, and the same comes again: that is no question of room.
    let range = [("content-range", "0-5999")];
    let again = world.send(Method::PATCH, &location, &red, &range, bytes.slice(..6_000)).await;
    assert_eq!(again.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(again.header("range"), "0-5999");
    let rest = world.send(Method::PATCH, &location, &red, &[], bytes.slice(6_000..)).await;
    assert_eq!(rest.status, StatusCode::ACCEPTED);
    assert_eq!(used(&world).await, (0, 10_000), "it is full");
    // Not every client says that it sends nothing.
    let digest = nora_digest::digest(Algorithm::Sha256, &bytes);
    let path = format!("{location}&digest={digest}");
    let finished = world.send_unannounced(Method::PUT, &path, &red).await;
    assert_eq!(finished.status, StatusCode::CREATED, "{finished:?}");
    assert_eq!(used(&world).await, (10_000, 0));
}

#[tokio::test]
async fn a_refused_manifest_leaves_none_of_its_bytes() {
    let world = World::with(
        r#"
[auth]
[[auth.rules]]
subject = "red"
permissions = ["pull:*", "push:red/*"]
[[tenants]]
name = "red"
namespaces = { oci = ["red/*"] }
storage_quota = "1MB"
"#,
    )
    .await;
    world.users(&["red"]).await;
    let red = Shown::login("red");
    world.push(&red, "red/app", "v1", b"layer").await.unwrap();
    let before = used(&world).await;
    // Too large to be kept in the log: its bytes become a blob, and red may delete none.
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
        "annotations": {"padding": "x".repeat(100_000)},
    });
    let kind = [("content-type", "application/vnd.oci.image.index.v1+json")];
    let path = "/v2/red/app/manifests/v1";
    let refused = world.send(Method::PUT, path, &red, &kind, index.to_string()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    assert_eq!(used(&world).await, before);
}

#[tokio::test]
async fn a_burst_gets_what_the_hour_has_and_no_more() {
    let world = std::sync::Arc::new(world().await);
    let path = RepositoryPath::parse("red/app").unwrap();
    let repository = world.registry.repository(Format::Oci, path);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (guard, tenant) = (world.guard.clone(), repository.tenant.clone());
        let caller = world.guard.administrator(None, "request".into());
        asking.spawn(async move { guard.spend(&caller, &tenant, Spends::Pull).await });
    }
    let answers = asking.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.into_iter().all(|over| over.why == Why::Spent));
}

#[tokio::test]
async fn callers_without_a_login_leave_half_to_the_others() {
    let policy = POLICY.replacen("[auth]", "[auth]\nanonymous = [\"pull:*\"]", 1);
    let world = World::with(&policy).await;
    world.users(&["red"]).await;
    let red = Shown::login("red");
    world.push(&red, "red/app", "a", b"layer").await.unwrap();
    let pull = async |shown: &Shown, from: u8| {
        let path = "/v2/red/app/manifests/a";
        world.ask_from([192, 0, 2, from], Method::GET, path, shown).await
    };
    let mut refused = Vec::new();
    for from in [1, 2, 3] {
        for _ in 0..4 {
            let answer = pull(&Shown::Nothing, from).await;
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                refused.push((
                    from,
                    answer.json()["errors"][0]["message"].as_str().unwrap().to_owned(),
                ));
            } else {
                assert_eq!(answer.status, StatusCode::OK);
            }
        }
    }
    // Of ten an hour, five are for callers without a login, and three of these for one address.
    assert_eq!(refused.iter().map(|(from, _)| *from).collect::<Vec<_>>(), [1, 2, 2, 3, 3, 3, 3]);
    assert!(refused[0].1.contains("3 pulls from this namespace by one client"), "{refused:?}");
    assert!(refused[5].1.contains("5 pulls") && refused[5].1.contains("or log in"), "{refused:?}");
    for _ in 0..5 {
        assert_eq!(pull(&red, 1).await.status, StatusCode::OK, "production's half is its own");
    }
    assert_eq!(pull(&red, 1).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn every_read_counts_for_its_caller() {
    let world = world().await;
    let red = Shown::login("red");
    let (digest, _) = world.push(&red, "red/app", "a", b"layer").await.unwrap();
    let blob = nora_digest::digest(Algorithm::Sha256, b"layer");
    let asked = [
        (Method::GET, format!("/v2/red/app/blobs/{blob}")),
        (Method::HEAD, format!("/v2/red/app/blobs/{blob}")),
        (Method::HEAD, format!("/v2/red/app/manifests/{digest}")),
        (Method::GET, "/v2/red/app/tags/list".to_owned()),
        (Method::GET, format!("/v2/red/app/referrers/{digest}")),
    ];
    // Fifty for each of ten pulls.
    let mut answered = 0;
    loop {
        let (method, path) = &asked[answered % asked.len()];
        let answer = world.ask(method.clone(), path, &red).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.header("retry-after").parse::<u64>().is_ok());
            break;
        }
        assert_eq!(answer.status, StatusCode::OK, "{method} {path}");
        answered += 1;
        assert!(answered <= 500);
    }
    assert_eq!(answered, 500);
}

#[tokio::test]
async fn lists_of_all_repositories_come_at_a_pace() {
    let world = world().await;
    let red = Shown::login("red");
    let mut answered = 0;
    let refused = loop {
        let answer = world.ask(Method::GET, "/v2/_catalog", &red).await;
        if answer.status != StatusCode::OK {
            break answer;
        }
        answered += 1;
        assert!(answered <= 600);
    };
    assert_eq!((answered, refused.status), (600, StatusCode::TOO_MANY_REQUESTS));
    assert!(refused.header("retry-after").parse::<u64>().is_ok());
    assert_eq!(
        world.ask(Method::GET, "/v2/_catalog", &Shown::admin()).await.status,
        StatusCode::OK
    );
}
