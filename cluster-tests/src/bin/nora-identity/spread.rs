//! Images whose blobs come in through one node, whose manifest through another, and whose tag is read through a third, one
//! right after the other: none of the nodes may say that it does not know what another has acknowledged.

use futures_util::{StreamExt, TryStreamExt, stream};
use nora_cluster_tests::content::{Source, sha256};

use crate::stage::{Login, NODES, Stage, Step, ensure};

/// Images that are pushed at once.
const AT_ONCE: usize = 16;
/// Tags that the images take, each again and again: a tag that was acknowledged must have moved.
const TAGS: usize = 64;

/// Pushes so many images.
pub async fn over_all_nodes(stage: &Stage, login: &Login, images: usize) -> Step<String> {
    let source = Source::new(1 << 16)?;
    // Each lane has tags of its own, so that nobody else moves them meanwhile.
    let lanes = (0..AT_ONCE).map(|lane| {
        let source = &source;
        async move {
            for number in (lane..images).step_by(AT_ONCE) {
                let image = source.image();
                for (at, (bytes, _)) in [&image.config, &image.layer].into_iter().enumerate() {
                    let pushed = stage.push_blob(number + at, login, "free/spread", bytes).await?;
                    pushed.must_be(201, "a blob")?;
                }
                let tag = format!("t{lane}-{}", number / AT_ONCE % (TAGS / AT_ONCE));
                let path = format!("/v2/free/spread/manifests/{tag}");
                let pushed = stage.push_manifest(number + 2, login, &path, &image.manifest).await?;
                pushed.must_be(201, "a manifest whose blobs came through other nodes")?;
                for node in 0..NODES {
                    let answer = stage.get(node, &path, login).await?.must_be(200, "a tag")?;
                    ensure(sha256(&answer.body) == sha256(&image.manifest), || {
                        format!("the tag {tag} has not moved on node {node}")
                    })?;
                }
            }
            Step::Ok(())
        }
    });
    stream::iter(lanes).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(format!("{images} images came through {NODES} nodes, and each tag moved at once on all"))
}
