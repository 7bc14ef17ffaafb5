//! Clients that move, read and delete a few tags, and push images between, while faults come and go.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::journal::{ACCEPT, Journal, manifest, value_of};
use super::{Dice, images};
use crate::content::{MANIFEST_TYPE, sha256};
use crate::error::Result;
use crate::http::{Answer, Connection};
use crate::linear::{Event, Op};

/// Where tags are moved and most images are pushed.
pub(super) const REPOSITORY: &str = "chaos/app";
/// What every image's configuration is.
pub(super) const CONFIG: &[u8] = b"{}";
/// A client that hears nothing for so long takes the outcome for unknown.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// Tags in use at once, and for how long: a history that is judged stays short.
const TAGS: usize = 4;
const TAG_LIFE: Duration = Duration::from_secs(3);

/// Pushes what all manifests need.
pub(super) fn prepare(journal: &Journal) -> Result<()> {
    for repository in [REPOSITORY, images::OTHER_REPOSITORY] {
        push_blob(journal.addresses[0], repository, CONFIG)?;
    }
    Ok(())
}

/// Pushes a blob in one request.
pub(super) fn push_blob(address: SocketAddr, repository: &str, bytes: &[u8]) -> Result<String> {
    let digest = sha256(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let headers = [("Content-Type", "application/octet-stream")];
    let mut connection = Connection::open_within(address, PATIENCE)?;
    connection.expect(201, "POST", &path, &headers, &[bytes])?;
    Ok(digest)
}

/// Asks a node about a manifest.
pub(super) fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    media_type: &str,
    body: &[u8],
) -> Result<Answer> {
    let headers = [ACCEPT, ("Content-Type", media_type)];
    let headers = if method == "PUT" { &headers[..] } else { &headers[..1] };
    Connection::open_within(address, PATIENCE)?.exchange(method, path, headers, &[body])
}

/// A client, until it is over.
pub(super) fn run(journal: &Journal, mut dice: Dice, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let turn = journal.turn();
        let address = journal.addresses[dice.below(journal.addresses.len())];
        match dice.below(20) {
            0..7 => write(journal, &mut dice, address),
            7..15 => read(journal, &mut dice, address),
            15 => delete(journal, &mut dice, address),
            _ => images::act(journal, &mut dice),
        }
        drop(turn);
        // The machine has work for the servers, too.
        thread::sleep(dice.millis(2, 12));
    }
}

fn tag(journal: &Journal, dice: &mut Dice) -> String {
    let life = journal.elapsed().as_millis() / TAG_LIFE.as_millis();
    format!("t{}-{life}", dice.below(TAGS))
}

fn write(journal: &Journal, dice: &mut Dice, address: SocketAddr) {
    let tag = tag(journal, dice);
    let value = journal.next_value();
    let body = manifest(&sha256(CONFIG), value, &[], 0);
    let invoked = journal.now();
    let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
    let answer = ask(address, "PUT", &path, MANIFEST_TYPE, &body);
    let returned = match answer {
        Ok(answer) if answer.head.status == 201 => Some(journal.now()),
        Ok(answer) if answer.head.status == 400 => {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            return journal.violation(format!("a manifest was refused: {said}"));
        }
        _ => None,
    };
    journal.note(&tag, Event { op: Op::Write(value), invoked, returned });
}

fn read(journal: &Journal, dice: &mut Dice, address: SocketAddr) {
    let tag = tag(journal, dice);
    let invoked = journal.now();
    let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
    let Ok(answer) = ask(address, "GET", &path, MANIFEST_TYPE, b"") else { return };
    let seen = match answer.head.status {
        200 => value_of(&answer.body),
        404 => None,
        _ => return,
    };
    let returned = Some(journal.now());
    journal.note(&tag, Event { op: Op::Read(seen), invoked, returned });
}

fn delete(journal: &Journal, dice: &mut Dice, address: SocketAddr) {
    let tag = tag(journal, dice);
    let invoked = journal.now();
    let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
    let answer = ask(address, "DELETE", &path, MANIFEST_TYPE, b"");
    let event = match answer.map(|answer| answer.head.status) {
        Ok(202) => Event { op: Op::Delete, invoked, returned: Some(journal.now()) },
        // Sent twice by nobody: there was no tag.
        Ok(404) => Event { op: Op::Read(None), invoked, returned: Some(journal.now()) },
        _ => Event { op: Op::Delete, invoked, returned: None },
    };
    journal.note(&tag, event);
}
