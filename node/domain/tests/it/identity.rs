//! Accounts, tokens, quotas, terms and the journal, one question at a time.

use nora_domain::{
    AccessTokenRecord, AccountRemoved, Action, Actor, ArtifactStored, Body, BudgetLeased,
    BudgetRecord, CommitBlob, CreateAccessToken, CreateAccount, Entry, ExpireUploads, HOUR_MILLIS,
    Key, LeaseBudget, LimitsRecord, MemoryStore, OpenUpload, Outcome, OwnerName, PutArtifact,
    Quota, Rate, Reason, Record, Refusal, RemoveAccount, RevokeAccessToken, SetPolicy,
    ShrinkReservation, Store, Subject, Terms, Timestamp, TokenId, TokenName, TouchAccessTokens,
    UploadId, UsageRecord, Verb, Verdict, recount::recount,
};

use crate::universe::{account_name, digest, found, media_type, repository, row, tag};
use crate::world::{NODE, World, artifact, close, commit, delete, gone, unlink};

/// With policies, and tenant `acme` limited to so much.
fn limited(storage: u64, artifacts: u64) -> World {
    let mut world = World::new();
    world.given([found(), policy(storage, artifacts)]);
    world
}

fn policy(storage: u64, artifacts: u64) -> Action {
    let limits = LimitsRecord {
        storage_quota: Some(storage),
        artifact_quota: Some(artifacts),
        push_limit: Some(10),
        pull_limit: None,
        anonymous_pull_limit: None,
        caller_pull_limit: None,
    };
    Action::SetPolicy(SetPolicy {
        expected: None,
        document: Vec::new(),
        hash: [0; 32],
        tenants: vec![(repository(0).tenant, limits)],
    })
}

fn put(repo: u8, i: u8, tags: &[&str]) -> Action {
    Action::PutArtifact(PutArtifact {
        repository: repository(repo),
        digest: digest(i),
        media_type: media_type("a/b"),
        size: 1,
        body: Body::Inline(vec![i].into()),
        subject: None,
        artifact_type: None,
        annotations: Default::default(),
        blobs: vec![],
        children: vec![],
        tags: tags.iter().map(|name| tag(name)).collect(),
    })
}

fn user(name: &str) -> Subject {
    Subject::User(name.into())
}

fn by(name: &str) -> Terms {
    Terms { by: Some(Actor::named(user(name))), ..Terms::NONE }
}

fn used(world: &World) -> (u64, u64) {
    world.usage(0).map_or((0, 0), |usage| (usage.unique_bytes, usage.reserved_bytes))
}

fn over(quota: Quota, limit: u64, used: u64, asked: u64) -> Result<Outcome, Refusal> {
    Err(Refusal::QuotaExceeded { quota, limit, used, asked })
}

fn open(upload: u128, reserve: u64) -> Action {
    Action::OpenUpload(OpenUpload {
        upload: UploadId(upload),
        repository: repository(0),
        node: NODE,
        lives_millis: 90_000,
        reserve,
    })
}

#[test]
fn a_blob_counts_once_in_a_tenant() {
    let mut world = limited(250, 9);
    world.given([commit(0, 1), commit(1, 1), commit(0, 3)]);
    assert_eq!(used(&world), (200, 0));
    assert_eq!(world.usage(0).unwrap().bytes, 300);
    world.check(commit(0, 4), over(Quota::Storage, 250, 200, 100));
    // Another tenant's room is another's.
    world.given([commit(2, 4)]);
    world.given([unlink(0, 1)]);
    assert_eq!(used(&world), (200, 0), "the other repository still shows it");
    world.given([unlink(1, 1)]);
    assert_eq!(used(&world), (100, 0));
    world.given([commit(0, 4)]);
}

#[test]
fn room_set_aside_is_nobody_elses() {
    let mut world = limited(250, 9);
    world.given([open(7, 200)]);
    assert_eq!(used(&world), (0, 200));
    world.check(open(8, 51), over(Quota::Storage, 250, 200, 51));
    world.given([open(8, 50), open(7, 100)]);
    assert_eq!(used(&world), (0, 250), "nothing is given back while the upload runs");
    // Whoever ended early gives back what it did not take; nothing is ever set aside by giving back.
    let shrink = |upload, bytes, lease| {
        Action::ShrinkReservation(ShrinkReservation {
            tenant: repository(0).tenant,
            upload: UploadId(upload),
            bytes,
            lease: Timestamp(lease),
        })
    };
    let keep = |upload, bytes| shrink(upload, bytes, 200_000);
    // Session 8 was opened at 6,000 and is kept until 96,000.
    let stale = shrink(8, 0, 95_999);
    world.given([open(6, 0), keep(6, 90), keep(99, 90), keep(8, 70), stale]);
    assert_eq!(used(&world), (0, 250), "somebody goes on with it");
    world.given([keep(8, 20)]);
    assert_eq!(used(&world), (0, 220));
    world.given([open(8, 50)]);
    world.check(commit(0, 1), over(Quota::Storage, 250, 250, 100));
    // Whoever set it aside uses it; the rest of it is free then.
    let mut mine = commit(0, 1);
    if let Action::CommitBlob(CommitBlob { upload, .. }) = &mut mine {
        *upload = UploadId(7);
    }
    world.given([mine]);
    assert_eq!(used(&world), (100, 50));
    world.given([close(8, 2), close(8, 1)]);
    assert_eq!(used(&world), (100, 0));
    world.given([open(9, 150)]);
    let expire = Action::ExpireUploads(ExpireUploads {
        tenant: repository(0).tenant,
        uploads: vec![UploadId(9)],
    });
    let expired = world.answer(200_000, expire);
    assert_eq!((expired, used(&world)), (Ok(Outcome::ExpireUploads(())), (100, 0)));
}

#[test]
fn artifacts_and_their_own_bytes_are_limited() {
    let mut world = limited(2, 2);
    world.given([put(0, 6, &["a"]), put(1, 7, &["b"])]);
    world.check(put(0, 8, &["c"]), over(Quota::Storage, 2, 2, 1));
    world.given([policy(9, 2)]);
    world.check(put(0, 8, &["c"]), over(Quota::Artifacts, 2, 2, 1));
    assert!(world.tag(0, "c").is_none(), "a refused push moved a tag");
    // What is there may be pushed again, and a quota that was lowered takes nothing away.
    world.given([policy(1, 1), put(0, 6, &["d"]), delete(1, 7), delete(0, 6), put(0, 8, &["c"])]);
}

#[test]
fn terms_decide_between_racing_pushes() {
    let mut world = limited(900, 9);
    let create_only = || Terms { policy: Some(1), create_only: vec![tag("v1")], ..by("alice") };
    // Both saw no tag; the log makes one of them first.
    let first = world.told(create_only(), put(0, 6, &["v1"]));
    let second = world.told(create_only(), put(0, 7, &["v1"]));
    assert_eq!(first.answer, Ok(Outcome::PutArtifact(ArtifactStored { created: true })));
    assert_eq!(second.answer, Err(Refusal::TagExists(tag("v1"))));
    assert_eq!(world.tag(0, "v1").unwrap().target, artifact(6));
    assert!(
        !world.has(&Key::Artifact(repository(0), digest(7))),
        "half of a refused push is there"
    );
    let again = world.told(create_only(), put(0, 6, &["v1"]));
    assert_eq!(again.answer, Ok(Outcome::PutArtifact(ArtifactStored { created: false })));
    let immutable = Terms { immutable: vec![tag("v1")], create_only: vec![], ..create_only() };
    let moved = world.told(immutable, put(0, 7, &["v1"]));
    assert_eq!(moved.answer, Err(Refusal::TagImmutable(tag("v1"))));
    // A policy that came in between.
    world.given([policy(900, 9)]);
    let late = world.told(create_only(), put(0, 7, &["v2"]));
    assert_eq!(late.answer, Err(Refusal::PolicyChanged { epoch: 2 }));
    // Something that came to the repository in between.
    let judged_by = |revision| Terms { policy: Some(2), revision: Some(revision), ..Terms::NONE };
    let revision = |world: &World| match row(&world.store, &Key::Repository(repository(0))) {
        Some(Record::Repository(known)) => known.revision,
        other => panic!("{other:?}"),
    };
    let before = revision(&world);
    world.given([put(0, 7, &["v2"])]);
    let late = world.told(judged_by(before), delete(0, 6));
    assert_eq!(late.answer, Err(Refusal::RepositoryChanged));
    let now = revision(&world);
    let deleted = world.told(judged_by(now), delete(0, 6));
    assert_eq!(deleted.answer, gone(&["v1"]));
}

fn token(i: u128, name: &str, assertion: Option<[u8; 32]>) -> Action {
    let owner = "user:a0".to_owned();
    Action::CreateAccessToken(CreateAccessToken {
        token: TokenId(i),
        found_by: Some((OwnerName::parse(&owner).unwrap(), TokenName::parse(name).unwrap())),
        account: Some(account_name(0)),
        record: AccessTokenRecord {
            is_workload: false,
            owner,
            name: name.into(),
            secret_hash: [1; 32],
            permissions: vec![],
            claims: Vec::new(),
            created_at: Timestamp(5),
            expires_at: Timestamp(5_005),
            last_used_at: Timestamp(0),
        },
        assertion: assertion.map(|hash| (hash, Timestamp(1 << 40))),
    })
}

#[test]
fn tokens_go_with_their_account_and_times_are_the_clusters() {
    let mut world = limited(9, 9);
    world.check(token(1, "t", None), Err(Refusal::AccountUnknown(account_name(0))));
    let create = || {
        Action::CreateAccount(CreateAccount {
            account: account_name(0),
            is_robot: false,
            password_hash: "h".into(),
            groups: vec![],
        })
    };
    world.given([create(), token(1, "t", None), token(2, "u", None)]);
    world.check(token(3, "t", None), Err(Refusal::AccessTokenExists));
    world.check(token(1, "v", None), Err(Refusal::AccessTokenExists));
    let Some(Record::AccessToken(known)) = row(&world.store, &Key::AccessToken(TokenId(1))) else {
        panic!()
    };
    assert_eq!(known.expires_at.0 - known.created_at.0, 5_000);
    assert!(known.created_at.0 > 1_000, "it counts from the cluster's clock");
    let touched = Action::TouchAccessTokens(TouchAccessTokens {
        uses: vec![(TokenId(1), Timestamp(1 << 50))],
    });
    world.given([touched, Action::RevokeAccessToken(RevokeAccessToken { token: TokenId(2) })]);
    world.check(
        Action::RemoveAccount(RemoveAccount { account: account_name(0) }),
        Ok(Outcome::RemoveAccount(AccountRemoved { tokens: 1 })),
    );
    world.given([create()]);
    assert!(!world.has(&Key::AccessToken(TokenId(1))), "a later namesake came into a token");
    // An issuer's token is taken once.
    world.given([token(7, "w", Some([9; 32]))]);
    world.check(token(8, "x", Some([9; 32])), Err(Refusal::AssertionUsed));
    // One that is over by the cluster's clock may be forgotten already.
    let Action::CreateAccessToken(CreateAccessToken {
        token: id, found_by, account, record, ..
    }) = token(9, "y", None)
    else {
        panic!()
    };
    let assertion = Some(([8; 32], Timestamp(0)));
    let over = Action::CreateAccessToken(CreateAccessToken {
        token: id,
        found_by,
        account,
        record,
        assertion,
    });
    world.check(over, Err(Refusal::AssertionOver));
}

#[test]
fn an_hour_grants_no_more_than_its_limit() {
    let mut world = limited(9, 9);
    let lease = |hour, take, give_back| {
        Action::LeaseBudget(LeaseBudget {
            tenant: repository(0).tenant,
            rate: Rate::Push,
            hour,
            take,
            give_back,
        })
    };
    let granted = |granted, hour, all| {
        Ok(Outcome::LeaseBudget(BudgetLeased {
            granted,
            budget: BudgetRecord { hour, granted: all },
        }))
    };
    world.check(lease(0, 6, 0), granted(6, 0, 6));
    world.check(lease(0, 6, 0), granted(4, 0, 10));
    world.check(lease(0, 6, 0), granted(0, 0, 10));
    world.check(lease(0, 0, 3), granted(0, 0, 7));
    world.check(lease(0, 6, 0), granted(3, 0, 10));
    // A node whose clock is a day ahead opens no other hour, and gives back nothing of this one.
    world.check(lease(24, 6, 6), granted(0, 0, 10));
    let at = 3_600_000;
    assert_eq!(world.answer(at, lease(0, 6, 6)), granted(6, 1, 6), "the next hour begins anew");
    assert_eq!(world.answer(at, lease(1, 6, 0)), granted(4, 1, 10));
    let unlimited = Action::LeaseBudget(LeaseBudget {
        tenant: repository(0).tenant,
        rate: Rate::Pull,
        hour: 6,
        take: 1,
        give_back: 0,
    });
    world.check(unlimited, Err(Refusal::NotLimited));
}

#[test]
fn who_did_what_is_written_with_the_change() {
    let mut world = limited(900, 1);
    let before = world.store.head().journal.next;
    world.told(by("alice"), put(0, 6, &["v1"]));
    world.told(by("bob"), put(0, 7, &["v2"]));
    // Nobody asked for it, and nothing changed.
    world.told(Terms::NONE, delete(0, 8));
    let deleted = world.told(Terms::NONE, delete(0, 6));
    world.told(by("bob"), delete(0, 6));
    // The proposer asks again under the policy that is in force.
    world.told(Terms { policy: Some(9), ..by("bob") }, delete(0, 6));
    let told_of: Vec<_> = world
        .entries()
        .into_iter()
        .filter(|(number, _)| *number >= before)
        .map(|(number, entry)| {
            let subject = entry.by.map(|actor| actor.subject);
            (number - before, subject, entry.deed.map(|deed| deed.verb), entry.verdict)
        })
        .collect();
    let refused = Verdict::Refused;
    let (alice, bob) = (Some(user("alice")), Some(user("bob")));
    assert_eq!(
        told_of,
        [
            (0, alice, Some(Verb::ArtifactPush), Verdict::Done),
            (1, bob.clone(), Some(Verb::ArtifactPush), refused(Reason::QuotaExceeded)),
            (2, None, None, Verdict::Done),
            (3, bob, Some(Verb::ArtifactDelete), refused(Reason::ArtifactUnknown)),
        ]
    );
    let entries = world.entries();
    assert_eq!(entries[entries.len() - 2].1.events, deleted.events);
    assert_eq!(entries.last().map(|(_, entry)| entry.events.len()), Some(0));
    assert_eq!(recount(&world.store), Vec::new());
}

#[test]
fn a_forged_journal_is_found() {
    type Forgery = fn(&mut MemoryStore, u64);
    let forgeries: [(&str, Forgery); 5] = [
        ("changed", |store, second| {
            if let Some(Record::Journal(entry)) = row(store, &Key::Journal(second)) {
                let entry = Entry { verdict: Verdict::Done, ..entry };
                let Ok(()) = store.put(Key::Journal(second), Record::Journal(entry));
            }
        }),
        ("left out", |store, second| {
            let Ok(()) = store.delete(&Key::Journal(second));
        }),
        ("cut off", |store, second| {
            let Ok(()) = store.delete(&Key::Journal(second + 1));
        }),
        ("begun later", |store, _| {
            let Ok(()) = store.delete(&Key::Journal(1));
            store.head_mut().journal.first = 2;
        }),
        ("moved", |store, second| {
            let rows = (row(store, &Key::Journal(second)), row(store, &Key::Journal(second + 1)));
            if let (Some(one), Some(other)) = rows {
                let Ok(()) = store.put(Key::Journal(second), other);
                let Ok(()) = store.put(Key::Journal(second + 1), one);
            }
        }),
    ];
    for (what, forge) in forgeries {
        let mut world = limited(900, 1);
        world.told(by("alice"), put(0, 6, &["v1"]));
        let second = world.store.head().journal.next;
        world.told(by("bob"), put(0, 7, &["v2"]));
        world.told(by("carol"), put(1, 8, &["v3"]));
        assert_eq!(recount(&world.store), Vec::new());
        forge(&mut world.store, second);
        assert!(!recount(&world.store).is_empty(), "an entry was {what}, and nobody noticed");
    }
}

#[test]
fn usage_that_lies_is_found() {
    let mut world = limited(900, 9);
    world.given([commit(0, 1), open(7, 20)]);
    let honest = world.usage(0).unwrap();
    for lie in [
        UsageRecord { unique_bytes: honest.unique_bytes - 1, ..honest.clone() },
        UsageRecord { reserved_bytes: 0, ..honest },
    ] {
        let mut store = world.store.clone();
        let Ok(()) = store.put(Key::Usage(repository(0).tenant), Record::Usage(lie));
        assert!(!recount(&store).is_empty());
    }
}

#[test]
fn a_workload_token_is_remembered_for_an_hour_after_its_end() {
    let mut world = limited(9, 9);
    let workload = |id| {
        let mut action = token(id, "t", None);
        let Action::CreateAccessToken(CreateAccessToken { found_by, account, record, .. }) =
            &mut action
        else {
            panic!()
        };
        (*found_by, *account) = (None, None);
        record.is_workload = true;
        record.owner = "oidc:ci:job".into();
        action
    };
    let created = |world: &World, id| {
        matches!(row(&world.store, &Key::AccessToken(TokenId(id))), Some(Record::AccessToken(_)))
    };
    world.answer(10_000, workload(9)).unwrap();
    // It ends at 15,000. What it began may still run, and must not look as if it had been revoked.
    world.answer(15_000 + HOUR_MILLIS - 1, workload(8)).unwrap();
    assert!(created(&world, 9));
    world.answer(15_000 + HOUR_MILLIS, workload(7)).unwrap();
    assert_eq!((created(&world, 9), created(&world, 8)), (false, true));
}
