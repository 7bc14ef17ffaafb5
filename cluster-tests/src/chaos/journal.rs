//! What clients saw, for the judge.
//!
//! Guarantees: every violation is kept with its moment; what was acknowledged is judged until a client asks to delete it, and
//! what was deleted is judged from its acknowledgement on. Must not know: which faults there are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crate::content::{MANIFEST_TYPE, sha256};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::linear::{Event, is_linearizable};

/// The media type of an index.
pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// What a client takes for a manifest.
pub(super) const ACCEPT: (&str, &str) = (
    "Accept",
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json",
);
/// What a pull says of bytes that are not those which were pushed.
pub(super) const OTHER_BYTES: &str = "the bytes are not those that were pushed";
/// How long a pull at the end may take.
const PULL_MAX: Duration = Duration::from_secs(30);

/// An image that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Pushed {
    pub(super) repository: &'static str,
    pub(super) tag: String,
    /// The digest that the tag names.
    pub(super) manifest: String,
    /// Manifests that an index lists.
    pub(super) children: Vec<String>,
    pub(super) blobs: Vec<String>,
    /// Whether nodes keep the manifest as a file.
    pub(super) is_large: bool,
}

/// An image whose deletion was acknowledged.
struct Deleted {
    repository: &'static str,
    tag: String,
    manifest: String,
}

/// What happened.
pub struct Journal {
    pub(super) addresses: Vec<SocketAddr>,
    begun: Instant,
    next_value: AtomicU64,
    tags: Mutex<BTreeMap<String, Vec<Event>>>,
    pushed: Mutex<Vec<Pushed>>,
    deleted: Mutex<Vec<Deleted>>,
    violations: Mutex<Vec<String>>,
    /// Operations that were answered, and those whose outcome is unknown or that were refused for now.
    answered: AtomicU64,
    unanswered: AtomicU64,
    pulled: AtomicU64,
    /// How often clients did what has a name.
    done: Mutex<BTreeMap<&'static str, u64>>,
    /// Clients take it for reading while they ask the cluster for something.
    turn: RwLock<()>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            deleted: Mutex::default(),
            violations: Mutex::default(),
            answered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            pulled: AtomicU64::new(0),
            done: Mutex::default(),
            turn: RwLock::default(),
        }
    }

    /// A client's turn: it asks for nothing while clients are held.
    pub(super) fn turn(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every client has finished what it does, and holds them all.
    pub(super) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.turn.write().unwrap_or_else(PoisonError::into_inner)
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
        let pushed = locked(&self.pushed).len() + locked(&self.deleted).len();
        [
            self.answered.load(Ordering::Relaxed),
            self.unanswered.load(Ordering::Relaxed),
            pushed as u64,
            self.pulled.load(Ordering::Relaxed),
        ]
    }

    /// How often clients did what has a name.
    pub fn done(&self) -> BTreeMap<&'static str, u64> {
        locked(&self.done).clone()
    }

    /// A client did something that has a name.
    pub(super) fn did(&self, what: &'static str) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        *locked(&self.done).entry(what).or_default() += 1;
    }

    /// A client got no answer, or was refused for now.
    pub(super) fn had_no_answer(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Since the run began, in nanoseconds.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Since the run began.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A value that no other manifest carries.
    pub(super) fn next_value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn note(&self, tag: &str, event: Event) {
        let counter = if event.returned.is_some() { &self.answered } else { &self.unanswered };
        counter.fetch_add(1, Ordering::Relaxed);
        locked(&self.tags).entry(tag.to_owned()).or_default().push(event);
    }

    /// An image was acknowledged.
    pub(super) fn pushed(&self, image: Pushed) {
        locked(&self.pushed).push(image);
    }

    /// An acknowledged image that `choose` picks among as many as it is told.
    pub(super) fn any_pushed(&self, choose: impl FnOnce(usize) -> usize) -> Option<Pushed> {
        let pushed = locked(&self.pushed);
        pushed.get(choose(pushed.len())).cloned()
    }

    /// The same, which is not judged any more: its deletion is about to be asked for.
    pub(super) fn take_pushed(&self, choose: impl FnOnce(usize) -> usize) -> Option<Pushed> {
        let mut pushed = locked(&self.pushed);
        let at = choose(pushed.len());
        (at < pushed.len()).then(|| pushed.swap_remove(at))
    }

    /// The deletion of an image by its digest was acknowledged.
    pub(super) fn deleted(&self, image: Pushed) {
        let Pushed { repository, tag, manifest, .. } = image;
        locked(&self.deleted).push(Deleted { repository, tag, manifest });
    }

    /// The digests of all blobs that acknowledged images need.
    pub(super) fn needed_blobs(&self) -> Vec<String> {
        let pushed = locked(&self.pushed);
        pushed
            .iter()
            .flat_map(|image| {
                let large = image.is_large.then_some(&image.manifest);
                image.blobs.iter().chain(large).cloned()
            })
            .collect()
    }

    /// Judges every tag's history.
    pub fn judge_tags(&self) {
        for (tag, events) in locked(&self.tags).iter() {
            if !is_linearizable(events) {
                self.violation(format!("tag {tag} was not linearizable: {events:?}"));
            }
        }
    }

    /// Pulls every acknowledged image from every node, and what was deleted from none.
    pub fn judge_pulls(&self) {
        let pushed = locked(&self.pushed).clone();
        for address in &self.addresses {
            for image in &pushed {
                if let Err(error) = self.pull(*address, image) {
                    let Pushed { repository, tag, blobs, .. } = image;
                    self.violation(format!(
                        "{repository}:{tag} with {blobs:?} was acknowledged; {address}: {error}"
                    ));
                }
            }
            for image in locked(&self.deleted).iter() {
                for reference in [&image.tag, &image.manifest] {
                    let path = format!("/v2/{}/manifests/{reference}", image.repository);
                    let found = Connection::open_within(*address, PULL_MAX)
                        .and_then(|mut node| node.expect(404, "GET", &path, &[ACCEPT], &[]));
                    if let Err(error) = found {
                        self.violation(format!("{path} was deleted; {address}: {error}"));
                    }
                }
            }
        }
    }

    /// Pulls an image and compares every byte.
    pub(super) fn pull(&self, address: SocketAddr, image: &Pushed) -> Result<()> {
        let mut connection = Connection::open_within(address, PULL_MAX)?;
        let Pushed { repository, tag, manifest, children, blobs, .. } = image;
        let mut get = |path: String, digest: &str| -> Result<()> {
            let found = connection.expect(200, "GET", &path, &[ACCEPT], &[])?;
            if sha256(&found.body) == digest {
                return Ok(());
            }
            Err(Error::Wrong(format!("{path}: {OTHER_BYTES}")))
        };
        get(format!("/v2/{repository}/manifests/{tag}"), manifest)?;
        for child in children {
            get(format!("/v2/{repository}/manifests/{child}"), child)?;
        }
        for blob in blobs {
            get(format!("/v2/{repository}/blobs/{blob}"), blob)?;
        }
        self.pulled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The bytes of a manifest over a configuration and layers, which carries a value and so much more.
pub(super) fn manifest(
    config: &str,
    value: u64,
    layers: &[(&str, usize)],
    padding: usize,
) -> Vec<u8> {
    let layer = |(digest, size): &(&str, usize)| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{size}}}"#
        )
    };
    let layers: Vec<_> = layers.iter().map(layer).collect();
    let (layers, padding) = (layers.join(","), "x".repeat(padding));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{layers}],"annotations":{{"value":"{value}","padding":"{padding}"}}}}"#
    )
    .into_bytes()
}

/// The bytes of an index of manifests, which carries a value.
pub(super) fn index(value: u64, children: &[(String, usize)]) -> Vec<u8> {
    let child = |(digest, size): &(String, usize)| {
        format!(
            r#"{{"mediaType":"{MANIFEST_TYPE}","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"amd64"}}}}"#
        )
    };
    let children: Vec<_> = children.iter().map(child).collect();
    let children = children.join(",");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":[{children}],"annotations":{{"value":"{value}"}}}}"#
    )
    .into_bytes()
}

/// The value that a manifest or an index carries.
pub(super) fn value_of(body: &[u8]) -> Option<u64> {
    let manifest: serde_json::Value = serde_json::from_slice(body).ok()?;
    manifest["annotations"]["value"].as_str()?.parse().ok()
}
