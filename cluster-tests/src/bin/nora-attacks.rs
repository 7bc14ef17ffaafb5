//! `nora-attacks`: what strangers can hold open on a node, and what that costs its well-behaved clients.
//!
//! A release build runs as two nodes: the first without logins and TLS, the second with both. Each attack comes from its own
//! loopback address, and a client at another asks for a manifest all the while, half of the time on a new connection. The
//! result is a table: latency of that client before and during the attack, the node's memory and processor time. Nothing here
//! fails on time: figures are for `docs/reference/limits.md`. An attack that keeps the client from being answered at all is a
//! failure.
//!
//! Attackers have machines of their own; here they share one with the node. So their threads stand behind those of the node
//! and of the client, and take what these leave.

#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use nora_cluster_tests::content::sha256;
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::kernel;
use nora_cluster_tests::server::{Server, free_address};
use nora_cluster_tests::stats::{Latencies, micros};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use serde_json::{Map, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};

/// Attacks a node and measures what a well-behaved client sees.
#[derive(Parser)]
struct Args {
    /// The program `nora`.
    #[arg(long)]
    nora: PathBuf,
    /// A folder for the node's data; it is made anew.
    #[arg(long)]
    work: PathBuf,
    /// Seconds that each attack lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only attacks whose name contains this, beside the quiet time before and after.
    #[arg(long, default_value = "")]
    only: String,
}

/// What the second node takes: everybody may use `good/`, and nobody without a login anything else.
const CLOSED: &str = "[auth]\nanonymous = [\"pull,push,overwrite:good/*\"]\n";

/// From where the well-behaved client asks.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// From where the attacks come.
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
/// How long the client is watched without an attack, however long attacks last.
const QUIET_SECS_MAX: u64 = 20;
const PACE: Duration = Duration::from_millis(5);
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::Wrong(error.to_string())
}

/// The node under attack.
struct Target {
    server: Server,
    scheme: &'static str,
    only: String,
    http: SocketAddr,
    cluster: SocketAddr,
    /// What the well-behaved client asks for.
    manifest: String,
    /// What readers take nothing of.
    blob: String,
}

/// A client from one address.
fn client_from(address: IpAddr) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .local_address(address)
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .build()
        .map_err(wrong)
}

/// A client of HTTP/2 that makes one connection.
fn http2_from(address: IpAddr) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .local_address(address)
        .no_proxy()
        .http2_prior_knowledge()
        .danger_accept_invalid_certs(true)
        .build()
        .map_err(wrong)
}

/// A plain connection from the attacker's address.
async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(ATTACKER, 0))?;
    socket.connect(to).await
}

impl Target {
    /// A node without logins and TLS, or one with both.
    async fn start(args: &Args, is_closed: bool) -> Result<Self> {
        let work = &args.work.join(if is_closed { "closed" } else { "open" });
        let _ = std::fs::remove_dir_all(work);
        std::fs::create_dir_all(work).map_err(wrong)?;
        let (http, cluster) = (free_address()?, free_address()?);
        let mut command = Command::new(&args.nora);
        let config = work.join("nora.toml");
        let mut text = "[log]\nlevel = \"error\"\n".to_owned();
        if is_closed {
            make_certificate(work)?;
            text += "[server]\ntls = { cert = \"tls.crt\", key = \"tls.key\" }\n";
            text += CLOSED;
        }
        std::fs::write(&config, text).map_err(wrong)?;
        command.args(["serve", "--listen", &http.to_string(), "--config"]).arg(config);
        command.args(["--cluster-listen", &cluster.to_string(), "--data-dir"]);
        command.arg(work.join("data"));
        let log = work.join("log");
        let limit = Duration::from_secs(60);
        let (server, scheme) = match is_closed {
            false => (Server::start(command, http, "/ready", &log, limit)?.0, "http"),
            true => (Server::start_unseen(command, http, &log)?, "https"),
        };
        let base = format!("{scheme}://{http}");
        let client = client_from(CLIENT)?;
        answers(&client, &format!("{base}/ready"), limit).await?;
        let blob = vec![7; 8 << 20];
        let blob_path = push_blob(&client, &base, "good/app", &blob).await?;
        push_blob(&client, &base, "good/app", b"{}").await?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(b"{}"), "size": 2},
            "layers": [],
        });
        let manifest_path = "/v2/good/app/manifests/v1".to_owned();
        put(&client, &base, &manifest_path, MANIFEST, manifest.to_string()).await?;
        let only = args.only.clone();
        Ok(Self { server, scheme, only, http, cluster, manifest: manifest_path, blob: blob_path })
    }

    /// Where the node answers.
    fn base(&self) -> String {
        format!("{}://{}", self.scheme, self.http)
    }

    /// What the well-behaved client needs to know of it.
    fn watched(&self) -> Watched {
        Watched { url: format!("{}{}", self.base(), self.manifest), pid: self.server.pid() }
    }
}

/// What the well-behaved client asks for, and of which process.
struct Watched {
    url: String,
    pid: u32,
}

impl Watched {
    fn resident_mb(&self) -> f64 {
        kernel::resident_bytes(self.pid).unwrap_or(0) as f64 / 1e6
    }

    /// Seconds of processor time that the node has used.
    fn processor_secs(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        let stat = stat.unwrap_or_default();
        // Behind the program's name, which stands in brackets.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        let per_sec = rustix::param::clock_ticks_per_second() as f64;
        (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / per_sec
    }
}

/// A certificate for the address of loopback tests, beside the configuration.
fn make_certificate(dir: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(wrong)?;
    std::fs::write(dir.join("tls.crt"), made.cert.pem()).map_err(wrong)?;
    std::fs::write(dir.join("tls.key"), made.signing_key.serialize_pem()).map_err(wrong)
}

/// Waits until a node behind TLS is ready.
async fn answers(client: &reqwest::Client, url: &str, limit: Duration) -> Result<()> {
    let began = Instant::now();
    loop {
        match client.get(url).send().await {
            Ok(answer) if answer.status() == 200 => return Ok(()),
            _ if began.elapsed() > limit => {
                return Err(Error::Wrong(format!("{url} does not answer")));
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn push_blob(
    client: &reqwest::Client,
    to: &str,
    repository: &str,
    bytes: &[u8],
) -> Result<String> {
    let digest = sha256(bytes);
    let url = format!("{to}/v2/{repository}/blobs/uploads/?digest={digest}");
    let pushed = client.post(url).body(bytes.to_vec()).send().await.map_err(wrong)?;
    match pushed.status().as_u16() {
        201 => Ok(format!("/v2/{repository}/blobs/{digest}")),
        status => Err(Error::Wrong(format!("a blob was answered {status}"))),
    }
}

async fn put(
    client: &reqwest::Client,
    to: &str,
    path: &str,
    kind: &str,
    body: String,
) -> Result<()> {
    let url = format!("{to}{path}");
    let put = client.put(url).header("content-type", kind).body(body).send().await;
    match put.map_err(wrong)?.status().as_u16() {
        201 => Ok(()),
        status => Err(Error::Wrong(format!("{path} was answered {status}"))),
    }
}

/// What the well-behaved client saw, and what the node took meanwhile.
struct Seen {
    latencies: Latencies,
    failures: usize,
    resident_mb: f64,
    cores: f64,
}

/// Asks for a manifest until told to stop, half of the time on a new connection.
async fn behave(watched: Watched, mut stop: watch::Receiver<bool>) -> Result<Seen> {
    let kept = client_from(CLIENT)?;
    let (mut samples, mut failures, mut resident_mb) = (Vec::new(), 0, 0_f64);
    let (began, used) = (Instant::now(), watched.processor_secs());
    let mut number = 0_u64;
    while !*stop.borrow_and_update() {
        let new = client_from(CLIENT)?;
        let client = if number.is_multiple_of(2) { &kept } else { &new };
        number += 1;
        let asked = Instant::now();
        let answer = client.get(&watched.url).timeout(Duration::from_secs(10)).send().await;
        match answer {
            Ok(answer) if answer.status() == 200 => {
                drop(answer.bytes().await);
                samples.push(micros(asked.elapsed()));
            }
            _ => failures += 1,
        }
        resident_mb = resident_mb.max(watched.resident_mb());
        tokio::time::sleep(PACE).await;
    }
    let cores = (watched.processor_secs() - used) / began.elapsed().as_secs_f64();
    Ok(Seen { latencies: Latencies::from_micros(samples), failures, resident_mb, cores })
}

/// The well-behaved client: a thread of its own, which began before the attackers' threads were put behind.
struct Client {
    turns: mpsc::Sender<Turn>,
}

/// What it asks, until when, and where what it saw goes.
type Turn = (Watched, watch::Receiver<bool>, oneshot::Sender<Result<Seen>>);

impl Client {
    fn begin() -> Result<Self> {
        let (turns, waiting) = mpsc::channel::<Turn>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(wrong)?;
        std::thread::spawn(move || {
            for (watched, stop, seen) in waiting {
                // Nobody waits for it if the attack has failed.
                let _ = seen.send(runtime.block_on(behave(watched, stop)));
            }
        });
        Ok(Self { turns })
    }

    async fn asks(&self, watched: Watched, stop: watch::Receiver<bool>) -> Result<Seen> {
        let (seen, waits) = oneshot::channel();
        self.turns.send((watched, stop, seen)).map_err(wrong)?;
        waits.await.map_err(wrong)?
    }
}

/// Runs an attack beside the client. What the attack returns is held for so many seconds more.
async fn under<T>(
    (target, client): (&Target, &Client),
    name: &str,
    held_secs: u64,
    attack: impl Future<Output = Result<T>>,
) -> Result<bool> {
    if !name.starts_with("none") && !name.contains(&target.only) {
        return Ok(true);
    }
    let (stop, stopped) = watch::channel(false);
    let attacked = async {
        let held = attack.await;
        tokio::time::sleep(Duration::from_secs(held_secs)).await;
        stop.send_replace(true);
        held
    };
    let asked = client.asks(target.watched(), stopped);
    let (held, seen) = futures_util::future::join(attacked, asked).await;
    let (held, seen) = (held?, seen?);
    let (p50, p99) = (seen.latencies.percentile_ms(50.0), seen.latencies.percentile_ms(99.0));
    println!(
        "| {name} | {} | {p50:.2} ms | {p99:.2} ms | {} | {:.0} MB | {:.0} % |",
        seen.latencies.count(),
        seen.failures,
        seen.resident_mb,
        seen.cores * 100.0,
    );
    drop(held);
    // What was held goes before the next attack begins.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(seen.failures == 0 && seen.latencies.count() > 0)
}

/// What large artifacts are about.
fn subject() -> String {
    "sha256:".to_owned() + &"7".repeat(64)
}

/// An artifact about the subject with 3.7 MB of small annotations, and where it goes. Made before the attack: to make it takes
/// the processors that the client is measured on.
fn large_artifact(number: usize) -> (String, String) {
    let mut annotations = Map::new();
    for at in 0..70_000 {
        annotations.insert(format!("key-{number}-{at}"), json!("a value of some thirty bytes, so"));
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": annotations,
        "artifactType": "application/vnd.example", "subject": {"mediaType": MANIFEST, "digest": subject(), "size": 9},
    });
    let body = index.to_string();
    (format!("/v2/bad/app/manifests/{}", sha256(body.as_bytes())), body)
}

/// Sixty such artifacts, and four lists of them at once.
async fn large_referrers(target: &Target, artifacts: Vec<(String, String)>) -> Result<()> {
    let client = client_from(ATTACKER)?;
    for (path, body) in artifacts {
        put(&client, &target.base(), &path, INDEX, body).await?;
    }
    let url = format!("{}/v2/bad/app/referrers/{}", target.base(), subject());
    let lists = (0..4).map(|_| async {
        match client.get(&url).send().await {
            Ok(answer) => drop(answer.bytes().await),
            Err(error) => println!("a list of referrers: {error}"),
        }
    });
    join_all(lists).await;
    Ok(())
}

/// No attack, but a measure for the one before: as many blobs of that size, as anybody pushes them.
async fn ordinary_blobs(target: &Target, blobs: Vec<Vec<u8>>) -> Result<()> {
    let client = client_from(ATTACKER)?;
    for blob in blobs {
        push_blob(&client, &target.base(), "bad/app", &blob).await?;
    }
    Ok(())
}

/// No attack on the node: other programs keep every processor busy, at the lowest priority. What an attacker does on this
/// machine for itself costs the client as much.
struct BusyProcessors(Arc<AtomicBool>);

impl BusyProcessors {
    fn begin() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for BusyProcessors {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Six connections with 200 downloads each, of which nobody takes more than the first window.
async fn windowless(target: &Target) -> Result<Vec<reqwest::Response>> {
    let url = format!("{}{}", target.base(), target.blob);
    let mut held = Vec::new();
    for _ in 0..6 {
        let client = http2_from(ATTACKER)?;
        let asked = (0..200).map(|_| client.get(&url).timeout(Duration::from_secs(60)).send());
        held.extend(join_all(asked).await.into_iter().filter_map(std::result::Result::ok));
    }
    Ok(held)
}

/// Connections that send `first` and nothing more.
async fn silent(to: SocketAddr, count: usize, first: &[u8]) -> Result<Vec<TcpStream>> {
    let connections = stream::iter(0..count)
        .map(|_| async move {
            let mut connection = connect(to).await?;
            connection.write_all(first).await?;
            Ok::<_, std::io::Error>(connection)
        })
        .buffer_unordered(200)
        .filter_map(async |connected| connected.ok());
    let held: Vec<_> = connections.collect().await;
    match held.len() * 10 >= count * 9 {
        true => Ok(held),
        false => Err(Error::Wrong(format!("{} of {count} connections were made", held.len()))),
    }
}

/// Messages of 17 MiB to the cluster port, from nobody, whose end never comes.
async fn endless_messages(target: &Target) -> Result<Vec<tokio::task::JoinHandle<()>>> {
    let mut held = Vec::new();
    for _ in 0..50 {
        let client = http2_from(ATTACKER)?;
        let url = format!("https://{}/nora.peer.v1.Leader/Propose", target.cluster);
        for _ in 0..16 {
            let head = [&[0][..], &(17_u32 << 20).to_be_bytes()].concat();
            let body = stream::iter([Ok::<_, std::io::Error>(head)]).chain(stream::unfold(
                0_u32,
                async |sent| {
                    if sent >= 16 {
                        std::future::pending::<()>().await;
                    }
                    Some((Ok(vec![7; 1 << 20]), sent + 1))
                },
            ));
            let asked = client.post(&url).header("content-type", "application/grpc");
            let asked = asked.body(reqwest::Body::wrap_stream(body)).send();
            held.push(tokio::spawn(async move {
                if let Ok(answer) = asked.await {
                    drop(answer.bytes().await);
                }
            }));
        }
    }
    Ok(held)
}

/// Wrong passwords as fast as one address can send them.
async fn guesses(target: &Target, seconds: u64) -> Result<usize> {
    let url = format!("{}/v2/", target.base());
    let end = Instant::now() + Duration::from_secs(seconds);
    let client = client_from(ATTACKER)?;
    let guessers = (0..8).map(|guesser| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let mut made = 0;
            while Instant::now() < end {
                let user = format!("user-{guesser}-{made}");
                let asked = client.get(&url).basic_auth(user, Some("a guess")).send().await;
                made += usize::from(asked.is_ok());
            }
            made
        }
    });
    match join_all(guessers).await.into_iter().sum() {
        0 => Err(Error::Wrong("no password was tried".into())),
        made => Ok(made),
    }
}

/// As many descriptors as the system allows: the attacks hold thousands.
fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(maximum.unwrap_or(1 << 20).min(1 << 20));
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}

/// Pushes without a login as fast as one address can send them: each is refused, and noted in the audit log.
async fn refusals(target: &Target, seconds: u64) -> Result<usize> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let client = client_from(ATTACKER)?;
    let pushers = (0..8).map(|pusher| {
        let (client, base) = (client.clone(), target.base());
        async move {
            let mut refused = 0;
            while Instant::now() < end {
                let url = format!("{base}/v2/other/app-{pusher}-{refused}/blobs/uploads/");
                let asked = client.post(url).send().await;
                refused += usize::from(asked.is_ok_and(|answer| answer.status() == 401));
            }
            refused
        }
    });
    let refused = join_all(pushers).await.into_iter().sum();
    if refused == 0 {
        return Err(Error::Wrong("no push without a login was refused".into()));
    }
    Ok(refused)
}

/// The first bytes of a TLS handshake: a record of which the rest never comes.
const HELLO: [u8; 5] = [0x16, 0x03, 0x01, 0x02, 0x00];

/// Attacks on a node without logins and TLS.
async fn on_open(args: &Args, target: Target, client: &Client) -> Result<bool> {
    let (seconds, at) = (args.seconds, (&target, client));
    let quiet = seconds.min(QUIET_SECS_MAX);
    let mut all = under(at, "none", quiet, async { Ok(()) }).await?;
    let (http, cluster) = (target.http, target.cluster);
    let attack = silent(http, 10_000, b"G");
    all &= under(at, "10,000 connections of one byte", seconds, attack).await?;
    let attack = silent(http, 5_000, b"");
    all &= under(at, "5,000 silent connections", seconds, attack).await?;
    let attack = silent(cluster, 5_000, &HELLO);
    all &= under(at, "5,000 half-open handshakes, cluster port", seconds, attack).await?;
    all &= under(at, "1,200 streams without a window", seconds, windowless(&target)).await?;
    let attack = endless_messages(&target);
    all &= under(at, "800 endless messages, cluster port", seconds, attack).await?;
    all &= under(at, "wrong passwords", 0, guesses(&target, seconds)).await?;
    let artifacts = (0..60).map(large_artifact).collect();
    let attack = large_referrers(&target, artifacts);
    all &= under(at, "60 referrers of 3.7 MB", seconds, attack).await?;
    let blobs = (0..60).map(|number| vec![number; 3_700_000]).collect();
    let attack = ordinary_blobs(&target, blobs);
    all &= under(at, "no attack: 60 blobs of 3.7 MB", quiet, attack).await?;
    let busy = async { Ok(BusyProcessors::begin()) };
    all &= under(at, "no attack: every processor busy with others' work", quiet, busy).await?;
    all &= under(at, "none, afterwards", quiet, async { Ok(()) }).await?;
    target.server.stop()?;
    Ok(all)
}

/// Attacks on a node with logins and TLS.
async fn on_closed(args: &Args, target: Target, client: &Client) -> Result<bool> {
    let (seconds, at) = (args.seconds, (&target, client));
    let quiet = seconds.min(QUIET_SECS_MAX);
    let mut all = under(at, "none, with TLS", quiet, async { Ok(()) }).await?;
    let attack = silent(target.http, 5_000, &HELLO);
    all &= under(at, "5,000 half-open handshakes, HTTPS", seconds, attack).await?;
    let attack = refusals(&target, seconds);
    all &= under(at, "pushes without a login, HTTPS", 0, attack).await?;
    all &= under(at, "none with TLS, afterwards", quiet, async { Ok(()) }).await?;
    target.server.stop()?;
    Ok(all)
}

/// Puts this thread behind others, and with it the threads that it starts.
fn stand_behind() -> Result<()> {
    setpriority_process(Some(rustix::thread::gettid()), 19).map_err(wrong)
}

fn attacks(args: &Args) -> Result<bool> {
    let client = Client::begin()?;
    let before = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let before = before.map_err(wrong)?;
    let open = before.block_on(Target::start(args, false))?;
    let closed = before.block_on(Target::start(args, true))?;
    stand_behind()?;
    println!("| attack | answers | p50 | p99 | failures | most memory | processor |");
    println!("|---|---|---|---|---|---|---|");
    let attackers = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    attackers.map_err(wrong)?.block_on(async {
        Ok(on_open(args, open, &client).await? & on_closed(args, closed, &client).await?)
    })
}

fn main() -> ExitCode {
    raise_descriptors();
    match attacks(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("the well-behaved client was not answered under an attack");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("nora-attacks: {error}");
            ExitCode::FAILURE
        }
    }
}
