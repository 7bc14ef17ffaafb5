#!/usr/bin/env bash
# Mends what can be mended by itself: lints, format, and the files that are made from the code (the configuration's
# reference page and schema, and the goldens of its errors). verify.sh only reads; this is the one that writes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/dev/setup.sh

cargo clippy --quiet --fix --allow-dirty --allow-staged --workspace --all-targets
cargo fmt --all
NORA_UPDATE_GOLDEN=1 cargo test --quiet -p nora --lib
