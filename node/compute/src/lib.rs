//! Computation that takes long: a password's hash, a manifest of megabytes.
//!
//! Guarantees: it runs off the async threads, on half as many threads as there are processors, and one at least; on Linux, the kernel lets these
//! threads wait for whatever else the process has to do. So a caller who asks for much computation does not delay the others.
//! Must not know: what is computed.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinError;
use tracing::warn;

/// How far these threads stand behind the others: with 10, one of the others gets about nine tenths of a processor
/// that both want.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// The furthest behind that there is.
#[cfg(target_os = "linux")]
const NICENESS_MAX: i32 = 19;

/// A runtime whose blocking threads these are; nothing else runs on it. `None` if none could be made.
static THREADS: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    // The kernel lets a thread run for some milliseconds before it looks at others again, however far it stands behind. A
    // request that wakes up finds a processor without such a thread.
    let threads = available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1));
    let made = Builder::new_current_thread()
        .max_blocking_threads(threads)
        .thread_name("nora-compute")
        .on_thread_start(give_way)
        .build();
    match made {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            warn!(%error, "long computation shares its threads with other work");
            None
        }
    }
});

/// Runs a long computation to its end, also if nobody waits for it any more. It is an error only if the computation
/// panicked.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match LazyLock::force(&THREADS) {
        Some(threads) => threads.spawn_blocking(work).await,
        None => tokio::task::spawn_blocking(work).await,
    }
}

/// Puts this thread behind the others. To the kernel a thread is a process with a number of its own.
#[cfg(target_os = "linux")]
fn give_way() {
    let this = Some(rustix::thread::gettid());
    // The whole program may have been put behind others already.
    let own = rustix::process::getpriority_process(this).unwrap_or(0);
    let behind = own.saturating_add(NICENESS).min(NICENESS_MAX);
    if let Err(error) = rustix::process::setpriority_process(this, behind) {
        warn!(%error, "long computation does not give way to other work");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_computed_comes_back() {
        assert_eq!(run(|| 6 * 7).await.unwrap(), 42);
        assert!(run(|| panic!("on purpose")).await.unwrap_err().is_panic());
        assert_eq!(run(|| 1).await.unwrap(), 1, "a panic takes no thread away");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn its_threads_give_way_and_the_others_do_not() {
        let niceness = || {
            let this = Some(rustix::thread::gettid());
            rustix::process::getpriority_process(this).unwrap()
        };
        let own = niceness();
        assert_eq!(run(niceness).await.unwrap(), (own + NICENESS).min(NICENESS_MAX));
        assert_eq!(niceness(), own);
        assert_eq!(tokio::task::spawn_blocking(niceness).await.unwrap(), own);
    }
}
