#!/usr/bin/env bash
# The same server behind its own TLS, with a certificate from an authority that only these checks know. Sourced by run.sh.

checks+=(tls)

make_certificates() {
  cd "$work"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=NORA test authority' \
    -keyout ca.key -out ca.crt
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=127.0.0.1' -keyout tls.key -out tls.csr
  openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out tls.crt \
    -extfile <(printf 'subjectAltName=IP:127.0.0.1\n')
}

# A second node: run_check's subshell owns it, so its end is the subshell's own affair.
check_tls() {
  make_certificates
  local plain="$reg"
  printf '[server]\ntls = { cert = "tls.crt", key = "tls.key" }\n' >"$work/tls.toml"
  node_pid=""
  trap stop_node EXIT
  node_scheme=https node_ca="$work/ca.crt"
  node_data="$work/tls-data" start_node --config "$work/tls.toml"
  export SSL_CERT_FILE="$work/ca.crt"
  "${limit[@]}" crane pull --format=oci "$plain/real/oci:v1" "$work/tls-layout"
  "${limit[@]}" skopeo --insecure-policy copy --quiet "oci:$work/tls-layout" "docker://$node_addr/tls/oci:v1"
  "${limit[@]}" oras resolve "$node_addr/tls/oci:v1"
  "${limit[@]}" crane validate --remote "$node_addr/tls/oci:v1"
  local layer="sha256:$(sha256 "$work/layers/large.tar.gz")"
  curl --silent --fail --cacert "$work/ca.crt" "https://$node_addr/v2/tls/oci/blobs/$layer" | cmp - "$work/layers/large.tar.gz"
  fails curl --silent --fail "http://$node_addr/v2/"
  rm -rf "$work/tls-layout"
}
