//! The audit file on disk: where it ends, lines that are appended whole, and the number beside it.
//!
//! Guarantees: lines are appended whole or not at all; one that a crash cut off is taken away; only the file's tail is
//! read. Whoever rotates it may do so at any time: each call opens it by its name. Must not know what the lines are about,
//! but for their numbers.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

/// Bytes of the tail that the last number is looked for in. Lines are far shorter.
const WINDOW: u64 = 256 << 10;

/// The number of the file's last line, 0 if there is none.
pub(super) fn last_number(path: &Path) -> io::Result<u64> {
    let file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let end = mend(&file)?;
    let tail = read(&file, end.saturating_sub(WINDOW), end)?;
    Ok(tail.split(|byte| *byte == b'\n').rev().find_map(number_of).unwrap_or(0))
}

/// The last entry's number once this line is written. Half a line is no JSON, so it has none.
fn number_of(line: &[u8]) -> Option<u64> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    let gap_ends = &line["gap"]["before"];
    line["number"].as_u64().or_else(|| gap_ends.as_u64()?.checked_sub(1))
}

/// Takes a last line away that was cut off, by a crash or by a disk that was full; the file's length then.
fn mend(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "this is no regular file"));
    }
    let whole = whole_len(file, metadata.len())?;
    if whole < metadata.len() {
        file.set_len(whole)?;
    }
    Ok(whole)
}

/// How far whole lines go.
fn whole_len(file: &File, len: u64) -> io::Result<u64> {
    // Nearly always, the last byte is a newline.
    let (mut end, mut step) = (len, 1);
    while end > 0 {
        let start = end.saturating_sub(step);
        let newline = read(file, start, end)?.iter().rposition(|byte| *byte == b'\n');
        if let Some(newline) = newline {
            return Ok(start + newline as u64 + 1);
        }
        (end, step) = (start, WINDOW);
    }
    if len > WINDOW {
        // Somebody's, but not ours.
        let why = "there are no lines in this file: move it away, or name another";
        return Err(io::Error::new(ErrorKind::InvalidData, why));
    }
    Ok(0)
}

fn read(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (end - start) as usize];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// Appends lines and waits until they are on the disk.
pub(super) fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    append_lines(path, lines, |file, lines| file.write_all(lines))
}

fn append_lines(
    path: &Path,
    lines: &[u8],
    write: impl FnOnce(&mut File, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let before = mend(&file)?;
    let written = write(&mut file, lines).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // They are written again from the first one on.
        return match take_back(&file, before) {
            Ok(()) => Err(error),
            Err(undo) => {
                Err(io::Error::other(format!("{error}, and lines were left behind: {undo}")))
            }
        };
    }
    if before == 0
        && let Some(folder) = path.parent()
    {
        // A file that is new may be gone after a power failure although its bytes are on the disk. Not every folder can
        // be opened, and most file systems need no such care.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// Shortens a file to what it was. If somebody emptied it meanwhile, it stays as short as it is.
fn take_back(file: &File, before: u64) -> io::Result<()> {
    if file.metadata()?.len() > before { file.set_len(before) } else { Ok(()) }
}

/// A file beside the audit file.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The number that was noted beside the file, 0 if there is none.
pub(super) fn noted(path: &Path) -> io::Result<u64> {
    let path = beside(path, ".position");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
    if number.is_none() {
        warn!(path = %path.display(), "there is no number in this file; it will be written anew");
    }
    Ok(number.unwrap_or(0))
}

/// Notes beside the file how far it goes, whole or not at all. The lines up to there are on the disk.
pub(super) fn note(path: &Path, number: u64) -> io::Result<()> {
    let part = beside(path, ".position.part");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    writeln!(file, "{number}")?;
    file.sync_all()?;
    std::fs::rename(&part, beside(path, ".position"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LINES: &str = "{\"number\":1}\n{\"number\":2}\n";

    /// A folder with an audit file that holds this.
    fn holding(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn the_last_whole_line_counts_and_half_a_line_goes() {
        let long = "x".repeat(3 * WINDOW as usize);
        for (lines, cut, number) in [
            ("", "", 0),
            ("", "{\"number\":1", 0),
            (LINES, "", 2),
            (LINES, "{\"number\":3}", 2),
            (LINES, long.as_str(), 2),
            ("{\"number\":7}\nwhat is this?\n\n[]\n", "", 7),
            ("{\"number\":7}\n{\"gap\":{\"after\":7,\"before\":12}}\n", "{\"num", 11),
        ] {
            let (_dir, path) = holding(format!("{lines}{cut}").as_bytes());
            assert_eq!(last_number(&path).unwrap(), number, "{lines}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), lines);
        }
        let (_dir, path) = holding(b"{\"number\":3}\n\xff\xfe\n{\"number\":4\xff");
        assert_eq!(last_number(&path).unwrap(), 3);
        assert_eq!(std::fs::read(&path).unwrap(), b"{\"number\":3}\n\xff\xfe\n");
    }

    #[test]
    fn only_the_tail_of_a_huge_file_is_read() {
        let (_dir, path) = holding(b"{\"number\":1}\n");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        // A hole takes no room, and would take minutes to read.
        file.set_len(1 << 36).unwrap();
        file.write_all(b"\n{\"number\":8}\n{\"numb").unwrap();
        assert_eq!(last_number(&path).unwrap(), 8);
        append(&path, b"{\"number\":9}\n").unwrap();
        assert_eq!(last_number(&path).unwrap(), 9);
        // The window begins in the middle of a line.
        let line = format!("{{\"number\":10,\"actor\":\"{}\"}}\n", "a".repeat(1_000));
        append(&path, line.repeat(WINDOW as usize / 900).as_bytes()).unwrap();
        assert_eq!(last_number(&path).unwrap(), 10);
    }

    #[test]
    fn what_is_no_file_of_lines_is_left_alone() {
        let bytes = vec![0; WINDOW as usize + 1];
        let (dir, path) = holding(&bytes);
        assert_eq!(last_number(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(append(&path, b"{}\n").unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(last_number(&dir.path().join("none")).unwrap(), 0);
        let in_no_folder = dir.path().join("none/audit.jsonl");
        assert_eq!(last_number(&in_no_folder).unwrap(), 0);
        assert_eq!(append(&in_no_folder, b"{}\n").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn an_append_that_fails_half_way_leaves_nothing_behind() {
        let (_dir, path) = holding(LINES.as_bytes());
        let full = |file: &mut File, bytes: &[u8]| -> io::Result<()> {
            file.write_all(&bytes[..bytes.len() / 2])?;
            Err(io::Error::from(ErrorKind::StorageFull))
        };
        for _ in 0..2 {
            let failed = append_lines(&path, b"{\"number\":3}\n{\"number\":4}\n", full);
            assert_eq!(failed.unwrap_err().kind(), ErrorKind::StorageFull);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), LINES);
        }
        // A file that was emptied meanwhile does not get its length back.
        let emptied = |file: &mut File, _: &[u8]| -> io::Result<()> {
            file.set_len(0)?;
            Err(io::Error::from(ErrorKind::StorageFull))
        };
        append_lines(&path, b"{\"number\":3}\n", emptied).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        append(&path, b"{\"number\":3}\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{\"number\":3}\n");
    }

    #[test]
    fn lines_are_appended_to_whatever_has_the_name() {
        let (dir, path) = holding(b"{\"number\":1}\n{\"numb");
        append(&path, b"{\"number\":2}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), LINES);
        let rotated = dir.path().join("audit.jsonl.1");
        std::fs::rename(&path, &rotated).unwrap();
        append(&path, b"{\"number\":3}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"number\":3}\n");
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), LINES);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_number_beside_the_file_is_whole_and_private() {
        let (dir, path) = holding(LINES.as_bytes());
        assert_eq!(noted(&path).unwrap(), 0);
        for number in [7, u64::MAX, 8] {
            note(&path, number).unwrap();
            assert_eq!(noted(&path).unwrap(), number);
        }
        let position = dir.path().join("audit.jsonl.position");
        assert_eq!(std::fs::read_to_string(&position).unwrap(), "8\n");
        assert_eq!(std::fs::metadata(&position).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no part is left");
        for garbage in [b"".as_slice(), b"-1\n", b"seven", b"\xff\n"] {
            std::fs::write(&position, garbage).unwrap();
            assert_eq!(noted(&path).unwrap(), 0);
        }
    }
}
