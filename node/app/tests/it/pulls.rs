//! Noting what was pulled: each thing once, in few commands, and only what is there.

use nora_app::testkit::repository;
use nora_domain::{Item, Key, PulledRecord, Record, Reference};

use crate::support::{NOW, World, artifact, tag, world};

fn pulled(world: &World, item: Item) -> Option<Record> {
    world.metadata.row(&Key::Pulled(repository("here"), item))
}

#[tokio::test]
async fn what_was_pulled_is_written_once() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "{}");
    put.tags = vec![tag("a"), tag("b")];
    world.registry.artifacts().put(put.clone()).await.unwrap();
    assert_eq!(world.registry.artifacts().write_pulls().await.unwrap(), 0, "a push is no pull");
    for _ in 0..3 {
        for reference in [Reference::Tag(tag("a")), Reference::Digest(put.digest)] {
            world.registry.artifacts().get(&here, &reference).await.unwrap();
        }
    }
    let before = world.counts().proposals;
    world.clock.advance(10);
    assert_eq!(world.registry.artifacts().write_pulls().await.unwrap(), 2);
    assert_eq!(world.counts().proposals, before + 1);
    let now = Some(Record::Pulled(PulledRecord { at: NOW.plus_millis(10) }));
    assert_eq!(pulled(&world, Item::Artifact(put.digest)), now);
    assert_eq!(pulled(&world, Item::Tag(tag("a"))), now);
    assert_eq!(pulled(&world, Item::Tag(tag("b"))), None);

    assert_eq!(world.registry.artifacts().write_pulls().await.unwrap(), 0);
    assert_eq!(world.counts().proposals, before + 1, "nothing is left to write");
    world.assert_sound();
}

#[tokio::test]
async fn what_is_gone_or_was_never_there_is_not_noted() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "{}");
    put.tags = vec![tag("a")];
    world.registry.artifacts().put(put.clone()).await.unwrap();
    assert!(world.registry.artifacts().get(&here, &Reference::Tag(tag("none"))).await.is_err());
    world.registry.artifacts().get(&here, &Reference::Tag(tag("a"))).await.unwrap();
    world.registry.artifacts().delete(here.clone(), put.digest).await.unwrap();
    world.registry.artifacts().write_pulls().await.unwrap();
    assert_eq!(pulled(&world, Item::Artifact(put.digest)), None);
    assert_eq!(pulled(&world, Item::Tag(tag("a"))), None);
    assert_eq!(pulled(&world, Item::Tag(tag("none"))), None);

    // A note that was written goes with what it speaks of.
    world.registry.artifacts().put(put.clone()).await.unwrap();
    world.registry.artifacts().get(&here, &Reference::Tag(tag("a"))).await.unwrap();
    world.registry.artifacts().write_pulls().await.unwrap();
    assert!(pulled(&world, Item::Tag(tag("a"))).is_some());
    world.registry.artifacts().delete(here.clone(), put.digest).await.unwrap();
    assert_eq!(pulled(&world, Item::Artifact(put.digest)), None);
    assert_eq!(pulled(&world, Item::Tag(tag("a"))), None);
    world.assert_sound();
}

#[tokio::test]
async fn many_pulls_take_few_commands() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "{}");
    put.tags = (0..1_200).map(|n| tag(&format!("t{n}"))).collect();
    world.registry.artifacts().put(put.clone()).await.unwrap();
    for tag in put.tags {
        world.registry.artifacts().get(&here, &Reference::Tag(tag)).await.unwrap();
    }
    let before = world.counts().proposals;
    assert_eq!(world.registry.artifacts().write_pulls().await.unwrap(), 1_201);
    assert_eq!(world.counts().proposals, before + 3);
    assert!(pulled(&world, Item::Tag(tag("t1199"))).is_some());
}
