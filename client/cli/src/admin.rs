//! Which cluster to administer, and as whom.

use std::path::PathBuf;

use clap::Args;
use nora_client::Credentials;
use nora_client::admin::{AdminClient, AdminConfig};

use super::connection::ConnectionArgs;
use super::failure::Failure;

/// Which cluster, and who is asking.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct AdminArgs {
    /// A member's cluster address; several are tried in order [default: what the data folder says, or 127.0.0.1:4001].
    #[arg(
        long,
        env = "NORA_CLUSTER_ADDR",
        global = true,
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    cluster_addr: Vec<String>,
    /// A member's data folder: its identity has the administrator's certificate.
    #[arg(
        long,
        env = "NORA_DATA_DIR",
        global = true,
        value_name = "DIR",
        default_value = "nora-data"
    )]
    data_dir: PathBuf,
    /// The certificate of the cluster's authority, instead of the data folder's.
    #[arg(long, env = "NORA_CLUSTER_CA", global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The administrator's certificate, instead of the data folder's.
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The administrator's key.
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl AdminArgs {
    /// The administrator's client: the data folder's certificate goes with whatever login is given.
    pub(crate) fn client(&self, connection: &ConnectionArgs) -> Result<AdminClient, Failure> {
        Ok(AdminClient::new(&self.config(connection)?)?)
    }

    /// The client of whoever asks: a login that is given stands for itself. The data folder's certificate would make it
    /// the administrator's, so it is shown only if there is no login, or if it is named.
    pub(crate) fn callers_client(
        &self,
        connection: &ConnectionArgs,
    ) -> Result<AdminClient, Failure> {
        let mut config = self.config(connection)?;
        if config.credentials != Credentials::Anonymous && self.cert.is_none() {
            config.certificate = None;
        }
        Ok(AdminClient::new(&config)?)
    }

    fn config(&self, connection: &ConnectionArgs) -> Result<AdminConfig, Failure> {
        let mut config = AdminConfig::of_data_dir(&self.data_dir);
        if !self.cluster_addr.is_empty() {
            config.addresses.clone_from(&self.cluster_addr);
        }
        if let Some(ca) = &self.ca {
            config.authority.clone_from(ca);
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            config.certificate = Some((cert.clone(), key.clone()));
        }
        config.credentials = connection.admin_credentials()?;
        Ok(config)
    }
}
