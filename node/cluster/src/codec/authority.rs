//! The authority's record and commands.

use nora_domain::{
    AuthorityKeys, AuthorityRecord, BeginRotation, ConfirmRotation, Rotation, RotationStage,
    SharedSecret,
};
use nora_proto::{command::v1 as command, record::v1 as record};

use super::{Codec, DecodeError};

impl Codec for SharedSecret {
    type Message = <[u8; 32] as Codec>::Message;

    fn to_proto(&self) -> Self::Message {
        self.0.to_proto()
    }

    fn from_proto(message: Self::Message) -> Result<Self, DecodeError> {
        Ok(Self(Codec::from_proto(message)?))
    }
}

codes!(RotationStage => record::RotationStage { Trust, Show });
fields!(AuthorityKeys => record::AuthorityKeys { certificate, key });
fields!(Rotation => record::Rotation { stage, secret, session_key, begun_at, confirmed }
    required { keys });
fields!(AuthorityRecord => record::Authority { secret, rotation } required { keys });

fields!(BeginRotation => command::BeginRotation { secret, session_key } required { keys });
fields!(ConfirmRotation => command::ConfirmRotation { stage, certificate, node });
