//! A tenant's pulls by the hour, asked for on all nodes at once: never more than the limit, and not much less.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use nora_cluster_tests::content::Source;

use crate::stage::{Answer, Login, NODES, PULLS, Stage, Step, Trouble, ensure};

const CLIENTS: usize = 12;
/// Twice as many as there may be.
const ASKED: usize = 2 * PULLS as usize / CLIENTS;
/// How many more than this are left over when nobody gets one: 5 %.
const SLACK: u64 = PULLS / 20;
const HOUR_SECONDS: u64 = 3_600;

fn hour() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() / HOUR_SECONDS
}

/// What a client is told that has asked too often.
fn tells_when(answer: &Answer) -> Step<()> {
    // Standard headers may tell the window behind the number, as in `300;w=3600`.
    let number = |name: &str| answer.header(name)?.split(';').next()?.parse::<u64>().ok();
    let within = number("retry-after").filter(|seconds| (1..=HOUR_SECONDS).contains(seconds));
    ensure(within.is_some(), || {
        format!("429 with Retry-After {:?}", answer.header("retry-after"))
    })?;
    let told = ["ratelimit-limit", "ratelimit-remaining"].map(number);
    ensure(told == [Some(PULLS), Some(0)] && number("ratelimit-reset").is_some(), || {
        format!("429 with rate headers {:?}", answer.headers)
    })
}

/// One client: everything it asked for, of one node.
async fn client(stage: &Stage, login: &Login, path: &str, number: usize) -> Step<u64> {
    let mut got = 0;
    for _ in 0..ASKED {
        let answer = stage.get(number % NODES, path, login).await?;
        match answer.status {
            200 => got += 1,
            429 => tells_when(&answer)?,
            status => return Err(Trouble(format!("a pull: {status}: {}", answer.text()))),
        }
    }
    Ok(got)
}

/// Twelve clients on three nodes ask for twice the limit.
pub async fn hold(stage: &Stage, login: &Login) -> Step<String> {
    let source = Source::new(1 << 16)?;
    for _ in 0..3 {
        let image = source.image();
        for (bytes, _) in [&image.config, &image.layer] {
            stage.push_blob(0, login, "limit/app", bytes).await?.must_be(201, "a blob")?;
        }
        let path = format!("/v2/limit/app/manifests/{}", image.tag);
        stage.push_manifest(0, login, &path, &image.manifest).await?.must_be(201, "an image")?;
        let begun = hour();
        let before = stage.usage(0, "limit").await?.pulls.unwrap_or_default();
        ensure(before == 0, || format!("{before} pulls are counted before any was made"))?;
        let clients = join_all((0..CLIENTS).map(|number| client(stage, login, &path, number)));
        let mut got = 0;
        for client in clients.await {
            got += client?;
        }
        if hour() != begun {
            continue;
        }
        ensure(got <= PULLS && got + SLACK >= PULLS, || format!("{got} pulls of {PULLS}"))?;
        for node in 0..NODES {
            let granted = stage.usage(node, "limit").await?.pulls.unwrap_or_default();
            ensure(granted <= PULLS && granted >= got, || {
                format!("node {} counts {granted} pulls, {got} were made", node + 1)
            })?;
        }
        return Ok(format!("{got} of {} pulls got through, the limit is {PULLS}", CLIENTS * ASKED));
    }
    Err(Trouble("the hour changed in every attempt".into()))
}
