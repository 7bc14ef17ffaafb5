//! Is the server alive, and is it ready? Asked once, without retries: an orchestrator asks again itself.

use http::StatusCode;
use serde::Serialize;

use crate::client::Client;
use crate::error::ClientError;

/// What the probes said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The process answers.
    pub alive: bool,
    /// It has a leader, has caught up, and its storage is reachable.
    pub ready: bool,
    /// What it says about being ready.
    pub detail: String,
}

/// Asks `/health` and `/ready`.
pub async fn check(client: &Client) -> Result<Health, ClientError> {
    let (alive, _) = client.probe("/health").await?;
    let (ready, detail) = client.probe("/ready").await?;
    Ok(Health { alive: alive == StatusCode::OK, ready: ready == StatusCode::OK, detail })
}
