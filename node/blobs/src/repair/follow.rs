//! Following what happened to the state, so that each change reaches repair as it is applied.
//!
//! Guarantees: a cursor is stored only after everything before it was dealt with, or can be found again: no blob waits for
//! repair, and a comparison that was asked for is noted on the disk. A node that falls behind compares everything once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nora_app::ports::changes::{ChangeSource, Changes, Cursor};
use nora_domain::Event;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::replicated::Shared;
use crate::store::Inner;

/// How soon changes are asked for again after that failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often the cursor is stored at most.
const STORED_EVERY: Duration = Duration::from_secs(5);

/// How far the node followed, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CursorV1 {
    version: u32,
    cursor: u64,
}

/// Follows until it is dropped.
pub(crate) async fn follow(shared: &Arc<Shared>, source: &dyn ChangeSource) {
    let inner = Arc::clone(&shared.local.inner);
    let stored = spawn_blocking(move || load(&inner)).await;
    let mut cursor = stored.ok().flatten();
    let (mut stored, mut stored_at) = (cursor, Instant::now());
    loop {
        let changes = source.after(cursor).await;
        // What came before these changes is dealt with, or it is not; these are not yet.
        if cursor != stored && stored_at.elapsed() >= STORED_EVERY && shared.wakes.is_settled() {
            stored_at = Instant::now();
            let inner = Arc::clone(&shared.local.inner);
            let storing = spawn_blocking(move || cursor.is_some_and(|at| store(&inner, at)));
            if let Ok(true) = storing.await {
                stored = cursor;
            }
        }
        match changes {
            Ok(Changes::Events { events, next }) => {
                events.iter().for_each(|event| notice(shared, event));
                cursor = Some(next);
            }
            Ok(Changes::Behind { next }) => {
                info!("not every change is known here: all blobs are compared once");
                shared.views.forget();
                shared.wakes.round();
                cursor = Some(next);
            }
            Err(error) => {
                warn!(%error, "changes cannot be followed; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn notice(shared: &Shared, event: &Event) {
    match event {
        Event::BlobPlaced { digest } => shared.wakes.blob(*digest),
        Event::NodeChanged { .. } | Event::ReplicasChanged { .. } => {
            shared.views.forget();
            shared.wakes.round();
        }
        _ => {}
    }
}

fn load(inner: &Inner) -> Option<Cursor> {
    let bytes = std::fs::read(inner.layout.changes_cursor()).ok()?;
    let stored: CursorV1 = serde_json::from_slice(&bytes).ok()?;
    (stored.version == 1).then_some(Cursor(stored.cursor))
}

fn store(inner: &Inner, Cursor(cursor): Cursor) -> bool {
    let stored = serde_json::to_vec(&CursorV1 { version: 1, cursor })
        .map_err(std::io::Error::other)
        .and_then(|bytes| std::fs::write(inner.layout.changes_cursor(), bytes));
    if let Err(error) = &stored {
        warn!(%error, "cannot note how far changes were followed; the next start follows from earlier");
    }
    stored.is_ok()
}
