#!/usr/bin/env bash
# Who may do what, with real processes: a cluster of three nodes under parallel pushes, revocations, workload tokens, a lost
# leader and more (nora-identity prints a line a check); real clients that log in; and the login action against a node.
#
# Usage: cluster-tests/identity.sh      programs: the debug build
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh
need node curl
cargo build --quiet -p nora-cluster-tests --bin nora-identity --bin nora-test-issuer
. cluster-tests/node.sh

passed=0
failed=0
# count PASSED FAILED
count() { passed=$((passed + ${1:-0})) failed=$((failed + ${2:-0})); }

# part NAME PATTERN COMMAND…: runs a command and adds up what it counts itself, two numbers that PATTERN finds in its last
# lines. One that fails without counting a failure has failed as a whole.
part() {
  local name="$1" pattern="$2" status=0 numbers started=$SECONDS
  shift 2
  echo "== $name"
  "$@" 2>&1 | tee "$work/$name.log" || status=$?
  numbers="$(tail -n 12 "$work/$name.log" | tr '\n' ' ' | sed -nE "s/.*[^0-9]$pattern.*/\1 \2/p")"
  # shellcheck disable=SC2086 # two numbers
  set -- $numbers
  if [ $status != 0 ] && [ "${2:-0}" = 0 ]; then set -- "${1:-0}" 1; fi
  if [ $status = 0 ] && [ "${1:-0}" = 0 ]; then
    echo "FAIL  $name: nothing was checked"
    set -- 0 1
  fi
  count "$@"
  echo "== $name: ${1:-0} passed, ${2:-0} failed, $((SECONDS - started)) s"
}

# The login action needs a registry whose address is the audience of its tokens, and that is known once it listens: the
# node starts open and gets its policy then.
login_action() {
  local issuer_line
  # In a pipe this is a shell of its own, which does not inherit what ends the node.
  trap stop_node EXIT
  coproc ISSUER { exec "$CARGO_TARGET_DIR/debug/nora-test-issuer" --until-stdin-closes; }
  read -r issuer_line <&"${ISSUER[0]}"
  said() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$issuer_line"; }
  # The issuer is on this machine.
  printf '[server]\negress_networks = ["127.0.0.0/8"]\n' >"$work/start.toml"
  start_node --config "$work/start.toml"
  export REGISTRY_URL="http://$node_addr" ISSUER_URL ISSUER_REQUEST_TOKEN
  ISSUER_URL="$(said issuer)"
  ISSUER_REQUEST_TOKEN="$(said request_token)"
  cat >"$work/nora.toml" <<TOML
[auth.oidc]
enabled = true

[[auth.oidc.providers]]
name = "github-actions"
kind = "github"
issuer = "$ISSUER_URL"
audience = "$REGISTRY_URL"

[[auth.oidc.providers.rules]]
match = { repository = "my-org/*" }
permissions = ["pull,push:team/*"]
TOML
  "$nora" policy apply --yes --config "$work/nora.toml" --data-dir "$work/data"
  cluster-tests/login-action/run.sh
}

part identity '([0-9]+) passed, ([0-9]+) failed' "$CARGO_TARGET_DIR/debug/nora-identity" --nora "$nora"
part login '([0-9]+) passed, ([0-9]+) failed' cluster-tests/interop/login.sh
part login-action 'pass ([0-9]+).*fail ([0-9]+)' login_action

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed != 0 ]
