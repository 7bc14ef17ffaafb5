//! The cluster's own records and commands.

use nora_domain::{
    ClusterRecord, FoundCluster, RaiseFeatureLevel, SetReplicas, Storage, StorageMode,
};
use nora_proto::{command::v1 as command, record::v1 as record};

codes!(StorageMode => record::StorageMode { Local, Object });
fields!(Storage => record::Storage { mode, replicas });
fields!(ClusterRecord => record::Cluster {
    epoch,
    cluster,
    last_node,
    active_nodes,
    feature_level,
    storage,
    policy_epoch,
    identity_epoch,
});

fields!(FoundCluster => command::FoundCluster { cluster, secret } required { authority, storage });
fields!(RaiseFeatureLevel => command::RaiseFeatureLevel { level });
fields!(SetReplicas => command::SetReplicas { replicas });
