#!/usr/bin/env bash
# The programs that the checks need beyond Cargo, at pinned versions, fetched once a machine into $NORA_CACHE/tools:
# the OCI conformance program, real clients, S3 servers, and cargo-deny. Nothing is skipped: what cannot be had ends the
# run with what to do about it.
#
# Usage: . deploy/dev/setup.sh; . deploy/dev/tools.sh; need crane oras skopeo …

conformance_version=v0.0.0-20260831232431-97274622c111
crane_version=v0.22.1
oras_version=v1.3.6
regctl_version=v0.11.7
versitygw_version=v1.8.0
minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
cargo_deny_version=0.20.2
go_version=1.26.8               # oras asks for 1.26.7 at least
node_version=20.20.2            # the login action runs on Node.js 20 or newer
declare -A node_sha512=(
  [x64]=3de1d033cc007661ed640d66068732819c6ce4b8945adb097b3413901774898f7cecaa46ac3d4edad544c9dbcc662b9771e45a9f1b7bae34e70c407038fba3a1
  [arm64]=2c25c99cd4c58b21ae601c36819488e4e04531b92300fb7cb2a0ff34aad6a04d90983812b9b4ea16783a19a349f4427c1e9c413067165a96db72ce15a3e0a71a
)

tools="$NORA_CACHE/tools"

# need NAME...: makes each program callable by its name, or ends the script.
need() {
  local name
  local packages=()
  for name in "$@"; do
    case "$name" in
      conformance) go_tool "$name" "github.com/opencontainers/distribution-spec/conformance@$conformance_version" ;;
      crane) go_tool "$name" "github.com/google/go-containerregistry/cmd/crane@$crane_version" ;;
      oras) go_tool "$name" "oras.land/oras/cmd/oras@$oras_version" ;;
      regctl) go_tool "$name" "github.com/regclient/regclient/cmd/regctl@$regctl_version" ;;
      versitygw) go_tool "$name" "github.com/versity/versitygw/cmd/versitygw@$versitygw_version" ;;
      minio) go_tool "$name" "github.com/minio/minio@$minio_version" ;;
      cargo-deny) cargo_tool "$name" "$cargo_deny_version" ;;
      node) node_tool ;;
      ip) has ip || packages+=(iproute2) ;;
      unshare) has unshare || packages+=(util-linux) ;;
      busybox) has busybox || packages+=(busybox-static) ;;
      newuidmap) has newuidmap || packages+=(uidmap) ;;
      etcd) has etcd || unpacked etcd etcd-server usr/bin/etcd ;;
      etcdctl) has etcdctl || packages+=(etcd-client) ;;
      *) has "$name" || packages+=("$name") ;;      # the package is named after its program
    esac
  done
  if [ ${#packages[@]} -gt 0 ]; then apt_install "${packages[@]}"; fi
}

has() { command -v "$1" >/dev/null 2>&1; }

# unpacked NAME PACKAGE PATH: a program of a Debian package that would start a service when it is installed. It is only
# unpacked here, and run from there.
unpacked() {
  local dir="$tools/$1"
  if [ ! -x "$dir/$1" ]; then
    mkdir -p "$dir"
    if ! (cd "$dir" && apt-get download "$2" && dpkg -x "$2"_*.deb root) >"$dir/log" 2>&1; then
      tail -n 5 "$dir/log" >&2
      echo "$1 could not be fetched: install it and run this again" >&2
      exit 1
    fi
    mv "$dir/root/$3" "$dir/$1"
    rm -rf "$dir/root"
  fi
  PATH="$dir:$PATH"
}

# go_tool NAME MODULE@VERSION
go_tool() {
  local dir="$tools/$1-${2##*@}"
  if [ ! -x "$dir/$1" ]; then
    need_go
    once "$dir" "$1" env GOBIN="$dir" GOFLAGS="" GOTOOLCHAIN=local go install "$2"
  fi
  PATH="$dir:$PATH"
}

# cargo_tool NAME VERSION
cargo_tool() {
  local dir="$tools/$1-$2"
  if [ ! -x "$dir/bin/$1" ]; then
    # A debug build takes half the time of a release build and answers as fast on a tree of this size.
    once "$dir" "bin/$1" env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$dir/build" \
      cargo install --debug --locked --no-default-features --version "$2" --root "$dir" "$1"
    rm -rf "$dir/build"
  fi
  PATH="$dir/bin:$PATH"
}

# node_tool: the machine's Node.js, or if that is too old (Debian 12 has 18) the one that the npm registry has as a package.
node_tool() {
  local arch dir="$tools/node-$node_version" have
  have="$({ node --version 2>/dev/null || true; } | sed 's/^v\([0-9]*\).*/\1/')"
  if [ "${have:-0}" -ge "${node_version%%.*}" ]; then return; fi
  case "$(uname -m)" in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) echo "there is no Node.js ${node_version%%.*} to fetch for $(uname -m): install it and run this again" >&2; exit 1 ;;
  esac
  if [ ! -x "$dir/bin/node" ]; then
    has curl || apt_install curl ca-certificates
    once "$dir" bin/node fetch_node "$dir" "node-linux-$arch" "${node_sha512[$arch]}"
  fi
  PATH="$dir/bin:$PATH"
}

# fetch_node DIR PACKAGE SHA512
fetch_node() {
  curl --silent --show-error --fail --location --output "$1/package.tgz" \
    "https://registry.npmjs.org/$2/-/$2-$node_version.tgz" &&
    echo "$3  $1/package.tgz" | sha512sum --check --quiet &&
    mkdir -p "$1/bin" && tar -xzf "$1/package.tgz" -O package/bin/node >"$1/bin/node.part" &&
    chmod +x "$1/bin/node.part" && mv "$1/bin/node.part" "$1/bin/node" && rm "$1/package.tgz"
}

# once DIR FILE COMMAND...: runs a command that makes DIR/FILE, one process at a time, its output in DIR/log.
once() {
  local dir="$1" file="$2" lock
  shift 2
  mkdir -p "$dir"
  exec {lock}>"$dir/lock"
  flock "$lock"
  if [ ! -x "$dir/$file" ]; then
    echo "making $(basename "$dir") once for this machine (log: $dir/log)" >&2
    if ! "$@" >"$dir/log" 2>&1; then
      tail -n 20 "$dir/log" >&2
      echo "$(basename "$dir") could not be made; the whole log is $dir/log" >&2
      exit 1
    fi
  fi
  exec {lock}>&-
}

# need_go: Go $go_version or newer. An older one, such as Debian's, can still fetch a newer toolchain: it is a module on
# the module proxy, verified against the checksum database. Go 1.21 does that by itself; older ones are shown how.
need_go() {
  if [ -x /usr/local/go/bin/go ]; then PATH="$PATH:/usr/local/go/bin"; fi
  has go || apt_install golang-go ca-certificates
  local have
  have="$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')"
  if [ "$(printf '%s\n' "$go_version" "$have" | sort -V | head -n 1)" = "$go_version" ]; then return; fi
  local module
  module="golang.org/toolchain@v0.0.1-go$go_version.$(go env GOOS)-$(go env GOARCH)"
  echo "fetching Go $go_version (this machine has $have)" >&2
  mkdir -p "$tools"
  if ! GOTOOLCHAIN=local GOFLAGS="" go mod download "$module" >"$tools/go.log" 2>&1; then
    tail -n 5 "$tools/go.log" >&2
    echo "Real clients are built with Go $go_version or newer. Install it from https://go.dev/dl and run this again." >&2
    exit 1
  fi
  local root
  root="$(go env GOMODCACHE)/$module"
  chmod +x "$root"/bin/* "$root"/pkg/tool/*/* 2>/dev/null || true
  PATH="$root/bin:$PATH"
}

# last_release: sets `release` to the program of the last release, built once a machine from the commit that CHANGELOG.md
# names for it. Its build shares nothing with the tree at hand.
last_release() {
  local root commit dir
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
  commit="$(sed -n 's/^Commit `\([0-9a-f]\{40\}\)`.*/\1/p' "$root/CHANGELOG.md" | head -n 1)"
  if [ -z "$commit" ]; then echo "CHANGELOG.md names no commit for the last release" >&2; exit 1; fi
  dir="$tools/nora-${commit:0:12}"
  release="$dir/nora"
  if [ -x "$release" ]; then return; fi
  if ! git -C "$root" cat-file -e "$commit^{commit}" 2>/dev/null &&
      ! git -C "$root" fetch --quiet --depth 1 origin "$commit"; then
    echo "the last release is commit $commit, which this clone has not got: 'git fetch --unshallow' brings it" >&2
    exit 1
  fi
  once "$dir" nora build_release "$root" "$commit" "$dir"
}

build_release() {
  rm -rf "$3/source"
  mkdir -p "$3/source"
  git -C "$1" archive "$2" | tar -x -C "$3/source"
  # With its own set-up: it may need another RocksDB. How fast it runs does not matter, how fast it is built does.
  (cd "$3/source" && export CARGO_TARGET_DIR="$3/build" && . deploy/dev/setup.sh &&
    cargo build --quiet --locked --bin nora --config profile.dev.opt-level=0 \
      --config 'profile.dev.package."*".opt-level=0' --config profile.dev.debug=false)
  strip -o "$3/nora" "$3/build/debug/nora"
  rm -rf "$3/build" "$3/source"
}
