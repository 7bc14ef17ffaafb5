//! What a state of the model holds.

use std::collections::BTreeSet;

/// Digests that there are. A world may use fewer.
pub const DIGESTS: usize = 2;
/// Repositories; client 0 works in the first, client 1 in the second.
pub const REPOSITORIES: usize = 2;
/// Tenants that there may be.
pub const TENANTS: usize = 2;
/// Nodes with disks of their own. With a shared bucket, the first stands for the bucket.
pub const NODES: usize = 2;
/// Clients.
pub const CLIENTS: usize = 2;
/// Workers: a leader, and one that was deposed and does not know it yet.
pub const WORKERS: usize = 2;

/// Names of copies of a digest that are remembered at once. A push waits while all are.
pub const GENERATIONS: u8 = 2;

/// One physical copy's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Copy {
    /// What it is a copy of.
    pub digest: usize,
    /// Which one.
    pub generation: u8,
}

/// A live copy's row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Blob {
    /// Which copy is read.
    pub generation: u8,
    /// Nodes that hold it.
    pub holders: [bool; NODES],
    /// How long ago the last tenant gave it up, if none holds it.
    pub unheld: u8,
}

/// What makes a blob visible in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// For how long it stays whatever needs it.
    pub pinned: u8,
    /// How long ago the last need of it ended, if nothing needs it.
    pub unreferenced: u8,
}

/// A copy that was condemned and may still be on disks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Garbage {
    /// The copy.
    pub copy: Copy,
    /// Nodes that have not said that they deleted it.
    pub holders: [bool; NODES],
    /// How long ago it was condemned.
    pub age: u8,
}

/// What a client is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// Nothing.
    Idle,
    /// It has sent a blob's bytes, which are on disks, and waits for the answer.
    Writing(Copy),
    /// It has seen that the other repository shows a blob, and asks to see it in its own.
    Mounting(usize),
    /// It was told that its repository shows a blob, and relies on that for some more ticks.
    Told {
        /// The blob.
        digest: usize,
        /// For how long.
        left: u8,
    },
    /// It reads a copy from a node.
    Pulling {
        /// The copy.
        copy: Copy,
        /// The node.
        node: usize,
        /// For how long at most.
        left: u8,
    },
}

/// What a worker read that it should do, and does at some later moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Intent {
    /// Take a blob that nothing needs out of a repository.
    CollectLink {
        /// The repository.
        repository: usize,
        /// The blob.
        digest: usize,
    },
    /// Condemn a live copy that no tenant holds.
    Condemn(Copy),
    /// Delete a condemned copy from a node's disk.
    Delete {
        /// The node.
        node: usize,
        /// The copy.
        copy: Copy,
    },
    /// Say that a node has deleted a condemned copy.
    Sweep {
        /// The node.
        node: usize,
        /// The copy.
        copy: Copy,
    },
    /// Delete a copy that no row names from a node's disk.
    DeleteOrphan {
        /// The node.
        node: usize,
        /// The copy.
        copy: Copy,
    },
    /// Copy a live copy to a node that does not hold it.
    Repair {
        /// The node.
        node: usize,
        /// The copy.
        copy: Copy,
    },
    /// Say that a node holds a copy now.
    AddHolder {
        /// The node.
        node: usize,
        /// The copy.
        copy: Copy,
    },
}

/// One state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Live copies' rows, by digest.
    pub blobs: [Option<Blob>; DIGESTS],
    /// What repositories show, by repository and digest.
    pub links: [[Option<Link>; DIGESTS]; REPOSITORIES],
    /// Whether an artifact of the repository needs the blob.
    pub needed: [[bool; DIGESTS]; REPOSITORIES],
    /// Condemned copies' rows.
    pub garbage: BTreeSet<Garbage>,
    /// Blobs that each tenant pays for.
    pub usage: [u8; TENANTS],
    /// Files on each node's disk.
    pub disks: [BTreeSet<Copy>; NODES],
    /// Nodes that run.
    pub up: [bool; NODES],
    /// What each client is about.
    pub clients: [Client; CLIENTS],
    /// What each worker is about.
    pub workers: [Option<Intent>; WORKERS],
    /// Whether a client was refused what it had been told it could rely on.
    pub refused: bool,
    /// Whether a pull's copy went away under it.
    pub broken: bool,
}

impl State {
    /// Nothing is stored, and every node runs.
    pub fn empty() -> Self {
        Self {
            blobs: [const { None }; DIGESTS],
            links: [const { [const { None }; DIGESTS] }; REPOSITORIES],
            needed: [[false; DIGESTS]; REPOSITORIES],
            garbage: BTreeSet::new(),
            usage: [0; TENANTS],
            disks: [const { BTreeSet::new() }; NODES],
            up: [true; NODES],
            clients: [const { Client::Idle }; CLIENTS],
            workers: [None; WORKERS],
            refused: false,
            broken: false,
        }
    }

    /// Whether a row, a disk, a client or a worker remembers a copy of this name.
    pub fn remembers(&self, copy: Copy) -> bool {
        let of_client = |client: &Client| match client {
            Client::Writing(written) => *written == copy,
            Client::Pulling { copy: pulled, .. } => *pulled == copy,
            Client::Idle | Client::Mounting(_) | Client::Told { .. } => false,
        };
        self.is_live(copy)
            || self.garbage.iter().any(|garbage| garbage.copy == copy)
            || self.disks.iter().any(|disk| disk.contains(&copy))
            || self.clients.iter().any(of_client)
            || self.workers.iter().flatten().any(|intent| intent.copy() == Some(copy))
    }

    /// Whether the digest's row names this copy.
    pub fn is_live(&self, copy: Copy) -> bool {
        self.blobs[copy.digest].as_ref().is_some_and(|blob| blob.generation == copy.generation)
    }

    /// Whether any repository shows the blob.
    pub fn is_held(&self, digest: usize) -> bool {
        self.links.iter().any(|links| links[digest].is_some())
    }

    /// Whether a client that runs has written this copy and has no answer yet.
    pub fn is_being_written(&self, copy: Copy) -> bool {
        self.clients.contains(&Client::Writing(copy))
            || self.workers.iter().flatten().any(
                |intent| matches!(intent, Intent::AddHolder { copy: added, .. } if *added == copy),
            )
    }
}

impl Intent {
    /// The copy that it speaks of.
    pub fn copy(&self) -> Option<Copy> {
        match *self {
            Self::CollectLink { .. } => None,
            Self::Condemn(copy)
            | Self::Delete { copy, .. }
            | Self::Sweep { copy, .. }
            | Self::DeleteOrphan { copy, .. }
            | Self::Repair { copy, .. }
            | Self::AddHolder { copy, .. } => Some(copy),
        }
    }
}
