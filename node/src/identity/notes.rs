//! What is written down a moment later: refusals for the audit log, and when tokens were last used.
//!
//! Guarantees: nobody waits for either; equal refusals within a moment are one entry with a count, and so are those of one
//! source that are too many, so that whoever is refused often cannot fill the log; what does not fit is counted, not
//! forgotten.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use nora_app::Registry;
use nora_domain::identity::{Actor, RefusalNote};
use nora_domain::record::{Timestamp, TokenId};
use tracing::{debug, warn};

use super::lockout::neighbours;

/// Different refusals that are kept between two writes; more are counted as one.
const REFUSALS_MAX: usize = 500;

/// Different refusals of one subject, with whichever token and from wherever, that are kept between two writes; more are one
/// entry of theirs. Of whoever has no name, at one address.
const OF_SOURCE_MAX: usize = 20;

/// Refusals that one step writes down: each has a bounded size, and a log entry has one.
const NOTED_AT_ONCE: usize = 100;

/// Tokens whose use is noted in one step.
const USES_MAX: usize = 5_000;

/// What was refused: who, from where, what, about what, why.
type Refused = (String, String, String, String, String);

/// What waits to be written.
#[derive(Default)]
pub struct Notes {
    refusals: Mutex<BTreeMap<Refused, (String, u32)>>,
    uses: Mutex<BTreeMap<TokenId, Timestamp>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A text that fits an entry.
fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(Actor::TEXT_BYTES_MAX / 4).collect()
}

fn is_nobody(subject: &str) -> bool {
    matches!(subject, "anonymous" | "unknown")
}

/// Where refusals of whoever has no name come from: whoever has an IPv6 address has 2^64 of them.
fn source(subject: &str, address: String) -> String {
    match address.parse() {
        Ok(IpAddr::V6(of)) if is_nobody(subject) => match neighbours(IpAddr::V6(of)) {
            IpAddr::V6(net) => format!("{net}/64"),
            IpAddr::V4(same) => same.to_string(),
        },
        _ => address,
    }
}

/// Refusals on their way into the log: whatever of them has not got there goes back.
struct Taken<'a> {
    notes: &'a Notes,
    rest: Vec<RefusalNote>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.notes.put_back(&self.rest);
    }
}

impl Notes {
    /// Somebody was refused a change.
    pub fn refused(&self, actor: Actor, action: &str, resource: &str, why: &str) {
        let Actor { subject, address, request } = actor;
        let address = source(&subject, address);
        let owner = subject.split(" (token ").next().unwrap_or(&subject).to_owned();
        let from = if is_nobody(&subject) { address.clone() } else { String::new() };
        let mut refusals = locked(&self.refusals);
        let mut key =
            (subject, address, cut(action), cut(resource), format!("refused: {}", cut(why)));
        let first = (owner.clone(), from.clone(), String::new(), String::new(), String::new());
        let is_own = |known: &Refused| {
            let rest = known.0.strip_prefix(&owner);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" (token "))
                && (from.is_empty() || known.1 == from)
        };
        let alike = refusals.range(first..).take_while(|(known, _)| known.0.starts_with(&owner));
        let own = alike.filter(|(known, _)| is_own(known));
        if own.take(OF_SOURCE_MAX).count() >= OF_SOURCE_MAX && !refusals.contains_key(&key) {
            let what = "refused: more than are written one by one".to_owned();
            key = (owner, from, "several".to_owned(), String::new(), what);
        }
        if refusals.len() >= REFUSALS_MAX && !refusals.contains_key(&key) {
            key = (
                "several".to_owned(),
                String::new(),
                "several".to_owned(),
                String::new(),
                "refused: more than could be written one by one".to_owned(),
            );
        }
        let (_, count) = refusals.entry(key).or_insert((request, 0));
        *count = count.saturating_add(1);
    }

    /// Something was done that is no command of its own, or was asked for so.
    pub fn noted(&self, actor: Actor, action: &str, resource: &str, result: &str) {
        let Actor { subject, address, request } = actor;
        let key = (subject, address, cut(action), cut(resource), cut(result));
        let mut notes = locked(&self.refusals);
        let (_, count) = notes.entry(key).or_insert((request, 0));
        *count = count.saturating_add(1);
    }

    /// A token was used.
    pub fn used(&self, token: TokenId, at: Timestamp) {
        let mut uses = locked(&self.uses);
        if uses.len() < USES_MAX || uses.contains_key(&token) {
            uses.insert(token, at);
        }
    }

    /// Writes refusals down.
    pub async fn write_refusals(&self, registry: &Registry) {
        let refusals = std::mem::take(&mut *locked(&self.refusals));
        if refusals.is_empty() {
            return;
        }
        let notes = refusals.into_iter().map(|(key, (request, count))| {
            let (subject, address, action, resource, result) = key;
            let actor = Actor { subject, address, request };
            RefusalNote { actor, action, resource, result, count }
        });
        let mut taken = Taken { notes: self, rest: notes.collect() };
        while !taken.rest.is_empty() {
            let some = taken.rest.len().min(NOTED_AT_ONCE);
            match registry.note_refusals(taken.rest[..some].to_vec()).await {
                Ok(()) => drop(taken.rest.drain(..some)),
                // Before the upgrade is finished there is no audit log.
                Err(nora_app::Error::Conflict { .. }) => taken.rest.clear(),
                Err(error) => {
                    debug!(%error, "refusals are written down later");
                    return;
                }
            }
        }
    }

    /// Keeps what could not be written for the next time.
    fn put_back(&self, notes: &[RefusalNote]) {
        let mut refusals = locked(&self.refusals);
        for note in notes {
            let Actor { subject, address, request } = note.actor.clone();
            let (action, resource) = (note.action.clone(), note.resource.clone());
            let key = (subject, address, action, resource, note.result.clone());
            if refusals.len() >= REFUSALS_MAX && !refusals.contains_key(&key) {
                warn!(count = note.count, "refusals are missing in the audit log");
                continue;
            }
            let (_, count) = refusals.entry(key).or_insert((request, 0));
            *count = count.saturating_add(note.count);
        }
    }

    /// Writes down when tokens were used.
    pub async fn write_uses(&self, registry: &Registry) {
        let uses = std::mem::take(&mut *locked(&self.uses));
        if uses.is_empty() {
            return;
        }
        if let Err(error) = registry.touch_tokens(uses.into_iter().collect()).await {
            warn!(%error, "when tokens were last used is not up to date");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_refusals_are_counted_together_and_many_are_bounded() {
        let notes = Notes::default();
        let actor = |subject: &str| Actor { subject: subject.into(), ..Actor::default() };
        let of =
            |subject: &str| locked(&notes.refusals).keys().filter(|key| key.0 == subject).count();
        // Whoever tries ever other names is one entry more, and others' refusals stay told apart.
        for i in 0..3 * OF_SOURCE_MAX {
            notes.refused(actor("user:prober"), "artifact.push", &format!("oci:{i}"), "no");
        }
        assert_eq!(of("user:prober"), OF_SOURCE_MAX + 1);
        let near = |i: usize| Actor { address: format!("2001:db8::{i:x}"), ..actor("unknown") };
        (1..9).for_each(|i| notes.refused(near(i), "login", "", "wrong credential"));
        assert_eq!(of("unknown"), 1);
        // Tokens and addresses do not make more of one.
        for i in 0..3 * OF_SOURCE_MAX {
            let subject = format!("user:owner (token {})", i % 7);
            let at = Actor { address: format!("192.0.2.{i}"), ..actor(&subject) };
            notes.refused(at, "artifact.push", &format!("oci:{i}"), "no");
        }
        notes.refused(actor("user:owner2"), "artifact.push", "oci:app", "no");
        let owners = {
            let refusals = locked(&notes.refusals);
            refusals.keys().filter(|key| key.0.starts_with("user:owner")).count()
        };
        assert_eq!(owners, OF_SOURCE_MAX + 2);
        locked(&notes.refusals).clear();
        for _ in 0..3 {
            notes.refused(actor("user:a"), "artifact.push", "oci:app", "not permitted");
        }
        assert_eq!(locked(&notes.refusals).len(), 1);
        for i in 0..2 * REFUSALS_MAX {
            notes.refused(actor(&format!("user:{i}")), "artifact.push", "oci:app\n", "why");
        }
        let refusals = locked(&notes.refusals);
        assert_eq!(refusals.len(), REFUSALS_MAX + 1);
        let total: u32 = refusals.values().map(|(_, count)| count).sum();
        assert_eq!(total as usize, 3 + 2 * REFUSALS_MAX);
        assert!(refusals.keys().all(|key| !key.3.contains('\n')));
    }
}
