//! Lists: whole, in order, page by page.

use nora_app::Error;
use nora_app::artifacts::Annotations;
use nora_app::testkit::repository;
use nora_domain::{
    Action, Body, Digest, Format, MediaType, MountBlob, PutArtifact, RepositoryKey, RepositoryPath,
};

use crate::support::{World, artifact, media_type, sha256, tag, world};

#[tokio::test]
async fn tags_come_page_by_page_and_after_any_name() {
    let world = world();
    let here = repository("here");
    let unknown = world.registry.tags().list(&here, None, 10).await;
    assert!(matches!(unknown, Err(Error::RepositoryUnknown)), "{unknown:?}");
    let mut put = artifact(&here, "{}");
    put.tags = ["v3", "v1", "v2", "latest", "v10"].map(tag).to_vec();
    world.registry.artifacts().put(put).await.unwrap();
    let expected = ["latest", "v1", "v10", "v2", "v3"].map(tag).to_vec();
    for limit in 1..7 {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = world.registry.tags().list(&here, after, limit).await.unwrap();
            assert!(page.items.len() == limit || !page.more, "{page:?}");
            found.extend(page.items);
            after = found.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(found, expected, "in pages of {limit}");
    }
    let page = world.registry.tags().list(&here, Some(tag("v1a")), 1).await.unwrap();
    assert_eq!((page.items, page.more), (vec![tag("v2")], true));
    let page = world.registry.tags().list(&here, Some(tag("z")), 1).await.unwrap();
    assert_eq!((page.items, page.more), (vec![], false));
}

#[tokio::test]
async fn lists_are_read_after_catching_up() {
    let world = world();
    let here = repository("here");
    let put = |content: &str, subject: Option<Digest>| {
        Action::PutArtifact(PutArtifact {
            repository: repository("here"),
            digest: sha256(content.as_bytes()),
            media_type: media_type("application/test"),
            size: content.len() as u64,
            body: Body::Inline(content.to_owned().into()),
            subject,
            artifact_type: None,
            annotations: Default::default(),
            blobs: vec![],
            children: vec![],
            tags: vec![tag(content)],
        })
    };
    world.elsewhere(put("first", None));
    assert_eq!(world.registry.tags().list(&here, None, 9).await.unwrap().items, [tag("first")]);
    world.elsewhere(put("second", Some(sha256(b"first"))));
    let referrers =
        world.registry.artifacts().referrers(&here, sha256(b"first"), None, None, 9).await.unwrap();
    assert_eq!(referrers.items.len(), 1);
    assert_eq!(world.counts().linearizations, 2);
}

#[tokio::test]
async fn repositories_without_artifacts_are_skipped_across_pages() {
    let world = world();
    let mut expected = Vec::new();
    let first = repository("r00");
    let digest = world.push(&first, b"bytes").await.unwrap().digest;
    for n in 1..40_u32 {
        let key = repository(&format!("r{n:02}"));
        // Long runs of repositories that hold only a blob, at the beginning, between, and at the end.
        if [17, 18, 31].contains(&n) {
            world.registry.artifacts().put(artifact(&key, "{}")).await.unwrap();
            expected.push(key.path);
        } else {
            let mounted = world.registry.blobs().mount(first.clone(), key, digest).await.unwrap();
            assert!(mounted);
        }
    }
    let everything = |_: &RepositoryPath| true;
    for limit in 1..5 {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = world
                .registry
                .repositories()
                .list(Format::Oci, after, limit, &everything)
                .await
                .unwrap();
            assert!(page.items.len() == limit || !page.more, "{page:?}");
            found.extend(page.items);
            after = found.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(found, expected, "in pages of {limit}");
    }
    let others =
        world.registry.repositories().list(Format::Npm, None, 10, &everything).await.unwrap();
    assert_eq!(others.items, vec![]);
}

const REFERRERS: u64 = 1300;

/// Many artifacts that speak about `subject`; every 400th in digest order is a signature. Returns all and those.
fn refer(world: &World, repository: &RepositoryKey, subject: Digest) -> (Vec<Digest>, Vec<Digest>) {
    let mut all: Vec<_> = (0..REFERRERS)
        .map(|n| format!("referrer {n}").into_bytes())
        .map(|bytes| (sha256(&bytes), bytes))
        .collect();
    all.sort();
    let mut signatures = Vec::new();
    for (n, (digest, bytes)) in all.iter().enumerate() {
        let is_signature = n % 400 == 399;
        if is_signature {
            signatures.push(*digest);
        }
        world.elsewhere(Action::PutArtifact(PutArtifact {
            repository: repository.clone(),
            digest: *digest,
            media_type: media_type("application/test"),
            size: bytes.len() as u64,
            body: Body::Inline(bytes.clone().into()),
            subject: Some(subject),
            artifact_type: Some(media_type(if is_signature { "signature" } else { "sbom" })),
            annotations: Default::default(),
            blobs: vec![],
            children: vec![],
            tags: vec![],
        }));
    }
    (all.into_iter().map(|(digest, _)| digest).collect(), signatures)
}

async fn all_referrers(
    world: &World,
    of: (&RepositoryKey, Digest),
    artifact_type: Option<&MediaType>,
    limit: usize,
) -> Vec<Digest> {
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = world
            .registry
            .artifacts()
            .referrers(of.0, of.1, artifact_type, after, limit)
            .await
            .unwrap();
        assert!(page.items.len() == limit || !page.more, "{} of {limit}", page.items.len());
        for referrer in page.items {
            assert!(artifact_type.is_none() || referrer.artifact_type.as_ref() == artifact_type);
            found.push(referrer.digest);
        }
        after = found.last().copied();
        if !page.more {
            return found;
        }
    }
}

#[tokio::test]
async fn referrers_are_filtered_over_any_number_of_rows() {
    let world = world();
    let here = repository("here");
    let subject = sha256(b"subject");
    let (all, signatures) = refer(&world, &here, subject);
    assert_eq!(signatures.len(), 3);
    let of = (&here, subject);
    for limit in [1, 2, 3, 50] {
        let found = all_referrers(&world, of, Some(&media_type("signature")), limit).await;
        assert_eq!(found, signatures, "in pages of {limit}");
    }
    for limit in [70, 2000] {
        assert_eq!(all_referrers(&world, of, None, limit).await, all, "in pages of {limit}");
        let none = all_referrers(&world, of, Some(&media_type("other")), limit).await;
        assert_eq!(none, vec![]);
    }
    let unknown =
        world.registry.artifacts().referrers(&repository("none"), subject, None, None, 9).await;
    assert!(unknown.unwrap().items.is_empty(), "an unknown repository has none");
}

#[tokio::test]
async fn a_referrer_shows_its_bytes() {
    let world = world();
    let here = repository("here");
    let mut put = artifact(&here, "signature of it");
    put.subject = Some(sha256(b"it"));
    put.artifact_type = Some(media_type("signature"));
    world.registry.artifacts().put(put.clone()).await.unwrap();
    let page =
        world.registry.artifacts().referrers(&here, sha256(b"it"), None, None, 5).await.unwrap();
    let [referrer] = &page.items[..] else { panic!("{} referrers", page.items.len()) };
    let listed = world.registry.artifacts().listed(&here, referrer.digest).await.unwrap().unwrap();
    assert_eq!(listed.annotations, Annotations::Within(put.bytes.clone()));
    assert_eq!(referrer.artifact_type, put.artifact_type);
    world.registry.artifacts().delete(here.clone(), put.digest).await.unwrap();
    let page =
        world.registry.artifacts().referrers(&here, sha256(b"it"), None, None, 5).await.unwrap();
    assert!(page.items.is_empty());
    assert!(world.registry.artifacts().listed(&here, put.digest).await.unwrap().is_none());
}

#[tokio::test]
async fn a_list_reads_the_annotations_of_a_large_referrer_from_its_record() {
    let world = world();
    let here = repository("here");
    let large = |fill: u8| vec![fill; Body::INLINE_BYTES_MAX + 1];
    let most = vec![b'a'; Body::INLINE_BYTES_MAX];
    let too_many = vec![b'a'; Body::INLINE_BYTES_MAX + 1];
    let (some, none) = (b"some".to_vec(), Vec::new());
    let cases = [
        (large(1), true, some.clone(), some.clone()),
        (large(2), true, most.clone(), most),
        (large(3), true, too_many, none.clone()),
        (large(4), false, some.clone(), none),
    ];
    for (bytes, has_subject, annotations, kept) in cases {
        let mut put = artifact(&here, bytes);
        put.subject = has_subject.then(|| sha256(b"it"));
        put.annotations = annotations.into();
        world.registry.artifacts().put(put.clone()).await.unwrap();
        let listed = world.registry.artifacts().listed(&here, put.digest).await.unwrap().unwrap();
        assert_eq!(listed.annotations, Annotations::Kept(kept.into()));
        assert_eq!((listed.subject, listed.size), (put.subject, put.bytes.len() as u64));
    }
    world.assert_sound();
}

#[tokio::test]
async fn a_tenants_usage_is_what_its_rows_add_up_to() {
    let world = world();
    let here = repository("here");
    let usage = || world.registry.tenants().usage(&here.tenant);
    assert_eq!(usage().await.unwrap(), Default::default());
    let digest = world.push(&here, &[1; 100]).await.unwrap().digest;
    let to = repository("there");
    world.elsewhere(Action::MountBlob(MountBlob { from: here.clone(), to, digest, pin_millis: 0 }));
    let mut put = artifact(&here, "1234567");
    put.tags = vec![tag("a"), tag("b")];
    world.registry.artifacts().put(put).await.unwrap();
    let usage = usage().await.unwrap();
    assert_eq!((usage.bytes, usage.artifacts, usage.tags, usage.links), (207, 1, 2, 2));
}
