//! Which repositories lists show a caller.
//!
//! Guarantee: a list goes past names that no rule lets its caller see, and costs nothing for them.

use nora_app::repositories::Shown;
use nora_domain::{Format, RepositoryPath};

use super::Caller;

/// The repositories of a format that lists show a caller.
pub struct Listed<'a> {
    pub(super) caller: &'a Caller,
    pub(super) format: Format,
    /// What their names begin with, in order; none begins with another.
    pub(super) starts: Vec<String>,
}

impl Shown for Listed<'_> {
    fn shows(&self, path: &RepositoryPath) -> bool {
        self.caller.lists(self.format, path)
    }

    fn go_on(&self, after: Option<RepositoryPath>) -> Option<Option<RepositoryPath>> {
        go_on(&self.starts, after)
    }
}

/// Where names with one of these starts go on after `after`.
fn go_on(starts: &[String], after: Option<RepositoryPath>) -> Option<Option<RepositoryPath>> {
    let text = after.as_ref().map_or("", |after| after.as_str());
    let next =
        starts.iter().find(|start| start.as_str() > text || text.starts_with(start.as_str()))?;
    if text.starts_with(next.as_str()) {
        return Some(after);
    }
    // A list begins behind a name: behind the longest one before the start, unless the list is further already. The name
    // itself must not be left out where it is what the start says.
    let before = next.char_indices().rev().map(|(at, _)| &next[..at]);
    let before = before.filter_map(|text| RepositoryPath::parse(text).ok()).next();
    Some(before.max(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(starts: &[&str], text: &str) -> Option<Option<String>> {
        let starts: Vec<_> = starts.iter().map(ToString::to_string).collect();
        let from = RepositoryPath::parse(text).ok();
        go_on(&starts, from).map(|path| path.map(|path| path.to_string()))
    }

    #[test]
    fn a_list_skips_what_its_caller_may_not_see() {
        let some = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(after(&[], ""), None, "nothing is shown");
        assert_eq!(after(&[""], ""), Some(None), "everything is");
        assert_eq!(after(&[""], "z"), some("z"));
        let starts = ["a/b", "team/", "z/"];
        assert_eq!(after(&starts, ""), some("a/"));
        assert_eq!(after(&starts, "a/a"), some("a/a"), "it goes on, and never back");
        assert_eq!(after(&starts, "a/b"), some("a/b"));
        assert_eq!(after(&starts, "a/c"), some("team"));
        assert_eq!(after(&starts, "team-x"), some("team-x"));
        assert_eq!(after(&starts, "team/x/y"), some("team/x/y"));
        assert_eq!(after(&starts, "teams/x"), some("z"));
        assert_eq!(after(&starts, "zz"), None);
    }
}
