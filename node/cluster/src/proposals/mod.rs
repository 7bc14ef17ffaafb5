//! The way of a proposal: from any node to the leader's log, and back through this node's own state.
//!
//! Guarantees: a proposal takes effect once, however often it is sent (its [`Origin`] sees to that), so what may be lost
//! is sent again until its time is up; then it is reported as unknown, unless no log can have got it. What waits is
//! bounded. Proposals that wait at the same time travel together.
//!
//! [`Origin`]: nora_domain::Origin

mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nora_app::ports::metadata::MetadataError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

pub use self::waiting::{Answer, Settled, Ticket, Waiting};
use crate::leader::{Leader, Submitted};

/// What one message to the leader carries at most, unless a command alone is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Proposals that one message carries at most.
const BATCH_MAX: usize = 1024;

/// Messages to the leader under way at once: a few, so that what comes meanwhile gathers and travels together.
const BATCHES_MAX: usize = 8;

/// How long to wait before asking again whoever may lead, unless the leader changes first.
const PAUSE: Duration = Duration::from_millis(30);

/// Proposals of this node.
pub struct Proposals {
    waiting: Arc<Waiting>,
    // Bounded by the window of open proposals.
    queue: mpsc::UnboundedSender<Ticket>,
    bytes: Semaphore,
}

impl Proposals {
    /// Begins to carry proposals to whoever leads.
    pub fn start(waiting: Arc<Waiting>, leader: Arc<Leader>, bytes_max: usize) -> Self {
        let (queue, tickets) = mpsc::unbounded_channel();
        tokio::spawn(carry_all(waiting.clone(), leader, tickets));
        Self { waiting, queue, bytes: Semaphore::new(bytes_max) }
    }

    /// Proposes an encoded command and waits for this node's state to answer.
    pub async fn propose(
        &self,
        command: Vec<u8>,
        timeout: Duration,
    ) -> Result<Answer, MetadataError> {
        let bytes = u32::try_from(command.len()).unwrap_or(u32::MAX);
        let _bytes = self.bytes.try_acquire_many(bytes).map_err(|_| MetadataError::Busy)?;
        let (ticket, settled) = self.waiting.open(command)?;
        self.settle(ticket, settled, timeout).await
    }

    /// Proposes this node's start, which `start` names, and waits for this node's state to answer.
    pub async fn propose_start(
        &self,
        start: u128,
        command: Vec<u8>,
        timeout: Duration,
    ) -> Result<Answer, MetadataError> {
        let (ticket, settled) = self.waiting.open_start(start, command);
        self.settle(ticket, settled, timeout).await
    }

    async fn settle(
        &self,
        ticket: Ticket,
        settled: Settled,
        timeout: Duration,
    ) -> Result<Answer, MetadataError> {
        // Whoever asked may go away at any moment; then the proposal is given up too.
        let given_up = GiveUp { waiting: &self.waiting, ticket };
        self.queue.send(ticket).map_err(|_| MetadataError::NoLeader)?;
        match tokio::time::timeout(timeout, settled).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(_) => Err(MetadataError::OutcomeUnknown),
            Err(_) if given_up.waiting.give_up(ticket) => Err(MetadataError::OutcomeUnknown),
            Err(_) => Err(MetadataError::NoLeader),
        }
    }
}

struct GiveUp<'a> {
    waiting: &'a Waiting,
    ticket: Ticket,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.waiting.give_up(self.ticket);
    }
}

/// Gathers what waits while a few messages are under way.
async fn carry_all(
    waiting: Arc<Waiting>,
    leader: Arc<Leader>,
    mut queue: mpsc::UnboundedReceiver<Ticket>,
) {
    let slots = Arc::new(Semaphore::new(BATCHES_MAX));
    while let Some(first) = queue.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let mut tickets = VecDeque::from([first]);
        while tickets.len() < BATCH_MAX
            && let Ok(ticket) = queue.try_recv()
        {
            tickets.push_back(ticket);
        }
        tokio::spawn(carry(waiting.clone(), leader.clone(), tickets, slot));
    }
}

/// Sends proposals until each was applied by a leader, or is no longer open.
async fn carry(
    waiting: Arc<Waiting>,
    leader: Arc<Leader>,
    mut tickets: VecDeque<Ticket>,
    _slot: OwnedSemaphorePermit,
) {
    loop {
        let (batch, commands): (Vec<Ticket>, Vec<Bytes>) =
            waiting.hand_out(&mut tickets, BATCH_BYTES_MAX).into_iter().unzip();
        if batch.is_empty() {
            return;
        }
        let begun = Instant::now();
        let submitted = leader.propose(commands).await;
        let mut failed = false;
        for (ticket, submitted) in batch.into_iter().zip(submitted) {
            match submitted {
                // Done, as far as the leader goes: this node's state answers when it comes to the entry.
                Submitted::Applied(_) => continue,
                Submitted::NotLeader(_) | Submitted::Busy => waiting.hand_back(ticket),
                Submitted::Unknown => {}
            }
            failed = true;
            tickets.push_back(ticket);
        }
        if failed {
            leader.pause(begun, PAUSE).await;
        }
    }
}
