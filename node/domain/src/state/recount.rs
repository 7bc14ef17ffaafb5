//! A recount: checks every row of the replicated state against every other.
//!
//! [`Recount`] reads each row once, in any order, and then says which invariant of the transition does not hold, in words
//! for an operator. It computes counters anew and never trusts one. An empty list means: what each artifact, version and
//! file needs is live and linked; edges, parents, referrers and reverse tags mirror what they are derived from; tags name
//! things that are there; holders are nodes that there are; each running start has its session and no other has one;
//! every counter is exact; tokens are found by their names; refresh tokens are of present passwords; the journal's chain is whole; and no row is from the future.
//!
//! Its memory grows with the number of rows (not with artifacts' bodies): it is for a self-check and for tests, not for
//! a request. Must not know how rows are stored, and shares no code with the transition that it checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Head, Key, MemoryStore, Record, Store};
use crate::artifact::{ArtifactRecord, Body};
use crate::blob::{BlobRecord, Holder, LinkRecord, Placement, TenantBlobRecord};
use crate::cluster::ClusterRecord;
use crate::digest::Digest;
use crate::ids::{Epoch, NodeId, TokenId};
use crate::journal::{Entry, SegmentRecord, Subject, system_repository};
use crate::names::{
    AccountName, FileName, MediaType, OwnerName, RepositoryKey, TagName, TenantName, TokenName,
    VersionName,
};
use crate::node::{NodeRecord, Standing};
use crate::refresh_token::REFRESH_TOKENS_MAX;
use crate::repository::RepositoryRecord;
use crate::tag::{Item, Target};
use crate::tenant::UsageRecord;
use crate::time::Timestamp;
use crate::version::{Facts, VersionRecord, VersionState};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The row that is wrong, or that should be there and is not; none for the head.
    pub key: Option<Key>,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{key:?}: {}", self.problem),
            None => write!(f, "the head: {}", self.problem),
        }
    }
}

/// What an artifact says, without its bytes.
struct Artifact {
    size: u64,
    has_blob_body: bool,
    subject: Option<Digest>,
    artifact_type: Option<MediaType>,
    blobs: Vec<Digest>,
    children: Vec<Digest>,
}

/// A version's facts, without their bytes.
struct Version {
    is_tombstone: bool,
    files: u32,
    inline_bytes: u64,
    facts: Option<Digest>,
}

type Files = BTreeMap<(RepositoryKey, VersionName, FileName), (Digest, u64)>;

/// A recount under way.
#[derive(Default)]
pub struct Recount {
    cluster: ClusterRecord,
    nodes: BTreeMap<NodeId, NodeRecord>,
    join_tokens: BTreeSet<TokenId>,
    has_authority: bool,
    tenants: BTreeSet<TenantName>,
    limited: BTreeSet<TenantName>,
    usages: BTreeMap<TenantName, UsageRecord>,
    repositories: BTreeMap<RepositoryKey, RepositoryRecord>,
    artifacts: BTreeMap<(RepositoryKey, Digest), Artifact>,
    parents: BTreeSet<(RepositoryKey, Digest, Digest)>,
    versions: BTreeMap<(RepositoryKey, VersionName), Version>,
    files: Files,
    tags: BTreeMap<(RepositoryKey, TagName), Target>,
    tags_of: BTreeSet<(RepositoryKey, Target, TagName)>,
    links: BTreeMap<(RepositoryKey, Digest), LinkRecord>,
    referrers: BTreeMap<(RepositoryKey, Digest, Digest), Option<MediaType>>,
    blobs: BTreeMap<Digest, BlobRecord>,
    tenant_blobs: BTreeMap<(TenantName, Digest), TenantBlobRecord>,
    held_by: BTreeSet<(Digest, TenantName)>,
    edges: BTreeSet<(RepositoryKey, Digest, Holder)>,
    pulled: BTreeSet<(RepositoryKey, Item)>,
    reserved: BTreeMap<TenantName, (u64, u64)>,
    uploads: BTreeSet<TenantName>,
    /// Owners and names of tokens that are to be found by them; `None` for others.
    access_tokens: BTreeMap<TokenId, Option<(String, String)>>,
    tokens_of: BTreeMap<(OwnerName, TokenName), TokenId>,
    /// Whether each account is a robot's, and its generation.
    accounts: BTreeMap<AccountName, (bool, u64)>,
    /// The generations of refresh tokens.
    refresh_tokens: BTreeMap<(OwnerName, TokenId), u64>,
    policy: u64,
    journal: BTreeMap<u64, Entry>,
    segments: BTreeMap<u64, SegmentRecord>,
    cursors: Vec<(Key, u64)>,
    /// The latest time that any row carries, and that row.
    latest: Option<(Timestamp, Key)>,
    findings: Vec<Finding>,
}

/// Checks all rows of a state.
pub fn recount(store: &MemoryStore) -> Vec<Finding> {
    let mut recount = Recount::default();
    for (key, record) in store.rows() {
        recount.add(key, record);
    }
    recount.finish(store.head())
}

impl Recount {
    /// Takes in a row; each must come once.
    pub fn add(&mut self, key: &Key, record: &Record) {
        match (key.clone(), record) {
            (Key::Cluster, Record::Cluster(cluster)) => self.cluster = cluster.clone(),
            (Key::Authority, Record::Authority(_)) => self.has_authority = true,
            (Key::Node(node), Record::Node(record)) => {
                self.stamp(key, record.changed_at);
                self.nodes.insert(node, record.clone());
            }
            (Key::JoinToken(token), Record::JoinToken(_)) => {
                self.join_tokens.insert(token);
            }
            (Key::Policy, Record::Policy(record)) => {
                self.stamp(key, record.applied_at);
                self.policy = record.epoch;
            }
            (Key::Account(account), Record::Account(record)) => {
                self.stamp(key, record.created_at);
                self.accounts.insert(account, (record.is_robot, record.generation));
            }
            (Key::AccessToken(token), Record::AccessToken(record)) => {
                self.stamp(key, record.created_at.max(record.last_used_at));
                let names = (record.owner.clone(), record.name.clone());
                self.access_tokens.insert(token, (!record.is_workload).then_some(names));
            }
            (Key::TokenOf(owner, name), Record::TokenOf(token)) => {
                self.tokens_of.insert((owner, name), *token);
            }
            (Key::RefreshToken(owner, token), Record::RefreshToken(record)) => {
                self.stamp(key, record.created_at);
                self.refresh_tokens.insert((owner, token), record.generation);
            }
            (Key::SigningKey(_), Record::SigningKey(record)) => self.stamp(key, record.created_at),
            (Key::Assertion(_), Record::Assertion(_)) | (Key::Budget(..), Record::Budget(_)) => {}
            (Key::Tenant(tenant), Record::Tenant) => {
                self.tenants.insert(tenant);
            }
            (Key::Limits(tenant), Record::Limits(_)) => {
                self.limited.insert(tenant);
            }
            (Key::Journal(number), Record::Journal(entry)) => {
                self.stamp(key, entry.at);
                self.journal.insert(number, entry.clone());
            }
            (Key::Segment(first), Record::Segment(segment)) => {
                self.stamp(key, segment.last_at);
                self.segments.insert(first, segment.clone());
            }
            (Key::Cursor(_), Record::Cursor(cursor)) => {
                self.stamp(key, cursor.noted_at);
                self.cursors.push((key.clone(), cursor.number));
            }
            (key, record) => self.add_content(&key, record),
        }
    }

    /// Takes in a row that belongs to a blob or to a tenant.
    fn add_content(&mut self, key: &Key, record: &Record) {
        match (key.clone(), record) {
            (Key::Blob(digest), Record::Blob(blob)) => {
                self.stamp(key, blob.unheld_at);
                self.blobs.insert(digest, blob.clone());
            }
            (Key::HeldBy(digest, tenant), Record::HeldBy) => {
                self.held_by.insert((digest, tenant));
            }
            (Key::Usage(tenant), Record::Usage(usage)) => {
                self.usages.insert(tenant, usage.clone());
            }
            (Key::Upload(tenant, _), Record::Upload(record)) => {
                self.stamp(key, record.opened_at);
                if record.repository.tenant != tenant {
                    self.find(key.clone(), "is of another tenant's repository");
                }
                self.uploads.insert(tenant.clone());
                let (bytes, uploads) = self.reserved.entry(tenant).or_default();
                *bytes += record.reserved_bytes;
                *uploads += 1;
            }
            (Key::TenantBlob(tenant, digest), Record::TenantBlob(held)) => {
                self.stamp(key, held.relied_on_at.max(held.unreferenced_at));
                self.tenant_blobs.insert((tenant, digest), held.clone());
            }
            (Key::Repository(repository), Record::Repository(record)) => {
                self.stamp(key, record.created_at);
                self.repositories.insert(repository, record.clone());
            }
            (Key::Artifact(repository, digest), Record::Artifact(record)) => {
                self.stamp(key, record.pushed_at);
                self.add_artifact(repository, digest, record);
            }
            (Key::ParentOf(repository, child, index), Record::ParentOf) => {
                self.parents.insert((repository, child, index));
            }
            (Key::Referrer(repository, subject, digest), Record::Referrer(record)) => {
                self.referrers.insert((repository, subject, digest), record.artifact_type.clone());
            }
            (Key::Version(repository, version), Record::Version(record)) => {
                self.stamp(key, record.published_at);
                self.add_version(repository, version, record);
            }
            (Key::File(repository, version, file), Record::File(record)) => {
                self.stamp(key, record.uploaded_at);
                if !record.hashes.is_sorted_by(|(a, _), (b, _)| a < b) {
                    self.find(key.clone(), "its hashes are not sorted, or one comes twice");
                }
                self.files.insert((repository, version, file), (record.digest, record.size));
            }
            (Key::Tag(repository, tag), Record::Tag(record)) => {
                self.stamp(key, record.moved_at);
                self.tags.insert((repository, tag), record.target.clone());
            }
            (Key::TagOf(repository, target, tag), Record::TagOf) => {
                self.tags_of.insert((repository, target, tag));
            }
            (Key::Link(repository, digest), Record::Link(record)) => {
                self.stamp(key, record.linked_at.max(record.unreferenced_at));
                self.links.insert((repository, digest), record.clone());
            }
            (Key::Edge(repository, blob, holder), Record::Edge) => {
                self.edges.insert((repository, blob, holder));
            }
            (Key::Pulled(repository, item), Record::Pulled(record)) => {
                self.stamp(key, record.at);
                self.pulled.insert((repository, item));
            }
            (key, _) => self.find(key, "holds a record of another kind"),
        }
    }

    /// Ends the recount: what does not hold, in no order that means anything.
    pub fn finish(mut self, head: &Head) -> Vec<Finding> {
        self.check_time(head);
        self.check_nodes();
        self.check_sessions(head);
        self.check_holders();
        self.check_needs();
        self.check_derived_rows();
        self.check_tags();
        self.check_blobs();
        self.check_repositories();
        self.check_tenants();
        self.check_tokens();
        self.check_refresh_tokens();
        self.check_journal(head);
        self.findings
    }

    fn find(&mut self, key: Key, problem: impl Into<String>) {
        self.findings.push(Finding { key: Some(key), problem: problem.into() });
    }

    fn find_in_head(&mut self, problem: impl Into<String>) {
        self.findings.push(Finding { key: None, problem: problem.into() });
    }

    fn stamp(&mut self, key: &Key, at: Timestamp) {
        if self.latest.as_ref().is_none_or(|(latest, _)| *latest < at) {
            self.latest = Some((at, key.clone()));
        }
    }

    fn report(&mut self, found: Vec<(Key, String)>) {
        for (key, problem) in found {
            self.find(key, problem);
        }
    }

    fn add_artifact(&mut self, repository: RepositoryKey, digest: Digest, record: &ArtifactRecord) {
        let key = Key::Artifact(repository.clone(), digest);
        let has_blob_body = match &record.body {
            Body::Blob => true,
            Body::Inline(bytes) => {
                if bytes.len() as u64 != record.size {
                    let problem = format!("says {} bytes, holds {}", record.size, bytes.len());
                    self.find(key.clone(), problem);
                }
                false
            }
        };
        if has_blob_body && !record.blobs.contains(&digest) {
            self.find(key.clone(), "its body is a blob that it does not reference");
        }
        for (list, what) in [(&record.blobs, "blobs"), (&record.children, "children")] {
            if !list.is_sorted_by(|a, b| a < b) {
                self.find(key.clone(), format!("its {what} are not sorted, or one comes twice"));
            }
        }
        let artifact = Artifact {
            size: record.size,
            has_blob_body,
            subject: record.subject,
            artifact_type: record.artifact_type.clone(),
            blobs: record.blobs.clone(),
            children: record.children.clone(),
        };
        self.artifacts.insert((repository, digest), artifact);
    }

    fn add_version(
        &mut self,
        repository: RepositoryKey,
        version: VersionName,
        record: &VersionRecord,
    ) {
        let facts = match &record.facts {
            Facts::Inline(_) => None,
            Facts::Blob(digest) => Some(*digest),
        };
        let kept = Version {
            is_tombstone: record.state == VersionState::Tombstone,
            files: record.files,
            inline_bytes: record.facts.inline_bytes(),
            facts,
        };
        self.versions.insert((repository, version), kept);
    }

    /// No row is from the future, and no epoch was handed out that the cluster does not know of.
    fn check_time(&mut self, head: &Head) {
        if let Some((at, key)) = self.latest.take()
            && at > head.clock
        {
            self.find(key, format!("has time {}, after the cluster's {}", at.0, head.clock.0));
        }
        let newest = self.cluster.epoch;
        let mut found = Vec::new();
        for (digest, blob) in &self.blobs {
            let epoch = blob.generation.epoch;
            if epoch.0 == 0 || epoch > newest {
                let problem = format!("generation of epoch {}, never handed out", epoch.0);
                found.push((Key::Blob(*digest), problem));
            }
        }
        self.report(found);
    }

    /// Epochs and numbers were handed out, each to one node; every member understands the feature level; the active ones
    /// are counted.
    fn check_nodes(&mut self) {
        let (newest, level) = (self.cluster.epoch, self.cluster.feature_level);
        let mut owners: BTreeMap<Epoch, NodeId> = BTreeMap::new();
        let mut found = Vec::new();
        let mut active = 0;
        for (node, record) in &self.nodes {
            let (key, epoch) = (Key::Node(*node), record.epoch);
            active += u32::from(record.standing == Standing::Active);
            let never_started =
                epoch.0 == 0 && matches!(record.standing, Standing::Joining | Standing::Removed);
            if (epoch.0 == 0 && !never_started) || epoch > newest {
                let problem = format!("epoch {} was never handed out ({})", epoch.0, newest.0);
                found.push((key.clone(), problem));
            }
            if !never_started && let Some(other) = owners.insert(epoch, *node) {
                found.push((key.clone(), format!("shares its epoch with node {}", other.0)));
            }
            if self.cluster.cluster.is_some() && *node > self.cluster.last_node {
                let problem = format!("number never handed out ({})", self.cluster.last_node.0);
                found.push((key.clone(), problem));
            }
            let understands = record.profile.feature_max;
            if record.standing != Standing::Removed && understands < level {
                let problem = format!("understands level {}, not {}", understands.0, level.0);
                found.push((key, problem));
            }
        }
        if active != self.cluster.active_nodes {
            let said = self.cluster.active_nodes;
            found.push((Key::Cluster, format!("says {said} active nodes, has {active}")));
        }
        let is_founded = self.cluster.cluster.is_some();
        if !is_founded && self.has_authority {
            found.push((Key::Authority, "the cluster is not founded".to_owned()));
        }
        if is_founded && !self.has_authority {
            found.push((Key::Authority, "the founded cluster has no authority".to_owned()));
        }
        if is_founded != self.cluster.storage.is_some() {
            found.push((Key::Cluster, "its storage is settled when it is founded".to_owned()));
        }
        if let Some(token) = self.join_tokens.first().filter(|_| !is_founded) {
            found.push((Key::JoinToken(*token), "the cluster is not founded".to_owned()));
        }
        self.report(found);
    }

    /// A running start has a session, and nothing else has one.
    fn check_sessions(&mut self, head: &Head) {
        let mut problems = Vec::new();
        for (epoch, session) in &head.sessions {
            let of = format!("session of epoch {}", epoch.0);
            match self.nodes.get(&session.node) {
                Some(node) if node.epoch == *epoch && node.standing != Standing::Removed => {}
                _ => problems.push(format!("{of}: node {} does not run it", session.node.0)),
            }
            let listed = &session.applied;
            if !listed.is_sorted_by(|a, b| a < b)
                || listed.first().is_some_and(|first| *first <= session.applied_below)
            {
                problems.push(format!("{of}: its list is not sorted, or not compact"));
            }
        }
        for (node, record) in &self.nodes {
            let runs = record.epoch.0 != 0 && record.standing != Standing::Removed;
            if runs && !head.sessions.contains_key(&record.epoch) {
                problems.push(format!("the start of node {} has no session", node.0));
            }
        }
        for problem in problems {
            self.find_in_head(problem);
        }
    }

    /// Holders are nodes that there are, each named once.
    fn check_holders(&mut self) {
        let mut found = Vec::new();
        for (digest, blob) in &self.blobs {
            let Placement::Nodes(holders) = &blob.placement else { continue };
            if !holders.is_sorted_by(|a, b| a < b) {
                let problem = "its holders are not sorted, or one comes twice".to_owned();
                found.push((Key::Blob(*digest), problem));
            }
            if let Some(node) = holders.iter().find(|node| !self.nodes.contains_key(node)) {
                found.push((Key::Blob(*digest), format!("held by node {}, not known", node.0)));
            }
        }
        self.report(found);
    }

    /// Everything in a repository that needs a blob: the row that says so, the blob, and the holder's name in an edge.
    fn needs(&self) -> Vec<(Key, RepositoryKey, Digest, Holder)> {
        let mut needs = Vec::new();
        for ((repository, digest), artifact) in &self.artifacts {
            for blob in &artifact.blobs {
                let key = Key::Artifact(repository.clone(), *digest);
                needs.push((key, repository.clone(), *blob, Holder::Artifact(*digest)));
            }
        }
        for ((repository, version), record) in &self.versions {
            if let Some(facts) = record.facts {
                let key = Key::Version(repository.clone(), version.clone());
                needs.push((key, repository.clone(), facts, Holder::Version(version.clone())));
            }
        }
        for ((repository, version, file), (digest, _)) in &self.files {
            let key = Key::File(repository.clone(), version.clone(), file.clone());
            let holder = Holder::File(version.clone(), file.clone());
            needs.push((key, repository.clone(), *digest, holder));
        }
        for (first, segment) in &self.segments {
            let holder = Holder::Segment(*first);
            needs.push((Key::Segment(*first), system_repository(), segment.digest, holder));
        }
        needs
    }

    /// What is needed is live, linked, and knows of it; edges come from needs alone. This is what makes it safe to delete
    /// blobs.
    fn check_needs(&mut self) {
        let mut found = Vec::new();
        let mut wanted = BTreeSet::new();
        for (key, repository, blob, holder) in self.needs() {
            if !self.links.contains_key(&(repository.clone(), blob)) {
                found.push((key.clone(), format!("needs blob {blob}, not linked here")));
            }
            if !self.blobs.contains_key(&blob) {
                found.push((key.clone(), format!("needs blob {blob}, which is not live")));
            }
            let edge = (repository, blob, holder);
            if !self.edges.contains(&edge) {
                found.push((key, format!("needs blob {blob}, which has no edge to it")));
            }
            wanted.insert(edge);
        }
        for (repository, blob, holder) in &self.edges {
            if !wanted.contains(&(repository.clone(), *blob, holder.clone())) {
                let key = Key::Edge(repository.clone(), *blob, holder.clone());
                found.push((key, "nothing of that name needs the blob".to_owned()));
            }
        }
        for ((repository, digest), artifact) in &self.artifacts {
            let own = self.blobs.get(digest).filter(|_| artifact.has_blob_body);
            if let Some(own) = own.filter(|own| own.size != artifact.size) {
                let problem = format!("says {} bytes, its blob {}", artifact.size, own.size);
                found.push((Key::Artifact(repository.clone(), *digest), problem));
            }
        }
        for ((repository, version, file), (digest, size)) in &self.files {
            let key = || Key::File(repository.clone(), version.clone(), file.clone());
            if self.blobs.get(digest).is_some_and(|blob| blob.size != *size) {
                found.push((key(), format!("says {size} bytes, its blob has others")));
            }
            if !self.versions.contains_key(&(repository.clone(), version.clone())) {
                found.push((key(), "its version is not there".to_owned()));
            }
        }
        self.report(found);
    }

    /// Referrers, parents and notes of pulls come from what is there, and from nothing else.
    fn check_derived_rows(&mut self) {
        let mut found = Vec::new();
        for ((repository, subject, digest), artifact_type) in &self.referrers {
            let key = || Key::Referrer(repository.clone(), *subject, *digest);
            match self.artifacts.get(&(repository.clone(), *digest)) {
                Some(artifact) if artifact.subject == Some(*subject) => {
                    if artifact.artifact_type != *artifact_type {
                        found.push((key(), "tells another artifact type".to_owned()));
                    }
                }
                _ => found.push((key(), "no such artifact has this subject".to_owned())),
            }
        }
        for (repository, child, index) in &self.parents {
            let lister = self.artifacts.get(&(repository.clone(), *index));
            if !lister.is_some_and(|artifact| artifact.children.contains(child)) {
                let key = Key::ParentOf(repository.clone(), *child, *index);
                found.push((key, "no such artifact lists it".to_owned()));
            }
        }
        for ((repository, digest), artifact) in &self.artifacts {
            let key = || Key::Artifact(repository.clone(), *digest);
            if let Some(subject) = artifact.subject
                && !self.referrers.contains_key(&(repository.clone(), subject, *digest))
            {
                found.push((key(), format!("is missing among the referrers of {subject}")));
            }
            for child in &artifact.children {
                if !self.parents.contains(&(repository.clone(), *child, *digest)) {
                    found.push((key(), format!("is not found from {child}, which it lists")));
                }
            }
        }
        for (repository, item) in &self.pulled {
            let of = repository.clone();
            let is_there = match item.clone() {
                Item::Artifact(digest) => self.artifacts.contains_key(&(of, digest)),
                Item::Tag(tag) => self.tags.contains_key(&(of, tag)),
                Item::Version(version) => {
                    self.versions.get(&(of, version)).is_some_and(|version| !version.is_tombstone)
                }
                Item::File(version, file) => self.files.contains_key(&(of, version, file)),
            };
            if !is_there {
                let key = Key::Pulled(repository.clone(), item.clone());
                found.push((key, "was pulled and is not there".to_owned()));
            }
        }
        self.report(found);
    }

    /// Tags name what is there, and are found from it.
    fn check_tags(&mut self) {
        let mut found = Vec::new();
        for ((repository, tag), target) in &self.tags {
            let key = || Key::Tag(repository.clone(), tag.clone());
            let is_there = match target {
                Target::Artifact(digest) => {
                    self.artifacts.contains_key(&(repository.clone(), *digest))
                }
                Target::Version(version) => self
                    .versions
                    .get(&(repository.clone(), version.clone()))
                    .is_some_and(|version| !version.is_tombstone),
            };
            if !is_there {
                found.push((key(), format!("names {target}, which is not there")));
            }
            if !self.tags_of.contains(&(repository.clone(), target.clone(), tag.clone())) {
                found.push((key(), format!("is not found from {target}")));
            }
        }
        for (repository, target, tag) in &self.tags_of {
            if self.tags.get(&(repository.clone(), tag.clone())) != Some(target) {
                let key = Key::TagOf(repository.clone(), target.clone(), tag.clone());
                found.push((key, "the tag names something else".to_owned()));
            }
        }
        self.report(found);
    }

    /// Links have a live copy behind them; what a tenant does with a blob, and which tenants hold it, is counted exactly.
    fn check_blobs(&mut self) {
        let mut found = Vec::new();
        let mut counted: BTreeMap<(TenantName, Digest), (u64, u64)> = BTreeMap::new();
        for ((repository, digest), link) in &self.links {
            let key = || Key::Link(repository.clone(), *digest);
            match self.blobs.get(digest) {
                None => found.push((key(), "the blob is not live".to_owned())),
                Some(blob) if blob.size != link.size => {
                    let problem = format!("says {} bytes, the blob has {}", link.size, blob.size);
                    found.push((key(), problem));
                }
                Some(_) => {}
            }
            counted.entry((repository.tenant.clone(), *digest)).or_default().0 += 1;
        }
        for (repository, blob, _) in &self.edges {
            counted.entry((repository.tenant.clone(), *blob)).or_default().1 += 1;
        }
        let named: BTreeSet<_> = counted.keys().chain(self.tenant_blobs.keys()).collect();
        for (tenant, digest) in named {
            let of = (tenant.clone(), *digest);
            let said = self.tenant_blobs.get(&of).map(|held| (held.links, held.references));
            let has = counted.get(&of).copied();
            let key = || Key::TenantBlob(tenant.clone(), *digest);
            if said != has {
                let problem = differs("links and references", said.as_ref(), has.as_ref());
                found.push((key(), problem));
            }
            let size = self.blobs.get(digest).map(|blob| blob.size);
            if self.tenant_blobs.get(&of).is_some_and(|held| Some(held.size) != size) {
                found.push((key(), "has another size than the blob".to_owned()));
            }
            if !self.held_by.contains(&(*digest, tenant.clone())) {
                found.push((key(), "is not found from the blob".to_owned()));
            }
        }
        let mut holders: BTreeMap<Digest, u64> = BTreeMap::new();
        for (digest, tenant) in &self.held_by {
            *holders.entry(*digest).or_default() += 1;
            if !self.tenant_blobs.contains_key(&(tenant.clone(), *digest)) {
                let key = Key::HeldBy(*digest, tenant.clone());
                found.push((key, "the tenant does not hold it".to_owned()));
            }
        }
        for (digest, blob) in &self.blobs {
            let counted = holders.get(digest).copied().unwrap_or(0);
            if blob.tenants != counted {
                let problem = format!("says {} tenants, has {counted}", blob.tenants);
                found.push((Key::Blob(*digest), problem));
            }
        }
        self.report(found);
    }

    /// Repositories count exactly what they hold, versions their files, and each has a row only while it holds anything.
    fn check_repositories(&mut self) {
        let mut counted: BTreeMap<RepositoryKey, (u64, u64, u64, u64)> = BTreeMap::new();
        for (repository, _) in self.artifacts.keys() {
            counted.entry(repository.clone()).or_default().0 += 1;
        }
        for (repository, _) in self.versions.keys() {
            counted.entry(repository.clone()).or_default().1 += 1;
        }
        for (repository, _) in self.tags.keys() {
            counted.entry(repository.clone()).or_default().2 += 1;
        }
        for (repository, _) in self.links.keys() {
            counted.entry(repository.clone()).or_default().3 += 1;
        }
        let mut found = Vec::new();
        let named: BTreeSet<_> = counted.keys().chain(self.repositories.keys()).collect();
        for repository in named {
            let counts =
                |row: &RepositoryRecord| (row.artifacts, row.versions, row.tags, row.links);
            let said = self.repositories.get(repository).map(counts);
            let has = counted.get(repository).copied();
            if said != has {
                let problem =
                    differs("artifacts, versions, tags, links", said.as_ref(), has.as_ref());
                found.push((Key::Repository(repository.clone()), problem));
            }
        }
        let mut files: BTreeMap<(RepositoryKey, VersionName), u32> = BTreeMap::new();
        for (repository, version, _) in self.files.keys() {
            *files.entry((repository.clone(), version.clone())).or_default() += 1;
        }
        for ((repository, version), record) in &self.versions {
            let has =
                files.get(&(repository.clone(), version.clone())).copied().unwrap_or_default();
            if record.files != has {
                let key = Key::Version(repository.clone(), version.clone());
                found.push((key, format!("says {} files, has {has}", record.files)));
            }
        }
        self.report(found);
    }

    /// Tenants use exactly what their rows add up to, and stand in the directory while they use anything or are limited.
    fn check_tenants(&mut self) {
        let mut usages: BTreeMap<TenantName, UsageRecord> = BTreeMap::new();
        let mut inline = Vec::new();
        for ((repository, _), artifact) in &self.artifacts {
            usages.entry(repository.tenant.clone()).or_default().artifacts += 1;
            let bytes = if artifact.has_blob_body { 0 } else { artifact.size };
            inline.push((repository.tenant.clone(), bytes));
        }
        for ((repository, _), version) in &self.versions {
            usages.entry(repository.tenant.clone()).or_default().versions += 1;
            inline.push((repository.tenant.clone(), version.inline_bytes));
        }
        for (tenant, bytes) in inline {
            let usage = usages.entry(tenant).or_default();
            usage.bytes = usage.bytes.saturating_add(bytes);
            usage.unique_bytes = usage.unique_bytes.saturating_add(bytes);
        }
        for (repository, _) in self.tags.keys() {
            usages.entry(repository.tenant.clone()).or_default().tags += 1;
        }
        let mut counted_once: BTreeSet<(&TenantName, Digest)> = BTreeSet::new();
        for ((repository, digest), link) in &self.links {
            let usage = usages.entry(repository.tenant.clone()).or_default();
            usage.links += 1;
            usage.bytes = usage.bytes.saturating_add(link.size);
            if counted_once.insert((&repository.tenant, *digest)) {
                usage.unique_bytes = usage.unique_bytes.saturating_add(link.size);
            }
        }
        for (tenant, (bytes, uploads)) in &self.reserved {
            let usage = usages.entry(tenant.clone()).or_default();
            (usage.reserved_bytes, usage.uploads) = (*bytes, *uploads);
        }
        let mut found = Vec::new();
        let named: BTreeSet<_> = usages.keys().chain(self.usages.keys()).collect();
        for tenant in named {
            let (said, counted) = (self.usages.get(tenant), usages.get(tenant));
            if said != counted {
                found.push((Key::Usage(tenant.clone()), differs("usage", said, counted)));
            }
        }
        let expected: BTreeSet<_> = self.usages.keys().chain(&self.limited).collect();
        for tenant in &self.tenants {
            if !expected.contains(tenant) {
                let problem = "it uses nothing and is not limited".to_owned();
                found.push((Key::Tenant(tenant.clone()), problem));
            }
        }
        for tenant in expected {
            if !self.tenants.contains(tenant) {
                let problem = "it is missing in the directory".to_owned();
                found.push((Key::Tenant(tenant.clone()), problem));
            }
        }
        self.report(found);
    }

    /// Tokens that have names are found by them, and the policy in force is the one that was counted last.
    fn check_tokens(&mut self) {
        let mut found = Vec::new();
        for ((owner, name), token) in &self.tokens_of {
            let names = self.access_tokens.get(token).and_then(Option::as_ref);
            if !names.is_some_and(|(of, called)| of == owner.as_str() && called == name.as_str()) {
                let key = Key::TokenOf(owner.clone(), name.clone());
                found.push((key, "no such token has this owner and name".to_owned()));
            }
        }
        let by_name: BTreeSet<_> = self.tokens_of.values().collect();
        for (token, names) in &self.access_tokens {
            if names.is_some() && !by_name.contains(token) {
                found.push((Key::AccessToken(*token), "is not found by its name".to_owned()));
            }
        }
        if self.policy != self.cluster.policy_epoch {
            let problem =
                format!("has number {}, counted {}", self.policy, self.cluster.policy_epoch);
            found.push((Key::Policy, problem));
        }
        self.report(found);
    }

    /// Refresh tokens of accounts that the cluster keeps are of their present passwords, and no owner has too many.
    fn check_refresh_tokens(&mut self) {
        let mut found = Vec::new();
        let mut counted: BTreeMap<&OwnerName, usize> = BTreeMap::new();
        for ((owner, token), generation) in &self.refresh_tokens {
            let key = || Key::RefreshToken(owner.clone(), *token);
            let count = counted.entry(owner).or_default();
            *count += 1;
            if *count == REFRESH_TOKENS_MAX + 1 {
                found.push((key(), format!("its owner has more than {REFRESH_TOKENS_MAX}")));
            }
            let subject = Subject::parse(owner.as_str());
            let name = match &subject {
                Some(Subject::User(name) | Subject::Robot(name)) => name,
                Some(Subject::Administrator) => owner.as_str(),
                _ => continue,
            };
            let account = AccountName::parse(name).ok().and_then(|name| self.accounts.get(&name));
            let Some((is_robot, present)) = account else { continue };
            let is_of_another_kind = match &subject {
                Some(Subject::User(_)) => *is_robot,
                Some(Subject::Robot(_)) => !is_robot,
                _ => false,
            };
            if is_of_another_kind {
                found.push((key(), "its account is of another kind".to_owned()));
            }
            if generation != present {
                let problem = format!("is of generation {generation}, its account of {present}");
                found.push((key(), problem));
            }
        }
        self.report(found);
    }

    /// Entries and segments are numbered without gaps, each value of the chain follows from the one before, and no
    /// consumer has read what is not there.
    fn check_journal(&mut self, head: &Head) {
        let journal = &head.journal;
        let mut found = Vec::new();
        let mut before: Option<(u64, [u8; 32])> = None;
        for (first, segment) in &self.segments {
            let key = || Key::Segment(*first);
            if let Some((last, chain)) = before
                && (*first, segment.anchor) != (last + 1, chain)
            {
                found.push((key(), "does not follow from the segment before".to_owned()));
            }
            before = Some((segment.last, segment.head));
        }
        if let Some((last, chain)) = before
            && (journal.first, journal.anchor) != (last + 1, chain)
        {
            found.push((Key::Segment(last), "the rows do not follow from it".to_owned()));
        }
        let (mut next, mut chain, mut bytes) = (journal.first, journal.anchor, 0);
        for (number, entry) in &self.journal {
            if *number != next {
                found.push((Key::Journal(next), "the entry is missing".to_owned()));
            }
            if entry.chained(&chain, *number) != entry.chain {
                found.push((Key::Journal(*number), "does not follow from those before".to_owned()));
            }
            (next, chain) = (number + 1, entry.chain);
            bytes += entry.weight();
        }
        for (key, number) in &self.cursors {
            if *number >= journal.next {
                found.push((key.clone(), format!("has read {number}, which is not there")));
            }
        }
        if (next, chain) != (journal.next, journal.head) {
            self.find_in_head(format!("the journal ends before {next}"));
        }
        if bytes != journal.bytes {
            self.find_in_head(format!("says {} bytes of journal, has {bytes}", journal.bytes));
        }
        self.report(found);
    }
}

fn differs<T: fmt::Debug>(what: &str, said: Option<&T>, counted: Option<&T>) -> String {
    let tell = |value: Option<&T>| value.map_or("no row".to_owned(), |v| format!("{v:?}"));
    format!("{what}: the row says {}, a recount gives {}", tell(said), tell(counted))
}
