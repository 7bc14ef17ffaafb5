#!/usr/bin/env bash
# Real clients log in: crane, oras, skopeo, regctl, podman and docker against a fresh node with users and rules. Each
# pushes and pulls what its user may, is refused what its user may not, and is nobody after logging out.
#
# Usage: cluster-tests/interop/login.sh [PATTERN]     only checks whose name matches the shell pattern
#
# A check is a function check_…; one line says how it went, its log is in $CARGO_TARGET_DIR/interop-login.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/dev/setup.sh
. deploy/dev/tools.sh
need crane oras regctl skopeo podman curl
. cluster-tests/node.sh

report="$CARGO_TARGET_DIR/interop-login"
rm -rf "$report"
mkdir -p "$report"
limit=(timeout 60)

# Who may do what. The passwords hold what breaks a careless parser: a colon and a space.
alice_password='wonder:land 1'
bob_password='builder:2 x'
cat >"$work/users.htpasswd" <<'USERS'
alice:$2y$05$ovvPVGQpAUiFYf/yOZS0TOLYBgYUsMavmxy2XexuZzGtlp8LZ7BDW
bob:$2y$05$TKIuMbVPaDvCk2Tc/0.e8uvQhn9QIagNg9dmi1TQizwFEpFf0Yn.q
USERS
cat >"$work/nora.toml" <<'TOML'
[auth]
htpasswd = "users.htpasswd"

[[auth.rules]]
subject = "user:alice"
permissions = ["pull,push,overwrite:team/*", "pull:public/*"]

[[auth.rules]]
subject = "user:bob"
permissions = ["pull:public/*"]

[[auth.rules]]
subject = "user:alice"
permissions = ["push:public/*"]
TOML

# What is pushed.
mkdir -p "$work/files/etc"
date -u +%s.%N >"$work/files/etc/made-at"
tar --create --gzip --file "$work/layer.tar.gz" --directory "$work/files" etc

# home NAME: a tool's logins are in a home of its own, and nowhere else.
home() {
  export HOME="$work/home-$1" XDG_RUNTIME_DIR="$work/run-$1" TMPDIR="$work"
  export DOCKER_CONFIG="$HOME/docker" REGISTRY_AUTH_FILE="$HOME/auth.json" REGCTL_CONFIG="$HOME/regctl.json"
  unset XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME
  mkdir -p "$HOME" "$XDG_RUNTIME_DIR" "$DOCKER_CONFIG"
  chmod 700 "$XDG_RUNTIME_DIR"
  # podman takes a missing file for a mistake.
  [ -e "$REGISTRY_AUTH_FILE" ] || echo '{}' >"$REGISTRY_AUTH_FILE"
}

# Each tool: NAME_login USER PASSWORD, NAME_push REPOSITORY, NAME_pull REPOSITORY, NAME_logout. A login that is not
# verified when it is made (crane's) is found wrong by the first request.
crane_login() { printf %s "$2" | crane auth login "$reg" --username "$1" --password-stdin; }
crane_push() { "${limit[@]}" crane append --oci-empty-base -f "$work/layer.tar.gz" -t "$reg/$1:v1"; }
crane_pull() { "${limit[@]}" crane pull --format=oci "$reg/$1:v1" "$HOME/pulled-$RANDOM"; }
crane_logout() { crane auth logout "$reg"; }

oras_login() { printf %s "$2" | "${limit[@]}" oras login --plain-http "$reg" --username "$1" --password-stdin; }
oras_push() { (cd "$work" && "${limit[@]}" oras push --plain-http "$reg/$1:v1" layer.tar.gz); }
oras_pull() { "${limit[@]}" oras pull --plain-http "$reg/$1:v1" --output "$HOME/pulled-$RANDOM"; }
oras_logout() { oras logout "$reg"; }

skopeo_login() { printf %s "$2" | "${limit[@]}" skopeo login --tls-verify=false --username "$1" --password-stdin "$reg"; }
skopeo_push() {
  [ -d "$work/layout" ] || (home setup && public_image "$work/layout")
  "${limit[@]}" skopeo --insecure-policy copy --dest-tls-verify=false "oci:$work/layout" "docker://$reg/$1:v1"
}
skopeo_pull() {
  "${limit[@]}" skopeo --insecure-policy copy --src-tls-verify=false "docker://$reg/$1:v1" "dir:$HOME/pulled-$RANDOM"
}
skopeo_logout() { skopeo logout "$reg"; }

regctl_login() {
  regctl registry set "$reg" --tls disabled --skip-check
  printf %s "$2" | "${limit[@]}" regctl registry login "$reg" --user "$1" --pass-stdin
}
regctl_push() { "${limit[@]}" regctl artifact put --artifact-type application/vnd.example.thing "$reg/$1:v1" <"$work/layer.tar.gz"; }
# An image has a layer as an artifact has: what is read is the manifest, and the bytes of its first layer.
regctl_pull() {
  local digest
  digest="$("${limit[@]}" regctl manifest get --format '{{ (index .Layers 0).Digest }}' "$reg/$1:v1")" || return
  "${limit[@]}" regctl blob get "$reg/$1" "$digest" >/dev/null
}
regctl_logout() { regctl registry logout "$reg"; }

podmans() { "${limit[@]}" podman --root "$work/store" --runroot "$work/run-store" --storage-driver vfs "$@"; }
podman_login() { printf %s "$2" | podmans login --tls-verify=false --username "$1" --password-stdin "$reg"; }
podman_push() {
  podmans image exists localhost/made:v1 || podmans import --quiet "$work/layer.tar.gz" localhost/made:v1
  podmans push --quiet --tls-verify=false localhost/made:v1 "docker://$reg/$1:v1"
}
podman_pull() {
  podmans rmi --force "$reg/$1:v1" >/dev/null 2>&1 || true
  podmans pull --quiet --tls-verify=false "$reg/$1:v1"
}
podman_logout() { podmans logout "$reg"; }

# What everybody may pull, pushed by who may; a layout of it for who needs one.
public_image() {
  crane_login alice "$alice_password"
  crane_push public/image
  if [ -n "${1:-}" ]; then "${limit[@]}" crane pull --format=oci "$reg/public/image:v1" "$1"; fi
}

# refused COMMAND…: fails for want of a permission or a login, and says so; any other failure is a failure of the check.
refused() {
  local said status=0
  said="$("$@" 2>&1)" || status=$?
  echo "$said"
  if [ $status = 0 ]; then echo "must be refused: $*"; return 1; fi
  # Reading what one may not see is answered as if it were not there.
  if ! grep -qiE 'name unknown|NAME_UNKNOWN|not found|404|denied|unauthorized|authentication required|forbidden|status code:? 40[13]|HTTP 40[13]|invalid username/password' <<<"$said"; then
    echo "was not refused but failed otherwise: $*"
    return 1
  fi
}

# The same for every tool: NAME as it is, with both users.
tool_check() {
  local tool="$1"
  home "$tool"
  # Nobody.
  if [ "$tool" = regctl ]; then regctl registry set "$reg" --tls disabled --skip-check; fi
  refused "${tool}_pull" public/image
  refused "${tool}_push" "team/$tool"
  # Who is there by name only, and who is not there at all.
  refused wrong_login "$tool" alice 'wonder:land'
  refused wrong_login "$tool" mallory "$alice_password"
  "${tool}_logout" || true
  # Alice.
  "${tool}_login" alice "$alice_password"
  "${tool}_push" "team/$tool"
  "${tool}_push" "team/$tool/below"
  "${tool}_pull" "team/$tool"
  "${tool}_pull" public/image
  refused "${tool}_push" "other/$tool"
  refused "${tool}_push" "teams/$tool"
  refused "${tool}_pull" other/image
  # Bob may pull what is public; that the team's image is there is not for him to know.
  "${tool}_logout"
  "${tool}_login" bob "$bob_password"
  "${tool}_pull" public/image
  refused "${tool}_pull" "team/$tool"
  refused "${tool}_push" "team/$tool"
  # Not the image that is there: of that nothing would have to be sent.
  refused "${tool}_push" "public/$tool"
  # Nobody again.
  "${tool}_logout"
  refused "${tool}_pull" public/image
}

# crane writes down what it is given; the others ask the registry.
wrong_login() {
  "$1_login" "$2" "$3" || return
  if [ "$1" = crane ]; then crane_pull public/image; fi
}

check_crane() { tool_check crane; }
check_oras() { tool_check oras; }
check_skopeo() { tool_check skopeo; }
check_regctl() { tool_check regctl; }
check_podman() { tool_check podman; }

# docker logs in without its daemon; pushing needs one, so what it wrote down is used by crane, which reads the same file.
check_docker() {
  home docker
  refused docker_login alice wrong
  docker_login alice "$alice_password"
  crane_push team/docker
  refused crane_push other/docker
  docker logout "$reg"
  refused crane_pull team/docker
}
docker_login() { printf %s "$2" | "${limit[@]}" docker login --username "$1" --password-stdin "$reg"; }

# The registry tells clients without a login how to get one, and a wrong one gets no other answer than none.
check_challenge() {
  local path
  for path in /v2/ /v2/team/crane/manifests/v1 /v2/no/such/manifests/v1; do
    curl --silent --output "$work/body" --dump-header "$work/head" "http://$reg$path"
    head -n 1 "$work/head" | grep -q ' 401 '
    grep -qi '^www-authenticate: ' "$work/head"
    grep -q '"code":"UNAUTHORIZED"' "$work/body"
  done
  # A name that is there and one that is not look alike to who may see neither.
  curl --silent --user "bob:$bob_password" --output "$work/there" --write-out '%{http_code}\n' "http://$reg/v2/team/crane/manifests/v1" >"$work/there.status"
  curl --silent --user "bob:$bob_password" --output "$work/absent" --write-out '%{http_code}\n' "http://$reg/v2/team/absent/manifests/v1" >"$work/absent.status"
  cmp "$work/there.status" "$work/absent.status"
  local id='s#"request_id":"[0-9a-f]*"##'
  cmp <(sed "s#team/crane#NAME#g; $id" "$work/there") <(sed "s#team/absent#NAME#g; $id" "$work/absent")
}

# No password reached the node's log, in any form.
check_log_keeps_secrets() {
  local user secret
  for user in alice bob; do
    secret="${user}_password"
    refused_text "${!secret}"
    refused_text "$(printf '%s:%s' "$user" "${!secret}" | base64)"
    refused_text "$(sed -n "s/^$user://p" "$work/users.htpasswd")"
  done
  grep -q . "$work/node.log"
}
refused_text() { if grep -qF -- "$1" "$work/node.log"; then echo "in the log: $1"; return 1; fi; }

passed=0
failed=0

run_check() {
  local started=$SECONDS status
  set +e
  (set -exo pipefail; "check_$1") >"$report/$1.log" 2>&1
  status=$?
  set -e
  if [ $status = 0 ]; then
    passed=$((passed + 1))
    printf 'PASS  %-24s %3d s\n' "$1" $((SECONDS - started))
  else
    failed=$((failed + 1))
    printf 'FAIL  %-24s %3d s\n' "$1" $((SECONDS - started))
    tail -n 15 "$report/$1.log" | sed 's/^/      /'
    echo "      (whole log: $report/$1.log)"
  fi
}

checks=(crane oras skopeo regctl podman)
if has docker; then checks+=(docker); else echo "SKIP  docker: there is no docker on this machine"; fi
checks+=(challenge log_keeps_secrets)

# With users, a node is ready before anybody has logged in.
start_node --config "$work/nora.toml"
reg="$node_addr"
(home setup && public_image) >"$report/public.log" 2>&1 || {
  tail -n 20 "$report/public.log"
  echo "the image that all checks pull could not be pushed (log: $report/public.log)"
  exit 1
}

for check in "${checks[@]}"; do
  # shellcheck disable=SC2053 # the right side is a pattern
  if [[ "$check" == ${1:-*} ]]; then run_check "$check"; fi
done

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed != 0 ]
