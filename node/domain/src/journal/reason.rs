//! What came of a deed, as codes.

use std::fmt;

/// Makes the one list of reasons: a variant, its code in stored rows, and its words for people.
macro_rules! reasons {
    ($($variant:ident = $code:literal $words:literal,)*) => {
        /// Why something was refused. Codes are stored and never used again for another reason; words are for people.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $words] $variant,)*
            /// The proposer's own words, where no code says it.
            Words(Box<str>),
        }

        impl Reason {
            /// Its code in stored rows; 0 for words.
            pub const fn code(&self) -> u32 {
                match self { $(Self::$variant => $code,)* Self::Words(_) => 0 }
            }

            /// The reason with this code; none for 0.
            pub fn from_code(code: u32) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Its words.
            pub fn words(&self) -> &str {
                match self { $(Self::$variant => $words,)* Self::Words(words) => words }
            }
        }
    };
}

reasons! {
    RetiredEpoch = 1 "the node was started anew",
    Duplicate = 2 "applied before",
    ClusterFounded = 3 "founded already",
    NotFounded = 4 "the cluster is not founded",
    NodeUnknown = 5 "no such node",
    NodeRemoved = 6 "the node was removed",
    StandingImpossible = 7 "not possible from where the node stands",
    JoinTokenUnknown = 8 "no such join token",
    JoinTokenExpired = 9 "the join token has expired",
    ProgramTooOld = 10 "the program is too old",
    UpgradeUnfinished = 11 "the upgrade is not finished",
    StaleCopy = 12 "another copy is the live one",
    TooFewCopies = 13 "too few copies",
    UploadConflict = 14 "the upload belongs elsewhere",
    BlobUnknown = 15 "no such blob",
    ArtifactUnknown = 16 "no such artifact",
    TagUnknown = 17 "no such tag",
    ReferencesMissing = 18 "what it references is missing",
    BlobReferenced = 19 "an artifact needs the blob",
    SizeConflict = 20 "another size is stored",
    PolicyChanged = 21 "the policy changed meanwhile",
    TagExists = 22 "the tag exists and may not be overwritten",
    TagImmutable = 23 "the tag is immutable",
    RepositoryChanged = 24 "the repository changed meanwhile",
    QuotaExceeded = 25 "over the quota",
    AccountExists = 26 "the account exists",
    AccountUnknown = 27 "no such account",
    TokenExists = 28 "the token exists",
    TokensTooMany = 29 "too many tokens",
    TokenUnknown = 30 "no such token",
    AssertionUsed = 31 "the token was exchanged before",
    AssertionOver = 32 "the token has expired",
    SigningKeyKnown = 33 "there is a newer key",
    NotLimited = 34 "no limit",
    VersionExists = 35 "the version exists",
    VersionChanged = 36 "the version changed meanwhile",
    VersionGone = 37 "the version was deleted and its name may not be given again",
    VersionUnknown = 38 "no such version",
    FileExists = 39 "the file exists with other bytes",
    FileUnknown = 40 "no such file",
    FilesTooMany = 41 "too many files",
    JournalMoved = 42 "the journal begins elsewhere",
    LoginNeeded = 60 "login needed",
    NotPermitted = 61 "not permitted",
    NotPermittedAnyMore = 62 "not permitted any more",
    OverHourlyLimit = 63 "over the hour's limit",
    AnothersUpload = 64 "another's upload",
    InvalidPolicy = 65 "it is not valid",
    NamespaceTaken = 66 "it would give repositories to another tenant",
    ManyOfOne = 67 "more than are written one by one",
    ManyOfAll = 68 "more than could be written one by one",
    WrongCredential = 69 "wrong credential",
    TooManyFailedLogins = 70 "too many failed logins",
    JoinTokenSpent = 72 "the join token has admitted all that it was made for",
    RotationUnderWay = 73 "the cluster's authority is being replaced",
    RotationMoved = 74 "the rotation of the authority is at another stage",
    AccountChanged = 80 "the account changed meanwhile",
    SessionUnknown = 81 "no such session",
    NotWithToken = 82 "not with a token",
    StartReplaced = 71 "another start of the node came in between",
}

/// What came of a deed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It was done.
    #[default]
    Done,
    /// It was begun: several commands and nodes make it, and another entry says what came of it.
    Asked,
    /// It was refused.
    Refused(Reason),
    /// It was begun and went wrong.
    Failed(Reason),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Asked => f.write_str("asked for"),
            Self::Refused(reason) => write!(f, "refused: {}", reason.words()),
            Self::Failed(reason) => write!(f, "failed: {}", reason.words()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_of_one_reason() {
        let known: Vec<_> = (1..1_000).filter_map(Reason::from_code).collect();
        assert!(known.len() > 40);
        for reason in known {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::from_code(0), None);
    }
}
