//! What was refused is written down with who, where and what; the chain is whole and the same on every node.

use std::time::{Duration, Instant};

use nora_client::admin::{AuditEntry, AuditFilter};

use serde_json::json;

use crate::stage::{Login, NODES, Stage, Step, ensure};

const REFUSALS: usize = 30;
/// How long entries may take to be written and to reach all nodes.
const SETTLED: Duration = Duration::from_secs(10);

async fn entries_of(stage: &Stage, node: usize, actor: &str) -> Step<Vec<AuditEntry>> {
    let filter = AuditFilter { actor: Some(actor.to_owned()), ..AuditFilter::default() };
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let page = stage.admins[node].audit_page(&filter, after, 0).await?;
        entries.extend(page.entries);
        if !page.more {
            return Ok(entries);
        }
        after = page.last;
    }
}

fn refused(entries: &[AuditEntry], resource: &str) -> u64 {
    let about = |entry: &&AuditEntry| {
        entry.action == "artifact.push"
            && entry.resource == resource
            && entry.result.starts_with("refused")
    };
    entries.iter().filter(about).map(|entry| u64::from(entry.count)).sum()
}

/// Pushes that are refused on all nodes: their entries, and their number to the last one.
pub async fn refusals(stage: &Stage, reader: &Login) -> Step<String> {
    let resource = "oci:free/refused";
    let before = refused(&entries_of(stage, 0, "robot:reader").await?, resource);
    for number in 0..REFUSALS {
        let answer = stage.open_upload(number, reader, "free/refused").await?;
        answer.must_be(403, "a push of the reader")?;
    }
    let began = Instant::now();
    for node in 0..NODES {
        loop {
            let entries = entries_of(stage, node, "robot:reader").await?;
            let count = refused(&entries, resource) - before;
            if count == REFUSALS as u64 {
                let one = entries.iter().find(|entry| entry.resource == resource);
                let whole = one.is_some_and(|entry| {
                    entry.address == "127.0.0.1" && !entry.request_id.is_empty() && entry.at > 0
                });
                ensure(whole, || format!("not who, where and what: {one:?}"))?;
                break;
            }
            ensure(began.elapsed() < SETTLED && count < REFUSALS as u64, || {
                format!("node {} has {count} of {REFUSALS} refusals", node + 1)
            })?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(format!("{REFUSALS} refused pushes are {REFUSALS} in the log of every node"))
}

/// A refusal that comes from the log itself, a token that is shown again, is one refusal and not two.
pub async fn counts_once(stage: &Stage) -> Step<String> {
    let count = async || {
        let entries = entries_of(stage, 0, "anonymous").await?;
        let about = |entry: &&AuditEntry| entry.result.contains("exchanged before");
        Step::Ok(entries.iter().filter(about).map(|entry| u64::from(entry.count)).sum::<u64>())
    };
    let token = stage.github(json!({}))?;
    stage.exchange(0, &token).await?.must_be(200, "an exchange")?;
    // Those of earlier checks are all there once these are: they came before.
    let before = count().await?;
    for _ in 0..REFUSALS {
        stage.exchange(0, &token).await?.must_be(401, "a token shown again")?;
    }
    let began = Instant::now();
    while count().await? < before + REFUSALS as u64 {
        ensure(began.elapsed() < SETTLED, || "refused exchanges are not in the log".into())?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What would be too many comes with the same write or the next.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let added = count().await? - before;
    ensure(added == REFUSALS as u64, || format!("{REFUSALS} refusals are counted as {added}"))?;
    Ok(format!("{REFUSALS} exchanges of a used token are {REFUSALS} refusals"))
}

/// Every node computes the same chain.
pub async fn is_whole(stage: &Stage) -> Step<String> {
    let began = Instant::now();
    loop {
        let mut verdicts = Vec::new();
        for admin in &stage.admins {
            let verdict = admin.verify_audit().await?;
            ensure(verdict.broken_at.is_none(), || format!("{verdict:?}"))?;
            verdicts.push(verdict);
        }
        if verdicts.iter().all(|verdict| *verdict == verdicts[0]) {
            let (first, last) = (verdicts[0].first, verdicts[0].last);
            ensure(last > first, || format!("{last} entries prove nothing"))?;
            let mut done = 0;
            for actor in ["admin", "robot:load", "robot:reader"] {
                done += usize::from(!entries_of(stage, 1, actor).await?.is_empty());
            }
            ensure(done == 3, || format!("{done} of 3 actors are in the log"))?;
            return Ok(format!("{} entries, the same on every node", last + 1 - first));
        }
        ensure(began.elapsed() < SETTLED, || format!("not the same: {verdicts:?}"))?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
