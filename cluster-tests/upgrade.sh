#!/usr/bin/env bash
# Two things that an upgrade must not do.
#
# Data of a release before 0.3 is refused: the node says what to do, changes no byte, and the earlier release goes on with
# it. And a cluster of three whose nodes are replaced one after another, under load behind a load balancer, loses nothing
# and fails no push. Rolling from one release to the next begins anew with the release after 0.3.
#
# Usage: cluster-tests/upgrade.sh      programs: the release that CHANGELOG.md names, and the debug build (NORA_BIN)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh
need haproxy crane jq
last_release
. cluster-tests/node.sh
. cluster-tests/cluster.sh

report="$CARGO_TARGET_DIR/upgrade"
mkdir -p "$report"
new="$nora" old="$release"
pusher_pid=""

fail() { echo "$*" >&2; exit 1; }

# status JQ: what `nora cluster status` says.
status() { admin status -o json | jq -r "$1"; }

# tree FOLDER: names, sizes and contents of all files, in one line.
tree() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1); }

# push_images: pushes one image after another through the load balancer until $work/enough is there. An upload
# whose bytes are on the node that is stopped just then cannot go on elsewhere: its client is told 503, and begins it again.
push_images() {
  local i=0
  while [ ! -e "$work/enough" ]; do
    i=$((i + 1))
    head -c 100000 /dev/urandom >"$work/content"
    tar -C "$work" -cf "$work/layer.tar" content
    crane append --oci-empty-base -f "$work/layer.tar" -t "local/app:v$i" -o "$work/image.tar" >/dev/null 2>&1
    if crane push --insecure "$work/image.tar" "$node_addr/app:v$i" >"$work/pushed-as" 2>"$work/push.log" &&
        crane validate --insecure --remote "$node_addr/app:v$i" >>"$work/push.log" 2>&1; then
      echo "v$i@$(sed 's/.*@//' "$work/pushed-as")" >>"$work/pushed"
    else
      { echo "v$i:"; cat "$work/push.log"; } >>"$work/failed"
    fi
  done
}

# await_pushes COUNT: until so many more images have been pushed: what runs now was used.
await_pushes() {
  local wanted deadline=$((SECONDS + 60))
  wanted=$(($(wc -l <"$work/pushed") + $1))
  until [ "$(wc -l <"$work/pushed")" -ge "$wanted" ]; do
    if [ $SECONDS -ge $deadline ]; then cat "$work/failed" >&2; fail "pushes do not get on"; fi
    sleep 0.1
  done
}

# replace N: stops a node as an administrator would, and starts its data again.
replace() {
  kill "${node_pids[$1]}"
  wait "${node_pids[$1]}" || fail "node $1 did not end well: $(tail -n 5 "$work/n$1.log")"
  start_member "$1"
  member_is_ready "$1"
  await_balancer "$1" UP
}

# old_node: starts the earlier release on $work/before, and waits until it answers.
old_node() {
  "$old" serve --data-dir "$work/before" --listen 127.0.0.1:0 --cluster-listen 127.0.0.1:0 >"$work/before.log" 2>&1 &
  old_pid=$!
  local deadline=$((SECONDS + 30))
  until old_addr="$(grep -oE 'http://127\.0\.0\.1:[0-9]+' "$work/before.log" | head -n 1 | sed 's,http://,,')" &&
      [ -n "$old_addr" ] && curl -fsS "http://$old_addr/v2/" >/dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ]; then cat "$work/before.log" >&2; fail "the earlier release does not start"; fi
    sleep 0.1
  done
}

# stop_old: ends the earlier release in order.
stop_old() { kill "$old_pid"; wait "$old_pid" || true; }

old_version="$("$old" version | awk 'NR == 1 { print $2 }')"
new_version="$("$new" version | awk 'NR == 1 { print $2 }')"

nora="$new"
start_cluster 3
touch "$work/pushed" "$work/failed"

old_node
head -c 100000 /dev/urandom >"$work/old-content"
tar -C "$work" -cf "$work/old-layer.tar" old-content
crane append --oci-empty-base -f "$work/old-layer.tar" -t "$old_addr/app:old" --insecure >/dev/null 2>&1 ||
  fail "the earlier release takes no image"
stop_old
before="$(tree "$work/before")"
if timeout 60 "$new" serve --data-dir "$work/before" --listen 127.0.0.1:0 --cluster-listen 127.0.0.1:0 >"$work/refused.log" 2>&1; then
  fail "$new_version took the data of $old_version over"
fi
grep -q '0\.2 or earlier' "$work/refused.log" || fail "the refusal does not say why: $(cat "$work/refused.log")"
[ "$(tree "$work/before")" = "$before" ] || fail "$new_version changed the data of $old_version"
old_node
crane validate --insecure --remote "$old_addr/app:old" >/dev/null 2>&1 || fail "the image of $old_version is gone"
stop_old

push_images &
pusher_pid=$!
finish_upgrade() {
  local status=$?
  touch "$work/enough"
  wait "$pusher_pid" 2>/dev/null || true
  finish_cluster "$status"
}
trap finish_upgrade EXIT
await_pushes 2
for _ in 1 2; do
  for n in 1 2 3; do
    replace "$n"
    await_pushes 2
  done
done
touch "$work/enough"
wait "$pusher_pid"
if [ -s "$work/failed" ]; then cat "$work/failed" >&2; fail "pushes failed"; fi
[ "$(status '[.members[].report.version] | unique | join(" ")')" = "$new_version" ] || fail "not all nodes run $new_version"
missing=0 images=0
while read -r image; do
  images=$((images + 1))
  for n in 1 2 3; do
    if [ "$(crane digest --insecure "${node_addrs[$n]}/app:${image%@*}" 2>/dev/null)" != "${image#*@}" ] ||
        ! crane validate --insecure --remote "${node_addrs[$n]}/app@${image#*@}" >/dev/null 2>&1; then
      missing=$((missing + 1))
      echo "$image was acknowledged and is not whole on node $n" >&2
    fi
  done
done <"$work/pushed"
echo "$images passed, $missing failed: images pushed while each node of $new_version was replaced twice; data of $old_version refused and left alone"
[ "$missing" = 0 ]
