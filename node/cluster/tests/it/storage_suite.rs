//! openraft's own tests of a storage, on ours.

use std::sync::Arc;

use nora_cluster::raft::TypeConfig;
use nora_cluster::raft::log_store::LogStore;
use nora_cluster::raft::state_machine::StateMachine;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::support;

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Arc<TempDir>> for Stores {
    async fn build(
        &self,
    ) -> Result<(Arc<TempDir>, LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = TempDir::new().unwrap();
        let log = support::open_log(directory.path());
        let (machine, _) = support::open_state(directory.path());
        Ok((Arc::new(directory), log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes() {
    Suite::test_all(Stores).await.unwrap();
}
