//! What is on disk stays what it is: every encoding, compared with files that earlier releases wrote.
//!
//! `v1` is what a single node wrote before there were clusters, `v2` what feature level 2 added: of commands they are only
//! read, and mean what they meant then; so are `v1`'s records. `v3` is what this version writes of commands, and `v2` of
//! records. `NORA_UPDATE_GOLDEN=1` writes the other files anew; that is
//! right only for kinds that no release has written yet.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::PathBuf;

use nora_cluster::codec;

use crate::samples;

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

/// What `decode` makes of a file that is no longer written, compared with the samples of the same names.
fn check_old<T: Debug + PartialEq>(
    file: &str,
    samples: &[(String, T)],
    decode: impl Fn(&[u8]) -> T,
) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let golden = fs::read_to_string(&path).unwrap();
    assert!(golden.lines().count() > 10, "{file} is whole");
    for line in golden.lines() {
        let (name, bytes) = line.split_once(": ").unwrap();
        let sample = samples.iter().find(|(of, _)| of == name).map(|(_, sample)| sample);
        assert_eq!(Some(&decode(&unhex(bytes))), sample, "{file}: {name}");
    }
}

#[test]
fn commands() {
    let samples = samples::commands();
    let kinds: BTreeSet<_> =
        samples.iter().map(|(_, command)| samples::action_name(&command.action)).collect();
    assert_eq!(kinds.len(), samples::ACTIONS, "every action has a sample");
    check_old("v1/commands.txt", &samples, |bytes| codec::command::decode(bytes).unwrap());
    check_old("v2/commands.txt", &samples, |bytes| codec::command::decode(bytes).unwrap());
    check("v3/commands.txt", samples, codec::command::encode, |bytes| {
        codec::command::decode(bytes).unwrap()
    });
}

#[test]
fn records() {
    let samples = samples::records();
    let kinds: BTreeSet<_> =
        samples.iter().map(|(_, record)| samples::record_name(record)).collect();
    assert_eq!(kinds.len(), samples::KINDS, "every kind of record has a sample");
    check_old("v1/records.txt", &samples, |bytes| codec::record::decode(bytes).unwrap());
    check("v2/records.txt", samples, codec::record::encode, |bytes| {
        codec::record::decode(bytes).unwrap()
    });
}

#[test]
fn keys() {
    let samples = samples::keys();
    let kinds: BTreeSet<_> = samples.iter().map(|(_, key)| samples::key_name(key)).collect();
    assert_eq!(kinds.len(), samples::KINDS, "every kind of key has a sample");
    assert!(samples.is_sorted_by_key(|(_, key)| key), "the samples are in the keys' order");
    let bytes: Vec<_> = samples.iter().map(|(_, key)| codec::key::encode(key)).collect();
    assert!(bytes.is_sorted(), "and so are their bytes");
    check("v1/keys.txt", samples, codec::key::encode, |bytes| codec::key::decode(bytes).unwrap());
}

#[test]
fn raft() {
    use codec::raft;
    check("v1/log_ids.txt", samples::log_ids(), raft::encode_log_id, |bytes| {
        raft::decode_log_id(bytes).unwrap()
    });
    check("v1/votes.txt", samples::votes(), raft::encode_vote, |bytes| {
        raft::decode_vote(bytes).unwrap()
    });
    check("v1/memberships.txt", samples::memberships(), raft::encode_membership, |bytes| {
        raft::decode_membership(bytes).unwrap()
    });
    check("v1/entries.txt", samples::entries(), raft::encode_entry, |bytes| {
        raft::decode_entry(bytes.to_vec().into()).unwrap()
    });
    check("v1/manifests.txt", samples::manifests(), raft::encode_manifest, |bytes| {
        raft::decode_manifest(bytes).unwrap()
    });
}
