//! Fetching a blob from several sources at once, in chunks that are verified before anybody sees them.
//!
//! Must not know: Raft, registries, gRPC. A source is whatever implements the trait of that name.
