//! Images, pushed in every way that clients push: in one request, in pieces through other nodes, by mounting, as an index, with
//! a manifest too large for the log; and deleted by digest.
//!
//! Every step goes to another node than the one before, as behind a load balancer. The tag of an image is a register of its own
//! in the journal: its history is judged with all others.

use std::net::SocketAddr;

use super::Dice;
use super::clients::{CONFIG, PATIENCE, REPOSITORY, ask, push_blob};
use super::journal::{INDEX_TYPE, Journal, OTHER_BYTES, Pushed, index, manifest, value_of};
use crate::content::{MANIFEST_TYPE, sha256};
use crate::error::{Error, Result};
use crate::http::{Answer, Connection};
use crate::linear::{Event, Op};

/// Where blobs are mounted.
pub(super) const OTHER_REPOSITORY: &str = "chaos/other";
const BLOB_BYTES_MAX: usize = 400_000;
/// Pieces that a blob is cut into at most.
const PIECES_MAX: usize = 5;
/// How often a client that lost an answer asks how far its upload is.
const RESUMES_MAX: usize = 8;
/// What no longer fits into a log entry.
const LARGE_BYTES: usize = 66_000;
const LARGER_BYTES: usize = 300_000;

/// Something that did not come about.
enum Failure {
    /// No answer, or refused for now.
    NoAnswer,
    /// What must not be.
    Violation(String),
}

impl From<Error> for Failure {
    fn from(_: Error) -> Self {
        Self::NoAnswer
    }
}

/// Pushes or deletes an image.
pub(super) fn act(journal: &Journal, dice: &mut Dice) {
    let done = match dice.below(12) {
        0..4 => push(journal, dice, "pushed in one request"),
        4..6 => push(journal, dice, "pushed in pieces"),
        6..8 => mount(journal, dice),
        8 => push_index(journal, dice),
        9 => push(journal, dice, "pushed with a large manifest"),
        _ => delete(journal, dice),
    };
    match done {
        Ok(what) => journal.did(what),
        Err(Failure::NoAnswer) => journal.had_no_answer(),
        Err(Failure::Violation(what)) => journal.violation(what),
    }
}

type Done = std::result::Result<&'static str, Failure>;

fn node(journal: &Journal, dice: &mut Dice) -> SocketAddr {
    journal.addresses[dice.below(journal.addresses.len())]
}

fn random_bytes(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![0; 1 + dice.below(BLOB_BYTES_MAX)];
    for part in bytes.chunks_mut(8) {
        let number = dice.roll().to_le_bytes();
        part.copy_from_slice(&number[..part.len()]);
    }
    bytes
}

/// A blob through one node or several, its manifest through another.
fn push(journal: &Journal, dice: &mut Dice, way: &'static str) -> Done {
    let bytes = random_bytes(dice);
    let blob = match way {
        "pushed in pieces" => push_in_pieces(journal, dice, &bytes)?,
        _ => push_blob(node(journal, dice), REPOSITORY, &bytes)?,
    };
    let padding = match way {
        "pushed with a large manifest" => LARGE_BYTES + dice.below(LARGER_BYTES - LARGE_BYTES),
        _ => 0,
    };
    let value = journal.next_value();
    let body = manifest(&sha256(CONFIG), value, &[(&blob, bytes.len())], padding);
    let image = Pushed {
        repository: REPOSITORY,
        tag: format!("i{value}"),
        manifest: sha256(&body),
        children: Vec::new(),
        blobs: vec![blob],
        is_large: padding > 0,
    };
    name(journal, dice, image, value, MANIFEST_TYPE, &body)?;
    Ok(way)
}

/// Tags what its parts were acknowledged of, and pulls it from another node.
fn name(
    journal: &Journal,
    dice: &mut Dice,
    image: Pushed,
    value: u64,
    media_type: &str,
    body: &[u8],
) -> std::result::Result<(), Failure> {
    let (via, from) = (node(journal, dice), node(journal, dice));
    let Pushed { repository, tag, .. } = &image;
    let path = format!("/v2/{repository}/manifests/{tag}");
    let register = format!("{repository}:{tag}");
    let invoked = journal.now();
    let answer = ask(via, "PUT", &path, media_type, body);
    let status = answer.as_ref().map(|answer| answer.head.status).unwrap_or(0);
    let returned = (status == 201).then(|| journal.now());
    if let Ok(answer) = answer
        && matches!(status, 400 | 404)
    {
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        return Err(Failure::Violation(format!(
            "the parts of {register} were acknowledged: {image:?}; {via} says {status}: {said}"
        )));
    }
    journal.note(&register, Event { op: Op::Write(value), invoked, returned });
    if returned.is_none() {
        return Err(Failure::NoAnswer);
    }
    let invoked = journal.now();
    if let Ok(answer) = ask(from, "GET", &path, media_type, b"") {
        let seen = match answer.head.status {
            200 => Some(value_of(&answer.body)),
            404 => Some(None),
            _ => None,
        };
        if let Some(seen) = seen {
            let returned = Some(journal.now());
            journal.note(&register, Event { op: Op::Read(seen), invoked, returned });
        }
    }
    match journal.pull(from, &image) {
        // Anything that a client tries again is no violation; being told that it does not exist is.
        Err(Error::Status { status: 404, step, body }) => journal.violation(format!(
            "{register} was acknowledged, and {from} says 404 to {step}: {body}"
        )),
        Err(Error::Wrong(what)) if what.ends_with(OTHER_BYTES) => journal.violation(what),
        Ok(()) | Err(_) => {}
    }
    journal.pushed(image);
    Ok(())
}

/// The path of an address that may be absolute.
fn path_of(location: &str) -> String {
    match location.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
        Some((_, path)) => format!("/{path}"),
        None => location.to_owned(),
    }
}

/// Opens an upload through one node and sends each piece through another. A client that gets no answer asks how far the
/// upload is, and goes on from there.
fn push_in_pieces(
    journal: &Journal,
    dice: &mut Dice,
    bytes: &[u8],
) -> std::result::Result<String, Failure> {
    let digest = sha256(bytes);
    let send = |address: SocketAddr, method: &str, path: &str, range: &str, piece: &[u8]| {
        let headers = [("Content-Range", range), ("Content-Type", "application/octet-stream")];
        let headers = if range.is_empty() { &headers[1..] } else { &headers[..] };
        Connection::open_within(address, PATIENCE)?.exchange(method, path, headers, &[piece])
    };
    let uploads = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let opened: Answer = send(node(journal, dice), "POST", &uploads, "", b"")?;
    let Some(place) = opened.head.location.as_deref().map(path_of) else {
        return Err(Failure::NoAnswer);
    };
    let piece_bytes = bytes.len().div_ceil(1 + dice.below(PIECES_MAX));
    let (mut offset, mut resumes) = (0, 0);
    while offset < bytes.len() {
        let piece = &bytes[offset..bytes.len().min(offset + piece_bytes)];
        let range = format!("{offset}-{}", offset + piece.len() - 1);
        let sent: Result<Answer> = send(node(journal, dice), "PATCH", &place, &range, piece);
        if sent.is_ok_and(|answer| answer.head.status == 202) {
            offset += piece.len();
            continue;
        }
        resumes += 1;
        if resumes > RESUMES_MAX {
            return Err(Failure::NoAnswer);
        }
        let asked: Result<Answer> = send(node(journal, dice), "GET", &place, "", b"");
        match asked {
            Ok(answer) if answer.head.status == 204 => {
                let range = answer.head.range.unwrap_or_default();
                let last = range.split_once('-').and_then(|(_, last)| last.parse().ok());
                // Nothing and one byte are written the same.
                offset = last.map_or(0, |last: usize| if last == 0 { 0 } else { last + 1 });
                journal.did("asked how far an upload is");
            }
            // The session is gone with its node's disk, or the node cannot be reached.
            _ => return Err(Failure::NoAnswer),
        }
    }
    let separator = if place.contains('?') { '&' } else { '?' };
    let path = format!("{place}{separator}digest={digest}");
    let via = node(journal, dice);
    let closed: Answer = send(via, "PUT", &path, "", b"")?;
    match closed.head.status {
        201 => Ok(digest),
        400 => {
            let said = String::from_utf8_lossy(&closed.body).into_owned();
            Err(Failure::Violation(format!(
                "all pieces of {digest} were acknowledged, {resumes} of them asked about; {via} says: {said}"
            )))
        }
        _ => Err(Failure::NoAnswer),
    }
}

/// Shows a blob of an acknowledged image in another repository, and pushes a manifest over it there.
fn mount(journal: &Journal, dice: &mut Dice) -> Done {
    let Some(source) = journal.any_pushed(|count| dice.below(count)) else {
        return Err(Failure::NoAnswer);
    };
    let (Some(blob), REPOSITORY) = (source.blobs.first(), source.repository) else {
        return Err(Failure::NoAnswer);
    };
    let via = node(journal, dice);
    let path =
        format!("/v2/{OTHER_REPOSITORY}/blobs/uploads/?mount={blob}&from={}", source.repository);
    let answer = Connection::open_within(via, PATIENCE)?.exchange("POST", &path, &[], &[])?;
    match answer.head.status {
        201 => {}
        202 => {
            return Err(Failure::Violation(format!(
                "{blob} is in {REPOSITORY}, and {via} did not mount it"
            )));
        }
        _ => return Err(Failure::NoAnswer),
    }
    let path = format!("/v2/{OTHER_REPOSITORY}/blobs/{blob}");
    let found =
        Connection::open_within(node(journal, dice), PATIENCE)?.exchange("GET", &path, &[], &[])?;
    let size = match found.head.status {
        200 => found.body.len(),
        404 => {
            return Err(Failure::Violation(format!("{path} was mounted by {via}, and is absent")));
        }
        _ => return Err(Failure::NoAnswer),
    };
    let value = journal.next_value();
    let body = manifest(&sha256(CONFIG), value, &[(blob, size)], 0);
    let image = Pushed {
        repository: OTHER_REPOSITORY,
        tag: format!("m{value}"),
        manifest: sha256(&body),
        children: Vec::new(),
        blobs: vec![blob.clone()],
        is_large: false,
    };
    name(journal, dice, image, value, MANIFEST_TYPE, &body)?;
    Ok("mounted")
}

/// Two manifests without a tag, and an index of them.
fn push_index(journal: &Journal, dice: &mut Dice) -> Done {
    let (mut children, mut blobs) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let bytes = random_bytes(dice);
        let blob = push_blob(node(journal, dice), REPOSITORY, &bytes)?;
        let layers = [(blob.as_str(), bytes.len())];
        let body = manifest(&sha256(CONFIG), journal.next_value(), &layers, 0);
        let digest = sha256(&body);
        let path = format!("/v2/{REPOSITORY}/manifests/{digest}");
        let via = node(journal, dice);
        let answer = ask(via, "PUT", &path, MANIFEST_TYPE, &body)?;
        match answer.head.status {
            201 => {}
            400 | 404 => {
                let said = String::from_utf8_lossy(&answer.body).into_owned();
                return Err(Failure::Violation(format!(
                    "{blob} was acknowledged; {via} says: {said}"
                )));
            }
            _ => return Err(Failure::NoAnswer),
        }
        children.push((digest, body.len()));
        blobs.push(blob);
    }
    let value = journal.next_value();
    let body = index(value, &children);
    let image = Pushed {
        repository: REPOSITORY,
        tag: format!("x{value}"),
        manifest: sha256(&body),
        children: children.into_iter().map(|(digest, _)| digest).collect(),
        blobs,
        is_large: false,
    };
    name(journal, dice, image, value, INDEX_TYPE, &body)?;
    Ok("pushed as an index")
}

/// Deletes an acknowledged image by its digest: its tag goes with it.
fn delete(journal: &Journal, dice: &mut Dice) -> Done {
    let Some(image) = journal.take_pushed(|count| dice.below(count)) else {
        return Err(Failure::NoAnswer);
    };
    let Pushed { repository, tag, manifest, .. } = &image;
    let register = format!("{repository}:{tag}");
    let path = format!("/v2/{repository}/manifests/{manifest}");
    let via = node(journal, dice);
    let invoked = journal.now();
    let answer = ask(via, "DELETE", &path, MANIFEST_TYPE, b"");
    let status = answer.map(|answer| answer.head.status);
    let returned = matches!(status, Ok(202)).then(|| journal.now());
    journal.note(&register, Event { op: Op::Delete, invoked, returned });
    match status {
        Ok(202) => {}
        Ok(404) => {
            return Err(Failure::Violation(format!("{path} was acknowledged; {via} has none")));
        }
        _ => return Err(Failure::NoAnswer),
    }
    let path = format!("/v2/{repository}/manifests/{tag}");
    let invoked = journal.now();
    if let Ok(answer) = ask(node(journal, dice), "GET", &path, MANIFEST_TYPE, b"") {
        let returned = Some(journal.now());
        match answer.head.status {
            200 => {
                let seen = value_of(&answer.body);
                journal.note(&register, Event { op: Op::Read(seen), invoked, returned });
            }
            404 => journal.note(&register, Event { op: Op::Read(None), invoked, returned }),
            _ => {}
        }
    }
    journal.deleted(image);
    Ok("deleted by digest")
}
