//! Uploads to a tenant whose bytes are limited: room is reserved before bytes are taken, and given back.

use std::sync::Arc;

use futures_util::StreamExt;
use nora_app::Error;
use nora_app::ports::{ByteStream, Incoming};
use nora_app::testkit::{MIB, body, bytes, repository};
use nora_domain::{
    Action, Algorithm, Key, LimitsRecord, Quota, Record, SetPolicy, TenantName, UploadId,
};

use crate::support::{LimitedTenant, World, settings, sha256, world_of};

/// A world in which the default tenant may store so many bytes.
fn limited(storage_quota: u64) -> World {
    let world = world_of(Arc::new(LimitedTenant));
    let limits = LimitsRecord { storage_quota: Some(storage_quota), ..LimitsRecord::default() };
    world.elsewhere(Action::SetPolicy(SetPolicy {
        expected: None,
        document: b"{}".to_vec(),
        hash: [1; 32],
        tenants: vec![(TenantName::default_tenant(), limits)],
    }));
    world
}

/// What is used, and what is reserved.
async fn used(world: &World) -> (u64, u64) {
    let usage = world.registry.tenants().usage(&TenantName::default_tenant()).await.unwrap();
    (usage.unique_bytes, usage.reserved_bytes)
}

fn incoming(bytes: &[u8]) -> Incoming {
    Incoming { stream: body(bytes, 100_000), length: Some(bytes.len() as u64) }
}

async fn start(world: &World) -> UploadId {
    world.registry.uploads().start(repository("here"), Algorithm::Sha256).await.unwrap().id
}

#[tokio::test]
async fn room_is_reserved_before_bytes_are_taken_and_becomes_what_is_used() {
    let world = limited(1_000);
    let here = repository("here");
    let id = start(&world).await;
    assert_eq!(used(&world).await, (0, 0));
    world.registry.uploads().append(&here, id, None, incoming(&[1; 600])).await.unwrap();
    assert_eq!(used(&world).await, (0, 600));
    // Another one finds only what is left.
    let other = start(&world).await;
    let refused = world.registry.uploads().append(&here, other, None, incoming(&[2; 401])).await;
    assert!(
        matches!(refused, Err(Error::QuotaExceeded { quota: Quota::Storage, used: 600, .. })),
        "{refused:?}"
    );
    assert_eq!(world.blobs.sessions(), vec![id], "an upload without room is over");
    let digest = sha256(&[1; 600]);
    world
        .registry
        .uploads()
        .finish(here.clone(), id, None, None::<ByteStream>, digest)
        .await
        .unwrap();
    assert_eq!(used(&world).await, (600, 0));
    world.registry.uploads().push(here, sha256(&[3; 400]), incoming(&[3; 400])).await.unwrap();
    assert_eq!(used(&world).await, (1_000, 0));
    world.assert_sound();
}

#[tokio::test]
async fn a_body_of_unknown_length_reserves_as_it_comes() {
    let quota = 10 * MIB as u64;
    let world = limited(quota);
    let here = repository("here");
    let bytes = bytes(9 * MIB, 5);
    let id = start(&world).await;
    let state =
        world.registry.uploads().append(&here, id, None, body(&bytes, 70_001)).await.unwrap();
    assert_eq!(state.offset, bytes.len() as u64);
    let (unique, reserved) = used(&world).await;
    assert!(unique == 0 && reserved >= state.offset && reserved <= quota, "{reserved}");
    // More than there is room for: the session is over, and all of it is free again.
    let more = world.registry.uploads().append(&here, id, None, body(&bytes, 70_001)).await;
    assert!(matches!(more, Err(Error::QuotaExceeded { .. })), "{more:?}");
    assert_eq!((used(&world).await, world.blobs.sessions()), ((0, 0), vec![]));
    world.assert_sound();
}

#[tokio::test]
async fn what_did_not_come_is_given_back() {
    let world = limited(1_000);
    let here = repository("here");
    let id = start(&world).await;
    let stream = body(&[1; 100], 10)
        .chain(futures_util::stream::once(async { Err("the client went away".into()) }));
    let broken = Incoming { stream: Box::pin(stream), length: Some(900) };
    let failed = world.registry.uploads().append(&here, id, None, broken).await;
    assert!(matches!(failed, Err(Error::BodyBroken(_))), "{failed:?}");
    assert_eq!(used(&world).await, (0, 100), "what came is kept");

    // One that its client leaves alone gives back the rest as well, and reserves again when it goes on.
    let minute = 60_000;
    world.registry.uploads().append(&here, id, None, incoming(&[1; 10])).await.unwrap();
    let settings = nora_app::Settings { upload_expiry_millis: 60 * minute, ..settings() };
    let registry =
        nora_app::Registry::new(nora_app::Dependencies { settings, ..world.dependencies() });
    registry.uploads().append(&here, id, None, incoming(&[1; 10])).await.unwrap();
    world.clock.advance(10 * minute);
    registry.uploads().expire(None).await.unwrap();
    assert_eq!(used(&world).await, (0, 120));
    world.clock.advance(10 * minute);
    registry.uploads().expire(None).await.unwrap();
    assert_eq!(used(&world).await, (0, 0));
    assert!(world.metadata.row(&Key::Upload(here.tenant.clone(), id)).is_some());
    registry.uploads().append(&here, id, None, incoming(&[1; 10])).await.unwrap();
    assert_eq!(used(&world).await, (0, 130));
    let row = world.metadata.row(&Key::Upload(here.tenant.clone(), id));
    assert!(matches!(row, Some(Record::Upload(lease)) if lease.reserved_bytes == 130));
    registry.uploads().cancel(&here, id).await.unwrap();
    assert_eq!(used(&world).await, (0, 0));
    assert_eq!(world.metadata.row(&Key::Upload(here.tenant.clone(), id)), None);
    world.assert_sound();
}
