//! The policy in force, and putting another one into force.
//!
//! Must not know what a policy says: the document is JSON here, and judged by the server.

use nora_proto::v1 as proto;
use nora_proto::v1::policy_client::PolicyClient;
use serde::Serialize;
use serde_json::Value;

use super::{AdminClient, AdminError, unless_zero};

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyInForce {
    /// Counts the policies that were in force; 0 is none.
    pub epoch: u64,
    /// SHA-256 of the document, hexadecimal.
    pub hash: String,
    /// The document, with password hashes left out.
    pub document: Value,
    /// Since when, in milliseconds of Unix time.
    pub applied_at: Option<u64>,
    /// Who put it into force.
    pub applied_by: String,
    /// SHA-256 of what the answering node's own file says, if it differs.
    pub file_hash: Option<String>,
}

/// What another policy changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyChange {
    /// The count of the policy that is in force now.
    pub epoch: u64,
    /// What differs, a line each, as `+ auth.rules[2].permissions: push:prod/*`.
    pub changes: Vec<String>,
    /// What is likely not meant, a line each, as a rule about somebody who is not there.
    pub warnings: Vec<String>,
}

impl AdminClient {
    /// The policy in force.
    pub async fn policy(&self) -> Result<PolicyInForce, AdminError> {
        let shown = self.call(proto::ShowPolicyRequest {}, async |channel, request| {
            PolicyClient::new(channel).show_policy(request).await
        });
        let shown = shown.await?;
        let document = match shown.document.as_str() {
            "" => Value::Object(serde_json::Map::new()),
            text => serde_json::from_str(text)
                .map_err(|_| AdminError::Malformed { expected: "policy" })?,
        };
        Ok(PolicyInForce {
            epoch: shown.epoch,
            hash: shown.hash,
            document,
            applied_at: unless_zero(shown.applied_at),
            applied_by: shown.applied_by,
            file_hash: Some(shown.file_hash).filter(|hash| !hash.is_empty()),
        })
    }

    /// Has a policy checked, and tells what it would change.
    pub async fn try_policy(&self, document: &str) -> Result<PolicyChange, AdminError> {
        self.send_policy(document, true, None).await
    }

    /// Has a policy checked and puts it into force, whole or not at all. With `expected`, only if that is the count of
    /// the one in force: whoever looked at a difference gets just that.
    pub async fn apply_policy(
        &self,
        document: &str,
        expected: Option<u64>,
    ) -> Result<PolicyChange, AdminError> {
        self.send_policy(document, false, expected).await
    }

    async fn send_policy(
        &self,
        document: &str,
        dry_run: bool,
        expected: Option<u64>,
    ) -> Result<PolicyChange, AdminError> {
        let document = document.to_owned();
        let expected_epoch = expected.unwrap_or(0);
        let request = proto::ApplyPolicyRequest { document, dry_run, expected_epoch };
        let applied = self.call(request, async |channel, request| {
            PolicyClient::new(channel).apply_policy(request).await
        });
        let proto::ApplyPolicyResponse { epoch, changes, warnings } = applied.await?;
        Ok(PolicyChange { epoch, changes, warnings })
    }
}
