#!/usr/bin/env bash
# Real clients against a fresh node: crane, skopeo, oras, buildah and podman push, pull, copy, list and delete images
# made of real files, one of them with a layer over 100 MiB. What comes back is compared byte for byte.
#
# Usage: cluster-tests/interop/run.sh [PATTERN]     only checks whose name matches the shell pattern
#
# A check is a function check_…; one line says how it went, its log is in $CARGO_TARGET_DIR/interop.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh
need crane oras skopeo buildah podman busybox openssl
# Without root, buildah and podman map users.
if [ "$(id -u)" != 0 ]; then need newuidmap; fi
. cluster-tests/node.sh
. cluster-tests/interop/images.sh
. cluster-tests/interop/crane.sh
. cluster-tests/interop/skopeo.sh
. cluster-tests/interop/oras.sh
. cluster-tests/interop/containers.sh
. cluster-tests/interop/tls.sh

report="$CARGO_TARGET_DIR/interop"
rm -rf "$report"
mkdir -p "$report"

# Clients read and write below the work folder only, and find no credentials or configuration of the machine's user.
export HOME="$work/home" XDG_RUNTIME_DIR="$work/run" DOCKER_CONFIG="$work/home/docker" TMPDIR="$work"
unset REGISTRY_AUTH_FILE XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME
mkdir -p "$HOME" "$XDG_RUNTIME_DIR" "$DOCKER_CONFIG"
echo '{}' >"$DOCKER_CONFIG/config.json"

passed=0
failed=0

# run_check FUNCTION: in a subshell that stops at the first command that fails, its trace in the log.
run_check() {
  local name="${1#check_}" started=$SECONDS status
  set +e
  (set -exo pipefail; "$1") >"$report/$name.log" 2>&1
  status=$?
  set -e
  if [ $status = 0 ]; then
    passed=$((passed + 1))
    printf 'PASS  %-24s %3d s\n' "$name" $((SECONDS - started))
  else
    failed=$((failed + 1))
    printf 'FAIL  %-24s %3d s\n' "$name" $((SECONDS - started))
    tail -n 15 "$report/$name.log" | sed 's/^/      /'
    echo "      (whole log: $report/$name.log)"
  fi
}

# run_checks PATTERN: in the order in which the files above define them.
run_checks() {
  local name
  for name in "${checks[@]}"; do
    # shellcheck disable=SC2053 # the right side is a pattern
    if [[ "$name" == $1 ]]; then run_check "check_$name"; fi
  done
}

make_layers
start_node
reg="$node_addr"
push_images
run_checks "${1:-*}"

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed != 0 ]
