//! Commands as the log holds them: the envelope, and which command is in it.
//!
//! A command's time stands beside it, in the entry: whoever leads gives it. Guarantees: an action that this version does not know is an error. The state machine stops on it, for a replica that
//! skipped an entry would hold another state than the others. A command without an encoding does not compile.

use bytes::Buf;
use nora_domain::{Action, Command, Origin, Terms, Timestamp};
use nora_proto::command::v1 as proto;
use prost::Message;

use super::{Codec, DecodeError};

/// The bytes of a command, without its time.
pub fn encode(command: &Command) -> Vec<u8> {
    let Command { at: _, origin, terms, action } = command;
    let terms = (*terms != Terms::NONE).then(|| terms.to_proto());
    let action = Some(action.to_proto());
    proto::Command { origin: origin.to_proto(), terms, action }.encode_to_vec()
}

/// Adds the origin to an encoded command that has none yet. Fields may stand in any order, so appending spares encoding
/// the command anew.
pub fn append_origin(bytes: &mut Vec<u8>, origin: Origin) {
    let origin = proto::Command { origin: Some(origin.to_proto()), ..Default::default() };
    bytes.reserve(origin.encoded_len());
    // Writing to a vector cannot run out of room.
    let _ = origin.encode(bytes);
}

/// The command that these bytes say, as of `at`. From `Bytes`, a body or facts are a part of them, not a copy.
pub fn decode(at: Timestamp, bytes: impl Buf) -> Result<Command, DecodeError> {
    let proto::Command { origin, terms, action } = proto::Command::decode(bytes)?;
    Ok(Command {
        at,
        origin: Codec::from_proto(origin)?,
        terms: terms.map_or(Ok(Terms::NONE), Codec::from_proto)?,
        action: super::required(action, "command.action")?,
    })
}

fields!(Origin => proto::Origin { epoch, serial, settled_below });
fields!(Terms => proto::Terms { by, policy, create_only, immutable, revision });

/// Every command is a variant of the message's `action`, of the same name.
macro_rules! actions {
    ($($name:ident $method:ident -> $done:ty,)*) => {
        impl Codec for Action {
            type Message = proto::command::Action;

            fn to_proto(&self) -> proto::command::Action {
                match self {
                    $(Self::$name(command) => proto::command::Action::$name(command.to_proto()),)*
                }
            }

            fn from_proto(action: proto::command::Action) -> Result<Self, DecodeError> {
                Ok(match action {
                    $(proto::command::Action::$name(command) => {
                        Self::$name(Codec::from_proto(command)?)
                    })*
                })
            }
        }
    };
}

nora_domain::for_each_command!(actions);
