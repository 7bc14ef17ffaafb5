//! The admin client's manners: whom it trusts, who it says is asking, where it goes next, what it repeats.

use std::path::Path;
use std::time::{Duration, Instant};

use nora_client::admin::{AdminClient, AdminConfig, AdminError};
use nora_client::{Credentials, Secret};
use nora_trust::Peer;
use tokio::net::TcpListener;
use tonic::Code;

use crate::member::Member;

#[tokio::test]
async fn the_data_folder_is_enough_to_be_the_administrator() {
    let member = Member::start().await;
    let client = AdminClient::new(&member.config()).unwrap();
    let status = client.status().await.unwrap();
    assert_eq!((status.node, status.leader), (1, Some(1)));
    let [first, second] = &status.members[..] else { panic!("{status:?}") };
    assert_eq!((first.role, first.standing), ("leader", "draining"));
    assert_eq!(first.report.as_ref().unwrap().version, "1.0");
    assert_eq!((second.role, second.standing, &second.report), ("outside", "unknown", &None));
    assert_eq!(client.transfer_leader(None).await.unwrap(), 2);
    client.remove(2, false).await.unwrap();
    let asked = member.asked();
    let paths: Vec<&str> = asked.iter().map(|(path, ..)| path.as_str()).collect();
    let expected = ["Status", "TransferLeader", "Remove"].map(|m| format!("/nora.v1.Cluster/{m}"));
    assert_eq!(paths, expected);
    assert!(asked.iter().all(|(_, header, peer)| header.is_none() && *peer == Peer::Admin));
}

#[tokio::test]
async fn a_password_or_a_token_goes_to_members_alone() {
    let member = Member::start().await;
    let stranger = Member::start().await;
    let password = Credentials::Password { username: "admin".into(), password: Secret::new("pw") };
    for (credentials, header) in
        [(password, "Basic YWRtaW46cHc="), (Credentials::Token(Secret::new("tk")), "Bearer tk")]
    {
        let config = AdminConfig { certificate: None, credentials, ..member.config() };
        AdminClient::new(&config).unwrap().status().await.unwrap();
        let (_, sent, peer) = member.asked().pop().unwrap();
        assert_eq!((sent.as_deref(), peer), (Some(header), Peer::Anonymous));

        let elsewhere = AdminConfig { addresses: vec![stranger.address.to_string()], ..config };
        let refused = AdminClient::new(&elsewhere).unwrap().status().await.unwrap_err();
        assert!(matches!(refused, AdminError::Unreachable { .. }), "{refused:?}");
        assert!(refused.hint().unwrap().contains("another cluster"));
    }
    assert_eq!(stranger.asked(), []);
}

#[tokio::test]
async fn another_member_answers_for_one_that_cannot() {
    let first = Member::start().await;
    let second = first.beside().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let addresses = [nobody, first.address, second.address].map(|a| a.to_string()).to_vec();
    let client = AdminClient::new(&AdminConfig { addresses, ..first.config() }).unwrap();
    first.refuse(1, Code::Unavailable);
    client.status().await.unwrap();
    client.status().await.unwrap();
    // The one that answered is asked again.
    assert_eq!((first.asked().len(), second.asked().len()), (1, 2));
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_waited_for() {
    let member = Member::start().await;
    let client = AdminClient::new(&member.config()).unwrap();
    member.refuse(1, Code::Unavailable);
    client.drain(2).await.unwrap();
    assert_eq!(member.asked().len(), 2);

    member.refuse(100, Code::Unavailable);
    let refused = client.drain(2).await.unwrap_err();
    assert!(matches!(&refused, AdminError::Refused(s) if s.code() == Code::Unavailable));
    assert!(member.asked().len() < 10);
}

#[tokio::test]
async fn what_cannot_be_is_told_at_once() {
    let member = Member::start().await;
    let client = AdminClient::new(&member.config()).unwrap();
    member.refuse(1, Code::FailedPrecondition);
    let refused = client.promote(2).await.unwrap_err();
    assert_eq!(refused.to_string(), "not now");
    // What was not said to be harmless is not repeated.
    member.refuse(1, Code::Unknown);
    client.promote(2).await.unwrap_err();
    assert_eq!(member.asked().len(), 2);

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = AdminConfig { addresses: vec![nobody.to_string()], ..member.config() };
    let began = Instant::now();
    let refused = AdminClient::new(&config).unwrap().status().await.unwrap_err();
    assert!(matches!(refused, AdminError::Unreachable { .. }), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "nobody was there to wait for");

    let config = AdminConfig::of_data_dir(Path::new("/nowhere"));
    let Err(unreadable) = AdminClient::new(&config) else { panic!("there is nothing") };
    assert_eq!(unreadable.to_string(), "cannot read /nowhere/identity/ca.crt");
    assert!(unreadable.hint().unwrap().contains("--data-dir"));
    let config = AdminConfig { addresses: Vec::new(), ..member.config() };
    assert!(matches!(AdminClient::new(&config), Err(AdminError::NoAddress)));
    let credentials = Credentials::Token(Secret::new("two\nlines"));
    let config = AdminConfig { credentials, ..member.config() };
    assert!(matches!(AdminClient::new(&config), Err(AdminError::Credentials)));
}
