//! Why a request to the object store failed, told so that an operator knows what to change.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use nora_app::ports::BoxError;
use nora_app::ports::uploads::UploadError;
use nora_uploads::chain;

/// Why the object store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The configuration cannot work.
    #[error("the object store is not set up right: {problem}")]
    Setup {
        /// What is wrong, and what to do.
        problem: String,
    },
    /// No answer came: the service is down, or the network is.
    #[error(
        "cannot {step}: {endpoint} did not answer; check that the endpoint is right and reachable \
         from this node"
    )]
    Unreachable {
        /// What was being done.
        step: &'static str,
        /// Who was asked.
        endpoint: String,
        /// Why no answer came.
        source: BoxError,
    },
    /// The service is overloaded or failing; all retries are used up.
    #[error("cannot {step}: the object store answered {code} to every attempt; try again later")]
    Busy {
        /// What was being done.
        step: &'static str,
        /// The service's error code, or the HTTP status.
        code: String,
    },
    /// There is no such bucket.
    #[error("cannot {step}: there is no bucket {bucket:?}; create it, or correct its name")]
    BucketMissing {
        /// What was being done.
        step: &'static str,
        /// The bucket.
        bucket: String,
    },
    /// The service does not take the key.
    #[error(
        "cannot {step}: the credentials were refused ({code}); check the access key, its secret and the region"
    )]
    CredentialsRefused {
        /// What was being done.
        step: &'static str,
        /// The service's error code.
        code: String,
    },
    /// This machine's clock and the service's differ too much for signatures to hold.
    #[error("cannot {step}: {}; set this machine's clock by NTP", skew_text(.skew_seconds))]
    ClockSkew {
        /// What was being done.
        step: &'static str,
        /// Seconds that this machine's clock is ahead (negative: behind); `None` if the service did not tell its time.
        skew_seconds: Option<i64>,
    },
    /// The credentials are good, and may not do this.
    #[error(
        "cannot {step}: access denied to {place:?}; the credentials need GetObject, PutObject, \
         DeleteObject, AbortMultipartUpload there, and ListBucket and ListBucketMultipartUploads on \
         the bucket"
    )]
    AccessDenied {
        /// What was being done.
        step: &'static str,
        /// Bucket and prefix.
        place: String,
    },
    /// There is no such object.
    #[error("cannot {step}: there is no such object")]
    Absent {
        /// What was being done.
        step: &'static str,
    },
    /// A 404 that does not say what is absent: a proxy, or a service that is no object store, answers like this too. The
    /// answer to a HEAD never says more.
    #[error(
        "cannot {step}: {endpoint} answered 404 without the code NoSuchKey; check the endpoint, and what stands between \
         this node and the object store"
    )]
    PerhapsAbsent {
        /// What was being done.
        step: &'static str,
        /// Who was asked.
        endpoint: String,
    },
    /// There is no such multipart upload (any more).
    #[error("cannot {step}: there is no such multipart upload")]
    NoSuchUpload {
        /// What was being done.
        step: &'static str,
    },
    /// What came back is not what was stored.
    #[error("cannot {step}: {problem}")]
    Damaged {
        /// What was being done.
        step: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Anything else.
    #[error("cannot {step}: the object store answered {code}: {message}")]
    Other {
        /// What was being done.
        step: &'static str,
        /// The service's error code, or the HTTP status.
        code: String,
        /// What it said.
        message: String,
    },
}

fn skew_text(skew_seconds: &Option<i64>) -> String {
    match skew_seconds {
        Some(skew @ 0..) => format!("this machine's clock is {skew} s ahead of the object store's"),
        Some(skew) => format!("this machine's clock is {} s behind the object store's", -skew),
        None => "this machine's clock and the object store's differ too much".to_owned(),
    }
}

impl ObjectError {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. })
    }

    /// Whether the request may have been done even so.
    pub(crate) fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. } | Self::Other { .. })
    }
}

impl From<ObjectError> for UploadError {
    fn from(error: ObjectError) -> Self {
        if error.is_transient() {
            Self::Unavailable(error.into())
        } else {
            Self::Io { step: "store the upload in the object store", source: error.into() }
        }
    }
}

/// Who is asked, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

impl Target {
    /// Tells what a failed request means.
    pub(crate) fn explain<E>(
        &self,
        step: &'static str,
        error: SdkError<E, HttpResponse>,
    ) -> ObjectError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let Some(response) = error.raw_response() else {
            let endpoint = self.endpoint.clone();
            return match error {
                SdkError::ConstructionFailure(_) => ObjectError::Setup {
                    problem: format!("a request could not be made ({})", chain(&error)),
                },
                _ => ObjectError::Unreachable { step, endpoint, source: chain(&error).into() },
            };
        };
        let status = response.status().as_u16();
        let date = response.headers().get("date").map(str::to_owned);
        let metadata = error.as_service_error().map(|error| error.meta());
        let code = metadata.and_then(|meta| meta.code()).unwrap_or_default().to_owned();
        let message = metadata.and_then(|meta| meta.message()).unwrap_or_default().to_owned();
        let code_or_status = if code.is_empty() { format!("HTTP {status}") } else { code.clone() };
        match (code.as_str(), status) {
            ("NoSuchBucket", _) => ObjectError::BucketMissing { step, bucket: self.bucket.clone() },
            ("RequestTimeTooSkewed", _) => {
                ObjectError::ClockSkew { step, skew_seconds: date.and_then(skew_since) }
            }
            (
                "InvalidAccessKeyId"
                | "XAdminUserNotFound"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "AuthorizationHeaderMalformed"
                | "InvalidSecurity",
                _,
            )
            | (_, 401) => ObjectError::CredentialsRefused { step, code: code_or_status },
            ("NoSuchUpload", _) => ObjectError::NoSuchUpload { step },
            ("NoSuchKey", _) => ObjectError::Absent { step },
            ("NotFound", _) | ("", 404) => {
                ObjectError::PerhapsAbsent { step, endpoint: self.endpoint.clone() }
            }
            ("AccessDenied" | "AllAccessDisabled", _) | ("", 403) => ObjectError::AccessDenied {
                step,
                place: format!("{}/{}", self.bucket, self.prefix),
            },
            (
                "XAmzContentSHA256Mismatch"
                | "BadDigest"
                | "SlowDown"
                | "RequestTimeout"
                | "Throttling"
                | "TooManyRequests",
                _,
            )
            | (_, 429 | 500..) => ObjectError::Busy { step, code: code_or_status },
            // An answer was begun that could not be read to its end.
            (_, 200..300) => ObjectError::Unreachable {
                step,
                endpoint: self.endpoint.clone(),
                source: chain(&error).into(),
            },
            _ => ObjectError::Other { step, code: code_or_status, message },
        }
    }
}

/// Seconds from the service's time to this machine's.
fn skew_since(date: String) -> Option<i64> {
    let theirs = DateTime::from_str(&date, DateTimeFormat::HttpDate).ok()?;
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Some(i64::try_from(ours.as_secs()).ok()?.saturating_sub(theirs.secs()))
}
