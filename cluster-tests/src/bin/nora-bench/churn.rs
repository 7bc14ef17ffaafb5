//! What stays of manifests that were deleted again: the state and its snapshots must not grow with time.
//!
//! Clients push manifests and delete each at once. What the state takes on the disk is looked at after each tenth, snapshots at
//! the end. What the journal keeps of it lies in sealed parts, outside both.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nora_cluster_tests::content::sha256;
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::folder::{bytes_below, remove};
use nora_cluster_tests::phase::{observe, together};
use nora_cluster_tests::registry::Registry;

use crate::round::{Bench, start};
use crate::samples::{Measure, Section, Unit};
use crate::targets::{Kind, Target};

const CLIENTS: usize = 32;
const TENTHS: u64 = 10;

/// Measures NORA.
pub fn run(bench: &mut Bench, target: &Target) -> Result<()> {
    let dir = bench.fresh_folder("nora-churn")?;
    let (server, _) = start(target, &dir)?;
    let churn = Churn {
        bench,
        addr: server.addr(),
        dir: &dir,
        done: AtomicU64::new(0),
        state_bytes: Mutex::default(),
    };
    let ((_, elapsed), seen) = observe(bench.args.output.wait_quiet(), server.pid(), || {
        together(
            CLIENTS,
            |_| Registry::open(churn.addr),
            |client, registry: Registry| churn.push_and_delete(client, registry),
        )
    })?;
    let (done, sizes) = (churn.done.into_inner(), churn.state_bytes.into_inner());
    let sizes = sizes.unwrap_or_else(PoisonError::into_inner);
    server.stop()?;
    let mut add = |title: &str, unit: Unit, value: f64| {
        bench.samples.add(Measure::new(Section::Churn, title, unit), Kind::Nora, value, None);
    };
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    add("manifests pushed and deleted", Unit::Count, done as f64);
    add("pushed and deleted", Unit::PerS, done as f64 / elapsed.as_secs_f64());
    if let [first, .., last] = sizes[..] {
        add("state on disk after the first tenth", Unit::Mb, megabytes(first));
        let most = sizes.iter().copied().max().unwrap_or(last);
        add("state on disk, at most", Unit::Mb, megabytes(most));
        add("state on disk after the last tenth", Unit::Mb, megabytes(last));
    }
    add("snapshots kept", Unit::Mb, megabytes(bytes_below(&dir, "snapshots")));
    add("blobs: sealed parts of the journal", Unit::Mb, megabytes(bytes_below(&dir, "blobs")));
    add("peak private", Unit::Mb, seen.peak_private);
    remove(&dir)
}

struct Churn<'a> {
    bench: &'a Bench,
    addr: SocketAddr,
    dir: &'a Path,
    done: AtomicU64,
    state_bytes: Mutex<Vec<u64>>,
}

impl Churn<'_> {
    fn push_and_delete(&self, client: usize, mut registry: Registry) -> Result<()> {
        let repository = format!("bench/churn{client}");
        let image = self.bench.source.image();
        registry.push_image(&repository, &image)?;
        let share = self.bench.args.churned / CLIENTS as u64;
        for number in 0..share {
            let manifest = image.variant(number);
            registry.push_manifest(&repository, "latest", &manifest)?;
            registry.delete_manifest(&repository, &sha256(&manifest))?;
            let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of((share * CLIENTS as u64 / TENTHS).max(1)) {
                let bytes = bytes_below(self.dir, "state");
                self.state_bytes.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
            }
        }
        match registry.has_manifest(&repository, "latest")? {
            false => Ok(()),
            true => Err(Error::Wrong(format!("{repository} still has what was deleted last"))),
        }
    }
}
