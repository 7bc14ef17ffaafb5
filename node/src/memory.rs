//! How much the allocator keeps.
//!
//! glibc gives threads arenas of their own, up to eight a processor, and each keeps what its threads have freed. A node has
//! dozens of threads that are busy in turn (RocksDB's, those that wait for the disk), so that ever more arenas keep ever
//! more. This module holds unsafe code; it must not know anything else.
#![allow(unsafe_code)]

/// Lets the allocator have as many arenas as there are processors: more threads do not run at once. To be called before
/// threads begin. Best effort: other allocators have no arenas. An operator's own setting stands.
pub fn limit_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let tuned = std::env::var_os("GLIBC_TUNABLES")
            .is_some_and(|tunables| tunables.to_string_lossy().contains("arena_max"));
        if tuned || std::env::var_os("MALLOC_ARENA_MAX").is_some() {
            return;
        }
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        let arenas = i32::try_from(processors.max(2)).unwrap_or(i32::MAX);
        // SAFETY: mallopt sets a number of the allocator's own, under its own lock; any positive number is valid for this
        // parameter, and memory that was given out before stays valid.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
}
