//! The configuration: `nora.toml` and the flags over it, read into plain typed structs.
//!
//! Guarantees: a configuration is read whole or not at all; every error in it is told at once, with its place; a key
//! this release does not know is an error, and one that only a later release honours says so. Relative paths in the
//! file are relative to the file.
//!
//! Must not know: adapters, HTTP, the command line's parser.

mod client;
mod cluster;
mod collection;
mod diagnostic;
mod limits;
mod log;
mod policy;
mod reference;
mod schema;
mod section;
mod server;
mod setting;
mod show;
mod storage;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nora_auth::document::PolicyDocument;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use client::ClientFile;
pub use cluster::Cluster;
pub use diagnostic::{ConfigErrors, Diagnostic};
pub use limits::Limits;
pub use log::{Log, LogFilter, LogFormat};
pub use policy::{policy_changes, policy_toml};
pub use reference::reference_page;
pub use schema::json_schema;
pub use section::{Effective, Source};
pub use server::{Server, Tls};
pub use setting::duration_of;
pub use setting::{Network, PublicUrl, SecretError, SecretSource, Size};
pub use show::{as_toml, as_value};
pub use show::{source, toml_value};
pub use storage::{S3, Storage, StorageMode};

use diagnostic::{nearest, printable};
use section::{Document, OnError, Overlay, Section, SectionSpec, join, read_section};

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "nora.toml";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything that can be configured.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[storage]`.
    pub storage: Storage,
    /// `[limits]`.
    pub limits: Limits,
    /// `[cluster]`.
    pub cluster: Cluster,
    /// `[log]`.
    pub log: Log,
    /// The tables that are the same on every node, with the logins of the file that they name.
    pub policy: PolicyDocument,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { server, storage, limits, cluster, log, policy } = self;
        f.debug_struct("Config")
            .field("server", server)
            .field("storage", storage)
            .field("limits", limits)
            .field("cluster", cluster)
            .field("log", log)
            // The document holds the logins' hashes; its text does not.
            .field("policy", &policy_toml(policy))
            .finish()
    }
}

/// A configuration and where each of its values comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// Every value in effect.
    pub effective: Vec<Effective>,
}

/// What the command line puts over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`, for `server.listen`.
    pub listen: Option<SocketAddr>,
    /// `--cluster-listen`, for `cluster.listen`.
    pub cluster_listen: Option<SocketAddr>,
    /// `--advertise`, for `cluster.advertise`.
    pub advertise: Option<String>,
    /// `--data-dir`, for `storage.data_dir`.
    pub data_dir: Option<PathBuf>,
}

impl Overrides {
    fn overlay(&self) -> Result<Overlay, Diagnostic> {
        let mut overlay = Overlay::new();
        if let Some(listen) = &self.listen {
            overlay.insert("server.listen", ("--listen", listen.to_string()));
        }
        if let Some(listen) = &self.cluster_listen {
            overlay.insert("cluster.listen", ("--cluster-listen", listen.to_string()));
        }
        if let Some(address) = &self.advertise {
            overlay.insert("cluster.advertise", ("--advertise", address.clone()));
        }
        if let Some(path) = &self.data_dir {
            let text = path
                .to_str()
                .ok_or_else(|| Diagnostic::new("--data-dir is not a path in UTF-8"))?;
            overlay.insert("storage.data_dir", ("--data-dir", text.to_owned()));
        }
        Ok(overlay)
    }
}

/// A key or table that a later release will honour.
struct Later {
    path: &'static str,
    what: &'static str,
}

/// What the documentation of NORA names and this release does not do yet: refused, for a setting that is passed over
/// in silence is worse than none.
const LATER: &[Later] = &[
    Later { path: "upstreams", what: "pull-through upstreams" },
    Later { path: "retention", what: "retention" },
    Later { path: "gc", what: "scheduled garbage collection" },
    Later { path: "webhooks", what: "webhooks" },
    Later { path: "policy.signatures", what: "policies on signatures" },
    Later { path: "storage.tiering", what: "moving old blobs elsewhere" },
];

impl Later {
    fn diagnostic(&self, span: std::ops::Range<usize>) -> Diagnostic {
        let message = format!("this release does not support `{}` yet", self.path);
        Diagnostic::at(message, span, "not supported yet")
            .help(format!("{} will come with a later release; remove it until then", self.what))
    }
}

fn later(path: &str) -> Option<&'static Later> {
    LATER.iter().find(|later| later.path == path)
}

/// The tables of this node, in the order in which they are told.
fn node_sections() -> Vec<SectionSpec> {
    vec![Server::spec(), Storage::spec(), Limits::spec(), Cluster::spec(), Log::spec()]
}

/// The tables of the policy.
fn policy_sections() -> Vec<SectionSpec> {
    policy::sections()
}

/// The tables of the file, in the order in which they are told.
fn sections() -> Vec<SectionSpec> {
    node_sections().into_iter().chain(policy_sections()).collect()
}

/// A table that has a key of that name, as a file writes it.
fn section_with_key(name: &str) -> Option<String> {
    fn find(sections: &[SectionSpec], name: &str) -> Option<String> {
        let has = |section: &SectionSpec| section.keys.iter().any(|key| key.name == name);
        sections.iter().find_map(|section| match has(section) {
            true => Some(section.header()),
            false => find(&section.tables, name),
        })
    }
    find(&sections(), name)
}

/// Reads the configuration: the file, if one is named or `nora.toml` is there, and the flags over it.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config, ConfigErrors> {
    load_effective(file, overrides).map(|loaded| loaded.config)
}

/// Like [`load`], and tells where each value comes from.
pub fn load_effective(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded, ConfigErrors> {
    let found = Path::new(DEFAULT_FILE);
    let file = file.or_else(|| found.exists().then_some(found));
    let Some(path) = file else {
        return parse("", None, overrides);
    };
    let name = path.display().to_string();
    let text = read_file(path).map_err(|message| {
        ConfigErrors::new(name, String::new(), vec![Diagnostic::new(message)])
    })?;
    parse(&text, Some(path), overrides)
}

fn read_file(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let name = printable(&path.display().to_string());
    let cannot = |error: std::io::Error| format!("cannot read {name}: {error}");
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{name} has more than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("{name} is not UTF-8 text: see byte {}", at + 1)
    })
}

/// Reads a configuration from text; `file` is where the text is from. A file of logins that the text names is read too.
pub fn parse(
    text: &str,
    file: Option<&Path>,
    overrides: &Overrides,
) -> Result<Loaded, ConfigErrors> {
    let name = file.map_or_else(|| "the command line".into(), |path| path.display().to_string());
    let errors = |list| ConfigErrors::new(name.clone(), text.to_owned(), list);
    let overlay = overrides.overlay().map_err(|diagnostic| errors(vec![diagnostic]))?;
    let folder = file.and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let (config, effective, list) = parse_document(text, folder, &overlay, |root, document| {
        let server = read_section(document, root.get("server"), OnError::GiveUp);
        let storage = read_section(document, root.get("storage"), OnError::GiveUp);
        let limits = read_section(document, root.get("limits"), OnError::GiveUp);
        let cluster = read_section(document, root.get("cluster"), OnError::GiveUp);
        let log = read_section(document, root.get("log"), OnError::GiveUp);
        let policy = policy::read_policy(root, document);
        report_unknown_tables(root, document);
        if let Some(storage) = &storage {
            report_storage_mismatch(root, storage, document);
        }
        Some(Config {
            server: server?,
            storage: storage?,
            limits: limits?,
            cluster: cluster?,
            log: log?,
            policy: policy?,
        })
    });
    match config {
        Some(config) if list.is_empty() => {
            Ok(Loaded { config, file: file.map(Path::to_owned), effective })
        }
        _ => Err(errors(list)),
    }
}

/// Reads a `client.toml`.
pub fn load_client_file(path: &Path) -> Result<ClientFile, ConfigErrors> {
    load_single(path)
}

/// Reads a file that is one table, described by `S`: its keys stand at the top.
fn load_single<S: Section>(path: &Path) -> Result<S, ConfigErrors> {
    let name = path.display().to_string();
    let text = read_file(path).map_err(|message| {
        ConfigErrors::new(name.clone(), String::new(), vec![Diagnostic::new(message)])
    })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let overlay = Overlay::new();
    let (section, _, list) = parse_document(&text, folder, &overlay, |root, document| {
        let value = Spanned::new(0..0, DeValue::Table(root.clone()));
        read_section(document, Some(&value), OnError::GiveUp)
    });
    match section {
        Some(section) if list.is_empty() => Ok(section),
        _ => Err(ConfigErrors::new(name, text, list)),
    }
}

/// Parses a document and lets `read` read it; errors of both come together.
fn parse_document<T>(
    text: &str,
    folder: PathBuf,
    overlay: &Overlay,
    read: impl FnOnce(&DeTable<'_>, &mut Document<'_>) -> Option<T>,
) -> (Option<T>, Vec<Effective>, Vec<Diagnostic>) {
    let (root, syntax) = DeTable::parse_recoverable(text);
    let mut document = Document {
        text,
        folder,
        overlay,
        diagnostics: Vec::new(),
        effective: Vec::new(),
        torn: !syntax.is_empty(),
        broken: Vec::new(),
    };
    let value = read(root.get_ref(), &mut document);
    let Document { mut diagnostics, effective, .. } = document;
    // A line that cannot be parsed is told once: what its remains look like is noise.
    let line = |offset: usize| text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count();
    let broken: Vec<usize> =
        syntax.iter().filter_map(|error| Some(line(error.span()?.start))).collect();
    diagnostics.retain(|d| d.start().is_none_or(|start| !broken.contains(&line(start))));
    diagnostics.extend(syntax.iter().map(|error| {
        let message = printable(error.message());
        Diagnostic::at(message, error.span().unwrap_or(0..0), "not valid TOML")
    }));
    (value, effective, diagnostics)
}

/// A mode without its table cannot work, and a table without its mode would be passed over in silence.
fn report_storage_mismatch(root: &DeTable<'_>, storage: &Storage, document: &mut Document<'_>) {
    let span = root.get("storage").map_or(0..0, Spanned::span);
    match (storage.mode, &storage.s3) {
        (StorageMode::S3, None) => document.report(
            Diagnostic::at(
                "storage.mode is \"s3\", and there is no [storage.s3]",
                span,
                "needs it",
            )
            .help("name the bucket: [storage.s3] with `bucket = \"…\"`"),
        ),
        (StorageMode::Local, Some(_)) => document.report(
            Diagnostic::at(
                "[storage.s3] is set, and storage.mode is \"local\"",
                span,
                "contradiction",
            )
            .help("write `mode = \"s3\"` under [storage], or remove [storage.s3]"),
        ),
        _ => {}
    }
}

fn report_unknown_tables(root: &DeTable<'_>, document: &mut Document<'_>) {
    let sections = sections();
    let names: Vec<&str> = sections.iter().map(|section| section.path).collect();
    for (key, value) in root {
        let name = key.get_ref().as_ref();
        if names.contains(&name) {
            continue;
        }
        if let Some(later) = later(name) {
            document.report(later.diagnostic(key.span()));
            continue;
        }
        let message = if value.get_ref().is_table() {
            format!("unknown table [{}]", printable(name))
        } else {
            format!("unknown key `{}` outside any table", printable(name))
        };
        let diagnostic = Diagnostic::at(message, key.span(), "unknown");
        let help = match (nearest(name, &names), section_with_key(name)) {
            (Some(near), _) => {
                let near = sections.iter().find(|section| section.path == near);
                format!("did you mean {}?", near.map_or_else(String::new, SectionSpec::header))
            }
            (None, Some(section)) => format!("`{}` is a key of {section}", printable(name)),
            (None, None) => format!("the tables are {}", join(&names)),
        };
        document.report(diagnostic.help(help));
    }
}
