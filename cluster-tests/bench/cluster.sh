#!/usr/bin/env bash
# Measures a cluster of three nodes on this machine, writes beside etcd: docs/reference/benchmarks.md says what and how.
#
# Usage: cluster-tests/bench/cluster.sh [OPTION of nora-cluster-bench]...
#
# BENCH_ROUNDS     interleaved rounds of writes, reads and blobs (3)
# BENCH_MANIFESTS  manifests in the cluster that a fresh node joins (1000000)
# BENCH_REPAIR     MiB of blobs in the cluster that loses a node (10240)
# BENCH_NICE       niceness of servers and clients alike; below 0 needs root (0)
# BENCH_QUICK=1    one round of short phases and small stores: to see that everything works, not to quote
# NORA_BIN         the program under test (the dist build)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh
need etcd etcdctl

cargo build --quiet --release -p nora-cluster-tests --bin nora-cluster-bench
nora="${NORA_BIN:-$CARGO_TARGET_DIR/dist/nora}"
if [ ! -x "$nora" ]; then
  echo "there is no $nora: 'cargo build --profile dist --bin nora' makes it; NORA_BIN names another one" >&2
  exit 1
fi

options=()
if [ "${BENCH_QUICK:-0}" = 1 ]; then
  options+=(--seconds 2 --blob-mib 16 --failovers 2 --relays 500 --wait-quiet-seconds 0)
  BENCH_ROUNDS="${BENCH_ROUNDS:-1}" BENCH_MANIFESTS="${BENCH_MANIFESTS:-5000}" BENCH_REPAIR="${BENCH_REPAIR:-512}"
fi

results="$CARGO_TARGET_DIR/bench"
mkdir -p "$results"
report="$results/cluster-$(date -u +%Y%m%dT%H%M%SZ)"
status=0
nice -n "${BENCH_NICE:-0}" "$CARGO_TARGET_DIR/release/nora-cluster-bench" \
  --nora "$nora" --work-dir "$NORA_CACHE/bench-cluster" \
  --rounds "${BENCH_ROUNDS:-3}" --manifests "${BENCH_MANIFESTS:-1000000}" --repair-mib "${BENCH_REPAIR:-10240}" \
  --markdown "$report.md" --json "$report.json" "${options[@]}" "$@" || status=$?
if [ -f "$report.md" ]; then echo "report: $report.md and $report.json" >&2; fi
exit $status
