//! Large blobs: pushed by 1 and by many clients, pulled by 1 and by many, with the server's peak
//! memory.
//!
//! Every push is a new digest. Pulls are all of one blob, from the page cache, and only counted
//! while they are timed; a pass of its own compares the bytes of what was pushed.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use nora_cluster_tests::error::{During, Error, Result};

use crate::round::Round;
use crate::samples::{Bar, Measure, Section, Unit};
use crate::targets::static_file;
use nora_cluster_tests::content::LargeBlob;
use nora_cluster_tests::phase::{Observed, observe, together};
use nora_cluster_tests::registry::{Registry, blob_path};

const REPOSITORY: &str = "bench/large";
/// Of a phase's blobs so many are compared byte for byte.
const VERIFIED_MAX: usize = 8;

/// Measures large blobs on a running server.
pub fn run(round: &mut Round<'_>) -> Result<()> {
    let blob = match round.kind().takes_pushes() {
        true => push(round, 1)?,
        false => lay_out(round)?,
    };
    verify(round, std::slice::from_ref(&blob))?;
    for clients in round.args().blob_clients.clone() {
        pull(round, &blob, clients)?;
    }
    pull_by_curl(round, &blob)?;
    // The pushes of many gigabytes come last: what the disk still has to write would slow the pulls
    // down.
    if round.kind().takes_pushes() {
        for clients in round.args().blob_clients.clone() {
            if clients > 1 {
                push(round, clients)?;
            }
        }
    }
    Ok(())
}

/// Puts a blob where nginx serves it from, on disk and in the page cache as after a push.
fn lay_out(round: &Round<'_>) -> Result<LargeBlob> {
    let blob = round.source().large_blob();
    let path = static_file(round.dir(), &blob_path(REPOSITORY, &blob.digest));
    let step = || format!("write {}", path.display());
    path.parent().map_or(Ok(()), fs::create_dir_all).during(step)?;
    let mut file = File::create(&path).during(step)?;
    for part in round.source().parts(&blob) {
        file.write_all(part).during(step)?;
    }
    file.sync_all().during(step)?;
    Ok(blob)
}

/// Pushes by `clients` at once, some times; returns a blob that was pushed.
fn push(round: &mut Round<'_>, clients: usize) -> Result<LargeBlob> {
    let addr = round.addr();
    let mut last = round.source().large_blob();
    for _ in 0..crate::args::Args::repeats(clients) {
        let blobs: Vec<_> = (0..clients).map(|_| round.source().large_blob()).collect();
        let source = round.source();
        let (elapsed, seen) = observe(round.args().output.wait_quiet(), round.pid(), || {
            let pushed = together(
                clients,
                |_| Registry::open(addr),
                |at, mut registry: Registry| {
                    let blob = &blobs[at];
                    registry.push_blob(REPOSITORY, &blob.digest, &source.parts(blob))
                },
            )?;
            Ok(pushed.1)
        })?;
        let rate = Measure::new(Section::Blobs, title("push", clients), Unit::MbPerS)
            .against_synced()
            .bar(Some(Bar::TimesBestPeer(1.3)));
        record(round, rate, "push", clients, elapsed, seen);
        verify(round, &blobs)?;
        last = blobs.into_iter().next_back().unwrap_or(last);
    }
    Ok(last)
}

fn pull(round: &mut Round<'_>, blob: &LargeBlob, clients: usize) -> Result<()> {
    let addr = round.addr();
    for _ in 0..crate::args::Args::repeats(clients) {
        let ((lengths, elapsed), seen) =
            observe(round.args().output.wait_quiet(), round.pid(), || {
                together(
                    clients,
                    |_| Registry::open(addr),
                    |_, mut registry: Registry| registry.pull_blob(REPOSITORY, &blob.digest),
                )
            })?;
        if lengths.iter().any(|length| *length != round.blob_bytes() as u64) {
            return Err(Error::Wrong(format!("blobs of {lengths:?} bytes were pulled")));
        }
        let bar = (clients <= 8).then_some(Bar::TimesNginx(1.0));
        let rate = Measure::new(Section::Blobs, title("pull", clients), Unit::MbPerS).bar(bar);
        record(round, rate, "pull", clients, elapsed, seen);
    }
    Ok(())
}

/// The same pull by another client, so that the figures do not hang on ours alone.
fn pull_by_curl(round: &mut Round<'_>, blob: &LargeBlob) -> Result<()> {
    let Some(curl) = round.tools().curl.clone() else {
        return Ok(());
    };
    let url = format!("http://{}{}", round.addr(), blob_path(REPOSITORY, &blob.digest));
    for _ in 0..crate::args::Args::repeats(1) {
        let (output, seen) = observe(round.args().output.wait_quiet(), round.pid(), || {
            let format = "%{size_download} %{speed_download}";
            Command::new(&curl)
                .args(["--silent", "--show-error", "--fail", "--output", "/dev/null"])
                .args(["--write-out", format, &url])
                .output()
                .during(|| "run curl".into())
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate = curl_rate(&text, round.blob_bytes()).ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            Error::Wrong(format!("curl ended with {}: {text} {said}", output.status))
        })?;
        let measure = Measure::new(Section::Blobs, "pull, curl", Unit::MbPerS);
        round.record(measure, rate, seen.others);
    }
    Ok(())
}

/// MB/s of what curl wrote, if it got all bytes.
fn curl_rate(written: &str, bytes: usize) -> Option<f64> {
    let (size, speed) = written.split_once(' ')?;
    let whole = size.parse::<usize>().ok()? == bytes;
    speed.parse::<f64>().ok().filter(|_| whole).map(|speed| speed / 1e6)
}

fn verify(round: &Round<'_>, blobs: &[LargeBlob]) -> Result<()> {
    let mut registry = Registry::open(round.addr())?;
    for blob in blobs.iter().take(VERIFIED_MAX) {
        registry.verify_blob(REPOSITORY, &blob.digest, &round.source().parts(blob))?;
    }
    Ok(())
}

fn record(
    round: &mut Round<'_>,
    rate: Measure,
    what: &str,
    clients: usize,
    elapsed: Duration,
    seen: Observed,
) {
    let bytes = (clients * round.blob_bytes()) as f64;
    round.record(rate, bytes / 1e6 / elapsed.as_secs_f64(), seen.others);
    let bar = (clients >= 64).then_some(Bar::AtMost(100.0));
    let name = format!("{}: peak resident", title(what, clients));
    if let Some(peak) = seen.peak {
        round.record(Measure::new(Section::Blobs, name, Unit::Mb).bar(bar), peak, seen.others);
    }
    let name = format!("{}: peak private", title(what, clients));
    round.record(Measure::new(Section::Blobs, name, Unit::Mb), seen.peak_private, seen.others);
}

fn title(what: &str, clients: usize) -> String {
    format!("{what}, {clients} client{}", if clients == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curl_counts_only_when_it_got_everything() {
        assert_eq!(curl_rate("1000 2500000.5", 1000), Some(2.5000005));
        assert_eq!(curl_rate("999 2500000", 1000), None);
        assert_eq!(curl_rate("", 1000), None);
    }
}
