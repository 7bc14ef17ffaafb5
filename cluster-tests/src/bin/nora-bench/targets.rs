//! The servers that are measured: where their programs are, and how each is started on an empty
//! folder.
//!
//! Each runs with the least it can be given: loopback, local files, no authentication, no access
//! log, errors only. Everything else stays at its default, because that is what people run.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nora_cluster_tests::error::{During, Error, Result};
use serde_json::json;

use crate::args::Args;

/// What kind of server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// CNCF distribution, the reference registry.
    Distribution,
    /// zot as it comes: a pushed blob is not synced to disk.
    Zot,
    /// zot with `storage.commit`, which syncs.
    ZotSync,
    /// nginx with static files under the registry's paths: what the machine allows. It takes no
    /// pushes.
    Nginx,
    /// NORA.
    Nora,
    /// An earlier build of NORA, to see what a change costs.
    NoraBefore,
}

/// A server that can be measured.
#[derive(Debug, Clone)]
pub struct Target {
    /// What kind it is.
    pub kind: Kind,
    /// Its program.
    pub program: PathBuf,
}

const NAMES: [(&str, Kind); 6] = [
    ("distribution", Kind::Distribution),
    ("zot", Kind::Zot),
    ("zot-sync", Kind::ZotSync),
    ("nginx", Kind::Nginx),
    ("nora", Kind::Nora),
    ("nora-before", Kind::NoraBefore),
];

impl Kind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(_, kind)| kind)
    }

    /// The kind called `name`.
    pub fn parse(name: &str) -> Result<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind).ok_or_else(|| {
            let known = NAMES.map(|(name, _)| name).join(", ");
            Error::Wrong(format!("no target is called {name:?}; there are {known}"))
        })
    }

    /// Its name in arguments and tables.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }

    /// Whether it is another registry, to which NORA is compared.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Distribution | Self::Zot | Self::ZotSync)
    }

    /// Whether it is NORA, this build or the earlier one.
    pub fn is_nora(self) -> bool {
        matches!(self, Self::Nora | Self::NoraBefore)
    }

    /// Whether it has synced a pushed blob to disk before it answers.
    pub fn syncs(self) -> bool {
        matches!(self, Self::Distribution | Self::ZotSync) || self.is_nora()
    }

    /// Whether it can be pushed to.
    pub fn takes_pushes(self) -> bool {
        self != Self::Nginx
    }

    /// The path that answers 200 from when on it serves.
    pub fn ready_path(self) -> &'static str {
        if self.is_nora() { "/ready" } else { "/v2/" }
    }
}

impl Target {
    /// Finds the program of `kind`; `None` if it is not installed.
    pub fn find(kind: Kind, args: &Args) -> Option<Self> {
        let (named, names): (Option<&PathBuf>, &[&str]) = match kind {
            Kind::Distribution => (None, &["registry"]),
            Kind::Zot | Kind::ZotSync => (args.zot.as_ref(), &["zot-minimal", "zot"]),
            Kind::Nginx => (None, &["nginx"]),
            Kind::Nora => (args.nora.as_ref(), &["nora"]),
            Kind::NoraBefore => (args.before.as_ref(), &[]),
        };
        let program = match named {
            Some(path) => path.is_file().then(|| path.clone()),
            None => find_program(names, args.bin_dir.as_deref()),
        };
        program.map(|program| Self { kind, program })
    }

    /// The command that serves the store in `dir` at `addr`. Writes the configuration it needs.
    pub fn command(&self, dir: &Path, addr: SocketAddr) -> Result<Command> {
        let mut command = Command::new(&self.program);
        let data = dir.join("data");
        fs::create_dir_all(&data).during(|| format!("make {}", data.display()))?;
        match self.kind {
            Kind::Distribution => {
                let config = write(dir, "config.yml", &distribution_config(&data, addr))?;
                command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
            }
            Kind::Zot | Kind::ZotSync => {
                let config = zot_config(&data, addr, self.kind == Kind::ZotSync);
                command.arg("serve").arg(write(dir, "config.json", &config)?);
            }
            Kind::Nginx => {
                write(&data.join("v2"), "index.html", "{}")?;
                let config = write(dir, "nginx.conf", &nginx_config(dir, &data, addr))?;
                command.arg("-e").arg(dir.join("error.log"));
                command.arg("-p").arg(dir).arg("-c").arg(config);
            }
            Kind::Nora | Kind::NoraBefore => {
                command.arg("serve").arg("--data-dir").arg(&data);
                command.arg("--listen").arg(addr.to_string());
                command.args(["--cluster-listen", "127.0.0.1:0"]);
                // At its default level it logs each request, as the others would if they were asked to.
                let config = write(dir, "nora.toml", "[log]\nlevel = \"warn\"\n")?;
                command.arg("--config").arg(config);
            }
        }
        command.current_dir(dir);
        Ok(command)
    }
}

/// The file of nginx's static tree that answers GET `url_path`.
pub fn static_file(dir: &Path, url_path: &str) -> PathBuf {
    dir.join("data").join(url_path.trim_start_matches('/'))
}

/// Looks for the first of `names` in `bin_dir`, then on PATH and where Debian keeps servers.
pub fn find_program(names: &[&str], bin_dir: Option<&Path>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = bin_dir
        .map(Path::to_owned)
        .into_iter()
        .chain(env::split_paths(&path))
        .chain([PathBuf::from("/usr/sbin")]);
    folders
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|candidate| candidate.is_file())
}

fn write(dir: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, content))
        .during(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn distribution_config(data: &Path, addr: SocketAddr) -> String {
    format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  \
         filesystem: {{rootdirectory: {}}}\n  cache: {{blobdescriptor: inmemory}}\n  \
         delete: {{enabled: true}}\nhttp: {{addr: \"{addr}\"}}\n",
        data.display()
    )
}

fn zot_config(data: &Path, addr: SocketAddr, commit: bool) -> String {
    let mut storage = json!({ "rootDirectory": data });
    if commit {
        storage["commit"] = json!(true);
    }
    json!({
        "distSpecVersion": "1.1.1",
        "storage": storage,
        "http": { "address": addr.ip().to_string(), "port": addr.port().to_string() },
        "log": { "level": "error" },
    })
    .to_string()
}

fn nginx_config(dir: &Path, data: &Path, addr: SocketAddr) -> String {
    // Without a user, workers of a master that runs as root would be nobody's, who cannot read the
    // store.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (dir, data) = (dir.display(), data.display());
    format!(
        "worker_processes auto; daemon off; pid {dir}/pid; error_log {dir}/error.log; {user}\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;\n  \
         open_file_cache max=100; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2;\n  \
         fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;\n  \
         server {{ listen {addr}; root {data}; }} }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_belong_together() {
        for (name, kind) in NAMES {
            assert_eq!(Kind::parse(name).unwrap(), kind);
            assert_eq!(kind.name(), name);
        }
        assert!(Kind::parse("harbor").unwrap_err().to_string().contains("zot-sync"));
    }

    #[test]
    fn zot_syncs_only_when_told() {
        let addr = "127.0.0.1:5000".parse().unwrap();
        assert!(zot_config(Path::new("/d"), addr, true).contains(r#""commit":true"#));
        assert!(!zot_config(Path::new("/d"), addr, false).contains("commit"));
    }

    #[test]
    fn the_given_folder_comes_before_the_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sh"), "").unwrap();
        assert_eq!(find_program(&["sh"], Some(dir.path())), Some(dir.path().join("sh")));
        assert_ne!(find_program(&["sh"], None), Some(dir.path().join("sh")));
        assert_eq!(find_program(&["no-such-program"], Some(dir.path())), None);
    }

    #[test]
    fn a_url_path_is_a_file_below_the_store() {
        assert_eq!(static_file(Path::new("/w"), "/v2/a"), Path::new("/w/data/v2/a"));
    }
}
