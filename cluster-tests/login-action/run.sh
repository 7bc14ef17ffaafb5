#!/usr/bin/env bash
# The GitHub Action of deploy/login-action against the test issuer and a registry: its steps run as a runner runs them.
#
# Usage: cluster-tests/login-action/run.sh [ARG...]        arguments go to `node --test`
#
# NORA_TEST_ISSUER names the issuer's program; otherwise it is built. With REGISTRY_URL and ISSUER_URL (and the issuer's
# ISSUER_REQUEST_TOKEN) the steps run against a real registry, which must believe that issuer, with its own address as the
# audience and a rule for `repository = "my-org/*"`; checks that need a registry that misbehaves then say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

node_version_min=20
if ! command -v node >/dev/null 2>&1; then
  echo "the login action is JavaScript, and 'node' was not found: install Node.js $node_version_min or newer" >&2
  exit 1
fi
node_version="$(node --version | sed 's/^v\([0-9]*\).*/\1/')"
if [ "$node_version" -lt "$node_version_min" ]; then
  echo "the login action runs on Node.js $node_version_min or newer, this is $(node --version)" >&2
  exit 1
fi

if [ -z "${ISSUER_URL:-}" ] && [ -z "${NORA_TEST_ISSUER:-}" ]; then
  . deploy/dev/setup.sh
  cargo build --quiet -p nora-cluster-tests --bin nora-test-issuer
  export NORA_TEST_ISSUER="$CARGO_TARGET_DIR/debug/nora-test-issuer"
fi
# A check that waits for ever is ended, not the machine.
exec node --test --test-timeout=120000 "$@" cluster-tests/login-action/test.mjs
