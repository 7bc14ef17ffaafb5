//! What the log orders: commands that are checked where they are applied, whatever their proposer had read.

use crate::bug::Bug;
use crate::state::{Blob, Copy, Garbage, Link, NODES, State};
use crate::world::World;

impl World {
    /// The tenant that a repository belongs to.
    fn tenant(&self, repository: usize) -> usize {
        self.tenant_of[repository]
    }

    fn tenant_shows(&self, state: &State, tenant: usize, digest: usize) -> bool {
        let mut repositories = state.links.iter().enumerate();
        repositories.any(|(at, links)| self.tenant(at) == tenant && links[digest].is_some())
    }

    /// Makes a blob visible in a repository, and pins it there.
    fn show(&self, state: &mut State, repository: usize, digest: usize) {
        let tenant = self.tenant(repository);
        if !self.tenant_shows(state, tenant, digest) {
            state.usage[tenant] += 1;
        }
        match &mut state.links[repository][digest] {
            Some(link) => link.pinned = self.grace,
            none => *none = Some(Link { pinned: self.grace, unreferenced: 0 }),
        }
    }

    /// A client's bytes are on disks: they become the live copy, unless there is one.
    pub(crate) fn commit_blob(&self, state: &mut State, repository: usize, written: Copy) {
        let digest = written.digest;
        if state.blobs[digest].is_none() {
            let mut copy = written;
            let condemned = state.garbage.iter().find(|garbage| garbage.copy.digest == digest);
            let mut holders = [false; NODES];
            for (node, disk) in state.disks.iter().enumerate() {
                holders[node] = disk.contains(&written);
            }
            if self.bug == Bug::CondemnedRevived
                && let Some(condemned) = condemned.cloned()
            {
                state.garbage.remove(&condemned);
                (copy, holders) = (condemned.copy, condemned.holders);
            }
            let generation = copy.generation;
            state.blobs[digest] = Some(Blob { generation, holders, unheld: 0 });
        }
        self.show(state, repository, digest);
    }

    /// Whether a repository shows a blob that can be read.
    pub(crate) fn is_visible(state: &State, repository: usize, digest: usize) -> bool {
        state.links[repository][digest].is_some() && state.blobs[digest].is_some()
    }

    /// A blob that one repository shows is shown in another.
    pub(crate) fn mount_blob(
        &self,
        state: &mut State,
        from: usize,
        to: usize,
        digest: usize,
    ) -> bool {
        let is_allowed = Self::is_visible(state, from, digest) || self.bug == Bug::MountOfCondemned;
        if is_allowed {
            self.show(state, to, digest);
        }
        is_allowed
    }

    /// A client asked whether a repository shows a blob. It may rely on the answer; what nothing needs is pinned for that.
    pub(crate) fn pin_blob(&self, state: &mut State, repository: usize, digest: usize) -> bool {
        if !Self::is_visible(state, repository, digest) {
            return false;
        }
        let is_needed = match self.bug {
            Bug::HeadDoesNotPin => true,
            Bug::NeedOfAnotherRepository => state.needed.iter().any(|needed| needed[digest]),
            _ => state.needed[repository][digest],
        };
        if !is_needed {
            self.show(state, repository, digest);
        }
        true
    }

    /// An artifact of the repository needs the blob from now on, if the repository shows it.
    pub(crate) fn put_artifact(&self, state: &mut State, repository: usize, digest: usize) -> bool {
        let is_visible = match self.bug {
            Bug::AcceptedForAnother => {
                (0..state.links.len()).any(|repository| Self::is_visible(state, repository, digest))
            }
            _ => Self::is_visible(state, repository, digest),
        };
        state.needed[repository][digest] |= is_visible;
        is_visible
    }

    /// Nothing in the repository needs the blob any more.
    pub(crate) fn delete_artifact(&self, state: &mut State, repository: usize, digest: usize) {
        state.needed[repository][digest] = false;
        if let Some(link) = &mut state.links[repository][digest]
            && self.bug != Bug::AgeSurvivesReference
        {
            link.unreferenced = 0;
        }
    }

    /// Whether a link may go.
    pub(crate) fn link_is_due(&self, state: &State, repository: usize, digest: usize) -> bool {
        let Some(link) = &state.links[repository][digest] else { return false };
        let is_old = link.unreferenced >= self.grace;
        let (is_old, is_pinned) = match self.bug {
            Bug::NoGrace => (true, link.pinned > 0),
            Bug::WallClockInGrace => (true, false),
            _ => (is_old, link.pinned > 0),
        };
        !state.needed[repository][digest] && !is_pinned && is_old
    }

    pub(crate) fn collect_link(&self, state: &mut State, repository: usize, digest: usize) {
        let is_due = self.link_is_due(state, repository, digest);
        let is_there = state.links[repository][digest].is_some();
        if !(is_due || is_there && self.bug == Bug::LinkCollectedUnchecked) {
            return;
        }
        state.links[repository][digest] = None;
        let tenant = self.tenant(repository);
        if !self.tenant_shows(state, tenant, digest) || self.bug == Bug::ReleasedTwice {
            state.usage[tenant] = state.usage[tenant].saturating_sub(1);
        }
        if !state.is_held(digest)
            && let Some(blob) = &mut state.blobs[digest]
        {
            blob.unheld = 0;
        }
    }

    /// Whether a live copy may be condemned.
    pub(crate) fn copy_is_due(&self, state: &State, copy: Copy) -> bool {
        let blob = state.blobs[copy.digest].as_ref();
        blob.is_some_and(|blob| blob.generation == copy.generation && blob.unheld >= self.hold)
            && !state.is_held(copy.digest)
    }

    pub(crate) fn condemn(&self, state: &mut State, copy: Copy) {
        let is_due = self.copy_is_due(state, copy);
        if !(is_due || state.is_live(copy) && self.bug == Bug::CondemnedUnchecked) {
            return;
        }
        if let Some(blob) = state.blobs[copy.digest].take() {
            state.garbage.insert(Garbage { copy, holders: blob.holders, age: 0 });
        }
    }

    /// A node has deleted a condemned copy; the row goes with the last one.
    pub(crate) fn sweep(&self, state: &mut State, node: usize, copy: Copy) {
        let Some(row) = state.garbage.iter().find(|garbage| garbage.copy == copy).cloned() else {
            return;
        };
        state.garbage.remove(&row);
        let mut holders = row.holders;
        holders[node] = false;
        if holders != [false; NODES] && self.bug != Bug::GarbageForgotten {
            state.garbage.insert(Garbage { holders, ..row });
        }
    }

    pub(crate) fn add_holder(state: &mut State, node: usize, copy: Copy) {
        if let Some(blob) = &mut state.blobs[copy.digest]
            && blob.generation == copy.generation
        {
            blob.holders[node] = true;
        }
    }
}
