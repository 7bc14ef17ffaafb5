//! Keeping each blob on the nodes that should hold it.
//!
//! Every node looks after itself: it fetches what it should have, tells the log, gives up what others
//! have as they should, and tells of copies that are gone. Events wake it for single blobs; the comparison
//! of all blobs and all files finds what no event told of. Guarantees: each step is repeatable and
//! decided by the log, so nodes never need to agree beforehand, and a node that stops anywhere goes on
//! at its next start. A copy's file is removed only after the log stopped counting it.

mod compare;
mod decide;
mod follow;
mod position;
mod queue;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::metadata::MetadataError;
use nora_domain::{
    AddHolder, Algorithm, Digest, DropHolder, Generation, NodeId, Placement, Refusal,
};
use nora_swarm::FetchError;
use tokio::task::{JoinError, spawn_blocking};
use tracing::{debug, warn};

pub(crate) use compare::Compare;
pub(crate) use follow::follow;
pub(crate) use queue::Wakes;

use self::decide::{Step, decide};
use self::queue::{Check, Queue, Todo};
use crate::incoming::{Incoming, IncomingError};
use crate::inventory::FileState;
use crate::layout::BlobFileName;
use crate::rate::Rate;
use crate::replicated::{Shared, copy_of};
use crate::scrub;

/// Blobs that are worked on at once.
const WORKERS: usize = 4;
/// How soon a folder is counted again in which copies came and went meanwhile.
const COUNT_PAUSE: Duration = Duration::from_millis(50);
/// Steps about one blob in a row: more means that others change it at the same time.
const STEPS_MAX: usize = 8;
/// How long a file stays whose proposal had no answer, before it is looked at again.
const UNCERTAIN_PAUSE: Duration = Duration::from_secs(60);
/// Blobs of a kind that are remembered by name, to be counted: those without any holder, and those that this node should
/// give up. Of more, so many are counted.
const NAMED_MAX: usize = 10_000;
/// How often blobs without any holder are looked at again, and how many at once: a disk that was away may be back.
const LOST_EVERY: Duration = Duration::from_secs(10);
const LOST_AT_ONCE: usize = 100;

/// Why a step was not made.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error("the metadata gave no answer")]
    Metadata(#[from] MetadataError),
    #[error("the log refused: {0:?}")]
    Refused(Refusal),
    #[error("no copy could be fetched")]
    Fetch(#[from] FetchError),
    #[error("the copy could not be stored")]
    Store(#[from] IncomingError),
    #[error("the disk failed")]
    Disk(#[from] io::Error),
    #[error("the work was cut short")]
    Cut(#[from] JoinError),
    #[error("it changes faster than it can be settled")]
    Unsettled,
}

type CopyName = (Digest, Generation);

/// Repair on one node.
pub(crate) struct Repair {
    shared: Arc<Shared>,
    rate: Rate,
    /// Copies that the log may be about to count: a proposal of this process had no answer.
    uncertain: Mutex<HashSet<CopyName>>,
    /// Files of copies that were given up, and when they may go.
    lingering: Mutex<HashMap<CopyName, Instant>>,
    /// Blobs that this node should hold and no node does.
    lost: Mutex<BTreeSet<Digest>>,
    /// Blobs that this node holds and should give up.
    excess: Mutex<BTreeSet<Digest>>,
}

impl Repair {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let rate = Rate::new(shared.config.repair_rate);
        Self {
            shared,
            rate,
            uncertain: Mutex::default(),
            lingering: Mutex::default(),
            lost: Mutex::default(),
            excess: Mutex::default(),
        }
    }

    /// Works on blobs as they are told of, for as long as it is polled.
    pub(crate) async fn run(&self) {
        let mut queue = Queue::default();
        let mut running = FuturesUnordered::new();
        let (mut lost_after, mut lost_due) = (None, Instant::now() + LOST_EVERY);
        loop {
            let now = Instant::now();
            if now >= lost_due {
                lost_due = now + LOST_EVERY;
                self.lost_after(&mut lost_after).into_iter().for_each(|todo| queue.push(todo));
            }
            while running.len() < WORKERS
                && let Some(todo) = queue.pop(Instant::now())
            {
                running.push(async move {
                    let mut missing = todo.missing;
                    let settled = self.settle(todo, &mut missing).await;
                    (todo.digest, missing, settled)
                });
            }
            self.shared.wakes.queued(queue.len());
            self.shared.counters.missing_is(queue.missing() + lock(&self.lost).len() as u64);
            self.shared.counters.excess_is(lock(&self.excess).len() as u64);
            let lost_due = Some(lost_due).filter(|_| !lock(&self.lost).is_empty());
            let due = queue.due().into_iter().chain(lost_due).min();
            tokio::select! {
                woken = self.shared.wakes.blobs() => {
                    woken.into_iter().for_each(|todo| queue.push(todo));
                }
                Some((digest, missing, result)) = running.next() => {
                    queue.is_missing(digest, missing);
                    match result {
                        Ok(after) => queue.done(digest, Instant::now(), after),
                        Err(error) => {
                            let cause = std::error::Error::source(&error).map(ToString::to_string);
                            warn!(%error, cause, %digest, "a blob could not be repaired; trying again");
                            self.shared.counters.repair_failed(1);
                            queue.failed(digest, Instant::now());
                        }
                    }
                }
                () = sleep_until(due) => {}
            }
        }
    }

    /// Some blobs without any holder: those after one, or the first.
    fn lost_after(&self, after: &mut Option<Digest>) -> Vec<Todo> {
        let lost = lock(&self.lost);
        let rest = lost.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let some: Vec<Digest> = rest.take(LOST_AT_ONCE).copied().collect();
        *after = some.last().copied();
        let todo = |digest| Todo { digest, check: Check::Look, live: 0, missing: false };
        some.into_iter().map(todo).collect()
    }

    /// Notes whether a blob that this node should hold has no holder at all.
    fn note_lost(&self, digest: Digest, is_lost: bool) {
        note(&self.lost, digest, is_lost);
    }

    /// Notes whether this node holds a blob and should give it up.
    fn note_excess(&self, digest: Digest, is_excess: bool) {
        note(&self.excess, digest, is_excess);
    }

    /// Does what there is to do about a blob; returns after how long there is more. Says in `missing` whether this node
    /// should hold the blob and does not.
    async fn settle(
        &self,
        todo: Todo,
        missing: &mut bool,
    ) -> Result<Option<Duration>, RepairError> {
        let Todo { digest, mut check, .. } = todo;
        for _ in 0..STEPS_MAX {
            let live = self.shared.live(digest).await?;
            let Some(blob) = live else {
                *missing = false;
                self.note_lost(digest, false);
                self.note_excess(digest, false);
                return Ok(None);
            };
            let Placement::Nodes(holders) = &blob.placement else { return Ok(None) };
            let view = self.shared.views.now().await?;
            let copy = copy_of(digest, &blob);
            if check == Check::Read {
                check = Check::Look;
                if !scrub::is_right(&self.shared, &copy).await? {
                    self.set_aside(&copy).await?;
                }
            }
            let file = if check == Check::Trust && holders.contains(&view.me) {
                FileState::Whole
            } else {
                self.state_of(&copy).await?
            };
            let step = decide(&digest, &blob, &view, file);
            *missing = matches!(step, Step::Fetch | Step::Lost);
            let should = view.desired(&digest).contains(&view.me);
            self.note_lost(digest, step == Step::Rest && holders.is_empty() && should);
            self.note_excess(digest, holders.contains(&view.me) && !should);
            match step {
                Step::Rest => return Ok(None),
                Step::Fetch => self.fetch(&copy, holders).await?,
                Step::Claim => self.claim(&copy).await?,
                Step::GiveUp { keep } => {
                    if !self.give_up(&copy, keep).await? {
                        return Ok(None);
                    }
                }
                Step::Lost => {
                    self.set_aside(&copy).await?;
                    self.recount(digest).await?;
                    self.drop_holder(&copy, view.me, 0).await?;
                }
                Step::Forget(node) => self.drop_holder(&copy, node, 0).await?,
                Step::Remove => {
                    if let Some(after) = self.remove(&copy, file).await? {
                        return Ok(Some(after));
                    }
                }
            }
        }
        Err(RepairError::Unsettled)
    }

    async fn state_of(&self, copy: &BlobCopy) -> Result<FileState, RepairError> {
        let (inner, copy) = (Arc::clone(&self.shared.local.inner), copy.clone());
        Ok(spawn_blocking(move || inner.state_of(&copy)).await??)
    }

    /// Copies a blob from its holders to this disk.
    async fn fetch(&self, copy: &BlobCopy, holders: &[NodeId]) -> Result<(), RepairError> {
        let mut body = self.shared.fetcher(copy, holders).await.stream(0..copy.size);
        let (inner, named) = (Arc::clone(&self.shared.local.inner), copy.clone());
        let mut incoming = spawn_blocking(move || Incoming::create(&inner, named, None)).await??;
        while let Some(piece) = body.next().await {
            let piece: Bytes = piece?;
            self.rate.take(piece.len() as u64).await;
            let written = spawn_blocking(move || incoming.write(&[piece]).map(|()| incoming));
            incoming = written.await??;
        }
        spawn_blocking(move || incoming.finish()).await??;
        self.shared.counters.repaired(copy.size);
        debug!(digest = %copy.digest, size = copy.size, "copy fetched");
        self.add_holder(copy).await
    }

    /// Tells the log of a file that it does not count yet.
    async fn claim(&self, copy: &BlobCopy) -> Result<(), RepairError> {
        if !scrub::is_right(&self.shared, copy).await? {
            return self.set_aside(copy).await;
        }
        self.add_holder(copy).await
    }

    async fn add_holder(&self, copy: &BlobCopy) -> Result<(), RepairError> {
        let (digest, generation) = (copy.digest, copy.generation);
        let node = self.shared.me();
        let answer = self.shared.propose(AddHolder { digest, generation, node }).await;
        if matches!(answer, Err(MetadataError::OutcomeUnknown)) {
            lock(&self.uncertain).insert((digest, generation));
        }
        match answer? {
            // Another copy is live now: the next look finds out what to do.
            Ok(_) | Err(Refusal::StaleGeneration(_)) => Ok(()),
            Err(refusal) => Err(RepairError::Refused(refusal)),
        }
    }

    /// Stops holding a copy if enough others do; false if they do not.
    async fn give_up(&self, copy: &BlobCopy, keep: u32) -> Result<bool, RepairError> {
        let linger = Instant::now() + self.shared.config.linger;
        match self.drop_holder(copy, self.shared.me(), keep).await {
            Ok(()) => {
                let mut lingering = lock(&self.lingering);
                lingering.insert((copy.digest, copy.generation), linger);
                self.shared.counters.lingering_is(lingering.len() as u64);
                Ok(true)
            }
            Err(RepairError::Refused(Refusal::TooFewHolders { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn drop_holder(
        &self,
        copy: &BlobCopy,
        node: NodeId,
        keep: u32,
    ) -> Result<(), RepairError> {
        let (digest, generation) = (copy.digest, copy.generation);
        let command = DropHolder { digest, generation, node, keep };
        match self.shared.propose(command).await? {
            Ok(_) | Err(Refusal::StaleGeneration(_)) => Ok(()),
            Err(refusal) => Err(RepairError::Refused(refusal)),
        }
    }

    /// Removes a file that the log does not count, or tells how long it stays.
    async fn remove(
        &self,
        copy: &BlobCopy,
        file: FileState,
    ) -> Result<Option<Duration>, RepairError> {
        let (digest, generation) = (copy.digest, copy.generation);
        if file == FileState::Damaged {
            self.set_aside(copy).await?;
            return Ok(None);
        }
        let due = lock(&self.lingering).get(&(digest, generation)).copied();
        if let Some(left) = due.map(|due| due.saturating_duration_since(Instant::now()))
            && !left.is_zero()
        {
            return Ok(Some(left));
        }
        if lock(&self.uncertain).contains(&(digest, generation)) {
            // It stays until this process ends: its late proposals count for nothing then.
            return Ok(Some(UNCERTAIN_PAUSE));
        }
        let inner = Arc::clone(&self.shared.local.inner);
        let name = BlobFileName { digest, generation };
        spawn_blocking(move || inner.remove_copy(&name)).await??;
        let mut lingering = lock(&self.lingering);
        lingering.remove(&(digest, generation));
        self.shared.counters.lingering_is(lingering.len() as u64);
        drop(lingering);
        debug!(%digest, "copy removed: others hold it");
        Ok(None)
    }

    /// Puts a damaged file out of the way, if there is one.
    async fn set_aside(&self, copy: &BlobCopy) -> Result<(), RepairError> {
        let (inner, named) = (Arc::clone(&self.shared.local.inner), copy.clone());
        if spawn_blocking(move || inner.quarantine(&named)).await?? {
            warn!(digest = %copy.digest, "this node's copy is damaged and was put into quarantine");
            self.shared.counters.set_aside(1);
        }
        Ok(())
    }

    /// Counts the copies in a blob's folder anew: a file went that nothing here removed.
    async fn recount(&self, digest: Digest) -> Result<(), RepairError> {
        let shard = digest.value().first().copied().unwrap_or_default();
        Ok(count_folder(&self.shared, digest.algorithm(), shard).await?)
    }
}

/// Counts the copies on this node's disk, a folder at a time.
pub(crate) async fn count_copies(shared: &Arc<Shared>) {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for shard in 0..=u8::MAX {
            if let Err(error) = count_folder(shared, algorithm, shard).await {
                warn!(%error, shard, "copies in a folder cannot be counted");
            }
        }
    }
}

/// Counts the copies in a folder, again and again if copies come and go meanwhile.
async fn count_folder(shared: &Shared, algorithm: Algorithm, shard: u8) -> io::Result<()> {
    loop {
        let inner = Arc::clone(&shared.local.inner);
        if spawn_blocking(move || inner.recount(algorithm, shard)).await?? {
            return Ok(());
        }
        tokio::time::sleep(COUNT_PAUSE).await;
    }
}

fn note(named: &Mutex<BTreeSet<Digest>>, digest: Digest, is_one: bool) {
    let mut named = lock(named);
    match is_one {
        true if named.len() < NAMED_MAX => drop(named.insert(digest)),
        true => {}
        false => drop(named.remove(&digest)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every use is one call that leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
