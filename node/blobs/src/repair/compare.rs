//! The comparison of everything: what the log says of blobs, and the files of this node.
//!
//! Events tell of changes; the comparison finds what no event told of, a stretch of digests at a time. A node that fell
//! behind, and one that sees another node come or go, compares everything once; otherwise a round is due once in a scrub
//! interval and is spread over half of it. Guarantees: a turn reads at most [`PAGE_ROWS`] rows and the files beside them;
//! no file costs a read of the metadata unless no row of its digest's stretch names it; a restart goes on where the last
//! process was, and the position is stored only while nothing that was found waits for repair; a file goes only if its epoch is over and the log, asked after that was known, does not name it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nora_app::jobs::{Job, Schedule, Turn};
use nora_app::ports::{BoxError, BoxFuture};
use nora_domain::{Algorithm, BlobRecord, Digest, Epoch, Key, Placement, Record, Rows};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::decide::{Step, decide};
use super::position::{PositionV1, Stretch};
use super::queue::{Check, Todo};
use super::{Repair, RepairError};
use crate::census::SHARDS;
use crate::inventory::FileState;
use crate::layout::BlobFileName;
use crate::replicated::{PAGE_ROWS, View, copy_of};
use crate::store::Inner;

/// How often the job looks whether a round is due, at least.
const LOOK_MAX: Duration = Duration::from_secs(3_600);
/// How soon after a stretch it is looked again whether its position can be stored.
const STORED_WITHIN: Duration = Duration::from_secs(60);
/// How long the comparison waits while too many blobs wait for repair.
const ROOM_PAUSE: Duration = Duration::from_millis(200);
/// Changes of nodes come in groups.
const GATHER: Duration = Duration::from_millis(200);
/// The shortest rest between two stretches of an urgent round.
const REST_MIN: Duration = Duration::from_millis(2);
/// An urgent round rests so many times as long as it works: it takes at most a quarter of one processor.
const REST_SHARE: u32 = 3;
/// Files of a stretch; one that has more ends after the folder in which they became more.
const FILES_MAX: usize = 10_000;
/// How long a folder's listing is good for the stretches that follow in it.
const LISTING_AGE_MAX: Duration = Duration::from_secs(60);
/// More nodes than a cluster ever had.
const NODES_MAX: usize = 100_000;

/// The job.
pub(crate) struct Compare {
    repair: Arc<Repair>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` until it was read from the disk.
    position: Option<PositionV1>,
    /// Whether the position went on since it was stored.
    is_ahead: bool,
    /// The folder that was listed last.
    listing: Option<Listing>,
    found: Found,
}

/// What a round found.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    rows: u64,
    repairs: u64,
    orphans: u64,
}

struct Listing {
    folder: usize,
    at: Instant,
    names: BTreeSet<BlobFileName>,
}

impl Job for Compare {
    fn schedule(&self) -> Schedule {
        Schedule::every("blobs-compare", LOOK_MAX).retry_max(Duration::from_secs(60))
    }

    fn turn(&self) -> BoxFuture<'_, Result<Turn, BoxError>> {
        Box::pin(async { Ok(self.step().await?) })
    }

    fn woken(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.repair.shared.wakes.rounds().await;
            tokio::time::sleep(GATHER).await;
        })
    }
}

impl Compare {
    pub(crate) fn new(repair: Arc<Repair>) -> Self {
        Self { repair, state: Mutex::default() }
    }

    async fn step(&self) -> Result<Turn, RepairError> {
        let mut state = self.state.lock().await;
        let (now, interval) =
            (self.repair.shared.now().0, self.repair.shared.config.scrub_interval);
        self.take_demand(&mut state, now).await?;
        self.store_if_settled(&mut state).await;
        let State { position, listing, found, is_ahead } = &mut *state;
        let Some(position) = position else { return Ok(Turn::done()) };
        if !position.is_running() {
            let due_in = position.due_in(now, interval);
            if !due_in.is_zero() {
                return Ok(Turn::after(due_in.min(LOOK_MAX)));
            }
            position.begin(now, false);
            *found = Found::default();
        }
        let ahead = position.ahead(now, interval / 2);
        if !ahead.is_zero() {
            return Ok(Turn::after(ahead.min(LOOK_MAX)));
        }
        if !self.repair.shared.wakes.has_room() {
            return Ok(Turn::after(ROOM_PAUSE));
        }
        let Some(stretch) = position.next() else { return Ok(Turn::done()) };
        let began = Instant::now();
        let (end, compared) = self.compare(stretch, listing).await?;
        found.rows += compared.rows;
        found.repairs += compared.repairs;
        found.orphans += compared.orphans;
        position.compared(end);
        *is_ahead = true;
        let rest = match position.is_urgent() {
            true => (began.elapsed() * REST_SHARE).max(REST_MIN),
            false => position.ahead(now, interval / 2).max(REST_MIN),
        };
        let next = match position.is_running() {
            true => rest,
            false => {
                info!(?found, "every blob and every file of this node was compared");
                *listing = None;
                position.due_in(now, interval)
            }
        };
        self.store_if_settled(&mut state).await;
        let look = if state.is_ahead { STORED_WITHIN } else { LOOK_MAX };
        let turn = Turn::after(next.min(look)).count("rows", compared.rows);
        Ok(turn.count("to repair", compared.repairs).count("orphans removed", compared.orphans))
    }

    /// Begins a round if one was asked for. The demand counts as met once it is on the disk.
    async fn take_demand(&self, state: &mut State, now: u64) -> Result<(), RepairError> {
        let shared = &self.repair.shared;
        let demand = shared.wakes.demand();
        let position = match &mut state.position {
            Some(position) => position,
            empty => {
                let path = shared.local.inner.layout.compare_position().to_owned();
                let stored = spawn_blocking(move || std::fs::read(path)).await?;
                match stored.ok().and_then(|bytes| PositionV1::decode(&bytes)) {
                    Some(position) => empty.insert(position),
                    None => {
                        shared.wakes.round();
                        empty.insert(PositionV1::default())
                    }
                }
            }
        };
        let Some(demand) = demand.or_else(|| shared.wakes.demand()) else { return Ok(()) };
        if demand.is_new {
            position.begin(now, true);
            state.found = Found::default();
            shared.wakes.begun(demand.number);
        }
        let position = position.clone();
        match self.store(&position).await {
            Ok(()) => shared.wakes.stored(demand.number),
            Err(error) => warn!(%error, "cannot note that everything is to be compared"),
        }
        Ok(())
    }

    /// Stores how far the comparison is, unless something that it found would be forgotten with a crash.
    async fn store_if_settled(&self, state: &mut State) {
        let Some(position) = state.position.as_ref().filter(|_| state.is_ahead) else { return };
        if !self.repair.shared.wakes.is_idle() {
            return;
        }
        match self.store(position).await {
            Ok(()) => state.is_ahead = false,
            Err(error) => {
                warn!(%error, "cannot note how far the comparison is; the next start compares some again");
            }
        }
    }

    async fn store(&self, position: &PositionV1) -> io::Result<()> {
        let path = self.repair.shared.local.inner.layout.compare_position().to_owned();
        let bytes = position.encode();
        let stored = spawn_blocking(move || std::fs::write(path, bytes)).await;
        stored.unwrap_or_else(|cut| Err(io::Error::other(cut)))
    }

    /// Compares the beginning of a stretch. Returns how far it came, `None` for all of the stretch.
    async fn compare(
        &self,
        stretch: Stretch,
        listing: &mut Option<Listing>,
    ) -> Result<(Option<Digest>, Found), RepairError> {
        let shared = &self.repair.shared;
        let view = shared.views.now().await?;
        let Stretch { after, end } = stretch;
        let scanned = shared.metadata.scan(Rows::Blobs { after }, PAGE_ROWS).await?;
        let is_full = scanned.len() >= PAGE_ROWS;
        let mut rows: BTreeMap<Digest, BlobRecord> = scanned
            .into_iter()
            .filter_map(|row| match row {
                (Key::Blob(digest), Record::Blob(blob)) => Some((digest, blob)),
                _ => None,
            })
            .collect();
        // The end of the stretch, or the last row that was read, whichever comes first.
        let read_to = rows.last_key_value().map(|(digest, _)| *digest).filter(|_| is_full);
        let mut to = match (read_to, end) {
            (Some(read_to), Some(end)) => Some(read_to.min(end)),
            (read_to, end) => read_to.or(end),
        };
        let (inner, kept) = (Arc::clone(&shared.local.inner), listing.take());
        let listed = spawn_blocking(move || files_between(&inner, after, to, kept));
        let files = listed.await??;
        *listing = files.listing;
        if files.ends_at.is_some() {
            to = files.ends_at;
        }
        rows.retain(|digest, _| to.is_none_or(|to| *digest <= to));
        let mut found = Found { rows: rows.len() as u64, ..Found::default() };
        let mut orphans = Vec::new();
        for name in files.names.into_iter().filter(|name| to.is_none_or(|to| name.digest <= to)) {
            match rows.get(&name.digest) {
                Some(blob) if blob.generation == name.generation => {
                    found.repairs += u64::from(self.look_at_file(&name, blob, &view));
                }
                _ => orphans.push(name),
            }
        }
        found.repairs += self.look_at_rows(rows, &view).await?;
        found.orphans = self.sweep(orphans).await?;
        Ok((to, found))
    }

    /// Finds what is to be done about blobs that this node holds or should hold.
    async fn look_at_rows(
        &self,
        rows: BTreeMap<Digest, BlobRecord>,
        view: &Arc<View>,
    ) -> Result<u64, RepairError> {
        let shared = &self.repair.shared;
        let (inner, seen_by) = (Arc::clone(&shared.local.inner), Arc::clone(view));
        let looked = spawn_blocking(move || {
            let mut looked = Vec::new();
            for (digest, blob) in rows {
                let Placement::Nodes(holders) = &blob.placement else { continue };
                let holds = holders.contains(&seen_by.me);
                let should = seen_by.desired(&digest).contains(&seen_by.me);
                if holds || should {
                    let file = inner.state_of(&copy_of(digest, &blob))?;
                    let step = decide(&digest, &blob, &seen_by, file);
                    let live = holders.iter().filter(|node| seen_by.is_live(**node)).count();
                    let is_lost = should && holders.is_empty() && step == Step::Rest;
                    looked.push((digest, holds && !should, is_lost, step, live));
                }
            }
            Ok::<_, io::Error>(looked)
        });
        let mut repairs = 0;
        for (digest, is_excess, is_lost, step, live) in looked.await?? {
            self.repair.note_lost(digest, is_lost);
            let missing = matches!(step, Step::Fetch | Step::Lost);
            // What is noted here may be over by now: the queue finds out, and has the last word.
            if step != Step::Rest || is_excess {
                self.repair.note_excess(digest, is_excess);
                shared.wakes.found(Todo { digest, check: Check::Look, live, missing });
                repairs += u64::from(step != Step::Rest);
            }
        }
        Ok(repairs)
    }

    /// Whether there is something to do about a file of a live copy that the log does not count here, nor wants here.
    fn look_at_file(&self, name: &BlobFileName, blob: &BlobRecord, view: &View) -> bool {
        let Placement::Nodes(holders) = &blob.placement else { return false };
        let digest = name.digest;
        if holders.contains(&view.me)
            || view.desired(&digest).contains(&view.me)
            || decide(&digest, blob, view, FileState::Whole) == Step::Rest
        {
            return false;
        }
        let todo = Todo { digest, check: Check::Look, live: 2, missing: false };
        self.repair.shared.wakes.found(todo);
        true
    }

    /// Removes files that the log does not name, if their epochs are over. Returns how many.
    async fn sweep(&self, names: Vec<BlobFileName>) -> Result<u64, RepairError> {
        if names.is_empty() {
            return Ok(0);
        }
        let shared = &self.repair.shared;
        // What is read from here on shows every commit of the epochs that are over by then.
        shared.metadata.linearize().await?;
        let newest = match shared.metadata.get(Key::Cluster).await? {
            Some(Record::Cluster(cluster)) => cluster.epoch,
            _ => return Ok(0),
        };
        let nodes = shared.metadata.scan(Rows::Nodes, NODES_MAX).await?;
        let running: HashSet<Epoch> = nodes
            .into_iter()
            .filter_map(|(_, record)| match record {
                Record::Node(node) => Some(node.epoch),
                _ => None,
            })
            .collect();
        let mut removed = 0;
        for name in names {
            let epoch = name.generation.epoch;
            // One that is newer than what was read may belong to a start that goes on.
            if epoch > newest || running.contains(&epoch) {
                continue;
            }
            let live = shared.live(name.digest).await?;
            if live.is_some_and(|blob| blob.generation == name.generation) {
                continue;
            }
            info!(digest = %name.digest, epoch = epoch.0, "removing a blob that nothing names");
            let inner = Arc::clone(&shared.local.inner);
            spawn_blocking(move || inner.remove_copy(&name)).await??;
            removed += 1;
        }
        Ok(removed)
    }
}

/// Files of a stretch.
struct Files {
    names: Vec<BlobFileName>,
    /// Where the stretch was cut, because there are many.
    ends_at: Option<Digest>,
    /// The last folder.
    listing: Option<Listing>,
}

/// The files of digests after one and up to another, in order. Blocks.
fn files_between(
    inner: &Inner,
    after: Option<Digest>,
    end: Option<Digest>,
    mut kept: Option<Listing>,
) -> io::Result<Files> {
    let first = after.map_or(0, |digest| folder_of(&digest));
    let last = end.map_or(2 * SHARDS - 1, |digest| folder_of(&digest));
    let mut names = Vec::new();
    for folder in first..=last {
        let (algorithm, shard) = shard_of(folder);
        let listing = match kept.take() {
            Some(kept) if kept.folder == folder && kept.at.elapsed() < LISTING_AGE_MAX => kept,
            _ => Listing { folder, at: Instant::now(), names: inner.copies_in(algorithm, shard)? },
        };
        let between = listing.names.iter().filter(|name| {
            after.is_none_or(|after| name.digest > after)
                && end.is_none_or(|end| name.digest <= end)
        });
        names.extend(between.copied());
        kept = Some(listing);
        if names.len() >= FILES_MAX && folder < last {
            return Ok(Files { names, ends_at: Some(last_in(algorithm, shard)), listing: kept });
        }
    }
    Ok(Files { names, ends_at: None, listing: kept })
}

fn folder_of(digest: &Digest) -> usize {
    let shard = usize::from(digest.value().first().copied().unwrap_or_default());
    match digest.algorithm() {
        Algorithm::Sha256 => shard,
        Algorithm::Sha512 => SHARDS + shard,
    }
}

fn shard_of(folder: usize) -> (Algorithm, u8) {
    let shard = (folder % SHARDS) as u8;
    if folder < SHARDS { (Algorithm::Sha256, shard) } else { (Algorithm::Sha512, shard) }
}

/// The greatest digest whose copies are in a folder.
fn last_in(algorithm: Algorithm, shard: u8) -> Digest {
    match algorithm {
        Algorithm::Sha256 => {
            let mut value = [0xff; 32];
            value[0] = shard;
            Digest::sha256(value)
        }
        Algorithm::Sha512 => {
            let mut value = [0xff; 64];
            value[0] = shard;
            Digest::sha512(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_in_the_order_of_digests() {
        for folder in 0..2 * SHARDS {
            let (algorithm, shard) = shard_of(folder);
            let last = last_in(algorithm, shard);
            assert_eq!(folder_of(&last), folder);
            if folder > 0 {
                let (algorithm, shard) = shard_of(folder - 1);
                assert!(last_in(algorithm, shard) < last);
            }
        }
    }
}
