//! The command line: what can be asked, and who answers.
//!
//! Data goes to stdout, messages to stderr; the exit code is 0 only if everything that was asked was done, 2 if the
//! question itself was wrong. Secrets come from files, stdin or the environment, never from an argument.
//!
//! The caller answers `serve`, `check` and `recover`. Must not know: adapters, use cases, the server. What this crate links
//! holds neither RocksDB nor the AWS SDK, so a verb is built and tested in seconds.

mod admin;
mod audit;
mod auth;
mod cluster;
mod configuration;
mod connection;
mod consent;
mod content;
mod failure;
mod generate;
mod images;
mod output;
mod password;
mod policy;
mod rotation;
mod session;
mod tenant;
mod token;
mod user;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use admin::AdminArgs;
use audit::{AuditArgs, AuditCommand};
use auth::AuthCommand;
use cluster::ClusterCommand;
use connection::ConnectionArgs;
pub use consent::ConsentArgs;
use failure::Failure;
use nora_config::{ConfigErrors, Loaded, Overrides, load_effective};
use output::{Output, OutputFormat};
use policy::PolicyCommand;
use session::SessionCommand;
use tenant::TenantCommand;
use token::TokenCommand;
use user::UserCommand;

/// A clustered container and package registry.
#[derive(Debug, Parser)]
#[command(name = "nora", version, propagate_version = true)]
#[command(about = "NORA: a clustered container and package registry in one binary")]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    connection: ConnectionArgs,

    /// How to print data.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,

    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Reads this process's arguments and environment. Wrong arguments, and a call for help, end the process.
    pub fn of_process() -> Self {
        Self::of(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn of(
        words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut cli =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut Self::command()))?;
        if let Command::Serve(ServeArgs { join, .. }) = &mut cli.command {
            let serve = matches.subcommand_matches("serve");
            let source = serve.and_then(|serve| serve.value_source("join_token"));
            join.token_is_exposed = source == Some(ValueSource::CommandLine);
        }
        Ok(cli)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: the first one of a cluster, one that joins, or one that is a member already.
    Serve(ServeArgs),
    /// Administer the cluster.
    Cluster {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Read every copy of a blob on a node again and compare it with its hashes, from now on and in the background.
    Scrub {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Check, show and describe the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show, compare and apply the policy that the cluster runs by.
    Policy {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Make, list and revoke API tokens.
    Token {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// List and end sessions that clients keep with a refresh token.
    Session {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        command: SessionCommand,
    },
    /// Make, change and remove accounts.
    User {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Tell who may do what, and why.
    Auth {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        command: AuthCommand,
    },
    /// Look at tenants.
    Tenant {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Show what tenants use of what they may.
    Usage {
        #[command(flatten)]
        admin: AdminArgs,
        /// Only this tenant.
        tenant: Option<String>,
    },
    /// Print the log of what was done and by whom; with -o json, a line an entry.
    Audit {
        // First: what follows the cluster's options stands under their heading.
        #[command(flatten)]
        args: AuditArgs,
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        command: Option<AuditCommand>,
    },
    /// Check the data of a node that does not run: all metadata against itself, and that every blob is there.
    Check(ConfigArgs),
    /// Let a node that does not run go on alone, after most voters of its cluster are gone for good.
    ///
    /// What was acknowledged and did not reach this node is lost. Never start the other nodes again: erase them, and let
    /// them join anew. With --dry-run, it tells what this node has, to be compared with other survivors.
    Recover {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        consent: ConsentArgs,
    },
    /// Look at images.
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Give an image another name; its digest goes to stdout.
    ///
    /// Into another repository, the blobs are mounted there and everything the image needs goes first.
    Tag {
        /// What to name, as repository[:tag][@digest].
        source: String,
        /// The new name, as repository[:tag].
        destination: String,
    },
    /// Delete a tag, or an image with all its tags; digests go to stdout.
    ///
    /// repository:tag deletes that tag alone; repository@digest deletes the image and every tag that names it.
    Delete(DeleteArgs),
    /// Ask a node whether it is alive and ready; the exit code tells.
    Health,
    /// Print the version.
    Version,
    /// Print the completion script of a shell.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder.
        dir: PathBuf,
    },
}

/// Which configuration, and what goes before the file's values.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file; without it, nora.toml in the current folder, if it is there.
    #[arg(long, env = "NORA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArgs,
}

impl ConfigArgs {
    fn load(self) -> Result<Loaded, ConfigErrors> {
        load_effective(self.config.as_deref(), &self.overrides.into())
    }
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    join: JoinArgs,
}

/// How a new node gets in. Members need none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct JoinArgs {
    /// Join the cluster of the member that listens there, unless this node is a member already.
    #[arg(long, value_name = "HOST:PORT")]
    pub join: Option<String>,
    /// The token that lets it in: `nora cluster join-token` makes one. Better in NORA_JOIN_TOKEN or a file, where other users of this machine do not see it.
    #[arg(long, env = "NORA_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub join_token: Option<String>,
    /// A file that holds the token.
    #[arg(long, value_name = "FILE", conflicts_with = "join_token")]
    pub join_token_file: Option<PathBuf>,
    /// Whether the token is an argument. Every user of this machine can read the arguments of a process.
    #[arg(skip)]
    pub token_is_exposed: bool,
}

/// What only a node can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeVerb {
    /// Run until it is told to stop.
    Serve(JoinArgs),
    /// Check its data.
    Check,
    /// Let it go on without its cluster.
    Recover(ConsentArgs),
}

#[derive(Debug, Args)]
struct OverrideArgs {
    /// Where to keep everything the node stores.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen for HTTP.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where other nodes will reach this one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    cluster_listen: Option<SocketAddr>,
    /// Where other nodes reach this one, if it is not where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
}

impl From<OverrideArgs> for Overrides {
    fn from(args: OverrideArgs) -> Self {
        let OverrideArgs { data_dir, listen, cluster_listen, advertise } = args;
        Self { listen, cluster_listen, advertise, data_dir }
    }
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Tell everything that is wrong with a configuration; the exit code tells whether anything is.
    Check {
        /// The file; without it, the one that serve would read.
        #[arg(env = "NORA_CONFIG")]
        file: Option<PathBuf>,
    },
    /// Print every value in effect and where it comes from.
    Show {
        /// The file; without it, the one that serve would read.
        #[arg(env = "NORA_CONFIG")]
        file: Option<PathBuf>,
        #[command(flatten)]
        overrides: OverrideArgs,
    },
    /// Print the JSON Schema of the configuration file.
    Schema,
}

#[derive(Debug, Subcommand)]
enum ImagesCommand {
    /// List repositories and tags.
    Ls {
        /// Only this repository.
        repository: Option<String>,
    },
    /// Show what an image is made of.
    Inspect(ImageArgs),
    /// Show how an image came to be, oldest step first.
    History(ImageArgs),
}

#[derive(Debug, Args)]
struct ImageArgs {
    /// The image, as repository[:tag][@digest]; without either, the tag latest.
    reference: String,
    /// Which image of an index, as linux/arm64.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// What to delete, as repository:tag or repository@digest.
    #[arg(required = true)]
    references: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Only tell what would be deleted.
    #[arg(long)]
    dry_run: bool,
}

/// Answers what was asked; `node` does what only a node can, with the configuration it is given.
pub fn run(cli: Cli, node: impl FnOnce(NodeVerb, Loaded) -> ExitCode) -> ExitCode {
    let Cli { connection, output, command } = cli;
    let output = Output::new(output);
    let answered = match command {
        Command::Serve(args) => match args.config.load() {
            Ok(loaded) => return node(NodeVerb::Serve(args.join), loaded),
            Err(errors) => Err(errors.into()),
        },
        Command::Cluster { admin, command } => {
            block_on(cluster::run(admin, &connection, command, &output))
        }
        Command::Scrub { admin } => block_on(cluster::scrub(admin, &connection)),
        Command::Check(args) => match args.load() {
            Ok(loaded) => return node(NodeVerb::Check, loaded),
            Err(errors) => Err(errors.into()),
        },
        Command::Recover { config, consent } => match config.load() {
            Ok(loaded) => return node(NodeVerb::Recover(consent), loaded),
            Err(errors) => Err(errors.into()),
        },
        Command::Config(command) => configuration::run(command, &output),
        Command::Policy { admin, command } => {
            block_on(policy::run(admin, &connection, command, &output))
        }
        Command::Token { admin, command } => {
            block_on(token::run(admin, &connection, command, &output))
        }
        Command::Session { admin, command } => {
            block_on(session::run(admin, &connection, command, &output))
        }
        Command::User { admin, command } => {
            block_on(user::run(admin, &connection, command, &output))
        }
        Command::Auth { admin, command } => {
            block_on(auth::run(admin, &connection, command, &output))
        }
        Command::Tenant { admin, command } => {
            block_on(tenant::run(admin, &connection, command, &output))
        }
        Command::Usage { admin, tenant } => {
            block_on(tenant::usage(admin, &connection, tenant, &output))
        }
        Command::Audit { admin, args, command } => {
            block_on(audit::run(admin, &connection, args, command, &output))
        }
        Command::Images(command) => connected(connection, async |client| match command {
            ImagesCommand::Ls { repository } => images::list(&client, repository, &output).await,
            ImagesCommand::Inspect(args) => images::inspect(&client, args, &output).await,
            ImagesCommand::History(args) => images::history(&client, args, &output).await,
        }),
        Command::Tag { source, destination } => connected(connection, async |client| {
            content::tag(&client, &source, &destination, &output).await
        }),
        Command::Delete(args) => {
            connected(connection, async |client| content::delete(&client, args, &output).await)
        }
        Command::Health => {
            connected(connection.once(), async |client| content::health(&client, &output).await)
        }
        Command::Version => generate::version(&output),
        Command::Completion { shell } => generate::completion(shell),
        Command::Man { dir } => generate::man(&dir),
    };
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs a verb that speaks to a server over HTTP.
fn connected(
    connection: ConnectionArgs,
    verb: impl AsyncFnOnce(nora_client::Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let client = connection.connect()?;
    block_on(verb(client))
}

/// Runs one verb. One thread is enough for it, and starts fastest.
fn block_on(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::Io { step: "start the runtime".into(), source })?;
    runtime.block_on(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_begins_with_what_the_program_is() {
        let help = Cli::command().render_help().to_string();
        assert!(help.starts_with("NORA: a clustered container and package registry"), "{help}");
    }

    #[test]
    fn an_unknown_command_is_answered_with_the_near_one() {
        let error = Cli::try_parse_from(["nora", "imags", "ls"]).unwrap_err().to_string();
        assert!(error.contains("'images'"), "{error}");
    }

    #[test]
    fn passwords_and_tokens_are_never_arguments() {
        for words in [
            &["nora", "user", "add", "alice", "hunter2"][..],
            &["nora", "user", "passwd", "alice", "hunter2"],
            &["nora", "user", "add", "alice", "--password", "hunter2"],
            &["nora", "auth", "explain", "--token", "ey.J.x", "push"],
        ] {
            assert!(Cli::try_parse_from(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_join_token_that_is_an_argument_is_known_as_one() {
        let join = |words: &[&str]| {
            let words = ["nora", "serve", "--join", "a:1"].iter().chain(words);
            let Command::Serve(args) = Cli::of(words).unwrap().command else {
                panic!("it is another command");
            };
            args.join
        };
        let exposed = join(&["--join-token", "t"]);
        assert_eq!((exposed.join_token.as_deref(), exposed.token_is_exposed), (Some("t"), true));
        assert!(!join(&["--join-token-file", "t"]).token_is_exposed);
        assert!(!join(&[]).token_is_exposed);
    }

    #[test]
    fn an_accounts_password_is_not_its_makers_login() {
        let words = ["nora", "user", "add", "alice", "--password-file", "pw", "--token-file", "t"];
        let Cli { connection, command, .. } = Cli::try_parse_from(words).unwrap();
        let Command::User { command: UserCommand::Add { password, .. }, .. } = command else {
            panic!("it is another command");
        };
        assert!(password.is_given());
        assert_eq!(connection.without_password().files(), (None, Some("t".as_ref())));

        let words =
            ["nora", "auth", "explain", "--token-file", "t", "--password-file", "p", "push"];
        let connection = Cli::try_parse_from(words).unwrap().connection;
        assert_eq!(connection.without_token().files(), (Some("p".as_ref()), None));
        for contradiction in [
            &["nora", "user", "add", "ci", "--robot", "--password-stdin"][..],
            &["nora", "user", "add", "a", "--password-file", "p", "--password-stdin"],
            &["nora", "auth", "explain", "--subject", "user:a", "--token-stdin", "push"],
            &["nora", "auth", "explain", "--token-file", "t", "--token-stdin", "push"],
            &["nora", "token", "create", "a", "--expires", "90"],
        ] {
            assert!(Cli::try_parse_from(contradiction).is_err(), "{contradiction:?}");
        }
    }

    #[test]
    fn the_audit_log_is_listed_or_verified() {
        for (words, verified) in [
            (&["nora", "audit", "--since", "1h", "--actor", "user:a", "-f"][..], false),
            (&["nora", "audit", "verify", "--data-dir", "d"], true),
        ] {
            let Command::Audit { command, .. } = Cli::try_parse_from(words).unwrap().command else {
                panic!("it is another command");
            };
            assert_eq!(command.is_some(), verified, "{words:?}");
        }
    }

    #[test]
    fn options_of_the_server_stand_before_or_after_the_verb() {
        for words in [
            ["nora", "--addr", "http://a:1", "-o", "json", "images", "ls"],
            ["nora", "images", "ls", "--addr", "http://a:1", "-o", "json"],
        ] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.output, OutputFormat::Json);
            assert_eq!(cli.connection.addr(), Some("http://a:1"));
        }
    }
}
