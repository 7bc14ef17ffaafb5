//! The reference page of `nora.toml`: `docs/reference/configuration.md` is this text, and a test holds it to that.

use super::section::{KeySpec, Presence, Section, SectionSpec};
use super::setting::Kind;
use super::{ClientFile, LATER, node_sections, policy_sections};

/// The page, made of the tables' descriptions.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         <!-- Generated from the tables in node/config/src; `make fix` writes it anew. -->\n\n\
         A node needs no configuration. What differs from the defaults stands in a file, `nora.toml`, that is named\n\
         with `--config` or the environment variable `NORA_CONFIG`; without either, `nora.toml` in the current folder\n\
         is read if it is there. The flags `--listen`, `--cluster-listen` and `--data-dir` go before the file.\n\n\
         - Unknown keys are errors. `nora config check` tells every error at once, with its place.\n\
         - `nora config show` tells every value in effect and where it comes from; `nora config schema` prints a JSON\n  \
           Schema for editors.\n\
         - Sizes take a unit of `B`, `kB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`, `MiB`, `GiB`, `TiB` (powers of\n  \
           1024); durations one of `ms`, `s`, `m`, `h`, `d`, `w`.\n\
         - Relative paths in the file are relative to the file; those of flags and defaults, to the current folder.\n",
    );
    for section in node_sections() {
        table(&mut page, &section);
    }
    page += "\n# Policy\n\n\
             The tables from here on are the same for every node: the cluster keeps one policy. A policy is taken whole\n\
             or not at all, and the one in force stays until another is taken.\n\n\
             - A permission is `action:names`, as `push:frontend/*`, or `action:format:names`, as `pull:npm:@acme/*`. Actions\n  \
               are `pull`, `push` (what is not there yet), `overwrite` (and `push`), `delete`, `admin` (and all of these there)\n  \
               and `*` (all of them).\n\
             - In names, `*` stands for whatever is within one segment; at the end, as in `my-org/*`, for all that is below.\n\
             - What no rule allows is denied, and what one rule denies no other allows.\n";
    for section in policy_sections() {
        table(&mut page, &section);
    }
    page += "\n## What this release refuses\n\n\
             These names belong to later releases. A file that has one is refused, not half obeyed.\n\n\
             | name | for |\n|---|---|\n";
    for later in LATER {
        page += &format!("| `{}` | {} |\n", later.path, later.what);
    }
    page += "\n# client.toml\n\nRead from `nora/client.toml` in `$XDG_CONFIG_HOME`, or else in `~/.config`.\n";
    table(&mut page, &ClientFile::spec());
    page
}

fn table(page: &mut String, section: &SectionSpec) {
    if !section.path.is_empty() {
        *page += &format!("\n## `{}`\n", section.header());
    }
    *page += &format!("\n{}\n", section.about.trim());
    if !section.keys.is_empty() {
        *page += "\n| key | value | default | meaning |\n|---|---|---|---|\n";
    }
    for key in &section.keys {
        let default = match key.presence {
            Presence::Default(text) => format!("`{text}`"),
            Presence::Optional => "–".into(),
            Presence::Required => "required".into(),
        };
        let about = key.about.trim();
        *page += &format!("| `{}` | {} | {default} | {about} |\n", key.name, value(key));
    }
    for inner in &section.tables {
        table(page, inner);
    }
}

fn value(key: &KeySpec) -> String {
    let mut text = kind(&key.kind);
    if let Some((min, max)) = key.bounds {
        text += &format!(", {min} to {max}");
    }
    text
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Address => "address and port".into(),
        Kind::Url | Kind::WebUrl => "URL".into(),
        Kind::Path => "path".into(),
        Kind::Text => "text".into(),
        Kind::Size => "size".into(),
        Kind::Duration => "duration".into(),
        Kind::Count => "number".into(),
        Kind::Flag => "`true` or `false`".into(),
        Kind::Network => "address range".into(),
        Kind::Secret => "`{ file = \"…\" }` or `{ env = \"…\" }`".into(),
        Kind::OneOrMany(item) => format!("{0}, or list: {0}", self::kind(item)),
        Kind::Table(noun, value) => format!("table: {noun} = {}", self::kind(value)),
        Kind::List(item) => format!("list: {}", self::kind(item)),
        Kind::Choice(words) => {
            words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(" or ")
        }
    }
}
