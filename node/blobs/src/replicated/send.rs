//! Finishing an upload: the same bytes on enough nodes at once.
//!
//! Guarantees: the answer comes when this node and enough others have the copy on their disks; without
//! them the session stays as it was, and those that did store it are asked to forget it. Other nodes
//! get the bytes while this one syncs them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt};
use nora_app::ports::blobs::{BlobCopy, Delivery, OpenBlob};
use nora_app::ports::uploads::{Finish, UploadError};
use nora_domain::{Digest, Generation, NodeId, Placement, UploadId};
use tracing::{debug, warn};

use super::Shared;
use crate::exchange::PeerError;
use crate::read::StoredFile;
use crate::writer::Verified;

/// How often running sends are looked at.
const TICK: Duration = Duration::from_millis(100);
/// A send that got nowhere for so long is joined by one to another node; once everything was sent, only after the time as
/// well that a disk may take to sync the copy. A node that was cut off must not cost its clients more than its followers cost them, which is an election.
const HEDGE_AFTER: Duration = Duration::from_millis(500);
/// What a slow disk syncs, in bytes a second.
const SYNC_SPEED: u64 = 64 << 20;
/// A send that got nowhere for so long is given up. Syncing a large copy counts as getting nowhere.
const STALLED_AFTER: Duration = Duration::from_secs(30);

pub(super) async fn finish(
    shared: &Arc<Shared>,
    id: UploadId,
    digest: Digest,
    generation: Generation,
) -> Result<BlobCopy, UploadError> {
    let view = shared.views.now().await.map_err(|error| UploadError::Io {
        step: "learn which nodes there are",
        source: error.into(),
    })?;
    let needed = view.needed();
    if needed <= 1 {
        return shared.local.finish(id, digest, generation).await;
    }
    let finishing = shared.local.verify(id, digest, generation).await?;
    let verified = finishing.verified();
    let me = shared.me();
    let others = view.ranked(&digest).into_iter().filter(|node| *node != me).collect();
    let mut sends = Sends::new(Arc::clone(shared), verified, shared.grudges.best_first(others));
    let (finishing, ()) = tokio::join!(finishing.persist(), sends.run(needed - 1));
    let stored = sends.stored.len() + usize::from(finishing.is_ok());
    match finishing {
        Ok(finishing) if stored >= needed => {
            let mut holders = sends.take_stored();
            holders.push(me);
            holders.sort_unstable();
            let verified = finishing.verified();
            finishing.keep().await;
            Ok(BlobCopy { placement: Placement::Nodes(holders), ..verified.copy.clone() })
        }
        Ok(_) => {
            warn!(%digest, stored, needed, "too few nodes could store a blob");
            Err(UploadError::TooFewCopies { stored, needed })
        }
        Err(error) => Err(error),
    }
}

/// Asks nodes to delete a copy that the log will not take. Best effort: what stays is an orphan, which
/// goes once its epoch is over.
pub(super) async fn withdraw(shared: Arc<Shared>, copy: BlobCopy, nodes: Vec<NodeId>) {
    let asked = nodes.into_iter().map(|node| {
        let (shared, copy) = (&shared, &copy);
        async move {
            let asked = async { shared.peer(node)?.delete(copy).await };
            if let Err(error) = asked.await {
                debug!(%error, digest = %copy.digest, "a copy without a use stays for now");
            }
        }
    });
    join_all(asked).await;
}

type Sending = Pin<Box<dyn Future<Output = (NodeId, Result<(), PeerError>)> + Send>>;

/// One send, from outside.
struct Watch {
    node: NodeId,
    progress: Arc<AtomicU64>,
    seen: u64,
    since: Instant,
    hedged: bool,
}

/// The sends of one copy. Dropped before its holders were taken, it asks everyone to forget the copy.
struct Sends {
    shared: Arc<Shared>,
    verified: Arc<Verified>,
    /// Nodes not asked yet, the best last.
    left: Vec<NodeId>,
    running: FuturesUnordered<Sending>,
    watches: Vec<Watch>,
    asked: Vec<NodeId>,
    stored: Vec<NodeId>,
    /// How long syncing the copy may take.
    sync: Duration,
}

impl Sends {
    fn new(shared: Arc<Shared>, verified: Arc<Verified>, mut nodes: Vec<NodeId>) -> Self {
        nodes.reverse();
        let sync = Duration::from_millis(verified.copy.size.saturating_mul(1000) / SYNC_SPEED);
        Self {
            sync,
            shared,
            verified,
            left: nodes,
            running: FuturesUnordered::new(),
            watches: Vec::new(),
            asked: Vec::new(),
            stored: Vec::new(),
        }
    }

    /// Sends until so many have stored the copy, or nobody is left to ask.
    async fn run(&mut self, needed: usize) {
        for _ in 0..needed {
            self.start_next();
        }
        let mut ticks = tokio::time::interval(TICK);
        while self.stored.len() < needed && !self.running.is_empty() {
            tokio::select! {
                Some((node, result)) = self.running.next() => self.ended(node, result),
                _ = ticks.tick() => self.look(),
            }
        }
        // What still runs goes with this: repair makes the copies that are wanted beyond.
        self.running.clear();
    }

    fn start_next(&mut self) {
        let Some(node) = self.left.pop() else { return };
        let progress = Arc::new(AtomicU64::new(0));
        self.watches.push(Watch {
            node,
            progress: Arc::clone(&progress),
            seen: 0,
            since: Instant::now(),
            hedged: false,
        });
        self.asked.push(node);
        let (shared, verified) = (Arc::clone(&self.shared), Arc::clone(&self.verified));
        self.running
            .push(Box::pin(async move { (node, send(shared, verified, node, progress).await) }));
    }

    fn ended(&mut self, node: NodeId, result: Result<(), PeerError>) {
        self.watches.retain(|watch| watch.node != node);
        match result {
            Ok(()) => {
                self.shared.counters.replicated(self.verified.copy.size);
                self.stored.push(node);
            }
            Err(error) => {
                warn!(%error, digest = %self.verified.copy.digest, "a node could not store a blob");
                self.shared.grudges.hold(node);
                self.start_next();
            }
        }
    }

    /// Starts another send beside one that gets nowhere.
    fn look(&mut self) {
        let mut slow = 0;
        for watch in &mut self.watches {
            let now = watch.progress.load(Ordering::Relaxed);
            let syncs = now >= self.verified.copy.size;
            let patience = HEDGE_AFTER + if syncs { self.sync } else { Duration::ZERO };
            // Nothing at all: it waits for its turn.
            if now != watch.seen || now == 0 {
                (watch.seen, watch.since) = (now, Instant::now());
            } else if watch.since.elapsed() > patience && !watch.hedged {
                watch.hedged = true;
                slow += 1;
                self.shared.grudges.hold(watch.node);
            }
        }
        for _ in 0..slow {
            self.start_next();
        }
    }

    fn take_stored(&mut self) -> Vec<NodeId> {
        self.asked.clear();
        std::mem::take(&mut self.stored)
    }
}

impl Drop for Sends {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.asked.is_empty() {
            self.running.clear();
            let asked = std::mem::take(&mut self.asked);
            runtime.spawn(withdraw(Arc::clone(&self.shared), self.verified.copy.clone(), asked));
        }
    }
}

/// The copy's bytes. A body that cannot be read ends early, and the receiver refuses it for its length.
fn body_of(shared: &Shared, verified: &Verified) -> BoxStream<'static, Bytes> {
    let size = verified.copy.size;
    let file = StoredFile::of(Arc::clone(&verified.file), size, shared.local.readers());
    let body = Arc::new(file).read(0..size, Delivery::Process);
    body.scan((), |(), piece| std::future::ready(piece.ok())).boxed()
}

async fn send(
    shared: Arc<Shared>,
    verified: Arc<Verified>,
    node: NodeId,
    progress: Arc<AtomicU64>,
) -> Result<(), PeerError> {
    let _permit = Arc::clone(&shared.sends).acquire_owned().await;
    progress.fetch_add(1, Ordering::Relaxed);
    let peer = shared.peer(node)?;
    let body = body_of(&shared, &verified);
    let mut store = peer.store(&verified.copy, &verified.table, body, Arc::clone(&progress));
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        tokio::select! {
            result = &mut store => return result,
            () = tokio::time::sleep(TICK) => {
                let now = progress.load(Ordering::Relaxed);
                if now != seen {
                    (seen, since) = (now, Instant::now());
                } else if since.elapsed() > STALLED_AFTER {
                    let reason = format!("it took nothing for {} s", STALLED_AFTER.as_secs());
                    return Err(PeerError::Unreachable { node, reason });
                }
            }
        }
    }
}
