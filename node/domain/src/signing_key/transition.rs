//! Rotating the keys that session tokens are signed with.

use super::{AddSigningKey, SigningKeyRecord};
use crate::command::Refusal;
use crate::state::{Key, Record, Rows, Store};
use crate::transition::{Decision, Step, refuse};

/// More signing keys than there are.
const FEW_MAX: usize = 100_000;

/// How long a key signs at least.
const SIGNS_MILLIS_MIN: u64 = 24 * 3_600_000;

/// How many signing keys there may be: the newest signs, the others are still good for what they signed.
const SIGNING_KEYS_MAX: usize = 16;

impl<S: Store> Step<'_, S> {
    pub(crate) fn add_signing_key(&mut self, command: &AddSigningKey) -> Decision<u64, S::Error> {
        let AddSigningKey { after, key } = command;
        let mut keys = self.store.scan(&Rows::SigningKeys, FEW_MAX)?;
        let newest = keys.iter().rev().find_map(|(key, _)| match key {
            Key::SigningKey(number) => Some(*number),
            _ => None,
        });
        if let Some(newest) = newest.filter(|newest| Some(*newest) != *after) {
            return refuse(Refusal::SigningKeyKnown(newest));
        }
        // A node whose clock is ahead must not push out the keys that are in use.
        let is_young = |record: &Record| {
            matches!(record, Record::SigningKey(key)
                if key.created_at.plus_millis(SIGNS_MILLIS_MIN) > self.now)
        };
        if let Some(newest) = newest.filter(|_| keys.last().is_some_and(|(_, key)| is_young(key))) {
            return refuse(Refusal::SigningKeyKnown(newest));
        }
        let number = newest.unwrap_or(0).saturating_add(1);
        let excess = (keys.len() + 1).saturating_sub(SIGNING_KEYS_MAX);
        for (place, (key, record)) in keys.drain(..).enumerate() {
            let is_over = matches!(&record, Record::SigningKey(old) if old.expires_at <= self.now);
            if is_over || place < excess {
                self.store.delete(&key)?;
            }
        }
        let lives = key.expires_at.millis_since(key.created_at);
        let record = SigningKeyRecord {
            created_at: self.now,
            expires_at: self.now.plus_millis(lives),
            ..key.clone()
        };
        self.store.put(Key::SigningKey(number), Record::SigningKey(record))?;
        self.identity_changed();
        Ok(number)
    }
}
