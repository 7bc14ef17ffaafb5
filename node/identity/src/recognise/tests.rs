//! Whom credentials are of, and what is noted of those that are nobody's.

use nora_domain::{
    Action, Command, CreateAccount, CreateRefreshToken, OwnerName, SetPassword, Terms,
};

use super::*;
use crate::testkit::{MemoryNode, NOW};

#[tokio::test]
async fn what_another_node_acknowledged_is_believed_at_once() {
    let node = MemoryNode::without_policy(false).await;
    node.apply("[auth]\n").await;
    let account = AccountName::parse("alice").unwrap();
    let hash = |password| nora_auth::password::hash(password).unwrap();
    let elsewhere = |action| {
        let command = Command { at: NOW, origin: None, terms: Terms::NONE, action };
        node.metadata.propose_elsewhere(&command).unwrap();
    };
    let logs_in = async |password: &str| {
        let shown = Credential::of_login("alice".to_owned(), Secret::new(password));
        node.guard.recognise(shown, None, "request".into()).await.is_ok()
    };
    let (first, second) = ("the first password", "the second password");
    assert!(!logs_in(first).await);
    elsewhere(Action::CreateAccount(CreateAccount {
        account: account.clone(),
        is_robot: false,
        password_hash: hash(first),
        groups: Vec::new(),
    }));
    assert!(logs_in(first).await, "an account that was just made");
    let password_hash = hash(second);
    elsewhere(Action::SetPassword(SetPassword { account: account.clone(), password_hash }));
    assert!(logs_in(second).await, "a password that was just changed");
    let bob = AccountName::parse("bob").unwrap();
    let generation = node.registry.access().counters().await.unwrap().identity_epoch + 1;
    elsewhere(Action::CreateAccount(CreateAccount {
        account: bob,
        is_robot: false,
        password_hash: hash(first),
        groups: Vec::new(),
    }));
    elsewhere(Action::CreateRefreshToken(CreateRefreshToken {
        token: TokenId(0xb0b),
        owner: OwnerName::parse("user:bob").unwrap(),
        generation,
        lives_millis: 60_000,
        address: String::new(),
    }));
    let now = NOW.0 / 1_000;
    let claims = session::Claims {
        sub: "user:bob".into(),
        cred: None,
        refresh: Some("b0b".into()),
        generation,
        scopes: Vec::new(),
        aud: session::AUDIENCE.into(),
        iat: now,
        exp: now + 60,
        use_: Use::Refresh,
    };
    let key = node.guard.keys.all().last().unwrap().clone();
    let refresh = session::sign(&key, &claims).unwrap();
    let like = node.guard.administrator(None, "request".into());
    let refreshed = node.guard.refreshed(&refresh, &like).await;
    assert!(refreshed.is_ok(), "a refresh token of an account that was just made");
    let before = node.metadata.counts().linearizations;
    let bare = session::Claims { refresh: None, ..claims.clone() };
    let bare = session::sign(&key, &bare).unwrap();
    let refused = node.guard.refreshed(&bare, &like).await;
    assert!(matches!(refused, Err(Rejected::Wrong(_))), "one without a row: {refused:?}");
    let expired = session::Claims { use_: Use::Access, iat: now - 90, exp: now - 60, ..claims };
    let expired = Credential::Bearer(Secret::new(session::sign(&key, &expired).unwrap()));
    let refused = node.guard.recognise(expired, None, "request".into()).await;
    assert!(matches!(refused, Err(Rejected::Wrong(_))), "{refused:?}");
    assert_eq!(node.metadata.counts().linearizations, before, "it has expired everywhere");
    assert!(!logs_in("a guess").await);
    assert_eq!(node.metadata.counts().linearizations, before + 1, "a guess costs one look");
}

#[tokio::test]
async fn a_failed_login_names_the_account_and_nothing_else_that_was_typed() {
    let node = MemoryNode::without_policy(false).await;
    node.apply("[auth]\n").await;
    node.users(&["alice"]).await;
    let long = "x".repeat(65);
    let secret = "Tr0ub4dor-typed-as-a-name";
    for (user, expected) in [
        ("alice", "alice"),
        ("admin", "admin"),
        (secret, "no such account"),
        ("anonymous", "no valid account name"),
        ("correct horse battery", "no valid account name"),
        ("al\u{202e}ice", "no valid account name"),
        (&long, "no valid account name"),
    ] {
        let shown = Credential::of_login(user.to_owned(), Secret::new("a guess"));
        node.guard.recognise(shown, None, "request".into()).await.unwrap_err();
        node.guard.flush().await;
        let entries = node.registry.journal().entries(0, 1_000).await.unwrap().items;
        let (_, entry) = entries.last().unwrap();
        let deed = entry.deed.as_ref().unwrap();
        assert_eq!((deed.verb, deed.about.to_string().as_str()), (Verb::Login, expected));
        assert_eq!(entry.by.as_ref().unwrap().subject, Subject::Unknown);
        assert!(!format!("{entries:?}").contains(secret));
    }
    let bearer = Credential::Bearer(Secret::new("no token"));
    node.guard.recognise(bearer, None, "request".into()).await.unwrap_err();
    node.guard.flush().await;
    let entries = node.registry.journal().entries(0, 1_000).await.unwrap().items;
    assert_eq!(entries.last().unwrap().1.deed.as_ref().unwrap().about, About::Registry);
}

#[tokio::test]
async fn a_login_that_has_to_wait_names_the_account() {
    let node = MemoryNode::without_policy(false).await;
    node.apply("[auth]\n").await;
    node.users(&["alice"]).await;
    let address = Some(IpAddr::from([192, 0, 2, 7]));
    for _ in 0..6 {
        let shown = Credential::of_login("alice".to_owned(), Secret::new("a guess"));
        node.guard.recognise(shown, address, "request".into()).await.unwrap_err();
    }
    node.guard.flush().await;
    let entries = node.registry.journal().entries(0, 1_000).await.unwrap().items;
    let (_, entry) = entries.last().unwrap();
    let told = (entry.deed.as_ref().unwrap().about.to_string(), entry.verdict.to_string());
    assert_eq!(told, ("alice".to_owned(), "refused: too many failed logins".to_owned()));
}

#[tokio::test]
async fn who_hangs_up_has_guessed_all_the_same() {
    let node = MemoryNode::without_policy(false).await;
    node.apply("[auth]\n").await;
    node.users(&["alice"]).await;
    let guard = &node.guard;
    let address = IpAddr::from([192, 0, 2, 7]);
    for guess in 0..5 {
        let password = Secret::new(format!("guess {guess}"));
        let login = guard.by_password("alice", "alice", password, Some(address));
        assert!(futures_util::FutureExt::now_or_never(login).is_none());
    }
    assert_eq!(guard.turns.held(), 5, "nobody's place is free before its time");
    while guard.turns.held() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(guard.lockout.wait(address, "alice").is_some());
}

#[tokio::test]
async fn a_new_password_that_finds_no_place_is_told_to_come_again() {
    let node = MemoryNode::without_policy(false).await;
    let guard = &node.guard;
    let addresses = (0_u8..=255).map(|last| Some(IpAddr::from([192, 0, 2, last])));
    let places: Vec<_> = addresses.map_while(|address| guard.turns.join(address)).collect();
    assert!(places.len() > 100, "{} places", places.len());
    let refused = guard.hash_password(Secret::new("a new password")).await;
    assert_eq!(refused, Err(crate::Unhashed::Busy));
    drop(places);
    guard.hash_password(Secret::new("a new password")).await.unwrap();
}
