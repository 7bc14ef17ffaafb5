//! The requests that are made of the object store: one method each, with its deadline, its retries and the meaning of
//! its errors.
//!
//! Guarantees: what is sent carries its SHA-256, so that the store refuses what was damaged on the way; every request
//! ends; a request whose outcome is unknown is resolved by asking what the store has. Must not know sessions or ports.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, ConfigBag, Credentials, Intercept, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use nora_domain::{Digest, Generation, UploadId};
use nora_uploads::{chain, id_of, name_of};
use tokio::sync::Semaphore;

use crate::config::ObjectBlobsConfig;
use crate::error::{ObjectError, Target};
use crate::writer::read_file;

/// Attempts of each request; between them a random wait of at most [`WAIT_MAX`], twice as long each time.
const ATTEMPTS_MAX: u32 = 5;
const WAIT_MAX: Duration = Duration::from_secs(5);
const WAIT_MIN: Duration = Duration::from_millis(200);

const CONNECT: Duration = Duration::from_secs(3);
/// For an answer to begin. A part is sent and stored within it even at 200 kB/s.
const ATTEMPT: Duration = Duration::from_secs(45);
/// For all attempts of one request.
const REQUEST: Duration = Duration::from_secs(120);
/// A stream that does not move for so long is given up.
const STALL: Duration = Duration::from_secs(10);

/// Requests that carry a body, and requests that bring one, that are under way at once.
const TRANSFERS_MAX: usize = 16;
const FILE_BUFFER_BYTES: usize = 256 << 10;

/// The property of an object that names the blob it speaks of.
const DIGEST: &str = "nora-digest";

/// What is put into the store.
pub(crate) enum Body {
    /// So many bytes of a file.
    File(PathBuf, u64),
    Bytes(Bytes),
}

/// A bucket, and the prefix of the keys in it.
pub(crate) struct Bucket {
    client: Client,
    target: Target,
    puts: Semaphore,
    gets: Semaphore,
}

impl Bucket {
    pub(crate) fn new(config: &ObjectBlobsConfig) -> Result<Self, ObjectError> {
        let endpoint = config.endpoint.clone();
        let target = Target {
            endpoint: endpoint.clone().unwrap_or_else(|| format!("S3 in {}", config.region)),
            bucket: config.bucket.clone(),
            prefix: config.prefix.trim_matches('/').to_owned(),
        };
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(REQUEST)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS_MAX)
            .with_initial_backoff(WAIT_MIN)
            .with_max_backoff(WAIT_MAX);
        let mut builder = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .credentials_provider(credentials(config)?)
            .timeout_config(timeouts)
            .retry_config(retries)
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().grace_period(STALL).build(),
            )
            // Trailing checksums are not understood by every server; the payload's SHA-256 is.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint_url(endpoint).force_path_style(true);
        }
        let client = Client::from_conf(builder.build());
        Ok(Self {
            client,
            target,
            puts: Semaphore::new(TRANSFERS_MAX),
            gets: Semaphore::new(TRANSFERS_MAX),
        })
    }

    /// A key under the prefix.
    pub(crate) fn key_of(&self, name: &str) -> String {
        match self.target.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }

    /// Where a session's bytes are. The number's last byte is random, so that keys spread over the store's partitions.
    pub(crate) fn key(&self, id: UploadId) -> String {
        let name = name_of(id);
        self.key_of(&format!("blobs/{}/{name}", &name[30..]))
    }

    /// Where the chunk table of a copy is. An upload that is ended twice gets a generation each time, and the tables
    /// say different things: each has a key of its own.
    pub(crate) fn table_key(&self, id: UploadId, generation: Generation) -> String {
        format!("{}.{}-{}.chunks", self.key(id), generation.epoch.0, generation.sequence)
    }

    /// Puts an object, with the digest of the blob that it speaks of as a property. Keys are never used for two contents, so doing it twice is harmless.
    pub(crate) async fn put(
        &self,
        step: &'static str,
        key: &str,
        body: Body,
        digest: Option<Digest>,
    ) -> Result<(), ObjectError> {
        let _permit = self.puts.acquire().await;
        let (body, size, sha256) = prepare(step, body).await?;
        let request = self.client.put_object().bucket(&self.target.bucket).key(key).body(body);
        let digest = digest.map(|digest| HashMap::from([(DIGEST.to_owned(), digest.to_string())]));
        let request = request.set_metadata(digest);
        let sent = request.customize().interceptor(PayloadSha256(sha256)).send().await;
        match sent.map_err(|error| self.target.explain(step, error)) {
            Ok(_) => Ok(()),
            Err(error) if error.outcome_unknown() && self.size(key).await? == Some(size) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins a multipart upload.
    pub(crate) async fn create_multipart(&self, id: UploadId) -> Result<String, ObjectError> {
        let step = "begin a multipart upload";
        let request = self.client.create_multipart_upload();
        let created = request.bucket(&self.target.bucket).key(self.key(id)).send().await;
        let created = created.map_err(|error| self.target.explain(step, error))?;
        created.upload_id.ok_or_else(|| unnamed(step, "upload"))
    }

    /// Sends a part from a file, and returns its entity tag.
    pub(crate) async fn upload_part(
        &self,
        id: UploadId,
        multipart: &str,
        number: usize,
        path: PathBuf,
        len: u64,
    ) -> Result<String, ObjectError> {
        let step = "send a part of an upload";
        let _permit = self.puts.acquire().await;
        let (body, _, sha256) = prepare(step, Body::File(path, len)).await?;
        let request = self.client.upload_part().bucket(&self.target.bucket).key(self.key(id));
        let request = request.upload_id(multipart).part_number(part_number(number)).body(body);
        let sent = request.customize().interceptor(PayloadSha256(sha256)).send().await;
        let sent = sent.map_err(|error| self.target.explain(step, error))?;
        sent.e_tag.ok_or_else(|| unnamed(step, "part"))
    }

    /// Makes an object of so many bytes out of the parts.
    pub(crate) async fn complete(
        &self,
        id: UploadId,
        multipart: &str,
        tags: &[String],
        size: u64,
    ) -> Result<(), ObjectError> {
        let parts = tags.iter().enumerate().map(|(index, tag)| {
            CompletedPart::builder().part_number(part_number(index + 1)).e_tag(tag).build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.target.bucket);
        let request = request.key(self.key(id)).upload_id(multipart).multipart_upload(parts);
        let step = "complete an upload";
        match request.send().await.map_err(|error| self.target.explain(step, error)) {
            Ok(_) => Ok(()),
            // The first attempt may have done it, and its answer was lost.
            Err(error)
                if (error.outcome_unknown()
                    || matches!(error, ObjectError::NoSuchUpload { .. }))
                    && self.size(&self.key(id)).await? == Some(size) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Drops a multipart upload and its parts; it is no error if there is none.
    pub(crate) async fn abort(&self, key: &str, multipart: &str) -> Result<(), ObjectError> {
        let request = self.client.abort_multipart_upload().bucket(&self.target.bucket).key(key);
        let sent = request.upload_id(multipart).send().await;
        match sent.map_err(|error| self.target.explain("abort a multipart upload", error)) {
            Ok(_) | Err(ObjectError::NoSuchUpload { .. }) => Ok(()),
            Err(ObjectError::Absent { .. } | ObjectError::PerhapsAbsent { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// An object's size; `None` if there is none.
    pub(crate) async fn size(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        let head = self.client.head_object().bucket(&self.target.bucket).key(key).send().await;
        match head.map_err(|error| self.target.explain("look for an object", error)) {
            Ok(head) => Ok(head.content_length.and_then(|len| u64::try_from(len).ok())),
            Err(ObjectError::Absent { .. } | ObjectError::PerhapsAbsent { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object; it is no error if there is none.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let sent = self.client.delete_object().bucket(&self.target.bucket).key(key).send().await;
        match sent.map_err(|error| self.target.explain("delete an object", error)) {
            Ok(_) | Err(ObjectError::Absent { .. } | ObjectError::PerhapsAbsent { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A whole object of at most `bytes_max` bytes, and the digest of the blob that it speaks of.
    pub(crate) async fn get(
        &self,
        step: &'static str,
        key: &str,
        bytes_max: usize,
    ) -> Result<(Bytes, Option<String>), ObjectError> {
        let (bytes, object) = self.transfer(step, key, None, bytes_max).await?;
        Ok((bytes, object.metadata().and_then(|properties| properties.get(DIGEST)).cloned()))
    }

    /// A range of an object, whole.
    pub(crate) async fn get_range(
        &self,
        step: &'static str,
        key: &str,
        range: Range<u64>,
    ) -> Result<Bytes, ObjectError> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let (bytes, _) = self.transfer(step, key, Some(range), len).await?;
        if bytes.len() != len {
            let problem = format!("{} bytes came instead of {len}", bytes.len());
            return Err(ObjectError::Damaged { step, problem });
        }
        Ok(bytes)
    }

    /// Reads a body to its end. The client's retries end where an answer begins, so a body that breaks off is asked for
    /// again here.
    async fn transfer(
        &self,
        step: &'static str,
        key: &str,
        range: Option<Range<u64>>,
        bytes_max: usize,
    ) -> Result<(Bytes, GetObjectOutput), ObjectError> {
        let _permit = self.gets.acquire().await;
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let mut attempt = 1;
        loop {
            let request = self.client.get_object().bucket(&self.target.bucket).key(key);
            let got = request.set_range(range.clone()).send().await;
            let mut got = got.map_err(|error| self.target.explain(step, error))?;
            match collect(&mut got.body, bytes_max).await {
                Ok(bytes) => return Ok((bytes, got)),
                Err(source) if attempt < ATTEMPTS_MAX => {
                    tracing::debug!(step, key, attempt, %source, "a body broke off");
                    attempt += 1;
                }
                Err(source) => {
                    let endpoint = self.target.endpoint.clone();
                    return Err(ObjectError::Unreachable { step, endpoint, source });
                }
            }
        }
    }

    /// A URL that gives an object to whoever has it, for a while.
    pub(crate) async fn presign(&self, key: &str, good: Duration) -> Result<String, ObjectError> {
        let setup = |problem: String| ObjectError::Setup { problem };
        let config = PresigningConfig::expires_in(good).map_err(|error| setup(chain(&error)))?;
        let request = self.client.get_object().bucket(&self.target.bucket).key(key);
        let presigned = request.presigned(config).await;
        let presigned = presigned.map_err(|error| self.target.explain("presign a URL", error))?;
        Ok(presigned.uri().to_owned())
    }

    /// Asks for one name under the prefix: the cheapest request whose errors say what is wrong.
    pub(crate) async fn list_one(&self) -> Result<(), ObjectError> {
        let request = self.client.list_objects_v2().bucket(&self.target.bucket).max_keys(1);
        let listed = request.prefix(self.key_of("blobs/")).send().await;
        listed.map_err(|error| self.target.explain("list the bucket", error))?;
        Ok(())
    }

    /// Multipart uploads, of one session or under the whole prefix, that nobody completed: session, number, and when
    /// each was begun (seconds since the Unix epoch).
    pub(crate) async fn unfinished(
        &self,
        of: Option<UploadId>,
    ) -> Result<Vec<(UploadId, String, i64)>, ObjectError> {
        let step = "list unfinished multipart uploads";
        let prefix = of.map_or_else(|| self.key_of("blobs/"), |id| self.key(id));
        let (mut found, mut key_marker, mut id_marker) = (Vec::new(), None, None);
        loop {
            let request = self.client.list_multipart_uploads().bucket(&self.target.bucket);
            let request = request.prefix(&prefix).set_key_marker(key_marker.take());
            let page = request.set_upload_id_marker(id_marker.take()).send().await;
            let page = page.map_err(|error| self.target.explain(step, error))?;
            for upload in page.uploads() {
                let (Some(key), Some(multipart), Some(begun)) =
                    (upload.key(), upload.upload_id(), upload.initiated())
                else {
                    continue;
                };
                // Others may keep things in the bucket.
                let name = key.rsplit('/').next().unwrap_or_default();
                if let Some(id) = id_of(name).filter(|id| self.key(*id) == key) {
                    found.push((id, multipart.to_owned(), begun.secs()));
                }
            }
            if page.is_truncated() != Some(true) || page.next_key_marker().is_none() {
                return Ok(found);
            }
            key_marker = page.next_key_marker().map(str::to_owned);
            id_marker = page.next_upload_id_marker().map(str::to_owned);
        }
    }
}

fn credentials(config: &ObjectBlobsConfig) -> Result<Credentials, ObjectError> {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (key, secret, token) = match (&config.access_key, &config.secret_key) {
        (Some(key), Some(secret)) => (Some(key.clone()), Some(secret.clone()), None),
        (None, None) => {
            (named("AWS_ACCESS_KEY_ID"), named("AWS_SECRET_ACCESS_KEY"), named("AWS_SESSION_TOKEN"))
        }
        _ => (None, None, None),
    };
    match (key, secret) {
        (Some(key), Some(secret)) => Ok(Credentials::new(key, secret, token, None, "nora")),
        _ => Err(ObjectError::Setup {
            problem: "there are no credentials; set both access_key and secret_key, or both \
                      AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
                .to_owned(),
        }),
    }
}

/// Makes a body that can be sent more than once, and tells its size and SHA-256 in hex.
async fn prepare(step: &'static str, body: Body) -> Result<(ByteStream, u64, String), ObjectError> {
    let failed = |source: BoxError| ObjectError::Damaged { step, problem: source.to_string() };
    match body {
        Body::Bytes(bytes) => {
            let mut context = Context::new(&SHA256);
            context.update(&bytes);
            let size = bytes.len() as u64;
            Ok((ByteStream::from(bytes), size, hex(context.finish().as_ref())))
        }
        Body::File(path, size) => {
            let to_hash = path.clone();
            let hashing = tokio::task::spawn_blocking(move || {
                let mut context = Context::new(&SHA256);
                read_file(&to_hash, |bytes| context.update(bytes))?;
                Ok::<_, std::io::Error>(hex(context.finish().as_ref()))
            });
            let sha256 = hashing.await.map_err(|error| failed(error.into()))?;
            let sha256 = sha256.map_err(|error| failed(error.into()))?;
            let stream = ByteStream::read_from().path(path).length(Length::Exact(size));
            let stream = stream.buffer_size(FILE_BUFFER_BYTES).build().await;
            Ok((stream.map_err(|error| failed(error.into()))?, size, sha256))
        }
    }
}

async fn collect(body: &mut ByteStream, bytes_max: usize) -> Result<Bytes, BoxError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.try_next().await? {
        if bytes.len() + frame.len() > bytes_max {
            return Err(format!("more than {bytes_max} bytes came").into());
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes.freeze())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn part_number(number: usize) -> i32 {
    // There are 10,000 parts at most.
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn unnamed(step: &'static str, what: &str) -> ObjectError {
    ObjectError::Damaged { step, problem: format!("the answer does not name the {what}") }
}

/// Signs a request for a payload whose SHA-256 was computed before: the client by itself would leave a streamed payload
/// unsigned, and then nothing would tell damage on the way.
#[derive(Debug)]
struct PayloadSha256(String);

impl Intercept for PayloadSha256 {
    fn name(&self) -> &'static str {
        "PayloadSha256"
    }

    fn modify_before_signing(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let sha256 = PayloadSigningOverride::Precomputed(self.0.clone());
        config.interceptor_state().store_put(sha256);
        Ok(())
    }
}
