//! Encodings: domain words to stored bytes and back.
//!
//! Each noun of the domain has a file of its name here, with the encodings of its records and commands. [`Codec`] is
//! the one way from a value to its message and back. For most structs, the macro below implements it from a list of
//! fields.
//!
//! Guarantees: every value decodes to what was encoded; keys' bytes order as the keys do; what this version does not
//! know is a [`DecodeError`], never a panic and never skipped. Golden files in `tests/golden` hold every encoding to
//! what earlier releases wrote. Must not know: where bytes are stored.

/// Encodes a struct as the message whose fields have the same names. Those under `required` are messages of their own,
/// and bytes without them are refused.
macro_rules! fields {
    (
        $type:ident => $message:path { $($field:ident),* $(,)? }
        $(required { $($part:ident),* $(,)? })?
    ) => {
        impl $crate::codec::Codec for $type {
            type Message = $message;

            fn to_proto(&self) -> $message {
                $message {
                    $($field: $crate::codec::Codec::to_proto(&self.$field),)*
                    $($($part: Some($crate::codec::Codec::to_proto(&self.$part)),)*)?
                }
            }

            fn from_proto(message: $message) -> Result<Self, $crate::codec::DecodeError> {
                Ok(Self {
                    $($field: $crate::codec::Codec::from_proto(message.$field)?,)*
                    $($($part: $crate::codec::required(
                        message.$part,
                        concat!(stringify!($type), ".", stringify!($part)),
                    )?,)*)?
                })
            }
        }
    };
}

/// Encodes an enum without contents as the enum of the same variants; 0 and unknown numbers are refused.
macro_rules! codes {
    ($type:ident => $message:path { $($variant:ident),* $(,)? }) => {
        impl $crate::codec::Codec for $type {
            type Message = i32;

            fn to_proto(&self) -> i32 {
                use $message as Code;
                match self {
                    $(Self::$variant => Code::$variant.into(),)*
                }
            }

            fn from_proto(code: i32) -> Result<Self, $crate::codec::DecodeError> {
                use $message as Code;
                match Code::try_from(code) {
                    $(Ok(Code::$variant) => Ok(Self::$variant),)*
                    Ok(Code::Unspecified) | Err(_) => {
                        Err($crate::codec::DecodeError::Unknown(stringify!($type)))
                    }
                }
            }
        }
    };
}

pub mod command;
pub mod head;
pub mod journal;
pub mod key;
pub mod raft;
pub mod record;

mod account;
mod artifact;
mod authority;
mod blob;
mod cluster;
mod join_token;
mod names;
mod node;
mod policy;
mod refresh_token;
mod repository;
mod signing_key;
mod tag;
mod tenant;
mod token;
mod upload;
mod version;

use bytes::Bytes;
use nora_domain::NameError;

pub(crate) use self::node::{profile_from_proto, profile_to_proto};

/// Why stored or sent bytes could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no message of the expected kind.
    #[error("the message is malformed")]
    Message(#[from] prost::DecodeError),
    /// A field that must be there is not, or holds what this version does not know.
    #[error("the field {0} is absent or of a kind that this version does not know")]
    Unknown(&'static str),
    /// A field has the wrong number of bytes.
    #[error("the field {0} has the wrong length")]
    Length(&'static str),
    /// A name breaks the rules for names.
    #[error("{0}")]
    Name(NameError),
    /// A key is cut short or goes on after its end.
    #[error("the key is malformed")]
    Key,
    /// A membership contradicts itself.
    #[error("the membership is malformed")]
    Membership,
    /// A sealed part of the journal is damaged or too large.
    #[error("the journal segment is malformed: {0}")]
    Segment(&'static str),
}

impl From<NameError> for DecodeError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

/// A value with a message in protobuf. `from_proto` gives back what `to_proto` was given.
pub(crate) trait Codec: Sized {
    /// The message, or the field, that says the value.
    type Message;

    /// The value as its message.
    fn to_proto(&self) -> Self::Message;

    /// The value that the message says.
    fn from_proto(message: Self::Message) -> Result<Self, DecodeError>;
}

/// The value of a message that must be there.
pub(crate) fn required<T: Codec>(
    message: Option<T::Message>,
    field: &'static str,
) -> Result<T, DecodeError> {
    T::from_proto(message.ok_or(DecodeError::Unknown(field))?)
}

/// Types that messages hold as they are.
macro_rules! as_they_are {
    ($($type:ty),*) => {
        $(impl Codec for $type {
            type Message = Self;

            fn to_proto(&self) -> Self {
                self.clone()
            }

            fn from_proto(message: Self) -> Result<Self, DecodeError> {
                Ok(message)
            }
        })*
    };
}

as_they_are!(bool, u32, u64, String, Vec<u8>, Bytes);

impl Codec for Box<str> {
    type Message = String;

    fn to_proto(&self) -> String {
        self.as_ref().to_owned()
    }

    fn from_proto(message: String) -> Result<Self, DecodeError> {
        Ok(message.into())
    }
}

impl<T: Codec> Codec for Option<T> {
    type Message = Option<T::Message>;

    fn to_proto(&self) -> Self::Message {
        self.as_ref().map(Codec::to_proto)
    }

    fn from_proto(message: Self::Message) -> Result<Self, DecodeError> {
        message.map(T::from_proto).transpose()
    }
}

impl<T: Codec> Codec for Vec<T> {
    type Message = Vec<T::Message>;

    fn to_proto(&self) -> Self::Message {
        self.iter().map(Codec::to_proto).collect()
    }

    fn from_proto(message: Self::Message) -> Result<Self, DecodeError> {
        message.into_iter().map(T::from_proto).collect()
    }
}
