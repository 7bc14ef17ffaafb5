//! The OpenAPI document names every route and no other, and describes answers as they are.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{Takes, addresses};
use crate::Access;
use crate::testkit::{Answer, PASSWORD, Shown, World};

const POLICY: &str = r#"
[auth]
anonymous = ["pull:public/*"]

[[auth.rules]]
subject = "alice"
permissions = ["pull:team/*", "overwrite:team/*"]

[auth.oidc]
enabled = true

[[auth.oidc.providers]]
name = "forge"
issuer = "https://forge.example"
audience = "https://nora.example"

[[auth.oidc.providers.rules]]
match = { sub = "project:team/app" }
permissions = ["pull:team/*"]

[[tenants]]
name = "team"
namespaces = { oci = ["team/*"] }
storage_quota = "1GB"
artifact_quota = 100
rate_limit = { push = 100, pull = 100 }
"#;

/// Methods that are tried where the document does not name them. HEAD comes with GET.
const METHODS: [Method; 5] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

async fn world() -> World {
    let world = World::with(POLICY).await;
    world.users(&["alice"]).await;
    world
}

async fn document(world: &World) -> Value {
    world.ask(Method::GET, "/api/openapi.json", &Shown::Nothing).await.json()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}"))
}

/// What a place of the document says, wherever it refers to.
fn followed<'d>(document: &'d Value, place: &'d Value) -> &'d Value {
    let Some(to) = place.get("$ref") else { return place };
    let pointer = to.as_str().and_then(|to| to.strip_prefix('#'));
    let found = pointer.and_then(|pointer| document.pointer(pointer));
    followed(document, found.unwrap_or_else(|| panic!("{to} refers to nothing")))
}

/// The operations of a path.
fn operations<'d>(
    document: &'d Value,
    path: &str,
) -> impl Iterator<Item = (Method, &'d Value)> + use<'d> {
    let item = document["paths"].get(path).unwrap_or_else(|| panic!("{path} is not described"));
    object(item).iter().filter(|(key, _)| *key != "parameters").map(|(key, operation)| {
        (Method::from_bytes(key.to_ascii_uppercase().as_bytes()).unwrap(), operation)
    })
}

#[tokio::test]
async fn anybody_gets_the_document_and_it_is_of_this_version() {
    let world = world().await;
    let answer = world.ask(Method::GET, "/api/openapi.json", &Shown::Nothing).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-cache");
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert_eq!(document["info"]["title"], "NORA");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(!String::from_utf8_lossy(&answer.body).contains("@version@"));
    // The node asks for logins wherever it is not said otherwise.
    let asked = world.ask(Method::GET, "/api/v1/whoami", &Shown::Nothing).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_document_holds_together() {
    let document = document(&world().await).await;
    let mut waiting = vec![&document];
    while let Some(value) = waiting.pop() {
        followed(&document, value);
        match value {
            Value::Object(map) => waiting.extend(map.values()),
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    let mut ids = BTreeSet::new();
    for (path, item) in object(&document["paths"]) {
        for (method, operation) in operations(&document, path) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} is two operations");
            assert!(!object(&operation["responses"]).is_empty(), "{method} {path}");
            let lists = [item.get("parameters"), operation.get("parameters")];
            let parameters = lists.into_iter().flatten().flat_map(|list| list.as_array().unwrap());
            let mut named: Vec<&str> = parameters
                .map(|parameter| followed(&document, parameter))
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let parts = path.split('/').filter_map(|part| part.strip_prefix('{'));
            let mut parts: Vec<&str> = parts.map(|part| part.trim_end_matches('}')).collect();
            named.sort_unstable();
            parts.sort_unstable();
            assert_eq!(named, parts, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_route_is_described_with_what_it_takes() {
    let document = document(&world().await).await;
    for (path, takes, methods) in addresses() {
        // HEAD comes with GET.
        let but_head = |method: &String| method != "HEAD";
        let described = operations(&document, path).map(|(method, _)| method.to_string());
        let described: BTreeSet<String> = described.filter(but_head).collect();
        let methods = methods.iter().map(ToString::to_string);
        let methods: BTreeSet<String> = methods.filter(but_head).collect();
        assert!(methods.is_empty() || methods == described, "{path}: {methods:?} {described:?}");
        for (method, operation) in operations(&document, path) {
            let asked = operation.get("security").unwrap_or(&document["security"]);
            let asked = asked.as_array().unwrap();
            let is_optional = asked.contains(&json!({}));
            let is_told = match takes {
                Takes::Page(Access::Probe | Access::Public) => asked.is_empty(),
                Takes::Page(Access::Recognised | Access::Administrator) => {
                    !asked.is_empty() && !is_optional
                }
                Takes::Right | Takes::Page(Access::Credential) => is_optional,
            };
            assert!(is_told, "{method} {path} takes {takes:?} and says {asked:?}");
        }
    }
}

/// Whether an answer says that nothing is at that address, whatever it would be asked about.
fn says_nothing_is_there(answer: &Answer) -> bool {
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = document["errors"][0]["code"].as_str();
    answer.status == StatusCode::NOT_FOUND && matches!(code, Some("NOT_FOUND" | "UNSUPPORTED"))
}

#[tokio::test]
async fn nothing_is_described_that_is_not_there() {
    let world = world().await;
    let admin = Shown::admin();
    for path in ["/nowhere", "/v2/team/app/nowhere", "/api/v1", "/api/v1/nowhere"] {
        let answer = world.ask(Method::GET, path, &admin).await;
        assert!(says_nothing_is_there(&answer), "{path}: {answer:?}");
    }
    let document = document(&world).await;
    for path in object(&document["paths"]).keys() {
        let opened = world.ask(Method::POST, "/v2/team/app/blobs/uploads/", &admin).await;
        let session = opened.header("location").rsplit('/').next().unwrap().to_owned();
        let address = path
            .replace("{name}", "team/app")
            .replace("{reference}", "one")
            .replace("{digest}", DIGEST)
            .replace("{session}", &session);
        assert!(!address.contains('{'), "{path} has a part without a sample here");
        let described: Vec<Method> =
            operations(&document, path).map(|(method, _)| method).collect();
        let is_described = |method: &&Method| described.contains(method);
        // The described ones last: they may end what is asked about.
        for method in METHODS.iter().filter(|method| !is_described(method)) {
            let answer = world.ask(method.clone(), &address, &admin).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
        for method in &described {
            let answer = world.ask(method.clone(), &address, &admin).await;
            let told = format!("{method} {path}: {answer:?}");
            assert!(!says_nothing_is_there(&answer), "{told}");
            assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{told}");
        }
    }
}

/// What of a schema [`Fits`] does not weigh: it says nothing of the shape.
const REMARKS: [&str; 3] = ["description", "examples", "format"];

/// Holds answers against schemas of the document.
struct Fits<'d> {
    document: &'d Value,
    faults: Vec<String>,
}

impl Fits<'_> {
    fn check(&mut self, schema: &Value, value: &Value, at: &str) {
        let schema = object(followed(self.document, schema));
        for (word, wanted) in schema {
            match word.as_str() {
                "type" => {
                    let is_one = match wanted {
                        Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
                        kind => is_of(kind, value),
                    };
                    if !is_one {
                        self.faults.push(format!("{at} is {value}, not {wanted}"));
                    }
                }
                "const" if value != wanted => {
                    self.faults.push(format!("{at} is {value}, not {wanted}"));
                }
                "enum" if !wanted.as_array().unwrap().contains(value) => {
                    self.faults.push(format!("{at} is {value}, none of {wanted}"));
                }
                "oneOf" => self.check_one_of(wanted.as_array().unwrap(), value, at),
                "items" => {
                    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(wanted, item, &format!("{at}[{n}]"));
                    }
                }
                "const" | "enum" | "properties" | "required" | "additionalProperties" => {}
                word if REMARKS.contains(&word) => {}
                word => panic!("{at}: nothing here checks the schema's {word}"),
            }
        }
        // Alternatives say by themselves what they hold.
        if let Some(value) = value.as_object()
            && !schema.contains_key("oneOf")
        {
            self.check_object(schema, value, at);
        }
    }

    fn check_one_of(&mut self, schemas: &[Value], value: &Value, at: &str) {
        let fitting = schemas.iter().filter(|schema| fit(self.document, schema, value).is_empty());
        let count = fitting.count();
        if count != 1 {
            self.faults.push(format!("{at} fits {count} of {}: {value}", schemas.len()));
        }
    }

    fn check_object(&mut self, schema: &Map<String, Value>, value: &Map<String, Value>, at: &str) {
        let nothing = Map::new();
        let properties = schema.get("properties").map_or(&nothing, object);
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !value.contains_key(name.as_str().unwrap()) {
                self.faults.push(format!("{at} has no {name}"));
            }
        }
        for (name, value) in value {
            let at = format!("{at}.{name}");
            match (properties.get(name), schema.get("additionalProperties")) {
                (Some(property), _) => self.check(property, value, &at),
                (None, Some(Value::Bool(true))) => {}
                (None, Some(rest @ Value::Object(_))) => self.check(rest, value, &at),
                // What an answer's schema does not name is not in the answer.
                (None, _) => self.faults.push(format!("{at} is not described")),
            }
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        kind => panic!("nothing here checks the type {kind}"),
    }
}

/// Whatever of a value does not fit a schema.
fn fit(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut fits = Fits { document, faults: Vec::new() };
    fits.check(schema, value, "answer");
    fits.faults
}

#[test]
fn what_does_not_fit_is_found() {
    let row = json!({
        "type": "object",
        "required": ["n"],
        "properties": {
            "n": {"type": "integer"},
            "or": {"type": ["array", "null"], "items": {"type": "string"}},
        },
    });
    let document = json!({"components": {"schemas": {"Row": row}}});
    let schema = json!({
        "type": "object",
        "required": ["rows"],
        "additionalProperties": false,
        "properties": {
            "rows": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}},
            "word": {"type": "string", "enum": ["a", "b"]},
        },
    });
    let check = |value: Value| fit(&document, &schema, &value);
    assert!(check(json!({"rows": [], "word": "a"})).is_empty());
    assert!(
        check(json!({"rows": [{"n": 1}, {"n": 2, "or": null}, {"n": 3, "or": ["x"]}]})).is_empty()
    );
    for bad in [
        json!([]),
        json!({}),
        json!({"rows": null}),
        json!({"rows": {}}),
        json!({"rows": [{}]}),
        json!({"rows": [{"n": null}]}),
        json!({"rows": [{"n": 1.5}]}),
        json!({"rows": [{"n": "1"}]}),
        json!({"rows": [{"n": 1, "or": [1]}]}),
        json!({"rows": [{"n": 1, "more": 1}]}),
        json!({"rows": [], "more": 1}),
        json!({"rows": [], "word": "c"}),
    ] {
        assert_eq!(check(bad.clone()).len(), 1, "{bad}");
    }
    let either = json!({"oneOf": [schema, {"type": "string"}]});
    for good in [json!("x"), json!({"rows": []})] {
        assert!(fit(&document, &either, &good).is_empty(), "{good}");
    }
    assert_eq!(fit(&document, &either, &json!(1)).len(), 1);
}

/// The schema of what a path answers.
fn schema_of<'d>(document: &'d Value, method: &Method, path: &str, answer: &Answer) -> &'d Value {
    let told = format!("{method} {path} answered {}", answer.status);
    let operation = operations(document, path).find(|(described, _)| described == method);
    let (_, operation) = operation.unwrap_or_else(|| panic!("{told}: it is not described"));
    let responses = object(&operation["responses"]);
    let response = responses.get(answer.status.as_str()).or_else(|| responses.get("default"));
    let response = response.unwrap_or_else(|| panic!("{told}: the status is not described"));
    let content = &followed(document, response)["content"];
    let kind = answer.header("content-type");
    let content = content.get(kind).unwrap_or_else(|| panic!("{told}: {kind} is not described"));
    &content["schema"]
}

/// Checks answers that mean one thing; together they have whatever is described.
fn check(document: &Value, method: &Method, path: &str, answers: &[Answer]) {
    let mut described = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for answer in answers {
        let schema = schema_of(document, method, path, answer);
        let value = answer.json();
        let faults = fit(document, schema, &value);
        assert!(faults.is_empty(), "{method} {path}: {faults:#?}");
        let properties = followed(document, schema).get("properties").map(object);
        described.extend(properties.into_iter().flat_map(Map::keys).cloned());
        seen.extend(object(&value).keys().cloned());
    }
    assert_eq!(seen, described, "{method} {path} is to have whatever is described");
}

#[tokio::test]
async fn who_one_is_is_answered_as_described() {
    let world = world().await;
    let document = document(&world).await;
    let alice = Shown::login("alice");
    let token = Shown::Bearer(world.token("alice", "laptop", &["pull:team/*"]).await);
    let session = world.session_token(&alice, &["repository:team/app:pull"]).await;
    let path = "/api/v1/whoami";
    let ask = async |world: &World, shown: &Shown| {
        let answer = world.ask(Method::GET, path, shown).await;
        check(&document, &Method::GET, path, std::slice::from_ref(&answer));
        answer
    };
    for shown in [&Shown::admin(), &session] {
        assert_eq!(ask(&world, shown).await.status, StatusCode::OK);
    }
    // What may be null is so, and is not.
    let plain = ask(&world, &alice).await.json();
    assert!(plain["token"].is_null() && plain["scope"].is_null(), "{plain}");
    let cut = ask(&world, &token).await.json();
    assert_eq!((&cut["token"], &cut["scope"]), (&json!("laptop"), &json!(["pull:team/*"])));
    assert_eq!(ask(&world, &Shown::Nothing).await.status, StatusCode::UNAUTHORIZED);
    let open = World::without_policy(true).await;
    assert_eq!(ask(&open, &Shown::Nothing).await.status, StatusCode::OK);
}

#[tokio::test]
async fn usage_is_answered_as_described() {
    let world = world().await;
    let document = document(&world).await;
    let alice = Shown::login("alice");
    world.push(&alice, "team/app", "one", b"layer").await.unwrap();
    let path = "/api/v1/usage";
    let answer = world.ask(Method::GET, path, &Shown::admin()).await;
    assert_eq!(answer.status, StatusCode::OK);
    check(&document, &Method::GET, path, std::slice::from_ref(&answer));
    let answer = answer.json();
    let tenant = |name: &str| {
        let tenants = answer["tenants"].as_array().unwrap();
        tenants.iter().find(|tenant| tenant["name"] == name).unwrap()
    };
    let nullable = [
        "storage_quota",
        "artifact_quota",
        "push_limit",
        "pull_limit",
        "pushes",
        "pulls",
        "anonymous_pull_limit",
        "anonymous_pulls",
    ];
    for name in nullable {
        assert!(tenant("team")[name].is_u64(), "{name} of a tenant with limits: {answer}");
        assert!(tenant("default")[name].is_null(), "{name} of one without: {answer}");
    }
    for (shown, status) in
        [(&alice, StatusCode::FORBIDDEN), (&Shown::Nothing, StatusCode::UNAUTHORIZED)]
    {
        let refused = world.ask(Method::GET, path, shown).await;
        assert_eq!(refused.status, status);
        check(&document, &Method::GET, path, &[refused]);
    }
}

#[tokio::test]
async fn sessions_are_answered_as_described() {
    let world = world().await;
    let document = document(&world).await;
    let alice = Shown::login("alice");
    let path = "/v2/token";
    let scope = "scope=repository:team/app:pull,push";
    let offline = format!("{path}?service=nora&offline_token=true&{scope}");
    let all = world.ask(Method::GET, &offline, &alice).await;
    let least = world.ask(Method::GET, path, &Shown::Nothing).await;
    assert!(least.json().get("scope").is_none() && least.json().get("refresh_token").is_none());
    check(&document, &Method::GET, path, &[all.clone(), least]);

    let post =
        async |body: String| world.send(Method::POST, path, &Shown::Nothing, &FORM, body).await;
    let password = PASSWORD.replace(' ', "+");
    let login = format!("grant_type=password&username=alice&password={password}&{scope}");
    let refresh = all.json()["refresh_token"].as_str().unwrap().to_owned();
    let refresh = format!("grant_type=refresh_token&refresh_token={refresh}");
    let answers = [post(login).await, post(refresh).await];
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "{answers:?}");
    check(&document, &Method::POST, path, &answers);
    for (body, status) in [
        ("grant_type=x".to_owned(), StatusCode::BAD_REQUEST),
        ("grant_type=password&username=alice&password=x".to_owned(), StatusCode::UNAUTHORIZED),
        ("x".repeat(100_000), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let refused = post(body).await;
        assert_eq!(refused.status, status);
        check(&document, &Method::POST, path, &[refused]);
    }
}

#[tokio::test]
async fn workload_tokens_are_refused_and_ended_as_described() {
    let world = world().await;
    let document = document(&world).await;
    let post = async |path: &str, headers: &[(&str, &str)], body: &str| {
        let body = body.to_owned();
        let answer = world.send(Method::POST, path, &Shown::Nothing, headers, body).await;
        let schema = schema_of(&document, &Method::POST, path, &answer);
        let faults = fit(&document, schema, &answer.json());
        assert!(faults.is_empty(), "{path}: {faults:#?}");
        answer.status.as_u16()
    };
    let kind = [("content-type", "application/json")];
    assert_eq!(post("/auth/oidc/token", &FORM, "").await, 400);
    assert_eq!(post("/auth/oidc/token", &kind, "[]").await, 400);
    assert_eq!(post("/auth/oidc/token", &kind, "{\"subject_token\":\"x\"}").await, 401);
    assert_eq!(post("/auth/oidc/revoke", &FORM, "").await, 400);
    let token = world.token("alice", "laptop", &[]).await;
    assert_eq!(post("/auth/oidc/revoke", &FORM, &format!("token={token}")).await, 200);
    let session = world.session(&Shown::login("alice"), &[]).await.json();
    let body = json!({"token": session["token"]}).to_string();
    assert_eq!(post("/auth/oidc/revoke", &kind, &body).await, 400, "a session ends by itself");
}

#[tokio::test]
async fn lists_and_probes_are_answered_as_described() {
    let world = world().await;
    let document = document(&world).await;
    let alice = Shown::login("alice");
    let (digest, _) = world.push(&alice, "team/app", "one", b"layer").await.unwrap();
    let referrer = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "artifactType": "application/example",
        "manifests": [],
        "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": 1,
        },
        "annotations": {"a": "b"},
    });
    let kind = [("content-type", "application/vnd.oci.image.index.v1+json")];
    let put = "/v2/team/app/manifests/referrer";
    let put = world.send(Method::PUT, put, &alice, &kind, referrer.to_string()).await;
    assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
    let referrers = format!("/v2/team/app/referrers/{digest}");
    for (path, address) in [
        ("/v2/", "/v2"),
        ("/v2/_catalog", "/v2/_catalog"),
        ("/v2/{name}/tags/list", "/v2/team/app/tags/list"),
        ("/v2/{name}/referrers/{digest}", &referrers),
        ("/health", "/health"),
        ("/ready", "/ready"),
    ] {
        let answer = world.ask(Method::GET, address, &alice).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        check(&document, &Method::GET, path, &[answer]);
    }
    let answer = world.ask(Method::GET, &referrers, &alice).await.json();
    assert_eq!(answer["manifests"][0]["annotations"], json!({"a": "b"}));
    let absent = "/v2/team/none/tags/list";
    let absent = world.ask(Method::GET, absent, &alice).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    check(&document, &Method::GET, "/v2/{name}/tags/list", &[absent]);
}
