//! Small images: configuration, one layer of 4 KiB, manifest and tag, each new; five exchanges an
//! image.
//!
//! They go to one repository, where a registry that rewrites an index per repository pays for it,
//! and to many.

use std::time::{Duration, Instant};

use nora_cluster_tests::error::Result;
use nora_cluster_tests::stats::{Latencies, micros};

use crate::round::Round;
use crate::samples::{Measure, Section, Unit};
use nora_cluster_tests::content::Image;
use nora_cluster_tests::phase::{observe, together};
use nora_cluster_tests::registry::Registry;

/// How many repositories "many" are.
const MANY: usize = 100;

/// Measures small pushes on a running server.
pub fn run(round: &mut Round<'_>) -> Result<()> {
    for clients in round.args().image_clients.clone() {
        for repositories in [1, MANY] {
            push(round, clients, repositories)?;
        }
    }
    Ok(())
}

/// What one client did: its latencies, and the last image with its repository.
type Pushed = (Vec<u32>, Option<(String, Image)>);

fn push(round: &mut Round<'_>, clients: usize, repositories: usize) -> Result<()> {
    let (addr, source) = (round.addr(), round.source());
    let duration = Duration::from_secs(round.args().image_seconds);
    let work = |at: usize, mut registry: Registry| -> Result<Pushed> {
        let (mut samples, mut last) = (Vec::new(), None);
        let started = Instant::now();
        while started.elapsed() < duration {
            let image = source.image();
            let repository = repository(repositories, at + samples.len() * clients);
            let pushing = Instant::now();
            registry.push_image(&repository, &image)?;
            samples.push(micros(pushing.elapsed()));
            last = Some((repository, image));
        }
        Ok((samples, last))
    };
    let ((pushed, elapsed), seen) = observe(round.args().output.wait_quiet(), round.pid(), || {
        together(clients, |_| Registry::open(addr), work)
    })?;
    let mut registry = Registry::open(addr)?;
    let mut samples = Vec::new();
    for (of_one, last) in pushed {
        samples.extend(of_one);
        if let Some((repository, image)) = last {
            registry.verify_manifest(&repository, &image.tag, &image.manifest)?;
            registry.verify_blob(&repository, &image.layer.1, &[&image.layer.0])?;
        }
    }
    let rate = samples.len() as f64 / elapsed.as_secs_f64();
    let latencies = Latencies::from_micros(samples);
    let title = title(clients, repositories);
    let measure = |name: &str, unit| {
        Measure::new(Section::Images, format!("{title}{name}"), unit).against_synced()
    };
    round.record(measure("", Unit::PerS), rate, seen.others);
    round.record(measure(": p50", Unit::Ms), latencies.percentile_ms(50.0), seen.others);
    round.record(measure(": p99", Unit::Ms), latencies.percentile_ms(99.0), seen.others);
    Ok(())
}

fn repository(repositories: usize, number: usize) -> String {
    match repositories {
        1 => "bench/one".into(),
        many => format!("bench/many-{}", number % many),
    }
}

fn title(clients: usize, repositories: usize) -> String {
    let clients = format!("{clients} client{}", if clients == 1 { "" } else { "s" });
    match repositories {
        1 => format!("one repository, {clients}"),
        many => format!("{many} repositories, {clients}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_repositories_take_turns() {
        assert_eq!(repository(1, 7), "bench/one");
        assert_ne!(repository(100, 7), repository(100, 8));
        assert_eq!(repository(100, 7), repository(100, 107));
    }
}
