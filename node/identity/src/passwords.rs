//! Comparing passwords, and hashing new ones.
//!
//! Guarantees: passwords are compared off the async threads, a few at a time, in the same time whether or not the user
//! exists; each failure counts, whether or not its client waits for the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nora_auth::credential::Secret;
use nora_auth::identity::Subject;
use nora_domain::AccountRecord;

use super::admin::ADMIN_USER;
use super::lockout::neighbours;
use super::principal::{Owner, Principal};
use super::recognise::{LOGIN, Rejected, wrong};
use super::{Guard, Unhashed};

impl Guard {
    /// Whom a user name and a password belong to. Failures count under the name of `counted`.
    pub(super) async fn by_password(
        self: &Arc<Self>,
        user: &str,
        counted: &str,
        password: Secret,
        address: Option<IpAddr>,
    ) -> Result<Principal, Rejected> {
        if let Some(wait) = address.and_then(|address| self.lockout.wait(address, counted)) {
            return Err(Rejected::TooMany(wait));
        }
        let busy = Err(Rejected::TooMany(Duration::from_secs(1)));
        let Some(place) = self.turns.join(address.map(neighbours)) else { return busy };
        let guard = self.clone();
        let (user, counted) = (user.to_owned(), counted.to_owned());
        // A task of its own: a client that hangs up must neither free its place while the hash is still computed nor have
        // guessed for nothing.
        let attempt = tokio::spawn(async move {
            let Some(_turn) = place.turn().await else { return busy };
            // Others may have guessed while this waited.
            if let Some(wait) = address.and_then(|address| guard.lockout.wait(address, &counted)) {
                return Err(Rejected::TooMany(wait));
            }
            let found = guard.compared(&user, password).await?;
            if let Some(address) = address {
                match found {
                    Some(_) => guard.lockout.succeeded(address, &counted),
                    None => guard.lockout.failed(address, &counted),
                }
            }
            found.map_or_else(|| wrong(LOGIN), Ok)
        });
        attempt.await.unwrap_or_else(|_| wrong(LOGIN))
    }

    /// The principal of that name, if the password is theirs.
    async fn compared(&self, user: &str, password: Secret) -> Result<Option<Principal>, Rejected> {
        let owner = if user == ADMIN_USER {
            let Some(account) = self.administrators_account().await? else {
                let admin = self.admin.as_ref();
                let own = admin.and_then(|admin| admin.accept(password.expose()));
                let generation = own.or_else(|| self.secrets.accept(password.expose()));
                return Ok(generation.map(Principal::administrator));
            };
            let AccountRecord { password_hash, groups, generation, .. } = account;
            Some(Owner { subject: Subject::Administrator, groups, generation, password_hash })
        } else {
            self.owner(user).await?
        };
        let owner = owner.filter(|owner| !owner.password_hash.is_empty());
        let hash = owner.as_ref().map(|owner| owner.password_hash.clone());
        let in_force = self.policies.in_force();
        let checked =
            nora_compute::run(move || in_force.passwords.check(password.expose(), hash.as_deref()));
        let is_right = checked.await.unwrap_or(false);
        Ok(owner.filter(|_| is_right).map(Principal::from))
    }

    /// Hashes a new password.
    pub async fn hash_password(&self, password: Secret) -> Result<String, Unhashed> {
        let turn = match self.turns.join(None) {
            Some(place) => place.turn().await,
            None => None,
        };
        let Some(turn) = turn else {
            return Err(Unhashed::Busy);
        };
        let hashed = nora_compute::run(move || {
            // Held to the end, also if nobody waits for it any more.
            let _turn = turn;
            nora_auth::password::hash(password.expose())
        });
        match hashed.await {
            Ok(Ok(hash)) => Ok(hash),
            Ok(Err(error)) => Err(Unhashed::Failed(error.to_string())),
            Err(error) => Err(Unhashed::Failed(error.to_string())),
        }
    }
}
