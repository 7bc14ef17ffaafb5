//! What may happen, one step at a time.

use stateright::{Model, Property};

use crate::bug::Bug;
use crate::properties;
use crate::state::{CLIENTS, Client, Copy, GENERATIONS, Intent, NODES, State, WORKERS};

/// Where copies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// On the nodes' own disks: a node deletes its own copies, and only while it runs.
    Local,
    /// In a bucket that all nodes share: whoever leads deletes, and whoever led may still be at it.
    Object,
}

/// A world that is explored.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Digests in use.
    pub digests: usize,
    /// Clients in use.
    pub clients: usize,
    /// Workers in use.
    pub workers: usize,
    /// Where copies are.
    pub storage: Storage,
    /// The tenant of each repository.
    pub tenant_of: [usize; 2],
    /// Whether live copies are copied to nodes that lack them.
    pub repairs: bool,
    /// Whether the second node comes and goes.
    pub absences: bool,
    /// Whether the second client pulls.
    pub pulls: bool,
    /// Whether the second client mounts.
    pub mounts: bool,
    /// How long after the last need, or the last answer that a client relies on, a link stays: in ticks.
    pub grace: u8,
    /// How long after the last tenant gave it up a blob stays live.
    pub hold: u8,
    /// How long after it was condemned a copy stays on disks; a pull takes no longer.
    pub delay: u8,
    /// What is broken.
    pub bug: Bug,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client sends a blob's bytes, and they are on every disk in reach.
    Write(usize, usize),
    /// The client's push of the blob is applied.
    Commit(usize),
    /// A client sees that the other repository shows a blob.
    Mount(usize, usize),
    /// The client's mount is applied, or refused.
    MountApplied(usize),
    /// A client asks whether its repository shows a blob.
    Head(usize, usize),
    /// A client pushes an artifact that needs the blob it was told of.
    Put(usize),
    /// A client starts to pull a blob from a node.
    Pull(usize, usize, usize),
    /// A client goes away.
    GiveUp(usize),
    /// A repository's artifact is deleted.
    Delete(usize, usize),
    /// A worker finds something to do.
    Find(usize, Intent),
    /// A worker does what it found.
    Act(usize),
    /// A worker stops before it does.
    Stop(usize),
    /// A node stops.
    Leave(usize),
    /// A node is back, with the disk it had.
    Return(usize),
    /// Time passes.
    Tick,
}

impl World {
    pub(crate) fn nodes(&self) -> usize {
        match self.storage {
            Storage::Local => NODES,
            Storage::Object => 1,
        }
    }

    /// A name that nothing remembers, if there is one left.
    fn fresh(&self, state: &State, digest: usize) -> Option<Copy> {
        let mut copies = (0..GENERATIONS).map(|generation| Copy { digest, generation });
        match self.bug {
            Bug::GenerationReused => copies.next(),
            _ => copies.find(|copy| !state.remembers(*copy)),
        }
    }

    /// Whether a file on a disk belongs to nothing.
    fn is_orphan(&self, state: &State, copy: Copy) -> bool {
        let is_garbage = state.garbage.iter().any(|garbage| garbage.copy == copy)
            && self.bug != Bug::GarbageTakenForOrphans;
        let is_written = state.is_being_written(copy) && self.bug != Bug::OrphansUnfenced;
        !state.is_live(copy) && !is_garbage && !is_written
    }

    /// All that a worker may find to do now.
    pub(crate) fn findings(&self, state: &State) -> Vec<Intent> {
        let mut found = Vec::new();
        for digest in 0..self.digests {
            for repository in 0..state.links.len() {
                if self.link_is_due(state, repository, digest) {
                    found.push(Intent::CollectLink { repository, digest });
                }
            }
            let live = state.blobs[digest].as_ref();
            if let Some(copy) = live.map(|blob| Copy { digest, generation: blob.generation })
                && self.copy_is_due(state, copy)
            {
                found.push(Intent::Condemn(copy));
            }
        }
        for node in (0..self.nodes()).filter(|node| state.up[*node]) {
            for garbage in &state.garbage {
                let is_over = garbage.age >= self.delay || self.bug == Bug::SweptAtOnce;
                if is_over && garbage.holders[node] {
                    found.push(Intent::Delete { node, copy: garbage.copy });
                }
            }
            for copy in &state.disks[node] {
                if self.is_orphan(state, *copy) {
                    found.push(Intent::DeleteOrphan { node, copy: *copy });
                }
            }
            if !self.repairs {
                continue;
            }
            for (digest, blob) in state.blobs.iter().enumerate() {
                if let Some(blob) = blob
                    && !blob.holders[node]
                {
                    let copy = Copy { digest, generation: blob.generation };
                    found.push(Intent::Repair { node, copy });
                }
            }
        }
        found
    }

    /// Does what a worker found, at a moment when it may be wrong, and gives what the worker goes on with.
    pub(crate) fn act(&self, state: &mut State, intent: Intent) -> Option<Intent> {
        match intent {
            Intent::CollectLink { repository, digest } => {
                self.collect_link(state, repository, digest);
                None
            }
            Intent::Condemn(copy) => {
                self.condemn(state, copy);
                None
            }
            Intent::Delete { node, copy } if self.bug == Bug::SweptBeforeDeleted => {
                self.sweep(state, node, copy);
                Some(Intent::DeleteOrphan { node, copy })
            }
            Intent::Delete { node, copy } => {
                self.delete(state, node, copy);
                Some(Intent::Sweep { node, copy })
            }
            Intent::Sweep { node, copy } => {
                self.sweep(state, node, copy);
                None
            }
            Intent::DeleteOrphan { node, copy } => {
                self.delete(state, node, copy);
                None
            }
            Intent::Repair { node, copy } => {
                let is_there = state.disks.iter().any(|disk| disk.contains(&copy));
                if !is_there {
                    return None;
                }
                state.disks[node].insert(copy);
                Some(Intent::AddHolder { node, copy })
            }
            Intent::AddHolder { node, copy } => {
                Self::add_holder(state, node, copy);
                None
            }
        }
    }

    fn delete(&self, state: &mut State, node: usize, copy: Copy) {
        let is_meant = |file: Copy| match self.bug {
            Bug::SweptByDigest => file.digest == copy.digest,
            _ => file == copy,
        };
        state.disks[node].retain(|file| !is_meant(*file));
        state.broken |= state.clients.iter().any(|client| {
            matches!(client, Client::Pulling { copy, node: from, .. } if *from == node && is_meant(*copy))
        });
    }

    /// Whether a worker can do this now: what a node does on its disk, it does while it runs.
    fn can_act(state: &State, intent: Intent) -> bool {
        match intent {
            Intent::Delete { node, .. }
            | Intent::Sweep { node, .. }
            | Intent::DeleteOrphan { node, .. }
            | Intent::Repair { node, .. }
            | Intent::AddHolder { node, .. } => state.up[node],
            Intent::CollectLink { .. } | Intent::Condemn(_) => true,
        }
    }

    fn client_actions(&self, state: &State, client: usize, actions: &mut Vec<Action>) {
        let (own, other) = (client, 1 - client);
        match &state.clients[client] {
            Client::Idle => {
                for digest in 0..self.digests {
                    let is_visible = Self::is_visible(state, own, digest);
                    actions.push(Action::Write(client, digest));
                    if is_visible {
                        actions.push(Action::Head(client, digest));
                    }
                    if self.mounts && client == 1 && state.links[other][digest].is_some() {
                        actions.push(Action::Mount(client, digest));
                    }
                    if !self.pulls || client == 0 {
                        continue;
                    }
                    let Some(blob) = state.blobs[digest].as_ref().filter(|_| is_visible) else {
                        continue;
                    };
                    let copy = Copy { digest, generation: blob.generation };
                    let nodes = (0..self.nodes()).filter(|node| state.up[*node]);
                    actions.extend(
                        nodes
                            .filter(|node| state.disks[*node].contains(&copy))
                            .map(|node| Action::Pull(client, digest, node)),
                    );
                }
                return;
            }
            Client::Writing(_) => actions.push(Action::Commit(client)),
            Client::Mounting(_) => actions.push(Action::MountApplied(client)),
            Client::Told { .. } => actions.push(Action::Put(client)),
            Client::Pulling { .. } => {}
        }
        actions.push(Action::GiveUp(client));
    }

    fn put(&self, state: &mut State, client: usize) {
        if let Client::Told { digest, left } = state.clients[client] {
            let is_accepted = self.put_artifact(state, client, digest);
            state.refused |= !is_accepted && left > 0;
            state.clients[client] = Client::Idle;
        }
    }

    fn tick(&self, state: &mut State) {
        let older = |age: &mut u8, longest: u8| *age = (*age + 1).min(longest);
        for (links, needed) in state.links.iter_mut().zip(&state.needed) {
            for (link, _) in links.iter_mut().zip(needed) {
                if let Some(link) = link {
                    link.pinned = link.pinned.saturating_sub(1);
                    older(&mut link.unreferenced, self.grace);
                }
            }
        }
        for blob in state.blobs.iter_mut().flatten() {
            older(&mut blob.unheld, self.hold);
        }
        let garbage = std::mem::take(&mut state.garbage);
        state.garbage = garbage
            .into_iter()
            .map(|mut garbage| {
                older(&mut garbage.age, self.delay);
                garbage
            })
            .collect();
        for client in &mut state.clients {
            match client {
                Client::Told { left, .. } => *left = left.saturating_sub(1),
                Client::Pulling { left: 1, .. } => *client = Client::Idle,
                Client::Pulling { left, .. } => *left -= 1,
                Client::Idle | Client::Writing(_) | Client::Mounting(_) => {}
            }
        }
    }

    /// Everybody goes away, time passes, and collection runs until it finds nothing more.
    pub(crate) fn drained(&self, state: &State) -> State {
        let mut state = state.clone();
        state.clients = [const { Client::Idle }; CLIENTS];
        state.workers = [None; WORKERS];
        state.up = [true; NODES];
        loop {
            for _ in 0..=self.grace + self.hold + self.delay {
                self.tick(&mut state);
            }
            let found = self.findings(&state);
            if found.is_empty() {
                return state;
            }
            for intent in found {
                let mut next = Some(intent);
                while let Some(intent) = next {
                    next = self.act(&mut state, intent);
                }
            }
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::empty()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.refused || state.broken {
            return;
        }
        for client in 0..self.clients {
            self.client_actions(state, client, actions);
        }
        for (repository, needed) in state.needed.iter().enumerate() {
            for (digest, _) in needed.iter().enumerate().filter(|(_, is_needed)| **is_needed) {
                actions.push(Action::Delete(repository, digest));
            }
        }
        for worker in 0..self.workers {
            match state.workers[worker] {
                None => {
                    let found = self.findings(state);
                    actions.extend(found.into_iter().map(|intent| Action::Find(worker, intent)));
                }
                Some(intent) => {
                    if Self::can_act(state, intent) {
                        actions.push(Action::Act(worker));
                    }
                    actions.push(Action::Stop(worker));
                }
            }
        }
        if self.absences {
            // The last node is the one that comes and goes.
            let node = NODES - 1;
            actions.push(if state.up[node] { Action::Leave(node) } else { Action::Return(node) });
        }
        actions.push(Action::Tick);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Write(client, digest) => {
                let copy = self.fresh(last, digest)?;
                for node in (0..self.nodes()).filter(|node| last.up[*node]) {
                    state.disks[node].insert(copy);
                }
                state.clients[client] = Client::Writing(copy);
            }
            Action::Commit(client) => {
                if let Client::Writing(copy) = last.clients[client] {
                    self.commit_blob(&mut state, client, copy);
                    state.clients[client] = Client::Told { digest: copy.digest, left: self.grace };
                }
            }
            Action::Mount(client, digest) => state.clients[client] = Client::Mounting(digest),
            Action::MountApplied(client) => {
                if let Client::Mounting(digest) = last.clients[client] {
                    let is_there = self.mount_blob(&mut state, 1 - client, client, digest);
                    state.clients[client] = match is_there {
                        true => Client::Told { digest, left: self.grace },
                        false => Client::Idle,
                    };
                }
            }
            Action::Head(client, digest) => {
                if self.pin_blob(&mut state, client, digest) {
                    state.clients[client] = Client::Told { digest, left: self.grace };
                }
            }
            Action::Put(client) => self.put(&mut state, client),
            Action::Pull(client, digest, node) => {
                let generation = last.blobs[digest].as_ref()?.generation;
                let copy = Copy { digest, generation };
                state.clients[client] = Client::Pulling { copy, node, left: self.delay };
            }
            Action::GiveUp(client) => state.clients[client] = Client::Idle,
            Action::Delete(repository, digest) => {
                self.delete_artifact(&mut state, repository, digest);
            }
            Action::Find(worker, intent) => state.workers[worker] = Some(intent),
            Action::Act(worker) => {
                let intent = last.workers[worker]?;
                state.workers[worker] = self.act(&mut state, intent);
            }
            Action::Stop(worker) => state.workers[worker] = None,
            Action::Leave(node) => state.up[node] = false,
            Action::Return(node) => state.up[node] = true,
            Action::Tick => self.tick(&mut state),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
