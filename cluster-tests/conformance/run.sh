#!/usr/bin/env bash
# The OCI distribution conformance program against a fresh node, with everything switched on that it can test, drafts of
# the next version included (upload cancel, tag parameters, digest headers).
#
# One thing the specification leaves open is declined by design: `sparse` data stay off, for NORA refuses manifests whose
# layers were never pushed.
#
# Usage: cluster-tests/conformance/run.sh          one node; report.html, junit.xml and output.txt go to
#                                                  $CARGO_TARGET_DIR/conformance
#        cluster-tests/conformance/run.sh local    three nodes, each request to the next one; blobs on their own disks
#        cluster-tests/conformance/run.sh s3       the same, blobs in a bucket (versitygw)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh
need conformance
. cluster-tests/node.sh
layout="${1:-one}"

# The program ends well when it could not run, and counts what a registry lacks as skipped: neither passes here.
passed_min=950

report="$CARGO_TARGET_DIR/conformance${1:+-$1}"
rm -rf "$report"
mkdir -p "$report"
case "$layout" in
  one) start_node ;;
  local)
    need haproxy
    . cluster-tests/cluster.sh
    start_cluster 3
    ;;
  s3)
    need haproxy versitygw
    . cluster-tests/cluster.sh
    . cluster-tests/bucket.sh
    start_bucket
    start_cluster 3 --config "$work/nora.toml"
    ;;
  *) echo "unknown layout '$layout': local or s3" >&2; exit 2 ;;
esac

# A clean environment: the program takes its whole configuration from OCI_… variables and ./oci-conformance.yaml.
status=0
(cd "$work" && exec env -i PATH="$PATH" HOME="$work" \
  OCI_REGISTRY="$node_addr" OCI_TLS=disabled OCI_VERSION=1.1+dev OCI_LOG=error OCI_RESULTS_DIR="$report" \
  conformance) >"$report/output.txt" 2>"$report/errors.txt" || status=$?

count() { awk -v name="$1" '$1 ~ "^" name "\\.*:$" { n = $2 } END { print n + 0 }' "$report/output.txt"; }
passed=$(count Pass)
failed=$(($(count FAIL) + $(count Error)))
skipped=$(($(count Skip) + $(count Disabled)))

if [ "$status" != 0 ] || [ "$failed" != 0 ] || [ "$skipped" != 0 ] || [ "$passed" -lt "$passed_min" ]; then
  grep -E -A1 ': (FAIL|Error|Skip|Disabled)$' "$report/output.txt" | grep -E '^ *- ' -B1 | cut -c1-400 || true
  cat "$report/errors.txt"
  echo "the whole report: $report/report.html"
  echo "$passed passed, $failed failed, $skipped skipped (at least $passed_min must pass, none be skipped)"
  exit 1
fi
echo "$passed passed, $failed failed, $skipped skipped"
