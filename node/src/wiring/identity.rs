//! Who this node is: a member already, the founder of a cluster, or one that asks to be let in.

use std::path::Path;
use std::time::Duration;

use nora_cli::JoinArgs;
use nora_cluster::join;
use nora_domain::{ClusterId, NodeProfile};
use nora_trust::Identity;
use tracing::info;

use super::error::ServeError;
use nora_config::SecretSource;

/// How long a member may take to let this node in.
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);

/// The identity in the data folder, made now if there is none. From here on the metadata's folder belongs to it.
pub(super) async fn establish(
    data_dir: &Path,
    metadata_dir: &Path,
    wish: &JoinArgs,
    profile: &NodeProfile,
) -> Result<Identity, ServeError> {
    let identity = match Identity::load(data_dir).map_err(ServeError::Identity)? {
        Some(identity) => {
            if wish.join.is_some() {
                info!(node = identity.node().0, "a member already: --join is not needed any more");
            }
            identity
        }
        None => {
            Identity::check_unbound(metadata_dir).map_err(ServeError::Identity)?;
            match &wish.join {
                Some(address) => ask(data_dir, metadata_dir, address, wish, profile).await?,
                None => found(data_dir)?,
            }
        }
    };
    identity.bind(metadata_dir).map_err(ServeError::Identity)?;
    Ok(identity)
}

fn found(data_dir: &Path) -> Result<Identity, ServeError> {
    let mut name = [0; 16];
    getrandom::fill(&mut name)
        .map_err(|error| ServeError::Random(std::io::Error::other(error.to_string())))?;
    let cluster = ClusterId(u128::from_be_bytes(name));
    let identity = Identity::found(data_dir, cluster).map_err(ServeError::Identity)?;
    info!(cluster = format!("{:032x}", cluster.0), "a cluster begins with this node");
    Ok(identity)
}

async fn ask(
    data_dir: &Path,
    metadata_dir: &Path,
    address: &str,
    wish: &JoinArgs,
    profile: &NodeProfile,
) -> Result<Identity, ServeError> {
    if metadata_dir.exists() {
        return Err(ServeError::NotEmpty { path: data_dir.to_owned() });
    }
    let token = match (&wish.join_token, &wish.join_token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => {
            SecretSource::File(file.clone()).read().map_err(ServeError::Secret)?
        }
        (None, None) => return Err(ServeError::NoToken),
    };
    let joined = join(address, &token, profile.clone(), data_dir, JOIN_TIMEOUT).await;
    let identity = joined.map_err(ServeError::Join)?;
    info!(node = identity.node().0, address, "let into the cluster");
    Ok(identity)
}
