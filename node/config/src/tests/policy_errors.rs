//! What is wrong with a policy, each at its place: « stands in the texts where the error is expected.

use super::policy::{CANARY, folder, load_text};
use super::*;

/// A provider that is right, for a rule to follow.
const PROVIDER: &str = "[auth.oidc]\nenabled = true\n[[auth.oidc.providers]]\nname = \"gh\"\n\
    issuer = \"https://token.actions.githubusercontent.com\"\naudience = \"https://nora.example.com\"\n";

/// A rule of that provider that is right.
const CLAIMS: &str = "[[auth.oidc.providers.rules]]\nmatch = { repository = \"my-org/*\" }\n\
    permissions = [\"pull:*\"]\n";

/// A file with one mistake, and words of its message. `{P}` and `{C}` are the texts above.
type Case = (&'static str, &'static str);

/// Mistakes of form: found while the file is read.
const FORM: &[Case] = &[
    // Keys that nobody knows, in every table.
    ("[auth]\n«anonymus = []\n", "unknown key `anonymus` in [auth]"),
    ("[auth]\n«users = \"f\"\n", "unknown key `users` in [auth]"),
    (
        "[[auth.rules]]\nsubject = \"a\"\n«permission = [\"pull:*\"]\ndeny = [\"push:*\"]\n",
        "unknown key `permission` in [[auth.rules]]",
    ),
    ("[auth.oidc]\n«enable = true\n", "unknown key `enable` in [auth.oidc]"),
    ("{P}«audiences = [\"a\"]\n{C}", "unknown key `audiences` in [[auth.oidc.providers]]"),
    ("{P}{C}«pull_request = true\n", "unknown key `pull_request` in [[auth.oidc.providers.rules]]"),
    ("[[tenants]]\nname = \"a\"\n«quota = \"1GB\"\n", "unknown key `quota` in [[tenants]]"),
    (
        "[[tenants]]\nname = \"a\"\nnamespaces = { oci = [\"a/*\"], «docker = [\"b/*\"] }\n",
        "unknown key `docker` in [tenants.namespaces]",
    ),
    (
        "[[tenants]]\nname = \"a\"\nrate_limit = { «pulls = 5 }\n",
        "unknown key `pulls` in [tenants.rate_limit]",
    ),
    ("[policy]\n«imutable = []\n", "unknown key `imutable` in [policy]"),
    (
        "[[policy.immutable]]\nmatch = \"a/*\"\n«tag = [\"v*\"]\n",
        "unknown key `tag` in [[policy.immutable]]",
    ),
    ("[audit]\n«retain = \"90d\"\n", "unknown key `retain` in [audit]"),
    ("[«tenant]\nname = \"a\"\n", "unknown table [tenant]"),
    // What a later release will do.
    (
        "[[policy.«signatures]]\nmatch = \"prod/*\"\n",
        "this release does not support `policy.signatures` yet",
    ),
    // Values of other types.
    ("[auth]\nanonymous = «\"pull:public/*\"\n", "`auth.anonymous` must be a list, not a string"),
    (
        "[auth]\nanonymous = [\"pull:*\", «5]\n",
        "`auth.anonymous` has an item 2 that must be a text, not an integer",
    ),
    (
        "[auth.groups]\ndevs = «\"alice\"\n",
        "`auth.groups` has a group `devs` that must be a list, not a string",
    ),
    ("[auth]\ngroups = «[\"devs\"]\n", "`auth.groups` must be a table, not an array"),
    (
        "[[auth.rules]]\nsubject = «[\"a\"]\npermissions = [\"pull:*\"]\n",
        "`auth.rules[0].subject` must be a text, not an array",
    ),
    (
        "[auth.oidc]\nenabled = «\"yes\"\n",
        "`auth.oidc.enabled` must be true or false, not a string",
    ),
    (
        "[auth.oidc]\ntoken_lifetime = «900\n",
        "`auth.oidc.token_lifetime` is a duration without a unit",
    ),
    ("[auth.oidc]\ntoken_lifetime = «\"2h\"\n", "`auth.oidc.token_lifetime` must be from 1m to 1h"),
    (
        "{P}kind = «\"githb\"\n{C}",
        "`auth.oidc.providers[0].kind` must be \"github\", \"gitlab\" or \"generic\"",
    ),
    (
        "{P}algorithms = «\"RS256\"\n{C}",
        "`auth.oidc.providers[0].algorithms` must be a list, not a string",
    ),
    (
        "{P}[[auth.oidc.providers.rules]]\nmatch = { repository = \"my-org/*\", ref = «5 }\npermissions = [\"pull:*\"]\n",
        "has a claim `ref` that must be a text, not an integer",
    ),
    (
        "{P}[[auth.oidc.providers.rules]]\nmatch = { repository = [\"my-org/*\", «true] }\npermissions = [\"pull:*\"]\n",
        "has a claim `repository` that has an item 2 that must be a text",
    ),
    (
        "{P}[[auth.oidc.providers.rules]]\nmatch = «\"my-org/*\"\npermissions = [\"pull:*\"]\n",
        "`auth.oidc.providers[0].rules[0].match` must be a table, not a string",
    ),
    (
        "{P}{C}pull_requests = «1\n",
        "`auth.oidc.providers[0].rules[0].pull_requests` must be true or false",
    ),
    ("[[tenants]]\nname = «7\n", "`tenants[0].name` must be a text, not an integer"),
    (
        "[[tenants]]\nname = \"a\"\nstorage_quota = «50\n",
        "`tenants[0].storage_quota` is a size without a unit",
    ),
    (
        "[[tenants]]\nname = \"a\"\nstorage_quota = «\"0GB\"\n",
        "`tenants[0].storage_quota` must be from 1B",
    ),
    (
        "[[tenants]]\nname = \"a\"\nartifact_quota = «\"50\"\n",
        "`tenants[0].artifact_quota` must be a whole number, not a string",
    ),
    (
        "[[tenants]]\nname = \"a\"\nartifact_quota = «-1\n",
        "`tenants[0].artifact_quota` must be a number from 0",
    ),
    (
        "[[tenants]]\nname = \"a\"\nrate_limit = «100\n",
        "`tenants[0].rate_limit` must be a table, not an integer",
    ),
    (
        "[[tenants]]\nname = \"a\"\nrate_limit.push = «0\n",
        "`tenants[0].rate_limit.push` must be from 1",
    ),
    (
        "[[tenants]]\nname = \"a\"\nnamespaces.oci = «\"a/*\"\n",
        "`tenants[0].namespaces.oci` must be a list, not a string",
    ),
    ("[audit]\nretention = «\"three months\"\n", "`audit.retention` is not a duration"),
    (
        "[audit]\nwebhook = «\"audit.example.com\"\n",
        "`audit.webhook` must begin with http:// or https://",
    ),
    // Tables for lists, and lists for tables.
    (
        "«[auth.rules]\nsubject = \"a\"\npermissions = [\"pull:*\"]\n",
        "`auth.rules` must be a list of tables, not a table",
    ),
    ("«[tenants]\nname = \"a\"\n", "`tenants` must be a list of tables, not a table"),
    (
        "[auth.oidc]\n«[auth.oidc.providers]\nname = \"a\"\n",
        "`auth.oidc.providers` must be a list of tables, not a table",
    ),
    ("tenants = [{ name = \"a\" }, «\"b\"]\n", "`tenants[1]` must be a table, not a string"),
    ("«[[auth]]\nanonymous = []\n", "`auth` must be a table, not an array"),
    ("auth = «true\n", "`auth` must be a table, not a boolean"),
    ("audit = «\"90d\"\n", "`audit` must be a table, not a string"),
    // What has to be there.
    ("«[[auth.rules]]\npermissions = [\"pull:*\"]\n", "[[auth.rules]] has no key `subject`"),
    ("«[[tenants]]\nstorage_quota = \"1GB\"\n", "[[tenants]] has no key `name`"),
    ("«[[policy.immutable]]\ntags = [\"v*\"]\n", "[[policy.immutable]] has no key `match`"),
    (
        "[auth.oidc]\n«[[auth.oidc.providers]]\nname = \"gh\"\nissuer = \"https://gitlab.com\"\n",
        "[[auth.oidc.providers]] has no key `audience`",
    ),
    (
        "{P}«[[auth.oidc.providers.rules]]\npermissions = [\"pull:*\"]\n",
        "[[auth.oidc.providers.rules]] has no key `match`",
    ),
    // The file of logins.
    ("[auth]\nhtpasswd = «\"none\"\n", "cannot read"),
    ("[auth]\nhtpasswd = «\"bad.htpasswd\"\n", "bad.htpasswd, line 2: "),
    ("[auth]\nhtpasswd = «5\n", "`auth.htpasswd` must be a path, not an integer"),
];

/// Mistakes of meaning: the policy's compiler has them, and this file has their places.
const MEANING: &[Case] = &[
    ("[auth]\nanonymous = [\"pull:public/*\", «\"pul:*\"]\n", "auth.anonymous[1]: "),
    ("[auth]\nanonymous = [«\"pull:{a\"]\n", "auth.anonymous[0]: "),
    (
        "[[auth.rules]]\nsubject = \"a\"\npermissions = [\"pull:*\", «\"push:a/../b\"]\n",
        "auth.rules[0].permissions[1]: ",
    ),
    (
        "[[auth.rules]]\nsubject = \"a\"\npermissions = [«\"push:ocy:***\"]\n",
        "auth.rules[0].permissions[0]: ",
    ),
    ("[[auth.rules]]\nsubject = \"a\"\ndeny = [«\"push:\"]\n", "auth.rules[0].deny[0]: "),
    (
        "[[auth.rules]]\nsubject = «\"usr:alice\"\npermissions = [\"pull:*\"]\n",
        "auth.rules[0].subject: ",
    ),
    (
        "[[auth.rules]]\nsubject = «\"oidc:nobody\"\npermissions = [\"pull:*\"]\n",
        "auth.rules[0].subject: ",
    ),
    ("[[auth.rules]]\nsubject = «\"\"\npermissions = [\"pull:*\"]\n", "auth.rules[0].subject: "),
    ("«[[auth.rules]]\nsubject = \"a\"\n", "auth.rules[0]: "),
    ("[[tenants]]\nname = \"a\"\n[[tenants]]\nname = «\"a\"\n", "tenants[1].name: "),
    ("[[tenants]]\nname = «\"default\"\n", "tenants[0].name: "),
    (
        "[[tenants]]\nname = \"a\"\nnamespaces = { oci = [\"a/*\", «\"b/*/c\"] }\n",
        "tenants[0].namespaces.oci[1]: ",
    ),
    ("[[policy.immutable]]\nmatch = «\"prod/{\"\n", "policy.immutable[0].match: "),
    ("{P}algorithms = [\"RS256\", «\"HS256\"]\n{C}", "auth.oidc.providers[0].algorithms[1]: "),
    (
        "{P}{C}[[auth.oidc.providers.rules]]\nmatch = { repository = \"o/a\", sub = «\"repo:o/*\" }\npermissions = [\"pull:*\"]\n",
        "auth.oidc.providers[0].rules[1].match.sub",
    ),
    (
        "{P}[[auth.oidc.providers.rules]]\nmatch = { repository = \"o/a\" }\npermissions = [«\"admin:*\"]\n",
        "auth.oidc.providers[0].rules[0].permissions[0]: ",
    ),
    (
        "[auth.oidc]\n[[auth.oidc.providers]]\nname = \"a\"\nissuer = «\"http://issuer.example\"\naudience = \"n\"\n",
        "auth.oidc.providers[0].issuer: ",
    ),
    (
        "«[[auth.rules]]\nsubject = \"a\"\npermissions = [\"push:x/*\"]\ndeny = [\"push:x/*\"]\n",
        "auth.rules[0]: the rule allows and denies",
    ),
    (
        "[[auth.rules]]\nsubject = «\"admin\"\npermissions = [\"pull:*\"]\n",
        "auth.rules[0].subject: ",
    ),
    ("[auth.groups]\ndevs = [\"alice\", «\"b ob\"]\n", "auth.groups.devs[1]: "),
    (
        "[[tenants]]\nname = \"a\"\nnamespaces.oci = [\"x/*\"]\n[[tenants]]\nname = \"b\"\nnamespaces.oci = [«\"x/*\"]\n",
        "tenants[1].namespaces.oci[0]: tenants[0] claims",
    ),
    (
        "{P}{C}[[auth.oidc.providers]]\nname = «\"gh\"\nissuer = \"https://i.example\"\naudience = \"n\"\n",
        "auth.oidc.providers[1].name",
    ),
    (
        "{P}[[auth.oidc.providers.rules]]\nmatch = «{ ref = \"refs/heads/main\" }\npermissions = [\"pull:*\"]\n",
        "auth.oidc.providers[0].rules[0].match",
    ),
    (
        "{P}[[auth.oidc.providers.rules]]\nmatch = «{ repository = \"*/x\" }\npermissions = [\"pull:*\"]\n",
        "auth.oidc.providers[0].rules[0].match",
    ),
    (
        "[[policy.immutable]]\nmatch = \"prod/*\"\ntags = [\"v*\", «\"{\"]\n",
        "policy.immutable[0].tags[1]: ",
    ),
];

/// The errors of a text, and line and column of each as they are printed.
fn errors(text: &str) -> (ConfigErrors, Vec<(usize, usize)>) {
    let folder = folder();
    let bad = format!("alice:{CANARY}\nbob:{{SHA}}c4Nary7\n");
    std::fs::write(folder.path().join("bad.htpasswd"), bad).unwrap();
    let errors = match load_text(folder.path(), text) {
        Ok(_) => panic!("nothing is found wrong with:\n{text}"),
        Err(errors) => errors,
    };
    let place = |line: &str| {
        let mut numbers = line.trim().strip_prefix("--> ")?.rsplit(':');
        let column = numbers.next()?.parse().ok()?;
        Some((numbers.next()?.parse().ok()?, column))
    };
    let places = errors.to_string().lines().filter_map(place).collect();
    (errors, places)
}

/// The text without its marks, and their lines and columns.
fn marked(text: &str) -> (String, Vec<(usize, usize)>) {
    let text = text.replace("{P}", PROVIDER).replace("{C}", CLAIMS);
    let mut marks = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let before = |mark: usize| line[..mark].chars().filter(|c| *c != '«').count();
        marks.extend(line.match_indices('«').map(|(mark, _)| (at + 1, before(mark) + 1)));
    }
    (text.replace('«', ""), marks)
}

fn check(cases: &[Case]) {
    for (case, message) in cases {
        let (text, marks) = marked(case);
        let (errors, places) = errors(&text);
        assert_eq!(errors.list().len(), 1, "{text}\n{errors}");
        assert!(errors.list()[0].message().contains(message), "{message}:\n{text}\n{errors}");
        assert_eq!(places, marks, "{text}\n{errors}");
    }
}

#[test]
fn mistakes_of_form_are_told_at_their_places() {
    check(FORM);
}

#[test]
fn mistakes_of_meaning_are_told_at_their_places() {
    check(MEANING);
}

#[test]
fn all_errors_of_a_policy_come_at_once() {
    // Neither form hides meaning, nor one table another.
    let (text, marks) = marked(
        "[limits]\npage_size_max = «0\n\
         [auth]\nanonymous = «true\n\
         [[auth.rules]]\nsubject = \"a\"\npermissions = [«\"psh:a\", «\"pull:\"]\n\
         [[auth.rules]]\nsubject = «4\npermissions = [«\"push:..\"]\n\
         [[auth.rules]]\nsubject = \"b\"\n«permision = []\ndeny = [«\"push\", \"pull:*\"]\n\
         [auth.groups]\ndevs = «1\nops = «2\n\
         [auth.oidc]\nenabled = «1\n\
         [[tenants]]\nname = \"t\"\nartifact_quota = «0\nnamespaces = { oci = [«\"a/*/b\"], «og = [] }\n\
         [[tenants]]\nname = «\"t\"\n\
         [[policy.immutable]]\nmatch = «5\n\
         [audit]\nretention = «90\n",
    );
    let (errors, places) = errors(&text);
    assert_eq!(places, marks, "{errors}");
}

#[test]
fn what_cannot_be_read_has_no_second_error() {
    // The rule is not also one without permissions, the tenant not also one without a name.
    let text = "[[auth.rules]]\nsubject = \"a\"\npermissions = 5\n[[tenants]]\nname = 5\n";
    assert_eq!(errors(text).0.list().len(), 2);
    // What follows an item that is no table is not judged: its position would be another's.
    let text = "tenants = [5, { name = \"a\" }, { name = \"default\" }]\n";
    assert_eq!(errors(text).0.list().len(), 1);
    // Nor is what is left of a broken line judged.
    let text = "[[auth.rules]]\nsubject = \"a\"\npermissions = [\"push:a\n";
    assert!(messages(text).iter().all(|message| !message.contains("auth.rules[0]")));
}

#[test]
fn the_nearest_key_and_the_right_table_are_named() {
    let help = |text: &str| errors(text).0.to_string();
    assert!(
        help("[[tenants]]\nname = \"a\"\nstorage_qota = 1")
            .contains("did you mean `storage_quota`?")
    );
    assert!(help("[tenant]\nx = 1").contains("did you mean [[tenants]]?"));
    let rules = "[auth.rules]\nsubject = \"a\"";
    assert!(help(rules).contains("write [[auth.rules]] before the keys of each"));
    let stray = "[auth]\nsubject = \"a\"";
    assert!(help(stray).contains("`subject` is a key of [[auth.rules]]"), "{}", help(stray));
    let namespaces = "[[tenants]]\nname = \"a\"\nnamespaces = { ocy = [] }";
    assert!(help(namespaces).contains("did you mean `oci`?"));
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let hash = CANARY;
    for text in [
        format!("[auth]\nhtpasswd = \"alice:{hash}\"\n"),
        format!("[auth]\nhtpasswd = \"\"\"\nalice:{hash}\n\"\"\"\n"),
        format!("[auth]\nhtpasswd = {{ alice = \"{hash}\" }}\n"),
        format!("[auth]\nanonymous = [\"{hash}\"]\n"),
        format!("[auth.groups]\ndevs = \"{hash}\"\n"),
        "[auth]\nhtpasswd = \"bad.htpasswd\"\n".into(),
        "[auth]\npassword = \"c4Nary7\"\n".into(),
        "[auth]\n\"password\"=\"c4Nary7\"\n".into(),
        "[auth]\nadmin_token = \"nora_pat_c4Nary7\"\n".into(),
        "[auth]\nanonymous = \"nora_pat_c4Nary7\"\n".into(),
        "[auth.oidc]\nclient_secret = \"c4Nary7\"\n".into(),
        "[auth.oidc]\nclient_secret = \"c4Nary7\n".into(),
        "[audit]\nwebhook = \"https://me:c4Nary7@audit.example.com/\"\n".into(),
        "[storage]\nmode = \"s3\"\n[storage.s3]\nbucket = \"b\"\nsecret_key = \"c4Nary7\"\n".into(),
        "[storage.s3]\nbucket = \"b\"\nsecret_key = { value = \"c4Nary7\" }\n".into(),
    ] {
        let (errors, _) = errors(&text);
        let shown = format!("{errors}");
        assert!(!shown.contains("c4Nary7"), "{shown}");
    }
    // Where a secret is kept is no secret, and neither is what only sounds like one.
    let kept = errors("[storage.s3]\nsecret_key = { file = \"here\" }\n").0.to_string();
    assert!(!kept.contains("here\" }"), "only lines with errors are shown: {kept}");
    let sounds = errors("[auth.oidc]\ntoken_lifetime = 900\n").0.to_string();
    assert!(sounds.contains("token_lifetime = 900"), "{sounds}");
}
