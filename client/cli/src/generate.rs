//! What the binary says about itself: its version, completion scripts, manual pages.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::failure::Failure;
use super::output::{Output, write};

pub(crate) fn version(output: &Output) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let data = serde_json::json!({ "name": "nora", "version": version });
    output.print(&data, || format!("nora {version}\n"))
}

pub(crate) fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nora", &mut script);
    write(&String::from_utf8_lossy(&script))
}

pub(crate) fn man(dir: &Path) -> Result<(), Failure> {
    let io =
        |source| Failure::Io { step: format!("write manual pages to {}", dir.display()), source };
    std::fs::create_dir_all(dir).map_err(io)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_manual_page_for_every_command() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap();
        for page in ["nora.1", "nora-serve.1", "nora-images-ls.1", "nora-delete.1"] {
            assert!(folder.path().join(page).is_file(), "{page}");
        }
    }
}
