//! Members that catch up by a snapshot, and what their leader keeps for them meanwhile.
//!
//! Guarantee: while a member receives a snapshot, and until it has nearly all entries behind that, the leader begins no new
//! snapshot by itself, and so cuts no entry that the member needs. A log larger than its limit ends that: disk space comes
//! first. Must not know: how snapshots travel.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use nora_domain::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant, RaftMetrics};

use super::TypeConfig;
use super::log_store::LogStore;
use crate::rocks::locked;

/// A member that lacks no more entries than this has caught up: entries that are being sent are not cut.
const LAG_ENTRIES_MAX: u64 = 1_000;

/// A member that has been silent for so long is not waited for.
const SILENT: Duration = Duration::from_secs(60);

/// What the leader knows of members that it sent a snapshot to.
#[derive(Default)]
pub struct CatchUp {
    /// The members; each stays here until it has caught up.
    members: Mutex<BTreeMap<NodeId, Transfers>>,
    is_wanted: AtomicBool,
    watched: OnceLock<Watched>,
}

struct Watched {
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    log: LogStore,
    log_bytes_max: u64,
}

/// The transfers to a member.
#[derive(Clone, Copy, Default)]
struct Transfers {
    under_way: usize,
    /// When the last one ended, whole or not. The member was there then, heard or not.
    ended: Option<std::time::Instant>,
}

/// A transfer that is under way.
pub struct Transfer {
    catch_up: Arc<CatchUp>,
    to: NodeId,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(transfers) = locked(&self.catch_up.members).get_mut(&self.to) {
            transfers.under_way = transfers.under_way.saturating_sub(1);
            transfers.ended = Some(std::time::Instant::now());
        }
    }
}

impl CatchUp {
    /// From now on, members are looked for in `metrics`. Nothing is held back while `log` is larger than `log_bytes_max`.
    pub fn watch(
        &self,
        metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
        log: LogStore,
        log_bytes_max: u64,
    ) {
        // There is one consensus for each state machine.
        let _ = self.watched.set(Watched { metrics, log, log_bytes_max });
    }

    /// A snapshot is on its way to a member for as long as what this returns lives.
    pub fn begin(self: &Arc<Self>, to: NodeId) -> Transfer {
        locked(&self.members).entry(to).or_default().under_way += 1;
        Transfer { catch_up: self.clone(), to }
    }

    /// The next snapshot is made whether or not a member catches up: an operator asked for it.
    pub fn want_snapshot(&self) {
        self.is_wanted.store(true, Ordering::Release);
    }

    /// The snapshot that was asked for is made: the next one waits as others do.
    pub fn has_snapshot(&self) {
        self.is_wanted.store(false, Ordering::Release);
    }

    /// Whether a snapshot that is due has to wait.
    pub fn holds(&self) -> bool {
        if self.is_wanted.swap(false, Ordering::AcqRel) {
            return false;
        }
        let Some(watched) = self.watched.get() else { return false };
        let metrics = watched.metrics.borrow_watched();
        let mut members = locked(&self.members);
        members.retain(|member, transfers| needs_the_log(&metrics, *member, transfers));
        if members.is_empty() {
            return false;
        }
        let (log_bytes, log_bytes_max) = (watched.log.bytes(), watched.log_bytes_max);
        let members: Vec<u64> = members.keys().map(|member| member.0).collect();
        if log_bytes > log_bytes_max {
            tracing::warn!(
                ?members,
                log_bytes,
                log_bytes_max,
                "the log is cut although members have not caught up: they will need another snapshot"
            );
            return false;
        }
        tracing::info!(?members, log_bytes, "a snapshot waits until members have caught up");
        true
    }
}

/// Whether a member that was sent a snapshot still needs the entries behind it.
fn needs_the_log(metrics: &RaftMetrics<TypeConfig>, member: NodeId, transfers: &Transfers) -> bool {
    // Empty unless this node leads.
    let Some(matched) = metrics.replication.as_ref().and_then(|all| all.get(&member.0)) else {
        return false;
    };
    let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
    let matched = next(matched.as_ref().map(|log_id| log_id.index));
    let lags = next(metrics.last_log_index).saturating_sub(matched) > LAG_ENTRIES_MAX;
    let heard = metrics.heartbeat.as_ref().and_then(|all| *all.get(&member.0)?);
    let is_there = heard.is_some_and(|heard| heard.into_inner().elapsed() < SILENT)
        || transfers.ended.is_some_and(|ended| ended.elapsed() < SILENT);
    transfers.under_way > 0 || (lags && is_there)
}
