//! `nora images`: ls, inspect, history.

use nora_client::verbs::images::{self, HistoryRow, ImageRow, Inspection};
use nora_client::{Client, Descriptor, ImageConfig};

use super::ImageArgs;
use super::content::reference;
use super::failure::{Failure, say_error};
use super::output::{self, Output, columns, human_size};

pub(crate) async fn list(
    client: &Client,
    repository: Option<String>,
    output: &Output,
) -> Result<(), Failure> {
    let repository = match repository {
        None => None,
        Some(text) => {
            let reference = reference(client, &text)?;
            if reference.tag.is_some() || reference.digest.is_some() {
                return Err(Failure::Usage {
                    message: format!("{text} names an image, not a repository"),
                    hint: "`nora images inspect` shows an image",
                });
            }
            Some(reference.repository)
        }
    };
    let mut rows = Vec::new();
    let mut failed = false;
    images::list(client, repository.as_deref(), |row| match row {
        Ok(row) => rows.push(row),
        Err(failure) => {
            failed = true;
            say_error(&failure.error, Some(&format!("{} is missing below", failure.what)));
        }
    })
    .await?;
    output.print(&rows, || {
        let cells: Vec<Vec<String>> = rows.iter().map(image_cells).collect();
        columns(&["REPOSITORY", "TAG", "TYPE", "DIGEST", "SIZE", "PLATFORMS"], &cells)
    })?;
    if failed { Err(Failure::Told) } else { Ok(()) }
}

fn image_cells(row: &ImageRow) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    vec![
        row.repository.clone(),
        or_dash(&row.tag),
        or_dash(&row.kind),
        or_dash(&row.digest),
        row.size.map_or_else(|| "-".into(), human_size),
        row.platforms.join(","),
    ]
}

pub(crate) async fn inspect(
    client: &Client,
    args: ImageArgs,
    output: &Output,
) -> Result<(), Failure> {
    let reference = reference(client, &args.reference)?;
    let inspection = images::inspect(client, &reference, args.platform.as_deref()).await?;
    output.print(&inspection, || inspection_text(&inspection))
}

fn inspection_text(inspection: &Inspection) -> String {
    let mut facts = vec![
        ("Name", inspection.reference.clone()),
        ("Digest", inspection.digest.clone()),
        ("Type", inspection.kind.clone()),
        ("Media type", inspection.media_type.clone()),
        ("Size", human_size(inspection.size)),
    ];
    if let Some(subject) = &inspection.subject {
        facts.push(("Subject", subject.digest.clone()));
    }
    if let Some(config) = &inspection.config {
        facts.extend(config_facts(config));
    }
    facts.extend(
        inspection.annotations.iter().map(|(key, value)| ("Annotation", format!("{key}={value}"))),
    );
    let mut text = output::facts(&facts);
    for (title, descriptors) in [
        ("LAYER", &inspection.layers),
        ("MANIFEST", &inspection.manifests),
        ("REFERRER", &inspection.referrers),
    ] {
        if !descriptors.is_empty() {
            let cells: Vec<Vec<String>> = descriptors.iter().map(descriptor_cells).collect();
            text.push('\n');
            text += &columns(&[title, "SIZE", "TYPE"], &cells);
        }
    }
    text
}

fn config_facts(config: &ImageConfig) -> Vec<(&'static str, String)> {
    let words = |list: &Option<Vec<String>>| list.as_ref().map(|words| format!("{words:?}"));
    let run = &config.config;
    let mut facts = Vec::new();
    let mut add = |name, value: Option<String>| {
        facts.extend(value.filter(|value| !value.is_empty()).map(|value| (name, value)));
    };
    let platform = &config.platform;
    add("Platform", platform.is_known().then(|| platform.to_string()));
    add("Created", known_time(&config.created));
    add("Author", config.author.clone());
    add("Entrypoint", words(&run.entrypoint));
    add("Command", words(&run.cmd));
    add("Folder", run.working_dir.clone());
    add("User", run.user.clone());
    for port in run.exposed_ports.iter().flatten() {
        add("Port", Some(port.0.clone()));
    }
    for volume in run.volumes.iter().flatten() {
        add("Volume", Some(volume.0.clone()));
    }
    for variable in run.env.iter().flatten() {
        add("Env", Some(variable.clone()));
    }
    for (key, value) in run.labels.iter().flatten() {
        add("Label", Some(format!("{key}={value}")));
    }
    facts
}

/// A time, unless it is the one that builders written in Go have for "never set".
fn known_time(time: &Option<String>) -> Option<String> {
    const NEVER: &str = "0001-01-01T00:00:00";
    time.clone().filter(|time| !time.starts_with(NEVER))
}

fn descriptor_cells(descriptor: &Descriptor) -> Vec<String> {
    let platform = descriptor.platform.as_ref().filter(|platform| platform.is_known());
    let kind = match (platform, &descriptor.artifact_type) {
        (Some(platform), _) => platform.to_string(),
        (None, Some(artifact_type)) => artifact_type.clone(),
        (None, None) => descriptor.media_type.clone(),
    };
    vec![descriptor.digest.clone(), human_size(descriptor.size), kind]
}

pub(crate) async fn history(
    client: &Client,
    args: ImageArgs,
    output: &Output,
) -> Result<(), Failure> {
    let reference = reference(client, &args.reference)?;
    let rows = images::history(client, &reference, args.platform.as_deref()).await?;
    output.print(&rows, || {
        let cells: Vec<Vec<String>> = rows.iter().map(history_cells).collect();
        columns(&["CREATED", "SIZE", "CREATED BY", "COMMENT"], &cells)
    })
}

fn history_cells(row: &HistoryRow) -> Vec<String> {
    const COMMAND_CHARS_MAX: usize = 80;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let command = text(&row.step.created_by);
    let mut short: String = command.chars().take(COMMAND_CHARS_MAX).collect();
    if short.len() < command.len() {
        short.push('…');
    }
    vec![
        known_time(&row.step.created).unwrap_or_default(),
        row.size.map_or_else(|| "-".into(), human_size),
        short,
        text(&row.step.comment),
    ]
}
