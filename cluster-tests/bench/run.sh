#!/usr/bin/env bash
# Measures NORA beside other registries and nginx on this machine: docs/reference/benchmarks.md says what and how.
#
# Usage: cluster-tests/bench/run.sh [OPTION of nora-bench]...
#
# BENCH_TARGETS    what to measure (distribution,zot,zot-sync,nginx,nora); what it names is installed, except zot
# BENCH_ROUNDS     interleaved rounds (3)
# BENCH_MANIFESTS  manifests in the store whose start is measured (100000)
# BENCH_STORES     a folder that keeps filled stores from run to run (none: filled anew, removed at the end)
# BENCH_NICE       niceness of servers and clients alike; below 0 needs root (0)
# BENCH_QUICK=1    one round of small blobs and short phases: to see that everything works, not to quote
# NORA_BIN         the program under test (the dist build)
# ZOT_BIN          zot, which no package registry serves: without it, zot-minimal in $NORA_CACHE/bin, or none
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh

distribution_version=v3.1.2
targets="${BENCH_TARGETS:-distribution,zot,zot-sync,nginx,nora}"

names() { case ",$targets," in *",$1,"*) return 0 ;; *) return 1 ;; esac; }

if names distribution; then
  go_tool registry "github.com/distribution/distribution/v3/cmd/registry@$distribution_version"
fi
if names nginx && ! has nginx && [ ! -x /usr/sbin/nginx ]; then unpacked nginx nginx usr/sbin/nginx; fi
need curl wrk

cargo build --quiet --release -p nora-cluster-tests --bin nora-bench
nora="${NORA_BIN:-$CARGO_TARGET_DIR/dist/nora}"
if names nora && [ ! -x "$nora" ]; then
  echo "there is no $nora: 'cargo build --profile dist --bin nora' makes it; NORA_BIN names another one" >&2
  exit 1
fi

options=()
if [ -n "${BENCH_STORES:-}" ]; then options+=(--keep-store "$BENCH_STORES"); fi
if [ "${BENCH_QUICK:-0}" = 1 ]; then
  options+=(--blob-mib 16 --blob-clients 1,8 --image-clients 1,8 --image-seconds 1 --read-seconds 1 \
            --wait-quiet-seconds 0 --idle-seconds 1)
  BENCH_ROUNDS="${BENCH_ROUNDS:-1}" BENCH_MANIFESTS="${BENCH_MANIFESTS:-2000}"
fi

results="$CARGO_TARGET_DIR/bench"
mkdir -p "$results"
report="$results/$(date -u +%Y%m%dT%H%M%SZ)"
status=0
nice -n "${BENCH_NICE:-0}" "$CARGO_TARGET_DIR/release/nora-bench" \
  --targets "$targets" --nora "$nora" --bin-dir "$NORA_CACHE/bin" --work-dir "$NORA_CACHE/bench" \
  --rounds "${BENCH_ROUNDS:-3}" --manifests "${BENCH_MANIFESTS:-100000}" \
  --markdown "$report.md" --json "$report.json" "${options[@]}" "$@" || status=$?
if [ -f "$report.md" ]; then echo "report: $report.md and $report.json" >&2; fi
exit $status
