#!/usr/bin/env bash
# All checks, in the order in which they are cheapest to fail. Reads the tree and changes nothing in it.
#
# Usage: deploy/dev/verify.sh           everything, as CI does (make test)
#        deploy/dev/verify.sh quick     what a pre-push hook has patience for: format, architecture, lints
#
# Every step runs, whatever became of the others, so that one run names all faults. NORA_ADVISORIES=1 adds RustSec
# advisories: their database is fetched from the network, so they cannot be part of a build that must work without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh

logs="$CARGO_TARGET_DIR/verify"
mkdir -p "$logs"
failed=()
summary=""

# step NAME COMMAND...: runs a check, its output in a log that is shown when it fails.
step() {
  local name="$1" log started took note
  shift
  log="$logs/${name// /-}.log"
  started=$SECONDS
  printf '%-14s … ' "$name"
  if "$@" >"$log" 2>&1; then
    took=$((SECONDS - started))
    note="$(conclusion "$log")"
    printf 'ok, %d s%s\n' "$took" "${note:+: $note}"
    summary+="$(printf 'ok      %-14s %4d s  %s' "$name" "$took" "$note")"$'\n'
  else
    took=$((SECONDS - started))
    printf 'FAILED after %d s\n' "$took"
    tail -n 80 "$log" | sed 's/^/    /'
    echo "    (whole log: $log)"
    failed+=("$name")
    summary+="$(printf 'FAILED  %-14s %4d s  %s' "$name" "$took" "$log")"$'\n'
    summary+="$(faults "$log")"$'\n'
  fi
}

# conclusion LOG: the figures that a step's output ends with, if it has any.
conclusion() {
  if grep -q '^test result: ' "$1"; then
    awk '/^test result: / { passed += $4; ignored += $8 } END { printf "%d tests passed, %d ignored", passed, ignored }' "$1"
  else
    grep -E '^[0-9]+ passed, [0-9]+ failed' "$1" | tail -n 1 || true
  fi
}

# faults LOG: the lines of a failed step's log that name what failed. Where only the end of the output is kept, they are in it.
faults() {
  { grep -E '^ *(FAIL|FAILED|not ok|error)\b|^test .* FAILED$|panicked at' "$1" || true; } | head -n 12 | cut -c 1-300 | sed 's/^/          /'
}

component() { cargo "$1" --version >/dev/null 2>&1 || rustup component add "$2"; }
dependencies() { cargo deny --workspace check bans licenses sources; }
advisories() { cargo deny --workspace check advisories; }

component fmt rustfmt
component clippy clippy

step format cargo fmt --all --check
step mutants cluster-tests/mutants/run.sh --apply-only
step architecture cargo test --quiet -p nora-tidy
step lints cargo clippy --quiet --workspace --all-targets -- -D warnings
if [ "${1:-}" != quick ]; then
  # Tests of blobs in S3 run against two real servers.
  need versitygw minio
  step tests cargo test --workspace --exclude nora-tidy --no-fail-fast
  need cargo-deny
  step dependencies dependencies
  if [ "${NORA_ADVISORIES:-}" = 1 ]; then step advisories advisories; fi
  # The programs under the next two are the ones that the tests above have built.
  step server cargo build --quiet --bin nora
  step conformance cluster-tests/conformance/run.sh
  step "conformance of three" cluster-tests/conformance/run.sh local
  step "conformance in S3" cluster-tests/conformance/run.sh s3
  need ip iptables unshare
  step chaos cluster-tests/chaos.sh
  step upgrade cluster-tests/upgrade.sh
  need podman podman-compose   # podman-compose runs podman, which Debian only recommends with it
  step compose podman-compose --dry-run -f deploy/compose/compose.yaml up
  step interop cluster-tests/interop/run.sh
  step identity cluster-tests/identity.sh
fi

printf '\n%s' "$summary"
if [ ${#failed[@]} -gt 0 ]; then
  echo "${#failed[@]} failed: ${failed[*]}"
  exit 1
fi
echo "all checks passed in $SECONDS s"
