//! A recount: checks every row of the replicated state against every other.
//!
//! [`Audit`] reads each row once, in any order, and then tells which invariant of the transition does not hold, in words
//! for an operator. It computes counters anew and never trusts one. An empty list means: each artifact's blobs are live
//! and linked, edges, referrers and reverse tags mirror what they are derived from, tags name artifacts that are there,
//! holders are nodes that there are, each running start has its session and no other has one, every counter is exact, tokens
//! are found by their names, the chain of the audit log is whole, and no row is from the future.
//!
//! Its memory grows with the number of rows (not with artifacts' bodies): it is for a self-check and for tests, not for
//! a request. Must not know how rows are stored, and shares no code with the transition that it checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::digest::Digest;
use crate::identity::{AuditHeadRecord, AuditRecord};
use crate::name::{MediaType, OwnerName, RepositoryKey, TagName, TenantName, TokenName};
use crate::record::{
    ArtifactRecord, BlobRecord, Body, ClusterRecord, Epoch, FeatureLevel, Key, NodeId, NodeRecord,
    Placement, Record, RepositoryRecord, SessionRecord, Standing, Timestamp, TokenId, UploadId,
    UsageRecord,
};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The row that is wrong, or that should be there and is not.
    pub key: Key,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.key, self.problem)
    }
}

/// What an artifact says, without its bytes.
struct Artifact {
    size: u64,
    has_blob_body: bool,
    subject: Option<Digest>,
    artifact_type: Option<MediaType>,
    blobs: Vec<Digest>,
}

/// A recount under way.
#[derive(Default)]
pub struct Audit {
    cluster: ClusterRecord,
    nodes: BTreeMap<NodeId, NodeRecord>,
    sessions: BTreeMap<Epoch, SessionRecord>,
    tokens: BTreeSet<TokenId>,
    has_authority: bool,
    usages: BTreeMap<TenantName, UsageRecord>,
    repositories: BTreeMap<RepositoryKey, RepositoryRecord>,
    artifacts: BTreeMap<(RepositoryKey, Digest), Artifact>,
    tags: BTreeMap<(RepositoryKey, TagName), Digest>,
    tags_of: BTreeSet<(RepositoryKey, Digest, TagName)>,
    links: BTreeMap<(RepositoryKey, Digest), u64>,
    referrers: BTreeMap<(RepositoryKey, Digest, Digest), Option<MediaType>>,
    blobs: BTreeMap<Digest, BlobRecord>,
    edges: BTreeSet<(Digest, RepositoryKey, Digest)>,
    pins: BTreeMap<(Digest, UploadId), Timestamp>,
    reserved: BTreeMap<TenantName, u64>,
    /// Owners and names of tokens that are to be found by them; `None` for others.
    access_tokens: BTreeMap<TokenId, Option<(String, String)>>,
    tokens_of: BTreeMap<(OwnerName, TokenName), TokenId>,
    policy: u64,
    log_head: Option<AuditHeadRecord>,
    log: BTreeMap<u64, AuditRecord>,
    /// The latest time that any row carries, and that row.
    latest: Option<(Timestamp, Key)>,
    findings: Vec<Finding>,
}

/// Checks all rows of a state.
pub fn audit<'a>(rows: impl IntoIterator<Item = (&'a Key, &'a Record)>) -> Vec<Finding> {
    let mut audit = Audit::default();
    for (key, record) in rows {
        audit.add(key, record);
    }
    audit.finish()
}

impl Audit {
    /// Takes in a row; each must come once.
    pub fn add(&mut self, key: &Key, record: &Record) {
        match (key.clone(), record) {
            (Key::Cluster, Record::Cluster(cluster)) => self.cluster = cluster.clone(),
            (Key::Node(node), Record::Node(record)) => {
                self.stamp(key, record.changed_at);
                self.nodes.insert(node, record.clone());
            }
            (Key::Usage(tenant), Record::Usage(usage)) => {
                self.usages.insert(tenant, usage.clone());
            }
            (Key::Repository(repository), Record::Repository(record)) => {
                self.stamp(key, record.created_at);
                self.repositories.insert(repository, record.clone());
            }
            (Key::Artifact(repository, digest), Record::Artifact(record)) => {
                self.stamp(key, record.pushed_at);
                self.add_artifact(repository, digest, record);
            }
            (Key::Tag(repository, tag), Record::Tag(record)) => {
                self.stamp(key, record.moved_at);
                self.tags.insert((repository, tag), record.digest);
            }
            (Key::TagOf(repository, digest, tag), Record::TagOf) => {
                self.tags_of.insert((repository, digest, tag));
            }
            (Key::Link(digest, repository), Record::Link(record)) => {
                self.stamp(key, record.linked_at);
                self.links.insert((repository, digest), record.size);
            }
            (Key::Referrer(repository, subject, digest), Record::Referrer(record)) => {
                self.referrers.insert((repository, subject, digest), record.artifact_type.clone());
            }
            (Key::Blob(digest), Record::Blob(blob)) => {
                self.stamp(key, blob.touched_at.max(blob.unreferenced_at));
                self.blobs.insert(digest, blob.clone());
            }
            (Key::Edge(blob, repository, artifact), Record::Edge) => {
                self.edges.insert((blob, repository, artifact));
            }
            (Key::Pin(digest, pin), Record::Pin(record)) => {
                self.pins.insert((digest, pin), record.expires_at);
            }
            (Key::Upload(_), Record::Upload(record)) => {
                self.stamp(key, record.opened_at);
                if record.reserved_bytes > 0 {
                    let tenant = record.repository.tenant.clone();
                    *self.reserved.entry(tenant).or_default() += record.reserved_bytes;
                }
            }
            (Key::Session(epoch), Record::Session(session)) => {
                self.sessions.insert(epoch, session.clone());
            }
            (Key::JoinToken(token), Record::JoinToken(_)) => {
                self.tokens.insert(token);
            }
            (Key::Authority, Record::Authority(_)) => self.has_authority = true,
            (Key::Policy, Record::Policy(record)) => {
                self.stamp(key, record.applied_at);
                self.policy = record.epoch;
            }
            (Key::Account(_), Record::Account(record)) => self.stamp(key, record.created_at),
            (Key::AccessToken(token), Record::AccessToken(record)) => {
                self.stamp(key, record.created_at.max(record.last_used_at));
                let names = (record.owner.clone(), record.name.clone());
                self.access_tokens.insert(token, (!record.is_workload).then_some(names));
            }
            (Key::TokenOf(owner, name), Record::TokenOf(token)) => {
                self.tokens_of.insert((owner, name), *token);
            }
            (Key::SigningKey(_), Record::SigningKey(record)) => self.stamp(key, record.created_at),
            (Key::Tenant(_), Record::Tenant(_))
            | (Key::Assertion(_), Record::Assertion(_))
            | (Key::Budget(_, _), Record::Budget(_)) => {}
            (Key::AuditHead, Record::AuditHead(head)) => self.log_head = Some(head.clone()),
            (Key::Audit(number), Record::Audit(entry)) => {
                self.stamp(key, entry.at);
                self.log.insert(number, entry.clone());
            }
            (key, _) => self.find(key, "holds a record of another kind"),
        }
    }

    /// Ends the recount: what does not hold, in no order that means anything.
    pub fn finish(mut self) -> Vec<Finding> {
        self.check_time();
        self.check_nodes();
        self.check_sessions();
        self.check_holders();
        self.check_artifacts();
        self.check_derived_rows();
        self.check_tags();
        self.check_blobs();
        self.check_counters();
        self.check_tokens();
        self.check_log();
        self.findings
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

    /// Entries are numbered without gaps, and each value of the chain follows from the one before.
    fn check_log(&mut self) {
        let mut found = Vec::new();
        let head = self.log_head.clone().unwrap_or(AuditHeadRecord {
            first: 1,
            next: 1,
            ..AuditHeadRecord::default()
        });
        let (mut next, mut chain) = (head.first, head.anchor);
        for (number, entry) in &self.log {
            if *number != next {
                found.push((Key::Audit(next), "the entry is missing".to_owned()));
            }
            if entry.chained(&chain, *number) != entry.chain {
                found.push((Key::Audit(*number), "does not follow from those before".to_owned()));
            }
            (next, chain) = (number + 1, entry.chain);
        }
        if head.sent >= head.next {
            found.push((Key::AuditHead, format!("{} was sent and is not there", head.sent)));
        }
        if (next, chain) != (head.next, head.head) {
            found.push((Key::AuditHead, format!("the log ends before {next}")));
        }
        self.report(found);
    }

    fn find(&mut self, key: Key, problem: impl Into<String>) {
        self.findings.push(Finding { key, problem: problem.into() });
    }

    fn stamp(&mut self, key: &Key, at: Timestamp) {
        if self.latest.as_ref().is_none_or(|(latest, _)| *latest < at) {
            self.latest = Some((at, key.clone()));
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
        };
        self.artifacts.insert((repository, digest), artifact);
    }

    /// No row is from the future, and no epoch was handed out that the cluster does not know of.
    fn check_time(&mut self) {
        let clock = self.cluster.clock;
        if let Some((at, key)) = self.latest.take()
            && at > clock
        {
            self.find(key, format!("has time {}, after the cluster's {}", at.0, clock.0));
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

    /// Epochs and numbers were handed out, each to one node, and every member understands the feature level.
    fn check_nodes(&mut self) {
        let (newest, level) = (self.cluster.epoch, self.cluster.feature_level);
        let mut owners: BTreeMap<Epoch, NodeId> = BTreeMap::new();
        let mut found = Vec::new();
        for (node, record) in &self.nodes {
            let (key, epoch) = (Key::Node(*node), record.epoch);
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
            let understands = record.profile.feature_max.max(FeatureLevel::SINGLE);
            if record.standing != Standing::Removed && understands < level {
                let problem = format!("understands level {}, not {}", understands.0, level.0);
                found.push((key, problem));
            }
        }
        if self.cluster.cluster.is_none() && self.has_authority {
            found.push((Key::Authority, "the cluster is not founded".to_owned()));
        }
        if self.cluster.cluster.is_some() && !self.has_authority {
            found.push((Key::Authority, "the founded cluster has no authority".to_owned()));
        }
        if let Some(token) = self.tokens.first().filter(|_| self.cluster.cluster.is_none()) {
            found.push((Key::JoinToken(*token), "the cluster is not founded".to_owned()));
        }
        self.report(found);
    }

    /// A running start has a session, and nothing else has one.
    fn check_sessions(&mut self) {
        let mut found = Vec::new();
        for (epoch, session) in &self.sessions {
            let key = || Key::Session(*epoch);
            match self.nodes.get(&session.node) {
                Some(node) if node.epoch == *epoch && node.standing != Standing::Removed => {}
                _ => found.push((key(), format!("node {} does not run it", session.node.0))),
            }
            let listed = &session.applied;
            if !listed.is_sorted_by(|a, b| a < b)
                || listed.first().is_some_and(|first| *first <= session.applied_below)
            {
                found.push((key(), "its list is not sorted, or not compact".to_owned()));
            }
        }
        for (node, record) in &self.nodes {
            let runs = record.epoch.0 != 0 && record.standing != Standing::Removed;
            // Starts from before there were sessions have none, and no name either.
            if runs && record.start != 0 && !self.sessions.contains_key(&record.epoch) {
                found.push((Key::Node(*node), "its start has no session".to_owned()));
            }
        }
        self.report(found);
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

    fn report(&mut self, found: Vec<(Key, String)>) {
        self.findings.extend(found.into_iter().map(|(key, problem)| Finding { key, problem }));
    }

    /// What each artifact needs is live, linked, and knows of it. This is what makes it safe to delete blobs.
    fn check_artifacts(&mut self) {
        let mut found = Vec::new();
        for ((repository, digest), artifact) in &self.artifacts {
            let key = || Key::Artifact(repository.clone(), *digest);
            for blob in &artifact.blobs {
                if !self.links.contains_key(&(repository.clone(), *blob)) {
                    found.push((key(), format!("needs blob {blob}, not linked here")));
                }
                if !self.blobs.contains_key(blob) {
                    found.push((key(), format!("needs blob {blob}, which is not live")));
                }
                if !self.edges.contains(&(*blob, repository.clone(), *digest)) {
                    found.push((key(), format!("needs blob {blob}, which has no edge to it")));
                }
            }
            if let Some(subject) = artifact.subject
                && !self.referrers.contains_key(&(repository.clone(), subject, *digest))
            {
                found.push((key(), format!("is missing among the referrers of {subject}")));
            }
            let own = self.blobs.get(digest).filter(|_| artifact.has_blob_body);
            if let Some(own) = own.filter(|own| own.size != artifact.size) {
                found.push((key(), format!("says {} bytes, its blob {}", artifact.size, own.size)));
            }
        }
        self.report(found);
    }

    /// Edges and referrers come from artifacts, and from nowhere else.
    fn check_derived_rows(&mut self) {
        let mut found = Vec::new();
        for (blob, repository, digest) in &self.edges {
            let artifact = self.artifacts.get(&(repository.clone(), *digest));
            if !artifact.is_some_and(|artifact| artifact.blobs.contains(blob)) {
                let key = Key::Edge(*blob, repository.clone(), *digest);
                found.push((key, "no such artifact needs the blob".to_owned()));
            }
        }
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
        self.report(found);
    }

    /// Tags name artifacts that are there, and are found from them.
    fn check_tags(&mut self) {
        let mut found = Vec::new();
        for ((repository, tag), digest) in &self.tags {
            let key = || Key::Tag(repository.clone(), tag.clone());
            if !self.artifacts.contains_key(&(repository.clone(), *digest)) {
                found.push((key(), format!("names {digest}, which is not there")));
            }
            if !self.tags_of.contains(&(repository.clone(), *digest, tag.clone())) {
                found.push((key(), format!("is not found from {digest}")));
            }
        }
        for (repository, digest, tag) in &self.tags_of {
            if self.tags.get(&(repository.clone(), tag.clone())) != Some(digest) {
                let key = Key::TagOf(repository.clone(), *digest, tag.clone());
                found.push((key, "the tag does not name this artifact".to_owned()));
            }
        }
        self.report(found);
    }

    /// Links and pins have a live copy behind them, and references are counted exactly.
    fn check_blobs(&mut self) {
        let mut found = Vec::new();
        for ((repository, digest), size) in &self.links {
            let key = || Key::Link(*digest, repository.clone());
            match self.blobs.get(digest) {
                None => found.push((key(), "the blob is not live".to_owned())),
                Some(blob) if blob.size != *size => {
                    found.push((key(), format!("says {size} bytes, the blob has {}", blob.size)));
                }
                Some(_) => {}
            }
        }
        for ((digest, pin), expires_at) in &self.pins {
            if *expires_at > self.cluster.clock && !self.blobs.contains_key(digest) {
                found.push((Key::Pin(*digest, *pin), "the blob is not live".to_owned()));
            }
        }
        let mut references: BTreeMap<Digest, u64> = BTreeMap::new();
        for (blob, _, _) in &self.edges {
            *references.entry(*blob).or_default() += 1;
        }
        for (digest, blob) in &self.blobs {
            let counted = references.get(digest).copied().unwrap_or(0);
            if blob.references != counted {
                let problem = format!("says {} references, has {counted}", blob.references);
                found.push((Key::Blob(*digest), problem));
            }
        }
        self.report(found);
    }

    /// Repositories and tenants count exactly what they hold, and have a row only while they hold anything.
    fn check_counters(&mut self) {
        let mut repositories: BTreeMap<&RepositoryKey, RepositoryRecord> = BTreeMap::new();
        let mut usages: BTreeMap<&TenantName, UsageRecord> = BTreeMap::new();
        for ((repository, _), artifact) in &self.artifacts {
            repositories.entry(repository).or_default().artifacts += 1;
            let usage = usages.entry(&repository.tenant).or_default();
            usage.artifacts += 1;
            if !artifact.has_blob_body {
                usage.bytes = usage.bytes.saturating_add(artifact.size);
                usage.unique_bytes = usage.unique_bytes.saturating_add(artifact.size);
            }
        }
        for (repository, _) in self.tags.keys() {
            repositories.entry(repository).or_default().tags += 1;
            usages.entry(&repository.tenant).or_default().tags += 1;
        }
        let mut counted_once: BTreeSet<(&TenantName, Digest)> = BTreeSet::new();
        for ((repository, digest), size) in &self.links {
            repositories.entry(repository).or_default().links += 1;
            let usage = usages.entry(&repository.tenant).or_default();
            usage.links += 1;
            usage.bytes = usage.bytes.saturating_add(*size);
            let is_first = counted_once.insert((&repository.tenant, *digest));
            if is_first || !self.cluster.unique_to.covers(*digest) {
                usage.unique_bytes = usage.unique_bytes.saturating_add(*size);
            }
        }
        if self.cluster.feature_level < FeatureLevel::IDENTITY {
            usages.values_mut().for_each(|usage| usage.unique_bytes = 0);
        }
        for (tenant, bytes) in &self.reserved {
            usages.entry(tenant).or_default().reserved_bytes = *bytes;
        }

        let mut found = Vec::new();
        let named: BTreeSet<_> =
            repositories.keys().copied().chain(self.repositories.keys()).collect();
        for repository in named {
            let counts = |record: &RepositoryRecord| (record.artifacts, record.tags, record.links);
            let said = self.repositories.get(repository).map(counts);
            let counted = repositories.get(repository).map(counts);
            if said != counted {
                let problem = differs("artifacts, tags, links", said.as_ref(), counted.as_ref());
                found.push((Key::Repository(repository.clone()), problem));
            }
        }
        let named: BTreeSet<_> = usages.keys().copied().chain(self.usages.keys()).collect();
        for tenant in named {
            let (said, counted) = (self.usages.get(tenant), usages.get(tenant));
            if said != counted {
                found.push((Key::Usage(tenant.clone()), differs("usage", said, counted)));
            }
        }
        self.report(found);
    }
}

fn differs<T: fmt::Debug>(what: &str, said: Option<&T>, counted: Option<&T>) -> String {
    let tell = |value: Option<&T>| value.map_or("no row".to_owned(), |v| format!("{v:?}"));
    format!("{what}: the row says {}, a recount gives {}", tell(said), tell(counted))
}
