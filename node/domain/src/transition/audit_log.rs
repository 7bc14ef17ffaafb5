//! The audit log: who did what, and what they were refused, in the order of the log and chained by hashes.
//!
//! Guarantees: a change that somebody asked for and its entry are one step; entries are numbered without gaps; each holds
//! the chain's value after it, so that an entry cannot be changed, left out or put in without every later value changing.
//! What is read again after a retry (a policy that changed meanwhile) is noted once, with its last answer.

use super::{Decision, Step};
use crate::command::{Action, Outcome, Refusal};
use crate::identity::{Actor, AuditHeadRecord, AuditRecord, RefusalNote};
use crate::name::{RepositoryKey, TagName};
use crate::record::{Key, Record, Timestamp};
use crate::store::{Rows, Store};

/// Entries that one step forgets.
const TRIMMED_MAX: usize = 512;

/// What an entry says of a change that went through.
const DONE: &str = "done";

impl Action {
    /// What somebody asks for with it, and about what, as the audit log says it; `None` for what is no change of anything
    /// that people know of.
    pub fn described(&self) -> Option<(&'static str, String)> {
        let blob = |repository: &RepositoryKey, digest| format!("{repository}@{digest}");
        Some(match self {
            Action::CommitBlob { repository, digest, .. } => {
                ("blob.push", blob(repository, digest))
            }
            Action::MountBlob { to, digest, .. } => ("blob.mount", blob(to, digest)),
            Action::UnlinkBlob { repository, digest } => ("blob.delete", blob(repository, digest)),
            Action::PutArtifact { repository, digest, tags, .. } => {
                let tags: Vec<_> = tags.iter().take(8).map(TagName::as_str).collect();
                let colon = if tags.is_empty() { "" } else { ":" };
                let resource = format!("{repository}{colon}{}@{digest}", tags.join(","));
                ("artifact.push", resource)
            }
            Action::DeleteArtifact { repository, digest } => {
                ("artifact.delete", blob(repository, digest))
            }
            Action::DeleteTag { repository, tag } => ("tag.delete", format!("{repository}:{tag}")),
            Action::SetPolicy { .. } => ("policy.set", "policy".to_owned()),
            Action::CreateAccount { account, .. } => ("account.create", account.to_string()),
            Action::SetPassword { account, .. } => ("account.password", account.to_string()),
            Action::RemoveAccount { account } => ("account.remove", account.to_string()),
            Action::CreateAccessToken { record, assertion, .. } => {
                let action = if assertion.is_some() { "token.exchange" } else { "token.create" };
                (action, format!("{}/{}", record.owner, record.name))
            }
            Action::RevokeAccessToken { token } => ("token.revoke", format!("{:032x}", token.0)),
            _ => return None,
        })
    }
}

impl<S: Store> Step<'_, S> {
    /// Notes what somebody asked for and what came of it; false if that is not for the log.
    pub(super) fn note(
        &mut self,
        action: &Action,
        answer: &Result<Outcome, Refusal>,
    ) -> Result<bool, S::Error> {
        let Some(actor) = &self.terms.by else { return Ok(false) };
        let Some((action, resource)) = action.described() else { return Ok(false) };
        let result = match answer {
            Ok(_) => DONE.to_owned(),
            // Asked again under the policy that is in force now.
            Err(Refusal::PolicyChanged { .. } | Refusal::RepositoryChanged) => return Ok(false),
            Err(refusal) => format!("refused: {}", refusal.reason()),
        };
        self.append_entry(actor, action, resource, result, 1)?;
        Ok(true)
    }

    pub(super) fn note_refusals(
        &mut self,
        refusals: &[RefusalNote],
    ) -> Decision<Outcome, S::Error> {
        for note in refusals {
            let (resource, result) = (note.resource.clone(), note.result.clone());
            self.append_entry(&note.actor, &note.action, resource, result, note.count)?;
        }
        Ok(Outcome::RefusalsNoted)
    }

    fn append_entry(
        &mut self,
        actor: &Actor,
        action: &str,
        resource: String,
        result: String,
        count: u32,
    ) -> Result<(), S::Error> {
        let mut head = self.audit_head()?;
        let mut entry = AuditRecord {
            at: self.now,
            actor: actor.clone(),
            action: action.to_owned(),
            resource,
            result,
            count,
            chain: [0; 32],
        };
        entry.chain = entry.chained(&head.head, head.next);
        head.head = entry.chain;
        self.store.put(Key::Audit(head.next), Record::Audit(entry))?;
        head.next = head.next.saturating_add(1);
        self.store.put(Key::AuditHead, Record::AuditHead(head))
    }

    fn audit_head(&self) -> Result<AuditHeadRecord, S::Error> {
        let head = read!(self.store, AuditHead, Key::AuditHead);
        Ok(head.unwrap_or_else(|| AuditHeadRecord { first: 1, next: 1, ..Default::default() }))
    }

    /// Whoever leads sends entries; of two who believe they do, the one that is ahead counts.
    pub(super) fn note_audit_sent(&mut self, number: u64) -> Decision<Outcome, S::Error> {
        let mut head = self.audit_head()?;
        let sent = head.sent.max(number.min(head.next.saturating_sub(1)));
        if sent != head.sent {
            head.sent = sent;
            self.store.put(Key::AuditHead, Record::AuditHead(head))?;
        }
        Ok(Outcome::AuditSentNoted)
    }

    pub(super) fn trim_audit(&mut self, before: Timestamp) -> Decision<Outcome, S::Error> {
        let mut head = self.audit_head()?;
        let rows = Rows::Audit { after: head.first.saturating_sub(1) };
        let mut trimmed = 0;
        for (key, record) in self.store.scan(&rows, TRIMMED_MAX)? {
            let (Key::Audit(number), Record::Audit(entry)) = (&key, record) else { continue };
            if entry.at >= before {
                break;
            }
            head.first = number.saturating_add(1);
            head.anchor = entry.chain;
            self.store.delete(&key)?;
            trimmed += 1;
        }
        if trimmed > 0 {
            self.store.put(Key::AuditHead, Record::AuditHead(head))?;
        }
        Ok(Outcome::AuditTrimmed { more: trimmed == TRIMMED_MAX })
    }
}
