# Every target sets its machine up first (deploy/dev/setup.sh): on a Debian or Ubuntu machine with a Rust toolchain
# nothing else has to be installed by hand. CI runs `make test` and nothing more.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test conformance interop bench fix shell

setup = . deploy/dev/setup.sh

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start one node on 127.0.0.1:4000, data in ./nora-data; ARGS="--listen …" is passed on
	@$(setup); echo "building NORA (release); the first time takes some minutes" >&2; \
	  exec cargo run --quiet --release --bin nora -- serve $(ARGS)

test: ## everything that CI runs: format, lints, tests, architecture, dependencies, OCI conformance, real clients
	@exec deploy/dev/verify.sh

conformance: ## the OCI distribution conformance tests against a node of its own
	@$(setup); cargo build --quiet --bin nora; exec cluster-tests/conformance/run.sh

interop: ## crane, skopeo, oras, buildah and podman against a node of its own
	@$(setup); cargo build --quiet --bin nora; exec cluster-tests/interop/run.sh

bench: ## measure a release build on this machine
	@$(setup); cargo build --quiet --release --bin nora; exec cluster-tests/bench/run.sh

fix: ## format the code and apply what the lints can mend by themselves
	@exec deploy/dev/fix.sh

shell: ## a shell in which cargo finds what these targets find
	@$(setup); exec bash
