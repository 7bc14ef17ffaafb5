//! The tables: crates and their allowed edges, modules and what they must not name, limits.
//!
//! docs/ARCHITECTURE.md explains them; a change here is a change of the architecture and belongs into an ADR.

/// What crates of other projects a crate may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum External {
    /// Whatever `.deny.toml` lets through.
    Any,
    /// These alone. A name that ends in `?` must be optional: only the testkit may switch it on.
    Only(&'static [&'static str]),
}

/// A crate of the workspace. Dev-dependencies are free: tests may use what they like, but for `nora-*` crates they
/// keep to `internal` as well, so that a layer cannot be tested only together with what lies above it.
#[derive(Clone, Copy, Debug)]
pub struct CrateRule {
    /// Its name.
    pub name: &'static str,
    /// Crates of this workspace that it may depend on; `*` is any.
    pub internal: &'static [&'static str],
    /// Other crates that it may depend on.
    pub external: External,
}

/// Every crate of the workspace.
pub const CRATES: &[CrateRule] = &[
    CrateRule { name: "nora-proto", internal: &[], external: External::Any },
    // The chain of audit entries needs a hash. Bodies and facts share the memory that requests and log entries came in.
    CrateRule { name: "nora-domain", internal: &[], external: External::Only(&["bytes", "sha2"]) },
    CrateRule {
        name: "nora-app",
        internal: &["nora-domain"],
        external: External::Only(&[
            "bytes",
            "futures-core",
            "futures-util",
            "thiserror",
            "tracing",
            "tokio?",
        ]),
    },
    CrateRule {
        name: "nora-formats",
        internal: &["nora-domain"],
        external: External::Only(&["serde", "serde_json", "thiserror"]),
    },
    // The decision point has no I/O: everything it depends on computes.
    CrateRule {
        name: "nora-auth",
        internal: &["nora-domain"],
        external: External::Only(&[
            "argon2",
            "aws-lc-rs",
            "base64",
            "bcrypt",
            "crc32fast",
            "getrandom",
            "globset",
            "jsonwebtoken",
            "moka",
            "serde",
            "serde_json",
            "thiserror",
        ]),
    },
    CrateRule {
        name: "nora-digest",
        internal: &["nora-domain"],
        external: External::Only(&["aws-lc-rs"]),
    },
    CrateRule {
        name: "nora-compute",
        internal: &[],
        external: External::Only(&["rustix", "tokio", "tracing"]),
    },
    // The one client for calls to other places knows none of them.
    CrateRule {
        name: "nora-egress",
        internal: &[],
        external: External::Only(&["reqwest", "thiserror", "tokio"]),
    },
    // Configuration is parsed and checked by itself: it asks nobody, so it has neither a runtime nor HTTP's server.
    CrateRule {
        name: "nora-config",
        internal: &["nora-auth"],
        external: External::Only(&[
            "http",
            "serde_json",
            "strsim",
            "thiserror",
            "toml",
            "tracing-subscriber",
        ]),
    },
    CrateRule {
        name: "nora-identity",
        internal: &[
            "nora-app",
            "nora-auth",
            "nora-compute",
            "nora-config",
            "nora-digest",
            "nora-domain",
            "nora-egress",
            "nora-formats",
        ],
        external: External::Any,
    },
    // The HTTP surface knows no adapter, so its tests link neither RocksDB nor the AWS SDK.
    CrateRule {
        name: "nora-http",
        internal: &[
            "nora-app",
            "nora-auth",
            "nora-compute",
            "nora-config",
            "nora-digest",
            "nora-domain",
            "nora-formats",
            "nora-identity",
        ],
        external: External::Any,
    },
    CrateRule {
        name: "nora-cluster",
        internal: &["nora-app", "nora-domain", "nora-proto", "nora-trust"],
        external: External::Any,
    },
    // The chunk exchange knows neither consensus nor a wire: hosts that share layers will run the same engine.
    CrateRule { name: "nora-swarm", internal: &[], external: External::Any },
    CrateRule { name: "nora-trust", internal: &["nora-domain"], external: External::Any },
    // Sessions know no storage: both storages stand on them, and neither on the other.
    CrateRule {
        name: "nora-uploads",
        internal: &["nora-app", "nora-digest", "nora-domain", "nora-swarm"],
        external: External::Any,
    },
    CrateRule {
        name: "nora-blobs",
        internal: &[
            "nora-app",
            "nora-digest",
            "nora-domain",
            "nora-proto",
            "nora-swarm",
            "nora-trust",
            "nora-uploads",
        ],
        external: External::Any,
    },
    CrateRule {
        name: "nora-objects",
        internal: &["nora-app", "nora-domain", "nora-swarm", "nora-uploads"],
        external: External::Any,
    },
    CrateRule {
        name: "nora-client",
        internal: &["nora-domain", "nora-proto", "nora-trust"],
        external: External::Any,
    },
    // The command line knows the configuration's words, because `nora config` and `nora policy` read its file. It knows
    // neither use cases nor adapters: a verb's tests link neither RocksDB nor the AWS SDK.
    CrateRule {
        name: "nora-cli",
        internal: &["nora-auth", "nora-client", "nora-config"],
        external: External::Only(&[
            "clap",
            "clap_complete",
            "clap_mangen",
            "rustix",
            "serde",
            "serde_json",
            "serde_yaml_ng",
            "thiserror",
            "time",
            "tokio",
        ]),
    },
    CrateRule {
        name: "nora",
        internal: &[
            "nora-app",
            "nora-domain",
            "nora-auth",
            "nora-config",
            "nora-digest",
            "nora-egress",
            "nora-identity",
            "nora-http",
            "nora-cluster",
            "nora-blobs",
            "nora-objects",
            "nora-swarm",
            "nora-trust",
            "nora-proto",
            "nora-cli",
        ],
        external: External::Any,
    },
    CrateRule { name: "nora-cluster-tests", internal: &["*"], external: External::Any },
    CrateRule { name: "nora-model", internal: &[], external: External::Only(&["stateright"]) },
    CrateRule { name: "nora-tidy", internal: &[], external: External::Only(&[]) },
];

/// Files that must not name certain paths.
#[derive(Clone, Copy, Debug)]
pub struct LayerRule {
    /// The rule's name in findings.
    pub rule: &'static str,
    /// Files that it is about: path prefixes from the workspace's root.
    pub within: &'static [&'static str],
    /// Files among them that it is not about: path prefixes.
    pub except: &'static [&'static str],
    /// Path prefixes that must not be named, as in `std::fs` or `crate::registry`, however they are written. One that
    /// starts with `::` is a single name that must not stand anywhere in a path.
    pub never: &'static [&'static str],
    /// Whether `#[cfg(test)]` code is free of it.
    pub tests_may: bool,
    /// Why, and what to do instead.
    pub why: &'static str,
}

/// The walls inside crates.
pub const LAYERS: &[LayerRule] = &[
    LayerRule {
        rule: "domain-pure",
        within: &["node/domain/src/"],
        except: &[],
        never: &[
            "std::fs",
            "std::net",
            "std::time",
            "std::thread",
            "std::process",
            "std::env",
            "std::os",
            "std::io",
            "::HashMap",
            "::HashSet",
            "::RandomState",
        ],
        tests_may: false,
        why: "the domain is the same on every replica: no clock, I/O, threads or unordered maps; \
              take the value as an argument, iterate a BTreeMap",
    },
    LayerRule {
        rule: "adapters-in-wiring",
        within: &["node/src/"],
        except: &["node/src/wiring.rs", "node/src/wiring/", "node/src/main.rs"],
        never: &["nora_cluster", "nora_blobs", "nora_objects"],
        tests_may: false,
        why: "only wiring names concrete adapters; take a port of nora_app::ports instead",
    },
    LayerRule {
        rule: "core-below-handles",
        within: &[
            "node/app/src/core.rs",
            "node/app/src/immutable.rs",
            "node/app/src/judging.rs",
            "node/app/src/proposing.rs",
        ],
        except: &[],
        never: &[
            "crate::access",
            "crate::accounts",
            "crate::artifacts",
            "crate::blobs",
            "crate::journal",
            "crate::registry",
            "crate::repositories",
            "crate::reservation",
            "crate::tags",
            "crate::tenants",
            "crate::tokens",
            "crate::uploads",
        ],
        tests_may: false,
        why: "the core serves every handle and knows none; what speaks of a noun belongs into that \
              noun's handle",
    },
    LayerRule {
        rule: "ports-below",
        within: &["node/app/src/ports/"],
        except: &[],
        never: &[
            "crate::access",
            "crate::accounts",
            "crate::artifacts",
            "crate::blobs",
            "crate::core",
            "crate::immutable",
            "crate::journal",
            "crate::judging",
            "crate::proposing",
            "crate::registry",
            "crate::repositories",
            "crate::reservation",
            "crate::tags",
            "crate::tenants",
            "crate::testkit",
            "crate::tokens",
            "crate::uploads",
        ],
        tests_may: false,
        why: "ports are what use cases stand on; they know domain words only",
    },
    LayerRule {
        rule: "app-without-runtime",
        within: &["node/app/src/"],
        except: &["node/app/src/testkit/"],
        never: &["tokio"],
        tests_may: true,
        why: "use cases know no runtime; take a port, or futures_util",
    },
];

/// The modules that may hold unsafe code, with a proof beside each block; of a test's, one for all of them.
pub const UNSAFE_ALLOWED: &[&str] =
    &["node/blobs/src/map.rs", "node/src/memory.rs", "node/cluster/tests/crash/intercept.rs"];

/// Names that say nothing about what is inside.
pub const NAMELESS: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

/// Where types are handles of the registry, or what they give back: path prefixes.
pub const HANDLES: &[&str] = &["node/app/src/"];

/// Public methods a handle may have. One that needs more speaks of two nouns.
pub const HANDLE_METHODS_MAX: usize = 14;

/// Lines a file may have. What reads well is 600; this is where a file is certainly two.
pub const FILE_LINES_MAX: usize = 900;
