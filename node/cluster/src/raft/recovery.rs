//! What a start makes of a log and a state that a crash left at different places.
//!
//! A state may be ahead of its log: entries are applied once a quorum has them, which may be before this node has
//! synced them, and a power cut then takes the log's end and leaves the state's. What the log holds instead may be
//! entries of an earlier term, even at higher indexes, so log ids are compared and not indexes.
//!
//! Guarantees: after [`agree`], the log reaches as far as the state and the newest snapshot, leads on from them, and a
//! snapshot covers what the log has dropped. Where only a loss explains what is found, the start is refused.

use std::io;

use super::LogId;
use super::log_store::{LogStore, lost};
use super::state_machine::StateMachine;

/// Makes the log and the state agree, or says what is lost.
pub fn agree(log: &LogStore, state: &StateMachine) -> io::Result<()> {
    let (last, purged) = (log.last()?, log.purged()?);
    let reached = state.applied().max(state.covered());
    if reached.is_some() && !log.has_vote()? {
        return Err(lost("the state is there, but the log beside it is empty".to_owned()));
    }
    if purged > reached {
        let (purged, reached) = (show(purged), show(reached));
        return Err(lost(format!(
            "the log begins after entry {purged}, but the state and its snapshot end at {reached}"
        )));
    }
    if let Some(at) = reached {
        if last < reached {
            // Committed entries have the higher log id, so what the log has beyond them was never committed.
            tracing::warn!(
                log = show(last),
                state = show(reached),
                "the log ends before the state does, as after a power cut: it goes on after the state"
            );
            state.cover()?;
            return log.restart_after(&at);
        }
        follows(log, purged, &at)?;
    }
    if state.covered() < purged { state.cover() } else { Ok(()) }
}

/// Refuses a log that has another entry where the state's last one must be.
fn follows(log: &LogStore, purged: Option<LogId>, at: &LogId) -> io::Result<()> {
    let found = match purged {
        Some(purged) if purged.index >= at.index => Some(purged),
        _ => log.id_at(at.index)?,
    };
    if found == Some(*at) {
        return Ok(());
    }
    let (found, at) = (show(found), show(Some(*at)));
    Err(lost(format!("the state ends at entry {at}, where the log has {found}")))
}

fn show(at: Option<LogId>) -> String {
    at.map_or("none".to_owned(), |at| format!("{} of term {}", at.index, at.leader_id.term))
}
