//! Who owns which names, and which tags stay.

use nora_auth::document::PolicyDocument;
use nora_auth::permission::format_named;
use nora_auth::policy::Policy;

use crate::support::{compiled, immutable, tenant};

fn owner(policy: &Policy, name: &str) -> String {
    let (format, path) = name.split_once('|').unwrap();
    policy.tenant_of(format_named(format).unwrap(), path).to_string()
}

#[test]
fn the_most_specific_namespace_owns() {
    let tenants = vec![
        tenant("wide", "oci", &["acme/*", "tools"]),
        tenant("deep", "oci", &["acme/deep/*"]),
        tenant("one", "oci", &["acme/deep/one"]),
        tenant("js", "npm", &["@acme/*", "acme-ui"]),
        tenant("js2", "npm", &["@other"]),
        tenant("py", "pypi", &["acme-*", "single"]),
        tenant("py2", "pypi", &["acme-core-*", "acme-special"]),
        tenant("java", "maven", &["com.acme"]),
        tenant("java2", "maven", &["com.acme.app"]),
    ];
    let policy = compiled(&PolicyDocument { tenants, ..PolicyDocument::default() });
    for (name, expected) in [
        ("oci|acme/x", "wide"),
        ("oci|acme/x/y", "wide"),
        ("oci|acme", "default"),
        ("oci|acme-evil/x", "default"),
        ("oci|tools", "wide"),
        ("oci|tools/x", "wide"),
        ("oci|toolsx", "default"),
        ("oci|acme/deep", "wide"),
        ("oci|acme/deep/x", "deep"),
        ("oci|acme/deep/one", "one"),
        ("oci|acme/deep/one/x", "one"),
        ("oci|acme/deep/onex", "deep"),
        ("npm|acme/x", "default"),
        ("npm|@acme/x", "js"),
        ("npm|@acme-evil/x", "default"),
        ("npm|acme-ui", "js"),
        ("npm|acme-ui2", "default"),
        ("npm|@other/x", "js2"),
        ("pypi|acme-x", "py"),
        ("pypi|acme", "default"),
        ("pypi|acmex", "default"),
        ("pypi|acme-core-x", "py2"),
        ("pypi|acme-core", "py"),
        ("pypi|acme-special", "py2"),
        ("pypi|acme-special-x", "py"),
        ("pypi|single", "py"),
        ("cargo|acme-x", "default"),
        ("maven|com.acme:lib", "java"),
        ("maven|com.acme.x:lib", "java"),
        ("maven|com.acme.app:lib", "java2"),
        ("maven|com.acme:app", "java"),
        ("maven|com.acme:app.x", "java"),
        ("maven|com.acmeevil:lib", "default"),
        ("maven|com:acme", "default"),
    ] {
        assert_eq!(owner(&policy, name), expected, "{name}");
    }
    assert_eq!(policy.tenants().count(), 9);
    assert!(policy.tenant("js").is_some() && policy.tenant("default").is_none());
}

#[test]
fn immutable_tags() {
    let rules = vec![
        immutable("prod/*", &["v*", "release-[0-9]"]),
        immutable("locked", &[]),
        immutable("npm:@acme/*", &[]),
    ];
    let policy = compiled(&PolicyDocument { immutable: rules, ..PolicyDocument::default() });
    for (name, tag, expected) in [
        ("oci|prod/app", "v1", true),
        ("oci|prod/a/b", "v1.2", true),
        ("oci|prod/app", "release-1", true),
        ("oci|prod/app", "release-x", false),
        ("oci|prod/app", "latest", false),
        ("oci|product/app", "v1", false),
        ("oci|locked", "anything", true),
        ("npm|@acme/ui", "1.0.0", true),
        ("oci|acme/ui", "1.0.0", false),
    ] {
        let (format, path) = name.split_once('|').unwrap();
        let format = format_named(format).unwrap();
        assert_eq!(policy.is_immutable(format, path, tag), expected, "{name} {tag}");
        if expected {
            assert!(policy.has_immutable(format, path));
        }
    }
    let oci = format_named("oci").unwrap();
    assert!(policy.has_immutable(oci, "prod/app"));
    assert!(!policy.has_immutable(oci, "other"));
}
