//! `nora audit`: the log of what was done, printed as it is read, and the check that it is whole.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use nora_client::admin::{AdminClient, AuditEntry, AuditFilter, AuditVerdict};
use serde::Serialize;

use super::admin::AdminArgs;
use super::connection::ConnectionArgs;
use super::failure::{Failure, say_note, say_warning};
use super::output::{Output, OutputFormat, clean, facts, moment, write};
use nora_config::duration_of;

/// How often a log that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which entries.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct AuditArgs {
    /// Only what is younger than this, as 1h or 7d.
    #[arg(long, value_name = "TIME", value_parser = duration_of)]
    since: Option<Duration>,
    /// Only of this actor, as user:alice.
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// Only about what starts so, as oci:frontend/.
    #[arg(long, value_name = "PREFIX")]
    resource: Option<String>,
    /// Go on with what is done from now on, until you break it off; with --since, after what is younger.
    #[arg(short, long)]
    follow: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Have every hash of the log computed again; the exit code tells whether the log is whole.
    Verify,
    /// Print the key by which the webhook's receiver tells that a request comes from this cluster.
    WebhookKey,
}

pub(crate) async fn run(
    admin: AdminArgs,
    connection: &ConnectionArgs,
    args: AuditArgs,
    command: Option<AuditCommand>,
    output: &Output,
) -> Result<(), Failure> {
    let client = admin.callers_client(connection)?;
    match command {
        None => list(&client, &args, output).await,
        Some(AuditCommand::Verify) if args != AuditArgs::default() => Err(Failure::Usage {
            message: "the log is checked as a whole".into(),
            hint: "leave --since, --actor, --resource and --follow out",
        }),
        Some(AuditCommand::WebhookKey) if args != AuditArgs::default() => Err(Failure::Usage {
            message: "the webhook's key has nothing to do with entries".into(),
            hint: "leave --since, --actor, --resource and --follow out",
        }),
        Some(AuditCommand::WebhookKey) => match client.webhook_key().await? {
            Some(key) => output.print(&WebhookKey { key: &key }, || format!("{key}\n")),
            None => Err(Failure::Usage {
                message:
                    "the cluster has no secret yet, so the webhook's requests carry no signature"
                        .into(),
                hint: "ask again once the cluster is founded",
            }),
        },
        Some(AuditCommand::Verify) => {
            let verdict = client.verify_audit().await?;
            output.print(&verdict, || verdict_text(&verdict))?;
            match verdict.broken_at {
                None => Ok(()),
                Some(number) => {
                    say_warning(&format!(
                        "the log was changed at entry {number} or before it: compare with a copy that was exported"
                    ));
                    Err(Failure::Told)
                }
            }
        }
    }
}

/// What `-o json` prints of the webhook's key.
#[derive(Serialize)]
struct WebhookKey<'a> {
    key: &'a str,
}

async fn list(client: &AdminClient, args: &AuditArgs, output: &Output) -> Result<(), Failure> {
    if output.format == OutputFormat::Toml {
        // Says which formats there are.
        return output.print(&(), String::new);
    }
    let filter = filter(args, SystemTime::now());
    let mut after = 0;
    let mut counted = 0_u64;
    if output.format == OutputFormat::Table {
        write(&line(["TIME", "NUMBER", "ACTOR", "FROM", "ACTION", "RESOURCE", "RESULT"]))?;
    }
    loop {
        let page = client.audit_page(&filter, after, 0).await?;
        after = page.last;
        counted += page.entries.len() as u64;
        for entry in &page.entries {
            write(&written(entry, output.format)?)?;
        }
        if page.more {
            continue;
        }
        if !args.follow {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if counted == 0 && output.format == OutputFormat::Table {
        say_note("there are no such entries");
    }
    Ok(())
}

fn filter(args: &AuditArgs, now: SystemTime) -> AuditFilter {
    let back = match (args.since, args.follow) {
        (Some(since), _) => Some(since),
        (None, true) => Some(Duration::ZERO),
        (None, false) => None,
    };
    let millis = |back: Duration| {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.saturating_sub(back).as_millis()).unwrap_or(u64::MAX)
    };
    AuditFilter {
        since: back.map(millis),
        actor: args.actor.clone(),
        resource: args.resource.clone(),
    }
}

/// An entry: a line of JSON, a document of YAML, or a line for people.
fn written(entry: &AuditEntry, format: OutputFormat) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Dated<'a> {
        time: String,
        #[serde(flatten)]
        entry: &'a AuditEntry,
    }
    let dated = Dated { time: moment(entry.at), entry };
    let unwritable = |format, reason: String| Failure::Unwritable { format, reason };
    match format {
        OutputFormat::Json => serde_json::to_string(&dated)
            .map(|text| text + "\n")
            .map_err(|error| unwritable("JSON", error.to_string())),
        OutputFormat::Yaml => serde_yaml_ng::to_string(&dated)
            .map(|text| format!("---\n{text}"))
            .map_err(|error| unwritable("YAML", error.to_string())),
        OutputFormat::Table | OutputFormat::Toml => {
            let result = match entry.count {
                0 | 1 => entry.result.clone(),
                count => format!("{} ({count} times)", entry.result),
            };
            let AuditEntry { number, actor, action, resource, address, .. } = entry;
            let number = number.to_string();
            Ok(line([&dated.time, &number, actor, address, action, resource, &result]))
        }
    }
}

/// The log may be longer than memory, so widths are chosen before it is known.
fn line(cells: [&str; 7]) -> String {
    const WIDTHS: [usize; 7] = [20, 6, 26, 15, 16, 36, 0];
    let padded: Vec<String> =
        cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{:width$}", clean(cell))).collect();
    format!("{}\n", padded.join("  ").trim_end())
}

fn verdict_text(verdict: &AuditVerdict) -> String {
    let AuditVerdict { first, last, broken_at, head } = verdict;
    let whole = match broken_at {
        None => "yes".to_owned(),
        Some(number) => format!("no: entry {number} has not the hash it should have"),
    };
    facts(&[
        ("Entries", format!("{first} to {last}")),
        ("Whole", whole),
        ("Hash of the last", head.clone()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> AuditEntry {
        AuditEntry {
            number: 7,
            at: 1_709_210_096_789,
            actor: "user:alice".into(),
            address: "10.0.0.1".into(),
            request_id: "r1".into(),
            action: "artifact.push".into(),
            resource: "oci:frontend/app:v1".into(),
            result: "done".into(),
            count: 1,
            hash: "ab".into(),
        }
    }

    #[test]
    fn an_entry_is_a_line() {
        let text = written(&entry(), OutputFormat::Table).unwrap();
        assert_eq!(
            text,
            "2024-02-29T12:34:56Z  7       user:alice                  10.0.0.1         \
             artifact.push     oci:frontend/app:v1                   done\n"
        );
        let many =
            AuditEntry { count: 3, result: "denied".into(), actor: "a\nb".into(), ..entry() };
        let text = written(&many, OutputFormat::Table).unwrap();
        assert!(text.contains("denied (3 times)") && text.lines().count() == 1, "{text}");

        let json = written(&many, OutputFormat::Json).unwrap();
        assert_eq!(json.lines().count(), 1, "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["number"], &value["time"]), (&7.into(), &"2024-02-29T12:34:56Z".into()));
        assert!(written(&entry(), OutputFormat::Yaml).unwrap().starts_with("---\n"));
    }

    #[test]
    fn since_counts_back_and_following_begins_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let since = |args: AuditArgs| filter(&args, now).since;
        assert_eq!(since(AuditArgs::default()), None);
        assert_eq!(since(AuditArgs { follow: true, ..AuditArgs::default() }), Some(100_000));
        let back = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(
            since(AuditArgs { since: back(40), follow: true, ..AuditArgs::default() }),
            Some(60_000)
        );
        assert_eq!(since(AuditArgs { since: back(1000), ..AuditArgs::default() }), Some(0));
    }

    #[test]
    fn a_verdict_tells_where_the_log_is_broken() {
        let verdict = |broken_at| AuditVerdict { first: 2, last: 9, broken_at, head: "ff".into() };
        assert!(verdict_text(&verdict(None)).contains("Whole:             yes\n"));
        assert!(verdict_text(&verdict(Some(5))).contains("no: entry 5"));
    }
}
