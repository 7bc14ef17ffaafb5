//! Rotating the authority.
//!
//! Guarantees: one rotation at a time; a stage ends when every node that was not removed has confirmed it, and not before,
//! so that no member is cut off; what the old authority and the old secrets opened is closed with the last confirmation.

use super::{AuthorityRecord, BeginRotation, ConfirmRotation, Rotation, RotationStage};
use crate::command::Refusal;
use crate::node::Standing;
use crate::signing_key::SigningKeyRecord;
use crate::state::{Key, Record, Rows, Store};
use crate::transition::{Decision, Step, refuse};

/// More join tokens, and more signing keys, than there ever are.
const ROWS_MAX: usize = 100_000;

impl<S: Store> Step<'_, S> {
    fn authority(&self) -> Result<Option<AuthorityRecord>, S::Error> {
        Ok(read!(self.store, Authority, Key::Authority))
    }

    /// Whether the authority is being replaced: no node joins meanwhile, for its token would name the old one.
    pub(crate) fn is_rotating(&self) -> Result<bool, S::Error> {
        Ok(self.authority()?.is_some_and(|authority| authority.rotation.is_some()))
    }

    pub(crate) fn begin_rotation(&mut self, command: &BeginRotation) -> Decision<(), S::Error> {
        let BeginRotation { keys, secret, session_key } = command.clone();
        let Some(authority) = self.authority()? else { return refuse(Refusal::NotFounded) };
        if authority.rotation.is_some() {
            return refuse(Refusal::RotationUnderWay);
        }
        for (token, _) in self.store.scan(&Rows::JoinTokens, ROWS_MAX)? {
            self.store.delete(&token)?;
        }
        let stage = RotationStage::Trust;
        let begun_at = self.now;
        let confirmed = Vec::new();
        let rotation = Rotation { stage, keys, secret, session_key, begun_at, confirmed };
        let authority = AuthorityRecord { rotation: Some(rotation), ..authority };
        self.store.put(Key::Authority, Record::Authority(authority))?;
        self.identity_changed();
        Ok(())
    }

    pub(crate) fn confirm_rotation(&mut self, command: &ConfirmRotation) -> Decision<(), S::Error> {
        let ConfirmRotation { stage, certificate, node } = command;
        self.member(*node)?;
        let Some(mut authority) = self.authority()? else { return refuse(Refusal::NotFounded) };
        let rotation = authority.rotation.as_mut().filter(|rotation| {
            rotation.stage == *stage && rotation.keys.certificate == *certificate
        });
        let Some(rotation) = rotation else { return refuse(Refusal::RotationMoved) };
        if let Err(place) = rotation.confirmed.binary_search(node) {
            rotation.confirmed.insert(place, *node);
        }
        self.store.put(Key::Authority, Record::Authority(authority))?;
        self.go_on_rotating()?;
        Ok(())
    }

    /// Ends the stage of the rotation, if every node that was not removed has confirmed it.
    pub(crate) fn go_on_rotating(&mut self) -> Result<(), S::Error> {
        let Some(mut authority) = self.authority()? else { return Ok(()) };
        let Some(rotation) = authority.rotation.take() else { return Ok(()) };
        let nodes = self.nodes()?;
        let mut members = nodes.iter().filter(|(_, record)| record.standing != Standing::Removed);
        if !members.all(|(node, _)| rotation.confirmed.contains(node)) {
            return Ok(());
        }
        let authority = match rotation.stage {
            RotationStage::Trust => {
                let (stage, confirmed) = (RotationStage::Show, Vec::new());
                let rotation = Rotation { stage, confirmed, ..rotation };
                AuthorityRecord { rotation: Some(rotation), ..authority }
            }
            RotationStage::Show => {
                self.replace_session_keys(&rotation)?;
                let Rotation { keys, secret, .. } = rotation;
                AuthorityRecord { keys, secret, rotation: None }
            }
        };
        self.store.put(Key::Authority, Record::Authority(authority))?;
        self.identity_changed();
        Ok(())
    }

    /// A thief of the old keys could sign sessions of any account. The new key lives as long as the newest old one did.
    fn replace_session_keys(&mut self, rotation: &Rotation) -> Result<(), S::Error> {
        let mut newest = None;
        for (key, record) in self.store.scan(&Rows::SigningKeys, ROWS_MAX)? {
            self.store.delete(&key)?;
            if let (Key::SigningKey(number), Record::SigningKey(record)) = (key, record) {
                newest = Some((number, record));
            }
        }
        let Some((number, old)) = newest else { return Ok(()) };
        let lives = old.expires_at.millis_since(old.created_at);
        let record = SigningKeyRecord {
            secret: rotation.session_key.0,
            created_at: self.now,
            expires_at: self.now.plus_millis(lives),
        };
        let key = Key::SigningKey(number.saturating_add(1));
        self.store.put(key, Record::SigningKey(record))
    }
}
