//! What a policy says of accounts, beside the accounts that there are, and what else in it is likely not meant.
//!
//! Accounts come and go without the policy, so a rule about nobody is no error; but it is more often a slip than a wish.

use std::collections::{BTreeMap, BTreeSet};

use nora_app::{Error, Registry};
use nora_auth::document::{Auth, PolicyDocument};
use nora_auth::policy::Policy;
use nora_domain::{AccountName, OwnerName, TokenName};
use tracing::warn;

use super::principal::generation_of;

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
            let page = registry.accounts().list(after.take(), PAGE).await?;
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

/// What is likely not meant, a line each: rules and groups that speak of somebody who is not there, and rules for CI systems
/// that know an owner by name alone.
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
    told.extend(policy.owners_by_name());
    Ok(told)
}

/// Whether a user or robot has a token of that name, as `ci/deploy`.
async fn has_token(registry: &Registry, named: &str) -> Result<bool, Error> {
    let Some((owner, name)) = named.split_once('/') else { return Ok(false) };
    for kind in ["user", "robot"] {
        if let (Ok(owner), Ok(name)) =
            (OwnerName::parse(&format!("{kind}:{owner}")), TokenName::parse(name))
            && registry.tokens().named(owner, name).await?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ends the tokens of users who are neither in the htpasswd file nor have an account any more: they open nothing, and a later
/// namesake must not come into them. So end the refresh tokens of a password that the file does not have any more. Those of
/// an account go with it and with its password.
pub async fn end_tokens_of_nobody(registry: &Registry) {
    if let Err(error) = end_tokens(registry).await {
        warn!(%error, "tokens of users who are not in the htpasswd file any more may still be there");
    }
}

/// The logins of the policy in force, with their hashes. One that cannot be read is an error: who would be missing in it is not gone.
async fn listed(registry: &Registry) -> Result<BTreeMap<String, String>, Error> {
    let Some(policy) = registry.access().policy().await? else { return Ok(BTreeMap::new()) };
    let document = serde_json::from_slice::<PolicyDocument>(&policy.document);
    let document = document.map_err(|error| Error::Internal {
        what: "the policy in force is not one that this version reads",
        source: Some(Box::new(error)),
    })?;
    Ok(document.auth.map(|auth| auth.htpasswd).unwrap_or_default())
}

async fn end_tokens(registry: &Registry) -> Result<(), Error> {
    let mut after = None;
    loop {
        // Before the logins: whose token is seen here had theirs by now.
        let page = registry.tokens().list(after.take(), PAGE).await?;
        after = page.items.last().map(|(id, _)| *id);
        let listed = listed(registry).await?;
        for (id, token) in page.items {
            let Some(user) = token.owner.strip_prefix("user:") else { continue };
            if listed.contains_key(user) || has_account(registry, user).await? {
                continue;
            }
            match registry.tokens().revoke(id).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !page.more {
            break;
        }
    }
    end_refresh_tokens(registry).await
}

async fn has_account(registry: &Registry, user: &str) -> Result<bool, Error> {
    match AccountName::parse(user) {
        Ok(name) => Ok(registry.accounts().get(name).await?.is_some()),
        Err(_) => Ok(false),
    }
}

async fn end_refresh_tokens(registry: &Registry) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = registry.refresh_tokens().list(after.take(), PAGE).await?;
        after = page.items.last().map(|(owner, id, _)| (owner.clone(), *id));
        let listed = listed(registry).await?;
        for (owner, id, token) in page.items {
            let Some(user) = owner.as_str().strip_prefix("user:") else { continue };
            let hash = listed.get(user);
            if hash.is_some_and(|hash| generation_of(hash) == token.generation)
                || has_account(registry, user).await?
            {
                continue;
            }
            match registry.refresh_tokens().revoke(owner, Some(id)).await {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !page.more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::MemoryNode;
    use nora_config::{Overrides, parse};
    use nora_domain::TokenId;

    /// The policy, with the lines of a file beside it.
    fn document(policy: &str, listed: &[&str]) -> PolicyDocument {
        let mut document = parse(policy, None, &Overrides::default()).unwrap().config.policy;
        let hash = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
        let lines = listed.iter().map(|name| ((*name).into(), hash.into()));
        document.auth.as_mut().unwrap().htpasswd = lines.collect();
        document
    }

    #[tokio::test]
    async fn whoever_is_not_there_is_told() {
        let node = MemoryNode::without_policy(false).await;
        let document = document(
            r#"
[auth]
groups = { team = ["alice", "carol", "dave"] }
[[auth.rules]]
subject = "user:alice"
permissions = ["pull:*"]
[[auth.rules]]
subject = "group:team"
permissions = ["pull:*"]
[[auth.rules]]
subject = "group:temp"
permissions = ["pull:*"]
[[auth.rules]]
subject = "robot:alice"
permissions = ["pull:*"]
[[auth.rules]]
subject = "token:alice/laptop"
permissions = ["pull:*"]
[[auth.rules]]
subject = "token:alice/phone"
permissions = ["pull:*"]
[[auth.rules]]
subject = "authenticated"
permissions = ["pull:*"]
[[auth.rules]]
subject = "erin"
permissions = ["pull:*"]
"#,
            &["carol"],
        );
        node.apply_document(&document).await;
        node.users(&["alice"]).await;
        node.token("alice", "laptop", &[]).await;
        let in_force = node.guard.policies().in_force();
        let told = unmatched(&node.registry, in_force.policy()).await.unwrap();
        let places: Vec<_> = told.iter().filter_map(|line| line.split_once(':')).collect();
        let places: Vec<_> = places.iter().map(|(place, _)| *place).collect();
        assert_eq!(
            places,
            [
                "auth.groups.team[2]",
                "auth.rules[2].subject",
                "auth.rules[3].subject",
                "auth.rules[5].subject",
                "auth.rules[7].subject",
            ],
            "{told:?}"
        );
    }

    #[tokio::test]
    async fn who_leaves_the_htpasswd_file_leaves_no_token() {
        let node = MemoryNode::without_policy(false).await;
        let before = document("[auth]\n", &["carol", "dave", "alice"]);
        node.apply_document(&before).await;
        node.users(&["alice"]).await;
        node.token("alice", "laptop", &[]).await;
        for user in ["carol", "dave"] {
            let (_, token) = MemoryNode::new_token(user, "laptop", &[]);
            let token = nora_app::tokens::NewToken { account: None, ..token };
            node.registry.tokens().create(token).await.unwrap();
        }
        let mut now = before.clone();
        let listed = &mut now.auth.as_mut().unwrap().htpasswd;
        listed.remove("carol");
        listed.remove("alice");
        node.apply_document(&now).await;
        end_tokens_of_nobody(&node.registry).await;
        let mut left = Vec::new();
        for user in ["alice", "carol", "dave"] {
            let owner = OwnerName::parse(&format!("user:{user}")).unwrap();
            left.push(node.registry.tokens().of(owner).await.unwrap().len());
        }
        assert_eq!(left, [1, 0, 1], "alice has an account of her own");
    }

    #[tokio::test]
    async fn a_password_that_the_htpasswd_file_lost_leaves_no_refresh_token() {
        let node = MemoryNode::without_policy(false).await;
        let before = document("[auth]\n", &["carol", "dave", "erin", "alice"]);
        node.apply_document(&before).await;
        node.users(&["alice"]).await;
        let owner = |user: &str| OwnerName::parse(&format!("user:{user}")).unwrap();
        let hash = |user: &str| before.auth.as_ref().unwrap().htpasswd[user].clone();
        let account =
            node.registry.accounts().get(AccountName::parse("alice").unwrap()).await.unwrap();
        let generations = [
            ("alice", account.unwrap().generation),
            ("carol", generation_of(&hash("carol"))),
            ("dave", generation_of(&hash("dave"))),
            ("erin", generation_of(&hash("erin"))),
        ];
        for (user, of) in generations {
            let (id, from) = (TokenId(1), String::new());
            let made = node.registry.refresh_tokens().create(id, owner(user), of, 60_000, from);
            made.await.unwrap();
        }
        let mut now = before.clone();
        let listed = &mut now.auth.as_mut().unwrap().htpasswd;
        listed.remove("carol");
        listed.remove("alice");
        let another = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqD";
        listed.insert("dave".to_owned(), another.to_owned());
        node.apply_document(&now).await;
        end_tokens_of_nobody(&node.registry).await;
        let mut left = Vec::new();
        for user in ["alice", "carol", "dave", "erin"] {
            left.push(node.registry.refresh_tokens().of(owner(user)).await.unwrap().len());
        }
        assert_eq!(left, [1, 0, 0, 1]);
    }
}
