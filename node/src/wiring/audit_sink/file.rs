//! The file of this node that gets every entry.
//!
//! Guarantees: entries come in order, each once, but for those that were written a moment before the node was killed and
//! then rotated away; where some are missing because they were dropped before they could be written, a line says which.
//! Whatever fails is tried again. This node alone writes to the file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nora_app::Registry;
use nora_app::jobs::{Job, Schedule, Turn, job};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::trouble::Trouble;
use super::{Failed, Gap, INTERVAL, PAGE, disk, lines};

/// The job that appends what this node applies to a file.
pub(in crate::wiring) fn to_file(path: PathBuf, registry: Registry) -> Arc<dyn Job> {
    let sink = Arc::new(Mutex::new(Sink::new(path, registry)));
    job(Schedule::every("audit-file", INTERVAL), move || {
        let sink = sink.clone();
        async move { sink.lock().await.turn().await }
    })
}

/// Runs what waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

struct Sink {
    path: PathBuf,
    registry: Registry,
    /// Number of the last entry that was written; `None` until that is known.
    last: Option<u64>,
    /// The number that is noted beside the file.
    noted: u64,
    noting: Trouble,
}

impl Sink {
    fn new(path: PathBuf, registry: Registry) -> Self {
        Self { path, registry, last: None, noted: 0, noting: Trouble::default() }
    }

    /// Writes the next page.
    async fn turn(&mut self) -> Result<Turn, Failed> {
        let last = match self.last {
            Some(last) => last,
            None => self.begin().await?,
        };
        self.last = Some(last);
        self.note(last).await;
        let page = self.registry.journal().entries(last, PAGE).await?;
        let (Some((first, _)), Some((newest, _))) = (page.items.first(), page.items.last()) else {
            return Ok(Turn::done());
        };
        let (gap, newest) = (Gap::between(last, *first), *newest);
        let said = gap.map(|gap| gap.line() + "\n").unwrap_or_default();
        let text = said + &lines(&page.items);
        let path = self.path.clone();
        // Much of the journal is no caller's doing, and has no line.
        if !text.is_empty() {
            // Should it fail, the file's end is looked at again: some of it may be there.
            self.last = None;
            blocking(move || disk::append(&path, text.as_bytes())).await?;
        }
        self.last = Some(newest);
        if let Some(Gap { after, before }) = gap {
            warn!(
                path = %self.path.display(), after, before,
                "audit entries are missing in this file: they were dropped before they could be written"
            );
        }
        self.note(newest).await;
        Ok(Turn::more_if(page.more).count("written", page.items.len() as u64))
    }

    /// The number to go on after: the last one in the file, or the one beside it if the file was rotated away.
    async fn begin(&mut self) -> Result<u64, Failed> {
        let path = self.path.clone();
        let (in_file, beside) =
            blocking(move || Ok((disk::last_number(&path)?, disk::noted(&path)?))).await?;
        self.noted = beside;
        let written = in_file.max(beside);
        if written <= self.newest().await? {
            return Ok(written);
        }
        // This node may not have applied again yet what it wrote before it was restarted.
        self.registry.catch_up().await?;
        let newest = self.newest().await?;
        if written <= newest {
            return Ok(written);
        }
        warn!(
            path = %self.path.display(), written, newest,
            "this file goes further than the audit log does, so it is another cluster's: entries follow from the log's beginning"
        );
        Ok(0)
    }

    /// Number of the log's last entry.
    async fn newest(&self) -> Result<u64, nora_app::Error> {
        Ok(self.registry.journal().head().await?.next.saturating_sub(1))
    }

    /// Notes beside the file how far it goes. Lines are written whether or not that can be done.
    async fn note(&mut self, last: u64) {
        if self.noted == last || self.noting.is_pausing(Instant::now()) {
            return;
        }
        let path = self.path.clone();
        match blocking(move || disk::note(&path, last)).await {
            Ok(()) => {
                self.noted = last;
                if self.noting.over().is_some() {
                    info!(path = %self.path.display(), "how far this file goes is noted beside it again");
                }
            }
            Err(error) => {
                if self.noting.failed(Instant::now()) {
                    warn!(
                        path = %self.path.display(), %error,
                        "how far this file goes cannot be noted beside it; if it is rotated before a restart, entries come twice"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use nora_app::jobs::Next;

    use crate::wiring::audit_sink::tests::{FOUNDING, drop_all, refuse};
    use nora_http::testkit::World;

    fn sink(path: &Path, world: &World) -> Sink {
        Sink::new(path.to_owned(), world.registry.clone())
    }

    /// What is in the file: the numbers of entries, and of those around gaps, counted from the founding on.
    fn shown(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let counted = |number: &serde_json::Value| {
                number.as_u64().map(|number| number.saturating_sub(FOUNDING).to_string())
            };
            let gap = |end: &str| counted(&line["gap"][end]).unwrap();
            counted(&line["number"])
                .unwrap_or_else(|| format!("{}..{}", gap("after"), gap("before")))
        });
        lines.collect()
    }

    #[tokio::test]
    async fn the_file_goes_on_where_it_ended_rotated_or_not() {
        let (world, dir) = (World::without_policy(true).await, tempfile::tempdir().unwrap());
        let path = dir.path().join("audit.jsonl");
        let rotate = || std::fs::rename(&path, dir.path().join("audit.jsonl.1")).unwrap();
        let mut running = sink(&path, &world);
        running.turn().await.unwrap();
        refuse(&world, 3).await;
        running.turn().await.unwrap();
        assert_eq!(shown(&path), ["1", "2", "3"]);
        rotate();
        refuse(&world, 1).await;
        running.turn().await.unwrap();
        assert_eq!(shown(&path), ["4"]);
        // Restarted.
        refuse(&world, 1).await;
        sink(&path, &world).turn().await.unwrap();
        assert_eq!(shown(&path), ["4", "5"]);
        // Rotated, then restarted.
        rotate();
        refuse(&world, 1).await;
        sink(&path, &world).turn().await.unwrap();
        assert_eq!(shown(&path), ["6"]);
        // Killed before the number was noted, or written by an older release.
        std::fs::remove_file(dir.path().join("audit.jsonl.position")).unwrap();
        refuse(&world, 1).await;
        sink(&path, &world).turn().await.unwrap();
        assert_eq!(shown(&path), ["6", "7"]);
        assert_eq!(disk::noted(&path).unwrap(), 7 + FOUNDING);
    }

    #[tokio::test]
    async fn a_turn_writes_a_page_and_says_whether_there_is_another() {
        let (world, dir) = (World::without_policy(true).await, tempfile::tempdir().unwrap());
        let path = dir.path().join("audit.jsonl");
        refuse(&world, 2 * PAGE + 1).await;
        let mut sink = sink(&path, &world);
        for next in [Next::AtOnce, Next::AtOnce, Next::Scheduled] {
            assert_eq!(sink.turn().await.unwrap().next, next);
        }
        let numbers: Vec<_> = (1..=2 * PAGE + 1).map(|number| number.to_string()).collect();
        assert_eq!(shown(&path), numbers);
    }

    #[tokio::test]
    async fn dropped_entries_leave_a_line_that_says_so() {
        let (world, dir) = (World::without_policy(true).await, tempfile::tempdir().unwrap());
        let path = dir.path().join("audit.jsonl");
        let mut running = sink(&path, &world);
        refuse(&world, 2).await;
        running.turn().await.unwrap();
        refuse(&world, 2).await;
        drop_all(&world).await;
        refuse(&world, 2).await;
        running.turn().await.unwrap();
        running.turn().await.unwrap();
        assert_eq!(shown(&path), ["1", "2", "2..5", "8", "9"]);
        let late = dir.path().join("late.jsonl");
        sink(&late, &world).turn().await.unwrap();
        assert_eq!(shown(&late), ["0..5", "8", "9"]);
    }

    #[tokio::test]
    async fn another_cluster_s_log_is_written_from_its_beginning() {
        let (world, dir) = (World::without_policy(true).await, tempfile::tempdir().unwrap());
        let path = dir.path().join("audit.jsonl");
        std::fs::write(&path, "{\"number\":1000}\n").unwrap();
        disk::note(&path, 1_001).unwrap();
        refuse(&world, 2).await;
        for _ in 0..2 {
            sink(&path, &world).turn().await.unwrap();
            let of_the_other = (1_000 - FOUNDING).to_string();
            assert_eq!(shown(&path), [of_the_other.as_str(), "1", "2"]);
            assert_eq!(disk::noted(&path).unwrap(), 2 + FOUNDING);
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_fails_the_turn_and_the_next_one_goes_on() {
        let (world, dir) = (World::without_policy(true).await, tempfile::tempdir().unwrap());
        let folder = dir.path().join("log");
        let path = folder.join("audit.jsonl");
        refuse(&world, 2).await;
        let mut running = sink(&path, &world);
        running.turn().await.unwrap_err();
        std::fs::create_dir(&folder).unwrap();
        running.turn().await.unwrap();
        assert_eq!(shown(&path), ["1", "2"]);
        // A folder has the file's name.
        let mut misled = sink(&folder, &world);
        misled.turn().await.unwrap_err();
    }

    #[tokio::test]
    async fn lines_are_written_even_if_nothing_can_be_noted_beside_them() {
        let (world, dir) = (World::without_policy(true).await, tempfile::tempdir().unwrap());
        let path = dir.path().join("audit.jsonl");
        std::fs::create_dir(dir.path().join("audit.jsonl.position.part")).unwrap();
        refuse(&world, 1).await;
        let mut running = sink(&path, &world);
        running.turn().await.unwrap();
        refuse(&world, 1).await;
        running.turn().await.unwrap();
        assert_eq!(shown(&path), ["1", "2"]);
        assert!(running.noting.is_pausing(Instant::now()));
    }
}
