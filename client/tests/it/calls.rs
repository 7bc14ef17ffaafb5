//! Every call of the admin API about identities, policy, tenants and the audit log: what is sent, and what comes back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nora_client::admin::{
    About, AdminClient, AdminError, AuditFilter, NewAccount, NewToken, TenantUsage,
};
use nora_client::{Credentials, Secret};
use nora_proto::v1 as proto;
use prost::Message;
use tonic::Code;

use crate::member::{Member, message};

/// What was sent, by path, in order.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Calls>>);

/// Paths and bodies.
type Calls = Vec<(String, Vec<u8>)>;

impl Sent {
    /// The last message, which must have gone to that method.
    fn last<M: Message + Default>(&self, method: &str) -> M {
        let (path, bytes) = self.0.lock().unwrap().pop().unwrap();
        assert_eq!(path, format!("/nora.v1.{method}"));
        M::decode(&*bytes).unwrap()
    }
}

/// A member that gives this answer to everything.
async fn answering(answer: impl Message + 'static) -> (Member, AdminClient, Sent) {
    let member = Member::start().await;
    let sent = Sent::default();
    let kept = sent.clone();
    member.plan(move |path, said| {
        kept.0.lock().unwrap().push((path.to_owned(), said.to_vec()));
        Some(message(&answer))
    });
    let client = AdminClient::new(&member.config()).unwrap();
    (member, client, sent)
}

#[tokio::test]
async fn who_am_i_tells_subject_and_token() {
    let answer = proto::WhoAmIResponse {
        subject: "user:alice".into(),
        groups: vec!["devs".into()],
        token: "laptop".into(),
        scope: vec!["pull:*".into()],
    };
    let (_member, client, sent) = answering(answer).await;
    let caller = client.who_am_i().await.unwrap();
    assert_eq!(
        serde_json::to_string(&caller).unwrap(),
        r#"{"subject":"user:alice","groups":["devs"],"token":"laptop","scope":["pull:*"]}"#
    );
    sent.last::<proto::WhoAmIRequest>("Identity/WhoAmI");
    let (_member, client, _) = answering(proto::WhoAmIResponse::default()).await;
    assert_eq!(client.who_am_i().await.unwrap().token, None);
}

#[tokio::test]
async fn accounts_are_made_changed_and_removed() {
    let (_member, client, sent) = answering(proto::RemoveUserResponse { tokens: 3 }).await;
    let groups = vec!["devs".to_owned()];
    let password = Some(Secret::new("a password"));
    let account = NewAccount { name: "alice".into(), groups: groups.clone(), password };
    client.add_user(&account).await.unwrap();
    let said: proto::AddUserRequest = sent.last("Identity/AddUser");
    let expected = proto::AddUserRequest {
        name: "alice".into(),
        robot: false,
        groups,
        password: "a password".into(),
    };
    assert_eq!(said, expected);
    assert!(!format!("{account:?}").contains("a password"), "secrets hide from debug");

    let robot = NewAccount { name: "ci".into(), ..NewAccount::default() };
    client.add_user(&robot).await.unwrap();
    let said: proto::AddUserRequest = sent.last("Identity/AddUser");
    assert_eq!((said.robot, said.password.as_str()), (true, ""));

    client.set_password("alice", &Secret::new("another")).await.unwrap();
    let said: proto::SetPasswordRequest = sent.last("Identity/SetPassword");
    assert_eq!((said.name.as_str(), said.password.as_str()), ("alice", "another"));

    assert_eq!(client.remove_user("alice").await.unwrap(), 3);
    assert_eq!(sent.last::<proto::RemoveUserRequest>("Identity/RemoveUser").name, "alice");
}

/// A member with so many users, of which it gives two at a time.
async fn with_users(count: usize) -> (Member, AdminClient) {
    let member = Member::start().await;
    member.plan(move |path, said| {
        assert_eq!(path, "/nora.v1.Identity/ListUsers");
        let said = proto::ListUsersRequest::decode(said).unwrap();
        let all = (0..count).map(|n| format!("user-{n}"));
        let mut users: Vec<proto::User> = all
            .filter(|name| *name > said.after)
            .map(|name| proto::User { name, created_at: 7, ..Default::default() })
            .collect();
        let more = users.len() > 2;
        users.truncate(2);
        Some(message(&proto::ListUsersResponse { users, more }))
    });
    let client = AdminClient::new(&member.config()).unwrap();
    (member, client)
}

#[tokio::test]
async fn lists_are_read_to_their_end_and_those_without_one_are_told() {
    for (count, calls) in [(0, 1), (1, 1), (2, 1), (3, 2), (5, 3)] {
        let (member, client) = with_users(count).await;
        let users = client.users().await.unwrap();
        let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
        let expected: Vec<String> = (0..count).map(|n| format!("user-{n}")).collect();
        assert_eq!(names, expected);
        assert_eq!(member.asked().len(), calls, "{count} users");
        assert!(users.iter().all(|user| user.created_at == Some(7)));
    }
    // One that gives the same again, or nothing, and says there is more.
    let same = vec![proto::User { name: "a".into(), ..Default::default() }];
    for users in [same, Vec::new()] {
        let (member, client, _) = answering(proto::ListUsersResponse { users, more: true }).await;
        let endless = client.users().await.unwrap_err();
        assert!(matches!(endless, AdminError::Malformed { .. }), "{endless:?}");
        assert!(member.asked().len() <= 2);
    }
}

fn token() -> proto::Token {
    proto::Token {
        id: "0f".repeat(16),
        name: "laptop".into(),
        owner: "user:alice".into(),
        scope: vec!["pull:*".into()],
        created_at: 1,
        expires_at: 2,
        last_used_at: 0,
        workload: false,
    }
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let secret = "nora_pat_secret".to_owned();
    let answer = proto::CreateTokenResponse { secret, token: Some(token()) };
    let (_member, client, sent) = answering(answer).await;
    let wish = NewToken {
        owner: Some("robot:ci".into()),
        name: "deploy".into(),
        scope: vec!["push:a/*".into()],
        valid: Some(Duration::from_secs(3600)),
    };
    let made = client.create_token(&wish).await.unwrap();
    assert_eq!(made.secret.expose(), "nora_pat_secret");
    assert_eq!((made.token.name.as_str(), made.token.last_used_at), ("laptop", None));
    assert!(!format!("{made:?}").contains("nora_pat_secret"), "secrets hide from debug");
    let said: proto::CreateTokenRequest = sent.last("Identity/CreateToken");
    let expected = proto::CreateTokenRequest {
        owner: "robot:ci".into(),
        name: "deploy".into(),
        scope: vec!["push:a/*".into()],
        valid_seconds: 3600,
    };
    assert_eq!(said, expected);
    // Nothing said is the server's choice; less than it can be told is not.
    for (valid, seconds) in [(None, 0), (Some(Duration::from_millis(1)), 1)] {
        client.create_token(&NewToken { valid, ..wish.clone() }).await.unwrap();
        let said: proto::CreateTokenRequest = sent.last("Identity/CreateToken");
        assert_eq!(said.valid_seconds, seconds);
    }
    client.revoke_token("user:alice/laptop").await.unwrap();
    let said: proto::RevokeTokenRequest = sent.last("Identity/RevokeToken");
    assert_eq!(said.token, "user:alice/laptop");

    let (_member, client, _) = answering(proto::CreateTokenResponse::default()).await;
    let none = client.create_token(&wish).await.unwrap_err();
    assert!(matches!(none, AdminError::Malformed { .. }), "{none:?}");

    let answer = proto::ListTokensResponse { tokens: vec![token()], more: false };
    let (_member, client, sent) = answering(answer).await;
    assert_eq!(client.tokens(Some("user:alice")).await.unwrap(), [made.token]);
    assert_eq!(sent.last::<proto::ListTokensRequest>("Identity/ListTokens").owner, "user:alice");
    client.tokens(None).await.unwrap();
    assert_eq!(sent.last::<proto::ListTokensRequest>("Identity/ListTokens").owner, "");
}

#[tokio::test]
async fn sessions_are_listed_and_revoked() {
    let session = |address: &str| proto::Session {
        id: "user:alice/0f".into(),
        owner: "user:alice".into(),
        created_at: 1,
        expires_at: 2,
        address: address.into(),
    };
    let sessions = vec![session("192.0.2.7"), session("")];
    let answer = proto::ListSessionsResponse { sessions, more: false };
    let (_member, client, sent) = answering(answer).await;
    let listed = client.sessions(Some("user:alice")).await.unwrap();
    let from: Vec<_> = listed.iter().map(|session| session.address.as_deref()).collect();
    assert_eq!((listed[0].id.as_str(), from), ("user:alice/0f", vec![Some("192.0.2.7"), None]));
    let said: proto::ListSessionsRequest = sent.last("Identity/ListSessions");
    assert_eq!((said.owner.as_str(), said.after.as_str()), ("user:alice", ""));

    let (_member, client, sent) = answering(proto::RevokeSessionsResponse { sessions: 3 }).await;
    assert_eq!(client.revoke_sessions("user:alice").await.unwrap(), 3);
    let said: proto::RevokeSessionsRequest = sent.last("Identity/RevokeSessions");
    assert_eq!(said.session, "user:alice");
}

#[tokio::test]
async fn an_explanation_is_about_the_caller_a_subject_or_a_credential() {
    let step = proto::ExplainStep {
        place: "auth.rules[2].permissions[0]".into(),
        text: "push:frontend/*".into(),
        effect: "allows".into(),
        why: "alice is in team-frontend".into(),
    };
    let answer = proto::ExplainResponse { allowed: true, summary: "yes".into(), steps: vec![step] };
    let (_member, client, sent) = answering(answer).await;
    for (about, subject, credential) in [
        (About::Caller, "", ""),
        (About::Subject("user:alice".into()), "user:alice", ""),
        (About::Credential(Secret::new("ey.J.x")), "", "ey.J.x"),
    ] {
        let told = client.explain(&about, "push", "frontend/app").await.unwrap();
        assert_eq!(told.deciding().unwrap().place, "auth.rules[2].permissions[0]");
        let said: proto::ExplainRequest = sent.last("Identity/Explain");
        assert_eq!((said.subject.as_str(), said.credential.as_str()), (subject, credential));
        assert_eq!((said.action.as_str(), said.resource.as_str()), ("push", "frontend/app"));
    }
}

#[tokio::test]
async fn a_policy_is_shown_tried_and_applied_to_what_was_seen() {
    let answer = proto::ShowPolicyResponse {
        epoch: 4,
        hash: "ab".into(),
        document: r#"{"tenants":[]}"#.into(),
        applied_at: 9,
        applied_by: "admin".into(),
        file_hash: String::new(),
    };
    let (_member, client, sent) = answering(answer).await;
    let policy = client.policy().await.unwrap();
    assert_eq!(policy.document, serde_json::json!({"tenants": []}));
    assert_eq!((policy.epoch, policy.applied_at, policy.file_hash), (4, Some(9), None));
    sent.last::<proto::ShowPolicyRequest>("Policy/ShowPolicy");

    let changes = vec!["+ tenants.a".to_owned()];
    let warnings = vec!["there is no `user:a` yet".to_owned()];
    let answer = proto::ApplyPolicyResponse { epoch: 5, changes, warnings };
    let (_member, client, sent) = answering(answer).await;
    let request = |dry_run, expected_epoch| proto::ApplyPolicyRequest {
        document: "{}".into(),
        dry_run,
        expected_epoch,
    };
    let tried = client.try_policy("{}").await.unwrap();
    assert_eq!((tried.epoch, tried.changes.len(), tried.warnings.len()), (5, 1, 1));
    assert_eq!(sent.last::<proto::ApplyPolicyRequest>("Policy/ApplyPolicy"), request(true, 0));
    client.apply_policy("{}", Some(4)).await.unwrap();
    assert_eq!(sent.last::<proto::ApplyPolicyRequest>("Policy/ApplyPolicy"), request(false, 4));

    let answer = proto::ShowPolicyResponse { document: "{".into(), ..Default::default() };
    let (_member, client, _) = answering(answer).await;
    let broken = client.policy().await.unwrap_err();
    assert!(matches!(broken, AdminError::Malformed { expected: "policy" }), "{broken:?}");
    let (_member, client, _) = answering(proto::ShowPolicyResponse::default()).await;
    assert_eq!(client.policy().await.unwrap().document, serde_json::json!({}));
}

#[tokio::test]
async fn tenants_tell_use_and_limits() {
    let tenant = proto::Tenant {
        name: "a".into(),
        namespaces: vec!["oci:a/*".into()],
        unique_bytes: 5,
        storage_quota: 10,
        pushes: Some(1),
        ..Default::default()
    };
    let (_member, client, sent) =
        answering(proto::ListTenantsResponse { tenants: vec![tenant] }).await;
    let expected = TenantUsage {
        name: "a".into(),
        namespaces: vec!["oci:a/*".into()],
        unique_bytes: 5,
        storage_quota: Some(10),
        pushes: Some(1),
        ..TenantUsage::default()
    };
    assert_eq!(client.tenants(Some("a")).await.unwrap(), [expected]);
    assert_eq!(sent.last::<proto::ListTenantsRequest>("Tenants/ListTenants").name, "a");
    client.tenants(None).await.unwrap();
    assert_eq!(sent.last::<proto::ListTenantsRequest>("Tenants/ListTenants").name, "");
}

#[tokio::test]
async fn the_audit_log_goes_on_where_a_page_ended() {
    // A page that a filter emptied still says where it ended.
    let (_member, client, sent) =
        answering(proto::ListAuditResponse { entries: Vec::new(), more: true, last: 900 }).await;
    let filter = AuditFilter {
        since: Some(7),
        actor: Some("user:alice".into()),
        resource: Some("oci:a/".into()),
    };
    let page = client.audit_page(&filter, 3, 50).await.unwrap();
    assert_eq!((page.entries.len(), page.more, page.last), (0, true, 900));
    let said: proto::ListAuditRequest = sent.last("Audit/ListAudit");
    let expected = proto::ListAuditRequest {
        after: 3,
        page_size: 50,
        since: 7,
        actor: "user:alice".into(),
        resource: "oci:a/".into(),
    };
    assert_eq!(said, expected);
    // Going nowhere with more to come would never end.
    let stuck = client.audit_page(&filter, 900, 50).await.unwrap_err();
    assert!(matches!(stuck, AdminError::Malformed { .. }), "{stuck:?}");

    let entry = proto::AuditEntry { number: 8, result: "done".into(), ..Default::default() };
    let answer = proto::ListAuditResponse { entries: vec![entry], more: false, last: 0 };
    let (_member, client, _) = answering(answer).await;
    let page = client.audit_page(&AuditFilter::default(), 3, 0).await.unwrap();
    assert_eq!((page.last, page.entries[0].count), (8, 1));
    // A log that has nothing new does not begin anew.
    let (_member, client, _) = answering(proto::ListAuditResponse::default()).await;
    assert_eq!(client.audit_page(&AuditFilter::default(), 8, 0).await.unwrap().last, 8);

    for (broken_at, expected) in [(0, None), (5, Some(5))] {
        let head = "ff".to_owned();
        let answer = proto::VerifyAuditResponse { first: 2, last: 9, broken_at, head };
        let (_member, client, sent) = answering(answer).await;
        let verdict = client.verify_audit().await.unwrap();
        assert_eq!((verdict.first, verdict.last, verdict.broken_at), (2, 9, expected));
        sent.last::<proto::VerifyAuditRequest>("Audit/VerifyAudit");
    }

    for (key, expected) in [("", None), ("whsec_a2V5", Some("whsec_a2V5".to_owned()))] {
        let answer = proto::GetWebhookKeyResponse { key: key.to_owned() };
        let (_member, client, sent) = answering(answer).await;
        assert_eq!(client.webhook_key().await.unwrap(), expected);
        sent.last::<proto::GetWebhookKeyRequest>("Audit/GetWebhookKey");
    }
}

#[tokio::test]
async fn refusals_keep_the_servers_words_and_say_what_to_do() {
    let member = Member::start().await;
    let client = AdminClient::new(&member.config()).unwrap();
    for (code, hint) in [
        (Code::PermissionDenied, Some("nora auth explain")),
        (Code::Unauthenticated, Some("--token-file")),
        (Code::ResourceExhausted, Some("try again")),
        (Code::Unimplemented, Some("older")),
        (Code::AlreadyExists, None),
        (Code::InvalidArgument, None),
    ] {
        member.refuse(1, code);
        let refused = client.revoke_token("x").await.unwrap_err();
        assert_eq!(refused.to_string(), "not now");
        assert_eq!(refused.code(), Some(code));
        let told = refused.hint();
        let fits = match hint {
            Some(words) => told.as_ref().is_some_and(|told| told.contains(words)),
            None => told.is_none(),
        };
        assert!(fits, "{code:?}: {told:?}");
    }
    assert_eq!(member.asked().len(), 6, "no refusal is repeated");
    // The token is shown with these calls too.
    let credentials = Credentials::Token(Secret::new("nora_pat_x"));
    let config = nora_client::admin::AdminConfig { credentials, ..member.config() };
    AdminClient::new(&config).unwrap().who_am_i().await.unwrap();
    assert_eq!(member.asked().pop().unwrap().1.as_deref(), Some("Bearer nora_pat_x"));
}
