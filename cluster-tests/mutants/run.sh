#!/usr/bin/env bash
# Proves that the tests can fail: breaks the product in one place after another and demands that the check which a mutant
# names fails. Each *.patch here is one mutant. Its header says what is broken and which checks see it:
#
#   what: the log acknowledges appends that it has not synced
#   check: test PACKAGE TARGET FILTER     cargo test; TARGET is lib or the name of an integration test
#   check: sim                            the simulation of cluster-tests
#   check: chaos KINDS FAULTS             a short chaos run with these kinds of fault alone
#
# Usage: cluster-tests/mutants/run.sh [NAME...]     all mutants, or those with these names
#        cluster-tests/mutants/run.sh --apply-only  only whether every patch still applies; takes a second
#
# The first check of a mutant must catch it; MUTANTS_ALL=1 demands it of every check. Every check must pass on the tree
# as it is before a mutant is judged by it. The tree is copied to MUTANTS_DIR (default: mutants in the target folder),
# where the builds stay for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
patches=cluster-tests/mutants

if [ "${1:-}" = --apply-only ]; then
  applied=0 failed=0
  for patch in "$patches"/*.patch; do
    if git apply --check "$patch"; then applied=$((applied + 1)); else failed=$((failed + 1)); fi
  done
  echo "$applied passed, $failed failed: mutants apply to the tree"
  [ $failed = 0 ]
  exit
fi

# `make mutants` has set the machine up already.
if [ -z "${ROCKSDB_LIB_DIR:-}" ]; then . deploy/dev/setup.sh; fi
dir="${MUTANTS_DIR:-$CARGO_TARGET_DIR/mutants}"
seed="${CHAOS_SEED:-1}"
tree="$dir/tree"
export CARGO_TARGET_DIR="$dir/target" CARGO_TERM_COLOR=never
mkdir -p "$dir" "$dir/logs"
exec 9>"$dir/lock"
flock -n 9 || { echo "another run works in $dir" >&2; exit 1; }

rm -rf "$tree"
mkdir "$tree"
git ls-files -z --cached --others --exclude-standard --deduplicate |
  tar --null --ignore-failed-read -T - -cf - 2>/dev/null | tar -C "$tree" -xf -
# Copies keep the times of their originals, by which Cargo tells what to build. A run that was cut off may have left builds
# of mutants behind that are newer.
sed -n 's|^+++ b/||p' "$patches"/*.patch | sort -u | (cd "$tree" && xargs touch)
cd "$tree"
# Inside a clone, git would take the patches for paths from the clone's root, and skip them.
export GIT_CEILING_DIRECTORIES="$dir"

# field NAME PATCH: what a patch's header says, a line each.
field() { sed -n "/^---/q; s/^$1: //p" "$2"; }

# build CHECK: builds what a check runs.
build() {
  # shellcheck disable=SC2086 # words
  set -- $1
  case "$1" in
    test) cargo test --quiet --no-run -p "$2" $(target "$3") ;;
    sim) cargo test --quiet --no-run -p nora-cluster-tests --lib ;;
    chaos) cargo build --quiet --bin nora && cargo build --quiet -p nora-cluster-tests --bin nora-chaos ;;
    *) echo "no such check: $*" >&2; return 1 ;;
  esac
}

target() { if [ "$1" = lib ]; then echo --lib; else echo "--test $1"; fi; }

# run CHECK: runs it; fails if it finds something. Finding nothing because nothing was run is no success.
run() {
  # shellcheck disable=SC2086 # words
  set -- $1
  case "$1" in
    test) cargo test --quiet -p "$2" $(target "$3") -- "$4" ;;
    sim) cargo test --quiet -p nora-cluster-tests --lib -- sim::tests::no_seed ;;
    chaos)
      rm -rf "$dir/work"
      mkdir "$dir/work"
      timeout 900 "$CARGO_TARGET_DIR/debug/nora-chaos" --nora "$CARGO_TARGET_DIR/debug/nora" --work "$dir/work" \
        --seed "$seed" --minutes 10 --only "$2" --faults "$3"
      ;;
  esac
}

# why LOG: what a failed check said, in a line. What a panic says comes on the line after its place.
why() {
  awk '
    panicked { print; exit }
    /VIOLATION|^error: / { print; exit }
    /panicked at / { panicked = 1 }
  ' "$1" | tr '|\n' '/ ' | cut -c -160
}

declare -A sound
# is_sound CHECK: whether it passes on the tree as it is, and has run anything.
is_sound() {
  local log="$dir/logs/sound-${1//[ :,]/-}.log"
  if [ -z "${sound[$1]:-}" ]; then
    sound[$1]=no
    if build "$1" >"$log" 2>&1 && run "$1" >>"$log" 2>&1 && ! grep -q '^running 0 tests' "$log"; then sound[$1]=yes; fi
  fi
  [ "${sound[$1]}" = yes ]
}

caught=0 missed=0
table="| mutant | check | result | seconds |"$'\n'"|---|---|---|---|"$'\n'
# judged NAME CHECK RESULT SECONDS
judged() {
  printf '%-24s %-52s %s (%s s)\n' "$1" "$2" "$3" "$4"
  table+="| $1 | \`$2\` | $3 | $4 |"$'\n'
}

# judge NAME PATCH CHECK
judge() {
  local started=$SECONDS log="$dir/logs/$1.log" result
  if ! is_sound "$3"; then
    result="the check fails without the mutant" missed=$((missed + 1))
  elif ! git apply "$2"; then
    result="the patch does not apply" missed=$((missed + 1))
  else
    if ! build "$3" >"$log" 2>&1; then
      result="does not compile" missed=$((missed + 1))
    elif run "$3" >>"$log" 2>&1; then
      result="MISSED" missed=$((missed + 1))
    else
      result="caught: $(why "$log")" caught=$((caught + 1))
    fi
    git apply -R "$2"
  fi
  judged "$1" "$3" "$result" $((SECONDS - started))
}

for patch in "$patches"/*.patch; do
  name="$(basename "$patch" .patch)"
  if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
  mapfile -t checks < <(field check "$patch")
  if [ "${MUTANTS_ALL:-}" != 1 ]; then checks=("${checks[0]}"); fi
  for check in "${checks[@]}"; do judge "$name" "$patch" "$check"; done
done

printf '\n%s\n' "$table" | tee "$dir/table.md"
echo "$caught passed, $missed failed: mutants caught and not caught"
[ $missed = 0 ] && [ $caught != 0 ]
