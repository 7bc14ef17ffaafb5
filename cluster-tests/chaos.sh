#!/usr/bin/env bash
# A short run of real nodes under faults: each kind of fault once on nodes that keep their blobs themselves, and once each
# that S3 can have on nodes that keep them there. `make chaos` runs for as long as is wanted.
#
# Usage: cluster-tests/chaos.sh      programs: the debug build
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh
need versitygw ip iptables unshare

cargo build --quiet -p nora-cluster-tests --bin nora-chaos
nora="${NORA_BIN:-$CARGO_TARGET_DIR/debug/nora}"
seed="${CHAOS_SEED:-1}"
report="$CARGO_TARGET_DIR/chaos.md"

chaos() { "$CARGO_TARGET_DIR/debug/nora-chaos" --nora "$nora" --seed "$seed" --minutes 8 --report "$report" "$@"; }

chaos --faults 28
local="$(sed -n 's/.*\*\*\([0-9]*\) faults.*/\1/p' "$report")"
chaos --faults 6 --s3 "$(command -v versitygw)" --only s3-overload,s3-lost-answers,s3-down,s3-slow,kill-leader,power-cut
bucket="$(sed -n 's/.*\*\*\([0-9]*\) faults.*/\1/p' "$report")"
echo "$((local + bucket)) passed, 0 failed: faults without a violation, seed $seed"
