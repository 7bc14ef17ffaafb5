//! What a node does for the blobs that it holds, on demand.

/// Upkeep of this node's blobs.
pub trait Upkeep: Send + Sync {
    /// Begins to read every copy again and to compare it with its hashes, soon and in the background; false if this node
    /// holds no copies of its own.
    fn scrub_now(&self) -> bool;
}
