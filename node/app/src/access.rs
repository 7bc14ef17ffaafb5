//! What decides who may do what: the policy in force, and the keys that sign sessions.

use nora_domain::{
    AddSigningKey, ClusterRecord, Key, LimitsRecord, PolicyRecord, Record, Refusal, Rows,
    SetPolicy, SharedSecret, SigningKeyRecord, TenantName,
};

use crate::Error;
use crate::core::{Core, record};

/// More signing keys than there are.
const SIGNING_KEYS_MAX: usize = 100;

/// The policy and the signing keys.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    core: &'a Core,
}

impl<'a> Access<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// Puts a policy into force; returns its number. `hash` is the SHA-256 of the document.
    pub async fn set_policy(
        self,
        expected: Option<u64>,
        document: Vec<u8>,
        hash: [u8; 32],
        tenants: Vec<(TenantName, LimitsRecord)>,
    ) -> Result<u64, Error> {
        match self.core.propose(SetPolicy { expected, document, hash, tenants }).await? {
            Err(Refusal::PolicyChanged { epoch }) => Err(Error::Conflict {
                what: format!(
                    "policy {epoch} is in force now; look at it with 'nora policy diff' and apply yours again"
                ),
            }),
            answer => Ok(answer?),
        }
    }

    /// The policy in force, if there is one.
    pub async fn policy(self) -> Result<Option<PolicyRecord>, Error> {
        Ok(record!(Policy, self.core.row(Key::Policy).await?))
    }

    /// The cluster's own record. Its epochs count policies, and changes of everything that a caller is recognised by.
    pub async fn counters(self) -> Result<ClusterRecord, Error> {
        Ok(record!(Cluster, self.core.row(Key::Cluster).await?).unwrap_or_default())
    }

    /// What all members know and nobody else: the secret in force, and the one that comes while it is replaced. Empty before
    /// the cluster is founded.
    pub async fn shared_secrets(self) -> Result<Vec<SharedSecret>, Error> {
        let record = record!(Authority, self.core.row(Key::Authority).await?);
        Ok(record.map_or_else(Vec::new, |record| {
            let next = record.rotation.map(|rotation| rotation.secret);
            [Some(record.secret), next].into_iter().flatten().collect()
        }))
    }

    /// Signs with another key from now on, unless another node has added one meanwhile.
    pub async fn add_signing_key(
        self,
        after: Option<u64>,
        key: SigningKeyRecord,
    ) -> Result<(), Error> {
        match self.core.propose(AddSigningKey { after, key }).await? {
            Ok(_) | Err(Refusal::SigningKeyKnown(_)) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Signing keys in order of their numbers: the last one signs.
    pub async fn signing_keys(self) -> Result<Vec<(u64, SigningKeyRecord)>, Error> {
        let rows = self.core.rows(Rows::SigningKeys, SIGNING_KEYS_MAX).await?;
        let keys = rows.into_iter().filter_map(|row| match row {
            (Key::SigningKey(number), Record::SigningKey(record)) => Some((number, record)),
            _ => None,
        });
        Ok(keys.collect())
    }
}
