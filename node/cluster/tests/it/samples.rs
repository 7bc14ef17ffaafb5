//! One or more values of every kind that is stored, each with a name.

mod draw;
pub mod raft;

use nora_domain::{Command, Entry, Head, Key, NoteRefusals, Record, RefusalNote};

pub use draw::{ACTIONS, All, Draw, Drawn};

/// How many values of each kind there are.
const EACH: u64 = 3;

/// The name of a kind, as its variant is written.
pub fn kind<T: std::fmt::Debug>(value: &T) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()
}

fn numbered<T>(
    values: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> String,
) -> Vec<(String, T)> {
    values
        .into_iter()
        .enumerate()
        .map(|(at, value)| (format!("{at:03} {}", name(&value)), value))
        .collect()
}

pub fn commands() -> Vec<(String, Command)> {
    let draws = (0..EACH).map(|seed| Draw(seed).of("command"));
    let mut commands: Vec<Command> = draws
        .flat_map(|d| {
            let around = move |action| Command { action, ..d.get("around") };
            nora_domain::Action::all(d).into_iter().map(around)
        })
        .collect();
    // Refusals about all that deeds are about.
    let d = Draw(0).of("refusals");
    let notes = nora_domain::About::all(d).into_iter().zip(0..).map(|(about, at)| {
        let mut note: RefusalNote = d.get(&format!("{at}"));
        note.deed.about = about;
        note
    });
    let refusals = NoteRefusals { refusals: notes.collect() };
    commands.push(Command { action: refusals.into(), ..d.get("around") });
    numbered(commands, |command| command.action.name().to_owned())
}

pub fn records() -> Vec<(String, Record)> {
    let draws = (0..EACH).map(|seed| Draw(seed).of("record"));
    let mut records: Vec<Record> = draws.flat_map(Record::all).collect();
    // An entry with every event, and one of each subject and each verdict.
    let d = Draw(0).of("entries");
    records.push(Record::Journal(Entry { events: nora_domain::Event::all(d), ..d.get("every") }));
    for subject in nora_domain::Subject::all(d) {
        let by = Some(nora_domain::Actor { subject, ..d.get("actor") });
        records.push(Record::Journal(Entry { by, ..d.get("subject") }));
    }
    for verdict in nora_domain::Verdict::all(d) {
        records.push(Record::Journal(Entry { verdict, ..d.get("verdict") }));
    }
    numbered(records, kind)
}

/// In the order of the keys.
pub fn keys() -> Vec<(String, Key)> {
    let draws = (0..EACH).map(|seed| Draw(seed).of("key"));
    let mut keys: Vec<Key> = draws.flat_map(Key::all).collect();
    keys.sort();
    keys.dedup();
    numbered(keys, kind)
}

pub fn heads() -> Vec<(String, Head)> {
    let drawn = (0..EACH).map(|seed| Draw(seed).get("head"));
    numbered([Head::default()].into_iter().chain(drawn), |_| "head".to_owned())
}

pub fn segments() -> Vec<(String, Vec<(u64, Entry)>)> {
    let numbers = [vec![], vec![1], (7..20).collect()];
    let entries = |numbers: Vec<u64>| {
        numbers.into_iter().map(|n| (n, Draw(n).get("segment"))).collect::<Vec<_>>()
    };
    numbered(numbers.map(entries), |entries| format!("{}-entries", entries.len()))
}
