//! The small adapters: clock, random numbers, health, the data folder's lock.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nora_app::ports::BoxFuture;
use nora_app::ports::clock::{Clock, Ids};
use nora_app::ports::health::{Health, Probe};
use nora_cluster::Cluster;
use nora_domain::{NodeId, Timestamp, UploadId};
use rustix::fs::Mode;
use tracing::{info, warn};

use super::error::ServeError;

/// This machine's clock.
pub(super) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 counts as 1970; the replicated clock never runs backwards anyway.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The cluster's clock, as far as this node knows: what the log stamped is compared with it alone.
pub(super) struct ClusterTime(pub(super) Arc<Cluster>);

impl Clock for ClusterTime {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

/// Upload ids that name this node as their owner, from the operating system's random numbers, many to a call.
pub(super) struct RandomIds {
    node: NodeId,
    pool: std::sync::Mutex<Vec<u128>>,
}

impl RandomIds {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, pool: std::sync::Mutex::default() }
    }
}

impl Ids for RandomIds {
    fn upload_id(&self) -> UploadId {
        let mut pool = self.pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if pool.is_empty() {
            let mut bytes = [0u8; 16 * 64];
            // An id that could be guessed would open somebody's upload: without randomness there is no going on.
            #[allow(
                clippy::expect_used,
                reason = "the operating system's random numbers do not run out"
            )]
            getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
            pool.extend(
                bytes
                    .chunks_exact(16)
                    .map(|part| part.iter().fold(0u128, |id, byte| id << 8 | u128::from(*byte))),
            );
        }
        UploadId::made_by(self.node, pool.pop().unwrap_or_default())
    }
}

pub(super) struct NodeProbe {
    pub(super) cluster: Arc<Cluster>,
    pub(super) data_dir: PathBuf,
    pub(super) draining: Arc<AtomicBool>,
}

impl Probe for NodeProbe {
    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async {
            let status = self.cluster.status();
            let data_dir = self.data_dir.clone();
            let written = tokio::task::spawn_blocking(move || probe_storage(&data_dir)).await;
            let storage_failure = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            Health {
                has_leader: status.leader.is_some(),
                caught_up: status.ready,
                storage_failure,
                draining: self.draining.load(Ordering::Relaxed),
            }
        })
    }
}

/// Writes a few bytes where blobs go: a full or read-only disk shows here before a push meets it. The file stays and
/// is written over, so that probes that run at once do not remove it from under each other.
fn probe_storage(data_dir: &Path) -> io::Result<()> {
    std::fs::write(data_dir.join("probe"), b"nora")
}

/// What this process makes from now on, only its own user may read: the data folder holds keys, password hashes and
/// private blobs. Applies to the whole process, so it is for programs that run a node.
pub fn keep_files_private() {
    rustix::process::umask(OTHERS);
}

/// Permissions of anybody but the owner.
const OTHERS: Mode = Mode::RWXG.union(Mode::RWXO);

/// Folders that NORA makes in a data folder. A data folder may hold other things, which are not NORA's to change.
const FOLDERS: [&str; 7] =
    ["blobs", "cache", "identity", "incoming", "metadata", "quarantine", "uploads"];

/// Makes a data folder that only its owner can enter, and takes one that was readable by others away from them, with NORA's
/// folders in it. A folder that belongs to another user, as a container's volume may, keeps its mode: NORA's folders in
/// it are private all the same.
fn make_private(data_dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    let folders = FOLDERS.into_iter().map(|folder| data_dir.join(folder));
    for path in std::iter::once(data_dir.to_owned()).chain(folders) {
        let mode = match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => metadata.permissions().mode(),
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if mode & OTHERS.bits() == 0 {
            continue;
        }
        match std::fs::set_permissions(&path, Permissions::from_mode(mode & !OTHERS.bits())) {
            Ok(()) => info!(path = %path.display(), "other users can no longer enter this folder"),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => warn!(
                path = %path.display(),
                "other users can enter this folder, and only its owner can change that"
            ),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes the data folder and keeps a lock in it for as long as the file is open.
pub(super) fn lock_data_dir(path: &Path) -> Result<File, ServeError> {
    let failed = |source| ServeError::DataDir { path: path.to_owned(), source };
    make_private(path).map_err(failed)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}
