//! `nora tenant` and `nora usage`: what tenants use, and how much they may.

use std::io::{self, IsTerminal};

use clap::Subcommand;
use nora_client::admin::{AdminClient, TenantUsage};

use super::admin::AdminArgs;
use super::connection::ConnectionArgs;
use super::failure::Failure;
use super::output::{Output, OutputFormat, clean, columns, facts, human_size};

const BAR_WIDTH: u64 = 24;

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// List tenants. They are shown to administrators of the registry only.
    Ls,
    /// Show a tenant's namespaces, limits and use.
    Show {
        /// Its name.
        name: String,
    },
}

pub(crate) async fn run(
    args: AdminArgs,
    connection: &ConnectionArgs,
    command: TenantCommand,
    output: &Output,
) -> Result<(), Failure> {
    let client = args.callers_client(connection)?;
    match command {
        TenantCommand::Ls => {
            let tenants = client.tenants(None).await?;
            output.print(&tenants, || tenants_table(&tenants))
        }
        TenantCommand::Show { name } => {
            let tenant = one(&client, &name).await?;
            output.print(&tenant, || tenant_text(&tenant))
        }
    }
}

/// `nora usage`.
pub(crate) async fn usage(
    args: AdminArgs,
    connection: &ConnectionArgs,
    name: Option<String>,
    output: &Output,
) -> Result<(), Failure> {
    let client = args.callers_client(connection)?;
    let tenants = match name {
        Some(name) => vec![one(&client, &name).await?],
        None => client.tenants(None).await?,
    };
    let drawn = output.format == OutputFormat::Table && io::stdout().is_terminal();
    output.print(&tenants, || if drawn { bars(&tenants) } else { usage_table(&tenants) })
}

async fn one(client: &AdminClient, name: &str) -> Result<TenantUsage, Failure> {
    let found = client.tenants(Some(name)).await?;
    found.into_iter().find(|tenant| tenant.name == name).ok_or_else(|| Failure::Usage {
        message: format!("there is no tenant {name}"),
        hint: "'nora tenant ls' lists the tenants",
    })
}

/// What counts against the quota.
fn taken(tenant: &TenantUsage) -> u64 {
    tenant.unique_bytes.saturating_add(tenant.reserved_bytes)
}

/// Something with a limit, of which so much is used, if that is counted: what it is called, both, and how people write
/// them.
type Measure = (&'static str, Option<u64>, Option<u64>, fn(u64) -> String);

fn measures(tenant: &TenantUsage) -> [Measure; 4] {
    let number: fn(u64) -> String = |number| number.to_string();
    [
        ("storage", Some(taken(tenant)), tenant.storage_quota, human_size),
        ("artifacts", Some(tenant.artifacts), tenant.artifact_quota, number),
        ("pushes/h", tenant.pushes, tenant.push_limit, number),
        ("pulls/h", tenant.pulls, tenant.pull_limit, number),
    ]
}

/// The part of the pulls that callers without a login make.
fn anonymous(tenant: &TenantUsage) -> Measure {
    let number: fn(u64) -> String = |number| number.to_string();
    ("anonymous", tenant.anonymous_pulls, tenant.anonymous_pull_limit, number)
}

fn of_limit((_, used, limit, write): Measure) -> String {
    match (used, limit) {
        (used, Some(limit)) => format!("{} of {}", write(used.unwrap_or(0)), write(limit)),
        (Some(used), None) => write(used),
        (None, None) => "-".to_owned(),
    }
}

/// How much of a limit is used, rounded down: 100 is said only of a limit that is reached.
fn percent(used: u64, limit: u64) -> u64 {
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

fn tenants_table(tenants: &[TenantUsage]) -> String {
    let row = |tenant: &TenantUsage| {
        let [storage, artifacts, ..] = measures(tenant).map(of_limit);
        vec![tenant.name.clone(), tenant.namespaces.join(","), storage, artifacts]
    };
    let rows: Vec<Vec<String>> = tenants.iter().map(row).collect();
    columns(&["TENANT", "NAMESPACES", "STORAGE", "ARTIFACTS"], &rows)
}

fn usage_table(tenants: &[TenantUsage]) -> String {
    let row = |tenant: &TenantUsage| {
        let [storage, artifacts, pushes, pulls] = measures(tenant).map(of_limit);
        let part = tenant.storage_quota.map(|quota| format!("{} %", percent(taken(tenant), quota)));
        let part = part.unwrap_or_else(|| "-".into());
        vec![tenant.name.clone(), storage, part, artifacts, pushes, pulls]
    };
    let rows: Vec<Vec<String>> = tenants.iter().map(row).collect();
    columns(&["TENANT", "STORAGE", "USED", "ARTIFACTS", "PUSHES/H", "PULLS/H"], &rows)
}

fn tenant_text(tenant: &TenantUsage) -> String {
    let [storage, artifacts, pushes, pulls] = measures(tenant).map(of_limit);
    facts(&[
        ("Tenant", tenant.name.clone()),
        ("Namespaces", tenant.namespaces.join(", ")),
        ("Storage", storage),
        ("Of that, reserved", human_size(tenant.reserved_bytes)),
        ("Over repositories", human_size(tenant.bytes)),
        ("Artifacts", artifacts),
        ("Tags", tenant.tags.to_string()),
        ("Pushes this hour", pushes),
        ("Pulls this hour", pulls),
        ("Of these, anonymous", of_limit(anonymous(tenant))),
    ])
}

/// A picture of what is used of what there is.
fn bars(tenants: &[TenantUsage]) -> String {
    let mut text = String::new();
    for tenant in tenants {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &format!("{}\n", clean(&tenant.name));
        let part = Some(anonymous(tenant)).filter(|(_, _, limit, _)| limit.is_some());
        for measure in measures(tenant).into_iter().chain(part) {
            let (name, used, limit, _) = measure;
            let drawn = match limit {
                Some(limit) => {
                    let percent = percent(used.unwrap_or(0), limit);
                    let filled = usize::try_from(percent.min(100) * BAR_WIDTH / 100).unwrap_or(0);
                    let empty = BAR_WIDTH as usize - filled;
                    format!("[{}{}] {percent:>3} %", "#".repeat(filled), "-".repeat(empty))
                }
                None => format!("{:32}", " no limit"),
            };
            text += &format!("  {name:<9}  {drawn}  {}\n", of_limit(measure));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantUsage {
        TenantUsage {
            name: "frontend".into(),
            namespaces: vec!["oci:frontend/*".into(), "npm:@frontend/*".into()],
            unique_bytes: 20 << 30,
            reserved_bytes: 5 << 30,
            bytes: 30 << 30,
            artifacts: 12,
            tags: 7,
            storage_quota: Some(50 << 30),
            artifact_quota: None,
            push_limit: Some(100),
            pull_limit: None,
            pushes: Some(100),
            pulls: None,
            anonymous_pull_limit: None,
            anonymous_pulls: None,
        }
    }

    #[test]
    fn bars_show_what_is_used_of_what_there_is() {
        assert_eq!(
            bars(&[tenant()]),
            "frontend\n\
             \x20 storage    [############------------]  50 %  25.0 GiB of 50.0 GiB\n\
             \x20 artifacts   no limit                         12\n\
             \x20 pushes/h   [########################] 100 %  100 of 100\n\
             \x20 pulls/h     no limit                         -\n"
        );
        let limited = TenantUsage {
            pull_limit: Some(50),
            pulls: Some(10),
            anonymous_pull_limit: Some(25),
            anonymous_pulls: Some(5),
            ..tenant()
        };
        let text = bars(&[limited]);
        assert!(
            text.ends_with("  anonymous  [####--------------------]  20 %  5 of 25\n"),
            "{text}"
        );
        // More than there may be is not drawn out of the frame.
        let over = TenantUsage { pushes: Some(u64::MAX), push_limit: Some(1), ..tenant() };
        assert!(bars(&[over]).lines().all(|line| line.matches('#').count() <= 24));
    }

    #[test]
    fn tables_write_sizes_for_people() {
        assert_eq!(
            usage_table(&[tenant(), TenantUsage { name: "b".into(), ..TenantUsage::default() }]),
            "TENANT    STORAGE               USED  ARTIFACTS  PUSHES/H    PULLS/H\n\
             frontend  25.0 GiB of 50.0 GiB  50 %  12         100 of 100  -\n\
             b         0 B                   -     0          -           -\n"
        );
        assert!(tenants_table(&[tenant()]).contains("oci:frontend/*,npm:@frontend/*"));
        let text = tenant_text(&tenant());
        assert!(text.contains("Of that, reserved:    5.0 GiB\n"), "{text}");
    }

    #[test]
    fn a_limit_that_is_not_reached_is_never_full() {
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
        assert_eq!(percent(5, 0), 500);
    }
}
