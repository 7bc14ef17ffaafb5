//! Blobs: their live copies, where they are visible, and what keeps them while no artifact references them.
//!
//! Guarantees: a blob has one live copy at most; a link, like a pin when it is made, has a live copy behind it; a link
//! stays while an artifact of its repository references the blob. A live copy that every holder has lost keeps its rows,
//! because artifacts need them, but nothing new is built on it until the blob was pushed again.

use super::ledger::Ledger;
use super::{Decision, Step, Stop};
use crate::command::{Outcome, Refusal};
use crate::digest::Digest;
use crate::event::Event;
use crate::name::RepositoryKey;
use crate::record::{
    BlobRecord, Generation, Key, LinkRecord, NodeId, PinRecord, Placement, Record, Standing,
    Timestamp, UploadId,
};
use crate::store::{Rows, Store};

/// How many of a blob's pins each new one looks at for removing expired ones.
const PINS_SWEPT_MAX: usize = 16;

/// The parts of [`crate::command::Action::CommitBlob`].
pub(super) struct Commit<'a> {
    pub(super) repository: &'a RepositoryKey,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) generation: Generation,
    pub(super) node: NodeId,
    pub(super) chunk_root: [u8; 32],
    pub(super) upload: UploadId,
    pub(super) pinned_until: Timestamp,
    pub(super) placement: &'a Placement,
}

/// The blob's row once this copy is there, and whether the copy changed where its bytes are. The first live copy stays;
/// one that every holder has lost gives way to a whole one; the same copy told of twice has the holders of both.
fn with_copy(blob: BlobRecord, commit: &Commit<'_>, placement: Placement) -> (BlobRecord, bool) {
    let placement = match (&blob.placement, placement) {
        (Placement::Nodes(known), placement) if known.is_empty() => placement,
        (Placement::Nodes(known), Placement::Nodes(told))
            if blob.generation == commit.generation =>
        {
            let mut holders = [known.as_slice(), told.as_slice()].concat();
            holders.sort_unstable();
            holders.dedup();
            Placement::Nodes(holders)
        }
        _ => return (blob, false),
    };
    let placed = placement != blob.placement;
    let (generation, chunk_root) = (commit.generation, commit.chunk_root);
    (BlobRecord { generation, chunk_root, placement, ..blob }, placed)
}

impl<S: Store> Step<'_, S> {
    pub(super) fn commit_blob(&mut self, commit: &Commit<'_>) -> Decision<Outcome, S::Error> {
        // One that is joining has no start yet, and the epoch 0.
        let runs = self.node(commit.node)?.is_some_and(|node| {
            node.epoch == commit.generation.epoch
                && !matches!(node.standing, Standing::Joining | Standing::Removed)
        });
        if !runs {
            return Err(Stop::Refused(Refusal::RetiredEpoch));
        }
        let blob = match self.blob(commit.digest)? {
            Some(live) if live.size != commit.size => {
                return Err(Stop::Refused(Refusal::SizeConflict {
                    digest: commit.digest,
                    live: live.size,
                }));
            }
            Some(live) => live,
            None => BlobRecord {
                generation: commit.generation,
                size: commit.size,
                chunk_root: commit.chunk_root,
                references: 0,
                unreferenced_at: self.now,
                touched_at: self.now,
                placement: Placement::Nodes(Vec::new()),
            },
        };
        let placement = self.checked_placement(commit.digest, commit.placement)?;
        let (blob, placed) = with_copy(blob, commit, placement);
        let live = blob.generation;

        let tenant = &commit.repository.tenant;
        let growth = self.growth(commit.repository, commit.digest, blob.size)?;
        self.check_room(tenant, growth, 0, self.set_aside(commit.upload, tenant)?)?;

        self.end_upload(commit.upload)?;
        let mut ledger = self.ledger(commit.repository)?;
        self.put_link(&mut ledger, commit.digest, blob.size)?;
        self.touch_and_pin(commit.digest, blob, commit.upload, commit.pinned_until)?;
        self.settle(ledger)?;
        if placed {
            self.events.push(Event::BlobPlaced { digest: commit.digest });
        }
        Ok(Outcome::BlobCommitted { live })
    }

    pub(super) fn mount_blob(
        &mut self,
        from: &RepositoryKey,
        to: &RepositoryKey,
        digest: Digest,
        pin: UploadId,
        pinned_until: Timestamp,
    ) -> Decision<Outcome, S::Error> {
        let blob = self.visible_blob(from, digest)?;
        self.check_room(&to.tenant, self.growth(to, digest, blob.size)?, 0, 0)?;
        let mut ledger = self.ledger(to)?;
        self.put_link(&mut ledger, digest, blob.size)?;
        self.touch_and_pin(digest, blob, pin, pinned_until)?;
        self.settle(ledger)?;
        Ok(Outcome::BlobMounted)
    }

    pub(super) fn pin_blob(
        &mut self,
        repository: &RepositoryKey,
        digest: Digest,
        pin: UploadId,
        pinned_until: Timestamp,
    ) -> Decision<Outcome, S::Error> {
        let blob = self.visible_blob(repository, digest)?;
        self.touch_and_pin(digest, blob, pin, pinned_until)?;
        Ok(Outcome::BlobPinned)
    }

    pub(super) fn unlink_blob(
        &mut self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Decision<Outcome, S::Error> {
        let Some(link) = self.link(repository, digest)? else {
            return Err(Stop::Refused(Refusal::BlobUnknown(digest)));
        };
        if let Some(by) = self.needed_by(repository, digest)? {
            return Err(Stop::Refused(Refusal::BlobReferenced { digest, by }));
        }
        let mut ledger = self.ledger(repository)?;
        self.remove_link(&mut ledger, digest, link.size)?;
        self.settle(ledger)?;
        Ok(Outcome::BlobUnlinked)
    }

    /// An artifact of the repository that references a blob, if there is one.
    pub(super) fn needed_by(
        &self,
        repository: &RepositoryKey,
        blob: Digest,
    ) -> Result<Option<Digest>, S::Error> {
        let edges = Rows::EdgesIn { blob, repository: repository.clone() };
        match self.store.scan(&edges, 1)?.into_iter().next() {
            Some((Key::Edge(_, _, by), _)) => Ok(Some(by)),
            _ => Ok(None),
        }
    }

    /// Takes a blob that is visible in the ledger's repository, and that nothing there needs, out of it.
    pub(super) fn remove_link(
        &mut self,
        ledger: &mut Ledger<'_>,
        digest: Digest,
        size: u64,
    ) -> Result<(), S::Error> {
        let repository = ledger.repository;
        self.store.delete(&Key::Link(digest, repository.clone()))?;
        let unique = self.unique_bytes_of(repository, digest, size)?;
        let event = Event::BlobUnlinked { repository: repository.clone(), digest };
        ledger.remove_link(size, unique, event);
        Ok(())
    }

    /// Makes a blob visible in the ledger's repository, unless it is.
    fn put_link(
        &mut self,
        ledger: &mut Ledger<'_>,
        digest: Digest,
        size: u64,
    ) -> Result<(), S::Error> {
        let repository = ledger.repository;
        if self.link(repository, digest)?.is_some() {
            return Ok(());
        }
        let unique = self.unique_bytes_of(repository, digest, size)?;
        let record = LinkRecord { size, linked_at: self.now };
        self.store.put(Key::Link(digest, repository.clone()), Record::Link(record))?;
        let event = Event::BlobLinked { repository: repository.clone(), digest, size };
        ledger.add_link(size, unique, event);
        Ok(())
    }

    /// Unique bytes that the tenant's use grows by if a blob becomes visible in a repository of it.
    fn growth(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
        size: u64,
    ) -> Result<u64, S::Error> {
        // Without a policy there are no quotas, and nobody asks.
        if self.cluster.policy_epoch == 0 {
            return Ok(0);
        }
        match self.link(repository, digest)? {
            Some(_) => Ok(0),
            None => self.unique_bytes_of(repository, digest, size),
        }
    }

    /// Notes that someone relies on a blob, and keeps it until `pinned_until` or longer.
    fn touch_and_pin(
        &mut self,
        digest: Digest,
        mut blob: BlobRecord,
        pin: UploadId,
        pinned_until: Timestamp,
    ) -> Result<(), S::Error> {
        blob.touched_at = self.now;
        self.store.put(Key::Blob(digest), Record::Blob(blob))?;

        let key = Key::Pin(digest, pin);
        let known = read!(self.store, Pin, key);
        let expires_at = known.map_or(pinned_until, |known| known.expires_at.max(pinned_until));
        self.store.put(key, Record::Pin(PinRecord { expires_at }))?;
        self.sweep_pins(digest, pin)
    }

    /// Removes expired pins among the neighbours of a new one. Pins have random names, so the neighbours are a fair
    /// sample: once more than one in [`PINS_SWEPT_MAX`] has expired, each new pin removes more than it adds.
    fn sweep_pins(&mut self, digest: Digest, pin: UploadId) -> Result<(), S::Error> {
        let neighbours = Rows::Pins { blob: digest, after: Some(pin) };
        for (key, record) in self.store.scan(&neighbours, PINS_SWEPT_MAX)? {
            if matches!(record, Record::Pin(pin) if pin.expires_at <= self.now) {
                self.store.delete(&key)?;
            }
        }
        Ok(())
    }
}
