//! How much the allocator keeps.
//!
//! glibc gives threads arenas of their own, up to eight a processor, and each keeps what its threads have freed. A node has
//! dozens of threads that are busy in turn (RocksDB's, those that wait for the disk), so that ever more arenas keep ever
//! more. This module holds unsafe code; it must not know anything else.
#![allow(unsafe_code)]

/// Gives memory that was freed back to the system, wherever it lies. The allocator itself gives back only what lies at the
/// end of an arena, and a merge of tables leaves holes of many megabytes. Takes milliseconds, during which other threads
/// may wait for memory. Best effort: other allocators keep what they keep.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim works on the allocator's own free memory, under its own locks; memory that is in use stays as it
    // is. Any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Memory of this process alone, in bytes, without mapped files, as the kernel tells it.
pub fn private_bytes() -> Option<u64> {
    let [resident, shared] = statm()?;
    Some(resident.saturating_sub(shared))
}

/// Resident memory of this process in bytes, with mapped files, as the kernel tells it.
pub fn resident_bytes() -> Option<u64> {
    statm().map(|[resident, _]| resident)
}

fn statm() -> Option<[u64; 2]> {
    // Linux on every machine NORA is built for; other page sizes would only scale what is shown.
    const PAGE_BYTES: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_whitespace().skip(1).map(|pages| pages.parse::<u64>().ok());
    Some([pages.next()?? * PAGE_BYTES, pages.next()?? * PAGE_BYTES])
}

/// Pieces of memory from this size on come from the system and go back to it at once, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES_MIN: libc::c_int = 4 << 20;

/// Lets the allocator have as many arenas as there are processors: more threads do not run at once. Large pieces never lie
/// in an arena: a password is hashed in 19 MiB that are aligned, and glibc does not find such a piece again once it was
/// freed, so that each login took as much more until memory was given back. To be called before threads begin. Best
/// effort: other allocators have no arenas. An operator's own setting stands.
pub fn limit_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let tunables = std::env::var_os("GLIBC_TUNABLES").unwrap_or_default();
        let is_tuned = |name| tunables.to_string_lossy().contains(name);
        if !is_tuned("mmap_threshold") && std::env::var_os("MALLOC_MMAP_THRESHOLD_").is_none() {
            // SAFETY: mallopt sets a number of the allocator's own, under its own lock; any number is valid for this
            // parameter within the allocator's bounds, beyond which it changes nothing, and memory that was given out
            // before stays valid.
            unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) };
        }
        let tuned = is_tuned("arena_max");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn large_pieces_that_are_aligned_leave_nothing() {
        // As the blocks in which a password is hashed.
        #[repr(align(64))]
        #[derive(Clone)]
        struct Block(#[expect(dead_code, reason = "only its size matters")] [u64; 128]);
        limit_arenas();
        let mut between = Vec::new();
        let before = private_bytes().unwrap();
        for round in 0..30_u64 {
            let blocks = vec![Block([round + 1; 128]); 19 << 10];
            // What takes a hole beside the piece, so that the next one does not fit there.
            between.push(vec![round; 6]);
            drop(blocks);
            between.push(vec![round; 12]);
        }
        let after = private_bytes().unwrap();
        assert!(after < before + (100 << 20), "{before}, {after}: each piece was new memory");
        drop(between);
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn what_was_freed_between_pieces_that_stay_is_given_back() {
        const PIECES: usize = 40_000;
        let pieces: Vec<Box<[u8; 2048]>> = (0..PIECES).map(|_| Box::new([1; 2048])).collect();
        // Every 64th stays, so that no arena ends in a free piece and few pages are wholly free by themselves.
        let kept: Vec<_> = pieces.into_iter().enumerate().filter(|(at, _)| at % 64 == 0).collect();
        let before = private_bytes().unwrap();
        give_back();
        let after = private_bytes().unwrap();
        assert!(after + (32 << 20) < before, "{before}, {after}");
        assert!(kept.iter().all(|(_, piece)| piece.iter().all(|byte| *byte == 1)));
    }
}
