//! Blobs that become visible, stay, and go.
//!
//! Guarantees: a blob has one live copy at most; a link, when it is made, has a live copy behind it that enough nodes
//! hold; a link stays while anything of its repository needs the blob. A live copy that every holder has lost keeps its
//! rows, because artifacts need them, but nothing new is built on it until the blob was pushed again.

use super::placement::majority;
use super::{
    BlobCommitted, BlobRecord, CommitBlob, Holder, LinkRecord, LoseObject, MountBlob, PinBlob,
    Placement, TenantBlobRecord, UnlinkBlob,
};
use crate::cluster::StorageMode;
use crate::command::Refusal;
use crate::digest::Digest;
use crate::journal::Event;
use crate::names::{RepositoryKey, TenantName};
use crate::node::runs;
use crate::repository::Ledger;
use crate::state::{Key, Record, Rows, Store};
use crate::time::Timestamp;
use crate::transition::{Decision, Step, lower, raise, refuse};

impl<S: Store> Step<'_, S> {
    pub(crate) fn blob(&self, digest: Digest) -> Result<Option<BlobRecord>, S::Error> {
        Ok(read!(self.store, Blob, Key::Blob(digest)))
    }

    pub(crate) fn link(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Option<LinkRecord>, S::Error> {
        Ok(read!(self.store, Link, Key::Link(repository.clone(), digest)))
    }

    pub(crate) fn tenant_blob(
        &self,
        tenant: &TenantName,
        digest: Digest,
    ) -> Result<Option<TenantBlobRecord>, S::Error> {
        Ok(read!(self.store, TenantBlob, Key::TenantBlob(tenant.clone(), digest)))
    }

    /// The live copy of a blob that is visible in a repository, unless it is lost.
    pub(crate) fn visible_blob(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Decision<BlobRecord, S::Error> {
        let live = match self.link(repository, digest)? {
            Some(_) => self.blob(digest)?.filter(|blob| !blob.placement.is_lost()),
            None => None,
        };
        live.map_or_else(|| refuse(Refusal::BlobUnknown(digest)), Ok)
    }

    pub(crate) fn commit_blob(
        &mut self,
        command: &CommitBlob,
    ) -> Decision<BlobCommitted, S::Error> {
        let CommitBlob { repository, digest, size, generation, node, .. } = command;
        let digest = *digest;
        if !self.node(*node)?.is_some_and(|node| runs(&node, generation.epoch)) {
            return refuse(Refusal::RetiredEpoch);
        }
        let known = self.blob(digest)?;
        if let Some(live) = known.as_ref().map(|known| known.size).filter(|live| live != size) {
            return refuse(Refusal::SizeConflict { digest, live });
        }
        let is_new = known.is_none();
        let (blob, placed) = self.with_copy(known, command)?;
        let live = blob.generation;

        let tenant = &repository.tenant;
        let held = self.tenant_blob(tenant, digest)?;
        let growth = if held.is_some() { 0 } else { blob.size };
        let released = self.reserved_for(tenant, command.upload)?;
        self.check_quota(tenant, growth, 0, released)?;

        self.end_upload(tenant, command.upload)?;
        if placed || is_new {
            self.store.put(Key::Blob(digest), Record::Blob(blob.clone()))?;
        }
        let mut ledger = self.ledger(repository)?;
        self.show(&mut ledger, digest, blob, command.pin_millis)?;
        self.settle(ledger)?;
        if placed {
            self.happened(Event::BlobPlaced { digest });
        }
        Ok(BlobCommitted { live })
    }

    /// The blob's row once the pushed copy is durable, and whether that changed where its bytes are.
    ///
    /// An earlier copy stays if as many nodes serve it as an acknowledgement needs. Otherwise the new copy takes its place,
    /// if enough nodes serve that: a digest whose holders are all gone becomes readable with the next push.
    fn with_copy(
        &self,
        known: Option<BlobRecord>,
        command: &CommitBlob,
    ) -> Decision<(BlobRecord, bool), S::Error> {
        let CommitBlob { digest, size, generation, chunk_root, .. } = command;
        let mut placement = self.members_of(&command.placement)?;
        let required = self.required_copies();
        let generation_before = known.as_ref().map(|known| known.generation);
        let blob = match known {
            Some(known) => {
                let is_same_kind = matches!(
                    (&known.placement, &placement),
                    (Placement::Nodes(_), Placement::Nodes(_))
                        | (Placement::Object(_), Placement::Object(_))
                );
                let known_serving = self.serving(&known.placement)?;
                if let (Placement::Nodes(known_holders), Placement::Nodes(holders)) =
                    (&known.placement, &mut placement)
                    && known.generation == *generation
                {
                    // The same copy, reported twice: it has the holders of both reports.
                    holders.extend(known_holders);
                    holders.sort_unstable();
                    holders.dedup();
                } else if is_same_kind && known_serving >= required {
                    return Ok((known, false));
                }
                BlobRecord { generation: *generation, chunk_root: *chunk_root, ..known }
            }
            None => BlobRecord {
                generation: *generation,
                size: *size,
                chunk_root: *chunk_root,
                tenants: 0,
                unheld_at: self.now,
                placement: Placement::Nodes(Vec::new()),
            },
        };
        let left = self.serving(&placement)?;
        if left < required {
            return refuse(Refusal::TooFewHolders { digest: *digest, left });
        }
        let placed = (generation_before, &placement) != (Some(blob.generation), &blob.placement);
        Ok((BlobRecord { placement, ..blob }, placed))
    }

    /// How many nodes must hold a blob before it becomes visible: a majority of the copies that the cluster keeps.
    fn required_copies(&self) -> u32 {
        let wanted = match self.cluster.storage {
            Some(storage) if storage.mode == StorageMode::Local => storage.replicas,
            _ => 1,
        };
        let possible = wanted.min(self.cluster.active_nodes).max(1);
        u32::try_from(majority(possible as usize)).unwrap_or(u32::MAX)
    }

    pub(crate) fn mount_blob(&mut self, command: &MountBlob) -> Decision<(), S::Error> {
        let MountBlob { from, to, digest, pin_millis } = command;
        let blob = self.visible_blob(from, *digest)?;
        let held = self.tenant_blob(&to.tenant, *digest)?;
        let growth = if held.is_some() { 0 } else { blob.size };
        self.check_quota(&to.tenant, growth, 0, 0)?;
        let mut ledger = self.ledger(to)?;
        self.show(&mut ledger, *digest, blob, *pin_millis)?;
        self.settle(ledger)?;
        Ok(())
    }

    pub(crate) fn pin_blob(&mut self, command: &PinBlob) -> Decision<(), S::Error> {
        let PinBlob { repository, digest, pin_millis } = command;
        let blob = self.visible_blob(repository, *digest)?;
        let mut ledger = self.ledger(repository)?;
        self.show(&mut ledger, *digest, blob, *pin_millis)?;
        self.settle(ledger)?;
        Ok(())
    }

    pub(crate) fn unlink_blob(&mut self, command: &UnlinkBlob) -> Decision<(), S::Error> {
        let UnlinkBlob { repository, digest } = command;
        let Some(link) = self.link(repository, *digest)? else {
            return refuse(Refusal::BlobUnknown(*digest));
        };
        if let Some(by) = self.needed_by(repository, *digest)? {
            return refuse(Refusal::BlobReferenced { digest: *digest, by });
        }
        let mut ledger = self.ledger(repository)?;
        self.hide(&mut ledger, *digest, link.size)?;
        self.settle(ledger)?;
        Ok(())
    }

    pub(crate) fn lose_object(&mut self, command: &LoseObject) -> Decision<(), S::Error> {
        let LoseObject { digest, generation } = *command;
        match self.blob(digest)? {
            Some(blob)
                if blob.generation == generation
                    && matches!(blob.placement, Placement::Object(_)) =>
            {
                self.place(digest, blob, Vec::new())?;
                Ok(())
            }
            _ => refuse(Refusal::StaleGeneration(digest)),
        }
    }

    /// What needs a blob in a repository, if anything does: the first in order.
    pub(crate) fn needed_by(
        &self,
        repository: &RepositoryKey,
        blob: Digest,
    ) -> Result<Option<Holder>, S::Error> {
        let edges = Rows::Edges { repository: repository.clone(), blob };
        match self.store.scan(&edges, 1)?.into_iter().next() {
            Some((Key::Edge(_, _, by), _)) => Ok(Some(by)),
            _ => Ok(None),
        }
    }

    /// Makes a blob visible in the ledger's repository, unless it is, and keeps it there for `pin_millis` or longer.
    fn show(
        &mut self,
        ledger: &mut Ledger<'_>,
        digest: Digest,
        blob: BlobRecord,
        pin_millis: u64,
    ) -> Result<(), S::Error> {
        let repository = ledger.repository;
        let (tenant, size) = (&repository.tenant, blob.size);
        let known = self.link(repository, digest)?;
        let is_new = known.is_none();
        let mut link = known.unwrap_or(LinkRecord {
            size,
            linked_at: self.now,
            pinned_until: Timestamp(0),
            unreferenced_at: self.now,
        });
        link.pinned_until = link.pinned_until.max(self.now.plus_millis(pin_millis));
        self.store.put(Key::Link(repository.clone(), digest), Record::Link(link))?;

        let held = self.tenant_blob(tenant, digest)?;
        let is_new_to_tenant = held.is_none();
        let mut held = held.unwrap_or_else(|| TenantBlobRecord {
            size,
            unreferenced_at: self.now,
            ..TenantBlobRecord::default()
        });
        held.relied_on_at = self.now;
        if is_new {
            raise(&mut held.links, 1);
            let event = Event::BlobLinked { repository: repository.clone(), digest, size };
            ledger.add_link(size, if is_new_to_tenant { size } else { 0 }, event);
        }
        self.store.put(Key::TenantBlob(tenant.clone(), digest), Record::TenantBlob(held))?;
        if is_new_to_tenant {
            self.store.put(Key::HeldBy(digest, tenant.clone()), Record::HeldBy)?;
            let mut blob = blob;
            raise(&mut blob.tenants, 1);
            self.store.put(Key::Blob(digest), Record::Blob(blob))?;
        }
        Ok(())
    }

    /// Takes a blob that is visible in the ledger's repository, and that nothing there needs, out of it.
    pub(crate) fn hide(
        &mut self,
        ledger: &mut Ledger<'_>,
        digest: Digest,
        size: u64,
    ) -> Result<(), S::Error> {
        let repository = ledger.repository;
        let tenant = &repository.tenant;
        self.store.delete(&Key::Link(repository.clone(), digest))?;
        let event = Event::BlobUnlinked { repository: repository.clone(), digest };
        let held = self.tenant_blob(tenant, digest)?;
        debug_assert!(held.is_some(), "{tenant} shows {digest} and does not hold it");
        let Some(mut held) = held else {
            ledger.remove_link(size, 0, event);
            return Ok(());
        };
        lower(&mut held.links, 1);
        let key = Key::TenantBlob(tenant.clone(), digest);
        if held.links > 0 {
            ledger.remove_link(size, 0, event);
            return self.store.put(key, Record::TenantBlob(held));
        }
        debug_assert_eq!(held.references, 0, "{digest} is needed where it is not visible");
        ledger.remove_link(size, size, event);
        self.store.delete(&key)?;
        self.store.delete(&Key::HeldBy(digest, tenant.clone()))?;
        if let Some(mut blob) = self.blob(digest)? {
            lower(&mut blob.tenants, 1);
            if blob.tenants == 0 {
                blob.unheld_at = self.now;
            }
            self.store.put(Key::Blob(digest), Record::Blob(blob))?;
        }
        Ok(())
    }

    /// Notes that something in a repository needs a blob that is visible there.
    pub(crate) fn add_reference(
        &mut self,
        repository: &RepositoryKey,
        digest: Digest,
        by: Holder,
    ) -> Result<(), S::Error> {
        let key = Key::Edge(repository.clone(), digest, by);
        if self.store.get(&key)?.is_some() {
            return Ok(());
        }
        self.store.put(key, Record::Edge)?;
        let tenant = &repository.tenant;
        let held = self.tenant_blob(tenant, digest)?;
        debug_assert!(
            held.is_some(),
            "{repository} needs {digest}, which its tenant does not hold"
        );
        let Some(mut held) = held else { return Ok(()) };
        raise(&mut held.references, 1);
        self.store.put(Key::TenantBlob(tenant.clone(), digest), Record::TenantBlob(held))
    }

    /// Notes that something in a repository does not need a blob any more.
    pub(crate) fn drop_reference(
        &mut self,
        repository: &RepositoryKey,
        digest: Digest,
        by: Holder,
    ) -> Result<(), S::Error> {
        let key = Key::Edge(repository.clone(), digest, by);
        if self.store.get(&key)?.is_none() {
            return Ok(());
        }
        self.store.delete(&key)?;
        let tenant = &repository.tenant;
        if let Some(mut held) = self.tenant_blob(tenant, digest)? {
            lower(&mut held.references, 1);
            if held.references == 0 {
                held.unreferenced_at = self.now;
            }
            self.store.put(Key::TenantBlob(tenant.clone(), digest), Record::TenantBlob(held))?;
        }
        if self.needed_by(repository, digest)?.is_none()
            && let Some(mut link) = self.link(repository, digest)?
        {
            link.unreferenced_at = self.now;
            self.store.put(Key::Link(repository.clone(), digest), Record::Link(link))?;
        }
        Ok(())
    }
}
