//! `nora recover`: one member goes on after the majority of its cluster is gone for good.
//!
//! The node does not run meanwhile, and nobody else is asked. Each step may be done twice: one that was cut off is done
//! again by the next call.

use std::fs::File;
use std::io;
use std::sync::Arc;

use nora_app::ports::metadata::{Metadata, MetadataError, ask};
use nora_cluster::{Alone, Cluster, Found, Survivor, check_format};
use nora_domain::{
    About, Actor, ClusterId, Deed, FeatureLevel, Key, NodeId, NodeProfile, NoteRefusals, Placement,
    Record, Refusal, RefusalNote, Rows, SetStanding, Standing, Subject, Verb, Verdict,
};
use nora_trust::Identity;
use tracing::warn;

use super::adapters::lock_data_dir;
use super::error::ServeError;
use super::settings::cluster_config;
use nora_config::Config;

/// More nodes than a cluster ever had.
const NODES_MAX: usize = 100_000;

/// A stopped member that could go on without the others.
pub struct Recovery {
    config: Config,
    identity: Identity,
    survivor: Survivor,
    _lock: File,
}

/// What became of a cluster.
pub struct Recovered {
    /// Nodes that are removed now.
    pub removed: Vec<NodeId>,
    /// Live blobs.
    pub blobs: u64,
    /// Those of them that only removed nodes held.
    pub lost: u64,
}

impl Recovered {
    /// What was done, for people.
    pub fn describe(&self, node: u64) -> String {
        let Self { removed, blobs, lost } = self;
        let mut text = match removed.as_slice() {
            [] => format!("node {node} is the only member; there was nobody to remove\n"),
            removed => {
                let removed = numbers(removed);
                format!("node {node} is the only member now; removed for good: {removed}\n")
            }
        };
        if *lost > 0 {
            text.push_str(&format!(
                "{lost} of {blobs} blobs are lost: push them again, or delete what needs them\n"
            ));
        }
        text.push_str(
            "start it with 'nora serve', and let new nodes join, each with an empty data folder\n",
        );
        text
    }
}

fn numbers(nodes: &[NodeId]) -> String {
    let numbers: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
}

impl Recovery {
    /// Looks at a node that does not run.
    pub async fn look(config: &Config) -> Result<Self, ServeError> {
        let data_dir = &config.storage.data_dir;
        let unusable = |source| ServeError::DataDir { path: data_dir.clone(), source };
        if !data_dir.is_dir() {
            return Err(unusable(io::Error::from(io::ErrorKind::NotFound)));
        }
        let metadata_dir = data_dir.join("metadata");
        check_format(&metadata_dir).map_err(unusable)?;
        let lock = lock_data_dir(data_dir)?;
        let identity = Identity::load(data_dir).map_err(ServeError::Identity)?;
        let identity = identity.ok_or_else(|| {
            unusable(io::Error::new(io::ErrorKind::NotFound, "no node ever ran there"))
        })?;
        identity.bind(&metadata_dir).map_err(ServeError::Identity)?;
        let looked = cluster_config(config, identity.node(), NodeProfile::default());
        let survivor = Survivor::look(looked).await.map_err(ServeError::Metadata)?;
        if survivor.found().standing == Standing::Removed {
            return Err(ServeError::Removed(identity.node()));
        }
        Ok(Self { config: config.clone(), identity, survivor, _lock: lock })
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.identity.node()
    }

    /// Its cluster.
    pub fn cluster(&self) -> ClusterId {
        self.identity.cluster()
    }

    /// What it has.
    pub fn found(&self) -> &Found {
        self.survivor.found()
    }

    /// What the node has, a line a fact, to be compared with other survivors.
    pub fn describe(&self) -> String {
        let Found { term, last_index, applied_index, voters, learners, .. } = self.found();
        let cluster = self.cluster().0;
        let (node, voters, learners) = (self.node().0, numbers(voters), numbers(learners));
        format!(
            "cluster     {cluster:032x}\nnode        {node}\nlast entry  {last_index} of term {term}\napplied     \
             {applied_index}\nvoters      {voters}\nlearners    {learners}\n"
        )
    }

    /// Makes the node the cluster's only member, and removes all others for good.
    pub async fn carry_out(self) -> Result<Recovered, ServeError> {
        let node = self.identity.node();
        let profile = NodeProfile {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            feature_max: FeatureLevel::NEWEST,
            ..self.survivor.found().profile.clone()
        };
        self.survivor.go_on_alone().await.map_err(ServeError::Metadata)?;
        let config = cluster_config(&self.config, node, profile);
        let cluster = Cluster::open(config, Arc::new(Alone)).await.map_err(ServeError::Metadata)?;
        cluster.enter().await.map_err(ServeError::Metadata)?;
        let recovered = settle(&cluster, node).await;
        if let Err(error) = cluster.shutdown().await {
            warn!(%error, "the metadata was not closed in order");
        }
        recovered
    }
}

/// Removes the other nodes, and counts what was lost with them.
async fn settle(cluster: &Cluster, node: NodeId) -> Result<Recovered, ServeError> {
    let rows = cluster.scan(Rows::Nodes, NODES_MAX).await.map_err(ServeError::Unreadable)?;
    let others = rows.into_iter().filter_map(|row| match row {
        (Key::Node(other), Record::Node(record)) if other != node => {
            (record.standing != Standing::Removed).then_some(other)
        }
        _ => None,
    });
    let others: Vec<NodeId> = others.collect();
    if !others.is_empty() {
        // First: who reads the journal must know that acknowledged writes may be missing before this entry.
        note(cluster, node, Deed::new(Verb::ClusterRecover, About::Cluster)).await?;
    }
    for other in &others {
        let removal = SetStanding { node: *other, standing: Standing::Removed };
        match ask(cluster, removal).await.map_err(ServeError::Unwritable)? {
            Ok(()) | Err(Refusal::NodeRemoved(_)) => {}
            Err(refusal) => return Err(ServeError::Task(format!("{other:?}: {refusal:?}"))),
        }
        note(cluster, node, Deed::new(Verb::NodeRemove, About::Node(*other))).await?;
    }
    let (blobs, lost) = count(cluster, node).await.map_err(ServeError::Unreadable)?;
    Ok(Recovered { removed: others, blobs, lost })
}

/// Leaves a word in the journal.
async fn note(cluster: &Cluster, node: NodeId, deed: Deed) -> Result<(), ServeError> {
    let actor = Actor { subject: Subject::Node(node), ..Actor::default() };
    let refusals = vec![RefusalNote { actor, deed, verdict: Verdict::Done, count: 1 }];
    match ask(cluster, NoteRefusals { refusals }).await.map_err(ServeError::Unwritable)? {
        Ok(()) => Ok(()),
        Err(refusal) => Err(ServeError::Task(format!("the journal: {refusal:?}"))),
    }
}

/// Live blobs, and those that this node does not hold while others of its cluster did.
async fn count(cluster: &Cluster, node: NodeId) -> Result<(u64, u64), MetadataError> {
    let counted = cluster.inspect(move |_, rows| {
        let (mut blobs, mut lost) = (0, 0);
        for row in rows {
            let (_, Record::Blob(blob)) = row? else { continue };
            blobs += 1;
            if matches!(&blob.placement, Placement::Nodes(holders) if !holders.contains(&node)) {
                lost += 1;
            }
        }
        Ok((blobs, lost))
    });
    counted.await.flatten()
}
