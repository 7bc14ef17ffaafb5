//! Where audit entries go besides the cluster's own log: a file of this node, and the policy's webhook.
//!
//! The file gets every entry that this node applies, in order and in whole lines, and goes on after a restart where it
//! ended, even if it was rotated away meanwhile. The webhook gets them from whoever leads, in order; what it does not take
//! is sent again. How far it came is noted in the replicated log, so a new leader begins exactly after what was
//! acknowledged: entries may come twice, if they were taken and that was not noted yet. None is missing unless retention
//! dropped it first; in the file, a line says where.

mod disk;
mod file;
mod trouble;
mod webhook;

use std::time::Duration;

use nora_domain::Entry;
use serde_json::json;

pub(super) use file::to_file;
pub(super) use webhook::to_webhook;

/// How often new entries are looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// Entries that are written or sent at once.
const PAGE: usize = 500;

/// Why entries did not go where they should.
type Failed = nora_app::ports::BoxError;

/// An entry as one line of JSON; none for what no caller asked for.
fn line(number: u64, entry: &Entry) -> Option<String> {
    let (deed, by) = (entry.deed.as_ref()?, entry.by.as_ref()?);
    let line = json!({
        "number": number,
        "at": entry.at.0,
        "actor": by.name(),
        "address": by.address,
        "request_id": by.request,
        "action": deed.verb.name(),
        "resource": deed.about.to_string(),
        "result": entry.verdict.to_string(),
        "count": entry.count,
        "hash": nora_domain::hex::encode(&entry.chain),
    });
    Some(line.to_string())
}

/// Entries as lines of JSON, each with its newline.
fn lines(entries: &[(u64, Entry)]) -> String {
    entries.iter().filter_map(|(number, entry)| Some(line(*number, entry)? + "\n")).collect()
}

/// Entries that are missing between two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    after: u64,
    before: u64,
}

impl Gap {
    /// What is missing between the last entry that went out and the one that is to go next. Entries are numbered without
    /// gaps and dropped from the front alone, so those that follow each other in the log need not be looked at.
    fn between(last: u64, next: u64) -> Option<Self> {
        (next > last.saturating_add(1)).then_some(Self { after: last, before: next })
    }

    /// The gap as one line of JSON.
    fn line(self) -> String {
        json!({ "gap": { "after": self.after, "before": self.before } }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nora_domain::{About, Actor, Deed, Reason, RefusalNote, Subject, Timestamp, Verb, Verdict};

    use nora_http::testkit::World;

    /// Entries that a world has from its founding: no caller asked for them, so they have no lines.
    pub(super) const FOUNDING: u64 = 3;

    /// Seals all entries, forgets them, and so leaves a gap. Sealing and forgetting make entries of their own.
    pub(super) async fn drop_all(world: &World) {
        world.registry.journal().seal(0).await.unwrap();
        world.clock.advance(1_000);
        while world.registry.journal().drop_segments(1).await.unwrap() {}
    }

    /// Makes so many entries.
    pub(super) async fn refuse(world: &World, times: usize) {
        let note = RefusalNote {
            actor: Actor::named(Subject::User("a".into())),
            deed: Deed::new(Verb::ArtifactPush, About::Words("oci:app".into())),
            verdict: Verdict::Refused(Reason::NotPermitted),
            count: 1,
        };
        world.registry.journal().note_refusals(vec![note; times]).await.unwrap();
    }

    #[test]
    fn an_entry_is_a_line() {
        let entry = Entry {
            position: 1,
            at: Timestamp(7),
            by: Some(Actor::named(Subject::User("a".into()))),
            deed: Some(Deed::new(Verb::TagDelete, About::Words("oci:app:\nv1".into()))),
            verdict: Verdict::Done,
            count: 1,
            events: Vec::new(),
            chain: [0x0f; 32],
        };
        // What no caller asked for has no line.
        let own = Entry { by: None, deed: None, ..entry.clone() };
        let text = lines(&[(3, own), (4, entry.clone()), (5, entry)]);
        assert_eq!(text.matches('\n').count(), 2, "{text}");
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["number"], 5);
        assert_eq!(last["resource"], "oci:app:\nv1");
        assert_eq!(last["hash"], "0f".repeat(32));
    }

    #[test]
    fn what_is_missing_is_said() {
        for (last, next) in [(0, 1), (7, 8), (7, 7), (u64::MAX, 1)] {
            assert_eq!(Gap::between(last, next), None, "{last} {next}");
        }
        assert_eq!(Gap::between(0, 2), Some(Gap { after: 0, before: 2 }));
        let gap = Gap::between(7, 90).unwrap();
        assert_eq!(gap.line(), r#"{"gap":{"after":7,"before":90}}"#);
    }
}
