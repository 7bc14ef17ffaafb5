#!/usr/bin/env bash
# buildah and podman: images built, pushed, pulled into a store and looked into. Sourced by run.sh.
#
# No container is started: what is tested is the registry, and a machine that tests it may forbid namespaces.

checks+=(buildah_build buildah_index podman_pull podman_push)

store=(--root "$work/store" --runroot "$work/run/store" --storage-driver vfs)
buildahs() { local verb="$1"; shift; "${limit[@]}" buildah "${store[@]}" "$verb" "$@"; }
podmans() { "${limit[@]}" podman "${store[@]}" "$@"; }

check_buildah_build() {
  local container digest format
  container="$(buildahs from scratch)"
  buildahs copy "$container" "$(command -v busybox)" /bin/busybox
  buildahs config --entrypoint '["/bin/busybox"]' --cmd echo --label made=here "$container"
  for format in oci docker; do
    buildahs commit --quiet --format "$format" "$container" "built:$format"
    buildahs push --quiet --tls-verify=false --format "$format" --digestfile "$work/pushed" "built:$format" "docker://$reg/buildah/$format:v1"
    digest="$(cat "$work/pushed")"
    same_digest "$digest" "$(crane digest "$reg/buildah/$format:v1")"
    crane config "$reg/buildah/$format:v1" | grep -q '"made":"here"'
  done
  buildahs rm "$container"
  buildahs rmi --all --force
  buildahs pull --quiet --tls-verify=false "docker://$reg/buildah/oci:v1"
  buildahs inspect --type image "$reg/buildah/oci:v1" | grep -q "$(crane digest "$reg/buildah/oci:v1")"
}

# An index of two images, put together here and pushed with them as OCI and as a Docker list.
check_buildah_index() {
  local platform format
  buildahs manifest create both
  for platform in amd64 arm64; do
    buildahs manifest add --tls-verify=false --arch "$platform" both "docker://$reg/real/docker:$platform"
  done
  for format in oci v2s2; do
    buildahs manifest push --all --quiet --tls-verify=false --format "$format" --digestfile "$work/pushed" \
      both "docker://$reg/buildah/both:$format"
    same_digest "$(cat "$work/pushed")" "$(crane digest "$reg/buildah/both:$format")"
    "${limit[@]}" crane validate --remote "$reg/buildah/both:$format"
  done
  crane manifest "$reg/buildah/both:oci" | grep -q '"application/vnd.oci.image.index.v1+json"'
  crane config --platform linux/arm64 "$reg/buildah/both:oci" | grep -q '"architecture":"arm64"'
}

# A pulled image holds the files that its layers were made of, the large one included.
check_podman_pull() {
  podmans pull --quiet --tls-verify=false "$reg/real/oci:v1"
  podmans image inspect "$reg/real/oci:v1" | grep -q "$(crane digest "$reg/real/oci:v1")"
  podmans save --quiet --format oci-dir --output "$work/saved" "$reg/real/oci:v1"
  local layer
  layer="$(tar --to-stdout -xzf "$work/layers/large.tar.gz" data/random | sha256sum)"
  tar --to-stdout -xf "$(largest_file "$work/saved")" --wildcards '*data/random' | sha256sum | grep -qx "$layer"
  podmans pull --quiet --tls-verify=false --arch arm64 "$reg/real/index:v1"
  podmans image inspect --format '{{.Architecture}}' "$reg/real/index:v1" | grep -qx arm64
  rm -rf "$work/saved"
}

largest_file() { find "$1" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-; }

check_podman_push() {
  podmans pull --quiet --tls-verify=false "$reg/real/docker:v1"
  podmans tag "$reg/real/docker:v1" "$reg/podman/again:v1"
  podmans push --quiet --tls-verify=false --digestfile "$work/pushed" "$reg/podman/again:v1"
  same_digest "$(cat "$work/pushed")" "$(crane digest "$reg/podman/again:v1")"
  podmans rmi --force "$reg/podman/again:v1" "$reg/real/docker:v1"
  podmans pull --quiet --tls-verify=false "$reg/podman/again:v1"
  podmans search --tls-verify=false --list-tags "$reg/podman/again" | grep -qw v1
}
