//! `nora config`: check, show, schema.

use std::path::Path;

use super::ConfigCommand;
use super::failure::{Failure, say_note};
use super::output::{Output, OutputFormat, columns, write};
use nora_config::{
    Effective, Loaded, Overrides, as_toml, as_value, json_schema, load_effective, source,
    toml_value,
};

pub(crate) fn run(command: ConfigCommand, output: &Output) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => check(file.as_deref()),
        ConfigCommand::Show { file, overrides } => {
            show(&load_effective(file.as_deref(), &overrides.into())?, output)
        }
        ConfigCommand::Schema => {
            let schema = json_schema();
            let json = Output::new(match output.format {
                OutputFormat::Table => OutputFormat::Json,
                format => format,
            });
            json.print(&schema, String::new)
        }
    }
}

fn check(file: Option<&Path>) -> Result<(), Failure> {
    let loaded = load_effective(file, &Overrides::default())?;
    match loaded.file {
        Some(path) => say_note(&format!("{} has no errors", path.display())),
        None => say_note("there is no configuration file: the defaults are in effect"),
    }
    Ok(())
}

fn show(loaded: &Loaded, output: &Output) -> Result<(), Failure> {
    let file = loaded.file.as_ref().map(|path| path.display().to_string());
    let file = file.as_deref();
    if output.format == OutputFormat::Toml {
        return write(&as_toml(&loaded.effective, file));
    }
    let row = |entry: &Effective| {
        vec![entry.key.clone(), toml_value(&entry.value), source(&entry.source, file)]
    };
    output.print(&as_value(&loaded.effective, file), || {
        let rows: Vec<Vec<String>> = loaded.effective.iter().map(row).collect();
        columns(&["KEY", "VALUE", "SOURCE"], &rows)
    })
}
