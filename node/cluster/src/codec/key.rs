//! Keys as the store orders them.
//!
//! Guarantee: for any two keys the order of their bytes is the order of the keys, so a range of keys is one range of
//! bytes. A key is its table's byte and then its parts: numbers most significant byte first; names as UTF-8 with a
//! closing zero, which no name holds, so a name orders before every longer one that it starts; a digest as its
//! algorithm's byte and its value, whose length the algorithm tells.

use nora_domain::identity::Rate;
use nora_domain::name::{AccountName, OwnerName, TokenName};
use nora_domain::record::{Epoch, Key, NodeId, TokenId, UploadId};
use nora_domain::{Algorithm, Digest, Format, RepositoryKey, RepositoryPath, TagName, TenantName};

use super::DecodeError;

/// Bytes below are not rows: the store keeps its own records there.
pub const FIRST_TABLE: u8 = 0x10;

/// A kind of row. Gaps leave room for kinds to come between, whose keys must order between their neighbours'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Table {
    Cluster = 0x10,
    Node = 0x18,
    Usage = 0x20,
    Repository = 0x28,
    Artifact = 0x30,
    Tag = 0x38,
    TagOf = 0x3c,
    Link = 0x40,
    Referrer = 0x48,
    Blob = 0x50,
    Edge = 0x58,
    Pin = 0x60,
    Upload = 0x68,
    Session = 0x70,
    JoinToken = 0x78,
    Authority = 0x80,
    Policy = 0x88,
    Tenant = 0x90,
    Account = 0x98,
    AccessToken = 0xa0,
    NamedToken = 0xa8,
    SigningKey = 0xb0,
    Assertion = 0xb8,
    Budget = 0xc0,
    AuditHead = 0xc8,
    Audit = 0xd0,
}

const TABLES: [Table; 26] = [
    Table::Cluster,
    Table::Node,
    Table::Usage,
    Table::Repository,
    Table::Artifact,
    Table::Tag,
    Table::TagOf,
    Table::Link,
    Table::Referrer,
    Table::Blob,
    Table::Edge,
    Table::Pin,
    Table::Upload,
    Table::Session,
    Table::JoinToken,
    Table::Authority,
    Table::Policy,
    Table::Tenant,
    Table::Account,
    Table::AccessToken,
    Table::NamedToken,
    Table::SigningKey,
    Table::Assertion,
    Table::Budget,
    Table::AuditHead,
    Table::Audit,
];

/// The bytes of a key.
pub fn encode(key: &Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    match key {
        Key::Cluster => out.push(Table::Cluster as u8),
        Key::Node(node) => {
            out.push(Table::Node as u8);
            out.extend(node.0.to_be_bytes());
        }
        Key::Usage(tenant) => {
            out.push(Table::Usage as u8);
            put_name(&mut out, tenant.as_str());
        }
        Key::Repository(repository) => put_repository(&mut out, Table::Repository, repository),
        Key::Artifact(repository, digest) => {
            put_repository(&mut out, Table::Artifact, repository);
            put_digest(&mut out, digest);
        }
        Key::Tag(repository, tag) => {
            put_repository(&mut out, Table::Tag, repository);
            put_name(&mut out, tag.as_str());
        }
        Key::TagOf(repository, digest, tag) => {
            put_repository(&mut out, Table::TagOf, repository);
            put_digest(&mut out, digest);
            put_name(&mut out, tag.as_str());
        }
        Key::Link(blob, repository) => {
            out.push(Table::Link as u8);
            put_digest(&mut out, blob);
            put_repository_parts(&mut out, repository);
        }
        Key::Referrer(repository, subject, digest) => {
            put_repository(&mut out, Table::Referrer, repository);
            put_digest(&mut out, subject);
            put_digest(&mut out, digest);
        }
        Key::Blob(digest) => {
            out.push(Table::Blob as u8);
            put_digest(&mut out, digest);
        }
        Key::Edge(blob, repository, digest) => {
            out.push(Table::Edge as u8);
            put_digest(&mut out, blob);
            put_repository_parts(&mut out, repository);
            put_digest(&mut out, digest);
        }
        Key::Pin(blob, pin) => {
            out.push(Table::Pin as u8);
            put_digest(&mut out, blob);
            out.extend(pin.0.to_be_bytes());
        }
        Key::Upload(upload) => {
            out.push(Table::Upload as u8);
            out.extend(upload.0.to_be_bytes());
        }
        Key::Session(epoch) => {
            out.push(Table::Session as u8);
            out.extend(epoch.0.to_be_bytes());
        }
        Key::JoinToken(token) => {
            out.push(Table::JoinToken as u8);
            out.extend(token.0.to_be_bytes());
        }
        Key::Authority => out.push(Table::Authority as u8),
        Key::Policy => out.push(Table::Policy as u8),
        Key::Tenant(tenant) => {
            out.push(Table::Tenant as u8);
            put_name(&mut out, tenant.as_str());
        }
        Key::Account(account) => {
            out.push(Table::Account as u8);
            put_name(&mut out, account.as_str());
        }
        Key::AccessToken(token) => {
            out.push(Table::AccessToken as u8);
            out.extend(token.0.to_be_bytes());
        }
        Key::TokenOf(owner, name) => {
            out.push(Table::NamedToken as u8);
            put_name(&mut out, owner.as_str());
            put_name(&mut out, name.as_str());
        }
        Key::SigningKey(number) => {
            out.push(Table::SigningKey as u8);
            out.extend(number.to_be_bytes());
        }
        Key::Assertion(hash) => {
            out.push(Table::Assertion as u8);
            out.extend(hash);
        }
        Key::Budget(tenant, rate) => {
            out.push(Table::Budget as u8);
            put_name(&mut out, tenant.as_str());
            out.push(rate_byte(*rate));
        }
        Key::AuditHead => out.push(Table::AuditHead as u8),
        Key::Audit(number) => {
            out.push(Table::Audit as u8);
            out.extend(number.to_be_bytes());
        }
    }
    out
}

/// The key that these bytes say.
pub fn decode(bytes: &[u8]) -> Result<Key, DecodeError> {
    let mut rest = Parts(bytes);
    let byte = rest.byte()?;
    let table = TABLES
        .into_iter()
        .find(|table| *table as u8 == byte)
        .ok_or(DecodeError::Unknown("key.table"))?;
    let key = match table {
        Table::Cluster => Key::Cluster,
        Table::Node => Key::Node(NodeId(u64::from_be_bytes(rest.array()?))),
        Table::Usage => Key::Usage(TenantName::parse(rest.name()?)?),
        Table::Repository => Key::Repository(rest.repository()?),
        Table::Artifact => Key::Artifact(rest.repository()?, rest.digest()?),
        Table::Tag => Key::Tag(rest.repository()?, TagName::parse(rest.name()?)?),
        Table::TagOf => {
            Key::TagOf(rest.repository()?, rest.digest()?, TagName::parse(rest.name()?)?)
        }
        Table::Link => Key::Link(rest.digest()?, rest.repository()?),
        Table::Referrer => Key::Referrer(rest.repository()?, rest.digest()?, rest.digest()?),
        Table::Blob => Key::Blob(rest.digest()?),
        Table::Edge => Key::Edge(rest.digest()?, rest.repository()?, rest.digest()?),
        Table::Pin => Key::Pin(rest.digest()?, UploadId(u128::from_be_bytes(rest.array()?))),
        Table::Upload => Key::Upload(UploadId(u128::from_be_bytes(rest.array()?))),
        Table::Session => Key::Session(Epoch(u64::from_be_bytes(rest.array()?))),
        Table::JoinToken => Key::JoinToken(TokenId(u128::from_be_bytes(rest.array()?))),
        Table::Authority => Key::Authority,
        Table::Policy => Key::Policy,
        Table::Tenant => Key::Tenant(TenantName::parse(rest.name()?)?),
        Table::Account => Key::Account(AccountName::parse(rest.name()?)?),
        Table::AccessToken => Key::AccessToken(TokenId(u128::from_be_bytes(rest.array()?))),
        Table::NamedToken => {
            Key::TokenOf(OwnerName::parse(rest.name()?)?, TokenName::parse(rest.name()?)?)
        }
        Table::SigningKey => Key::SigningKey(u64::from_be_bytes(rest.array()?)),
        Table::Assertion => Key::Assertion(rest.array()?),
        Table::Budget => Key::Budget(TenantName::parse(rest.name()?)?, rate_from(rest.byte()?)?),
        Table::AuditHead => Key::AuditHead,
        Table::Audit => Key::Audit(u64::from_be_bytes(rest.array()?)),
    };
    if rest.0.is_empty() { Ok(key) } else { Err(DecodeError::Key) }
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.extend(name.as_bytes());
    out.push(0);
}

const fn rate_byte(rate: Rate) -> u8 {
    match rate {
        Rate::Push => 1,
        Rate::Pull => 2,
    }
}

fn rate_from(byte: u8) -> Result<Rate, DecodeError> {
    match byte {
        1 => Ok(Rate::Push),
        2 => Ok(Rate::Pull),
        _ => Err(DecodeError::Unknown("key.rate")),
    }
}

const fn format_byte(format: Format) -> u8 {
    match format {
        Format::Oci => 1,
        Format::Npm => 2,
        Format::Pypi => 3,
        Format::Maven => 4,
        Format::Cargo => 5,
    }
}

const FORMATS: [Format; 5] = [Format::Oci, Format::Npm, Format::Pypi, Format::Maven, Format::Cargo];

fn put_repository(out: &mut Vec<u8>, table: Table, repository: &RepositoryKey) {
    out.push(table as u8);
    put_repository_parts(out, repository);
}

fn put_repository_parts(out: &mut Vec<u8>, repository: &RepositoryKey) {
    put_name(out, repository.tenant.as_str());
    out.push(format_byte(repository.format));
    put_name(out, repository.path.as_str());
}

const fn algorithm_byte(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    }
}

fn put_digest(out: &mut Vec<u8>, digest: &Digest) {
    out.push(algorithm_byte(digest.algorithm()));
    out.extend(digest.value());
}

/// What of a key is still to be read.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Key)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Key)
    }

    fn name(&mut self) -> Result<&'a str, DecodeError> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(DecodeError::Key)?;
        let name = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(name).map_err(|_| DecodeError::Key)
    }

    fn repository(&mut self) -> Result<RepositoryKey, DecodeError> {
        let tenant = TenantName::parse(self.name()?)?;
        let byte = self.byte()?;
        let format = FORMATS
            .into_iter()
            .find(|format| format_byte(*format) == byte)
            .ok_or(DecodeError::Unknown("key.format"))?;
        Ok(RepositoryKey { tenant, format, path: RepositoryPath::parse(self.name()?)? })
    }

    fn digest(&mut self) -> Result<Digest, DecodeError> {
        let algorithm = match self.byte()? {
            1 => Algorithm::Sha256,
            2 => Algorithm::Sha512,
            _ => return Err(DecodeError::Unknown("key.algorithm")),
        };
        let value = self.take(algorithm.len_bytes())?;
        Digest::from_parts(algorithm, value).ok_or(DecodeError::Key)
    }
}
