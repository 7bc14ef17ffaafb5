//! Refresh tokens: what ends them, and how many there are.

use nora_domain::{
    Action, CreateAccount, CreateRefreshToken, Event, HOUR_MILLIS, Key, MemoryStore, Outcome,
    OwnerName, REFRESH_TOKENS_MAX, Record, RefreshTokenRecord, Refusal, RemoveAccount,
    RevokeRefreshTokens, Rows, SetPassword, Store, Timestamp, TokenId, recount::recount,
};

use crate::universe::{account_name, owner, row};
use crate::world::World;

fn create(token: u128, owner: OwnerName, generation: u64) -> Action {
    Action::CreateRefreshToken(CreateRefreshToken {
        token: TokenId(token),
        owner,
        generation,
        lives_millis: 5_000,
        address: "192.0.2.1".into(),
    })
}

fn revoke(owner: OwnerName, token: Option<u128>) -> Action {
    let token = token.map(TokenId);
    Action::RevokeRefreshTokens(RevokeRefreshTokens { owner, token })
}

fn account(is_robot: bool) -> Action {
    Action::CreateAccount(CreateAccount {
        account: account_name(0),
        is_robot,
        password_hash: "h".into(),
        groups: vec![],
    })
}

fn named(text: &str) -> OwnerName {
    OwnerName::parse(text).unwrap()
}

fn generation(world: &World) -> u64 {
    match row(&world.store, &Key::Account(account_name(0))) {
        Some(Record::Account(account)) => account.generation,
        other => panic!("{other:?}"),
    }
}

/// The names of an owner's refresh tokens.
fn of(store: &MemoryStore, owner: OwnerName) -> Vec<u128> {
    let Ok(rows) = store.scan(&Rows::RefreshTokensOf { owner, after: None }, usize::MAX);
    let name = |key| match key {
        Key::RefreshToken(_, token) => token.0,
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(|(key, _)| name(key)).collect()
}

#[test]
fn what_ends_a_login_ends_its_refresh_tokens() {
    let mut world = World::new();
    world.given([account(false)]);
    let first = generation(&world);
    world.given([create(9, owner(0), first), create(4, owner(0), first)]);
    assert_eq!(of(&world.store, owner(0)), [4, 9]);
    let key = Key::RefreshToken(owner(0), TokenId(4));
    let Some(Record::RefreshToken(known)) = row(&world.store, &key) else { panic!() };
    assert_eq!(known.expires_at.0 - known.created_at.0, 5_000);
    assert_eq!(known.created_at.0, 4_000, "it counts from the cluster's clock");

    // Another password.
    let password = SetPassword { account: account_name(0), password_hash: "i".into() };
    world.given([Action::SetPassword(password)]);
    assert!(of(&world.store, owner(0)).is_empty());
    let changed = Err(Refusal::AccountChanged(account_name(0)));
    world.check(create(1, owner(0), first), changed.clone());
    let second = generation(&world);
    world.check(create(1, named("robot:a0"), second), changed.clone());
    world.given([create(1, owner(0), second)]);
    // The account itself.
    world.given([Action::RemoveAccount(RemoveAccount { account: account_name(0) })]);
    assert!(of(&world.store, owner(0)).is_empty());
    // A login that the cluster does not keep, and an account that takes its name.
    world.given([create(1, owner(0), 77), create(1, named("robot:a0"), 77), account(true)]);
    assert!(of(&world.store, owner(0)).is_empty());
    assert!(of(&world.store, named("robot:a0")).is_empty());
    world.check(create(1, owner(0), generation(&world)), changed);
}

#[test]
fn the_administrators_end_with_the_password_that_they_choose() {
    let mut world = World::new();
    let admin = || named("admin");
    world.given([create(1, admin(), 77)]);
    let Action::CreateAccount(mut chosen) = account(false) else { panic!() };
    chosen.account = nora_domain::AccountName::parse("admin").unwrap();
    world.given([Action::CreateAccount(chosen.clone())]);
    assert!(of(&world.store, admin()).is_empty());
    world.check(create(1, admin(), 77), Err(Refusal::AccountChanged(chosen.account.clone())));
    let remove = Action::RemoveAccount(RemoveAccount { account: chosen.account });
    world.given([remove, create(1, admin(), 77)]);
}

#[test]
fn one_is_ended_or_all_of_an_owner() {
    let mut world = World::new();
    let (a, b) = (owner(0), owner(1));
    world.given([1, 2, 3].map(|token| create(token, a.clone(), 7)));
    world.given([create(4, b.clone(), 7)]);
    let ended = |count| Ok(Outcome::RevokeRefreshTokens(count));
    let unknown = || Err(Refusal::RefreshTokenUnknown);
    world.check(revoke(b.clone(), Some(1)), unknown());
    let at = (world.position + 1) * 1_000;
    assert_eq!(world.answer(at, revoke(a.clone(), Some(1))), ended(1));
    assert!(world.pointers.contains(&Event::IdentityChanged), "caches are to drop it");
    world.check(revoke(a.clone(), Some(1)), unknown());
    world.check(revoke(a.clone(), None), ended(2));
    world.check(revoke(a.clone(), Some(3)), unknown());
    world.check(revoke(a, None), unknown());
    assert_eq!(of(&world.store, b), [4]);
}

#[test]
fn an_owner_has_no_more_than_fit_and_the_oldest_goes() {
    let mut world = World::new();
    // Not by `World::answer`, which counts everything anew after each.
    let mut store = world.store.clone();
    let mut add = |store: &mut MemoryStore, at: u64, token: u128| {
        world.position += 1;
        let command = nora_domain::Command {
            at: Timestamp(at),
            origin: None,
            terms: nora_domain::Terms::NONE,
            action: create(token, owner(0), 7),
        };
        crate::universe::run(store, world.position, &command).events
    };
    let most = REFRESH_TOKENS_MAX as u128;
    for token in 0..most {
        // The last name is the oldest's.
        let events = add(&mut store, 1_000 + token as u64, most - token);
        assert!(events.is_empty(), "nothing that was believed has ended");
    }
    assert_eq!(of(&store, owner(0)).len(), REFRESH_TOKENS_MAX);
    let events = add(&mut store, 3_000, 0);
    let left: Vec<u128> = (0..most).collect();
    assert_eq!(of(&store, owner(0)), left, "the oldest gives way");
    assert_eq!(events, [Event::IdentityChanged], "it is over everywhere");
    assert_eq!(recount(&store), Vec::new());
    // Those that have expired go all at once, an hour later.
    add(&mut store, 8_000 + HOUR_MILLIS, 7);
    assert_eq!(of(&store, owner(0)), [7]);
}

#[test]
fn expired_ones_go_with_the_next_of_their_owner_or_of_the_one_before() {
    let mut world = World::new();
    world.given([0, 1, 2].map(|i| create(1, owner(i), 7)));
    // The last ends at 9,000.
    let soon = 9_000 + HOUR_MILLIS - 1;
    world.answer(soon, create(2, owner(1), 7)).unwrap();
    assert_eq!(of(&world.store, owner(2)), [1], "what it began may still run");
    world.answer(soon + 1, create(3, owner(1), 7)).unwrap();
    let left = [0, 1, 2].map(|i| of(&world.store, owner(i)));
    assert_eq!(left, [vec![1], vec![2, 3], vec![]]);
}

#[test]
fn rows_that_lie_are_found() {
    let mut world = World::new();
    world.given([account(false)]);
    let now = generation(&world);
    world.given([create(1, owner(0), now)]);
    let record = |generation, created_at| {
        Record::RefreshToken(RefreshTokenRecord {
            generation,
            created_at: Timestamp(created_at),
            expires_at: Timestamp(9_000),
            address: String::new(),
        })
    };
    let cases = [
        (Key::RefreshToken(owner(0), TokenId(1)), record(now + 1, 1), "its account of"),
        (Key::RefreshToken(named("robot:a0"), TokenId(3)), record(now, 1), "of another kind"),
        (Key::RefreshToken(owner(0), TokenId(1)), record(now, 1 << 40), "has time"),
    ];
    for (key, record, expected) in cases {
        let mut store = world.store.clone();
        let Ok(()) = store.put(key, record);
        let found: Vec<_> = recount(&store).iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|finding| finding.contains(expected)), "{expected}: {found:?}");
    }
    let mut store = world.store.clone();
    for token in 0..=REFRESH_TOKENS_MAX as u128 {
        let Ok(()) = store.put(Key::RefreshToken(owner(1), TokenId(token)), record(7, 1));
    }
    let found: Vec<_> = recount(&store).iter().map(ToString::to_string).collect();
    assert!(found.iter().any(|finding| finding.contains("has more than")), "{found:?}");
}
