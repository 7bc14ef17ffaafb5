#!/usr/bin/env bash
# oras: artifacts that are no images, and what refers to what. Sourced by run.sh.

checks+=(oras_artifact oras_referrers oras_copy oras_delete)

orasp() { local verb="$1"; shift; "${limit[@]}" oras "$verb" --plain-http "$@"; }

check_oras_artifact() {
  mkdir -p "$work/oras" && cd "$work/oras"
  printf '{"answer": 42}\n' >answer.json
  : >empty
  cp "$work/layers/large.tar.gz" large.bin
  orasp push "$reg/oras/artifact:v1" --artifact-type application/vnd.example.thing \
    --annotation org.example.note=hello answer.json:application/json empty large.bin
  orasp pull "$reg/oras/artifact:v1" --output pulled
  cmp answer.json pulled/answer.json
  cmp empty pulled/empty
  cmp large.bin pulled/large.bin
  "${limit[@]}" oras manifest fetch --plain-http "$reg/oras/artifact:v1" | grep -q '"artifactType":"application/vnd.example.thing"'
  same_digest "$(orasp resolve "$reg/oras/artifact:v1")" "$(crane digest "$reg/oras/artifact:v1")"
  cd "$work" && rm -rf "$work/oras"
}

# A signature and an SBOM on an image; one of them has something attached itself.
check_oras_referrers() {
  mkdir -p "$work/refer" && cd "$work/refer"
  echo signature >signature.txt
  echo sbom >sbom.json
  crane copy "$reg/real/docker:v1" "$reg/oras/subject:v1"
  orasp attach "$reg/oras/subject:v1" --artifact-type application/vnd.example.signature signature.txt
  orasp attach "$reg/oras/subject:v1" --artifact-type application/vnd.example.sbom --annotation a=b sbom.json --format json >attached.json
  orasp attach "$reg/oras/subject@$(sed -n 's/.*"digest": "\(sha256:[0-9a-f]*\)".*/\1/p' attached.json | head -n 1)" \
    --artifact-type application/vnd.example.signature signature.txt
  orasp discover "$reg/oras/subject:v1" --format tree | tee tree.txt
  [ "$(grep -c 'application/vnd.example.signature' tree.txt)" = 2 ]
  [ "$(grep -c 'application/vnd.example.sbom' tree.txt)" = 1 ]
  orasp discover "$reg/oras/subject:v1" --artifact-type application/vnd.example.sbom --format json | tee sboms.json
  grep -q 'vnd.example.sbom' sboms.json
  ! grep -q '"artifactType": "application/vnd.example.signature"' <(head -n 20 sboms.json)
  cd "$work" && rm -rf "$work/refer"
}

# An artifact and all that refers to it, recursively.
check_oras_copy() {
  mkdir -p "$work/copied" && cd "$work/copied"
  echo a >a.txt
  orasp push "$reg/oras/source:v1" a.txt
  orasp attach "$reg/oras/source:v1" --artifact-type application/vnd.example.signature a.txt
  "${limit[@]}" oras cp --recursive --from-plain-http --to-plain-http "$reg/oras/source:v1" "$reg/oras/target:v1"
  orasp discover "$reg/oras/target:v1" --format tree | grep -q 'application/vnd.example.signature'
  same_digest "$(orasp resolve "$reg/oras/source:v1")" "$(orasp resolve "$reg/oras/target:v1")"
  # By way of a layout on disk.
  "${limit[@]}" oras cp --from-plain-http --to-oci-layout "$reg/oras/source:v1" layout:v1
  "${limit[@]}" oras cp --from-oci-layout --to-plain-http layout:v1 "$reg/oras/layout:v1"
  same_digest "$(orasp resolve "$reg/oras/source:v1")" "$(orasp resolve "$reg/oras/layout:v1")"
  cd "$work" && rm -rf "$work/copied"
}

check_oras_delete() {
  mkdir -p "$work/deleted" && cd "$work/deleted"
  echo "to be deleted" >a.txt
  orasp push "$reg/oras/delete:v1" a.txt
  local blob
  blob="sha256:$(sha256 a.txt)"
  "${limit[@]}" oras blob fetch --plain-http "$reg/oras/delete@$blob" --output - | cmp - a.txt
  "${limit[@]}" oras manifest delete --plain-http --force "$reg/oras/delete:v1"
  fails orasp resolve "$reg/oras/delete:v1"
  "${limit[@]}" oras blob delete --plain-http --force "$reg/oras/delete@$blob"
  fails "${limit[@]}" oras blob fetch --plain-http "$reg/oras/delete@$blob" --output -
  # The same bytes can come back.
  orasp push "$reg/oras/delete:v2" a.txt
  "${limit[@]}" oras blob fetch --plain-http "$reg/oras/delete@$blob" --output - | cmp - a.txt
  "${limit[@]}" oras repo tags --plain-http "$reg/oras/delete" | grep -qx v2
  cd "$work" && rm -rf "$work/deleted"
}
