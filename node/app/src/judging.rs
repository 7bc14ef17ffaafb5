//! Judging a change under the policy in force: whether the caller may make it, and on which terms the log takes it.
//!
//! Guarantees: a caller whose rights or credential ended while the request ran is refused, and the refusal is noted. A
//! repository that changed hands meanwhile is not changed.
//!
//! Must not know: what a policy says; the caller's [judgement](crate::ports::policy::Judgement) tells.

use nora_domain::{
    About, Action, CommitBlob, Deed, DeleteArtifact, DeleteFile, DeleteTag, DeleteVersion,
    MountBlob, OpenUpload, PutArtifact, PutVersion, Reason, RepositoryKey, SetTag, SetVersionState,
    TagName, Terms, UnlinkBlob, Verb,
};

use crate::Error;
use crate::core::Core;
use crate::immutable::Needed;
use crate::ports::policy::{Caller, Change, Judgement};

/// What an action changes in a repository: what the policy judges.
struct Changed<'a> {
    change: Change,
    repository: &'a RepositoryKey,
    tags: &'a [TagName],
}

impl<'a> Changed<'a> {
    /// What an action changes; `None` if it changes no repository.
    fn by(action: &'a Action) -> Option<Self> {
        let mut tags: &[TagName] = &[];
        let (change, repository) = match action {
            Action::PutArtifact(PutArtifact { repository, tags: wanted, .. })
            | Action::PutVersion(PutVersion { repository, tags: wanted, .. }) => {
                tags = wanted;
                (Change::Push, repository)
            }
            Action::SetTag(SetTag { repository, tag, .. }) => {
                tags = std::slice::from_ref(tag);
                (Change::Push, repository)
            }
            Action::DeleteTag(DeleteTag { repository, tag }) => {
                tags = std::slice::from_ref(tag);
                (Change::Delete, repository)
            }
            Action::CommitBlob(CommitBlob { repository, .. })
            | Action::OpenUpload(OpenUpload { repository, .. })
            | Action::SetVersionState(SetVersionState { repository, .. })
            | Action::MountBlob(MountBlob { to: repository, .. }) => (Change::Push, repository),
            Action::UnlinkBlob(UnlinkBlob { repository, .. })
            | Action::DeleteVersion(DeleteVersion { repository, .. })
            | Action::DeleteFile(DeleteFile { repository, .. })
            | Action::DeleteArtifact(DeleteArtifact { repository, .. }) => {
                (Change::Delete, repository)
            }
            _ => return None,
        };
        Some(Self { change, repository, tags })
    }

    /// How the policy judges the action. An error if the repository belongs to another tenant by now.
    fn judgement(&self, caller: &dyn Caller, action: &Action) -> Result<Judgement, Error> {
        let mut judgement = caller.judge(self.change, self.repository, self.tags);
        if judgement.owner.as_ref().is_some_and(|owner| *owner != self.repository.tenant) {
            let what = "the repository's owner changed while the request ran";
            return Err(Error::Unavailable { what, source: None });
        }
        if let Action::MountBlob(MountBlob { from, .. }) = action {
            let read = caller.judge(Change::Pull, from, &[]);
            // Content pushed before the namespace changed hands still belongs to the old tenant; the new owner may not
            // mount it.
            let belongs = read.owner.is_none_or(|owner| owner == from.tenant);
            judgement.is_permitted &= read.is_permitted && belongs;
            // Two policies cannot both be in force: the older number makes that both are judged again.
            judgement.policy = judgement.policy.min(read.policy);
        }
        Ok(judgement)
    }

    /// What the caller did, in the words of the journal.
    fn deed(&self, action: &Action) -> Deed {
        let verb = match self.change {
            Change::Delete => Verb::ArtifactDelete,
            Change::Push | Change::Pull => Verb::ArtifactPush,
        };
        let about = || About::Repository(self.repository.clone());
        action.deed().unwrap_or_else(|| Deed::new(verb, about()))
    }
}

impl Core {
    /// Judges an action now. Gives the terms on which it is proposed, or the error that refuses it.
    pub(crate) async fn judge(&self, caller: &dyn Caller, action: &Action) -> Result<Terms, Error> {
        let by = Some(caller.actor());
        let Some(changed) = Changed::by(action) else {
            if !caller.still_stands().await? {
                let deed = action.deed().unwrap_or(Deed::new(Verb::Several, About::Registry));
                caller.note_refusal(deed, Reason::NotPermittedAnyMore);
                return Err(Error::NotPermitted);
            }
            return Ok(Terms { by, ..Terms::NONE });
        };
        let judgement = changed.judgement(caller, action)?;
        if !judgement.is_permitted || !caller.still_stands().await? {
            caller.note_refusal(changed.deed(action), Reason::NotPermittedAnyMore);
            return Err(Error::NotPermitted);
        }
        let revision = match self.immutable_tag_against(caller, action, &judgement).await? {
            Needed::By(tag) => {
                if let Some(deed) = action.deed() {
                    caller.note_refusal(deed, Reason::TagImmutable);
                }
                return Err(Error::TagImmutable(tag));
            }
            Needed::ByNone { revision } => revision,
        };
        let Judgement { policy, create_only, immutable, .. } = judgement;
        Ok(Terms { by, policy, create_only, immutable, revision })
    }
}
