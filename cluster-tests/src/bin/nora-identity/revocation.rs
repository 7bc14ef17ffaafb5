//! What was taken away is refused on every node within a second: tokens, their sessions, refresh tokens, users, passwords.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nora_client::Secret;

use crate::stage::{Login, NODES, Stage, Step, Trouble, ensure};

/// How long a node may go on believing.
const LIMIT: Duration = Duration::from_secs(1);
/// When to stop asking.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether all nodes believe these.
async fn all_believe(stage: &Stage, logins: &[(&str, &Login)]) -> Step<()> {
    for node in 0..NODES {
        for (what, login) in logins {
            let answer = stage.get(node, "/v2/", login).await?;
            answer.must_be(200, &format!("{what} on node {}", node + 1))?;
        }
    }
    Ok(())
}

/// Asks a node until it refuses a login; how long after `since` that was.
async fn refused(stage: &Stage, node: usize, login: &Login, since: Instant) -> Step<Duration> {
    loop {
        let answer = stage.get(node, "/v2/", login).await?;
        match answer.status {
            401 => return Ok(since.elapsed()),
            200 if since.elapsed() < PATIENCE => {}
            200 => return Err(Trouble(format!("node {} believes after {PATIENCE:?}", node + 1))),
            status => return Err(Trouble(format!("node {}: {status}", node + 1))),
        }
    }
}

/// Waits until all nodes refuse all of these; the longest that took.
async fn all_refuse(stage: &Stage, logins: &[(&str, &Login)], since: Instant) -> Step<Duration> {
    let asked = logins
        .iter()
        .flat_map(|(_, login)| (0..NODES).map(move |node| refused(stage, node, login, since)));
    let mut longest = Duration::ZERO;
    for took in join_all(asked).await {
        longest = longest.max(took?);
    }
    ensure(longest <= LIMIT, || format!("the last node refused after {longest:?}"))?;
    // And it stays so.
    for (what, login) in logins {
        for node in 0..NODES {
            let answer = stage.get(node, "/v2/", login).await?;
            answer.must_be(401, &format!("{what}, revoked, on node {}", node + 1))?;
        }
    }
    Ok(longest)
}

async fn refresh(stage: &Stage, node: usize, token: &str) -> Step<u16> {
    let form = format!("grant_type=refresh_token&service=nora&refresh_token={token}");
    Ok(stage.post_form(node, "/v2/token", form).await?.status)
}

/// A token and the Docker session that was got with it.
pub async fn of_a_token(stage: &Stage) -> Step<String> {
    let token = stage.token("robot:load", "to-be-revoked").await?;
    let session = stage.session(1, &token, "repository:free/app:pull").await?;
    let logins = [("a token", &token), ("its session", &session)];
    all_believe(stage, &logins).await?;
    let since = Instant::now();
    stage.admins[0].revoke_token("robot:load/to-be-revoked").await?;
    let answered = since.elapsed();
    let longest = all_refuse(stage, &logins, since).await?;
    let (answered, longest) = (answered.as_millis(), longest.as_millis());
    Ok(format!(
        "refused on all nodes {longest} ms after it was asked for (answered in {answered} ms)"
    ))
}

/// Refresh tokens, ended by the administrator and by whoever shows one, and the sessions that were got with them.
pub async fn of_a_session(stage: &Stage) -> Step<String> {
    let (name, password) = ("frank", "a long word: frank's 7");
    stage.add_account(name, &["people"], Some(password)).await?;
    let login = Login::Basic(name.into(), password.into());
    let mut longest = Duration::ZERO;
    for is_shown in [false, true] {
        let (ended, refresh_token) = stage.kept_session(0, &login).await?;
        let listed = stage.admins[1].sessions(Some("user:frank")).await?;
        let (other, others) = stage.kept_session(1, &login).await?;
        all_believe(stage, &[("a session", &ended), ("another", &other)]).await?;
        for node in 0..NODES {
            // On another node than it was given on, and at once.
            ensure(refresh(stage, node, &others).await? == 200, || "no refresh".into())?;
        }
        let since = Instant::now();
        if is_shown {
            let form = format!("token={refresh_token}");
            let answer = stage.post_form(2, "/auth/oidc/revoke", form).await?;
            answer.must_be(200, "to end a refresh token")?;
        } else {
            let [session] = listed.as_slice() else {
                return Err(Trouble(format!("{} sessions are listed", listed.len())));
            };
            stage.admins[2].revoke_sessions(&session.id).await?;
        }
        let session = [("a session", &ended)];
        longest = longest.max(all_refuse(stage, &session, since).await?);
        for node in 0..NODES {
            let status = refresh(stage, node, &refresh_token).await?;
            ensure(status == 401, || format!("a refresh gets {status} on node {}", node + 1))?;
            let status = refresh(stage, node, &others).await?;
            ensure(status == 200, || format!("another gets {status} on node {}", node + 1))?;
        }
        all_believe(stage, &[("a password", &login), ("another session", &other)]).await?;
        stage.admins[0].revoke_sessions("user:frank").await?;
    }
    Ok(format!("refused on all nodes after {} ms", longest.as_millis()))
}

/// A user's password, session and token.
pub async fn of_a_user(stage: &Stage) -> Step<String> {
    let (name, password) = ("carol", "a long word: carol's 7");
    stage.add_account(name, &["people"], Some(password)).await?;
    let login = Login::Basic(name.into(), password.into());
    let session = stage.session(2, &login, "repository:free/app:pull").await?;
    let token = stage.token("user:carol", "laptop").await?;
    let logins = [("a password", &login), ("its session", &session), ("a token", &token)];
    all_believe(stage, &logins).await?;
    let since = Instant::now();
    stage.admins[0].remove_user(name).await?;
    let longest = all_refuse(stage, &logins, since).await?;
    Ok(format!("refused on all nodes after {} ms", longest.as_millis()))
}

/// Another password ends the sessions of the one before, and not the user's tokens.
pub async fn by_password(stage: &Stage) -> Step<String> {
    let (name, password, another) = ("dave", "a long word: dave's 7", "a longer word: dave's 8");
    stage.keep(another);
    stage.add_account(name, &["people"], Some(password)).await?;
    let login = Login::Basic(name.into(), password.into());
    let (session, refresh_token) = stage.kept_session(0, &login).await?;
    let token = stage.token("user:dave", "laptop").await?;
    all_believe(stage, &[("a password", &login), ("its session", &session)]).await?;
    let since = Instant::now();
    stage.admins[0].set_password(name, &Secret::new(another)).await?;
    let gone = [("a password", &login), ("its session", &session)];
    let longest = all_refuse(stage, &gone, since).await?;
    for node in 0..NODES {
        let status = refresh(stage, node, &refresh_token).await?;
        ensure(status == 401, || format!("a refresh gets {status} on node {}", node + 1))?;
    }
    let now = Login::Basic(name.into(), another.into());
    all_believe(stage, &[("the new password", &now), ("a token", &token)]).await?;
    Ok(format!("refused on all nodes after {} ms", longest.as_millis()))
}
