//! Sessions and tokens over the admin API: whose business they are, and what a token makes.

use nora_app::Registry;
use nora_app::tokens::NewToken;
use nora_auth::credential::ApiToken;
use nora_domain::{AccessTokenRecord, AccountName, OwnerName, TokenName};
use nora_proto::v1::audit_client::AuditClient;
use nora_proto::v1::identity_client::IdentityClient;

use super::*;

const ALICE: &str = "her own password";

/// A world with the user alice.
async fn with_alice() -> World {
    let world = closed();
    let hash = nora_auth::password::hash(ALICE).unwrap();
    world.registry().accounts().create(alice(), false, hash, Vec::new()).await.unwrap();
    world.admin.api.guard.reload().await.unwrap();
    world
}

fn alice() -> AccountName {
    AccountName::parse("alice").unwrap()
}

fn owner(text: &str) -> OwnerName {
    OwnerName::parse(text).unwrap()
}

impl World {
    fn registry(&self) -> &Registry {
        &self.admin.api.registry
    }

    fn client(&self) -> IdentityClient<Router> {
        IdentityClient::new(self.to(Peer::Anonymous))
    }

    /// A token of an owner's that is cut down to these permissions.
    async fn token(&self, of: &str, scope: &[&str]) -> String {
        let (secret, made) = MemoryNode::new_token("alice", "token", scope);
        let id = ApiToken::parse(&secret).unwrap().id_hex();
        let found_by = Some((owner(of), TokenName::parse(&id).unwrap()));
        let record = AccessTokenRecord { owner: of.to_owned(), name: id, ..made.record };
        let account = made.account.filter(|_| of == "user:alice");
        let made = NewToken { found_by, account, record, ..made };
        self.registry().tokens().create(made).await.unwrap();
        format!("Bearer {secret}")
    }

    /// What is said of refused deeds, as the audit log has it.
    async fn refusals(&self) -> Vec<String> {
        self.admin.api.guard.flush().await;
        let entries = self.registry().journal().entries(0, 1_000).await.unwrap().items;
        let refused = entries.into_iter().filter_map(|(_, entry)| {
            let (deed, by) = (entry.deed?, entry.by?);
            let is_refused = matches!(entry.verdict, nora_domain::Verdict::Refused(_));
            is_refused.then(|| format!("{} {} {}", by.subject, deed.verb, entry.verdict))
        });
        refused.collect()
    }
}

/// A request that shows this.
fn shows<T>(authorization: &str, message: T) -> Call<T> {
    let mut call = Call::new(message);
    call.metadata_mut().insert("authorization", authorization.parse().unwrap());
    call
}

#[tokio::test]
async fn sessions_are_their_owners_and_the_administrators() {
    let world = with_alice().await;
    let generation = world.registry().accounts().get(alice()).await.unwrap().unwrap().generation;
    for (id, of, generation) in
        [(1, "user:alice", generation), (2, "user:alice", generation), (3, "user:bob", 7)]
    {
        let (id, from) = (TokenId(id), "192.0.2.7".to_owned());
        let made =
            world.registry().refresh_tokens().create(id, owner(of), generation, 60_000, from).await;
        made.unwrap();
    }
    let (admin, own) = (basic("admin", PASSWORD), basic("alice", ALICE));
    let list = async |shown: &str, owner: &str, page_size: u32| {
        let owner = owner.to_owned();
        let request = proto::ListSessionsRequest { after: String::new(), page_size, owner };
        let listed = world.client().list_sessions(shows(shown, request)).await?.into_inner();
        let ids: Vec<_> = listed.sessions.into_iter().map(|session| session.id).collect();
        Ok::<_, Status>((ids, listed.more))
    };
    let id = |of: &str, number: u32| format!("user:{of}/{number:032x}");
    let both = vec![id("alice", 1), id("alice", 2)];
    let all = vec![id("alice", 1), id("alice", 2), id("bob", 3)];
    assert_eq!(list(&admin, "", 0).await.unwrap(), (all.clone(), false));
    assert_eq!(list(&admin, "", 2).await.unwrap(), (both.clone(), true));
    assert_eq!(list(&admin, "user:bob", 0).await.unwrap(), (vec![id("bob", 3)], false));
    assert_eq!(list(&own, "", 0).await.unwrap(), (both.clone(), false));
    assert_eq!(list(&own, "user:bob", 0).await.unwrap_err().code(), Code::PermissionDenied);
    let after = proto::ListSessionsRequest { after: both[1].clone(), ..Default::default() };
    let rest = world.client().list_sessions(shows(&admin, after)).await.unwrap().into_inner();
    assert_eq!((rest.sessions.len(), rest.sessions[0].address.as_str()), (1, "192.0.2.7"));
    assert_eq!((rest.sessions[0].id.clone(), rest.more), (id("bob", 3), false));

    let end = async |shown: &str, session: &str| {
        let request = proto::RevokeSessionsRequest { session: session.to_owned() };
        let ended = world.client().revoke_sessions(shows(shown, request)).await;
        ended.map(|ended| ended.into_inner().sessions).map_err(|error| error.code())
    };
    let token = world.token("user:alice", &[]).await;
    assert_eq!(list(&token, "", 0).await.unwrap_err().code(), Code::PermissionDenied);
    for (shown, session, code) in [
        (&own, id("bob", 3), Code::NotFound),
        (&own, "user:bob".into(), Code::NotFound),
        (&token, id("alice", 1), Code::NotFound),
        (&own, "user:alice/laptop".into(), Code::InvalidArgument),
        (&own, String::new(), Code::InvalidArgument),
        (&own, id("alice", 9), Code::NotFound),
    ] {
        assert_eq!(end(shown, &session).await, Err(code), "{session}");
    }
    assert_eq!(list(&admin, "", 0).await.unwrap(), (all, false));
    assert_eq!(end(&own, &id("alice", 1)).await, Ok(1));
    assert_eq!(end(&admin, "user:alice").await, Ok(1));
    assert_eq!(end(&admin, &id("bob", 3)).await, Ok(1));
    assert_eq!(list(&admin, "", 0).await.unwrap(), (Vec::new(), false));
    let refused = world.refusals().await;
    let told = |text: &str| refused.iter().filter(|line| *line == text).count();
    assert_eq!(told("user:alice session.revoke refused: not permitted"), 3, "{refused:?}");
    assert_eq!(told("user:alice session.revoke refused: no such session"), 1, "{refused:?}");
}

/// Asks for every kind of login; what each is answered.
async fn logins(world: &World, shown: &str, nth: u32) -> Vec<Code> {
    let (mut client, mut cluster) = (world.client(), ClusterClient::new(world.to(Peer::Anonymous)));
    let token = |owner: &str| proto::CreateTokenRequest {
        owner: owner.to_owned(),
        name: format!("{}-{nth}", owner.replace(':', "-")),
        scope: vec!["pull:a/*".to_owned()],
        valid_seconds: 60,
    };
    let password = |name: &str| proto::SetPasswordRequest {
        name: name.to_owned(),
        password: format!("a chosen password {nth}"),
    };
    let user = proto::AddUserRequest {
        name: format!("user{nth}"),
        password: format!("a chosen password {nth}"),
        ..Default::default()
    };
    let join = proto::CreateJoinTokenRequest { valid_millis: 1_000, uses: 1 };
    let mut codes = Vec::new();
    let mut told = |answer: Result<(), Status>| {
        codes.push(answer.map_or_else(|status| status.code(), |()| Code::Ok));
    };
    told(client.create_token(shows(shown, token("admin"))).await.map(drop));
    told(client.create_token(shows(shown, token("user:alice"))).await.map(drop));
    told(client.add_user(shows(shown, user)).await.map(drop));
    told(cluster.create_join_token(shows(shown, join)).await.map(drop));
    told(client.set_password(shows(shown, password("alice"))).await.map(drop));
    codes
}

#[tokio::test]
async fn a_token_makes_no_logins_whoever_owns_it() {
    let world = with_alice().await;
    let (whole, cut) = (world.token("admin", &[]).await, world.token("admin", &["admin:*"]).await);
    for (nth, token) in (1..).zip([&whole, &cut]) {
        assert_eq!(logins(&world, token, nth).await, [Code::PermissionDenied; 5]);
        let admins = proto::SetPasswordRequest { name: "admin".into(), password: ALICE.into() };
        let refused = world.client().set_password(shows(token, admins)).await.unwrap_err();
        assert!(refused.message().contains("a token makes no logins"), "{refused:?}");
        // What it administers besides, it does.
        let robot = proto::AddUserRequest {
            name: format!("robot{nth}"),
            robot: true,
            ..Default::default()
        };
        world.client().add_user(shows(token, robot)).await.unwrap();
    }
    let mut audit = AuditClient::new(world.to(Peer::Anonymous));
    let asks = |shown: &str| shows(shown, proto::GetWebhookKeyRequest {});
    let refused = audit.get_webhook_key(asks(&whole)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "a key outlives the token: {refused:?}");
    let told = audit.get_webhook_key(asks(&basic("admin", PASSWORD))).await.unwrap().into_inner();
    assert!(told.key.starts_with("whsec_"), "{told:?}");
    let own = world.token("user:alice", &[]).await;
    let mine = proto::CreateTokenRequest { name: "more".into(), ..Default::default() };
    let refused = world.client().create_token(shows(&own, mine)).await.unwrap_err();
    assert!(refused.message().contains("a token makes no logins"), "{refused:?}");
    let refused = world.refusals().await;
    for verb in ["token.create", "account.create", "account.password", "node.token"] {
        let told = format!("admin {verb} refused: not with a token");
        assert!(refused.contains(&told), "{told} is not in {refused:?}");
    }
    // Passwords and certificates make them.
    assert_eq!(logins(&world, &basic("admin", PASSWORD), 3).await, [Code::Ok; 5]);
    let mut certified = IdentityClient::new(world.to(Peer::Admin));
    let made = proto::CreateTokenRequest { name: "certified".into(), ..Default::default() };
    certified.create_token(made).await.unwrap();
}
