#!/usr/bin/env bash
# An issuer that is not ours: Dex gives a user an ID token, a fresh node exchanges it, and crane uses what comes out.
#
# Usage: DEX_BIN=… cluster-tests/interop/dex.sh
#
# Dex cannot be had by `go install`: its go.mod replaces a module with a folder, which Go refuses. Built from a clone it is
# `git clone https://github.com/dexidp/dex && cd dex && CGO_ENABLED=0 go build -o bin/dex ./cmd/dex`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ ! -x "${DEX_BIN:-}" ]; then
  echo "DEX_BIN names no program: it is Dex's, and the head of $0 says how it is built" >&2
  exit 1
fi
. deploy/dev/setup.sh
. deploy/dev/tools.sh
need crane curl
. cluster-tests/node.sh

export HOME="$work/home" DOCKER_CONFIG="$work/home/docker"
mkdir -p "$DOCKER_CONFIG"

dex_pid=""
stop_dex() { if [ -n "$dex_pid" ]; then kill "$dex_pid" 2>/dev/null || true; fi; }
trap 'status=$?; stop_dex; finish $status' EXIT

dex_addr="127.0.0.1:$(free_port)"
issuer="http://$dex_addr/dex"
audience="https://nora.example.com"

# The audience of Dex's tokens is its client. The hash is bcrypt of the password.
cat >"$work/dex.yaml" <<YAML
issuer: $issuer
storage: { type: memory }
web: { http: "$dex_addr" }
oauth2: { grantTypes: [password], passwordConnector: local }
enablePasswordDB: true
staticClients:
- { id: "$audience", name: NORA, secret: client-secret }
- { id: "https://else.example.com", name: Else, secret: client-secret }
staticPasswords:
- { email: ci@example.com, username: ci, userID: "08a8684b", hash: '\$2y\$10\$LFf4IoDMH7xEbifcdyBsEec6k6nOBG8QfZ6Pa8tOU3w4USPXprPRO' }
- { email: eve@example.com, username: eve, userID: "2f51b0aa", hash: '\$2y\$10\$LFf4IoDMH7xEbifcdyBsEec6k6nOBG8QfZ6Pa8tOU3w4USPXprPRO' }
YAML

cat >"$work/nora.toml" <<TOML
[server]
egress_networks = ["127.0.0.0/8"]      # Dex is on this machine

[auth.oidc]
enabled = true

[[auth.oidc.providers]]
name = "dex"
issuer = "$issuer"
audience = "$audience"
required_claims = ["email"]

[[auth.oidc.providers.rules]]
match = { email = "ci@example.com", email_verified = "true" }
permissions = ["push:team/*", "pull:team/*"]
TOML

# id_token USER CLIENT: what Dex says about a user to a client.
id_token() {
  curl --silent --fail --user "${2//:\/\//%3A%2F%2F}:client-secret" "$issuer/token" --data grant_type=password \
    --data-urlencode "username=$1@example.com" --data-urlencode 'password=pass word' --data-urlencode 'scope=openid email' |
    sed -n 's/.*"id_token": *"\([^"]*\)".*/\1/p'
}

# exchange TOKEN: prints the status; the answer is in $work/answer. The token is no argument of a program.
exchange() {
  printf %s "$1" >"$work/subject"
  curl --silent --output "$work/answer" --write-out '%{http_code}' "http://$node_addr/auth/oidc/token" \
    --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
    --data-urlencode subject_token_type=urn:ietf:params:oauth:token-type:id_token \
    --data-urlencode "subject_token@$work/subject"
}

# expect WHAT WANTED GOT
expect() {
  if [ "$2" != "$3" ]; then
    echo "FAIL  $1: expected $2, got $3: $(cat "$work/answer" 2>/dev/null)"
    exit 1
  fi
  echo "PASS  $1"
}

# wants WHAT COMMAND…, refuses WHAT COMMAND…
wants() { if "${@:2}" >"$work/log" 2>&1; then echo "PASS  $1"; else cat "$work/log"; echo "FAIL  $1"; exit 1; fi; }
refuses() {
  if "${@:2}" >"$work/log" 2>&1 || ! grep -qiE 'denied|unauthorized|forbidden' "$work/log"; then
    cat "$work/log"; echo "FAIL  $1"; exit 1
  fi
  echo "PASS  $1"
}

"$DEX_BIN" serve "$work/dex.yaml" >"$work/dex.log" 2>&1 &
dex_pid=$!
node_pid="$dex_pid" answers "$issuer/.well-known/openid-configuration" || {
  tail -n 20 "$work/dex.log"
  echo "Dex did not become ready"
  exit 1
}
start_node --config "$work/nora.toml"

mkdir -p "$work/files/etc"
date -u +%s.%N >"$work/files/etc/made-at"
tar --create --gzip --file "$work/layer.tar.gz" --directory "$work/files" etc
push() { timeout 60 crane append --oci-empty-base -f "$work/layer.tar.gz" -t "$node_addr/$1:v1"; }

first="$(id_token ci "$audience")"
expect "Dex's token is exchanged" 200 "$(exchange "$first")"
token="$(sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p' "$work/answer")"
expect "and is good once" 401 "$(exchange "$first")"
expect "a token for another client is refused" 401 "$(exchange "$(id_token ci https://else.example.com)")"
expect "a user that no rule is about is refused" 403 "$(exchange "$(id_token eve "$audience")")"

printf %s "$token" | crane auth login "$node_addr" --username token --password-stdin 2>"$work/log"
wants "crane pushes what the rule allows" push team/app
refuses "and nothing else" push other/app
printf %s "$token" >"$work/subject"
expect "the token is revoked" 200 "$(curl --silent --output "$work/answer" --write-out '%{http_code}' \
  "http://$node_addr/auth/oidc/revoke" --data-urlencode "token@$work/subject")"
refuses "and crane pushes no more" push team/again
