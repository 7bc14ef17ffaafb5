#!/usr/bin/env bash
# Mends what can be mended by itself: format and lints. verify.sh only reads; this is the one that writes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/dev/setup.sh

cargo clippy --quiet --fix --allow-dirty --allow-staged --workspace --all-targets
cargo fmt --all
