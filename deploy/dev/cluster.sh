#!/usr/bin/env bash
# Three nodes on this machine, to look at: HTTP on 127.0.0.1:4000, :4010 and :4020, data in ./nora-cluster/{1,2,3}.
# Ctrl-C ends all three; the next call starts them again with what they hold.
#
# Usage: deploy/dev/cluster.sh     (make cluster builds the program first)
set -euo pipefail
nora="${NORA_BIN:-$CARGO_TARGET_DIR/release/nora}"
data="${NORA_CLUSTER_DIR:-nora-cluster}"
mkdir -p "$data"
pids=()

# The nodes get the terminal's Ctrl-C as well; whatever ends this script ends them.
trap 'trap - EXIT; for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start N [ARG...]
start() {
  local n="$1"
  shift
  "$nora" serve --data-dir "$data/$n" --listen "127.0.0.1:40$((n - 1))0" --cluster-listen "127.0.0.1:40$((n - 1))1" "$@" \
    > >(sed -u "s/^/node $n | /") 2>&1 &
  pids+=($!)
}

start 1
until "$nora" --addr http://127.0.0.1:4000 health >/dev/null 2>&1; do
  kill -0 "${pids[0]}" 2>/dev/null || exit 1
  sleep 0.2
done
for n in 2 3; do
  if [ -d "$data/$n/identity" ]; then start "$n"; continue; fi
  NORA_JOIN_TOKEN="$("$nora" cluster --cluster-addr https://127.0.0.1:4001 --data-dir "$data/1" join-token)" \
    start "$n" --join 127.0.0.1:4001
done
# Until all three vote, the loss of the first is the loss of the cluster.
voters() { "$nora" cluster --cluster-addr https://127.0.0.1:4001 --data-dir "$data/1" status -o json 2>/dev/null |
  grep -cE '"role": *"(voter|leader)"' || true; }
until [ "$(voters)" = 3 ]; do
  for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null || exit 1; done
  sleep 0.2
done
echo "three nodes: http://127.0.0.1:4000, http://127.0.0.1:4010 and http://127.0.0.1:4020; 'nora cluster status --data-dir $data/1' shows them"
wait
