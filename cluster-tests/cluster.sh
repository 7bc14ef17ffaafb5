#!/usr/bin/env bash
# Starts a cluster of its own for tests written in shell, with a load balancer that sends each request to the next node,
# and ends those processes and no others.
#
# Usage: . deploy/dev/tools.sh; need haproxy; . cluster-tests/node.sh; . cluster-tests/cluster.sh
#        start_cluster COUNT [ARG...]   COUNT nodes, all voting; ARGs go to each `nora serve`
#                                       sets node_addrs and node_pids, and node_addr: the load balancer's host:port
#        stop_cluster                   ends them; done on exit as well
#        start_member N, kill_member N  a member again after it was ended; SIGKILL
# The nodes' logs and data are $work/nN.log and $work/nN.

node_addrs=() cluster_addrs=() node_pids=() balancer_pid="" serve_args=()

stop_cluster() {
  local pid
  if [ -n "$balancer_pid" ]; then kill "$balancer_pid" 2>/dev/null || true; fi
  for pid in "${node_pids[@]}"; do if [ "$pid" != 0 ]; then kill "$pid" 2>/dev/null || true; fi; done
  for pid in $balancer_pid "${node_pids[@]}"; do if [ "$pid" != 0 ]; then wait "$pid" 2>/dev/null || true; fi; done
  balancer_pid="" node_pids=()
}

finish_cluster() {
  local status="${1:-$?}" log
  stop_cluster
  if [ $status != 0 ] && [ -n "${report:-}" ]; then
    for log in "$work"/*.log; do if [ -f "$log" ]; then cp "$log" "$report/"; fi; done
  fi
  finish "$status"
}
trap finish_cluster EXIT

# start_member N [ARG...]: starts node N on its addresses and its data; does not wait.
start_member() {
  local n="$1"
  shift
  "$nora" serve --data-dir "$work/n$n" --listen "${node_addrs[$n]}" --cluster-listen "${cluster_addrs[$n]}" \
    "${serve_args[@]}" "$@" >>"$work/n$n.log" 2>&1 &
  node_pids[$n]=$!
}

kill_member() {
  kill -KILL "${node_pids[$1]}"
  wait "${node_pids[$1]}" 2>/dev/null || true
  node_pids[$1]=0
}

# member_is_ready N
member_is_ready() {
  node_pid="${node_pids[$1]}"
  if answers "http://${node_addrs[$1]}/ready"; then node_pid=""; return 0; fi
  tail -n 30 "$work/n$1.log" >&2
  echo "node $1 did not become ready" >&2
  node_pid=""
  exit 1
}

# admin VERB...: an administrator's command, as the owner of the first node's data.
admin() { "$nora" cluster --cluster-addr "https://${cluster_addrs[1]}" --data-dir "$work/n1" "$@"; }

start_cluster() {
  local count="$1" n token
  shift
  serve_args=("$@")
  for n in $(seq "$count"); do
    node_addrs[$n]="127.0.0.1:$(free_port)"
    cluster_addrs[$n]="127.0.0.1:$(free_port)"
    node_pids[$n]=0
  done
  start_member 1
  member_is_ready 1
  token="$(admin join-token --uses "$count")"
  for n in $(seq 2 "$count"); do NORA_JOIN_TOKEN="$token" start_member "$n" --join "${cluster_addrs[1]}"; done
  for n in $(seq 2 "$count"); do member_is_ready "$n"; done
  local deadline=$((SECONDS + 30))
  until [ "$(admin members -o json | grep -cE '"role": *"(voter|leader)"')" = "$count" ]; do
    if [ $SECONDS -ge $deadline ]; then admin members >&2; echo "not all nodes vote" >&2; exit 1; fi
    sleep 0.1
  done
  start_balancer
}

# await_balancer N UP|DOWN: until the load balancer takes a node for that.
await_balancer() {
  local deadline=$((SECONDS + 30))
  until curl --silent "http://$balancer_stats/;csv" | awk -F , -v n="n$1" '$1 == "nora" && $2 == n { print $18 }' |
      grep -q "^$2"; do
    if [ $SECONDS -ge $deadline ]; then echo "the load balancer does not take node $1 for $2" >&2; exit 1; fi
    sleep 0.05
  done
}

# One request after another goes to one node after another, also on one connection; a node that does not answer /ready is
# left out. Bodies stream through.
start_balancer() {
  local n
  node_addr="127.0.0.1:$(free_port)"
  balancer_stats="127.0.0.1:$(free_port)"
  {
    echo 'global'
    echo '  maxconn 1000'
    echo 'defaults'
    echo '  mode http'
    echo '  timeout connect 2s'
    echo '  timeout client 120s'
    echo '  timeout server 120s'
    echo '  retries 2'
    echo '  option redispatch'
    echo 'listen stats'
    echo "  bind $balancer_stats"
    echo '  stats enable'
    echo '  stats uri /'
    echo 'listen nora'
    echo "  bind $node_addr"
    echo '  balance roundrobin'
    echo '  option httpchk GET /ready'
    for n in "${!node_addrs[@]}"; do
      echo "  server n$n ${node_addrs[$n]} check inter 200ms fall 2 rise 1"
    done
  } >"$work/haproxy.cfg"
  haproxy -db -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
  balancer_pid=$!
  node_pid=$balancer_pid
  if ! answers "http://$node_addr/ready"; then cat "$work/haproxy.log" >&2; exit 1; fi
  node_pid=""
}
