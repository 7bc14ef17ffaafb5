//! NORA's protobuf: commands and records as they are stored and sent, and the gRPC services.
//!
//! Guarantees: field numbers and meanings within a version's package never change; what changes meaning becomes a new
//! package. Golden files in `nora-cluster` hold every encoding to that. Must not know: what a message means (the
//! domain's rules) or how it travels.

// Generated code: its comments are those of the .proto files.
#![allow(missing_docs)]
#![allow(clippy::all)]
#![allow(unused_qualifications)]

/// Names that commands and records share.
pub mod name {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/nora.name.v1.rs"));
    }
}

/// Commands: what is proposed to the log.
pub mod command {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/nora.command.v1.rs"));
    }
}

/// Records: the rows of the replicated state.
pub mod record {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/nora.record.v1.rs"));
    }
}

/// What consensus itself stores: votes, log entries, memberships, snapshots' manifests.
pub mod raft {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/nora.raft.v1.rs"));
    }
}

/// What members of one cluster say to each other.
pub mod peer {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/nora.peer.v1.rs"));
    }
}

/// Bytes of blobs between nodes.
pub mod exchange {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/nora.exchange.v1.rs"));
    }
}

/// The administration of a cluster.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/nora.v1.rs"));
}

/// Descriptors of all of it, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
