//! Many small reads: a manifest by tag, and the head of a blob.
//!
//! Our own generator checks every byte of every answer; wrk, where it is installed, asks the same
//! of the manifest, so that the figures do not hang on our generator alone.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nora_cluster_tests::error::{During, Error, Result};
use nora_cluster_tests::load::Load;

use crate::round::Round;
use crate::samples::{Bar, Measure, Section, Unit};
use crate::targets::static_file;
use nora_cluster_tests::content::{Image, MANIFEST_TYPE};
use nora_cluster_tests::phase::observe;
use nora_cluster_tests::registry::{Registry, blob_path, manifest_path};

const REPOSITORY: &str = "bench/read";
const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// Measures small reads on a running server.
pub fn run(round: &mut Round<'_>) -> Result<()> {
    let image = round.source().image();
    if round.kind().takes_pushes() {
        Registry::open(round.addr())?.push_image(REPOSITORY, &image)?;
    } else {
        lay_out(round, &image)?;
    }
    let manifest = manifest_path(REPOSITORY, &image.tag);
    let blob = blob_path(REPOSITORY, &image.layer.1);
    ask(round, "GET", &manifest, &image.manifest, "manifest GET")?;
    ask_by_wrk(round, &manifest)?;
    ask(round, "HEAD", &blob, &image.layer.0, "blob HEAD")
}

fn lay_out(round: &Round<'_>, image: &Image) -> Result<()> {
    let files = [
        (manifest_path(REPOSITORY, &image.tag), &image.manifest),
        (blob_path(REPOSITORY, &image.layer.1), &image.layer.0),
    ];
    for (url_path, content) in files {
        let path = static_file(round.dir(), &url_path);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, content))
            .during(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn ask(round: &mut Round<'_>, method: &str, path: &str, content: &[u8], title: &str) -> Result<()> {
    let load = Load {
        addr: round.addr(),
        method,
        path,
        headers: &[("Accept", MANIFEST_TYPE)],
        connections: round.args().connections,
        duration: Duration::from_secs(round.args().read_seconds),
        content,
    };
    let (outcome, seen) = observe(round.args().output.wait_quiet(), round.pid(), || load.run())?;
    let bar = (method == "GET").then_some(Bar::TimesBestPeer(2.0));
    let rate = Measure::new(Section::Reads, title, Unit::PerS).bar(bar);
    round.record(rate, outcome.per_second, seen.others);
    for per_cent in PERCENTILES {
        let name = format!("{title}: p{per_cent}");
        let latency = outcome.latencies.percentile_ms(per_cent);
        round.record(Measure::new(Section::Reads, name, Unit::Ms), latency, seen.others);
    }
    Ok(())
}

fn ask_by_wrk(round: &mut Round<'_>, path: &str) -> Result<()> {
    let Some(wrk) = round.tools().wrk.clone() else {
        return Ok(());
    };
    let url = format!("http://{}{path}", round.addr());
    let connections = format!("-c{}", round.args().connections);
    let duration = format!("-d{}s", round.args().read_seconds);
    let (output, seen) = observe(round.args().output.wait_quiet(), round.pid(), || {
        Command::new(&wrk)
            .args(["-t1", &connections, &duration, "--latency", "-H"])
            .arg(format!("Accept: {MANIFEST_TYPE}"))
            .arg(&url)
            .output()
            .during(|| "run wrk".into())
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (rate, p99_ms) = wrk_figures(&text)
        .ok_or_else(|| Error::Wrong(format!("wrk ended with {}: {text}", output.status)))?;
    round.record(Measure::new(Section::Reads, "manifest GET, wrk", Unit::PerS), rate, seen.others);
    let name = "manifest GET, wrk: p99";
    round.record(Measure::new(Section::Reads, name, Unit::Ms), p99_ms, seen.others);
    Ok(())
}

/// Requests a second and p99 in ms of what wrk wrote, if every answer was a good one.
fn wrk_figures(written: &str) -> Option<(f64, f64)> {
    let value = |name: &str| {
        let line = written.lines().find_map(|line| line.trim().strip_prefix(name))?;
        line.split_whitespace().next()
    };
    let bad = written.contains("Non-2xx") || written.contains("Socket errors");
    let rate = value("Requests/sec:")?.parse().ok().filter(|_| !bad)?;
    let p99 = value("99%")?;
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)];
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((p99.strip_suffix(unit)?, factor)))?;
    Some((rate, number.parse::<f64>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read_with_its_units() {
        let report = |p99: &str, more: &str| {
            format!(
                "  Latency Distribution\n     50%   99.00us\n     99%    {p99}\n{more}\nRequests/sec:  81234.50\n"
            )
        };
        assert_eq!(wrk_figures(&report("2.36ms", "")), Some((81234.5, 2.36)));
        assert_eq!(wrk_figures(&report("250.00us", "")), Some((81234.5, 0.25)));
        assert_eq!(wrk_figures(&report("1.50s", "")), Some((81234.5, 1500.0)));
        assert_eq!(wrk_figures(&report("1ms", "  Non-2xx or 3xx responses: 5")), None);
        assert_eq!(wrk_figures("unable to connect"), None);
    }
}
