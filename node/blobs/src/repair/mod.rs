//! Keeping each blob on the nodes that should hold it.
//!
//! Every node looks after itself: it fetches what it should have, tells the log, gives up what others
//! have as they should, and tells of copies that are gone. Events wake it for single blobs; passes over
//! all blobs, and over all files, find what no event told of. Guarantees: each step is repeatable and
//! decided by the log, so nodes never need to agree beforehand, and a node that stops anywhere goes on
//! at its next start. A copy's file is removed only after the log stopped counting it.

mod decide;
mod queue;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::metadata::MetadataError;
use nora_domain::{
    AddHolder, BlobRecord, Digest, DropHolder, Generation, Key, NodeId, Placement, Record, Refusal,
    Rows,
};
use nora_swarm::FetchError;
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tracing::{debug, info, warn};

pub(crate) use queue::Wakes;

use self::decide::{Step, decide};
use self::queue::{Check, Queue, Todo};
use crate::incoming::{Incoming, IncomingError};
use crate::inventory::FileState;
use crate::layout::BlobFileName;
use crate::rate::Rate;
use crate::reconcile;
use crate::replicated::{PAGE_ROWS, Shared, View, copy_of};
use crate::scrub;

/// Blobs that are worked on at once.
const WORKERS: usize = 4;
/// Blobs that may wait; a pass waits for room.
const QUEUE_MAX: usize = 10_000;
/// Steps about one blob in a row: more means that others change it at the same time.
const STEPS_MAX: usize = 8;
/// How soon a pass follows one that found work, or failed.
const SOON: Duration = Duration::from_secs(5);
/// Changes of nodes come in groups.
const GATHER: Duration = Duration::from_millis(200);
/// How long a pass rests between pages, for what matters more.
const PAGE_REST: Duration = Duration::from_millis(2);

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

/// What a pass found about this node.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    held: u64,
    missing: u64,
    excess: u64,
    work: u64,
}

/// Repair on one node.
pub(crate) struct Repair {
    shared: Arc<Shared>,
    rate: Rate,
    /// Copies that the log may be about to count: a proposal of this process had no answer.
    uncertain: Mutex<HashSet<CopyName>>,
    /// Files of copies that were given up, and when they may go.
    lingering: Mutex<HashMap<CopyName, Instant>>,
}

impl Repair {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let rate = Rate::new(shared.config.repair_rate);
        Self { shared, rate, uncertain: Mutex::default(), lingering: Mutex::default() }
    }

    pub(crate) async fn run(&self) {
        let (found, todos) = mpsc::channel(1);
        tokio::join!(self.work(todos), self.passes(found));
    }

    async fn work(&self, mut todos: mpsc::Receiver<Todo>) {
        let mut queue = Queue::default();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < WORKERS
                && let Some(todo) = queue.pop(Instant::now())
            {
                running.push(async move { (todo.digest, self.settle(todo).await) });
            }
            let due = queue.due();
            let room = queue.len() < QUEUE_MAX;
            tokio::select! {
                woken = self.shared.wakes.blobs() => {
                    woken.into_iter().for_each(|todo| queue.push(todo));
                }
                Some(todo) = todos.recv(), if room => queue.push(todo),
                Some((digest, result)) = running.next() => match result {
                    Ok(after) => queue.done(digest, Instant::now(), after),
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        warn!(%error, cause, %digest, "a blob could not be repaired; trying again");
                        self.shared.counters.repair_failed(1);
                        queue.failed(digest, Instant::now());
                    }
                },
                () = sleep_until(due) => {}
            }
        }
    }

    /// Does what there is to do about a blob; returns after how long there is more.
    async fn settle(&self, todo: Todo) -> Result<Option<Duration>, RepairError> {
        let Todo { digest, mut check, .. } = todo;
        for _ in 0..STEPS_MAX {
            let Some(blob) = self.shared.live(digest).await? else { return Ok(None) };
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
            match decide(&digest, &blob, &view, file) {
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
                lock(&self.lingering).insert((copy.digest, copy.generation), linger);
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
            return Ok(Some(self.shared.config.repair_interval));
        }
        let inner = Arc::clone(&self.shared.local.inner);
        let name = BlobFileName { digest, generation };
        spawn_blocking(move || inner.remove_copy(&name)).await??;
        lock(&self.lingering).remove(&(digest, generation));
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

    async fn passes(&self, todos: mpsc::Sender<Todo>) {
        let mut swept: Option<Instant> = None;
        let interval = self.shared.config.repair_interval;
        loop {
            self.shared.wakes.pass_begins();
            let wait = match self.pass(&todos).await {
                Ok(found) => {
                    self.shared.counters.found(found.held, found.missing, found.excess);
                    if found.work > 0 {
                        info!(?found, "blobs to repair");
                    }
                    if found.work > 0 { SOON.min(interval) } else { interval }
                }
                Err(error) => {
                    warn!(%error, "a pass over all blobs stopped; trying again");
                    SOON.min(interval)
                }
            };
            if swept.is_none_or(|at| at.elapsed() >= interval) {
                match reconcile::sweep_orphans(&self.shared).await {
                    Ok(swept) => debug!(?swept, "copies without a name removed"),
                    Err(error) => warn!(%error, "the sweep of copies without a name stopped"),
                }
                swept = Some(Instant::now());
            }
            if !self.shared.wakes.pass_is_wanted() {
                tokio::select! {
                    () = self.shared.wakes.passes() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Looks at every blob that the log names, then at every file of this node.
    async fn pass(&self, todos: &mpsc::Sender<Todo>) -> Result<Found, RepairError> {
        let view = self.shared.views.now().await?;
        let mut found = Found::default();
        let mut after = None;
        loop {
            let rows = self.shared.metadata.scan(Rows::Blobs { after }, PAGE_ROWS).await?;
            let full = rows.len() == PAGE_ROWS;
            let mut page = Vec::new();
            for row in rows {
                let (Key::Blob(digest), Record::Blob(blob)) = row else { continue };
                after = Some(digest);
                page.push((digest, blob));
            }
            self.look_at(page, &view, &mut found, todos).await?;
            if !full {
                break;
            }
            tokio::time::sleep(PAGE_REST).await;
        }
        self.look_at_files(&view, &mut found, todos).await?;
        Ok(found)
    }

    async fn look_at(
        &self,
        page: Vec<(Digest, BlobRecord)>,
        view: &Arc<View>,
        found: &mut Found,
        todos: &mpsc::Sender<Todo>,
    ) -> Result<(), RepairError> {
        let (inner, seen_by) = (Arc::clone(&self.shared.local.inner), Arc::clone(view));
        let looked = spawn_blocking(move || {
            let mut looked = Vec::new();
            for (digest, blob) in page {
                let Placement::Nodes(holders) = &blob.placement else { continue };
                let holds = holders.contains(&seen_by.me);
                let should = seen_by.desired(&digest).contains(&seen_by.me);
                if holds || should {
                    let file = inner.state_of(&copy_of(digest, &blob))?;
                    let step = decide(&digest, &blob, &seen_by, file);
                    let live = holders.iter().filter(|node| seen_by.is_live(**node)).count();
                    looked.push((digest, holds, should, step, live));
                }
            }
            Ok::<_, io::Error>(looked)
        });
        for (digest, holds, should, step, live) in looked.await?? {
            found.held += u64::from(holds && step != Step::Lost);
            found.missing += u64::from(should && (!holds || step == Step::Lost));
            found.excess += u64::from(holds && !should);
            if step != Step::Rest {
                self.tell(Todo { digest, check: Check::Look, live }, found, todos).await;
            }
        }
        Ok(())
    }

    async fn tell(&self, todo: Todo, found: &mut Found, todos: &mpsc::Sender<Todo>) {
        found.work += 1;
        // The receiver is gone only when this task is.
        let _ = todos.send(todo).await;
    }

    /// Finds files of live copies that the log does not count here.
    async fn look_at_files(
        &self,
        view: &Arc<View>,
        found: &mut Found,
        todos: &mpsc::Sender<Todo>,
    ) -> Result<(), RepairError> {
        let inner = Arc::clone(&self.shared.local.inner);
        for shard in spawn_blocking(move || inner.shards()).await?.map_err(io::Error::from)? {
            let files = spawn_blocking(move || shard.copies()).await?.map_err(io::Error::from)?;
            for BlobFileName { digest, generation } in files {
                let Some(blob) = self.shared.live(digest).await? else { continue };
                let counted = matches!(&blob.placement,
                    Placement::Nodes(holders) if holders.contains(&view.me));
                let step = decide(&digest, &blob, view, FileState::Whole);
                if blob.generation == generation && !counted && step != Step::Rest {
                    let todo = Todo { digest, check: Check::Look, live: 2 };
                    self.tell(todo, found, todos).await;
                }
            }
        }
        Ok(())
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
