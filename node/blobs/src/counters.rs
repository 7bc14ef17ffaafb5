//! What the store has done since its start, for metrics and reports.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the store's start. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobCounts {
    /// Bytes of copies that this node sent to others before a push was acknowledged.
    pub replicated_bytes: u64,
    /// Bytes of copies that other nodes sent here before a push was acknowledged.
    pub received_bytes: u64,
    /// Bytes that this node fetched from others for its clients.
    pub fetched_bytes: u64,
    /// Times that a second node was asked for a chunk because the first was slow.
    pub hedges: u64,
    /// Nodes that sent wrong bytes.
    pub bans: u64,
    /// Bytes of other nodes' copies that are kept on this disk.
    pub cache_used_bytes: u64,
    /// Bytes that clients got from there.
    pub cache_hit_bytes: u64,
    /// Blobs that were removed from there to make room.
    pub cache_evictions: u64,
    /// Bytes that other nodes fetched from this one.
    pub served_bytes: u64,
    /// Bytes that this node fetched to restore or move copies.
    pub repaired_bytes: u64,
    /// Copies that could not be restored or moved at the first attempt.
    pub repairs_failed: u64,
    /// Blobs opened from this node's own copies.
    pub reads_local: u64,
    /// Blobs opened from other nodes' copies.
    pub reads_peer: u64,
    /// Damaged copies set aside.
    pub quarantined: u64,
    /// Bytes that scrubbing has re-read.
    pub scrubbed_bytes: u64,
    /// Chunk tables that scrubbing found missing or torn and made anew.
    pub tables_rebuilt: u64,
    /// Copies on this node's disk, without those that it gave up.
    pub held: u64,
    /// Copies that this node should have and does not, as far as events and the comparison of all blobs have told.
    pub missing: u64,
    /// Copies that this node should give up, as far as events and the comparison of all blobs have told.
    pub excess: u64,
}

macro_rules! counters {
    ($($field:ident $add:ident,)*) => {
        /// The counts as they go on.
        #[derive(Default)]
        pub(crate) struct Counters {
            $($field: AtomicU64,)*
            lingering: AtomicU64,
            missing: AtomicU64,
            excess: AtomicU64,
        }

        impl Counters {
            $(pub(crate) fn $add(&self, more: u64) { self.$field.fetch_add(more, Relaxed); })*

            pub(crate) fn read(&self) -> BlobCounts {
                BlobCounts {
                    $($field: self.$field.load(Relaxed),)*
                    missing: self.missing.load(Relaxed),
                    excess: self.excess.load(Relaxed),
                    ..BlobCounts::default()
                }
            }
        }
    };
}

counters! {
    replicated_bytes replicated,
    received_bytes received,
    served_bytes served,
    repaired_bytes repaired,
    repairs_failed repair_failed,
    reads_local read_local,
    reads_peer read_peer,
    quarantined set_aside,
    scrubbed_bytes scrubbed,
    tables_rebuilt table_rebuilt,
}

impl Counters {
    /// Copies that were given up and whose files are still there.
    pub(crate) fn lingering(&self) -> u64 {
        self.lingering.load(Relaxed)
    }

    pub(crate) fn lingering_is(&self, count: u64) {
        self.lingering.store(count, Relaxed);
    }

    pub(crate) fn missing_is(&self, count: u64) {
        self.missing.store(count, Relaxed);
    }

    pub(crate) fn excess_is(&self, count: u64) {
        self.excess.store(count, Relaxed);
    }
}
