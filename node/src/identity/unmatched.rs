//! What a policy says of accounts, beside the accounts that there are.
//!
//! Accounts come and go without the policy, so a rule about nobody is no error; but it is more often a slip than a wish.

use std::collections::BTreeSet;

use nora_app::{Error, Registry};
use nora_auth::document::{Auth, PolicyDocument};
use nora_auth::policy::Policy;
use nora_domain::name::{AccountName, OwnerName, TokenName};
use tracing::warn;

/// Accounts that are read at a time.
const PAGE: usize = 1_000;

/// Whoever there is.
#[derive(Default)]
struct Present {
    users: BTreeSet<String>,
    robots: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl Present {
    async fn of(registry: &Registry, auth: &Auth) -> Result<Self, Error> {
        let mut present = Self {
            users: auth.htpasswd.keys().cloned().collect(),
            groups: auth.groups.keys().cloned().collect(),
            ..Self::default()
        };
        let mut after: Option<AccountName> = None;
        loop {
            let page = registry.accounts(after.take(), PAGE).await?;
            for (name, account) in page.items {
                let names = if account.is_robot { &mut present.robots } else { &mut present.users };
                names.insert(name.to_string());
                present.groups.extend(account.groups);
                after = Some(name);
            }
            if !page.more {
                return Ok(present);
            }
        }
    }

    fn has_account(&self, name: &str) -> bool {
        self.users.contains(name) || self.robots.contains(name)
    }
}

/// Rules and groups that speak of somebody who is not there, a line each.
pub async fn unmatched(registry: &Registry, policy: &Policy) -> Result<Vec<String>, Error> {
    let Some(auth) = &policy.document().auth else { return Ok(Vec::new()) };
    let present = Present::of(registry, auth).await?;
    let mut told = Vec::new();
    for (group, members) in &auth.groups {
        for (at, member) in members.iter().enumerate() {
            if !present.has_account(member) {
                told.push(format!("auth.groups.{group}[{at}]: there is no account `{member}` yet"));
            }
        }
    }
    for (at, rule) in auth.rules.iter().enumerate() {
        let subject = rule.subject.as_str();
        let is_there = match subject.split_once(':') {
            Some(("user", name)) => present.users.contains(name),
            Some(("robot", name)) => present.robots.contains(name),
            Some(("group", name)) => present.groups.contains(name),
            Some(("token", named)) => has_token(registry, named).await?,
            Some(_) => true,
            None if matches!(subject, "anonymous" | "authenticated") => true,
            None => present.has_account(subject) || present.groups.contains(subject),
        };
        if !is_there {
            told.push(format!(
                "auth.rules[{at}].subject: there is no `{subject}` yet, so the rule is about nobody"
            ));
        }
    }
    Ok(told)
}

/// Whether a user or robot has a token of that name, as `ci/deploy`.
async fn has_token(registry: &Registry, named: &str) -> Result<bool, Error> {
    let Some((owner, name)) = named.split_once('/') else { return Ok(false) };
    for kind in ["user", "robot"] {
        if let (Ok(owner), Ok(name)) =
            (OwnerName::parse(&format!("{kind}:{owner}")), TokenName::parse(name))
            && registry.token_named(owner, name).await?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ends the tokens of users who were in the htpasswd file and are no more: a later namesake must not come into them. As
/// with accounts that are removed; those tokens go with the account.
pub async fn end_tokens_of_removed(
    registry: &Registry,
    before: &PolicyDocument,
    now: &PolicyDocument,
) {
    let logins = |document: &PolicyDocument| -> BTreeSet<String> {
        document.auth.iter().flat_map(|auth| auth.htpasswd.keys().cloned()).collect()
    };
    for user in logins(before).difference(&logins(now)) {
        let Ok(owner) = OwnerName::parse(&format!("user:{user}")) else { continue };
        let ended = async {
            // Who has an account of the same name has tokens of their own.
            let name = AccountName::parse(user).ok();
            if let Some(name) = name
                && registry.account(name).await?.is_some()
            {
                return Ok(());
            }
            for (id, _) in registry.tokens_of(owner).await? {
                match registry.revoke_token(id).await {
                    Ok(()) | Err(Error::IdentityUnknown { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        if let Err(error) = ended.await {
            warn!(user, %error, "tokens of a user who is not in the htpasswd file any more are still there");
        }
    }
}
