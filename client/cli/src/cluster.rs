//! `nora cluster` and `nora scrub`: administration over gRPC.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use nora_client::admin::{AdminClient, ClusterStatus, JobStatus, JoinTokenInfo, MemberStatus};
use serde::Serialize;

use super::admin::AdminArgs;
use super::connection::ConnectionArgs;
use super::consent::ConsentArgs;
use super::failure::{Failure, say_note, say_warning};
use super::output::{Output, columns, human_size, write};
use super::rotation;
use nora_config::duration_of;

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many looks in a row must find a node drained. Nodes count their blobs in passes, the next of which begins within
/// moments of a drain: what is told before is as old as the last one.
const LOOKS_SETTLED: u32 = 6;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show the leader, the term, and how every member does.
    Status,
    /// Print a token that lets a node join; it goes to stdout, or into a file that only its owner can read.
    #[command(args_conflicts_with_subcommands = true)]
    JoinToken {
        /// Look after tokens that were made.
        #[command(subcommand)]
        verb: Option<JoinTokenCommand>,
        /// How many nodes it lets join, from 1 to 1,000.
        #[arg(long, value_name = "NODES", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        uses: u32,
        /// How long it is good for, as 30m or 1d.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration_of)]
        valid: Duration,
        /// Write it here instead.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// List the members.
    Members,
    /// Make a learner a voter; nodes that have caught up are made voters without it.
    Promote {
        /// Its number.
        node: u64,
    },
    /// Let other nodes take over what a node holds.
    Drain {
        /// Its number.
        node: u64,
        /// Wait until no blob is short without it.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        consent: ConsentArgs,
    },
    /// Take a node out for good; its number is never used again.
    Remove {
        /// Its number.
        node: u64,
        /// Even if it is neither drained nor away; blobs that only it holds are lost.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        consent: ConsentArgs,
    },
    /// Let another voter lead, the best one if none is named.
    TransferLeader {
        /// Its number.
        node: Option<u64>,
    },
    /// Make a snapshot of the metadata on the node that is asked.
    Snapshot,
    /// List the background jobs of the node that is asked: when each ran, what it did, and what failed.
    Jobs,
    /// Print the configuration of the node that is asked, as TOML and without secrets.
    Config,
    /// Change how many copies the cluster keeps of each blob. Nodes make missing copies and drop those that are too many.
    Replicas {
        /// Copies, from 1 to 15.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=15))]
        copies: u32,
        #[command(flatten)]
        consent: ConsentArgs,
    },
    /// Replace the cluster's certificate authority and everything that a stolen disk gives away, while the cluster works.
    ///
    /// Every member gets a new certificate and a new key. The secret that the members share, the administrator's password
    /// made from it, and the keys that sign sessions are replaced; join tokens end. Remove a node that was stolen first: the
    /// rotation waits for every member.
    RotateAuthority {
        /// Return as soon as it has begun; 'nora cluster status' shows how far it is.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        consent: ConsentArgs,
    },
    /// After an upgrade of every node: allow what only the new version understands. There is no way back.
    FinalizeUpgrade {
        #[command(flatten)]
        consent: ConsentArgs,
    },
}

/// What can be done about join tokens that were made.
#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenCommand {
    /// List the join tokens that have not expired, without their secrets.
    Ls,
    /// Let a join token admit no more nodes; those that it has admitted stay.
    Revoke {
        /// Its id, as 'nora cluster join-token ls' shows it.
        id: String,
    },
}

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
}

#[derive(Serialize)]
struct Revoked<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct Number {
    node: u64,
}

#[derive(Serialize)]
struct Position {
    snapshot_index: u64,
}

#[derive(Serialize)]
struct Replicas {
    replicas: u32,
}

#[derive(Serialize)]
struct Level {
    feature_level: u32,
}

pub(crate) async fn run(
    args: AdminArgs,
    connection: &ConnectionArgs,
    command: ClusterCommand,
    output: &Output,
) -> Result<(), Failure> {
    let client = args.client(connection)?;
    match command {
        ClusterCommand::Status => {
            let status = client.status().await?;
            output.print(&status, || status_table(&status))
        }
        ClusterCommand::Members => {
            let members = client.status().await?.members;
            output.print(&members, || members_table(&members, None))
        }
        ClusterCommand::JoinToken { verb: Some(JoinTokenCommand::Ls), .. } => {
            let tokens = client.join_tokens().await?;
            output.print(&tokens, || join_tokens_table(&tokens, now_millis()))
        }
        ClusterCommand::JoinToken { verb: Some(JoinTokenCommand::Revoke { id }), .. } => {
            client.revoke_join_token(&id).await?;
            say_note(&format!("the join token {id} admits no more nodes"));
            output.print(&Revoked { id: &id }, String::new)
        }
        ClusterCommand::JoinToken { verb: None, uses, valid, to } => {
            let token = client.create_join_token(valid, uses).await?;
            let Some(path) = to else {
                say_note("give it to 'nora serve --join ADDRESS' in NORA_JOIN_TOKEN or a file");
                let token = token.expose();
                return output.print(&Token { token }, || format!("{token}\n"));
            };
            write_secret(&path, token.expose())
                .map_err(|source| Failure::Io { step: format!("write {}", path.display()), source })
        }
        ClusterCommand::Promote { node } => {
            client.promote(node).await?;
            say_note(&format!("node {node} votes"));
            output.print(&Number { node }, String::new)
        }
        ClusterCommand::Drain { node, wait, consent } => {
            let member = member(&client, node).await?;
            if !consent.given(&format!("let others take over what {member} holds"))? {
                return Ok(());
            }
            client.drain(node).await?;
            say_note(&format!("node {node} is draining"));
            if wait {
                wait_drained(&client, node).await?;
            }
            output.print(&Number { node }, String::new)
        }
        ClusterCommand::Remove { node, force, consent } => {
            let member = member(&client, node).await?;
            if !consent.given(&format!("take {member} out of the cluster for good"))? {
                return Ok(());
            }
            client.remove(node, force).await?;
            say_note(&format!("node {node} is no member any more"));
            output.print(&Number { node }, String::new)
        }
        ClusterCommand::TransferLeader { node } => {
            let node = client.transfer_leader(node).await?;
            say_note(&format!("node {node} leads"));
            output.print(&Number { node }, String::new)
        }
        ClusterCommand::Snapshot => {
            let snapshot_index = client.snapshot().await?;
            say_note(&format!("a snapshot goes up to log position {snapshot_index}"));
            output.print(&Position { snapshot_index }, String::new)
        }
        ClusterCommand::Jobs => {
            let jobs = client.jobs().await?;
            output.print(&jobs, || jobs_table(&jobs, now_millis()))
        }
        ClusterCommand::Config => write(&client.configuration().await?),
        ClusterCommand::Replicas { copies, consent } => {
            if !consent.given(&format!("keep {copies} copies of each blob"))? {
                return Ok(());
            }
            client.set_replicas(copies).await?;
            say_note(&format!("the cluster keeps {copies} copies of each blob"));
            output.print(&Replicas { replicas: copies }, String::new)
        }
        ClusterCommand::RotateAuthority { no_wait, consent } => {
            rotation::run(&args, connection, (!no_wait, consent), output).await
        }
        ClusterCommand::FinalizeUpgrade { consent } => {
            if !consent.given("allow what older versions do not understand, with no way back")? {
                return Ok(());
            }
            let feature_level = client.finalize_upgrade().await?;
            say_note(&format!("the cluster is at feature level {feature_level}"));
            output.print(&Level { feature_level }, String::new)
        }
    }
}

/// A member in words, for whoever has to decide about it.
async fn member(client: &AdminClient, node: u64) -> Result<String, Failure> {
    let status = client.status().await?;
    let Some(member) = status.members.iter().find(|member| member.node == node) else {
        return Err(Failure::Usage {
            message: format!("node {node} is no member"),
            hint: "'nora cluster members' lists them",
        });
    };
    let holds = match &member.report {
        Some(report) => format!("{} blobs", report.blobs_held),
        None => "does not answer".to_owned(),
    };
    let MemberStatus { role, standing, cluster_address, .. } = member;
    Ok(format!("node {node} ({role}, {standing}, {cluster_address}, {holds})"))
}

/// `nora scrub`.
pub(crate) async fn scrub(args: AdminArgs, connection: &ConnectionArgs) -> Result<(), Failure> {
    args.client(connection)?.scrub().await?;
    say_note(
        "every copy on that node is being read again; 'nora cluster status' shows what is found",
    );
    Ok(())
}

fn write_secret(path: &std::path::Path, secret: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let part = path.with_extension("part");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

/// Looks until a draining node holds nothing any more and no other is short of a blob.
async fn wait_drained(client: &AdminClient, node: u64) -> Result<(), Failure> {
    let mut told = None;
    let mut settled = 0;
    loop {
        let status = client.status().await?;
        let progress = drained(&status, node);
        settled = if progress == Progress::Done { settled + 1 } else { 0 };
        if told.as_ref() != Some(&progress) {
            match &progress {
                Progress::Left { held, missing } => say_note(&format!(
                    "node {node} holds {held} blobs; other nodes have {missing} to fetch"
                )),
                Progress::Silent => say_warning(&format!("node {node} does not answer")),
                Progress::Done | Progress::Stopped => {}
            }
        }
        match progress {
            Progress::Done if settled >= LOOKS_SETTLED => {
                say_note(&format!("node {node} holds nothing any more"));
                return Ok(());
            }
            Progress::Stopped => {
                say_warning(&format!(
                    "node {node} is not draining any more; 'nora cluster status' shows how it stands"
                ));
                return Err(Failure::Told);
            }
            Progress::Done | Progress::Left { .. } | Progress::Silent => told = Some(progress),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How far a drain is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    Left { held: u64, missing: u64 },
    Silent,
    Stopped,
}

fn drained(status: &ClusterStatus, node: u64) -> Progress {
    let Some(member) = status.members.iter().find(|member| member.node == node) else {
        return Progress::Stopped;
    };
    if member.standing != "draining" {
        return Progress::Stopped;
    }
    // Blobs that it holds are taken over, and then it gives them up.
    let Some(held) = member.report.as_ref().map(|report| report.blobs_held) else {
        return Progress::Silent;
    };
    match reports(&status.members).map(|report| report.blobs_missing).sum() {
        0 if held == 0 => Progress::Done,
        missing => Progress::Left { held, missing },
    }
}

fn status_table(status: &ClusterStatus) -> String {
    let leader = status.leader.map_or("none".to_owned(), |leader| format!("node {leader}"));
    let missing: u64 = reports(&status.members).map(|report| report.blobs_missing).sum();
    let mut versions: Vec<&str> = reports(&status.members).map(|r| r.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let head = [
        ("cluster", status.cluster.clone()),
        ("asked", format!("node {}", status.node)),
        ("leader", leader),
        ("term", status.term.to_string()),
        (
            "log",
            format!(
                "{} entries, {} applied, snapshot up to {}",
                status.log_index, status.applied_index, status.snapshot_index
            ),
        ),
        ("feature level", status.feature_level.to_string()),
        ("versions", versions.join(", ")),
        ("copies to make", missing.to_string()),
    ];
    let mut text = String::new();
    for (name, value) in head {
        text += &format!("{name:<15} {value}\n");
    }
    if status.is_joint {
        text +=
            "voters          changing: majorities of the old and of the new voters must agree\n";
    }
    if let Some(rotation) = &status.rotation {
        text += &format!("authority       {}\n", rotation::in_words(rotation));
    }
    text.push('\n');
    text + &members_table(&status.members, Some(status.log_index))
}

fn reports(members: &[MemberStatus]) -> impl Iterator<Item = &nora_client::admin::NodeReport> {
    members.iter().filter_map(|member| member.report.as_ref())
}

fn members_table(members: &[MemberStatus], log_index: Option<u64>) -> String {
    let rows: Vec<_> = members
        .iter()
        .map(|member| {
            let mut row = vec![
                member.node.to_string(),
                member.role.to_owned(),
                member.standing.to_owned(),
                member.zone.clone(),
                member.cluster_address.clone(),
            ];
            match &member.report {
                Some(report) => {
                    let lag = log_index.map(|log| log.saturating_sub(report.applied_index));
                    row.extend([
                        lag.map_or(String::new(), |lag| lag.to_string()),
                        format!(
                            "{} of {}",
                            human_size(report.disk_free),
                            human_size(report.disk_total)
                        ),
                        report.blobs_held.to_string(),
                        report.blobs_missing.to_string(),
                        report.blobs_quarantined.to_string(),
                        report.clock_offset_millis.map_or(String::new(), human_offset),
                        report.version.clone(),
                    ]);
                }
                None => row.push("does not answer".to_owned()),
            }
            row
        })
        .collect();
    let header = [
        "NODE", "ROLE", "STANDING", "ZONE", "ADDRESS", "LAG", "FREE", "BLOBS", "MISSING",
        "DAMAGED", "CLOCK", "VERSION",
    ];
    columns(&header, &rows)
}

/// How far a wall clock is ahead (`+`) or behind (`-`).
fn human_offset(millis: i64) -> String {
    let sign = if millis < 0 { '-' } else { '+' };
    match millis.unsigned_abs() {
        millis @ 0..120_000 => format!("{sign}{}.{} s", millis / 1_000, millis % 1_000 / 100),
        millis => format!("{sign}{}", span(millis)),
    }
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time for people in its largest unit, as `59 min`.
fn span(millis: u64) -> String {
    match millis / 1_000 {
        0 => format!("{millis} ms"),
        secs @ 1..=119 => format!("{secs} s"),
        secs @ 120..=7_199 => format!("{} min", secs / 60),
        secs @ 7_200..=172_799 => format!("{} h", secs / 3_600),
        secs => format!("{} d", secs / 86_400),
    }
}

fn join_tokens_table(tokens: &[JoinTokenInfo], now: u64) -> String {
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            vec![
                token.id.clone(),
                span(now.saturating_sub(token.created_at)) + " ago",
                format!("in {}", span(token.expires_at.saturating_sub(now))),
                token.uses_left.to_string(),
            ]
        })
        .collect();
    columns(&["ID", "MADE", "EXPIRES", "USES LEFT"], &rows)
}

fn jobs_table(jobs: &[JobStatus], now: u64) -> String {
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            let ago = |at: Option<u64>| at.map(|at| span(now.saturating_sub(at)) + " ago");
            let took = |micros: u64| match micros {
                0..=9_999 => format!("{:.1} ms", micros as f64 / 1_000.0),
                _ => span(micros / 1_000),
            };
            let last = if job.error.is_empty() { &job.result } else { &job.error };
            vec![
                job.name.clone(),
                job.state.to_owned(),
                span(job.every_millis),
                job.runs.to_string(),
                job.failures.to_string(),
                ago(job.started_at).unwrap_or_default(),
                job.duration_micros.map(took).unwrap_or_default(),
                job.due_at
                    .map(|at| format!("in {}", span(at.saturating_sub(now))))
                    .unwrap_or_default(),
                last.clone(),
            ]
        })
        .collect();
    let header = ["JOB", "STATE", "EVERY", "RUNS", "FAILED", "LAST", "TOOK", "NEXT", "RESULT"];
    columns(&header, &rows)
}

#[cfg(test)]
mod tests {
    use nora_client::admin::NodeReport;

    use super::*;

    fn member(node: u64, standing: &'static str, report: Option<NodeReport>) -> MemberStatus {
        MemberStatus {
            node,
            role: "voter",
            standing,
            cluster_address: format!("10.0.0.{node}:4001"),
            http_address: String::new(),
            zone: "eu".into(),
            weight: 100,
            feature_max: 2,
            report,
        }
    }

    fn status(members: Vec<MemberStatus>) -> ClusterStatus {
        ClusterStatus {
            cluster: "c1".into(),
            node: 1,
            leader: None,
            term: 3,
            log_index: 90,
            applied_index: 88,
            snapshot_index: 50,
            feature_level: 1,
            clock_millis: 1_700_000_000_000,
            is_joint: true,
            rotation: None,
            members,
        }
    }

    fn holding(blobs_held: u64, blobs_missing: u64) -> Option<NodeReport> {
        let version = "1.0".to_owned();
        Some(NodeReport {
            applied_index: 88,
            version,
            blobs_held,
            blobs_missing,
            clock_offset_millis: Some(400 * 86_400_000),
            ..NodeReport::default()
        })
    }

    #[test]
    fn a_drain_is_over_when_no_blob_is_short() {
        let of = |standing, report, others| {
            drained(&status(vec![member(1, "active", others), member(2, standing, report)]), 2)
        };
        assert_eq!(of("draining", holding(0, 0), holding(5, 0)), Progress::Done);
        let left = |held, missing| Progress::Left { held, missing };
        assert_eq!(of("draining", holding(3, 0), holding(5, 0)), left(3, 0));
        assert_eq!(of("draining", holding(0, 0), holding(5, 2)), left(0, 2));
        assert_eq!(of("draining", None, holding(5, 0)), Progress::Silent);
        // Removed, or silent for so long that it is away: there is nothing left to wait for.
        assert_eq!(of("active", holding(0, 0), holding(5, 0)), Progress::Stopped);
        assert_eq!(drained(&status(Vec::new()), 2), Progress::Stopped);
    }

    #[test]
    fn an_offset_of_a_clock_has_one_unit() {
        for (millis, expected) in [
            (0, "+0.0 s"),
            (-1_250, "-1.2 s"),
            (600_000, "+10 min"),
            (-7_200_000, "-2 h"),
            (34_560_000_000, "+400 d"),
        ] {
            assert_eq!(human_offset(millis), expected);
        }
    }

    #[test]
    fn status_shows_who_lags_who_is_silent_and_what_is_short() {
        let text = status_table(&status(vec![
            member(1, "active", holding(7, 4)),
            member(2, "away", None),
        ]));
        for part in [
            "leader          none",
            "90 entries, 88 applied, snapshot up to 50",
            "copies to make  4",
            "versions        1.0",
            "voters          changing",
            "+400 d",
            "2     voter  away      eu    10.0.0.2:4001  does not answer",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn jobs_show_when_they_ran_and_what_failed() {
        let job = |name: &str, state, error: &str| JobStatus {
            name: name.to_owned(),
            state,
            leader_only: false,
            every_millis: 60_000,
            runs: 7,
            failures: 1,
            started_at: Some(1_000),
            duration_micros: Some(2_500),
            succeeded_at: Some(1_002),
            due_at: (state == "waiting").then_some(541_000),
            result: "3 dropped".into(),
            error: error.to_owned(),
        };
        let jobs = [job("scrub", "standby", "no \x1bleader"), job("uploads-expire", "waiting", "")];
        let expected = "\
JOB             STATE    EVERY  RUNS  FAILED  LAST      TOOK    NEXT      RESULT
scrub           standby  60 s   7     1       60 s ago  2.5 ms            no \u{fffd}leader
uploads-expire  waiting  60 s   7     1       60 s ago  2.5 ms  in 8 min  3 dropped
";
        assert_eq!(jobs_table(&jobs, 61_000), expected);
        for (millis, text) in [
            (250, "250 ms"),
            (119_000, "119 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (2_592_000_000, "30 d"),
        ] {
            assert_eq!(span(millis), text);
        }
    }
}
