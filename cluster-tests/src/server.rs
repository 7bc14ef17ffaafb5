//! The life of a server process under test: start until ready, stop, kill.
//!
//! A server is ended with what it started, by process id, and nothing else is; one that is dropped
//! is killed. It stays in our process group, so that Ctrl-C in a terminal ends it as well. It
//! listens on loopback only, at a port that was free a moment ago.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{During, Error, Result};
use crate::http::Connection;
use crate::kernel;

/// How long an asked server may take to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);

/// A running server.
pub struct Server {
    child: Child,
    addr: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts `command` and waits until GET `ready_path` answers 200. Returns the server and the
    /// time that took.
    ///
    /// Its output goes to the file `log`; the end of it is in the error when the server does not
    /// become ready.
    pub fn start(
        command: Command,
        addr: SocketAddr,
        ready_path: &str,
        log: &Path,
        limit: Duration,
    ) -> Result<(Self, Duration)> {
        let started = Instant::now();
        let mut server = Self::start_unseen(command, addr, log)?;
        while !is_ready(addr, ready_path) {
            let exited = server.child.try_wait().during(|| "wait for the server".into())?;
            if let Some(status) = exited {
                return Err(server.failed(&format!("ended ({status}) before it was ready")));
            }
            if started.elapsed() > limit {
                return Err(server.failed(&format!("was not ready within {limit:?}")));
            }
            thread::sleep(POLL);
        }
        Ok((server, started.elapsed()))
    }

    /// Starts a server without waiting for it. The caller asks the server until it is ready.
    pub fn start_unseen(mut command: Command, addr: SocketAddr, log: &Path) -> Result<Self> {
        let open = || File::options().create(true).append(true).open(log);
        let out = open().during(|| format!("open {}", log.display()))?;
        let err = open().during(|| format!("open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child =
            command.spawn().during(|| format!("start {}", command.get_program().display()))?;
        Ok(Self { child, addr, log: log.to_owned() })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, waits, and kills it when it takes too long. Returns how long that took.
    pub fn stop(mut self) -> Result<Duration> {
        let asked = Instant::now();
        self.signal(Signal::TERM);
        while self.exited()?.is_none() {
            if asked.elapsed() > STOP_LIMIT {
                return Err(self.failed(&format!("did not end within {STOP_LIMIT:?} of SIGTERM")));
            }
            thread::sleep(POLL);
        }
        Ok(asked.elapsed())
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL);
        self.child.wait().during(|| "wait for the killed server".into())?;
        Ok(())
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().during(|| "wait for the server".into())
    }

    fn failed(&self, how: &str) -> Error {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(600)..]).into_owned();
        Error::Wrong(format!("the server {how}; its log ends: {}", tail.trim()))
    }

    /// Signals the server: its own process alone to ask it, what it started too to kill it.
    fn signal(&self, signal: Signal) {
        // The child's id is its own until it has been waited for, and those of its children while
        // it lives.
        let pids = match signal {
            Signal::KILL => kernel::tree(self.child.id()),
            _ => vec![self.child.id()],
        };
        for pid in pids {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Ports that are given to servers. They lie below those that Linux gives to outgoing connections (32,768 and up unless
/// `ip_local_port_range` says otherwise): a connection could take the port of a server while that restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORTS_TRIED: usize = 100;

/// A loopback address at which nobody listens now, and which no outgoing connection takes.
pub fn free_address() -> Result<SocketAddr> {
    for _ in 0..PORTS_TRIED {
        let mut random = [0; 2];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| Error::Wrong("the system gives no random bytes".into()))?;
        let port = PORTS.start + u16::from_le_bytes(random) % (PORTS.end - PORTS.start);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(Error::Wrong(format!("no free port was found in {PORTS_TRIED} tries in {PORTS:?}")))
}

fn is_ready(addr: SocketAddr, path: &str) -> bool {
    Connection::open(addr)
        .and_then(|mut connection| connection.exchange("GET", path, &[], &[]))
        .is_ok_and(|answer| answer.head.status == 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_outgoing_connection_takes_the_port_of_a_server() {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let lowest: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        for _ in 0..100 {
            let port = free_address().unwrap().port();
            assert!(port < lowest, "{port} may be taken by a connection: these begin at {lowest}");
        }
    }

    #[test]
    fn a_program_that_ends_at_once_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such option; exit 3"]);
        let addr = free_address().unwrap();
        let log = dir.path().join("log");
        let error = Server::start(command, addr, "/", &log, Duration::from_secs(20)).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("no such option"), "{text}");
    }

    #[test]
    fn a_server_that_never_answers_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("echo $$ > {}; exec tail -f /dev/null", pid_file.display()));
        let log = Path::new("/dev/null");
        let addr = free_address().unwrap();
        let limit = Duration::from_secs(1);
        let error = Server::start(command, addr, "/", log, limit).err().unwrap();
        assert!(error.to_string().contains("not ready within"), "{error}");
        let pid = fs::read_to_string(pid_file).unwrap();
        assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists());
    }
}
