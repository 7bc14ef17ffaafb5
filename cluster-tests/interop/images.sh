#!/usr/bin/env bash
# What the checks push: layers of real files, images and an index made of them. Sourced by run.sh.
#
# layers/system.tar.gz   programs and documents of this machine
# layers/large.tar.gz    over 100 MiB that do not compress
# layers/config.tar.gz   /etc-like small files

checks=()
limit=(timeout 180)

large_layer_bytes_min=$((100 * 1024 * 1024))

sha256() { sha256sum "$1" | cut -d ' ' -f 1; }

# same_digest A B…: fails unless all are the same and look like a digest.
same_digest() {
  local first="$1" other
  [[ "$first" =~ ^sha(256|512):[0-9a-f]{64,128}$ ]]
  for other in "$@"; do [ "$other" = "$first" ]; done
}

# fails COMMAND…: for what must be refused.
fails() { if "$@"; then echo "must fail: $*"; return 1; fi; }

# Tar archives that are the same bytes in every run on the same files.
pack() {
  local out="$1"
  shift
  tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --ignore-failed-read "$@" 2>/dev/null \
    | gzip --no-name -"${level:-6}" >"$out"
}

make_layers() {
  mkdir -p "$work/layers" "$work/large/data" "$work/config/etc"
  pack "$work/layers/system.tar.gz" --directory / usr/share/perl5 usr/bin/perl usr/share/common-licenses bin/busybox
  head -c $((large_layer_bytes_min + 4096)) /dev/urandom >"$work/large/data/random"
  level=1 pack "$work/layers/large.tar.gz" --directory "$work/large" data
  printf 'nora:x:1000:1000::/:/bin/sh\n' >"$work/config/etc/passwd"
  date -u +%s.%N >"$work/config/etc/made-at"
  pack "$work/layers/config.tar.gz" --directory "$work/config" etc
  rm -rf "$work/large"
  [ "$(stat -c %s "$work/layers/large.tar.gz")" -gt $large_layer_bytes_min ]
}

# The images that several checks start from. Nothing works if these cannot be pushed, so the run ends here.
push_images() {
  if ! "${limit[@]}" bash -euc '
    crane append --oci-empty-base -f "$1/layers/system.tar.gz" -f "$1/layers/large.tar.gz" -f "$1/layers/config.tar.gz" \
      -t "$2/real/oci:v1"
    crane append -f "$1/layers/system.tar.gz" -f "$1/layers/config.tar.gz" -t "$2/real/docker:v1"
    for platform in amd64 arm64; do
      crane mutate --set-platform "linux/$platform" -t "$2/real/docker:$platform" "$2/real/docker:v1"
      crane mutate --set-platform "linux/$platform" -t "$2/real/index:$platform" "$2/real/oci:v1"
    done
    crane index append --docker-empty-base -m "$2/real/docker:amd64" -m "$2/real/docker:arm64" -t "$2/real/list:v1"
    crane index append -m "$2/real/index:amd64" -m "$2/real/index:arm64" -t "$2/real/index:v1"
  ' push "$work" "$reg" >"$report/images.log" 2>&1; then
    tail -n 20 "$report/images.log"
    echo "the images that all checks need could not be pushed (log: $report/images.log)"
    exit 1
  fi
}
