//! Two tenants: what is another's is told from what is not there by nothing.

use http::{Method, StatusCode};
use nora_domain::{Reason, Verdict};

use crate::testkit::{Shown, World};

const POLICY: &str = r#"
[auth]
[[auth.rules]]
subject = "red"
permissions = ["pull:red/*", "overwrite:red/*", "delete:red/*"]
[[auth.rules]]
subject = "blue"
permissions = ["pull:blue/*", "overwrite:blue/*", "delete:blue/*"]

[[tenants]]
name = "red"
namespaces = { oci = ["red/*"] }
[[tenants]]
name = "blue"
namespaces = { oci = ["blue/*"] }
"#;

async fn world() -> World {
    let world = World::with(POLICY).await;
    world.users(&["red", "blue"]).await;
    world
}

#[tokio::test]
async fn what_is_foreign_is_as_good_as_absent() {
    let world = world().await;
    let (red, blue) = (Shown::login("red"), Shown::login("blue"));
    let (manifest, layer) = world.push(&red, "red/app", "v1", b"the red secret").await.unwrap();
    let session = world.session_token(&blue, &["repository:red/app:pull,push,delete"]).await;
    let paths = |repository: &str| {
        [
            format!("/v2/{repository}/manifests/v1"),
            format!("/v2/{repository}/manifests/{manifest}"),
            format!("/v2/{repository}/blobs/{layer}"),
            format!("/v2/{repository}/tags/list"),
            format!("/v2/{repository}/tags/list?n=1&last=a"),
            format!("/v2/{repository}/referrers/{manifest}"),
            format!("/v2/{repository}/referrers/{manifest}?artifactType=a/b"),
        ]
    };
    for shown in [&blue, &session] {
        for (foreign, absent) in paths("red/app").iter().zip(paths("red/none")) {
            for method in [Method::GET, Method::HEAD] {
                for headers in [&[][..], &[("range", "bytes=0-3")], &[("if-none-match", "*")]] {
                    let one = world.send(method.clone(), foreign, shown, headers, "").await;
                    let other = world.send(method.clone(), &absent, shown, headers, "").await;
                    let is_list = foreign.contains("referrers");
                    assert!(is_list || one.status != StatusCode::OK, "{foreign}: {one:?}");
                    assert_eq!(one.timeless(), other.timeless(), "{method} {foreign}");
                }
            }
        }
        for method in [Method::PUT, Method::DELETE] {
            for (foreign, absent) in paths("red/app").iter().zip(paths("red/none")).take(3) {
                let one = world.ask(method.clone(), foreign, shown).await;
                let other = world.ask(method.clone(), &absent, shown).await;
                let hide = |text: String| text.replace("red/app", "…").replace("red/none", "…");
                assert_eq!(one.status, other.status, "{method} {foreign}");
                assert_eq!(
                    hide(format!("{:?}", one.timeless().body)),
                    hide(format!("{:?}", other.timeless().body))
                );
            }
        }
    }
    // It is all there for whoever owns it.
    for path in paths("red/app") {
        let answer = world.ask(Method::GET, &path, &red).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_digest_opens_nothing() {
    let world = world().await;
    let (red, blue) = (Shown::login("red"), Shown::login("blue"));
    let (_, layer) = world.push(&red, "red/app", "v1", b"the red secret").await.unwrap();
    world.push(&blue, "blue/app", "v1", b"blue").await.unwrap();
    for path in [
        format!("/v2/blue/app/blobs/uploads/?mount={layer}&from=red/app"),
        format!("/v2/blue/app/blobs/uploads/?mount={layer}&from=red/none"),
        format!("/v2/blue/app/blobs/uploads/?mount={layer}"),
    ] {
        let answer = world.ask(Method::POST, &path, &blue).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{path} did not end in an upload");
    }
    let got = world.ask(Method::GET, &format!("/v2/blue/app/blobs/{layer}"), &blue).await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    // Within a tenant, and with the right to read, it mounts.
    let path = format!("/v2/red/other/blobs/uploads/?mount={layer}&from=red/app");
    assert_eq!(world.ask(Method::POST, &path, &red).await.status, StatusCode::CREATED);
    let path = format!("/v2/red/third/blobs/uploads/?mount={layer}");
    assert_eq!(world.ask(Method::POST, &path, &red).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn lists_show_what_the_caller_may_pull() {
    let world = world().await;
    let (red, blue) = (Shown::login("red"), Shown::login("blue"));
    for (shown, repository) in
        [(&red, "red/a"), (&red, "red/b"), (&red, "red/c/d"), (&blue, "blue/x"), (&blue, "blue/y")]
    {
        world.push(shown, repository, "v1", b"layer").await.unwrap();
    }
    world.push(&Shown::admin(), "nobodys", "v1", b"layer").await.unwrap();
    let listed = async |shown: &Shown, query: &str| {
        let answer = world.ask(Method::GET, &format!("/v2/_catalog{query}"), shown).await;
        assert_eq!(answer.status, StatusCode::OK);
        let names = answer.json()["repositories"].as_array().unwrap().clone();
        let names: Vec<_> = names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        (names, answer.header("link").to_owned())
    };
    assert_eq!(listed(&red, "").await.0, ["red/a", "red/b", "red/c/d"]);
    assert_eq!(listed(&blue, "").await.0, ["blue/x", "blue/y"]);
    let all = ["blue/x", "blue/y", "nobodys", "red/a", "red/b", "red/c/d"];
    assert_eq!(listed(&Shown::admin(), "").await.0, all);
    let (page, link) = listed(&Shown::admin(), "?n=3").await;
    assert_eq!(page, all[..3]);
    assert!(link.contains("last=nobodys"), "{link}");
    assert_eq!(listed(&Shown::admin(), "?n=3&last=nobodys").await.0, all[3..]);
    let (page, link) = listed(&blue, "?n=2").await;
    assert_eq!((page.len(), link.as_str()), (2, ""), "the end of what one sees is the end");
    // A session for lists is for no repository; its holder's permissions count.
    let session = world.session_token(&blue, &["registry:catalog:*"]).await;
    assert_eq!(listed(&session, "").await.0, ["blue/x", "blue/y"]);
    assert_eq!(world.ask(Method::GET, "/v2/_catalog", &Shown::Nothing).await.status, 401);
}

#[tokio::test]
async fn an_upload_opens_for_nobody_else() {
    let world = world().await;
    world
        .apply(&POLICY.replace(
            "subject = \"blue\"\npermissions = [",
            "subject = \"blue\"\npermissions = [\"push:red/*\", ",
        ))
        .await;
    let (red, blue) = (Shown::login("red"), Shown::login("blue"));
    let opened = world.ask(Method::POST, "/v2/red/app/blobs/uploads/", &red).await;
    let location = opened.header("location").to_owned();
    let bare = location.split('?').next().unwrap().to_owned();
    for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
        for path in [&location, &bare] {
            let answer = world.ask(method.clone(), path, &blue).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
            assert_eq!(answer.json()["errors"][0]["code"], "BLOB_UPLOAD_UNKNOWN");
        }
    }
    let status = world.ask(Method::GET, &location, &red).await;
    assert_eq!(status.status, StatusCode::NO_CONTENT);
    assert_eq!(status.header("location"), location);
}

#[tokio::test]
async fn nobody_says_on_whose_behalf_but_members() {
    let world = world().await;
    let headers = [("x-nora-caller", "admin t x y")];
    let answer = world.send(Method::GET, "/v2/_catalog", &Shown::Nothing, &headers, "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    world
        .send(Method::POST, "/v2/red/app/blobs/uploads/", &Shown::login("blue"), &headers, "")
        .await;
    world.guard.flush().await;
    let entries = world.registry.journal().entries(0, 100).await.unwrap().items;
    let not_permitted = Verdict::Refused(Reason::NotPermitted);
    let (_, refused) = entries.iter().find(|(_, entry)| entry.verdict == not_permitted).unwrap();
    let by = refused.by.as_ref().unwrap();
    assert_eq!((by.name().as_str(), by.address.as_str()), ("user:blue", "192.0.2.9"));
    assert_eq!(refused.deed.as_ref().unwrap().about.to_string(), "oci:red/app");
}

#[tokio::test]
async fn what_stayed_with_another_tenant_is_mounted_by_nobody() {
    let world = world().await;
    let (red, blue) = (Shown::login("red"), Shown::login("blue"));
    let bytes = b"the red secret".to_vec();
    let digest = nora_digest::digest(nora_domain::Algorithm::Sha256, &bytes).to_string();
    let path = format!("/v2/red/app/blobs/uploads/?digest={digest}");
    let pushed = world.send(Method::POST, &path, &red, &[], bytes).await;
    assert_eq!(pushed.status, StatusCode::CREATED);
    // No manifest holds the name, so it may go over to the other.
    world
        .apply(
            &POLICY
                .replace(r#"["red/*"] }"#, r#"["red2/*"] }"#)
                .replace(r#"["blue/*"] }"#, r#"["blue/*", "red/*"] }"#)
                .replace(r#"["pull:blue/*""#, r#"["pull:red/*", "pull:blue/*""#),
        )
        .await;
    for from in ["", "&from=red/app"] {
        let path = format!("/v2/blue/app/blobs/uploads/?mount={digest}{from}");
        let answer = world.ask(Method::POST, &path, &blue).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{from}");
    }
    let there = format!("/v2/red/app/blobs/{digest}");
    assert_eq!(world.ask(Method::GET, &there, &blue).await.status, StatusCode::NOT_FOUND);
}
