//! Applies committed entries to the state.
//!
//! Guarantees: entries are applied in order, each to the state that those before it left; rows and position are
//! written at once; an answer is given only after that write. An entry that cannot be understood and a read that fails
//! stop this node: skipping either would make its state differ from the others'. Nobody who listens to events can hold
//! up an apply. Must not know: what the rules are; `nora_domain::transition` does.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use nora_domain::{Event, Head, Key, NodeId, Record, Rows, add_likely_reads};
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::{broadcast, watch};

use super::catch_up::CatchUp;
use super::chain::{Chain, EncodedRows};
use super::covered::Covered;
use super::log_store::blocking;
use super::overlay::{Changes, Overlay, Recent, Row, Transaction};
use super::snapshot::{Building, SnapshotHandle, Snapshots};
use super::{Entry, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::clock::AppliedClock;
use crate::codec::{self, DecodeError};
use crate::proposals::{Answer, Ticket, Waiting};
use crate::rocks::Memory;
use crate::rocks::state::{ReadError, StateDb, StateDirectory, Tier};
use crate::transport::Addresses;

/// Changes are written when they take this much memory, or when the entries at hand are applied.
const WRITE_BYTES_MAX: usize = 4 << 20;

/// How much is applied in one go where reads may wait for the disk: so many entries, of so many bytes together, unless one
/// alone is larger. What they change overshoots [`WRITE_BYTES_MAX`] by about as much.
const DISK_BATCH_MAX: usize = 256;
const DISK_BATCH_BYTES_MAX: usize = 1 << 20;

/// Rows that are read ahead for such a batch, about; no more than [`Recent`] keeps.
const PREFETCHED_MAX: usize = 2048;

/// Something that happened, with its number: the log position of the command and the place among its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionedEvent {
    /// Log position of the command.
    pub position: u64,
    /// Place among the command's events, from 0.
    pub index: u32,
    /// Number of the command's entry in the journal, which has all of them.
    pub entry: u64,
    /// What happened.
    pub event: Arc<Event>,
}

/// What the state machine shares with readers of the state.
pub struct Shared {
    /// The live state; another one takes its place when a snapshot is installed.
    pub state: ArcSwap<StateDb>,
    /// Snapshots of it.
    pub snapshots: Snapshots,
    /// Where events go.
    pub events: broadcast::Sender<PositionedEvent>,
    /// How many snapshots took the state's place since the start: no event tells of what they changed.
    pub installed: watch::Sender<u64>,
    /// This node's proposals, which the state answers.
    pub waiting: Arc<Waiting>,
    /// What the state says of nodes.
    pub addresses: Arc<Addresses>,
    /// The state's clock.
    pub clock: Arc<AppliedClock>,
    /// Members that snapshots wait for.
    pub catch_up: Arc<CatchUp>,
}

impl Shared {
    /// Notes what the state says of nodes, and its clock.
    fn note_all(&self) -> Result<(), ReadError> {
        self.clock.note(self.state.load().head()?.clock);
        for row in self.state.load().run(&Rows::Nodes, Tier::Disk) {
            if let (Key::Node(node), Record::Node(record)) = row? {
                self.addresses.note(node, &record);
            }
        }
        Ok(())
    }
}

/// The state machine.
pub struct StateMachine {
    shared: Arc<Shared>,
    directory: StateDirectory,
    /// Number of the live state's directory.
    number: u64,
    memory: Arc<Memory>,
    node: NodeId,
    applied: Option<LogId>,
    chain: Chain,
    membership: StoredMembership,
    head: Head,
    recent: Recent,
}

impl StateMachine {
    /// Opens the state in `data_dir/state` and the snapshots in `data_dir/snapshots`.
    pub fn open(
        data_dir: PathBuf,
        memory: Arc<Memory>,
        node: NodeId,
        events: broadcast::Sender<PositionedEvent>,
        covered: Covered,
    ) -> io::Result<Self> {
        let directory = StateDirectory::new(data_dir.join("state"));
        let (state, number) = directory.open(&memory)?;
        let applied = state.applied().map_err(io::Error::other)?;
        let membership = state.membership().map_err(io::Error::other)?;
        let head = state.head().map_err(io::Error::other)?;
        let chain = state.chain().map_err(io::Error::other)?;
        let snapshots = Snapshots::open(data_dir.join("snapshots"), covered)?;
        let shared = Arc::new(Shared {
            state: ArcSwap::from_pointee(state),
            snapshots,
            events,
            installed: watch::Sender::new(0),
            waiting: Arc::default(),
            addresses: Arc::default(),
            clock: Arc::default(),
            catch_up: Arc::default(),
        });
        shared.note_all().map_err(io::Error::other)?;
        let recent = Recent::default();
        Ok(Self {
            shared,
            directory,
            number,
            memory,
            node,
            applied,
            chain,
            membership,
            head,
            recent,
        })
    }

    /// What readers of the state need.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// The last entry that is in the state.
    pub fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// The last entry that is in the current snapshot.
    pub fn covered(&self) -> Option<LogId> {
        self.shared.snapshots.current().and_then(|snapshot| snapshot.manifest().last_log_id)
    }

    /// Makes a snapshot of the state unless one covers it: of a state that the log does not lead up to any more.
    pub fn cover(&self) -> io::Result<()> {
        if self.covered() >= self.applied {
            return Ok(());
        }
        let building = self.shared.snapshots.begin(&self.shared.state.load())?;
        self.shared.snapshots.finish(building).map(drop)
    }

    /// Applies what needs the disk: an entry, and those at hand after it, off the async threads in one go. A hop there and
    /// back for each would take longer than the reads do.
    async fn apply_from_disk(
        &mut self,
        pending: Pending,
        first: EntryResponder<TypeConfig>,
        entries: &mut (impl Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin),
    ) -> io::Result<Pending> {
        let mut bytes = command_bytes(&first.0);
        let mut batch = vec![first];
        while batch.len() < DISK_BATCH_MAX
            && bytes < DISK_BATCH_BYTES_MAX
            && let Some(Some(next)) = entries.next().now_or_never()
        {
            let next = next?;
            bytes += command_bytes(&next.0);
            batch.push(next);
        }
        let (shared, recent) = (self.shared.clone(), std::mem::take(&mut self.recent));
        let (pending, recent) = blocking(move || {
            let mut pending = pending;
            let state = shared.state.load_full();
            prefetch(&state, &recent, &pending, batch.iter().map(|(entry, _)| entry))
                .map_err(io::Error::other)?;
            for (entry, responder) in batch {
                let reply =
                    apply_entry(&shared, &state, &recent, &mut pending, &entry, Tier::Disk)?;
                pending.reply(responder, reply);
            }
            Ok((pending, recent))
        })
        .await?;
        self.recent = recent;
        Ok(pending)
    }

    /// Writes what is pending, then tells everybody.
    fn write(&mut self, pending: Pending) -> io::Result<()> {
        let Some(applied) = pending.applied else {
            return Ok(());
        };
        self.shared
            .state
            .load()
            .write(
                &pending.written,
                &pending.head,
                &applied,
                &pending.chain,
                pending.membership.as_ref(),
            )
            .map_err(crate::rocks::io_error)?;
        self.applied = Some(applied);
        self.shared.clock.note(pending.head.clock);
        self.head = pending.head;
        self.chain = pending.chain;
        let rows = pending.overlay.into_rows();
        for (key, row) in &rows {
            if let (Key::Node(node), Some(Record::Node(record))) = (key, row.as_deref()) {
                self.shared.addresses.note(*node, record);
            }
        }
        if let Some(membership) = pending.membership {
            self.membership = membership;
        }
        for event in pending.events {
            // Without a listener there is nobody to tell. One that is too slow is told how many it missed.
            let _ = self.shared.events.send(event);
        }
        // Whoever wrote many waits for the first of them first: told last, it is woken once and finds all others there.
        for (responder, reply) in pending.replies.into_iter().rev() {
            responder.send(reply);
        }
        self.shared.waiting.settle(pending.answers);
        Ok(())
    }
}

/// Applied in memory, not yet written.
struct Pending {
    overlay: Overlay,
    head: Head,
    /// The overlay's rows as they will be stored.
    written: EncodedRows,
    chain: Chain,
    applied: Option<LogId>,
    membership: Option<StoredMembership>,
    replies: Vec<(ApplyResponder<TypeConfig>, Reply)>,
    answers: Vec<(Ticket, Answer)>,
    events: Vec<PositionedEvent>,
}

impl Pending {
    /// Nothing, over a state with this head and after what its chain goes up to.
    fn after(head: Head, chain: &Chain) -> Self {
        Self {
            overlay: Overlay::default(),
            head,
            written: EncodedRows::new(),
            chain: chain.stored(),
            applied: None,
            membership: None,
            replies: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Takes over what an entry changed.
    fn change(&mut self, at: &LogId, changes: Changes, recent: &Recent) {
        recent.note(&changes);
        self.chain.extend(at, &changes, &self.head, &mut self.written);
        self.overlay.merge(changes);
    }

    fn reply(&mut self, responder: Option<ApplyResponder<TypeConfig>>, reply: Reply) {
        if let Some(responder) = responder {
            self.replies.push((responder, reply));
        }
    }
}

/// Why an entry was not applied. It has left nothing behind.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("cannot understand the command at {position}")]
    Decode {
        position: u64,
        #[source]
        source: DecodeError,
    },
    #[error("cannot read what a command needs")]
    Read(#[from] ReadError),
}

impl From<ApplyError> for io::Error {
    fn from(error: ApplyError) -> Self {
        let kind = match error {
            ApplyError::Decode { .. } => io::ErrorKind::InvalidData,
            ApplyError::Read(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// How long an entry's command is, encoded.
fn command_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.command.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// Reads what a batch of entries is likely to read, all at once, where one read after the other would wait for the disk each
/// time. What is pending is newer than what is stored, so it is left alone.
fn prefetch<'a>(
    state: &StateDb,
    recent: &Recent,
    pending: &Pending,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<(), ReadError> {
    let mut keys = Vec::new();
    for entry in entries {
        // An entry that cannot be understood is refused where it is applied.
        if let EntryPayload::Normal(proposal) = &entry.payload
            && let Ok(command) = codec::command::decode(proposal.at, proposal.command.clone())
        {
            add_likely_reads(&command.action, &mut keys);
        }
        if keys.len() >= PREFETCHED_MAX {
            break;
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| !pending.overlay.has(key) && !recent.has(key));
    let rows: Vec<Row> =
        state.get_many(&keys)?.into_iter().map(|record| record.map(Arc::new)).collect();
    recent.note(keys.iter().zip(&rows));
    Ok(())
}

/// Applies an entry over what is pending.
fn apply_entry(
    shared: &Shared,
    state: &StateDb,
    recent: &Recent,
    pending: &mut Pending,
    entry: &Entry,
    tier: Tier,
) -> Result<Reply, ApplyError> {
    let reply = match &entry.payload {
        EntryPayload::Blank => {
            pending.change(&entry.log_id, Changes::new(), recent);
            Reply(None)
        }
        EntryPayload::Membership(membership) => {
            pending.change(&entry.log_id, Changes::new(), recent);
            let membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            pending.membership = Some(membership);
            Reply(None)
        }
        EntryPayload::Normal(proposal) => {
            let position = entry.index();
            let command = codec::command::decode(proposal.at, proposal.command.clone())
                .map_err(|source| ApplyError::Decode { position, source })?;
            let (overlay, head) = (&pending.overlay, &mut pending.head);
            let mut transaction = Transaction::new(state, recent, overlay, head, tier);
            let applied = nora_domain::apply(&mut transaction, position, &command)?;
            let changes = transaction.into_changes();
            pending.change(&entry.log_id, changes, recent);
            // A command that changed something appends one entry, and its events are in it.
            let entry = pending.head.journal.next.saturating_sub(1);
            let events = (0..).zip(applied.events).map(|(index, event)| PositionedEvent {
                position,
                index,
                entry,
                event: Arc::new(event),
            });
            pending.events.extend(events);
            if let Some(ticket) = shared.waiting.ticket(&command) {
                pending.answers.push((ticket, applied.answer.clone()));
            }
            Reply(Some(applied.answer))
        }
    };
    pending.applied = Some(entry.log_id);
    Ok(reply)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut pending = Pending::after(self.head.clone(), &self.chain);
        while let Some((entry, responder)) = entries.try_next().await? {
            // Rows that commands touch are nearly always in memory.
            let state = self.shared.state.load_full();
            match apply_entry(
                &self.shared,
                &state,
                &self.recent,
                &mut pending,
                &entry,
                Tier::Memory,
            ) {
                Err(ApplyError::Read(ReadError::NotInMemory)) => {
                    let first = (entry, responder);
                    pending = self.apply_from_disk(pending, first, &mut entries).await?;
                }
                reply => pending.reply(responder, reply?),
            }
            if pending.overlay.bytes() >= WRITE_BYTES_MAX {
                let next = Pending::after(pending.head.clone(), &pending.chain);
                self.write(std::mem::replace(&mut pending, next))?;
            }
        }
        self.write(pending)
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        if !force && self.shared.catch_up.holds() {
            return None;
        }
        let shared = self.shared.clone();
        // openraft applies nothing until this returns, so the checkpoint is of one position.
        let building = blocking(move || shared.snapshots.begin(&shared.state.load())).await;
        match building {
            Err(error) if !force => {
                tracing::error!(%error, "cannot begin a snapshot; the log is kept until one succeeds");
                None
            }
            building => {
                Some(SnapshotBuilder { shared: self.shared.clone(), building: Some(building) })
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let building = match self.try_create_snapshot_builder(true).await {
            Some(builder) => return builder,
            None => Err(io::Error::other("no snapshot could be begun")),
        };
        SnapshotBuilder { shared: self.shared.clone(), building: Some(building) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> io::Result<()> {
        let number = self.number + 1;
        let (shared, directory, memory) =
            (self.shared.clone(), self.directory.clone(), self.memory.clone());
        let meta = meta.clone();
        let (applied, membership, head, chain) =
            blocking(move || install(&shared, &directory, &memory, number, &meta, &snapshot))
                .await
                .inspect_err(|_| self.shared.snapshots.failed())?;
        self.number = number;
        self.applied = applied;
        self.head = head;
        self.chain = chain;
        self.shared.installed.send_modify(|installed| *installed += 1);
        self.recent = Recent::default();
        self.membership = membership;
        let (shared, node) = (self.shared.clone(), self.node);
        blocking(move || {
            shared.note_all().map_err(io::Error::other)?;
            shared.waiting.look_after(node, &shared.state.load()).map_err(io::Error::other)
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.shared.snapshots.current().map(Snapshot::from))
    }
}

/// Makes a snapshot the state. A crash before the activation leaves the old state, one after it the new.
fn install(
    shared: &Shared,
    directory: &StateDirectory,
    memory: &Memory,
    number: u64,
    meta: &SnapshotMeta,
    snapshot: &SnapshotHandle,
) -> io::Result<(Option<LogId>, StoredMembership, Head, Chain)> {
    snapshot.verify()?;
    let files = directory.prepare(number, &snapshot.files())?;
    let state = StateDb::open(&files, memory, false).map_err(io::Error::other)?;
    let applied = state.applied().map_err(io::Error::other)?;
    let membership = state.membership().map_err(io::Error::other)?;
    let head = state.head().map_err(io::Error::other)?;
    let chain = state.chain().map_err(io::Error::other)?;
    if applied != meta.last_log_id {
        state.retire();
        let text = format!("the snapshot holds {applied:?}, not {:?}", meta.last_log_id);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    shared.snapshots.adopt(snapshot)?;
    directory.activate(number)?;
    shared.state.swap(Arc::new(state)).retire();
    Ok((applied, membership, head, chain))
}

/// A snapshot that was begun.
pub struct SnapshotBuilder {
    shared: Arc<Shared>,
    building: Option<io::Result<Building>>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let building = self
            .building
            .take()
            .unwrap_or_else(|| Err(io::Error::other("this snapshot was built already")))?;
        let shared = self.shared.clone();
        let finished = blocking(move || shared.snapshots.finish(building)).await?;
        Ok(finished.into())
    }
}
