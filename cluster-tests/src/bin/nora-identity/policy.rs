//! A policy comes whole or not at all, to every node. No race moves a tag that must not move. A blob that was deleted from one
//! repository is gone there on every node, and other repositories keep it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nora_cluster_tests::content::{Source, sha256};
use serde_json::{Value, json};

use crate::stage::{ALICE, ALICE_HASH, Login, NODES, Stage, Step, Trouble, ensure};

/// How long a policy may take to be in force everywhere.
const LIMIT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
const RACERS: usize = 20;

/// The policy in force, with the hash that is left out where it is shown.
async fn document(stage: &Stage) -> Step<(u64, Value)> {
    let shown = stage.admins[0].policy().await?;
    let mut document = shown.document;
    document["auth"]["htpasswd"][ALICE.0] = ALICE_HASH.into();
    Ok((shown.epoch, document))
}

async fn epochs(stage: &Stage) -> Step<Vec<(u64, String)>> {
    let mut all = Vec::new();
    for admin in &stage.admins {
        let shown = admin.policy().await?;
        all.push((shown.epoch, shown.hash));
    }
    Ok(all)
}

/// Mistakes in a document that is otherwise good: refused with their places, and nothing changes anywhere.
pub async fn refused_whole(stage: &Stage) -> Step<String> {
    let (_, good) = document(stage).await?;
    let before = epochs(stage).await?;
    ensure(before.iter().all(|one| *one == before[0] && one.0 > 0), || format!("{before:?}"))?;
    let with = |place: &str, value: Value| {
        let mut document = good.clone();
        // What would be seen if a part of it came into force.
        document["auth"]["rules"][1]["permissions"] = json!(["pull,push:free/*"]);
        match document.pointer_mut(place) {
            Some(at) => *at = value,
            None => document[place] = value,
        }
        document.to_string()
    };
    let cases = [
        ("auth.rules[0].permissions", with("/auth/rules/0/permissions", json!(["fly:free/*"]))),
        ("auth.rules[0].subject", with("/auth/rules/0/subject", json!("wizard:alice"))),
        ("tenants", with("/tenants/0/namespaces", json!({"oci": ["limit/*"]}))),
        ("immutable", with("/immutable/0/match", json!("a/**/[b"))),
        ("auth.oidc.providers", with("/auth/oidc/providers/0/algorithms", json!(["HS256"]))),
        ("unknown", with("unknown", json!(1))),
    ];
    let tried = cases.len();
    for (place, document) in cases {
        let told = match stage.admins[1].apply_policy(&document, None).await {
            Ok(change) => return Err(Trouble(format!("{place} was taken: {change:?}"))),
            Err(error) => error.to_string(),
        };
        ensure(told.contains(place), || format!("{place} is not named in {told:?}"))?;
        let after = epochs(stage).await?;
        ensure(after == before, || format!("{place}: {before:?} became {after:?}"))?;
    }
    Ok(format!("{tried} mistakes, each named with its place; the policy stays on every node"))
}

/// A new permission works on all nodes a moment later; and is gone a moment after it was taken away.
pub async fn in_force(stage: &Stage, reader: &Login) -> Step<String> {
    let (epoch, good) = document(stage).await?;
    let rules = good["auth"]["rules"].as_array().into_iter().flatten();
    let at = rules.clone().position(|rule| rule["subject"] == "robot:reader");
    let at = at.ok_or_else(|| Trouble(format!("no rule for the reader in {good}")))?;
    let mut more = good.clone();
    more["auth"]["rules"][at]["permissions"] = json!(["pull,push:free/*"]);
    let mut longest = Duration::ZERO;
    for (document, wanted, expected) in [(more, 202, epoch), (good, 403, epoch + 1)] {
        let since = Instant::now();
        stage.admins[2].apply_policy(&document.to_string(), Some(expected)).await?;
        let asked = (0..NODES).map(|node| async move {
            loop {
                let answer = stage.open_upload(node, reader, "free/app").await?;
                if answer.status == wanted {
                    return Ok(since.elapsed());
                }
                let right = matches!(answer.status, 202 | 403) && since.elapsed() < PATIENCE;
                ensure(right, || format!("node {}: {}", node + 1, answer.text()))?;
            }
        });
        for took in join_all(asked).await {
            let took: Step<Duration> = took;
            longest = longest.max(took?);
        }
    }
    ensure(longest <= LIMIT, || format!("the last node judged by it after {longest:?}"))?;
    let stale = stage.admins[0].apply_policy("{}", Some(epoch)).await;
    ensure(stale.is_err(), || "a policy over one that was not looked at was taken".into())?;
    Ok(format!("in force on all nodes after {} ms", longest.as_millis()))
}

/// Twenty images race for one tag on three nodes, some of them by who may overwrite.
pub async fn immutable(stage: &Stage, login: &Login) -> Step<String> {
    let source = Source::new(1 << 16)?;
    let image = source.image();
    for (bytes, _) in [&image.config, &image.layer] {
        stage.push_blob(0, login, "locked/app", bytes).await?.must_be(201, "a blob")?;
    }
    let manifests: Vec<_> = (0..RACERS as u64).map(|number| image.variant(number)).collect();
    for round in 0..3 {
        let path = format!("/v2/locked/app/manifests/v{round}");
        let pushes = manifests.iter().enumerate().map(|(number, manifest)| {
            let path = path.as_str();
            async move { stage.push_manifest(number, login, path, manifest).await }
        });
        let watch = async {
            let mut seen = std::collections::BTreeSet::new();
            for number in 0..60 {
                let answer = stage.get(number, &path, login).await?;
                match answer.status {
                    200 => drop(seen.insert(sha256(&answer.body))),
                    404 if seen.is_empty() => {}
                    status => return Err(Trouble(format!("the tag is {status} after {seen:?}"))),
                }
            }
            Ok(seen)
        };
        let (answers, seen) = futures_util::future::join(join_all(pushes), watch).await;
        let mut seen = seen?;
        let mut won = Vec::new();
        for (manifest, answer) in manifests.iter().zip(answers) {
            let answer = answer?;
            match answer.status {
                201 => won.push(sha256(manifest)),
                403 => {}
                status => return Err(Trouble(format!("a racer got {status}: {}", answer.text()))),
            }
        }
        ensure(won.len() == 1, || format!("{} won: {won:?}", won.len()))?;
        for node in 0..NODES {
            let answer = stage.get(node, &path, login).await?.must_be(200, "the tag")?;
            seen.insert(sha256(&answer.body));
            let again = manifests.iter().find(|manifest| sha256(manifest) != won[0]);
            let again = again.map(Vec::as_slice).unwrap_or_default();
            stage.push_manifest(node, login, &path, again).await?.must_be(403, "a late racer")?;
            let gone = stage.request(node, reqwest::Method::DELETE, &path, login);
            crate::stage::send(gone).await?.must_be(403, "the deletion of the tag")?;
        }
        ensure(seen.iter().eq(won.iter()), || format!("{won:?} won, and {seen:?} was seen"))?;
    }
    Ok(format!("one of {RACERS} won, three times, and the tag never moved"))
}

/// A blob that two repositories have, deleted from one of them: no node gives it out there, and every node does in the
/// other one, although all nodes have read it before.
pub async fn deleted_blobs(stage: &Stage, login: &Login) -> Step<String> {
    const ROUNDS: usize = 30;
    for round in 0..ROUNDS {
        let bytes = crate::stage::random(20_000)?;
        let digest = sha256(&bytes);
        for repository in ["free/kept", "free/deleted"] {
            stage.push_blob(round, login, repository, &bytes).await?.must_be(201, "a blob")?;
        }
        let (kept, deleted) =
            (format!("/v2/free/kept/blobs/{digest}"), format!("/v2/free/deleted/blobs/{digest}"));
        for node in 0..NODES {
            for path in [&kept, &deleted] {
                stage.get(node, path, login).await?.must_be(200, "a blob that is there")?;
            }
        }
        let gone = stage.request(round + 1, reqwest::Method::DELETE, &deleted, login);
        crate::stage::send(gone).await?.must_be(202, "the deletion of a blob")?;
        for node in 0..NODES {
            stage.get(node, &deleted, login).await?.must_be(404, "a blob that was deleted")?;
            let answer = stage.get(node, &kept, login).await?.must_be(200, "the other one's")?;
            ensure(answer.body == bytes, || format!("node {node} gives other bytes"))?;
        }
    }
    Ok(format!(
        "{ROUNDS} blobs deleted on one node are gone on {NODES}, and the other repository's are not"
    ))
}
