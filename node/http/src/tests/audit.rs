//! The audit log as it is read.

use std::sync::Arc;

use nora_app::ports::clock::Clock;
use nora_domain::{AccountName, Timestamp};

use crate::testkit::World;

#[tokio::test]
async fn the_audit_log_is_found_by_time() {
    let world = World::with("[auth]\n").await;
    let admin = world.guard.administrator(None, "request".into());
    let registry = world.registry.by(Arc::new(admin));
    let before = registry.journal().head().await.unwrap().next;
    // What the founding left is of an earlier time.
    world.clock.advance(1_000);
    let mut at = Vec::new();
    for number in 0..20 {
        at.push(world.clock.now());
        let name = AccountName::parse(&format!("user{number}")).unwrap();
        registry.accounts().create(name, true, String::new(), Vec::new()).await.unwrap();
        world.clock.advance(1_000);
    }
    for (number, time) in at.iter().enumerate() {
        let found = registry.journal().before(*time).await.unwrap();
        assert_eq!(found, before + number as u64 - 1);
        let page = registry.journal().entries(found, 1).await.unwrap();
        assert_eq!(page.items[0].1.at, *time);
    }
    assert_eq!(registry.journal().before(Timestamp(0)).await.unwrap(), 0);
    let all = registry.journal().before(world.clock.now()).await.unwrap();
    assert_eq!(all, before + 19);
}
