//! Tags that never move and never go: `[[policy.immutable]]`.
//!
//! Guarantees: a rule without tags is about every tag. Must not know: what a push or a delete is; whoever changes a tag
//! asks here first.

use globset::{GlobSet, GlobSetBuilder};
use nora_domain::Format;

use super::compile::{Errors, quoted};
use crate::document::Immutable;
use crate::permission::{Action, Pattern, PermissionSet, Resource, compile};

/// All such rules, compiled.
#[derive(Debug, Default)]
pub(super) struct ImmutableTags {
    rules: Vec<TagRule>,
}

#[derive(Debug)]
struct TagRule {
    /// The repositories, as if they were a permission: one way to compile names is enough.
    repositories: PermissionSet,
    /// None is every tag.
    tags: Option<GlobSet>,
}

impl ImmutableTags {
    pub(super) fn compile(rules: &[Immutable], errors: &mut Errors) -> Self {
        let mut compiled = Vec::with_capacity(rules.len());
        for (at, rule) in rules.iter().enumerate() {
            let place = format!("policy.immutable[{at}]");
            let repositories = match Pattern::parse(&rule.repositories) {
                Ok(pattern) => PermissionSet::parse([format!("pull:{pattern}")]).ok(),
                Err(error) => {
                    let text = quoted(&rule.repositories);
                    errors
                        .add(format!("{place}.match"), format!("{text} matches nothing: {error}"));
                    None
                }
            };
            let tags = tags(&place, &rule.tags, errors);
            if let Some(repositories) = repositories {
                compiled.push(TagRule { repositories, tags });
            }
        }
        Self { rules: compiled }
    }

    pub(super) fn covers(&self, format: Format, path: &str, tag: &str) -> bool {
        self.rules.iter().any(|rule| {
            rule.tags.as_ref().is_none_or(|tags| tags.is_match(tag)) && rule.is_about(format, path)
        })
    }

    pub(super) fn covers_some(&self, format: Format, path: &str) -> bool {
        self.rules.iter().any(|rule| rule.is_about(format, path))
    }
}

impl TagRule {
    fn is_about(&self, format: Format, path: &str) -> bool {
        self.repositories.covers(Action::Pull, &Resource::Repository { format, path })
    }
}

fn tags(place: &str, globs: &[String], errors: &mut Errors) -> Option<GlobSet> {
    if globs.is_empty() {
        return None;
    }
    let mut builder = GlobSetBuilder::new();
    for (at, glob) in globs.iter().enumerate() {
        let place = format!("{place}.tags[{at}]");
        let odd = |c: char| !c.is_ascii_graphic() || c == '/' || c == '\\';
        if glob.is_empty() || glob.len() > Pattern::BYTES_MAX || glob.contains(odd) {
            let reason = "no tag is like that: write a glob as `v*`, without spaces and `/`";
            errors.add(place, format!("{} matches nothing: {reason}", quoted(glob)));
            continue;
        }
        match compile(glob) {
            Ok(glob) => {
                builder.add(glob);
            }
            Err(error) => errors.add(place, format!("{} matches nothing: {error}", quoted(glob))),
        }
    }
    match builder.build() {
        Ok(set) => Some(set),
        Err(error) => {
            errors.add(format!("{place}.tags"), format!("too many wild globs: {}", error.kind()));
            None
        }
    }
}
