//! `nora policy`: show, diff, apply.
//!
//! The policy is the part of `nora.toml` that is the same on every node. It is read and checked here as `nora serve` does,
//! so mistakes are told with their line; what would change is told by the server, which alone knows what is in force.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use nora_auth::document::PolicyDocument;
use nora_client::admin::{PolicyChange, PolicyInForce};

use super::admin::AdminArgs;
use super::connection::ConnectionArgs;
use super::consent::ConsentArgs;
use super::failure::{Failure, say_note, say_warning};
use super::output::{Output, OutputFormat, clean, moment, write};
use nora_config::{Loaded, Overrides, load_effective, policy_toml};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print the policy in force, as TOML unless another format is asked for; password hashes are left out.
    Show,
    /// Tell what the file would change if it were applied.
    Diff(FileArgs),
    /// Put the file's policy into force, on every node, whole or not at all.
    Apply {
        #[command(flatten)]
        file: FileArgs,
        #[command(flatten)]
        consent: ConsentArgs,
    },
}

/// Which file.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The configuration file; without it, nora.toml in the current folder.
    #[arg(long, env = "NORA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl FileArgs {
    /// The file's policy as the server takes it.
    fn document(&self) -> Result<String, Failure> {
        document_of(&load_effective(self.config.as_deref(), &Overrides::default())?)
    }
}

fn document_of(loaded: &Loaded) -> Result<String, Failure> {
    // Without a file there are the defaults, and nobody means to apply those.
    if loaded.file.is_none() {
        return Err(Failure::Usage {
            message: "there is no nora.toml in this folder".into(),
            hint: "name the configuration file with --config",
        });
    }
    serde_json::to_string(&loaded.config.policy)
        .map_err(|error| Failure::Unwritable { format: "JSON", reason: error.to_string() })
}

pub(crate) async fn run(
    args: AdminArgs,
    connection: &ConnectionArgs,
    command: PolicyCommand,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        PolicyCommand::Show => {
            let policy = args.callers_client(connection)?.policy().await?;
            say_note(&standing(&policy));
            match output.format {
                OutputFormat::Table | OutputFormat::Toml => write(&policy_text(&policy)?),
                OutputFormat::Json | OutputFormat::Yaml => output.print(&policy, String::new),
            }
        }
        PolicyCommand::Diff(file) => {
            let document = file.document()?;
            let tried = args.callers_client(connection)?.try_policy(&document).await?;
            tell_changes(&tried, output)
        }
        PolicyCommand::Apply { file, consent } => {
            let document = file.document()?;
            let client = args.callers_client(connection)?;
            let before = client.policy().await?;
            let tried = client.try_policy(&document).await?;
            if consent.dry_run || tried.changes.is_empty() {
                return tell_changes(&tried, output);
            }
            for change in &tried.changes {
                say_note(change);
            }
            tell_warnings(&tried);
            let count = tried.changes.len();
            if !consent.given(&format!("put a policy into force that differs in {count} lines"))? {
                return Ok(());
            }
            // What was looked at is what is changed: another policy meanwhile is an error.
            let applied = client.apply_policy(&document, Some(before.epoch)).await?;
            say_note(&format!("policy {} is in force", applied.epoch));
            // What was told before is not told again.
            for line in applied.warnings.iter().filter(|line| !tried.warnings.contains(line)) {
                say_warning(&clean(line));
            }
            output.print(&applied, String::new)
        }
    }
}

fn tell_changes(change: &PolicyChange, output: &Output) -> Result<(), Failure> {
    if change.changes.is_empty() {
        say_note("the file's policy is the one in force");
    }
    tell_warnings(change);
    output.print(change, || change.changes.iter().map(|line| clean(line) + "\n").collect())
}

fn tell_warnings(change: &PolicyChange) {
    change.warnings.iter().for_each(|line| say_warning(&clean(line)));
}

/// Since when it is in force, and whether the node's own file says the same.
fn standing(policy: &PolicyInForce) -> String {
    let PolicyInForce { epoch, applied_at, applied_by, file_hash, .. } = policy;
    let mut text = match applied_at {
        _ if *epoch == 0 => "no policy was applied yet: the defaults are in force".to_owned(),
        Some(at) => format!("policy {epoch}, applied by {applied_by} at {}", moment(*at)),
        None => format!("policy {epoch}, applied by {applied_by}"),
    };
    if file_hash.is_some() {
        text += "; the node's own file says something else: 'nora policy diff' shows what";
    }
    text
}

fn policy_text(policy: &PolicyInForce) -> Result<String, Failure> {
    let document: PolicyDocument =
        serde_json::from_value(policy.document.clone()).map_err(|error| Failure::Unwritable {
            format: "TOML",
            reason: format!(
                "this version does not understand it: {error}; -o json prints it as it is"
            ),
        })?;
    Ok(policy_toml(&document))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(document: serde_json::Value) -> PolicyInForce {
        PolicyInForce {
            epoch: 4,
            hash: "ab".into(),
            document,
            applied_at: Some(1_709_210_096_789),
            applied_by: "admin".into(),
            file_hash: None,
        }
    }

    #[test]
    fn the_policy_in_force_is_written_as_the_file_has_it() {
        let document = serde_json::json!({
            "auth": {"rules": [{"subject": "team", "permissions": ["push:frontend/*"]}]},
        });
        let text = policy_text(&policy(document)).unwrap();
        assert!(text.contains("[[auth.rules]]") && text.contains("push:frontend/*"), "{text}");
        let later = policy(serde_json::json!({"signatures": []}));
        assert!(policy_text(&later).unwrap_err().to_string().contains("-o json"));
    }

    #[test]
    fn the_standing_tells_since_when_and_whether_the_file_differs() {
        let mut shown = policy(serde_json::json!({}));
        assert_eq!(standing(&shown), "policy 4, applied by admin at 2024-02-29T12:34:56Z");
        shown.file_hash = Some("cd".into());
        assert!(standing(&shown).contains("'nora policy diff'"));
        shown.epoch = 0;
        assert!(standing(&shown).starts_with("no policy was applied yet"));
    }

    #[test]
    fn a_file_is_applied_and_never_the_lack_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nora.toml");
        std::fs::write(&path, "[auth]\nanonymous = [\"pull:public/*\"]\n").unwrap();
        let document = FileArgs { config: Some(path.clone()) }.document().unwrap();
        let document: PolicyDocument = serde_json::from_str(&document).unwrap();
        assert_eq!(document.auth.unwrap().anonymous, ["pull:public/*"]);
        std::fs::write(&path, "[auth]\nanonymus = []\n").unwrap();
        let wrong = FileArgs { config: Some(path.clone()) }.document().unwrap_err();
        assert!(matches!(wrong, Failure::Config(_)), "{wrong:?}");

        let mut loaded = load_effective(None, &Overrides::default()).unwrap();
        loaded.file = None;
        assert!(matches!(document_of(&loaded), Err(Failure::Usage { .. })));
    }
}
