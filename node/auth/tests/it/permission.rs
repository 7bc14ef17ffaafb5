//! Permissions one by one: segments, inheritance, actions, and what is refused.

use nora_auth::permission::{Permission, PermissionSet};

use crate::support::question;

/// The set and the single permission answer alike, and as the table says.
#[track_caller]
fn check(permission: &str, covered: &[&str], not: &[&str]) {
    let one = Permission::parse(permission).unwrap_or_else(|e| panic!("{permission}: {e}"));
    let set = PermissionSet::parse([permission]).unwrap();
    for (asked, expected) in covered.iter().map(|a| (a, true)).chain(not.iter().map(|a| (a, false)))
    {
        let (action, what) = question(asked);
        assert_eq!(one.covers(action, &what), expected, "{permission} on {asked}, alone");
        assert_eq!(set.covers(action, &what), expected, "{permission} on {asked}, in a set");
        assert_eq!(set.which(action, &what).is_some(), expected);
    }
}

#[test]
fn segments_and_inheritance() {
    check(
        "push:my-org/*",
        &["push my-org/app", "push my-org/team/app", "push my-org/a/b/c"],
        &[
            "push my-org",
            "push my-org-evil/x",
            "push my-orgx",
            "push evil/my-org/x",
            "push npm:my-org/x",
            "pull my-org/app",
        ],
    );
    check("pull:my-org/app", &["pull my-org/app"], &["pull my-org/app/x", "pull my-org/apps"]);
    check("pull:*/app", &["pull a/app"], &["pull a/b/app", "pull app", "pull a/apps"]);
    check("pull:**/app", &["pull a/app", "pull a/b/app", "pull app"], &["pull a/xapp"]);
    check("pull:a/**/z", &["pull a/z", "pull a/b/c/z"], &["pull a/zz", "pull b/z"]);
    check("pull:a/*/z", &["pull a/b/z"], &["pull a/b/c/z", "pull a/z"]);
    check("pull:*/*", &["pull a/b", "pull a/b/c"], &["pull a"]);
    check("pull:team-*/*", &["pull team-a/x", "pull team-a/x/y"], &["pull team/x", "pull team-a"]);
    check("pull:team-*", &["pull team-a"], &["pull team-a/x"]);
    check("pull:team?app", &["pull team-app"], &["pull team/app"]);
    check("pull:team[!x]app", &["pull team-app"], &["pull team/app", "pull teamxapp"]);
    check("pull:team[+-9]app", &["pull team.app"], &["pull team/app"]);
    check("pull:team/{a,b}", &["pull team/a", "pull team/b"], &["pull team/c", "pull team/a/x"]);
    check("pull:{a,b}/*", &["pull a/x/y", "pull b/x"], &["pull c/x", "pull a"]);
}

#[test]
fn formats() {
    check("pull:*", &["pull a", "pull npm:@a/b", "pull maven:com.a:b"], &["push a"]);
    check("pull:oci:*", &["pull a", "pull a/b"], &["pull npm:a"]);
    check("pull:npm:*", &["pull npm:lodash", "pull npm:@a/b"], &["pull lodash"]);
    check(
        "delete:npm:@acme/*",
        &["delete npm:@acme/ui"],
        &["delete npm:@acme-evil/ui", "delete npm:acme", "delete @acme/ui"],
    );
    check(
        "push:pypi:acme-*",
        &["push pypi:acme-core"],
        &["push pypi:acme", "push pypi:acmex", "push cargo:acme-core"],
    );
}

/// A group covers what is in it and below it; an artifact is never taken for a group, whatever dots it has.
#[test]
fn maven_groups() {
    for group in ["pull:maven:com.acme", "pull:maven:com.acme.*"] {
        check(
            group,
            &["pull maven:com.acme:lib", "pull maven:com.acme.app:lib", "pull maven:com.acme:a.b"],
            &["pull maven:com.acmeevil:lib", "pull maven:com:acme", "pull maven:com:acme.x"],
        );
    }
    check(
        "pull:maven:com.acme.app",
        &["pull maven:com.acme.app:lib"],
        &["pull maven:com.acme:app", "pull maven:com.acme:app.lib"],
    );
    check(
        "pull:maven:com.acme:lib",
        &["pull maven:com.acme:lib"],
        &["pull maven:com.acme.lib:x", "pull maven:com.acme:lib2", "pull maven:com:acme.lib"],
    );
    check(
        "pull:maven:com.acme:*",
        &["pull maven:com.acme:lib", "pull maven:com.acme:lib.core"],
        &["pull maven:com.acme.app:lib"],
    );
}

#[test]
fn actions_include_others_as_documented() {
    let all = ["pull a", "push a", "overwrite a", "delete a", "admin a"];
    for (written, covered) in [
        ("pull", &[0][..]),
        ("push", &[1]),
        ("overwrite", &[1, 2]),
        ("delete", &[3]),
        ("admin", &[0, 1, 2, 3, 4]),
        ("*", &[0, 1, 2, 3, 4]),
        ("pull,push", &[0, 1]),
    ] {
        let yes: Vec<&str> = covered.iter().map(|at| all[*at]).collect();
        let no: Vec<&str> = all.iter().copied().filter(|asked| !yes.contains(asked)).collect();
        check(&format!("{written}:a"), &yes, &no);
    }
    // A deny of creating is one of replacing; a deny of replacing leaves creating.
    for (written, denied) in [
        ("pull", &[0][..]),
        ("push", &[1, 2]),
        ("overwrite", &[2]),
        ("delete", &[3]),
        ("admin", &[4]),
        ("*", &[0, 1, 2, 3, 4]),
    ] {
        let text = format!("{written}:a");
        let (one, set) =
            (Permission::parse(&text).unwrap(), PermissionSet::parse([&text]).unwrap());
        for (at, asked) in all.iter().enumerate() {
            let (action, what) = question(asked);
            assert_eq!(one.denies(action, &what), denied.contains(&at), "deny {text} on {asked}");
            assert_eq!(set.denies(action, &what), denied.contains(&at), "deny {text} on {asked}");
        }
    }
}

#[test]
fn the_registry_itself_takes_admin_of_everything() {
    let asked = ["admin registry!", "pull registry!"];
    for whole in ["admin:*", "*:*"] {
        check(whole, &asked, &[]);
    }
    for part in ["admin:oci:*", "admin:**", "admin:a/*", "pull,push,overwrite,delete:*"] {
        check(part, &[], &asked);
    }
}

#[test]
fn what_can_match_nothing_is_refused_with_the_reason() {
    let long = format!("pull:{}", "a".repeat(256));
    let longer = format!("{}pull:a", "pull,".repeat(1_000));
    for (text, reason) in [
        ("pul:a", "did you mean `pull`"),
        ("psuh:a", "did you mean `push`"),
        ("overwriet:a", "did you mean `overwrite`"),
        ("Pull:a", "did you mean `pull`"),
        ("", "unknown action"),
        (":a", "unknown action"),
        ("pull,:a", "unknown action"),
        ("pull", "names no repositories"),
        ("pull:", "names no repositories"),
        ("pull:npm:", "names no repositories"),
        ("pull:nmp:@acme/*", "did you mean `npm`"),
        ("pull:OCI:a", "unknown format"),
        ("pull:*:a", "unknown format"),
        ("pull:oci:a:latest", "tags are not part"),
        ("pull:[a", "malformed"),
        ("pull:{a,b", "malformed"),
        ("pull:a/../b", "`..`"),
        ("pull:a\nb", "control character"),
        ("pull:a b", "neither spaces"),
        ("pull:a\\*", "backslashes"),
        ("pull:ünicode", "outside ASCII"),
        ("pull:Frontend/*", "lower case"),
        ("pull:***", "no wildcard"),
        ("pull:/a", "segment is empty"),
        ("pull:a//b", "segment is empty"),
        ("pull:a/", "segment is empty"),
        ("pull:maven:com/acme", "group:artifact"),
        ("pull:maven:com:acme:1", "one `:`"),
        ("pull:maven:{com:a,b}", "inside brackets"),
        (&long, "longer than 255"),
        (&longer, "longer than 255"),
    ] {
        let error = Permission::parse(text).expect_err(text).to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let refused = PermissionSet::parse(["pull:a", "x:a", "pull:b", "push:"]).unwrap_err();
    assert_eq!(refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn one_text_for_one_meaning() {
    for (text, canonical) in [
        ("push,pull:a", "pull,push:a"),
        ("pull,pull:a", "pull:a"),
        ("pull:oci:a/*", "pull:a/*"),
        ("pull:oci:*", "pull:oci:*"),
        ("pull:*", "pull:*"),
        ("pull,push,overwrite,delete,admin:*", "*:*"),
        ("delete:npm:@acme/*", "delete:npm:@acme/*"),
    ] {
        assert_eq!(Permission::parse(text).unwrap().to_string(), canonical);
    }
    let admin = Permission::parse("admin:a/*").unwrap();
    let pull = nora_auth::permission::Action::Pull;
    assert_eq!(admin.narrowed_to(pull).unwrap().to_string(), "pull:a/*");
    assert!(Permission::parse("overwrite:a").unwrap().narrowed_to(pull).is_none());
}

/// More real globs than one automaton takes, all in one set.
#[test]
fn a_set_of_hundreds_of_globs_answers_as_its_parts() {
    let texts: Vec<String> = (0..300).map(|i| format!("push:org-{i}/*/app-[a-z]*")).collect();
    let set = PermissionSet::parse(&texts).unwrap();
    for i in [0, 63, 64, 128, 299] {
        let asked = format!("push org-{i}/x/app-b1");
        let (action, what) = question(&asked);
        assert_eq!(set.which(action, &what), Some(texts[i].as_str()));
    }
    let (action, what) = question("push org-300/x/app-b1");
    assert!(!set.covers(action, &what));
}
