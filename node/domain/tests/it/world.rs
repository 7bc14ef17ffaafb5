//! A state to give commands to, and short names for commands, answers and events.

use nora_domain::{
    Action, Applied, ArtifactDeleted, ArtifactRecord, ArtifactStored, BlobCommitted, BlobRecord,
    Body, CloseUpload, Command, CommitBlob, DeleteArtifact, DeleteTag, Digest, Entry, Epoch, Event,
    Generation, Key, LinkRecord, MemoryStore, MountBlob, NodeId, OpenUpload, Outcome, PinBlob,
    Placement, PutArtifact, Record, Refusal, RepositoryRecord, SetTag, TagName, TagRecord, Target,
    TenantBlobRecord, Terms, Timestamp, UnlinkBlob, UploadId, UsageRecord, recount::recount,
};

use crate::projection::{POINTERS, kind};
use crate::universe::{digest, media_type, repository, row, run, start, tag};

pub const NODE: NodeId = NodeId(1);

/// A state that commands are given to, one after the other; command n is stamped n × 1000 unless a test says otherwise.
#[derive(Default)]
pub struct World {
    pub store: MemoryStore,
    pub position: u64,
    /// What the last command changed in repositories.
    pub events: Vec<Event>,
    /// Where else it said to look.
    pub pointers: Vec<Event>,
}

impl World {
    /// With node 1 started under epoch 1.
    pub fn new() -> Self {
        let mut world = Self::default();
        world.check(start(NODE), Ok(Outcome::StartNode(Epoch(1))));
        world
    }

    #[track_caller]
    pub fn answer(&mut self, at: u64, action: Action) -> Result<Outcome, Refusal> {
        let before = self.store.clone();
        self.position += 1;
        let command = Command { at: Timestamp(at), origin: None, terms: Terms::default(), action };
        let applied = run(&mut self.store, self.position, &command);
        assert_eq!(recount(&self.store), Vec::new(), "after {command:?}");
        if applied.answer.is_err() {
            assert_eq!((&before, applied.events.len()), (&self.store, 0), "{command:?}");
        }
        (self.pointers, self.events) =
            applied.events.into_iter().partition(|event| POINTERS.contains(&kind(event)));
        applied.answer
    }

    /// The one door: this action gets this answer.
    #[track_caller]
    pub fn check(&mut self, action: Action, expected: Result<Outcome, Refusal>) {
        let at = (self.position + 1) * 1000;
        assert_eq!(self.answer(at, action.clone()), expected, "{action:?}");
    }

    /// Accepted, whatever the outcome.
    #[track_caller]
    pub fn given(&mut self, actions: impl IntoIterator<Item = Action>) -> &mut Self {
        for action in actions {
            let at = (self.position + 1) * 1000;
            let answer = self.answer(at, action.clone());
            assert!(answer.is_ok(), "{action:?}: {answer:?}");
        }
        self
    }

    /// What comes of an action on these terms.
    #[track_caller]
    pub fn told(&mut self, terms: Terms, action: Action) -> Applied {
        self.position += 1;
        let at = Timestamp(self.position * 1_000);
        let applied =
            run(&mut self.store, self.position, &Command { at, origin: None, terms, action });
        assert_eq!(recount(&self.store), Vec::new());
        applied
    }

    #[track_caller]
    pub fn blob(&self, i: u8) -> BlobRecord {
        match row(&self.store, &Key::Blob(digest(i))) {
            Some(Record::Blob(blob)) => blob,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn artifact(&self, repo: u8, i: u8) -> ArtifactRecord {
        match row(&self.store, &Key::Artifact(repository(repo), digest(i))) {
            Some(Record::Artifact(artifact)) => artifact,
            other => panic!("{other:?}"),
        }
    }

    pub fn tag(&self, repo: u8, name: &str) -> Option<TagRecord> {
        match row(&self.store, &Key::Tag(repository(repo), tag(name))) {
            Some(Record::Tag(record)) => Some(record),
            _ => None,
        }
    }

    pub fn repository(&self, repo: u8) -> Option<RepositoryRecord> {
        match row(&self.store, &Key::Repository(repository(repo))) {
            Some(Record::Repository(record)) => Some(record),
            _ => None,
        }
    }

    pub fn usage(&self, repo: u8) -> Option<UsageRecord> {
        match row(&self.store, &Key::Usage(repository(repo).tenant)) {
            Some(Record::Usage(usage)) => Some(usage),
            _ => None,
        }
    }

    /// What a repository says of a blob that it shows.
    #[track_caller]
    pub fn link(&self, repo: u8, i: u8) -> LinkRecord {
        match row(&self.store, &Key::Link(repository(repo), digest(i))) {
            Some(Record::Link(link)) => link,
            other => panic!("{other:?}"),
        }
    }

    /// Until when a repository keeps a blob that nothing needs.
    #[track_caller]
    pub fn pinned(&self, repo: u8, i: u8) -> u64 {
        self.link(repo, i).pinned_until.0
    }

    /// What a repository's tenant does with a blob.
    #[track_caller]
    pub fn held(&self, repo: u8, i: u8) -> TenantBlobRecord {
        match row(&self.store, &Key::TenantBlob(repository(repo).tenant, digest(i))) {
            Some(Record::TenantBlob(held)) => held,
            other => panic!("{other:?}"),
        }
    }

    /// Entries of the journal that are in the state.
    pub fn entries(&self) -> Vec<(u64, Entry)> {
        let rows = self.store.rows().filter_map(|(key, record)| match (key, record) {
            (Key::Journal(number), Record::Journal(entry)) => Some((*number, entry.clone())),
            _ => None,
        });
        rows.collect()
    }

    pub fn has(&self, key: &Key) -> bool {
        row(&self.store, key).is_some()
    }
}

pub fn generation(epoch: u64, sequence: u64) -> Generation {
    Generation { epoch: Epoch(epoch), sequence }
}

/// Commits blob `i` of 100 bytes as its i-th copy, through upload session 1, pinned for 50000.
pub fn commit(repo: u8, i: u8) -> Action {
    commit_as(repo, i, 100, generation(1, u64::from(i)), 1, 50_000)
}

pub fn commit_as(
    repo: u8,
    i: u8,
    size: u64,
    generation: Generation,
    upload: u128,
    pin_millis: u64,
) -> Action {
    Action::CommitBlob(CommitBlob {
        repository: repository(repo),
        digest: digest(i),
        size,
        generation,
        node: NODE,
        chunk_root: [i; 32],
        upload: UploadId(upload),
        pin_millis,
        placement: Placement::Nodes(vec![NODE]),
    })
}

pub fn mount(from: u8, to: u8, i: u8) -> Action {
    Action::MountBlob(MountBlob {
        from: repository(from),
        to: repository(to),
        digest: digest(i),
        pin_millis: 60_000,
    })
}

pub fn pin(repo: u8, i: u8, pin_millis: u64) -> Action {
    Action::PinBlob(PinBlob { repository: repository(repo), digest: digest(i), pin_millis })
}

pub fn unlink(repo: u8, i: u8) -> Action {
    Action::UnlinkBlob(UnlinkBlob { repository: repository(repo), digest: digest(i) })
}

/// An artifact with an inline body of 10 bytes.
pub fn put(repo: u8, i: u8, blobs: &[u8], children: &[u8], tags: &[&str]) -> Action {
    Action::PutArtifact(PutArtifact {
        repository: repository(repo),
        digest: digest(i),
        media_type: media_type("type/one"),
        size: 10,
        body: Body::Inline(vec![i; 10].into()),
        subject: None,
        artifact_type: None,
        annotations: Default::default(),
        blobs: blobs.iter().copied().map(digest).collect(),
        children: children.iter().copied().map(digest).collect(),
        tags: tags.iter().map(|name| tag(name)).collect(),
    })
}

/// The same artifact, with some parts told otherwise.
pub fn put_with(
    mut action: Action,
    change: impl FnOnce(&mut Body, &mut u64, &mut Option<Digest>),
) -> Action {
    if let Action::PutArtifact(PutArtifact { body, size, subject, .. }) = &mut action {
        change(body, size, subject);
    }
    action
}

pub fn delete(repo: u8, i: u8) -> Action {
    Action::DeleteArtifact(DeleteArtifact { repository: repository(repo), digest: digest(i) })
}

pub fn delete_tag(repo: u8, name: &str) -> Action {
    Action::DeleteTag(DeleteTag { repository: repository(repo), tag: tag(name) })
}

pub fn set_tag(repo: u8, name: &str, target: Target) -> Action {
    Action::SetTag(SetTag { repository: repository(repo), tag: tag(name), target })
}

pub fn open(upload: u128, repo: u8, node: NodeId, lives_millis: u64) -> Action {
    Action::OpenUpload(OpenUpload {
        upload: UploadId(upload),
        repository: repository(repo),
        node,
        lives_millis,
        reserve: 0,
    })
}

pub fn close(upload: u128, repo: u8) -> Action {
    let tenant = repository(repo).tenant;
    Action::CloseUpload(CloseUpload { tenant, upload: UploadId(upload) })
}

pub fn opened(expires_at: u64) -> Result<Outcome, Refusal> {
    Ok(Outcome::OpenUpload(Timestamp(expires_at)))
}

/// An artifact is gone, with all its tags.
pub fn gone(tags: &[&str]) -> Result<Outcome, Refusal> {
    let tags: Vec<TagName> = tags.iter().map(|name| tag(name)).collect();
    Ok(Outcome::DeleteArtifact(ArtifactDeleted { tags, more: false }))
}

pub fn missing(blobs: &[u8], children: &[u8]) -> Result<Outcome, Refusal> {
    Err(Refusal::ReferencesMissing {
        blobs: blobs.iter().copied().map(digest).collect(),
        children: children.iter().copied().map(digest).collect(),
    })
}

pub fn committed(epoch: u64, sequence: u64) -> Result<Outcome, Refusal> {
    Ok(Outcome::CommitBlob(BlobCommitted { live: generation(epoch, sequence) }))
}

pub fn stored(created: bool) -> Result<Outcome, Refusal> {
    Ok(Outcome::PutArtifact(ArtifactStored { created }))
}

pub fn linked(repo: u8, i: u8) -> Event {
    Event::BlobLinked { repository: repository(repo), digest: digest(i), size: 100 }
}

pub fn unlinked(repo: u8, i: u8) -> Event {
    Event::BlobUnlinked { repository: repository(repo), digest: digest(i) }
}

pub fn pushed(repo: u8, i: u8) -> Event {
    Event::ArtifactPushed {
        repository: repository(repo),
        digest: digest(i),
        media_type: media_type("type/one"),
        size: 10,
    }
}

pub fn moved(repo: u8, name: &str, from: Option<u8>, to: u8) -> Event {
    Event::TagMoved {
        repository: repository(repo),
        tag: tag(name),
        from: from.map(artifact),
        to: artifact(to),
    }
}

/// What a tag names that names artifact `i`.
pub fn artifact(i: u8) -> Target {
    Target::Artifact(digest(i))
}

pub fn created(repo: u8) -> Event {
    Event::RepositoryCreated { repository: repository(repo) }
}

pub fn removed(repo: u8) -> Event {
    Event::RepositoryRemoved { repository: repository(repo) }
}
