//! The log of what was done, and whether it is whole.

use std::time::Duration;

use nora_proto::v1 as proto;
use nora_proto::v1::audit_client::AuditClient;
use serde::Serialize;

use super::{AdminClient, AdminError, unless_zero};

/// The server reads everything that is kept: a year of a busy registry takes more than a moment.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(600);

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only from this time on, in milliseconds of Unix time.
    pub since: Option<u64>,
    /// Only of this actor, as `user:alice`.
    pub actor: Option<String>,
    /// Only about resources that start so, as `oci:frontend/`.
    pub resource: Option<String>,
}

/// Something that was done, or refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its place in the log.
    pub number: u64,
    /// When, in milliseconds of Unix time.
    pub at: u64,
    /// Who, as `user:alice`.
    pub actor: String,
    /// Where the request came from.
    pub address: String,
    /// Which request it was.
    pub request_id: String,
    /// What, as `artifact.push`.
    pub action: String,
    /// To what, as `oci:frontend/app:v1`.
    pub resource: String,
    /// `done`, or why it was refused.
    pub result: String,
    /// How many times, for refusals that were counted together.
    pub count: u32,
    /// SHA-256 over the hash before it and the entry, hexadecimal.
    pub hash: String,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPage {
    /// Entries that the filter lets through, in order.
    pub entries: Vec<AuditEntry>,
    /// Whether there are more.
    pub more: bool,
    /// Where to go on, even if the filter left nothing of this page.
    pub last: u64,
}

/// What the server found when it computed every hash again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditVerdict {
    /// The first entry that is kept.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The first entry whose hash is not what it should be; none if the chain is whole.
    pub broken_at: Option<u64>,
    /// The hash of the last entry. Kept elsewhere, it shows later that nothing up to here was changed.
    pub head: String,
}

impl From<proto::AuditEntry> for AuditEntry {
    fn from(entry: proto::AuditEntry) -> Self {
        Self {
            number: entry.number,
            at: entry.at,
            actor: entry.actor,
            address: entry.address,
            request_id: entry.request_id,
            action: entry.action,
            resource: entry.resource,
            result: entry.result,
            count: entry.count.max(1),
            hash: entry.hash,
        }
    }
}

impl AdminClient {
    /// A page of the log after an entry's number, 0 for its beginning. A caller that goes on from `last` reads it all.
    pub async fn audit_page(
        &self,
        filter: &AuditFilter,
        after: u64,
        page_size: u32,
    ) -> Result<AuditPage, AdminError> {
        let request = proto::ListAuditRequest {
            after,
            page_size,
            since: filter.since.unwrap_or(0),
            actor: filter.actor.clone().unwrap_or_default(),
            resource: filter.resource.clone().unwrap_or_default(),
        };
        let listed = self.call(request, async |channel, request| {
            AuditClient::new(channel).list_audit(request).await
        });
        let proto::ListAuditResponse { entries, more, last } = listed.await?;
        let entries: Vec<AuditEntry> = entries.into_iter().map(AuditEntry::from).collect();
        // Never backwards, or whoever follows the log would be told the same again.
        let last = entries.last().map_or(last, |entry| last.max(entry.number)).max(after);
        if more && last == after {
            return Err(AdminError::Malformed { expected: "list with an end" });
        }
        Ok(AuditPage { entries, more, last })
    }

    /// The key by which a receiver tells that the webhook's requests come from this cluster; `None` if the cluster has no
    /// secret yet.
    pub async fn webhook_key(&self) -> Result<Option<String>, AdminError> {
        let told = self.call(proto::GetWebhookKeyRequest {}, async |channel, request| {
            AuditClient::new(channel).get_webhook_key(request).await
        });
        Ok(Some(told.await?.key).filter(|key| !key.is_empty()))
    }

    /// Has every hash of the log computed again.
    pub async fn verify_audit(&self) -> Result<AuditVerdict, AdminError> {
        let verified = self.call(proto::VerifyAuditRequest {}, async |channel, mut request| {
            request.set_timeout(VERIFY_TIMEOUT);
            AuditClient::new(channel).verify_audit(request).await
        });
        let proto::VerifyAuditResponse { first, last, broken_at, head } = verified.await?;
        Ok(AuditVerdict { first, last, broken_at: unless_zero(broken_at), head })
    }
}
