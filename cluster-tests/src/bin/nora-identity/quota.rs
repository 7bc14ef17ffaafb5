//! A tenant's storage quota under parallel pushes to all nodes: never a byte more, and room again after deletes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use futures_util::stream;
use nora_cluster_tests::content::sha256;
use reqwest::header::{CONTENT_LENGTH, LOCATION};
use reqwest::{Body, Method};

use crate::stage::{
    Answer, Login, NODES, QUOTA, Stage, Step, Trouble, closing, ensure, path_of, random, send,
};

const PUSHES: usize = 50;
/// How long room may stay set aside for nobody.
const GIVEN_BACK_LIMIT: Duration = Duration::from_secs(5);
/// How long a deletion may take to make room.
const FREED_LIMIT: Duration = Duration::from_secs(20);
const REPOSITORY: &str = "quota/app";

/// How a blob is sent.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// `PUT` with a length.
    Put,
    /// `PATCH` in chunks, of no length that anybody said.
    Chunked,
    /// Two `PATCH`es with lengths, to two nodes.
    Twice,
    /// `POST` with everything.
    Post,
}

const WAYS: [Way; 4] = [Way::Put, Way::Chunked, Way::Twice, Way::Post];

struct Blob {
    bytes: Vec<u8>,
    digest: String,
    way: Way,
    node: usize,
}

fn chunked(bytes: &[u8]) -> Body {
    let parts: Vec<_> = bytes.chunks(100_000).map(<[u8]>::to_vec).collect();
    Body::wrap_stream(stream::iter(parts.into_iter().map(Ok::<_, std::io::Error>)))
}

/// Pushes a blob its way; the answer of the step that ended it. Who is refused has no session any more that would keep
/// what it has; who got no answer gives theirs up.
async fn push(stage: &Stage, login: &Login, blob: &Blob) -> Step<Answer> {
    let mut session = None;
    let answer = push_through(stage, login, blob, &mut session).await;
    let Some(place) = session else { return answer };
    match &answer {
        Ok(answer) if answer.status == 403 => {
            let looked = send(stage.request(blob.node, Method::GET, &place, login)).await?;
            looked.must_be(404, "a refused session")?;
        }
        Ok(_) => {}
        Err(_) => {
            let gone = send(stage.request(blob.node, Method::DELETE, &place, login)).await?;
            ensure(matches!(gone.status, 204 | 404), || {
                format!("giving up a session: {} {}", gone.status, gone.text())
            })?;
        }
    }
    answer
}

async fn push_through(
    stage: &Stage,
    login: &Login,
    blob: &Blob,
    session: &mut Option<String>,
) -> Step<Answer> {
    let Blob { bytes, digest, way, node } = blob;
    let (here, there) = (*node, node + 1);
    if let Way::Post = way {
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
        return send(stage.request(here, Method::POST, &path, login).body(bytes.clone())).await;
    }
    let opened = stage.open_upload(here, login, REPOSITORY).await?;
    let Some(mut place) = opened.header(LOCATION.as_str()).map(path_of) else { return Ok(opened) };
    *session = Some(place.clone());
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let patches = match way {
        Way::Chunked => vec![(here, chunked(bytes), None)],
        Way::Twice => vec![
            (here, Body::from(first.to_vec()), Some(format!("0-{}", first.len() - 1))),
            (
                there,
                Body::from(second.to_vec()),
                Some(format!("{}-{}", first.len(), bytes.len() - 1)),
            ),
        ],
        Way::Put | Way::Post => Vec::new(),
    };
    for (node, body, range) in patches {
        let mut request = stage.request(node, Method::PATCH, &place, login).body(body);
        if let Some(range) = range {
            request = request.header("content-range", range);
        }
        let answer = send(request).await?;
        match answer.header(LOCATION.as_str()).map(path_of) {
            Some(next) if answer.status == 202 => place = next,
            _ => return Ok(answer),
        }
    }
    let path = closing(&place, digest);
    let request = stage.request(there, Method::PUT, &path, login);
    match way {
        Way::Put => send(request.body(bytes.clone())).await,
        _ => send(request.header(CONTENT_LENGTH, 0)).await,
    }
}

/// 50 pushes at once that do not fit together, and again those that were refused, until nothing more goes in.
///
/// `there` gets the digests of what went in.
pub async fn holds(stage: &Stage, login: &Login, there: &mut Vec<String>) -> Step<String> {
    let mut blobs = Vec::new();
    for i in 0..PUSHES {
        // From 100 KB to 3 MB; some are of one size.
        let bytes = random(100_000 + (i * 7 % 30) * 100_000 + i % 3)?;
        let digest = sha256(&bytes);
        blobs.push(Blob { bytes, digest, way: WAYS[i % WAYS.len()], node: i % NODES });
    }
    let together: usize = blobs.iter().map(|blob| blob.bytes.len()).sum();
    ensure(together as u64 > QUOTA * 3 / 2, || format!("{together} bytes prove nothing"))?;
    let mut acknowledged: Vec<Blob> = Vec::new();
    let (mut rounds, mut refusals, mut most) = (0, 0, 0);
    loop {
        let pushing = join_all(blobs.iter().map(|blob| push(stage, login, blob)));
        let over = AtomicBool::new(false);
        let pushes = async {
            let answers = pushing.await;
            over.store(true, Ordering::Relaxed);
            answers
        };
        let watch = async {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                for node in 0..NODES {
                    let usage = stage.usage(node, "quota").await?;
                    most = most.max(usage.unique_bytes + usage.reserved_bytes);
                }
            }
            Ok::<_, Trouble>(most)
        };
        let (answers, seen) = join(pushes, watch).await;
        most = most.max(seen?);
        ensure(most <= QUOTA, || format!("{most} bytes were used or set aside of {QUOTA}"))?;
        let mut left = Vec::new();
        let before = acknowledged.len();
        for (blob, answer) in blobs.into_iter().zip(answers) {
            let (way, length) = (blob.way, blob.bytes.len());
            // A body that is refused midway may take its answer along: `tells` looks at that.
            let answer = match answer {
                Err(_) if matches!(way, Way::Chunked) => {
                    left.push(blob);
                    continue;
                }
                answer => answer.map_err(|trouble| {
                    Trouble(format!("{way:?} of {length} bytes broke off: {}", trouble.0))
                })?,
            };
            match answer.status {
                201 => acknowledged.push(blob),
                403 if answer.text().contains("quota") => left.push(blob),
                status => {
                    let told = format!("{way:?} of {length} bytes: {status}: {}", answer.text());
                    return Err(Trouble(told));
                }
            }
        }
        refusals += left.len();
        rounds += 1;
        blobs = left;
        if blobs.is_empty() || acknowledged.len() == before {
            break;
        }
    }
    there.extend(acknowledged.iter().map(|blob| blob.digest.clone()));
    ensure(!blobs.is_empty(), || "everything went in, though it cannot fit".into())?;
    let bytes: u64 = acknowledged.iter().map(|blob| blob.bytes.len() as u64).sum();
    for node in 0..NODES {
        are_there(stage, login, node, &acknowledged, &blobs).await?;
        let mut usage = stage.usage(node, "quota").await?;
        let asked = Instant::now();
        while usage.reserved_bytes > 0 && asked.elapsed() < GIVEN_BACK_LIMIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
            usage = stage.usage(node, "quota").await?;
        }
        let (used, reserved) = (usage.unique_bytes, usage.reserved_bytes);
        ensure(used == bytes && reserved == 0, || {
            format!(
                "node {} counts {used} bytes, {reserved} set aside; there are {bytes}",
                node + 1
            )
        })?;
    }
    // What is left is left to the byte, and not one more.
    let rest = usize::try_from(QUOTA - bytes).map_err(|error| Trouble(error.to_string()))?;
    let over = stage.push_blob(1, login, REPOSITORY, &random(rest + 1)?).await?;
    over.must_be(403, "one byte more than is left")?;
    if rest > 0 {
        let last = stage.push_blob(2, login, REPOSITORY, &random(rest)?).await?;
        last.must_be(201, "as many bytes as are left")?;
    }
    stage.push_blob(0, login, REPOSITORY, b"!").await?.must_be(403, "a byte when it is full")?;
    let usage = stage.usage(0, "quota").await?;
    ensure((usage.unique_bytes, usage.reserved_bytes) == (QUOTA, 0), || format!("{usage:?}"))?;
    let pushed = acknowledged.len();
    Ok(format!(
        "{pushed} pushed and {refusals} times refused in {rounds} rounds, {most} of {QUOTA} bytes at most, then filled to \
         the byte"
    ))
}

/// What was acknowledged can be read on a node, byte for byte, and what was refused cannot.
async fn are_there(
    stage: &Stage,
    login: &Login,
    node: usize,
    there: &[Blob],
    absent: &[Blob],
) -> Step<()> {
    for blob in there.iter().chain(absent) {
        let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
        let answer = stage.get(node, &path, login).await?;
        let is_there = there.iter().any(|one| one.digest == blob.digest);
        let right = match is_there {
            true => answer.status == 200 && answer.body == blob.bytes,
            false => answer.status == 404,
        };
        ensure(right, || {
            let was = if is_there { "acknowledged" } else { "refused" };
            format!("{} was {was} and is {} on node {}", blob.digest, answer.status, node + 1)
        })?;
    }
    Ok(())
}

/// Who is refused in the middle of a body of no known length is told so, not cut off.
pub async fn tells(stage: &Stage, login: &Login) -> Step<String> {
    let (tries, bytes) = (12, random(8 << 20)?);
    // Room for some of it.
    let used = stage.usage(0, "quota").await?.unique_bytes;
    let filling = usize::try_from(QUOTA.saturating_sub(used + (1 << 20))).unwrap_or(0);
    stage.push_blob(0, login, REPOSITORY, &random(filling)?).await?.must_be(201, "filling up")?;
    let (mut told, mut cut) = (0, String::new());
    for number in 0..tries {
        let opened = stage.open_upload(number, login, REPOSITORY).await?;
        let place = match opened.header(LOCATION.as_str()).map(path_of) {
            Some(place) => place,
            None => return Err(Trouble(format!("an upload: {}", opened.text()))),
        };
        // Half of them through another node than the one that holds the session.
        let node = number + number % 2;
        let request = stage.request(node, Method::PATCH, &place, login);
        match send(request.body(chunked(&bytes))).await {
            Ok(answer) => drop(answer.must_be(403, "a chunked body when it is full")?),
            Err(trouble) => {
                cut = trouble.0;
                told -= 1;
            }
        }
        told += 1;
        let looked = send(stage.request(number, Method::GET, &place, login)).await?;
        looked.must_be(404, "a refused session")?;
    }
    ensure(told == tries, || format!("{} of {tries} were cut off: {cut}", tries - told))?;
    Ok(format!("{told} of {tries} bodies that were refused midway got their answer"))
}

/// A delete makes room, on every node.
pub async fn frees(stage: &Stage, login: &Login, there: &[String]) -> Step<String> {
    let (repository, bytes) = ("quota/other", random(1 << 20)?);
    ensure(!there.is_empty(), || "nothing is there to delete".into())?;
    stage.push_blob(0, login, repository, &bytes).await?.must_be(403, "a push when it is full")?;
    for digest in there {
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        let gone = send(stage.request(1, Method::DELETE, &path, login)).await?;
        gone.must_be(202, "the deletion of a blob")?;
    }
    let began = Instant::now();
    while stage.usage(2, "quota").await?.unique_bytes > QUOTA / 2 {
        ensure(began.elapsed() < FREED_LIMIT, || {
            format!("{FREED_LIMIT:?} after {} deletions more than half is used", there.len())
        })?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let freed = began.elapsed();
    stage
        .push_blob(2, login, repository, &bytes)
        .await?
        .must_be(201, "a push into what is free")?;
    Ok(format!("{} blobs deleted, room after {} ms", there.len(), freed.as_millis()))
}
