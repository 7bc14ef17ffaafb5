//! Three members of etcd on loopback, and clients that put keys into it over gRPC.
//!
//! Defaults, fsync included. Clients share connections, as in etcd's own benchmark, and all run on one
//! thread. Of etcd's interface it knows the one call that is measured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nora_cluster_tests::cluster::metric;
use nora_cluster_tests::error::{During, Error, Result};
use nora_cluster_tests::folder::remove;
use nora_cluster_tests::load::Outcome;
use nora_cluster_tests::server::{Server, free_address};
use nora_cluster_tests::stats::{Latencies, micros};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::args::Args;
use crate::bench::wait_for;

const MEMBERS: usize = 3;
const START_LIMIT: Duration = Duration::from_secs(60);
const PUT: &str = "/etcdserverpb.KV/Put";

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

/// `etcdserverpb.ResponseHeader`, as far as it is read.
#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(int64, tag = "3")]
    revision: i64,
}

/// A running cluster of etcd.
pub struct Etcd {
    members: Vec<Server>,
    dir: PathBuf,
    /// The next key's number, so that each key is a new one.
    next: Arc<AtomicU64>,
}

/// What `etcd --version` says in its first line.
pub fn version(args: &Args) -> Result<String> {
    let done = Command::new(&args.etcd).arg("--version").output();
    let done = done.during(|| format!("run {}", args.etcd.display()))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    Ok(text.lines().next().unwrap_or("etcd").replace(" Version:", ""))
}

impl Etcd {
    /// Starts three members in an empty folder and waits until all are healthy.
    pub fn start(args: &Args, dir: &Path) -> Result<Self> {
        let addresses = (0..MEMBERS)
            .map(|_| Ok((free_address()?, free_address()?)))
            .collect::<Result<Vec<_>>>()?;
        let initial: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(at, (_, peer))| format!("m{at}=http://{peer}"))
            .collect();
        let initial = initial.join(",");
        let start = |at: usize, (client, peer): (SocketAddr, SocketAddr)| {
            let mut command = Command::new(&args.etcd);
            command
                .args(["--name", &format!("m{at}"), "--data-dir"])
                .arg(dir.join(format!("m{at}")))
                .args(["--listen-client-urls", &format!("http://{client}")])
                .args(["--advertise-client-urls", &format!("http://{client}")])
                .args(["--listen-peer-urls", &format!("http://{peer}")])
                .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
                .args(["--initial-cluster", &initial, "--initial-cluster-state", "new"])
                .args(["--logger", "zap", "--log-level", "warn"])
                .current_dir(dir);
            let log = dir.join(format!("m{at}.log"));
            Server::start(command, client, "/health", &log, START_LIMIT)
        };
        // None is healthy before a majority runs.
        let members = thread::scope(|scope| {
            let starting: Vec<_> = addresses
                .iter()
                .enumerate()
                .map(|(at, pair)| scope.spawn(move || start(at, *pair)))
                .collect();
            starting
                .into_iter()
                .map(|thread| {
                    let started = thread.join();
                    started.unwrap_or_else(|_| Err(Error::Wrong("a starter panicked".into())))
                })
                .collect::<Result<Vec<_>>>()
        })?;
        let members = members.into_iter().map(|(server, _)| server).collect();
        Ok(Self { members, dir: dir.to_owned(), next: Arc::default() })
    }

    /// Where the members answer clients.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.members.iter().map(Server::addr).collect()
    }

    /// Their processes.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Server::pid).collect()
    }

    /// The member that leads.
    pub fn leader(&self) -> Result<usize> {
        let leads = |member: &Server| metric(member.addr(), "etcd_server_is_leader") == Some(1);
        wait_for(START_LIMIT, "a leader of etcd", || self.members.iter().position(leads))
    }

    /// Clients put keys, one after another each, for so long.
    pub fn put(&self, clients: usize, args: &Args) -> Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .during(|| "make a runtime".into())?;
        runtime.block_on(self.put_all(clients, args))
    }

    async fn put_all(&self, clients: usize, args: &Args) -> Result<Outcome> {
        // As many connections to each member as its clients need.
        let shares = clients.div_ceil(args.etcd_sharing.max(1) * MEMBERS).max(1);
        let mut channels = Vec::new();
        for addr in self.addrs().iter().cycle().take(clients.min(shares * MEMBERS)) {
            let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(refused)?;
            let endpoint = endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(10));
            channels.push(endpoint.connect().await.map_err(refused)?);
        }
        let value: Vec<u8> = (0..args.value_bytes).map(|at| (at * 31 % 251) as u8).collect();
        let started = Instant::now();
        let until = started + args.duration();
        let tasks: Vec<_> = channels
            .iter()
            .cycle()
            .take(clients)
            .map(|channel| {
                let (channel, value, next) =
                    (channel.clone(), value.clone(), Arc::clone(&self.next));
                tokio::spawn(put_until(channel, value, next, until))
            })
            .collect();
        let mut samples = Vec::new();
        for task in tasks {
            let done = task.await.map_err(|_| Error::Wrong("a client panicked".into()))?;
            samples.extend(done?);
        }
        let per_second = samples.len() as f64 / started.elapsed().as_secs_f64();
        Ok(Outcome { per_second, latencies: Latencies::from_micros(samples) })
    }

    /// What `etcdctl check perf` says.
    pub fn check_perf(&self, args: &Args) -> Result<String> {
        let endpoints: Vec<_> = self.addrs().iter().map(|addr| format!("http://{addr}")).collect();
        let done = Command::new(&args.etcdctl)
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &endpoints.join(","), "check", "perf", "--load", "l"])
            .output()
            .during(|| format!("run {}", args.etcdctl.display()))?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let lines = text
            .split(['\n', '\r'])
            .filter(|line| line.starts_with("PASS") || line.starts_with("FAIL"));
        Ok(lines.collect::<Vec<_>>().join("; "))
    }

    /// Ends the members and removes their data.
    pub fn end(self) -> Result<()> {
        for member in self.members {
            member.kill()?;
        }
        remove(&self.dir)
    }
}

async fn put_until(
    channel: Channel,
    value: Vec<u8>,
    next: Arc<AtomicU64>,
    until: Instant,
) -> Result<Vec<u32>> {
    let mut client = tonic::client::Grpc::new(channel);
    let mut samples = Vec::new();
    while Instant::now() < until {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let key = format!("/tags/bench/writes/t{number}").into_bytes();
        let request = tonic::Request::new(PutRequest { key, value: value.clone() });
        let asked = Instant::now();
        client.ready().await.map_err(refused)?;
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let answer = client.unary(request, PathAndQuery::from_static(PUT), codec).await;
        let answer = answer.map_err(|status| Error::Wrong(format!("etcd: {status}")))?;
        if answer.into_inner().header.is_none_or(|header| header.revision <= 0) {
            return Err(Error::Wrong("etcd acknowledged without a revision".into()));
        }
        samples.push(micros(asked.elapsed()));
    }
    Ok(samples)
}

fn refused(error: tonic::transport::Error) -> Error {
    Error::Wrong(format!("etcd: {error}"))
}
