//! The leader is killed amid logins and exchanges: sessions go on at once, new ones a moment later.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::stage::{ALICE, Login, NODES, Stage, Step, Trouble, ensure};

/// How long it may take until new sessions and exchanges work again.
const LIMIT: Duration = Duration::from_secs(5);
/// For how long attempts begin, from a second before the kill on.
const WATCH: Duration = Duration::from_secs(6);
const KILL_AFTER: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_millis(100);

/// What is tried again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A session that was made before.
    Known,
    /// A new session.
    Login,
    /// A workload token.
    Exchange,
}

struct Attempt {
    kind: Kind,
    began: Instant,
    ended: Instant,
    status: u16,
}

async fn attempt(stage: &Stage, node: usize, kind: Kind, known: &Login) -> Step<Attempt> {
    let began = Instant::now();
    let alice = Login::Basic(ALICE.0.into(), ALICE.1.into());
    let answer = match kind {
        Kind::Known => stage.get(node, "/v2/", known).await?,
        Kind::Login => {
            let path = "/v2/token?service=nora&scope=repository:free/app:pull";
            stage.get(node, path, &alice).await?
        }
        Kind::Exchange => stage.exchange(node, &stage.github(json!({}))?).await?,
    };
    if let (Kind::Login, Ok(token)) = (kind, answer.field("token")) {
        stage.keep(&token);
    }
    Ok(Attempt { kind, began, ended: Instant::now(), status: answer.status })
}

/// SIGKILL for whoever leads, while clients of the other two come every tenth of a second.
pub async fn leader_lost(stage: &Stage, load: &Login) -> Step<String> {
    let leader = stage.leader().await?;
    let others: Vec<_> = (0..NODES).filter(|node| *node != leader).collect();
    let alice = Login::Basic(ALICE.0.into(), ALICE.1.into());
    // Signed by the node that is about to die.
    let known = stage.session(leader, &alice, "repository:free/app:pull").await?;
    let began = Instant::now();
    let kill = async {
        tokio::time::sleep(KILL_AFTER).await;
        stage.cluster().kill(leader);
        Instant::now()
    };
    let mut attempts = Vec::new();
    let mut delay = Duration::ZERO;
    while delay < WATCH {
        for node in &others {
            for kind in [Kind::Known, Kind::Login, Kind::Exchange] {
                let known = &known;
                attempts.push(async move {
                    tokio::time::sleep_until((began + delay).into()).await;
                    attempt(stage, *node, kind, known).await
                });
            }
        }
        delay += PACE;
    }
    let (killed, attempts) = futures_util::future::join(kill, join_all(attempts)).await;
    {
        let mut cluster = stage.cluster();
        cluster.restart(leader)?;
        cluster.wait_ready(leader)?;
    }
    let attempts: Vec<Attempt> = attempts.into_iter().collect::<Step<_>>()?;
    let mut told = Vec::new();
    for kind in [Kind::Known, Kind::Login, Kind::Exchange] {
        let all: Vec<_> = attempts.iter().filter(|attempt| attempt.kind == kind).collect();
        // What comes is a success or "try again", never "I do not know you".
        for attempt in &all {
            let right = attempt.status == 200 || (kind != Kind::Known && attempt.status == 503);
            ensure(right, || format!("{kind:?}: {}", attempt.status))?;
        }
        let failed = all.iter().filter(|attempt| attempt.status != 200).count();
        let works = |attempt: &&&Attempt| attempt.status == 200 && attempt.began > killed;
        let first = all.iter().filter(works).map(|attempt| attempt.ended).min();
        let first = first.ok_or_else(|| Trouble(format!("{kind:?} did not work again")))?;
        let after = first.saturating_duration_since(killed);
        let longest = all.iter().map(|one| one.ended - one.began).max().unwrap_or_default();
        ensure(after < LIMIT, || format!("{kind:?} works again after {after:?}"))?;
        // Whoever came before the end of the gap and was kept waiting is counted as well.
        let late = all.iter().filter(|one| one.status == 200 && one.began >= killed + LIMIT);
        let slow = late.map(|one| one.ended - one.began).max().unwrap_or_default();
        ensure(slow < LIMIT, || format!("{kind:?} takes {slow:?} though there is a leader"))?;
        told.push(format!(
            "{kind:?} after {} ms ({failed} of {} told to come again, {} ms at most)",
            after.as_millis(),
            all.len(),
            longest.as_millis()
        ));
    }
    // The node that came back knows them too.
    stage
        .get(leader, "/v2/", &known)
        .await?
        .must_be(200, "a session on the node that came back")?;
    stage.get(leader, "/v2/", load).await?.must_be(200, "a token on the node that came back")?;
    Ok(told.join(", "))
}
