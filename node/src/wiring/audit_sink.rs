//! Where audit entries go besides the cluster's own log: a file of this node, and the policy's webhook.
//!
//! The file gets every entry that this node applies, once, and goes on after a restart where it ended. The webhook gets
//! them from whoever leads, in order; what it does not take is sent again. Another leader begins a page back: entries may
//! come twice, and if the webhook was away for longer than that, the file or `nora audit` has what is missing.

use std::io::{BufRead, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nora_app::Registry;
use nora_cluster::Cluster;
use nora_domain::identity::AuditRecord;
use serde_json::json;
use tracing::warn;

use crate::identity::Policies;

const INTERVAL: Duration = Duration::from_secs(1);
const PAGE: usize = 500;
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// An entry as one line of JSON.
pub(super) fn line(number: u64, entry: &AuditRecord) -> String {
    use std::fmt::Write;
    let hash = entry.chain.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    json!({
        "number": number,
        "at": entry.at.0,
        "actor": entry.actor.subject,
        "address": entry.actor.address,
        "request_id": entry.actor.request,
        "action": entry.action,
        "resource": entry.resource,
        "result": entry.result,
        "count": entry.count,
        "hash": hash,
    })
    .to_string()
}

/// The number of the last whole line of a file, 0 if there is none. A line that a crash cut off is taken away.
fn last_number(path: &Path) -> std::io::Result<u64> {
    let mut file = match std::fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let (mut last, mut whole) = (0, 0u64);
    let mut reader = std::io::BufReader::new(&mut file);
    let mut text = String::new();
    while reader.read_line(&mut text)? > 0 {
        if !text.ends_with('\n') {
            break;
        }
        let entry: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        last = entry.and_then(|entry| entry["number"].as_u64()).unwrap_or(last);
        whole += text.len() as u64;
        text.clear();
    }
    file.set_len(whole)?;
    file.seek(std::io::SeekFrom::End(0))?;
    Ok(last)
}

/// Appends what this node applies to a file.
pub(super) async fn to_file(path: PathBuf, registry: Registry) {
    let begun = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || last_number(&path)).await
    };
    let mut last = match begun {
        Ok(Ok(last)) => last,
        Ok(Err(error)) => {
            warn!(path = %path.display(), %error, "no audit entries are written to this file");
            return;
        }
        Err(_) => return,
    };
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        if let Err(error) = append(&path, &registry, &mut last).await {
            warn!(path = %path.display(), %error, "audit entries are not written to this file; trying again");
            // Half a page may have been written.
            let path = path.clone();
            if let Ok(Ok(number)) = tokio::task::spawn_blocking(move || last_number(&path)).await {
                last = number;
            }
        }
    }
}

async fn append(
    path: &Path,
    registry: &Registry,
    last: &mut u64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    loop {
        let page = registry.audit_entries(*last, PAGE).await?;
        let Some((newest, _)) = page.items.last() else { return Ok(()) };
        let (newest, path) = (*newest, path.to_owned());
        let lines: String =
            page.items.iter().map(|(number, entry)| line(*number, entry) + "\n").collect();
        tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::OpenOptionsExt;
            let mut file =
                std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            file.write_all(lines.as_bytes())?;
            file.sync_data()
        })
        .await??;
        *last = newest;
        if !page.more {
            return Ok(());
        }
    }
}

/// Sends entries to the policy's webhook while this node leads.
pub(super) async fn to_webhook(registry: Registry, policies: Arc<Policies>, cluster: Arc<Cluster>) {
    let client = match reqwest::Client::builder()
        .timeout(WEBHOOK_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
    {
        Ok(client) => client,
        Err(error) => {
            warn!(%error, "audit entries are sent nowhere");
            return;
        }
    };
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut last: Option<u64> = None;
    loop {
        ticks.tick().await;
        let status = cluster.status();
        let url = policies.in_force().policy().document().audit.webhook.clone();
        let (Some(url), true) = (url, status.leader == Some(status.node)) else {
            continue;
        };
        let after = match last {
            Some(last) => last,
            // Whoever begins to lead does not know what was sent: a page again is better than one missing.
            None => match registry.audit_head().await {
                Ok(head) => head.next.saturating_sub(1 + PAGE as u64),
                Err(_) => continue,
            },
        };
        let Ok(page) = registry.audit_entries(after, PAGE).await else { continue };
        let Some((newest, _)) = page.items.last() else { continue };
        let body: String =
            page.items.iter().map(|(number, entry)| line(*number, entry) + "\n").collect();
        let sent = client.post(&url).header("content-type", "application/x-ndjson").body(body);
        match sent.send().await {
            Ok(answer) if answer.status().is_success() => last = Some(*newest),
            Ok(answer) => {
                warn!(status = %answer.status(), "the audit webhook takes no entries; sending again")
            }
            Err(error) => {
                warn!(error = %error.without_url(), "the audit webhook does not answer; sending again");
            }
        }
    }
}
