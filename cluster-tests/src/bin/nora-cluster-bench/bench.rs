//! What all parts share: a cluster in a folder of its own, who leads it, and what its processes use.
//!
//! A cluster's folder is removed when its part is done, and stays when the part failed.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nora_cluster_tests::cluster::{Cluster, Setup};
use nora_cluster_tests::content::{Image, Source};
use nora_cluster_tests::error::{During, Error, Result};
use nora_cluster_tests::folder::{fresh, remove};
use nora_cluster_tests::phase::wait_quiet;
use nora_cluster_tests::registry::Registry;
use nora_cluster_tests::watch::{Peak, Seen, Watch};

use crate::args::Args;
use crate::report::{Bar, Measure, Table, Unit};

/// What a follower may use of memory at most, in MB.
const FOLLOWER_MB_MAX: f64 = 100.0;
const LEADER_LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOK_AT_FILES_EVERY: Duration = Duration::from_millis(100);

/// The run.
pub struct Bench {
    /// The command line.
    pub args: Args,
    /// Where content comes from.
    pub source: Source,
}

/// A running cluster with its folder.
pub struct Running {
    /// The nodes.
    pub cluster: Cluster,
    /// Where their data lies.
    pub dir: PathBuf,
}

impl Bench {
    /// Starts a cluster, with lines of configuration where the defaults are not wanted.
    pub fn cluster(&self, name: &str, nodes: usize, config: Option<&str>) -> Result<Running> {
        let dir = fresh(&self.args.work_dir, name)?;
        let level = &self.args.log_level;
        let text = format!("[log]\nlevel = \"{level}\"\n{}", config.unwrap_or_default());
        let path = dir.join("nora.toml");
        fs::write(&path, text).during(|| format!("write {}", path.display()))?;
        let args = vec!["--config".into(), path.display().to_string()];
        let setup = Setup {
            program: self.args.nora.clone(),
            work: dir.clone(),
            nodes,
            users: false,
            faults: false,
            args,
        };
        Ok(Running { cluster: Cluster::start(&setup)?, dir })
    }

    /// Waits for a quiet machine and watches processes while `work` is done.
    pub fn observe<T>(
        &self,
        table: &mut Table,
        pids: Vec<u32>,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Seen)> {
        wait_quiet(self.args.output.wait_quiet(), &pids);
        let watch = Watch::start(pids);
        let done = work();
        let seen = watch.finish();
        table.others(seen.others);
        Ok((done?, seen))
    }
}

impl Running {
    /// The addresses of the first `clients` clients, spread over the nodes.
    pub fn spread(&self, clients: usize) -> Vec<SocketAddr> {
        spread(&self.http(), clients)
    }

    /// Where the nodes answer.
    pub fn http(&self) -> Vec<SocketAddr> {
        (0..self.cluster.len()).map(|number| self.cluster.node(number).http).collect()
    }

    /// The processes of the nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        (0..self.cluster.len()).filter_map(|number| self.cluster.pid(number)).collect()
    }

    /// The node that leads; waits for one.
    pub fn leader(&self) -> Result<usize> {
        wait_for(LEADER_LIMIT, "a leader", || self.cluster.leader())
    }

    /// A node that does not lead.
    pub fn follower(&self) -> Result<usize> {
        let leader = self.leader()?;
        let follower = (0..self.cluster.len()).rev().find(|number| *number != leader);
        follower.ok_or_else(|| Error::Wrong("a cluster of one has no follower".into()))
    }

    /// Adds what the leader and the largest follower used to a table. All nodes must run.
    pub fn record(&self, table: &mut Table, column: usize, what: &str, seen: &Seen) -> Result<()> {
        record_memory(table, column, what, &seen.peaks, self.leader()?);
        Ok(())
    }

    /// Waits until each of these nodes has so many blobs on its disk. Its own count would tell as
    /// well, but only once a minute.
    pub fn wait_blobs(&self, nodes: &[usize], count: usize, limit: Duration) -> Result<()> {
        let started = Instant::now();
        for node in nodes {
            while self.cluster.blob_files(*node).len() < count {
                if started.elapsed() > limit {
                    let held = self.cluster.blob_files(*node).len();
                    let what = format!("node {} has {held} blobs of {count}", node + 1);
                    return Err(Error::Wrong(format!("{what} after {limit:?}")));
                }
                thread::sleep(LOOK_AT_FILES_EVERY);
            }
        }
        Ok(())
    }

    /// Ends the nodes and removes their data.
    pub fn end(self) -> Result<()> {
        let Self { cluster, dir } = self;
        drop(cluster);
        remove(&dir)
    }
}

/// So many addresses, taking turns.
pub fn spread(nodes: &[SocketAddr], clients: usize) -> Vec<SocketAddr> {
    nodes.iter().cycle().take(clients).copied().collect()
}

/// Adds memory to a table: of the leader, and of the follower that used most.
pub fn record_memory(table: &mut Table, column: usize, what: &str, peaks: &[Peak], leader: usize) {
    let name = |role: &str, kind: &str| match what {
        "" => format!("{role}: peak {kind}"),
        what => format!("{what}, {role}: peak {kind}"),
    };
    let followers = || peaks.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, it)| it);
    let most = |of: fn(&Peak) -> f64| followers().map(of).reduce(f64::max);
    let bar = Bar::AtMost(FOLLOWER_MB_MAX);
    let resident = Measure::new(name("follower", "resident"), Unit::Mb).bar(bar);
    let private = Measure::new(name("follower", "private"), Unit::Mb);
    // One node alone has no follower: the rows are there for those who have.
    table.row(resident.clone());
    table.row(private.clone());
    if let Some(peak) = most(|peak| peak.resident) {
        table.add(column, resident, peak);
    }
    if let Some(peak) = most(|peak| peak.private) {
        table.add(column, private, peak);
    }
    if let Some(peak) = peaks.get(leader) {
        table.add(column, Measure::new(name("leader", "resident"), Unit::Mb), peak.resident);
        table.add(column, Measure::new(name("leader", "private"), Unit::Mb), peak.private);
    }
}

/// Asks again and again until there is an answer.
pub fn wait_for<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if started.elapsed() > limit {
            return Err(Error::Wrong(format!("there was not {what} within {limit:?}")));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Pushes the blobs of an image to a repository, so that its manifests can be pushed.
pub fn push_blobs(addr: SocketAddr, repository: &str, image: &Image) -> Result<()> {
    let mut registry = Registry::open(addr)?;
    registry.push_blob(repository, &image.config.1, &[&image.config.0])?;
    registry.push_blob(repository, &image.layer.1, &[&image.layer.0])
}

/// "1 client", "8 clients".
pub fn clients(count: usize) -> String {
    format!("{count} client{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns_at_the_nodes() {
        let nodes: Vec<SocketAddr> =
            ["127.0.0.1:1", "127.0.0.1:2"].iter().map(|addr| addr.parse().unwrap()).collect();
        assert_eq!(spread(&nodes, 3), [nodes[0], nodes[1], nodes[0]]);
        assert_eq!(spread(&nodes, 1), [nodes[0]]);
    }

    #[test]
    fn waiting_ends_with_an_answer_or_says_what_did_not_come() {
        let mut left = 3;
        let ask = || {
            left -= 1;
            (left == 0).then_some("there")
        };
        assert_eq!(wait_for(Duration::from_secs(9), "x", ask).unwrap(), "there");
        let error = wait_for(Duration::ZERO, "a leader", || None::<()>).unwrap_err();
        assert!(error.to_string().contains("not a leader within"), "{error}");
    }
}
