//! `nora.v1.Policy`, `nora.v1.Tenants` and `nora.v1.Audit`: what is in force, what is used, what was done.

use nora_app::tenants::TenantUsage;
use nora_auth::document::PolicyDocument;
use nora_domain::{About, Deed, Entry, Rate, Reason, Timestamp, Verb, hex};
use nora_proto::v1 as proto;
use nora_proto::v1::audit_server::Audit;
use nora_proto::v1::policy_server::Policy;
use nora_proto::v1::tenants_server::Tenants;
use tonic::{Request, Response, Status};

use super::{Admin, caller_of, page_rows, refused, to_the_end};
use nora_config::policy_changes;
use nora_identity::{
    AlreadyAuthorised, Policies, PolicyFailure, canonical, end_tokens_of_nobody, stranded,
    tenant_limits, unmatched,
};

/// A document as it may be shown: who is listed in the htpasswd file, and no hashes.
fn shown(mut document: PolicyDocument) -> PolicyDocument {
    if let Some(auth) = &mut document.auth {
        auth.htpasswd.values_mut().for_each(String::clear);
    }
    document
}

impl Admin {
    async fn document_in_force(&self) -> Result<(u64, PolicyDocument), Status> {
        self.api.registry.catch_up().await.map_err(refused)?;
        let Some(record) = self.api.registry.access().policy().await.map_err(refused)? else {
            return Ok((0, PolicyDocument::default()));
        };
        let document = serde_json::from_slice(&record.document).map_err(|error| {
            Status::internal(format!("the policy in force is not readable: {error}"))
        })?;
        Ok((record.epoch, document))
    }
}

#[tonic::async_trait]
impl Policy for Admin {
    async fn show_policy(
        &self,
        _request: Request<proto::ShowPolicyRequest>,
    ) -> Result<Response<proto::ShowPolicyResponse>, Status> {
        let (epoch, document) = self.document_in_force().await?;
        let record = self.api.registry.access().policy().await.map_err(refused)?;
        let failed = |error: serde_json::Error| Status::internal(error.to_string());
        let (_, own) = canonical(&self.policy).map_err(failed)?;
        let hash = record.as_ref().map(|record| record.hash);
        Ok(Response::new(proto::ShowPolicyResponse {
            epoch,
            hash: hash.map(|hash| hex::encode(&hash)).unwrap_or_default(),
            document: serde_json::to_string(&shown(document)).map_err(failed)?,
            applied_at: record.as_ref().map_or(0, |record| record.applied_at.0),
            applied_by: record.map_or_else(String::new, |record| {
                record.applied_by.map_or_else(|| "cluster".to_owned(), |by| by.to_string())
            }),
            file_hash: match hash {
                Some(hash) if hash != own => hex::encode(&own),
                _ => String::new(),
            },
        }))
    }

    async fn apply_policy(
        &self,
        request: Request<proto::ApplyPolicyRequest>,
    ) -> Result<Response<proto::ApplyPolicyResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let note = |why: Reason| {
            if !request.dry_run {
                caller.note_refusal(Deed::new(Verb::PolicySet, About::Policy), why);
            }
        };
        let policy =
            Policies::compiled(request.document.as_bytes()).map_err(|failure| match failure {
                PolicyFailure::Metadata(error) => refused(error),
                failure => {
                    note(Reason::InvalidPolicy);
                    Status::invalid_argument(failure.to_string())
                }
            })?;
        let registry = &self.api.registry;
        let document = policy.document().clone();
        let (epoch, before) = self.document_in_force().await?;
        let changes = policy_changes(&before, &document);
        if let Some(stranded) = stranded(registry, &policy).await.map_err(refused)? {
            note(Reason::NamespaceTaken);
            return Err(Status::failed_precondition(format!(
                "{stranded}: what is stored stays with the tenant it was pushed to. Delete its images and push them again, \
                 or leave the namespace as it is"
            )));
        }
        let mut warnings = unmatched(registry, &policy).await.map_err(refused)?;
        if request.dry_run {
            return Ok(Response::new(proto::ApplyPolicyResponse { epoch, changes, warnings }));
        }
        if request.expected_epoch > 0 && request.expected_epoch != epoch {
            return Err(refused(nora_app::Error::Conflict {
                what: format!(
                    "policy {epoch} is in force now; look at it with 'nora policy diff' and apply yours again"
                ),
            }));
        }
        let (bytes, hash) =
            canonical(&document).map_err(|error| Status::internal(error.to_string()))?;
        let by_caller = registry.by(std::sync::Arc::new(caller.clone()));
        // Their own login may be what the policy takes away.
        let by_itself =
            registry.by(std::sync::Arc::new(AlreadyAuthorised { actor: caller.actor() }));
        let tenants = tenant_limits(&document);
        // What was looked at above is what is changed.
        let set = to_the_end(async move {
            let epoch = by_caller.access().set_policy(Some(epoch), bytes, hash, tenants).await?;
            end_tokens_of_nobody(&by_itself).await;
            Ok(epoch)
        });
        let epoch = set.await?.map_err(refused)?;
        if let Err(error) = self.api.guard.reload().await {
            tracing::error!(%error, "the policy that was just applied cannot be used here");
        }
        // Pushes that were judged before it may have come in between; those judged after it cannot.
        match stranded(registry, &policy).await {
            Ok(None) => {}
            Ok(Some(stranded)) => warnings.push(format!(
                "{stranded}: it was pushed while the policy was applied, and is out of sight now; push it again"
            )),
            Err(error) => warnings.push(format!(
                "the policy is in force; whether a push came in between that is out of sight now could not be looked at: {error}"
            )),
        }
        Ok(Response::new(proto::ApplyPolicyResponse { epoch, changes, warnings }))
    }
}

#[tonic::async_trait]
impl Tenants for Admin {
    async fn list_tenants(
        &self,
        request: Request<proto::ListTenantsRequest>,
    ) -> Result<Response<proto::ListTenantsResponse>, Status> {
        let wanted = request.into_inner().name;
        let registry = &self.api.registry;
        registry.catch_up().await.map_err(refused)?;
        let in_force = self.api.guard.policies().in_force();
        let mut tenants = Vec::new();
        for name in registry.tenants().list() {
            if !wanted.is_empty() && wanted != name.as_str() {
                continue;
            }
            let TenantUsage { name, used: usage, limits, pushes, pulls, anonymous_pulls } =
                registry.tenants().overview(name).await.map_err(refused)?;
            let namespaces = in_force.policy().tenant(name.as_str()).map(|tenant| {
                let each = tenant.namespaces.iter();
                let each = each.flat_map(|(format, globs)| {
                    globs.iter().map(move |glob| format!("{format}:{glob}"))
                });
                each.collect()
            });
            tenants.push(proto::Tenant {
                namespaces: namespaces.unwrap_or_default(),
                unique_bytes: usage.unique_bytes,
                reserved_bytes: usage.reserved_bytes,
                bytes: usage.bytes,
                artifacts: usage.artifacts,
                tags: usage.tags,
                storage_quota: limits.storage_quota.unwrap_or(0),
                artifact_quota: limits.artifact_quota.unwrap_or(0),
                push_limit: limits.push_limit.unwrap_or(0),
                pull_limit: limits.pull_limit.unwrap_or(0),
                pushes,
                pulls,
                anonymous_pull_limit: limits.limit(Rate::AnonymousPull).unwrap_or(0),
                anonymous_pulls,
                name: name.as_str().to_owned(),
            });
        }
        if tenants.is_empty() {
            return Err(Status::not_found(format!("there is no tenant {wanted}")));
        }
        Ok(Response::new(proto::ListTenantsResponse { tenants }))
    }
}

/// Whether an entry is of that actor, with whichever token.
fn is_of(entry: &Entry, actor: &str) -> bool {
    actor.is_empty() || entry.by.as_ref().is_some_and(|by| by.subject.to_string() == actor)
}

/// An entry in words; none for what no caller asked for.
fn entry_to_proto(number: u64, entry: Entry) -> Option<proto::AuditEntry> {
    let (deed, by) = (entry.deed?, entry.by.unwrap_or_default());
    Some(proto::AuditEntry {
        number,
        at: entry.at.0,
        actor: by.name(),
        address: by.address,
        request_id: by.request,
        action: deed.verb.to_string(),
        resource: deed.about.to_string(),
        result: entry.verdict.to_string(),
        hash: hex::encode(&entry.chain),
        count: entry.count,
    })
}

#[tonic::async_trait]
impl Audit for Admin {
    async fn list_audit(
        &self,
        request: Request<proto::ListAuditRequest>,
    ) -> Result<Response<proto::ListAuditResponse>, Status> {
        let request = request.into_inner();
        let registry = &self.api.registry;
        registry.catch_up().await.map_err(refused)?;
        let since = registry.journal().before(Timestamp(request.since)).await.map_err(refused)?;
        let (after, rows) = (request.after.max(since), page_rows(request.page_size));
        let page = registry.journal().entries(after, rows).await.map_err(refused)?;
        let last = page.items.last().map_or(after, |(number, _)| *number);
        let entries = page
            .items
            .into_iter()
            .filter(|(_, entry)| entry.at.0 >= request.since && is_of(entry, &request.actor))
            .filter_map(|(number, entry)| entry_to_proto(number, entry))
            .filter(|entry| entry.resource.starts_with(&request.resource))
            .collect();
        Ok(Response::new(proto::ListAuditResponse { entries, more: page.more, last }))
    }

    async fn get_webhook_key(
        &self,
        request: Request<proto::GetWebhookKeyRequest>,
    ) -> Result<Response<proto::GetWebhookKeyResponse>, Status> {
        if !caller_of(&request)?.is_in_person() {
            return Err(Status::permission_denied(
                "a token gets no key, because the key would outlive it: show a password, or the administrator's certificate",
            ));
        }
        let key = self.api.guard.webhook_key().await.map_err(|error| {
            Status::unavailable(format!("the cluster's secret could not be read: {error}"))
        })?;
        let key = key.unwrap_or_default();
        Ok(Response::new(proto::GetWebhookKeyResponse { key }))
    }

    async fn verify_audit(
        &self,
        _request: Request<proto::VerifyAuditRequest>,
    ) -> Result<Response<proto::VerifyAuditResponse>, Status> {
        let check = self.api.registry.journal().verify().await.map_err(refused)?;
        let head = self.api.registry.journal().head().await.map_err(refused)?;
        Ok(Response::new(proto::VerifyAuditResponse {
            first: check.first,
            last: check.last,
            broken_at: check.broken.unwrap_or(0),
            head: hex::encode(&head.head),
        }))
    }
}
