#!/usr/bin/env bash
# Makes this machine able to build NORA, quietly and once: installs libclang (RocksDB's bindings are generated with it)
# and a C++ compiler when they are missing, and builds RocksDB's static library into a cache outside the clone.
#
# The library is the expensive part of a cold build (20 CPU minutes). Cargo would build it once for every profile and
# every target folder; here it is built once a machine and named to Cargo by ROCKSDB_LIB_DIR (ADR-0003).
#
# Usage: . deploy/dev/setup.sh    in a script: sets and exports what Cargo needs; ends the script if it cannot
#        make shell               the same for a terminal
set -euo pipefail

nora_cache="${NORA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nora}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

if ! command -v cargo >/dev/null 2>&1; then
  if [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; else
    echo "NORA is built with Rust and 'cargo' was not found. Install it from https://rustup.rs and run this again." >&2
    exit 1
  fi
fi

rust_version_min="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/../../Cargo.toml")"
rust_version="$(rustc --version | cut -d ' ' -f 2)"
if [ "$(printf '%s\n' "$rust_version_min" "$rust_version" | sort -V | head -n 1)" != "$rust_version_min" ]; then
  echo "NORA needs Rust $rust_version_min or newer, this is $rust_version. 'rustup update stable' brings it." >&2
  exit 1
fi

# apt_install PACKAGE...: installs Debian packages, as root or through sudo; says what to do where neither works.
apt_install() {
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing: $*. This is not a Debian or Ubuntu machine: install them with its package manager and run this again." >&2
    exit 1
  fi
  local as_root=""
  if [ "$(id -u)" != 0 ]; then
    as_root="sudo"
    command -v sudo >/dev/null 2>&1 || { echo "missing: $*. Install them as root and run this again." >&2; exit 1; }
  fi
  mkdir -p "$nora_cache"
  echo "installing $* (log: $nora_cache/apt.log)" >&2
  { $as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$@"; } \
    >>"$nora_cache/apt.log" 2>&1 || { tail -n 20 "$nora_cache/apt.log" >&2; exit 1; }
}

# bindgen-runtime opens libclang.so (or libclang-NN.so) at build time; headers come with the clang package's resources.
has_libclang() {
  # `ls` fails for each pattern that matches nothing; only what it did find counts.
  { ls "${LIBCLANG_PATH:-/nonexistent}"/libclang*.so* /usr/lib/llvm-*/lib/libclang*.so* \
       /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* 2>/dev/null || true; } | grep -qv 'libclang-cpp'
}

missing=()
has_libclang || missing+=(libclang-dev clang)
command -v c++ >/dev/null 2>&1 || missing+=(g++)
command -v cmake >/dev/null 2>&1 || missing+=(cmake)   # aws-lc, the cryptography behind rustls
command -v curl >/dev/null 2>&1 || missing+=(curl)
if [ ${#missing[@]} -gt 0 ]; then apt_install "${missing[@]}"; fi

# locked NAME: the version of a crate that Cargo.lock holds.
locked() { sed -n "/^name = \"$1\"\$/{n;s/^version = \"\(.*\)\"/\1/p;}" "$here/../../Cargo.lock"; }

host="$(rustc -vV | sed -n 's/^host: //p')"
rocksdb_version="$(locked rocksdb)"
rocksdb_sys_version="$(locked librocksdb-sys)"        # carries the C++ version behind a plus sign
rocksdb_dir="$nora_cache/rocksdb-$rocksdb_version-lz4-$host"

# The library links with bindings of its own version alone.
rocksdb_is_built() {
  [ -f "$rocksdb_dir/librocksdb.a" ] && [ "$(cat "$rocksdb_dir/built-from" 2>/dev/null)" = "$rocksdb_sys_version" ]
}

if ! rocksdb_is_built; then
  mkdir -p "$rocksdb_dir"
  exec 9>"$rocksdb_dir/lock"
  flock 9                       # two clones on one machine build it once
  if ! rocksdb_is_built; then
    echo "building RocksDB once for this machine: about 20 CPU minutes (log: $rocksdb_dir/build.log)" >&2
    mkdir -p "$rocksdb_dir/build/src"
    : >"$rocksdb_dir/build/src/lib.rs"
    cat >"$rocksdb_dir/build/Cargo.toml" <<TOML
[package]
name = "rocksdb-static"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
rocksdb = { version = "=$rocksdb_version", default-features = false, features = ["bindgen-runtime", "lz4"] }
librocksdb-sys = { version = "=${rocksdb_sys_version%+*}", default-features = false }
[profile.release]
debug = false
TOML
    if ! (cd "$rocksdb_dir/build" && env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC \
          cargo build --release --target-dir target >"$rocksdb_dir/build.log" 2>&1); then
      tail -n 30 "$rocksdb_dir/build.log" >&2
      echo "RocksDB did not build; the whole log is $rocksdb_dir/build.log" >&2
      exit 1
    fi
    built="$(find "$rocksdb_dir/build/target/release/build" -name librocksdb.a | head -n 1)"
    cp "$built" "$rocksdb_dir/librocksdb.a.part"
    mv "$rocksdb_dir/librocksdb.a.part" "$rocksdb_dir/librocksdb.a"
    echo "$rocksdb_sys_version" >"$rocksdb_dir/built-from"
    rm -rf "$rocksdb_dir/build"
  fi
  flock -u 9
fi

export ROCKSDB_LIB_DIR="$rocksdb_dir" ROCKSDB_STATIC=1
# Tests, lints and the server share one folder outside the clone: a fresh clone of the same machine starts warm.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$nora_cache/target}"
export NORA_CACHE="$nora_cache" NORA_DEV_DIR="$here"

# Cargo tells fresh from stale by the files' times and names a workspace crate's output by its place in the workspace, not
# by the clone. After another clone built here, what it left would pass as this clone's: other sources, and paths into a
# folder that may be gone. Of the workspace's own crates nothing is kept then; dependencies are.
clone="$(cd "$here/../.." && pwd -P)"
if [ -d "$CARGO_TARGET_DIR" ] && [ "$(cat "$CARGO_TARGET_DIR/clone" 2>/dev/null)" != "$clone" ]; then
  (
    cd "$clone"
    members="$(cargo tree --quiet --workspace --depth 0 --prefix none | awk 'NF { print "-p", $1 }' | sort -u)"
    for profile in dev release dist; do cargo clean --quiet --profile "$profile" $members; done
  )
fi
mkdir -p "$CARGO_TARGET_DIR"
printf '%s\n' "$clone" >"$CARGO_TARGET_DIR/clone"
