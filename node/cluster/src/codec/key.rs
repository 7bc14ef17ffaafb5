//! Keys as the store orders them.
//!
//! The cluster's own rows come first: a table's byte, then the parts of the key. Each tenant's rows are one range: the
//! byte 0x80, the tenant's name, a table's byte, then the other parts. Numbers are written most significant byte first;
//! names as UTF-8 with a closing zero, which no name holds, so a name orders before every longer one that it starts; a
//! digest as its algorithm's byte and its value, whose length the algorithm fixes.
//!
//! Guarantee: for any two keys the order of their bytes is the order of the keys, so a range of keys is one range of
//! bytes.

use nora_domain::{
    AccountName, Algorithm, ConsumerName, Digest, FileName, Format, Holder, Item, Key, NodeId,
    OwnerName, Rate, RepositoryKey, RepositoryPath, TagName, Target, TenantName, TokenId,
    TokenName, UploadId, VersionName,
};

use super::DecodeError;

/// Bytes below are not rows: the store keeps its own records there.
pub const FIRST_TABLE: u8 = 0x10;

/// What every key of a tenant begins with. The tables of the cluster's own rows are below.
pub const TENANTS: u8 = 0x80;

/// Gives tables their bytes. Gaps leave room for later kinds, whose keys must order between their neighbours'.
macro_rules! tables {
    ($(#[$doc:meta])* $type:ident { $($table:ident = $byte:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        enum $type {
            $($table = $byte,)*
        }

        impl $type {
            fn from_byte(byte: u8) -> Result<Self, DecodeError> {
                match byte {
                    $($byte => Ok(Self::$table),)*
                    _ => Err(DecodeError::Unknown("key.table")),
                }
            }
        }
    };
}

tables! {
    /// A kind of row of the cluster's own.
    Table {
        Cluster = 0x10,
        Authority = 0x14,
        Node = 0x18,
        JoinToken = 0x1c,
        Policy = 0x20,
        Account = 0x24,
        AccessToken = 0x28,
        TokenOf = 0x2c,
        RefreshToken = 0x2e,
        SigningKey = 0x30,
        Assertion = 0x34,
        Tenant = 0x38,
        Journal = 0x3c,
        Segment = 0x40,
        Cursor = 0x44,
        Blob = 0x48,
        HeldBy = 0x4c,
    }
}

tables! {
    /// A kind of row of a tenant's.
    TenantTable {
        Usage = 0x10,
        Limits = 0x14,
        Budget = 0x18,
        Upload = 0x1c,
        TenantBlob = 0x20,
        Repository = 0x24,
        Artifact = 0x28,
        ParentOf = 0x2c,
        Referrer = 0x30,
        Version = 0x34,
        File = 0x38,
        Tag = 0x3c,
        TagOf = 0x40,
        Link = 0x44,
        Edge = 0x48,
        Pulled = 0x4c,
    }
}

/// The bytes of a key.
pub fn encode(key: &Key) -> Vec<u8> {
    use TenantTable as T;
    match key {
        Key::Cluster => table(Table::Cluster),
        Key::Authority => table(Table::Authority),
        Key::Node(node) => table(Table::Node).number(node.0),
        Key::JoinToken(token) => table(Table::JoinToken).random(token.0),
        Key::Policy => table(Table::Policy),
        Key::Account(account) => table(Table::Account).name(account.as_str()),
        Key::AccessToken(token) => table(Table::AccessToken).random(token.0),
        Key::TokenOf(owner, name) => table(Table::TokenOf).name(owner.as_str()).name(name.as_str()),
        Key::RefreshToken(owner, token) => {
            table(Table::RefreshToken).name(owner.as_str()).random(token.0)
        }
        Key::SigningKey(number) => table(Table::SigningKey).number(*number),
        Key::Assertion(hash) => table(Table::Assertion).bytes(hash),
        Key::Tenant(tenant) => table(Table::Tenant).name(tenant.as_str()),
        Key::Journal(number) => table(Table::Journal).number(*number),
        Key::Segment(first) => table(Table::Segment).number(*first),
        Key::Cursor(consumer) => table(Table::Cursor).name(consumer.as_str()),
        Key::Blob(digest) => table(Table::Blob).digest(digest),
        Key::HeldBy(blob, tenant) => table(Table::HeldBy).digest(blob).name(tenant.as_str()),
        Key::Usage(tenant) => of_tenant(tenant, T::Usage),
        Key::Limits(tenant) => of_tenant(tenant, T::Limits),
        Key::Budget(tenant, rate) => of_tenant(tenant, T::Budget).byte(rate_byte(*rate)),
        Key::Upload(tenant, upload) => of_tenant(tenant, T::Upload).random(upload.0),
        Key::TenantBlob(tenant, blob) => of_tenant(tenant, T::TenantBlob).digest(blob),
        Key::Repository(repository) => of(repository, T::Repository),
        Key::Artifact(repository, digest) => of(repository, T::Artifact).digest(digest),
        Key::ParentOf(repository, child, parent) => {
            of(repository, T::ParentOf).digest(child).digest(parent)
        }
        Key::Referrer(repository, subject, digest) => {
            of(repository, T::Referrer).digest(subject).digest(digest)
        }
        Key::Version(repository, version) => of(repository, T::Version).name(version.as_str()),
        Key::File(repository, version, file) => {
            of(repository, T::File).name(version.as_str()).name(file.as_str())
        }
        Key::Tag(repository, tag) => of(repository, T::Tag).name(tag.as_str()),
        Key::TagOf(repository, target, tag) => {
            of(repository, T::TagOf).target(target).name(tag.as_str())
        }
        Key::Link(repository, blob) => of(repository, T::Link).digest(blob),
        Key::Edge(repository, blob, holder) => of(repository, T::Edge).digest(blob).holder(holder),
        Key::Pulled(repository, item) => of(repository, T::Pulled).item(item),
    }
    .0
}

/// The key that these bytes say.
pub fn decode(bytes: &[u8]) -> Result<Key, DecodeError> {
    let mut rest = Parts(bytes);
    let byte = rest.byte()?;
    let key = if byte == TENANTS {
        let tenant = TenantName::parse(rest.name()?)?;
        let table = TenantTable::from_byte(rest.byte()?)?;
        rest.tenant_key(table, tenant)?
    } else {
        rest.cluster_key(Table::from_byte(byte)?)?
    };
    if rest.0.is_empty() { Ok(key) } else { Err(DecodeError::Key) }
}

/// The exclusive end of the table that the key `start` is in, within its tenant. An iterator that stops there does not
/// look past deleted rows of other tables.
pub fn upper_bound(start: &[u8]) -> Vec<u8> {
    let table_at = match start {
        [TENANTS, name @ ..] => match name.iter().position(|byte| *byte == 0) {
            // After the first byte, the name and its zero.
            Some(end) => end + 2,
            // Not a whole key: all tenants.
            None => 0,
        },
        _ => 0,
    };
    successor(&start[..start.len().min(table_at + 1)])
}

/// The first bytes that order after everything that begins with `prefix`.
fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if let Some(greater) = last.checked_add(1) {
            next.push(greater);
            return next;
        }
    }
    // No table's byte is 0xff, so this orders after every key.
    vec![u8::MAX]
}

const fn rate_byte(rate: Rate) -> u8 {
    match rate {
        Rate::Push => 1,
        Rate::Pull => 2,
        Rate::AnonymousPull => 3,
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

const fn algorithm_byte(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    }
}

fn table(table: Table) -> Draft {
    let mut bytes = Vec::with_capacity(96);
    bytes.push(table as u8);
    Draft(bytes)
}

fn of_tenant(tenant: &TenantName, table: TenantTable) -> Draft {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(TENANTS);
    Draft(bytes).name(tenant.as_str()).byte(table as u8)
}

fn of(repository: &RepositoryKey, table: TenantTable) -> Draft {
    let RepositoryKey { tenant, format, path } = repository;
    of_tenant(tenant, table).byte(format_byte(*format)).name(path.as_str())
}

/// A key that is being written.
struct Draft(Vec<u8>);

impl Draft {
    fn byte(self, byte: u8) -> Self {
        self.bytes(&[byte])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    fn random(self, name: u128) -> Self {
        self.bytes(&name.to_be_bytes())
    }

    fn name(self, name: &str) -> Self {
        self.bytes(name.as_bytes()).byte(0)
    }

    fn digest(self, digest: &Digest) -> Self {
        self.byte(algorithm_byte(digest.algorithm())).bytes(digest.value())
    }

    fn target(self, target: &Target) -> Self {
        match target {
            Target::Artifact(digest) => self.byte(1).digest(digest),
            Target::Version(version) => self.byte(2).name(version.as_str()),
        }
    }

    fn holder(self, holder: &Holder) -> Self {
        match holder {
            Holder::Artifact(digest) => self.byte(1).digest(digest),
            Holder::Version(version) => self.byte(2).name(version.as_str()),
            Holder::File(version, file) => self.byte(3).name(version.as_str()).name(file.as_str()),
            Holder::Segment(first) => self.byte(4).number(*first),
        }
    }

    fn item(self, item: &Item) -> Self {
        match item {
            Item::Artifact(digest) => self.byte(1).digest(digest),
            Item::Tag(tag) => self.byte(2).name(tag.as_str()),
            Item::Version(version) => self.byte(3).name(version.as_str()),
            Item::File(version, file) => self.byte(4).name(version.as_str()).name(file.as_str()),
        }
    }
}

/// What of a key is still to be read.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn cluster_key(&mut self, table: Table) -> Result<Key, DecodeError> {
        Ok(match table {
            Table::Cluster => Key::Cluster,
            Table::Authority => Key::Authority,
            Table::Node => Key::Node(NodeId(self.number()?)),
            Table::JoinToken => Key::JoinToken(TokenId(self.random()?)),
            Table::Policy => Key::Policy,
            Table::Account => Key::Account(AccountName::parse(self.name()?)?),
            Table::AccessToken => Key::AccessToken(TokenId(self.random()?)),
            Table::TokenOf => {
                Key::TokenOf(OwnerName::parse(self.name()?)?, TokenName::parse(self.name()?)?)
            }
            Table::RefreshToken => {
                Key::RefreshToken(OwnerName::parse(self.name()?)?, TokenId(self.random()?))
            }
            Table::SigningKey => Key::SigningKey(self.number()?),
            Table::Assertion => Key::Assertion(self.array()?),
            Table::Tenant => Key::Tenant(TenantName::parse(self.name()?)?),
            Table::Journal => Key::Journal(self.number()?),
            Table::Segment => Key::Segment(self.number()?),
            Table::Cursor => Key::Cursor(ConsumerName::parse(self.name()?)?),
            Table::Blob => Key::Blob(self.digest()?),
            Table::HeldBy => Key::HeldBy(self.digest()?, TenantName::parse(self.name()?)?),
        })
    }

    fn tenant_key(&mut self, table: TenantTable, tenant: TenantName) -> Result<Key, DecodeError> {
        use TenantTable as T;
        let key = match table {
            T::Usage => Key::Usage(tenant),
            T::Limits => Key::Limits(tenant),
            T::Budget => Key::Budget(tenant, self.rate()?),
            T::Upload => Key::Upload(tenant, UploadId(self.random()?)),
            T::TenantBlob => Key::TenantBlob(tenant, self.digest()?),
            T::Repository => Key::Repository(self.repository(tenant)?),
            T::Artifact => Key::Artifact(self.repository(tenant)?, self.digest()?),
            T::ParentOf => Key::ParentOf(self.repository(tenant)?, self.digest()?, self.digest()?),
            T::Referrer => Key::Referrer(self.repository(tenant)?, self.digest()?, self.digest()?),
            T::Version => Key::Version(self.repository(tenant)?, self.version()?),
            T::File => Key::File(self.repository(tenant)?, self.version()?, self.file()?),
            T::Tag => Key::Tag(self.repository(tenant)?, self.tag()?),
            T::TagOf => Key::TagOf(self.repository(tenant)?, self.target()?, self.tag()?),
            T::Link => Key::Link(self.repository(tenant)?, self.digest()?),
            T::Edge => Key::Edge(self.repository(tenant)?, self.digest()?, self.holder()?),
            T::Pulled => Key::Pulled(self.repository(tenant)?, self.item()?),
        };
        Ok(key)
    }

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

    fn number(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn random(&mut self) -> Result<u128, DecodeError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    fn name(&mut self) -> Result<&'a str, DecodeError> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(DecodeError::Key)?;
        let name = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(name).map_err(|_| DecodeError::Key)
    }

    fn version(&mut self) -> Result<VersionName, DecodeError> {
        Ok(VersionName::parse(self.name()?)?)
    }

    fn file(&mut self) -> Result<FileName, DecodeError> {
        Ok(FileName::parse(self.name()?)?)
    }

    fn tag(&mut self) -> Result<TagName, DecodeError> {
        Ok(TagName::parse(self.name()?)?)
    }

    fn rate(&mut self) -> Result<Rate, DecodeError> {
        let byte = self.byte()?;
        let rate = Rate::ALL.into_iter().find(|rate| rate_byte(*rate) == byte);
        rate.ok_or(DecodeError::Unknown("key.rate"))
    }

    /// What follows the tenant and the table in the key of a repository's row.
    fn repository(&mut self, tenant: TenantName) -> Result<RepositoryKey, DecodeError> {
        let byte = self.byte()?;
        let format = Format::ALL
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

    fn target(&mut self) -> Result<Target, DecodeError> {
        match self.byte()? {
            1 => Ok(Target::Artifact(self.digest()?)),
            2 => Ok(Target::Version(self.version()?)),
            _ => Err(DecodeError::Unknown("key.target")),
        }
    }

    fn holder(&mut self) -> Result<Holder, DecodeError> {
        match self.byte()? {
            1 => Ok(Holder::Artifact(self.digest()?)),
            2 => Ok(Holder::Version(self.version()?)),
            3 => Ok(Holder::File(self.version()?, self.file()?)),
            4 => Ok(Holder::Segment(self.number()?)),
            _ => Err(DecodeError::Unknown("key.holder")),
        }
    }

    fn item(&mut self) -> Result<Item, DecodeError> {
        match self.byte()? {
            1 => Ok(Item::Artifact(self.digest()?)),
            2 => Ok(Item::Tag(self.tag()?)),
            3 => Ok(Item::Version(self.version()?)),
            4 => Ok(Item::File(self.version()?, self.file()?)),
            _ => Err(DecodeError::Unknown("key.item")),
        }
    }
}
