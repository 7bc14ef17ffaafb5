//! What a session must remember across a restart, in a file that is only ever appended to.
//!
//! Guarantees: what was appended is on the disk before `append` returns, so that a part's bytes may be removed once the
//! journal knows the part; a last line that a crash cut off is as if it had not been written. Must not know S3.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use nora_app::ports::uploads::Purpose;
use nora_uploads::PurposeV1;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// The journal's first line.
#[derive(Serialize, Deserialize)]
struct HeaderV1 {
    version: u32,
    #[serde(flatten)]
    purpose: PurposeV1,
    part_bytes: u64,
}

/// Any further line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// The parts that follow belong to this multipart upload.
    Multipart(String),
    /// This part is in the object store, with this entity tag. A part may be sent again: the last entry counts.
    Part(usize, String),
    /// Storing the whole has begun: no bytes may follow.
    Sealed,
}

/// What a session is for, and how it is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) purpose: Purpose,
    /// Bytes of each part but the last.
    pub(crate) part_bytes: u64,
}

impl Header {
    fn stored(&self) -> HeaderV1 {
        HeaderV1 {
            version: VERSION,
            purpose: PurposeV1::of(&self.purpose),
            part_bytes: self.part_bytes,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let stored: HeaderV1 = serde_json::from_str(line).ok()?;
        if stored.version != VERSION || stored.part_bytes == 0 {
            return None;
        }
        Some(Self { purpose: stored.purpose.parse()?, part_bytes: stored.part_bytes })
    }
}

/// Makes a journal that holds its header.
pub(crate) fn create(path: &Path, header: &Header) -> io::Result<()> {
    let mut line = serde_json::to_vec(&header.stored())?;
    line.push(b'\n');
    File::create_new(path)?.write_all(&line)
}

/// Adds a line and waits until the disk has it.
pub(crate) fn append(path: &Path, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(&line)?;
    file.sync_data()
}

/// Reads a journal back; `None` if it is not one.
pub(crate) fn load(path: &Path) -> io::Result<Option<(Header, Vec<Entry>)>> {
    let text = std::fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    // A line after one that was cut off would be glued to it.
    if whole.len() + 1 < text.len() {
        OpenOptions::new().write(true).open(path)?.set_len(whole.len() as u64 + 1)?;
    }
    let mut lines = whole.lines();
    let Some(header) = lines.next().and_then(Header::parse) else {
        return Ok(None);
    };
    let entries: Result<Vec<_>, _> = lines.map(serde_json::from_str).collect();
    Ok(entries.ok().map(|entries| (header, entries)))
}

#[cfg(test)]
mod tests {
    use nora_domain::{Algorithm, Format, RepositoryKey, RepositoryPath, TenantName, Timestamp};

    use super::*;

    fn header() -> Header {
        let purpose = Purpose {
            repository: RepositoryKey {
                tenant: TenantName::default_tenant(),
                format: Format::Oci,
                path: RepositoryPath::parse("a/b").unwrap(),
            },
            algorithm: Algorithm::Sha512,
            opener: None,
            opened_at: Timestamp(77),
        };
        Header { purpose, part_bytes: 8 << 20 }
    }

    #[test]
    fn the_stored_form_is_fixed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        create(&path, &header()).unwrap();
        append(&path, &Entry::Multipart("m".to_owned())).unwrap();
        append(&path, &Entry::Part(1, "\"e\"".to_owned())).unwrap();
        append(&path, &Entry::Sealed).unwrap();
        let expected = concat!(
            r#"{"version":1,"tenant":"default","format":"oci","path":"a/b","algorithm":"sha512","#,
            r#""opened_at":77,"part_bytes":8388608}"#,
            "\n{\"multipart\":\"m\"}\n{\"part\":[1,\"\\\"e\\\"\"]}\n\"sealed\"\n"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_line_that_was_cut_off_is_forgotten_and_the_next_one_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        create(&path, &header()).unwrap();
        let first = Entry::Multipart("m".to_owned());
        append(&path, &first).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"part\":[1,\"half").unwrap();
        assert_eq!(load(&path).unwrap(), Some((header(), vec![first.clone()])));
        let second = Entry::Part(1, "e".to_owned());
        append(&path, &second).unwrap();
        assert_eq!(load(&path).unwrap(), Some((header(), vec![first, second])));
    }

    #[test]
    fn what_is_not_a_journal_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        for text in ["", "{}\n", "half a header", "{\"version\":2}\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(load(&path).unwrap(), None, "{text:?}");
        }
    }
}
