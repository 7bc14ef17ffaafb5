//! What is written down a moment later: refusals for the audit log, and when tokens were last used.
//!
//! Guarantees: nobody waits for either; equal refusals within a moment are one entry with a count, and so are those of one
//! source that are too many, so that a caller who is refused often cannot fill the log; callers without a name have a budget of
//! entries by the hour, in all and of each address; what does not fit is counted, not forgotten.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nora_app::Registry;
use nora_domain::{
    About, Actor, Deed, Reason, RefusalNote, Subject, Timestamp, TokenId, Verb, Verdict,
};
use tokio::time::Instant;
use tracing::warn;

use super::lockout::neighbours;

/// Different refusals that are kept between two writes; more are counted as one.
const REFUSALS_MAX: usize = 500;

/// Different refusals of one subject, with whichever token and from wherever, that are kept between two writes; more are one
/// entry of theirs. Of whoever has no name, at one address.
const OF_SOURCE_MAX: usize = 20;

/// Entries by the hour of callers without a name at one address; their further refusals are one entry a minute.
const NAMELESS_OF_SOURCE_MAX: u32 = 60;

/// Entries by the hour of all callers without a name; further refusals are one entry a minute of them all.
const NAMELESS_MAX: u32 = 1_000;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// Refusals that one step writes down: each has a bounded size, and a log entry has one.
const NOTED_AT_ONCE: usize = 100;

/// Tokens whose use is noted in one step.
const USES_MAX: usize = 5_000;

/// What was refused: to whom, with which token, from where; what, and why.
type Refused = (Subject, Option<Box<str>>, String, Deed, Verdict);

/// How many entries callers without a name have had within the hour.
struct Nameless {
    since: Instant,
    all: u32,
    by_source: HashMap<String, u32>,
    /// When those that were counted together were last written.
    counted_at: Instant,
}

impl Nameless {
    fn new(now: Instant) -> Self {
        Self { since: now, all: 0, by_source: HashMap::new(), counted_at: now }
    }

    /// Whether a refusal may be an entry of its own; otherwise why it is counted with others.
    fn take(&mut self, source: &str, now: Instant) -> Result<(), Reason> {
        if now.duration_since(self.since) >= HOUR {
            *self = Self { counted_at: self.counted_at, ..Self::new(now) };
        }
        if self.all >= NAMELESS_MAX {
            return Err(Reason::ManyOfAll);
        }
        let own = self.by_source.entry(source.to_owned()).or_default();
        if *own >= NAMELESS_OF_SOURCE_MAX {
            return Err(Reason::ManyOfOne);
        }
        *own += 1;
        self.all += 1;
        Ok(())
    }
}

/// Whether an entry counts refusals of callers without a name together: it may wait until there is more to count.
fn may_wait(key: &Refused) -> bool {
    let counted = matches!(&key.4, Verdict::Refused(Reason::ManyOfOne | Reason::ManyOfAll));
    counted && (key.0.is_nobody() || key.0 == Subject::Several)
}

/// What waits to be written.
pub struct Notes {
    refusals: Mutex<BTreeMap<Refused, (String, u32)>>,
    nameless: Mutex<Nameless>,
    uses: Mutex<BTreeMap<TokenId, Timestamp>>,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            refusals: Mutex::default(),
            nameless: Mutex::new(Nameless::new(Instant::now())),
            uses: Mutex::default(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's own words, short enough for an entry and on one line.
fn cut(text: &str) -> Box<str> {
    text.chars().filter(|c| !c.is_control()).take(Actor::TEXT_BYTES_MAX / 4).collect()
}

/// A deed whose words fit an entry; names fit by themselves.
fn fitting(deed: Deed) -> Deed {
    match deed.about {
        About::Words(words) => Deed::new(deed.verb, About::Words(cut(&words))),
        about => Deed::new(deed.verb, about),
    }
}

/// Where refusals of callers without a name come from: one with an IPv6 address has 2^64 of them.
fn source(subject: &Subject, address: String) -> String {
    match address.parse() {
        Ok(IpAddr::V6(of)) if subject.is_nobody() => match neighbours(IpAddr::V6(of)) {
            IpAddr::V6(net) => format!("{net}/64"),
            IpAddr::V4(same) => same.to_string(),
        },
        _ => address,
    }
}

/// Many deeds, counted together.
const SEVERAL: Deed = Deed::new(Verb::Several, About::Registry);

/// Refusals on their way into the log: whatever of them has not got there goes back.
struct Taken<'a> {
    notes: &'a Notes,
    rest: Vec<RefusalNote>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.notes.put_back(&self.rest);
    }
}

impl Notes {
    /// A caller was refused a change.
    pub fn refused(&self, actor: Actor, deed: Deed, why: Reason) {
        let Actor { subject, token, address, request } = actor;
        let address = source(&subject, address);
        let from = if subject.is_nobody() { address.clone() } else { String::new() };
        let why = match why {
            Reason::Words(words) => Reason::Words(cut(&words)),
            why => why,
        };
        let mut refusals = locked(&self.refusals);
        let mut key = (subject.clone(), token, address, fitting(deed), Verdict::Refused(why));
        if subject.is_nobody() && !refusals.contains_key(&key) {
            match locked(&self.nameless).take(&from, Instant::now()) {
                Ok(()) => {}
                Err(why) => {
                    let (of, from) = match why {
                        Reason::ManyOfAll => (Subject::Several, String::new()),
                        _ => (subject.clone(), from.clone()),
                    };
                    key = (of, None, from, SEVERAL, Verdict::Refused(why));
                }
            }
        }
        let first = (subject.clone(), None, String::new(), SEVERAL, Verdict::Done);
        let of_subject = refusals.range(first..).take_while(|(known, _)| known.0 == subject);
        let own = of_subject.filter(|(known, _)| from.is_empty() || known.2 == from);
        if own.take(OF_SOURCE_MAX).count() >= OF_SOURCE_MAX && !refusals.contains_key(&key) {
            key = (subject, None, from, SEVERAL, Verdict::Refused(Reason::ManyOfOne));
        }
        if refusals.len() >= REFUSALS_MAX && !refusals.contains_key(&key) {
            let several = Subject::Several;
            let why = Verdict::Refused(Reason::ManyOfAll);
            key = (several, None, String::new(), SEVERAL, why);
        }
        let (_, count) = refusals.entry(key).or_insert((request, 0));
        *count = count.saturating_add(1);
    }

    /// Something came to an end that is no command of its own.
    pub fn noted(&self, actor: Actor, deed: Deed, verdict: Verdict) {
        let Actor { subject, token, address, request } = actor;
        let verdict = match verdict {
            Verdict::Failed(Reason::Words(words)) => Verdict::Failed(Reason::Words(cut(&words))),
            verdict => verdict,
        };
        let key = (subject, token, address, fitting(deed), verdict);
        let mut notes = locked(&self.refusals);
        let (_, count) = notes.entry(key).or_insert((request, 0));
        *count = count.saturating_add(1);
    }

    /// A token was used.
    pub fn used(&self, token: TokenId, at: Timestamp) {
        let mut uses = locked(&self.uses);
        if uses.len() < USES_MAX || uses.contains_key(&token) {
            uses.insert(token, at);
        }
    }

    /// Writes refusals down. Returns how many entries that took; those that could not be written are kept.
    pub async fn write_refusals(&self, registry: &Registry) -> Result<u64, nora_app::Error> {
        self.write(registry, false).await
    }

    /// The same, with those that could wait.
    pub async fn write_all_refusals(&self, registry: &Registry) -> Result<u64, nora_app::Error> {
        self.write(registry, true).await
    }

    /// Takes out what is to be written now.
    fn due(&self, all: bool) -> BTreeMap<Refused, (String, u32)> {
        let mut refusals = locked(&self.refusals);
        let mut nameless = locked(&self.nameless);
        let now = Instant::now();
        if all || now.duration_since(nameless.counted_at) >= MINUTE {
            nameless.counted_at = now;
            return std::mem::take(&mut *refusals);
        }
        let (waiting, due) =
            std::mem::take(&mut *refusals).into_iter().partition(|(key, _)| may_wait(key));
        *refusals = waiting;
        due
    }

    async fn write(&self, registry: &Registry, all: bool) -> Result<u64, nora_app::Error> {
        let refusals = self.due(all);
        if refusals.is_empty() {
            return Ok(0);
        }
        let notes = refusals.into_iter().map(|(key, (request, count))| {
            let (subject, token, address, deed, verdict) = key;
            let actor = Actor { subject, token, address, request };
            RefusalNote { actor, deed, verdict, count }
        });
        let mut taken = Taken { notes: self, rest: notes.collect() };
        let count = taken.rest.len() as u64;
        while !taken.rest.is_empty() {
            let some = taken.rest.len().min(NOTED_AT_ONCE);
            match registry.journal().note_refusals(taken.rest[..some].to_vec()).await {
                Ok(()) => drop(taken.rest.drain(..some)),
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Keeps what could not be written for the next time.
    fn put_back(&self, notes: &[RefusalNote]) {
        let mut refusals = locked(&self.refusals);
        for note in notes {
            let Actor { subject, token, address, request } = note.actor.clone();
            let key = (subject, token, address, note.deed.clone(), note.verdict.clone());
            if refusals.len() >= REFUSALS_MAX && !refusals.contains_key(&key) {
                warn!(count = note.count, "refusals are missing in the audit log");
                continue;
            }
            let (_, count) = refusals.entry(key).or_insert((request, 0));
            *count = count.saturating_add(note.count);
        }
    }

    /// Writes down when tokens were used. Returns how many tokens that were; what could not be written is kept.
    pub async fn write_uses(&self, registry: &Registry) -> Result<u64, nora_app::Error> {
        let uses = std::mem::take(&mut *locked(&self.uses));
        if uses.is_empty() {
            return Ok(0);
        }
        let count = uses.len() as u64;
        let written =
            registry.tokens().touch(uses.iter().map(|(id, at)| (*id, *at)).collect()).await;
        if written.is_err() {
            let mut waiting = locked(&self.uses);
            for (token, at) in uses {
                // A token that was used again meanwhile keeps the later time.
                if waiting.len() < USES_MAX {
                    waiting.entry(token).or_insert(at);
                }
            }
        }
        written.map(|()| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(subject: &str) -> Actor {
        Actor::named(Subject::parse(subject).unwrap())
    }

    fn push(path: &str) -> Deed {
        Deed::new(Verb::ArtifactPush, About::Words(path.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn callers_without_a_name_have_a_budget_of_entries() {
        let notes = Notes::default();
        let mut written = 0;
        // Two hours of as many refusals as one address can make.
        for minute in 0..120 {
            for second in 0..60 {
                for i in 0..100 {
                    let at = Actor { address: "192.0.2.1".into(), ..actor("unknown") };
                    notes.refused(
                        at,
                        push(&format!("{minute} {second} {i}")),
                        Reason::WrongCredential,
                    );
                }
                tokio::time::advance(Duration::from_secs(1)).await;
                written += notes.due(false).len();
            }
        }
        assert!(written <= 2 * (60 + NAMELESS_OF_SOURCE_MAX as usize) + 2, "{written}");
        // And of many addresses.
        let notes = Notes::default();
        let (mut written, mut counted) = (0, 0);
        for second in 0..3_600_u32 {
            for address in 0..50 {
                let address = format!("192.0.{}.{}", second % 200, address);
                let at = Actor { address, ..actor("unknown") };
                notes.refused(at, push(&second.to_string()), Reason::WrongCredential);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            let due = notes.due(second == 3_599);
            written += due.len();
            counted += due.values().map(|(_, count)| count).sum::<u32>();
        }
        assert!(written <= NAMELESS_MAX as usize + 200, "{written}");
        assert_eq!(counted, 3_600 * 50, "what does not fit is counted");
        // Callers with a name have entries of their own all the same.
        notes.refused(actor("user:alice"), push("app"), Reason::NotPermitted);
        assert_eq!(notes.due(false).len(), 1);
    }

    #[test]
    fn equal_refusals_are_counted_together_and_many_are_bounded() {
        let notes = Notes::default();
        let of = |subject: &str| {
            let subject = Subject::parse(subject).unwrap();
            locked(&notes.refusals).keys().filter(|key| key.0 == subject).count()
        };
        // A caller that tries ever other names is one entry more, and others' refusals stay apart.
        for i in 0..3 * OF_SOURCE_MAX {
            notes.refused(actor("user:prober"), push(&format!("{i}")), Reason::NotPermitted);
        }
        assert_eq!(of("user:prober"), OF_SOURCE_MAX + 1);
        let near = |i: usize| Actor { address: format!("2001:db8::{i:x}"), ..actor("unknown") };
        (1..9).for_each(|i| notes.refused(near(i), push("login"), Reason::LoginNeeded));
        assert_eq!(of("unknown"), 1);
        // Tokens and addresses do not make more of one.
        for i in 0..3 * OF_SOURCE_MAX {
            let at = Actor {
                address: format!("192.0.2.{i}"),
                token: Some(format!("{}", i % 7).into()),
                ..actor("user:owner")
            };
            notes.refused(at, push(&format!("{i}")), Reason::NotPermitted);
        }
        notes.refused(actor("user:owner2"), push("app"), Reason::NotPermitted);
        assert_eq!((of("user:owner"), of("user:owner2")), (OF_SOURCE_MAX + 1, 1));
        locked(&notes.refusals).clear();
        for _ in 0..3 {
            notes.refused(actor("user:a"), push("app"), Reason::NotPermitted);
        }
        assert_eq!(locked(&notes.refusals).len(), 1);
        for i in 0..2 * REFUSALS_MAX {
            notes.refused(actor(&format!("user:{i}")), push("app\n"), Reason::NotPermitted);
        }
        let refusals = locked(&notes.refusals);
        assert_eq!(refusals.len(), REFUSALS_MAX + 1);
        let total: u32 = refusals.values().map(|(_, count)| count).sum();
        assert_eq!(total as usize, 3 + 2 * REFUSALS_MAX);
        assert!(refusals.keys().all(|key| !key.3.about.to_string().contains('\n')));
    }
}
