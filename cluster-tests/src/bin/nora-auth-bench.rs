//! What asking who may do what costs: decisions with a thousand rules, sessions, and pulls with logins beside pulls without.
//!
//! Pulls are compared within one run, one after the other and again, on the same machine: their ratio is the result.

#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use clap::Parser;
use nora_auth::document::{Auth, PolicyDocument, Rule};
use nora_auth::identity::{Identity, Subject};
use nora_auth::permission::{Action, Resource};
use nora_auth::policy::{Decisions, Policy};
use nora_auth::session::{self, Claims, SigningKey, Use};
use nora_cluster_tests::content::Source;
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::http::Connection;
use nora_cluster_tests::registry::{Registry, manifest_path};
use nora_cluster_tests::server::{Server, free_address};
use nora_cluster_tests::stats::{Latencies, median, micros};
use nora_domain::Format;

/// Measures what asking who may do what costs.
#[derive(Parser)]
struct Args {
    /// The program `nora`.
    #[arg(long)]
    nora: PathBuf,
    /// An earlier build of it: what logins cost is measured with both, in turn.
    #[arg(long)]
    before: Option<PathBuf>,
    /// A folder for the nodes' data.
    #[arg(long)]
    work: PathBuf,
    /// Connections that pull at once.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Seconds of each phase.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds of phases with and without logins.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

const RULES: usize = 1_000;
const REPOSITORY: &str = "team/app";

fn main() -> Result<()> {
    let args = Args::parse();
    decisions()?;
    sessions()?;
    pulls(&args)?;
    logins(&args)
}

/// Nanoseconds that one of `count` calls takes.
fn nanos(count: u32, mut call: impl FnMut(u32)) -> f64 {
    let started = Instant::now();
    (0..count).for_each(&mut call);
    started.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}

fn decisions() -> Result<()> {
    let rules = (0..RULES).map(|i| Rule {
        // Half of them are about whoever asks, and none of those allows.
        subject: if i % 2 == 0 { "alice".into() } else { format!("user{i}") },
        permissions: vec![format!("push:org{i}/*/release-[0-9]*")],
        deny: vec![],
    });
    let auth = Auth { rules: rules.collect(), ..Auth::default() };
    let document = PolicyDocument { auth: Some(auth), ..PolicyDocument::default() };
    let policy =
        Policy::compile(&document).map_err(|errors| Error::Wrong(format!("{errors:?}")))?;
    let policy = Arc::new(policy);
    let alice = Identity::of(Subject::User("alice".into()));
    let paths: Vec<String> =
        (0..50_000).map(|i| format!("org{}/app{i}/release-1", i % RULES)).collect();
    let what = |path: &'_ str| -> bool {
        policy.decide(&alice, Action::Push, &Resource::Repository { format: Format::Oci, path })
    };
    let mut allowed = 0;
    let uncached = nanos(50_000, |i| allowed += u32::from(what(&paths[i as usize])));
    let decisions = Decisions::new(policy.clone(), 100_000);
    let asked = Resource::Repository { format: Format::Oci, path: REPOSITORY };
    let cached = nanos(500_000, |_| {
        std::hint::black_box(decisions.decide(&alice, Action::Push, &asked));
    });
    println!(
        "decision, {RULES} rules, not cached  {uncached:>10.0} ns  ({allowed} of 50000 allowed)"
    );
    println!("decision, cached               {cached:>10.0} ns");
    Ok(())
}

fn sessions() -> Result<()> {
    let key = SigningKey { id: 1, secret: [7; 32], not_after: 2_000_000_000 };
    let claims = Claims {
        refresh: None,
        sub: "user:alice".into(),
        cred: None,
        generation: 1,
        scopes: vec!["pull:oci:team/app".into()],
        aud: session::AUDIENCE.into(),
        iat: 1_700_000_000,
        exp: 1_700_000_300,
        use_: Use::Access,
    };
    let wrong = |error: session::SessionError| Error::Wrong(error.to_string());
    let token = session::sign(&key, &claims).map_err(wrong)?;
    let keys = [key];
    let mut good = 0;
    let verified = nanos(100_000, |_| {
        good += u32::from(session::verify(&keys, &token, 1_700_000_001, Use::Access).is_ok());
    });
    println!(
        "session verified               {verified:>10.0} ns  ({:.0}/s, {good} good)",
        1e9 / verified
    );
    Ok(())
}

fn start(nora: &Path, dir: &Path, policy: Option<&str>) -> Result<Server> {
    let io = |error: std::io::Error| Error::Wrong(error.to_string());
    std::fs::create_dir_all(dir).map_err(io)?;
    let config = dir.join("nora.toml");
    std::fs::write(&config, policy.unwrap_or("")).map_err(io)?;
    let http = free_address()?;
    let mut command = Command::new(nora);
    command.arg("serve").arg("--config").arg(&config);
    command.arg("--data-dir").arg(dir.join("data"));
    command.args(["--listen", &http.to_string(), "--cluster-listen", "127.0.0.1:0"]);
    let limit = Duration::from_secs(30);
    Ok(Server::start(command, http, "/ready", &dir.join("log"), limit)?.0)
}

/// A thousand rules about single users, and one that lets every login pull.
fn policy() -> String {
    let rules = (0..RULES).map(|i| {
        format!("[[auth.rules]]\nsubject = \"user{i}\"\npermissions = [\"pull:o{i}/*\"]\n")
    });
    format!(
        "[auth]\nanonymous = [\"overwrite:*\"]\n[[auth.rules]]\nsubject = \"authenticated\"\npermissions = [\"pull:team/*\"]\n{}",
        rules.collect::<String>()
    )
}

/// What the administrator of the node in a folder sends.
fn administrator(dir: &Path) -> Result<String> {
    let password = std::fs::read_to_string(dir.join("data/admin-password"))
        .map_err(|error| Error::Wrong(error.to_string()))?;
    let basic = format!("admin:{}", password.trim());
    Ok(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(basic)))
}

/// Where a client gets a session to pull.
fn token_path() -> String {
    format!("/v2/token?service=nora&scope=repository:{REPOSITORY}:pull")
}

/// Latencies of pulls of one manifest by its tag, over so many connections.
fn pull(server: &Server, tag: &str, login: Option<&str>, args: &Args) -> Result<Latencies> {
    get(server, &manifest_path(REPOSITORY, tag), login, args)
}

/// Latencies of one request, sent again and again over so many connections.
fn get(server: &Server, path: &str, login: Option<&str>, args: &Args) -> Result<Latencies> {
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let addr = server.addr();
    let worker = || -> Result<Vec<u32>> {
        let mut connection = Connection::open(addr)?;
        let headers: Vec<_> = login.iter().map(|login| ("Authorization", *login)).collect();
        let mut took = Vec::new();
        while Instant::now() < until {
            let started = Instant::now();
            connection.expect(200, "GET", path, &headers, &[])?;
            took.push(micros(started.elapsed()));
        }
        Ok(took)
    };
    let all = thread::scope(|scope| {
        let workers: Vec<_> = (0..args.clients).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    let mut samples = Vec::new();
    for took in all {
        samples.extend(took.map_err(|_| Error::Wrong("a client broke off".into()))??);
    }
    Ok(Latencies::from_micros(samples))
}

fn pulls(args: &Args) -> Result<()> {
    let open = start(&args.nora, &args.work.join("open"), None)?;
    let closed = start(&args.nora, &args.work.join("closed"), Some(&policy()))?;
    let basic = administrator(&args.work.join("closed"))?;
    let image = Source::new(1 << 20)?.image();
    for server in [&open, &closed] {
        Registry::open(server.addr())?.push_image(REPOSITORY, &image)?;
    }
    let mut connection = Connection::open(closed.addr())?;
    let answer = connection.expect(200, "GET", &token_path(), &[("Authorization", &basic)], &[])?;
    let document: serde_json::Value =
        serde_json::from_slice(&answer.body).map_err(|error| Error::Wrong(error.to_string()))?;
    let session = format!("Bearer {}", document["token"].as_str().unwrap_or_default());
    let p99 = |latencies: &Latencies| latencies.percentile_ms(99.0);
    let (mut ratios, mut noise) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        // There and back, so that neither gains by being first; how the same differs from itself is how much a ratio means.
        let first = pull(&open, &image.tag, None, args)?;
        let with = [(); 2].map(|()| pull(&closed, &image.tag, Some(&session), args));
        let last = pull(&open, &image.tag, None, args)?;
        let [with, again] = with;
        let (with, again) = (with?, again?);
        let rate = |latencies: &Latencies| latencies.count() as u64 / args.seconds;
        println!(
            "pull by tag, {} clients, round {round}: open {} and {}/s, p99 {:.3} and {:.3} ms; with logins and {RULES} rules {} and {}/s, p99 {:.3} and {:.3} ms",
            args.clients,
            rate(&first),
            rate(&last),
            p99(&first),
            p99(&last),
            rate(&with),
            rate(&again),
            p99(&with),
            p99(&again),
        );
        ratios.push((p99(&with) + p99(&again)) / (p99(&first) + p99(&last)));
        noise.push(p99(&last) / p99(&first));
    }
    let middle = |values: &[f64]| median(values).unwrap_or(f64::NAN);
    println!(
        "p99 with logins / without: {:.2}; without, again / first: {:.2}",
        middle(&ratios),
        middle(&noise)
    );
    open.stop()?;
    closed.stop()?;
    Ok(())
}

/// Sessions made with a password, and requests that show the password itself, by this build and by an earlier one in turn.
fn logins(args: &Args) -> Result<()> {
    let builds = [("now", Some(&args.nora)), ("before", args.before.as_ref())];
    let mut servers = Vec::new();
    for (name, program) in builds {
        let Some(program) = program else { continue };
        let dir = args.work.join(format!("logins-{name}"));
        let server = start(program, &dir, Some(&policy()))?;
        servers.push((name, server, administrator(&dir)?));
    }
    let phases = [("session made", token_path()), ("password shown", "/v2/".to_owned())];
    for (what, path) in &phases {
        let mut ratios = Vec::new();
        for round in 1..=args.rounds {
            let mut rates = Vec::new();
            for (name, server, login) in &servers {
                let took = get(server, path, Some(login), args)?;
                let rate = took.count() as u64 / args.seconds;
                println!(
                    "{what}, {} clients, round {round}, {name}: {rate}/s, p99 {:.3} ms",
                    args.clients,
                    took.percentile_ms(99.0)
                );
                rates.push(rate as f64);
            }
            if let [now, before] = rates[..] {
                ratios.push(now / before);
            }
        }
        if let Some(ratio) = median(&ratios) {
            println!("{what}, now / before: {ratio:.2}");
        }
    }
    for (_, server, _) in servers {
        server.stop()?;
    }
    Ok(())
}
