#!/usr/bin/env bash
# skopeo: copies between layouts, formats and registries. Sourced by run.sh.

checks+=(skopeo_oci skopeo_docker skopeo_index skopeo_sync skopeo_lists_deletes)

skopeo_copy() {
  "${limit[@]}" skopeo --insecure-policy copy --quiet --src-tls-verify=false --dest-tls-verify=false "$@"
}
skopeo_digest() { skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$1"; }

# A layout out of the registry, into it again, and out once more: both layouts hold the same files.
check_skopeo_oci() {
  skopeo_copy --preserve-digests "docker://$reg/real/oci:v1" "oci:$work/skopeo-a:v1"
  skopeo_copy --preserve-digests "oci:$work/skopeo-a:v1" "docker://$reg/skopeo/oci:v1"
  skopeo_copy --preserve-digests "docker://$reg/skopeo/oci:v1" "oci:$work/skopeo-b:v1"
  diff --recursive "$work/skopeo-a" "$work/skopeo-b"
  same_digest "$(skopeo_digest "$reg/real/oci:v1")" "$(skopeo_digest "$reg/skopeo/oci:v1")"
  rm -rf "$work/skopeo-a" "$work/skopeo-b"
}

# Docker schema 2, both ways: skopeo converts, the registry must not.
check_skopeo_docker() {
  skopeo_copy --format v2s2 "docker://$reg/real/oci:v1" "docker://$reg/skopeo/docker:v1"
  skopeo inspect --raw --tls-verify=false "docker://$reg/skopeo/docker:v1" >"$work/v2s2.json"
  grep -q '"application/vnd.docker.distribution.manifest.v2+json"' "$work/v2s2.json"
  same_digest "$(skopeo_digest "$reg/skopeo/docker:v1")" "sha256:$(sha256 "$work/v2s2.json")"
  skopeo_copy --preserve-digests "docker://$reg/skopeo/docker:v1" "dir:$work/skopeo-dir"
  cmp "$work/v2s2.json" "$work/skopeo-dir/manifest.json"
  cmp "$work/layers/large.tar.gz" "$work/skopeo-dir/$(sha256 "$work/layers/large.tar.gz")"
  skopeo_copy --format oci "dir:$work/skopeo-dir" "docker://$reg/skopeo/docker:oci"
  skopeo inspect --raw --tls-verify=false "docker://$reg/skopeo/docker:oci" | grep -q '"application/vnd.oci.image.manifest.v1+json"'
  rm -rf "$work/skopeo-dir"
}

# All platforms at once, from one registry's repository into another and into a folder.
check_skopeo_index() {
  skopeo_copy --all --preserve-digests "docker://$reg/real/list:v1" "docker://$reg/skopeo/list:v1"
  same_digest "$(crane digest "$reg/real/list:v1")" "$(crane digest "$reg/skopeo/list:v1")"
  skopeo_copy --all --preserve-digests "docker://$reg/skopeo/list:v1" "dir:$work/skopeo-list"
  same_digest "$(crane digest "$reg/real/list:v1")" "sha256:$(sha256 "$work/skopeo-list/manifest.json")"
  # skopeo writes an index that names artifact types anew, so its digest may change; the images' do not.
  skopeo_copy --all "docker://$reg/real/index:v1" "oci:$work/skopeo-index:v1"
  skopeo_copy --all "oci:$work/skopeo-index:v1" "docker://$reg/skopeo/index:v1"
  same_digest "$(crane digest "$reg/real/index:arm64")" "$(crane digest --platform linux/arm64 "$reg/skopeo/index:v1")"
  skopeo --override-arch arm64 inspect --tls-verify=false "docker://$reg/skopeo/index:v1" | grep -q '"Architecture": "arm64"'
  rm -rf "$work/skopeo-index" "$work/skopeo-list"
}

# Every tag of a repository into a directory, and from there to another repository.
check_skopeo_sync() {
  skopeo_copy "docker://$reg/real/docker:v1" "docker://$reg/skopeo/from:one"
  skopeo_copy "docker://$reg/real/docker:v1" "docker://$reg/skopeo/from:two"
  "${limit[@]}" skopeo --insecure-policy sync --src-tls-verify=false --src docker --dest dir "$reg/skopeo/from" "$work/synced"
  [ "$(find "$work/synced" -name manifest.json | wc -l)" = 2 ]
  "${limit[@]}" skopeo --insecure-policy sync --dest-tls-verify=false --src dir --dest docker "$work/synced" "$reg/skopeo/to"
  same_digest "$(skopeo_digest "$reg/skopeo/from:one")" "$(skopeo_digest "$reg/skopeo/to/from:one")"
  rm -rf "$work/synced"
}

check_skopeo_lists_deletes() {
  skopeo_copy "docker://$reg/real/docker:v1" "docker://$reg/skopeo/gone:v1"
  skopeo list-tags --tls-verify=false "docker://$reg/skopeo/gone" | grep -q '"v1"'
  skopeo delete --tls-verify=false "docker://$reg/skopeo/gone:v1"
  fails skopeo_digest "$reg/skopeo/gone:v1"
}
