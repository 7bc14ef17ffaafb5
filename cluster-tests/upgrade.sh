#!/usr/bin/env bash
# Rolls a cluster of three from the last release to this version, back, and forward again, while images are pushed and
# pulled through a load balancer. Nothing may be lost and no push may fail; the new version's commands stay unused until the
# upgrade is finished, and from then on the old version is refused.
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

# status JQ: what the new program's `nora cluster status` says.
status() { admin status -o json | jq -r "$1"; }

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

# roll PROGRAM: one node after another.
roll() {
  local n
  for n in 1 2 3; do
    replace "$n" "$1"
    await_pushes 2
  done
}

# replace N PROGRAM: stops a node as an administrator would, and starts its data with another program. The old version
# refuses requests between its start and its readiness, so the load balancer has to know; the new one lets them wait.
replace() {
  kill "${node_pids[$1]}"
  wait "${node_pids[$1]}" || fail "node $1 did not end well: $(tail -n 5 "$work/n$1.log")"
  if [ "$2" = "$old" ]; then await_balancer "$1" DOWN; fi
  nora="$2" start_member "$1"
  member_is_ready "$1"
  await_balancer "$1" UP
}

# expect WHAT FOUND WANTED
expect() { [ "$2" = "$3" ] || fail "$1: $2 instead of $3"; }

old_version="$("$old" version | awk 'NR == 1 { print $2 }')"
new_version="$("$new" version | awk 'NR == 1 { print $2 }')"
echo "from $old_version to $new_version and back"

nora="$old"
start_cluster 3
nora="$new"
old_level="$(status .feature_level)"
touch "$work/pushed" "$work/failed"
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

replace 1 "$new"
await_pushes 2
expect "versions side by side" "$(status '[.members[].report.version] | unique | length')" 2
admin finalize-upgrade --yes >/dev/null
expect "the level while one node is new" "$(status .feature_level)" "$old_level"
roll "$new"
expect "versions after the upgrade" "$(status '[.members[].report.version] | unique | join(" ")')" "$new_version"
expect "the level before the upgrade is finished" "$(status .feature_level)" "$old_level"
roll "$old"
expect "versions after going back" "$(status '[.members[].report.version] | unique | join(" ")')" "$old_version"
roll "$new"
admin finalize-upgrade --yes >/dev/null
level="$(status .feature_level)"
expect "the level at the end" "$level" "$(status '[.members[].feature_max] | min')"

if [ "$level" -gt "$old_level" ]; then
  kill "${node_pids[3]}"
  wait "${node_pids[3]}" || true
  await_balancer 3 DOWN
  if "$old" serve --data-dir "$work/n3" --listen "${node_addrs[3]}" --cluster-listen "${cluster_addrs[3]}" \
      >"$work/refused.log" 2>&1; then
    fail "the old version was let in at level $level"
  fi
  grep -qi 'level' "$work/refused.log" || fail "the refusal does not say why: $(cat "$work/refused.log")"
  start_member 3
  member_is_ready 3
fi

await_pushes 5
touch "$work/enough"
wait "$pusher_pid"
if [ -s "$work/failed" ]; then cat "$work/failed" >&2; fail "pushes failed"; fi
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
echo "$images passed, $missing failed: images pushed while nodes went from $old_version to $new_version and back, feature level $old_level to $level"
[ "$missing" = 0 ]
