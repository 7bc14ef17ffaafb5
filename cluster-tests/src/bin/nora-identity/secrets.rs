//! No credential of this run is where others look: in the nodes' logs, metrics, or configuration as it is shown.

use crate::stage::{Login, NODES, Stage, Step, Trouble, ensure};

/// Looks for every credential, on every node, in everything that it says.
pub async fn stay(stage: &Stage, boss: &Login) -> Step<String> {
    let secrets = stage.secrets();
    ensure(secrets.len() > 50, || format!("{} secrets prove nothing", secrets.len()))?;
    let mut read = 0;
    for node in 0..NODES {
        let metrics = stage.get(node, "/metrics", boss).await?.must_be(200, "the metrics")?;
        let said = [
            ("log", stage.log(node)?),
            ("metrics", String::from_utf8_lossy(&metrics.body).into_owned()),
            ("configuration", stage.admins[node].configuration().await?),
            ("policy", stage.admins[node].policy().await?.document.to_string()),
        ];
        for (place, text) in said {
            ensure(!text.is_empty(), || format!("the {place} of node {} is empty", node + 1))?;
            read += text.len();
            if let Some(at) = secrets.iter().find_map(|secret| text.find(secret.as_str())) {
                let begin = text[..at].rfind('\n').map_or(0, |line| line + 1);
                let line: String = text[begin..].chars().take(200).collect();
                return Err(Trouble(format!(
                    "a secret is in the {place} of node {}: {line}",
                    node + 1
                )));
            }
        }
    }
    Ok(format!("{} secrets in none of {} KB", secrets.len(), read >> 10))
}
