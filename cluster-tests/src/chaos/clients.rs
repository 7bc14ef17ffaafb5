//! Clients that push, move, read and delete while faults come and go, and the journal of what they saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};

use super::Dice;
use crate::error::{Error, Result};
use crate::http::{Answer, Connection};
use crate::linear::{Event, Op, is_linearizable};

const REPOSITORY: &str = "chaos/app";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// A client that hears nothing for so long takes the outcome for unknown.
const PATIENCE: Duration = Duration::from_secs(4);
/// Tags in use at once, and for how long: a history that is judged stays short.
const TAGS: usize = 4;
const TAG_LIFE: Duration = Duration::from_secs(3);
const BLOB_BYTES_MAX: usize = 400_000;

/// An image that was acknowledged.
struct Pushed {
    tag: String,
    manifest: String,
    blob: String,
}

/// What happened, for the judge.
pub struct Journal {
    addresses: Vec<SocketAddr>,
    begun: Instant,
    next_value: AtomicU64,
    tags: Mutex<BTreeMap<String, Vec<Event>>>,
    pushed: Mutex<Vec<Pushed>>,
    violations: Mutex<Vec<String>>,
    /// Operations that were answered, and those whose outcome is unknown or that were refused for now.
    answered: AtomicU64,
    unanswered: AtomicU64,
    pulled: AtomicU64,
    config: Mutex<String>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sha256(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    let hex = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hex.collect::<String>())
}

fn manifest(config: &str, value: u64, layer: Option<(&str, usize)>) -> Vec<u8> {
    let layers = layer.map_or(String::new(), |(digest, size)| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{size}}}"#)
    });
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{layers}],"annotations":{{"value":"{value}"}}}}"#
    )
    .into_bytes()
}

/// The value that a manifest carries.
fn value_of(body: &[u8]) -> Option<u64> {
    let manifest: serde_json::Value = serde_json::from_slice(body).ok()?;
    manifest["annotations"]["value"].as_str()?.parse().ok()
}

impl Journal {
    /// Nothing yet.
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            begun: Instant::now(),
            next_value: AtomicU64::new(1),
            tags: Mutex::default(),
            pushed: Mutex::default(),
            violations: Mutex::default(),
            answered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            pulled: AtomicU64::new(0),
            config: Mutex::default(),
        }
    }

    /// Pushes what all manifests need.
    pub fn prepare(&self) -> Result<()> {
        *locked(&self.config) = push_blob(self.addresses[0], b"{}")?;
        Ok(())
    }

    /// Something that must not be was seen.
    pub fn violation(&self, what: String) {
        let at = self.begun.elapsed().as_secs_f64();
        eprintln!("VIOLATION at {at:.3} s: {what}");
        locked(&self.violations).push(format!("{at:.3} s: {what}"));
    }

    /// Everything that must not be.
    pub fn violations(&self) -> Vec<String> {
        locked(&self.violations).clone()
    }

    /// Operations answered, operations without an answer, images acknowledged, pulls that were compared.
    pub fn counts(&self) -> [u64; 4] {
        let pushed = locked(&self.pushed).len() as u64;
        [
            self.answered.load(Ordering::Relaxed),
            self.unanswered.load(Ordering::Relaxed),
            pushed,
            self.pulled.load(Ordering::Relaxed),
        ]
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn note(&self, tag: &str, event: Event) {
        let counter = if event.returned.is_some() { &self.answered } else { &self.unanswered };
        counter.fetch_add(1, Ordering::Relaxed);
        locked(&self.tags).entry(tag.to_owned()).or_default().push(event);
    }

    /// Judges every tag's history.
    pub fn judge_tags(&self) {
        for (tag, events) in locked(&self.tags).iter() {
            if !is_linearizable(events) {
                self.violation(format!("tag {tag} was not linearizable: {events:?}"));
            }
        }
    }

    /// Pulls every acknowledged image from every node.
    pub fn judge_pulls(&self) {
        let pushed = std::mem::take(&mut *locked(&self.pushed));
        for address in &self.addresses {
            for image in &pushed {
                if let Err(error) = self.pull(*address, image) {
                    let Pushed { tag, blob, .. } = image;
                    self.violation(format!(
                        "{tag} with {blob} was acknowledged; {address}: {error}"
                    ));
                }
            }
        }
        *locked(&self.pushed) = pushed;
    }

    fn pull(&self, address: SocketAddr, image: &Pushed) -> Result<()> {
        let mut connection = Connection::open_within(address, Duration::from_secs(30))?;
        let path = format!("/v2/{REPOSITORY}/manifests/{}", image.tag);
        let found = connection.expect(200, "GET", &path, &[("Accept", MANIFEST_TYPE)], &[])?;
        if sha256(&found.body) != image.manifest {
            return Err(Error::Wrong("the tag names another manifest".into()));
        }
        let path = format!("/v2/{REPOSITORY}/blobs/{}", image.blob);
        let found = connection.expect(200, "GET", &path, &[], &[])?;
        if sha256(&found.body) != image.blob {
            return Err(Error::Wrong("the blob has other bytes".into()));
        }
        self.pulled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn push_blob(address: SocketAddr, bytes: &[u8]) -> Result<String> {
    let digest = sha256(bytes);
    let mut connection = Connection::open_within(address, PATIENCE)?;
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
    let headers = [("Content-Type", "application/octet-stream")];
    connection.expect(201, "POST", &path, &headers, &[bytes])?;
    Ok(digest)
}

fn ask(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
    let headers = [("Accept", MANIFEST_TYPE), ("Content-Type", MANIFEST_TYPE)];
    Connection::open_within(address, PATIENCE)?.exchange(method, path, &headers, &[body])
}

/// A client, until it is over.
pub(super) fn run(journal: &Journal, mut dice: Dice, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let address = journal.addresses[dice.below(journal.addresses.len())];
        match dice.below(20) {
            0..8 => write(journal, &mut dice, address),
            8..17 => read(journal, &mut dice, address),
            17 => delete(journal, &mut dice, address),
            _ => push(journal, &mut dice),
        }
        // The machine has work for the servers, too.
        thread::sleep(dice.millis(2, 12));
    }
}

fn tag(journal: &Journal, dice: &mut Dice) -> String {
    let life = journal.begun.elapsed().as_millis() / TAG_LIFE.as_millis();
    format!("t{}-{life}", dice.below(TAGS))
}

fn write(journal: &Journal, dice: &mut Dice, address: SocketAddr) {
    let tag = tag(journal, dice);
    let value = journal.next_value.fetch_add(1, Ordering::Relaxed);
    let body = manifest(&locked(&journal.config).clone(), value, None);
    let invoked = journal.now();
    let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
    let answer = ask(address, "PUT", &path, &body);
    let returned = match answer {
        Ok(answer) if answer.head.status == 201 => Some(journal.now()),
        Ok(answer) if answer.head.status == 400 => {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            return journal.violation(format!("a manifest was refused: {said}"));
        }
        _ => None,
    };
    journal.note(&tag, Event { op: Op::Write(value), invoked, returned });
}

fn read(journal: &Journal, dice: &mut Dice, address: SocketAddr) {
    let tag = tag(journal, dice);
    let invoked = journal.now();
    let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
    let Ok(answer) = ask(address, "GET", &path, b"") else { return };
    let seen = match answer.head.status {
        200 => value_of(&answer.body),
        404 => None,
        _ => return,
    };
    let returned = Some(journal.now());
    journal.note(&tag, Event { op: Op::Read(seen), invoked, returned });
}

fn delete(journal: &Journal, dice: &mut Dice, address: SocketAddr) {
    let tag = tag(journal, dice);
    let invoked = journal.now();
    let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
    let event = match ask(address, "DELETE", &path, b"").map(|answer| answer.head.status) {
        Ok(202) => Event { op: Op::Delete, invoked, returned: Some(journal.now()) },
        // Sent twice by nobody: there was no tag.
        Ok(404) => Event { op: Op::Read(None), invoked, returned: Some(journal.now()) },
        _ => Event { op: Op::Delete, invoked, returned: None },
    };
    journal.note(&tag, event);
}

/// A blob through one node, its manifest through another, both pulled through a third.
fn push(journal: &Journal, dice: &mut Dice) {
    let nodes: Vec<_> =
        (0..3).map(|_| journal.addresses[dice.below(journal.addresses.len())]).collect();
    let mut bytes = vec![0; 1 + dice.below(BLOB_BYTES_MAX)];
    for part in bytes.chunks_mut(8) {
        let number = dice.roll().to_le_bytes();
        part.copy_from_slice(&number[..part.len()]);
    }
    let Ok(blob) = push_blob(nodes[0], &bytes) else {
        journal.unanswered.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let value = journal.next_value.fetch_add(1, Ordering::Relaxed);
    let body = manifest(&locked(&journal.config).clone(), value, Some((&blob, bytes.len())));
    let tag = format!("i{value}");
    let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
    match ask(nodes[1], "PUT", &path, &body) {
        Ok(answer) if answer.head.status == 201 => {}
        Ok(answer) if answer.head.status == 400 => {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            let (via, by) = (nodes[0], nodes[1]);
            return journal
                .violation(format!("{blob} was acknowledged by {via}; {by} says: {said}"));
        }
        _ => {
            journal.unanswered.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
    journal.answered.fetch_add(1, Ordering::Relaxed);
    let image = Pushed { tag, manifest: sha256(&body), blob };
    match journal.pull(nodes[2], &image) {
        Ok(()) => {}
        // Anything that a client tries again is no violation; being told that it does not exist is.
        Err(Error::Status { status: 404, step, body }) => {
            journal.violation(format!("acknowledged, and {} says 404 to {step}: {body}", nodes[2]));
        }
        Err(Error::Wrong(what)) if what.contains("other") => journal.violation(what),
        Err(_) => {}
    }
    locked(&journal.pushed).push(image);
}
