//! What is on disk stays what it is: every encoding, compared with files that earlier releases wrote.
//!
//! `v1` is what 0.3.0 writes. `NORA_UPDATE_GOLDEN=1` writes the files anew; that is right only for kinds that no release
//! has written yet.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::PathBuf;

use nora_cluster::codec;
use nora_domain::{Command, Key, Record, Timestamp};

use crate::samples::{self, All};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Compares what `encode` gives with the file, and what `decode` makes of the file with the samples.
fn check<T: Debug + PartialEq>(
    file: &str,
    samples: Vec<(String, T)>,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> T,
) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let mut text = String::new();
    for (name, sample) in &samples {
        writeln!(text, "{name}: {}", hex(&encode(sample))).unwrap();
    }
    if std::env::var("NORA_UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    assert_eq!(golden, text, "{file}: an encoding changed");
    for (line, (name, sample)) in golden.lines().zip(&samples) {
        let (found, bytes) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        assert_eq!(found, name);
        assert_eq!(&decode(&unhex(bytes)), sample, "{file}: {name}");
    }
}

#[test]
fn commands() {
    let samples = samples::commands();
    let kinds: BTreeSet<_> = samples.iter().map(|(_, command)| command.action.name()).collect();
    assert_eq!(kinds, samples::ACTIONS.iter().copied().collect(), "every command has a sample");
    // The time stands beside a command.
    let at = Timestamp(0);
    let untimed = |(name, command)| (name, Command { at, ..command });
    let samples = samples.into_iter().map(untimed).collect();
    check("v1/commands.txt", samples, codec::command::encode, |bytes| {
        codec::command::decode(at, bytes).unwrap()
    });
}

#[test]
fn records() {
    let samples = samples::records();
    let kinds: BTreeSet<_> = samples.iter().map(|(_, record)| samples::kind(record)).collect();
    assert_eq!(kinds.len(), Record::COUNT, "every kind of record has a sample");
    check("v1/records.txt", samples, codec::record::encode, |bytes| {
        codec::record::decode(bytes).unwrap()
    });
}

#[test]
fn keys() {
    let samples = samples::keys();
    let kinds: BTreeSet<_> = samples.iter().map(|(_, key)| samples::kind(key)).collect();
    assert_eq!(kinds.len(), Key::COUNT, "every kind of key has a sample");
    assert!(samples.is_sorted_by_key(|(_, key)| key), "the samples are in the keys' order");
    let bytes: Vec<_> = samples.iter().map(|(_, key)| codec::key::encode(key)).collect();
    assert!(bytes.is_sorted(), "and so are their bytes");
    check("v1/keys.txt", samples, codec::key::encode, |bytes| codec::key::decode(bytes).unwrap());
}

#[test]
fn heads() {
    check("v1/heads.txt", samples::heads(), codec::head::encode, |bytes| {
        codec::head::decode(bytes).unwrap()
    });
}

#[test]
fn segments() {
    use codec::journal::{decode_segment, encode_segment};
    check(
        "v1/segments.txt",
        samples::segments(),
        |entries| encode_segment(entries),
        |bytes| decode_segment(bytes).unwrap(),
    );
}

#[test]
fn raft() {
    use codec::raft;
    check("v1/log_ids.txt", samples::raft::log_ids(), raft::encode_log_id, |bytes| {
        raft::decode_log_id(bytes).unwrap()
    });
    check("v1/votes.txt", samples::raft::votes(), raft::encode_vote, |bytes| {
        raft::decode_vote(bytes).unwrap()
    });
    check("v1/memberships.txt", samples::raft::memberships(), raft::encode_membership, |bytes| {
        raft::decode_membership(bytes).unwrap()
    });
    check("v1/entries.txt", samples::raft::entries(), raft::encode_entry, |bytes| {
        raft::decode_entry(bytes.to_vec().into()).unwrap()
    });
    check("v1/manifests.txt", samples::raft::manifests(), raft::encode_manifest, |bytes| {
        raft::decode_manifest(bytes).unwrap()
    });
}
