//! The registry: what every protocol surface talks to. Its use cases are in `commands` and `queries`.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nora_domain::command::{Action, Command, Outcome, Refusal, Terms};
use nora_domain::record::{Epoch, FeatureLevel, Generation, Key, NodeId, Record, Timestamp};
use nora_domain::store::Rows;
use nora_domain::{Digest, Format, RepositoryKey, RepositoryPath, TagName};

use crate::Error;
use crate::ports::blobs::Blobs;
use crate::ports::clock::{Clock, Ids};
use crate::ports::metadata::{Metadata, MetadataError};
use crate::ports::policy::{Caller, Change, Judgement, Tenancy};
use crate::ports::uploads::Uploads;

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
    pub uploads: Arc<dyn Uploads>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random names.
    pub ids: Arc<dyn Ids>,
    /// Who owns names.
    pub tenancy: Arc<dyn Tenancy>,
    /// This node.
    pub node: NodeId,
    /// This start of it, as the log gave it.
    pub epoch: Epoch,
    /// Limits and times.
    pub settings: Settings,
}

/// The registry of one node, in the hands of whoever acts: a cheap handle.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    /// Who acts; nobody but the cluster itself if there is none.
    caller: Option<Arc<dyn Caller>>,
}

/// What handles of one registry share.
pub struct Shared {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) uploads: Arc<dyn Uploads>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) tenancy: Arc<dyn Tenancy>,
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

/// How often a change is judged anew because the policy changed, or a tag came, in between.
const JUDGED_MAX: usize = 4;

/// Tags of one artifact that a deletion is judged by. One that has more is deleted where no tag is immutable.
const TAGS_JUDGED_MAX: usize = 10_000;

impl Registry {
    /// A registry over these ports.
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies { metadata, blobs, uploads, clock, ids, tenancy, node, epoch, settings } =
            dependencies;
        let shared = Shared {
            metadata,
            blobs,
            uploads,
            clock,
            ids,
            tenancy,
            node,
            settings,
            epoch,
            sequence: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), caller: None }
    }

    /// The registry in the hands of `caller`: what it changes is judged by the policy and noted as theirs.
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

    /// Proposes a change. The metadata stamps its own origin and the leader's time onto the command; refusals that speak
    /// of the proposer and not of the change are errors.
    pub(crate) async fn propose(&self, action: Action) -> Result<Result<Outcome, Refusal>, Error> {
        match self.propose_judged(action).await? {
            Err(Refusal::Duplicate) => Err(Error::OutcomeUnknown),
            Err(Refusal::RetiredEpoch) => Err(Error::retired()),
            Err(Refusal::TagExists(tag)) => Err(Error::TagExists(tag)),
            Err(Refusal::TagImmutable(tag)) => Err(Error::TagImmutable(tag)),
            Err(Refusal::QuotaExceeded { quota, limit, used, asked }) => {
                Err(Error::QuotaExceeded { quota, limit, used, asked })
            }
            answer => Ok(answer),
        }
    }

    /// Proposes a change on the terms of whoever acts, and again if the policy under which they were judged, or the tags
    /// that they spoke of, have changed meanwhile. What is judged anew may have another end than before.
    pub(crate) async fn propose_judged(
        &self,
        action: Action,
    ) -> Result<Result<Outcome, Refusal>, Unanswered> {
        // A member that is older stops at a command that it does not know, rather than skip it. Commands from before this
        // level need no look: whoever proposes runs in a cluster that has it.
        let needed = action.needs();
        if needed > FeatureLevel::CLUSTER {
            let mut level = self.feature_level().await?;
            if level < needed {
                // This node may be behind.
                self.metadata.linearize().await?;
                level = self.feature_level().await?;
            }
            if level < needed {
                return Ok(Err(Refusal::FeatureNotReached { level, needed }));
            }
        }
        let Some(caller) = &self.caller else {
            let command = Command { at: self.now(), origin: None, terms: Terms::NONE, action };
            return Ok(self.metadata.propose(command).await?);
        };
        for _ in 0..JUDGED_MAX {
            let terms =
                self.terms(caller.as_ref(), &action).await.map_err(Unanswered::Unproposed)?;
            if terms.policy.is_none() {
                let command = Command { at: self.now(), origin: None, terms, action };
                return Ok(self.metadata.propose(command).await?);
            }
            // Only what was judged can come back to be judged again.
            let command = Command { at: self.now(), origin: None, terms, action: action.clone() };
            match self.metadata.propose(command).await? {
                Err(Refusal::PolicyChanged { .. }) => caller.refresh().await?,
                Err(Refusal::TagUnforeseen(_)) => {}
                answer => return Ok(answer),
            }
        }
        let what = "the policy changed while the request ran";
        Err(Unanswered::Unproposed(Error::Unavailable { what, source: None }))
    }

    async fn feature_level(&self) -> Result<FeatureLevel, MetadataError> {
        match self.metadata.get(Key::Cluster).await? {
            Some(Record::Cluster(cluster)) => Ok(cluster.feature_level),
            _ => Ok(FeatureLevel::default()),
        }
    }

    /// The terms on which a change is proposed.
    async fn terms(&self, caller: &dyn Caller, action: &Action) -> Result<Terms, Error> {
        let by = Some(caller.actor());
        let mut tags: &[TagName] = &[];
        let repository = match action {
            Action::PutArtifact { repository, tags: wanted, .. } => {
                tags = wanted;
                repository
            }
            Action::DeleteTag { repository, tag } => {
                tags = std::slice::from_ref(tag);
                repository
            }
            Action::CommitBlob { repository, .. }
            | Action::OpenUpload { repository, .. }
            | Action::MountBlob { to: repository, .. }
            | Action::UnlinkBlob { repository, .. }
            | Action::DeleteArtifact { repository, .. } => repository,
            _ => return Ok(Terms { by, ..Terms::NONE }),
        };
        if self.tenancy.owner(repository.format, &repository.path) != repository.tenant {
            let what = "the repository's owner changed while the request ran";
            return Err(Error::Unavailable { what, source: None });
        }
        let change = match action {
            Action::DeleteTag { .. }
            | Action::DeleteArtifact { .. }
            | Action::UnlinkBlob { .. } => Change::Delete,
            _ => Change::Push,
        };
        let Judgement { policy, create_only, immutable, has_immutable, is_permitted } =
            caller.judge(change, repository, tags);
        if !is_permitted {
            let verb = if change == Change::Push { "artifact.push" } else { "artifact.delete" };
            caller.note_refusal(verb, &repository.to_string(), "not permitted any more");
            return Err(Error::NotPermitted);
        }
        let mut terms = Terms { by, policy, create_only, immutable, takes_along: None };
        match action {
            Action::DeleteTag { tag, .. } if terms.immutable.contains(tag) => {
                let resource = format!("{repository}:{tag}");
                caller.note_refusal("tag.delete", &resource, Refusal::TAG_IMMUTABLE);
                return Err(Error::TagImmutable(tag.clone()));
            }
            Action::DeleteArtifact { digest, .. } if has_immutable => {
                let tags = self.tags_of(repository, *digest).await?;
                let kept = caller.judge(change, repository, &tags).immutable;
                if let Some(tag) = kept.into_iter().next() {
                    let resource = format!("{repository}@{digest}");
                    caller.note_refusal("artifact.delete", &resource, Refusal::TAG_IMMUTABLE);
                    return Err(Error::TagImmutable(tag));
                }
                terms.takes_along = Some(tags);
            }
            _ => {}
        }
        Ok(terms)
    }

    /// Every tag that names an artifact, sorted.
    async fn tags_of(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Vec<TagName>, Error> {
        self.metadata.linearize().await?;
        let rows = Rows::TagsOf { repository: repository.clone(), digest, after: None };
        let rows = self.metadata.scan(rows, TAGS_JUDGED_MAX).await?;
        let tags = rows.into_iter().filter_map(|(key, _)| match key {
            Key::TagOf(_, _, tag) => Some(tag),
            _ => None,
        });
        Ok(tags.collect())
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
