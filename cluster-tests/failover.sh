#!/usr/bin/env bash
# skopeo pushes one image after another through a load balancer over three nodes, while the leader is killed (SIGKILL) every
# 20 s and started again 10 s later. Every push that skopeo was told is done must be whole on every node afterwards; pushes may
# fail only within the failover window after a kill.
#
# Usage: cluster-tests/failover.sh [SECONDS]      how long to push; 70 without it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh
need haproxy skopeo crane
. cluster-tests/node.sh
. cluster-tests/cluster.sh

seconds="${1:-70}"
window=5                       # seconds after a kill in which a push may fail, its own duration included
report="$CARGO_TARGET_DIR/failover"
mkdir -p "$report"
start_cluster 3

# leader: the number of the node that says that it leads.
leader() {
  local n
  for n in 1 2 3; do
    if curl --silent --max-time 1 "http://${node_addrs[$n]}/metrics" | grep -q '^nora_raft_is_leader 1'; then
      echo "$n"
      return
    fi
  done
}

pushed=() failed=0 late=0 kills=0 killed_at=-100 killed=0
begun=$SECONDS
next_kill=$((begun + 10))
while [ $((SECONDS - begun)) -lt "$seconds" ]; do
  if [ $SECONDS -ge $next_kill ] && [ "$killed" = 0 ]; then
    killed="$(leader)"
    if [ -n "$killed" ]; then
      kill_member "$killed"
      kills=$((kills + 1)) killed_at=$SECONDS next_kill=$((SECONDS + 20))
    else
      killed=0
    fi
  fi
  if [ "$killed" != 0 ] && [ $((SECONDS - killed_at)) -ge 10 ]; then
    start_member "$killed"
    killed=0
  fi
  i=$((${#pushed[@]} + failed + 1))
  head -c 200000 /dev/urandom >"$work/content"
  tar -C "$work" -cf "$work/layer.tar" content
  crane append --oci-empty-base -f "$work/layer.tar" -t "local/app:v$i" -o "$work/image.tar" >/dev/null 2>&1
  if skopeo copy --quiet --dest-tls-verify=false --digestfile "$work/digest" \
      "docker-archive:$work/image.tar" "docker://$node_addr/app:v$i" >"$work/skopeo.log" 2>&1; then
    pushed+=("v$i@$(cat "$work/digest")")
  else
    failed=$((failed + 1))
    if [ $((SECONDS - killed_at)) -gt $window ]; then
      late=$((late + 1))
      echo "v$i failed $((SECONDS - killed_at)) s after the last kill: $(tail -n 2 "$work/skopeo.log")"
    fi
  fi
done
if [ "$killed" != 0 ]; then start_member "$killed"; fi
for n in 1 2 3; do member_is_ready "$n"; done

missing=0
for image in "${pushed[@]}"; do
  for n in 1 2 3; do
    tag="${image%@*}" digest="${image#*@}"
    if [ "$(crane digest --insecure "${node_addrs[$n]}/app:$tag" 2>/dev/null)" != "$digest" ] ||
        ! crane validate --insecure --remote "${node_addrs[$n]}/app@$digest" >/dev/null 2>&1; then
      missing=$((missing + 1))
      echo "$tag ($digest) was acknowledged and is not whole on node $n"
    fi
  done
done
echo "${#pushed[@]} pushes acknowledged, $failed failed ($late outside the failover window), $kills leaders killed, $missing lost"
[ "$missing" = 0 ] && [ "$late" = 0 ] && [ "$kills" -gt 0 ] && [ ${#pushed[@]} -gt 0 ]
