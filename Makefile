# Every target sets its machine up first (deploy/dev/setup.sh): on a Debian or Ubuntu machine with a Rust toolchain
# nothing else has to be installed by hand. CI runs `make test` and nothing more.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run cluster test conformance interop chaos mutants attacks bench bench-cluster bench-auth fix shell

setup = . deploy/dev/setup.sh

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start one node on 127.0.0.1:4000, data in ./nora-data; ARGS="--listen …" is passed on
	@$(setup); echo "building NORA (release); the first time takes some minutes" >&2; \
	  exec cargo run --quiet --release --bin nora -- serve $(ARGS)

cluster: ## start three nodes on 127.0.0.1, ports 4000, 4010 and 4020, data in ./nora-cluster
	@$(setup); echo "building NORA (release); the first time takes some minutes" >&2; \
	  cargo build --quiet --release --bin nora; exec deploy/dev/cluster.sh

test: ## everything that CI runs: format, lints, tests, architecture, dependencies, OCI conformance, real clients
	@exec deploy/dev/verify.sh

conformance: ## the OCI distribution conformance tests against one node and against three behind a load balancer
	@$(setup); cargo build --quiet --bin nora; cluster-tests/conformance/run.sh; \
	  cluster-tests/conformance/run.sh local; cluster-tests/conformance/run.sh s3

interop: ## crane, skopeo, oras, buildah and podman against a node of its own
	@$(setup); cargo build --quiet --bin nora; exec cluster-tests/interop/run.sh

chaos: ## a real cluster of three under faults; ARGS="--faults 1000 --minutes 30 --seed 1 --report FILE"
	@$(setup); cargo build --quiet --bin nora; cargo build --quiet -p nora-cluster-tests --bin nora-chaos; \
	  exec "$$CARGO_TARGET_DIR/debug/nora-chaos" --nora "$$CARGO_TARGET_DIR/debug/nora" $(ARGS)

mutants: ## break the product in one place after another and demand that tests notice; ARGS="NAME..." takes some
	@$(setup); exec cluster-tests/mutants/run.sh $(ARGS)

attacks: ## attack a node with what strangers can hold open, and measure what its other clients see
	@$(setup); cargo build --quiet --release --bin nora; \
	  cargo build --quiet --release -p nora-cluster-tests --bin nora-attacks; \
	  exec "$$CARGO_TARGET_DIR/release/nora-attacks" --nora "$$CARGO_TARGET_DIR/release/nora" \
	  --work "$$CARGO_TARGET_DIR/attacked" $(ARGS)

bench: ## measure what is shipped on this machine
	@$(setup); cargo build --quiet --profile dist --bin nora; exec cluster-tests/bench/run.sh

bench-cluster: ## measure a cluster of three beside etcd; BENCH_QUICK=1 only shows that everything works
	@$(setup); cargo build --quiet --profile dist --bin nora; exec cluster-tests/bench/cluster.sh

bench-auth: ## measure what logins and permissions cost; BENCH_QUICK=1 only shows that everything works
	@$(setup); cargo build --quiet --profile dist --bin nora; exec cluster-tests/bench/auth.sh

fix: ## format the code and apply what the lints can mend by themselves
	@exec deploy/dev/fix.sh

shell: ## a shell in which cargo finds what these targets find
	@$(setup); exec bash
