//! The cluster as placement sees it: who may hold what.
//!
//! Guarantees: a view is at most [`VIEW_AGE_MAX`] old, and is read anew after a change that this node
//! was told of. An old one puts copies where they are not wanted; it never loses one, because the log
//! has the last word on who stops holding a copy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nora_app::ports::metadata::{Metadata, MetadataError};
use nora_domain::{
    ClusterRecord, Digest, Key, NodeId, NodeRecord, Record, Rows, Standing, placement,
    placement::Candidate,
};

const VIEW_AGE_MAX: Duration = Duration::from_secs(1);
/// More nodes than a cluster ever had.
const NODES_MAX: usize = 100_000;

/// Who is in the cluster, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) me: NodeId,
    nodes: BTreeMap<NodeId, NodeRecord>,
    // The active ones.
    candidates: Vec<Candidate>,
    replicas: usize,
}

impl View {
    pub(crate) fn new(me: NodeId, replicas: usize, nodes: BTreeMap<NodeId, NodeRecord>) -> Self {
        let candidates = nodes
            .iter()
            .filter(|(_, record)| record.standing == Standing::Active)
            .map(|(node, record)| Candidate {
                node: *node,
                zone: record.profile.zone.clone(),
                weight: record.profile.weight,
            })
            .collect();
        Self { me, nodes, candidates, replicas }
    }

    pub(crate) fn standing(&self, node: NodeId) -> Option<Standing> {
        self.nodes.get(&node).map(|record| record.standing)
    }

    /// Whether a node takes part and is thought to be running.
    pub(crate) fn is_live(&self, node: NodeId) -> bool {
        matches!(self.standing(node), Some(Standing::Active | Standing::Draining))
    }

    /// How many copies there should be: as many as wanted, or one on each active node.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.min(self.candidates.len()).max(1)
    }

    /// How many copies must be durable before a blob is acknowledged.
    pub(crate) fn needed(&self) -> usize {
        placement::majority(self.replicas())
    }

    /// The active nodes, in the order in which they should hold a blob.
    pub(crate) fn ranked(&self, digest: &Digest) -> Vec<NodeId> {
        placement::rank(digest, &self.candidates)
    }

    /// The nodes that should hold a blob; none while no node is active.
    pub(crate) fn desired(&self, digest: &Digest) -> Vec<NodeId> {
        placement::desired(digest, &self.candidates, self.replicas)
    }

    /// Whether two nodes are in one zone.
    pub(crate) fn is_near(&self, node: NodeId) -> bool {
        let zone = |node| self.nodes.get(&node).map(|record| record.profile.zone.as_str());
        zone(node).is_some() && zone(node) == zone(self.me)
    }
}

/// Where views come from.
pub(crate) struct Views {
    me: NodeId,
    /// What counts as long as the cluster is not founded.
    replicas: usize,
    metadata: Arc<dyn Metadata>,
    last: Mutex<Option<(Instant, Arc<View>)>>,
}

impl Views {
    pub(crate) fn new(me: NodeId, replicas: usize, metadata: Arc<dyn Metadata>) -> Self {
        Self { me, replicas, metadata, last: Mutex::new(None) }
    }

    /// The view now.
    pub(crate) async fn now(&self) -> Result<Arc<View>, MetadataError> {
        {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((read_at, view)) = &*last
                && read_at.elapsed() < VIEW_AGE_MAX
            {
                return Ok(Arc::clone(view));
            }
        }
        let read_at = Instant::now();
        let rows = self.metadata.scan(Rows::Nodes, NODES_MAX).await?;
        let nodes = rows.into_iter().filter_map(|row| match row {
            (Key::Node(node), Record::Node(record)) => Some((node, record)),
            _ => None,
        });
        // The cluster's number counts, whatever this node was configured with: it decides how many copies a push takes.
        let replicas = match self.metadata.get(Key::Cluster).await? {
            Some(Record::Cluster(ClusterRecord { storage: Some(storage), .. })) => {
                usize::try_from(storage.replicas).unwrap_or(usize::MAX)
            }
            _ => self.replicas,
        };
        let view = Arc::new(View::new(self.me, replicas, nodes.collect()));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((read_at, Arc::clone(&view)));
        Ok(view)
    }

    /// A node changed: the next view is read anew.
    pub(crate) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
