#!/usr/bin/env bash
# crane: what continuous integration uses to move images. Sourced by run.sh.

checks+=(crane_bytes crane_layout crane_tarball crane_copy crane_mutate crane_index crane_lists crane_delete)

# Each layer comes back as it went in, asked for by digest; the whole image passes crane's own verification.
check_crane_bytes() {
  local layer digest
  for layer in system large config; do
    digest="sha256:$(sha256 "$work/layers/$layer.tar.gz")"
    "${limit[@]}" crane blob "$reg/real/oci@$digest" | cmp - "$work/layers/$layer.tar.gz"
  done
  crane manifest "$reg/real/oci:v1" >"$work/manifest.json"
  same_digest "$(crane digest "$reg/real/oci:v1")" "sha256:$(sha256 "$work/manifest.json")"
  "${limit[@]}" crane validate --remote "$reg/real/oci:v1"
}

check_crane_layout() {
  "${limit[@]}" crane pull --format=oci "$reg/real/oci:v1" "$work/crane-layout"
  "${limit[@]}" crane push "$work/crane-layout" "$reg/crane/layout:v1"
  same_digest "$(crane digest "$reg/real/oci:v1")" "$(crane digest "$reg/crane/layout:v1")"
  rm -rf "$work/crane-layout"
}

check_crane_tarball() {
  "${limit[@]}" crane pull "$reg/real/docker:v1" "$work/crane.tar"
  "${limit[@]}" crane push "$work/crane.tar" "$reg/crane/tarball:v1"
  local digest="sha256:$(sha256 "$work/layers/system.tar.gz")"
  crane manifest "$reg/crane/tarball:v1" | grep -q "$digest"
  rm "$work/crane.tar"
}

# Another repository of the same server: the blobs are mounted, nothing is sent.
check_crane_copy() {
  "${limit[@]}" crane copy "$reg/real/oci:v1" "$reg/crane/copy/deep/er:v2" 2>&1 | tee "$work/copy.log"
  grep -q 'mounted blob' "$work/copy.log"
  same_digest "$(crane digest "$reg/real/oci:v1")" "$(crane digest "$reg/crane/copy/deep/er:v2")"
  "${limit[@]}" crane validate --remote "$reg/crane/copy/deep/er:v2"
}

check_crane_mutate() {
  "${limit[@]}" crane mutate --label org.example=yes --entrypoint /bin/busybox -t "$reg/crane/mutate:v1" "$reg/real/docker:v1"
  crane config "$reg/crane/mutate:v1" | grep -q '"org.example":"yes"'
  crane tag "$reg/crane/mutate:v1" stable
  same_digest "$(crane digest "$reg/crane/mutate:v1")" "$(crane digest "$reg/crane/mutate:stable")"
}

# An OCI index and a Docker manifest list, each with two platforms.
check_crane_index() {
  local kind
  for kind in index list; do
    "${limit[@]}" crane copy "$reg/real/$kind:v1" "$reg/crane/$kind:v1"
    same_digest "$(crane digest "$reg/real/$kind:v1")" "$(crane digest "$reg/crane/$kind:v1")"
    "${limit[@]}" crane validate --remote "$reg/crane/$kind:v1"
  done
  same_digest "$(crane digest --platform linux/arm64 "$reg/crane/list:v1")" "$(crane digest "$reg/real/docker:arm64")"
  crane manifest "$reg/crane/list:v1" | grep -q '"application/vnd.docker.distribution.manifest.list.v2+json"'
  crane manifest "$reg/crane/index:v1" | grep -q '"application/vnd.oci.image.index.v1+json"'
}

check_crane_lists() {
  local tag
  for tag in a b B 1 z.z; do crane tag "$reg/real/docker:v1" "$tag"; done
  diff <(crane ls "$reg/real/docker") <(printf '%s\n' 1 B a amd64 arm64 b v1 z.z)
  crane catalog "$reg" | grep -qx real/oci
  crane catalog "$reg" | grep -qx real/index
}

check_crane_delete() {
  crane copy "$reg/real/docker:v1" "$reg/crane/delete:one"
  crane tag "$reg/crane/delete:one" two
  local digest
  digest="$(crane digest "$reg/crane/delete:one")"
  crane delete "$reg/crane/delete:one"
  fails crane digest "$reg/crane/delete:one"
  same_digest "$digest" "$(crane digest "$reg/crane/delete:two")"
  crane delete "$reg/crane/delete@$digest"
  fails crane digest "$reg/crane/delete:two"
  # What other repositories hold is untouched.
  "${limit[@]}" crane validate --remote "$reg/real/docker:v1"
}
