//! The policy of this node's file and the one that the cluster runs by.
//!
//! Guarantees: a cluster without a policy takes the first node's; a node that is a cluster of its own takes its file's at
//! each start, for there is nobody to disagree; where several nodes are, a file that differs is told and changes nothing
//! (`nora policy apply` does).

use nora_app::ports::members::Members;
use nora_app::{Error, Registry};
use nora_auth::document::PolicyDocument;
use nora_auth::policy::Policy;
use nora_domain::{Actor, Subject};
use tracing::{error, info, warn};

use super::error::ServeError;
use nora_identity::{
    AlreadyAuthorised, Policies, canonical, end_tokens_of_nobody, stranded, tenant_limits,
    unmatched,
};

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> ServeError {
    ServeError::Policy(Box::new(error))
}

/// Who acts when a node starts with a file.
fn by_file() -> Actor {
    Actor::named(Subject::Configuration)
}

/// Brings the policy of this node's file into force where that is this node's to do.
pub(super) async fn bring(
    own: &PolicyDocument,
    registry: &Registry,
    policies: &Policies,
    members: &dyn Members,
) -> Result<(), ServeError> {
    policies.reload(registry).await.map_err(unusable)?;
    if *own == PolicyDocument::default() {
        // A file that says nothing may be one of many nodes': it takes nobody's logins away.
        if policies.in_force().epoch > 0 {
            info!(
                "this node's file has no policy; the one in force stays until 'nora policy apply'"
            );
        }
        return Ok(());
    }
    let (document, hash) = canonical(own).map_err(unusable)?;
    let known = registry.access().policy().await.map_err(unusable)?;
    let by_file = registry.by(std::sync::Arc::new(AlreadyAuthorised { actor: by_file() }));
    let is_alone = members.view().await.map(|view| view.members.len() <= 1).unwrap_or(false);
    if known.as_ref().is_some_and(|known| known.hash == hash) {
        if is_alone {
            // It may have come into force in the moment in which this node ended.
            end_tokens_of_nobody(&by_file).await;
        }
        return Ok(());
    }
    if known.is_some() && !is_alone {
        warn!(
            "the policy in this node's file is not the one that the cluster runs by: see 'nora policy diff', and apply it \
             with 'nora policy apply'"
        );
        return Ok(());
    }
    let compiled = Policy::compile(own);
    // The file was judged when it was read.
    let Ok(compiled) = compiled else { return Ok(()) };
    if let Some(stranded) = stranded(registry, &compiled).await.map_err(unusable)? {
        if known.is_none() {
            // Without any policy in force the node might be open, which is not what the file says.
            return Err(ServeError::Stranded { stranded });
        }
        error!(
            "the policy of this node's file is not in force, the one before stays: {stranded}; delete its images first, or \
             leave the namespace as it is"
        );
        return Ok(());
    }
    let expected = Some(known.as_ref().map_or(0, |known| known.epoch));
    match by_file.access().set_policy(expected, document, hash, tenant_limits(own)).await {
        Ok(epoch) => {
            info!(epoch, "the policy of this node's file is in force");
            end_tokens_of_nobody(&by_file).await;
            match unmatched(registry, &compiled).await {
                Ok(lines) => lines.iter().for_each(|told| warn!("{told}")),
                Err(error) => warn!(%error, "whom the policy speaks of could not be looked up"),
            }
        }
        // Another node was quicker, or the cluster's upgrade is not finished.
        Err(error @ Error::Conflict { .. }) => {
            warn!(%error, "the policy of this node's file is not in force");
            policies.reload(registry).await.map_err(unusable)?;
            return Ok(());
        }
        Err(error) => return Err(unusable(error)),
    }
    policies.reload(registry).await.map_err(unusable)?;
    Ok(())
}
