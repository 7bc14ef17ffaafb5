//! The head: what changes with every command, written once with each batch of them.

use std::collections::BTreeMap;

use nora_domain::{Head, Timestamp};
use nora_proto::record::v1 as proto;
use prost::Message;

use super::{Codec, DecodeError, required};

/// The bytes of a head.
pub fn encode(head: &Head) -> Vec<u8> {
    let Head { clock, journal, sessions } = head;
    let sessions =
        sessions.iter().map(|(epoch, session)| (*epoch, session.clone()).to_proto()).collect();
    proto::Head { clock: clock.0, journal: Some(journal.to_proto()), sessions }.encode_to_vec()
}

/// The head that these bytes say.
pub fn decode(bytes: &[u8]) -> Result<Head, DecodeError> {
    let proto::Head { clock, journal, sessions } = proto::Head::decode(bytes)?;
    let mut by_epoch = BTreeMap::new();
    for session in sessions {
        let (epoch, session) = Codec::from_proto(session)?;
        if by_epoch.insert(epoch, session).is_some() {
            return Err(DecodeError::Unknown("Head.sessions"));
        }
    }
    let journal = required(journal, "Head.journal")?;
    Ok(Head { clock: Timestamp(clock), journal, sessions: by_epoch })
}
