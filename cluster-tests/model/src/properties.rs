//! What must hold in every state, and what must happen in some.

use std::collections::BTreeSet;

use stateright::Property;

use crate::bug::Bug;
use crate::state::{Client, Copy, Garbage, REPOSITORIES, State, TENANTS};
use crate::world::World;

/// What must hold in every state.
fn invariants() -> Vec<Property<World>> {
    vec![
        Property::always("what an artifact needs can be read", |_, state| needed_is_read(state)),
        Property::always("what a repository shows has a live copy", |_, state| {
            shown_is_live(state)
        }),
        Property::always(
            "nobody is refused what the answer before promised",
            |_, state: &State| !state.refused,
        ),
        Property::always("no pull loses its copy", |_, state: &State| !state.broken),
        Property::always("each tenant pays once for what it holds", usage_is_exact),
        Property::always("what nothing needs goes, and nothing else", only_what_is_needed_stays),
    ]
}

/// Every property of a world. Of a broken one, only that which must hold.
pub fn all(world: &World) -> Vec<Property<World>> {
    let mut all = invariants();
    if world.bug != Bug::None {
        return all;
    }
    all.push(Property::sometimes("a blob is condemned", |_, state: &State| {
        !state.garbage.is_empty()
    }));
    all.push(Property::sometimes("a condemned blob is pushed again", |_, state| {
        is_pushed_again(state)
    }));
    if world.mounts {
        all.push(Property::sometimes("a mount comes too late", |_, state| mount_is_late(state)));
    }
    if world.absences {
        let misses = |_: &World, state: &State| node_misses_a_sweep(state);
        all.push(Property::sometimes("a node misses a sweep", misses));
    }
    all
}

fn needed_is_read(state: &State) -> bool {
    (0..REPOSITORIES).all(|repository| {
        state.needed[repository].iter().enumerate().all(|(digest, is_needed)| {
            !is_needed || state.links[repository][digest].is_some() && has_file(state, digest)
        })
    })
}

fn shown_is_live(state: &State) -> bool {
    state.links.iter().all(|links| {
        links.iter().enumerate().all(|(digest, link)| link.is_none() || has_file(state, digest))
    })
}

/// Whether a node that the live row names has the live copy.
fn has_file(state: &State, digest: usize) -> bool {
    state.blobs[digest].as_ref().is_some_and(|blob| {
        let copy = Copy { digest, generation: blob.generation };
        blob.holders.iter().zip(&state.disks).any(|(holds, disk)| *holds && disk.contains(&copy))
    })
}

fn usage_is_exact(world: &World, state: &State) -> bool {
    (0..TENANTS).all(|tenant| {
        let held: BTreeSet<usize> = state
            .links
            .iter()
            .enumerate()
            .filter(|(repository, _)| world.tenant_of[*repository] == tenant)
            .flat_map(|(_, links)| links.iter().enumerate())
            .filter_map(|(digest, link)| link.as_ref().map(|_| digest))
            .collect();
        held.len() == usize::from(state.usage[tenant])
    })
}

fn only_what_is_needed_stays(world: &World, state: &State) -> bool {
    // Of a state that is wrong already, another property tells.
    if state.refused || state.broken || !needed_is_read(state) || !shown_is_live(state) {
        return true;
    }
    let drained = world.drained(state);
    let is_needed = |digest: usize| drained.needed.iter().any(|needed| needed[digest]);
    let files = drained.disks.iter().flatten();
    drained.garbage.is_empty()
        && drained.needed == state.needed
        && needed_is_read(&drained)
        && files.clone().all(|copy| is_needed(copy.digest) && drained.is_live(*copy))
        && (0..REPOSITORIES).all(|repository| {
            let links = drained.links[repository].iter().zip(drained.needed[repository]);
            links.into_iter().all(|(link, is_needed)| link.is_some() == is_needed)
        })
}

fn is_pushed_again(state: &State) -> bool {
    let is_live = |garbage: &Garbage| state.blobs[garbage.copy.digest].is_some();
    state.garbage.iter().any(is_live)
}

fn mount_is_late(state: &State) -> bool {
    state
        .clients
        .iter()
        .any(|client| matches!(client, Client::Mounting(digest) if state.blobs[*digest].is_none()))
}

fn node_misses_a_sweep(state: &State) -> bool {
    state.garbage.iter().any(|garbage| garbage.holders == [false, true] && !state.up[1])
}
