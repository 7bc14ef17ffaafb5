//! Records as rows hold them: which kind of record it is.
//!
//! Guarantee: a kind of record without an encoding does not compile.

use nora_domain::{Record, TokenId};
use nora_proto::record::v1 as proto;
use prost::Message;

use super::{Codec, DecodeError};

/// The bytes of a record.
pub fn encode(record: &Record) -> Vec<u8> {
    proto::Record { kind: Some(record.to_proto()) }.encode_to_vec()
}

/// The record that these bytes say.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    super::required(proto::Record::decode(bytes)?.kind, "record.kind")
}

/// Every kind of record is a variant of the message's `kind`, of the same name. Those under `present` hold nothing: the
/// row says all by being there.
macro_rules! records {
    ({ $($kind:ident,)* } present { $($present:ident,)* }) => {
        impl Codec for Record {
            type Message = proto::record::Kind;

            fn to_proto(&self) -> proto::record::Kind {
                match self {
                    $(Self::$kind(record) => proto::record::Kind::$kind(record.to_proto()),)*
                    Self::TokenOf(token) => proto::record::Kind::TokenOf(proto::TokenOf {
                        token: token.to_proto(),
                    }),
                    $(Self::$present => proto::record::Kind::$present(()),)*
                }
            }

            fn from_proto(kind: proto::record::Kind) -> Result<Self, DecodeError> {
                Ok(match kind {
                    $(proto::record::Kind::$kind(record) => {
                        Self::$kind(Codec::from_proto(record)?)
                    })*
                    proto::record::Kind::TokenOf(proto::TokenOf { token }) => {
                        Self::TokenOf(TokenId::from_proto(token)?)
                    }
                    $(proto::record::Kind::$present(()) => Self::$present,)*
                })
            }
        }
    };
}

records! {
    {
        Cluster,
        Authority,
        Node,
        JoinToken,
        Policy,
        Account,
        AccessToken,
        RefreshToken,
        SigningKey,
        Assertion,
        Journal,
        Segment,
        Cursor,
        Blob,
        Usage,
        Limits,
        Budget,
        Upload,
        TenantBlob,
        Repository,
        Artifact,
        Referrer,
        Version,
        File,
        Tag,
        Link,
        Pulled,
    } present {
        Tenant,
        HeldBy,
        ParentOf,
        TagOf,
        Edge,
    }
}
