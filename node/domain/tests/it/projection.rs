//! What a consumer of events alone believes, to be compared with the rows.

use std::collections::{BTreeMap, BTreeSet};

use nora_domain::event::Event;
use nora_domain::record::{Key, Record};
use nora_domain::store::MemoryStore;
use nora_domain::{Digest, MediaType, RepositoryKey, TagName};

/// The repositories and their contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    repositories: BTreeSet<RepositoryKey>,
    links: BTreeMap<(RepositoryKey, Digest), u64>,
    artifacts: BTreeMap<(RepositoryKey, Digest), (MediaType, u64)>,
    tags: BTreeMap<(RepositoryKey, TagName), Digest>,
}

impl Projection {
    /// What the rows say.
    pub fn of(store: &MemoryStore) -> Self {
        let mut this = Self::default();
        for (key, record) in store.rows() {
            match (key.clone(), record) {
                (Key::Repository(repository), _) => {
                    this.repositories.insert(repository);
                }
                (Key::Link(digest, repository), Record::Link(link)) => {
                    this.links.insert((repository, digest), link.size);
                }
                (Key::Artifact(repository, digest), Record::Artifact(artifact)) => {
                    let told = (artifact.media_type.clone(), artifact.size);
                    this.artifacts.insert((repository, digest), told);
                }
                (Key::Tag(repository, tag), Record::Tag(record)) => {
                    this.tags.insert((repository, tag), record.digest);
                }
                _ => {}
            }
        }
        this
    }

    /// Takes in an event; false if it cannot follow what was told before.
    pub fn follow(&mut self, event: &Event) -> bool {
        match event.clone() {
            Event::RepositoryCreated { repository } => self.repositories.insert(repository),
            Event::RepositoryRemoved { repository } => self.repositories.remove(&repository),
            Event::BlobLinked { repository, digest, size } => {
                self.links.insert((repository, digest), size).is_none()
            }
            Event::BlobUnlinked { repository, digest } => {
                self.links.remove(&(repository, digest)).is_some()
            }
            Event::ArtifactPushed { repository, digest, media_type, size } => {
                self.artifacts.insert((repository, digest), (media_type, size)).is_none()
            }
            Event::ArtifactDeleted { repository, digest } => {
                self.artifacts.remove(&(repository, digest)).is_some()
            }
            Event::TagMoved { repository, tag, from, to } => {
                from != Some(to) && self.tags.insert((repository, tag), to) == from
            }
            Event::TagDeleted { repository, tag, digest } => {
                self.tags.remove(&(repository, tag)) == Some(digest)
            }
            // These say where to look; what is there is in the rows.
            Event::BlobPlaced { .. }
            | Event::NodeChanged { .. }
            | Event::IdentityChanged
            | Event::FeatureLevelRaised { .. } => true,
        }
    }
}

/// An event's kind, for counting.
pub fn kind(event: &Event) -> &'static str {
    match event {
        Event::RepositoryCreated { .. } => "RepositoryCreated",
        Event::RepositoryRemoved { .. } => "RepositoryRemoved",
        Event::BlobLinked { .. } => "BlobLinked",
        Event::BlobUnlinked { .. } => "BlobUnlinked",
        Event::ArtifactPushed { .. } => "ArtifactPushed",
        Event::ArtifactDeleted { .. } => "ArtifactDeleted",
        Event::TagMoved { .. } => "TagMoved",
        Event::TagDeleted { .. } => "TagDeleted",
        Event::BlobPlaced { .. } => "BlobPlaced",
        Event::NodeChanged { .. } => "NodeChanged",
        Event::IdentityChanged => "IdentityChanged",
        Event::FeatureLevelRaised { .. } => "FeatureLevelRaised",
    }
}

/// Every kind of event that tells of contents.
pub const KINDS: [&str; 8] = [
    "RepositoryCreated",
    "RepositoryRemoved",
    "BlobLinked",
    "BlobUnlinked",
    "ArtifactPushed",
    "ArtifactDeleted",
    "TagMoved",
    "TagDeleted",
];

/// Every kind of event that tells where to look.
pub const POINTERS: [&str; 4] =
    ["BlobPlaced", "NodeChanged", "IdentityChanged", "FeatureLevelRaised"];
