//! Many permissions, compiled once, asked often.
//!
//! Guarantees: a set answers as the permissions in it do one by one. Names and prefixes are looked up, one step for
//! each segment of the path, so that their number hardly matters; only real globs are matched, with globset. A clone
//! shares everything. Must not know: whose permissions they are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use globset::{Candidate, Glob, GlobSet, GlobSetBuilder};
use nora_domain::Format;

use super::pattern::{Form, segments};
use super::{Action, Permission, PermissionError, Resource};

/// How many globs one automaton holds: with more, a few that are wild can make it too large to build.
const GLOBS_IN_SET: usize = 64;

/// Many permissions.
#[derive(Clone)]
pub struct PermissionSet {
    inner: Arc<Inner>,
}

struct Inner {
    texts: Vec<String>,
    permissions: Vec<Permission>,
    /// Those for everything of every format.
    everything: Vec<usize>,
    formats: BTreeMap<Format, Index>,
    fingerprint: [u8; 32],
}

/// The permissions of one format, by the form of their patterns; the numbers are positions in `permissions`.
#[derive(Default)]
struct Index {
    all: Vec<usize>,
    exact: BTreeMap<Box<str>, Vec<usize>>,
    below: BTreeMap<Box<str>, Vec<usize>>,
    globs: Vec<(GlobSet, Vec<usize>)>,
    /// What is still to be compiled into `globs`.
    loose: Vec<(Glob, usize)>,
}

impl PermissionSet {
    /// Reads texts as [`Permission::parse`] does; all that are refused are named by their position.
    pub fn parse(
        texts: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, Vec<(usize, PermissionError)>> {
        let texts: Vec<String> = texts.into_iter().map(|text| text.as_ref().to_owned()).collect();
        let mut permissions = Vec::with_capacity(texts.len());
        let mut errors = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            match Permission::parse(text) {
                Ok(permission) => permissions.push(permission),
                Err(error) => errors.push((at, error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut everything = Vec::new();
        let mut formats: BTreeMap<Format, Index> = BTreeMap::new();
        for (at, permission) in permissions.iter().enumerate() {
            match permission.pattern().format() {
                None => everything.push(at),
                Some(format) => {
                    formats.entry(format).or_default().add(permission.pattern().form(), at)
                }
            }
        }
        for index in formats.values_mut() {
            index.compile().map_err(|error| vec![error])?;
        }
        let fingerprint = fingerprint(&texts);
        let inner = Inner { texts, permissions, everything, formats, fingerprint };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether one of them allows that.
    pub fn covers(&self, action: Action, resource: &Resource<'_>) -> bool {
        self.position(action, resource).is_some()
    }

    /// The text that allows it, the first if several do.
    pub fn which(&self, action: Action, resource: &Resource<'_>) -> Option<&str> {
        self.position(action, resource).map(|at| self.inner.texts[at].as_str())
    }

    /// Whether one of them denies it, where they are written as denies.
    pub fn denies(&self, action: Action, resource: &Resource<'_>) -> bool {
        match resource {
            Resource::Registry => {
                self.inner.permissions.iter().any(|one| one.denies(action, resource))
            }
            Resource::Repository { format, path } => {
                let bit = action.bit();
                let mut denied = false;
                self.inner.matching(*format, path, |_, one| denied |= one.takes_away() & bit != 0);
                denied
            }
        }
    }

    /// What the names begin with that they allow this to, of this format.
    pub(crate) fn starts(&self, action: Action, format: Format) -> impl Iterator<Item = String> {
        let allowing =
            self.inner.permissions.iter().filter(move |one| one.allows() & action.bit() != 0);
        allowing.filter_map(move |one| one.pattern().start(format))
    }

    /// The texts, as they were given.
    pub fn texts(&self) -> &[String] {
        &self.inner.texts
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.inner.texts.is_empty()
    }

    /// A digest of the texts: sets with equal fingerprints give equal answers.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.inner.fingerprint
    }

    fn position(&self, action: Action, resource: &Resource<'_>) -> Option<usize> {
        match resource {
            Resource::Registry => {
                self.inner.permissions.iter().position(|one| one.covers(action, resource))
            }
            Resource::Repository { format, path } => {
                let bit = action.bit();
                let mut first: Option<usize> = None;
                self.inner.matching(*format, path, |at, one| {
                    if one.allows() & bit != 0 && first.is_none_or(|earlier| at < earlier) {
                        first = Some(at);
                    }
                });
                first
            }
        }
    }
}

impl Default for PermissionSet {
    fn default() -> Self {
        let inner = Inner {
            texts: Vec::new(),
            permissions: Vec::new(),
            everything: Vec::new(),
            formats: BTreeMap::new(),
            fingerprint: fingerprint(&[]),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl fmt::Debug for PermissionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.inner.texts).finish()
    }
}

impl PartialEq for PermissionSet {
    fn eq(&self, other: &Self) -> bool {
        self.inner.texts == other.inner.texts
    }
}

impl Eq for PermissionSet {}

impl Inner {
    /// Calls `found` with every permission whose pattern covers the name.
    fn matching(&self, format: Format, path: &str, mut found: impl FnMut(usize, &Permission)) {
        let mut each = |positions: &[usize]| {
            for at in positions {
                found(*at, &self.permissions[*at]);
            }
        };
        each(&self.everything);
        let Some(index) = self.formats.get(&format) else { return };
        each(&index.all);
        let path = segments(format, path);
        if let Some(positions) = index.exact.get(&*path) {
            each(positions);
        }
        if !index.below.is_empty() {
            for (end, _) in path.match_indices('/') {
                if let Some(positions) = index.below.get(&path[..end]) {
                    each(positions);
                }
            }
        }
        if !index.globs.is_empty() {
            let candidate = Candidate::new(&*path);
            let mut matched = Vec::new();
            for (set, positions) in &index.globs {
                set.matches_candidate_into(&candidate, &mut matched);
                for at in &matched {
                    each(&positions[*at..=*at]);
                }
            }
        }
    }
}

impl Index {
    fn add(&mut self, form: &Form, at: usize) {
        match form {
            Form::Everything => self.all.push(at),
            Form::Exact(name) => self.exact.entry(name.clone()).or_default().push(at),
            Form::Below(prefix) => self.below.entry(prefix.clone()).or_default().push(at),
            Form::Glob(glob) => self.loose.push(((**glob).clone(), at)),
        }
    }

    fn compile(&mut self) -> Result<(), (usize, PermissionError)> {
        let loose = std::mem::take(&mut self.loose);
        for chunk in loose.chunks(GLOBS_IN_SET) {
            let mut builder = GlobSetBuilder::new();
            for (glob, _) in chunk {
                builder.add(glob.clone());
            }
            let set = builder.build().map_err(|error| {
                let at = chunk.first().map_or(0, |(_, at)| *at);
                (at, PermissionError::Glob { reason: error.kind().to_string() })
            })?;
            self.globs.push((set, chunk.iter().map(|(_, at)| *at).collect()));
        }
        Ok(())
    }
}

fn fingerprint(texts: &[String]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for text in texts {
        // Lengths keep two lists apart that would read alike one text after another.
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}
