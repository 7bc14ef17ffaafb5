//! Names, numbers, digests and hashes: what commands and records of every noun share.
//!
//! Guarantee: a name that breaks the rules of names, or a hash of the wrong length, is refused.

use nora_domain::{
    AccountName, Algorithm, ClusterId, ConsumerName, Digest, Epoch, FeatureLevel, FileName, Format,
    Generation, MediaType, NodeId, OwnerName, RepositoryKey, RepositoryPath, TagName, TenantName,
    Timestamp, TokenId, TokenName, UploadId, VersionName,
};
use nora_proto::name::v1 as proto;

use super::{Codec, DecodeError};

/// Names are texts.
macro_rules! texts {
    ($($type:ident),* $(,)?) => {
        $(impl Codec for $type {
            type Message = String;

            fn to_proto(&self) -> String {
                self.as_str().to_owned()
            }

            fn from_proto(text: String) -> Result<Self, DecodeError> {
                Ok(Self::parse(&text)?)
            }
        })*
    };
}

texts!(
    AccountName,
    ConsumerName,
    FileName,
    MediaType,
    OwnerName,
    RepositoryPath,
    TagName,
    TenantName,
    TokenName,
    VersionName,
);

/// Numbers in a type of their own.
macro_rules! numbers {
    ($($type:ident: $number:ty),* $(,)?) => {
        $(impl Codec for $type {
            type Message = $number;

            fn to_proto(&self) -> $number {
                self.0
            }

            fn from_proto(number: $number) -> Result<Self, DecodeError> {
                Ok(Self(number))
            }
        })*
    };
}

numbers!(Epoch: u64, FeatureLevel: u32, NodeId: u64, Timestamp: u64);

/// Random names of 16 bytes.
macro_rules! random_names {
    ($($type:ident),* $(,)?) => {
        $(impl Codec for $type {
            type Message = Vec<u8>;

            fn to_proto(&self) -> Vec<u8> {
                self.0.to_proto()
            }

            fn from_proto(bytes: Vec<u8>) -> Result<Self, DecodeError> {
                let bytes: [u8; 16] =
                    bytes.try_into().map_err(|_| DecodeError::Length(stringify!($type)))?;
                Ok(Self(u128::from_be_bytes(bytes)))
            }
        })*
    };
}

random_names!(ClusterId, TokenId, UploadId);

/// 16 bytes, most significant first.
impl Codec for u128 {
    type Message = Vec<u8>;

    fn to_proto(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn from_proto(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let bytes = bytes.try_into().map_err(|_| DecodeError::Length("of a random name"))?;
        Ok(Self::from_be_bytes(bytes))
    }
}

/// A hash of 32 bytes.
impl Codec for [u8; 32] {
    type Message = Vec<u8>;

    fn to_proto(&self) -> Vec<u8> {
        self.to_vec()
    }

    fn from_proto(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        bytes.try_into().map_err(|_| DecodeError::Length("of a hash"))
    }
}

codes!(Algorithm => proto::Algorithm { Sha256, Sha512 });
codes!(Format => proto::Format { Oci, Npm, Pypi, Maven, Cargo });
fields!(RepositoryKey => proto::Repository { tenant, format, path });
fields!(Generation => proto::Generation { epoch, sequence });

impl Codec for Digest {
    type Message = proto::Digest;

    fn to_proto(&self) -> proto::Digest {
        proto::Digest { algorithm: self.algorithm().to_proto(), value: self.value().to_vec() }
    }

    fn from_proto(message: proto::Digest) -> Result<Self, DecodeError> {
        let algorithm = Algorithm::from_proto(message.algorithm)?;
        Self::from_parts(algorithm, &message.value).ok_or(DecodeError::Length("Digest.value"))
    }
}
