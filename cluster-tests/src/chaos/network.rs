//! Network namespaces: one for each node, joined by a bridge in a namespace of its own.
//!
//! Node N has the address 10.a.b.N, the test itself 10.a.b.254. Faults are packet filter rules in
//! the nodes' own namespaces and concern nodes alone: the test reaches every node all the time, and
//! so sees what a node says that is cut off. Needs root, `ip` and `iptables`. Everything made is
//! removed when the value is dropped.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::error::{During, Error, Result};

/// How many nodes a network can have.
pub const NODES_MAX: usize = 200;
/// The address of the test in the network.
const TEST_HOST: usize = 254;

/// The namespaces of one cluster.
pub struct Network {
    name: String,
    subnet: (u8, u8),
    nodes: usize,
}

/// Packets to drop at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All that come from this node.
    From(usize),
    /// All that go to this node.
    To(usize),
    /// One in so many of a hundred, from any node.
    Loss(u8),
}

impl Network {
    /// Whether this process may make one here; if not, why.
    pub fn available() -> std::result::Result<(), String> {
        let probe = format!("nora-p{}", std::process::id());
        let made = run("ip", &["netns", "add", &probe]);
        let ready = made.and_then(|()| {
            run("ip", &["netns", "exec", &probe, "iptables", "-w", "-L", "INPUT", "-n"])
        });
        let _ = run("ip", &["netns", "del", &probe]);
        ready.map_err(|error| error.to_string())
    }

    /// Makes the bridge; nodes come with [`Self::add`].
    pub fn create() -> Result<Self> {
        let id = std::process::id() as usize;
        let subnet = (100 + (id / 250 % 100) as u8, (id % 250) as u8);
        let network = Self { name: format!("nora{}", id % 1_000_000), subnet, nodes: 0 };
        let (switch, host) = (network.switch(), format!("{}h", network.name));
        run("ip", &["netns", "add", &switch])?;
        run("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        run("ip", &["-n", &switch, "link", "set", "br0", "up"])?;
        network.plug(&host, TEST_HOST, None)?;
        Ok(network)
    }

    /// Makes the next node's namespace and returns the node's number, which is its host address.
    pub fn add(&mut self) -> Result<usize> {
        if self.nodes == NODES_MAX {
            return Err(Error::Wrong(format!("a network has no more than {NODES_MAX} nodes")));
        }
        self.nodes += 1;
        let node = self.nodes;
        let namespace = self.namespace(node);
        run("ip", &["netns", "add", &namespace])?;
        run("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
        self.plug("eth0", node, Some(&namespace))?;
        Ok(node)
    }

    /// A node's address.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet.0, self.subnet.1, node as u8)
    }

    /// Wraps a command so that it runs in the node's namespace, as the same process.
    pub fn command(&self, node: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(node), program]);
        command
    }

    /// Drops packets at a node, from now on.
    pub fn cut(&self, node: usize, cut: Cut) -> Result<()> {
        let (from, to, loss);
        let rule: Vec<&str> = match cut {
            Cut::From(other) => {
                from = self.address(other).to_string();
                vec!["INPUT", "-s", &from]
            }
            Cut::To(other) => {
                to = self.address(other).to_string();
                vec!["OUTPUT", "-d", &to]
            }
            Cut::Loss(percent) => {
                let test = self.address(TEST_HOST).to_string();
                loss = (test, format!("{:.2}", f64::from(percent) / 100.0));
                let mode = ["-m", "statistic", "--mode", "random", "--probability", &loss.1];
                [["INPUT", "!", "-s", &loss.0].as_slice(), &mode].concat()
            }
        };
        let namespace = self.namespace(node);
        let mut args = vec!["netns", "exec", &namespace, "iptables", "-w", "-A"];
        args.extend(rule);
        args.extend(["-j", "DROP"]);
        run("ip", &args)
    }

    /// Sends new connections from other nodes to `port` to `proxy_port` of the same node instead,
    /// and breaks those that there are, so that they are made again.
    pub fn divert(&self, node: usize, port: u16, proxy_port: u16) -> Result<()> {
        let (port, proxy) = (port.to_string(), proxy_port.to_string());
        self.filter(node, &[
            "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", &port, "-j", "REDIRECT",
            "--to-ports", &proxy,
        ])?;
        self.reset(node, &port)
    }

    /// Ends [`Self::divert`].
    pub fn undivert(&self, node: usize) -> Result<()> {
        self.filter(node, &["-t", "nat", "-F"])
    }

    fn reset(&self, node: usize, port: &str) -> Result<()> {
        let rule = [
            "INPUT", "-p", "tcp", "--dport", port, "-m", "conntrack", "--ctstate", "ESTABLISHED",
            "-m", "conntrack", "!", "--ctstate", "DNAT", "-j", "REJECT", "--reject-with", "tcp-reset",
        ];
        self.filter(node, &[&["-A"], rule.as_slice()].concat())
    }

    fn filter(&self, node: usize, rule: &[&str]) -> Result<()> {
        let namespace = self.namespace(node);
        run("ip", &[&["netns", "exec", &namespace, "iptables", "-w"], rule].concat())
    }

    /// Lets everything through at a node again.
    pub fn heal(&self, node: usize) -> Result<()> {
        self.filter(node, &["-F"])
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-n{node}", self.name)
    }

    /// Joins a namespace (or our own) to the bridge with a pair of devices.
    fn plug(&self, device: &str, host: usize, namespace: Option<&str>) -> Result<()> {
        let (switch, port) = (self.switch(), format!("p{host}"));
        let address = format!("{}/24", self.address(host));
        let pair = ["link", "add", &port, "type", "veth", "peer", "name", device];
        let inside = ["-n", &switch];
        // Made in the bridge's namespace with its other end put where it belongs at once, so that
        // names never meet in ours.
        let pid = std::process::id().to_string();
        let target = namespace.unwrap_or(&pid);
        run("ip", &[inside.as_slice(), &pair, &["netns", target]].concat())?;
        run("ip", &["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
        let prefix = namespace.map_or_else(Vec::new, |namespace| vec!["-n", namespace]);
        let put = |args: &[&str]| run("ip", &[prefix.as_slice(), args].concat());
        put(&["addr", "add", &address, "dev", device])?;
        put(&["link", "set", device, "up"])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A namespace takes its devices with it, and a device its other end.
        for node in 1..=self.nodes {
            let _ = run("ip", &["netns", "del", &self.namespace(node)]);
        }
        let _ = run("ip", &["netns", "del", &self.switch()]);
        // The kernel removes a namespace some time after its name; our end of the pair must not
        // linger until then.
        let _ = run("ip", &["link", "del", &format!("{}h", self.name)]);
    }
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let step = || format!("run {program} {}", args.join(" "));
    let output =
        Command::new(program).args(args).stdin(Stdio::null()).output().during(step)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Wrong(format!("{}: {}: {}", step(), output.status, said.trim())))
}
