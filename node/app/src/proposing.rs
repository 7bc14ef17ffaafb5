//! Proposing a change to the log on behalf of a caller.
//!
//! A caller's change is judged first, and the log applies it only if the policy that judged it is still in force. If it is
//! not, the change is judged and proposed again, and may end in another way. What the cluster does by itself is not judged.
//!
//! Guarantee: a change that is reported as not proposed was never sent to the log.
//!
//! Must not know: what judging takes; that is [`crate::judging`].

use nora_domain::{Action, Ask, Command, Refusal, Terms};

use crate::Error;
use crate::core::Core;
use crate::ports::metadata::{MetadataError, answer_to};

/// How often a change is judged anew because the policy changed in between.
const POLICY_CHANGES_MAX: usize = 4;

/// How often a deletion is judged anew because something came to the repository in between.
const REPOSITORY_CHANGES_MAX: usize = 32;

/// Why the log gave no answer to a change.
pub(crate) enum NoAnswer {
    /// The change was not proposed: judging it failed, or the caller may not make it.
    NotProposed(Error),
    /// The metadata failed. Some of its errors leave open whether the change was made.
    Metadata(MetadataError),
}

impl From<NoAnswer> for Error {
    fn from(reason: NoAnswer) -> Self {
        match reason {
            NoAnswer::NotProposed(error) => error,
            NoAnswer::Metadata(error) => error.into(),
        }
    }
}

impl From<MetadataError> for NoAnswer {
    fn from(error: MetadataError) -> Self {
        Self::Metadata(error)
    }
}

impl Core {
    /// Makes a change on behalf of the caller; a refusal is the error that clients see.
    pub(crate) async fn change<A: Ask>(&self, command: A) -> Result<A::Done, Error> {
        Ok(self.propose(command).await??)
    }

    /// Proposes a change on behalf of the caller, and gives the log's answer to it.
    pub(crate) async fn propose<A: Ask>(
        &self,
        command: A,
    ) -> Result<Result<A::Done, Refusal>, Error> {
        about_the_change(self.judge_and_propose(command).await?)
    }

    /// Proposes a change that was judged already, by the policy of that number. It is not judged again if another policy
    /// is in force.
    pub(crate) async fn propose_judged_by<A: Ask>(
        &self,
        policy: Option<u64>,
        command: A,
    ) -> Result<Result<A::Done, Refusal>, Error> {
        let by = self.caller().map(|caller| caller.actor());
        let terms = Terms { by, policy, ..Terms::NONE };
        about_the_change(self.propose_on::<A>(terms, command.into()).await?)
    }

    /// Judges a change and proposes it; and again if the policy that judged it, or the repository that was looked at for
    /// that, has changed meanwhile. Says apart whether the change was proposed at all.
    pub(crate) async fn judge_and_propose<A: Ask>(
        &self,
        command: A,
    ) -> Result<Result<A::Done, Refusal>, NoAnswer> {
        let action = command.into();
        let Some(caller) = self.caller() else {
            return Ok(self.propose_on::<A>(Terms::NONE, action).await?);
        };
        let (mut policy_changes, mut repository_changes) = (0, 0);
        while policy_changes < POLICY_CHANGES_MAX && repository_changes < REPOSITORY_CHANGES_MAX {
            let terms = self.judge(caller, &action).await.map_err(NoAnswer::NotProposed)?;
            if terms.policy.is_none() {
                return Ok(self.propose_on::<A>(terms, action).await?);
            }
            // Only what was judged can come back to be judged again.
            match self.propose_on::<A>(terms, action.clone()).await? {
                Err(Refusal::PolicyChanged { .. }) => {
                    policy_changes += 1;
                    caller.refresh().await?;
                }
                Err(Refusal::RepositoryChanged) => repository_changes += 1,
                answer => return Ok(answer),
            }
        }
        let what = "the policy or the repository kept changing while the request ran";
        Err(NoAnswer::NotProposed(Error::Unavailable { what, source: None }))
    }

    /// Proposes an action on those terms, and takes the answer as one to a command of that kind.
    async fn propose_on<A: Ask>(
        &self,
        terms: Terms,
        action: Action,
    ) -> Result<Result<A::Done, Refusal>, MetadataError> {
        let command = Command { at: self.now(), origin: None, terms, action };
        answer_to::<A>(self.metadata(), command).await
    }
}

/// The log's answer about the change itself. That the proposal came twice, or that its proposer was replaced, says nothing
/// about the change, and is an error.
fn about_the_change<T>(answer: Result<T, Refusal>) -> Result<Result<T, Refusal>, Error> {
    match answer {
        Err(refusal @ (Refusal::Duplicate | Refusal::RetiredEpoch)) => Err(refusal.into()),
        answer => Ok(answer),
    }
}
