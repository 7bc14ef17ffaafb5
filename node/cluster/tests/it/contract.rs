//! The cluster keeps the contract of the port that it implements.

use nora_app::testkit::metadata_contract;
use tempfile::TempDir;

use crate::support::{assert_sound, cluster_state, config, life};

#[test]
fn of_metadata() {
    let directory = TempDir::new().unwrap();
    life(config(directory.path()), async |cluster| {
        metadata_contract(&*cluster).await;
        let (head, rows) = cluster_state(&cluster).await;
        assert_sound(&head, &rows);
    });
}
