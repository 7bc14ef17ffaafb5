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
use futures_util::{Stream, TryStreamExt};
use nora_domain::command::Command;
use nora_domain::event::Event;
use nora_domain::record::{Key, NodeId, Record};
use nora_domain::store::Rows;
use nora_domain::transition::{self, Applied};
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::broadcast;

use super::covered::Covered;
use super::log_store::blocking;
use super::overlay::{Changes, Overlay, Transaction};
use super::snapshot::{SnapshotHandle, Snapshots};
use super::voters::SoleVoter;
use super::{Entry, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::codec;
use crate::proposals::{Answer, Ticket, Waiting};
use crate::rocks::Memory;
use crate::rocks::state::{ReadError, StateDb, StateDirectory, Tier};
use crate::transport::Addresses;

/// Changes are written when they take this much memory, or when the entries at hand are applied.
const WRITE_BYTES_MAX: usize = 4 << 20;

/// Something that happened, with its number: the log position of the command and the place among its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionedEvent {
    /// Log position of the command.
    pub position: u64,
    /// Place among the command's events, from 0.
    pub index: u32,
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
    /// This node's proposals, which the state answers.
    pub waiting: Arc<Waiting>,
    /// What the state says of nodes.
    pub addresses: Arc<Addresses>,
}

impl Shared {
    /// Notes where every node of the state listens.
    fn note_addresses(&self) -> Result<(), ReadError> {
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
    voters: Arc<SoleVoter>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl StateMachine {
    /// Opens the state in `data_dir/state` and the snapshots in `data_dir/snapshots`.
    pub fn open(
        data_dir: PathBuf,
        memory: Arc<Memory>,
        voters: Arc<SoleVoter>,
        events: broadcast::Sender<PositionedEvent>,
        covered: Covered,
    ) -> io::Result<Self> {
        let directory = StateDirectory::new(data_dir.join("state"));
        let (state, number) = directory.open(&memory)?;
        let applied = state.applied().map_err(io::Error::other)?;
        let membership = state.membership().map_err(io::Error::other)?;
        let snapshots = Snapshots::open(data_dir.join("snapshots"), memory.clone(), covered)?;
        let shared = Arc::new(Shared {
            state: ArcSwap::from_pointee(state),
            snapshots,
            events,
            waiting: Arc::default(),
            addresses: Arc::default(),
        });
        shared.note_addresses().map_err(io::Error::other)?;
        if let Some(at) = membership.log_id() {
            voters.applied(at.index, membership.membership());
        }
        Ok(Self { shared, directory, number, memory, voters, applied, membership })
    }

    /// What readers of the state need.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// The index of the last entry that is in the state.
    pub fn applied_index(&self) -> Option<u64> {
        self.applied.map(|applied| applied.index)
    }

    /// Makes a snapshot of the state unless one covers it: of a state that the log does not lead up to any more, because a
    /// power cut took the log's end and left the state's.
    pub fn cover(&self) -> io::Result<()> {
        let current = self.shared.snapshots.current();
        if current.and_then(|snapshot| snapshot.manifest().last_log_id) >= self.applied {
            return Ok(());
        }
        let building = self.shared.snapshots.begin(&self.shared.state.load())?;
        self.shared.snapshots.finish(&building).map(drop)
    }

    async fn apply_entry(
        &mut self,
        pending: &mut Pending,
        entry: Entry,
        responder: Option<ApplyResponder<TypeConfig>>,
    ) -> io::Result<()> {
        let position = entry.index();
        let reply = match entry.payload {
            EntryPayload::Blank => Reply(None),
            EntryPayload::Membership(membership) => {
                let membership = StoredMembership::new(Some(entry.log_id), membership);
                pending.membership = Some(membership);
                Reply(None)
            }
            EntryPayload::Normal(proposal) => {
                let command = codec::command::decode(&proposal.0).map_err(|error| {
                    let text = format!("cannot understand the command at {position}: {error}");
                    io::Error::new(io::ErrorKind::InvalidData, text)
                })?;
                Reply(Some(self.apply_command(pending, position, command).await?))
            }
        };
        pending.applied = Some(entry.log_id);
        if let Some(responder) = responder {
            pending.replies.push((responder, reply));
        }
        Ok(())
    }

    async fn apply_command(
        &self,
        pending: &mut Pending,
        position: u64,
        command: Command,
    ) -> io::Result<Answer> {
        let ticket = self.shared.waiting.ticket(&command);
        let state = self.shared.state.load_full();
        // Rows that commands touch are nearly always in memory. If one is not, the command starts over where waiting
        // for the disk holds nobody up.
        let first = decide(&state, &pending.overlay, position, &command, Tier::Memory);
        let (applied, changes) = match first {
            Err(ReadError::NotInMemory) => {
                let overlay = std::mem::take(&mut pending.overlay);
                let (overlay, decided) = blocking(move || {
                    let decided = decide(&state, &overlay, position, &command, Tier::Disk);
                    Ok((overlay, decided))
                })
                .await?;
                pending.overlay = overlay;
                decided
            }
            first => first,
        }
        .map_err(io::Error::other)?;
        pending.overlay.merge(changes);
        pending.events.extend((0..).zip(applied.events).map(|(index, event)| PositionedEvent {
            position,
            index,
            event: Arc::new(event),
        }));
        if let Some(ticket) = ticket {
            pending.answers.push((ticket, applied.answer.clone()));
        }
        Ok(applied.answer)
    }

    /// Writes what is pending, then tells everybody.
    fn write(&mut self, pending: Pending) -> io::Result<()> {
        let Some(applied) = pending.applied else {
            return Ok(());
        };
        self.shared
            .state
            .load()
            .write(pending.overlay.rows(), &applied, pending.membership.as_ref())
            .map_err(crate::rocks::io_error)?;
        self.applied = Some(applied);
        for (key, record) in pending.overlay.rows() {
            if let (Key::Node(node), Some(Record::Node(record))) = (key, record) {
                self.shared.addresses.note(*node, record);
            }
        }
        if let Some(membership) = pending.membership {
            let index = membership.log_id().as_ref().map_or(0, |log_id| log_id.index);
            self.voters.applied(index, membership.membership());
            self.membership = membership;
        }
        self.voters.reached(applied.leader_id.term, applied.leader_id.node_id);
        for event in pending.events {
            // Without a listener there is nobody to tell. One that is too slow is told how many it missed.
            let _ = self.shared.events.send(event);
        }
        for (responder, reply) in pending.replies {
            responder.send(reply);
        }
        self.shared.waiting.settle(pending.answers);
        Ok(())
    }
}

/// Applied in memory, not yet written.
#[derive(Default)]
struct Pending {
    overlay: Overlay,
    applied: Option<LogId>,
    membership: Option<StoredMembership>,
    replies: Vec<(ApplyResponder<TypeConfig>, Reply)>,
    answers: Vec<(Ticket, Answer)>,
    events: Vec<PositionedEvent>,
}

fn decide(
    state: &StateDb,
    overlay: &Overlay,
    position: u64,
    command: &Command,
    tier: Tier,
) -> Result<(Applied, Changes), ReadError> {
    let mut transaction = Transaction::new(state, overlay, tier);
    let applied = transition::apply(&mut transaction, position, command)?;
    Ok((applied, transaction.into_changes()))
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
        let mut pending = Pending::default();
        while let Some((entry, responder)) = entries.try_next().await? {
            self.apply_entry(&mut pending, entry, responder).await?;
            if pending.overlay.bytes() >= WRITE_BYTES_MAX {
                self.write(std::mem::take(&mut pending))?;
            }
        }
        self.write(pending)
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
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
        let (applied, membership) =
            blocking(move || install(&shared, &directory, &memory, number, &meta, &snapshot))
                .await
                .inspect_err(|_| self.shared.snapshots.failed())?;
        self.number = number;
        self.applied = applied;
        if let Some(at) = membership.log_id() {
            self.voters.appended(at.index);
            self.voters.applied(at.index, membership.membership());
        }
        self.membership = membership;
        let (shared, node) = (self.shared.clone(), NodeId(self.voters.node()));
        blocking(move || {
            shared.note_addresses().map_err(io::Error::other)?;
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
) -> io::Result<(Option<LogId>, StoredMembership)> {
    snapshot.verify()?;
    let files = directory.prepare(number, &snapshot.files())?;
    let state = StateDb::open(&files, memory, false).map_err(io::Error::other)?;
    let applied = state.applied().map_err(io::Error::other)?;
    let membership = state.membership().map_err(io::Error::other)?;
    if applied != meta.last_log_id {
        state.retire();
        let text = format!("the snapshot holds {applied:?}, not {:?}", meta.last_log_id);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    shared.snapshots.adopt(snapshot)?;
    directory.activate(number)?;
    shared.state.swap(Arc::new(state)).retire();
    Ok((applied, membership))
}

/// A snapshot that was begun.
pub struct SnapshotBuilder {
    shared: Arc<Shared>,
    building: Option<io::Result<PathBuf>>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let building = self
            .building
            .take()
            .unwrap_or_else(|| Err(io::Error::other("this snapshot was built already")))?;
        let shared = self.shared.clone();
        let finished = blocking(move || shared.snapshots.finish(&building)).await?;
        Ok(finished.into())
    }
}
