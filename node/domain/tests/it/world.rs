//! A state to give commands to, and short names for commands, answers and events.

use nora_domain::Digest;
use nora_domain::audit::audit;
use nora_domain::command::{Action, Command, Outcome, Refusal, Terms};
use nora_domain::event::Event;
use nora_domain::record::{
    ArtifactRecord, BlobRecord, Body, Epoch, Generation, Key, NodeId, PinRecord, Placement, Record,
    RepositoryRecord, TagRecord, Timestamp, UploadId, UsageRecord,
};
use nora_domain::store::MemoryStore;

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
        world.check(start(NODE), Ok(Outcome::NodeStarted(Epoch(1))));
        world
    }

    #[track_caller]
    pub fn answer(&mut self, at: u64, action: Action) -> Result<Outcome, Refusal> {
        let before = self.store.clone();
        self.position += 1;
        let command = Command { at: Timestamp(at), origin: None, terms: Terms::default(), action };
        let applied = run(&mut self.store, self.position, &command);
        assert_eq!(audit(self.store.rows()), Vec::new(), "after {command:?}");
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

    /// (pin, expiry) of a blob.
    pub fn pins(&self, blob: u8) -> Vec<(u128, u64)> {
        let rows = self.store.rows().filter_map(|(key, record)| match (key, record) {
            (Key::Pin(of, id), Record::Pin(PinRecord { expires_at })) if *of == digest(blob) => {
                Some((id.0, expires_at.0))
            }
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

/// Commits blob `i` of 100 bytes as its i-th copy, through upload session 1, pinned until 50000.
pub fn commit(repo: u8, i: u8) -> Action {
    commit_as(repo, i, 100, generation(1, u64::from(i)), 1, 50_000)
}

pub fn commit_as(
    repo: u8,
    i: u8,
    size: u64,
    generation: Generation,
    upload: u128,
    pinned_until: u64,
) -> Action {
    Action::CommitBlob {
        repository: repository(repo),
        digest: digest(i),
        size,
        generation,
        node: NODE,
        chunk_root: [i; 32],
        upload: UploadId(upload),
        pinned_until: Timestamp(pinned_until),
        placement: Placement::Nodes(vec![NODE]),
    }
}

pub fn mount(from: u8, to: u8, i: u8) -> Action {
    Action::MountBlob {
        from: repository(from),
        to: repository(to),
        digest: digest(i),
        pin: UploadId(2),
        pinned_until: Timestamp(60_000),
    }
}

pub fn pin(repo: u8, i: u8, id: u128, pinned_until: u64) -> Action {
    Action::PinBlob {
        repository: repository(repo),
        digest: digest(i),
        pin: UploadId(id),
        pinned_until: Timestamp(pinned_until),
    }
}

pub fn unlink(repo: u8, i: u8) -> Action {
    Action::UnlinkBlob { repository: repository(repo), digest: digest(i) }
}

/// An artifact with an inline body of 10 bytes.
pub fn put(repo: u8, i: u8, blobs: &[u8], children: &[u8], tags: &[&str]) -> Action {
    Action::PutArtifact {
        repository: repository(repo),
        digest: digest(i),
        media_type: media_type("type/one"),
        size: 10,
        body: Body::Inline(vec![i; 10]),
        subject: None,
        artifact_type: None,
        blobs: blobs.iter().copied().map(digest).collect(),
        children: children.iter().copied().map(digest).collect(),
        tags: tags.iter().map(|name| tag(name)).collect(),
    }
}

/// The same artifact, with some parts told otherwise.
pub fn put_with(
    mut action: Action,
    change: impl FnOnce(&mut Body, &mut u64, &mut Option<Digest>),
) -> Action {
    if let Action::PutArtifact { body, size, subject, .. } = &mut action {
        change(body, size, subject);
    }
    action
}

pub fn delete(repo: u8, i: u8) -> Action {
    Action::DeleteArtifact { repository: repository(repo), digest: digest(i) }
}

pub fn delete_tag(repo: u8, name: &str) -> Action {
    Action::DeleteTag { repository: repository(repo), tag: tag(name) }
}

pub fn open(upload: u128, repo: u8, node: NodeId, expires_at: u64) -> Action {
    Action::OpenUpload {
        upload: UploadId(upload),
        repository: repository(repo),
        node,
        expires_at: Timestamp(expires_at),
        reserve: 0,
    }
}

pub fn missing(blobs: &[u8], children: &[u8]) -> Result<Outcome, Refusal> {
    Err(Refusal::ReferencesMissing {
        blobs: blobs.iter().copied().map(digest).collect(),
        children: children.iter().copied().map(digest).collect(),
    })
}

pub fn committed(epoch: u64, sequence: u64) -> Result<Outcome, Refusal> {
    Ok(Outcome::BlobCommitted { live: generation(epoch, sequence) })
}

pub fn stored(created: bool) -> Result<Outcome, Refusal> {
    Ok(Outcome::ArtifactStored { created })
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
        from: from.map(digest),
        to: digest(to),
    }
}

pub fn created(repo: u8) -> Event {
    Event::RepositoryCreated { repository: repository(repo) }
}

pub fn removed(repo: u8) -> Event {
    Event::RepositoryRemoved { repository: repository(repo) }
}
