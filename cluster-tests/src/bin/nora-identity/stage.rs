//! What every check stands on: three real nodes with one policy, issuers, accounts, and what was secret so far.
//!
//! Guarantees: nodes and issuers end with the stage; every credential that a check gets through here is remembered, so
//! that the last check can look for it where it must not be. Must not know: what any check is about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use nora_client::Secret;
use nora_client::admin::{
    AdminClient, AdminConfig, MemberStatus, NewAccount, NewToken, TenantUsage,
};
use nora_cluster_tests::cluster::{Cluster, Setup};
use nora_cluster_tests::content::{MANIFEST_TYPE, sha256};
use nora_cluster_tests::issuer::Issuer;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use serde_json::{Map, Value};

/// How many nodes there are.
pub const NODES: usize = 3;
/// What tokens of all issuers must be for.
pub const AUDIENCE: &str = "https://nora.example.com";
/// A user of the htpasswd file, and the password.
pub const ALICE: (&str, &str) = ("alice", "wonder:land 1");
/// The line of the htpasswd file: bcrypt of that password.
pub const ALICE_HASH: &str = "$2y$05$ovvPVGQpAUiFYf/yOZS0TOLYBgYUsMavmxy2XexuZzGtlp8LZ7BDW";
/// Bytes that the tenant of `quota/*` may have.
pub const QUOTA: u64 = 40 << 20;
/// Pulls in an hour that the tenant of `limit/*` may make.
pub const PULLS: u64 = 300;

/// What went wrong with a check, in words.
#[derive(Debug)]
pub struct Trouble(pub String);

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        let mut told = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            told = format!("{told}: {error}");
            cause = error.source();
        }
        Self(told)
    }
}

/// The result of a step.
pub type Step<T> = Result<T, Trouble>;

/// `Err` unless `right`.
pub fn ensure(right: bool, told: impl FnOnce() -> String) -> Step<()> {
    if right { Ok(()) } else { Err(Trouble(told())) }
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Login {
    /// Nobody.
    Nobody,
    /// A user name and a password.
    Basic(String, String),
    /// A token or a session.
    Bearer(String),
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(300).collect()
    }

    /// The body as a JSON object.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A field of the body.
    pub fn field(&self, name: &str) -> Step<String> {
        let value = self.json()[name].as_str().map(str::to_owned);
        value.ok_or_else(|| Trouble(format!("no {name} in {} {}", self.status, self.text())))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `Err` unless the status is this one.
    pub fn must_be(self, status: u16, what: &str) -> Step<Self> {
        ensure(self.status == status, || {
            format!("{what}: {} instead of {status}: {}", self.status, self.text())
        })?;
        Ok(self)
    }
}

/// The issuers, each with its own faults: an issuer that was asked is not asked again for a while.
pub struct Issuers {
    /// Believed as GitHub.
    pub github: Issuer,
    /// Believed, and asked by nobody before the check that counts the questions.
    pub fresh: Issuer,
    /// What is wrong with the others, and they.
    pub faulty: BTreeMap<&'static str, Issuer>,
}

/// The nodes and all there is around them.
pub struct Stage {
    cluster: Mutex<Cluster>,
    nodes: Vec<String>,
    /// The admin API of each node, as the owner of the first node's data.
    pub admins: Vec<AdminClient>,
    /// Who gives out ID tokens.
    pub issuers: Issuers,
    http: reqwest::Client,
    work: PathBuf,
    secrets: Mutex<Vec<String>>,
}

/// Everything that a node could say, so that it is seen what it does not say. The issuers are on this machine.
const OWN: &str =
    "[server]\negress_networks = [\"127.0.0.0/8\"]\n[log]\nlevel = \"trace,h2=debug\"\n";

fn policy(issuers: &Issuers) -> String {
    let mut text = format!(
        r#"{OWN}
[auth]
htpasswd = "users.htpasswd"

[[auth.rules]]
subject = "user:alice"
permissions = ["pull,push,overwrite:free/*"]

[[auth.rules]]
subject = "group:people"
permissions = ["pull:free/*"]

[[auth.rules]]
subject = "robot:load"
permissions = ["pull,push,overwrite,delete:*"]

[[auth.rules]]
subject = "robot:reader"
permissions = ["pull:free/*"]

[[auth.rules]]
subject = "robot:boss"
permissions = ["admin:*"]

[[tenants]]
name = "quota"
storage_quota = "{QUOTA}B"
namespaces = {{ oci = ["quota/*"] }}

[[tenants]]
name = "limit"
namespaces = {{ oci = ["limit/*"] }}
rate_limit = {{ pull = {PULLS} }}

[[policy.immutable]]
match = "locked/*"
tags = ["v*"]

[auth.oidc]
enabled = true

[[auth.oidc.providers]]
name = "github"
kind = "github"
issuer = "{}"
audience = "{AUDIENCE}"

[[auth.oidc.providers.rules]]
match = {{ repository = "my-org/*", repository_owner_id = "2002" }}
permissions = ["pull,push:ci/*"]
"#,
        issuers.github.url()
    );
    let fresh = [("fresh", &issuers.fresh)].into_iter();
    for (name, issuer) in fresh.chain(issuers.faulty.iter().map(|(name, issuer)| (*name, issuer))) {
        let url = issuer.url();
        text.push_str(&format!(
            r#"
[[auth.oidc.providers]]
name = "{name}"
issuer = "{url}"
audience = "{AUDIENCE}"

[[auth.oidc.providers.rules]]
match = {{ sub = "tester" }}
permissions = ["pull:ci/*"]
"#
        ));
    }
    text
}

/// `nora policy apply`, as the owner of the first node's data.
fn apply(work: &Path, config: &Path) -> Step<()> {
    let done = Command::new(work.join("nora"))
        .args(["policy", "apply", "--yes", "--config"])
        .arg(config)
        .arg("--data-dir")
        .arg(work.join("node1/data"))
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure(done.status.success(), || format!("nora policy apply: {said}"))
}

impl Stage {
    /// Starts the nodes in an empty folder that exists. It blocks, and no runtime must be there yet.
    pub fn start(program: &Path, work: &Path, issuers: Issuers) -> Step<Self> {
        let (config, users) = (work.join("nora.toml"), work.join("users.htpasswd"));
        // Whether a cluster is whole is told by metrics, which are an administrator's: nodes are open until it is.
        std::fs::write(&config, OWN)?;
        std::fs::write(users, format!("{}:{ALICE_HASH}\n", ALICE.0))?;
        let cluster = Cluster::start(&Setup {
            program: program.to_owned(),
            work: work.to_owned(),
            nodes: NODES,
            users: false,
            faults: true,
            args: vec!["--config".to_owned(), config.display().to_string()],
        })?;
        std::fs::write(&config, policy(&issuers))?;
        apply(work, &config)?;
        let nodes = (0..NODES).map(|node| format!("http://{}", cluster.node(node).http)).collect();
        let admins = (0..NODES).map(|node| {
            let owner = AdminConfig::of_data_dir(&work.join("node1/data"));
            let addresses = vec![cluster.node(node).peer.to_string()];
            AdminClient::new(&AdminConfig { addresses, ..owner })
        });
        let admins = admins.collect::<Result<_, _>>()?;
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        let secrets = vec![
            ALICE.1.to_owned(),
            ALICE_HASH.to_owned(),
            BASE64_STANDARD.encode(format!("{}:{}", ALICE.0, ALICE.1)),
        ];
        Ok(Self {
            cluster: Mutex::new(cluster),
            nodes,
            admins,
            issuers,
            http,
            work: work.to_owned(),
            secrets: Mutex::new(secrets),
        })
    }

    /// The folder of everything that the nodes keep.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The nodes' processes.
    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which node leads.
    pub async fn leader(&self) -> Step<usize> {
        let status = self.admins[0].status().await?;
        let leads = |member: &&MemberStatus| Some(member.node) == status.leader;
        let leader = status.members.iter().find(leads);
        let address = leader.map(|member| member.cluster_address.as_str()).unwrap_or_default();
        let cluster = self.cluster();
        let found = (0..NODES).find(|node| cluster.node(*node).peer.to_string() == address);
        found.ok_or_else(|| Trouble(format!("nobody leads: {status:?}")))
    }

    /// Remembers what must not be seen anywhere.
    pub fn keep(&self, secret: &str) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.push(secret.to_owned());
        // The signature of a token is as good as the token to whoever knows the rest.
        // Forgeries may have none.
        let signature = secret.rsplit_once('.').map(|(_, signature)| signature.to_owned());
        secrets.extend(signature.filter(|signature| signature.len() > 40));
        secrets.push(BASE64_STANDARD.encode(format!("token:{secret}")));
    }

    /// All that must not be seen.
    pub fn secrets(&self) -> Vec<String> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a node has logged so far.
    pub fn log(&self, node: usize) -> Step<String> {
        let log = std::fs::read(self.work.join(format!("node{}.log", node + 1)))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// A request to a node; the caller adds what it needs and sends it with [`send`].
    pub fn request(
        &self,
        node: usize,
        method: Method,
        path: &str,
        login: &Login,
    ) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.nodes[node % NODES]));
        match login {
            Login::Nobody => request,
            Login::Basic(user, password) => request.basic_auth(user, Some(password)),
            Login::Bearer(token) => request.bearer_auth(token),
        }
    }

    /// `GET`.
    pub async fn get(&self, node: usize, path: &str, login: &Login) -> Step<Answer> {
        send(self.request(node, Method::GET, path, login)).await
    }

    /// A form.
    pub async fn post_form(&self, node: usize, path: &str, form: String) -> Step<Answer> {
        let request = self.request(node, Method::POST, path, &Login::Nobody);
        send(request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)).await
    }

    /// Makes an account; without a password a robot.
    pub async fn add_account(
        &self,
        name: &str,
        groups: &[&str],
        password: Option<&str>,
    ) -> Step<()> {
        if let Some(password) = password {
            self.keep(password);
            self.keep(&BASE64_STANDARD.encode(format!("{name}:{password}")));
        }
        let account = NewAccount {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            password: password.map(Secret::new),
        };
        Ok(self.admins[0].add_user(&account).await?)
    }

    /// Makes an API token for an owner, as `robot:load`.
    pub async fn token(&self, owner: &str, name: &str) -> Step<Login> {
        let owner = Some(owner.to_owned());
        let wanted = NewToken { owner, name: name.to_owned(), ..NewToken::default() };
        let made = self.admins[0].create_token(&wanted).await?;
        self.keep(made.secret.expose());
        Ok(Login::Bearer(made.secret.expose().to_owned()))
    }

    /// A session for a repository.
    pub async fn session(&self, node: usize, login: &Login, scope: &str) -> Step<Login> {
        let path = format!("/v2/token?service=nora&scope={scope}");
        let answer = self.get(node, &path, login).await?.must_be(200, "a session")?;
        let access = answer.field("token")?;
        self.keep(&access);
        Ok(Login::Bearer(access))
    }

    /// A session for a repository that everybody may pull, and the token to get others with.
    pub async fn kept_session(&self, node: usize, login: &Login) -> Step<(Login, String)> {
        let path = "/v2/token?service=nora&offline_token=true&scope=repository:free/app:pull";
        let answer = self.get(node, path, login).await?.must_be(200, "a session")?;
        let (access, refresh) = (answer.field("token")?, answer.field("refresh_token")?);
        self.keep(&access);
        self.keep(&refresh);
        Ok((Login::Bearer(access), refresh))
    }

    /// Shows an issuer's token to a node.
    pub async fn exchange(&self, node: usize, token: &str) -> Step<Answer> {
        self.keep(token);
        let form = format!(
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
             &subject_token_type=urn:ietf:params:oauth:token-type:id_token&subject_token={token}"
        );
        let answer = self.post_form(node, "/auth/oidc/token", form).await?;
        if let Ok(token) = answer.field("access_token") {
            self.keep(&token);
        }
        Ok(answer)
    }

    /// A GitHub job's ID token with these claims beyond the usual ones.
    pub fn github(&self, claims: Value) -> Step<String> {
        let Value::Object(claims) = claims else { return Err(Trouble("no claims".into())) };
        Ok(self.issuers.github.mint_github(AUDIENCE, &claims)?)
    }

    /// The same job's token without one of its claims.
    pub fn github_without(&self, claim: &str) -> Step<String> {
        let mut claims = self.github_claims()?;
        claims.insert(claim.into(), Value::Null);
        Ok(self.issuers.github.mint(&claims)?)
    }

    fn github_claims(&self) -> Step<Map<String, Value>> {
        let token = self.github(Value::Object(Map::new()))?;
        let claims = token.split('.').nth(1).unwrap_or_default();
        Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims)?)?)
    }

    /// The same job's token, signed by another algorithm and with another header.
    pub fn github_signed(&self, algorithm: &str, header: &Map<String, Value>) -> Step<String> {
        let claims = self.github_claims()?;
        Ok(self.issuers.github.mint_with(algorithm, &claims, header)?)
    }

    /// Pushes a blob with a length; the status of the step that ended it.
    pub async fn push_blob(
        &self,
        node: usize,
        login: &Login,
        repository: &str,
        bytes: &[u8],
    ) -> Step<Answer> {
        let opened = self.open_upload(node, login, repository).await?;
        let Some(place) = opened.header(LOCATION.as_str()).map(path_of) else { return Ok(opened) };
        let path = closing(&place, &sha256(bytes));
        send(self.request(node, Method::PUT, &path, login).body(bytes.to_vec())).await
    }

    /// Opens an upload.
    pub async fn open_upload(&self, node: usize, login: &Login, repository: &str) -> Step<Answer> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        send(self.request(node, Method::POST, &path, login)).await
    }

    /// Pushes a manifest.
    pub async fn push_manifest(
        &self,
        node: usize,
        login: &Login,
        path: &str,
        manifest: &[u8],
    ) -> Step<Answer> {
        let request = self.request(node, Method::PUT, path, login);
        send(request.header(CONTENT_TYPE, MANIFEST_TYPE).body(manifest.to_vec())).await
    }

    /// What a tenant uses, as a node tells it.
    pub async fn usage(&self, node: usize, tenant: &str) -> Step<TenantUsage> {
        let mut tenants = self.admins[node].tenants(Some(tenant)).await?;
        tenants.pop().ok_or_else(|| Trouble(format!("no tenant {tenant}")))
    }
}

/// Sends a request and reads the whole answer.
pub async fn send(request: reqwest::RequestBuilder) -> Step<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
}

/// The path of an address that may be absolute.
pub fn path_of(location: &str) -> String {
    match location.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
        Some((_, path)) => format!("/{path}"),
        None => location.to_owned(),
    }
}

/// Where an upload is ended.
pub fn closing(place: &str, digest: &str) -> String {
    let separator = if place.contains('?') { '&' } else { '?' };
    format!("{place}{separator}digest={digest}")
}

/// So many random bytes.
pub fn random(length: usize) -> Step<Vec<u8>> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Trouble("the system gives no random bytes".into()))?;
    Ok(bytes)
}
