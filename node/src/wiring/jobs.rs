//! The jobs of a node that has entered its cluster. The membership has jobs of its own, which begin before that.
//!
//! What follows requests or events is no job: listeners and connections, proposals and the log, copies that are sent with
//! a push, the counting of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nora_app::Registry;
use nora_app::jobs::{Job, Schedule, Turn, job};
use nora_app::ports::clock::Clock;
use nora_app::ports::{BoxError, BoxFuture};
use nora_app::uploads::Expired;
use nora_cluster::{Cluster, PositionedEvent};
use nora_domain::{Event, Timestamp};
use nora_egress::Egress;
use nora_objects::ObjectBlobs;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, broadcast};
use tracing::info;

use super::audit_sink;
use super::storage::Storage;
use crate::jobs::Leadership;
use crate::memory;
use crate::server::Certificate;
use nora_config::Config;
use nora_identity::{Guard, Policies};

/// How often the journal is looked at: rarely enough to cost nothing, often enough that few entries gather above its bound.
const JOURNAL_INTERVAL: Duration = Duration::from_secs(5);
/// How often expired uploads and signing keys are looked for, and pulls are written down.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of the journal that stay in the state; older entries are sealed.
const JOURNAL_BYTES_MAX: u64 = 8 << 20;
/// How often abandoned parts are looked for in the bucket.
const ABANDONED_INTERVAL: Duration = Duration::from_secs(3600);
/// How often certificate files are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);
/// How often changes of identities are looked for that no event tells of: a snapshot brings such changes.
const IDENTITY_INTERVAL: Duration = Duration::from_millis(250);
/// How long refusals wait to be written.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(1);
/// How often unused shares of tenants' requests go back.
const SHARES_INTERVAL: Duration = Duration::from_secs(10);

/// How often memory that was freed may be given back, and how much must have come before it is.
const MEMORY_INTERVAL: Duration = Duration::from_secs(5);
const MEMORY_GROWTH: u64 = 8 << 20;

/// Tells by consensus whether this node leads.
pub(super) struct ByConsensus(pub(super) Arc<Cluster>);

impl Leadership for ByConsensus {
    fn leads(&self) -> bool {
        let status = self.0.status();
        status.leader == Some(status.node)
    }
}

/// What the jobs work on.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) wall: &'a Arc<dyn Clock>,
    pub(super) cluster: &'a Arc<Cluster>,
    pub(super) registry: &'a Registry,
    pub(super) guard: &'a Arc<Guard>,
    pub(super) policies: &'a Arc<Policies>,
    pub(super) egress: &'a Egress,
    pub(super) storage: &'a Storage,
    pub(super) certificate: Option<&'a Arc<Certificate>>,
}

impl Parts<'_> {
    /// Every job of the node.
    pub(super) fn jobs(&self) -> Vec<Arc<dyn Job>> {
        let mut jobs = vec![self.uploads(), self.pulls(), self.identity(), self.journal()];
        jobs.push(freed_memory());
        jobs.extend(self.guarding());
        let (registry, cluster) = (self.registry.clone(), self.cluster.clone());
        let egress = self.egress.clone();
        jobs.push(audit_sink::to_webhook(registry, self.guard.clone(), cluster, egress));
        if let Some(path) = self.config.log.audit_file.clone() {
            jobs.push(audit_sink::to_file(path, self.registry.clone()));
        }
        if let Some(certificate) = self.certificate {
            jobs.push(Arc::new(TlsCertificate::new(certificate.clone())));
        }
        match self.storage {
            Storage::Nodes(replicated) => jobs.extend(replicated.jobs()),
            Storage::Bucket(objects) => jobs.push(self.bucket_sweep(objects.clone())),
        }
        jobs
    }

    fn uploads(&self) -> Arc<dyn Job> {
        let registry = self.registry.clone();
        let reached = Arc::new(Mutex::new(None));
        job(Schedule::every("uploads-expire", UPKEEP_INTERVAL), move || {
            let (registry, reached) = (registry.clone(), reached.clone());
            async move {
                let mut reached = reached.lock().await;
                // After a failure the next turn begins at the front.
                let Expired { dropped, next } = registry.uploads().expire(reached.take()).await?;
                if dropped > 0 {
                    info!(sessions = dropped, "expired uploads dropped");
                }
                *reached = next;
                Ok(Turn::more_if(reached.is_some()).count("dropped", dropped as u64))
            }
        })
    }

    fn pulls(&self) -> Arc<dyn Job> {
        let registry = self.registry.clone();
        job(Schedule::every("pulls", UPKEEP_INTERVAL), move || {
            let registry = registry.clone();
            async move {
                Ok(Turn::done().count("written", registry.artifacts().write_pulls().await? as u64))
            }
        })
    }

    fn identity(&self) -> Arc<dyn Job> {
        Arc::new(IdentityReload {
            guard: self.guard.clone(),
            events: Mutex::new(self.cluster.subscribe()),
        })
    }

    /// What the guard wrote down for later, and its keys.
    fn guarding(&self) -> Vec<Arc<dyn Job>> {
        let of = || self.guard.clone();
        let (refusals, uses, shares, keys) = (of(), of(), of(), of());
        vec![
            job(Schedule::every("refusals-write", REFUSALS_INTERVAL), move || {
                let guard = refusals.clone();
                async move { Ok(Turn::done().count("written", guard.write_refusals().await?)) }
            }),
            job(Schedule::every("token-uses-write", UPKEEP_INTERVAL), move || {
                let guard = uses.clone();
                async move { Ok(Turn::done().count("written", guard.write_uses().await?)) }
            }),
            job(Schedule::every("shares-return", SHARES_INTERVAL), move || {
                let guard = shares.clone();
                async move { Ok(Turn::done().count("returned", guard.give_back_shares().await?)) }
            }),
            job(Schedule::every("signing-keys", UPKEEP_INTERVAL), move || {
                let guard = keys.clone();
                async move { Ok(guard.make_keys().await.map(|()| Turn::done())?) }
            }),
        ]
    }

    fn journal(&self) -> Arc<dyn Job> {
        let (registry, policies) = (self.registry.clone(), self.policies.clone());
        job(Schedule::every("journal", JOURNAL_INTERVAL).on_leader(), move || {
            let (registry, policies) = (registry.clone(), policies.clone());
            async move {
                let kept_secs = policies.in_force().policy().document().audit.retention_seconds;
                keep_journal(&registry, kept_secs.saturating_mul(1_000)).await
            }
        })
    }

    fn bucket_sweep(&self, objects: ObjectBlobs) -> Arc<dyn Job> {
        let (registry, wall) = (self.registry.clone(), self.wall.clone());
        let oldest_millis = 2 * self.registry.uploads().expiry_millis();
        job(Schedule::every("bucket-sweep", ABANDONED_INTERVAL).on_leader(), move || {
            let (objects, registry) = (objects.clone(), registry.clone());
            let before = Timestamp(wall.now().0.saturating_sub(oldest_millis));
            async move { drop_abandoned(&objects, &registry, before).await }
        })
    }
}

/// Gives freed memory back once the process has grown.
fn freed_memory() -> Arc<dyn Job> {
    let least = Arc::new(AtomicU64::new(0));
    // After a turn that gave much back, the next one looks again: what was in use then may be free now, and nothing has to
    // grow for that.
    let again = Arc::new(AtomicBool::new(false));
    job(Schedule::every("memory-give-back", MEMORY_INTERVAL), move || {
        let (least, again) = (least.clone(), again.clone());
        async move {
            let given = tokio::task::spawn_blocking(move || {
                let before = memory::private_bytes()?;
                least.fetch_min(before, Ordering::Relaxed);
                let has_grown = before >= least.load(Ordering::Relaxed) + MEMORY_GROWTH;
                if !again.swap(false, Ordering::Relaxed) && !has_grown {
                    return None;
                }
                memory::give_back();
                let after = memory::private_bytes()?;
                least.store(after, Ordering::Relaxed);
                let given = before.saturating_sub(after);
                again.store(has_grown || given >= MEMORY_GROWTH, Ordering::Relaxed);
                Some(given)
            });
            Ok(Turn::done().count("bytes given back", given.await?.unwrap_or(0)))
        }
    })
}

/// Lets no revoked credential and no old policy outlive the entry that ended it.
struct IdentityReload {
    guard: Arc<Guard>,
    events: Mutex<broadcast::Receiver<PositionedEvent>>,
}

impl Job for IdentityReload {
    fn schedule(&self) -> Schedule {
        Schedule::every("identity-reload", IDENTITY_INTERVAL).retry_max(IDENTITY_INTERVAL)
    }

    fn turn(&self) -> BoxFuture<'_, Result<Turn, BoxError>> {
        // While the policy that the cluster runs by cannot be used here, changes are refused.
        Box::pin(async { Ok(self.guard.reload().await.map(|()| Turn::done())?) })
    }

    fn woken(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut events = self.events.lock().await;
            loop {
                match events.recv().await {
                    Ok(PositionedEvent { event, .. }) => {
                        if matches!(*event, Event::IdentityChanged) {
                            return;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        })
    }
}

/// Reads the certificate of the HTTP surface again when its files change, and at the hang-up signal.
struct TlsCertificate {
    certificate: Arc<Certificate>,
    /// `None` if the signal cannot be watched.
    hangup: Option<Mutex<Signal>>,
    asked: AtomicBool,
}

impl TlsCertificate {
    fn new(certificate: Arc<Certificate>) -> Self {
        let hangup = signal(SignalKind::hangup()).ok().map(Mutex::new);
        Self { certificate, hangup, asked: AtomicBool::new(false) }
    }
}

impl Job for TlsCertificate {
    fn schedule(&self) -> Schedule {
        Schedule::every("tls-certificate", CERTIFICATE_INTERVAL)
    }

    fn turn(&self) -> BoxFuture<'_, Result<Turn, BoxError>> {
        Box::pin(async {
            let asked = self.asked.swap(false, Ordering::Relaxed);
            let certificate = self.certificate.clone();
            let looked = tokio::task::spawn_blocking(move || certificate.look(asked)).await?;
            Ok(Turn::done().count("reloaded", u64::from(looked?)))
        })
    }

    fn woken(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(hangup) = &self.hangup else { return std::future::pending().await };
            if hangup.lock().await.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            self.asked.store(true, Ordering::Relaxed);
        })
    }
}

/// Seals the oldest part of the journal, because there is much of it or because its time is over, and forgets sealed parts that
/// are older than the policy keeps them: one at a turn.
async fn keep_journal(registry: &Registry, kept_millis: u64) -> Result<Turn, BoxError> {
    let first = registry.journal().head().await?.first;
    let mut more = registry.journal().seal(JOURNAL_BYTES_MAX).await?;
    if !more {
        registry.journal().seal_overdue(kept_millis).await?;
        more = registry.journal().drop_segments(kept_millis).await?;
    }
    let sealed = registry.journal().head().await?.first.saturating_sub(first);
    Ok(Turn::more_if(more).count("sealed", sealed))
}

/// Drops parts of uploads that a node left in the bucket: older than any session may be, and no node has a lease on them.
async fn drop_abandoned(
    objects: &ObjectBlobs,
    registry: &Registry,
    before: Timestamp,
) -> Result<Turn, BoxError> {
    let abandoned = objects.abandoned(before).await?;
    if abandoned.is_empty() {
        return Ok(Turn::done().count("dropped", 0));
    }
    let ids = abandoned.iter().map(|upload| upload.id).collect();
    let leased = registry.uploads().leased(&ids).await?;
    let mut dropped = 0;
    for upload in abandoned.iter().filter(|upload| !leased.contains(&upload.id)) {
        let id = format!("{:032x}", upload.id.0);
        info!(id, "dropping the parts of an abandoned upload");
        objects.abort(upload).await?;
        dropped += 1;
    }
    Ok(Turn::done().count("dropped", dropped))
}
