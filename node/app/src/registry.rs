//! The registry: what every protocol surface talks to. Its use cases are in `commands` and `queries`.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nora_domain::{
    About, Action, Ask, Command, CommitBlob, Deed, DeleteArtifact, DeleteFile, DeleteTag,
    DeleteVersion, Digest, Epoch, Format, Generation, Key, MountBlob, NodeId, OpenUpload,
    Placement, PutArtifact, PutVersion, Reason, Record, Refusal, RepositoryKey, RepositoryPath,
    Rows, SetTag, SetVersionState, TagName, Target, Terms, Timestamp, UnlinkBlob, Verb,
};

use crate::Error;
use crate::ports::blobs::Blobs;
use crate::ports::clock::{Clock, Ids};
use crate::ports::journal::Segments;
use crate::ports::metadata::{Metadata, MetadataError, answer_to};
use crate::ports::policy::{Caller, Change, Judgement, Tenancy};
use crate::ports::uploads::{Finish, Sessions};
use crate::pulls::Pulls;
use crate::queries::ReadSegment;

/// Limits and times that use cases keep.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An artifact's own bytes.
    pub artifact_bytes_max: usize,
    /// Blobs and children that one artifact may reference.
    pub references_max: usize,
    /// How long a pushed, mounted or confirmed blob is kept with no artifact referencing it, in milliseconds.
    pub pin_millis: u64,
    /// How long an upload session is kept after its last byte, in milliseconds.
    pub upload_expiry_millis: u64,
}

/// A blob that a repository shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The copy to read.
    pub generation: Generation,
}

/// What a registry stands on.
pub struct Dependencies {
    /// The replicated state.
    pub metadata: Arc<dyn Metadata>,
    /// Blobs at rest.
    pub blobs: Arc<dyn Blobs>,
    /// Blobs on their way in.
    pub uploads: Arc<dyn Sessions>,
    /// What makes blobs of them.
    pub finish: Arc<dyn Finish>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random names.
    pub ids: Arc<dyn Ids>,
    /// Who owns names.
    pub tenancy: Arc<dyn Tenancy>,
    /// How sealed parts of the journal are written down.
    pub segments: Arc<dyn Segments>,
    /// This node.
    pub node: NodeId,
    /// This start of it, as the log gave it.
    pub epoch: Epoch,
    /// Limits and times.
    pub settings: Settings,
}

/// The registry of one node, on behalf of one caller: a cheap handle.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    /// Who acts; the cluster itself if there is none.
    caller: Option<Arc<dyn Caller>>,
}

/// What handles of one registry share.
pub struct Shared {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) uploads: Arc<dyn Sessions>,
    pub(crate) finish: Arc<dyn Finish>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) tenancy: Arc<dyn Tenancy>,
    pub(crate) segments: Arc<dyn Segments>,
    pub(crate) pulls: Pulls,
    /// The sealed part of the journal that was read last.
    pub(crate) segment: Mutex<Option<ReadSegment>>,
    pub(crate) node: NodeId,
    pub(crate) settings: Settings,
    epoch: Epoch,
    sequence: AtomicU64,
}

impl Deref for Registry {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// Why a change has no answer from the log.
pub(crate) enum Unanswered {
    /// It was not proposed: judging it, or reading what that takes, went wrong.
    Unproposed(Error),
    /// The metadata gave no answer.
    Metadata(MetadataError),
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unproposed(error) => error,
            Unanswered::Metadata(error) => error.into(),
        }
    }
}

impl From<MetadataError> for Unanswered {
    fn from(error: MetadataError) -> Self {
        Self::Metadata(error)
    }
}

/// How often a change is judged anew because the policy changed in between.
const JUDGED_MAX: usize = 4;

/// Rows that a deletion is judged by, at a time.
const PAGE_ROWS: usize = 512;

/// How often a deletion is judged anew because something came to the repository in between.
const UNCHANGED_MAX: usize = 32;

/// What an action changes in a repository: how the policy judges it.
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
}

/// An answer about the change itself. That the proposal came twice, or that its proposer was replaced, is an error.
fn about_the_change<T>(answer: Result<T, Refusal>) -> Result<Result<T, Refusal>, Error> {
    match answer {
        Err(refusal @ (Refusal::Duplicate | Refusal::RetiredEpoch)) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

impl Registry {
    /// A registry over these ports.
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies {
            metadata,
            blobs,
            uploads,
            finish,
            clock,
            ids,
            tenancy,
            segments,
            node,
            epoch,
            settings,
        } = dependencies;
        let shared = Shared {
            metadata,
            blobs,
            uploads,
            finish,
            clock,
            ids,
            tenancy,
            segments,
            pulls: Pulls::default(),
            segment: Mutex::default(),
            node,
            settings,
            epoch,
            sequence: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), caller: None }
    }

    /// The registry without a caller: what it changes then is the cluster's own doing.
    pub(crate) fn by_itself(&self) -> Self {
        Self { shared: self.shared.clone(), caller: None }
    }

    /// Notes that the caller was refused a change for a reason that no command is refused for.
    pub(crate) fn note_refusal(&self, deed: Deed, why: Reason) {
        if let Some(caller) = &self.caller {
            caller.note_refusal(deed, why);
        }
    }

    /// The registry on behalf of `caller`: what it changes is judged by the policy and noted as theirs.
    pub fn by(&self, caller: Arc<dyn Caller>) -> Self {
        Self { shared: self.shared.clone(), caller: Some(caller) }
    }

    /// The repository of that name, under the tenant that owns it. Who owns a name is read from the policy here and
    /// nowhere else.
    pub fn repository(&self, format: Format, path: RepositoryPath) -> RepositoryKey {
        RepositoryKey { tenant: self.tenancy.owner(format, &path), format, path }
    }

    /// The limits and times it keeps.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A generation that was never used before: the epoch is this start's own, the sequence counts within it.
    pub(crate) fn next_generation(&self) -> Generation {
        Generation { epoch: self.epoch, sequence: self.sequence.fetch_add(1, Ordering::Relaxed) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Asks for a change on behalf of the caller, and gives the log's answer to exactly that kind of command. Refusals
    /// that are about the proposer and not about the change are errors.
    pub(crate) async fn propose<A: Ask>(
        &self,
        command: A,
    ) -> Result<Result<A::Done, Refusal>, Error> {
        about_the_change(self.propose_judged(command).await?)
    }

    /// Asks for a change on behalf of the caller; a refusal is the error that clients see.
    pub(crate) async fn change<A: Ask>(&self, command: A) -> Result<A::Done, Error> {
        Ok(self.propose(command).await??)
    }

    /// Asks for a change that was judged already, under that policy; not again if another is in force.
    pub(crate) async fn propose_under<A: Ask>(
        &self,
        policy: Option<u64>,
        command: A,
    ) -> Result<Result<A::Done, Refusal>, Error> {
        let by = self.caller.as_ref().map(|caller| caller.actor());
        let terms = Terms { by, policy, ..Terms::NONE };
        about_the_change(self.answer::<A>(terms, command.into()).await?)
    }

    /// Proposes an action and takes its answer as one to a command of that kind.
    async fn answer<A: Ask>(
        &self,
        terms: Terms,
        action: Action,
    ) -> Result<Result<A::Done, Refusal>, MetadataError> {
        let command = Command { at: self.now(), origin: None, terms, action };
        answer_to::<A>(self.metadata.as_ref(), command).await
    }

    /// Asks for a change on the caller's terms, and again if the policy under which they were judged, or the repository
    /// that they spoke of, has changed meanwhile. What is judged anew may have another end than before.
    pub(crate) async fn propose_judged<A: Ask>(
        &self,
        command: A,
    ) -> Result<Result<A::Done, Refusal>, Unanswered> {
        let action = command.into();
        let Some(caller) = &self.caller else {
            return Ok(self.answer::<A>(Terms::NONE, action).await?);
        };
        let (mut policies, mut repositories) = (0, 0);
        while policies < JUDGED_MAX && repositories < UNCHANGED_MAX {
            let terms =
                self.terms(caller.as_ref(), &action).await.map_err(Unanswered::Unproposed)?;
            if terms.policy.is_none() {
                return Ok(self.answer::<A>(terms, action).await?);
            }
            // Only what was judged can come back to be judged again.
            match self.answer::<A>(terms, action.clone()).await? {
                Err(Refusal::PolicyChanged { .. }) => {
                    policies += 1;
                    caller.refresh().await?;
                }
                Err(Refusal::RepositoryChanged) => repositories += 1,
                answer => return Ok(answer),
            }
        }
        let what = "the policy or the repository kept changing while the request ran";
        Err(Unanswered::Unproposed(Error::Unavailable { what, source: None }))
    }

    /// The terms on which a change is proposed.
    async fn terms(&self, caller: &dyn Caller, action: &Action) -> Result<Terms, Error> {
        let by = Some(caller.actor());
        let Some(Changed { change, repository, tags }) = Changed::by(action) else {
            if !caller.still_stands().await? {
                let deed = action.deed().unwrap_or(Deed::new(Verb::Several, About::Registry));
                caller.note_refusal(deed, Reason::NotPermittedAnyMore);
                return Err(Error::NotPermitted);
            }
            return Ok(Terms { by, ..Terms::NONE });
        };
        let Judgement {
            mut policy,
            owner,
            create_only,
            immutable,
            has_immutable,
            mut is_permitted,
        } = caller.judge(change, repository, tags);
        if owner.is_some_and(|owner| owner != repository.tenant) {
            let what = "the repository's owner changed while the request ran";
            return Err(Error::Unavailable { what, source: None });
        }
        if let Action::MountBlob(MountBlob { from, .. }) = action {
            let read = caller.judge(Change::Pull, from, &[]);
            is_permitted &= read.is_permitted;
            // Content pushed before the namespace changed hands still belongs to the old tenant; the new owner may not
            // mount it.
            is_permitted &= read.owner.is_none_or(|owner| owner == from.tenant);
            // Two policies cannot both be in force: the older number makes that both are judged again.
            policy = policy.min(read.policy);
        }
        is_permitted = is_permitted && caller.still_stands().await?;
        if !is_permitted {
            let verb = match change {
                Change::Delete => Verb::ArtifactDelete,
                Change::Push | Change::Pull => Verb::ArtifactPush,
            };
            let deed =
                action.deed().unwrap_or(Deed::new(verb, About::Repository(repository.clone())));
            caller.note_refusal(deed, Reason::NotPermittedAnyMore);
            return Err(Error::NotPermitted);
        }
        let mut terms = Terms { by, policy, create_only, immutable, revision: None };
        let immutable_tag = match action {
            Action::DeleteTag(DeleteTag { tag, .. }) if terms.immutable.contains(tag) => {
                Some(tag.clone())
            }
            Action::DeleteArtifact(DeleteArtifact { digest, .. }) if has_immutable => {
                match self.kept_by(caller, repository, *digest).await? {
                    Ok(revision) => {
                        terms.revision = Some(revision);
                        None
                    }
                    Err(tag) => Some(tag),
                }
            }
            _ => None,
        };
        if let Some(tag) = immutable_tag {
            if let Some(deed) = action.deed() {
                caller.note_refusal(deed, Reason::TagImmutable);
            }
            return Err(Error::TagImmutable(tag));
        }
        Ok(terms)
    }

    /// An immutable tag that needs an artifact, because it names it or names an index that lists it, at any depth; or
    /// else the revision of the repository in which there is none. Walks up from the artifact to the indexes that list
    /// it, so its cost grows with those and their tags, not with the repository.
    async fn kept_by(
        &self,
        caller: &dyn Caller,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Result<u64, TagName>, Error> {
        self.metadata.linearize().await?;
        // Read first: whatever comes while the rest is read makes another revision.
        let revision = match self.row(Key::Repository(repository.clone())).await? {
            Some(Record::Repository(record)) => record.revision,
            _ => 0,
        };
        let mut seen = BTreeSet::from([digest]);
        let mut open = vec![digest];
        while let Some(artifact) = open.pop() {
            if let Some(tag) = self.immutable_tag_of(caller, repository, artifact).await? {
                return Ok(Err(tag));
            }
            let mut after = None;
            loop {
                let rows = Rows::Parents {
                    repository: repository.clone(),
                    child: artifact,
                    after: after.take(),
                };
                let page = self.metadata.scan(rows, PAGE_ROWS).await?;
                let is_last = page.len() < PAGE_ROWS;
                for (key, _) in page {
                    if let Key::ParentOf(_, _, index) = key {
                        after = Some(index);
                        if seen.insert(index) {
                            open.push(index);
                        }
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(Ok(revision))
    }

    /// One of the tags that name an artifact and that the policy keeps as they are.
    async fn immutable_tag_of(
        &self,
        caller: &dyn Caller,
        repository: &RepositoryKey,
        artifact: Digest,
    ) -> Result<Option<TagName>, Error> {
        let mut after = None;
        loop {
            let rows = Rows::TagsOf {
                repository: repository.clone(),
                target: Target::Artifact(artifact),
                after: after.take(),
            };
            let page = self.metadata.scan(rows, PAGE_ROWS).await?;
            let is_last = page.len() < PAGE_ROWS;
            let tags: Vec<TagName> = page
                .into_iter()
                .filter_map(|(key, _)| match key {
                    Key::TagOf(_, _, tag) => Some(tag),
                    _ => None,
                })
                .collect();
            let immutable = caller.judge(Change::Delete, repository, &tags).immutable;
            if let Some(tag) = immutable.into_iter().next() {
                return Ok(Some(tag));
            }
            if is_last {
                return Ok(None);
            }
            after = tags.last().cloned();
        }
    }

    /// Whether a copy is on a node that takes part, or in the object store.
    pub(crate) async fn has_serving_copy(&self, placement: &Placement) -> Result<bool, Error> {
        let Placement::Nodes(holders) = placement else { return Ok(true) };
        for holder in holders {
            match self.row(Key::Node(*holder)).await? {
                Some(Record::Node(node)) if node.standing.serves() => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Reads a row from this node's applied state.
    pub(crate) async fn row(&self, key: Key) -> Result<Option<Record>, MetadataError> {
        self.metadata.get(key).await
    }

    /// The error of a stored row that is not of its key's kind.
    pub(crate) fn wrong_record(record: &Record) -> Error {
        Error::Internal {
            what: "a metadata row has the wrong kind",
            source: Some(format!("{record:?}").into()),
        }
    }
}
