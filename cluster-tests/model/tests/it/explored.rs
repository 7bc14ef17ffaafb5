//! Worlds, explored whole, and every planted bug found in one of them.

use nora_model::{Bug, Storage, World};
use stateright::{Checker, HasDiscoveries, Model};

/// The world that the others differ from.
const PLAIN: World = World {
    digests: 1,
    clients: 2,
    workers: 1,
    storage: Storage::Local,
    tenant_of: [0, 1],
    repairs: false,
    absences: false,
    pulls: false,
    mounts: false,
    grace: 1,
    hold: 0,
    delay: 1,
    bug: Bug::None,
};

/// A second node that comes and goes, with repair, under pulls.
const ABSENCES: World = World { repairs: true, absences: true, pulls: true, ..PLAIN };
/// Mounts between two tenants.
const MOUNTS: World = World { mounts: true, pulls: true, ..PLAIN };
/// A bucket, a leader, and a worker that led before it.
const BUCKET: World =
    World { workers: 2, storage: Storage::Object, pulls: true, mounts: true, ..PLAIN };
/// Two workers on disks, and blobs that stay for a while after the last tenant gave them up.
const TWO_WORKERS: World = World { workers: 2, hold: 1, ..PLAIN };
/// Two blobs of one client.
const TWO_BLOBS: World = World { digests: 2, clients: 1, storage: Storage::Object, ..PLAIN };
/// Two repositories of one tenant.
const ONE_TENANT: World = World { tenant_of: [0, 0], mounts: true, ..PLAIN };

#[track_caller]
fn explore(name: &str, world: World) {
    let checker = world.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, {} deep", checker.unique_state_count(), checker.max_depth());
    assert!(checker.is_done());
    checker.assert_properties();
}

#[test]
fn a_node_that_misses_sweeps_costs_nothing_but_time() {
    explore("absences", ABSENCES);
}

#[test]
fn mounts_between_tenants_are_safe() {
    explore("mounts", MOUNTS);
}

#[test]
fn a_deposed_leader_does_no_harm_to_a_bucket() {
    explore("bucket", BUCKET);
}

#[test]
fn two_workers_do_no_harm_to_disks() {
    explore("two workers", TWO_WORKERS);
}

#[test]
fn two_blobs_do_not_meet() {
    explore("two blobs", TWO_BLOBS);
}

#[test]
fn a_tenant_pays_once_for_two_repositories() {
    explore("one tenant", ONE_TENANT);
}

#[test]
fn rows_of_garbage_need_not_be_exact() {
    for bug in Bug::HARMLESS {
        explore(&format!("{bug:?}"), World { bug, ..MOUNTS });
    }
}

#[test]
fn every_planted_bug_is_found() {
    let unfound = Bug::PLANTED.into_iter().filter(|bug| !is_found(*bug)).collect::<Vec<_>>();
    assert!(unfound.is_empty(), "nothing tells that something is broken: {unfound:?}");
}

fn is_found(bug: Bug) -> bool {
    for world in [MOUNTS, ONE_TENANT] {
        let broken = World { bug, ..world };
        let checker = broken.checker().finish_when(HasDiscoveries::Any).spawn_bfs().join();
        if let Some((property, path)) = checker.discoveries().into_iter().next() {
            println!("{bug:?}: not so that {property}, after {} steps", path.into_actions().len());
            return true;
        }
    }
    false
}
