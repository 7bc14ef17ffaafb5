//! Finding the Rust sources of a workspace.

use std::path::Path;

use crate::Finding;

/// Folders that hold no source of the workspace: build output, version control, data, trees made to be wrong.
const SKIPPED: &[&str] = &["target", "fixtures", "node_modules", "nora-data"];

/// Every `.rs` file below `root`, relative to it with `/` between names, sorted.
pub fn rust_files(root: &Path, findings: &mut Vec<Finding>) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            Err(error) => {
                findings.push(Finding {
                    file: folder,
                    line: 1,
                    rule: "readable",
                    message: format!("cannot be listed: {error}"),
                });
                continue;
            }
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
