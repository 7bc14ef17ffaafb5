//! The configuration as a whole: goldens of what people read, and properties of what they may write.

mod policy;
mod policy_changes;
mod policy_errors;

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::{ProptestConfig, prop, prop_assert, proptest};

use super::setting::show_duration;
use super::*;

fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares a text with its file; `NORA_UPDATE_GOLDEN=1` writes the file instead.
fn check_golden(path: &str, text: &str) {
    let path = manifest(path);
    if std::env::var_os("NORA_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{} differs from what the code says; NORA_UPDATE_GOLDEN=1 writes it anew:\n{text}",
        path.display()
    );
}

fn parse_text(text: &str) -> Result<Loaded, ConfigErrors> {
    parse(text, Some(Path::new("/etc/nora/nora.toml")), &Overrides::default())
}

fn config(text: &str) -> Config {
    parse_text(text).unwrap_or_else(|errors| panic!("{errors}")).config
}

fn messages(text: &str) -> Vec<String> {
    let errors = parse_text(text).unwrap_err();
    errors.list().iter().map(|error| error.message().to_owned()).collect()
}

#[test]
fn errors_read_as_the_goldens_do() {
    for name in ["many", "syntax", "shapes", "odd", "policy"] {
        let text = std::fs::read_to_string(manifest(&format!("tests/golden/config/{name}.toml")));
        let file = Path::new("nora.toml");
        let errors = parse(&text.unwrap(), Some(file), &Overrides::default()).unwrap_err();
        check_golden(&format!("tests/golden/config/{name}.txt"), &format!("{errors}\n"));
    }
}

#[test]
fn the_reference_page_and_the_schema_are_what_the_code_says() {
    check_golden("../../docs/reference/configuration.md", &reference_page());
    let schema = serde_json::to_string_pretty(&json_schema()).unwrap();
    check_golden("tests/golden/config/schema.json", &format!("{schema}\n"));
}

#[test]
fn every_default_can_be_read_and_keeps_its_bounds() {
    let loaded = parse("", None, &Overrides::default()).unwrap();
    assert_eq!(loaded.config.server.listen.to_string(), "127.0.0.1:4000");
    assert_eq!(loaded.config.storage.data_dir, Path::new("nora-data"));
    assert_eq!(loaded.config.limits.manifest_bytes_max.bytes(), 4 << 20);
    assert_eq!(loaded.config.limits.upload_expiry, Duration::from_secs(24 * 3600));
    assert!(loaded.effective.iter().all(|entry| entry.source == Source::Default));
    assert_eq!(loaded.config.policy, PolicyDocument::default());
    // What is not written of the policy is not in effect, but for the audit.
    let written = |section: &&SectionSpec| !["auth", "tenants"].contains(&section.path);
    let keys: usize = sections().iter().filter(written).map(|section| section.keys.len()).sum();
    assert_eq!(loaded.effective.len(), keys);
}

#[test]
fn values_are_read_with_their_units_and_places() {
    let config = config(
        r#"
        [server]
        listen = "[::]:443"
        public_url = "https://nora.example.com/"
        trusted_proxies = ["10.0.0.0/8", "2001:db8::1"]
        tls = { cert = "tls.crt", key = "/keys/tls.key" }
        [storage]
        data_dir = "data"
        [limits]
        upload_bytes_max = "50GB"
        drain_timeout = "500ms"
        references_max = 0x800
        "#,
    );
    assert_eq!(config.server.listen.port(), 443);
    assert_eq!(config.server.public_url.unwrap().as_str(), "https://nora.example.com");
    let tls = config.server.tls.unwrap();
    assert_eq!(tls.cert, Path::new("/etc/nora/tls.crt"));
    assert_eq!(tls.key, Path::new("/keys/tls.key"));
    assert_eq!(config.storage.data_dir, Path::new("/etc/nora/data"));
    assert_eq!(config.limits.upload_bytes_max.bytes(), 50_000_000_000);
    assert_eq!(config.limits.drain_timeout, Duration::from_millis(500));
    assert_eq!(config.limits.references_max, 2048);
    let proxies = &config.server.trusted_proxies;
    assert!(proxies[0].contains("10.200.0.1".parse().unwrap()));
    assert!(proxies[0].contains("::ffff:10.0.0.1".parse().unwrap()));
    assert!(!proxies[0].contains("11.0.0.1".parse().unwrap()));
    assert!(proxies[1].contains("2001:db8::1".parse().unwrap()));
    assert!(!proxies[1].contains("2001:db8::2".parse().unwrap()));
}

#[test]
fn flags_go_before_the_file_and_say_so() {
    let overrides = Overrides {
        advertise: None,
        listen: Some("127.0.0.2:5000".parse().unwrap()),
        cluster_listen: None,
        data_dir: Some("here".into()),
    };
    let text = "[server]\nlisten = \"127.0.0.1:1\"\n[limits]\npage_size_max = 10\n";
    let loaded = parse(text, Some(Path::new("/etc/nora.toml")), &overrides).unwrap();
    assert_eq!(loaded.config.server.listen.port(), 5000);
    // A flag's path is relative to where the command runs, not to the file.
    assert_eq!(loaded.config.storage.data_dir, Path::new("here"));
    let source = |key: &str| {
        loaded.effective.iter().find(|entry| entry.key == key).map(|entry| entry.source.clone())
    };
    assert_eq!(source("server.listen"), Some(Source::Flag("--listen")));
    assert_eq!(source("limits.page_size_max"), Some(Source::Line(4)));
    assert_eq!(source("limits.references_max"), Some(Source::Default));
}

#[test]
fn what_later_releases_do_is_refused_by_name() {
    for later in LATER {
        let text = match later.path.split_once('.') {
            Some((table, key)) => format!("[{table}]\n{key} = {{}}\n"),
            None => format!("[[{}]]\nx = 1\n", later.path),
        };
        let message = format!("this release does not support `{}` yet", later.path);
        assert_eq!(messages(&text), [message]);
    }
}

#[test]
fn a_missing_or_unreadable_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let load = |path: &Path| load(Some(path), &Overrides::default()).unwrap_err().to_string();
    assert!(load(&folder.path().join("none.toml")).contains("cannot read"));
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, b"[server]\n\xff").unwrap();
    assert!(load(&binary).contains("is not UTF-8 text: see byte 10"));
    let large = folder.path().join("large.toml");
    std::fs::write(&large, vec![b'\n'; (FILE_BYTES_MAX + 1) as usize]).unwrap();
    assert!(load(&large).contains("has more than 1048576 bytes"));
}

#[test]
fn what_show_prints_as_toml_gives_the_same_configuration() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\ntls = { cert = \"/a\", key = \"/b\\\"\" }\n\
                trusted_proxies = [\"10.0.0.0/8\"]\n[log]\nlevel = \"warn\"\n";
    let first = parse_text(text).unwrap();
    let shown = as_toml(&first.effective, Some("nora.toml"));
    let second = parse(&shown, None, &Overrides::default());
    assert_eq!(second.unwrap_or_else(|e| panic!("{e}\n{shown}")).config, first.config);
    assert!(shown.contains("listen = \"127.0.0.1:1\" # nora.toml:2"), "{shown}");
}

#[test]
fn secrets_are_read_from_files_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.toml");
    std::fs::write(folder.path().join("pw"), "hunter2\n").unwrap();
    std::fs::write(&path, "password = { file = \"pw\" }").unwrap();
    let file = load_client_file(&path).unwrap();
    let source = file.password.unwrap();
    assert_eq!(source.read().unwrap(), "hunter2");
    assert!(!format!("{source:?}").contains("hunter2"));

    std::fs::write(&path, "password = \"hunter2\"\npasword = 1").unwrap();
    let errors = load_client_file(&path).unwrap_err().to_string();
    assert!(errors.contains("`password` must name where the secret is kept"), "{errors}");
    assert!(errors.contains("unknown key `pasword` in this file"), "{errors}");
}

#[test]
fn sizes_and_durations_are_written_as_short_as_they_are_exact() {
    let size = |bytes: u64| {
        let text = format!("[limits]\nupload_bytes_max = \"{bytes}B\"\n");
        config(&text).limits.upload_bytes_max.to_string()
    };
    assert_eq!(size(64 << 30), "64GiB");
    assert_eq!(size(50_000_000_000), "50GB");
    assert_eq!(size((1 << 20) + 1), "1048577B");
    assert_eq!(show_duration(Duration::from_secs(90)), "90s");
    assert_eq!(show_duration(Duration::from_secs(86_400)), "1d");
    assert_eq!(show_duration(Duration::ZERO), "0ms");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    /// Whatever a file holds, reading it ends in a configuration or in errors that can be printed.
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*|[\\x00-\\x7f]*") {
        if let Err(errors) = parse_text(&text) {
            prop_assert!(errors.to_string().contains("error: "));
        }
    }

    /// The same, near to what a file looks like, where recovery and spans are at work.
    #[test]
    fn mangled_files_never_panic(
        name in prop::sample::select(vec!["many", "policy"]),
        cuts in prop::collection::vec((0_usize..700, 0_usize..12, "\\PC{0,3}"), 1..6),
    ) {
        let path = manifest(&format!("tests/golden/config/{name}.toml"));
        let mut text: Vec<char> = std::fs::read_to_string(path).unwrap().chars().collect();
        for (at, removed, inserted) in cuts {
            let at = at.min(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        let errors = parse_text(&text).unwrap_err();
        prop_assert!(!errors.list().is_empty());
        prop_assert!(errors.to_string().lines().all(|line| line.chars().count() < 400));
    }

    /// A size keeps its value when it is shown and read again.
    #[test]
    fn sizes_round_trip(bytes in (1_u64 << 20)..=(1 << 44)) {
        let text = format!("[limits]\nupload_bytes_max = \"{bytes}B\"\n");
        let shown = config(&text).limits.upload_bytes_max.to_string();
        let again = config(&format!("[limits]\nupload_bytes_max = \"{shown}\"\n"));
        prop_assert!(again.limits.upload_bytes_max.bytes() == bytes);
    }
}
