//! Whether all nodes hold the same state at the same position of the log.
//!
//! States are read by a [`Source`]. [`at_rest`] reads the rows of nodes that do not run, as bytes: it knows nothing of what they
//! mean, so that a change of formats does not disturb it. A source that asks running nodes for a hash takes its place by one
//! line.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use rocksdb::{DB, IteratorMode, Options};

use super::journal::Journal;
use crate::cluster::{Cluster, metric};
use crate::error::{During, Error, Result};

/// How long nodes may take to come to rest, and how often that is tried.
const REST_MAX: Duration = Duration::from_secs(20);
const TRIES: usize = 6;
/// The row that holds the applied position. All nodes write the same bytes for one position.
const APPLIED: &[u8] = b"\x00applied";

/// A node's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Up to where the log was applied.
    pub position: Vec<u8>,
    /// A hash of every row.
    pub hash: [u8; 32],
    /// How many rows there are.
    pub rows: u64,
}

/// Reads the states of all nodes, in order.
pub type Source = fn(&mut Cluster) -> Result<Vec<State>>;

/// Holds the clients, waits until the nodes rest, and compares their states; then the nodes run again.
///
/// Returns whether states of one position were compared: nodes write now and then without being asked, so that one can be an
/// entry ahead each time.
pub fn compare(cluster: &mut Cluster, journal: &Journal, source: Source) -> Result<bool> {
    let held = journal.hold();
    let mut compared = false;
    for _ in 0..TRIES {
        await_rest(cluster);
        let states = source(cluster)?;
        let positions_differ = states.windows(2).any(|pair| pair[0].position != pair[1].position);
        if !positions_differ {
            compared = true;
            if states.windows(2).any(|pair| pair[0] != pair[1]) {
                journal.violation(format!("the states of one position differ: {states:?}"));
            }
        }
        for number in 0..cluster.len() {
            cluster.restart(number)?;
        }
        for number in 0..cluster.len() {
            cluster.wait_ready(number)?;
        }
        if compared {
            break;
        }
    }
    drop(held);
    Ok(compared)
}

/// A leader compares its members' states with its own while they run. What it finds is a violation.
pub fn judge_differences(cluster: &Cluster, journal: &Journal) {
    for number in 0..cluster.len() {
        let found = metric(cluster.node(number).http, "nora_raft_state_differences").unwrap_or(0);
        if found > 0 {
            let node = number + 1;
            journal.violation(format!(
                "node {node} led, and found {found} times that a state differs"
            ));
        }
    }
}

/// Waits until all nodes have applied as much, and stay so for a moment.
fn await_rest(cluster: &Cluster) {
    let begun = Instant::now();
    let applied = || -> Vec<_> {
        (0..cluster.len())
            .map(|number| metric(cluster.node(number).http, "nora_raft_applied_index"))
            .collect()
    };
    let mut before = applied();
    while begun.elapsed() < REST_MAX {
        thread::sleep(Duration::from_millis(100));
        let now = applied();
        if now == before && now.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        before = now;
    }
}

/// Kills all nodes at once and reads what their stores hold.
pub fn at_rest(cluster: &mut Cluster) -> Result<Vec<State>> {
    for number in 0..cluster.len() {
        cluster.pause(number);
    }
    for number in 0..cluster.len() {
        cluster.kill(number);
    }
    (0..cluster.len()).map(|number| read(&cluster.metadata_dir(number).join("state"))).collect()
}

fn read(root: &Path) -> Result<State> {
    let active = root.join("ACTIVE");
    let active =
        std::fs::read_to_string(&active).during(|| format!("read {}", active.display()))?;
    let directory = root.join(active.trim());
    let failed = |error: rocksdb::Error| {
        Error::Wrong(format!("cannot read the state in {}: {error}", directory.display()))
    };
    // Logs are replayed in memory; nothing is written.
    let db = DB::open_for_read_only(&Options::default(), &directory, false).map_err(failed)?;
    let position = db.get(APPLIED).map_err(failed)?.unwrap_or_default();
    let (mut hash, mut rows) = (Context::new(&SHA256), 0);
    for row in db.iterator(IteratorMode::Start) {
        let (key, value) = row.map_err(failed)?;
        for part in [&key, &value] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        rows += 1;
    }
    let hash = hash.finish().as_ref().try_into().unwrap_or_default();
    Ok(State { position, hash, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(rows: &[(&[u8], &[u8])]) -> State {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ACTIVE"), "1\n").unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        let db = DB::open(&options, dir.path().join("1")).unwrap();
        for (key, value) in rows {
            db.put(key, value).unwrap();
        }
        // Some of it in a table and some in a log that was not closed.
        db.flush().unwrap();
        db.put(APPLIED, b"9").unwrap();
        drop(db);
        read(dir.path()).unwrap()
    }

    #[test]
    fn states_are_equal_only_if_every_row_is() {
        let one = state(&[(b"a", b"1"), (b"b", b"2")]);
        assert_eq!(one.position, b"9");
        assert_eq!(one.rows, 3);
        assert_eq!(one, state(&[(b"b", b"2"), (b"a", b"1")]));
        for other in [
            &[(&b"a"[..], &b"1"[..])][..],
            &[(b"a", b"1"), (b"b", b"3")],
            &[(b"a", b"1b"), (b"b", b"2")],
            &[(b"a", b"1"), (b"b", b"2"), (b"c", b"")],
        ] {
            assert_ne!(one, state(other), "{other:?}");
        }
    }
}
