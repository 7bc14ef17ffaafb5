//! CI's tokens for tokens of ours: what works, what works once, what is refused, and what a bad issuer does.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use nora_cluster_tests::content::{Source, sha256};
use nora_cluster_tests::issuer::Fault;
use serde_json::{Map, Value, json};

use crate::stage::{AUDIENCE, Answer, Login, NODES, Stage, Step, ensure};

/// How many tokens with unknown keys come, and how many at a time.
const UNKNOWN: usize = 10_000;
const AT_ONCE: usize = 32;
/// An issuer is asked once in so long.
const COOLDOWN: Duration = Duration::from_secs(30);
/// An issuer is waited for no longer than this, with what a busy machine takes.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

async fn exchanged(stage: &Stage, node: usize, token: &str) -> Step<Login> {
    let answer = stage.exchange(node, token).await?.must_be(200, "an exchange")?;
    Ok(Login::Bearer(answer.field("access_token")?))
}

/// The status of a push of a whole image.
async fn push(stage: &Stage, node: usize, login: &Login, repository: &str) -> Step<u16> {
    let image = Source::new(1 << 16)?.image();
    for (bytes, _) in [&image.config, &image.layer] {
        let pushed = stage.push_blob(node, login, repository, bytes).await?;
        if pushed.status != 201 {
            return Ok(pushed.status);
        }
    }
    // Whoever may push makes tags, and moves none.
    let tag = sha256(&image.manifest).replace("sha256:", "t");
    let path = format!("/v2/{repository}/manifests/{tag}");
    Ok(stage.push_manifest(node, login, &path, &image.manifest).await?.status)
}

async fn may_push(stage: &Stage, node: usize, login: &Login, places: &[(&str, u16)]) -> Step<()> {
    for (repository, wanted) in places {
        let status = push(stage, node, login, repository).await?;
        ensure(status == *wanted, || {
            format!("a push to {repository} on node {}: {status} instead of {wanted}", node + 1)
        })?;
    }
    Ok(())
}

/// RS256 and ES256: exchanged on the second node, used on the third, only where the rule says.
pub async fn works(stage: &Stage) -> Step<String> {
    for algorithm in ["RS256", "ES256"] {
        let token = stage.github_signed(algorithm, &Map::new())?;
        let login = exchanged(stage, 1, &token).await?;
        let places = [("ci/app", 201), ("free/app", 403), ("cis/app", 403)];
        may_push(stage, 2, &login, &places).await?;
    }
    Ok("RS256 and ES256, exchanged on node 2, push on node 3 where the rule says".into())
}

/// A token that was exchanged is used up on every node.
pub async fn works_once(stage: &Stage) -> Step<String> {
    // Some issuers give tokens no id; what is signed tells them apart.
    for token in [stage.github(json!({}))?, stage.github_without("jti")?] {
        exchanged(stage, 1, &token).await?;
        for node in [0, 2, 1] {
            stage.exchange(node, &token).await?.must_be(401, "a token shown again")?;
        }
    }
    Ok("401 on every node when it is shown again, with and without a jti".into())
}

/// The same token shown to all nodes at once is exchanged once.
pub async fn one_of_many(stage: &Stage) -> Step<String> {
    for _ in 0..5 {
        let token = stage.github(json!({}))?;
        let token = token.as_str();
        let shown = (0..4 * NODES).map(|number| stage.exchange(number, token));
        let answers: Step<Vec<Answer>> = join_all(shown).await.into_iter().collect();
        let answers = answers?;
        let count = |status| answers.iter().filter(|answer| answer.status == status).count();
        let (won, lost) = (count(200), count(401));
        ensure((won, lost) == (1, 4 * NODES - 1), || format!("{won} exchanged, {lost} refused"))?;
    }
    Ok("of 12 at once one is exchanged, five times".into())
}

/// What a run may get whose claims speak for less.
pub async fn is_bound(stage: &Stage) -> Step<String> {
    let cases = [
        (
            "a pull request",
            json!({"event_name": "pull_request", "ref": "refs/pull/7/merge", "ref_protected": "false"}),
        ),
        ("a pull request's target", json!({"event_name": "pull_request_target"})),
        ("an unprotected branch", json!({"ref": "refs/heads/try", "ref_protected": "false"})),
        (
            "an unprotected tag",
            json!({"ref": "refs/tags/v1", "ref_type": "tag", "ref_protected": "false"}),
        ),
    ];
    let whole = exchanged(stage, 0, &stage.github(json!({}))?).await?;
    may_push(stage, 0, &whole, &[("ci/shown", 201)]).await?;
    for (what, claims) in cases {
        let answer = stage.exchange(0, &stage.github(claims)?).await?.must_be(200, what)?;
        let login = Login::Bearer(answer.field("access_token")?);
        may_push(stage, 2, &login, &[("ci/app", 403), ("ci/shown", 403)]).await?;
        let listed = stage.get(1, "/v2/ci/shown/tags/list", &login).await?;
        listed.must_be(200, &format!("{what} reads"))?;
    }
    for (what, claims) in [
        ("another owner's repository", json!({"repository": "my-org-evil/app"})),
        ("a name that was taken over", json!({"repository_owner_id": "6666"})),
    ] {
        let refused = stage.exchange(1, &stage.github(claims)?).await?;
        refused.must_be(403, what)?;
    }
    Ok("pull requests and unprotected refs read only; other owners get nothing".into())
}

/// Tokens that are not believed.
pub async fn refuses(stage: &Stage) -> Step<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let mut no_key = Map::new();
    no_key.insert("kid".into(), Value::Null);
    let valid = stage.github(json!({}))?;
    let cut = valid.get(..valid.len() - 4).unwrap_or_default().to_owned();
    let tokens = vec![
        ("another audience", stage.github(json!({"aud": "https://else.example.com"}))?),
        (
            "several audiences",
            stage.github(json!({"aud": [AUDIENCE, "https://else.example.com"]}))?,
        ),
        (
            "an issuer with a slash",
            stage.github(json!({"iss": format!("{}/", stage.issuers.github.url())}))?,
        ),
        ("an issuer nobody knows", stage.github(json!({"iss": "https://else.example.com"}))?),
        (
            "an expired one",
            stage.github(json!({"iat": now - 7_200, "nbf": now - 7_200, "exp": now - 3_600}))?,
        ),
        (
            "one of tomorrow",
            stage.github(json!({"iat": now + 86_400, "nbf": now + 86_400, "exp": now + 90_000}))?,
        ),
        ("one without an end", stage.github_without("exp")?),
        ("HS256 with the public key", stage.github_signed("HS256", &Map::new())?),
        ("HS256 and no key id", stage.github_signed("HS256", &no_key)?),
        ("no signature", stage.github_signed("none", &Map::new())?),
        ("an algorithm that is not listed", stage.github_signed("PS256", &Map::new())?),
        ("half a signature", cut),
        ("no token", "abc.def.ghi".to_owned()),
    ];
    let asked = tokens.len();
    for (number, (what, token)) in tokens.into_iter().enumerate() {
        let answer = stage.exchange(number, &token).await?;
        answer.must_be(401, what)?;
    }
    Ok(format!("401 for {asked} forgeries and strangers"))
}

/// Ten thousand tokens with keys that nobody knows: the issuer is asked once in half a minute, and who is honest gets
/// through.
pub async fn unknown_keys(stage: &Stage) -> Step<String> {
    let issuer = &stage.issuers.fresh;
    let mut tokens = Vec::new();
    for number in 0..UNKNOWN {
        let mut header = Map::new();
        header.insert("kid".into(), format!("unknown-{number}").into());
        tokens.push(issuer.mint_with("ES256", &claims(), &header)?);
    }
    let before = issuer.fetches();
    ensure((before.keys(), before.discovery()) == (0, 0), || format!("it was asked: {before:?}"))?;
    let began = Instant::now();
    let flood = stream::iter(&tokens)
        .map(|token| stage.exchange(0, token))
        .buffer_unordered(AT_ONCE)
        .map(|answer| answer.map(|answer| answer.status))
        .collect::<Vec<_>>();
    let honest = async {
        let mut longest = Duration::ZERO;
        for _ in 0..5 {
            let token = issuer.mint(&claims())?;
            let asked = Instant::now();
            exchanged(stage, 0, &token).await?;
            longest = longest.max(asked.elapsed());
        }
        Step::Ok(longest)
    };
    let (statuses, longest) = futures_util::future::join(flood, honest).await;
    let (longest, took) = (longest?, began.elapsed());
    for status in statuses {
        let status = status?;
        ensure(status == 401, || format!("a token with an unknown key: {status}"))?;
    }
    let after = issuer.fetches();
    let most = 1 + took.as_secs() / COOLDOWN.as_secs();
    let asked = [after.keys(), after.discovery()];
    ensure(asked.iter().all(|count| (1..=most).contains(count)), || {
        format!("asked too often in {took:?}: {after:?}")
    })?;
    Ok(format!(
        "{UNKNOWN} in {:.1} s made {} fetches; an honest exchange meanwhile took {} ms at most",
        took.as_secs_f64(),
        asked[0],
        longest.as_millis()
    ))
}

/// Issuers that are down, slow, empty or lying: an answer in time, nothing believed, and the others go on.
pub async fn bad_issuers(stage: &Stage) -> Step<String> {
    let mut told = Vec::new();
    for (name, issuer) in &stage.issuers.faulty {
        let token = issuer.mint_with("RS256", &claims(), &Map::new())?;
        let asked = Instant::now();
        let answer = stage.exchange(0, &token).await?;
        let took = asked.elapsed();
        ensure(took < ANSWER_LIMIT, || format!("{name}: an answer after {took:?}"))?;
        let silent = matches!(*name, "down" | "slow" | "unavailable" | "liar");
        let is_503 = answer.status == 503 && answer.header("retry-after").is_some();
        ensure(is_503 || (!silent && answer.status == 401), || {
            format!("{name}: {} {}", answer.status, answer.text())
        })?;
        told.push(format!("{name} {} in {} ms", answer.status, took.as_millis()));
        // Who comes next waits for nothing.
        let again = Instant::now();
        let token = issuer.mint_with("RS256", &claims(), &Map::new())?;
        let answer = stage.exchange(0, &token).await?;
        let took = again.elapsed();
        ensure(matches!(answer.status, 401 | 503) && took < Duration::from_secs(1), || {
            format!("{name} again: {} after {took:?}", answer.status)
        })?;
    }
    exchanged(stage, 0, &stage.github(json!({}))?).await?;
    Ok(told.join(", "))
}

fn claims() -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("aud".into(), AUDIENCE.into());
    claims
}

/// Known keys are enough when their issuer is gone.
pub async fn issuer_gone(stage: &Stage) -> Step<String> {
    for node in 0..NODES {
        exchanged(stage, node, &stage.github(json!({}))?).await?;
    }
    stage.issuers.github.set_fault(Fault::Down)?;
    let mut outcome = Ok(());
    for node in 0..NODES {
        let token = stage.github(json!({}))?;
        outcome = outcome.and(exchanged(stage, node, &token).await.map(drop));
    }
    stage.issuers.github.set_fault(Fault::None)?;
    outcome?;
    let asked = issuer_that_forgot(stage).await;
    stage.issuers.fresh.set_fault(Fault::None)?;
    let asked = asked?;
    Ok(format!(
        "exchanges go on with the keys that are known, on all nodes; and after an answer without keys ({asked} asked)"
    ))
}

/// An answer that is no key set takes no key away.
async fn issuer_that_forgot(stage: &Stage) -> Step<usize> {
    let issuer = &stage.issuers.fresh;
    exchanged(stage, 0, &issuer.mint(&claims())?).await?;
    issuer.set_fault(Fault::EmptyKeys)?;
    let before = issuer.fetches().keys();
    let mut header = Map::new();
    header.insert("kid".into(), "never-heard-of".into());
    let mut asked = 0;
    while issuer.fetches().keys() == before {
        ensure(asked < 120, || "it was never asked again".into())?;
        asked += 1;
        let answer = stage.exchange(0, &issuer.mint_with("ES256", &claims(), &header)?).await?;
        ensure(answer.status == 401, || format!("an unknown key: {}", answer.status))?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    exchanged(stage, 0, &issuer.mint(&claims())?).await?;
    Ok(asked)
}
