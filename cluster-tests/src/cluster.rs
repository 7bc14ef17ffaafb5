//! A cluster of real node processes: started, ended, stopped, cut off from one another.
//!
//! Guarantees: every process is ended by its own id, whatever becomes of the test; nodes keep their addresses and data over
//! restarts. Partitions need root and a network namespace of the test's own ([`enter_namespace`]): each node then runs
//! under a user of its own, by which its packets are told.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{During, Error, Result};
use crate::http::Connection;
use crate::proxy::{Proxy, Trouble};
use crate::server::free_address;

/// The first node's user; others follow.
const FIRST_USER: u32 = 61_000;
const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// A probe that takes longer is no answer.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// A node: where it is, and its process if it runs.
pub struct Node {
    /// Where it answers clients.
    pub http: SocketAddr,
    /// Where other nodes and administrators reach it.
    pub peer: SocketAddr,
    /// Where it listens for them: the same, unless there is a proxy between.
    listen: SocketAddr,
    proxy: Option<Proxy>,
    dir: PathBuf,
    child: Option<Child>,
}

/// What is wrong with a node's clock and disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disturbance {
    /// How far the wall clock is off.
    pub clock_millis: i64,
    /// How much longer each fsync takes.
    pub sync: Duration,
    /// Whether writes fail for want of space.
    pub disk_full: bool,
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program `nora`; nodes run a copy of it.
    pub program: PathBuf,
    /// Where nodes keep their data and logs; it exists.
    pub work: PathBuf,
    /// How many voters to begin with.
    pub nodes: usize,
    /// Whether each node runs under a user of its own, by which its packets are told.
    pub users: bool,
    /// Whether nodes load the fault library, and are reached through proxies.
    pub faults: bool,
    /// Further arguments of every `nora serve`.
    pub args: Vec<String>,
}

/// The command line of an administrator, who keeps the certificate apart from the nodes' disks.
#[derive(Clone, Debug)]
pub struct Admin {
    program: PathBuf,
    dir: PathBuf,
    addresses: String,
}

impl Admin {
    /// `nora NOUN … VERB`; what it printed.
    pub fn run(&self, noun: &str, verb: &[&str]) -> Result<String> {
        let done = Command::new(&self.program)
            .arg(noun)
            .arg("--cluster-addr")
            .arg(&self.addresses)
            .arg("--data-dir")
            .arg(&self.dir)
            .args(verb)
            .stdin(Stdio::null())
            .output()
            .during(|| format!("run nora {noun} {verb:?}"))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            return Err(Error::Wrong(format!("nora {noun} {verb:?}: {said}")));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

/// The cluster.
pub struct Cluster {
    program: PathBuf,
    work: PathBuf,
    users: bool,
    args: Vec<String>,
    faults: bool,
    nodes: Vec<Node>,
    /// The built fault library; without a C compiler there is none.
    preload: Option<PathBuf>,
}

const FAULT_LIBRARY: &str = include_str!("../faults/faults.c");

/// Builds the library that slows fsync down and sets the wall clock wrong.
fn build_fault_library(work: &Path) -> Option<PathBuf> {
    let (source, library) = (work.join("faults.c"), work.join("faults.so"));
    std::fs::write(&source, FAULT_LIBRARY).ok()?;
    let mut command = Command::new("cc");
    command.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    command.status().ok()?.success().then_some(library)
}

/// Goes on in a network namespace that nobody else is in, if this process may make one: runs the program again inside it
/// and ends with its exit code. Inside, and where it may not, it returns whether partitions are possible.
pub fn enter_namespace(marker: &str) -> Result<bool> {
    if std::env::var_os(marker).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        return Ok(up.during(|| "bring up the namespace's loopback".into())?.success());
    }
    if !rustix::process::geteuid().is_root() || !may_drop_packets() {
        return Ok(false);
    }
    let program = std::env::current_exe().during(|| "find this program".into())?;
    let error = Command::new("unshare")
        .arg("--net")
        .arg("--")
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(marker, "1")
        .exec();
    Err(Error::Io { step: "make a network namespace".into(), source: error })
}

/// Whether this process may make a network namespace and drop packets in it: some containers let nobody.
fn may_drop_packets() -> bool {
    Command::new("unshare")
        .args(["--net", "--", "iptables", "-w", "-A", "OUTPUT", "-m", "owner", "--uid-owner", "0"])
        .args(["-m", "statistic", "--mode", "random", "--probability", "0.5", "-j", "DROP"])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|done| done.status.success())
}

impl Cluster {
    /// Starts a cluster and waits until all its nodes vote.
    pub fn start(setup: &Setup) -> Result<Self> {
        let Setup { work, nodes: count, users, .. } = setup.clone();
        let faults = setup.faults;
        let preload = if faults { build_fault_library(&work) } else { None };
        // A copy: the nodes' users need not be able to reach the original, and a build may replace it meanwhile.
        let program = work.join("nora");
        std::fs::copy(&setup.program, &program)
            .during(|| format!("copy {} to {}", setup.program.display(), program.display()))?;
        let args = setup.args.clone();
        let nodes = Vec::with_capacity(count);
        let mut cluster = Self { program, work, users, args, faults, nodes, preload };
        for number in 0..count {
            cluster.add()?;
            if number == 0 {
                cluster.keep_certificates()?;
            }
        }
        cluster.wait_voters(count)?;
        Ok(cluster)
    }

    fn admin_dir(&self) -> PathBuf {
        self.work.join("admin")
    }

    /// Copies what an administrator needs from the first node's data, as one does who does not want to lose it with a disk.
    fn keep_certificates(&self) -> Result<()> {
        let (from, to) = (self.nodes[0].dir.join("data/identity"), self.admin_dir());
        let to = to.join("identity");
        let step = || format!("copy {}", from.display());
        std::fs::create_dir_all(&to).during(step)?;
        for entry in std::fs::read_dir(&from).during(step)? {
            let path = entry.during(step)?.path();
            std::fs::copy(&path, to.join(path.file_name().unwrap_or_default())).during(step)?;
        }
        Ok(())
    }

    /// The administrator's command line, which asks the nodes that there are now.
    pub fn administrator(&self) -> Admin {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.peer.to_string()).collect();
        self.administrator_at(addresses.join(","))
    }

    fn administrator_at(&self, addresses: String) -> Admin {
        Admin { program: self.program.clone(), dir: self.admin_dir(), addresses }
    }

    /// Waits until so many nodes vote: before, the loss of one may be the loss of a majority.
    pub fn wait_voters(&self, count: usize) -> Result<()> {
        let started = Instant::now();
        let wanted = i64::try_from(count).unwrap_or(i64::MAX);
        let agree = || {
            let mut running = self.nodes.iter().filter(|node| node.child.is_some());
            running.all(|node| metric(node.http, "nora_raft_voters") == Some(wanted))
        };
        while !agree() {
            if started.elapsed() > READY_LIMIT {
                return Err(Error::Wrong(format!("not {count} voters after {READY_LIMIT:?}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Adds a node: the first one founds the cluster, the others join it. Waits until it answers requests.
    pub fn add(&mut self) -> Result<usize> {
        let number = self.nodes.len();
        let dir = self.work.join(format!("node{}", number + 1));
        std::fs::create_dir_all(&dir).during(|| format!("make {}", dir.display()))?;
        if self.users {
            let user = Some(self.user(number));
            std::os::unix::fs::chown(&dir, user, user)
                .during(|| format!("give {} to its user", dir.display()))?;
        }
        self.write_own(number, &self.faults_file(number), &[0; 24])?;
        self.write_own(number, &self.synced_file(number), &[])?;
        let (http, listen) = (free_address()?, free_address()?);
        let proxy = if self.faults { Some(Proxy::start(listen)?) } else { None };
        let peer = proxy.as_ref().map_or(listen, Proxy::address);
        let node = Node { http, peer, listen, proxy, dir, child: None };
        self.nodes.push(node);
        let join = match number {
            0 => Vec::new(),
            _ => self.join_args(0)?,
        };
        self.spawn(number, &join)?;
        self.wait_ready(number)?;
        Ok(number)
    }

    /// What lets a node join through another one.
    fn join_args(&self, through: usize) -> Result<Vec<String>> {
        let token = self.admin_at(through, &["join-token"])?.trim().to_owned();
        let at = self.nodes[through].peer.to_string();
        Ok(vec!["--join".to_owned(), at, "--join-token".to_owned(), token])
    }

    /// The number that the cluster gave to a node when it joined last.
    fn member_id(&self, number: usize, through: usize) -> Result<u64> {
        let members = self.admin_at(through, &["members", "-o", "json"])?;
        let members: serde_json::Value = serde_json::from_str(&members)
            .map_err(|error| Error::Wrong(format!("nora cluster members: {error}")))?;
        let address = self.nodes[number].peer.to_string();
        let found = members.as_array().into_iter().flatten();
        let found = found.filter(|member| member["cluster_address"] == address.as_str());
        let id = found.filter_map(|member| member["node"].as_u64()).max();
        id.ok_or_else(|| Error::Wrong(format!("{address} is no member: {members}")))
    }

    /// A node ends and all that its disk held is gone; where it listens stays.
    pub fn lose_disk(&mut self, number: usize) -> Result<()> {
        self.kill(number);
        let data = self.nodes[number].dir.join("data");
        std::fs::remove_dir_all(&data).during(|| format!("remove {}", data.display()))?;
        self.write_own(number, &self.synced_file(number), &[])
    }

    /// A node whose disk is lost is taken out of the cluster by its old number, and joins anew under another one. Waits until
    /// it votes.
    pub fn rejoin(&mut self, number: usize) -> Result<()> {
        let through = (number + 1) % self.nodes.len();
        let id = insist(|| self.member_id(number, through))?.to_string();
        insist(|| match self.admin_at(through, &["remove", &id, "--force", "--yes"]) {
            // An answer that was lost, and the second question found it done.
            Err(Error::Wrong(said)) if said.contains("removed") => Ok(String::new()),
            done => done,
        })?;
        let join = insist(|| self.join_args(through))?;
        self.spawn(number, &join)?;
        self.wait_ready(number)?;
        self.wait_voters(self.nodes.len())
    }

    /// Where a node keeps its metadata.
    pub fn metadata_dir(&self, number: usize) -> PathBuf {
        self.nodes[number].dir.join("data/metadata")
    }

    /// Whether a node's process runs.
    pub fn runs(&mut self, number: usize) -> bool {
        let child = self.nodes[number].child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How long a node's log is.
    pub fn log_bytes(&self, number: usize) -> u64 {
        let path = self.work.join(format!("node{}.log", number + 1));
        std::fs::metadata(path).map_or(0, |found| found.len())
    }

    /// What a node has logged since its log was so long.
    pub fn log_since(&self, number: usize, bytes: u64) -> String {
        let path = self.work.join(format!("node{}.log", number + 1));
        let log = std::fs::read(path).unwrap_or_default();
        let start = usize::try_from(bytes).unwrap_or(usize::MAX).min(log.len());
        String::from_utf8_lossy(&log[start..]).into_owned()
    }

    /// How many nodes there are, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node.
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// Its process, if it runs.
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.nodes[number].child.as_ref().map(Child::id)
    }

    fn user(&self, number: usize) -> u32 {
        FIRST_USER + u32::try_from(number).unwrap_or(0)
    }

    fn spawn(&mut self, number: usize, args: &[String]) -> Result<()> {
        let node = &self.nodes[number];
        let path = self.work.join(format!("node{}.log", number + 1));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.during(|| format!("open {}", path.display()))?;
        let mut command = Command::new(&self.program);
        if self.users {
            let user = self.user(number);
            command.uid(user).gid(user);
        }
        if let Some(library) = &self.preload {
            command
                .env("LD_PRELOAD", library)
                .env("NORA_FAULTS", self.faults_file(number))
                .env("NORA_SYNCED", self.synced_file(number));
        }
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(node.dir.join("data"))
            .arg("--listen")
            .arg(node.http.to_string())
            .arg("--cluster-listen")
            .arg(node.listen.to_string())
            .arg("--advertise")
            .arg(node.peer.to_string())
            .args(&self.args)
            .args(args)
            .current_dir(&node.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().during(|| "share the log".into())?)
            .stderr(log);
        let child = command.spawn().during(|| format!("start {}", self.program.display()))?;
        self.nodes[number].child = Some(child);
        Ok(())
    }

    fn faults_file(&self, number: usize) -> PathBuf {
        self.work.join(format!("node{}.faults", number + 1))
    }

    fn synced_file(&self, number: usize) -> PathBuf {
        self.work.join(format!("node{}.synced", number + 1))
    }

    /// Writes a file that a node's user may write to.
    fn write_own(&self, number: usize, path: &Path, bytes: &[u8]) -> Result<()> {
        let step = || format!("write {}", path.display());
        std::fs::write(path, bytes).during(step)?;
        if self.users {
            let user = Some(self.user(number));
            std::os::unix::fs::chown(path, user, user).during(step)?;
        }
        Ok(())
    }

    /// Whether clocks can be set, fsync be slowed down, disks be full, and power be cut.
    pub fn has_fault_library(&self) -> bool {
        self.preload.is_some()
    }

    /// Sets what is wrong with a node's clock and disk from now on.
    pub fn disturb(&self, number: usize, disturbance: Disturbance) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let Disturbance { clock_millis, sync, disk_full } = disturbance;
        let micros = i64::try_from(sync.as_micros()).unwrap_or(i64::MAX);
        let bytes = [clock_millis, micros, i64::from(disk_full)].map(i64::to_ne_bytes).concat();
        let file = File::options().write(true).open(self.faults_file(number));
        file.and_then(|file| file.write_all_at(&bytes, 0))
            .during(|| format!("disturb node {}", number + 1))
    }

    /// Sets what is wrong with the way to a node from now on.
    pub fn trouble(&self, number: usize, trouble: Trouble) {
        if let Some(proxy) = &self.nodes[number].proxy {
            proxy.set(trouble);
        }
    }

    /// Takes from a killed node's files what it had not synced, as a power cut may: each is cut to the length that it had
    /// at its last fsync. What was written over, and names in folders, stay as they are. Gives how many bytes went.
    pub fn lose_unsynced(&self, number: usize) -> Result<u64> {
        let path = self.synced_file(number);
        let journal = std::fs::read(&path).during(|| format!("read {}", path.display()))?;
        let mut synced = BTreeMap::new();
        for record in journal.chunks_exact(16) {
            let (inode, length) = record.split_at(8);
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
            synced.insert(number(inode), number(length));
        }
        cut_to(&self.nodes[number].dir.join("data"), &synced)
    }

    /// Whether a node is taking in a snapshot.
    pub fn takes_snapshot(&self, number: usize) -> bool {
        holds_bytes(&self.nodes[number].dir.join("data/metadata/incoming"))
    }

    /// The files of a node's blobs, without their tables of chunks; in an order of their own.
    pub fn blob_files(&self, number: usize) -> Vec<PathBuf> {
        let shards = self.nodes[number].dir.join("data/blobs/sha256");
        let mut files: Vec<PathBuf> = std::fs::read_dir(shards)
            .into_iter()
            .flatten()
            .flatten()
            .flat_map(|shard| std::fs::read_dir(shard.path()).into_iter().flatten().flatten())
            .map(|file| file.path())
            .filter(|path| path.extension().is_none_or(|extension| extension != "chunks"))
            .collect();
        files.sort();
        files
    }

    /// Takes the last node, which has joined, out of the cluster again: it is drained, removed and ended.
    pub fn withdraw_last(&mut self) -> Result<()> {
        let Some(last) = self.nodes.last() else { return Ok(()) };
        let dir = last.dir.clone();
        let id = self.member_id(self.nodes.len() - 1, 0)?.to_string();
        self.admin(&["drain", &id, "--yes", "--wait"])?;
        self.admin(&["remove", &id, "--yes"])?;
        let number = self.nodes.len() - 1;
        self.kill(number);
        self.nodes.pop();
        std::fs::remove_dir_all(&dir).during(|| format!("remove {}", dir.display()))?;
        self.wait_voters(number)
    }

    /// Starts a node again that was ended.
    pub fn restart(&mut self, number: usize) -> Result<()> {
        if self.runs(number) { Ok(()) } else { self.spawn(number, &[]) }
    }

    /// Waits until a node answers that it is ready.
    pub fn wait_ready(&mut self, number: usize) -> Result<Duration> {
        let started = Instant::now();
        while !is_ready(self.nodes[number].http) {
            let child = self.nodes[number].child.as_mut();
            let ended = child.and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                let log = self.log_end(number);
                return Err(Error::Wrong(format!("node {} ended ({status}): {log}", number + 1)));
            }
            if started.elapsed() > READY_LIMIT {
                let log = self.log_end(number);
                let text = format!("node {} is not ready after {READY_LIMIT:?}: {log}", number + 1);
                return Err(Error::Wrong(text));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(started.elapsed())
    }

    /// Waits until a node is ready that may stop itself for what went wrong: then it is started again.
    pub fn recover(&mut self, number: usize) -> Result<()> {
        let started = Instant::now();
        while !is_ready(self.nodes[number].http) {
            self.restart(number)?;
            if started.elapsed() > READY_LIMIT {
                return self.wait_ready(number).map(drop);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The end of a node's log.
    pub fn log_end(&self, number: usize) -> String {
        let path = self.work.join(format!("node{}.log", number + 1));
        let log = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(1500)..]).into_owned()
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.nodes[number].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits until it has ended; a node that does not is killed, and that is an error.
    pub fn stop(&mut self, number: usize) -> Result<Duration> {
        let asked = Instant::now();
        self.signal(number, Signal::TERM);
        let Some(mut child) = self.nodes[number].child.take() else { return Ok(Duration::ZERO) };
        while child.try_wait().during(|| "wait for a node".into())?.is_none() {
            if asked.elapsed() > STOP_LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                let text = format!("node {} did not end within {STOP_LIMIT:?}", number + 1);
                return Err(Error::Wrong(text));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(asked.elapsed())
    }

    /// SIGSTOP.
    pub fn pause(&self, number: usize) {
        self.signal(number, Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self, number: usize) {
        self.signal(number, Signal::CONT);
    }

    fn signal(&self, number: usize, signal: Signal) {
        if let Some(pid) = self.pid(number).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// The node that says that it leads.
    pub fn leader(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|number| {
            self.nodes[*number].child.is_some()
                && metric(self.nodes[*number].http, "nora_raft_is_leader") == Some(1)
        })
    }

    /// Runs `nora cluster …` against any node that answers, and returns what it printed.
    pub fn admin(&self, verb: &[&str]) -> Result<String> {
        self.administrator().run("cluster", verb)
    }

    /// The same, asked of one node.
    pub fn admin_at(&self, number: usize, verb: &[&str]) -> Result<String> {
        self.administrator_at(self.nodes[number].peer.to_string()).run("cluster", verb)
    }

    /// Begins `nora scrub` on a node.
    pub fn scrub(&self, number: usize) -> Result<()> {
        self.administrator_at(self.nodes[number].peer.to_string()).run("scrub", &[]).map(drop)
    }

    /// `nora check` on the data of a node that does not run: what it found.
    pub fn check(&self, number: usize) -> Result<String> {
        let node = &self.nodes[number];
        let done = Command::new(&self.program)
            .arg("check")
            .arg("--data-dir")
            .arg(node.dir.join("data"))
            .stdin(Stdio::null())
            .output()
            .during(|| "run nora check".into())?;
        let found = String::from_utf8_lossy(&done.stdout).into_owned();
        match done.status.success() {
            true => Ok(found),
            false => {
                let said = String::from_utf8_lossy(&done.stderr);
                Err(Error::Wrong(format!("nora check on node {}: {found}{said}", number + 1)))
            }
        }
    }

    /// Drops what a node sends to other nodes.
    pub fn mute(&self, number: usize) -> Result<()> {
        let user = self.user(number).to_string();
        for (other, node) in self.nodes.iter().enumerate() {
            let (direction, port) = match other == number {
                true => ("--sport", node.listen.port()),
                false => ("--dport", node.peer.port()),
            };
            drop_packets(&[
                "-m",
                "owner",
                "--uid-owner",
                &user,
                "-p",
                "tcp",
                direction,
                &port.to_string(),
            ])?;
        }
        Ok(())
    }

    /// Drops what other nodes send to a node's cluster port.
    pub fn deafen(&self, number: usize) -> Result<()> {
        let port = self.nodes[number].peer.port().to_string();
        drop_packets(&["-p", "tcp", "--dport", &port])
    }

    /// Cuts two nodes off from each other; both still hear the others.
    pub fn cut(&self, one: usize, other: usize) -> Result<()> {
        for (from, to) in [(one, other), (other, one)] {
            let (user, port) =
                (self.user(from).to_string(), self.nodes[to].peer.port().to_string());
            drop_packets(&["-m", "owner", "--uid-owner", &user, "-p", "tcp", "--dport", &port])?;
        }
        Ok(())
    }

    /// Loses that share of the packets between nodes.
    pub fn lose(&self, probability: f64) -> Result<()> {
        let probability = probability.to_string();
        for node in &self.nodes {
            let port = node.peer.port().to_string();
            for direction in ["--dport", "--sport"] {
                drop_packets(&[
                    "-p",
                    "tcp",
                    direction,
                    &port,
                    "-m",
                    "statistic",
                    "--mode",
                    "random",
                    "--probability",
                    &probability,
                ])?;
            }
        }
        Ok(())
    }

    /// Undoes all of that.
    pub fn heal(&self) -> Result<()> {
        iptables(&["-F", "OUTPUT"])
    }
}

/// Asks again what a cluster that is changing its leader may not answer at once.
fn insist<T>(ask: impl Fn() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(error) if begun.elapsed() > READY_LIMIT => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(200)),
            done => return done,
        }
    }
}

/// Whether a folder holds a file with anything in it.
fn holds_bytes(dir: &Path) -> bool {
    std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        match entry.metadata() {
            Ok(found) if found.is_dir() => holds_bytes(&path),
            Ok(found) => found.len() > 0,
            Err(_) => false,
        }
    })
}

/// Cuts every file below `dir` to the length that `synced` has for its inode, or to nothing. Gives how many bytes went.
fn cut_to(dir: &Path, synced: &BTreeMap<u64, u64>) -> Result<u64> {
    let mut lost = 0;
    let step = || format!("take what was not synced from {}", dir.display());
    for entry in std::fs::read_dir(dir).during(step)? {
        let entry = entry.during(step)?;
        let found = entry.metadata().during(step)?;
        if found.is_dir() {
            lost += cut_to(&entry.path(), synced)?;
            continue;
        }
        let length = synced.get(&found.ino()).copied().unwrap_or(0);
        if found.is_file() && found.len() > length {
            let file = File::options().write(true).open(entry.path()).during(step)?;
            file.set_len(length).during(step)?;
            lost += found.len() - length;
        }
    }
    Ok(lost)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in 0..self.nodes.len() {
            self.kill(number);
        }
    }
}

fn drop_packets(rule: &[&str]) -> Result<()> {
    let arguments: Vec<_> =
        ["-A", "OUTPUT"].iter().chain(rule).chain(&["-j", "DROP"]).copied().collect();
    iptables(&arguments)
}

fn iptables(arguments: &[&str]) -> Result<()> {
    let done = Command::new("iptables").arg("-w").args(arguments).output();
    let done = done.during(|| "run iptables".into())?;
    match done.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            Err(Error::Wrong(format!("iptables {arguments:?}: {said}")))
        }
    }
}

fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let answer = Connection::open_within(address, PROBE_LIMIT)
        .and_then(|mut connection| connection.exchange("GET", path, &[], &[]))
        .ok()?;
    Some((answer.head.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

/// Whether a node says that it is ready.
pub fn is_ready(address: SocketAddr) -> bool {
    get(address, "/ready").is_some_and(|(status, _)| status == 200)
}

/// A metric without labels.
pub fn metric(address: SocketAddr, name: &str) -> Option<i64> {
    let (_, text) = get(address, "/metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}
