//! Accounts, tokens, sessions, tenants, the policy and the audit log as people have them who run `nora`: its words and exit codes
//! against a real node that asks for logins. A secret is told by the command that makes it, and by nothing else.

use std::cell::RefCell;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::node::{Node, OCI_MANIFEST, digest_of, image};
use super::shell::{Said, Shell, said};

const DATA: &str = "node/data";

const CONFIG: &str = r#"
[auth]
[[auth.rules]]
subject = "user:alice"
permissions = ["pull:team/*", "push:team/*"]
deny = ["push:team/frozen"]

[[auth.rules]]
subject = "robot:ci"
permissions = ["pull,push,delete:team/*"]

[[tenants]]
name = "team"
namespaces = { oci = ["team/*"] }
storage_quota = "1MiB"
artifact_quota = 10
rate_limit = { push = 100, pull = 50 }
"#;

/// Alice's passwords, one after the other, and what the administrator chooses.
const FIRST: &str = "rosebud, and nothing more";
const SECOND: &str = "a sledge of another name";
const CHOSEN: &str = "chosen by whoever administers";

const LAYER: &[u8] = b"a layer of the team's";

/// How soon what is over is over.
const PATIENCE: Duration = Duration::from_secs(20);

/// The machine of a node: whoever sits there, what they keep secret, and all that they were told.
struct Desk {
    shell: Shell,
    node: Node,
    secrets: RefCell<Vec<String>>,
    told: RefCell<String>,
}

impl Desk {
    fn new() -> Self {
        let (shell, node) = Shell::with_node(CONFIG);
        let (secrets, told) = (RefCell::default(), RefCell::default());
        let desk = Self { shell, node, secrets, told };
        desk.keep("alice", FIRST);
        desk
    }

    /// Keeps a secret, in a file of that name.
    fn keep(&self, file: &str, secret: &str) {
        std::fs::write(self.shell.path(file), format!("{secret}\n")).unwrap();
        self.secrets.borrow_mut().push(secret.to_owned());
    }

    fn command(&self, args: &[&str]) -> Command {
        self.shell.command(&[args, &["--data-dir", DATA]].concat())
    }

    /// Runs `nora …` with a variable, which stands for the login.
    fn nora_with(&self, variable: (&str, &str), args: &[&str]) -> Said {
        let said = said(self.command(args).env(variable.0, variable.1));
        self.told.borrow_mut().push_str(&format!("{args:?}\n{}{}", said.out, said.err));
        said
    }

    /// Runs `nora …` with what the data folder gives: the administrator's certificate.
    fn nora(&self, args: &[&str]) -> Said {
        self.nora_with(("NORA_TOKEN", ""), args)
    }

    /// Runs `nora …` as alice, with the password in her file.
    fn as_alice(&self, args: &[&str]) -> Said {
        self.nora(&[args, &["--username", "alice", "--password-file", "alice"]].concat())
    }

    /// Makes a token. What comes to stdout is for its owner alone.
    fn made(&self, args: &[&str]) -> Said {
        let said = done(said(&mut self.command(&[&["token", "create"], args].concat())));
        self.told.borrow_mut().push_str(&said.err);
        said
    }

    fn explain(&self, question: &[&str]) -> Said {
        self.nora(&[&["auth", "explain"], question].concat())
    }

    /// The names of the accounts.
    fn accounts(&self) -> Vec<String> {
        let users = self.nora(&["user", "ls", "-o", "json"]).json();
        let users = users.as_array().unwrap().iter();
        users.map(|user| user["name"].as_str().unwrap().to_owned()).collect()
    }

    /// What a login opens the registry with.
    async fn basic(&self, user: &str, password: &str) -> u16 {
        status(self.node.request(Method::GET, "/v2/").basic_auth(user, Some(password))).await
    }

    async fn bearer(&self, token: &str) -> u16 {
        status(self.node.request(Method::GET, "/v2/").bearer_auth(token)).await
    }

    /// Pushes an image; returns the bytes of all that it is.
    async fn push(&self, token: &str) -> usize {
        let mut digests = Vec::new();
        for bytes in [b"{}".as_slice(), LAYER] {
            let digest = digest_of(bytes);
            let path = format!("/v2/team/app/blobs/uploads/?digest={digest}");
            let request = self.node.request(Method::POST, &path).bearer_auth(token);
            assert_eq!(status(request.body(bytes.to_vec())).await, 201);
            digests.push(digest);
        }
        let manifest = image(&digests[0], 2, &[(&digests[1], LAYER.len())], &json!({}));
        let bytes = 2 + LAYER.len() + manifest.len();
        let request = self.node.request(Method::PUT, "/v2/team/app/manifests/v1");
        let request = request.bearer_auth(token).header("content-type", OCI_MANIFEST);
        assert_eq!(status(request.body(manifest)).await, 201);
        bytes
    }

    /// Alice's attempt to delete the tag of that image.
    async fn delete_as_alice(&self) -> u16 {
        let request = self.node.request(Method::DELETE, "/v2/team/app/manifests/v1");
        status(request.basic_auth("alice", Some(FIRST))).await
    }

    /// The audit log's entries, or those that these options leave.
    fn audit(&self, filter: &[&str]) -> Vec<Value> {
        let said = done(self.nora(&[&["audit", "-o", "json"], filter].concat()));
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What was said by a command that did what was asked.
fn done(said: Said) -> Said {
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    said
}

/// A document on stdout, beside notes on stderr.
fn document(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.out))
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// Asks until it is refused: the node hears of a change a moment after it is made.
async fn is_refused(ask: impl AsyncFn() -> u16) {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            401 => return,
            status => assert_eq!(status, 200),
        }
        assert!(Instant::now() < end, "it still opens the registry");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A robot's token, alice's, and the id of hers.
struct Tokens {
    deploy: String,
    laptop: String,
    laptop_id: String,
}

#[tokio::test]
async fn logins_policy_and_log_are_in_the_administrators_hands() {
    let desk = Desk::new();
    let tokens = accounts_and_tokens_are_made(&desk);
    everybody_is_told_who_they_are(&desk, &tokens);
    the_rule_that_decides_is_named(&desk);
    use_is_told_by_tenant(&desk, &tokens).await;
    another_policy_comes_into_force(&desk).await;
    sessions_are_seen_and_ended(&desk, &tokens).await;
    what_is_over_opens_nothing(&desk, &tokens).await;
    all_of_it_is_in_the_log(&desk, &tokens).await;
    the_administrator_chooses_a_password_and_gives_it_up(&desk).await;

    let told = desk.told.take() + &desk.node.logged();
    for secret in desk.secrets.take() {
        assert!(!told.contains(&secret), "{secret:?} was told");
    }
    assert!(!told.contains("$argon2"), "a hash was told");
}

fn accounts_and_tokens_are_made(desk: &Desk) -> Tokens {
    let alice = ["user", "add", "alice", "--group", "devs", "--password-file", "alice"];
    let added = done(desk.nora(&alice));
    assert_eq!((added.out.as_str(), added.err.as_str()), ("", "note: there is a user alice\n"));
    let robot = ["user", "add", "ci", "--robot"];
    let added = document(&done(desk.nora(&[&robot[..], &["-o", "json"]].concat())));
    assert_eq!(added, json!({"name": "ci"}));
    let again = desk.nora(&robot);
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert!(again.err.starts_with("error: there is an account ci"), "{}", again.err);
    let users = desk.nora(&["user", "ls", "-o", "json"]).json();
    let known = |user: &Value| json!([user["name"], user["robot"], user["groups"]]);
    let users: Vec<_> = users.as_array().unwrap().iter().map(known).collect();
    assert_eq!(users, [json!(["alice", false, ["devs"]]), json!(["ci", true, []])]);
    // What is everybody's is none of alice's business.
    for args in [&["user", "ls"][..], &["user", "rm", "ci", "--yes"], &["policy", "show"]] {
        let refused = desk.as_alice(args);
        assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{args:?}");
        let told = "error: user:alice may not do this";
        assert!(refused.err.starts_with(told), "{args:?}: {}", refused.err);
    }

    let made = desk.made(&["deploy", "--owner", "robot:ci", "--scope", "pull:team/*"]);
    let deploy = made.out.trim_end().to_owned();
    desk.keep("deploy", &deploy);
    assert!(deploy.starts_with("nora_pat_") && made.out.lines().count() == 1);
    assert!(made.err.contains("the token robot:ci/deploy (") && made.err.contains("pull:team/*"));
    let mine = ["laptop", "-o", "json", "--username", "alice", "--password-file", "alice"];
    let made = document(&desk.made(&mine));
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    desk.keep("laptop", &text("secret"));
    assert!(text("secret").starts_with("nora_pat_"));
    assert_eq!((made["owner"].clone(), made["scope"].clone()), (json!("user:alice"), json!([])));
    let tokens = Tokens { deploy, laptop: text("secret"), laptop_id: text("id") };

    let listed = |said: Said| {
        let told = said.json();
        let names = told.as_array().unwrap().iter().map(|token| {
            format!("{}/{}", token["owner"].as_str().unwrap(), token["name"].as_str().unwrap())
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let ls = ["token", "ls", "-o", "json"];
    assert_eq!(listed(desk.nora(&ls)), ["robot:ci/deploy", "user:alice/laptop"]);
    assert_eq!(listed(desk.as_alice(&ls)), ["user:alice/laptop"]);
    assert_eq!(desk.as_alice(&["token", "ls", "--owner", "robot:ci"]).code, 1);
    let table = done(desk.nora(&["token", "ls", "--owner", "robot:ci"]));
    assert_eq!(table.rows()[0][1..4], ["robot:ci", "deploy", "pull:team/*"]);
    tokens
}

fn everybody_is_told_who_they_are(desk: &Desk, tokens: &Tokens) {
    let whoami = ["auth", "whoami", "-o", "json"];
    let alice = json!({"subject": "user:alice", "groups": ["devs"], "token": null, "scope": []});
    assert_eq!(desk.as_alice(&whoami).json(), alice);
    let of_alice = json!({
        "subject": "user:alice", "groups": ["devs"], "token": "laptop", "scope": [],
    });
    assert_eq!(desk.nora_with(("NORA_TOKEN", &tokens.laptop), &whoami).json(), of_alice);
    let robot = json!({
        "subject": "robot:ci", "groups": [], "token": "deploy", "scope": ["pull:team/*"],
    });
    assert_eq!(desk.nora_with(("NORA_TOKEN", &tokens.deploy), &whoami).json(), robot);
    assert_eq!(done(desk.nora(&["auth", "whoami"])).out, "Subject:  admin\n");
}

fn the_rule_that_decides_is_named(desk: &Desk) {
    for (question, code, told) in [
        (["push", "team/app"], 0, "auth.rules[0].permissions[1]: push:team/*\n  allows: "),
        (["push", "team/frozen"], 1, "auth.rules[0].deny[0]: push:team/frozen\n  denies: "),
        (["delete", "team/app"], 1, "user:alice may not delete oci:team/app: no rule allows it\n"),
    ] {
        let said = desk.explain(&[&["--subject", "user:alice"], &question[..]].concat());
        assert_eq!((said.code, said.err.as_str()), (code, ""), "{question:?}: {}", said.out);
        assert!(said.out.starts_with(if code == 0 { "allowed: " } else { "refused: " }));
        assert!(said.out.contains(told), "{question:?}: {told} is not in\n{}", said.out);
    }
    // What a token is cut down to counts as well.
    let explain = |action: &str| desk.explain(&["--token-file", "deploy", action, "team/app"]);
    let allowed = done(explain("pull"));
    assert!(allowed.out.contains("auth.rules[1].permissions[0]"), "{}", allowed.out);
    let refused = explain("delete");
    assert_eq!((refused.code, refused.err.as_str()), (1, ""));
    let told = "the token's scope: pull:team/*\n  cuts down: ";
    assert!(refused.out.contains(told), "{}", refused.out);
    // What others may do is none of alice's business.
    let nosy = ["auth", "explain", "--subject", "robot:ci", "pull", "team/app"];
    let refused = desk.as_alice(&nosy);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.starts_with("error: "), "{}", refused.err);
}

async fn use_is_told_by_tenant(desk: &Desk, tokens: &Tokens) {
    let bytes = desk.push(&tokens.laptop).await;
    let usage = desk.nora(&["usage", "team", "-o", "json"]).json();
    let team = &usage[0];
    for (field, expected) in [
        ("name", json!("team")),
        ("namespaces", json!(["oci:team/*"])),
        ("unique_bytes", json!(bytes)),
        ("reserved_bytes", json!(0)),
        ("bytes", json!(bytes)),
        ("artifacts", json!(1)),
        ("tags", json!(1)),
        ("storage_quota", json!(1 << 20)),
        ("artifact_quota", json!(10)),
        ("push_limit", json!(100)),
        ("pull_limit", json!(50)),
    ] {
        assert_eq!(team[field], expected, "{field}");
    }
    let pushes = team["pushes"].as_u64().unwrap();
    assert!((1..=100).contains(&pushes), "{pushes}");

    let all = desk.nora(&["usage", "-o", "json"]).json();
    let mut names = all.as_array().unwrap().iter().map(|tenant| &tenant["name"]);
    assert!(names.any(|name| name == "team"), "{all}");
    let listed = done(desk.nora(&["tenant", "ls"]));
    let line = listed.out.lines().find(|line| line.starts_with("team ")).unwrap().to_owned();
    let shown = done(desk.nora(&["tenant", "show", "team"])).out;
    for text in [&line, &shown] {
        for told in ["oci:team/*", &format!("{bytes} B of 1.0 MiB"), "1 of 10"] {
            assert!(text.contains(told), "{told} is not in\n{text}");
        }
    }
    let none = desk.nora(&["tenant", "show", "none"]);
    assert_eq!(none.out, "");
    assert!(none.code != 0 && none.err.contains("there is no tenant none"), "{}", none.err);
}

async fn another_policy_comes_into_force(desk: &Desk) {
    let shown = done(desk.nora(&["policy", "show"]));
    assert!(shown.err.starts_with("note: policy 1, applied by nora.toml at "), "{}", shown.err);
    for told in ["[[auth.rules]]", "user:alice", "push:team/frozen", "[[tenants]]"] {
        assert!(shown.out.contains(told), "{told} is not in\n{}", shown.out);
    }
    let same = done(desk.nora(&["policy", "diff", "--config", "node/nora.toml"]));
    assert_eq!(
        (same.out.as_str(), same.err.as_str()),
        ("", "note: the file's policy is the one in force\n")
    );

    let changed = CONFIG.replace("\"push:team/*\"]", "\"push:team/*\", \"delete:team/*\"]");
    assert_ne!(changed, CONFIG);
    std::fs::write(desk.shell.path("changed.toml"), changed).unwrap();
    let diff = done(desk.nora(&["policy", "diff", "--config", "changed.toml"]));
    assert_eq!(
        (diff.out.as_str(), diff.err.as_str()),
        ("+ auth.rules[0].permissions: delete:team/*\n", "")
    );
    let apply = ["policy", "apply", "--config", "changed.toml"];
    let unasked = desk.nora(&apply);
    assert_eq!((unasked.code, unasked.out.as_str()), (2, ""));
    assert!(unasked.err.contains("error: nobody is there to confirm"), "{}", unasked.err);
    assert_eq!(desk.delete_as_alice().await, 403);

    let applied = done(desk.nora(&[&apply[..], &["--yes"]].concat()));
    assert!(applied.err.ends_with("note: policy 2 is in force\n"), "{}", applied.err);
    assert_eq!(desk.delete_as_alice().await, 202);
    let explained =
        done(desk.explain(&["--subject", "user:alice", "delete", "team/app", "-o", "json"]));
    let steps = document(&explained)["steps"].clone();
    let allows = |step: &&Value| step["effect"] == "allows";
    let step = steps.as_array().unwrap().iter().find(allows).unwrap();
    assert_eq!(step["place"], "auth.rules[0].permissions[2]");
    let shown = document(&done(desk.nora(&["policy", "show", "-o", "json"])));
    assert_eq!((shown["epoch"].clone(), shown["applied_by"].clone()), (json!(2), json!("admin")));
    assert!(shown["file_hash"].is_string(), "the node's own file says something else: {shown}");
    let permissions = json!(["pull:team/*", "push:team/*", "delete:team/*"]);
    assert_eq!(shown["document"]["auth"]["rules"][0]["permissions"], permissions);
}

/// What Docker gets for alice's password and keeps.
async fn logged_in(desk: &Desk) -> String {
    let path = "/v2/token?service=nora&offline_token=true";
    let login = desk.node.request(Method::GET, path).basic_auth("alice", Some(FIRST));
    let answer: Value = login.send().await.unwrap().json().await.unwrap();
    let refresh = answer["refresh_token"].as_str().unwrap().to_owned();
    desk.secrets.borrow_mut().push(refresh.clone());
    refresh
}

async fn sessions_are_seen_and_ended(desk: &Desk, tokens: &Tokens) {
    let (lost, kept) = (logged_in(desk).await, logged_in(desk).await);
    let refreshed = async |refresh: &str| {
        let form = format!("grant_type=refresh_token&refresh_token={refresh}");
        let request = desk.node.request(Method::POST, "/v2/token");
        let kind = "application/x-www-form-urlencoded";
        status(request.header("content-type", kind).body(form)).await
    };
    assert_eq!((refreshed(&lost).await, refreshed(&kept).await), (200, 200));
    let ls = ["session", "ls", "-o", "json"];
    let ids = |said: Said| {
        let sessions = said.json();
        let of = |session: &Value| session["id"].as_str().unwrap().to_owned();
        let mut ids: Vec<_> = sessions.as_array().unwrap().iter().map(of).collect();
        ids.sort();
        ids
    };
    let all = ids(desk.nora(&ls));
    assert_eq!((all.len(), ids(desk.as_alice(&ls))), (2, all.clone()));
    assert!(all.iter().all(|id| id.starts_with("user:alice/")), "{all:?}");
    let table = done(desk.nora(&["session", "ls", "--owner", "user:alice"]));
    assert_eq!(table.rows()[0][1], "127.0.0.1");
    // They are neither a token's business nor another's.
    for args in [&ls[..], &["session", "revoke", &all[0], "--yes"]] {
        for token in [&tokens.laptop, &tokens.deploy] {
            let refused = desk.nora_with(("NORA_TOKEN", token), args);
            assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{args:?}");
        }
    }
    assert_eq!(ids(desk.nora(&ls)), all);

    let revoke = ["session", "revoke", &all[0]];
    assert_eq!(desk.as_alice(&revoke).code, 2, "nobody was there to confirm");
    done(desk.as_alice(&[&revoke[..], &["--yes"]].concat()));
    assert_eq!(ids(desk.nora(&ls)), all[1..]);
    let left = [refreshed(&lost).await, refreshed(&kept).await];
    assert!(left == [401, 200] || left == [200, 401], "{left:?}");
    let again = desk.nora(&["session", "revoke", &all[0], "--yes"]);
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert!(again.err.starts_with("error: there is no such session"), "{}", again.err);
    let rest = ["session", "revoke", "user:alice", "--yes", "-o", "json"];
    let ended = document(&done(desk.nora(&rest)));
    assert_eq!(ended, json!({"session": "user:alice", "ended": 1}));
    is_refused(async || refreshed(&lost).await).await;
    is_refused(async || refreshed(&kept).await).await;
}

async fn what_is_over_opens_nothing(desk: &Desk, tokens: &Tokens) {
    // A password: alice gives herself another one, and shows the old one for it.
    desk.keep("new", SECOND);
    let own = ["user", "passwd", "alice", "--username", "alice", "--password-file", "new"];
    assert_eq!(desk.basic("alice", FIRST).await, 200);
    done(desk.nora_with(("NORA_PASSWORD", FIRST), &own));
    is_refused(async || desk.basic("alice", FIRST).await).await;
    assert_eq!(desk.basic("alice", SECOND).await, 200);
    let refused = desk.as_alice(&["auth", "whoami"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    let told = "the user name or the password is wrong";
    assert!(refused.err.contains(told), "{}", refused.err);
    desk.keep("alice", SECOND);
    done(desk.as_alice(&["auth", "whoami"]));
    let robot = desk.nora(&["user", "passwd", "ci", "--password-file", "new"]);
    assert_eq!(robot.code, 1);
    assert!(robot.err.contains("a robot has no password"), "{}", robot.err);

    // A token.
    let revoke = ["token", "revoke", "user:alice/laptop"];
    assert_eq!(desk.as_alice(&revoke).code, 2, "nobody was there to confirm");
    assert_eq!(desk.bearer(&tokens.laptop).await, 200);
    done(desk.as_alice(&[&revoke[..], &["--yes"]].concat()));
    is_refused(async || desk.bearer(&tokens.laptop).await).await;
    let refused = desk.nora_with(("NORA_TOKEN", &tokens.laptop), &["auth", "whoami"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.contains("was revoked"), "{}", refused.err);
    assert_eq!(desk.as_alice(&["token", "ls", "-o", "json"]).json(), json!([]));

    // An account, and its tokens with it.
    assert_eq!(desk.nora(&["user", "rm", "ci"]).code, 2, "nobody was there to confirm");
    assert_eq!(desk.bearer(&tokens.deploy).await, 200);
    let removed = document(&done(desk.nora(&["user", "rm", "ci", "--yes", "-o", "json"])));
    assert_eq!(removed, json!({"name": "ci", "tokens": 1}));
    is_refused(async || desk.bearer(&tokens.deploy).await).await;
    assert_eq!(desk.accounts(), ["alice"]);
    let again = desk.nora(&["user", "rm", "ci", "--yes"]);
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert!(again.err.starts_with("error: there is no account ci"), "{}", again.err);
}

async fn all_of_it_is_in_the_log(desk: &Desk, tokens: &Tokens) {
    let wanted = [
        ("nora.toml", "policy.set", "policy", "done"),
        ("admin", "account.create", "alice", "done"),
        ("admin", "account.create", "ci", "done"),
        ("admin", "account.create", "ci", "refused: the account exists"),
        ("admin", "token.create", "robot:ci/deploy", "done"),
        ("user:alice", "token.create", "user:alice/laptop", "done"),
        ("user:alice (token laptop)", "artifact.push", "oci:team/app:v1@sha256:", "done"),
        ("user:alice", "artifact.delete", "oci:team/app", "refused: not permitted"),
        ("admin", "policy.set", "policy", "done"),
        ("user:alice", "tag.delete", "oci:team/app:v1", "done"),
        ("user:alice", "session.create", "user:alice/", "done"),
        ("user:alice", "session.revoke", "user:alice/", "done"),
        ("user:alice (token laptop)", "session.revoke", "user:alice/", "refused: not permitted"),
        ("admin", "session.revoke", "user:alice", "done"),
        ("user:alice", "account.password", "alice", "done"),
        ("unknown", "login", "alice", "refused: wrong credential"),
        ("user:alice", "token.revoke", tokens.laptop_id.as_str(), "done"),
        ("admin", "account.remove", "ci", "done"),
    ];
    let is_like = |entry: &Value, (actor, action, resource, result): (&str, &str, &str, &str)| {
        entry["actor"] == actor
            && entry["action"] == action
            && entry["resource"].as_str().unwrap().starts_with(resource)
            && entry["result"] == result
    };
    // Refusals are written down a moment later.
    let end = Instant::now() + PATIENCE;
    let entries = loop {
        let entries = desk.audit(&[]);
        let is_there = |like| entries.iter().any(|entry| is_like(entry, like));
        let missing: Vec<_> = wanted.into_iter().filter(|like| !is_there(*like)).collect();
        if missing.is_empty() {
            break entries;
        }
        assert!(Instant::now() < end, "{missing:?} are not in {entries:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // What the cluster does by itself has numbers too.
    let numbers: Vec<u64> = entries.iter().filter_map(|entry| entry["number"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.len() == entries.len(), "{numbers:?}");
    for entry in &entries {
        assert_eq!(entry["hash"].as_str().unwrap().len(), 64, "{entry}");
        assert!(entry["time"].as_str().unwrap().ends_with('Z'), "{entry}");
        let from = if entry["actor"] == "nora.toml" { "" } else { "127.0.0.1" };
        assert_eq!(entry["address"], from, "{entry}");
    }
    let own = desk.audit(&["--actor", "user:alice"]);
    assert!(own.len() > 3 && own.len() < entries.len(), "{own:#?}");
    assert!(own.iter().all(|entry| entry["actor"].as_str().unwrap().starts_with("user:alice")));
    assert!(desk.audit(&["--resource", "oci:team/"]).len() >= 3, "{entries:#?}");

    let verdict = desk.nora(&["audit", "verify", "-o", "json"]).json();
    assert_eq!((verdict["first"].clone(), verdict["broken_at"].clone()), (json!(1), json!(null)));
    assert!(verdict["last"].as_u64().unwrap() >= entries.len() as u64, "{verdict}");
    assert_eq!(verdict["head"].as_str().unwrap().len(), 64);
    // What it prints is a secret, and so it is nowhere in the node's log.
    let key = done(said(&mut desk.command(&["audit", "webhook-key"]))).out.trim_end().to_owned();
    assert!(key.starts_with("whsec_") && key.len() == 50, "{key}");
    desk.secrets.borrow_mut().push(key);
    assert_ne!(desk.as_alice(&["audit", "webhook-key"]).code, 0);
    let verified = done(desk.nora(&["audit", "verify"]));
    assert!(verified.out.contains("Whole:             yes\n"), "{}", verified.out);
}

async fn the_administrator_chooses_a_password_and_gives_it_up(desk: &Desk) {
    let file = desk.shell.path(DATA).join("admin-password");
    let made = std::fs::read_to_string(&file).unwrap().trim_end().to_owned();
    desk.secrets.borrow_mut().push(made.clone());
    desk.keep("chosen", CHOSEN);
    let metrics = async |password: &str| {
        let request = desk.node.request(Method::GET, "/metrics");
        status(request.basic_auth("admin", Some(password))).await
    };
    assert_eq!((desk.basic("admin", &made).await, metrics(&made).await), (200, 200));

    done(desk.nora(&["user", "passwd", "admin", "--password-file", "chosen"]));
    is_refused(async || desk.basic("admin", &made).await).await;
    assert_eq!((desk.basic("admin", CHOSEN).await, metrics(CHOSEN).await), (200, 200));
    // The certificate is another matter.
    done(desk.nora(&["auth", "whoami"]));
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim_end(), made);

    done(desk.nora(&["user", "rm", "admin", "--yes"]));
    is_refused(async || desk.basic("admin", CHOSEN).await).await;
    assert_eq!((desk.basic("admin", &made).await, metrics(&made).await), (200, 200));
}
