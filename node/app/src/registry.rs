//! The registry: what every protocol surface talks to. Its use cases are in `commands` and `queries`.

use std::collections::{BTreeMap, BTreeSet};
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

/// How often a change is judged anew because the policy changed in between.
const JUDGED_MAX: usize = 4;

/// Tags that a deletion is judged by, at a time.
const TAGS_PAGE: usize = 512;

/// How often a deletion is judged anew because something came to the repository in between.
const UNCHANGED_MAX: usize = 32;

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

    /// The registry in nobody's hands: what it changes then is the cluster's own doing.
    pub(crate) fn by_itself(&self) -> Self {
        Self { shared: self.shared.clone(), caller: None }
    }

    /// Writes down that whoever acts was refused a change for a reason that no command is refused for.
    pub(crate) fn note_refusal(&self, action: &str, resource: &str, why: &str) {
        if let Some(caller) = &self.caller {
            caller.note_refusal(action, resource, why);
        }
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
        Self::told(self.propose_judged(action).await?)
    }

    /// Proposes a change that was judged already, under that policy; not again if another is in force.
    pub(crate) async fn propose_under(
        &self,
        policy: Option<u64>,
        action: Action,
    ) -> Result<Result<Outcome, Refusal>, Error> {
        if let Some(refusal) = self.too_early(&action).await? {
            return Ok(Err(refusal));
        }
        let by = self.caller.as_ref().map(|caller| caller.actor());
        let terms = Terms { by, policy, ..Terms::NONE };
        Self::told(self.metadata.propose(self.command(terms, action)).await?)
    }

    fn command(&self, terms: Terms, action: Action) -> Command {
        Command { at: self.now(), origin: None, terms, action }
    }

    fn told(answer: Result<Outcome, Refusal>) -> Result<Result<Outcome, Refusal>, Error> {
        match answer {
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

    /// Proposes a change on the terms of whoever acts, and again if the policy under which they were judged, or the
    /// repository that they spoke of, has changed meanwhile. What is judged anew may have another end than before.
    pub(crate) async fn propose_judged(
        &self,
        action: Action,
    ) -> Result<Result<Outcome, Refusal>, Unanswered> {
        if let Some(refusal) = self.too_early(&action).await? {
            return Ok(Err(refusal));
        }
        let Some(caller) = &self.caller else {
            return Ok(self.metadata.propose(self.command(Terms::NONE, action)).await?);
        };
        let (mut policies, mut repositories) = (0, 0);
        while policies < JUDGED_MAX && repositories < UNCHANGED_MAX {
            let terms =
                self.terms(caller.as_ref(), &action).await.map_err(Unanswered::Unproposed)?;
            if terms.policy.is_none() {
                return Ok(self.metadata.propose(self.command(terms, action)).await?);
            }
            // Only what was judged can come back to be judged again.
            match self.metadata.propose(self.command(terms, action.clone())).await? {
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

    /// Why a command cannot be proposed yet. A member that is older stops at a command that it does not know, rather than
    /// skip it. Commands from before the level that clusters began with need no look.
    async fn too_early(&self, action: &Action) -> Result<Option<Refusal>, MetadataError> {
        let needed = action.needs();
        if needed <= FeatureLevel::CLUSTER {
            return Ok(None);
        }
        let mut level = self.feature_level().await?;
        if level < needed {
            // This node may be behind.
            self.metadata.linearize().await?;
            level = self.feature_level().await?;
        }
        Ok((level < needed).then_some(Refusal::FeatureNotReached { level, needed }))
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
            action => {
                if !caller.still_stands().await? {
                    let (verb, about) = action.described().unwrap_or(("change", String::new()));
                    caller.note_refusal(verb, &about, "not permitted any more");
                    return Err(Error::NotPermitted);
                }
                return Ok(Terms { by, ..Terms::NONE });
            }
        };
        let change = match action {
            Action::DeleteTag { .. }
            | Action::DeleteArtifact { .. }
            | Action::UnlinkBlob { .. } => Change::Delete,
            _ => Change::Push,
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
        if let Action::MountBlob { from, .. } = action {
            let read = caller.judge(Change::Pull, from, &[]);
            is_permitted &= read.is_permitted;
            // What stayed with another tenant when the name went over is not theirs who have the name now.
            is_permitted &= read.owner.is_none_or(|owner| owner == from.tenant);
            // Two policies cannot both be in force: the older number makes that both are judged again.
            policy = policy.min(read.policy);
        }
        is_permitted = is_permitted && caller.still_stands().await?;
        if !is_permitted {
            let verb = if change == Change::Push { "artifact.push" } else { "artifact.delete" };
            caller.note_refusal(verb, &repository.to_string(), "not permitted any more");
            return Err(Error::NotPermitted);
        }
        let mut terms = Terms { by, policy, create_only, immutable, revision: None };
        match action {
            Action::DeleteTag { tag, .. } if terms.immutable.contains(tag) => {
                let resource = format!("{repository}:{tag}");
                caller.note_refusal("tag.delete", &resource, Refusal::TAG_IMMUTABLE);
                return Err(Error::TagImmutable(tag.clone()));
            }
            Action::DeleteArtifact { digest, .. } if has_immutable => {
                match self.kept_by(caller, repository, *digest).await? {
                    Ok(revision) => terms.revision = Some(revision),
                    Err(tag) => {
                        let resource = format!("{repository}@{digest}");
                        caller.note_refusal("artifact.delete", &resource, Refusal::TAG_IMMUTABLE);
                        return Err(Error::TagImmutable(tag));
                    }
                }
            }
            _ => {}
        }
        Ok(terms)
    }

    /// An immutable tag that needs an artifact, because it names it or names an index that lists it, at any depth; or
    /// else the revision of the repository in which there is none. Reads every immutable tag: deletions are rare.
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
        // What is known not to list the artifact.
        let mut seen = BTreeSet::new();
        let mut after = None;
        loop {
            let rows = Rows::Tags { repository: repository.clone(), after: after.take() };
            let page = self.metadata.scan(rows, TAGS_PAGE).await?;
            let is_last = page.len() < TAGS_PAGE;
            let mut named = BTreeMap::new();
            for (key, record) in page {
                if let (Key::Tag(_, tag), Record::Tag(record)) = (key, record) {
                    after = Some(tag.clone());
                    named.insert(tag, record.digest);
                }
            }
            let tags: Vec<_> = named.keys().cloned().collect();
            for tag in caller.judge(Change::Delete, repository, &tags).immutable {
                let Some(of) = named.get(&tag) else { continue };
                if self.lists(repository, *of, digest, &mut seen).await? {
                    return Ok(Err(tag));
                }
            }
            if is_last {
                return Ok(Ok(revision));
            }
        }
    }

    /// Whether an artifact is another, or lists it at any depth. `seen` are those that do not.
    async fn lists(
        &self,
        repository: &RepositoryKey,
        root: Digest,
        wanted: Digest,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<bool, Error> {
        let mut open = vec![root];
        while let Some(digest) = open.pop() {
            if digest == wanted {
                return Ok(true);
            }
            if !seen.insert(digest) {
                continue;
            }
            if let Some(Record::Artifact(artifact)) =
                self.row(Key::Artifact(repository.clone(), digest)).await?
            {
                open.extend(artifact.children);
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
