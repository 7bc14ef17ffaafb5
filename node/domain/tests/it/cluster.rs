//! Answers of the cluster's own commands: founding, joining, standings, levels, holders, and proposals that come twice.

use nora_domain::{
    Action, AddHolder, AddSigningKey, AdmitNode, AuthorityRecord, BeginRotation, ClusterRecord,
    Command, CommitBlob, CreateJoinToken, DropHolder, Epoch, Event, Expected, FeatureLevel,
    FoundCluster, Key, LoseObject, MemoryStore, NodeId, NodeProfile, NodeRecord, Origin, Outcome,
    Placement, PutVersion, RaiseFeatureLevel, Record, Refusal, RevokeJoinToken, RotationStage,
    SetReplicas, SetStanding, SigningKeyRecord, Standing, StartNode, Storage, StorageMode, Store,
    Terms, Timestamp, TokenId, UploadId, recount::recount,
};

use crate::projection::{Projection, kind};
use crate::properties::samples;
use crate::universe::{confirmation, digest, found, profile, rotation, row, run, start};
use crate::world::{
    NODE, World, commit, commit_as, committed, delete_tag, generation, missing, mount, open, pin,
    put, stored,
};

fn founded() -> World {
    let mut world = World::new();
    world.check(found(), Ok(Outcome::FoundCluster(())));
    world.check(token(), Ok(Outcome::CreateJoinToken(())));
    world
}

fn token() -> Action {
    Action::CreateJoinToken(CreateJoinToken {
        token: TokenId(5),
        secret_hash: [5; 32],
        lives_millis: 57_000,
        uses: u32::MAX,
    })
}

fn admit(key: u8) -> Action {
    Action::AdmitNode(AdmitNode {
        token: TokenId(5),
        secret_hash: [5; 32],
        key_hash: [key; 32],
        profile: profile(),
    })
}

fn stand(node: u64, standing: Standing) -> Action {
    Action::SetStanding(SetStanding { node: NodeId(node), standing })
}

/// Three nodes that have started.
pub fn three() -> World {
    let mut world = founded();
    for (key, node) in [(1, NodeId(2)), (2, NodeId(3))] {
        world.check(admit(key), Ok(Outcome::AdmitNode(node)));
        world.given([start(node)]);
    }
    world
}

fn node(world: &World, node: u64) -> NodeRecord {
    match row(&world.store, &Key::Node(NodeId(node))) {
        Some(Record::Node(record)) => record,
        other => panic!("{other:?}"),
    }
}

fn has_session(world: &World, epoch: u64) -> bool {
    world.store.head().sessions.contains_key(&Epoch(epoch))
}

fn cluster(world: &World) -> ClusterRecord {
    match row(&world.store, &Key::Cluster) {
        Some(Record::Cluster(record)) => record,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_is_founded_once() {
    let mut world = World::new();
    world.check(token(), Err(Refusal::NotFounded));
    let replicas = || Action::SetReplicas(SetReplicas { replicas: 2 });
    world.check(replicas(), Err(Refusal::NotFounded));
    world.check(found(), Ok(Outcome::FoundCluster(())));
    assert_eq!(world.pointers, [Event::FeatureLevelRaised { level: FeatureLevel::FIRST }]);
    assert_eq!(cluster(&world).last_node, NODE);
    world.check(found(), Err(Refusal::ClusterFounded));
    world.check(start(NodeId(2)), Err(Refusal::NodeUnknown(NodeId(2))));

    // Before its first start, too; and no other node than its founder starts unasked.
    let mut world = World::default();
    world.check(start(NodeId(2)), Err(Refusal::NodeUnknown(NodeId(2))));
    world.check(found(), Ok(Outcome::FoundCluster(())));
    world.check(start(NODE), Ok(Outcome::StartNode(Epoch(1))));
    world.check(token(), Ok(Outcome::CreateJoinToken(())));
    world.check(admit(1), Ok(Outcome::AdmitNode(NodeId(2))));
}

#[test]
fn a_token_admits_as_many_nodes_as_it_was_made_for() {
    let mut world = founded();
    let made = |token: u8, uses| {
        Action::CreateJoinToken(CreateJoinToken {
            token: TokenId(token.into()),
            secret_hash: [token; 32],
            lives_millis: 50_000,
            uses,
        })
    };
    let shown = |token: u8, key| {
        Action::AdmitNode(AdmitNode {
            token: TokenId(token.into()),
            secret_hash: [token; 32],
            key_hash: [key; 32],
            profile: profile(),
        })
    };
    world.check(made(8, 1), Ok(Outcome::CreateJoinToken(())));
    world.check(shown(8, 1), Ok(Outcome::AdmitNode(NodeId(2))));
    world.check(shown(8, 2), Err(Refusal::TokenSpent));
    // The node that it admitted has lost the answer, and asks again.
    world.check(shown(8, 1), Ok(Outcome::AdmitNode(NodeId(2))));
    world.check(shown(8, 2), Err(Refusal::TokenSpent));

    world.check(made(9, 3), Ok(Outcome::CreateJoinToken(())));
    world.check(shown(9, 3), Ok(Outcome::AdmitNode(NodeId(3))));
    let left = match row(&world.store, &Key::JoinToken(TokenId(9))) {
        Some(Record::JoinToken(token)) => token.uses_left,
        other => panic!("{other:?}"),
    };
    assert_eq!(left, 2);
    let revoke = || Action::RevokeJoinToken(RevokeJoinToken { token: TokenId(9) });
    world.check(revoke(), Ok(Outcome::RevokeJoinToken(())));
    world.check(shown(9, 4), Err(Refusal::TokenUnknown));
    world.check(revoke(), Err(Refusal::TokenUnknown));
}

fn authority(world: &World) -> AuthorityRecord {
    match row(&world.store, &Key::Authority) {
        Some(Record::Authority(record)) => record,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_authority_is_replaced_once_every_member_is_ready() {
    let mut world = three();
    let key = SigningKeyRecord {
        secret: [3; 32],
        created_at: Timestamp(0),
        expires_at: Timestamp(1_000_000),
    };
    world.given([Action::AddSigningKey(AddSigningKey { after: None, key })]);
    let old = authority(&world);
    let begin = |authority| Action::BeginRotation(rotation(authority));
    let confirm = |world: &World, node| confirmation(&world.store, node, false);
    let stage = |world: &World| authority(world).rotation.map(|rotation| rotation.stage);
    world.check(confirm(&world, 1), Err(Refusal::RotationMoved));
    world.check(begin(2), Ok(Outcome::BeginRotation(())));
    world.check(begin(3), Err(Refusal::RotationUnderWay));
    // The tokens that there were name the authority that goes; nobody joins until there are others.
    world.check(admit(1), Err(Refusal::TokenUnknown));
    world.check(token(), Err(Refusal::RotationUnderWay));

    // Each stage waits for every member. One that confirms twice counts once.
    let late = confirm(&world, 3);
    for node in [1, 2, 1] {
        world.check(confirm(&world, node), Ok(Outcome::ConfirmRotation(())));
        assert_eq!(stage(&world), Some(RotationStage::Trust));
    }
    world.check(late.clone(), Ok(Outcome::ConfirmRotation(())));
    assert_eq!(stage(&world), Some(RotationStage::Show));
    world.check(late, Err(Refusal::RotationMoved));
    world.check(confirm(&world, 9), Err(Refusal::NodeUnknown(NodeId(9))));
    for node in [1, 2] {
        world.check(confirm(&world, node), Ok(Outcome::ConfirmRotation(())));
        let now = authority(&world);
        assert_eq!((&now.keys, &now.secret), (&old.keys, &old.secret));
    }
    // A member that never answers is removed, and is not waited for any longer.
    world.check(stand(3, Standing::Removed), Ok(Outcome::SetStanding(())));
    let BeginRotation { keys, secret, .. } = rotation(2);
    assert_eq!(authority(&world), AuthorityRecord { keys, secret, rotation: None });
    assert_eq!(row(&world.store, &Key::SigningKey(1)), None);
    match row(&world.store, &Key::SigningKey(2)) {
        Some(Record::SigningKey(key)) => assert_eq!(key.secret, [102; 32]),
        other => panic!("{other:?}"),
    }
    world.check(token(), Ok(Outcome::CreateJoinToken(())));
    world.check(begin(3), Ok(Outcome::BeginRotation(())));
}

#[test]
fn a_node_joins_with_a_token_and_numbers_are_never_used_again() {
    let mut world = founded();
    let wrong = Action::AdmitNode(AdmitNode {
        token: TokenId(5),
        secret_hash: [6; 32],
        key_hash: [1; 32],
        profile: profile(),
    });
    world.check(wrong, Err(Refusal::TokenUnknown));
    world.check(admit(1), Ok(Outcome::AdmitNode(NodeId(2))));
    // The same key again before it ever started: the same node. Another key: another.
    world.check(admit(1), Ok(Outcome::AdmitNode(NodeId(2))));
    world.check(admit(2), Ok(Outcome::AdmitNode(NodeId(3))));
    world.check(start(NodeId(2)), Ok(Outcome::StartNode(Epoch(2))));
    assert_eq!(node(&world, 2).standing, Standing::Active);

    world.check(stand(3, Standing::Removed), Ok(Outcome::SetStanding(())));
    world.check(start(NodeId(3)), Err(Refusal::NodeRemoved(NodeId(3))));
    world.check(admit(2), Ok(Outcome::AdmitNode(NodeId(4))));
    assert_eq!(world.answer(60_000, admit(3)), Err(Refusal::TokenExpired));
    // The next token sweeps out the one that has expired.
    let next = Action::CreateJoinToken(CreateJoinToken {
        token: TokenId(6),
        secret_hash: [6; 32],
        lives_millis: 29_000,
        uses: u32::MAX,
    });
    world.answer(61_000, next).unwrap();
    assert_eq!(world.answer(62_000, admit(3)), Err(Refusal::TokenUnknown));
}

#[test]
fn a_start_that_is_told_twice_is_one() {
    let mut world = founded();
    let after = |replaces, start| {
        Action::StartNode(StartNode { node: NODE, start, replaces, profile: profile() })
    };
    let named = |name| after(0, name);
    world.check(named(9), Ok(Outcome::StartNode(Epoch(2))));
    world.check(named(9), Ok(Outcome::StartNode(Epoch(2))));
    assert_eq!(world.pointers, []);
    // One that was away all the while runs on under its epoch.
    world.check(stand(1, Standing::Away), Ok(Outcome::SetStanding(())));
    world.check(named(9), Ok(Outcome::StartNode(Epoch(2))));
    assert_eq!(world.pointers, [Event::NodeChanged { node: NODE }]);
    assert_eq!(node(&world, 1).standing, Standing::Active);
    world.check(stand(1, Standing::Draining), Ok(Outcome::SetStanding(())));
    world.check(named(9), Ok(Outcome::StartNode(Epoch(2))));
    assert_eq!(node(&world, 1).standing, Standing::Draining);
    world.check(after(9, 10), Ok(Outcome::StartNode(Epoch(3))));
    assert!(!has_session(&world, 2) && has_session(&world, 3));
    // Copies of earlier starts that come late, known ones and one that nobody heard of, retire nothing.
    for late in [named(9), after(0, 8), after(9, 8)] {
        world.check(late, Err(Refusal::StartReplaced));
    }
    world.check(after(9, 10), Ok(Outcome::StartNode(Epoch(3))));
    assert!(has_session(&world, 3));
}

#[test]
fn standings_follow_one_another() {
    let mut world = three();
    let set = Ok(Outcome::SetStanding(()));
    world.check(stand(2, Standing::Draining), set.clone());
    // A draining node that starts anew goes on draining.
    world.given([start(NodeId(2))]);
    assert_eq!(node(&world, 2).standing, Standing::Draining);
    let (from, to) = (Standing::Draining, Standing::Away);
    world.check(stand(2, to), Err(Refusal::StandingImpossible { from, to }));
    world.check(stand(2, Standing::Active), set.clone());
    world.check(stand(2, Standing::Away), set.clone());
    // One that was away comes back by starting, and not by being told so.
    let (from, to) = (Standing::Away, Standing::Active);
    world.check(stand(2, to), Err(Refusal::StandingImpossible { from, to }));
    world.given([start(NodeId(2))]);
    assert_eq!(node(&world, 2).standing, Standing::Active);
    world.check(stand(2, Standing::Removed), set);
    world.check(stand(2, Standing::Active), Err(Refusal::NodeRemoved(NodeId(2))));
    world.check(stand(9, Standing::Away), Err(Refusal::NodeUnknown(NodeId(9))));
}

#[test]
fn the_level_is_what_every_member_understands() {
    let mut world = three();
    let level = FeatureLevel(FeatureLevel::NEWEST.0 + 1);
    let understood = FeatureLevel::NEWEST;
    let raise = || Action::RaiseFeatureLevel(RaiseFeatureLevel { level });
    world.check(raise(), Err(Refusal::MemberTooOld { node: NODE, understood }));
    let newer = |node| {
        Action::StartNode(StartNode {
            node: NodeId(node),
            start: 0,
            replaces: 0,
            profile: NodeProfile { feature_max: level, ..NodeProfile::default() },
        })
    };
    world.given([newer(1), newer(2)]);
    world.check(raise(), Err(Refusal::MemberTooOld { node: NodeId(3), understood }));
    world.check(stand(3, Standing::Removed), Ok(Outcome::SetStanding(())));
    world.check(raise(), Ok(Outcome::RaiseFeatureLevel(())));
    world.check(
        Action::RaiseFeatureLevel(RaiseFeatureLevel { level: understood }),
        Ok(Outcome::RaiseFeatureLevel(())),
    );
    assert_eq!(cluster(&world).feature_level, level);
    let too_old = Refusal::FeatureTooOld { level, understood };
    world.check(start(NodeId(2)), Err(too_old.clone()));
    world.check(admit(7), Err(too_old));
}

#[test]
fn holders_come_after_their_copy_and_go_while_others_stay() {
    let mut world = three();
    let add = |node| {
        Action::AddHolder(AddHolder {
            digest: digest(1),
            generation: generation(1, 1),
            node: NodeId(node),
        })
    };
    let drop = |node, keep| {
        Action::DropHolder(DropHolder {
            digest: digest(1),
            generation: generation(1, 1),
            node: NodeId(node),
            keep,
        })
    };
    world.check(add(2), Err(Refusal::StaleGeneration(digest(1))));
    world.check(commit(0, 1), committed(1, 1));
    world.check(add(2), Ok(Outcome::AddHolder(())));
    assert_eq!(world.pointers, [Event::BlobPlaced { digest: digest(1) }]);
    world.check(add(2), Ok(Outcome::AddHolder(())));
    assert_eq!(world.pointers, []);
    world.check(add(9), Err(Refusal::NodeUnknown(NodeId(9))));
    assert_eq!(world.blob(1).placement, Placement::Nodes(vec![NODE, NodeId(2)]));

    world.check(drop(1, 2), Err(Refusal::TooFewHolders { digest: digest(1), left: 1 }));
    world.check(stand(2, Standing::Away), Ok(Outcome::SetStanding(())));
    // Who is away counts for nothing.
    world.check(drop(1, 1), Err(Refusal::TooFewHolders { digest: digest(1), left: 0 }));
    world.check(drop(3, 1), Ok(Outcome::DropHolder(())));
    world.check(drop(1, 0), Ok(Outcome::DropHolder(())));
    world.check(drop(2, 0), Ok(Outcome::DropHolder(())));
    assert_eq!(world.blob(1).placement, Placement::Nodes(Vec::new()));

    // Nothing is built on what is lost: clients are told that they must push it.
    let unknown = || Err(Refusal::BlobUnknown(digest(1)));
    world.check(pin(0, 1, 70_000), unknown());
    world.check(mount(0, 1, 1), unknown());
    world.check(put(0, 7, &[1], &[], &[]), missing(&[1], &[]));
    // A blob that every holder has lost is whole again with the next push, as another copy.
    let again = commit_as(0, 1, 100, generation(1, 8), 1, 0);
    world.given([open(1, 0, NODE, 99_000)]);
    world.check(again, committed(1, 8));
    assert_eq!(world.blob(1).placement, Placement::Nodes(vec![NODE]));
    world.check(add(2), Err(Refusal::StaleGeneration(digest(1))));
    world.check(put(0, 7, &[1], &[], &[]), stored(true));
}

#[test]
fn a_commit_counts_members_alone_as_holders() {
    let mut world = three();
    let commit_at = |nodes: &[u64]| {
        let mut action = commit(0, 1);
        if let Action::CommitBlob(CommitBlob { placement, .. }) = &mut action {
            *placement = Placement::Nodes(nodes.iter().map(|node| NodeId(*node)).collect());
        }
        action
    };
    world.given([stand(3, Standing::Removed)]);
    let too_few = Refusal::TooFewHolders { digest: digest(1), left: 0 };
    world.check(commit_at(&[3, 9]), Err(too_few.clone()));
    world.check(commit_at(&[]), Err(too_few));
    world.check(commit_at(&[3, 2, 1, 2]), committed(1, 1));
    assert_eq!(world.blob(1).placement, Placement::Nodes(vec![NODE, NodeId(2)]));
    // Told twice of one copy, the blob has the holders of both.
    world.check(stand(3, Standing::Active), Err(Refusal::NodeRemoved(NodeId(3))));
    world.given([admit(3), start(NodeId(4))]);
    world.check(commit_at(&[2, 4]), committed(1, 1));
    let all = Placement::Nodes(vec![NODE, NodeId(2), NodeId(4)]);
    assert_eq!(world.blob(1).placement, all);
    world.given([stand(1, Standing::Removed)]);
    world.check(commit_at(&[1, 2]), Err(Refusal::RetiredEpoch));
    // One that was admitted and has never started has no epoch to write under.
    world.check(admit(7), Ok(Outcome::AdmitNode(NodeId(5))));
    let mut early = commit_as(0, 2, 100, generation(0, 1), 1, 0);
    if let Action::CommitBlob(CommitBlob { node, .. }) = &mut early {
        *node = NodeId(5);
    }
    world.check(early, Err(Refusal::RetiredEpoch));
}

/// A commit of blob `i` as its `sequence`-th copy, on these nodes.
fn commit_on(i: u8, sequence: u64, nodes: &[u64]) -> Action {
    let mut action = commit_as(0, i, 100, generation(1, sequence), 1, 0);
    if let Action::CommitBlob(CommitBlob { placement, .. }) = &mut action {
        *placement = on(nodes);
    }
    action
}

fn on(nodes: &[u64]) -> Placement {
    Placement::Nodes(nodes.iter().map(|node| NodeId(*node)).collect())
}

/// A commit of blob `i` to the shared bucket.
fn commit_object(i: u8, sequence: u64) -> Action {
    let mut action = commit_as(0, i, 100, generation(1, sequence), 1, 0);
    if let Action::CommitBlob(CommitBlob { placement, .. }) = &mut action {
        *placement = Placement::Object(UploadId(sequence.into()));
    }
    action
}

fn lose(i: u8, sequence: u64) -> Action {
    let (digest, generation) = (digest(i), generation(1, sequence));
    Action::LoseObject(LoseObject { digest, generation })
}

fn too_few(i: u8, left: u32) -> Result<Outcome, Refusal> {
    Err(Refusal::TooFewHolders { digest: digest(i), left })
}

fn replicas(replicas: u32) -> Action {
    Action::SetReplicas(SetReplicas { replicas })
}

#[test]
fn the_number_of_copies_is_the_clusters() {
    let mut world = three();
    let wanted = |world: &World| cluster(world).storage.map(|storage| storage.replicas);
    assert_eq!(wanted(&world), Some(1));
    world.check(replicas(3), Ok(Outcome::SetReplicas(())));
    assert_eq!(world.pointers, [Event::ReplicasChanged { replicas: 3 }]);
    world.check(replicas(3), Ok(Outcome::SetReplicas(())));
    assert_eq!(world.pointers, []);
    world.check(replicas(0), Ok(Outcome::SetReplicas(())));
    assert_eq!((world.pointers.len(), wanted(&world)), (1, Some(1)), "one copy at least");

    // In a bucket there is nothing to count.
    let mut world = World::new();
    let Action::FoundCluster(founding) = found() else { panic!() };
    let storage = Storage { mode: StorageMode::Object, replicas: 3 };
    world.given([Action::FoundCluster(FoundCluster { storage, ..founding }), replicas(2)]);
    assert_eq!(cluster(&world).storage, Some(storage));
    world.check(commit_object(1, 1), committed(1, 1));
    assert_eq!(world.blob(1).placement, Placement::Object(UploadId(1)));
}

#[test]
fn a_push_is_acknowledged_with_a_majority_of_what_there_can_be() {
    let mut world = three();
    world.given([replicas(3)]);
    world.check(commit_on(1, 1, &[1]), too_few(1, 1));
    assert!(!world.has(&Key::Blob(digest(1))));
    world.check(commit_on(1, 1, &[1, 2]), committed(1, 1));
    // Two copies of five are as many as four nodes and fewer can give a majority of.
    world.given([replicas(5)]);
    world.check(commit_on(3, 3, &[1, 2]), committed(1, 3));
    // A node that is away, or one that never started, counts for nothing.
    world.given([stand(3, Standing::Away), admit(9)]);
    world.check(commit_on(4, 4, &[1, 3, 4]), too_few(4, 1));
    world.check(commit_on(4, 4, &[1, 2, 3]), committed(1, 4));
    assert_eq!(world.blob(4).placement, on(&[1, 2, 3]));
    // With one active node left, its copy is all that can be had; one that is draining still serves.
    world.given([stand(2, Standing::Draining)]);
    world.check(commit_on(5, 5, &[1]), committed(1, 5));
    world.check(commit_on(6, 6, &[2]), committed(1, 6));
    world.check(commit_on(7, 7, &[3]), too_few(7, 0));
}

#[test]
fn a_copy_that_enough_nodes_serve_stays() {
    let mut world = three();
    world.given([replicas(2)]);
    world.check(commit_on(1, 1, &[1, 2]), committed(1, 1));
    world.check(commit_on(1, 8, &[1, 2]), committed(1, 1));
    world.check(commit_on(1, 8, &[1, 2, 3]), committed(1, 1));
    assert_eq!(world.pointers, []);
    // Even the copy that nobody needs is the one to read.
    world.check(commit_on(1, 9, &[3]), committed(1, 1));
    assert_eq!(
        (world.blob(1).generation, world.blob(1).placement),
        (generation(1, 1), on(&[1, 2]))
    );
}

#[test]
fn a_copy_that_too_few_nodes_serve_is_replaced_by_one_that_enough_do() {
    let mut world = three();
    world.given([replicas(3), commit_on(1, 1, &[1, 2]), stand(2, Standing::Away)]);
    // Two are active; both must hold it, and of the known copy one does.
    world.given([put(0, 7, &[1], &[], &[])]);
    world.check(commit_on(1, 8, &[1]), too_few(1, 1));
    world.check(commit_on(1, 8, &[3]), too_few(1, 1));
    assert_eq!(world.blob(1).generation, generation(1, 1));
    world.check(commit_on(1, 8, &[1, 3]), committed(1, 8));
    assert_eq!(world.pointers, [Event::BlobPlaced { digest: digest(1) }]);
    let blob = world.blob(1);
    assert_eq!((blob.generation, blob.placement, blob.tenants), (generation(1, 8), on(&[1, 3]), 1));
    // What needs it, and how long it is kept, is as before.
    assert_eq!((world.held(0, 1).references, world.held(0, 1).links), (1, 1));
    // The copy that was replaced is nobody's any more.
    let late = AddHolder { digest: digest(1), generation: generation(1, 1), node: NodeId(2) };
    world.check(Action::AddHolder(late), Err(Refusal::StaleGeneration(digest(1))));
}

#[test]
fn a_blob_whose_holders_are_all_gone_is_readable_with_the_next_push() {
    for gone in [Standing::Away, Standing::Removed] {
        let mut world = three();
        world.given([commit_on(1, 1, &[2, 3]), stand(2, gone), stand(3, gone)]);
        // The first push brings another copy; bytes on nodes that are gone are worth nothing.
        world.check(commit_on(1, 8, &[2]), too_few(1, 0));
        world.check(commit_on(1, 9, &[1]), committed(1, 9));
        assert_eq!(world.pointers, [Event::BlobPlaced { digest: digest(1) }]);
        let blob = world.blob(1);
        assert_eq!((blob.generation, blob.placement), (generation(1, 9), on(&[1])));
        world.check(put(0, 7, &[1], &[], &[]), stored(true));
        // The same with a tenant that holds it already, and with one that does not.
        world.check(commit_on(1, 10, &[1]), committed(1, 9));
    }
}

#[test]
fn a_copy_told_of_twice_is_one_copy() {
    let mut world = three();
    world.given([replicas(3), commit_on(1, 1, &[1, 2]), stand(2, Standing::Away)]);
    // One of the two serves: told again with a third holder, both reports count together.
    world.check(commit_on(1, 1, &[1]), too_few(1, 1));
    world.check(commit_on(1, 1, &[3]), committed(1, 1));
    assert_eq!(world.blob(1).placement, on(&[1, 2, 3]));
    assert_eq!(world.pointers, [Event::BlobPlaced { digest: digest(1) }]);
    world.check(commit_on(1, 1, &[1, 3]), committed(1, 1));
    assert_eq!(world.pointers, []);
}

#[test]
fn a_copy_in_another_kind_of_place_is_replaced() {
    let mut world = three();
    world.given([commit_on(1, 1, &[1])]);
    world.check(commit_object(1, 8), committed(1, 8));
    assert_eq!(world.pointers, [Event::BlobPlaced { digest: digest(1) }]);
    assert_eq!(world.blob(1).placement, Placement::Object(UploadId(8)));
    world.check(commit_object(1, 9), committed(1, 8));
    world.check(commit_on(1, 10, &[2]), committed(1, 10));
    assert_eq!(world.blob(1).placement, on(&[2]));
    // One object is one copy: where more are wanted it is too few, and the known copy stays.
    world.given([replicas(3)]);
    world.check(commit_object(1, 11), too_few(1, 1));
    assert_eq!(world.blob(1).generation, generation(1, 10));
}

#[test]
fn an_object_that_is_gone_is_lost_until_the_next_push() {
    let mut world = three();
    let stale = || Err(Refusal::StaleGeneration(digest(1)));
    world.check(lose(1, 1), stale());
    world.given([commit_object(1, 1), put(0, 7, &[1], &[], &[])]);
    world.check(lose(1, 2), stale());
    world.check(lose(1, 1), Ok(Outcome::LoseObject(())));
    assert_eq!(world.pointers, [Event::BlobPlaced { digest: digest(1) }]);
    assert!(world.blob(1).placement.is_lost());
    world.check(lose(1, 1), stale());
    // Nothing is built on it.
    world.check(pin(0, 1, 5), Err(Refusal::BlobUnknown(digest(1))));
    world.check(mount(0, 1, 1), Err(Refusal::BlobUnknown(digest(1))));
    world.check(put(0, 8, &[1], &[], &[]), missing(&[1], &[]));
    world.check(commit_object(1, 3), committed(1, 3));
    assert_eq!(world.blob(1).placement, Placement::Object(UploadId(3)));
    world.check(put(0, 8, &[1], &[], &[]), stored(true));
    // Copies on nodes are dropped one by one, and not so.
    world.given([commit_on(2, 5, &[1])]);
    world.check(lose(2, 5), Err(Refusal::StaleGeneration(digest(2))));
    // Nor has an object holders.
    let holder = AddHolder { digest: digest(1), generation: generation(1, 3), node: NODE };
    world.check(Action::AddHolder(holder), stale());
}

fn proposal(epoch: u64, serial: u64, settled_below: u64, action: Action) -> Command {
    let origin = Some(Origin { epoch: Epoch(epoch), serial, settled_below });
    Command { at: Timestamp(1_000), origin, terms: Terms::default(), action }
}

#[test]
fn a_proposal_takes_effect_once() {
    let mut world = World::new();
    world.given([commit(0, 1)]);
    let mut apply = |command: Command| {
        world.position += 1;
        let answer = run(&mut world.store, world.position, &command).answer;
        assert_eq!(recount(&world.store), Vec::new());
        answer
    };
    let duplicate = Err(Refusal::Duplicate);
    let put_it = proposal(1, 4, 4, put(0, 7, &[1], &[], &["v1"]));
    assert_eq!(apply(put_it.clone()), stored(true));
    assert_eq!(apply(put_it.clone()), duplicate);
    // A tag that was deleted since does not come back with a late copy of the command that set it.
    assert!(apply(proposal(1, 5, 4, delete_tag(0, "v1"))).is_ok());
    assert_eq!(apply(put_it), duplicate);

    // Refused counts as decided: its proposer was told so.
    let early = proposal(1, 7, 4, put(0, 8, &[2], &[], &["v2"]));
    assert!(matches!(apply(early.clone()), Err(Refusal::ReferencesMissing { .. })));
    assert_eq!(apply(proposal(1, 6, 4, commit(0, 2))), committed(1, 2));
    assert_eq!(apply(early), duplicate);

    // What its proposer has given up takes no effect any more.
    assert!(apply(proposal(1, 12, 11, commit(0, 3))).is_ok());
    assert_eq!(apply(proposal(1, 10, 8, commit(0, 4))), duplicate);
    assert_eq!(apply(proposal(2, 1, 0, commit(0, 4))), Err(Refusal::RetiredEpoch));
    let session = &world.store.head().sessions[&Epoch(1)];
    assert_eq!((session.applied_below, &session.applied), (11, &vec![12]));
}

#[test]
fn a_start_ends_what_the_one_before_has_proposed() {
    let mut world = World::new();
    world.given([start(NODE)]);
    world.position += 1;
    let late = run(&mut world.store, world.position, &proposal(1, 0, 0, commit(0, 1)));
    assert_eq!(late.answer, Err(Refusal::RetiredEpoch));
}

#[test]
fn a_node_that_removes_itself_leaves_no_session() {
    let mut world = three();
    world.position += 1;
    let command = proposal(1, 0, 0, stand(1, Standing::Removed));
    let applied = run(&mut world.store, world.position, &command);
    assert_eq!(applied.answer, Ok(Outcome::SetStanding(())));
    assert!(!has_session(&world, 1));
    assert_eq!(recount(&world.store), Vec::new());
}

/// However often and however late commands are delivered again: the state is as if each had come once, at its first place.
#[test]
fn commands_that_come_again_change_nothing() {
    let mut repeated = 0;
    for (sample, ops) in samples(60).iter().enumerate() {
        let (mut once, mut often) = Default::default();
        let mut told = Projection::default();
        let (mut delivered, mut position) = (Vec::new(), 0);
        for (op, serial) in ops.iter().zip(1..) {
            let mut command = op.command(&once, serial);
            // Positions differ below, and revisions are positions.
            command.terms.revision = None;
            if let Action::PutVersion(PutVersion { expected, .. }) = &mut command.action
                && matches!(expected, Expected::Revision(_))
            {
                *expected = Expected::Any;
            }
            // Node 1 proposes everything but starts, which are told apart by their names.
            let starts = matches!(command.action, Action::StartNode(StartNode { .. }));
            if let (false, Some(Record::Node(node))) = (starts, row(&once, &Key::Node(NODE))) {
                command.origin =
                    Some(Origin { epoch: node.epoch, serial, settled_below: serial.max(20) - 20 });
                delivered.push(command.clone());
            }
            run(&mut once, serial, &command);
            position += 1;
            let first = run(&mut often, position, &command);
            assert!(
                first.events.iter().all(|event| told.follow(event)),
                "{:?}",
                first.events.first().map(kind)
            );
            // Up to two earlier ones come again.
            for pick in 0..(sample + serial as usize) % 3 {
                let Some(again) = delivered
                    .get((sample * 7 + serial as usize * 3 + pick) % delivered.len().max(1))
                else {
                    continue;
                };
                position += 1;
                let before = often.clone();
                let applied = run(&mut often, position, again);
                let expected =
                    matches!(applied.answer, Err(Refusal::Duplicate | Refusal::RetiredEpoch));
                assert!(expected && applied.events.is_empty(), "{again:?}: {applied:?}");
                assert_eq!(before, often);
                repeated += 1;
            }
        }
        assert_eq!(Projection::of(&once), told);
        // Revisions are positions, and positions differ; everything else is the same.
        let rows = |store: &MemoryStore| -> Vec<(Key, Record)> {
            let unrevised = |(key, record): (&Key, &Record)| {
                let mut record = record.clone();
                match &mut record {
                    Record::Repository(repository) => repository.revision = 0,
                    Record::Version(version) => version.revision = 0,
                    // The chain covers positions.
                    Record::Journal(entry) => (entry.position, entry.chain) = (0, [0; 32]),
                    Record::Segment(segment) => {
                        (segment.anchor, segment.head) = ([0; 32], [0; 32]);
                    }
                    _ => {}
                }
                (key.clone(), record)
            };
            store.rows().map(unrevised).collect()
        };
        assert_eq!(rows(&once), rows(&often));
    }
    assert!(repeated > 1_000, "{repeated}");
}
