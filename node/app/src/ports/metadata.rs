//! The replicated state, as use cases see it: propose a command, read rows.

use nora_domain::{Ask, Command, Head, Key, Outcome, Record, Refusal, Rows, Terms, Timestamp};

use super::{BoxError, BoxFuture};

/// Why the metadata gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// There is no leader to ask, or this node is not ready. Nothing was changed; asking again later is right.
    #[error("no leader can be reached")]
    NoLeader,
    /// The proposal was sent and no answer came in time: it may or may not have been applied.
    #[error("no answer in time: the outcome is unknown")]
    OutcomeUnknown,
    /// Too much is waiting already. Nothing was changed.
    #[error("too many proposals are waiting")]
    Busy,
    /// The command is larger than a log entry may be.
    #[error("the command has {bytes} bytes, over the limit of {bytes_max}")]
    CommandTooLarge {
        /// Its encoded size.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// The answer is one to another kind of command: a fault of the metadata.
    #[error("the metadata answered another command: {0}")]
    ForeignAnswer(String),
    /// Reading or writing the local store failed.
    #[error("the metadata store failed")]
    Store(#[source] BoxError),
}

/// The replicated state.
pub trait Metadata: Send + Sync {
    /// Proposes a command. On return it is durable on a quorum and applied on this node.
    fn propose(
        &self,
        command: Command,
    ) -> BoxFuture<'_, Result<Result<Outcome, Refusal>, MetadataError>>;

    /// Waits until reads on this node show every change that was acknowledged anywhere before the call.
    fn linearize(&self) -> BoxFuture<'_, Result<(), MetadataError>>;

    /// Waits, for a moment at most, until every member in reach shows what this node shows. Reads by digest ask nobody, so
    /// after a deletion this is what keeps other members from answering with what is gone. Members that cannot be reached
    /// are not waited for: they answer nobody else either.
    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The part of this node's applied state that every command changes.
    fn head(&self) -> BoxFuture<'_, Result<Head, MetadataError>>;

    /// Reads one row from this node's applied state.
    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Record>, MetadataError>>;

    /// Reads up to `limit` rows of a run from one moment of this node's applied state, in key order.
    fn scan(
        &self,
        rows: Rows,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Key, Record)>, MetadataError>>;
}

/// Proposes an action and takes its answer as one to a command of that kind: the one place where the kind is checked.
pub async fn answer_to<A: Ask>(
    metadata: &(impl Metadata + ?Sized),
    command: Command,
) -> Result<Result<A::Done, Refusal>, MetadataError> {
    match metadata.propose(command).await? {
        Ok(outcome) => match A::done(outcome) {
            Ok(done) => Ok(Ok(done)),
            Err(other) => Err(MetadataError::ForeignAnswer(format!("{other:?}"))),
        },
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Proposes a command as the cluster's own doing; the leader stamps its time.
pub async fn ask<A: Ask>(
    metadata: &(impl Metadata + ?Sized),
    command: A,
) -> Result<Result<A::Done, Refusal>, MetadataError> {
    let action = command.into();
    let command = Command { at: Timestamp(0), origin: None, terms: Terms::NONE, action };
    answer_to::<A>(metadata, command).await
}
