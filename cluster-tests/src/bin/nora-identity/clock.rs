//! What the cluster gave for some time is good for that time on every node, whatever a node's own clock says.

use std::time::Duration;

use nora_cluster_tests::cluster::Disturbance;

use crate::stage::{Login, NODES, Stage, Step, ensure};

/// How far a clock is off: longer than a session lives, and no longer than certificates are dated back.
const OFF: Duration = Duration::from_secs(50 * 60);

async fn believed_everywhere(stage: &Stage, token: &Login, made_on: usize) -> Step<()> {
    let session = stage.session(made_on, token, "repository:free/app:pull").await?;
    for node in 0..NODES {
        let answer = stage.get(node, "/v2/", &session).await?;
        let what = format!("a session of node {} on node {}", made_on + 1, node + 1);
        answer.must_be(200, &what)?;
    }
    Ok(())
}

/// Sessions go to and from a node whose clock is ahead, and then behind.
pub async fn of_a_node_is_wrong(stage: &Stage, token: &Login) -> Step<String> {
    ensure(stage.cluster().has_fault_library(), || "clocks cannot be set here".to_owned())?;
    let wrong = (stage.leader().await? + 1) % NODES;
    let off = i64::try_from(OFF.as_millis()).unwrap_or(i64::MAX);
    let mut believed = Ok(());
    for clock_millis in [off, -off] {
        stage.cluster().disturb(wrong, Disturbance { clock_millis, ..Disturbance::default() })?;
        for made_on in 0..NODES {
            believed = believed.and(believed_everywhere(stage, token, made_on).await);
        }
    }
    stage.cluster().disturb(wrong, Disturbance::default())?;
    believed?;
    Ok(format!("sessions are good on all nodes, {OFF:?} ahead and behind on node {}", wrong + 1))
}
