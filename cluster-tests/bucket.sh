#!/usr/bin/env bash
# Starts an S3 server of its own (versitygw over a folder) with an empty bucket, and writes the node configuration that
# uses it to $work/nora.toml.
#
# Usage: need versitygw; . cluster-tests/node.sh; . cluster-tests/cluster.sh; . cluster-tests/bucket.sh; start_bucket

bucket_pid=""

finish_bucket() {
  local status="${1:-$?}"
  if [ -n "$bucket_pid" ]; then kill "$bucket_pid" 2>/dev/null || true; fi
  finish_cluster "$status"
}
trap finish_bucket EXIT

start_bucket() {
  local port
  port="$(free_port)"
  mkdir -p "$work/s3/nora"        # a bucket is a folder
  ROOT_ACCESS_KEY=nora-test ROOT_SECRET_KEY=nora-test-secret \
    versitygw --port "127.0.0.1:$port" posix "$work/s3" >"$work/s3.log" 2>&1 &
  bucket_pid=$!
  local deadline=$((SECONDS + 30))
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    if [ $SECONDS -ge $deadline ]; then tail -n 20 "$work/s3.log" >&2; echo "no S3 server" >&2; exit 1; fi
    sleep 0.05
  done
  cat >"$work/nora.toml" <<TOML
[storage]
mode = "s3"
[storage.s3]
bucket = "nora"
endpoint = "http://127.0.0.1:$port"
access_key = { file = "$work/access-key" }
secret_key = { file = "$work/secret-key" }
TOML
  printf nora-test >"$work/access-key"
  printf nora-test-secret >"$work/secret-key"
}
