//! `nora tag`, `nora delete`, `nora health`.

use std::io::{self, BufRead, IsTerminal, Write};

use nora_client::verbs::delete::{self, Deletion};
use nora_client::verbs::{health, tag};
use nora_client::{Client, Reference};

use super::DeleteArgs;
use super::failure::{Failure, say_error, say_note};
use super::output::Output;

/// Reads a reference against the client's server.
pub(crate) fn reference(client: &Client, text: &str) -> Result<Reference, Failure> {
    Ok(Reference::parse(text, &client.address().authority())?)
}

pub(crate) async fn tag(
    client: &Client,
    source: &str,
    destination: &str,
    output: &Output,
) -> Result<(), Failure> {
    let source = reference(client, source)?;
    let destination = reference(client, destination)?;
    let tagged = tag::run(client, &source, &destination).await?;
    say_note(&format!("{} names {}", tagged.reference, tagged.digest));
    output.print(&tagged, || format!("{}\n", tagged.digest))
}

pub(crate) async fn delete(
    client: &Client,
    args: DeleteArgs,
    output: &Output,
) -> Result<(), Failure> {
    let references: Vec<Reference> =
        args.references.iter().map(|text| reference(client, text)).collect::<Result<_, _>>()?;
    let mut plans = Vec::new();
    let mut failed = false;
    for reference in &references {
        match delete::plan(client, reference).await {
            Ok(plan) => plans.push(plan),
            Err(error) => {
                failed = true;
                say_error(&error, error.hint().as_deref());
            }
        }
    }
    let mut done = Vec::new();
    if args.dry_run {
        plans.iter().for_each(|plan| say_note(&format!("would delete {}", describe(plan))));
        done = plans;
    } else if !plans.is_empty() {
        confirm(&plans, args.yes)?;
        for plan in plans {
            match delete::run(client, &plan).await {
                Ok(()) => {
                    say_note(&format!("deleted {}", describe(&plan)));
                    done.push(plan);
                }
                Err(error) => {
                    failed = true;
                    say_error(&error, error.hint().as_deref());
                }
            }
        }
    }
    output.print(&done, || done.iter().map(|plan| format!("{}\n", plan.digest)).collect())?;
    if failed { Err(Failure::Told) } else { Ok(()) }
}

fn describe(plan: &Deletion) -> String {
    let Deletion { repository, tag, digest } = plan;
    match tag {
        Some(tag) => format!("the tag {repository}:{tag}, which names {digest}"),
        None => format!("{repository}@{digest} and every tag that names it"),
    }
}

fn confirm(plans: &[Deletion], yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage {
            message: "nobody is there to confirm what is deleted".into(),
            hint: "use --yes to delete without being asked, --dry-run to see what would be deleted",
        });
    }
    let ask = || -> io::Result<String> {
        let mut stderr = io::stderr().lock();
        for plan in plans {
            writeln!(stderr, "About to delete {}.", describe(plan))?;
        }
        write!(stderr, "Go on? [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(answer)
    };
    let answer =
        ask().map_err(|source| Failure::Io { step: "ask whether to go on".into(), source })?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => {
            say_note("nothing was deleted");
            Err(Failure::Told)
        }
    }
}

pub(crate) async fn health(client: &Client, output: &Output) -> Result<(), Failure> {
    let health = health::check(client).await?;
    output.print(&health, || {
        let word = |yes| if yes { "yes" } else { "no" };
        let detail = health.detail.lines().next().unwrap_or_default();
        let detail: String = detail.chars().filter(|c| !c.is_control()).take(200).collect();
        format!("alive: {}\nready: {} {detail}\n", word(health.alive), word(health.ready))
    })?;
    if health.alive && health.ready { Ok(()) } else { Err(Failure::Told) }
}
