//! No credential of this run is where others look: in the nodes' logs, metrics, or configuration as it is shown.

use std::collections::HashMap;

use crate::stage::{Login, NODES, Stage, Step, Trouble, ensure};

/// As much of a secret as is looked up at each place of a text.
const BEGIN: usize = 8;

/// Secrets by how they begin: many can be looked for in one pass over a text.
struct Wanted<'s> {
    begins: HashMap<[u8; BEGIN], Vec<&'s str>>,
    /// Which pairs of bytes any of them begins with, so that most places need no look-up.
    pairs: Vec<bool>,
}

fn pair(bytes: &[u8; BEGIN]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

impl<'s> Wanted<'s> {
    fn new(secrets: &'s [String]) -> Step<Self> {
        let mut wanted = Self { begins: HashMap::new(), pairs: vec![false; 1 << 16] };
        for secret in secrets {
            let begin = secret.as_bytes().first_chunk::<BEGIN>();
            let begin = begin.ok_or_else(|| Trouble("too short to be looked for".into()))?;
            wanted.pairs[pair(begin)] = true;
            wanted.begins.entry(*begin).or_default().push(secret);
        }
        Ok(wanted)
    }

    /// Where the first of them is.
    fn find(&self, text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        (0..bytes.len()).find(|at| {
            let Some(begin) = bytes[*at..].first_chunk::<BEGIN>() else { return false };
            self.pairs[pair(begin)]
                && self.begins.get(begin).is_some_and(|secrets| {
                    secrets.iter().any(|secret| bytes[*at..].starts_with(secret.as_bytes()))
                })
        })
    }
}

/// Looks for every credential, on every node, in everything that it says.
pub async fn stay(stage: &Stage, boss: &Login) -> Step<String> {
    let secrets = stage.secrets();
    ensure(secrets.len() > 50, || format!("{} secrets prove nothing", secrets.len()))?;
    let wanted = Wanted::new(&secrets)?;
    // A search that finds nothing must have been able to.
    for secret in [&secrets[0], &secrets[secrets.len() - 1]] {
        let at = wanted.find(&format!("level=INFO password={secret}"));
        ensure(at == Some(20), || "a secret that is there is not found".into())?;
    }
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
            if let Some(at) = wanted.find(&text) {
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
