//! What came of a run, for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::{Fault, Faults, Journal, Plan};

/// What came of a run.
pub struct Report {
    plan: Plan,
    faults: Vec<(Fault, usize)>,
    writes_back: Vec<u64>,
    memory_max: u64,
    in_snapshot: usize,
    lost_bytes: u64,
    rotten: [usize; 2],
    restored: Vec<u64>,
    pairs: Vec<((Fault, Fault), usize)>,
    compared: usize,
    done: BTreeMap<&'static str, u64>,
    counts: [u64; 4],
    took: Duration,
    /// What must not be; empty if all is well.
    pub violations: Vec<String>,
}

impl Report {
    pub(super) fn new(plan: &Plan, faults: &Faults, journal: &Journal, took: Duration) -> Self {
        let mut writes_back = faults.writes_back.clone();
        writes_back.sort_unstable();
        let mut restored = faults.restored.clone();
        restored.sort_unstable();
        Self {
            plan: plan.clone(),
            faults: faults.done.iter().map(|(fault, count)| (*fault, *count)).collect(),
            writes_back,
            memory_max: faults.memory_max,
            in_snapshot: faults.in_snapshot,
            lost_bytes: faults.lost_bytes,
            rotten: [faults.refused, faults.served],
            restored,
            pairs: faults.pairs.iter().map(|(pair, count)| (*pair, *count)).collect(),
            compared: faults.compared,
            done: journal.done(),
            counts: journal.counts(),
            took,
            violations: journal.violations(),
        }
    }

    /// How many faults there were.
    pub fn faults(&self) -> usize {
        self.faults.iter().map(|(_, count)| count).sum()
    }

    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        let [answered, unanswered, pushed, pulled] = self.counts;
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "Seed {}, {} nodes, {} clients, {:.0} s: **{} faults, {} violations**.\n",
            self.plan.seed,
            self.plan.nodes,
            self.plan.clients,
            self.took.as_secs_f64(),
            self.faults(),
            self.violations.len(),
        );
        let _ = writeln!(text, "| fault | times |\n|---|---|");
        for (fault, count) in &self.faults {
            let _ = writeln!(text, "| {fault:?} | {count} |");
        }
        let _ = writeln!(
            text,
            "\n{answered} operations were answered, {unanswered} were not (refused for the moment, or their outcome \
             unknown). {pushed} images were acknowledged and compared byte for byte in {pulled} pulls.\n"
        );
        let done: Vec<_> =
            self.done.iter().map(|(what, count)| format!("{what} {count}")).collect();
        let _ = writeln!(text, "Clients: {}.\n", done.join(", "));
        let _ = writeln!(
            text,
            "The states of all nodes at one position were compared {} times.\n",
            self.compared
        );
        if !self.pairs.is_empty() {
            let pair = |((first, second), count): &((Fault, Fault), usize)| {
                format!("{first:?} with {second:?} {count}")
            };
            let pairs: Vec<_> = self.pairs.iter().map(pair).collect();
            let _ = writeln!(text, "Two at once: {}.\n", pairs.join(", "));
        }
        if let (Some(median), Some(longest)) =
            (self.restored.get(self.restored.len() / 2), self.restored.last())
        {
            let _ = writeln!(
                text,
                "From the loss of a disk until the node that joined anew had every acknowledged blob: median {median} ms, \
                 longest {longest} ms ({} times).\n",
                self.restored.len()
            );
        }
        let [refused, served] = self.rotten;
        if refused + served > 0 {
            let _ = writeln!(
                text,
                "Of nodes whose metadata rotted, {refused} refused and {served} served all that was acknowledged.\n"
            );
        }
        if self.lost_bytes > 0 {
            let lost = self.lost_bytes as f64 / 1e6;
            let _ = writeln!(text, "Power cuts took {lost:.1} MB that were not synced.\n");
        }
        if self.in_snapshot > 0 {
            let _ = writeln!(
                text,
                "{} kills came while a snapshot was being taken in.\n",
                self.in_snapshot
            );
        }
        if !self.writes_back.is_empty() {
            let at =
                |percent: usize| self.writes_back[(self.writes_back.len() - 1) * percent / 100];
            let _ = writeln!(
                text,
                "From the loss of a leader to the next acknowledged write: median {} ms, 95 % within {} ms, longest {} ms \
                 ({} times).\n",
                at(50),
                at(95),
                at(100),
                self.writes_back.len(),
            );
        }
        let _ = writeln!(text, "Most memory of a node: {:.0} MB.", self.memory_max as f64 / 1e6);
        for violation in &self.violations {
            let _ = writeln!(text, "\n- {violation}");
        }
        text
    }
}
