//! One round of one target: a fresh process on an empty store, the parts that were asked for, and
//! its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nora_cluster_tests::error::Result;
use nora_cluster_tests::folder::{fresh, remove, require_room};
use nora_cluster_tests::kernel;
use nora_cluster_tests::server::{Server, free_address};

use crate::args::{Args, Part};
use crate::samples::{Bar, Measure, Samples, Section, Unit};
use crate::targets::{Kind, Target, find_program};
use crate::{blobs, images, reads};
use nora_cluster_tests::content::Source;
use nora_cluster_tests::phase::wait_quiet;

/// How long a server may take to become ready.
pub const START_LIMIT: Duration = Duration::from_secs(120);

/// Programs of others that measure the same, where they are installed.
#[derive(Debug, Clone)]
pub struct Tools {
    /// curl.
    pub curl: Option<PathBuf>,
    /// wrk.
    pub wrk: Option<PathBuf>,
}

/// What all rounds share.
pub struct Bench {
    /// The command line.
    pub args: Args,
    /// Where content comes from.
    pub source: Source,
    /// What was measured.
    pub samples: Samples,
    /// Other programs that measure.
    pub tools: Tools,
}

/// A running server with the run it belongs to.
pub struct Round<'a> {
    bench: &'a mut Bench,
    kind: Kind,
    server: Server,
    dir: PathBuf,
}

impl Bench {
    /// Prepares a run.
    pub fn new(args: Args) -> Result<Self> {
        require_room(&args.work_dir, bytes_needed(&args), "a smaller --blob-mib")?;
        let source = Source::new(args.blob_mib << 20)?;
        let tools = Tools {
            curl: find_program(&["curl"], args.bin_dir.as_deref()),
            wrk: find_program(&["wrk"], args.bin_dir.as_deref()),
        };
        Ok(Self { args, source, samples: Samples::default(), tools })
    }

    /// Measures one round of `target`.
    pub fn round(&mut self, target: &Target) -> Result<()> {
        let dir = self.fresh_folder(target.kind.name())?;
        let quiet = wait_quiet(self.args.output.wait_quiet(), &[]);
        let (server, took) = start(target, &dir)?;
        if self.args.has(Part::Start) {
            let measure = Measure::new(Section::Start, "start to ready", Unit::Ms);
            let measure = measure.bar(Some(Bar::AtMost(150.0)));
            self.samples.add(measure, target.kind, took.as_secs_f64() * 1e3, Some(quiet));
            self.idle_memory(&server, target.kind, Section::Start);
        }
        let mut round = Round { bench: self, kind: target.kind, server, dir: dir.clone() };
        round.parts()?;
        round.server.stop()?;
        remove(&dir)
    }

    /// Leaves a server alone for a while and reads its memory.
    pub fn idle_memory(&mut self, server: &Server, kind: Kind, section: Section) {
        thread::sleep(Duration::from_secs(self.args.idle_seconds));
        let memory = kernel::memory(&kernel::tree(server.pid()));
        let bar = Some(Bar::AtMost(50.0));
        let resident = Measure::new(section, "idle memory, resident", Unit::Mb).bar(bar);
        self.samples.add(resident, kind, memory.resident, None);
        if let Some(proportional) = memory.proportional {
            let measure = Measure::new(section, "idle memory, proportional", Unit::Mb);
            self.samples.add(measure, kind, proportional, None);
        }
        let private = Measure::new(section, "idle memory, private", Unit::Mb);
        self.samples.add(private, kind, memory.anonymous, None);
    }

    /// An empty folder of this name in the scratch folder.
    pub fn fresh_folder(&self, name: &str) -> Result<PathBuf> {
        fresh(&self.args.work_dir, name)
    }
}

impl Round<'_> {
    fn parts(&mut self) -> Result<()> {
        if self.args().has(Part::Reads) {
            reads::run(self)?;
        }
        if self.args().has(Part::Images) && self.kind.takes_pushes() {
            images::run(self)?;
        }
        // Last, because they leave gigabytes behind.
        if self.args().has(Part::Blobs) {
            blobs::run(self)?;
        }
        Ok(())
    }

    /// The command line.
    pub fn args(&self) -> &Args {
        &self.bench.args
    }

    /// Where content comes from.
    pub fn source(&self) -> &Source {
        &self.bench.source
    }

    /// Other programs that measure.
    pub fn tools(&self) -> &Tools {
        &self.bench.tools
    }

    /// What runs.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The size of a large blob.
    pub fn blob_bytes(&self) -> usize {
        self.bench.args.blob_mib << 20
    }

    /// Takes a sample.
    pub fn record(&mut self, measure: Measure, value: f64, others: f64) {
        self.bench.samples.add(measure, self.kind, value, Some(others));
    }
}

/// What one target's store holds at the end of a round, and a quarter more.
fn bytes_needed(args: &Args) -> u64 {
    let blobs: usize = args.blob_clients.iter().map(|n| n * Args::repeats(*n)).sum();
    let blobs = if args.has(Part::Blobs) { blobs as u64 } else { 0 };
    (blobs * ((args.blob_mib as u64) << 20)).saturating_mul(5) / 4 + (1 << 30)
}

/// Starts `target` on the store in `dir`.
pub fn start(target: &Target, dir: &Path) -> Result<(Server, Duration)> {
    let addr = free_address()?;
    let command = target.command(dir, addr)?;
    Server::start(command, addr, target.kind.ready_path(), &dir.join("server.log"), START_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn blobs_take_what_is_pushed_and_a_quarter_more() {
        let mut args = Args::parse_from(["nora-bench"]);
        // 1 × 3, 8 × 2 and 64 × 1 blobs of 256 MiB, a quarter more, and 1 GiB.
        assert_eq!(bytes_needed(&args), ((83 * 256) << 20) * 5 / 4 + (1 << 30));
        args.parts = vec![Part::Reads];
        assert_eq!(bytes_needed(&args), 1 << 30);
    }
}
