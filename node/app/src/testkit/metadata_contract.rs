//! What every adapter of the port `Metadata` must do, whatever its log and its store are.

use futures_util::future::join_all;
use nora_domain::{
    Action, ArtifactStored, BlobCommitted, Body, CloseUpload, Command, CommitBlob, DeleteTag,
    Digest, Epoch, Format, Generation, Holder, Key, MediaType, NodeId, OpenUpload, Outcome,
    PinBlob, Placement, PutArtifact, Record, Refusal, RepositoryKey, Rows, TagName, Target,
    TenantName, Terms, Timestamp, UploadId,
};

use super::{admit_node, create_join_token, found_cluster, repository, start_node};
use crate::ports::metadata::Metadata;

/// Rows of each run that is paged through.
const ROWS: u64 = 13;

/// A length of time in which nothing of the suite expires.
const LONG: u64 = 1 << 40;

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

/// Runs the whole suite on a state that holds no repository, blob or session yet. Founds the cluster, unless it is.
pub async fn metadata_contract(metadata: &dyn Metadata) {
    let node = admitted(metadata).await;
    starts_get_growing_epochs(metadata, node).await;
    an_answer_means_applied(metadata, node).await;
    a_refusal_is_an_answer_and_changes_nothing(metadata).await;
    proposals_at_once_are_all_answered(metadata, node).await;
    rows_come_in_order_and_in_pages(metadata, node).await;
}

/// A node that no adapter runs as: starting it retires nobody's epoch.
async fn admitted(metadata: &dyn Metadata) -> NodeId {
    let founded = propose(metadata, found_cluster()).await;
    assert!(matches!(founded, Ok(_) | Err(Refusal::ClusterFounded)), "{founded:?}");
    assert_eq!(propose(metadata, create_join_token()).await, Ok(Outcome::CreateJoinToken(())));
    match propose(metadata, admit_node(0xad)).await {
        Ok(Outcome::AdmitNode(node)) => node,
        other => panic!("{other:?}"),
    }
}

async fn propose(metadata: &dyn Metadata, action: Action) -> Result<Outcome, Refusal> {
    metadata
        .propose(Command { at: Timestamp(1), origin: None, terms: Terms::NONE, action })
        .await
        .unwrap()
}

async fn start(metadata: &dyn Metadata, node: NodeId) -> Epoch {
    match propose(metadata, start_node(node)).await {
        Ok(Outcome::StartNode(epoch)) => epoch,
        other => panic!("{other:?}"),
    }
}

fn session(id: u64, repository: RepositoryKey, node: NodeId) -> Action {
    Action::OpenUpload(OpenUpload {
        upload: UploadId(id.into()),
        repository,
        node,
        lives_millis: LONG,
        reserve: 0,
    })
}

fn tag(number: u64) -> TagName {
    TagName::parse(&format!("v{number}")).unwrap()
}

/// Digests of both algorithms, in no order that their numbers would give.
fn digest(number: u64) -> Digest {
    let first = (number as u8).wrapping_mul(101);
    if number.is_multiple_of(2) { Digest::sha256([first; 32]) } else { Digest::sha512([first; 64]) }
}

async fn starts_get_growing_epochs(metadata: &dyn Metadata, node: NodeId) {
    let (first, second) = (start(metadata, node).await, start(metadata, node).await);
    assert!(first < second, "{first:?}, then {second:?}");
    let row = metadata.get(Key::Node(node)).await.unwrap();
    assert!(matches!(&row, Some(Record::Node(record)) if record.epoch == second), "{row:?}");
}

async fn an_answer_means_applied(metadata: &dyn Metadata, node: NodeId) {
    for id in 1000..1020 {
        let key = Key::Upload(tenant(), UploadId(id.into()));
        assert_eq!(metadata.get(key.clone()).await.unwrap(), None);
        let opened = propose(metadata, session(id, repository("contract/s"), node)).await;
        assert!(matches!(opened, Ok(Outcome::OpenUpload(_))), "{opened:?}");
        let row = metadata.get(key.clone()).await.unwrap();
        assert!(matches!(&row, Some(Record::Upload(lease)) if lease.node == node), "{row:?}");
        metadata.linearize().await.unwrap();
        assert_eq!(metadata.get(key.clone()).await.unwrap(), row);
        let closed = propose(
            metadata,
            Action::CloseUpload(CloseUpload { tenant: tenant(), upload: UploadId(id.into()) }),
        )
        .await;
        assert_eq!(closed, Ok(Outcome::CloseUpload(())));
        assert_eq!(metadata.get(key).await.unwrap(), None);
    }
}

async fn a_refusal_is_an_answer_and_changes_nothing(metadata: &dyn Metadata) {
    let before = metadata.get(Key::Cluster).await.unwrap();
    let action =
        Action::DeleteTag(DeleteTag { repository: repository("contract/none"), tag: tag(1) });
    // A refused command does not even move the clock.
    let answer = metadata
        .propose(Command { at: Timestamp(1 << 40), origin: None, terms: Terms::NONE, action })
        .await
        .unwrap();
    assert_eq!(answer, Err(Refusal::TagUnknown(tag(1))));
    assert_eq!(metadata.get(Key::Cluster).await.unwrap(), before);
}

async fn proposals_at_once_are_all_answered(metadata: &dyn Metadata, node: NodeId) {
    let ids = 2000..2064;
    let opened =
        ids.clone().map(|id| propose(metadata, session(id, repository("contract/s"), node)));
    for answer in join_all(opened).await {
        assert!(matches!(answer, Ok(Outcome::OpenUpload(_))), "{answer:?}");
    }
    let expected: Vec<_> =
        ids.clone().map(|id| Key::Upload(tenant(), UploadId(id.into()))).collect();
    let rows = metadata.scan(Rows::Uploads { tenant: tenant(), after: None }, 1000).await.unwrap();
    assert_eq!(rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), expected);
    let closed = ids.map(|id| {
        propose(
            metadata,
            Action::CloseUpload(CloseUpload { tenant: tenant(), upload: UploadId(id.into()) }),
        )
    });
    for answer in join_all(closed).await {
        assert_eq!(answer, Ok(Outcome::CloseUpload(())));
    }
    assert_eq!(
        metadata.scan(Rows::Uploads { tenant: tenant(), after: None }, 1000).await.unwrap(),
        vec![]
    );
}

async fn rows_come_in_order_and_in_pages(metadata: &dyn Metadata, node: NodeId) {
    // A name that begins with the other's: their rows are neighbours and must not mix.
    let (here, there) = (repository("contract/a"), repository("contract/a-b"));
    for repository in [&here, &there] {
        fill(metadata, repository, node).await;
    }
    let subject = digest(100);
    let named = Target::Artifact(digest(100));
    let keys = |key: &dyn Fn(u64) -> Key| {
        let mut keys: Vec<_> = (0..ROWS).map(key).collect();
        keys.sort();
        keys
    };
    let format = Format::Oci;
    let repositories = vec![Key::Repository(here.clone()), Key::Repository(there.clone())];
    let runs = [
        (Rows::Repositories { tenant: tenant(), format, after: None }, repositories),
        (
            Rows::Links { repository: here.clone(), after: None },
            keys(&|n| Key::Link(here.clone(), digest(n))),
        ),
        (
            Rows::TenantBlobs { tenant: tenant(), after: None },
            keys(&|n| Key::TenantBlob(tenant(), digest(n))),
        ),
        (
            Rows::Artifacts { repository: here.clone(), after: None },
            keys(&|n| Key::Artifact(here.clone(), digest(100 + n))),
        ),
        (
            Rows::Tags { repository: here.clone(), after: None },
            keys(&|n| Key::Tag(here.clone(), tag(n))),
        ),
        (
            Rows::TagsOf { repository: here.clone(), target: named.clone(), after: None },
            keys(&|n| Key::TagOf(here.clone(), named.clone(), tag(n))),
        ),
        (
            Rows::Referrers { repository: here.clone(), subject, after: None },
            keys(&|n| Key::Referrer(here.clone(), subject, digest(100 + n))),
        ),
        (Rows::Blobs { after: None }, keys(&|n| Key::Blob(digest(n)))),
        (
            Rows::Edges { repository: here.clone(), blob: digest(0) },
            keys(&|n| Key::Edge(here.clone(), digest(0), Holder::Artifact(digest(100 + n)))),
        ),
        (
            Rows::Uploads { tenant: tenant(), after: None },
            keys(&|n| Key::Upload(tenant(), UploadId((5000 + n).into()))),
        ),
    ];
    for (rows, expected) in runs {
        for limit in [1, 4, 13, 1000] {
            let found = pages(metadata, rows.clone(), limit).await;
            assert_eq!(found, expected, "{rows:?} in pages of {limit}");
        }
    }
    // A page may start after a name that is not there.
    let rows =
        Rows::Tags { repository: here.clone(), after: Some(TagName::parse("v3.1").unwrap()) };
    let next = metadata.scan(rows, 1).await.unwrap();
    assert_eq!(next.first().map(|(key, _)| key), Some(&Key::Tag(here, tag(4))));
}

/// Blobs 0.., artifacts 100.. that all need blob 0 and speak about artifact 100, tags that name that one, and
/// sessions.
async fn fill(metadata: &dyn Metadata, repository: &RepositoryKey, node: NodeId) {
    let epoch = start(metadata, node).await;
    for n in 0..ROWS {
        let commit = Action::CommitBlob(CommitBlob {
            repository: repository.clone(),
            digest: digest(n),
            size: 10,
            generation: Generation { epoch, sequence: n },
            node,
            chunk_root: [7; 32],
            upload: UploadId(0),
            pin_millis: LONG,
            placement: Placement::Nodes(vec![node]),
        });
        let committed = propose(metadata, commit).await;
        assert!(
            matches!(committed, Ok(Outcome::CommitBlob(BlobCommitted { .. }))),
            "{committed:?}"
        );
    }
    for n in 0..ROWS {
        let pin = Action::PinBlob(PinBlob {
            repository: repository.clone(),
            digest: digest(0),
            pin_millis: LONG,
        });
        assert_eq!(propose(metadata, pin).await, Ok(Outcome::PinBlob(())));
        let put = Action::PutArtifact(PutArtifact {
            repository: repository.clone(),
            digest: digest(100 + n),
            media_type: MediaType::parse("application/test").unwrap(),
            size: 2,
            body: Body::Inline(b"{}".as_slice().into()),
            subject: Some(digest(100)),
            artifact_type: None,
            annotations: Default::default(),
            blobs: vec![digest(0)],
            children: vec![],
            tags: if n == 0 { (0..ROWS).map(tag).collect() } else { vec![] },
        });
        assert_eq!(
            propose(metadata, put).await,
            Ok(Outcome::PutArtifact(ArtifactStored { created: true }))
        );
        // The second repository's are refused: a session does not change hands.
        let _ = propose(metadata, session(5000 + n, repository.clone(), node)).await;
    }
}

/// The keys of a run, read page by page.
async fn pages(metadata: &dyn Metadata, rows: Rows, limit: usize) -> Vec<Key> {
    let mut rows = Some(rows);
    let mut found: Vec<Key> = Vec::new();
    while let Some(page) = rows.take() {
        // Some runs are not for paging: one page holds all of what is asked.
        let limit = if matches!(page, Rows::Edges { .. }) { 1000 } else { limit };
        let read = metadata.scan(page.clone(), limit).await.unwrap();
        assert!(read.len() <= limit, "{} rows for {limit}", read.len());
        if read.len() == limit {
            rows = read.last().map(|(last, _)| following(page, last));
        }
        found.extend(read.into_iter().map(|(key, _)| key));
    }
    found
}

/// The same run after a row.
fn following(rows: Rows, last: &Key) -> Rows {
    match (rows, last.clone()) {
        (Rows::Repositories { tenant, format, .. }, Key::Repository(last)) => {
            Rows::Repositories { tenant, format, after: Some(last.path) }
        }
        (Rows::Artifacts { repository, .. }, Key::Artifact(_, last)) => {
            Rows::Artifacts { repository, after: Some(last) }
        }
        (Rows::Tags { repository, .. }, Key::Tag(_, last)) => {
            Rows::Tags { repository, after: Some(last) }
        }
        (Rows::TagsOf { repository, target, .. }, Key::TagOf(_, _, last)) => {
            Rows::TagsOf { repository, target, after: Some(last) }
        }
        (Rows::Links { repository, .. }, Key::Link(_, last)) => {
            Rows::Links { repository, after: Some(last) }
        }
        (Rows::TenantBlobs { tenant, .. }, Key::TenantBlob(_, last)) => {
            Rows::TenantBlobs { tenant, after: Some(last) }
        }
        (Rows::Referrers { repository, subject, .. }, Key::Referrer(_, _, last)) => {
            Rows::Referrers { repository, subject, after: Some(last) }
        }
        (Rows::Blobs { .. }, Key::Blob(last)) => Rows::Blobs { after: Some(last) },
        (Rows::Uploads { tenant, .. }, Key::Upload(_, last)) => {
            Rows::Uploads { tenant, after: Some(last) }
        }
        (rows, last) => panic!("{last:?} is no row of {rows:?} to go on from"),
    }
}
