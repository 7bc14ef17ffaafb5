//! Making and revoking join tokens, and admitting nodes.
//!
//! Guarantees: a node number is handed out once; a token admits no more nodes than it was made for, even if several race for it.

use super::{AdmitNode, CreateJoinToken, JoinTokenRecord, RevokeJoinToken};
use crate::command::Refusal;
use crate::ids::NodeId;
use crate::journal::Event;
use crate::node::{NodeRecord, Standing};
use crate::state::{Key, Record, Rows, Store};
use crate::transition::{Decision, Step, raise, refuse};

/// How many expired tokens each new one removes at most.
const TOKENS_SWEPT_MAX: usize = 64;

impl<S: Store> Step<'_, S> {
    pub(crate) fn create_join_token(
        &mut self,
        command: &CreateJoinToken,
    ) -> Decision<(), S::Error> {
        let CreateJoinToken { token, secret_hash, lives_millis, uses } = command;
        if self.cluster.cluster.is_none() {
            return refuse(Refusal::NotFounded);
        }
        if self.is_rotating()? {
            return refuse(Refusal::RotationUnderWay);
        }
        for (key, record) in self.store.scan(&Rows::JoinTokens, TOKENS_SWEPT_MAX)? {
            if matches!(record, Record::JoinToken(token) if token.expires_at <= self.now) {
                self.store.delete(&key)?;
            }
        }
        let expires_at = self.now.plus_millis(*lives_millis);
        let record = JoinTokenRecord {
            secret_hash: *secret_hash,
            expires_at,
            uses_left: *uses,
            created_at: self.now,
        };
        self.store.put(Key::JoinToken(*token), Record::JoinToken(record))?;
        Ok(())
    }

    pub(crate) fn revoke_join_token(
        &mut self,
        command: &RevokeJoinToken,
    ) -> Decision<(), S::Error> {
        let key = Key::JoinToken(command.token);
        if read!(self.store, JoinToken, key).is_none() {
            return refuse(Refusal::TokenUnknown);
        }
        self.store.delete(&key)?;
        Ok(())
    }

    pub(crate) fn admit_node(&mut self, command: &AdmitNode) -> Decision<NodeId, S::Error> {
        let AdmitNode { token, secret_hash, key_hash, profile } = command;
        let mut shown = match read!(self.store, JoinToken, Key::JoinToken(*token)) {
            Some(known) if known.secret_hash != *secret_hash => {
                return refuse(Refusal::TokenUnknown);
            }
            Some(known) if known.expires_at <= self.now => return refuse(Refusal::TokenExpired),
            Some(known) => known,
            None => return refuse(Refusal::TokenUnknown),
        };
        if self.is_rotating()? {
            return refuse(Refusal::RotationUnderWay);
        }
        let (level, understood) = (self.cluster.feature_level, profile.feature_max);
        if understood < level {
            return refuse(Refusal::FeatureTooOld { level, understood });
        }
        // A join that broke off and is tried again, with the same key, goes on where it was.
        let joining = self.nodes()?.into_iter().find(|(_, record)| {
            record.standing == Standing::Joining && record.key_hash == *key_hash
        });
        let (node, known) = match joining {
            Some((node, record)) => (node, Some(record)),
            None => {
                let Some(left) = shown.uses_left.checked_sub(1) else {
                    return refuse(Refusal::TokenSpent);
                };
                // It stays when it is spent: the last node that it admitted may ask again, and lists show what became of it.
                shown.uses_left = left;
                self.store.put(Key::JoinToken(*token), Record::JoinToken(shown))?;
                raise(&mut self.cluster.last_node.0, 1);
                (self.cluster.last_node, None)
            }
        };
        let record = NodeRecord {
            standing: Standing::Joining,
            profile: profile.clone(),
            key_hash: *key_hash,
            changed_at: self.now,
            ..NodeRecord::default()
        };
        if known.as_ref() != Some(&record) {
            self.store.put(Key::Node(node), Record::Node(record))?;
            self.happened(Event::NodeChanged { node });
        }
        Ok(node)
    }
}
