//! What was pulled lately, in memory, until it is written down in batches.
//!
//! Guarantees: memory is bounded; noting costs no write and no wait. A note that is lost makes a pull look older.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nora_domain::{Digest, Item, RepositoryKey, TagName};

/// Things that are kept between two writes; further ones are not noted.
const PULLS_MAX: usize = 10_000;

/// What was pulled lately.
#[derive(Default)]
pub(crate) struct Pulls {
    hasher: RandomState,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    pulls: Vec<(RepositoryKey, Item)>,
    /// Hashes of those, so that a pull that is noted already copies no name.
    seen: HashSet<u64>,
}

impl Pulls {
    /// An artifact was pulled.
    pub(crate) fn artifact(&self, repository: &RepositoryKey, digest: Digest) {
        self.note(repository, self.hasher.hash_one((repository, digest)), || {
            Item::Artifact(digest)
        });
    }

    /// A tag was pulled.
    pub(crate) fn tag(&self, repository: &RepositoryKey, tag: &TagName) {
        self.note(repository, self.hasher.hash_one((repository, tag)), || Item::Tag(tag.clone()));
    }

    fn note(&self, repository: &RepositoryKey, hash: u64, item: impl FnOnce() -> Item) {
        let mut noted = self.lock();
        if noted.pulls.len() < PULLS_MAX && noted.seen.insert(hash) {
            noted.pulls.push((repository.clone(), item()));
        }
    }

    /// What was noted since the last call.
    pub(crate) fn take(&self) -> Vec<(RepositoryKey, Item)> {
        let mut noted = self.lock();
        noted.seen.clear();
        std::mem::take(&mut noted.pulls)
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use nora_domain::{Format, RepositoryPath, TenantName};

    use super::*;

    #[test]
    fn what_is_pulled_often_is_noted_once_and_never_too_much_is_kept() {
        let pulls = Pulls::default();
        let repository = RepositoryKey {
            tenant: TenantName::default_tenant(),
            format: Format::Oci,
            path: RepositoryPath::parse("app").unwrap(),
        };
        let tag = TagName::parse("v1").unwrap();
        let digest = Digest::sha256([1; 32]);
        for _ in 0..3 {
            pulls.artifact(&repository, digest);
            pulls.tag(&repository, &tag);
        }
        let noted = pulls.take();
        assert_eq!(
            noted,
            [(repository.clone(), Item::Artifact(digest)), (repository.clone(), Item::Tag(tag))]
        );
        assert_eq!(pulls.take(), []);
        for i in 0..20_000u32 {
            let mut value = [0; 32];
            value[..4].copy_from_slice(&i.to_be_bytes());
            pulls.artifact(&repository, Digest::sha256(value));
        }
        assert_eq!(pulls.take().len(), PULLS_MAX);
    }
}
