//! What a consumer of events alone believes, to be compared with the rows.

use std::collections::{BTreeMap, BTreeSet};

use nora_domain::{
    Digest, Event, FileName, Key, MediaType, MemoryStore, Record, RepositoryKey, TagName, Target,
    VersionName, VersionState,
};

/// The repositories and their contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    repositories: BTreeSet<RepositoryKey>,
    links: BTreeMap<(RepositoryKey, Digest), u64>,
    artifacts: BTreeMap<(RepositoryKey, Digest), (MediaType, u64)>,
    /// Without tombstones: readers of events see those as gone.
    versions: BTreeSet<(RepositoryKey, VersionName)>,
    files: BTreeMap<(RepositoryKey, VersionName, FileName), (Digest, u64)>,
    tags: BTreeMap<(RepositoryKey, TagName), Target>,
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
                (Key::Link(repository, digest), Record::Link(link)) => {
                    this.links.insert((repository, digest), link.size);
                }
                (Key::Artifact(repository, digest), Record::Artifact(artifact)) => {
                    let told = (artifact.media_type.clone(), artifact.size);
                    this.artifacts.insert((repository, digest), told);
                }
                (Key::Tag(repository, tag), Record::Tag(record)) => {
                    this.tags.insert((repository, tag), record.target.clone());
                }
                (Key::Version(repository, version), Record::Version(record))
                    if record.state != VersionState::Tombstone =>
                {
                    this.versions.insert((repository, version));
                }
                (Key::File(repository, version, file), Record::File(record)) => {
                    let told = (record.digest, record.size);
                    this.files.insert((repository, version, file), told);
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
                from.as_ref() != Some(&to) && self.tags.insert((repository, tag), to) == from
            }
            Event::TagDeleted { repository, tag, target } => {
                self.tags.remove(&(repository, tag)) == Some(target)
            }
            Event::VersionPublished { repository, version, created } => {
                self.versions.insert((repository, version)) == created
            }
            Event::VersionStateChanged { repository, version } => {
                self.versions.contains(&(repository, version))
            }
            Event::VersionDeleted { repository, version } => {
                // Its files go with it, and no event says so of each.
                self.files.retain(|(at, of, _), _| (at, of) != (&repository, &version));
                self.versions.remove(&(repository, version))
            }
            Event::FilePublished { repository, version, file, digest, size } => {
                self.files.insert((repository, version, file), (digest, size)).is_none()
            }
            Event::FileDeleted { repository, version, file } => {
                self.files.remove(&(repository, version, file)).is_some()
            }
            // These say where to look; what is there is in the rows.
            Event::BlobPlaced { .. }
            | Event::NodeChanged { .. }
            | Event::IdentityChanged
            | Event::FeatureLevelRaised { .. }
            | Event::ReplicasChanged { .. }
            | Event::JournalSealed { .. }
            | Event::JournalDropped { .. } => true,
        }
    }
}

/// An event's kind, for counting.
pub fn kind(event: &Event) -> &'static str {
    event.name()
}

/// Every kind of event that tells of contents.
pub const KINDS: [&str; 12] = [
    "repository_created",
    "repository_removed",
    "blob_linked",
    "blob_unlinked",
    "artifact_pushed",
    "artifact_deleted",
    "tag_moved",
    "tag_deleted",
    "version_published",
    "version_deleted",
    "file_published",
    "file_deleted",
];

/// Every kind of event that tells where to look.
pub const POINTERS: [&str; 8] = [
    "version_state_changed",
    "blob_placed",
    "node_changed",
    "identity_changed",
    "feature_level_raised",
    "replicas_changed",
    "journal_sealed",
    "journal_dropped",
];
