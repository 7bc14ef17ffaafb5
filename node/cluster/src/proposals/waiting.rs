//! Proposals of this node whose answer is open.
//!
//! Guarantees: an answer is that of this node's own state, so whoever has it reads what was written; a proposal is
//! answered once, or given up; what is open has its bytes here, to be sent again. A serial counts as settled only when
//! it is neither open nor still to be given out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;
use nora_app::ports::metadata::MetadataError;
use nora_domain::{
    Action, Command, Epoch, Key, NodeId, NodeRecord, Origin, Outcome, Record, Refusal,
    SessionRecord, StartNode,
};
use tokio::sync::{Notify, oneshot};

use crate::codec;
use crate::rocks::locked;
use crate::rocks::state::{ReadError, StateDb, Tier};

/// What the state machine answers.
pub type Answer = Result<Outcome, Refusal>;

/// What becomes of a proposal; `None` if it may or may not have been applied.
pub type Settled = oneshot::Receiver<Option<Answer>>;

/// By what a proposal is known in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// The start of this node, by its random name: it has no epoch yet.
    Start(u128),
    /// A proposal of the running epoch, by its serial.
    Serial(u64),
}

struct Waiter {
    answer: oneshot::Sender<Option<Answer>>,
    command: Bytes,
    /// How often a log may have got it.
    handed_out: u32,
}

#[derive(Default)]
struct Open {
    ended: bool,
    epoch: Epoch,
    next: u64,
    start: Option<(u128, Waiter)>,
    serials: BTreeMap<u64, Waiter>,
}

/// The open proposals of a node.
#[derive(Default)]
pub struct Waiting {
    open: Mutex<Open>,
    drained: Notify,
}

impl Open {
    fn waiter(&mut self, ticket: Ticket) -> Option<&mut Waiter> {
        match ticket {
            Ticket::Start(start) => {
                self.start.as_mut().filter(|(open, _)| *open == start).map(|(_, waiter)| waiter)
            }
            Ticket::Serial(serial) => self.serials.get_mut(&serial),
        }
    }

    fn take(&mut self, ticket: Ticket) -> Option<Waiter> {
        match ticket {
            Ticket::Start(start) => {
                self.start.take_if(|(open, _)| *open == start).map(|(_, waiter)| waiter)
            }
            Ticket::Serial(serial) => self.serials.remove(&serial),
        }
    }

    fn is_empty(&self) -> bool {
        self.start.is_none() && self.serials.is_empty()
    }
}

impl Waiting {
    /// The epoch of the proposals to come.
    pub fn enter(&self, epoch: Epoch) {
        locked(&self.open).epoch = epoch;
    }

    /// The running epoch; 0 before the node has entered.
    pub fn epoch(&self) -> Epoch {
        locked(&self.open).epoch
    }

    /// Opens this node's start.
    pub fn open_start(&self, start: u128, command: Vec<u8>) -> (Ticket, Settled) {
        let (answer, settled) = oneshot::channel();
        let waiter = Waiter { answer, command: command.into(), handed_out: 0 };
        locked(&self.open).start = Some((start, waiter));
        (Ticket::Start(start), settled)
    }

    /// Opens a proposal: says in the encoded command which one it is.
    pub fn open(&self, mut command: Vec<u8>) -> Result<(Ticket, Settled), MetadataError> {
        let (answer, settled) = oneshot::channel();
        let mut open = locked(&self.open);
        if open.ended || open.epoch == Epoch(0) {
            return Err(MetadataError::NoLeader);
        }
        let serial = open.next;
        let oldest = open.serials.first_key_value().map_or(serial, |(oldest, _)| *oldest);
        if serial - oldest >= SessionRecord::SERIALS_OPEN_MAX {
            return Err(MetadataError::Busy);
        }
        let origin = Origin { epoch: open.epoch, serial, settled_below: oldest };
        codec::command::append_origin(&mut command, origin);
        open.next += 1;
        open.serials.insert(serial, Waiter { answer, command: command.into(), handed_out: 0 });
        Ok((Ticket::Serial(serial), settled))
    }

    /// Gives a proposal up. Tells whether a log may have got it.
    pub fn give_up(&self, ticket: Ticket) -> bool {
        let (waiter, drained) = {
            let mut open = locked(&self.open);
            (open.take(ticket), open.is_empty())
        };
        if drained {
            self.drained.notify_waiters();
        }
        waiter.is_some_and(|waiter| waiter.handed_out > 0)
    }

    /// Takes commands off the front of `tickets` to send them, up to `bytes_max` together but one at least, and counts
    /// them as handed out. Those that are no longer open are dropped.
    pub fn hand_out(
        &self,
        tickets: &mut VecDeque<Ticket>,
        bytes_max: usize,
    ) -> Vec<(Ticket, Bytes)> {
        let mut open = locked(&self.open);
        let mut batch = Vec::with_capacity(tickets.len());
        let mut bytes = 0;
        while let Some(ticket) = tickets.front().copied() {
            if let Some(waiter) = open.waiter(ticket) {
                bytes += waiter.command.len();
                if bytes > bytes_max && !batch.is_empty() {
                    break;
                }
                waiter.handed_out += 1;
                batch.push((ticket, waiter.command.clone()));
            }
            tickets.pop_front();
        }
        batch
    }

    /// Takes back that a command was handed out: no log has got it this time, for certain.
    pub fn hand_back(&self, ticket: Ticket) {
        if let Some(waiter) = locked(&self.open).waiter(ticket) {
            waiter.handed_out = waiter.handed_out.saturating_sub(1);
        }
    }

    /// By what a command is known here, if it is one of this node's running epoch.
    pub fn ticket(&self, command: &Command) -> Option<Ticket> {
        match (&command.origin, &command.action) {
            (Some(origin), _) => {
                let open = locked(&self.open);
                let ours = origin.epoch == open.epoch && open.serials.contains_key(&origin.serial);
                ours.then_some(Ticket::Serial(origin.serial))
            }
            (None, Action::StartNode(StartNode { start, .. })) => {
                let open = locked(&self.open);
                let ours = open.start.as_ref().is_some_and(|(open, _)| open == start);
                ours.then_some(Ticket::Start(*start))
            }
            (None, _) => None,
        }
    }

    /// Answers what this node's state has decided, and has written.
    pub fn settle(&self, answers: Vec<(Ticket, Answer)>) {
        if answers.is_empty() {
            return;
        }
        let drained = {
            let mut open = locked(&self.open);
            for (ticket, answer) in answers {
                if let Some(waiter) = open.take(ticket) {
                    let answer = waiter.heard(answer);
                    // Whoever asked may have gone away.
                    let _ = waiter.answer.send(answer);
                }
            }
            open.is_empty()
        };
        if drained {
            self.drained.notify_waiters();
        }
    }

    /// Looks after open proposals when a snapshot has replaced the state: entries that it covers are never applied here.
    pub fn look_after(&self, node: NodeId, state: &StateDb) -> Result<(), ReadError> {
        let (start, epoch) = {
            let open = locked(&self.open);
            (open.start.as_ref().map(|(start, _)| *start), open.epoch)
        };
        let record = match state.get(&Key::Node(node), Tier::Disk)? {
            Some(Record::Node(record)) => Some(record),
            _ => None,
        };
        let head = state.head()?;
        let session = head.sessions.get(&epoch);
        self.settle(started(start, record.as_ref()).into_iter().collect());
        let mut open = locked(&self.open);
        let gone: Vec<u64> =
            open.serials.keys().copied().filter(|serial| decided(session, *serial)).collect();
        for serial in gone {
            if let Some(waiter) = open.serials.remove(&serial) {
                let _ = waiter.answer.send(None);
            }
        }
        Ok(())
    }

    /// Gives everything up: this node's part in consensus has ended.
    pub fn end(&self) {
        let ended = {
            let mut open = locked(&self.open);
            open.ended = true;
            (open.start.take(), std::mem::take(&mut open.serials))
        };
        let (start, serials) = ended;
        for waiter in start.into_iter().map(|(_, waiter)| waiter).chain(serials.into_values()) {
            let _ = waiter.answer.send(None);
        }
        self.drained.notify_waiters();
    }

    /// Waits until nothing is open.
    pub async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if locked(&self.open).is_empty() {
                return;
            }
            drained.await;
        }
    }
}

impl Waiter {
    /// What an answer means to whoever waits. That the proposal was decided before, though the answer is still open,
    /// means that the answer passed by unseen. That its epoch is retired is certain to be about this proposal only if
    /// no other copy of it can have been applied before.
    fn heard(&self, answer: Answer) -> Option<Answer> {
        match answer {
            Err(Refusal::Duplicate) => None,
            Err(Refusal::RetiredEpoch) if self.handed_out > 1 => None,
            answer => Some(answer),
        }
    }
}

/// The answer to a start that a snapshot shows as done.
fn started(start: Option<u128>, record: Option<&NodeRecord>) -> Option<(Ticket, Answer)> {
    let (start, record) = (start?, record?);
    (record.start == start).then_some((Ticket::Start(start), Ok(Outcome::StartNode(record.epoch))))
}

/// Whether a proposal will not be decided any more: it was, or its epoch has ended.
fn decided(session: Option<&SessionRecord>, serial: u64) -> bool {
    session.is_none_or(|session| session.has(serial))
}
