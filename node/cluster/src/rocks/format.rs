//! Which release's formats a folder holds.
//!
//! Guarantee: data that an earlier release wrote is refused before anything in it is opened or changed. A folder is claimed
//! for this format before the first store is made in it.

use std::fs;
use std::io;
use std::path::Path;

use super::{create_directory, write_atomically};

/// The file that names the format.
const FILE: &str = "FORMAT";

/// The format of this release: that of 0.3.
const CURRENT: &str = "3";

/// Refuses a folder that another format was written to. A folder that is empty or not there is fine.
pub fn check(data_dir: &Path) -> io::Result<()> {
    match fs::read_to_string(data_dir.join(FILE)) {
        Ok(text) if text.trim() == CURRENT => Ok(()),
        Ok(text) => Err(refused(&format!(
            "{} holds data of format {}, and this program reads and writes format {CURRENT}. Nothing was changed. Start \
             the release that wrote it, or give this one another data_dir",
            data_dir.display(),
            text.trim()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_used = ["raft-log", "state"].iter().any(|store| data_dir.join(store).exists());
            if !is_used {
                return Ok(());
            }
            Err(refused(&format!(
                "{} holds data of NORA 0.2 or earlier, which this release cannot read. Nothing was changed. Start the \
                 earlier release on it and copy what you need into a new cluster (for images: `skopeo sync` or `crane \
                 copy`), or give this release another data_dir",
                data_dir.display()
            )))
        }
        Err(error) => Err(error),
    }
}

/// Claims a folder for this format, unless it is claimed already.
pub fn claim(data_dir: &Path) -> io::Result<()> {
    check(data_dir)?;
    if data_dir.join(FILE).exists() {
        return Ok(());
    }
    create_directory(data_dir)?;
    write_atomically(data_dir, FILE, format!("{CURRENT}\n").as_bytes())
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_data_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("metadata");
        claim(&data).unwrap();
        claim(&data).unwrap();
        check(&data).unwrap();

        let old = folder.path().join("old");
        fs::create_dir_all(old.join("raft-log")).unwrap();
        fs::write(old.join("raft-log/CURRENT"), "MANIFEST-000001\n").unwrap();
        for refused in [check(&old), claim(&old)] {
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("0.2 or earlier") && told.contains("data_dir"), "{told}");
        }
        let left: Vec<_> =
            fs::read_dir(&old).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["raft-log"], "something was written to it");

        fs::write(data.join(FILE), "4\n").unwrap();
        let told = check(&data).unwrap_err().to_string();
        assert!(told.contains("format 4"), "{told}");
    }
}
