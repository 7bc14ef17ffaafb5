#!/usr/bin/env bash
# Starts a node of its own for tests written in shell, and ends that process and no other.
#
# Usage: . cluster-tests/node.sh
#        start_node [ARG...]     a fresh data directory and a free port; sets node_addr (host:port), node_pid, work
#        stop_node               ends it; done on exit as well
# NORA_BIN names the program under test; otherwise the debug build that `cargo build` leaves is taken.

work="$(mktemp -d "${TMPDIR:-/tmp}/nora-test.XXXXXX")"
node_pid=""
nora="${NORA_BIN:-$CARGO_TARGET_DIR/debug/nora}"

stop_node() {
  if [ -n "$node_pid" ]; then
    kill "$node_pid" 2>/dev/null || true
    wait "$node_pid" 2>/dev/null || true
    node_pid=""
  fi
}

finish() {
  local status="${1:-$?}"
  stop_node
  if [ $status != 0 ] && [ -n "${report:-}" ] && [ -f "$work/node.log" ]; then cp "$work/node.log" "$report/"; fi
  rm -rf "$work" 2>/dev/null || true
  exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A port that nobody listens on now, and that was not given out before. Another process may take it first: start_node then
# tries another one.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    if grep -qx "$port" "$work/ports" 2>/dev/null; then continue; fi
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port" >>"$work/ports"
      echo "$port"
      return
    fi
  done
}

# Ends when `URL` answers, the node has died or its time is up. Asks again every 20 ms.
answers() {
  local deadline=$((SECONDS + 30))
  while [ $SECONDS -lt $deadline ] && kill -0 "$node_pid" 2>/dev/null; do
    if curl --silent --fail --output /dev/null ${node_ca:+--cacert "$node_ca"} "$1"; then return 0; fi
    sleep 0.02
  done
  return 1
}

start_node() {
  if [ ! -x "$nora" ]; then
    echo "there is no $nora: build it with 'cargo build --bin nora', or name another one in NORA_BIN" >&2
    exit 1
  fi
  for _ in 1 2 3; do
    node_addr="127.0.0.1:$(free_port)"
    "$nora" serve --data-dir "${node_data:-$work/data}" --listen "$node_addr" \
      --cluster-listen 127.0.0.1:0 "$@" >"$work/node.log" 2>&1 &
    node_pid=$!
    if answers "${node_scheme:-http}://$node_addr/ready"; then return 0; fi
    stop_node
    grep -qi 'in use' "$work/node.log" || break
  done
  tail -n 30 "$work/node.log" >&2
  echo "the node did not become ready" >&2
  exit 1
}
