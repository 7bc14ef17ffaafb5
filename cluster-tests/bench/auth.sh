#!/usr/bin/env bash
# Measures what asking who may do what costs, on this machine: docs/reference/benchmarks.md says what and how.
#
# Usage: cluster-tests/bench/auth.sh [OPTION of nora-auth-bench]...
#
# BENCH_ROUNDS   rounds of pulls, there and back (3)
# BENCH_NICE     niceness of servers and clients alike; below 0 needs root (0)
# BENCH_QUICK=1  one round of short phases: to see that everything works, not to quote
# NORA_BIN       the program under test (the dist build)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/dev/setup.sh

cargo build --quiet --release -p nora-cluster-tests --bin nora-auth-bench
nora="${NORA_BIN:-$CARGO_TARGET_DIR/dist/nora}"
if [ ! -x "$nora" ]; then
  echo "there is no $nora: 'cargo build --profile dist --bin nora' makes it; NORA_BIN names another one" >&2
  exit 1
fi

options=()
if [ "${BENCH_QUICK:-0}" = 1 ]; then
  options+=(--seconds 1)
  BENCH_ROUNDS="${BENCH_ROUNDS:-1}"
fi

work="$(mktemp -d "${TMPDIR:-/tmp}/nora-auth-bench.XXXXXX")"
trap 'rm -rf "$work"' EXIT
nice -n "${BENCH_NICE:-0}" "$CARGO_TARGET_DIR/release/nora-auth-bench" \
  --nora "$nora" --work "$work" --rounds "${BENCH_ROUNDS:-3}" "${options[@]}" "$@"
